//! One request and its answer: the generation it lives under, how far it got, and its one record.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Gateway;
use super::probe::tell_operator;
use super::relay::{Broken, Terms};
use crate::policy::peer::Peer;
use crate::policy::request::Request;
use crate::policy::{Admission, Found, Identity, Refusal};
use crate::rewrite::{self, Answer, Wants};
use crate::telemetry::{Detail, Record};
use crate::upstream::Failure;
use crate::watch::breaker::{Evidence, Witness};
use crate::watch::budget::Permit;
use crate::watch::generation::{Generation, Watched};
use crate::watch::replays::Remembered;
use crate::wire::head::AnswerHead;
use crate::wire::{Announced, Downstream, Outgoing};

/// The outcome of an attempt that the site answered.
const ANSWERED: &str = "answered";

/// The outcome of an attempt that was given up before the site answered, for no fault of the site's.
const ABANDONED: &str = "abandoned";

/// What is known of an exchange while it is under way. When it is dropped, however it ends, its
/// record is written.
#[derive(Debug)]
pub(super) struct Exchange<'g> {
    gateway: &'g Gateway,
    /// The generation in force when the request came.
    pub(super) generation: Arc<Generation>,
    pub(super) id: RequestId,
    /// From where it comes: the other end, until the request's head says better.
    pub(super) client: IpAddr,
    started: Instant,
    method: &'static str,
    typed: Typed,
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
    /// Of the site's answer, once its head has come.
    pub(super) site_status: Option<u16>,
    pub(super) attempts: u32,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
    /// When the site was asked last, and from there to its answer's head.
    pub(super) asked: Option<Instant>,
    /// How many times it was.
    pub(super) asks: u32,
    /// The position of the server token that the last attempt was signed with.
    pub(super) signer: usize,
    pub(super) upstream: Option<Duration>,
    /// Since when the site is waited for, and for how long it was before.
    waits: Option<Instant>,
    waited: Duration,
    /// The gateway's own share of the time to the beginning of the answer.
    own: Option<Duration>,
    /// Attempts whose outcome is counted.
    settled: u32,
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
    /// The message, if it counts once.
    pub(super) remembered: Option<Box<Remembered>>,
    /// Given back when the exchange ends.
    pub(super) _permits: [Option<Permit>; 3],
}

impl<'g> Exchange<'g> {
    /// A request whose head has just been read.
    pub(super) fn new(gateway: &'g Gateway, peer: &Peer) -> Self {
        Self {
            gateway,
            generation: gateway.live.pin(),
            id: gateway.ids.next(),
            client: peer.address,
            started: Instant::now(),
            method: "",
            typed: Typed::default(),
            wants: Wants::default(),
            found: Found::default(),
            stage: Stage::Received,
            refusal: None,
            cause: None,
            status: 0,
            site_status: None,
            attempts: 0,
            request_bytes: 0,
            answer_bytes: 0,
            asked: None,
            asks: 0,
            signer: 0,
            upstream: None,
            waits: None,
            waited: Duration::ZERO,
            own: None,
            settled: 0,
            _in_flight: InFlight::new(&gateway.in_flight),
        }
    }

    /// Notes what the record needs of a request, before its bytes are gone.
    pub(super) fn note(&mut self, request: &Request<'_>) {
        self.client = request.client;
        self.wants = Wants::of(request);
        self.method = recorded_method(request.method);
        self.typed = Typed::of(request, self.gateway.telemetry.detail());
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

    /// Begins the caller's answer with the site's head; `length` is what it announces.
    ///
    /// # Errors
    /// What goes down in its place.
    pub(super) fn begin<D: Downstream>(
        &mut self,
        down: &mut D,
        head: &AnswerHead<'_>,
        length: Option<u64>,
        terms: &Terms,
    ) -> Result<(), Broken> {
        let admission = &self.admitted().map_err(Broken::Refused)?.admission;
        let answer = Answer {
            status: head.status,
            fields: &head.fields,
        };
        let mut edits = rewrite::down(&answer, admission, &self.found.sharing, self.id.as_str())
            .map_err(Broken::Refused)?;
        rewrite::keep_to_tls(self.found.keeps_to_tls, &mut edits.set);
        let body = match length {
            _ if matches!(head.status, 204 | 304) => Announced::Nothing,
            _ if terms.withholds => Announced::Length(0),
            Some(length) => Announced::Length(length),
            None => Announced::Unknown,
        };
        down.begin(&Outgoing {
            status: head.status,
            fields: &head.fields,
            edits: &edits,
            body,
            keeps: terms.keeps,
        });
        self.status = head.status;
        self.note_begun();
        Ok(())
    }

    /// Notes that the site is waited for from now on.
    pub(super) fn wait(&mut self, now: Instant) {
        self.waits = Some(now);
    }

    /// Notes that it is not any more.
    pub(super) fn end_wait(&mut self, now: Instant) {
        if let Some(since) = self.waits.take() {
            self.waited += now - since;
        }
    }

    /// Notes that an answer begins, whosever it is.
    pub(super) fn note_begun(&mut self) {
        let now = Instant::now();
        self.end_wait(now);
        self.own = Some((now - self.started).saturating_sub(self.waited));
    }

    /// Counts how an attempt ended, each once.
    pub(super) fn settle(&mut self, outcome: &'static str) {
        self.end_wait(Instant::now());
        self.settled += 1;
        if let Stage::Admitted(admitted) = &self.stage {
            admitted.watched.attempts.count(outcome);
        }
    }

    /// A server token that the site accepts, where it has refused the one it was asked with.
    pub(super) fn other_token(&self) -> Option<usize> {
        let admitted = self.admitted().ok()?;
        match admitted.admission.identity {
            Identity::User(_) => admitted.watched.server_tokens.other(self.signer),
            Identity::Page => None,
        }
    }

    /// Counts an attempt that was answered, and is followed by another.
    pub(super) fn settle_answered(&mut self) {
        self.settle(ANSWERED);
        self.site_status = None;
    }

    /// Notes that the site answered, whatever it said.
    pub(super) fn note_answer(&mut self, status: u16, now: Instant) {
        self.site_status = Some(status);
        self.upstream = self.asked.map(|asked| now - asked);
        self.end_wait(now);
        if let Stage::Admitted(admitted) = &self.stage {
            admitted.watched.breaker.answered(now);
        }
    }

    /// Notes why the site gave no answer, and what that says of it.
    pub(super) fn note_failure(&mut self, failure: Failure, evidence: Evidence) {
        self.cause = Some(failure.cause());
        self.settle(failure.cause());
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
            tell_operator(failure, &admitted.admission.route.site);
        }
    }
}

