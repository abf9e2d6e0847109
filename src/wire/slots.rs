//! How many connections there may be, in total and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
        let address = address_group(peer.ip());
        let mut by_address = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let total = self.open.load(Ordering::Relaxed);
        let here = by_address.get(&address).copied().unwrap_or_default();
        if total >= self.limits.connections_max || here >= self.limits.per_address_max {
            drop(by_address);
            self.telemetry.connection_refused();
            return None;
        }
        by_address.insert(address, here + 1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Permit {
            slots: Arc::clone(self),
            address,
        })
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
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut by_address = self
            .slots
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
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
    fn an_ipv6_household_is_one_address() {
        let slots = Slots::new(limits(), Arc::default());
        let from = |text: &str| slots.admit(text.parse().unwrap());
        let _first = from("[2001:db8::1]:1").unwrap();
        let _second = from("[2001:db8::ffff:2]:1").unwrap();
        assert!(from("[2001:db8::3]:1").is_none());
        assert!(from("[2001:db8:0:1::3]:1").is_some());
    }
}
