//! The gateway as the engine sees it: a few lines a phase, each asks the core and applies.
//!
//! `new_ctx` pins the policy; `request_filter` decides; `upstream_peer` chooses;
//! `upstream_request_filter` scrubs, then signs, again for every attempt; `upstream_response_filter`
//! scrubs; `response_filter` adds CORS headers; `fail_to_proxy` answers; `logging` records. The
//! wall clock is read in `sign`, and nowhere else.

mod admit;
pub mod answer;
pub mod exchange;
pub mod failure;
pub mod framing;
pub mod guard;
pub mod live;
pub mod peer;
pub mod reply;
mod sign;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::EXPECT;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use self::exchange::{Exchange, InFlight, Stage};
use self::guard::{Connection, Cut, Doors};
use self::live::LivePolicy;
use self::peer::Peers;
use self::reply::{REQUEST_ID_HEADER, RefusalReply};
use crate::policy::route::Access;
use crate::policy::{Identity, Refusal, Verdict};
use crate::scrub::{self, Upward};
use crate::telemetry::{Record, Telemetry};
use crate::watch::Watch;
use crate::watch::breaker::Health;

/// Attempts the engine may make; a site's own `retries` is the lower limit.
pub const ATTEMPTS_MAX: usize = 6;

/// How long a refused request's body is read on, so that the refusal reaches a caller that is still
/// sending.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The proxy's logic: everything one request needs to be judged, sent and answered.
#[derive(Debug)]
pub struct Gateway {
    /// The policy in force.
    pub live: LivePolicy,
    /// What is learnt beside the traffic.
    pub watch: Arc<Watch>,
    /// Where exchanges are recorded.
    pub telemetry: Arc<Telemetry>,
    /// Connections, and ids for requests.
    pub doors: Arc<Doors>,
    /// The sites as peers.
    pub peers: Peers,
    /// Requests under way.
    pub in_flight: Arc<AtomicUsize>,
    /// Whether the program is stopping.
    pub draining: Arc<AtomicBool>,
}

impl Gateway {
    /// Answers with a refusal, in place of whatever the exchange was about to do.
    async fn refuse(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        refusal: Refusal,
        retry_after: Option<Duration>,
    ) -> Result<()> {
        let retry_after = retry_after.or_else(|| {
            let temporary = matches!(refusal, Refusal::Draining | Refusal::SiteUnavailable);
            temporary.then_some(Duration::from_secs(1))
        });
        exchange.stage = Stage::Refused(refusal, retry_after);
        if self.draining.load(Ordering::Acquire) {
            session.set_keepalive(None);
        }
        let reply = RefusalReply {
            refusal,
            request_id: &exchange.request_id,
            sharing: &exchange.found.sharing,
            retry_after,
        };
        let written = reply::refuse(session, &reply).await?;
        exchange.answer_bytes = written as u64;
        Ok(())
    }

    /// Whether another attempt may be made after one that failed.
    fn may_retry(&self, exchange: &Exchange) -> bool {
        let admission = exchange.admission();
        admission.is_ok_and(|admission| exchange.attempts <= admission.route.site.retries_max)
    }
}

