//! A request whose body is read before it is judged, since a signature covers it: what was read goes up,
//! byte for byte.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::{Gateway, Own};
use crate::policy::Refusal;
use crate::policy::fault::MessageFault;
use crate::policy::limit::ConnectionLimits;
use crate::policy::peer::Peer;
use crate::policy::proof::Proof;
use crate::policy::request::{Body, Field, Request, Version};
use crate::signing::Epoch;
use crate::watch::bodies::Hold;
use crate::wire::clock::{Alarm, Rate};
use crate::wire::connection::Torn;
use crate::wire::head::HeadFault;
use crate::wire::{Departure, Downstream, Outgoing};

/// What is held at least, so that small pieces do not take space one by one.
const HELD_BYTES_MIN: usize = 16 * 1024;

impl Gateway {
    /// Reads a request's body, and takes its exchange to the end with that.
    pub(super) async fn exchange_with_body<D: Downstream>(
        &self,
        down: &mut D,
        exchange: &mut Exchange<'_>,
        proof: &mut Proof,
        bytes_max: u64,
    ) {
        let head = down.with_request(|request| request.ok().map(Head::of));
        down.open_body();
        let Some(head) = head else {
            let own = Own::Refusal(Refusal::Internal, None);
            return self.answer(down, exchange, own).await;
        };
        let mut reading = Reading {
            body: Vec::new(),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            hold: self.held_bodies.hold(exchange.client),
            rate: Rate::default(),
        };
        let read = match head.body {
            Body::Length(bytes) if bytes > bytes_max => Err(Unread::no(Refusal::BodyTooLarge)),
            _ => {
                down.go_on();
                poll_fn(|cx| reading.poll(down, self.limits(), cx)).await
            }
        };
        match read {
            Ok(()) => {}
            Err(Unread::Gone) => return,
            Err(Unread::Refused(refusal, pause)) => {
                if refusal == Refusal::RequestTimeout {
                    self.telemetry.connection_cut();
                }
                let (refusal, charged) = self.charge(exchange, None, refusal);
                let own = Own::Refusal(refusal, charged.or(pause));
                exchange.request_bytes = reading.body.len() as u64;
                return self.answer(down, exchange, own).await;
            }
        }
        let body = Bytes::from(reading.body);
        proof.body = Some(body.clone());
        let read = body.len() as u64;
        let mut collected = Collected {
            down,
            head,
            body,
            _hold: reading.hold,
        };
        if self
            .conduct(&mut collected, exchange, proof)
            .await
            .is_some()
        {
            let own = Own::Refusal(Refusal::Internal, None);
            self.answer(&mut collected, exchange, own).await;
        }
        // Also of what did not go up.
        exchange.request_bytes = read;
    }
}

/// A body that is being read.
struct Reading {
    body: Vec<u8>,
    bytes_max: usize,
    hold: Hold,
    rate: Rate,
}

/// Why a body could not be read.
enum Unread {
    /// The caller is gone.
    Gone,
    /// It may not be, or took too long; and when to try again.
    Refused(Refusal, Option<Duration>),
}

