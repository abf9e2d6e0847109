//! Something that is worth saying, but not with every request.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was said is not said again.
const PAUSE: Duration = Duration::from_secs(60);

/// Remembers when something was said last. Times are handed in, so that it can be tested without
/// waiting.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<Option<Instant>>);

impl Quiet {
    /// Whether it is time to say it; whoever asks then does.
    pub fn may_speak(&self, now: Instant) -> bool {
        // Nothing can panic while this lock is held.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if may {
            *last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute() {
        let (quiet, now) = (Quiet::default(), Instant::now());
        let after = |seconds| quiet.may_speak(now + Duration::from_secs(seconds));
        assert!(after(0));
        assert!(!after(0) && !after(30) && !after(59));
        assert!(after(60));
        assert!(!after(119));
        assert!(after(500));
    }
}
