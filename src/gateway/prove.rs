//! Finds out what deciding needs to know of a request beside its head.

use super::Gateway;
use super::exchange::Exchange;
use crate::policy::Refusal;
use crate::policy::proof::{Need, Proof};

impl Gateway {
    /// Finds out what is needed, and adds it to what is proved.
    ///
    /// # Errors
    /// Why that cannot be found out.
    #[expect(clippy::unused_async, reason = "what it is made for takes time")]
    pub(super) async fn prove(
        &self,
        need: Need,
        _proof: &mut Proof,
        _exchange: &Exchange<'_>,
    ) -> Result<(), Refusal> {
        match need {
            // Read where the caller's connection is at hand.
            Need::Body { .. } | Need::Password { .. } | Need::Token { .. } => {
                Err(Refusal::Internal)
            }
        }
    }
}
