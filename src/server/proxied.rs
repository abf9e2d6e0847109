//! Connections that come through proxies: who may speak for others, and for whom each one does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::config::Listener;
use crate::policy::forwarded::TrustedProxies;
use crate::policy::limit::ConnectionLimits;
use crate::policy::peer::Peer;
use crate::watch::quiet::Quiet;
use crate::wire::proxy_protocol::{self, Fault, Header};
use crate::wire::slots::{Permit, Slots};

/// What one listener knows of the proxies before it.
#[derive(Debug)]
pub(super) struct Proxied {
    address: SocketAddr,
    trusted: Arc<TrustedProxies>,
    /// Whether every connection comes through one, and begins with a PROXY header.
    pub(super) is_required: bool,
    closed: Quiet,
}

impl Proxied {
    pub(super) fn new(listener: &Listener) -> Arc<Self> {
        Arc::new(Self {
            address: listener.address,
            trusted: Arc::clone(&listener.trusted_proxies),
            is_required: listener.proxy_protocol,
            closed: Quiet::default(),
        })
    }

    /// Lets in a connection that has just been accepted. A proxy carries everybody, so its own
    /// address has no limit.
    pub(super) fn admit(&self, slots: &Arc<Slots>, from: SocketAddr) -> Option<Permit> {
        if self.trusted.networks.have(from.ip()) {
            return slots.admit_proxy();
        }
        if self.is_required {
            self.tell(from.ip(), "its address is not among trusted_proxies");
            return None;
        }
        slots.admit(from)
    }

    /// The other end of a connection that says nothing of itself yet.
    pub(super) fn peer(&self, address: IpAddr) -> Peer {
        Peer {
            trusted_proxies: Arc::clone(&self.trusted),
            ..Peer::plain(address)
        }
    }

    /// Reads the PROXY header of a connection, and counts it for where it comes from; nothing if it
    /// is to be closed without a word.
    pub(super) async fn introduce(
        &self,
        stream: &mut TcpStream,
        peer: Peer,
        permit: &mut Permit,
        limits: &ConnectionLimits,
    ) -> Option<Peer> {
        let taken = timeout(limits.header_timeout, proxy_protocol::take(stream)).await;
        let Ok(header) = taken else {
            self.tell(peer.address, "its PROXY header did not come in time");
            return None;
        };
        match header {
            Ok(Header { source, .. }) => self.named(peer, source, permit),
            // A balancer that asks whether we live may say nothing at all.
            Err(Fault::Ended) => None,
            Err(fault) => {
                self.tell(peer.address, fault);
                None
            }
        }
    }

    /// The other end, now that its PROXY header has said who it is.
    fn named(&self, proxy: Peer, source: Option<IpAddr>, permit: &mut Permit) -> Option<Peer> {
        let Some(address) = source else {
            // Whoever it is that the balancer does not name: no word of theirs is the balancer's.
            let nobody = Peer::plain(proxy.address);
            return permit.count(nobody.address).then_some(nobody);
        };
        let is_proxy = self.trusted.networks.have(address);
        (is_proxy || permit.count(address)).then_some(Peer { address, ..proxy })
    }

    /// Tells the operator, now and then, why connections are closed.
    fn tell(&self, from: IpAddr, reason: impl std::fmt::Display) {
        if self.closed.may_speak(Instant::now().into_std()) {
            let (listener, from) = (self.address, from.to_canonical());
            warn!(%listener, %from, %reason, "connection closed");
        }
    }
}
