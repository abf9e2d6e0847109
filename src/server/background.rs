//! What goes on beside the traffic, for the generation in force: sites are resolved and probed, keys of
//! issuers kept fresh.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};

use crate::gateway::Gateway;
use crate::watch::generation::{Generation, Watched};
use crate::watch::names;

/// The tasks of all sites and issuers; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Background {
    gateway: Arc<Gateway>,
    tasks: JoinSet<()>,
    running: HashMap<Of, AbortHandle>,
}

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    Site(u64),
    Issuer(u64),
}

impl Background {
    /// Nothing goes on yet.
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    /// Begins with what is new in a generation, and ends what is not in it any more. What stays goes on
    /// undisturbed.
    pub(super) fn follow(&mut self, generation: &Generation) {
        let mut before = std::mem::take(&mut self.running);
        for (_, watched) in generation.sites() {
            let of = Of::Site(watched.id);
            let task = before.remove(&of).unwrap_or_else(|| {
                let looking = look_after(Arc::clone(&self.gateway), Arc::clone(watched));
                self.tasks.spawn(looking)
            });
            self.running.insert(of, task);
        }
        for (id, keeper) in generation.tokens.keepers() {
            let of = Of::Issuer(id);
            let task = before.remove(&of);
            let task = task.unwrap_or_else(|| self.tasks.spawn(keeper));
            self.running.insert(of, task);
        }
        for task in before.into_values() {
            task.abort();
        }
        // Those that have ended since the last time.
        while self.tasks.try_join_next().is_some() {}
    }
}

/// Resolves and probes one site; never returns.
async fn look_after(gateway: Arc<Gateway>, watched: Arc<Watched>) {
    let resolving = async {
        loop {
            names::resolve_again(slice::from_ref(&watched.addresses)).await;
        }
    };
    tokio::join!(gateway.keep_probing(&watched), resolving);
}
