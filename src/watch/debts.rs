//! How much of something each has used that comes back with time, such as wrong guesses: as a time
//! until which it is in debt.
//!
//! A debt is forgotten only when it is paid, so forgetting it gives nobody anything; where there is no
//! room for another, newcomers share one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most debts that are kept at a time.
const KEPT_MAX: usize = 16_384;

/// How often those that are paid are looked for, where there is no room.
const SWEEP: Duration = Duration::from_secs(1);

/// The debts of all who have any.
#[derive(Debug)]
pub(super) struct Debts<K> {
    /// How long one takes to be paid.
    each: Duration,
    /// The longest that is allowed.
    most: Duration,
    kept: Mutex<Kept<K>>,
}

#[derive(Debug)]
struct Kept<K> {
    // With a hash whose collisions nobody can choose.
    until: HashMap<K, Instant>,
    newcomers: Instant,
    swept: Option<Instant>,
}

impl<K: Hash + Eq> Debts<K> {
    /// So many at once, and then one as often as `each` passes.
    pub(super) fn new(at_once: u32, each: Duration) -> Self {
        Self {
            each,
            most: each * at_once,
            kept: Mutex::new(Kept {
                until: HashMap::new(),
                newcomers: Instant::now(),
                swept: None,
            }),
        }
    }

    /// Whether it owes nothing.
    pub(super) fn is_free(&self, key: K, now: Instant) -> bool {
        *self.lock().until(key, now) <= now
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long to wait for it.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut kept = self.lock();
        let until = kept.until(key, now);
        let then = now.max(*until) + self.each;
        let wait = (then - now).saturating_sub(self.most);
        if !wait.is_zero() {
            return Err(wait);
        }
        *until = then;
        Ok(())
    }

    /// Gives one back that was taken and not used.
    pub(super) fn give_back(&self, key: K, now: Instant) {
        let mut kept = self.lock();
        let until = kept.until(key, now);
        *until = until.checked_sub(self.each).unwrap_or(now);
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Kept<K> {
    /// Until when this one is in debt.
    fn until(&mut self, key: K, now: Instant) -> &mut Instant {
        if self.until.len() >= KEPT_MAX && !self.until.contains_key(&key) {
            if self.swept.is_none_or(|swept| now - swept >= SWEEP) {
                self.swept = Some(now);
                self.until.retain(|_, until| *until > now);
            }
            if self.until.len() >= KEPT_MAX {
                return &mut self.newcomers;
            }
        }
        self.until.entry(key).or_insert(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn some_at_once_and_then_with_time() {
        let debts = Debts::new(3, 10 * SECOND);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(debts.take("a", now), Ok(()));
        }
        assert_eq!(debts.take("a", now), Err(10 * SECOND));
        assert_eq!(debts.take("a", now + 4 * SECOND), Err(6 * SECOND));
        assert_eq!(debts.take("b", now), Ok(()), "another has its own");
        assert_eq!(debts.take("a", now + 10 * SECOND), Ok(()));
        assert!(debts.take("a", now + 19 * SECOND).is_err());
        assert!(!debts.is_free("a", now + 39 * SECOND));
        assert!(debts.is_free("a", now + 40 * SECOND));
        let later = now + 1000 * SECOND;
        for _ in 0..3 {
            assert_eq!(
                debts.take("a", later),
                Ok(()),
                "no more than that is saved up"
            );
        }
        assert!(debts.take("a", later).is_err());
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let debts = Debts::new(2, SECOND);
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(debts.take("a", now), Ok(()));
            debts.give_back("a", now);
        }
        assert!(debts.is_free("a", now));
        debts.give_back("a", now);
        for _ in 0..2 {
            assert_eq!(debts.take("a", now), Ok(()));
        }
        assert!(debts.take("a", now).is_err(), "nothing is gained by it");
    }

    #[test]
    fn strangers_grow_nothing_and_make_nobodys_debt_forgotten() {
        let debts = Debts::new(1, SECOND);
        let now = Instant::now();
        assert_eq!(debts.take(0, now), Ok(()));
        let taken = (1..3 * KEPT_MAX).filter(|key| debts.take(*key, now).is_ok());
        assert_eq!(taken.count(), KEPT_MAX, "newcomers have one in common");
        assert!(debts.take(0, now).is_err());
        assert_eq!(debts.lock().until.len(), KEPT_MAX);
        assert!(debts.is_free(usize::MAX, now + 2 * SECOND));
        assert_eq!(debts.lock().until.len(), 1, "what is paid is forgotten");
    }
}
