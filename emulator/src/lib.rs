//! A small MindTouch site for development, the demo and tests: tokens, users, pages, files, faults; and
//! beside it an identity provider, and a product that signs its webhooks.
//!
//! It is a crate of its own and knows nothing of the gateway, verifies tokens with code of its own, and
//! is served by another HTTP implementation, so that a mistake of the gateway cannot be its mistake,
//! too. It accepts what the API family accepts, also where that is unwise: sessions, passwords,
//! method overrides, JSONP. What the gateway fails to remove has an effect here. What is not known of
//! the real site is decided here in one place, with a comment: the status of a refused token, the order
//! of credentials.
//!
//! Everything is in memory and gone when it stops. It is not for production, nor for the Internet.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

mod answer;
mod body;
mod call;
mod clock;
mod denial;
mod document;
mod endpoints;
mod fault;
mod front;
mod identity;
mod journal;
mod lenient;
mod parameters;
mod provider;
mod token;
mod webhook;
mod wiki;

pub use journal::{Arrival, Journal, TokenSeen};
use lenient::Lenient;
pub use provider::Provider;
pub use webhook::zendesk_headers;

/// The published key of the emulator's server token. Development only: no real site knows it.
pub const TOKEN_KEY: &str = "de7e109de7e109de7e109de7e109de7e109de7e109de7e109de7e109de7e1090";

/// The published secret of the emulator's server token. Development only: it protects nothing.
pub const TOKEN_SECRET: &str = "0dead5ec2e70dead5ec2e70dead5ec2e70dead5ec2e70dead5ec2e70dead5ec2";

/// The published key of the emulator's browser token. Development only: no real site knows it.
pub const BROWSER_KEY: &str = "b20c5e2de7e10b20c5e2de7e10b20c5e2de7e10b20c5e2de7e10b20c5e2de7e1";

/// How the site is set up. It holds a secret, so it cannot be printed.
#[derive(Clone)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The key of its server token.
    pub token_key: String,
    /// The secret of its server token.
    pub token_secret: String,
    /// Its browser token.
    pub browser_key: String,
    /// Where the browser token may be used: host names, `*.suffix`, also lists with commas.
    pub allowed_hosts: Vec<String>,
    /// Added to the site's clock, which its `Date` header shows and tokens are judged by.
    pub clock_skew_seconds: i64,
    /// Whether the `emulate.*` parameters are honoured.
    pub faults: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8088).into(),
            token_key: TOKEN_KEY.to_owned(),
            token_secret: TOKEN_SECRET.to_owned(),
            browser_key: BROWSER_KEY.to_owned(),
            allowed_hosts: ["localhost", "127.0.0.1", "*.example.com", "crm.example.com"]
                .map(str::to_owned)
                .into(),
            clock_skew_seconds: 0,
            faults: true,
        }
    }
}

/// A site that listens, and answers once it is served.
#[derive(Debug)]
pub struct Emulator {
    listener: TcpListener,
    address: SocketAddr,
    site: Arc<Site>,
}

impl Emulator {
    /// Listens; connections wait until [`Emulator::serve`].
    pub async fn bind(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let provider = Provider::new(address, options.clock_skew_seconds)?;
        Ok(Self {
            address,
            listener,
            site: Arc::new(Site::new(options, provider)),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The identity provider beside the site.
    pub fn provider(&self) -> Provider {
        self.site.provider.clone()
    }

    /// What has arrived so far and will arrive.
    pub fn journal(&self) -> Journal {
        self.site.journal.clone()
    }

    /// Answers until told to stop, then finishes what is in flight.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        let open = GracefulShutdown::new();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.site.attend(stream, peer.ip(), &open),
                    // Out of file handles, most likely; they come back as connections end.
                    Err(error) => {
                        debug!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        open.shutdown().await;
    }
}

/// What all connections share.
struct Site {
    options: Options,
    provider: Provider,
    keys: token::Keys,
    shelf: wiki::Shelf,
    journal: Journal,
    wiki: Mutex<wiki::Wiki>,
}

impl Site {
    fn new(options: Options, provider: Provider) -> Self {
        Self {
            keys: token::Keys {
                token_key: options.token_key.clone(),
                token_secret: options.token_secret.clone(),
                browser_key: options.browser_key.clone(),
            },
            shelf: wiki::Shelf::default(),
            journal: Journal::default(),
            wiki: Mutex::new(wiki::Wiki::sample(clock::Moment::now(
                options.clock_skew_seconds,
            ))),
            provider,
            options,
        }
    }

    /// A panic while it was held may have left a page half written, which is good enough here.
    fn wiki(&self) -> MutexGuard<'_, wiki::Wiki> {
        self.wiki.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attend(self: &Arc<Self>, stream: TcpStream, client: IpAddr, open: &GracefulShutdown) {
        // Answers are written whole; waiting for more to send only makes them late.
        stream.set_nodelay(true).ok();
        let site = Arc::clone(self);
        let service = service_fn(move |request| {
            let site = Arc::clone(&site);
            async move { Ok::<_, Infallible>(front::answer(site, client, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new());
        let (reading, writing) = stream.into_split();
        let stream = tokio::io::join(Lenient::new(reading), writing);
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended");
            }
        });
    }
}

/// Secrets stay out of it, although they are published ones.
impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
