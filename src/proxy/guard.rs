//! Connections: how many, how slow.
//!
//! The engine reads from and writes to a [`Guarded`] stream, which knows in which phase its
//! connection is and how long the peer may take in it. The time of a header section is counted from
//! its first byte, however many bytes drip in; a body, in either direction, is measured over
//! windows of waiting, so that neither a burst at first nor a slow site counts for or against the
//! peer. What the engine answers on its own, before any filter runs, is replaced by our refusal.

pub mod connection;
pub mod doors;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use self::connection::Phase;
pub use self::connection::{Connection, Cut};
pub use self::doors::{Doors, Pass};
use super::framing::Framing;
use crate::policy::Refusal;
use crate::policy::limit::ConnectionLimits;
use crate::policy::message::HEADER_BYTES_MAX;
use crate::policy::target::TARGET_BYTES_MAX;

/// What HTTP/2 by prior knowledge begins with (RFC 9113 section 3.4).
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a header section at which reading on is pointless.
const HEAD_BYTES_MAX: u64 = (HEADER_BYTES_MAX + TARGET_BYTES_MAX + 16 * 1024) as u64;

/// How long a write may make no progress at all.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// How long a peer that has ended its side may go without a byte of the answer. It may only have said
/// that it has no more to ask (RFC 9112 section 9.6), but most that do are gone for good, and the
/// site should not work for them.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(3);

/// Measures how fast bytes come while we wait for them.
#[derive(Debug, Default)]
struct Window {
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Window {
    /// Bytes moved, or nothing is wanted any more.
    fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// Nothing moves. When to look again; `None` if the window is over and was too slow.
    fn wait(&mut self, limits: &ConnectionLimits, now: Instant) -> Option<Instant> {
        let since = *self.waiting_since.get_or_insert(now);
        let waited = self.waited + now.saturating_duration_since(since);
        if waited >= limits.body_grace {
            let wanted = limits
                .body_bytes_per_second_min
                .saturating_mul(limits.body_grace.as_secs());
            if self.bytes < wanted {
                return None;
            }
            *self = Self {
                waiting_since: Some(now),
                ..Self::default()
            };
            return Some(now + limits.body_grace);
        }
        Some(since + (limits.body_grace - self.waited))
    }
}

/// A connection from a caller that ends when its peer is too slow.
pub struct Guarded {
    io: BufWriter<TcpStream>,
    /// Bytes that were read to find out the protocol, to be read again.
    again: Bytes,
    h2c: bool,
    connection: Arc<Connection>,
    doors: Arc<Doors>,
    digest: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    phase_seen: Phase,
    phase_since: Instant,
    head_bytes: u64,
    framing: Framing,
    reading: Window,
    writing: Window,
    write_stalled_since: Option<Instant>,
    /// Since when the peer has ended its side while it waits for an answer, or was last written to.
    half_closed_since: Option<Instant>,
    /// Our own answer in place of the engine's.
    early: Option<Bytes>,
    _pass: Pass,
}

impl Guarded {
    /// Guards an accepted connection.
    ///
    /// `h2c` says whether HTTP/2 by prior knowledge is looked for.
    pub fn new(stream: TcpStream, peer: SocketAddr, pass: Pass, h2c: bool) -> Self {
        use std::os::fd::AsRawFd;
        let connection = Connection::new(peer);
        let response = ResponseHeader::build_no_case(200, Some(0)).expect("200 is a status");
        let shared: Box<dyn std::any::Any + Send + Sync> = Box::new(Arc::clone(&connection));
        let socket = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // The engine would ask the kernel for what is known already.
        drop(socket.peer_addr.set(Some(peer.into())));
        let now = Instant::now();
        Self {
            io: BufWriter::with_capacity(4096, stream),
            again: Bytes::new(),
            h2c,
            doors: Arc::clone(&pass.doors),
            connection,
            digest: Arc::new(ProxyDigest::new(Box::new(response), Some(shared))),
            socket: Arc::new(socket),
            read_timer: Box::pin(tokio::time::sleep_until(now)),
            write_timer: Box::pin(tokio::time::sleep_until(now)),
            phase_seen: Phase::Idle,
            phase_since: now,
            head_bytes: 0,
            framing: Framing::default(),
            reading: Window::default(),
            writing: Window::default(),
            write_stalled_since: None,
            half_closed_since: None,
            early: None,
            _pass: pass,
        }
    }

