//! The clocks of one connection: one deadline, re-armed lazily, and rates over windows of waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::policy::limit::ConnectionLimits;
use crate::signing::Epoch;

/// The wall clock, which is read here and nowhere else on the way of a request.
pub(crate) fn now() -> Epoch {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Epoch::from_unix(since.map_or(0, |time| time.as_secs()))
}

/// The wall clock as a `Date` header has it (RFC 9110 section 5.6.7).
pub(crate) fn date() -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now().as_unix()))
}

/// The second that a `Date` header names, in any of its three forms.
pub(crate) fn read_date(value: &[u8]) -> Option<Epoch> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    Some(Epoch::from_unix(since.as_secs()))
}

/// The one timer of a connection. It is armed for the earliest moment anything asked for, and armed
/// anew only when it fires too early or when something earlier is asked for: deadlines move with
/// every message, the timer hardly ever does.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `deadline` has passed.
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// Measures how fast bytes come while we wait for them, so that neither a burst at first nor
/// another's slowness counts for or against a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Rate {
    /// Bytes moved, or nothing is wanted any more.
    pub(crate) fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// Nothing moves: when to look again; `None` if the window is over and was too slow.
    pub(crate) fn wait(&mut self, limits: &ConnectionLimits, now: Instant) -> Option<Instant> {
        let since = *self.waiting_since.get_or_insert(now);
        let waited = self.waited + now.saturating_duration_since(since);
        if waited < limits.body_grace {
            return Some(since + (limits.body_grace - self.waited));
        }
        let wanted =
            u128::from(limits.body_bytes_per_second_min) * limits.body_grace.as_millis() / 1000;
        if u128::from(self.bytes) < wanted {
            return None;
        }
        *self = Self {
            waiting_since: Some(now),
            ..Self::default()
        };
        Some(now + limits.body_grace)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn dates() {
        let check = |value: &str, expected| {
            let read = read_date(value.as_bytes()).map(Epoch::as_unix);
            assert_eq!(read, expected, "{value}");
        };
        check("Mon, 05 Oct 2015 18:44:27 GMT", Some(1_444_070_667));
        check("Monday, 05-Oct-15 18:44:27 GMT", Some(1_444_070_667));
        check("Mon Oct  5 18:44:27 2015", Some(1_444_070_667));
        check("2015-10-05T18:44:27Z", None);
        check("", None);
        assert_eq!(read_date(date().as_bytes()).map(|_| ()), Some(()));
    }

    #[test]
    fn a_window_of_waiting() {
        let limits = ConnectionLimits::default();
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.wait(&limits, start), Some(start + limits.body_grace));
        let late = start + limits.body_grace;
        assert_eq!(
            rate.wait(&limits, late),
            None,
            "nothing in ten seconds of waiting"
        );

        let mut rate = Rate::default();
        rate.wait(&limits, start);
        rate.moved(10 * 1024, start + Duration::from_secs(9));
        assert!(
            rate.wait(&limits, start + Duration::from_secs(60))
                .is_some(),
            "another's time does not count"
        );
        let mut rate = Rate::default();
        rate.moved(1 << 20, start);
        rate.wait(&limits, start);
        assert!(rate.wait(&limits, late).is_some(), "fast enough so far");
        assert_eq!(
            rate.wait(&limits, late + limits.body_grace),
            None,
            "a burst at first is no credit for ever"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_follows_its_deadline() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut alarm = Alarm::default();
        poll_fn(|cx| alarm.poll(start + second * 5, cx)).await;
        assert_eq!(Instant::now() - start, second * 5);
        // Later than armed, then earlier.
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let asked = poll_fn(|cx| Poll::Ready(alarm.poll(start + second, cx)));
        assert!(asked.await.is_pending());
        poll_fn(|cx| alarm.poll(start + second * 3, cx)).await;
        assert_eq!(Instant::now() - start, second * 3);
        let start = Instant::now();
        let asked = poll_fn(|cx| Poll::Ready(alarm.poll(start + second * 9, cx)));
        assert!(asked.await.is_pending());
        poll_fn(|cx| alarm.poll(start + second * 2, cx)).await;
        assert_eq!(Instant::now() - start, second * 2);
    }
}
