//! What callers, pages and strangers use: requests a second and requests under way.
//!
//! Budgets by what a stranger can choose (an address of many, an origin below a wildcard) are kept for
//! as long as they are in use. A budget is forgotten only when it is full again, so forgetting it
//! gives nobody anything; where there is no room for another, newcomers share one. So no number of
//! addresses grows them, or brings anybody else's back to the beginning.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use crate::policy::Refusal;
use crate::policy::limit::{CallerLimits, RequestLimits, SharedLimits, address_group};

/// Most budgets of one kind that are kept for strangers at a time.
const KEPT_MAX: usize = 16_384;

/// How often those that are full again are looked for, where there is no room.
const SWEEP: Duration = Duration::from_secs(1);

/// The budgets of every caller, of every route for pages, and of every address and origin that was
/// seen.
#[derive(Debug)]
pub struct Budgets {
    callers: HashMap<Arc<str>, Arc<OfCaller>, RandomState>,
    routes: HashMap<Arc<str>, Arc<Budget>, RandomState>,
    addresses: Arc<Table<IpAddr>>,
    origins: Arc<Table<Vec<u8>>>,
    unidentified: Arc<Table<IpAddr>>,
}

/// What one caller has left, each user whom its requests choose, and what is refused to whoever holds
/// its credential. The users of one caller make nobody forget those of another.
#[derive(Debug)]
struct OfCaller {
    all: Arc<Budget>,
    users: Table<String>,
    refused: Budget,
}

/// What one caller, or all who have something in common, have left.
#[derive(Debug)]
struct Budget {
    limits: RequestLimits,
    limiter: DefaultDirectRateLimiter,
    in_flight: AtomicU32,
    /// Requests of pages with a body under way.
    uploads: AtomicU32,
}

/// A permit for one request; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    is_upload: bool,
}

/// No permit, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Which limit was reached.
    pub refusal: Refusal,
    /// How long to wait.
    pub retry_after: Duration,
}

/// What a request of a page asks for.
#[derive(Clone, Copy, Debug)]
pub struct OfPage<'a> {
    /// Where it comes from.
    pub address: IpAddr,
    /// The name of its route.
    pub route: &'a str,
    /// The origin it names, if its route wants one.
    pub origin: Option<&'a [u8]>,
    /// Whether it has a body. Those are at most half of what may be under way, so that slow uploads
    /// leave room for everything else.
    pub is_upload: bool,
}

impl Budgets {
    /// Full budgets, but for those whose limits are as they were before: what has been used of them stays
    /// used.
    pub fn new<'a>(
        callers: &[(Arc<str>, CallerLimits)],
        routes: impl Iterator<Item = &'a Arc<str>>,
        shared: &SharedLimits,
        before: Option<&Self>,
    ) -> Self {
        let of_caller = |name: &Arc<str>, limits: &CallerLimits| {
            let known = before.and_then(|before| before.callers.get(name));
            let known = known.filter(|known| known.has(limits));
            known.cloned().unwrap_or_else(|| OfCaller::new(limits))
        };
        let of_route = |name: &Arc<str>| {
            let known = before.and_then(|before| before.routes.get(name));
            let known = known.filter(|known| known.limits == shared.per_route);
            known
                .cloned()
                .unwrap_or_else(|| Arc::new(Budget::new(shared.per_route)))
        };
        Self {
            callers: callers
                .iter()
                .map(|(name, limits)| (Arc::clone(name), of_caller(name, limits)))
                .collect(),
            routes: routes
                .map(|name| (Arc::clone(name), of_route(name)))
                .collect(),
            addresses: Table::over(before.map(|it| &it.addresses), shared.per_address),
            origins: Table::over(before.map(|it| &it.origins), shared.per_origin),
            unidentified: Table::over(before.map(|it| &it.unidentified), shared.unidentified),
        }
    }

    /// Permits for a request of a caller, and of the user it chose, if it did; `None` if the caller has
    /// no limits. The user's comes first, so that one who has no more costs the others nothing.
    ///
    /// # Errors
    /// When to ask again.
    pub fn of_caller(
        &self,
        caller: &str,
        chosen: Option<&str>,
        now: Instant,
    ) -> Result<[Option<Permit>; 2], Exhausted> {
        let Some(of_caller) = self.callers.get(caller) else {
            return Ok([None, None]);
        };
        let user = chosen.map(|user| of_caller.users.get(user, now));
        let user = user
            .map(|budget| Budget::take(&budget, false))
            .transpose()?;
        Ok([Some(Budget::take(&of_caller.all, false)?), user])
    }

    /// A permit for a request of a page of an origin. Only origins that are on a list come here.
    ///
    /// # Errors
    /// When to ask again.
    pub fn of_origin(&self, origin: &[u8], now: Instant) -> Result<Permit, Exhausted> {
        Budget::take(&self.origins.get(origin, now), false)
    }

    /// Permits for a request without a credential: of its address first, since that is the one thing
    /// of them that a stranger does not choose, then of its route, then of its origin.
    ///
    /// # Errors
    /// When to ask again.
    pub fn of_page(
        &self,
        page: &OfPage<'_>,
        now: Instant,
    ) -> Result<[Option<Permit>; 3], Exhausted> {
        let take = |budget: &Arc<Budget>| Budget::take(budget, page.is_upload);
        let address = take(&self.addresses.get(&address_group(page.address), now))?;
        let route = self.routes.get(page.route).map(take).transpose()?;
        let origin = page.origin.map(|origin| self.origins.get(origin, now));
        let origin = origin.as_ref().map(take).transpose()?;
        Ok([Some(address), route, origin])
    }

    /// Charges whoever holds a caller's credential for a request that is refused because of who asks, or
    /// from where: as much as a quarter of what the caller may use, and nothing of that itself.
    ///
    /// # Errors
    /// When to ask again.
    pub fn charge_refused(&self, caller: &str) -> Result<(), Exhausted> {
        let of_caller = self.callers.get(caller);
        of_caller.map_or(Ok(()), |of_caller| of_caller.refused.charge())
    }

    /// Charges an address for a request without a credential that is refused.
    ///
    /// # Errors
    /// When to ask again.
    pub fn charge_unidentified(&self, address: IpAddr, now: Instant) -> Result<(), Exhausted> {
        let budget = self.unidentified.get(&address_group(address), now);
        budget.charge()
    }
}

