//! TLS to callers: which certificate they are shown, what theirs is worth, and what comes of it that
//! is no handshake.
//!
//! rustls decides what is spoken: TLS 1.2 and 1.3 with its own choice of suites, HTTP/2 or HTTP/1.1
//! by ALPN. A session is resumed by tickets alone, so nothing is kept for callers that never come
//! back, and never with early data, which anybody could send twice.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{
    Acceptor, ClientHello, NoServerSessionStorage, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use tokio_rustls::server::TlsStream;

use super::clock;
use super::handshakes::Handshakes;
use crate::policy::caller::certificate::Certificate;
use crate::policy::limit::ConnectionLimits;
use crate::policy::peer::{Asks, HostNames, Secured, Shown};
use crate::policy::x509::Contents;

/// What is spoken over TLS, in the order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What TLS holds at most of what a caller does not read.
const UNREAD_BYTES_MAX: usize = 32 * 1024;

/// How long the word on why a handshake failed is given to arrive: a socket that is closed with bytes
/// unread takes back what was written to it.
const LINGER: Duration = Duration::from_secs(1);

/// How many bytes are read meanwhile.
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// One certificate of a listener, with its key, and the hosts it is for.
#[derive(Clone, Debug)]
pub struct Served {
    /// The chain, and what signs for it.
    pub key: Arc<CertifiedKey>,
    /// The hosts.
    pub hosts: HostNames,
}

/// TLS of one listener; what it proves itself with can be exchanged while it is used.
#[derive(Debug)]
pub struct Listener {
    current: ArcSwap<Material>,
    handshakes: Arc<Handshakes>,
}

/// What handshakes are made with. Tickets are sealed by each for itself: none outlives a change.
#[derive(Debug)]
pub struct Material {
    /// Of each certificate.
    served: Vec<(Served, Arc<ServerConfig>)>,
    hosts: Arc<[HostNames]>,
    /// What vouches for certificates of callers.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    /// Boxed, since it is moved, and room for it would be held in each place it comes by.
    pub(crate) io: Box<TlsStream<S>>,
    pub(crate) secured: Secured,
    pub(crate) speaks_h2: bool,
}

/// A connection that has none.
#[derive(Debug)]
pub(crate) enum Unopened<S> {
    /// It begins like HTTP without TLS: with these bytes.
    Plain(Vec<u8>, S),
    /// Nothing came: a look whether somebody listens, or a connection kept for later.
    Silent,
    /// It takes too long.
    Slow,
    /// The handshake failed, or the caller went.
    Failed,
}

