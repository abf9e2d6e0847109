//! Which of a site's server tokens signs: the first one that the site is known to accept, so that a token
//! can be replaced without a failed call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use super::skew::off;
use crate::signing::{Epoch, User};

/// How often each token is tried; a fifth more or less, so that gateways that were started together do
/// not ask together.
const PAUSE: Duration = Duration::from_secs(60);

/// Least time between two rounds, whatever the site says to callers.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// What is known of the server tokens of one site. Times are handed in, so that it can be tested without
/// waiting.
#[derive(Debug)]
pub struct Rotation {
    site: Arc<str>,
    /// Which one signs: its position in the file.
    signing: AtomicUsize,
    standings: Mutex<Vec<Standing>>,
    wanted: Notify,
}

/// What is known of one token.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// What the site said of it last, if it said anything yet.
    pub verdict: Option<Result<User, TokenFault>>,
    /// Since when that is so.
    pub since: Option<Epoch>,
    /// Why the last probe told nothing, if it did not: then what was known before still holds.
    pub untold: Option<&'static str>,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// The site refuses it.
    Refused,
    /// The site refuses it, and the clocks are this far apart.
    Clock(i64),
    /// It is good, but its user is nobody at the site.
    Anonymous,
    /// It is good, but the site took its user for another.
    OtherUser,
    /// The site's answer names no user.
    NoUser,
}

impl TokenFault {
    /// As it stands in the log and at `/readyz`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Refused => "token_refused",
            Self::Clock(_) => "clock",
            Self::Anonymous => "anonymous",
            Self::OtherUser => "other_user",
            Self::NoUser => "no_user",
        }
    }

    /// What happened, and what to change.
    fn advice(self, user: &User) -> String {
        match self {
            Self::Refused => format!(
                "the site refuses it: its key or secret is wrong, or it was removed, or it is restricted to another user than {user}; compare it with the site's API token page, or name that user in probe_user"
            ),
            Self::Clock(skew) => format!("the site refuses it: {}", off(skew)),
            Self::Anonymous => format!(
                "the site knows no user {user}, so that its calls are Anonymous's: create the user there, or name another one in acts_as or probe_user"
            ),
            Self::OtherUser => format!(
                "the site took {user} for another user: see who has that name or id there, or name another one in probe_user"
            ),
            Self::NoUser => "the site's answer to users/current names no user: look at url:, and at what answers there".to_owned(),
        }
    }
}

/// What a probe of one token found.
pub type Probed = Result<Result<(), TokenFault>, &'static str>;

impl Rotation {
    /// Of so many tokens nothing is known.
    pub fn new(site: Arc<str>, tokens: usize) -> Self {
        Self {
            site,
            signing: AtomicUsize::new(0),
            standings: Mutex::new(vec![Standing::default(); tokens]),
            wanted: Notify::new(),
        }
    }

    /// Which token signs now: the first accepted one; while none is, the first.
    pub fn signing(&self) -> usize {
        self.signing.load(Ordering::Relaxed)
    }

    /// An accepted token other than this one, for a request that the site refused because of it.
    pub fn other(&self, than: usize) -> Option<usize> {
        let standings = self.lock();
        let mut accepted = accepted(&standings);
        accepted.find(|position| *position != than)
    }

    /// What is known of each token, in the order of the file.
    pub fn standings(&self) -> Vec<Standing> {
        self.lock().clone()
    }

    /// The site refused a token that was sent for a caller: all of them are tried soon.
    pub fn want_probes(&self) {
        self.wanted.notify_one();
    }

    /// Waits until the next round of probes is to begin, after one that began at `began`. `chance` spreads
    /// the pauses.
    pub async fn next_round(&self, began: Instant, chance: u8) {
        // From four fifths to six.
        let pause = PAUSE * (4 * 255 + 2 * u32::from(chance)) / (5 * 255);
        // Whether in time or not, it begins.
        drop(timeout_at(began + pause, self.wanted.notified()).await);
        sleep_until(began + LEAST_PAUSE).await;
    }

    /// A token was tried as this user: the site's verdict, or why there is none.
    pub fn probed(&self, position: usize, user: &User, probed: Probed, wall: Epoch) {
        let mut standings = self.lock();
        let Some(standing) = standings.get_mut(position) else {
            return;
        };
        let verdict = match probed {
            Ok(verdict) => verdict.map(|()| user.clone()),
            Err(cause) => {
                standing.untold = Some(cause);
                return;
            }
        };
        standing.untold = None;
        let kind =
            |verdict: &Result<User, TokenFault>| verdict.as_ref().err().map(|fault| fault.cause());
        let before = standing.verdict.replace(verdict.clone());
        if before.as_ref().map(kind) == Some(kind(&verdict)) {
            return;
        }
        standing.since = Some(wall);
        let signing = accepted(&standings).next().unwrap_or_default();
        self.signing.store(signing, Ordering::Relaxed);
        drop(standings);
        self.tell(position, user, before.as_ref(), &verdict, signing);
    }

