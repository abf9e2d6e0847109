//! Passwords of Basic callers: compared with their slow hashes beside the exchanges, a few at a time,
//! and remembered once they were right.
//!
//! Comparing costs memory and a good part of a second's work of a core, and anybody may ask for it. So
//! guessing costs the guesser its answers: each address has few wrong guesses, few comparisons under
//! way, and what is right and known already waits for none of it. A name that is guessed at is nobody's
//! fault who bears it: then only addresses that owe nothing are heard, so whoever knows the password
//! still is.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::budget::Exhausted;
use super::debts::Debts;
use crate::policy::Refusal;
use crate::policy::caller::basic::PasswordHash;
use crate::policy::limit::address_group;

/// Most comparisons under way at once, on a machine with cores to spare; each takes up to 256 MiB.
const AT_ONCE: usize = 2;

/// Most comparisons that are under way or waited for, and those of one address.
const UNDER_WAY_MAX: usize = 32;
const UNDER_WAY_OF_ADDRESS_MAX: usize = 4;

/// When to ask again where there are too many.
const PAUSE: Duration = Duration::from_secs(1);

/// Wrong guesses of one address: ten at once, then six a minute.
const GUESSES_OF_ADDRESS: u32 = 10;
/// Wrong guesses at one name, by whomever: thirty at once, then six a minute.
const GUESSES_AT_NAME: u32 = 30;
const GUESS: Duration = Duration::from_secs(10);

/// What is found out about passwords, and what it has cost.
#[derive(Debug)]
pub struct Passwords {
    memory: Memory,
    /// What is being compared, so that many who ask the same are answered by one comparison.
    pending: Arc<Comparisons>,
    workers: Arc<Semaphore>,
    under_way: Arc<Mutex<Vec<IpAddr>>>,
    addresses: Debts<IpAddr>,
    /// By a hash of the name, which may be long.
    names: Debts<u64>,
    hasher: RandomState,
}

/// A password that somebody presents.
pub struct Guess {
    /// Whose password it is to be.
    pub user_name: Box<[u8]>,
    /// What it is compared with.
    pub hashes: Arc<[PasswordHash]>,
    /// What was presented.
    pub password: Zeroizing<Vec<u8>>,
    /// Whether anybody has that name; if not, it is wrong, and only takes its time.
    pub is_known: bool,
}