impl Material {
    /// Material of these certificates, at least one. Callers are asked for theirs as `asks` says, and
    /// `client_ca` vouches for them.
    ///
    /// # Errors
    /// What rustls finds wrong.
    pub fn new(
        served: Vec<Served>,
        client_ca: &[CertificateDer<'static>],
        asks: Asks,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let authorities = match client_ca {
            [] => None,
            some => Some(authorities(some, &provider)?),
        };
        let hosts = served.iter().map(|one| one.hosts.clone()).collect();
        let with_config = |one: Served| {
            let config = config(&one, asks, Arc::clone(&provider))?;
            Ok((one, Arc::new(config)))
        };
        let served: Result<Vec<_>, rustls::Error> = served.into_iter().map(with_config).collect();
        Ok(Self {
            served: served?,
            hosts,
            authorities,
        })
    }

    /// Which certificate a caller is shown: one that names the host it wants, else one that matches it
    /// by a wildcard, else the first; of several the first whose key it can verify.
    fn choose(&self, hello: &ClientHello<'_>) -> usize {
        let wanted = hello.server_name().map(str::to_ascii_lowercase);
        let Some(wanted) = &wanted else {
            return 0;
        };
        let find = |fits: fn(&HostNames, &str) -> bool| {
            let fitting = || (0..self.hosts.len()).filter(|at| fits(&self.hosts[*at], wanted));
            let is_known = |at: &usize| {
                let key = &self.served[*at].0.key.key;
                key.choose_scheme(hello.signature_schemes()).is_some()
            };
            fitting().find(is_known).or_else(|| fitting().next())
        };
        find(HostNames::name)
            .or_else(|| find(HostNames::match_by_wildcard))
            .unwrap_or(0)
    }

    /// What a connection whose handshake is done has settled, resumed or not: a ticket brings back the
    /// certificate a caller presented, and what that is worth is judged anew.
    fn secured(&self, session: &ServerConnection, chosen: usize) -> Secured {
        let presented = session.peer_certificates().and_then(<[_]>::split_first);
        let certificate = presented.and_then(|(own, issuers)| {
            let contents = Contents::read(own)?;
            let now = clock::now();
            // Of one that is out of date, too, it is told whether somebody vouched for it.
            let then = contents.nearest_to(now).as_unix();
            let then = UnixTime::since_unix_epoch(Duration::from_secs(then));
            let is_vouched = self.authorities.as_ref().is_some_and(|authorities| {
                authorities.verify_client_cert(own, issuers, then).is_ok()
            });
            Some(Arc::new(Certificate::new(contents, is_vouched, now)))
        });
        Secured {
            certificate,
            shown: Shown::new(Arc::clone(&self.hosts), chosen),
        }
    }
}

fn authorities(
    certificates: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let built = built
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(built)
}

fn config(
    served: &Served,
    asks: Asks,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier: Arc<dyn ClientCertVerifier> = match asks {
        Asks::Never => WebPkiClientVerifier::no_client_auth(),
        Asks::Optionally | Asks::Always => Arc::new(Possession {
            is_required: asks == Asks::Always,
            provider: Arc::clone(&provider),
        }),
    };
    let shown = SingleCertAndKey::from((*served.key).clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12, &TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    config.max_early_data_size = 0;
    Ok(config)
}

impl Listener {
    /// A listener that proves itself with this.
    pub fn new(material: Material, handshakes: Arc<Handshakes>) -> Self {
        Self {
            current: ArcSwap::from_pointee(material),
            handshakes,
        }
    }

    /// Takes other material for the handshakes to come.
    pub fn exchange(&self, material: Material) {
        self.current.store(Arc::new(material));
    }

    /// Makes the handshake of a connection from an address. What `begun` returns is kept while it is
    /// under way.
    pub(crate) async fn open<S, G>(
        &self,
        mut io: S,
        address: IpAddr,
        limits: &ConnectionLimits,
        begun: impl FnOnce() -> G,
    ) -> Result<Opened<S>, Unopened<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // No more than the header of a record, so that a whole hello is never waited for in vain.
        let mut first = [0; 5];
        let count = match timeout(limits.idle_timeout, io.read(&mut first)).await {
            Err(_) | Ok(Err(_) | Ok(0)) => return Err(Unopened::Silent),
            Ok(Ok(count)) => count,
        };
        let first = &first[..count];
        if first[0].is_ascii_alphabetic() {
            return Err(Unopened::Plain(first.to_vec(), io));
        }
        let deadline = Instant::now() + limits.header_timeout;
        let under_way = begun();
        let shaken = timeout_at(deadline, self.shake_hands(first, io, address)).await;
        drop(under_way);
        match shaken {
            Err(_) => Err(Unopened::Slow),
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(io)) => {
                if let Some(io) = io {
                    linger(io).await;
                }
                Err(Unopened::Failed)
            }
        }
    }

    /// Makes the handshake that begins with these bytes. Where it fails, what is left of the connection
    /// comes back; the caller has been told why.
    async fn shake_hands<S>(
        &self,
        mut first: &[u8],
        io: S,
        address: IpAddr,
    ) -> Result<Opened<S>, Option<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Until this returns.
        let _under_way = self.handshakes.begin(address).await;
        let mut acceptor = Acceptor::default();
        if acceptor.read_tls(&mut first).is_err() {
            return Err(Some(io));
        }
        let mut hello = LazyConfigAcceptor::new(acceptor, io);
        let Ok(started) = (&mut hello).await else {
            return Err(hello.take_io());
        };
        let material = self.current.load_full();
        let chosen = material.choose(&started.client_hello());
        let config = Arc::clone(&material.served[chosen].1);
        // From here on it is arithmetic.
        let answering = async {
            let answered = started.into_stream_with(config, |session| {
                session.set_buffer_limit(Some(UNREAD_BYTES_MAX));
            });
            let io = answered.into_fallible().await.map_err(|(_, io)| Some(io))?;
            let session = io.get_ref().1;
            Ok(Opened {
                secured: material.secured(session, chosen),
                speaks_h2: session.alpn_protocol() == Some(PROTOCOLS[0]),
                io: Box::new(io),
            })
        };
        self.handshakes.in_turns(answering).await
    }
}

/// Ends a connection so that what was written to it arrives.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) {
    let reading = async {
        io.shutdown().await?;
        let mut sink = [0; 1024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match io.read(&mut sink).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whatever comes of it, the connection ends.
    drop(timeout(LINGER, reading).await);
}

/// Asks for the proof that a caller holds the key of the certificate it presents, and for nothing
/// else: who vouches for it is noted after the handshake, since a key may be known by itself.
#[derive(Debug)]
struct Possession {
    is_required: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// None: callers that choose by it would keep back a certificate that is known by its key.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match Contents::read(own) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
