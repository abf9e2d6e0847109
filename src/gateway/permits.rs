//! What an exchange may use: the budgets it is taken from, and the site's breaker.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::exchange::{Admitted, Exchange};
use crate::policy::caller::hmac::SignatureFault;
use crate::policy::request::{Body, Request};
use crate::policy::{Admission, Refusal};
use crate::signing::User;
use crate::watch::budget::OfPage;
use crate::watch::replays::Remembered;

impl Gateway {
    /// What a refusal becomes where there were too many: a flood of them costs a stranger's address its
    /// answers, and nobody who holds a credential. Who holds one that is not good here uses up what is
    /// kept for such refusals of that caller, and nothing that the caller needs: it may be a thief.
    pub(super) fn charge(
        &self,
        exchange: &Exchange<'_>,
        request: Option<&Request<'_>>,
        refusal: Refusal,
    ) -> (Refusal, Option<Duration>) {
        let generation = &exchange.generation;
        let budgets = &generation.budgets;
        let knows = |request| generation.policy.knows_caller_of(request);
        let charged = match &exchange.found.caller {
            Some(caller) if refusal.is_of_who_asks() => budgets.charge_refused(caller),
            Some(_) => Ok(()),
            None if request.is_some_and(knows) => Ok(()),
            None => budgets.charge_unidentified(exchange.client, exchange.started()),
        };
        match charged {
            Ok(()) => (refusal, None),
            Err(exhausted) => (exhausted.refusal, Some(exhausted.retry_after)),
        }
    }

    /// What an admitted request may use: its caller has budget and its site is up, or not.
    pub(super) fn take_permits(
        &self,
        exchange: &mut Exchange<'_>,
        admission: Admission,
        body: Body,
    ) -> Result<Admitted, (Refusal, Option<Duration>)> {
        let remembered = self.remember(exchange, &admission)?;
        let (generation, now) = (&exchange.generation, exchange.started());
        let budgets = &generation.budgets;
        let origin = exchange.found.sharing.origin.as_deref();
        let permits = match &exchange.found.caller {
            None => budgets.of_page(
                &OfPage {
                    address: exchange.client,
                    route: &admission.route.name,
                    origin: origin.map(str::as_bytes),
                    is_upload: body != Body::None,
                },
                now,
            ),
            Some(caller) => {
                let found = &exchange.found;
                let chosen = found.user.as_ref().filter(|_| found.chose_user);
                let chosen = chosen.map(User::as_sent);
                let permits = budgets.of_caller(caller, chosen, now);
                permits.and_then(|[caller, user]| {
                    let origin = origin.map(|origin| budgets.of_origin(origin.as_bytes(), now));
                    Ok([caller, user, origin.transpose()?])
                })
            }
        };
        let permits = permits.map_err(|e| (e.refusal, Some(e.retry_after)))?;
        let Some(watched) = generation.site(&admission.route.site) else {
            return Err((Refusal::Internal, None));
        };
        let watched = Arc::clone(watched);
        if let Err(left) = watched.breaker.admit(now) {
            exchange.cause = Some(left.cause);
            return Err((Refusal::SiteUnavailable, Some(left.retry_after)));
        }
        Ok(Admitted {
            admission,
            watched,
            remembered,
            _permits: permits,
        })
    }

    /// Remembers a message that counts once, and refuses one that came before.
    fn remember(
        &self,
        exchange: &mut Exchange<'_>,
        admission: &Admission,
    ) -> Result<Option<Box<Remembered>>, (Refusal, Option<Duration>)> {
        let message = admission
            .signed
            .as_ref()
            .and_then(|signed| signed.once.as_ref());
        let Some(message) = message else {
            return Ok(None);
        };
        let (generation, now) = (&exchange.generation, exchange.started());
        if let Some(remembered) = generation.replays.remember(message, now) {
            return Ok(Some(Box::new(remembered)));
        }
        // Whoever sends again what it saw is a stranger.
        let budgets = &generation.budgets;
        let charged = budgets.charge_unidentified(exchange.client, now);
        charged.map_err(|exhausted| (exhausted.refusal, Some(exhausted.retry_after)))?;
        let fault = SignatureFault::Replayed;
        exchange.found.credential_fault = Some(fault.name());
        Err((fault.refusal(), None))
    }
}
