//! One connection's buffers: bytes come in once and are forwarded from where they lie.
//!
//! The buffers live only while a message needs them, so that an idle connection holds none.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::framing::{Decoder, Encoder, Misframed};
use super::pace::Pace;

/// What is read at a time. Large enough that a call to the system is cheap beside its copy, small
/// enough that a stalled transfer holds little and the bytes stay in the processor's cache.
const READ_BYTES: usize = 32 * 1024;

/// What is read into the stack while a connection holds no buffer: most heads, whole.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Payload up to this size is copied behind what goes before it, and leaves with it in one write.
const COPIED_BYTES: usize = 8 * 1024;

/// What is queued at most before it has to leave.
const QUEUED_BYTES_MAX: usize = 16 * 1024;

/// A byte stream and what lies between it and us.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    io: S,
    /// Payload, then bytes that nobody has looked at: `start..ready` and `raw..`.
    input: Vec<u8>,
    start: usize,
    ready: usize,
    raw: usize,
    /// Bytes to be written before anything else, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// Bytes the peer has taken so far, of everything.
    taken: u64,
    /// Whether the stream may hold back what it was given: TLS does, while the peer does not read.
    is_held_back: bool,
    eof: bool,
    pace: Pace,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection that holds no buffer yet.
    pub(crate) fn new(io: S) -> Self {
        Self::begun(Vec::new(), io)
    }

    /// A connection whose first bytes were read already.
    pub(crate) fn begun(first: Vec<u8>, io: S) -> Self {
        Self {
            io,
            input: first,
            start: 0,
            ready: 0,
            raw: 0,
            output: Vec::new(),
            sent: 0,
            taken: 0,
            is_held_back: false,
            eof: false,
            pace: Pace::new(),
        }
    }

    /// The bytes that were read and not looked at, and the stream.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, S) {
        self.input.drain(..self.raw);
        (self.input, self.io)
    }

    /// Whether nothing lies between the peer and us: all that was read was forwarded.
    pub(crate) fn is_clean(&self) -> bool {
        self.start == self.input.len() && !self.has_queued() && !self.eof
    }

    /// Bytes that were read and not looked at.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.input[self.raw..]
    }

    /// Passes over bytes of [`Self::unread`]; there is no payload while this is called.
    pub(crate) fn skip(&mut self, count: usize) {
        self.raw += count;
        self.start = self.raw;
        self.ready = self.raw;
        self.settle();
    }

    /// Payload that was found and not forwarded.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.input[self.start..self.ready]
    }

    /// Passes over bytes of [`Self::payload`].
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.ready {
            self.start = self.raw;
            self.ready = self.raw;
            self.settle();
        }
    }

    /// Whether the peer has ended its side.
    pub(crate) fn is_ended(&self) -> bool {
        self.eof
    }

    /// Bytes the peer has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Gives the buffers back if nothing is in them.
    pub(crate) fn release(&mut self) {
        if self.start == self.input.len() {
            self.input = Vec::new();
            (self.start, self.ready, self.raw) = (0, 0, 0);
        }
        if self.sent == self.output.len() {
            self.output = Vec::new();
            self.sent = 0;
        }
    }

    fn settle(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            (self.start, self.ready, self.raw) = (0, 0, 0);
        }
    }

    /// A message begins, which may come in a few small pieces.
    pub(crate) fn begin_message(&mut self) {
        self.pace.message();
    }

    /// Reads on in a message: as [`Self::poll_fill`], but small pieces are taken together if they are
    /// many.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.pace.poll_ready(cx));
        let count = ready!(self.poll_fill(cx))?;
        self.pace.read(count);
        Poll::Ready(Ok(count))
    }

    /// Reads more, behind what is there; 0 at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        let count = if self.input.is_empty() && self.input.capacity() < READ_BYTES {
            ready!(self.poll_first(cx))?
        } else {
            if self.start > 0 && self.input.len() + READ_BYTES / 2 > self.input.capacity() {
                self.input.drain(..self.start);
                self.ready -= self.start;
                self.raw -= self.start;
                self.start = 0;
            }
            if self.input.capacity() < READ_BYTES {
                self.input.reserve_exact(READ_BYTES - self.input.len());
            } else if self.input.len() == self.input.capacity() {
                self.input.reserve_exact(READ_BYTES);
            }
            let reading = pin!(self.io.read_buf(&mut self.input));
            ready!(reading.poll(cx))?
        };
        self.eof = count == 0;
        Poll::Ready(Ok(count))
    }

    /// Waits without a buffer, or with the small one that is there.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [std::mem::MaybeUninit::uninit(); FIRST_READ_BYTES];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        let bytes = space.filled();
        if !bytes.is_empty() {
            // What fills the space is the beginning of more.
            let whole = bytes.len() < FIRST_READ_BYTES;
            let wanted = if whole { FIRST_READ_BYTES } else { READ_BYTES };
            self.input.reserve_exact(wanted);
            self.input.extend_from_slice(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Whether the peer is silent, as an idle one must be: it has neither sent a byte nor hung up.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        !self.eof && self.input.is_empty() && self.poll_first(&mut context).is_pending()
    }

    /// Finds payload: reads until there is some (`true`), or until the body is over (`false`).
    pub(crate) fn poll_payload(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Torn>> {
        loop {
            if self.start < self.ready {
                return Poll::Ready(Ok(true));
            }
            if decoder.is_done() {
                return Poll::Ready(Ok(false));
            }
            if self.raw < self.input.len() {
                let decoded = decoder.decode(&mut self.input[self.raw..])?;
                self.pace
                    .decoded(decoded.payload, decoded.consumed - decoded.payload);
                self.start = self.raw;
                self.ready = self.raw + decoded.payload;
                self.raw += decoded.consumed;
                if decoded.payload == 0 {
                    self.start = self.raw;
                    self.ready = self.raw;
                    self.settle();
                }
                continue;
            }
            if ready!(self.poll_more(cx)).map_err(|_| Torn::Lost)? == 0 {
                let whole = decoder.ends_with_connection();
                return Poll::Ready(if whole { Ok(false) } else { Err(Torn::Ended) });
            }
        }
    }

    /// What is to be written before anything else.
    pub(crate) fn queue(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether something is, or has been written and may not have left.
    pub(crate) fn has_queued(&self) -> bool {
        self.sent < self.output.len() || self.is_held_back
    }

    /// Takes over a part of `payload`: returns how much. A little is copied and leaves with
    /// [`Self::poll_flush`]; much is written at once, together with what is queued before it.
    fn poll_write(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let queued = self.output.len() - self.sent;
        if payload.len() <= COPIED_BYTES && queued + payload.len() <= QUEUED_BYTES_MAX {
            self.output.extend_from_slice(payload);
            return Poll::Ready(Ok(payload.len()));
        }
        loop {
            let before = &self.output[self.sent..];
            let written = if before.is_empty() {
                ready!(Pin::new(&mut self.io).poll_write(cx, payload))?
            } else {
                let both = [IoSlice::new(before), IoSlice::new(payload)];
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &both))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += written as u64;
            self.is_held_back = true;
            let of_queue = written.min(before.len());
            self.sent += of_queue;
            self.settle_output();
            if written > of_queue {
                return Poll::Ready(Ok(written - of_queue));
            }
        }
    }

    /// Takes over a part of a body: returns how much of it.
    pub(crate) fn poll_body(
        &mut self,
        encoder: &mut Encoder,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Encoder::Chunked { left } = encoder else {
            return self.poll_write(payload, cx);
        };
        if *left == 0 {
            if self.output.len() - self.sent > QUEUED_BYTES_MAX {
                ready!(self.poll_flush(cx))?;
            }
            write_hex(&mut self.output, payload.len());
            self.output.extend_from_slice(b"\r\n");
            *left = payload.len();
        }
        let part = &payload[..payload.len().min(*left)];
        let written = ready!(self.poll_write(part, cx))?;
        *left -= written;
        if *left == 0 {
            self.output.extend_from_slice(b"\r\n");
        }
        Poll::Ready(Ok(written))
    }

    /// Writes all that is queued.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let rest = &self.output[self.sent..];
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += written as u64;
            self.is_held_back = true;
            self.sent += written;
        }
        self.settle_output();
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.is_held_back = false;
        Poll::Ready(Ok(()))
    }

    fn settle_output(&mut self) {
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Why a body breaks off.
#[derive(Debug)]
pub(crate) enum Torn {
    /// The connection failed.
    Lost,
    /// The peer ended it before the body was whole.
    Ended,
    /// A byte of its framing was wrong.
    Misframed,
}

impl From<Misframed> for Torn {
    fn from(_: Misframed) -> Self {
        Self::Misframed
    }
}

/// Hexadecimal digits without leading zeros.
fn write_hex(into: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (number >> (4 * digit)) & 0xf;
        into.push(b"0123456789abcdef"[nibble]);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn hexadecimal() {
        let check = |number: usize| {
            let mut digits = Vec::new();
            write_hex(&mut digits, number);
            assert_eq!(String::from_utf8(digits).unwrap(), format!("{number:x}"));
        };
        for number in [0, 1, 15, 16, 255, 256, 4096, 0xfedc_ba98, usize::MAX] {
            check(number);
        }
    }

    #[tokio::test]
    async fn a_body_passes_whatever_the_pieces() {
        let body: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        for (chunked, piece) in [
            (true, 7),
            (true, 5000),
            (true, 60_000),
            (false, 999),
            (false, 60_000),
        ] {
            let (ours, theirs) = tokio::io::duplex(4000);
            let (mut writing, mut reading) = (Connection::new(ours), Connection::new(theirs));
            let sent = body.clone();
            let writer = tokio::spawn(async move {
                let mut encoder = if chunked {
                    Encoder::CHUNKED
                } else {
                    Encoder::Plain
                };
                for piece in sent.chunks(piece) {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let count = poll_fn(|cx| writing.poll_body(&mut encoder, rest, cx))
                            .await
                            .unwrap();
                        rest = &rest[count..];
                    }
                }
                writing.queue().extend_from_slice(encoder.ending());
                poll_fn(|cx| writing.poll_flush(cx)).await.unwrap();
            });
            let mut decoder = if chunked {
                Decoder::chunked()
            } else {
                Decoder::until_close()
            };
            let mut received = Vec::new();
            while poll_fn(|cx| reading.poll_payload(&mut decoder, cx))
                .await
                .unwrap()
            {
                // Not always all of it.
                let some = reading.payload().len().div_ceil(2);
                received.extend_from_slice(&reading.payload()[..some]);
                reading.consume(some);
            }
            writer.await.unwrap();
            assert!(received == body, "{chunked} {piece}");
            reading.release();
            assert_eq!(
                reading.input.capacity(),
                0,
                "an idle connection holds nothing"
            );
        }
    }

    #[tokio::test]
    async fn a_peer_that_speaks_or_hangs_up_is_not_silent() {
        use tokio::io::AsyncWriteExt;
        let (ours, mut theirs) = tokio::io::duplex(100);
        let mut connection = Connection::new(ours);
        assert!(connection.is_silent());
        theirs.write_all(b"x").await.unwrap();
        assert!(!connection.is_silent());
        let (ours, theirs) = tokio::io::duplex(100);
        let mut connection = Connection::new(ours);
        drop(theirs);
        assert!(!connection.is_silent());
    }

    /// Takes whatever it is given, and holds it back for a while.
    struct Holding(bool);

    impl AsyncRead for Holding {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Holding {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.0 {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_the_stream_holds_back_has_not_left() {
        let mut context = Context::from_waker(Waker::noop());
        let mut connection = Connection::new(Holding(true));
        assert!(!connection.has_queued());
        let much = [0; COPIED_BYTES + 1];
        assert!(connection.poll_write(&much, &mut context).is_ready());
        assert!(connection.has_queued(), "the clock of a slow reader runs");
        assert!(connection.poll_flush(&mut context).is_pending());
        assert!(connection.has_queued());
        connection.io.0 = false;
        assert!(connection.poll_flush(&mut context).is_ready());
        assert!(!connection.has_queued());
        connection.queue().extend_from_slice(b"x");
        connection.io.0 = true;
        assert!(connection.poll_flush(&mut context).is_pending());
        assert!(connection.has_queued());
    }

    /// Always has something to read: so much at a time.
    struct Drip(usize);

    impl AsyncRead for Drip {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            into.put_slice(&vec![b'x'; self.0.min(into.remaining())]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Drip {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_in_crumbs_takes_its_time() {
        for (bytes, piece, expected) in [(12_000, 1, 4..6), (1 << 24, 2000, 0..1), (1000, 1, 0..1)]
        {
            let mut connection = Connection::new(Drip(piece));
            let mut decoder = Decoder::length(bytes);
            let start = tokio::time::Instant::now();
            while poll_fn(|cx| connection.poll_payload(&mut decoder, cx))
                .await
                .unwrap()
            {
                connection.consume(connection.payload().len());
            }
            let took = start.elapsed().as_secs();
            assert!(expected.contains(&took), "{bytes} by {piece}: {took} s");
        }
    }
}
