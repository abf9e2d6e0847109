//! Callers of one route that sign: told apart by their headers and secrets, which do not go up.

use crate::config::tree::Fields;
use crate::policy::caller::hmac::Scheme;
use crate::policy::caller::{Callers, Credential};

/// Most callers of a route that sign: each message may have to be judged with the secrets of all.
const SIGNING_MAX: usize = 16;

/// What is said of a secret that everybody knows.
pub(super) const PUBLISHED: &str = "this is the secret that Zendesk signs the tests of every webhook with, which everybody knows; take the one of your own webhook (Zendesk shows it once the webhook is made)";

/// Notes what is wrong with the callers of a route that sign.
pub(super) fn check(fields: &Fields<'_>, callers: &Callers, request_headers: &[Box<str>]) {
    let signing: Vec<(&str, &Scheme)> = callers
        .iter()
        .filter_map(|acting| match &acting.caller.credential {
            Some(Credential::Signature(scheme)) => Some((&*acting.caller.name, scheme)),
            _ => None,
        })
        .collect();
    if signing.len() > SIGNING_MAX {
        fields.problem_at(
            "callers",
            format!("more than {SIGNING_MAX} of them sign their messages, which are judged with the secrets of all; give some of them a route of their own"),
        );
    }
    for (index, (name, scheme)) in signing.iter().enumerate() {
        let twin = signing[..index]
            .iter()
            .find(|(_, other)| scheme.is_shared_with(other));
        if let Some((other, _)) = twin {
            fields.problem_at(
                "callers",
                format!("{other} and {name} have the same signature header and a secret in common, so nobody could tell them apart; give each a secret of its own"),
            );
        }
        if scheme
            .headers()
            .any(|header| request_headers.iter().any(|one| **one == *header))
        {
            fields.problem_at(
                "request_headers",
                format!("the headers that {name} signs with are its credential; they never go up"),
            );
        }
    }
}