    /// The phase now; starts its clocks if it is new.
    fn phase(&mut self, now: Instant) -> Phase {
        let phase = self.connection.phase();
        if phase != self.phase_seen {
            self.phase_seen = phase;
            self.phase_since = now;
            self.reading = Window::default();
            if phase == Phase::Idle {
                self.head_bytes = 0;
            }
        }
        phase
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.connection.set(phase);
        self.phase_seen = phase;
        self.phase_since = now;
    }

    /// Bytes arrived.
    fn arrived(&mut self, bytes: u64, now: Instant) {
        let phase = self.phase(now);
        match phase {
            Phase::Idle => {
                self.enter(Phase::Head, now);
                self.head_bytes = bytes;
            }
            Phase::Head => self.head_bytes += bytes,
            Phase::Body => {
                self.connection
                    .expects_continue
                    .store(false, Ordering::Release);
                self.reading.moved(bytes, now);
            }
            Phase::Answer | Phase::Multiplexed => {}
        }
    }

    /// Nothing arrives: until when that is fine. An error ends the connection.
    fn patience(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        let phase = self.phase(now);
        let limits = *self.doors.limits();
        match phase {
            Phase::Idle => self.until(self.phase_since + limits.idle_timeout, now),
            Phase::Head => self.until(self.phase_since + limits.header_timeout, now),
            Phase::Body if self.connection.expects_continue.load(Ordering::Acquire) => Ok(None),
            Phase::Body => match self.reading.wait(&limits, now) {
                Some(next) => Ok(Some(next)),
                None => Err(self.cut(Cut::SlowPeer)),
            },
            Phase::Answer => match self.connection.site_deadline() {
                Some(deadline) if now >= deadline => {
                    self.connection
                        .cut
                        .store(Cut::SlowSite as u8, Ordering::Release);
                    Err(io::ErrorKind::TimedOut.into())
                }
                deadline => Ok(deadline),
            },
            Phase::Multiplexed => Ok(None),
        }
    }

    fn until(&self, deadline: Instant, now: Instant) -> io::Result<Option<Instant>> {
        if now < deadline {
            return Ok(Some(deadline));
        }
        Err(self.cut(Cut::SlowPeer))
    }

    fn cut(&self, cut: Cut) -> io::Error {
        self.connection.cut.store(cut as u8, Ordering::Release);
        self.doors.telemetry.connection_cut();
        io::ErrorKind::TimedOut.into()
    }

    /// Says why, before a connection is ended while its header section is being read.
    fn say_early(&mut self, refusal: Refusal, cx: &mut Context<'_>) {
        let answer = self.doors.refuse_early(refusal);
        // Best effort: a peer that does not read either gets nothing.
        drop(Pin::new(&mut self.io).poll_write(cx, &answer));
        drop(Pin::new(&mut self.io).poll_flush(cx));
    }

