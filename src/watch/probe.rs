//! When a site is asked by ourselves whether it is there: at once, and then after longer and longer
//! pauses.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause, and the longest; a fifth more or less, so that gateways that lost a site together
/// do not ask for it together.
const FIRST_PAUSE: Duration = Duration::from_millis(1250);
const LONGEST_PAUSE: Duration = Duration::from_secs(25);

/// Least time between two probes, whatever callers do.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// The probes of one site. Times and chance are handed in.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    next: Next,
    sent: Option<Instant>,
    /// Since the site was last heard.
    failed: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// Nobody wants one.
    #[default]
    Nothing,
    Due(Instant),
    UnderWay,
}

impl Schedule {
    /// When the next probe is to be sent, if one is.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.next {
            Next::Due(at) => Some(at),
            Next::Nothing | Next::UnderWay => None,
        }
    }

    /// How many have failed since the site was last heard.
    pub(super) fn failed_so_far(&self) -> u32 {
        self.failed
    }

    /// A probe is wanted, `after` a time at the earliest, unless one is due or under way.
    pub(super) fn want(&mut self, after: Duration, now: Instant) {
        if self.next == Next::Nothing {
            let soonest = self.sent.map_or(now, |sent| sent + LEAST_PAUSE);
            self.next = Next::Due(soonest.max(now + after));
        }
    }

    /// No probe is wanted, since the site was heard. One that is under way goes on.
    pub(super) fn rest(&mut self) {
        self.failed = 0;
        if self.next != Next::UnderWay {
            self.next = Next::Nothing;
        }
    }

    /// Takes the probe that is due, if one is.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.next = Next::UnderWay;
            self.sent = Some(now);
        }
        is_due
    }

    /// The probe under way has ended, and no further one is wanted.
    pub(super) fn end(&mut self) {
        self.next = Next::Nothing;
        self.failed = 0;
    }

    /// The probe under way has failed: the next one follows after a longer pause.
    pub(super) fn fail(&mut self, chance: u8, now: Instant) {
        self.failed = self.failed.saturating_add(1);
        self.again(chance, now);
    }

    /// The probe under way has told nothing: another follows.
    pub(super) fn again(&mut self, chance: u8, now: Instant) {
        self.next = Next::Due(now + pause(self.failed, chance));
    }

    /// When the last one was sent.
    pub(super) fn sent(&self) -> Option<Instant> {
        self.sent
    }
}

/// The pause after so many failures in a row.
fn pause(failed: u32, chance: u8) -> Duration {
    let doublings = failed.saturating_sub(1).min(5);
    let pause = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
    // From four fifths to six.
    pause * (4 * 255 + 2 * u32::from(chance)) / (5 * 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let check = |failed: u32, chance: u8, millis: u128| {
            assert_eq!(
                pause(failed, chance).as_millis(),
                millis,
                "{failed} {chance}"
            );
        };
        for (failed, least, most) in [
            (0, 1000, 1500),
            (1, 1000, 1500),
            (2, 2000, 3000),
            (5, 16_000, 24_000),
            (6, 20_000, 30_000),
            (u32::MAX, 20_000, 30_000),
        ] {
            check(failed, 0, least);
            check(failed, u8::MAX, most);
        }
    }

    #[test]
    fn one_at_a_time_and_no_more_than_one_a_second() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut schedule = Schedule::default();
        assert!(!schedule.take(now), "none is wanted");
        schedule.want(Duration::ZERO, now);
        assert!(schedule.take(now), "the first one at once");
        schedule.want(Duration::ZERO, now);
        assert!(!schedule.take(now), "one is under way");
        schedule.end();
        schedule.want(Duration::ZERO, now);
        assert_eq!(schedule.due(), Some(now + second));
        assert!(schedule.take(now + second));
        schedule.fail(0, now + second);
        schedule.want(Duration::ZERO, now + second);
        assert_eq!(schedule.due(), Some(now + 2 * second), "its own pause");
        schedule.rest();
        assert_eq!((schedule.due(), schedule.failed_so_far()), (None, 0));
    }
}
