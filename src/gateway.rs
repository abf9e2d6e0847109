//! One exchange from head to record: admit, send, relay, answer.

mod blame;
mod clocks;
mod collected;
mod current_user;
mod exchange;
mod held;
mod own;
mod permits;
mod probe;
mod prove;
mod relay;
mod replay;
#[cfg(test)]
mod simulation;
mod trial;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use self::exchange::{Exchange, InFlight, RequestIds, Stage};
use self::own::Own;
use self::relay::{Broken, Relay, Terms};
use self::replay::Replay;
use crate::policy::fault::MessageFault;
use crate::policy::limit::ConnectionLimits;
use crate::policy::proof::{Need, Proof};
use crate::policy::request::{Body, Request};
use crate::policy::{Refusal, Verdict};
use crate::rewrite;
use crate::telemetry::Telemetry;
use crate::upstream::{Dial, Duplex, Failure, Pool, PoolKey};
use crate::watch::bodies::HeldBodies;
use crate::watch::breaker::Evidence;
use crate::watch::generation::Live;
use crate::wire::clock;
use crate::wire::connection::{Connection, Torn};
use crate::wire::h1::{Drain, H1, Next};
use crate::wire::head::HeadFault;
use crate::wire::slots::Slots;
use crate::wire::{self, Downstream};

/// How long a request that was refused is read on, so that the refusal reaches a caller that is
/// still sending.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything one request needs to be judged, sent and answered.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) live: Live,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) dial: Box<dyn Dial>,
    pub(crate) pool: Pool,
    /// Bodies that are read before it is known whose they are.
    pub(crate) held_bodies: Arc<HeldBodies>,
    /// Requests under way, and handshakes that will bring one.
    pub(crate) in_flight: Arc<AtomicUsize>,
    /// Whether the program is stopping.
    pub(crate) draining: Arc<AtomicBool>,
    ids: RequestIds,
}

/// What becomes of a request before anything is sent.
enum Opening {
    /// It goes to the site, with this head but for the token.
    Forward { head: Vec<u8>, body: Body },
    /// First it must be known whether its body, of unannounced length, has a byte.
    LookAtBody,
    /// First this must be known.
    Need(Need),
    /// It is answered here.
    Answer(Own),
}

/// Why a request does not go to its site.
enum Stop {
    /// It is answered here.
    Answer(Own),
    /// Its body must be read first, up to so many bytes.
    NeedsBody(u64),
    /// The caller is gone.
    Gone,
}

impl Gateway {
    /// A gateway that has served nobody yet.
    pub(crate) fn new(
        live: Live,
        telemetry: Arc<Telemetry>,
        slots: Arc<Slots>,
        dial: Box<dyn Dial>,
    ) -> Self {
        Self {
            live,
            telemetry,
            slots,
            dial,
            pool: Pool::default(),
            held_bodies: Arc::default(),
            in_flight: Arc::default(),
            draining: Arc::default(),
            ids: RequestIds::new(),
        }
    }

    fn limits(&self) -> &ConnectionLimits {
        self.slots.limits()
    }

    /// Whether a caller's connection may be kept.
    fn keeps(&self) -> bool {
        !self.draining.load(Ordering::Acquire)
    }

    /// Counts something as a request under way that will bring one, until what is returned is dropped.
    pub(crate) fn expect_request(&self) -> InFlight {
        InFlight::new(&self.in_flight)
    }

    /// Serves the requests of a connection, one after the other, until it ends.
    pub(crate) async fn serve<S>(&self, caller: &mut H1<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        loop {
            let next = poll_fn(|cx| caller.poll_next(self.limits(), cx)).await;
            let fault = match next {
                Next::Nothing => return,
                Next::Request => None,
                Next::Slow => Some(Refusal::RequestTimeout),
                Next::Fault(fault) => Some(fault.refusal()),
            };
            // Boxed, so that the task of an idle connection does not hold room for it.
            match fault {
                None => Box::pin(self.exchange(caller)).await,
                Some(refusal) => Box::pin(self.refuse_early(caller, refusal)).await,
            }
            if caller.has_rest() {
                let mut drain = Drain::lasting(DRAIN_TIMEOUT);
                poll_fn(|cx| caller.poll_drain(&mut drain, cx)).await;
            }
            if !caller.may_go_on() {
                return;
            }
        }
    }

