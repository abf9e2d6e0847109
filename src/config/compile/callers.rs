//! Callers: what they present, whom they act as, what they may use.

mod hmac;
mod jwt;

use std::collections::HashMap;
use std::sync::Arc;

use self::jwt::Issuers;
pub(super) use self::jwt::check_apart;
use super::settings::{not_yet, request_limits};
use super::{NAME_CURE, is_name};
use crate::config::reference::References;
use crate::config::tree::{At, Fields, Spot, join};
use crate::policy::caller::{Caller, Credential, KeyDigest};
use crate::policy::limit::RequestLimits;

/// A caller as far as it could be compiled.
pub(super) struct NamedCaller {
    pub(super) name: Arc<str>,
    pub(super) spot: Spot,
    pub(super) keys_spot: Spot,
    /// Whether it signs with a secret that everybody knows.
    pub(super) has_published_secret: bool,
    pub(super) caller: Option<Arc<Caller>>,
    /// As the file writes it; the route's site decides how it is spelt.
    pub(super) acts_as: Option<String>,
    pub(super) limits: RequestLimits,
}

pub(super) fn compile(file: &Fields<'_>, references: &References<'_>) -> Vec<NamedCaller> {
    let mut issuers = Issuers::default();
    let read = |at: At<'_>| {
        let callers = at.map()?.into_iter().map(|(name, node)| {
            let place = join(at.place(), name);
            caller(at.child(node, &place), name, references, &mut issuers)
        });
        Some(callers.collect::<Vec<_>>())
    };
    let callers = file.optional("callers", read).unwrap_or_default();
    check_keys(file, &callers);
    callers
}

fn caller(
    at: At<'_>,
    name: &str,
    references: &References<'_>,
    issuers: &mut Issuers,
) -> NamedCaller {
    let mut named = NamedCaller {
        name: name.into(),
        spot: at.spot(),
        keys_spot: at.spot(),
        has_published_secret: false,
        caller: None,
        acts_as: None,
        limits: RequestLimits::CALLER,
    };
    if !is_name(name) {
        at.problem(NAME_CURE);
    }
    let later = ["basic", "client_certificate", "allowed_addresses"];
    let known = [&["api_key", "jwt", "hmac", "acts_as", "limits"][..], &later].concat();
    let Some(fields) = at.fields(&known) else {
        return named;
    };
    for key in later {
        not_yet(&fields, key);
    }
    let credential = credential(&fields, &mut named, references, issuers);
    named.acts_as = fields.required(
        "acts_as",
        "name the MindTouch user, such as \"=crm-bot\" or \"123\"",
        |at| acts_as(at, references),
    );
    if let Some(limits) = fields.optional("limits", |at| request_limits(at, RequestLimits::CALLER))
    {
        named.limits = limits;
    }
    named.caller = credential.map(|credential| {
        Arc::new(Caller {
            name: name.into(),
            credential: Some(credential),
            certificate: None,
            allowed_addresses: None,
        })
    });
    named
}

/// What a caller presents in its messages.
fn credential(
    fields: &Fields<'_>,
    named: &mut NamedCaller,
    references: &References<'_>,
    issuers: &mut Issuers,
) -> Option<Credential> {
    let scheme = fields.optional("hmac", |at| {
        named.keys_spot = at.spot();
        let compiled = hmac::compile(at, references)?;
        named.has_published_secret = compiled.is_published;
        Some(Credential::Signature(compiled.scheme))
    });
    if fields.has("api_key") && fields.has("hmac") {
        fields.problem_at("hmac", hmac::NOT_ALONE);
    }
    let keys = fields.optional("api_key", |at| {
        named.keys_spot = at.spot();
        api_key(at, references)
    });
    let others = ["jwt", "hmac", "basic", "client_certificate"];
    if !fields.has("api_key") && !others.iter().any(|key| fields.has(key)) {
        let name = &*named.name;
        fields.problem(format!(
            "api_key is missing; run countersign key new {} and paste what it prints",
            if is_name(name) { name } else { "NAME" }
        ));
    }
    let token = fields.optional("jwt", |at| jwt::compile(at, references, issuers));
    if fields.has("api_key") && fields.has("jwt") {
        fields.problem_at(
            "jwt",
            "a caller presents one credential; remove this, or api_key",
        );
    }
    let credential = keys.map(Credential::ApiKeys).or(scheme);
    credential.or(token.map(Credential::Jwt))
}

fn api_key(at: At<'_>, references: &References<'_>) -> Option<Vec<KeyDigest>> {
    let fields = at.fields(&["sha256"])?;
    fields.required(
        "sha256",
        "run countersign key new NAME and paste the digest it prints",
        |at| {
            if at.is_list() {
                let list = at.list()?;
                let digests: Vec<_> = list
                    .iter()
                    .enumerate()
                    .filter_map(|(index, node)| {
                        let place = format!("{}[{index}]", at.place());
                        digest(at.child(node, &place), references)
                    })
                    .collect();
                (digests.len() == list.len()).then_some(digests)
            } else {
                digest(at, references).map(|digest| vec![digest])
            }
        },
    )
}

fn digest(at: At<'_>, references: &References<'_>) -> Option<KeyDigest> {
    // Where references are not looked up, two of one name still hold the same digest.
    let stand_in = KeyDigest::of(at.text()?.as_bytes()).to_hex();
    let digest = KeyDigest::from_hex(&references.plain(&at, &stand_in)?);
    if digest.is_none() {
        at.problem("a digest is 64 hexadecimal digits in quotes; run countersign key new NAME, and never write the key itself here");
    }
    digest
}

fn acts_as(at: At<'_>, references: &References<'_>) -> Option<String> {
    if at.is_map() {
        at.problem("a user from a claim or a header is not supported yet in this version; name a fixed user, such as \"=crm-bot\"");
        return None;
    }
    if at.is_number() {
        at.problem("write the user id in quotes, such as \"123\"");
        return None;
    }
    references.plain(&at, "1")
}

/// A key that two callers share would make one of them the other.
fn check_keys(file: &Fields<'_>, callers: &[NamedCaller]) {
    let mut seen: HashMap<KeyDigest, &str> = HashMap::new();
    for named in callers {
        for digest in named.caller.iter().flat_map(|caller| caller.api_keys()) {
            match seen.get(digest) {
                Some(other) => file.problem_on(
                    &named.keys_spot,
                    format!(
                        "this digest stands at {} already; each caller has keys of its own",
                        join("callers", other)
                    ),
                ),
                None => {
                    seen.insert(*digest, &named.name);
                }
            }
        }
    }
}
