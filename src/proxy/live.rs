//! The program's one mutable cell: which policy new requests live under.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::policy::Policy;

/// The policy in force. A request pins it once and lives under it to its end.
#[derive(Debug)]
pub struct LivePolicy(ArcSwap<Policy>);

impl LivePolicy {
    /// A cell with a first policy.
    pub fn new(policy: Policy) -> Self {
        Self(ArcSwap::from_pointee(policy))
    }

    /// The policy in force now.
    pub fn pin(&self) -> Arc<Policy> {
        self.0.load_full()
    }

    /// Puts another policy in force, whole, for requests that begin from now on.
    pub fn publish(&self, policy: Policy) {
        self.0.store(Arc::new(policy));
    }
}