impl Exchange<'_> {
    /// What is settled only when it is over.
    fn settle_rest(&mut self) {
        // Whoever is told that something is broken here or at the site may send it again.
        if let Stage::Admitted(admitted) = &mut self.stage
            && let Some(remembered) = &mut admitted.remembered
            && (200..500).contains(&self.status)
        {
            remembered.keep();
        }
        if self.attempts > self.settled {
            self.settle(match self.site_status {
                Some(_) => ANSWERED,
                None => ABANDONED,
            });
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.settle_rest();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let found = &self.found;
        let foreign = found.foreign.as_ref();
        let detail = self.gateway.telemetry.detail();
        let typed = &self.typed;
        let record = Record {
            request_id: self.id.as_str(),
            caller: found.caller.as_deref(),
            user: found.user.as_ref().map(crate::signing::User::as_sent),
            route: found.route.as_ref().map(|route| &*route.name),
            site: found.route.as_ref().map(|route| &*route.site.name),
            host: found
                .route
                .as_ref()
                .and_then(|route| Some(route.host.as_ref()?.as_str())),
            caller_request_id: typed.request_id.as_deref(),
            client: Some(&rewrite::address_text(self.client)),
            method: self.method,
            effective_method: found
                .effective_method
                .as_ref()
                .map(|method| method.effective.as_str()),
            endpoint: found.endpoint.as_deref(),
            // Nothing of a target that could not be read.
            path: typed.path.as_deref().filter(|_| found.is_readable),
            origin: foreign
                .map(|foreign| &*foreign.origin)
                .filter(|_| detail.origins),
            nearest: foreign.and_then(|foreign| foreign.nearest.as_deref()),
            unknown_host: match self.refusal {
                Some(Refusal::NoRoute) => typed.host.as_deref(),
                _ => None,
            },
            status: self.status,
            site_status: self.site_status,
            refusal: self.refusal,
            would_refuse: found.would_refuse,
            cause: self
                .cause
                .or(found.credential_fault)
                .or(self.refusal.and_then(Refusal::fault)),
            attempts: self.attempts,
            request_bytes: self.request_bytes,
            answer_bytes: self.answer_bytes,
            upstream_ms: self.upstream.map(millis),
            total: self.started.elapsed(),
            own: self.own,
            policy: self.generation.effective.short_hash(),
        };
        self.gateway
            .telemetry
            .record(&record, &self.generation.meters);
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

/// What a stranger typed and the record may hold, as far as the file asks for it.
#[derive(Debug, Default)]
struct Typed {
    /// Without the query.
    path: Option<Box<str>>,
    host: Option<Box<str>>,
    /// Its own id of the request.
    request_id: Option<Box<str>>,
}

impl Typed {
    fn of(request: &Request<'_>, detail: Detail) -> Self {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let path = || {
            let end = memchr::memchr(b'?', request.target);
            text(&request.target[..end.unwrap_or(request.target.len())])
        };
        let host = || {
            let header = request.only("host").ok().flatten();
            text(request.authority.or(header)?)
        };
        let request_id = request.only("x-request-id").ok().flatten();
        Self {
            path: detail.paths.then(path).flatten().map(Box::from),
            host: detail.origins.then(host).flatten().map(Box::from),
            request_id: request_id
                .filter(|id| is_plain_id(id))
                .and_then(text)
                .map(Box::from),
        }
    }
}

/// Whether an id is one that any log can hold: letters, digits and what UUIDs and traces have.
fn is_plain_id(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=128).contains(&id.len()) && id.iter().all(is_plain)
}

/// Counts requests under way, for stopping as soon as there are none.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
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
        assert!(is_plain_id(b"3f2a-77.b:c_1"));
        for id in [&b""[..], b"a b", b"a\"b", "\u{e9}".as_bytes(), &[b'a'; 129]] {
            assert!(!is_plain_id(id), "{id:?}");
        }
    }
}
