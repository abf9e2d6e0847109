//! Connections to sites: made, pooled for each user, and what it means when they fail.

mod failure;
mod pool;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use pingora::tls::{CertificateDer, ServerName, TlsConnector};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::failure::Failure;
pub(crate) use self::pool::{Pool, PoolKey};
use crate::client::trust::{connector, store, system_authorities};
use crate::policy::site::Site;

/// Bytes both ways, to a site.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Makes connections: over the network, or in memory where the relay itself is tested.
pub(crate) trait Dial: fmt::Debug + Send + Sync {
    /// A new connection to a site at one of its addresses.
    #[expect(clippy::type_complexity, reason = "a boxed future, named once")]
    fn dial<'a>(
        &'a self,
        site: &'a Site,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Failure>> + Send + 'a>>;
}

/// Connects over the network, over TLS with the engine's.
///
/// The handshake is made here and not in the engine's connector, which has one text for whatever goes
/// wrong, one timeout for connecting and for the handshake, and forgets a site's sessions where the
/// site has authorities of its own.
#[derive(Default)]
pub(crate) struct Network {
    /// Of the sites that speak TLS.
    secure: HashMap<Arc<str>, Secure>,
}

/// How a site is spoken to over TLS.
struct Secure {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Network {
    /// Ready to connect to these sites.
    pub(crate) fn new<'s>(sites: impl Iterator<Item = &'s Arc<Site>>) -> Self {
        let mut network = Self::default();
        // Read only where a site is verified against it, and then once.
        let mut system = None;
        for site in sites.filter(|site| site.address.tls) {
            let roots = match &site.address.ca {
                Some(ca) => Arc::new(store(ca.iter().cloned().map(CertificateDer::from))),
                None => Arc::clone(system.get_or_insert_with(|| Arc::new(system_authorities()))),
            };
            if let Ok(name) = ServerName::try_from(site.address.host.clone()) {
                let connector = connector(roots);
                let secure = Secure { connector, name };
                network.secure.insert(Arc::clone(&site.name), secure);
            }
        }
        network
    }

    async fn plain(site: &Site, address: SocketAddr) -> Result<TcpStream, Failure> {
        match timeout(site.timeouts.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it a request's last bytes wait for an acknowledgement; it cannot fail on a
                // socket that is connected.
                drop(stream.set_nodelay(true));
                Ok(stream)
            }
            Ok(Err(error)) => Err(Failure::of_connecting(&error)),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }

    async fn secure(&self, site: &Site, address: SocketAddr) -> Result<Box<dyn Duplex>, Failure> {
        // A host that no certificate can name.
        let secure = self.secure.get(&site.name).ok_or(Failure::TlsName)?;
        let stream = Self::plain(site, address).await?;
        let handshake = secure.connector.connect(secure.name.clone(), stream);
        match timeout(site.timeouts.tls, handshake).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Failure::of_handshake(&error)),
            Err(_) => Err(Failure::TlsTimeout),
        }
    }
}

impl Dial for Network {
    fn dial<'a>(
        &'a self,
        site: &'a Site,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Failure>> + Send + 'a>> {
        // Boxed, so that the task of an idle connection does not hold room for it.
        Box::pin(async move {
            if site.address.tls {
                self.secure(site, address).await
            } else {
                let stream = Self::plain(site, address).await?;
                Ok(Box::new(stream) as Box<dyn Duplex>)
            }
        })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}
