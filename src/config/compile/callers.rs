//! Callers: what they present, whom they act as, what they may use.

pub(super) mod acts_as;
mod api_key;
mod basic;
mod certificate;
mod hmac;
mod jwt;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

use self::acts_as::{Proves, Written};
use self::jwt::Issuers;
pub(super) use self::jwt::check_apart;
use super::networks::networks;
use super::settings::{WrittenLimits, caller_limits, is_loopback};
use super::{NAME_CURE, is_name};
use crate::config::problem::Findings;
use crate::config::reference::References;
use crate::config::tree::{At, Fields, Spot, join};
use crate::config::words::may_be_repeated;
use crate::policy::caller::certificate::CertificateRule;
use crate::policy::caller::{Caller, Credential, KeyDigest};
use crate::policy::limit::{CallerLimits, RequestLimits};

/// A caller as far as it could be compiled.
pub(super) struct NamedCaller {
    pub(super) name: Arc<str>,
    pub(super) spot: Spot,
    /// Where what it presents stands.
    pub(super) credential_spot: Spot,
    /// Whether it signs with a secret that everybody knows.
    pub(super) has_published_secret: bool,
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) acts_as: Option<Written>,
    pub(super) acts_as_spot: Spot,
    pub(super) limits: CallerLimits,
}

/// What a caller may present in its messages: one of these.
const CREDENTIALS: [&str; 4] = ["api_key", "basic", "jwt", "hmac"];

pub(super) fn compile(
    file: &Fields<'_>,
    references: &References<'_>,
    per_user: Option<WrittenLimits>,
) -> Vec<NamedCaller> {
    let mut issuers = Issuers::default();
    let read = |at: At<'_>| {
        let callers = at.map()?.into_iter().map(|(name, node)| {
            let place = join(at.place(), name);
            caller(
                at.child(node, &place),
                name,
                references,
                per_user,
                &mut issuers,
            )
        });
        Some(callers.collect::<Vec<_>>())
    };
    let callers = file.optional("callers", read).unwrap_or_default();
    check_shared(file, &callers);
    check_certificates(file, &callers);
    warn_of_open_listeners(file, references, &callers);
    callers
}

fn caller(
    at: At<'_>,
    name: &str,
    references: &References<'_>,
    per_user: Option<WrittenLimits>,
    issuers: &mut Issuers,
) -> NamedCaller {
    let mut named = NamedCaller {
        name: name.into(),
        spot: at.spot(),
        credential_spot: at.spot(),
        has_published_secret: false,
        caller: None,
        acts_as: None,
        acts_as_spot: at.spot(),
        limits: CallerLimits {
            all: RequestLimits::CALLER,
            per_user: RequestLimits::CALLER.quarter(),
        },
    };
    if !is_name(name) {
        at.problem(NAME_CURE);
    }
    let others = [
        "client_certificate",
        "allowed_addresses",
        "acts_as",
        "limits",
    ];
    let Some(fields) = at.fields(&[&CREDENTIALS[..], &others].concat()) else {
        return named;
    };
    let credential = credential(&fields, &mut named, references, issuers);
    let certificate = fields.optional("client_certificate", |at| {
        if !CREDENTIALS.iter().any(|key| fields.has(key)) {
            named.credential_spot = at.spot();
        }
        certificate::compile(at, references)
    });
    let addresses = networks(&fields, "allowed_addresses", references, |_| Ok(()));
    let proves = Proves {
        claims: fields.has("jwt"),
        query: credential.as_ref().is_some_and(signs_urls),
    };
    named.acts_as = fields.required(
        "acts_as",
        "name the MindTouch user, such as \"=crm-bot\" or \"123\"",
        |at| {
            named.acts_as_spot = at.spot();
            acts_as::compile(at, references, proves)
        },
    );
    named.limits = caller_limits(&fields, per_user);
    let presents_one = CREDENTIALS.iter().any(|key| fields.has(key));
    let is_whole = credential.is_some() == presents_one
        && certificate.is_some() == fields.has("client_certificate")
        && addresses.is_empty() != fields.has("allowed_addresses");
    if is_whole && (credential.is_some() || certificate.is_some()) {
        named.caller = Some(Arc::new(Caller {
            name: name.into(),
            credential,
            certificate,
            allowed_addresses: Some(addresses).filter(|networks| !networks.is_empty()),
        }));
    }
    named
}

