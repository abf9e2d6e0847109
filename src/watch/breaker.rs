//! Whether a site is being left alone: judged by what no caller shapes, opened by several witnesses,
//! closed by a probe of our own.
//!
//! A caller can make a site hang, reset a connection or answer nonsense by what it asks for. So only
//! two kinds of failure are evidence: a connection that did not come about, and silence to a request
//! without a body, heard by somebody who holds a credential and while the site answered nobody else.
//! Five of them open the breaker, and only if more than one caller met them, or if a probe of our own
//! confirms them. Whatever else goes wrong can do no more than make us send that probe.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::probe::Schedule;

/// Failures since the last answer that open it: of callers, if somebody else bears witness, or of
/// probes.
const FAILURES_MAX: u32 = 5;

/// Failures of any kind since the last answer that make us ask for ourselves.
const TROUBLES_MAX: u32 = 3;

/// How long it is left alone before the first probe, and what a caller is told while one is under way.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long an operator is not told the same thing of a site again that comes and goes.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The breaker of one site. Times are handed in, so that it can be tested without waiting.
#[derive(Debug)]
pub struct Breaker {
    site: Arc<str>,
    made: Instant,
    /// Whether there is anything that an answer would change.
    troubled: AtomicBool,
    /// When the site last answered, in nanoseconds from `made`.
    answered: AtomicU64,
    state: Mutex<State>,
    probe_wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Failures of any kind since the last answer.
    troubles: u32,
    /// Those that are evidence.
    failures: u32,
    /// Who met them.
    witness: Option<Witness>,
    has_several: bool,
    probes: Schedule,
    open: Option<Open>,
    told: Vec<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Instant,
    cause: &'static str,
    failures: u32,
}

/// What an operator was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    cause: &'static str,
    at: Instant,
    /// Whether the site has answered since.
    is_past: bool,
}

/// Who met a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A caller that holds a credential.
    Caller(Arc<str>),
    /// Pages, and whoever says it is one: all of them together.
    Pages,
}

/// What a failure says of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// No connection came about.
    Unmade,
    /// It said nothing to a request without a body that was sent then.
    Silence(Instant),
    /// Nothing: a caller may have shaped it.
    None,
}

/// A request may not go to the site now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// When to ask again.
    pub retry_after: Duration,
    /// Why it is left alone.
    pub cause: &'static str,
}

/// A turn of the breaker, as it is told.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Opened(Open),
    Closed(Open),
}

impl Breaker {
    /// A breaker that is closed.
    pub fn new(site: Arc<str>) -> Self {
        Self {
            site,
            made: Instant::now(),
            troubled: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            state: Mutex::default(),
            probe_wanted: Notify::new(),
        }
    }

    /// Whether a request may go to the site now.
    ///
    /// # Errors
    /// How long to wait instead.
    pub fn admit(&self, now: Instant) -> Result<(), LeftAlone> {
        if !self.troubled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.lock();
        let Some(open) = state.open else {
            return Ok(());
        };
        let due = state.probes.due();
        let pause = due.map_or(FIRST_PAUSE, |due| due.saturating_duration_since(now));
        Err(LeftAlone {
            retry_after: pause,
            cause: open.cause,
        })
    }

    /// The site has answered a caller: a whole head, whatever it says.
    pub fn answered(&self, now: Instant) {
        self.answered.store(self.nanos(now), Ordering::Relaxed);
        if self.troubled.load(Ordering::Relaxed) {
            let mut state = self.lock();
            // Only a probe closes what is open.
            if state.open.is_none() {
                self.forget(&mut state);
            }
        }
    }

