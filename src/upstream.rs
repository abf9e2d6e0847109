//! Connections to sites: made, pooled for each user, and what it means when they fail.

mod failure;
mod pool;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use pingora::connectors::TransportConnector;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::failure::Failure;
pub(crate) use self::pool::{Pool, PoolKey};
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

/// Connects over the network: the engine's connectors for TLS, plain sockets for sites without.
///
/// One connector for each set of authorities would let sessions resume; the engine takes such a set
/// only as a file, so a site's own authorities go with each connection instead.
#[derive(Default)]
pub(crate) struct Network {
    /// Made only where a site speaks TLS: it reads the system's authorities.
    connector: Option<TransportConnector>,
    peers: HashMap<Arc<str>, HttpPeer>,
}

impl Network {
    /// Ready to connect to these sites.
    pub(crate) fn new<'s>(sites: impl Iterator<Item = &'s Arc<Site>>) -> Self {
        let mut network = Self::default();
        for site in sites.filter(|site| site.address.tls) {
            network
                .connector
                .get_or_insert_with(|| TransportConnector::new(None));
            network.peers.insert(Arc::clone(&site.name), template(site));
        }
        network
    }

    async fn plain(site: &Site, address: SocketAddr) -> Result<Box<dyn Duplex>, Failure> {
        match timeout(site.timeouts.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it a request's last bytes wait for an acknowledgement; it cannot fail on a
                // socket that is connected.
                drop(stream.set_nodelay(true));
                Ok(Box::new(stream))
            }
            Ok(Err(error)) => Err(Failure::of_connecting(&error)),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }

    async fn secure(&self, site: &Site, address: SocketAddr) -> Result<Box<dyn Duplex>, Failure> {
        let (Some(connector), Some(peer)) = (&self.connector, self.peers.get(&site.name)) else {
            return Err(Failure::Connect);
        };
        let mut peer = peer.clone();
        peer._address = address.into();
        match connector.new_stream(&peer).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Failure::of_engine(&error)),
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
                Self::plain(site, address).await
            }
        })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// A site as the engine connects to it, but for the address. HTTP/1.1 only: users are never
/// multiplexed on one connection.
fn template(site: &Site) -> HttpPeer {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], site.address.port));
    let mut peer = HttpPeer::new(nowhere, true, site.address.host.to_string());
    let options = &mut peer.options;
    options.connection_timeout = Some(site.timeouts.connect);
    options.total_connection_timeout = Some(site.timeouts.connect + site.timeouts.tls);
    if let Some(ca) = &site.address.ca {
        // Compiling the file has shown that each of them parses.
        let wrapped = ca
            .iter()
            .map(|der| WrappedX509::new(der.clone(), parse_x509));
        options.ca = Some(wrapped.collect());
    }
    peer
}
