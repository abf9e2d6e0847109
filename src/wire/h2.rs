//! A caller on HTTP/2: each stream is one exchange, with the same clocks and limits as a connection
//! of HTTP/1.1 has.
//!
//! The options are the engine's bounded ones; the streams are taken from the protocol crate below it,
//! since the engine answers malformed streams itself, without a code and without a record
//! (docs/decisions/004-one-strict-relay.md).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{self, Alarm};
use super::connection::Torn;
use super::frames::Frames;
use super::framing::{self, Misframed};
use super::head::HeadFault;
use super::pace::Pace;
use super::{Announced, Departure, Downstream, Outgoing};
use crate::policy::peer::Peer;
use crate::policy::proof::Proof;
use crate::policy::request::{Body, Field, Request, Version};

/// What HTTP/2 by prior knowledge begins with (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of unread bodies that one stream, and all streams of a connection together, may hold here.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// How a connection is spoken: bounded in streams, in header lists, and in what it may hold.
pub(crate) fn options() -> h2::server::Builder {
    let mut options = pingora::protocols::http::v2::server::default_h2_options();
    options
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(STREAM_WINDOW as usize);
    options
}

/// One stream of a caller.
#[derive(Debug)]
pub(crate) struct H2 {
    peer: Arc<Peer>,
    alarm: Alarm,
    head: http::request::Parts,
    body: RecvStream,
    /// A part of the body that was read and not passed over.
    payload: Bytes,
    is_done: bool,
    is_empty: bool,
    expects: bool,
    respond: SendResponse<Bytes>,
    answer: Option<SendStream<Bytes>>,
    /// Bytes of the answer that are still announced.
    left: Option<u64>,
    is_ended: bool,
    /// Whether the answer could not be begun.
    is_broken: bool,
    taken: u64,
}

impl H2 {
    /// A stream that has just been opened.
    pub(crate) fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        peer: Arc<Peer>,
    ) -> Self {
        let (head, body) = request.into_parts();
        Self {
            peer,
            alarm: Alarm::default(),
            is_done: body.is_end_stream(),
            is_empty: false,
            expects: head.headers.contains_key(http::header::EXPECT),
            head,
            body,
            payload: Bytes::new(),
            respond,
            answer: None,
            left: None,
            is_ended: false,
            is_broken: false,
            taken: 0,
        }
    }

    fn gone() -> io::Error {
        io::ErrorKind::BrokenPipe.into()
    }
}