    /// Answers a connection that begins as none may here, and ends it.
    pub(crate) async fn turn_away<S>(&self, caller: &mut H1<S>, fault: HeadFault)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.refuse_early(caller, fault.refusal()).await;
        let mut drain = Drain::lasting(DRAIN_TIMEOUT);
        poll_fn(|cx| caller.poll_drain(&mut drain, cx)).await;
    }

    /// Answers something that is no request.
    async fn refuse_early<D: Downstream>(&self, down: &mut D, refusal: Refusal) {
        let mut exchange = Exchange::new(self, down.peer());
        let (refusal, pause) = if refusal == Refusal::RequestTimeout {
            self.telemetry.connection_cut();
            (refusal, None)
        } else {
            self.charge(&exchange, None, refusal)
        };
        self.answer(down, &mut exchange, Own::Refusal(refusal, pause))
            .await;
    }

    /// One request and its answer.
    pub(crate) async fn exchange<D: Downstream>(&self, down: &mut D) {
        let mut exchange = Exchange::new(self, down.peer());
        let mut proof = Proof::default();
        let needed = self.conduct(down, &mut exchange, &mut proof).await;
        if let Some(bytes_max) = needed {
            // Boxed, so that other exchanges hold no room for it.
            Box::pin(self.exchange_with_body(down, &mut exchange, &mut proof, bytes_max)).await;
        }
    }

    /// Takes an exchange to its end, or says how much of the body has to be read before that.
    async fn conduct<D: Downstream>(
        &self,
        down: &mut D,
        exchange: &mut Exchange<'_>,
        proof: &mut Proof,
    ) -> Option<u64> {
        let (head, body) = match self.admit(down, exchange, proof).await {
            Ok(forward) => forward,
            Err(Stop::NeedsBody(bytes_max)) => return Some(bytes_max),
            Err(Stop::Gone) => return None,
            Err(Stop::Answer(own)) => {
                down.open_body();
                self.answer(down, exchange, own).await;
                return None;
            }
        };
        down.open_body();
        if let Err(broken) = self.forward(down, exchange, &head, body).await {
            self.end_broken(down, exchange, broken, body).await;
        }
        None
    }

    /// Decides; what is not to be forwarded comes back as why.
    async fn admit<D: Downstream>(
        &self,
        down: &mut D,
        exchange: &mut Exchange<'_>,
        proof: &mut Proof,
    ) -> Result<(Vec<u8>, Body), Stop> {
        let refuse = |refusal| Err(Stop::Answer(Own::Refusal(refusal, None)));
        loop {
            match down.with_request(|request| self.open(request, proof, exchange)) {
                Opening::Forward { head, body } => return Ok((head, body)),
                Opening::Answer(own) => return Err(Stop::Answer(own)),
                Opening::Need(Need::Body { bytes_max }) => return Err(Stop::NeedsBody(bytes_max)),
                Opening::Need(need) => {
                    // Boxed, so that exchanges that need nothing hold no room for it.
                    match Box::pin(self.prove(need, proof, exchange)).await {
                        Ok(()) => continue,
                        Err((refusal, pause)) => {
                            return Err(Stop::Answer(Own::Refusal(refusal, pause)));
                        }
                    }
                }
                Opening::LookAtBody => {}
            }
            let deadline = exchange.started() + self.limits().header_timeout;
            let looked = poll_fn(|cx| match down.poll_is_empty(cx) {
                Poll::Ready(looked) => Poll::Ready(Some(looked)),
                Poll::Pending => down.alarm().poll(deadline, cx).map(|()| None),
            });
            let refusal = match looked.await {
                Some(Ok(true)) => continue,
                Some(Ok(false)) => Refusal::BadMessage(MessageFault::BodyWithoutMeaning),
                Some(Err(Torn::Misframed)) => Refusal::BadMessage(MessageFault::Body),
                Some(Err(_)) => return Err(Stop::Gone),
                None => Refusal::RequestTimeout,
            };
            return refuse(refusal);
        }
    }

    /// Judges a request, takes what it needs, and writes the head that goes up.
    fn open(
        &self,
        request: Result<&Request<'_>, HeadFault>,
        proof: &Proof,
        exchange: &mut Exchange<'_>,
    ) -> Opening {
        let request = match request {
            Ok(request) => &Request { proof, ..*request },
            Err(fault) => {
                let (refusal, pause) = self.charge(exchange, None, fault.refusal());
                return Opening::Answer(Own::Refusal(refusal, pause));
            }
        };
        exchange.note(request);
        let generation = Arc::clone(&exchange.generation);
        let decision = generation.policy.decide(request);
        exchange.found = decision.found;
        let admission = match decision.verdict {
            Verdict::Forward(admission) => admission,
            Verdict::Refuse(refusal) => {
                let (refusal, pause) = self.charge(exchange, Some(request), refusal);
                return Opening::Answer(Own::Refusal(refusal, pause));
            }
            Verdict::Preflight(preflights) => return Opening::Answer(Own::Preflight(preflights)),
            Verdict::Options(methods) => return Opening::Answer(Own::Options(methods)),
            Verdict::Need(need) => return Opening::Need(need),
        };
        let is_bodiless = matches!(request.method, b"GET" | b"HEAD" | b"OPTIONS");
        if is_bodiless && request.body == Body::Unknown {
            return Opening::LookAtBody;
        }
        let upward = rewrite::up(request, &admission, exchange.id.as_str());
        let mut head = Vec::with_capacity(1024);
        for part in [
            upward.method.as_bytes(),
            b" ",
            &upward.target,
            b" HTTP/1.1\r\n",
        ] {
            head.extend_from_slice(part);
        }
        wire::write_fields(&mut head, request.fields, &upward.edits);
        match self.take_permits(exchange, admission, request.body) {
            Ok(admitted) => exchange.stage = Stage::Admitted(admitted),
            Err((refusal, pause)) => {
                return Opening::Answer(Own::Refusal(refusal, pause));
            }
        }
        Opening::Forward {
            head,
            body: request.body,
        }
    }

    /// Sends a request to its site, again where that is allowed, and relays the answer.
    async fn forward<D: Downstream>(
        &self,
        down: &mut D,
        exchange: &mut Exchange<'_>,
        head: &[u8],
        body: Body,
    ) -> Result<(), Broken> {
        let admission = &exchange.admitted().map_err(Broken::Refused)?.admission;
        let site = Arc::clone(&admission.route.site);
        let terms = Terms {
            limits: *self.limits(),
            timeouts: site.timeouts,
            body,
            // From here, so that no caller can leave the site less of it.
            deadline: Instant::now() + site.timeouts.total,
            may_repeat: admission.method.may_repeat(),
            keeps: self.keeps(),
            body_bytes_max: admission.route.body_bytes_max,
            withholds: rewrite::withholds_body(admission),
        };
        let mut replay = Replay::default();
        // The server token that a request is sent with once more, because the site refused another.
        let mut other = None;
        loop {
            let (mut up, key, is_reused) = self.connect(exchange, terms.deadline).await?;
            let now = Instant::now();
            write_signed(up.queue(), head, exchange, other, now)?;
            exchange.asked = Some(now);
            exchange.wait(now);
            exchange.asks += 1;
            let mut relay = Relay::new(down, &mut up, exchange, &mut replay, terms);
            match poll_fn(|cx| relay.poll(cx)).await {
                Ok(relayed) => {
                    if relayed.is_clean {
                        self.pool.give(key, up, site.timeouts.idle);
                    }
                    return Ok(());
                }
                // A pooled connection that had died already: nobody saw the request.
                Err(Broken::Site(Failure::Reset))
                    if is_reused
                        && terms.may_repeat
                        && exchange.site_status.is_none()
                        && replay.is_whole()
                        && exchange.attempts <= site.retries_max =>
                {
                    exchange.settle(Failure::Reset.cause());
                }
                Err(Broken::Refused(Refusal::SiteRefusedToken))
                    if other.is_none()
                        && terms.may_repeat
                        && replay.is_whole()
                        && exchange.attempts <= site.retries_max =>
                {
                    other = exchange.other_token();
                    if other.is_none() {
                        return Err(Broken::Refused(Refusal::SiteRefusedToken));
                    }
                    exchange.settle_answered();
                }
                Err(broken) => return Err(broken),
            }
        }
    }

    /// A connection to the site: one that waited for this user, or a new one.
    async fn connect(
        &self,
        exchange: &mut Exchange<'_>,
        deadline: Instant,
    ) -> Result<(Connection<Box<dyn Duplex>>, PoolKey, bool), Broken> {
        loop {
            let attempt = exchange.attempts;
            exchange.attempts += 1;
            let admitted = exchange.admitted().map_err(Broken::Refused)?;
            let (site, watched) = (&admitted.admission.route.site, &admitted.watched);
            let key = PoolKey {
                site: watched.id,
                identity: admitted.admission.identity.clone(),
            };
            // After a first attempt every pooled connection is as suspect as the one that failed.
            if attempt == 0
                && let Some(waiting) = self.pool.take(&key)
            {
                return Ok((waiting, key, true));
            }
            let address = watched.addresses.pick(attempt);
            let address = address.ok_or(Broken::Unmade(Failure::Dns))?;
            let (site, watched) = (Arc::clone(site), Arc::clone(watched));
            exchange.wait(Instant::now());
            let dialled = timeout_at(deadline, self.dial.dial(&watched, &site, address)).await;
            exchange.end_wait(Instant::now());
            match dialled {
                Ok(Ok(stream)) => return Ok((Connection::new(stream), key, false)),
                // What was left of the time may be what an attempt before this one left.
                Err(_) if exchange.asked.is_some() => {
                    return Err(Broken::Site(Failure::ConnectTimeout));
                }
                Err(_) => return Err(Broken::Unmade(Failure::ConnectTimeout)),
                Ok(Err(failure)) => {
                    watched.addresses.advance();
                    let again = failure.is_worth_another_connection()
                        && exchange.attempts <= site.retries_max
                        && Instant::now() < deadline;
                    if !again {
                        return Err(Broken::Unmade(failure));
                    }
                    exchange.settle(failure.cause());
                }
            }
        }
    }

    /// Ends an exchange that broke off: with a refusal where the answer has not begun, else with
    /// the connection.
    async fn end_broken<D: Downstream>(
        &self,
        down: &mut D,
        exchange: &mut Exchange<'_>,
        broken: Broken,
        body: Body,
    ) {
        let refusal = match broken {
            Broken::Unmade(failure) => {
                exchange.note_failure(failure, Evidence::Unmade);
                Some(failure.refusal())
            }
            Broken::Site(failure) => {
                // A second attempt may have had little time left.
                let asked = exchange.asked.filter(|_| exchange.asks == 1);
                let evidence = match (failure, asked) {
                    (Failure::Silent, Some(asked))
                        if exchange.status == 0 && body == Body::None =>
                    {
                        Evidence::Silence(asked)
                    }
                    _ => Evidence::None,
                };
                exchange.note_failure(failure, evidence);
                Some(failure.refusal())
            }
            Broken::Refused(refusal) => Some(refusal),
            Broken::SlowReader => Some(Refusal::RequestTimeout),
            Broken::Gone => None,
        };
        if matches!(
            broken,
            Broken::SlowReader | Broken::Refused(Refusal::RequestTimeout)
        ) {
            self.telemetry.connection_cut();
        }
        match refusal {
            Some(refusal) if exchange.status == 0 => {
                self.answer(down, exchange, Own::Refusal(refusal, None))
                    .await;
            }
            refusal => {
                exchange.refusal = refusal;
                down.give_up();
            }
        }
    }
}

/// Queues a request's head, signed for this attempt with the server token that signs now, or with another.
fn write_signed(
    queue: &mut Vec<u8>,
    head: &[u8],
    exchange: &mut Exchange<'_>,
    other: Option<usize>,
    now: Instant,
) -> Result<(), Broken> {
    let admitted = exchange.admitted().map_err(Broken::Refused)?;
    let watched = &admitted.watched;
    let signer = other.unwrap_or_else(|| watched.server_tokens.signing());
    let at = watched.clock.corrected(clock::now(), now);
    let token = rewrite::token(&admitted.admission, signer, at);
    let token = token.ok_or(Broken::Refused(Refusal::Internal))?;
    queue.reserve_exact(head.len() + 256);
    queue.extend_from_slice(head);
    queue.extend_from_slice(b"X-Deki-Token: ");
    queue.extend_from_slice(token.as_bytes());
    queue.extend_from_slice(b"\r\n\r\n");
    exchange.signer = signer;
    Ok(())
}
