//! The keys of identity providers: read from files or fetched, again and again in the background, and
//! kept when their source fails.

mod source;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use self::source::{Found, Source};
use crate::jose::KeySet;
use crate::policy::caller::jwt::{Issuer, KeySource};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How often keys are fetched whose server does not say how long they last, and the bounds of what it
/// may say.
const FETCH: Duration = Duration::from_secs(3600);
const FETCH_LEAST: Duration = Duration::from_secs(5 * 60);
const FETCH_MOST: Duration = Duration::from_secs(24 * 3600);

/// The first pause after a source failed, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Least time between a refresh for an unknown key that brought nothing new, and the next: whoever
/// invents names of keys asks no more of an issuer.
const FRUITLESS_PAUSE: Duration = Duration::from_secs(60);

/// Least time between any two that requests bring about.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a request waits for a refresh.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);

/// How long starting waits for the keys of all issuers.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// What is known of one issuer's keys.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    /// Which one it is; no two share one.
    pub(super) id: u64,
    /// The issuer.
    pub(super) issuer: Arc<Issuer>,
    source: Source,
    known: ArcSwapOption<KeySet>,
    turn: Mutex<Turn>,
    /// That a request wants a refresh.
    wanted: Notify,
    /// How many refreshes have ended.
    ended: watch::Sender<u64>,
}

/// When keys were and may be refreshed.
#[derive(Debug, Default)]
struct Turn {
    /// Whether one is under way, or wanted by a request.
    is_under_way: bool,
    /// When the last one began that a request wanted.
    wanted: Option<Instant>,
    /// Whether that one brought nothing new.
    was_fruitless: bool,
    /// In a row.
    failures: u32,
    /// How long what came last lasts, if its server says so.
    lasts: Option<Duration>,
}

