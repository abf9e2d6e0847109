//! Bytes of connections: strict, one reader, no policy.

pub(crate) mod clock;
pub(crate) mod coding;
pub(crate) mod connection;
mod frames;
pub mod framing;
pub(crate) mod h1;
pub(crate) mod h2;
pub mod handshakes;
pub mod head;
mod pace;
pub mod proxy_protocol;
pub mod slots;
pub mod tls;

use std::io;
use std::task::{Context, Poll};

use self::clock::Alarm;
use self::connection::Torn;
use self::head::HeadFault;
use crate::policy::peer::Peer;
use crate::policy::request::{Field, Request};
use crate::rewrite::{Edits, write_number};

/// The caller's side of one exchange, whichever protocol it speaks. Everything is polled, so that
/// both directions, and the clocks of both, are looked at in one place.
pub(crate) trait Downstream: Send {
    /// The request, as slices of its head, or why its head is none.
    fn with_request<R>(&mut self, judge: impl FnOnce(Result<&Request<'_>, HeadFault>) -> R) -> R;

    /// Whether a body of unannounced length turns out to have no byte. Asked between
    /// [`Self::with_request`] and [`Self::open_body`]; the request is the same afterwards, but for
    /// its body.
    fn poll_is_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Torn>>;

    /// Lets go of the head; from here on the body is read.
    fn open_body(&mut self);

    /// Finds payload: `true` if there is some, `false` when the body is over, whole.
    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Torn>>;

    /// Payload that was found and not passed over.
    fn payload(&self) -> &[u8];

    /// Passes over bytes of [`Self::payload`].
    fn consume(&mut self, count: usize);

    /// Whether all of the body has been read and passed over.
    fn is_body_done(&self) -> bool;

    /// Whether the caller waits to be told to send its body (RFC 9110 section 10.1.1).
    fn expects(&self) -> bool;

    /// Tells it to, if it waits.
    fn go_on(&mut self);

    /// Queues an answer's head.
    fn begin(&mut self, head: &Outgoing<'_>);

    /// Takes over a part of an answer's payload: returns how much.
    fn poll_send(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Queues the end of an answer.
    fn finish(&mut self);

    /// Writes what is queued.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether something is queued.
    fn has_queued(&self) -> bool;

    /// Ready once the caller has left. Asked only when its body is over.
    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<Departure>;

    /// The answer breaks off: makes sure the caller can tell.
    fn give_up(&mut self);

    /// Bytes the caller has taken so far.
    fn taken(&self) -> u64;

    /// Who sent the request.
    fn peer(&self) -> &Peer;

    /// The timer.
    fn alarm(&mut self) -> &mut Alarm;

    /// Whether the answer has no body, since it answers a HEAD.
    fn is_head(&self) -> bool;
}

/// How a caller left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// It has ended its side, and may be waiting for the answer still (RFC 9112 section 9.6).
    HalfClosed,
    /// It is gone.
    Gone,
}

/// An answer's head on its way down.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) status: u16,
    /// The fields that came, of which some are kept.
    pub(crate) fields: &'a [Field<'a>],
    pub(crate) edits: &'a Edits<'a>,
    pub(crate) body: Announced,
    /// Whether another request may follow on the connection.
    pub(crate) keeps: bool,
}

/// What an answer's head says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// Neither a body nor a length: 204 and 304.
    Nothing,
    Length(u64),
    Unknown,
}

impl Outgoing<'_> {
    fn write_status_line(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(b"HTTP/1.1 ");
        write_number(u64::from(self.status), into);
        into.push(b' ');
        let reason = http::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        into.extend_from_slice(reason.unwrap_or_default().as_bytes());
        into.extend_from_slice(b"\r\n");
    }

    fn write_fields(&self, into: &mut Vec<u8>) {
        write_fields(into, self.fields, self.edits);
    }
}

/// Writes the lines of a header section: those that are kept, then those that are set.
pub(crate) fn write_fields(into: &mut Vec<u8>, fields: &[Field<'_>], edits: &Edits<'_>) {
    for (index, field) in fields.iter().enumerate() {
        if edits.keep.contains(index) {
            into.extend_from_slice(field.name);
            into.extend_from_slice(b": ");
            into.extend_from_slice(field.value);
            into.extend_from_slice(b"\r\n");
        }
    }
    for (name, value) in &edits.set {
        into.extend_from_slice(name.as_bytes());
        into.extend_from_slice(b": ");
        value.write_to(into);
        into.extend_from_slice(b"\r\n");
    }
}
