//! How much work a peer may make of few bytes: many small pieces are taken together, a little later.
//!
//! A read, a chunk or a frame costs the same whether it brings one byte or a thousand. So a connection
//! has a budget of small pieces; past it, reading rests for some milliseconds, while what comes gathers
//! in the system's buffer and then costs one read. Large pieces cost nothing here, and neither do the
//! few that every message may come in.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Alarm;

/// What a piece costs that brings no byte; each byte it brings is one less.
pub(crate) const PIECE: u64 = 1024;

/// Small pieces a second, and how many may come at once.
const PIECES_PER_SECOND: u64 = 2000;
const PIECES_AT_ONCE: u64 = 2000;

/// Small pieces that a message may come in for nothing.
const PIECES_PER_MESSAGE: u64 = 4;

/// How long a rest is at least, so that something gathers.
const REST: Duration = Duration::from_millis(10);

const PER_SECOND: u64 = PIECES_PER_SECOND * PIECE;
const AT_ONCE: u64 = PIECES_AT_ONCE * PIECE;

/// The budget of one connection. The clock is looked at only when it is used up.
#[derive(Debug)]
pub(crate) struct Pace {
    spent: u64,
    /// Until when what was spent has been made good.
    since: Instant,
    alarm: Alarm,
}

impl Pace {
    /// A budget that is full.
    pub(crate) fn new() -> Self {
        Self {
            spent: 0,
            since: Instant::now(),
            alarm: Alarm::default(),
        }
    }

    /// A read that brought this many bytes.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.charge(PIECE.saturating_sub(bytes as u64));
    }

    /// A part of a body that came in this many bytes more than it has. A chunk costs much less than a
    /// read.
    pub(crate) fn decoded(&mut self, payload: usize, overhead: usize) {
        const PER_BYTE: u64 = PIECE / 40;
        self.charge((overhead as u64 * PER_BYTE).saturating_sub(payload as u64));
    }

    /// Something that costs as much.
    pub(crate) fn charge(&mut self, cost: u64) {
        self.spent += cost;
    }

    /// A message has begun.
    pub(crate) fn message(&mut self) {
        self.spent = self.spent.saturating_sub(PIECES_PER_MESSAGE * PIECE);
    }

    /// Ready when more may be read.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.spent > AT_ONCE {
            let now = Instant::now();
            let made_good = units(now - self.since).min(self.spent);
            self.spent -= made_good;
            self.since = if self.spent == 0 {
                now
            } else {
                self.since + duration(made_good)
            };
            if self.spent > AT_ONCE {
                let rest = duration(self.spent - AT_ONCE).max(REST);
                ready!(self.alarm.poll(now + rest, cx));
            }
        }
        Poll::Ready(())
    }
}

fn units(time: Duration) -> u64 {
    let units = time.as_nanos() * u128::from(PER_SECOND) / 1_000_000_000;
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// Rounded up, so that what is made good of a rest is never more than the rest.
fn duration(units: u64) -> Duration {
    let nanos = u128::from(units) * 1_000_000_000;
    let nanos = nanos.div_ceil(u128::from(PER_SECOND));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// How long so many pieces take, each of so many bytes, `per_message` of them a message.
    async fn check(
        pieces: u64,
        bytes: usize,
        per_message: u64,
        expected_ms: std::ops::Range<u128>,
    ) {
        let mut pace = Pace::new();
        let start = Instant::now();
        for piece in 0..pieces {
            if piece % per_message == 0 {
                pace.message();
            }
            poll_fn(|cx| pace.poll_ready(cx)).await;
            pace.read(bytes);
        }
        let took = start.elapsed().as_millis();
        assert!(
            expected_ms.contains(&took),
            "{pieces} of {bytes}: {took} ms"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn small_pieces_take_their_time() {
        check(2000, 1, u64::MAX, 0..1).await;
        check(12_000, 1, u64::MAX, 4_980..5_030).await;
        check(12_000, 512, u64::MAX, 1_980..2_030).await;
        check(1_000_000, 1024, u64::MAX, 0..1).await;
        check(100_000, 1, PIECES_PER_MESSAGE, 0..1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_long_ago_is_made_good() {
        let mut pace = Pace::new();
        for _ in 0..5 {
            for _ in 0..2000 {
                pace.read(1);
            }
            let start = Instant::now();
            poll_fn(|cx| pace.poll_ready(cx)).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            tokio::time::advance(Duration::from_secs(3)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_cost_less_than_reads() {
        let mut pace = Pace::new();
        let start = Instant::now();
        for _ in 0..100_000 {
            pace.decoded(1, 5);
            poll_fn(|cx| pace.poll_ready(cx)).await;
        }
        let took = start.elapsed().as_millis();
        assert!((4_000..6_000).contains(&took), "{took}");
        let mut pace = Pace::new();
        let start = Instant::now();
        for _ in 0..100_000 {
            pace.decoded(200, 6);
            poll_fn(|cx| pace.poll_ready(cx)).await;
        }
        assert_eq!(
            start.elapsed(),
            Duration::ZERO,
            "ordinary ones cost nothing"
        );
    }
}
