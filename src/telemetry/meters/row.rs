//! Eight counters that many threads add to: each in several copies, on a cache line of a thread's own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many copies there are. Where more threads work, some share one, which costs time and no count.
const COPIES: usize = 8;

/// Counters that belong together. Adding is one atomic addition on a line that other threads seldom
/// touch; reading adds the copies up.
#[derive(Debug, Default)]
pub(super) struct Row([Line; COPIES]);

/// A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; Row::LENGTH]);

impl Row {
    /// How many counters there are.
    pub(super) const LENGTH: usize = 8;

    /// Adds to the counter at `index`, which is less than [`Self::LENGTH`].
    pub(super) fn add(&self, index: usize, amount: u64) {
        self.0[copy()].0[index].fetch_add(amount, Ordering::Relaxed);
    }

    /// What was added to the counter at `index`.
    pub(super) fn sum(&self, index: usize) -> u64 {
        let copies = self.0.iter();
        copies.fold(0, |sum, line| {
            sum.wrapping_add(line.0[index].load(Ordering::Relaxed))
        })
    }
}

/// Which copy this thread adds to: threads take turns when they first ask.
fn copy() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static COPY: usize = THREADS.fetch_add(1, Ordering::Relaxed) % COPIES;
    }
    // A thread that is ending has none any more.
    COPY.try_with(|copy| *copy).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let row = Row::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * COPIES {
                scope.spawn(|| {
                    for round in 0..1000 {
                        row.add(round % Row::LENGTH, 2);
                    }
                });
            }
        });
        for index in 0..Row::LENGTH {
            let expected = 2 * 1000 / Row::LENGTH as u64 * 2 * COPIES as u64;
            assert_eq!(row.sum(index), expected, "{index}");
        }
    }
}