    fn tell(
        &self,
        position: usize,
        user: &User,
        before: Option<&Result<User, TokenFault>>,
        verdict: &Result<User, TokenFault>,
        signing: usize,
    ) {
        let site = &*self.site;
        match verdict {
            Err(fault) => warn!(
                site,
                position,
                cause = fault.cause(),
                user = user.as_sent(),
                signing,
                "server token not accepted: {}",
                fault.advice(user)
            ),
            Ok(_) if matches!(before, Some(Err(_))) => {
                info!(
                    site,
                    position,
                    user = user.as_sent(),
                    signing,
                    "server token accepted again"
                );
            }
            Ok(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Standing>> {
        // Nothing can panic while this lock is held.
        self.standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The positions of the tokens that the site is known to accept.
fn accepted(standings: &[Standing]) -> impl Iterator<Item = usize> {
    let accepted = |standing: &Standing| matches!(standing.verdict, Some(Ok(_)));
    let positions = standings.iter().enumerate();
    positions.filter_map(move |(position, standing)| accepted(standing).then_some(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::UserEncoding;

    const SECOND: Duration = Duration::from_secs(1);

    fn user() -> User {
        User::parse("=crm-bot", UserEncoding::Plain).unwrap()
    }

    #[test]
    fn the_first_accepted_one_signs() {
        const GOOD: Probed = Ok(Ok(()));
        const BAD: Probed = Ok(Err(TokenFault::Refused));
        const UNTOLD: Probed = Err("silent");
        let check = |probes: &[(usize, Probed)], signing: usize, other: Option<usize>| {
            let rotation = Rotation::new("acme".into(), 3);
            for (position, probed) in probes {
                rotation.probed(*position, &user(), *probed, Epoch::from_unix(7));
            }
            assert_eq!(rotation.signing(), signing, "{probes:?}");
            assert_eq!(rotation.other(signing), other, "{probes:?}");
        };
        check(&[], 0, None);
        check(&[(0, BAD), (1, BAD), (2, BAD)], 0, None);
        check(&[(0, BAD), (1, GOOD)], 1, None);
        check(&[(0, BAD), (1, GOOD), (2, GOOD)], 1, Some(2));
        check(&[(2, GOOD)], 2, None);
        check(&[(2, GOOD), (0, GOOD)], 0, Some(2));
        check(&[(0, GOOD), (1, GOOD), (0, BAD)], 1, None);
        // What tells nothing changes nothing.
        check(&[(0, GOOD), (1, GOOD), (0, UNTOLD)], 0, Some(1));
        check(&[(0, BAD), (1, GOOD), (1, UNTOLD)], 1, None);
        check(&[(0, UNTOLD), (1, UNTOLD)], 0, None);
        for fault in [
            TokenFault::Clock(400),
            TokenFault::Anonymous,
            TokenFault::OtherUser,
            TokenFault::NoUser,
        ] {
            check(&[(0, Ok(Err(fault))), (1, GOOD)], 1, None);
        }
        check(&[(3, GOOD)], 0, None);
    }

    #[test]
    fn since_when_it_is_so() {
        let rotation = Rotation::new("acme".into(), 1);
        let check = |probed: Probed, at: u64, since: u64, untold: Option<&str>| {
            rotation.probed(0, &user(), probed, Epoch::from_unix(at));
            let standing = rotation.standings().remove(0);
            assert_eq!(
                standing.since.map(Epoch::as_unix),
                Some(since),
                "{probed:?}"
            );
            assert_eq!(standing.untold, untold, "{probed:?}");
        };
        check(Ok(Ok(())), 10, 10, None);
        check(Ok(Ok(())), 20, 10, None);
        check(Err("reset"), 30, 10, Some("reset"));
        check(Ok(Err(TokenFault::Clock(400))), 40, 40, None);
        check(Ok(Err(TokenFault::Clock(401))), 50, 40, None);
        check(Ok(Err(TokenFault::Refused)), 60, 60, None);
        check(Ok(Ok(())), 70, 70, None);
    }

    #[tokio::test(start_paused = true)]
    async fn once_a_minute_and_at_once_where_a_token_was_refused() {
        let rotation = Rotation::new("acme".into(), 1);
        let after = |began: Instant| began.elapsed().as_secs();
        let began = Instant::now();
        rotation.next_round(began, 0).await;
        assert_eq!(after(began), 48);
        let began = Instant::now();
        rotation.next_round(began, u8::MAX).await;
        assert_eq!(after(began), 72);
        let began = Instant::now();
        rotation.want_probes();
        rotation.want_probes();
        rotation.next_round(began, 0).await;
        assert_eq!(after(began), 5, "not more often");
        let began = Instant::now();
        let refused = async {
            tokio::time::sleep(20 * SECOND).await;
            rotation.want_probes();
        };
        tokio::join!(rotation.next_round(began, 0), refused);
        assert_eq!(after(began), 20);
    }

    #[test]
    fn each_fault_says_what_to_change() {
        let check = |fault: TokenFault, cause: &str, advice: &str| {
            assert_eq!(fault.cause(), cause);
            let text = fault.advice(&user());
            assert!(text.contains(advice), "{text}");
        };
        check(TokenFault::Refused, "token_refused", "secret is wrong");
        check(
            TokenFault::Clock(400),
            "clock",
            "400 s ahead of the site's; fix NTP",
        );
        check(
            TokenFault::Clock(-1200),
            "clock",
            "1200 s behind the site's, and more than 600 s are not corrected",
        );
        check(TokenFault::Anonymous, "anonymous", "knows no user =crm-bot");
        check(TokenFault::OtherUser, "other_user", "probe_user");
        check(TokenFault::NoUser, "no_user", "url:");
    }
}
