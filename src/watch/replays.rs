//! Messages that count once: their signatures are remembered, so that nobody who saw one can send it
//! again.
//!
//! Only what is well signed comes here, and each caller has a memory of its own, so no stranger fills
//! it and no caller another's. Where it is full the oldest is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use crate::policy::caller::hmac::Once;

/// Most messages of one caller that are remembered.
const REMEMBERED_MAX: usize = 65_536;

/// What every caller has sent.
#[derive(Debug, Default)]
pub struct Replays(Mutex<HashMap<Arc<str>, Seen, RandomState>>);

/// What one caller has sent.
#[derive(Debug, Default)]
struct Seen {
    by_signature: HashMap<[u8; 32], u64, RandomState>,
    /// Until when each is remembered, in the order they came.
    in_order: BTreeMap<u64, ([u8; 32], Instant)>,
    count: u64,
}

/// A message that is remembered. If nothing comes of it, it is forgotten: then its caller may send it
/// again.
#[derive(Debug)]
pub struct Remembered {
    all: Arc<Replays>,
    caller: Arc<str>,
    number: u64,
    is_kept: bool,
}

impl Replays {
    /// Remembers a message; `None` for one that came before.
    pub fn remember(self: &Arc<Self>, message: &Once, now: Instant) -> Option<Remembered> {
        let number = self.of(&message.caller, |seen| seen.insert(message, now))?;
        Some(Remembered {
            all: Arc::clone(self),
            caller: Arc::clone(&message.caller),
            number,
            is_kept: false,
        })
    }

    fn of<T>(&self, caller: &Arc<str>, change: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = all.get_mut(caller) {
            return change(seen);
        }
        change(all.entry(Arc::clone(caller)).or_default())
    }
}

impl Seen {
    /// Its number; `None` for one that is there.
    fn insert(&mut self, message: &Once, now: Instant) -> Option<u64> {
        while let Some((number, (_, until))) = self.in_order.first_key_value()
            && (*until <= now || self.in_order.len() >= REMEMBERED_MAX)
        {
            let number = *number;
            self.remove(number);
        }
        if self.by_signature.contains_key(&message.signature) {
            return None;
        }
        let number = self.count;
        self.count += 1;
        self.by_signature.insert(message.signature, number);
        let until = now + message.kept_for;
        self.in_order.insert(number, (message.signature, until));
        Some(number)
    }

    fn remove(&mut self, number: u64) {
        if let Some((signature, _)) = self.in_order.remove(&number) {
            self.by_signature.remove(&signature);
        }
    }
}

impl Remembered {
    /// Something came of it.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        if !self.is_kept {
            self.all.of(&self.caller, |seen| seen.remove(self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn message(caller: &str, number: u32) -> Once {
        let mut signature = [0; 32];
        signature[..4].copy_from_slice(&number.to_le_bytes());
        Once {
            caller: caller.into(),
            signature,
            kept_for: HOUR,
        }
    }

    /// Whether a message is taken, and with it remembered.
    fn takes(replays: &Arc<Replays>, caller: &str, number: u32, now: Instant) -> bool {
        let mut remembered = replays.remember(&message(caller, number), now);
        remembered.iter_mut().for_each(Remembered::keep);
        remembered.is_some()
    }

    #[test]
    fn each_is_taken_once_for_its_time() {
        let replays = Arc::new(Replays::default());
        let now = Instant::now();
        assert!(takes(&replays, "a", 1, now));
        assert!(!takes(&replays, "a", 1, now));
        assert!(takes(&replays, "a", 2, now + HOUR / 2));
        assert!(takes(&replays, "b", 1, now), "each caller has its own");
        assert!(!takes(
            &replays,
            "a",
            1,
            now + HOUR - Duration::from_secs(1)
        ));
        assert!(takes(&replays, "a", 1, now + HOUR));
        assert!(!takes(&replays, "a", 1, now + HOUR));
        assert!(!takes(&replays, "a", 2, now + HOUR));
    }

    #[test]
    fn what_came_to_nothing_may_come_again() {
        let replays = Arc::new(Replays::default());
        let now = Instant::now();
        let first = replays.remember(&message("a", 1), now);
        assert!(!takes(&replays, "a", 1, now), "while it is under way");
        drop(first);
        assert!(takes(&replays, "a", 1, now));
        assert!(!takes(&replays, "a", 1, now));
    }

    #[test]
    fn a_flood_of_one_caller_grows_nothing() {
        let replays = Arc::new(Replays::default());
        let now = Instant::now();
        assert!(takes(&replays, "b", 0, now));
        let flood = u32::try_from(REMEMBERED_MAX).unwrap() + 10;
        for number in 0..flood {
            assert!(takes(&replays, "a", number, now));
        }
        let count = |seen: &mut Seen| (seen.by_signature.len(), seen.in_order.len());
        let counts = replays.of(&"a".into(), count);
        assert_eq!(counts, (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(!takes(&replays, "a", flood - 1, now));
        assert!(takes(&replays, "a", 0, now), "the oldest is forgotten");
        assert!(!takes(&replays, "b", 0, now), "and nobody else's");
    }
}
