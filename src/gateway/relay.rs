//! Bytes both ways at once: a request's body up, an answer down, and the clocks of both.
//!
//! One poll looks at everything: it moves what can be moved in either direction, and where nothing
//! can, it asks the clock that is running then. An answer that comes before the upload is over ends
//! the upload; a caller that leaves ends the exchange.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::blame;
use super::clocks::{Clocks, Standing};
use super::exchange::Exchange;
use super::held::Held;
use super::replay::Replay;
use crate::policy::Refusal;
use crate::policy::fault::MessageFault;
use crate::policy::limit::ConnectionLimits;
use crate::policy::request::Body;
use crate::policy::site::Timeouts;
use crate::rewrite::{self, Answer};
use crate::upstream::{Duplex, Failure};
use crate::wire::connection::{Connection, Torn};
use crate::wire::framing::{self, Decoder, Encoder};
use crate::wire::head::{AnswerHead, Finder};
use crate::wire::{Departure, Downstream};

/// Interim answers before a site's answer; a site that goes on like that never answers.
const INTERIM_MAX: u32 = 16;

/// How an exchange with a site ended well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relayed {
    /// Whether the connection to the site may be used again.
    pub(super) is_clean: bool,
}

/// How it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// No connection to the site came about.
    Unmade(Failure),
    /// Because of the site, which was connected.
    Site(Failure),
    /// Because of what was asked or answered.
    Refused(Refusal),
    /// The caller is gone.
    Gone,
    /// The caller takes the answer too slowly.
    SlowReader,
}

/// One attempt at one exchange.
pub(super) struct Relay<'a, 'g, D> {
    down: &'a mut D,
    up: &'a mut Connection<Box<dyn Duplex>>,
    exchange: &'a mut Exchange<'g>,
    replay: &'a mut Replay,
    terms: Terms,
    upload: Upload,
    answer: State,
    finder: Finder,
    is_first_look: bool,
    interim: u32,
    /// Whether the site keeps the connection.
    site_keeps: bool,
    clocks: Clocks,
}

/// What one attempt has to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) limits: ConnectionLimits,
    pub(super) timeouts: Timeouts,
    pub(super) body: Body,
    /// When the answer's head must have come, whatever happens.
    pub(super) deadline: Instant,
    pub(super) may_repeat: bool,
    /// Whether the caller's connection may be kept.
    pub(super) keeps: bool,
    pub(super) body_bytes_max: u64,
    /// Whether the answer's body is not for the caller.
    pub(super) withholds: bool,
}

#[derive(Debug)]
struct Upload {
    encoder: Encoder,
    /// Of what is replayed.
    replayed: usize,
    /// Everything is queued, or nothing more is wanted.
    is_done: bool,
    /// An answer came first.
    is_cut: bool,
    /// The site takes nothing more; it may have said why.
    is_lost: bool,
}

#[derive(Debug)]
enum State {
    /// The answer's head is not whole.
    Head,
    /// It may be one that does not go on.
    Held(Box<Held>),
    /// Its body is not.
    Body(Decoder),
    /// The caller has not taken all of it.
    Flushing,
}

impl<'a, 'g, D: Downstream> Relay<'a, 'g, D> {
    /// An attempt whose request head is queued on `up`.
    pub(super) fn new(
        down: &'a mut D,
        up: &'a mut Connection<Box<dyn Duplex>>,
        exchange: &'a mut Exchange<'g>,
        replay: &'a mut Replay,
        terms: Terms,
    ) -> Self {
        let encoder = match terms.body {
            Body::Unknown => Encoder::CHUNKED,
            Body::None | Body::Length(_) => Encoder::Plain,
        };
        up.begin_message();
        Self {
            upload: Upload {
                encoder,
                replayed: 0,
                is_done: terms.body == Body::None,
                is_cut: false,
                is_lost: false,
            },
            clocks: Clocks::new(exchange.request_bytes, down.taken(), Instant::now()),
            down,
            up,
            exchange,
            replay,
            terms,
            answer: State::Head,
            finder: Finder::default(),
            is_first_look: true,
            interim: 0,
            site_keeps: false,
        }
    }

