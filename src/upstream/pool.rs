//! Connections to sites that wait to be used again, each by the user it was used for.
//!
//! A site that answers twice, or late, can so confuse a user only with itself. A connection comes
//! here only after an exchange that ended clean on both sides, and leaves no more than silence
//! behind: one that speaks or hangs up while it is idle is closed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::Duplex;
use crate::policy::Identity;
use crate::wire::connection::Connection;

/// Most idle connections, of all sites and users together.
const IDLE_MAX: usize = 1024;

/// Whom a connection may serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// Which site, at which address and vouched for by which authorities.
    pub(crate) site: u64,
    /// As whom.
    pub(crate) identity: Identity,
}

/// Idle connections.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    by_key: HashMap<PoolKey, Vec<Waiting>, RandomState>,
    count: usize,
}

struct Waiting {
    connection: Connection<Box<dyn Duplex>>,
    until: Instant,
}

impl Pool {
    /// The connection that was used last, if one is idle and sound.
    pub(crate) fn take(&self, key: &PoolKey) -> Option<Connection<Box<dyn Duplex>>> {
        let mut idle = self.lock();
        let idle = &mut *idle;
        let waiting = idle.by_key.get_mut(key)?;
        let now = Instant::now();
        let mut found = None;
        while let Some(mut one) = waiting.pop() {
            idle.count -= 1;
            if one.until > now && one.connection.is_silent() {
                found = Some(one.connection);
                break;
            }
        }
        found
    }

    /// Keeps a connection for `time`, if there is room.
    pub(crate) fn give(
        &self,
        key: PoolKey,
        mut connection: Connection<Box<dyn Duplex>>,
        time: Duration,
    ) {
        connection.release();
        let mut idle = self.lock();
        if idle.count < IDLE_MAX {
            idle.count += 1;
            idle.by_key.entry(key).or_default().push(Waiting {
                connection,
                until: Instant::now() + time,
            });
        }
    }

    /// Closes what has waited for too long, has hung up, or has spoken.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.lock();
        let mut count = 0;
        idle.by_key.retain(|_, waiting| {
            waiting.retain_mut(|one| one.until > now && one.connection.is_silent());
            count += waiting.len();
            !waiting.is_empty()
        });
        idle.count = count;
    }

    /// How many connections wait.
    pub(crate) fn idle(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        // A connection that panics while it is looked at is gone; the rest is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::signing::{User, UserEncoding};

    fn key(site: u64, user: &str) -> PoolKey {
        PoolKey {
            site,
            identity: Identity::User(User::parse(user, UserEncoding::Plain).unwrap()),
        }
    }

    fn connection() -> (Connection<Box<dyn Duplex>>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        (Connection::new(Box::new(ours) as Box<dyn Duplex>), theirs)
    }

    const LONG: Duration = Duration::from_secs(50);

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_anothers_connection() {
        let pool = Pool::default();
        let (one, _peer) = connection();
        pool.give(key(1, "=a"), one, LONG);
        assert!(pool.take(&key(1, "=b")).is_none(), "another user");
        assert!(pool.take(&key(2, "=a")).is_none(), "another site");
        let page = PoolKey {
            site: 1,
            identity: Identity::Page,
        };
        assert!(pool.take(&page).is_none(), "a page");
        assert!(pool.take(&key(1, "=a")).is_some());
        assert!(pool.take(&key(1, "=a")).is_none(), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_speaks_hangs_up_or_waits_too_long_is_closed() {
        let pool = Pool::default();
        let (spoken, mut peer) = connection();
        pool.give(key(1, "=a"), spoken, LONG);
        peer.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        assert!(pool.take(&key(1, "=a")).is_none());
        let (closed, peer) = connection();
        pool.give(key(1, "=a"), closed, LONG);
        drop(peer);
        assert!(pool.take(&key(1, "=a")).is_none());
        let (old, _peer) = connection();
        pool.give(key(1, "=a"), old, LONG);
        tokio::time::advance(LONG).await;
        pool.sweep();
        assert_eq!(pool.lock().count, 0);
        assert!(pool.lock().by_key.is_empty(), "and users are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many() {
        let pool = Pool::default();
        let mut peers = Vec::new();
        for _ in 0..IDLE_MAX + 5 {
            let (one, peer) = connection();
            pool.give(key(1, "=a"), one, LONG);
            peers.push(peer);
        }
        assert_eq!(pool.lock().count, IDLE_MAX);
    }
}