impl OfCaller {
    fn new(limits: &CallerLimits) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Budget::new(limits.all)),
            users: Table::new(limits.per_user),
            refused: Budget::new(limits.all.quarter()),
        })
    }

    fn has(&self, limits: &CallerLimits) -> bool {
        self.all.limits == limits.all && self.users.limits == limits.per_user
    }
}

impl Budget {
    fn new(limits: RequestLimits) -> Self {
        let quota = Quota::per_second(limits.per_second).allow_burst(limits.burst);
        Self {
            limits,
            limiter: RateLimiter::direct(quota),
            in_flight: AtomicU32::new(0),
            uploads: AtomicU32::new(0),
        }
    }

    fn take(budget: &Arc<Self>, is_upload: bool) -> Result<Permit, Exhausted> {
        // Given back by the drop of `permit` whatever comes of it.
        let before = budget.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut has_room = before < budget.limits.in_flight_max;
        if is_upload {
            let before = budget.uploads.fetch_add(1, Ordering::Relaxed);
            has_room &= before < budget.limits.in_flight_max.div_ceil(2);
        }
        let permit = Permit {
            budget: Arc::clone(budget),
            is_upload,
        };
        if !has_room {
            return Err(Exhausted {
                refusal: Refusal::ConcurrencyLimited,
                retry_after: Duration::from_secs(1),
            });
        }
        budget.charge()?;
        Ok(permit)
    }

