//! Bodies both ways, streamed: what callers send is counted, what the site sends can be made slow,
//! endless or too short.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::denial::Denial;

/// The body of a request, read once and counted.
pub(super) struct Intake {
    body: Incoming,
    received: Arc<AtomicU64>,
}

impl Intake {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            received: Arc::default(),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The count as it goes on, for whoever outlives the body.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The next piece, or nothing at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Denial> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|_| Denial::bad_request("the body broke off"))?;
            if let Ok(data) = frame.into_data() {
                self.received
                    .fetch_add(data.len() as u64, Ordering::Relaxed);
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// All of it as text, if it is not longer than a document may be.
    pub(super) async fn text(&mut self) -> Result<String, Denial> {
        let mut text = Vec::new();
        while let Some(data) = self.chunk().await? {
            if text.len() + data.len() > DOCUMENT_BYTES_MAX {
                return Err(Denial::too_large());
            }
            text.extend_from_slice(&data);
        }
        String::from_utf8(text).map_err(|_| Denial::bad_request("the body is not UTF-8"))
    }

    /// Reads on to the end, so that the connection can be used again; gives up on very long bodies.
    pub(super) async fn discard(&mut self) {
        while self.received() < DISCARDED_BYTES_MAX && matches!(self.chunk().await, Ok(Some(_))) {}
    }
}

/// What a body is made of.
#[derive(Clone)]
pub(super) enum Source {
    Bytes(Bytes),
    /// So many zero bytes, which take no memory.
    Zeros(u64),
}

impl Source {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(left) => *left,
        }
    }

    /// The part from one offset up to, and without, another.
    pub(super) fn slice(&self, from: u64, to: u64) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let offset = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Self::Bytes(bytes.slice(offset(from)..offset(to)))
            }
            Self::Zeros(_) => Self::Zeros(to - from),
        }
    }

    fn take(&mut self, most: u64) -> Bytes {
        match self {
            Self::Bytes(bytes) => {
                bytes.split_to(bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX)))
            }
            Self::Zeros(left) => {
                let mut chunk = Bytes::from_static(&ZEROS);
                chunk.truncate(usize::try_from(most.min(*left)).unwrap_or(CHUNK_BYTES));
                *left -= chunk.remaining() as u64;
                chunk
            }
        }
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

/// The body of an answer.
pub(super) struct Body {
    source: Source,
    /// How much the head has promised and is still to come, kept or not.
    promised: u64,
    /// How much is sent before the connection is cut.
    until_cut: Option<u64>,
    /// How long to wait before each chunk, and how long chunks are then.
    pause: Option<Duration>,
    chunk_bytes: u64,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(super) fn new(source: Source) -> Self {
        Self {
            promised: source.length(),
            source,
            until_cut: None,
            pause: None,
            chunk_bytes: CHUNK_BYTES as u64,
            waiting: None,
        }
    }

    pub(super) fn empty() -> Self {
        Self::new(Source::Zeros(0))
    }

    /// Breaks off after so many bytes, whatever the head has promised.
    pub(super) fn cut_after(mut self, bytes: u64) -> Self {
        self.until_cut = Some(bytes);
        self
    }

    /// Waits before each of about ten chunks.
    pub(super) fn dripping(mut self, pause: Duration) -> Self {
        self.pause = Some(pause);
        self.chunk_bytes = (self.promised / 10).clamp(1, CHUNK_BYTES as u64);
        self
    }

    /// Whether there is nothing more to wait for before the next chunk.
    fn rested(&mut self, cx: &mut Context<'_>, pause: Option<Duration>) -> bool {
        let Some(pause) = pause else {
            return true;
        };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(pause)));
        let rested = waiting.as_mut().poll(cx).is_ready();
        if rested {
            self.waiting = None;
        }
        rested
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let cut = self.until_cut == Some(0);
        if self.promised == 0 && !cut {
            return Poll::Ready(None);
        }
        // The server drops what it has not flushed yet when a body fails, so the cut comes late.
        let pause = if cut { Some(FLUSH) } else { self.pause };
        if !self.rested(cx, pause) {
            return Poll::Pending;
        }
        if cut {
            return Poll::Ready(Some(Err(CutShort)));
        }
        let most = self.chunk_bytes.min(self.until_cut.unwrap_or(u64::MAX));
        let chunk = self.source.take(most);
        self.promised -= chunk.len() as u64;
        if let Some(left) = &mut self.until_cut {
            *left -= chunk.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.promised == 0 && self.until_cut != Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

/// The body was cut on purpose.
#[derive(Debug)]
pub(super) struct CutShort;

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body was cut short, as asked")
    }
}

impl std::error::Error for CutShort {}

const CHUNK_BYTES: usize = 16 * 1024;
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
const FLUSH: Duration = Duration::from_millis(50);
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
const DISCARDED_BYTES_MAX: u64 = 64 * 1024 * 1024;
