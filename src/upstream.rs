//! Connections to sites: made, pooled for each user, and what it means when they fail.

mod failure;
mod pool;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::failure::Failure;
pub(crate) use self::pool::{Pool, PoolKey};
use crate::policy::site::Site;
use crate::watch::generation::Watched;

/// Bytes both ways, to a site.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Makes connections: over the network, or in memory where the relay itself is tested.
pub(crate) trait Dial: fmt::Debug + Send + Sync {
    /// A new connection to a site at one of its addresses, with what is learnt of it.
    #[expect(clippy::type_complexity, reason = "a boxed future, named once")]
    fn dial<'a>(
        &'a self,
        watched: &'a Watched,
        site: &'a Site,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Failure>> + Send + 'a>>;
}

/// Connects over the network, over TLS with the engine's.
///
/// The handshake is made here and not in the engine's connector, which has one text for whatever goes
/// wrong, one timeout for connecting and for the handshake, and forgets a site's sessions where the
/// site has authorities of its own.
#[derive(Debug)]
pub(crate) struct Network;

impl Network {
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

    async fn secure(
        watched: &Watched,
        site: &Site,
        address: SocketAddr,
    ) -> Result<Box<dyn Duplex>, Failure> {
        // A host that no certificate can name.
        let tls = watched.tls.as_ref().ok_or(Failure::TlsName)?;
        let stream = Self::plain(site, address).await?;
        let handshake = tls.connector.connect(tls.name.clone(), stream);
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
        watched: &'a Watched,
        site: &'a Site,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Failure>> + Send + 'a>> {
        // Boxed, so that the task of an idle connection does not hold room for it.
        Box::pin(async move {
            if site.address.tls {
                Self::secure(watched, site, address).await
            } else {
                let stream = Self::plain(site, address).await?;
                Ok(Box::new(stream) as Box<dyn Duplex>)
            }
        })
    }
}
