//! What a connection and the exchanges on it tell each other: what it waits for, and why it was cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What the stream and the exchanges on it tell each other.
#[derive(Debug)]
pub struct Connection {
    /// The peer's address.
    pub peer: SocketAddr,
    phase: AtomicU8,
    /// Milliseconds after `opened` by which the site must have given another sign of life; 0 for
    /// never.
    site_deadline_ms: AtomicU64,
    opened: Instant,
    pub(super) cut: AtomicU8,
    pub(super) expects_continue: AtomicBool,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// For a request, or the first one.
    Idle,
    /// For the rest of a header section.
    Head,
    /// For the body of a request.
    Body,
    /// For the site.
    Answer,
    /// HTTP/2: the engine's own idle timeout counts.
    Multiplexed,
}

/// Why the guard ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// It did not.
    No,
    /// The peer was too slow.
    SlowPeer,
    /// The site was too slow.
    SlowSite,
    /// The peer sent a body whose end nobody could agree on.
    Misframed,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            phase: AtomicU8::new(Phase::Idle as u8),
            site_deadline_ms: AtomicU64::new(0),
            opened: Instant::now(),
            cut: AtomicU8::new(Cut::No as u8),
            expects_continue: AtomicBool::new(false),
        })
    }

    /// A request's header section has been read; `with_body` if a body follows, which the peer may
    /// hold back until it is told to go on if it `expects_continue`.
    pub fn exchange_began(&self, with_body: bool, expects_continue: bool) {
        if self.phase() == Phase::Multiplexed {
            return;
        }
        self.site_deadline_ms.store(0, Ordering::Release);
        self.expects_continue
            .store(expects_continue, Ordering::Release);
        self.set(if with_body {
            Phase::Body
        } else {
            Phase::Answer
        });
    }

    /// The request has been read to its end.
    pub fn body_ended(&self) {
        if self.phase() == Phase::Body {
            self.set(Phase::Answer);
        }
    }

    /// The site must give another sign of life within `time`.
    pub fn await_site(&self, time: Duration) {
        let deadline = self.opened.elapsed() + time;
        self.site_deadline_ms
            .store(millis(deadline), Ordering::Release);
    }

    /// The exchange is over.
    pub fn exchange_ended(&self) {
        if self.phase() != Phase::Multiplexed {
            self.site_deadline_ms.store(0, Ordering::Release);
            self.set(Phase::Idle);
        }
    }

    /// Whether the guard ended it, and because of whom.
    pub fn cut(&self) -> Cut {
        match self.cut.load(Ordering::Acquire) {
            1 => Cut::SlowPeer,
            2 => Cut::SlowSite,
            3 => Cut::Misframed,
            _ => Cut::No,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            1 => Phase::Head,
            2 => Phase::Body,
            3 => Phase::Answer,
            4 => Phase::Multiplexed,
            _ => Phase::Idle,
        }
    }

    pub(super) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn site_deadline(&self) -> Option<Instant> {
        let ms = self.site_deadline_ms.load(Ordering::Acquire);
        (ms > 0).then(|| self.opened + Duration::from_millis(ms))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
