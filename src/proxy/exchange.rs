//! One request and its answer: the policy it lives under, how far it got, and what is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::guard::Connection;
use crate::policy::{Admission, Found, Policy, Refusal};
use crate::watch::breaker::{Health, Trial};
use crate::watch::budget::Leave;

/// What the engine keeps for us while a request is under way.
#[derive(Debug)]
pub struct Exchange {
    /// The policy, pinned when the request began.
    pub policy: Arc<Policy>,
    /// The id on the answer and on the request to the site.
    pub request_id: String,
    /// What deciding found.
    pub found: Found,
    /// How far it got.
    pub stage: Stage,
    /// How many times the site was asked.
    pub attempts: u32,
    /// Whether a body follows the header section, or may follow.
    pub has_body: bool,
    /// Bytes of the request's body so far.
    pub request_bytes: u64,
    /// Bytes of the answer's body so far.
    pub answer_bytes: u64,
    /// When the request's header section was read.
    pub started: Instant,
    /// When the site was asked last.
    pub asked: Option<Instant>,
    /// From there to its answer's header section.
    pub upstream: Option<Duration>,
    /// The connection it came on.
    pub connection: Option<Arc<Connection>>,
    _in_flight: InFlight,
}

/// How far an exchange got.
#[derive(Debug)]
pub enum Stage {
    /// Nothing is decided yet.
    Received,
    /// It goes to a site, and may use what it was given leave for until it ends.
    Admitted {
        /// The terms.
        admission: Box<Admission>,
        /// Given back when the exchange ends.
        leaves: Vec<Leave>,
        /// Tells the site's breaker how it went.
        trial: Trial,
        /// Whether the site's answer has begun.
        answering: bool,
    },
    /// It was refused, and when it may be tried again.
    Refused(Refusal, Option<Duration>),
    /// A preflight that was answered here.
    Preflight,
}

impl Exchange {
    /// A request that has just been read.
    pub fn new(policy: Arc<Policy>, request_id: String, in_flight: InFlight) -> Self {
        Self {
            policy,
            request_id,
            found: Found::default(),
            stage: Stage::Received,
            attempts: 0,
            has_body: false,
            request_bytes: 0,
            answer_bytes: 0,
            started: Instant::now(),
            asked: None,
            upstream: None,
            connection: None,
            _in_flight: in_flight,
        }
    }

    /// The terms on which it goes to the site.
    ///
    /// # Errors
    /// An internal error where there are none, so that nothing goes out that was not admitted.
    pub fn admission(&self) -> pingora::Result<&Admission> {
        match &self.stage {
            Stage::Admitted { admission, .. } => Ok(admission),
            Stage::Received | Stage::Refused(..) | Stage::Preflight => Err(
                pingora::Error::explain(pingora::ErrorType::InternalError, "not admitted"),
            ),
        }
    }

    /// Notes how the site is doing, as far as this exchange tells.
    pub fn note_health(&mut self, seen: Health) {
        if let Stage::Admitted { trial, .. } = &mut self.stage {
            trial.health = seen;
        }
    }

    /// Why it was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.stage {
            Stage::Refused(refusal, _) => Some(refusal),
            Stage::Received | Stage::Admitted { .. } | Stage::Preflight => None,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.exchange_ended();
        }
    }
}

/// Counts requests under way, for stopping as soon as there are none.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// One more.
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
