//! The clocks of one exchange: whom it waits for now, and until when.

use std::time::Duration;

use tokio::time::Instant;

use super::relay::{Broken, Terms};
use crate::policy::Refusal;
use crate::upstream::Failure;
use crate::wire::clock::Rate;

/// How long a write may make no progress at all.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// How long a caller that has ended its side may go without a byte of the answer. It may only have
/// said that it has no more to ask (RFC 9112 section 9.6), but most that do are gone for good, and
/// the site should not work for them.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(3);

/// How an exchange stands while nothing moves.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of one party whether it is waited for"
)]
pub(super) struct Standing {
    /// For more of the request's body.
    pub(super) waits_for_body: bool,
    /// And the caller for a word that it may send it.
    pub(super) expects: bool,
    /// For the site to take what it is sent.
    pub(super) waits_for_taking: bool,
    /// The site has all it will get.
    pub(super) has_asked: bool,
    /// The answer's head has come.
    pub(super) is_answering: bool,
    /// But nothing of it goes to the caller before more has come.
    pub(super) is_held: bool,
    /// For the caller to take the answer.
    pub(super) waits_for_reader: bool,
    /// Bytes that came from the caller, that the caller took, and that the site took.
    pub(super) read: u64,
    pub(super) taken: u64,
    pub(super) sent: u64,
}

/// What was last seen to move, and since when what is waited for is waited for.
#[derive(Debug)]
pub(super) struct Clocks {
    begun_at: Instant,
    reading: Rate,
    read: u64,
    writing: Rate,
    taken: u64,
    taken_at: Instant,
    sent: u64,
    sent_at: Instant,
    asked_at: Option<Instant>,
    /// When the site last said something, or could first be expected to.
    heard_at: Instant,
    half_closed_at: Option<Instant>,
}

impl Clocks {
    /// At the beginning of an attempt.
    pub(super) fn new(read: u64, taken: u64, now: Instant) -> Self {
        Self {
            begun_at: now,
            reading: Rate::default(),
            read,
            writing: Rate::default(),
            taken,
            taken_at: now,
            sent: 0,
            sent_at: now,
            asked_at: None,
            heard_at: now,
            half_closed_at: None,
        }
    }

    /// The site has said something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The caller has ended its side.
    pub(super) fn half_closed(&mut self, now: Instant) {
        self.half_closed_at.get_or_insert(now);
    }

    /// When the clock that runs out first runs out, and which one it is.
    ///
    /// # Errors
    /// The verdict of a rate that was too low over a whole window.
    pub(super) fn next(
        &mut self,
        standing: &Standing,
        terms: &Terms,
        now: Instant,
    ) -> Result<(Instant, Clock), Broken> {
        let timeouts = &terms.timeouts;
        let mut first = (now + WRITE_STALL, Clock::Nothing);
        let mut consider = |deadline: Instant, clock: Clock| {
            if deadline < first.0 {
                first = (deadline, clock);
            }
        };

        self.reading.moved(standing.read - self.read, now);
        self.read = standing.read;
        if standing.waits_for_body && standing.expects {
            consider(self.heard_at + timeouts.response, Clock::Site);
        } else if standing.waits_for_body {
            let slow = Broken::Refused(Refusal::RequestTimeout);
            let window = self.reading.wait(&terms.limits, now).ok_or(slow)?;
            consider(window, Clock::Nothing);
        }

        if standing.sent > self.sent || !standing.waits_for_taking {
            (self.sent, self.sent_at) = (standing.sent, now);
        } else {
            consider(self.sent_at + timeouts.between_bytes, Clock::Site);
        }

        if standing.has_asked && (!standing.is_answering || standing.is_held) {
            let asked_at = *self.asked_at.get_or_insert(now);
            // What the upload took is not the site's.
            consider(terms.deadline + (asked_at - self.begun_at), Clock::Site);
            if !standing.is_answering {
                let said_at = self.heard_at.max(asked_at);
                consider(said_at + timeouts.response, Clock::Site);
            }
        }
        if standing.is_answering && !standing.waits_for_reader {
            consider(self.heard_at + timeouts.between_bytes, Clock::Site);
        }

        if standing.taken > self.taken {
            self.writing.moved(standing.taken - self.taken, now);
            (self.taken, self.taken_at) = (standing.taken, now);
            self.half_closed_at = self.half_closed_at.map(|_| now);
        }
        if standing.waits_for_reader {
            let window = self.writing.wait(&terms.limits, now);
            consider(window.ok_or(Broken::SlowReader)?, Clock::Nothing);
            consider(self.taken_at + WRITE_STALL, Clock::Reader);
        } else {
            self.writing.moved(0, now);
            self.taken_at = now;
        }
        if let Some(since) = self.half_closed_at {
            consider(since + HALF_CLOSED_GRACE, Clock::Left);
        }
        Ok(first)
    }
}

/// Whose time has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Nobody's: it is time to look again.
    Nothing,
    /// The site's.
    Site,
    /// That of a caller that takes no byte of its answer.
    Reader,
    /// That of a caller that has ended its side.
    Left,
}