    /// Waits with a peer that sends nothing more, and gives it up in the end.
    fn poll_half_closed(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = *self.half_closed_since.get_or_insert(now);
        let deadline = since + HALF_CLOSED_GRACE;
        ready!(poll_timer(&mut self.read_timer, Some(deadline), cx));
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(early) = self.early.as_mut().filter(|early| early.has_remaining()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, early))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            early.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits with a deadline in mind; ready only when the deadline has passed.
fn poll_timer(
    timer: &mut Pin<Box<Sleep>>,
    deadline: Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let Some(deadline) = deadline else {
        return Poll::Pending;
    };
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut().poll(cx)
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The buffers hold what a caller sent.
        f.debug_struct("Guarded")
            .field("peer", &self.connection.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.again.has_remaining() {
            let count = this.again.remaining().min(buf.remaining());
            buf.put_slice(&this.again.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let now = Instant::now();
        if this.phase(now) == Phase::Head && this.head_bytes > HEAD_BYTES_MAX {
            this.say_early(Refusal::HeadersTooLarge, cx);
            return Poll::Ready(Err(this.cut(Cut::SlowPeer)));
        }
        if this.framing.is_broken() {
            if this.phase(now) == Phase::Head {
                this.say_early(Refusal::BadMessage, cx);
            }
            return Poll::Ready(Err(this.cut(Cut::Misframed)));
        }
        let before = buf.filled().len();
        if let Poll::Ready(done) = Pin::new(&mut this.io).poll_read(cx, buf) {
            let count = buf.filled().len() - before;
            if count == 0 && done.is_ok() && this.phase(now) == Phase::Answer {
                return this.poll_half_closed(now, cx);
            }
            if count > 0 {
                this.arrived(count as u64, now);
            }
            if this.phase_seen != Phase::Multiplexed {
                // What is good is still read, so that the refusal finds its request.
                let good = this.framing.feed(&buf.filled()[before..]);
                buf.set_filled(before + good);
                if good == 0 && count > 0 {
                    return Poll::Ready(Err(this.cut(Cut::Misframed)));
                }
            }
            return Poll::Ready(done);
        }
        loop {
            let deadline = match this.patience(Instant::now()) {
                Ok(deadline) => deadline,
                Err(error) => {
                    if this.phase_seen == Phase::Head {
                        this.say_early(Refusal::RequestTimeout, cx);
                    }
                    return Poll::Ready(Err(error));
                }
            };
            ready!(poll_timer(&mut this.read_timer, deadline, cx));
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // An answer while the header section is being read is the engine's own: it could not parse
        // the request, or will not tunnel it. Ours goes out instead, once.
        if this.connection.phase() == Phase::Head {
            if this.early.is_none() {
                let refusal = match buf.get(9..12) {
                    Some(b"405") => Refusal::MethodNotSupported,
                    _ => Refusal::BadMessage,
                };
                this.early = Some(this.doors.refuse_early(refusal));
            }
            ready!(this.poll_early(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.judge_write(polled, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx))?;
        let polled = Pin::new(&mut this.io).poll_flush(cx).map_ok(|()| 0);
        this.judge_write(polled, cx).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl Guarded {
    /// Lets a write through, or ends a connection whose peer does not take what is written.
    fn judge_write(
        &mut self,
        polled: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        if let Poll::Ready(done) = polled {
            self.write_stalled_since = None;
            if self.half_closed_since.is_some() {
                self.half_closed_since = Some(now);
            }
            if let Ok(count) = &done {
                self.writing.moved(*count as u64, now);
                // While the peer was slow to take bytes, the site could not show life.
                if self
                    .connection
                    .site_deadline()
                    .is_some_and(|deadline| deadline < now + Duration::from_secs(1))
                {
                    self.connection.await_site(Duration::from_secs(1));
                }
            }
            return Poll::Ready(done);
        }
        loop {
            let now = Instant::now();
            let stalled_since = *self.write_stalled_since.get_or_insert(now);
            let limits = *self.doors.limits();
            let Some(next) = self
                .writing
                .wait(&limits, now)
                .filter(|_| now < stalled_since + WRITE_STALL)
            else {
                return Poll::Ready(Err(self.cut(Cut::SlowPeer)));
            };
            ready!(poll_timer(&mut self.write_timer, Some(next), cx));
        }
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        // The peer may be gone already; then there is nothing to shut.
        drop(AsyncWriteExt::shutdown(self).await);
    }
}

#[async_trait]
impl Peek for Guarded {
    /// Reads as far as the bytes are HTTP/2's preface, and keeps them to be read again.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        use tokio::io::AsyncReadExt;
        if !self.h2c {
            // The engine asks on every listener; zeros are no preface.
            return Ok(true);
        }
        let mut seen = 0;
        while seen < buf.len() && H2_PREFACE.starts_with(&buf[..seen]) {
            let count = self.read(&mut buf[seen..]).await?;
            if count == 0 {
                break;
            }
            seen += count;
        }
        self.again = Bytes::copy_from_slice(&buf[..seen]);
        if buf[..seen] == H2_PREFACE[..] {
            self.connection.set(Phase::Multiplexed);
        }
        Ok(true)
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        use std::os::fd::AsRawFd;
        self.io.get_ref().as_raw_fd()
    }
}

impl Ssl for Guarded {}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_waiting() {
        let limits = ConnectionLimits::default();
        let start = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.wait(&limits, start), Some(start + limits.body_grace));
        let late = start + limits.body_grace;
        assert_eq!(
            window.wait(&limits, late),
            None,
            "nothing in ten seconds of waiting"
        );

        let mut window = Window::default();
        window.wait(&limits, start);
        window.moved(10 * 1024, start + Duration::from_secs(9));
        assert!(
            window
                .wait(&limits, start + Duration::from_secs(60))
                .is_some(),
            "the site's time does not count"
        );
        let mut window = Window::default();
        window.moved(1 << 20, start);
        window.wait(&limits, start);
        assert!(window.wait(&limits, late).is_some(), "fast enough so far");
        assert_eq!(
            window.wait(&limits, late + limits.body_grace),
            None,
            "a burst at first is no credit for ever"
        );
    }
}