impl Unread {
    fn no(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

impl Reading {
    /// Reads on; ready when the body is whole.
    fn poll<D: Downstream>(
        &mut self,
        down: &mut D,
        limits: &ConnectionLimits,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unread>> {
        loop {
            // The word to go on may be waiting.
            if let Poll::Ready(Err(_)) = down.poll_flush(cx) {
                return Poll::Ready(Err(Unread::Gone));
            }
            match down.poll_payload(cx) {
                Poll::Ready(Ok(true)) => {
                    let payload = down.payload();
                    let count = payload.len();
                    self.take(payload)?;
                    self.rate.moved(count as u64, Instant::now());
                    down.consume(count);
                }
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(Torn::Misframed)) => {
                    let refusal = Refusal::BadMessage(MessageFault::Body);
                    return Poll::Ready(Err(Unread::no(refusal)));
                }
                Poll::Ready(Err(Torn::Lost | Torn::Ended)) => {
                    return Poll::Ready(Err(Unread::Gone));
                }
                Poll::Pending => {
                    let until = self.rate.wait(limits, Instant::now());
                    let until = until.ok_or(Unread::no(Refusal::RequestTimeout))?;
                    ready!(down.alarm().poll(until, cx));
                }
            }
        }
    }

    /// Takes over a part of the body, and the space for it.
    fn take(&mut self, payload: &[u8]) -> Result<(), Unread> {
        let length = self.body.len() + payload.len();
        if length > self.bytes_max {
            return Err(Unread::no(Refusal::BodyTooLarge));
        }
        let space = self.body.capacity();
        if length > space {
            let wanted = length
                .max(space * 2)
                .max(HELD_BYTES_MIN)
                .min(self.bytes_max);
            let more = self.hold.grow((wanted - space) as u64);
            more.map_err(|full| Unread::Refused(full.refusal, Some(full.retry_after)))?;
            self.body.reserve_exact(wanted - self.body.len());
        }
        self.body.extend_from_slice(payload);
        Ok(())
    }
}

/// A request that is whole.
struct Collected<'d, D> {
    down: &'d mut D,
    head: Head,
    /// What has not gone up of its body.
    body: Bytes,
    _hold: Hold,
}

/// A request's head with bytes of its own.
struct Head {
    bytes: Vec<u8>,
    method: Range<usize>,
    target: Range<usize>,
    authority: Option<Range<usize>>,
    fields: Vec<(Range<usize>, Range<usize>)>,
    version: Version,
    /// As it was announced.
    body: Body,
    client: IpAddr,
    at: Epoch,
}

impl Head {
    /// A copy, but for the wish to be told to go on: that has been granted.
    fn of(request: &Request<'_>) -> Self {
        let mut bytes = Vec::new();
        let mut copy = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            start..bytes.len()
        };
        let fields = request.fields.iter().filter(|field| !field.is("expect"));
        Self {
            method: copy(request.method),
            target: copy(request.target),
            authority: request.authority.map(&mut copy),
            fields: fields
                .map(|field| (copy(field.name), copy(field.value)))
                .collect(),
            version: request.version,
            body: request.body,
            client: request.client,
            at: request.at,
            bytes,
        }
    }
}

impl<D: Downstream> Downstream for Collected<'_, D> {
    fn with_request<R>(&mut self, judge: impl FnOnce(Result<&Request<'_>, HeadFault>) -> R) -> R {
        let head = &self.head;
        let part = |range: &Range<usize>| &head.bytes[range.clone()];
        let fields: Vec<Field<'_>> = head
            .fields
            .iter()
            .map(|(name, value)| Field {
                name: part(name),
                value: part(value),
            })
            .collect();
        let request = Request {
            method: part(&head.method),
            target: part(&head.target),
            authority: head.authority.as_ref().map(part),
            fields: &fields,
            version: head.version,
            body: match self.body.len() {
                0 => Body::None,
                length => Body::Length(length as u64),
            },
            peer: self.down.peer(),
            client: head.client,
            at: head.at,
            proof: Proof::NONE,
        };
        judge(Ok(&request))
    }

    fn poll_is_empty(&mut self, _: &mut Context<'_>) -> Poll<Result<bool, Torn>> {
        Poll::Ready(Ok(self.body.is_empty()))
    }

    fn open_body(&mut self) {}

    fn poll_payload(&mut self, _: &mut Context<'_>) -> Poll<Result<bool, Torn>> {
        Poll::Ready(Ok(!self.body.is_empty()))
    }

    fn payload(&self) -> &[u8] {
        &self.body
    }

    fn consume(&mut self, count: usize) {
        drop(self.body.split_to(count));
    }

    fn is_body_done(&self) -> bool {
        self.body.is_empty()
    }

    fn expects(&self) -> bool {
        false
    }

    fn go_on(&mut self) {}

    fn begin(&mut self, head: &Outgoing<'_>) {
        self.down.begin(head);
    }

    fn poll_send(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.down.poll_send(payload, cx)
    }

    fn finish(&mut self) {
        self.down.finish();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.down.poll_flush(cx)
    }

    fn has_queued(&self) -> bool {
        self.down.has_queued()
    }

    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<Departure> {
        self.down.poll_departure(cx)
    }

    fn give_up(&mut self) {
        self.down.give_up();
    }

    fn taken(&self) -> u64 {
        self.down.taken()
    }

    fn peer(&self) -> &Peer {
        self.down.peer()
    }

    fn alarm(&mut self) -> &mut Alarm {
        self.down.alarm()
    }

    fn is_head(&self) -> bool {
        self.down.is_head()
    }
}
