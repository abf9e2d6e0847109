//! Finds out what deciding needs to know of a request beside its head.

use std::time::Duration;

use super::Gateway;
use super::exchange::Exchange;
use crate::policy::Refusal;
use crate::policy::proof::{Need, Proof};
use crate::watch::passwords::Guess;

impl Gateway {
    /// Finds out what is needed, and adds it to what is proved.
    ///
    /// # Errors
    /// Why that cannot be found out, and when to try again.
    pub(super) async fn prove(
        &self,
        need: Need,
        proof: &mut Proof,
        exchange: &Exchange<'_>,
    ) -> Result<(), (Refusal, Option<Duration>)> {
        match need {
            // A body is read where the caller's connection is at hand.
            Need::Body { .. } => return Err((Refusal::Internal, None)),
            Need::Token { issuers, token } => {
                let tokens = &exchange.generation.tokens;
                proof.token = Some(tokens.verify(&issuers, &token).await);
            }
            Need::Password {
                user_name,
                hashes,
                password,
                is_known,
            } => {
                let guess = Guess {
                    user_name,
                    hashes,
                    password,
                    is_known,
                };
                let passwords = &exchange.generation.passwords;
                let is_right = passwords.is_right(guess, exchange.client).await;
                let is_right = is_right.map_err(|e| (e.refusal, Some(e.retry_after)))?;
                proof.password_is_right = Some(is_right);
            }
        }
        Ok(())
    }
}
