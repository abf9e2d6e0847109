//! Bodies that are held before it is known whose they are: how much of them, in all and from one
//! address.
//!
//! Whoever sends one may be a stranger. What is counted is what has come, so announcing much takes
//! nothing from anybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::budget::Exhausted;
use crate::policy::Refusal;
use crate::policy::limit::address_group;

/// Most bytes that are held at a time.
const HELD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most of them from one address, unless it is one body that is longer.
const HELD_BYTES_PER_ADDRESS_MAX: u64 = HELD_BYTES_MAX / 16;

/// All bodies that are held.
#[derive(Debug, Default)]
pub struct HeldBodies(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    // With a hash whose collisions nobody can choose.
    by_address: HashMap<IpAddr, u64>,
}

/// The space of one body; given back when dropped.
#[derive(Debug)]
pub struct Hold {
    all: Arc<HeldBodies>,
    address: IpAddr,
    bytes: u64,
}

impl HeldBodies {
    /// No space yet, for a body from an address.
    pub fn hold(self: &Arc<Self>, address: IpAddr) -> Hold {
        Hold {
            all: Arc::clone(self),
            address: address_group(address),
            bytes: 0,
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hold {
    /// Takes more space.
    ///
    /// # Errors
    /// When to ask again.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let address = self.address;
        let after = self.bytes + bytes;
        let has_room = self.all.change(|held| {
            let of_address = held.by_address.get(&address).copied().unwrap_or_default() + bytes;
            let is_only = of_address == after;
            let has_room = held.bytes + bytes <= HELD_BYTES_MAX
                && (is_only || of_address <= HELD_BYTES_PER_ADDRESS_MAX);
            if has_room {
                held.bytes += bytes;
                held.by_address.insert(address, of_address);
            }
            has_room
        });
        if !has_room {
            return Err(Exhausted {
                refusal: Refusal::ConcurrencyLimited,
                retry_after: Duration::from_secs(1),
            });
        }
        self.bytes = after;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (address, bytes) = (self.address, self.bytes);
        self.all.change(|held| {
            held.bytes -= bytes;
            let left = held
                .by_address
                .get(&address)
                .map(|of_address| of_address - bytes);
            match left {
                Some(0) => drop(held.by_address.remove(&address)),
                Some(left) => drop(held.by_address.insert(address, left)),
                None => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 1024 * 1024;

    /// Bodies of a step each, as many as one address may hold.
    fn fill(all: &Arc<HeldBodies>, address: &str) -> Vec<Hold> {
        let mut holds = Vec::new();
        loop {
            let mut hold = all.hold(address.parse().unwrap());
            if hold.grow(STEP).is_err() {
                return holds;
            }
            holds.push(hold);
        }
    }

    #[test]
    fn one_address_holds_a_part_and_all_hold_the_whole() {
        let all = Arc::new(HeldBodies::default());
        let share = usize::try_from(HELD_BYTES_PER_ADDRESS_MAX / STEP).unwrap();
        let first = fill(&all, "2001:db8::1");
        assert_eq!(first.len(), share);
        assert_eq!(fill(&all, "2001:db8::2").len(), 0, "one /64");
        let others: Vec<_> = (0..20)
            .map(|n| fill(&all, &format!("192.0.2.{n}")))
            .collect();
        let count: usize = others.iter().map(Vec::len).sum();
        assert_eq!((count + share) as u64 * STEP, HELD_BYTES_MAX);
        let refused = all.hold([198, 51, 100, 9].into()).grow(1).unwrap_err();
        assert_eq!(refused.refusal, Refusal::ConcurrencyLimited);
        drop(first);
        assert_eq!(fill(&all, "2001:db8::2").len(), share, "given back");
        drop(others);
        all.change(|held| assert!(held.bytes == 0 && held.by_address.is_empty()));
    }

    #[test]
    fn one_body_may_be_longer_than_that() {
        let all = Arc::new(HeldBodies::default());
        let address = [192, 0, 2, 1].into();
        let mut long = all.hold(address);
        for _ in 0..4 {
            long.grow(HELD_BYTES_PER_ADDRESS_MAX).unwrap();
        }
        let mut second = all.hold(address);
        assert!(second.grow(1).is_err());
        drop(long);
        second.grow(1).unwrap();
        let mut third = all.hold(address);
        third.grow(1).unwrap();
        assert!(second.grow(HELD_BYTES_PER_ADDRESS_MAX).is_err());
        drop(third);
        second.grow(HELD_BYTES_PER_ADDRESS_MAX).unwrap();
    }
}