impl Clock {
    /// What that means for the exchange.
    pub(super) fn verdict(self) -> Option<Broken> {
        match self {
            Self::Nothing => None,
            Self::Site => Some(Broken::Site(Failure::Silent)),
            Self::Reader => Some(Broken::SlowReader),
            Self::Left => Some(Broken::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::ConnectionLimits;
    use crate::policy::request::Body;
    use crate::policy::site::Timeouts;

    const SECOND: Duration = Duration::from_secs(1);

    fn terms(start: Instant) -> Terms {
        Terms {
            limits: ConnectionLimits::default(),
            timeouts: Timeouts::default(),
            body: Body::None,
            deadline: start + Timeouts::default().total,
            may_repeat: false,
            keeps: true,
            body_bytes_max: 0,
            withholds: false,
        }
    }

    /// What the clocks say of a standing that began some seconds ago, in seconds from the start.
    fn check(standing: Standing, after: u64, expected: Result<(u64, Clock), Broken>) {
        let start = Instant::now();
        let mut clocks = Clocks::new(0, 0, start);
        // Looked at once when it began.
        assert!(clocks.next(&standing, &terms(start), start).is_ok());
        let now = start + SECOND * u32::try_from(after).unwrap();
        let next = clocks.next(&standing, &terms(start), now);
        let next = next.map(|(deadline, clock)| ((deadline - start).as_secs(), clock));
        assert_eq!(next, expected, "{standing:?} after {after} s");
    }

    #[test]
    fn whoever_is_waited_for_has_its_time() {
        let asked = Standing {
            has_asked: true,
            ..Standing::default()
        };
        check(asked, 0, Ok((60, Clock::Nothing)));
        check(asked, 1, Ok((60, Clock::Site)));
        let body = Standing {
            waits_for_body: true,
            ..Standing::default()
        };
        check(body, 1, Ok((10, Clock::Nothing)));
        check(body, 10, Err(Broken::Refused(Refusal::RequestTimeout)));
        let expects = Standing {
            expects: true,
            ..body
        };
        check(expects, 20, Ok((60, Clock::Site)));
        let taking = Standing {
            waits_for_taking: true,
            ..Standing::default()
        };
        check(taking, 20, Ok((60, Clock::Site)));
        let answering = Standing {
            has_asked: true,
            is_answering: true,
            ..Standing::default()
        };
        check(answering, 20, Ok((60, Clock::Site)));
        let reader = Standing {
            waits_for_reader: true,
            ..answering
        };
        check(reader, 5, Ok((10, Clock::Nothing)));
        check(reader, 10, Err(Broken::SlowReader));
    }

    #[test]
    fn an_error_that_dribbles_has_its_time_in_all() {
        let start = Instant::now();
        let mut clocks = Clocks::new(0, 0, start);
        let held = Standing {
            has_asked: true,
            is_answering: true,
            is_held: true,
            ..Standing::default()
        };
        for second in 0..75 {
            let now = start + SECOND * second;
            clocks.heard(now);
            let (deadline, _) = clocks.next(&held, &terms(start), now).unwrap();
            assert_eq!(deadline, (now + 60 * SECOND).min(start + 75 * SECOND));
        }
        let next = clocks.next(&held, &terms(start), start + 74 * SECOND);
        assert_eq!(next, Ok((start + 75 * SECOND, Clock::Site)));
    }

    #[test]
    fn an_upload_is_not_the_sites_time() {
        let start = Instant::now();
        let mut clocks = Clocks::new(0, 0, start);
        let mut standing = Standing {
            waits_for_taking: true,
            ..Standing::default()
        };
        // Ten minutes, in which the site takes something every half minute.
        for half in 1..=20 {
            standing.sent = half;
            let now = start + 30 * SECOND * u32::try_from(half).unwrap();
            let (deadline, clock) = clocks.next(&standing, &terms(start), now).unwrap();
            assert!(deadline > now, "{clock:?}");
        }
        let now = start + 600 * SECOND;
        let asked = Standing {
            has_asked: true,
            sent: 20,
            ..Standing::default()
        };
        let (deadline, _) = clocks.next(&asked, &terms(start), now).unwrap();
        assert_eq!(
            deadline,
            now + 60 * SECOND,
            "then it has its time to answer"
        );
        // It goes on saying that it is working, but not for ever.
        clocks.heard(now + 59 * SECOND);
        let later = now + 60 * SECOND;
        let next = clocks.next(&asked, &terms(start), later).unwrap();
        assert_eq!(next, (now + 75 * SECOND, Clock::Site));
    }

    #[test]
    fn who_has_ended_its_side_is_waited_for_while_bytes_go_down() {
        let start = Instant::now();
        let mut clocks = Clocks::new(0, 0, start);
        clocks.half_closed(start);
        let mut standing = Standing {
            has_asked: true,
            ..Standing::default()
        };
        let next = clocks.next(&standing, &terms(start), start).unwrap();
        assert_eq!(next, (start + HALF_CLOSED_GRACE, Clock::Left));
        standing.taken = 1;
        let now = start + 2 * SECOND;
        let next = clocks.next(&standing, &terms(start), now).unwrap();
        assert_eq!(next, (now + HALF_CLOSED_GRACE, Clock::Left));
    }
}
