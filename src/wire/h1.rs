//! A caller on HTTP/1.1 or HTTP/1.0: heads in, answers out, one exchange after the other.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::clock::{self, Alarm};
use super::connection::{Connection, Torn};
use super::framing::{self, Decoder, Encoder, Misframed};
use super::head::{Finder, HeadFault, RequestHead};
use super::{Announced, Departure, Downstream, Outgoing};
use crate::policy::fault::MessageFault;
use crate::policy::limit::ConnectionLimits;
use crate::policy::peer::Peer;
use crate::policy::proof::Proof;
use crate::policy::request::{Body, Request, Version};
use crate::rewrite::write_number;

/// Heads up to this size cannot be too large for anything.
const SMALL_HEAD_BYTES: usize = 4 * 1024;

/// Bytes of further requests that are read while one is under way.
const PIPELINED_BYTES_MAX: usize = 16 * 1024;

/// How much of a request that was refused is read and thrown away, so that the refusal reaches a
/// caller that is still sending.
const DRAINED_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A connection of a caller.
#[derive(Debug)]
pub(crate) struct H1<S> {
    connection: Connection<S>,
    alarm: Alarm,
    peer: Arc<Peer>,
    finder: Finder,
    /// Where the present request's head begins and ends in what is unread.
    head: Option<(usize, usize)>,
    message: Message,
    decoder: Decoder,
    encoder: Encoder,
    /// When the present head's first byte came, or when the connection fell idle.
    since: Instant,
}

/// What the present request's head says of the connection and of the answer.
#[derive(Clone, Copy, Debug)]
struct Message {
    version: Version,
    is_head: bool,
    /// Whether another request may follow.
    keeps: bool,
    /// Whether the caller waits to be told to send its body.
    expects: bool,
    /// Whether the body, chunked, has turned out to have no byte.
    is_empty: bool,
    /// Whether it is we who end the connection: the caller may be sending still, and would lose the
    /// answer if its bytes met a closed socket.
    lingers: bool,
    /// Whether its answer broke off.
    is_torn: bool,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            version: Version::Http11,
            is_head: false,
            keeps: false,
            expects: false,
            is_empty: false,
            lingers: false,
            is_torn: false,
        }
    }
}

/// What comes next on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A request, whose head is whole.
    Request,
    /// Nothing: the caller has closed, or said nothing for too long.
    Nothing,
    /// Something that is no request.
    Fault(HeadFault),
    /// A head that takes too long.
    Slow,
}

impl<S: AsyncRead + AsyncWrite + Unpin> H1<S> {
    /// A connection that has just been accepted.
    pub(crate) fn new(io: S, peer: Arc<Peer>) -> Self {
        Self::begun(Vec::new(), io, peer)
    }

    /// A connection whose first bytes have been read already.
    pub(crate) fn begun(first: Vec<u8>, io: S, peer: Arc<Peer>) -> Self {
        let message = Message {
            is_head: is_head(&first),
            ..Message::default()
        };
        Self {
            connection: Connection::begun(first, io),
            alarm: Alarm::default(),
            peer,
            finder: Finder::default(),
            head: None,
            message,
            decoder: Decoder::none(),
            encoder: Encoder::Plain,
            since: Instant::now(),
        }
    }

