//! TLS before the proxies: one certificate that all three show, and callers that offer one suite and one group, so that
//! whoever chooses chooses the same.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

use crate::Outcome;
use crate::scene::HOST;

/// The chain, the key, and both: each of the three wants it in its way.
pub(crate) const FILES: [&str; 3] = ["certificate.pem", "key.pem", "both.pem"];

/// Self-signed, with a key on P-256.
struct Identity {
    certificate: CertificateDer<'static>,
    /// In the order of [`FILES`].
    texts: [String; 3],
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])
        .expect("a certificate can have this name");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let both = format!("{chain}{key}");
    Identity {
        certificate: made.cert.der().clone(),
        texts: [chain, key, both],
    }
});

/// Writes [`FILES`], for nobody else's eyes.
pub(crate) fn write(folder: &Path) -> Outcome<()> {
    let mut private = OpenOptions::new();
    private.write(true).create_new(true).mode(0o600);
    for (name, text) in FILES.iter().zip(&IDENTITY.texts) {
        let mut file = private.open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// A caller that speaks this protocol, and resumes sessions or makes a full handshake each time.
pub(crate) fn caller(protocol: &str, resumes: bool) -> Outcome<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    };
    let mut trusted = RootCertStore::empty();
    trusted.add(IDENTITY.certificate.clone())?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.resumption = if resumes {
        Resumption::in_memory_sessions(1)
    } else {
        Resumption::disabled()
    };
    Ok(Arc::new(config))
}

/// Makes a handshake, and says whether it resumed a session. What is spoken must be what was asked for.
pub(crate) async fn shake_hands(
    caller: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Outcome<(TlsStream<TcpStream>, bool)> {
    let connector = TlsConnector::from(Arc::clone(caller));
    let stream = connector.connect(HOST.try_into()?, stream).await?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != caller.alpn_protocols.first().map(Vec::as_slice) {
        return Err("another protocol than was asked for".into());
    }
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((stream, is_resumed))
}