    /// A caller's request has failed. Returns whether the operator is to be told in words.
    pub fn failed(
        &self,
        cause: &'static str,
        evidence: Evidence,
        witness: &Witness,
        now: Instant,
    ) -> bool {
        let counts = match evidence {
            // It is that page which is silent, not the site.
            Evidence::Silence(asked) if self.has_answered_since(asked) => return false,
            Evidence::Silence(_) => *witness != Witness::Pages,
            Evidence::Unmade => true,
            Evidence::None => false,
        };
        let mut state = self.lock();
        self.troubled.store(true, Ordering::Relaxed);
        state.troubles = state.troubles.saturating_add(1);
        if counts {
            state.failures = state.failures.saturating_add(1);
            let first = state.witness.get_or_insert_with(|| witness.clone());
            state.has_several |= first != witness;
        }
        if state.troubles >= TROUBLES_MAX {
            state.probes.want(Duration::ZERO, now);
            self.probe_wanted.notify_one();
        }
        let turn = state.judge(cause, now);
        let tells = state.tells(cause, now);
        drop(state);
        self.tell(turn, now);
        tells
    }

    /// A failure that says nothing of the site. Returns whether the operator is to be told in words.
    pub fn tells(&self, cause: &'static str, now: Instant) -> bool {
        let mut state = self.lock();
        // So that an answer makes it past.
        self.troubled.store(true, Ordering::Relaxed);
        state.tells(cause, now)
    }