    /// Who is at the other end.
    pub(crate) fn shared_peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }

    /// The bytes a connection begins with, looked at before it is known to speak this protocol.
    pub(crate) fn preface(&mut self) -> &mut Connection<S> {
        &mut self.connection
    }

    /// The connection, for another protocol.
    pub(crate) fn into_connection(self) -> Connection<S> {
        self.connection
    }

    /// Waits for the next request's head.
    pub(crate) fn poll_next(
        &mut self,
        limits: &ConnectionLimits,
        cx: &mut Context<'_>,
    ) -> Poll<Next> {
        loop {
            let unread = self.connection.unread();
            let has_begun = !unread.is_empty();
            if has_begun {
                // Most requests come in one piece, which ends where their head does, or where that
                // of a later request does: then parsing finds the end by the way.
                if unread.len() <= SMALL_HEAD_BYTES
                    && unread.ends_with(b"\r\n\r\n")
                    && unread[0] != b'\r'
                {
                    self.head = Some((0, unread.len()));
                    return Poll::Ready(Next::Request);
                }
                match self.finder.find(unread) {
                    Ok(Some(head)) => {
                        self.head = Some(head);
                        return Poll::Ready(Next::Request);
                    }
                    Ok(None) => {}
                    Err(fault) => {
                        self.message.is_head = is_head(unread);
                        return Poll::Ready(Next::Fault(fault));
                    }
                }
            }
            let polled = if has_begun {
                self.connection.poll_more(cx)
            } else {
                self.connection.poll_fill(cx)
            };
            match polled {
                Poll::Ready(Ok(0)) if has_begun => {
                    let cut = HeadFault::Malformed(MessageFault::Cut);
                    return Poll::Ready(Next::Fault(cut));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Nothing),
                Poll::Ready(Ok(_)) if !has_begun => self.since = Instant::now(),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    let patience = if has_begun {
                        limits.header_timeout
                    } else {
                        limits.idle_timeout
                    };
                    ready!(self.alarm.poll(self.since + patience, cx));
                    return Poll::Ready(if has_begun { Next::Slow } else { Next::Nothing });
                }
            }
        }
    }

    /// Whether another request may follow, now that an exchange has ended; the buffers are given
    /// back if none is there yet.
    pub(crate) fn may_go_on(&mut self) -> bool {
        let goes_on = self.message.keeps && self.decoder.is_done() && self.head.is_none();
        self.finder = Finder::default();
        self.message = Message {
            is_torn: self.message.is_torn,
            ..Message::default()
        };
        self.since = Instant::now();
        self.connection.release();
        goes_on
    }

    /// Reads on in a body that nobody wants, for as long as that is worth it: until it is over, or,
    /// if nothing more is to be said, until the caller hangs up.
    pub(crate) fn poll_drain(&mut self, drain: &mut Drain, cx: &mut Context<'_>) -> Poll<()> {
        if !self.message.keeps {
            // The caller should see the end of the answer before it sees the end of the connection.
            drop(self.connection.poll_shutdown(cx));
        }
        loop {
            if self.message.keeps {
                match self.connection.poll_payload(&mut self.decoder, cx) {
                    Poll::Ready(Ok(true)) => {
                        let count = self.connection.payload().len();
                        self.connection.consume(count);
                        drain.bytes += count as u64;
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            } else {
                let unread = self.connection.unread().len();
                self.connection.skip(unread);
                match self.connection.poll_more(cx) {
                    Poll::Ready(Ok(count)) if count > 0 => drain.bytes += count as u64,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            if drain.bytes > DRAINED_BYTES_MAX {
                return Poll::Ready(());
            }
        }
        self.alarm.poll(drain.until, cx)
    }

    /// Takes leave where the layer below has a word for it, as TLS has, unless an answer broke off: that
    /// must not look like its end. Nobody waits for the word to arrive.
    pub(crate) fn take_leave(&mut self) {
        if !self.message.is_torn {
            let mut context = Context::from_waker(std::task::Waker::noop());
            drop(self.connection.poll_shutdown(&mut context));
        }
    }

    /// Whether something may come that is to be read and thrown away before anything else.
    pub(crate) fn has_rest(&self) -> bool {
        !self.decoder.is_done() || self.message.lingers
    }
}

/// Whether what may be no request at all asks for a head only: a refusal's body would then be taken
/// for the next answer.
fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HEAD ")
}

/// How far a drain came.
#[derive(Debug)]
pub(crate) struct Drain {
    bytes: u64,
    until: Instant,
}

impl Drain {
    /// A drain that takes this long at most.
    pub(crate) fn lasting(time: Duration) -> Self {
        Self {
            bytes: 0,
            until: Instant::now() + time,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Downstream for H1<S> {
    fn with_request<R>(&mut self, judge: impl FnOnce(Result<&Request<'_>, HeadFault>) -> R) -> R {
        let Some((start, end)) = self.head else {
            return judge(Err(HeadFault::Malformed(MessageFault::Cut)));
        };
        let bytes = &self.connection.unread()[start..end];
        self.message.is_head = is_head(bytes);
        let head = match RequestHead::parse(bytes) {
            Ok(head) => head,
            Err(fault) => return judge(Err(fault)),
        };
        if !self.message.is_empty {
            self.head = Some((start, start + head.length));
        }
        let body = match framing::of_request(head.version, &head.fields) {
            Ok(_) if self.message.is_empty => Body::None,
            Ok(body) => body,
            Err(Misframed(fault)) => return judge(Err(HeadFault::Malformed(fault))),
        };
        let request = Request {
            method: head.method,
            target: head.target,
            authority: None,
            fields: &head.fields,
            version: head.version,
            body,
            peer: &self.peer,
            client: self.peer.client(&head.fields),
            at: clock::now(),
            proof: Proof::NONE,
        };
        let is_11 = head.version == Version::Http11;
        self.message = Message {
            version: head.version,
            is_head: head.method == b"HEAD",
            keeps: framing::keeps(head.version, &head.fields),
            expects: is_11 && body != Body::None && request.all("expect").next().is_some(),
            ..self.message
        };
        self.decoder = match body {
            Body::None => Decoder::none(),
            Body::Length(length) => Decoder::length(length),
            Body::Unknown => Decoder::chunked(),
        };
        judge(Ok(&request))
    }

    fn poll_is_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Torn>> {
        let (start, end) = self.head.unwrap_or_default();
        loop {
            let mut decoder = Decoder::chunked();
            let mut rest = self.connection.unread()[end..].to_vec();
            let decoded = decoder.decode(&mut rest)?;
            if decoded.payload > 0 || rest.len() > PIPELINED_BYTES_MAX {
                return Poll::Ready(Ok(false));
            }
            if decoder.is_done() {
                self.message.is_empty = true;
                self.head = Some((start, end + decoded.consumed));
                return Poll::Ready(Ok(true));
            }
            if ready!(self.connection.poll_more(cx)).map_err(|_| Torn::Lost)? == 0 {
                return Poll::Ready(Err(Torn::Ended));
            }
        }
    }

    fn open_body(&mut self) {
        if let Some((_, end)) = self.head.take() {
            self.connection.begin_message();
            self.connection.skip(end);
        }
    }

    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Torn>> {
        let polled = self.connection.poll_payload(&mut self.decoder, cx);
        if let Poll::Ready(Ok(true)) = polled {
            // Whoever sends does not wait to be told.
            self.message.expects = false;
        }
        polled
    }

    fn payload(&self) -> &[u8] {
        self.connection.payload()
    }

    fn consume(&mut self, count: usize) {
        self.connection.consume(count);
    }

    fn is_body_done(&self) -> bool {
        self.decoder.is_done() && self.connection.payload().is_empty()
    }

    fn expects(&self) -> bool {
        self.message.expects
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.message.expects) {
            let queue = self.connection.queue();
            queue.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    fn begin(&mut self, head: &Outgoing<'_>) {
        let message = &mut self.message;
        // A caller that waits may send its body or not: where the next request begins is unknown.
        let goes_on = head.keeps && !message.expects;
        message.keeps &= goes_on;
        message.lingers = !goes_on;
        let queue = self.connection.queue();
        queue.reserve(2048);
        head.write_status_line(queue);
        head.write_fields(queue);
        let is_old = message.version == Version::Http10;
        self.encoder = Encoder::Plain;
        match head.body {
            Announced::Nothing => {}
            Announced::Length(length) => {
                queue.extend_from_slice(b"Content-Length: ");
                write_number(length, queue);
                queue.extend_from_slice(b"\r\n");
            }
            Announced::Unknown if message.is_head => {}
            Announced::Unknown if is_old => message.keeps = false,
            Announced::Unknown => {
                queue.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                self.encoder = Encoder::CHUNKED;
            }
        }
        match (message.keeps, is_old) {
            (false, _) => queue.extend_from_slice(b"Connection: close\r\n"),
            (true, true) => queue.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        queue.extend_from_slice(b"\r\n");
    }

    fn poll_send(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.connection.poll_body(&mut self.encoder, payload, cx)
    }

    fn finish(&mut self) {
        let ending = self.encoder.ending();
        self.connection.queue().extend_from_slice(ending);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_flush(cx)
    }

    fn has_queued(&self) -> bool {
        self.connection.has_queued()
    }

    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<Departure> {
        while !self.connection.is_ended() && self.connection.unread().len() < PIPELINED_BYTES_MAX {
            match ready!(self.connection.poll_more(cx)) {
                Ok(_) => {}
                Err(_) => return Poll::Ready(Departure::Gone),
            }
        }
        if self.connection.is_ended() {
            self.message.keeps &= !self.connection.unread().is_empty();
            return Poll::Ready(Departure::HalfClosed);
        }
        Poll::Pending
    }

    fn give_up(&mut self) {
        self.message.keeps = false;
        self.message.lingers = false;
        self.message.is_torn = true;
    }

    fn taken(&self) -> u64 {
        self.connection.taken()
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn is_head(&self) -> bool {
        self.message.is_head
    }
}