    fn charge(&self) -> Result<(), Exhausted> {
        self.limiter.check().map_err(|not_until| Exhausted {
            refusal: Refusal::RateLimited,
            retry_after: not_until.wait_time_from(DefaultClock::default().now()),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_upload {
            self.budget.uploads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The budgets of what strangers choose, as far as they are in use.
#[derive(Debug)]
struct Table<K> {
    limits: RequestLimits,
    /// How long a budget takes to be full again.
    refill: Duration,
    kept: Mutex<Kept<K>>,
    /// For whoever comes when there is no room.
    newcomers: Arc<Budget>,
}

#[derive(Debug)]
struct Kept<K> {
    // With a hash whose collisions nobody can choose.
    budgets: HashMap<K, (Arc<Budget>, Instant)>,
    swept: Option<Instant>,
}

impl<K: Hash + Eq> Table<K> {
    fn new(limits: RequestLimits) -> Self {
        let seconds = limits.burst.get().div_ceil(limits.per_second.get());
        Self {
            limits,
            refill: Duration::from_secs(seconds.into()),
            kept: Mutex::new(Kept {
                budgets: HashMap::new(),
                swept: None,
            }),
            newcomers: Arc::new(Budget::new(limits)),
        }
    }

    /// The one before, if these are its limits.
    fn over(before: Option<&Arc<Self>>, limits: RequestLimits) -> Arc<Self> {
        let before = before.filter(|before| before.limits == limits);
        before
            .cloned()
            .unwrap_or_else(|| Arc::new(Self::new(limits)))
    }

    fn get<Q>(&self, key: &Q, now: Instant) -> Arc<Budget>
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        if let Some((budget, used)) = kept.budgets.get_mut(key) {
            *used = now;
            return Arc::clone(budget);
        }
        if kept.budgets.len() >= KEPT_MAX {
            if kept.swept.is_some_and(|swept| now - swept < SWEEP) {
                return Arc::clone(&self.newcomers);
            }
            kept.swept = Some(now);
            // Who has a permit has the budget, too.
            kept.budgets.retain(|_, (budget, used)| {
                Arc::strong_count(budget) > 1 || now - *used < self.refill
            });
            if kept.budgets.len() >= KEPT_MAX {
                return Arc::clone(&self.newcomers);
            }
        }
        let budget = Arc::new(Budget::new(self.limits));
        kept.budgets
            .insert(key.to_owned(), (Arc::clone(&budget), now));
        budget
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(per_second: u32, burst: u32, in_flight_max: u32) -> RequestLimits {
        let whole = |n| NonZeroU32::new(n).unwrap();
        RequestLimits {
            per_second: whole(per_second),
            burst: whole(burst),
            in_flight_max,
        }
    }

    fn budgets(shared: &SharedLimits) -> Budgets {
        let limits = CallerLimits {
            all: limits(1, 3, 10),
            per_user: limits(1, 2, 1),
        };
        let callers = [("crm".into(), limits), ("portal".into(), limits)];
        Budgets::new(&callers, ["widget".into()].iter(), shared, None)
    }

    /// A request of a page at an origin, from an address.
    fn page<'a>(address: &str, origin: &'a str) -> OfPage<'a> {
        OfPage {
            address: address.parse().unwrap(),
            route: "widget",
            origin: Some(origin.as_bytes()),
            is_upload: false,
        }
    }

    #[test]
    fn a_burst_and_then_patience() {
        let budgets = budgets(&SharedLimits::default());
        let now = Instant::now();
        for _ in 0..3 {
            let [caller, user] = budgets.of_caller("crm", None, now).unwrap();
            assert!(caller.is_some() && user.is_none());
        }
        let exhausted = budgets.of_caller("crm", None, now).unwrap_err();
        assert_eq!(exhausted.refusal, Refusal::RateLimited);
        assert!(exhausted.retry_after <= SECOND);
    }

    #[test]
    fn one_user_leaves_the_others_of_its_caller_what_they_need() {
        let budgets = budgets(&SharedLimits::default());
        let now = Instant::now();
        let take = |caller: &str, name: &str| {
            let permits = budgets.of_caller(caller, Some(name), now);
            permits.map_err(|exhausted| exhausted.refusal)
        };
        let held = take("crm", "=jane").unwrap();
        let at_once = take("crm", "=jane").unwrap_err();
        assert_eq!(at_once, Refusal::ConcurrencyLimited);
        drop(held);
        assert!(take("crm", "=jane").is_ok(), "it is given back");
        for _ in 0..100 {
            let too_many = take("crm", "=jane").unwrap_err();
            assert_eq!(too_many, Refusal::RateLimited);
        }
        assert!(
            take("crm", "=joe").is_ok(),
            "what is refused costs the caller nothing"
        );
        assert_eq!(
            take("crm", "=jim").unwrap_err(),
            Refusal::RateLimited,
            "its caller's"
        );
        assert!(
            take("portal", "=jane").is_ok(),
            "another caller's user is another"
        );
        assert!(take("unlimited", "=jane").unwrap()[0].is_none());
    }

    /// Whoever holds the credential may be a thief.
    #[test]
    fn what_is_refused_to_a_caller_costs_it_nothing_it_needs() {
        let budgets = budgets(&SharedLimits::default());
        let charge = |caller: &str| {
            let charged = budgets.charge_refused(caller);
            charged.map_err(|exhausted| exhausted.refusal)
        };
        assert_eq!(charge("crm"), Ok(()));
        for _ in 0..100 {
            assert_eq!(charge("crm"), Err(Refusal::RateLimited));
        }
        assert_eq!(charge("portal"), Ok(()), "another caller's");
        assert_eq!(charge("unlimited"), Ok(()));
        let now = Instant::now();
        for user in ["=jane", "=joe", "=jim"] {
            assert!(budgets.of_caller("crm", Some(user), now).is_ok(), "{user}");
        }
    }

    #[test]
    fn permit_is_given_back() {
        let budgets = budgets(&SharedLimits {
            per_origin: limits(1000, 1000, 2),
            ..SharedLimits::default()
        });
        let now = Instant::now();
        let first = budgets.of_origin(b"https://a.test", now).unwrap();
        let _second = budgets.of_origin(b"https://a.test", now).unwrap();
        let refusal = budgets
            .of_origin(b"https://a.test", now)
            .unwrap_err()
            .refusal;
        assert_eq!(refusal, Refusal::ConcurrencyLimited);
        assert!(
            budgets.of_origin(b"https://b.test", now).is_ok(),
            "another origin has its own"
        );
        drop(first);
        assert!(budgets.of_origin(b"https://a.test", now).is_ok());
    }

    /// Takes what one address gets of a page's budgets.
    fn exhaust(budgets: &Budgets, request: OfPage<'_>) -> Vec<[Option<Permit>; 3]> {
        let now = Instant::now();
        std::iter::from_fn(|| budgets.of_page(&request, now).ok()).collect()
    }

    #[test]
    fn one_address_cannot_use_up_a_route_or_an_origin() {
        let origin = "https://a.test";
        let shared = SharedLimits::default();
        let budgets = budgets(&shared);
        for address in ["192.0.2.1", "2001:db8::1"] {
            let held = exhaust(&budgets, page(address, origin));
            assert_eq!(held.len() as u32, shared.per_address.in_flight_max);
            // Neither under another name nor from the next address of the same network.
            assert!(
                budgets
                    .of_page(&page(address, "https://b.test"), Instant::now())
                    .is_err()
            );
            assert!(
                budgets
                    .of_page(&page("192.0.2.9", origin), Instant::now())
                    .is_ok()
            );
            drop(held);
            // At full speed.
            while budgets
                .of_page(&page(address, origin), Instant::now())
                .is_ok()
            {}
            let other = budgets.of_page(&page("192.0.2.9", origin), Instant::now());
            assert!(other.is_ok(), "{other:?}");
        }
        let neighbour = page("2001:db8::ffff:1", origin);
        assert!(
            budgets.of_page(&neighbour, Instant::now()).is_err(),
            "one /64"
        );
    }

    #[test]
    fn made_up_origins_share_their_route() {
        let shared = SharedLimits {
            per_address: limits(1_000_000, 1_000_000, 1_000),
            ..SharedLimits::default()
        };
        let budgets = budgets(&shared);
        let mut held = Vec::new();
        for n in 0..1_000 {
            let origin = format!("https://h{n}.test");
            let address = format!("10.0.{}.{}", n / 250, n % 250);
            match budgets.of_page(&page(&address, &origin), Instant::now()) {
                Ok(permits) => held.push(permits),
                Err(exhausted) => assert_eq!(exhausted.refusal, Refusal::ConcurrencyLimited),
            }
        }
        assert_eq!(held.len() as u32, shared.per_route.in_flight_max);
    }

    #[test]
    fn uploads_leave_room_for_everything_else() {
        let budgets = budgets(&SharedLimits::default());
        let mut held = Vec::new();
        for n in 0..100 {
            let address = format!("192.0.2.{n}");
            let upload = OfPage {
                is_upload: true,
                ..page(&address, "https://a.test")
            };
            held.extend(exhaust(&budgets, upload));
        }
        let half = SharedLimits::default().per_origin.in_flight_max / 2;
        assert_eq!(held.len() as u32, half, "half of an origin's");
        let reading = budgets.of_page(&page("198.51.100.1", "https://a.test"), Instant::now());
        assert!(reading.is_ok());
        held.clear();
        let upload = OfPage {
            is_upload: true,
            ..page("198.51.100.1", "https://a.test")
        };
        assert!(
            budgets.of_page(&upload, Instant::now()).is_ok(),
            "given back"
        );
    }

    #[test]
    fn strangers_grow_nothing_and_flush_nobody() {
        let table = Table::<IpAddr>::new(limits(1, 2, 10));
        let now = Instant::now();
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let held = Budget::take(&table.get(&address(1), now), false).unwrap();
        let spent = table.get(&address(2), now);
        while spent.charge().is_ok() {}
        drop(spent);
        for n in 3..3 * KEPT_MAX as u32 {
            let soon = now + SECOND / 2;
            assert!(table.get(&address(n), soon).charge().is_ok() || n > KEPT_MAX as u32);
        }
        let len = |table: &Table<IpAddr>| table.kept.lock().unwrap().budgets.len();
        assert_eq!(len(&table), KEPT_MAX);
        let soon = now + SECOND;
        assert!(
            table.get(&address(2), soon).charge().is_err(),
            "it is not full again"
        );
        let late = now + 10 * SECOND;
        table.get(&address(u32::MAX), late);
        assert_eq!(len(&table), 2, "what is full or not in use is forgotten");
        assert_eq!(
            table
                .get(&address(1), late)
                .in_flight
                .load(Ordering::Relaxed),
            1
        );
        drop(held);
    }
}