/// The one credential of a caller's messages; none, if a certificate is all it presents.
fn credential(
    fields: &Fields<'_>,
    named: &mut NamedCaller,
    references: &References<'_>,
    issuers: &mut Issuers,
) -> Option<Credential> {
    let given: Vec<_> = CREDENTIALS
        .into_iter()
        .filter(|key| fields.has(key))
        .collect();
    if let [first, others @ ..] = &given[..] {
        for other in others {
            fields.problem_at(other, format!("{first} identifies this caller already; make two callers of it, or remove one (client_certificate alone may stand beside another)"));
        }
    } else if !fields.has("client_certificate") {
        let name = if is_name(&named.name) {
            &named.name
        } else {
            "NAME"
        };
        fields.problem(format!("what the caller presents is missing; run countersign key new {name} and paste what it prints, or write basic, jwt, hmac or client_certificate"));
    }
    let keys = fields.optional("api_key", |at| {
        named.credential_spot = at.spot();
        api_key::compile(at, references).map(Credential::ApiKeys)
    });
    let basic = fields.optional("basic", |at| {
        named.credential_spot = at.spot();
        basic::compile(at, &named.name, references).map(Credential::Basic)
    });
    let token = fields.optional("jwt", |at| {
        named.credential_spot = at.spot();
        jwt::compile(at, references, issuers).map(Credential::Jwt)
    });
    let signature = fields.optional("hmac", |at| {
        named.credential_spot = at.spot();
        let compiled = hmac::compile(at, references)?;
        named.has_published_secret = compiled.is_published;
        Some(Credential::Signature(compiled.scheme))
    });
    keys.or(basic).or(token).or(signature)
}

/// Whether what a caller presents proves its URL, and so a query parameter.
fn signs_urls(credential: &Credential) -> bool {
    match credential {
        Credential::Signature(scheme) => scheme.covers_url(),
        Credential::ApiKeys(_) | Credential::Basic(_) | Credential::Jwt(_) => false,
    }
}

/// A key or a user name that two callers share would make one of them the other.
fn check_shared(file: &Fields<'_>, callers: &[NamedCaller]) {
    let mut keys: HashMap<KeyDigest, &str> = HashMap::new();
    let mut user_names: HashMap<&str, &str> = HashMap::new();
    for named in callers {
        let says = |what: &str, other: &str| {
            let place = join("callers", other);
            let text =
                format!("this {what} stands at {place} already; each caller has one of its own");
            file.problem_on(&named.credential_spot, text);
        };
        for digest in named.caller.iter().flat_map(|caller| caller.api_keys()) {
            match keys.entry(*digest) {
                Entry::Occupied(other) => says("digest", other.get()),
                Entry::Vacant(free) => {
                    free.insert(&named.name);
                }
            }
        }
        let credential = named.caller.as_ref().map(|caller| &caller.credential);
        if let Some(Some(Credential::Basic(basic))) = credential {
            match user_names.entry(&basic.user_name) {
                Entry::Occupied(other) => says("user name", other.get()),
                Entry::Vacant(free) => {
                    free.insert(&named.name);
                }
            }
        }
    }
}

/// A certificate is all that one caller presents, or goes with what several present.
fn check_certificates(file: &Fields<'_>, callers: &[NamedCaller]) {
    let mut seen: HashMap<&CertificateRule, (&str, bool)> = HashMap::new();
    let are_asked_for = certificate::are_asked_for(file);
    for named in callers {
        let Some(caller) = &named.caller else {
            continue;
        };
        let Some(rule) = &caller.certificate else {
            continue;
        };
        if !are_asked_for {
            file.warning_on(&named.spot, "no listener asks for client certificates, so this caller is never let in; give one tls with client_ca");
        }
        let is_alone = caller.credential.is_none();
        match seen.entry(rule) {
            Entry::Vacant(free) => {
                free.insert((&named.name, is_alone));
            }
            Entry::Occupied(other) if is_alone || other.get().1 => {
                let place = join("callers", other.get().0);
                file.problem_on(&named.spot, format!("this client_certificate stands at {place} already, and identifies one of them alone; give each a certificate of its own, or both a credential beside it"));
            }
            Entry::Occupied(_) => {}
        }
    }
}

/// A credential that crosses a network in the clear is anybody's who sees it.
fn warn_of_open_listeners(file: &Fields<'_>, references: &References<'_>, callers: &[NamedCaller]) {
    const SHOWN_MAX: usize = 5;
    let quiet = Findings::default();
    let listeners = file.noting_in(&quiet).each("listeners", |at| {
        let keys = at.map()?;
        let value = |name: &str| keys.iter().find(|(key, _)| *key == name);
        let (_, address) = value("address")?;
        let address = references.plain(&at.child(address, at.place()), "127.0.0.1:0")?;
        let address: SocketAddr = address.parse().ok()?;
        Some(value("tls").is_none() && !is_loopback(address))
    });
    if !listeners.contains(&true) {
        return;
    }
    let is_anywhere = |named: &&NamedCaller| {
        let caller = named.caller.as_ref();
        // Who sees a certificate cross does not have its key.
        caller
            .is_some_and(|caller| caller.credential.is_some() && caller.allowed_addresses.is_none())
    };
    let names: Vec<_> = callers
        .iter()
        .filter(is_anywhere)
        .map(|named| &*named.name)
        .collect();
    let shown = names
        .iter()
        .filter(|name| may_be_repeated(name))
        .take(SHOWN_MAX);
    let shown: Vec<_> = shown.copied().collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if !names.is_empty() {
        file.warning_at("callers", format!("a listener is open to the network without TLS, and what is presented there can be used from anywhere: {}{more}; name their allowed_addresses", shown.join(", ")));
    }
}
