//! How many connections there may be, in total and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::limit::{ConnectionLimits, address_group};
use crate::telemetry::Telemetry;

/// How many connections there are, in total and from each address.
#[derive(Debug)]
pub struct Slots {
    limits: ConnectionLimits,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    telemetry: Arc<Telemetry>,
}

impl Slots {
    /// Slots that nobody holds yet.
    pub fn new(limits: ConnectionLimits, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            telemetry,
        })
    }

    /// Lets a connection in; `None` if there are too many.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Permit> {
        let mut permit = self.admit_proxy()?;
        permit.count(peer.ip()).then_some(permit)
    }

    /// Lets a connection of a proxy in, which carries everybody: it counts in total, and for no
    /// address until [`Permit::count`]; `None` if there are too many.
    pub fn admit_proxy(self: &Arc<Self>) -> Option<Permit> {
        let free = |open| (open < self.limits.connections_max).then_some(open + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.open.fetch_update(set, fetch, free).is_err() {
            self.telemetry.connection_refused();
            return None;
        }
        Some(Permit {
            slots: Arc::clone(self),
            address: None,
        })
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing can panic while this lock is held.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The limits.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }
}

/// A connection's permit to be open; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    slots: Arc<Slots>,
    /// What it counts for, beside the total.
    address: Option<IpAddr>,
}

impl Permit {
    /// Counts the connection for an address, once; `false` if that has too many.
    pub fn count(&mut self, address: IpAddr) -> bool {
        let address = address_group(address);
        let mut by_address = self.slots.by_address();
        let here = by_address.get(&address).copied().unwrap_or_default();
        if here >= self.slots.limits.per_address_max {
            drop(by_address);
            self.slots.telemetry.connection_refused();
            return false;
        }
        by_address.insert(address, here + 1);
        self.address = Some(address);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut by_address = self.slots.by_address();
            if let Some(count) = by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&address);
                }
            }
        }
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            connections_max: 3,
            per_address_max: 2,
            ..ConnectionLimits::default()
        }
    }

    #[test]
    fn slots_are_bounded_and_given_back() {
        let slots = Slots::new(limits(), Arc::default());
        let from = |text: &str| slots.admit(text.parse().unwrap());
        let first = from("192.0.2.1:1").unwrap();
        let _second = from("[::ffff:192.0.2.1]:2").unwrap();
        assert!(
            from("192.0.2.1:3").is_none(),
            "an address has its own limit, however it is written"
        );
        let _third = from("192.0.2.2:1").unwrap();
        assert!(from("192.0.2.3:1").is_none(), "the total is limited");
        drop(first);
        assert_eq!(slots.open(), 2);
        assert!(from("192.0.2.3:1").is_some());
    }

    #[test]
    fn a_proxy_is_counted_for_whom_it_carries() {
        let slots = Slots::new(limits(), Arc::default());
        let client = "203.0.113.7".parse().unwrap();
        let mut carried: Vec<_> = (0..3).map(|_| slots.admit_proxy().unwrap()).collect();
        assert!(slots.admit_proxy().is_none(), "the total is limited");
        assert!(carried[0].count(client) && carried[1].count(client));
        assert!(!carried[2].count(client), "the client's own limit");
        carried.truncate(1);
        assert!(slots.admit("203.0.113.7:1".parse().unwrap()).is_some());
        carried.clear();
        assert_eq!(slots.open(), 0);
        assert!(slots.by_address().is_empty());
    }

    #[test]
    fn an_ipv6_household_is_one_address() {
        let slots = Slots::new(limits(), Arc::default());
        let from = |text: &str| slots.admit(text.parse().unwrap());
        let _first = from("[2001:db8::1]:1").unwrap();
        let _second = from("[2001:db8::ffff:2]:1").unwrap();
        assert!(from("[2001:db8::3]:1").is_none());
        assert!(from("[2001:db8:0:1::3]:1").is_some());
    }
}
