//! A site becomes the peer the engine connects to.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{WrappedX509, parse_x509};

use crate::policy::Policy;
use crate::policy::site::Site;

/// Streams of one HTTP/2 connection to a site.
const H2_STREAMS_MAX: usize = 100;

/// A peer of each site, ready but for the address.
#[derive(Debug)]
pub struct Peers(HashMap<Arc<str>, HttpPeer>);

impl Peers {
    /// The peers of a policy's sites.
    pub fn new(policy: &Policy) -> Self {
        let sites = policy.routes().map(|route| &route.site);
        Self(
            sites
                .map(|site| (Arc::clone(&site.name), template(site)))
                .collect(),
        )
    }

    /// The peer of a site at one of its addresses. `reads_late` is for requests with a body: the
    /// engine's read timeout would run while the body is still going up, so the time of the answer
    /// is watched by [`super::guard`] instead.
    pub fn peer(&self, site: &Site, address: SocketAddr, reads_late: bool) -> Option<HttpPeer> {
        let mut peer = self.0.get(&site.name)?.clone();
        peer._address = address.into();
        if reads_late {
            peer.options.read_timeout = None;
        }
        Some(peer)
    }
}

fn template(site: &Site) -> HttpPeer {
    let target = &site.address;
    let nowhere = SocketAddr::from(([0, 0, 0, 0], target.port));
    let mut peer = HttpPeer::new(nowhere, target.tls, target.host.clone());
    let mut identity = DefaultHasher::new();
    (&site.name, &target.ca).hash(&mut identity);
    // The pool does not look at the authorities a connection was verified against; the group does.
    peer.group_key = identity.finish();
    let options = &mut peer.options;
    options.connection_timeout = Some(site.timeouts.connect);
    options.total_connection_timeout = Some(site.timeouts.connect + site.timeouts.tls);
    options.read_timeout = Some(site.timeouts.response);
    options.write_timeout = Some(site.timeouts.between_bytes);
    options.idle_timeout = Some(site.timeouts.idle);
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    if let Some(ca) = &target.ca {
        // Compiling the file has shown that each of them parses.
        let wrapped = ca
            .iter()
            .map(|der| WrappedX509::new(der.clone(), parse_x509));
        options.ca = Some(wrapped.collect());
    }
    if target.h2 {
        options.alpn = ALPN::H2H1;
        options.max_h2_streams = H2_STREAMS_MAX;
    }
    peer
}