impl Passwords {
    /// Nothing is known yet.
    fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            memory: Memory::new(),
            pending: Arc::default(),
            workers: Arc::new(Semaphore::new((cores / 2).clamp(1, AT_ONCE))),
            under_way: Arc::default(),
            addresses: Debts::new(GUESSES_OF_ADDRESS, GUESS),
            names: Debts::new(GUESSES_AT_NAME, GUESS),
            hasher: RandomState::new(),
        }
    }

    /// Whether a password that comes from an address is right.
    ///
    /// # Errors
    /// When to ask again.
    pub async fn is_right(&self, guess: Guess, address: IpAddr) -> Result<bool, Exhausted> {
        let digest = self.memory.digest(&guess);
        if self.memory.has(&digest) {
            return Ok(true);
        }
        let pending = Pending::of(&self.pending, digest);
        let compare = || self.compare(guess, digest, address_group(address));
        pending.cell.get_or_try_init(compare).await.copied()
    }

    async fn compare(
        &self,
        guess: Guess,
        digest: Digest,
        address: IpAddr,
    ) -> Result<bool, Exhausted> {
        let place = UnderWay::take(&self.under_way, address)?;
        let name = self.hasher.hash_one(&guess.user_name);
        let now = Instant::now();
        self.charge(address, name, now)?;
        let Ok(worker) = Arc::clone(&self.workers).acquire_owned().await else {
            return Err(internal());
        };
        let is_known = guess.is_known;
        let compared = spawn_blocking(move || {
            // All of them, so that it takes the same time whichever it is. Its place and its worker are
            // taken until this ends, also if nobody waits for it any more.
            let right = guess
                .hashes
                .iter()
                .fold(false, |right, hash| right | hash.matches(&guess.password));
            drop((place, worker));
            right
        });
        let is_right = compared.await.map_err(|_| internal())? && is_known;
        if is_right {
            self.memory.keep(digest);
            self.addresses.give_back(address, now);
            self.names.give_back(name, now);
        }
        Ok(is_right)
    }

    /// Takes a guess of an address at a name, which is given back if it was right.
    fn charge(&self, address: IpAddr, name: u64, now: Instant) -> Result<(), Exhausted> {
        let limited = |retry_after| Exhausted {
            refusal: Refusal::RateLimited,
            retry_after,
        };
        let is_clean = self.addresses.is_free(address, now);
        self.addresses.take(address, now).map_err(limited)?;
        match self.names.take(name, now) {
            Err(wait) if !is_clean => {
                self.addresses.give_back(address, now);
                Err(limited(wait))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

fn internal() -> Exhausted {
    Exhausted {
        refusal: Refusal::Internal,
        retry_after: PAUSE,
    }
}

/// The HMAC-SHA256 of a guess under a key that only this process has.
type Digest = [u8; 32];

/// What was right, as digests: never more than there have been passwords in the file.
struct Memory {
    key: Hmac<Sha256>,
    /// Whether the key is one that nobody knows.
    is_secret: bool,
    right: Mutex<HashSet<Digest>>,
}

impl Memory {
    fn new() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        let is_secret = getrandom::fill(&mut *key).is_ok();
        Self {
            key: Hmac::new_from_slice(&*key).expect("HMAC takes a key of any length"),
            is_secret,
            right: Mutex::default(),
        }
    }

    /// Covers the hashes too: what was right for others is not for these.
    fn digest(&self, guess: &Guess) -> Digest {
        let mut mac = self.key.clone();
        let mut add = |part: &[u8]| {
            mac.update(&part.len().to_le_bytes());
            mac.update(part);
        };
        add(&guess.user_name);
        for hash in guess.hashes.iter() {
            add(hash.as_str().as_bytes());
        }
        add(&guess.password);
        mac.finalize().into_bytes().into()
    }

    fn has(&self, digest: &Digest) -> bool {
        self.right().contains(digest)
    }

    fn keep(&self, digest: Digest) {
        if self.is_secret {
            self.right().insert(digest);
        }
    }

    fn right(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key is nobody's business.
impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("right", &self.right().len())
            .finish_non_exhaustive()
    }
}

/// What is being compared, and what comes of it.
#[derive(Debug, Default)]
struct Comparisons(Mutex<HashMap<Digest, Arc<OnceCell<bool>>>>);

/// A comparison that several may wait for; forgotten when nobody does.
struct Pending {
    all: Arc<Comparisons>,
    digest: Digest,
    cell: Arc<OnceCell<bool>>,
}

impl Pending {
    fn of(all: &Arc<Comparisons>, digest: Digest) -> Self {
        let mut known = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = Arc::clone(known.entry(digest).or_default());
        drop(known);
        Self {
            all: Arc::clone(all),
            digest,
            cell,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut known = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The table's and this one: clones are made under the lock alone.
        if Arc::strong_count(&self.cell) == 2 {
            known.remove(&self.digest);
        }
    }
}

/// A comparison that is under way or waited for.
struct UnderWay {
    all: Arc<Mutex<Vec<IpAddr>>>,
    address: IpAddr,
}

impl UnderWay {
    fn take(all: &Arc<Mutex<Vec<IpAddr>>>, address: IpAddr) -> Result<Self, Exhausted> {
        let mut known = all.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = known.iter().filter(|other| **other == address).count();
        if known.len() >= UNDER_WAY_MAX || of_address >= UNDER_WAY_OF_ADDRESS_MAX {
            return Err(Exhausted {
                refusal: Refusal::RateLimited,
                retry_after: PAUSE,
            });
        }
        known.push(address);
        drop(known);
        Ok(Self {
            all: Arc::clone(all),
            address,
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut known = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|other| *other == self.address) {
            known.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cheapest hash there may be, of `right`.
    fn hashes() -> Arc<[PasswordHash]> {
        [PasswordHash::of(b"right", b"saltsaltsaltsalt").unwrap()].into()
    }

    fn guess(user_name: &str, password: &str, hashes: &Arc<[PasswordHash]>) -> Guess {
        Guess {
            user_name: user_name.as_bytes().into(),
            hashes: Arc::clone(hashes),
            password: Zeroizing::new(password.into()),
            is_known: user_name != "nobody",
        }
    }

    async fn check(
        passwords: &Passwords,
        guess: Guess,
        address: &str,
        expected: Result<bool, Refusal>,
    ) {
        let said = format!("{} from {address}", guess.user_name.escape_ascii());
        let seen = passwords.is_right(guess, address.parse().unwrap()).await;
        if let Err(exhausted) = seen {
            assert!(exhausted.retry_after <= GUESS, "{exhausted:?}");
        }
        assert_eq!(seen.map_err(|e| e.refusal), expected, "{said}");
    }

    const HERE: &str = "192.0.2.1";
    const LIMITED: Result<bool, Refusal> = Err(Refusal::RateLimited);

    #[tokio::test(start_paused = true)]
    async fn right_wrong_and_nobody() {
        let (passwords, hashes) = (Passwords::new(), hashes());
        for _ in 0..2 {
            check(&passwords, guess("crm", "right", &hashes), HERE, Ok(true)).await;
            check(&passwords, guess("crm", "wrong", &hashes), HERE, Ok(false)).await;
            // Even with the password of whoever stands in.
            check(
                &passwords,
                guess("nobody", "right", &hashes),
                HERE,
                Ok(false),
            )
            .await;
        }
        assert_eq!(passwords.memory.right().len(), 1);
        assert!(passwords.pending.0.lock().unwrap().is_empty());
        assert!(passwords.under_way.lock().unwrap().is_empty());
        let others: Arc<[_]> = [PasswordHash::of(b"other", b"saltsaltsaltsalt").unwrap()].into();
        check(&passwords, guess("crm", "right", &others), HERE, Ok(false)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_costs_the_guesser_its_answers() {
        let (passwords, hashes) = (Passwords::new(), hashes());
        check(&passwords, guess("old", "right", &hashes), HERE, Ok(true)).await;
        let mut answered = 0;
        for n in 0..30 {
            let name = if n % 2 == 0 { "crm" } else { "nobody" };
            let guess = guess(name, &format!("wrong {n}"), &hashes);
            match passwords.is_right(guess, HERE.parse().unwrap()).await {
                Ok(is_right) => {
                    assert!(!is_right);
                    answered += 1;
                }
                Err(exhausted) => assert_eq!(exhausted.refusal, Refusal::RateLimited),
            }
        }
        assert_eq!(answered, GUESSES_OF_ADDRESS);
        // What is right and known is not slowed, not even there; what is right elsewhere is heard.
        check(&passwords, guess("old", "right", &hashes), HERE, Ok(true)).await;
        check(&passwords, guess("crm", "right", &hashes), HERE, LIMITED).await;
        check(
            &passwords,
            guess("crm", "right", &hashes),
            "192.0.2.2",
            Ok(true),
        )
        .await;
        check(&passwords, guess("crm", "right", &hashes), HERE, Ok(true)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_guessed_at_from_everywhere_is_not_lost() {
        let (passwords, hashes) = (Passwords::new(), hashes());
        for n in 0..GUESSES_AT_NAME {
            let address = format!("198.51.100.{}", n / 6);
            let guess = guess("crm", &format!("wrong {n}"), &hashes);
            check(&passwords, guess, &address, Ok(false)).await;
        }
        // Who has guessed is heard no more; a whole network counts as one address.
        check(
            &passwords,
            guess("crm", "w", &hashes),
            "198.51.100.1",
            LIMITED,
        )
        .await;
        check(
            &passwords,
            guess("crm", "x", &hashes),
            "2001:db8::1",
            Ok(false),
        )
        .await;
        check(
            &passwords,
            guess("crm", "y", &hashes),
            "2001:db8::2",
            LIMITED,
        )
        .await;
        check(
            &passwords,
            guess("other", "y", &hashes),
            "2001:db8::2",
            Ok(false),
        )
        .await;
        check(&passwords, guess("crm", "right", &hashes), HERE, Ok(true)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_the_same_are_answered_by_one_comparison() {
        let (passwords, hashes) = (Arc::new(Passwords::new()), hashes());
        let mut tasks = Vec::new();
        for _ in 0..100 {
            let (passwords, guess) = (Arc::clone(&passwords), guess("crm", "right", &hashes));
            tasks.push(tokio::spawn(async move {
                passwords.is_right(guess, HERE.parse().unwrap()).await
            }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(true));
        }
        assert!(passwords.pending.0.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn few_comparisons_are_waited_for() {
        let (passwords, hashes) = (Arc::new(Passwords::new()), hashes());
        // Nobody works.
        let workers = Arc::clone(&passwords.workers);
        let held = workers
            .acquire_many(workers.available_permits() as u32)
            .await;
        let mut tasks = Vec::new();
        for n in 0..12 {
            for guessed in 0..6 {
                let guess = guess("nobody", &format!("{n} {guessed}"), &hashes);
                let (passwords, address) = (Arc::clone(&passwords), [192, 0, 2, n].into());
                tasks.push(tokio::spawn(async move {
                    passwords.is_right(guess, address).await
                }));
            }
        }
        tokio::task::yield_now().await;
        let under_way = passwords.under_way.lock().unwrap().clone();
        assert_eq!(under_way.len(), UNDER_WAY_MAX);
        let of_first = under_way
            .iter()
            .filter(|address| **address == IpAddr::from([192, 0, 2, 0]));
        assert_eq!(of_first.count(), UNDER_WAY_OF_ADDRESS_MAX);
        // Who goes away gives its place back.
        for task in tasks.drain(..) {
            task.abort();
            drop(task.await);
        }
        assert!(passwords.under_way.lock().unwrap().is_empty());
        assert!(passwords.pending.0.lock().unwrap().is_empty());
        drop(held);
        check(&passwords, guess("crm", "right", &hashes), HERE, Ok(true)).await;
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", Passwords::new().memory);
        assert_eq!(shown, "Memory { right: 0, .. }");
    }
}
