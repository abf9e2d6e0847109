//! One request and its answer: the generation it lives under, how far it got, and its one record.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Gateway;
use super::probe::tell_operator;
use crate::policy::request::Request;
use crate::policy::{Admission, Found, Refusal};
use crate::rewrite::{self, Wants};
use crate::telemetry::Record;
use crate::upstream::Failure;
use crate::watch::breaker::{Evidence, Witness};
use crate::watch::budget::Permit;
use crate::watch::generation::{Generation, Watched};

/// What is known of an exchange while it is under way. When it is dropped, however it ends, its
/// record is written.
#[derive(Debug)]
pub(super) struct Exchange<'g> {
    gateway: &'g Gateway,
    /// The generation in force when the request came.
    pub(super) generation: Arc<Generation>,
    pub(super) id: RequestId,
    pub(super) peer: IpAddr,
    started: Instant,
    method: &'static str,
    path: String,
    /// How a refusal of it is to be written.
    pub(super) wants: Wants,
    /// What deciding found.
    pub(super) found: Found,
    /// How far it got.
    pub(super) stage: Stage,
    pub(super) refusal: Option<Refusal>,
    /// Why the site gave no answer, if it gave none.
    pub(super) cause: Option<&'static str>,
    /// Of the answer that was begun; 0 for none.
    pub(super) status: u16,
    pub(super) attempts: u32,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
    /// When the site was asked last, and from there to its answer's head.
    pub(super) asked: Option<Instant>,
    /// How many times it was.
    pub(super) asks: u32,
    pub(super) upstream: Option<Duration>,
    _in_flight: InFlight,
}

/// How far an exchange got. What was admitted is never forgotten, also where it ends in a refusal.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing is decided yet, or it was refused, or answered here.
    Received,
    /// It goes to a site.
    Admitted(Admitted),
}

/// The terms on which a request goes to a site, and what it may use until it ends.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) admission: Admission,
    pub(super) watched: Arc<Watched>,
    /// Given back when the exchange ends.
    pub(super) _permits: [Option<Permit>; 3],
}

impl<'g> Exchange<'g> {
    /// A request whose head has just been read.
    pub(super) fn new(gateway: &'g Gateway, peer: IpAddr) -> Self {
        Self {
            gateway,
            generation: gateway.live.pin(),
            id: gateway.ids.next(),
            peer,
            started: Instant::now(),
            method: "",
            path: String::new(),
            wants: Wants::default(),
            found: Found::default(),
            stage: Stage::Received,
            refusal: None,
            cause: None,
            status: 0,
            attempts: 0,
            request_bytes: 0,
            answer_bytes: 0,
            asked: None,
            asks: 0,
            upstream: None,
            _in_flight: InFlight::new(&gateway.in_flight),
        }
    }

    /// Notes what the record needs of a request, before its bytes are gone.
    pub(super) fn note(&mut self, request: &Request<'_>) {
        self.wants = Wants::of(request);
        self.method = recorded_method(request.method);
        self.path = recorded_path(request.target).to_owned();
    }

    /// When the request's head was whole.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The terms on which it goes to the site.
    ///
    /// # Errors
    /// [`Refusal::Internal`] where there are none, so that nothing goes out that was not admitted.
    pub(super) fn admitted(&self) -> Result<&Admitted, Refusal> {
        match &self.stage {
            Stage::Admitted(admitted) => Ok(admitted),
            Stage::Received => Err(Refusal::Internal),
        }
    }

    /// Notes that the site answered, whatever it said.
    pub(super) fn note_answer(&self, now: Instant) {
        if let Stage::Admitted(admitted) = &self.stage {
            admitted.watched.breaker.answered(now);
        }
    }

    /// Notes why the site gave no answer, and what that says of it.
    pub(super) fn note_failure(&mut self, failure: Failure, evidence: Evidence) {
        self.cause = Some(failure.cause());
        let Stage::Admitted(admitted) = &self.stage else {
            return;
        };
        let (breaker, now) = (&admitted.watched.breaker, Instant::now());
        let tells = if failure == Failure::Exhausted {
            breaker.tells(failure.cause(), now)
        } else {
            let witness = match &self.found.caller {
                Some(caller) => Witness::Caller(Arc::clone(caller)),
                None => Witness::Pages,
            };
            breaker.failed(failure.cause(), evidence, &witness, now)
        };
        if tells {
            tell_operator(failure, &admitted.watched.site);
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let found = &self.found;
        // Nothing of a target that could not be read.
        let path = match self.refusal {
            Some(Refusal::BadTarget | Refusal::BadMessage | Refusal::TargetTooLong) => "",
            _ => &self.path,
        };
        self.gateway.telemetry.record(&Record {
            request_id: self.id.as_str(),
            caller: found.caller.as_deref(),
            user: found.user.as_ref().map(crate::signing::User::as_sent),
            route: found.route.as_ref().map(|route| &*route.name),
            site: found.route.as_ref().map(|route| &*route.site.name),
            client: Some(&rewrite::address_text(self.peer)),
            method: self.method,
            effective_method: found
                .effective_method
                .as_ref()
                .map(|method| method.effective.as_str()),
            endpoint: match &self.stage {
                Stage::Admitted(admitted) => Some(&admitted.admission.endpoint),
                Stage::Received => None,
            },
            path,
            status: self.status,
            refusal: self.refusal,
            would_refuse: found.would_refuse,
            cause: self.cause,
            attempts: self.attempts,
            request_bytes: self.request_bytes,
            answer_bytes: self.answer_bytes,
            upstream_ms: self.upstream.map(millis),
            total_ms: millis(self.started.elapsed()),
        });
    }
}

/// The method for the record: one of the API's, never a word the caller made up.
fn recorded_method(method: &[u8]) -> &'static str {
    match method {
        b"GET" => "GET",
        b"HEAD" => "HEAD",
        b"POST" => "POST",
        b"PUT" => "PUT",
        b"DELETE" => "DELETE",
        b"OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The path for the record, without the query.
fn recorded_path(target: &[u8]) -> &str {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    std::str::from_utf8(&target[..end]).unwrap_or_default()
}

/// Counts requests under way, for stopping as soon as there are none.
#[derive(Debug)]
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The id of a request: 24 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId([u8; 24]);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Ids that no two requests of one process, and hardly two of any, share.
#[derive(Debug)]
pub(super) struct RequestIds {
    process: [u8; 8],
    count: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut process = [0; 8];
        if getrandom::fill(&mut process).is_err() {
            // Then ids of two processes may collide, which only makes logs harder to read.
            process = u64::from(std::process::id()).to_be_bytes();
        }
        Self {
            process,
            count: AtomicU64::new(0),
        }
    }

    pub(super) fn next(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut id = [0; 24];
        let bytes = self.process.iter().chain(&count[4..]);
        for (digits, byte) in id.chunks_exact_mut(2).zip(bytes) {
            digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            digits[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
        }
        RequestId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let ids = RequestIds::new();
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first.as_str(), second.as_str());
        assert_eq!(first.as_str()[..16], second.as_str()[..16]);
        assert!(first.as_str().ends_with("00000000") && second.as_str().ends_with("00000001"));
    }

    #[test]
    fn records_hold_no_words_of_the_callers() {
        assert_eq!(recorded_method(b"FROB"), "other");
        assert_eq!(recorded_path(b"/a/b?c=d"), "/a/b");
        assert_eq!(recorded_path(b"/\xff"), "");
    }
}