/// The connection a session runs on.
fn connection(session: &Session) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest
        .user_data
        .as_ref()?
        .downcast_ref::<Arc<Connection>>()
        .cloned()
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(
            self.live.pin(),
            self.doors.request_id(),
            InFlight::new(&self.in_flight),
        )
    }

    /// No modules: compression of secrets beside a caller's text would measure them (BREACH).
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let header = session.req_header();
        let expects = header.headers.contains_key(EXPECT);
        exchange.has_body = !session.as_mut().is_body_empty();
        exchange.connection = connection(session);
        if let Some(connection) = &exchange.connection {
            connection.exchange_began(exchange.has_body, expects);
        }
        // The engine's own default after a first request is to wait for ever.
        let keeps = session.get_keepalive().is_some() && !self.draining.load(Ordering::Acquire);
        let idle = self.doors.limits().idle_timeout.as_secs();
        session.set_keepalive(keeps.then_some(idle));
        session.set_pipelining_enabled(true);
        session.set_abort_on_close(false);
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let stage = match self.decide(session, exchange) {
            Verdict::Forward(admission) => self.take_leave(exchange, admission),
            Verdict::Refuse(refusal) => Stage::Refused(refusal, None),
            Verdict::Preflight(headers) => {
                reply::preflight(session, headers, &exchange.request_id).await?;
                Stage::Preflight
            }
        };
        exchange.stage = stage;
        match exchange.stage {
            Stage::Admitted { .. } => Ok(false),
            Stage::Refused(refusal, pause) => {
                self.refuse(session, exchange, refusal, pause).await?;
                Ok(true)
            }
            Stage::Received | Stage::Preflight => Ok(true),
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        let unresolved = || {
            Error::explain(
                ErrorType::ConnectNoRoute,
                "the site's name has no address yet",
            )
            .into_up()
        };
        let attempt = exchange.attempts;
        exchange.attempts += 1;
        exchange.asked = Some(Instant::now());
        let admission = exchange.admission()?;
        let site = &admission.route.site;
        let address = self
            .watch
            .site(site)
            .and_then(|watched| watched.addresses.pick(attempt));
        let has_body = exchange.has_body;
        let peer = address.and_then(|address| self.peers.peer(site, address, has_body));
        let Some(peer) = peer else {
            exchange.note_health(Health::Bad);
            return Err(unresolved());
        };
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Ok(admission) = exchange.admission()
            && let Some(watched) = self.watch.site(&admission.route.site)
        {
            watched.addresses.advance();
        }
        // Nothing was sent, so any method may be tried again.
        error.set_retry(failure::was_not_sent(&error) && self.may_retry(exchange));
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        client_reused: bool,
    ) -> Box<Error> {
        let replayable = !session.as_ref().retry_buffer_truncated();
        let idempotent = exchange.admission().is_ok_and(|a| a.method.is_idempotent());
        let answering = matches!(
            exchange.stage,
            Stage::Admitted {
                answering: true,
                ..
            }
        );
        let uncut = exchange
            .connection
            .as_ref()
            .is_none_or(|c| c.cut() == Cut::No);
        error.retry.decide_reuse(client_reused);
        let again = error.retry() && replayable && idempotent && !answering && uncut;
        error.set_retry(again && self.may_retry(exchange));
        error
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let upward = match exchange.admission()?.route.access {
            Access::Server { .. } => Upward::Server,
            Access::Browser => Upward::Browser,
        };
        for name in scrub::request(&upstream.headers, upward) {
            upstream.remove_header(&name);
        }
        self.sign(upstream, exchange)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.request_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let route = &exchange.admission()?.route;
        if exchange.request_bytes > route.body_bytes_max {
            exchange.stage = Stage::Refused(Refusal::BodyTooLarge, None);
            return Err(Error::explain(ErrorType::InternalError, "body_too_large").into_down());
        }
        if end_of_stream && let Some(connection) = &exchange.connection {
            connection.body_ended();
            connection.await_site(route.site.timeouts.response);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        answer: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        answer::clean(answer, exchange.admission()?)?;
        if answer.status.is_informational() {
            return Ok(());
        }
        exchange.upstream = exchange.asked.map(|asked| asked.elapsed());
        exchange.note_health(Health::Good);
        if let Stage::Admitted { answering, .. } = &mut exchange.stage {
            *answering = true;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        for (name, value) in exchange.found.sharing.headers(&answer.headers) {
            answer.append_header(name, value)?;
        }
        answer.insert_header(REQUEST_ID_HEADER, &exchange.request_id)?;
        if self.draining.load(Ordering::Acquire) {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        let admission = exchange.admission()?;
        if answer::withholds_body(admission) {
            *body = None;
        }
        if let Some(connection) = &exchange.connection {
            connection.await_site(admission.route.site.timeouts.between_bytes);
        }
        exchange.answer_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(None)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let cut = exchange
            .connection
            .as_ref()
            .map_or(Cut::No, |connection| connection.cut());
        let decided = exchange.refusal();
        if decided.is_none() {
            exchange.note_health(failure::health(error, cut));
        }
        let begun = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational());
        let refusal = decided.or_else(|| failure::refusal(error, cut));
        let mut status = 0;
        match refusal {
            Some(refusal) if !begun => {
                session.set_keepalive(None);
                // A caller that is gone by now cannot be told; the record says what happened.
                if self.refuse(session, exchange, refusal, None).await.is_ok() {
                    status = refusal.status().as_u16();
                }
            }
            Some(refusal) => exchange.stage = Stage::Refused(refusal, None),
            None => {}
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(
        &self,
        session: &mut Session,
        _error: Option<&Error>,
        exchange: &mut Exchange,
    ) {
        let header = session.req_header();
        let found = &exchange.found;
        let user = match &exchange.stage {
            Stage::Admitted { admission, .. } => match &admission.identity {
                Identity::User(user) => Some(user.as_sent()),
                Identity::Page => Some("browser"),
            },
            Stage::Received | Stage::Refused(..) | Stage::Preflight => None,
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.telemetry.record(&Record {
            request_id: &exchange.request_id,
            client: exchange
                .connection
                .as_ref()
                .map(|connection| connection.peer.ip().to_canonical()),
            caller: found.caller.as_deref(),
            user,
            site: found.route.as_ref().map(|route| &*route.site.name),
            route: found.route.as_ref().map(|route| &*route.name),
            method: recorded_method(&header.method),
            effective_method: found.effective_method.as_ref().map(http::Method::as_str),
            path: recorded_path(header.raw_path(), exchange.refusal()),
            status: session
                .response_written()
                .map_or(0, |head| head.status.as_u16()),
            refusal: exchange.refusal(),
            would_refuse: found.would_refuse,
            attempts: exchange.attempts,
            request_bytes: exchange.request_bytes,
            answer_bytes: exchange.answer_bytes,
            upstream_ms: exchange.upstream.map(millis),
            total_ms: millis(exchange.started.elapsed()),
            ..Record::default()
        });
    }

    /// Exchanges are recorded here; the engine's own lines hold targets with their queries.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, exchange: &Exchange) -> String {
        format!("request {}", exchange.request_id)
    }
}

/// The method for the record: one of the API's, never a word the caller made up.
fn recorded_method(method: &http::Method) -> &str {
    if crate::policy::method::METHODS.contains(method) {
        method.as_str()
    } else {
        "other"
    }
}

/// The path for the record, without the query; nothing of a target that could not be read.
fn recorded_path(target: &[u8], refusal: Option<Refusal>) -> &str {
    if matches!(
        refusal,
        Some(Refusal::BadTarget | Refusal::BadMessage | Refusal::TargetTooLong)
    ) {
        return "";
    }
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    std::str::from_utf8(path).unwrap_or_default()
}
