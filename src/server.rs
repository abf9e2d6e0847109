//! Listens, serves, and stops: puts the gateway, its connections and its background tasks together.
//!
//! The engine's own server is not used: its listeners retry a taken port for half a minute and then
//! leave a process without one, and its shutdown closes idle connections first and sleeps a fixed
//! time after. Here a connection is accepted, guarded and handed to the engine, and stopping takes
//! as long as the requests under way (docs/decisions/002-own-accept-loop.md).

pub mod admin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::config::Settings;
use crate::policy::Policy;
use crate::proxy::guard::{Doors, Guarded};
use crate::proxy::live::LivePolicy;
use crate::proxy::peer::Peers;
use crate::proxy::{ATTEMPTS_MAX, Gateway};
use crate::telemetry::Telemetry;
use crate::watch::{Watch, names};

/// Pooled connections to sites, in total.
const POOL_SIZE: usize = 512;

/// How long new connections are still taken after the order to stop, at most: the time a balancer
/// needs to notice.
const STILL_ACCEPTING: Duration = Duration::from_secs(2);

/// How long nothing may be under way before the program counts as idle: a caller between two
/// requests on a kept-alive connection gets the second one answered.
const IDLE: Duration = Duration::from_millis(300);

/// An address that could not be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {fault}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What is wrong and what to change.
    pub fault: String,
}

/// A gateway that is listening.
pub struct Server {
    listeners: Vec<(TcpListener, bool)>,
    admin: Option<TcpListener>,
    proxy: Arc<HttpProxy<Gateway>>,
    shared: Shared,
    drain_timeout: Duration,
}

/// What outlives a connection.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Counts and records.
    pub telemetry: Arc<Telemetry>,
    /// Connections.
    pub doors: Arc<Doors>,
    /// What is learnt beside the traffic.
    pub watch: Arc<Watch>,
    /// Requests under way.
    pub in_flight: Arc<AtomicUsize>,
    /// Whether the program is stopping.
    pub draining: Arc<AtomicBool>,
}

impl Server {
    /// Listens on every address, and resolves the sites' names once.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub async fn bind(settings: &Settings, policy: Policy) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for listener in &settings.listeners {
            listeners.push((bind(listener.address).await?, listener.h2c));
        }
        let admin = match settings.admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let telemetry = Arc::<Telemetry>::default();
        let shared = Shared {
            doors: Doors::new(settings.connections, Arc::clone(&telemetry)),
            watch: Arc::new(Watch::new(
                &policy,
                &settings.caller_limits,
                settings.origin_limits,
            )),
            in_flight: Arc::default(),
            draining: Arc::default(),
            telemetry,
        };
        for addresses in shared.watch.addresses() {
            addresses.resolve().await;
        }
        Ok(Self {
            listeners,
            admin,
            proxy: Arc::new(proxy(settings, policy, &shared)),
            shared,
            drain_timeout: settings.drain_timeout,
        })
    }

    /// The addresses it listens on for callers, in the order of the file.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|(listener, _)| listener.local_addr().ok())
            .collect()
    }

    /// The address it listens on for operators.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// What can be asked about it while it serves.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Serves until `stop` resolves, then finishes what is under way and returns.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) {
        let (shutdown, shut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(names::keep_resolving(self.shared.watch.addresses()));
        if let Some(admin) = self.admin {
            tasks.spawn(admin::serve(admin, self.shared.clone()));
        }
        let mut accepting = JoinSet::new();
        let (close, closed) = watch::channel(false);
        for (listener, h2c) in self.listeners {
            let door = Door {
                proxy: Arc::clone(&self.proxy),
                doors: Arc::clone(&self.shared.doors),
                shutdown: shut.clone(),
                h2c,
            };
            accepting.spawn(door.accept(listener, closed.clone()));
        }
        stop.await;
        let deadline = Instant::now() + self.drain_timeout;
        info!(
            in_flight = self.shared.in_flight.load(Ordering::Acquire),
            "stopping"
        );
        self.shared.draining.store(true, Ordering::Release);
        self.shared
            .idle(Instant::now() + STILL_ACCEPTING.min(self.drain_timeout))
            .await;
        // Each loop takes what is queued before it closes its socket.
        close.send_replace(true);
        let connections: Vec<_> = accepting.join_all().await;
        self.shared.idle(deadline).await;
        let cut = self.shared.in_flight.load(Ordering::Acquire);
        shutdown.send_replace(true);
        ServerApp::cleanup(&*self.proxy).await;
        drop(connections);
        if cut > 0 {
            warn!(
                cut,
                "stopped with requests under way: they took longer than drain_timeout"
            );
        } else {
            info!("stopped");
        }
    }
}

impl Shared {
    /// Waits until nothing has been under way for a moment, or until the deadline.
    async fn idle(&self, deadline: Instant) {
        let mut idle_since = None;
        while Instant::now() < deadline {
            let now = Instant::now();
            if self.in_flight.load(Ordering::Acquire) > 0 {
                idle_since = None;
            } else if now.duration_since(*idle_since.get_or_insert(now)) >= IDLE {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One listener's way into the engine.
struct Door {
    proxy: Arc<HttpProxy<Gateway>>,
    doors: Arc<Doors>,
    shutdown: watch::Receiver<bool>,
    h2c: bool,
}

impl Door {
    /// Accepts until told to close, then hands over the connections that are still open.
    async fn accept(self, listener: TcpListener, mut closed: watch::Receiver<bool>) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &mut connections),
                    Err(error) => {
                        // Out of file descriptors, most likely: trying again at once would only spin.
                        warn!(reason = %error, "connection not accepted");
                        sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                _ = closed.changed() => break,
            }
        }
        while let Ok(Ok((stream, peer))) =
            tokio::time::timeout(Duration::from_millis(5), listener.accept()).await
        {
            self.admit(stream, peer, &mut connections);
        }
        connections
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        let Some(pass) = self.doors.admit(peer) else {
            return;
        };
        // Without it small answers wait for the acknowledgement of the one before; it cannot fail
        // on a socket that is connected.
        drop(stream.set_nodelay(true));
        let guarded = Guarded::new(stream, peer, pass, self.h2c);
        let proxy = Arc::clone(&self.proxy);
        let shutdown = self.shutdown.clone();
        connections.spawn(async move {
            proxy.process_new(Box::new(guarded), &shutdown).await;
        });
    }
}

fn proxy(settings: &Settings, policy: Policy, shared: &Shared) -> HttpProxy<Gateway> {
    let conf = ServerConf {
        max_retries: ATTEMPTS_MAX,
        upstream_keepalive_pool_size: POOL_SIZE,
        ..ServerConf::default()
    };
    let gateway = Gateway {
        peers: Peers::new(&policy),
        live: LivePolicy::new(policy),
        watch: Arc::clone(&shared.watch),
        telemetry: Arc::clone(&shared.telemetry),
        doors: Arc::clone(&shared.doors),
        in_flight: Arc::clone(&shared.in_flight),
        draining: Arc::clone(&shared.draining),
    };
    let mut proxy = http_proxy(&Arc::new(conf), gateway);
    let mut options = HttpServerOptions::default();
    // Whether a listener really speaks it, its guard decides.
    options.h2c = true;
    options.h2_idle_timeout = Some(settings.connections.idle_timeout);
    proxy.server_options = Some(options);
    proxy.h2_options = Some(default_h2_options());
    proxy
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError {
        address,
        fault: match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program listens there already; stop it or choose another port".to_owned()
            }
            std::io::ErrorKind::PermissionDenied => {
                "this user may not; choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
                    .to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address".to_owned()
            }
            kind => kind.to_string(),
        },
    })
}
