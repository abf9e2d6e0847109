//! Listens, serves, and stops: puts the gateway, its connections and its background tasks together.
//!
//! A connection is accepted, given a permit, and served by one task. Stopping takes as long as the
//! requests under way: listeners go on for a moment, so that a balancer can notice, and connections
//! that are idle at the end are dropped.

mod admin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use self::admin::Admin;
use crate::config::Settings;
use crate::gateway::Gateway;
use crate::policy::Policy;
use crate::policy::peer::Peer;
use crate::telemetry::{Detail, Telemetry};
use crate::upstream::Network;
use crate::watch::generation::{Generation, Live};
use crate::watch::names;
use crate::wire::connection::Connection;
use crate::wire::h1::H1;
use crate::wire::h2::{self, H2, Replay};
use crate::wire::slots::{Permit, Slots};

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
    listeners: Vec<(TcpListener, bool)>,
    admin: Option<Admin>,
    gateway: Arc<Gateway>,
    drain_timeout: Duration,
}

/// What can be asked about a gateway while it serves.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Counts and records.
    pub telemetry: Arc<Telemetry>,
    /// Connections.
    pub slots: Arc<Slots>,
    /// Requests under way.
    pub in_flight: Arc<AtomicUsize>,
    /// Whether the program is stopping.
    pub draining: Arc<AtomicBool>,
    gateway: Arc<Gateway>,
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
        let admin = match &settings.admin {
            Some(admin) => Some((admin, bind(admin.address).await?)),
            None => None,
        };
        let telemetry = Arc::new(Telemetry::new(Detail {
            paths: settings.records_paths,
            origins: settings.records_origins,
        }));
        let network = Network::new(policy.routes().map(|route| &route.site));
        let effective = settings.effective(&policy);
        let generation = Generation::new(
            policy,
            &settings.caller_limits,
            &settings.shared_limits,
            effective,
        );
        for (_, watched) in generation.sites() {
            watched.addresses.resolve().await;
        }
        let gateway = Gateway::new(
            Live::new(generation),
            Arc::clone(&telemetry),
            Slots::new(settings.connections, telemetry),
            Box::new(network),
        );
        let gateway = Arc::new(gateway);
        let admin = match admin {
            Some((admin, listener)) => {
                let token = admin.token.clone();
                let started = listener.into_std().and_then(|listener| {
                    Admin::start(listener, token, Shared::of(Arc::clone(&gateway)))
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
        self.admin.as_ref().map(Admin::address)
    }

    /// What can be asked about it while it serves.
    pub fn shared(&self) -> Shared {
        Shared::of(Arc::clone(&self.gateway))
    }

    /// Serves until `stop` resolves, then finishes what is under way and returns.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) {
        let shared = self.shared();
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_resolving(Arc::clone(&self.gateway)));
        tasks.spawn(keep_sweeping(Arc::clone(&self.gateway)));
        for (_, watched) in self.gateway.live.pin().sites() {
            let (gateway, watched) = (Arc::clone(&self.gateway), Arc::clone(watched));
            tasks.spawn(async move { gateway.keep_probing(&watched).await });
        }
        // Answers until all is over.
        let _admin = self.admin;
        let mut accepting = JoinSet::new();
        let (drain, drained) = watch::channel(Phase::Serving);
        for (listener, h2c) in self.listeners {
            let accept = Accept {
                gateway: Arc::clone(&self.gateway),
                phase: drained.clone(),
                h2c,
            };
            accepting.spawn(accept.run(listener));
        }
        stop.await;
        let deadline = Instant::now() + self.drain_timeout;
        info!(
            in_flight = shared.in_flight.load(Ordering::Acquire),
            "stopping"
        );
        shared.draining.store(true, Ordering::Release);
        drain.send_replace(Phase::Draining);
        shared
            .idle(Instant::now() + STILL_ACCEPTING.min(self.drain_timeout))
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

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// New connections are still taken; kept ones are asked to go.
    Draining,
    /// Nothing new is taken.
    Closing,
}

impl Shared {
    fn of(gateway: Arc<Gateway>) -> Self {
        Self {
            telemetry: Arc::clone(&gateway.telemetry),
            slots: Arc::clone(&gateway.slots),
            in_flight: Arc::clone(&gateway.in_flight),
            draining: Arc::clone(&gateway.draining),
            gateway,
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

/// Resolves the names of the generation in force now and then; never returns.
async fn keep_resolving(gateway: Arc<Gateway>) {
    loop {
        let generation = gateway.live.pin();
        let all: Vec<_> = generation
            .sites()
            .map(|(_, watched)| Arc::clone(&watched.addresses))
            .collect();
        names::resolve_again(&all).await;
    }
}

/// Closes idle connections to sites that have waited too long; never returns.
async fn keep_sweeping(gateway: Arc<Gateway>) {
    loop {
        sleep(SWEEP).await;
        gateway.pool.sweep();
    }
}

/// One listener's way in.
struct Accept {
    gateway: Arc<Gateway>,
    phase: watch::Receiver<Phase>,
    h2c: bool,
}

impl Accept {
    /// Accepts until told to close, then hands over the connections that are still open.
    async fn run(mut self, listener: TcpListener) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        let mut phase = self.phase.clone();
        while *self.phase.borrow_and_update() != Phase::Closing {
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
                _ = phase.changed() => {}
            }
        }
        while let Ok(Ok((stream, peer))) =
            timeout(Duration::from_millis(5), listener.accept()).await
        {
            self.admit(stream, peer, &mut connections);
        }
        connections
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        let Some(permit) = self.gateway.slots.admit(peer) else {
            return;
        };
        // Without it small answers wait for the acknowledgement of the one before; it cannot fail
        // on a socket that is connected.
        drop(stream.set_nodelay(true));
        let gateway = Arc::clone(&self.gateway);
        let peer = Peer::plain(peer.ip());
        let caller = H1::new(stream, Arc::new(peer));
        if self.h2c {
            let phase = self.phase.clone();
            connections.spawn(either(gateway, caller, phase, permit));
        } else {
            connections.spawn(async move {
                gateway.serve(caller).await;
                drop(permit);
            });
        }
    }
}

/// Serves a connection that may speak HTTP/2 by prior knowledge.
async fn either(
    gateway: Arc<Gateway>,
    mut caller: H1<TcpStream>,
    phase: watch::Receiver<Phase>,
    permit: Permit,
) {
    let peer = caller.shared_peer();
    if speaks_h2(&gateway, caller.preface()).await {
        let (first, stream) = caller.into_connection().into_parts();
        let io = Replay::new(Bytes::from(first), stream);
        Box::pin(multiplex(gateway, io, peer, phase)).await;
    } else {
        gateway.serve(caller).await;
    }
    drop(permit);
}

/// Whether a connection begins with the preface of HTTP/2.
async fn speaks_h2(gateway: &Gateway, connection: &mut Connection<TcpStream>) -> bool {
    let limits = gateway.slots.limits();
    let mut until = Instant::now() + limits.idle_timeout;
    loop {
        let seen = connection.unread();
        let compared = seen.len().min(h2::PREFACE.len());
        if seen[..compared] != h2::PREFACE[..compared] {
            return false;
        }
        if compared == h2::PREFACE.len() {
            return true;
        }
        if compared > 0 {
            until = until.min(Instant::now() + limits.header_timeout);
        }
        let filling = std::future::poll_fn(|cx| connection.poll_fill(cx));
        match tokio::time::timeout_at(until, filling).await {
            Ok(Ok(count)) if count > 0 => {}
            // The other protocol notices that nothing comes.
            _ => return false,
        }
    }
}

/// Serves the streams of a connection, each in a task of its own, until it ends.
async fn multiplex(
    gateway: Arc<Gateway>,
    io: Replay<TcpStream>,
    peer: Arc<Peer>,
    mut phase: watch::Receiver<Phase>,
) {
    let limits = *gateway.slots.limits();
    let handshake = h2::options().handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = timeout(limits.header_timeout, handshake).await else {
        return;
    };
    let mut streams = JoinSet::new();
    let mut idle_until = Instant::now() + limits.idle_timeout;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let mut stream = H2::new(request, respond, Arc::clone(&peer));
                    let gateway = Arc::clone(&gateway);
                    streams.spawn(async move { gateway.exchange(&mut stream).await });
                }
                Some(Err(_)) | None => break,
            },
            Some(_) = streams.join_next(), if !streams.is_empty() => {
                idle_until = Instant::now() + limits.idle_timeout;
            }
            () = tokio::time::sleep_until(idle_until), if streams.is_empty() => break,
            changed = phase.changed() => match changed {
                Ok(()) => connection.graceful_shutdown(),
                Err(_) => break,
            },
        }
    }
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
