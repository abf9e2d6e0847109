//! How many TLS handshakes are under way, in total and from each address, and whose turn it is to
//! compute.
//!
//! A handshake costs as much as ten requests, and whoever asks for one pays nothing. So one that is
//! too many waits, and holds nothing but its connection meanwhile; and of those whose hello has come,
//! only so many are worked on at once that one worker stays free for everything else.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::ready;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::yield_now;

use crate::policy::limit::{ConnectionLimits, address_group};

/// Handshakes under way on all listeners.
#[derive(Debug)]
pub struct Handshakes {
    all: Semaphore,
    each_max: usize,
    by_address: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    turns: Semaphore,
}

impl Handshakes {
    /// None under way. `workers` is how many threads serve connections.
    pub fn new(limits: &ConnectionLimits, workers: usize) -> Self {
        Self {
            all: Semaphore::new(limits.handshakes_max()),
            each_max: limits.handshakes_per_address_max(),
            by_address: Mutex::default(),
            turns: Semaphore::new(workers.saturating_sub(1).max(1)),
        }
    }

    /// Waits until one more may be under way from an address.
    pub(crate) async fn begin(&self, address: IpAddr) -> UnderWay<'_> {
        let address = address_group(address);
        let of_address = {
            let mut by_address = self.by_address();
            let free = || Arc::new(Semaphore::new(self.each_max));
            Arc::clone(by_address.entry(address).or_insert_with(free))
        };
        // Before anything is waited for, so that whoever stops waiting is counted off, too.
        let mut under_way = UnderWay {
            handshakes: self,
            address,
            permits: None,
        };
        let here = of_address.acquire_owned().await.expect(NEVER_CLOSED);
        let everywhere = self.all.acquire().await.expect(NEVER_CLOSED);
        under_way.permits = Some((here, everywhere));
        under_way
    }

    /// Does something that computes whenever it goes on: each time it waits for its turn.
    pub(crate) async fn in_turns<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut waiting = None;
        poll_fn(|cx| {
            let turn = waiting.get_or_insert_with(|| Box::pin(self.turn()));
            let turn = ready!(turn.as_mut().poll(cx));
            waiting = None;
            let polled = work.as_mut().poll(cx);
            drop(turn);
            polled
        })
        .await
    }

    /// Waits for a turn to compute, which is given to one after the other in the order they came.
    async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.turns.acquire().await.expect(NEVER_CLOSED);
        // Whoever waits is woken ahead of everybody else; behind them is where it belongs.
        yield_now().await;
        turn
    }

    fn by_address(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

const NEVER_CLOSED: &str = "no semaphore of these is ever closed";

/// A handshake that waits or is under way; its place is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'h> {
    handshakes: &'h Handshakes,
    address: IpAddr,
    permits: Option<(OwnedSemaphorePermit, SemaphorePermit<'h>)>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.permits = None;
        let mut by_address = self.handshakes.by_address();
        // Nobody else waits there, or is under way.
        if by_address
            .get(&self.address)
            .is_some_and(|semaphore| Arc::strong_count(semaphore) == 1)
        {
            by_address.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn handshakes(connections_max: usize) -> Handshakes {
        let limits = ConnectionLimits {
            connections_max,
            ..ConnectionLimits::default()
        };
        Handshakes::new(&limits, 2)
    }

    async fn is_pending<F: Future + Unpin>(mut future: F) -> bool {
        poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut future).poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn an_address_waits_for_its_own() {
        // 40 in all, 2 from one address.
        let handshakes = handshakes(400);
        let address = |text: &str| text.parse().unwrap();
        let first = handshakes.begin(address("192.0.2.1")).await;
        let _second = handshakes.begin(address("::ffff:192.0.2.1")).await;
        let mut third = pin!(handshakes.begin(address("192.0.2.1")));
        assert!(is_pending(third.as_mut()).await, "it waits");
        let _other = handshakes.begin(address("192.0.2.2")).await;
        drop(first);
        third.await;
    }

    #[tokio::test]
    async fn all_wait_for_all() {
        // 2 in all, 1 from one address.
        let handshakes = handshakes(20);
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let first = handshakes.begin(address(1)).await;
        let _second = handshakes.begin(address(2)).await;
        {
            let mut third = pin!(handshakes.begin(address(3)));
            assert!(is_pending(third.as_mut()).await, "the total is limited");
            drop(first);
            third.await;
        }
        assert_eq!(
            handshakes.by_address().len(),
            1,
            "nothing is left of those that went"
        );
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let handshakes = handshakes(20);
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = handshakes.begin(address).await;
        {
            let mut second = pin!(handshakes.begin(address));
            assert!(is_pending(second.as_mut()).await);
        }
        drop(first);
        assert!(handshakes.by_address().is_empty());
        handshakes.begin(address).await;
    }

    #[tokio::test]
    async fn one_worker_stays_free() {
        let handshakes = handshakes(400);
        let first = handshakes.turn().await;
        let mut second = pin!(handshakes.turn());
        assert!(is_pending(second.as_mut()).await);
        assert!(is_pending(second.as_mut()).await, "also after its yield");
        drop(first);
        drop(second.await);
    }

    #[tokio::test]
    async fn work_goes_on_in_its_turn_only() {
        let handshakes = handshakes(400);
        let polls = std::cell::Cell::new(0);
        let work = poll_fn(|_| {
            polls.set(polls.get() + 1);
            match polls.get() {
                1 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        });
        let mut work = pin!(handshakes.in_turns(work));
        // Once until it has its turn, and once after it has let others go first.
        for _ in 0..2 {
            assert!(is_pending(work.as_mut()).await);
        }
        assert_eq!(polls.get(), 1);
        let turn = handshakes.turn().await;
        for _ in 0..3 {
            assert!(is_pending(work.as_mut()).await);
        }
        assert_eq!(polls.get(), 1, "another one's turn");
        drop(turn);
        work.await;
        assert_eq!(polls.get(), 2);
    }
}
