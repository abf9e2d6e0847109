//! How far this machine's clock is from a site's, and what is done about it: told, corrected in the tokens
//! that are minted, or left to be repaired where it is too far.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::signing::Epoch;

/// Measurements of which the median counts.
const SAMPLES: usize = 5;

/// From here on an operator is told.
const TOLD_SECONDS: u64 = 30;

/// From here on tokens are minted by the site's clock. A token lives five minutes.
const CORRECTED_SECONDS: u64 = 60;

/// Beyond this one of the two clocks is not off but wrong, and nobody should get used to that.
const CORRECTED_SECONDS_MAX: u64 = 600;

/// This machine's clock was set if it moved by more than this against the time since the process started.
const SET_SECONDS: u64 = 10;

/// The clock of one site, as seen from here. Times are handed in, so that it can be tested without waiting.
///
/// Skew is this machine's clock less the site's: positive where this one is ahead.
#[derive(Debug)]
pub struct SiteClock {
    site: Arc<str>,
    made: Instant,
    /// In seconds; 0 for none.
    correction: AtomicI64,
    /// [`SiteClock::basis`] of the last measurement.
    basis: AtomicI64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    samples: VecDeque<i64>,
    level: Level,
}

/// What is done about a skew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Good,
    Told,
    Corrected,
    Beyond,
}

impl Level {
    fn of(skew: i64) -> Self {
        let seconds = skew.unsigned_abs();
        if seconds <= TOLD_SECONDS {
            Self::Good
        } else if seconds <= CORRECTED_SECONDS {
            Self::Told
        } else if seconds <= CORRECTED_SECONDS_MAX {
            Self::Corrected
        } else {
            Self::Beyond
        }
    }
}

impl SiteClock {
    /// Nothing measured yet.
    pub fn new(site: Arc<str>) -> Self {
        Self {
            site,
            made: Instant::now(),
            correction: AtomicI64::new(0),
            basis: AtomicI64::new(0),
            state: Mutex::default(),
        }
    }

    /// Takes a measurement that was made at this moment. Returns whether tokens are minted by another
    /// clock from now on.
    pub fn measured(&self, skew: i64, wall: Epoch, now: Instant) -> bool {
        let basis = self.basis(wall, now);
        let mut state = self.lock();
        if self.was_set(basis) {
            state.samples.clear();
        }
        self.basis.store(basis, Ordering::Relaxed);
        if state.samples.len() == SAMPLES {
            state.samples.pop_front();
        }
        state.samples.push_back(skew);
        let median = state.median().unwrap_or_default();
        let level = Level::of(median);
        let turned = std::mem::replace(&mut state.level, level) != level;
        drop(state);
        let correction = if level == Level::Corrected { median } else { 0 };
        let before = self.correction.swap(correction, Ordering::Relaxed);
        if turned {
            self.tell(level, median);
        }
        before.abs_diff(correction) > TOLD_SECONDS
    }

    /// What stands in a token that is minted now.
    pub fn corrected(&self, wall: Epoch, now: Instant) -> Epoch {
        let correction = self.correction.load(Ordering::Relaxed);
        // Whoever has just set this machine's clock has most likely set it right.
        if correction == 0 || self.was_set(self.basis(wall, now)) {
            return wall;
        }
        let here = i64::try_from(wall.as_unix()).unwrap_or(i64::MAX);
        let there = u64::try_from(here.saturating_sub(correction));
        there.map_or(wall, Epoch::from_unix)
    }

    /// The skew, once it was measured.
    pub fn skew_seconds(&self) -> Option<i64> {
        self.lock().median()
    }

    /// How much of it is corrected in tokens: all, or 0.
    pub fn correction(&self) -> i64 {
        self.correction.load(Ordering::Relaxed)
    }

