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
    pub(super) async fn prove(
        &self,
        need: Need,
        proof: &mut Proof,
        exchange: &Exchange<'_>,
    ) -> Result<(), Refusal> {
        match need {
            // A body is read where the caller's connection is at hand.
            Need::Body { .. } | Need::Password { .. } => Err(Refusal::Internal),
            Need::Token { issuers, token } => {
                let tokens = &exchange.generation.tokens;
                proof.token = Some(tokens.verify(&issuers, &token).await);
                Ok(())
            }
        }
    }
}
