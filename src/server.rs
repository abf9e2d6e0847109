//! Listens, serves, and stops: puts the gateway, its connections and its background tasks together.
//!
//! A connection is accepted, given a permit, and served by one task. Stopping takes as long as the
//! requests under way: listeners go on for a moment, so that a balancer can notice, and connections
//! that are idle at the end are dropped.

mod accept;
mod admin;
mod background;
mod certificates;
mod changes;
mod proxied;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use self::accept::{Accept, Phase};
use self::admin::Admin;
use self::background::Background;
use self::proxied::Proxied;
use self::reload::{Ask, Reloader, Source};
pub use self::reload::{Load, Outcome, Reloads, Report};
use crate::config::Settings;
use crate::config::inputs::Inputs;
use crate::config::tls::Tls;
use crate::gateway::Gateway;
use crate::policy::Policy;
use crate::telemetry::{Detail, Telemetry};
use crate::upstream::Network;
use crate::watch::generation::{Generation, Live};
use crate::wire::handshakes::Handshakes;
use crate::wire::slots::Slots;
use crate::wire::tls;

/// How often idle connections to sites are looked at.
const SWEEP: Duration = Duration::from_secs(1);

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
    listeners: Vec<Listening>,
    admin: Option<Admin>,
    gateway: Arc<Gateway>,
    settings: Settings,
    reloads: Arc<Reloads>,
    asked: mpsc::Receiver<Ask>,
    source: Option<Source>,
}

/// An address that is listened on, and what is spoken there.
struct Listening {
    socket: TcpListener,
    h2c: bool,
    proxied: Arc<Proxied>,
    /// TLS, and what it was made of.
    tls: Option<(Arc<tls::Listener>, Tls)>,
}

/// What can be asked about a gateway while it serves.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Counts and records.
    pub telemetry: Arc<Telemetry>,
    /// Connections.
    pub slots: Arc<Slots>,
    /// Requests under way, and handshakes that will bring one.
    pub in_flight: Arc<AtomicUsize>,
    /// Whether the program is stopping.
    pub draining: Arc<AtomicBool>,
    /// Reloads.
    pub reloads: Arc<Reloads>,
    gateway: Arc<Gateway>,
}