    /// The wall clock less the time since this was made: it stays as it is until the clock is set.
    fn basis(&self, wall: Epoch, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.made).as_secs();
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        seconds(wall.as_unix()).saturating_sub(seconds(since))
    }

    fn was_set(&self, basis: i64) -> bool {
        basis.abs_diff(self.basis.load(Ordering::Relaxed)) > SET_SECONDS
    }

    fn tell(&self, level: Level, skew: i64) {
        let site = &*self.site;
        let skew_seconds = skew;
        match level {
            Level::Good => info!(
                site,
                skew_seconds, "this machine's clock agrees with the site's again"
            ),
            Level::Told => warn!(site, skew_seconds, "{}", off(skew)),
            Level::Corrected => warn!(
                site,
                skew_seconds,
                "{}; until then tokens are minted by the site's clock",
                off(skew)
            ),
            Level::Beyond => warn!(
                site,
                skew_seconds,
                "{}; the site may refuse every token",
                off(skew)
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while this lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn median(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// How clocks stand that are this far apart, and what to do.
pub fn off(skew: i64) -> String {
    let side = if skew > 0 { "ahead of" } else { "behind" };
    let seconds = skew.unsigned_abs();
    let limit = if Level::of(skew) == Level::Beyond {
        format!(", and more than {CORRECTED_SECONDS_MAX} s are not corrected")
    } else {
        String::new()
    };
    format!("this machine's clock is {seconds} s {side} the site's{limit}; fix NTP")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 1_444_070_667;

    fn wall(seconds: u64) -> Epoch {
        Epoch::from_unix(NOW + seconds)
    }

    /// A clock that was measured like this, once a minute, and when.
    fn measured(skews: &[i64]) -> (SiteClock, u64, Instant) {
        let clock = SiteClock::new("acme".into());
        let mut seconds = 0;
        for skew in skews {
            seconds += 60;
            clock.measured(
                *skew,
                wall(seconds),
                clock.made + Duration::from_secs(seconds),
            );
        }
        let now = clock.made + Duration::from_secs(seconds);
        (clock, seconds, now)
    }

    #[test]
    fn tokens_follow_the_site_from_one_minute_to_ten() {
        let check = |skew: i64, expected: i64| {
            let (clock, seconds, now) = measured(&[skew]);
            let minted = clock.corrected(wall(seconds), now).as_unix();
            let less =
                i64::try_from(wall(seconds).as_unix()).unwrap() - i64::try_from(minted).unwrap();
            assert_eq!(less, expected, "{skew}");
            assert_eq!(clock.correction(), expected);
            assert_eq!(clock.skew_seconds(), Some(skew));
        };
        for side in [1, -1] {
            for skew in [0, 1, 30, 31, 60, 601, 1200, i64::MAX] {
                check(side * skew, 0);
            }
            for skew in [61, 240, 480, 600] {
                check(side * skew, side * skew);
            }
        }
    }

    #[test]
    fn the_median_of_the_last_five_counts() {
        let check = |skews: &[i64], expected: Option<i64>| {
            assert_eq!(measured(skews).0.skew_seconds(), expected, "{skews:?}");
        };
        check(&[], None);
        check(&[100], Some(100));
        check(&[0, 0, 400, 400], Some(400));
        check(&[0, 0, 0, 400, 400], Some(0));
        check(&[0, 0, 0, 400, 400, 400], Some(400));
        check(&[0, -9000, 0, 9000, 1], Some(0));
    }

    #[test]
    fn whoever_sets_the_clock_is_believed_at_once() {
        let (clock, seconds, now) = measured(&[480; 10]);
        let minted = |seconds| clock.corrected(wall(seconds), now);
        assert_eq!(minted(seconds), wall(seconds - 480));
        assert_eq!(
            minted(seconds + 10),
            wall(seconds + 10 - 480),
            "clocks drift"
        );
        assert_eq!(minted(seconds - 480), wall(seconds - 480), "it was set");
        // And measured again: the old ones say nothing any more.
        assert!(clock.measured(0, wall(seconds - 480), now));
        assert_eq!(clock.skew_seconds(), Some(0));
        assert_eq!(clock.correction(), 0);
    }

    #[test]
    fn it_says_when_tokens_change() {
        let clock = SiteClock::new("acme".into());
        let check = |skew, expected| {
            let changed = clock.measured(skew, wall(0), clock.made);
            assert_eq!(changed, expected, "{skew}");
        };
        check(0, false);
        check(480, true);
        check(481, false);
        check(-480, false);
    }
}
