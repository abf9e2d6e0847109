//! Whether a site is being left alone: opens after failures in a row, probes one request at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 5;

/// How long it stays open at first; doubled by each failed probe.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long it stays open at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The breaker of one site. Times are handed in, so that it can be tested without waiting.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { since: Instant, pause: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// How a request to the site went, as far as the site is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Good,
    /// It could not be reached, did not answer in time, or answered garbage.
    Bad,
    /// The caller went away first, so nothing is known.
    Unknown,
}

/// A request that was let through; tells the breaker how it went when it ends, however it ends.
#[derive(Debug)]
pub struct Trial {
    breaker: Arc<Breaker>,
    /// How it goes so far.
    pub health: Health,
}

impl Trial {
    /// Lets a request through.
    ///
    /// # Errors
    /// How long to wait instead.
    pub fn begin(breaker: &Arc<Breaker>) -> Result<Self, Duration> {
        breaker.admit(Instant::now())?;
        Ok(Self {
            breaker: Arc::clone(breaker),
            health: Health::Unknown,
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.breaker.report(self.health, Instant::now());
    }
}

impl Breaker {
    /// Whether a request may go to the site now.
    ///
    /// # Errors
    /// How long to wait instead.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { pause, .. } => {
                *state = State::Probing { since: now, pause };
                Ok(())
            }
            // A probe that never reported back must not keep the site shut for ever.
            State::Probing { since, pause } if now - since > LONGEST_PAUSE * 4 => {
                *state = State::Probing { since: now, pause };
                Ok(())
            }
            State::Probing { pause, .. } => Err(pause),
        }
    }

    /// Notes how an admitted request went.
    pub fn report(&self, health: Health, now: Instant) {
        let mut state = self.lock();
        *state = match (&*state, health) {
            (_, Health::Good) => State::default(),
            (State::Closed { failures }, Health::Bad) if failures + 1 < FAILURES_MAX => {
                State::Closed {
                    failures: failures + 1,
                }
            }
            (State::Closed { .. }, Health::Bad) => State::Open {
                until: now + FIRST_PAUSE,
                pause: FIRST_PAUSE,
            },
            (State::Probing { pause, .. }, Health::Bad) => {
                let pause = (*pause * 2).min(LONGEST_PAUSE);
                State::Open {
                    until: now + pause,
                    pause,
                }
            }
            // The probe told nothing: let the next request be one.
            (State::Probing { pause, .. }, Health::Unknown) => State::Open {
                until: now,
                pause: *pause,
            },
            (State::Open { .. }, _) | (State::Closed { .. }, Health::Unknown) => return,
        };
    }

    /// Whether requests are being refused.
    pub fn is_open(&self) -> bool {
        !matches!(*self.lock(), State::Closed { .. })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while this lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.report(Health::Bad, now);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let now = Instant::now();
        let breaker = Breaker::default();
        for _ in 0..FAILURES_MAX - 1 {
            breaker.report(Health::Bad, now);
        }
        breaker.report(Health::Unknown, now);
        breaker.report(Health::Good, now);
        for _ in 0..FAILURES_MAX - 1 {
            breaker.report(Health::Bad, now);
        }
        assert!(
            !breaker.is_open(),
            "an answer in between starts the count again"
        );
        breaker.report(Health::Bad, now);
        assert_eq!(breaker.admit(now), Err(FIRST_PAUSE));
    }

    #[test]
    fn one_probe_at_a_time_and_longer_pauses() {
        let mut now = Instant::now();
        let breaker = opened(now);
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            now += pause;
            assert_eq!(breaker.admit(now), Ok(()), "the probe");
            assert!(breaker.admit(now).is_err(), "no second probe beside it");
            breaker.report(Health::Bad, now);
            pause = (pause * 2).min(LONGEST_PAUSE);
            assert_eq!(breaker.admit(now), Err(pause));
        }
        assert_eq!(pause, LONGEST_PAUSE);
        now += pause;
        breaker.admit(now).unwrap();
        breaker.report(Health::Good, now);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_tells_nothing_is_followed_by_another() {
        let mut now = Instant::now();
        let breaker = opened(now);
        now += FIRST_PAUSE;
        breaker.admit(now).unwrap();
        breaker.report(Health::Unknown, now);
        assert_eq!(breaker.admit(now), Ok(()));
        now += LONGEST_PAUSE * 5;
        assert_eq!(
            breaker.admit(now),
            Ok(()),
            "a lost probe is replaced in the end"
        );
    }
}