impl Server {
    /// Listens on every address, and resolves the sites' names once.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub async fn bind(settings: &Settings, policy: Policy) -> Result<Self, BindError> {
        let listeners = listen(settings).await?;
        let admin = match &settings.admin {
            Some(admin) => Some((admin, bind(admin.address).await?)),
            None => None,
        };
        let telemetry = Arc::new(Telemetry::new(Detail {
            paths: settings.records_paths,
            origins: settings.records_origins,
        }));
        let effective = settings.effective(&policy);
        let generation = Generation::new(
            policy,
            &settings.caller_limits,
            &settings.shared_limits,
            effective,
            None,
        );
        for (_, watched) in generation.sites() {
            watched.addresses.resolve().await;
        }
        generation.tokens.begin().await;
        let gateway = Gateway::new(
            Live::new(generation),
            Arc::clone(&telemetry),
            Slots::new(settings.connections, telemetry),
            Box::new(Network),
        );
        let gateway = Arc::new(gateway);
        let (reloads, asked) = Reloads::new(settings.drain_timeout);
        let admin = match admin {
            Some((admin, listener)) => {
                let token = admin.token.clone();
                let started = listener.into_std().and_then(|listener| {
                    Admin::start(listener, token, Shared::of(&gateway, &reloads))
                });
                Some(started.map_err(|error| BindError {
                    address: admin.address,
                    fault: error.to_string(),
                })?)
            }
            None => None,
        };
        Ok(Self {
            listeners,
            admin,
            gateway,
            settings: settings.clone(),
            reloads,
            asked,
            source: None,
        })
    }

    /// Has the configuration loaded again while it serves: it was made of these inputs.
    #[must_use]
    pub fn reloading(self, load: Load, inputs: Inputs) -> Self {
        Self {
            source: Some(Source::new(load, inputs)),
            ..self
        }
    }

    /// The addresses it listens on for callers, in the order of the file.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.socket.local_addr().ok())
            .collect()
    }

    /// The address it listens on for operators.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// What can be asked about it while it serves.
    pub fn shared(&self) -> Shared {
        Shared::of(&self.gateway, &self.reloads)
    }

    /// Serves until `stop` resolves, then finishes what is under way and returns.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) {
        let shared = self.shared();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_sweeping(Arc::clone(&self.gateway)));
        let reloader = Reloader {
            background: Background::new(Arc::clone(&self.gateway)),
            gateway: Arc::clone(&self.gateway),
            reloads: Arc::clone(&shared.reloads),
            settings: self.settings,
        };
        tasks.spawn(reloader.run(self.source, self.asked));
        // Answers until all is over.
        let _admin = self.admin;
        let mut accepting = JoinSet::new();
        let (drain, drained) = watch::channel(Phase::Serving);
        for listener in self.listeners {
            if let (Some((terminator, tls)), Ok(address)) =
                (&listener.tls, listener.socket.local_addr())
            {
                let looking =
                    certificates::keep_looking(Arc::clone(terminator), tls.clone(), address);
                tasks.spawn(looking);
            }
            let accept = Accept {
                gateway: Arc::clone(&self.gateway),
                phase: drained.clone(),
                h2c: listener.h2c,
                proxied: listener.proxied,
                tls: listener.tls.map(|(tls, _)| tls),
            };
            accepting.spawn(accept.run(listener.socket));
        }
        stop.await;
        let drain_timeout = shared.reloads.drain_timeout();
        let deadline = Instant::now() + drain_timeout;
        info!(
            in_flight = shared.in_flight.load(Ordering::Acquire),
            "stopping"
        );
        shared.draining.store(true, Ordering::Release);
        drain.send_replace(Phase::Draining);
        shared
            .idle(Instant::now() + STILL_ACCEPTING.min(drain_timeout))
            .await;
        // Each loop takes what is queued before it closes its socket.
        drain.send_replace(Phase::Closing);
        let connections: Vec<_> = accepting.join_all().await;
        shared.idle(deadline).await;
        let cut = shared.in_flight.load(Ordering::Acquire);
        // Connections that are idle now, or took too long, end here.
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
    fn of(gateway: &Arc<Gateway>, reloads: &Arc<Reloads>) -> Self {
        Self {
            telemetry: Arc::clone(&gateway.telemetry),
            slots: Arc::clone(&gateway.slots),
            in_flight: Arc::clone(&gateway.in_flight),
            draining: Arc::clone(&gateway.draining),
            reloads: Arc::clone(reloads),
            gateway: Arc::clone(gateway),
        }
    }

    /// What is learnt of each site, by name.
    pub fn generation(&self) -> Arc<Generation> {
        self.gateway.live.pin()
    }

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

/// Closes idle connections to sites that have waited too long; never returns.
async fn keep_sweeping(gateway: Arc<Gateway>) {
    loop {
        sleep(SWEEP).await;
        gateway.pool.sweep();
    }
}

/// Listens on every address for callers.
async fn listen(settings: &Settings) -> Result<Vec<Listening>, BindError> {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let handshakes = Arc::new(Handshakes::new(&settings.connections, workers));
    let mut listeners = Vec::new();
    for listener in &settings.listeners {
        let secured = |tls: &Tls| {
            let material = certificates::material(tls).map_err(|fault| BindError {
                address: listener.address,
                fault,
            })?;
            let handshakes = Arc::clone(&handshakes);
            Ok((
                Arc::new(tls::Listener::new(material, handshakes)),
                tls.clone(),
            ))
        };
        listeners.push(Listening {
            socket: bind(listener.address).await?,
            h2c: listener.h2c,
            proxied: Proxied::new(listener),
            tls: listener.tls.as_ref().map(secured).transpose()?,
        });
    }
    Ok(listeners)
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
