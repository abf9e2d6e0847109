//! Asks the policy, then the budgets and the breaker: what a request is before anything is sent.

use http::Version;
use pingora::proxy::Session;

use super::Gateway;
use super::exchange::{Exchange, Stage};
use crate::policy::message::{self, Request};
use crate::policy::{Admission, Refusal, Verdict};
use crate::watch::breaker::Trial;

impl Gateway {
    /// Decides, and takes leave for what may pass.
    pub(super) fn decide(&self, session: &Session, exchange: &mut Exchange) -> Verdict {
        let header = session.req_header();
        let is_h1 = matches!(header.version, Version::HTTP_11 | Version::HTTP_10);
        let head = is_h1.then(|| session.to_h1_raw());
        let authority = header.uri.authority().map(http::uri::Authority::as_str);
        let request = Request {
            method: &header.method,
            target: match &head {
                // The engine drops a fragment, and the authority of an absolute-form target.
                Some(head) => message::target_of(head),
                None => header.raw_path(),
            },
            authority: authority.filter(|_| !is_h1),
            headers: &header.headers,
            version: header.version,
            has_body: exchange.has_body,
            head: head.as_deref(),
        };
        let decision = exchange.policy.decide(&request);
        exchange.found = decision.found;
        decision.verdict
    }

    /// The next stage of an admitted request: its caller has budget and its site is up, or not.
    pub(super) fn take_leave(&self, exchange: &Exchange, admission: Admission) -> Stage {
        let budgets = &self.watch.budgets;
        let mut leaves = Vec::new();
        if let Some(caller) = &exchange.found.caller {
            match budgets.of_caller(caller) {
                Ok(leave) => leaves.extend(leave),
                Err(e) => return Stage::Refused(e.refusal, Some(e.retry_after)),
            }
        }
        if let Some(origin) = &exchange.found.sharing.origin {
            match budgets.of_origin(origin.as_bytes()) {
                Ok(leave) => leaves.push(leave),
                Err(e) => return Stage::Refused(e.refusal, Some(e.retry_after)),
            }
        }
        let Some(watched) = self.watch.site(&admission.route.site) else {
            return Stage::Refused(Refusal::SiteUnreachable, None);
        };
        // Asked last: whoever is let through a breaker that is half open is its one probe.
        match Trial::begin(&watched.breaker) {
            Ok(trial) => {
                let admission = Box::new(admission);
                Stage::Admitted {
                    admission,
                    leaves,
                    trial,
                    answering: false,
                }
            }
            Err(pause) => Stage::Refused(Refusal::SiteUnavailable, Some(pause)),
        }
    }
}