impl IssuerKeys {
    pub(super) fn new(issuer: &Arc<Issuer>, id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            issuer: Arc::clone(issuer),
            source: Source::new(issuer),
            known: ArcSwapOption::empty(),
            turn: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
        })
    }

    /// The keys, once they have been had.
    pub(super) fn known(&self) -> Option<Arc<KeySet>> {
        self.known.load_full()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        // Nothing can panic while this lock is held.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for keys that may be newer than those known: for a refresh that is under way, or for one
    /// that is brought about here, if it is time for one. `false` if nothing came of it.
    pub(super) async fn newer(&self) -> bool {
        let mut ended = self.ended.subscribe();
        {
            let mut turn = self.turn();
            if !turn.is_under_way {
                if !turn.may_be_wanted(Instant::now()) {
                    return false;
                }
                turn.is_under_way = true;
                self.wanted.notify_one();
            }
        }
        matches!(timeout(REQUEST_PATIENCE, ended.changed()).await, Ok(Ok(())))
    }

    /// Refreshes once, as starting does.
    async fn begin(&self) {
        if self.turn().take() {
            self.refresh(false).await;
        }
    }

    /// Refreshes, again and again; never returns.
    pub(super) async fn keep_fresh(&self) {
        let mut mark = None;
        loop {
            let due = self.next_due();
            let is_wanted = timeout_at(due, self.wanted.notified()).await.is_ok();
            let now = self.source.mark().await;
            if is_wanted {
                let last = self.turn().wanted;
                if let Some(last) = last {
                    sleep_until(last + LEAST_PAUSE).await;
                }
            } else {
                // A file that has not changed has nothing new to say, unless it could never be read.
                let is_same = now.is_some() && mark == now && self.known.load().is_some();
                // Where a request wants it meanwhile, that has been noted.
                if is_same || !self.turn().take() {
                    continue;
                }
            }
            mark = now;
            self.refresh(is_wanted).await;
        }
    }

    /// When the source is to be asked again.
    fn next_due(&self) -> Instant {
        let turn = self.turn();
        let pause = match (&self.issuer.keys, turn.failures) {
            (KeySource::Files(_), _) => return Instant::now() + LOOK,
            // Starting did not wait for it any longer.
            _ if turn.is_under_way => FIRST_PAUSE,
            (_, 0) => turn.lasts.unwrap_or(FETCH).clamp(FETCH_LEAST, FETCH_MOST),
            (_, failures) => {
                let doublings = (failures - 1).min(10);
                (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
            }
        };
        Instant::now() + spread(pause, chance())
    }

    /// Asks the source once; keeps what is known if that fails.
    async fn refresh(&self, is_wanted: bool) {
        let began = Instant::now();
        let found = self.source.ask().await;
        let is_new = found.as_ref().is_ok_and(|found| self.take(found));
        let failures_before = {
            let mut turn = self.turn();
            turn.is_under_way = false;
            if is_wanted {
                turn.wanted = Some(began);
                turn.was_fruitless = !is_new;
            }
            match &found {
                Ok(found) => {
                    turn.lasts = found.lasts;
                    std::mem::take(&mut turn.failures)
                }
                Err(_) => {
                    turn.failures = turn.failures.saturating_add(1);
                    turn.failures - 1
                }
            }
        };
        self.tell(found.as_ref().err(), failures_before);
        self.ended.send_modify(|count| *count += 1);
    }

    /// Takes the keys that came, if they are others.
    fn take(&self, found: &Found) -> bool {
        let known = self.known.load();
        let is_new = known
            .as_ref()
            .is_none_or(|known| !known.is_like(&found.keys));
        if is_new {
            let left_out = found.keys.left_out;
            if left_out.private > 0 {
                warn!(
                    issuer = %self.issuer.name,
                    keys = left_out.private,
                    "issuer publishes private keys, which are not used: anybody may have signed with them"
                );
            }
            info!(
                issuer = %self.issuer.name,
                keys = found.keys.len(),
                not_used = left_out.not_used,
                "issuer keys read"
            );
            self.known.store(Some(Arc::clone(&found.keys)));
        }
        is_new
    }

    /// Says once that the source fails, and once that it does not any more.
    fn tell(&self, fault: Option<&String>, failures_before: u32) {
        let issuer = &*self.issuer.name;
        match fault {
            Some(reason) if failures_before == 0 && self.known.load().is_some() => {
                warn!(issuer, reason, "issuer keys not read: those known are kept");
            }
            Some(reason) if failures_before == 0 => {
                warn!(
                    issuer,
                    reason, "issuer keys not read: its tokens are refused until they are"
                );
            }
            None if failures_before > 0 => info!(issuer, "issuer keys can be read again"),
            _ => {}
        }
    }
}

impl Turn {
    /// Begins a refresh, unless one is under way or wanted.
    fn take(&mut self) -> bool {
        !std::mem::replace(&mut self.is_under_way, true)
    }

    /// Whether a request may bring about a refresh.
    fn may_be_wanted(&self, now: Instant) -> bool {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= FRUITLESS_PAUSE;
        !self.was_fruitless || self.wanted.is_none_or(is_over)
    }
}

/// Reads the keys of all issuers once, together, and waits no longer than starting may take.
pub(super) async fn begin(all: impl Iterator<Item = Arc<IssuerKeys>>) {
    let deadline = Instant::now() + START_PATIENCE;
    let mut tasks = tokio::task::JoinSet::new();
    for keys in all {
        tasks.spawn(async move { keys.begin().await });
    }
    while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
    // What is not there yet comes in the background.
    tasks.detach_all();
}

/// A tenth more or less, so that gateways that were started together do not ask together.
fn spread(pause: Duration, chance: u8) -> Duration {
    pause * (9 * 255 + 2 * u32::from(chance)) / (10 * 255)
}

fn chance() -> u8 {
    let mut byte = [0];
    match getrandom::fill(&mut byte) {
        Ok(()) => byte[0],
        // Without chance, in the middle.
        Err(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Arc<IssuerKeys> {
        IssuerKeys::new(
            &Arc::new(Issuer {
                name: "joe".into(),
                keys: KeySource::Url("http://127.0.0.1:1/jwks".into()),
                ca: Some(Vec::new().into()),
            }),
            1,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_source_is_asked_again() {
        let keys = keys();
        let check = |failures: u32, lasts: Option<u64>, seconds: u64| {
            let mut turn = keys.turn();
            turn.failures = failures;
            turn.lasts = lasts.map(Duration::from_secs);
            drop(turn);
            let pause = keys.next_due() - Instant::now();
            let expected = Duration::from_secs(seconds);
            let bounds = expected * 9 / 10..=expected * 11 / 10;
            assert!(bounds.contains(&pause), "{failures} {lasts:?}: {pause:?}");
        };
        check(0, None, 3600);
        check(0, Some(0), 300);
        check(0, Some(600), 600);
        check(0, Some(u64::MAX), 86_400);
        check(1, Some(600), 5);
        check(2, None, 10);
        check(6, None, 160);
        check(7, None, 300);
        check(u32::MAX, None, 300);
        assert_eq!(spread(Duration::from_secs(100), 0).as_secs(), 90);
        assert_eq!(spread(Duration::from_secs(100), 255).as_secs(), 110);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_bring_about_one_refresh_a_minute_in_vain() {
        let keys = keys();
        let now = Instant::now();
        let may = |seconds: u64| {
            keys.turn()
                .may_be_wanted(now + Duration::from_secs(seconds))
        };
        assert!(may(0), "the first");
        {
            let mut turn = keys.turn();
            turn.wanted = Some(now);
            turn.was_fruitless = true;
        }
        assert!(!may(0) && !may(59) && may(60));
        keys.turn().was_fruitless = false;
        assert!(may(1), "after one that brought something");
        assert!(keys.turn().take(), "none is under way");
        assert!(!keys.turn().take(), "one is");
    }

    /// Nobody fetches: whoever waits is let go, and does not ask for another meanwhile.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let keys = keys();
        let begun = Instant::now();
        assert!(!keys.newer().await);
        assert_eq!(begun.elapsed(), REQUEST_PATIENCE);
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let keys = Arc::clone(&keys);
                tokio::spawn(async move { keys.newer().await })
            })
            .collect();
        tokio::task::yield_now().await;
        keys.refresh(true).await;
        for waiter in waiting {
            assert!(waiter.await.unwrap(), "told when it has ended");
        }
        assert!(!keys.newer().await, "it brought nothing, so not again");
        assert_eq!(keys.turn().failures, 1);
    }
}