/// The header fields of an answer, of which HTTP/2 forbids some (RFC 9113 section 8.2.2); no list of
/// ours holds those.
fn header_map(head: &Outgoing<'_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(head.fields.len() + head.edits.set.len());
    let mut append = |name: &[u8], value: &[u8]| {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    };
    for (index, field) in head.fields.iter().enumerate() {
        if head.edits.keep.contains(index) {
            append(field.name, field.value);
        }
    }
    // Room for an id or a directive: the values that every answer has.
    let mut written = Vec::with_capacity(64);
    for (name, value) in &head.edits.set {
        written.clear();
        value.write_to(&mut written);
        append(name.as_bytes(), &written);
    }
    if let Announced::Length(length) = head.body {
        headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    headers
}

impl Downstream for H2 {
    fn with_request<R>(&mut self, judge: impl FnOnce(Result<&Request<'_>, HeadFault>) -> R) -> R {
        let fields: Vec<Field<'_>> = self
            .head
            .headers
            .iter()
            .map(|(name, value)| Field {
                name: name.as_str().as_bytes(),
                value: value.as_bytes(),
            })
            .collect();
        let body = match framing::of_request(Version::Http2, &fields) {
            Ok(_) if self.is_done || self.is_empty => Body::None,
            // Nothing is announced, or nothing at all.
            Ok(Body::None) if !self.head.headers.contains_key(http::header::CONTENT_LENGTH) => {
                Body::Unknown
            }
            Ok(body) => body,
            Err(Misframed(fault)) => return judge(Err(HeadFault::Malformed(fault))),
        };
        let uri = &self.head.uri;
        let request = Request {
            method: self.head.method.as_str().as_bytes(),
            target: uri
                .path_and_query()
                .map_or(b"", |target| target.as_str().as_bytes()),
            authority: uri
                .authority()
                .map(|authority| authority.as_str().as_bytes()),
            fields: &fields,
            version: Version::Http2,
            body,
            peer: &self.peer,
            client: self.peer.client(&fields),
            at: clock::now(),
            proof: Proof::NONE,
        };
        self.expects &= body != Body::None;
        judge(Ok(&request))
    }

    fn poll_is_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Torn>> {
        self.is_empty = !ready!(self.poll_payload(cx))?;
        Poll::Ready(Ok(self.is_empty))
    }

    fn open_body(&mut self) {}

    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Torn>> {
        loop {
            if !self.payload.is_empty() {
                return Poll::Ready(Ok(true));
            }
            if self.is_done {
                return Poll::Ready(Ok(false));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    self.payload = bytes;
                    self.expects = false;
                }
                Some(Err(_)) => return Poll::Ready(Err(Torn::Lost)),
                // Trailers may follow; nobody reads them.
                None => self.is_done = true,
            }
        }
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn consume(&mut self, count: usize) {
        self.payload.advance(count);
        // It fails only on a stream that is gone, which is seen elsewhere.
        drop(self.body.flow_control().release_capacity(count));
    }

    fn is_body_done(&self) -> bool {
        self.is_done && self.payload.is_empty()
    }

    fn expects(&self) -> bool {
        self.expects
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.expects) {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            drop(self.respond.send_informational(interim));
        }
    }

    fn begin(&mut self, head: &Outgoing<'_>) {
        let ends = self.is_head() || matches!(head.body, Announced::Nothing | Announced::Length(0));
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
        *answer.headers_mut() = header_map(head);
        self.left = match head.body {
            Announced::Length(length) => Some(length),
            Announced::Nothing | Announced::Unknown => None,
        };
        match self.respond.send_response(answer, ends) {
            Ok(stream) => self.answer = Some(stream),
            Err(_) => self.is_broken = true,
        }
        self.is_ended = ends;
        self.taken += 1;
    }

    fn poll_send(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(answer) = self.answer.as_mut().filter(|_| !self.is_ended) else {
            return Poll::Ready(Err(Self::gone()));
        };
        answer.reserve_capacity(payload.len());
        while answer.capacity() == 0 {
            match ready!(answer.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Self::gone())),
            }
        }
        let count = payload.len().min(answer.capacity());
        let ends = self.left == Some(count as u64);
        let data = Bytes::copy_from_slice(&payload[..count]);
        answer.send_data(data, ends).map_err(|_| Self::gone())?;
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        self.is_ended = ends;
        self.taken += count as u64;
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self) {
        if let Some(answer) = self.answer.as_mut().filter(|_| !self.is_ended) {
            self.is_broken |= answer.send_data(Bytes::new(), true).is_err();
            self.is_ended = true;
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.is_broken {
            Err(Self::gone())
        } else {
            Ok(())
        })
    }

    fn has_queued(&self) -> bool {
        self.is_broken
    }

    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<Departure> {
        let reset = match &mut self.answer {
            Some(_) if self.is_ended => return Poll::Pending,
            Some(answer) => answer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|_| Departure::Gone)
    }

    fn give_up(&mut self) {
        if !self.is_ended {
            match &mut self.answer {
                Some(answer) => answer.send_reset(Reason::INTERNAL_ERROR),
                None => self.respond.send_reset(Reason::CANCEL),
            }
            self.is_ended = true;
        }
    }

    fn taken(&self) -> u64 {
        self.taken
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn is_head(&self) -> bool {
        self.head.method == http::Method::HEAD
    }
}

/// A stream whose first bytes were read already, and are read again; many small frames are read
/// slowly.
#[derive(Debug)]
pub(crate) struct Replay<S> {
    first: Bytes,
    io: S,
    frames: Frames,
    pace: Pace,
}

impl<S> Replay<S> {
    /// `first`, which begins with the preface, and then what `io` has.
    pub(crate) fn new(first: Bytes, io: S) -> Self {
        Self {
            first,
            io,
            frames: Frames::after(PREFACE.len()),
            pace: Pace::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.pace.poll_ready(cx));
        let before = into.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, into))?;
        } else {
            let count = this.first.len().min(into.remaining());
            into.put_slice(&this.first.split_to(count));
        }
        let cost = this.frames.read(&into.filled()[before..]);
        for _ in 0..cost.messages {
            this.pace.message();
        }
        this.pace.charge(cost.pieces);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn frames_with_a_byte_each_take_their_time() {
        let data = |payload: &[u8]| {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let header = [0, length[0], length[1], 0, 0, 0, 0, 0, 1];
            [&header[..], payload].concat()
        };
        for (payload, count, expected) in [(&[0; 1][..], 12_000, 4..6), (&[0; 1024], 12_000, 0..1)]
        {
            let bytes = [&PREFACE[..], &data(payload).repeat(count)].concat();
            let mut io = Replay::new(Bytes::from(bytes), tokio::io::empty());
            let start = tokio::time::Instant::now();
            let mut buffer = vec![0; 16 * 1024];
            while io.read(&mut buffer).await.unwrap() > 0 {}
            let took = start.elapsed().as_secs();
            assert!(expected.contains(&took), "{}: {took} s", payload.len());
        }
    }
}
