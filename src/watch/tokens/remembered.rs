//! Tokens whose signature was good, as long as they are in use: a bounded number, in a bounded room.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use sha2::{Digest, Sha256};

use crate::policy::caller::jwt::Verified;

/// Most tokens that are remembered, in two halves.
const HALF_MAX: usize = 5_000;

/// Most bytes that the claims of a half take.
const HALF_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The tokens that were used lately, and those that were used before. When the first have no room, they
/// become the second, and what was not used meanwhile is forgotten. So only tokens with a good signature
/// can push others out, and to stay, a token has to be used once while as many others come.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    lately: HashMap<[u8; 32], Entry, RandomState>,
    lately_bytes: usize,
    before: HashMap<[u8; 32], Entry, RandomState>,
}

/// A token that was verified.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What came of it.
    pub(super) verified: Verified,
    /// The key that signed it.
    pub(super) key: [u8; 32],
}

/// What a token is found by. Only its digest is kept.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Remembered {
    /// The token with this digest.
    pub(super) fn find(&self, digest: &[u8; 32]) -> Option<Entry> {
        // Nothing can panic while this lock is held.
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = halves.lately.get(digest) {
            return Some(entry.clone());
        }
        let entry = halves.before.remove(digest)?;
        halves.insert(*digest, entry.clone());
        Some(entry)
    }

    /// Remembers a token, in place of what was known of it.
    pub(super) fn insert(&self, digest: [u8; 32], entry: Entry) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.before.remove(&digest);
        halves.insert(digest, entry);
    }
}

impl Halves {
    fn insert(&mut self, digest: [u8; 32], entry: Entry) {
        let bytes = entry.bytes();
        let has_room = self.lately.len() < HALF_MAX && self.lately_bytes + bytes <= HALF_BYTES_MAX;
        if !has_room {
            self.before = mem::take(&mut self.lately);
            self.lately_bytes = 0;
        }
        self.lately_bytes += bytes;
        if let Some(old) = self.lately.insert(digest, entry) {
            self.lately_bytes -= old.bytes();
        }
    }
}

impl Entry {
    /// How much room its claims take.
    fn bytes(&self) -> usize {
        self.verified.claims.weight()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::caller::jwt::{Algorithm, Claim, Claims, Issuer, KeySource};

    /// A token with claims of so many bytes.
    fn entry(bytes: usize) -> Entry {
        with(Claim::Text("x".repeat(bytes).into()))
    }

    fn with(claim: Claim) -> Entry {
        let issuer = Issuer {
            name: "joe".into(),
            keys: KeySource::Files(Vec::new()),
            ca: None,
        };
        Entry {
            verified: Verified {
                issuer: Arc::new(issuer),
                algorithm: Algorithm::Es256,
                claims: Arc::new(Claims([("groups".into(), claim)].into_iter().collect())),
            },
            key: [0; 32],
        }
    }

    fn name(index: usize) -> [u8; 32] {
        digest(&index.to_string())
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let remembered = Remembered::default();
        remembered.insert(name(0), entry(100));
        remembered.insert(name(1), entry(100));
        for index in 2..50_000 {
            remembered.insert(name(index), entry(100));
            if index % 4_000 == 0 {
                assert!(remembered.find(&name(0)).is_some(), "{index}: it is in use");
            }
        }
        assert!(remembered.find(&name(1)).is_none(), "nobody used it");
        assert!(remembered.find(&name(49_999)).is_some());
        let halves = remembered.0.lock().unwrap();
        assert!(halves.lately.len() <= HALF_MAX && halves.before.len() <= HALF_MAX);
    }

    /// A list of short texts takes many times in memory what it takes in a token.
    #[test]
    fn many_short_texts_count_for_what_they_take() {
        let texts = || Claim::Texts(vec!["".into(); 4_000]);
        let bytes = 4_000 * size_of::<Box<str>>();
        let remembered = Remembered::default();
        for index in 0..2_000 {
            remembered.insert(name(index), with(texts()));
        }
        let halves = remembered.0.lock().unwrap();
        let kept = halves.lately.len() + halves.before.len();
        assert!(kept > 10 && kept * bytes <= 2 * HALF_BYTES_MAX, "{kept}");
    }

    #[test]
    fn long_tokens_take_no_more_room() {
        let remembered = Remembered::default();
        for index in 0..10_000 {
            remembered.insert(name(index), entry(16 * 1024));
        }
        let halves = remembered.0.lock().unwrap();
        assert!(halves.lately.len() + halves.before.len() <= 2 * 1024);
        drop(halves);
        // Remembered anew, it counts once.
        for _ in 0..10_000 {
            remembered.insert(name(9_999), entry(16 * 1024));
        }
        assert!(remembered.find(&name(9_998)).is_some());
    }
}
