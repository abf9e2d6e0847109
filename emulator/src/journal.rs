//! What arrived at the site, for tests and the demo to look at afterwards.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

/// The last thousand requests; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<VecDeque<Arrival>>>);

impl Journal {
    /// Everything still remembered, oldest first.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.entries().iter().cloned().collect()
    }

    /// Everything still remembered, which is then forgotten.
    pub fn take(&self) -> Vec<Arrival> {
        self.entries().drain(..).collect()
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether nothing arrived since the start, or since [`Journal::take`].
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn record(&self, arrival: Arrival) {
        let mut entries = self.entries();
        if entries.len() == ARRIVALS_MAX {
            entries.pop_front();
        }
        entries.push_back(arrival);
    }

    /// A panic elsewhere leaves the queue whole: each change is one call.
    fn entries(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request as the site saw it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The method on the wire, before any override.
    pub method: String,
    /// Path and query byte for byte as they came, so also a token that came in the query.
    pub target: String,
    /// Names in lower case, in the order received. In the place of the token stands its verdict.
    pub headers: Vec<(String, String)>,
    /// What the site answered; 0 if the caller left before that.
    pub status: u16,
    /// Whom the site took the caller for: a user's name, also `Anonymous`; nobody if it refused.
    pub user: Option<String>,
    /// Which token came.
    pub token: TokenSeen,
    /// How many bytes of the body arrived before the answer began, or the caller left.
    pub body_bytes: u64,
}

/// What the site made of the token of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSeen {
    /// None came.
    None,
    /// A server token, well signed and fresh.
    Server,
    /// The browser token, from an allowed host.
    Browser,
    /// One that is wrong, stale, or from a strange origin.
    Refused,
}

impl fmt::Display for TokenSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Server => "server",
            Self::Browser => "browser",
            Self::Refused => "refused",
        })
    }
}

/// An arrival that is recorded in any case: once it is answered, or when the connection goes away
/// before. So no request that was ever sent twice looks as if it came once.
pub(super) struct Recording {
    journal: Journal,
    arrival: Option<Arrival>,
    received: Arc<AtomicU64>,
}

impl Recording {
    pub(super) const fn new(journal: Journal, arrival: Arrival, received: Arc<AtomicU64>) -> Self {
        Self {
            journal,
            arrival: Some(arrival),
            received,
        }
    }

    pub(super) fn answered(mut self, status: u16) {
        if let Some(arrival) = &mut self.arrival {
            arrival.status = status;
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut arrival) = self.arrival.take() {
            arrival.body_bytes = self.received.load(Ordering::Relaxed);
            info!(
                method = arrival.method,
                path = arrival.target.split('?').next(),
                status = arrival.status,
                user = arrival.user.as_deref(),
                token = %arrival.token,
                "arrival"
            );
            self.journal.record(arrival);
        }
    }
}

const ARRIVALS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(target: usize) -> Arrival {
        Arrival {
            method: "GET".to_owned(),
            target: target.to_string(),
            headers: Vec::new(),
            status: 200,
            user: None,
            token: TokenSeen::None,
            body_bytes: 0,
        }
    }

    #[test]
    fn the_journal_keeps_the_newest_thousand() {
        let journal = Journal::default();
        for number in 0..=ARRIVALS_MAX {
            journal.record(arrival(number));
        }
        assert_eq!(journal.len(), ARRIVALS_MAX);
        assert_eq!(journal.arrivals()[0].target, "1", "the oldest has gone");
        assert_eq!(journal.take().len(), ARRIVALS_MAX);
        assert!(journal.is_empty());
    }
}
