//! Signed tokens and the keys that verify them, read strictly (RFC 7515, 7517, 7519): bytes in, an
//! answer out; no network, no clock.
//!
//! No crate for tokens does this part. `jsonwebtoken`, the one most people use, left *ring*, which the
//! engine's TLS brings, for a second library of cryptography; it reads headers into a fixed structure,
//! so that `crit` and `b64` go unseen; and it hands claims to a reader that takes the last of two
//! members of one name. What is left of such a crate then is one call that verifies a signature, and
//! that one is ring's.

mod json;
mod key;
mod key_set;
mod token;

pub(crate) use self::json::Json;
pub(crate) use self::key_set::KeySet;
pub(crate) use self::token::{Signer, Unverified};

#[cfg(test)]
#[expect(clippy::too_many_lines, reason = "tables are read in one piece")]
mod tests;
