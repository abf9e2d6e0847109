//! One listener's way in: a connection is introduced by its proxy, secured, and served in the protocol
//! it speaks.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::proxied::Proxied;
use crate::gateway::Gateway;
use crate::policy::fault::MessageFault;
use crate::policy::peer::Peer;
use crate::wire::clock::Alarm;
use crate::wire::connection::Connection;
use crate::wire::h1::H1;
use crate::wire::h2::{self, H2, Replay};
use crate::wire::head::HeadFault;
use crate::wire::slots::Permit;
use crate::wire::tls::{self, Unopened};

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// New connections are still taken; kept ones are asked to go.
    Draining,
    /// Nothing new is taken.
    Closing,
}

/// One listener's way in.
#[derive(Clone)]
pub(super) struct Accept {
    pub(super) gateway: Arc<Gateway>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) h2c: bool,
    pub(super) tls: Option<Arc<tls::Listener>>,
    pub(super) proxied: Arc<Proxied>,
}

impl Accept {
    /// Accepts until told to close, then hands over the connections that are still open.
    pub(super) async fn run(mut self, listener: TcpListener) -> JoinSet<()> {
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
        let Some(permit) = self.proxied.admit(&self.gateway.slots, peer) else {
            return;
        };
        // Without it small answers wait for the acknowledgement of the one before; it cannot fail
        // on a socket that is connected.
        drop(stream.set_nodelay(true));
        let gateway = Arc::clone(&self.gateway);
        let phase = self.phase.clone();
        let peer = self.proxied.peer(peer.ip());
        if self.proxied.is_required {
            connections.spawn(self.clone().introduce(stream, peer, permit));
            return;
        }
        if let Some(tls) = &self.tls {
            let tls = Arc::clone(tls);
            connections.spawn(secured(gateway, tls, stream, peer, phase, permit));
            return;
        }
        let mut caller = H1::new(stream, Arc::new(peer));
        if self.h2c {
            connections.spawn(either(gateway, caller, phase, permit));
        } else {
            connections.spawn(async move {
                gateway.serve(&mut caller).await;
                drop(permit);
            });
        }
    }

    /// Serves a connection after its PROXY header.
    async fn introduce(self, mut stream: TcpStream, peer: Peer, mut permit: Permit) {
        let limits = self.gateway.slots.limits();
        let introducing = self
            .proxied
            .introduce(&mut stream, peer, &mut permit, limits);
        let Some(peer) = Box::pin(introducing).await else {
            return;
        };
        if let Some(tls) = self.tls {
            return secured(self.gateway, tls, stream, peer, self.phase, permit).await;
        }
        let mut caller = H1::new(stream, Arc::new(peer));
        if self.h2c {
            either(self.gateway, caller, self.phase, permit).await;
        } else {
            self.gateway.serve(&mut caller).await;
            drop(permit);
        }
    }
}

/// Serves a connection over TLS, in the protocol that its handshake chooses.
async fn secured(
    gateway: Arc<Gateway>,
    tls: Arc<tls::Listener>,
    stream: TcpStream,
    peer: Peer,
    phase: watch::Receiver<Phase>,
    permit: Permit,
) {
    // Boxed, so that the task of an idle connection does not hold room for it.
    let opening = Box::pin(tls.open(stream, peer.address, gateway.slots.limits(), || {
        gateway.expect_request()
    }));
    match opening.await {
        Ok(opened) => {
            let peer = Arc::new(Peer {
                tls: Some(opened.secured),
                ..peer
            });
            if opened.speaks_h2 {
                let io = Replay::new(Bytes::new(), opened.io);
                Box::pin(multiplex(gateway, io, peer, phase)).await;
            } else {
                let mut caller = H1::new(opened.io, peer);
                gateway.serve(&mut caller).await;
                caller.take_leave();
            }
        }
        Err(Unopened::Plain(first, stream)) => {
            let mut caller = H1::begun(first, stream, Arc::new(peer));
            let fault = HeadFault::Malformed(MessageFault::WithoutTls);
            Box::pin(gateway.turn_away(&mut caller, fault)).await;
        }
        Err(Unopened::Silent) => {}
        Err(Unopened::Slow) => gateway.telemetry.connection_cut(),
        Err(Unopened::Failed) => gateway.telemetry.handshake_failed(),
    }
    drop(permit);
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
        gateway.serve(&mut caller).await;
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
        let filling = poll_fn(|cx| connection.poll_fill(cx));
        match tokio::time::timeout_at(until, filling).await {
            Ok(Ok(count)) if count > 0 => {}
            // The other protocol notices that nothing comes.
            _ => return false,
        }
    }
}

/// Serves the streams of a connection, each in a task of its own, until it ends.
async fn multiplex<S>(
    gateway: Arc<Gateway>,
    io: Replay<S>,
    peer: Arc<Peer>,
    mut phase: watch::Receiver<Phase>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = *gateway.slots.limits();
    let handshake = h2::options().handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = timeout(limits.header_timeout, handshake).await else {
        return;
    };
    let mut streams = JoinSet::new();
    let mut idle_until = Instant::now() + limits.idle_timeout;
    let mut alarm = Alarm::default();
    // Made once, not for each stream that comes or ends. Draining is all that changes: after that the
    // task of this connection is dropped.
    let mut draining = pin!(phase.changed());
    let mut is_draining = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let mut stream = H2::new(request, respond, Arc::clone(&peer));
                    let gateway = Arc::clone(&gateway);
                    // Boxed where it is made, so that no task is moved with all the room it needs.
                    streams.spawn(async move { Box::pin(gateway.exchange(&mut stream)).await });
                }
                Some(Err(_)) | None => break,
            },
            Some(_) = streams.join_next(), if !streams.is_empty() => {
                idle_until = Instant::now() + limits.idle_timeout;
            }
            () = poll_fn(|cx| alarm.poll(idle_until, cx)), if streams.is_empty() => break,
            changed = &mut draining, if !is_draining => match changed {
                Ok(()) => {
                    connection.graceful_shutdown();
                    is_draining = true;
                }
                Err(_) => break,
            },
        }
    }
}
