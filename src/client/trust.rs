//! Whom servers that are spoken to over TLS must be vouched for by.

use std::fmt;
use std::sync::Arc;

use pingora::tls::{
    CertificateDer, ClientConfig, RootCertStore, ServerName, TlsConnector,
    install_default_crypto_provider, load_native_certs, version,
};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tracing::warn;

/// What verifies servers: this machine's authorities, or some of a file.
#[derive(Clone)]
pub(crate) struct Trust(TlsConnector);

impl Trust {
    /// In this machine's authorities.
    pub(crate) fn in_system() -> Self {
        Self::from(system_authorities())
    }

    /// In the authorities of a file, in DER.
    pub(crate) fn in_these(authorities: &[Vec<u8>]) -> Self {
        let certificates = authorities.iter().cloned().map(CertificateDer::from);
        Self::from(store(certificates))
    }

    /// The same, with a certificate and its key to present to servers that ask for one.
    ///
    /// # Errors
    /// Why they cannot be used, for people.
    pub(crate) fn presenting(
        authorities: &[Vec<u8>],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let own = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let own = own.map_err(|error| format!("this certificate cannot be presented: {error}"))?;
        let certificates = authorities.iter().cloned().map(CertificateDer::from);
        let mut config = config(Arc::new(store(certificates)));
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    fn from(roots: RootCertStore) -> Self {
        Self(connector(Arc::new(roots)))
    }

    /// A connection over TLS to the server of this name or address.
    ///
    /// # Errors
    /// Why it is not to be trusted, or cannot be spoken to, for people.
    pub(crate) async fn secure<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| "no certificate can name this host".to_owned())?;
        let secure = self.0.connect(name, stream).await;
        secure.map_err(|error| format!("no connection over TLS to {host}: {error}"))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// How one site is spoken to over TLS.
pub(crate) struct SiteTls {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl SiteTls {
    /// With a site of this name or address; `None` for one that no certificate can name.
    pub(crate) fn new(host: &str, roots: Arc<RootCertStore>) -> Option<Self> {
        Some(Self {
            connector: connector(roots),
            name: ServerName::try_from(host.to_owned()).ok()?,
        })
    }
}

impl fmt::Debug for SiteTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteTls").finish_non_exhaustive()
    }
}

/// What makes connections that are verified against these authorities. HTTP/1.1 only: users are never
/// multiplexed on one connection to a site.
fn connector(roots: Arc<RootCertStore>) -> TlsConnector {
    TlsConnector::from(Arc::new(config(roots)))
}

fn config(roots: Arc<RootCertStore>) -> ClientConfig {
    install_default_crypto_provider();
    let versions = [&version::TLS12, &version::TLS13];
    let mut config = ClientConfig::builder_with_protocol_versions(&versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A store of these authorities.
pub(crate) fn store(certificates: impl Iterator<Item = CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Those of a file have been looked at already; of the system's, one that is odd does no harm.
    roots.add_parsable_certificates(certificates);
    roots
}

/// This machine's authorities.
pub(crate) fn system_authorities() -> RootCertStore {
    let found = load_native_certs().unwrap_or_else(|error| {
        warn!(reason = %error.kind(), "this machine's certificate authorities cannot be read; install its CA certificates, or set ca: for each site");
        Vec::new()
    });
    store(found.into_iter())
}
