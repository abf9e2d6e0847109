//! What callers and pages use: requests a second and requests under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::policy::Refusal;
use crate::policy::limit::RequestLimits;

/// Most origins that are remembered at a time.
const ORIGINS_MAX: usize = 4096;

/// The budgets of every caller and of every origin that was seen.
#[derive(Debug)]
pub struct Budgets {
    callers: HashMap<Arc<str>, Arc<Budget>, RandomState>,
    origin_limits: RequestLimits,
    origins: Mutex<HashMap<Box<[u8]>, Arc<Budget>>>,
}

/// What one caller, or the pages of one origin, have left.
#[derive(Debug)]
struct Budget {
    limiter: DefaultDirectRateLimiter,
    in_flight: AtomicU32,
    in_flight_max: u32,
}

/// A permit for one request; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Budget>);

/// No permit, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Which limit was reached.
    pub refusal: Refusal,
    /// How long to wait.
    pub retry_after: Duration,
}

impl Budgets {
    /// Full budgets.
    pub fn new(callers: &[(Arc<str>, RequestLimits)], origin_limits: RequestLimits) -> Self {
        let budget = |(name, limits): &(Arc<str>, RequestLimits)| {
            (Arc::clone(name), Arc::new(Budget::new(*limits)))
        };
        Self {
            callers: callers.iter().map(budget).collect(),
            origin_limits,
            origins: Mutex::default(),
        }
    }

    /// A permit for a request of a caller; `None` if it has no limits.
    ///
    /// # Errors
    /// When to ask again.
    pub fn of_caller(&self, caller: &str) -> Result<Option<Permit>, Exhausted> {
        self.callers.get(caller).map(Budget::take).transpose()
    }

    /// A permit for a request of a page of an origin. Only origins that are on a list come here.
    ///
    /// # Errors
    /// When to ask again.
    pub fn of_origin(&self, origin: &[u8]) -> Result<Permit, Exhausted> {
        let budget = {
            let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
            if origins.len() >= ORIGINS_MAX && !origins.contains_key(origin) {
                // Wildcards can bring many hosts; those without a request under way start afresh.
                origins.retain(|_, budget| budget.in_flight.load(Ordering::Relaxed) > 0);
            }
            let fresh = || Arc::new(Budget::new(self.origin_limits));
            Arc::clone(origins.entry(origin.into()).or_insert_with(fresh))
        };
        Budget::take(&budget)
    }
}

impl Budget {
    fn new(limits: RequestLimits) -> Self {
        let quota = Quota::per_second(limits.per_second).allow_burst(limits.burst);
        Self {
            limiter: RateLimiter::direct(quota),
            in_flight: AtomicU32::new(0),
            in_flight_max: limits.in_flight_max,
        }
    }

    fn take(budget: &Arc<Self>) -> Result<Permit, Exhausted> {
        // Given back by the drop of `permit` whatever comes of it.
        let before = budget.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(budget));
        if before >= budget.in_flight_max {
            return Err(Exhausted {
                refusal: Refusal::ConcurrencyLimited,
                retry_after: Duration::from_secs(1),
            });
        }
        match budget.limiter.check() {
            Ok(()) => Ok(permit),
            Err(not_until) => Err(Exhausted {
                refusal: Refusal::RateLimited,
                retry_after: not_until.wait_time_from(DefaultClock::default().now()),
            }),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limits(per_second: u32, burst: u32, in_flight_max: u32) -> RequestLimits {
        let whole = |n| NonZeroU32::new(n).unwrap();
        RequestLimits {
            per_second: whole(per_second),
            burst: whole(burst),
            in_flight_max,
        }
    }

    #[test]
    fn a_burst_and_then_patience() {
        let budgets = Budgets::new(&[("crm".into(), limits(1, 3, 10))], RequestLimits::ORIGIN);
        for _ in 0..3 {
            assert!(budgets.of_caller("crm").unwrap().is_some());
        }
        let exhausted = budgets.of_caller("crm").unwrap_err();
        assert_eq!(exhausted.refusal, Refusal::RateLimited);
        assert!(exhausted.retry_after <= Duration::from_secs(1));
    }

    #[test]
    fn permit_is_given_back() {
        let budgets = Budgets::new(&[], limits(1000, 1000, 2));
        let first = budgets.of_origin(b"https://a.test").unwrap();
        let _second = budgets.of_origin(b"https://a.test").unwrap();
        let refusal = budgets.of_origin(b"https://a.test").unwrap_err().refusal;
        assert_eq!(refusal, Refusal::ConcurrencyLimited);
        assert!(
            budgets.of_origin(b"https://b.test").is_ok(),
            "another origin has its own"
        );
        drop(first);
        assert!(budgets.of_origin(b"https://a.test").is_ok());
    }

    #[test]
    fn origins_are_bounded() {
        let budgets = Budgets::new(&[], RequestLimits::ORIGIN);
        for n in 0..ORIGINS_MAX + 10 {
            budgets
                .of_origin(format!("https://h{n}.test").as_bytes())
                .unwrap();
        }
        assert!(budgets.origins.lock().unwrap().len() <= ORIGINS_MAX);
    }
}