    /// Moves what can be moved.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Relayed, Broken>> {
        if let Poll::Ready(Err(broken)) = self.poll_upload(cx) {
            return Poll::Ready(Err(broken));
        }
        if let Poll::Ready(done) = self.poll_answer(cx) {
            return Poll::Ready(done);
        }
        if self.down.is_body_done() {
            match self.down.poll_departure(cx) {
                Poll::Ready(Departure::Gone) => return Poll::Ready(Err(Broken::Gone)),
                Poll::Ready(Departure::HalfClosed) => {
                    self.clocks.half_closed(Instant::now());
                }
                Poll::Pending => {}
            }
        }
        let broken = ready!(self.poll_clocks(cx));
        Poll::Ready(Err(broken))
    }

    /// The request's body, and before it the head.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.upload.is_lost || self.upload.is_cut {
                return Poll::Pending;
            }
            if self.upload.is_done {
                return self.poll_flush_up(cx);
            }
            let old = &self.replay.bytes[self.upload.replayed..];
            if !old.is_empty() {
                match self.up.poll_body(&mut self.upload.encoder, old, cx) {
                    Poll::Ready(Ok(count)) => self.upload.replayed += count,
                    Poll::Ready(Err(_)) => self.upload.is_lost = true,
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            match self.down.poll_payload(cx) {
                Poll::Ready(Ok(true)) => ready!(self.poll_send_up(cx))?,
                Poll::Ready(Ok(false)) => {
                    let ending = self.upload.encoder.ending();
                    self.up.queue().extend_from_slice(ending);
                    self.upload.is_done = true;
                }
                Poll::Ready(Err(Torn::Misframed)) => {
                    let refusal = Refusal::BadMessage(MessageFault::Body);
                    return Poll::Ready(Err(Broken::Refused(refusal)));
                }
                Poll::Ready(Err(Torn::Lost | Torn::Ended)) => {
                    return Poll::Ready(Err(Broken::Gone));
                }
                Poll::Pending => return self.poll_flush_up(cx),
            }
        }
    }

    fn poll_send_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let payload = self.down.payload();
        if self.exchange.request_bytes + payload.len() as u64 > self.terms.body_bytes_max {
            return Poll::Ready(Err(Broken::Refused(Refusal::BodyTooLarge)));
        }
        match self.up.poll_body(&mut self.upload.encoder, payload, cx) {
            Poll::Ready(Ok(count)) => {
                self.replay.keep(&payload[..count], self.terms.may_repeat);
                self.upload.replayed = self.replay.bytes.len();
                self.down.consume(count);
                self.exchange.request_bytes += count as u64;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => {
                self.upload.is_lost = true;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if ready!(self.up.poll_flush(cx)).is_err() {
            self.upload.is_lost = true;
        }
        Poll::Pending
    }

    /// The answer, head and body.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Relayed, Broken>> {
        loop {
            match &mut self.answer {
                State::Head => ready!(self.poll_head(cx))?,
                State::Held(_) => ready!(self.poll_held(cx))?,
                State::Body(decoder) => {
                    match self.up.poll_payload(decoder, cx) {
                        Poll::Ready(Ok(true)) => ready!(self.poll_send_down(cx))?,
                        Poll::Ready(Ok(false)) => {
                            self.site_keeps &= decoder.is_done();
                            self.down.finish();
                            self.answer = State::Flushing;
                        }
                        Poll::Ready(Err(torn)) => return Poll::Ready(Err(torn_answer(&torn))),
                        // The site pauses: what it said so far goes on.
                        Poll::Pending => {
                            ready!(self.down.poll_flush(cx)).map_err(|_| Broken::Gone)?;
                            return Poll::Pending;
                        }
                    }
                }
                State::Flushing => {
                    ready!(self.down.poll_flush(cx)).map_err(|_| Broken::Gone)?;
                    let is_clean = self.site_keeps
                        && self.up.is_clean()
                        && self.upload.is_done
                        && !self.upload.is_lost;
                    return Poll::Ready(Ok(Relayed { is_clean }));
                }
            }
        }
    }

    fn poll_send_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.clocks.heard(Instant::now());
        let payload = self.up.payload();
        let count = if self.terms.withholds {
            payload.len()
        } else {
            let polled = self.down.poll_send(payload, cx);
            let count = ready!(polled).map_err(|_| Broken::Gone)?;
            self.exchange.answer_bytes += count as u64;
            count
        };
        self.up.consume(count);
        Poll::Ready(Ok(()))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            // Most heads come in one piece, and parsing finds their end by the way.
            if self.is_first_look && !self.up.unread().is_empty() {
                self.is_first_look = false;
                if self.take_head(None)? {
                    return Poll::Ready(Ok(()));
                }
            }
            let unread = self.up.unread();
            match self.finder.find(unread) {
                // An answer begins with its first byte; lines before it belong to nothing.
                Ok(Some((0, end))) => {
                    let taken = self.take_head(Some(end));
                    self.finder = Finder::default();
                    return Poll::Ready(taken.map(drop));
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Poll::Ready(Err(Broken::Site(Failure::Invalid))),
            }
            let has_begun = !unread.is_empty();
            let polled = if has_begun {
                self.up.poll_more(cx)
            } else {
                self.up.poll_fill(cx)
            };
            match polled {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(Ok(_)) if has_begun => {
                    return Poll::Ready(Err(Broken::Site(Failure::Invalid)));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Site(Failure::Reset))),
                Poll::Pending => {
                    // An interim answer may be waiting to go down.
                    ready!(self.down.poll_flush(cx)).map_err(|_| Broken::Gone)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes an answer's head, which ends at `end` of what is unread: passes over an interim one,
    /// begins the caller's answer with a final one. Where the end is not known, `false` says that no
    /// whole head is there.
    fn take_head(&mut self, end: Option<usize>) -> Result<bool, Broken> {
        const INVALID: Broken = Broken::Site(Failure::Invalid);
        let unread = self.up.unread();
        let head = match AnswerHead::parse(&unread[..end.unwrap_or(unread.len())]) {
            Ok(head) => head,
            Err(_) if end.is_none() => return Ok(false),
            Err(_) => return Err(INVALID),
        };
        let end = head.length;
        if head.status < 200 {
            let status = head.status;
            self.up.skip(end);
            self.take_interim(status)?;
            return Ok(true);
        }
        let is_bare = matches!(head.status, 204 | 304);
        let (decoder, length) =
            framing::of_answer(head.version, &head.fields, is_bare || self.down.is_head())
                .map_err(|_| INVALID)?;
        self.site_keeps =
            framing::keeps(head.version, &head.fields) && !decoder.ends_with_connection();
        // An answer before the end of the request: the rest of it is not wanted.
        self.upload.is_cut = !self.upload.is_done || self.up.has_queued();
        let now = Instant::now();
        self.exchange.note_answer(head.status, now);
        self.clocks.heard(now);
        self.answer = match Held::new(head.status, &unread[..end], decoder, length) {
            Some(held) => {
                // Before anything of its body is waited for.
                let answer = Answer {
                    status: head.status,
                    fields: &head.fields,
                };
                rewrite::judge_head(&answer).map_err(Broken::Refused)?;
                self.exchange.wait(now);
                State::Held(held)
            }
            None => {
                self.terms.keeps &= !self.upload.is_cut;
                self.exchange.begin(self.down, &head, length, &self.terms)?;
                State::Body(decoder)
            }
        };
        self.up.skip(end);
        Ok(true)
    }

    /// The beginning of an error answer: in whole, then on to the caller.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let State::Held(held) = &mut self.answer else {
            return Poll::Ready(Ok(()));
        };
        while held.sent.is_none() {
            let is_over = match self.up.poll_payload(&mut held.decoder, cx) {
                Poll::Ready(Ok(true)) => {
                    let count = held.take(self.up.payload());
                    self.up.consume(count);
                    self.clocks.heard(Instant::now());
                    held.is_full()
                }
                Poll::Ready(Ok(false)) => true,
                Poll::Ready(Err(torn)) => return Poll::Ready(Err(torn_answer(&torn))),
                Poll::Pending => {
                    // A word to go on may be waiting.
                    ready!(self.down.poll_flush(cx)).map_err(|_| Broken::Gone)?;
                    return Poll::Pending;
                }
            };
            if is_over {
                let head = held.head()?;
                let judged = held.judge();
                if judged == Err(Broken::Refused(Refusal::SiteRefusedToken)) {
                    let admitted = self.exchange.admitted().map_err(Broken::Refused)?;
                    blame::token_refused(
                        admitted,
                        self.exchange.signer,
                        &head.fields,
                        self.exchange.id.as_str(),
                    );
                }
                judged?;
                self.terms.keeps &= !self.upload.is_cut;
                self.exchange
                    .begin(self.down, &head, held.length, &self.terms)?;
                held.sent = Some(0);
            }
        }
        while !held.rest().is_empty() && !self.terms.withholds {
            let polled = self.down.poll_send(held.rest(), cx);
            let count = ready!(polled).map_err(|_| Broken::Gone)?;
            self.exchange.answer_bytes += count as u64;
            held.pass(count);
        }
        self.answer = State::Body(held.decoder);
        Poll::Ready(Ok(()))
    }

    /// An answer before the answer: a word to go on is passed on, bare, to a caller that waits for it;
    /// whatever else it says, nobody asked.
    fn take_interim(&mut self, status: u16) -> Result<(), Broken> {
        self.interim += 1;
        self.is_first_look = true;
        if status == 101 || self.interim > INTERIM_MAX {
            return Err(Broken::Site(Failure::Invalid));
        }
        if status == 100 {
            self.down.go_on();
            self.clocks.heard(Instant::now());
        }
        Ok(())
    }

    /// Nothing moves: ready when a clock has run out.
    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        loop {
            let standing = self.standing();
            let next = self.clocks.next(&standing, &self.terms, Instant::now());
            let (deadline, clock) = match next {
                Ok(next) => next,
                Err(broken) => return Poll::Ready(broken),
            };
            ready!(self.down.alarm().poll(deadline, cx));
            if let Some(broken) = clock.verdict() {
                return Poll::Ready(broken);
            }
        }
    }

    /// Whom this waits for.
    fn standing(&self) -> Standing {
        let upload = &self.upload;
        let has_asked = upload.is_done || upload.is_cut || upload.is_lost;
        let has_payload = !self.down.payload().is_empty();
        Standing {
            waits_for_body: !has_asked && !has_payload,
            expects: self.down.expects(),
            waits_for_taking: !upload.is_cut
                && !upload.is_lost
                && (self.up.has_queued() || (!upload.is_done && has_payload)),
            has_asked,
            is_answering: !matches!(self.answer, State::Head),
            is_held: matches!(&self.answer, State::Held(held) if held.sent.is_none()),
            waits_for_reader: self.down.has_queued()
                || !self.up.payload().is_empty()
                || matches!(&self.answer, State::Held(held) if held.sent.is_some()),
            read: self.exchange.request_bytes,
            taken: self.down.taken(),
            sent: self.up.taken(),
        }
    }
}

/// What it means that an answer's body breaks off.
fn torn_answer(torn: &Torn) -> Broken {
    Broken::Site(match torn {
        Torn::Misframed => Failure::Invalid,
        Torn::Lost | Torn::Ended => Failure::Reset,
    })
}
