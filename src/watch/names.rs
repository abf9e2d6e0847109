//! Where a site's name leads, resolved in the background and never on a request's path.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;
use tracing::warn;

/// How often names are resolved again.
const REFRESH: Duration = Duration::from_secs(30);

/// How often a name is tried again that has never been resolved.
const FIRST_REFRESH: Duration = Duration::from_secs(2);

/// How long one resolution may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of one host. The last good answer is kept.
#[derive(Debug)]
pub struct Addresses {
    host: String,
    port: u16,
    known: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
}

impl Addresses {
    /// The addresses of a host: at once if it is an IP address, else none until resolved.
    pub fn new(host: &str, port: u16) -> Self {
        let literal = host
            .parse::<IpAddr>()
            .ok()
            .map(|address| SocketAddr::new(address, port));
        Self {
            host: host.to_owned(),
            port,
            known: ArcSwap::from_pointee(literal.into_iter().collect()),
            next: AtomicUsize::new(0),
        }
    }

    /// The address to connect to: `attempt` counts from 0, and another attempt goes to another one.
    pub fn pick(&self, attempt: u32) -> Option<SocketAddr> {
        let known = self.known.load();
        let start = self.next.load(Ordering::Relaxed);
        known
            .get((start + attempt as usize) % known.len().max(1))
            .copied()
    }

    /// Starts at another address from now on, because this one failed.
    pub fn advance(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves the name once; keeps what is known if that fails.
    pub async fn resolve(&self) {
        if self.host.parse::<IpAddr>().is_ok() {
            return;
        }
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        match timeout(RESOLVE_TIMEOUT, lookup).await {
            Ok(Ok(found)) => {
                let mut found: Vec<SocketAddr> = found.collect();
                // IPv4 first: a machine without an IPv6 route is common, and the order of answers
                // changes between look-ups.
                found.sort_by_key(|address| (address.is_ipv6(), *address));
                found.dedup();
                if found.is_empty() {
                    warn!(host = self.host, reason = "no address", "name not resolved");
                } else if **self.known.load() != found {
                    self.known.store(Arc::new(found));
                }
            }
            Ok(Err(error)) => warn!(host = self.host, reason = %error.kind(), "name not resolved"),
            Err(_) => warn!(host = self.host, reason = "timeout", "name not resolved"),
        }
    }
}

/// Waits until it is time, and resolves every name again.
pub async fn resolve_again(all: &[Arc<Addresses>]) {
    let unknown = all.iter().any(|addresses| addresses.pick(0).is_none());
    tokio::time::sleep(if unknown { FIRST_REFRESH } else { REFRESH }).await;
    for addresses in all {
        addresses.resolve().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_resolution() {
        let addresses = Addresses::new("127.0.0.1", 80);
        assert_eq!(addresses.pick(0), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(addresses.pick(3), Some("127.0.0.1:80".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_the_last_good_answer_kept() {
        let addresses = Addresses::new("localhost", 80);
        assert_eq!(addresses.pick(0), None);
        addresses.resolve().await;
        assert!(addresses.pick(0).unwrap().ip().is_loopback());
        let gone = Addresses::new("host.invalid", 80);
        gone.known
            .store(Arc::new(vec!["127.0.0.1:80".parse().unwrap()]));
        gone.resolve().await;
        assert!(gone.pick(0).is_some(), "a failed look-up loses nothing");
    }
}