    /// Waits until a probe is to be sent. Then one is under way until [`Self::probed`].
    pub async fn probe_is_due(&self) {
        loop {
            let wanted = self.probe_wanted.notified();
            let due = {
                let mut state = self.lock();
                if state.probes.take(Instant::now()) {
                    return;
                }
                state.probes.due()
            };
            match due {
                None => wanted.await,
                Some(due) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = wanted => {}
                    }
                }
            }
        }
    }

    /// The probe under way has ended: with an answer, without one for this cause, or untold (`None`).
    /// Returns whether the operator is to be told in words. `chance` spreads the pauses.
    pub fn probed(
        &self,
        outcome: Option<Result<(), &'static str>>,
        chance: u8,
        now: Instant,
    ) -> bool {
        let mut state = self.lock();
        let cause = match outcome {
            Some(Err(cause)) => cause,
            None => {
                state.probes.again(chance, now);
                return false;
            }
            Some(Ok(())) => {
                self.answered.store(self.nanos(now), Ordering::Relaxed);
                state.probes.end();
                let open = state.open.take();
                self.forget(&mut state);
                drop(state);
                self.tell(open.map(Turn::Closed), now);
                return false;
            }
        };
        let sent = state.probes.sent().unwrap_or(now);
        if state.open.is_none() && self.has_answered_since(sent) {
            state.probes.end();
            return false;
        }
        self.troubled.store(true, Ordering::Relaxed);
        state.probes.fail(chance, now);
        let turn = state.judge(cause, now);
        let tells = state.tells(cause, now);
        drop(state);
        self.tell(turn, now);
        tells
    }

    /// Why the site is left alone, if it is.
    pub fn open_cause(&self) -> Option<&'static str> {
        self.lock().open.map(|open| open.cause)
    }

    /// Whether requests may be sent here: the site is not left alone, or its pause is over.
    pub fn is_usable(&self, now: Instant) -> bool {
        let state = self.lock();
        state.open.is_none() || state.probes.due().is_none_or(|due| due <= now)
    }

    /// Failures are in a row no more.
    fn forget(&self, state: &mut State) {
        state.troubles = 0;
        state.failures = 0;
        state.witness = None;
        state.has_several = false;
        state.probes.rest();
        for told in &mut state.told {
            told.is_past = true;
        }
        self.troubled.store(false, Ordering::Relaxed);
    }

    fn tell(&self, turn: Option<Turn>, now: Instant) {
        let site = &*self.site;
        match turn {
            None => {}
            Some(Turn::Opened(Open {
                cause, failures, ..
            })) => {
                warn!(site, cause, failures, "breaker opened");
            }
            Some(Turn::Closed(Open {
                cause,
                failures,
                since,
            })) => {
                let open_ms = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
                warn!(site, cause, failures, open_ms, "breaker closed");
            }
        }
    }

    fn has_answered_since(&self, then: Instant) -> bool {
        self.answered.load(Ordering::Relaxed) > self.nanos(then)
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while this lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Opens it if the evidence suffices.
    fn judge(&mut self, cause: &'static str, now: Instant) -> Option<Turn> {
        let of_probes = self.probes.failed_so_far();
        let confirmed = self.has_several || of_probes > 0;
        let suffices = of_probes >= FAILURES_MAX || (confirmed && self.failures >= FAILURES_MAX);
        if self.open.is_some() || !suffices {
            return None;
        }
        let open = Open {
            since: now,
            cause,
            failures: self.failures.saturating_add(of_probes),
        };
        self.open = Some(open);
        self.probes.want(FIRST_PAUSE, now);
        Some(Turn::Opened(open))
    }

    /// Whether the operator has yet to be told of a cause: once, and again only after the site has
    /// answered in between, and not at once then.
    fn tells(&mut self, cause: &'static str, now: Instant) -> bool {
        let known = self.told.iter_mut().find(|told| told.cause == cause);
        let fresh = Told {
            cause,
            at: now,
            is_past: false,
        };
        match known {
            Some(told) if !told.is_past || now - told.at < TOLD_AGAIN => false,
            Some(told) => {
                *told = fresh;
                true
            }
            None => {
                self.told.push(fresh);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSE: &str = "silent";
    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new("acme".into())
    }

    fn caller(name: &str) -> Witness {
        Witness::Caller(name.into())
    }

    /// A site whose callers meet these failures one after the other: whether it is left alone then.
    fn check(failures: &[(Evidence, Witness)], probes: u32, expected: bool) {
        let breaker = breaker();
        let now = Instant::now() + SECOND;
        for (evidence, witness) in failures {
            breaker.failed(CAUSE, *evidence, witness, now);
        }
        for _ in 0..probes {
            breaker.lock().probes.want(Duration::ZERO, now);
            breaker.probed(Some(Err(CAUSE)), 0, now);
        }
        assert_eq!(
            breaker.admit(now).is_err(),
            expected,
            "{failures:?} and {probes} probes"
        );
    }

    #[test]
    fn five_failures_that_somebody_else_met_too() {
        let of = |name: &str| (Evidence::Unmade, caller(name));
        let silence = |witness| (Evidence::Silence(Instant::now() + SECOND / 2), witness);
        check(&[of("a"), of("a"), of("a"), of("a"), of("b")], 0, true);
        check(&[of("a"), of("a"), of("a"), of("b")], 0, false);
        check(&vec![of("a"); 100], 0, false);
        check(&vec![of("a"); 5], 1, true);
        check(&vec![of("a"); 4], 1, false);
        check(&[], 5, true);
        check(&[], 4, false);
        let pages = (Evidence::Unmade, Witness::Pages);
        check(&vec![pages.clone(); 100], 0, false);
        check(&[of("a"), of("a"), of("a"), of("a"), pages], 0, true);
        check(&vec![silence(caller("a")); 100], 0, false);
        let both = [silence(caller("a")), silence(caller("b"))];
        check(&[&both[..], &both, &both].concat(), 0, true);
        let strangers = vec![silence(Witness::Pages); 100];
        check(&strangers, 0, false);
        check(
            &[strangers.clone(), vec![silence(caller("a")); 5]].concat(),
            0,
            false,
        );
        check(&strangers, 1, false);
        let nothing = [(Evidence::None, caller("a")), (Evidence::None, caller("b"))].to_vec();
        check(&vec![nothing; 100].concat(), 4, false);
    }

    #[test]
    fn an_answer_in_between_starts_again() {
        let breaker = breaker();
        let now = Instant::now() + SECOND;
        for round in 0..10 {
            let at = now + SECOND * round;
            for name in ["a", "b", "a", "b"] {
                breaker.failed(CAUSE, Evidence::Unmade, &caller(name), at);
            }
            breaker.answered(at);
            assert_eq!(breaker.lock().probes.due(), None, "nobody needs to ask");
        }
        assert_eq!(breaker.admit(now), Ok(()));
    }

    #[test]
    fn silence_while_the_site_answers_others_is_none() {
        let breaker = breaker();
        let asked = Instant::now() + SECOND;
        breaker.answered(asked + 30 * SECOND);
        for name in ["a", "b"].repeat(50) {
            let silence = Evidence::Silence(asked);
            let tells = breaker.failed(CAUSE, silence, &caller(name), asked + 60 * SECOND);
            assert!(!tells);
        }
        assert_eq!(breaker.admit(asked + 60 * SECOND), Ok(()));
        assert_eq!(breaker.lock().probes.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_probe_closes_it() {
        let breaker = breaker();
        for name in ["a", "b", "a", "b", "a"] {
            breaker.failed(CAUSE, Evidence::Unmade, &caller(name), Instant::now());
        }
        let opened = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let asked = Instant::now();
            breaker.probe_is_due().await;
            let now = Instant::now();
            pauses.push((now - asked).as_secs());
            assert!(breaker.is_usable(now), "its pause is over");
            breaker.answered(now);
            let left = breaker.admit(now).unwrap_err();
            assert_eq!(
                (left.retry_after, left.cause),
                (FIRST_PAUSE, CAUSE),
                "no caller is the probe"
            );
            breaker.probed(Some(Err("dns")), 127, now);
            assert!(!breaker.is_usable(now));
            assert!(breaker.admit(now).unwrap_err().retry_after >= SECOND);
        }
        assert_eq!(pauses, [0, 1, 2, 4, 9, 19, 24, 24, 24]);
        breaker.probe_is_due().await;
        breaker.probed(None, 0, Instant::now());
        assert!(
            breaker.open_cause().is_some(),
            "what tells nothing closes nothing"
        );
        breaker.probe_is_due().await;
        breaker.probed(Some(Ok(())), 0, Instant::now());
        assert_eq!(breaker.admit(Instant::now()), Ok(()));
        assert_eq!(breaker.open_cause(), None);
        assert!(Instant::now() - opened > 100 * SECOND);
        let more = tokio::time::timeout(100 * SECOND, breaker.probe_is_due());
        assert!(more.await.is_err(), "and then nobody asks any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_with_one_caller_is_found_out_by_probes() {
        let breaker = breaker();
        let start = Instant::now();
        for _ in 0..TROUBLES_MAX {
            breaker.failed(CAUSE, Evidence::None, &Witness::Pages, start);
        }
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.admit(Instant::now()), Ok(()));
            breaker.probe_is_due().await;
            breaker.probed(Some(Err(CAUSE)), 127, Instant::now());
        }
        assert!(breaker.admit(Instant::now()).is_err());
        assert!(Instant::now() - start < 30 * SECOND);
    }

    #[test]
    fn words_once_a_cause_and_turn() {
        let breaker = breaker();
        let start = Instant::now() + SECOND;
        let tells = |cause: &'static str, after: u32| {
            breaker.failed(cause, Evidence::None, &caller("a"), start + SECOND * after)
        };
        assert!(tells("reset", 0));
        assert!(!tells("reset", 1));
        assert!(tells("dns", 1), "another cause is news");
        assert!(!tells("reset", 1000), "for as long as it lasts");
        breaker.answered(start + SECOND * 1000);
        assert!(tells("reset", 1001), "then it is news again");
        for after in 1002..1050 {
            breaker.answered(start + SECOND * after);
            assert!(
                !tells("reset", after),
                "what comes and goes is told once a minute"
            );
        }
        breaker.answered(start + SECOND * 1061);
        assert!(tells("reset", 1061));
    }
}
