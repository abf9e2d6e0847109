//! Callers that present a token of an identity provider: who issues it, with which keys, and what it must
//! say.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use http::Uri;

use crate::config::compile::sites::authorities;
use crate::config::reference::References;
use crate::config::tree::{At, Fields, Scalar, join};
use crate::config::words::cure;
use crate::jose::KeySet;
use crate::policy::acts_as::ActingCaller;
use crate::policy::caller::Credential;
use crate::policy::caller::jwt::{Algorithm, Issuer, KeySource, TokenRules, Wanted};
use crate::policy::host::is_loopback;

/// The issuers of a file, by name, each with the place it was found first.
#[derive(Debug, Default)]
pub(in crate::config::compile) struct Issuers(BTreeMap<Box<str>, (Arc<Issuer>, String)>);

/// Where discovery documents lie (OpenID Connect Discovery section 4, RFC 8414 section 3).
const WELL_KNOWN: [&str; 2] = [
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
];

/// What the tokens of a caller must say.
pub(super) fn compile(
    at: At<'_>,
    references: &References<'_>,
    issuers: &mut Issuers,
) -> Option<TokenRules> {
    let fields = at.fields(&[
        "issuer",
        "audience",
        "keys",
        "discovery",
        "ca",
        "algorithms",
        "required_claims",
    ])?;
    let name = fields.required(
        "issuer",
        "write what the provider's tokens have as iss, to the letter, such as https://login.example.com/",
        |at| own_text(&at, references),
    );
    if !fields.has("audience") {
        fields.problem("audience is missing; write what the provider's tokens have as aud when they are meant for this gateway (Keycloak puts one in only if the client has an audience mapper)");
    }
    let audiences = fields.optional("audience", |at| {
        Some(at.one_or_each(|at| own_text(&at, references)))
    });
    let ca = fields.optional("ca", |at| authorities(at, references));
    let (source, has_one_purpose) = source(&fields, references)?;
    let algorithms = match fields.has("algorithms") {
        true => fields.each("algorithms", algorithm),
        false => Algorithm::ALL.to_vec(),
    };
    let required_claims = fields.optional("required_claims", required_claims);
    if !fields.has("required_claims") && !has_one_purpose {
        at.warning("every token of this issuer for this audience is this caller, a user's as well; add required_claims with the claim that names the client, such as azp (Entra v2, Auth0, Keycloak), appid (Entra v1), cid (Okta) or client_id (PingOne, Salesforce)");
    }
    let issuer = issuers.one(&at, name?.into(), source, ca)?;
    Some(TokenRules {
        issuer,
        algorithms,
        audiences: audiences?.into_iter().map(Box::from).collect(),
        required_claims: required_claims.unwrap_or_default(),
    })
}

impl Issuers {
    /// The issuer of this name, the one that is known or a new one.
    fn one(
        &mut self,
        at: &At<'_>,
        name: Box<str>,
        keys: KeySource,
        ca: Option<Arc<[Vec<u8>]>>,
    ) -> Option<Arc<Issuer>> {
        let issuer = Issuer {
            name: name.clone(),
            keys,
            ca,
        };
        let Some((known, place)) = self.0.get(&name) else {
            let issuer = Arc::new(issuer);
            let place = at.place().to_owned();
            self.0.insert(name, (Arc::clone(&issuer), place));
            return Some(issuer);
        };
        if **known != issuer {
            at.problem(format!(
                "{place} has other keys for the same issuer; an issuer has one set of keys: write the same keys (and ca) in both"
            ));
            return None;
        }
        Some(Arc::clone(known))
    }
}

/// A text that may differ from one deployment to the next. Where it is not looked up, two of one name are
/// still the same.
fn own_text(at: &At<'_>, references: &References<'_>) -> Option<String> {
    references.plain(at, at.text()?)
}

/// Where the keys come from, and whether they are made for one purpose: then every token they verify is
/// meant.
fn source(fields: &Fields<'_>, references: &References<'_>) -> Option<(KeySource, bool)> {
    match (fields.has("keys"), fields.has("discovery")) {
        (true, true) => {
            fields.problem_at("discovery", "the issuer's keys come from one place; remove this, or keys");
            None
        }
        (false, true) => fields.optional("discovery", |at| {
            let url = url(&at, &own_text(&at, references)?)?;
            Some((KeySource::Discovery(url), false))
        }),
        _ => fields.required(
            "keys",
            "write file:PATH of a JWKS or of certificates in PEM, or the https:// URL of the provider's JWKS; it is never derived from the issuer",
            |at| keys(&at, references),
        ),
    }
}

fn keys(at: &At<'_>, references: &References<'_>) -> Option<(KeySource, bool)> {
    let is_file =
        |at: &At<'_>| at.is_list() || at.text().is_some_and(|text| text.starts_with("file:"));
    if is_file(at) {
        let mut is_pem = true;
        let paths = at.one_or_each(|at| {
            is_pem &= check_file(at, references)?;
            let path = references.path(&at)?;
            Some(path.to_string_lossy().into())
        });
        return (!paths.is_empty()).then_some((KeySource::Files(paths), is_pem));
    }
    let url = url(at, &own_text(at, references)?)?;
    let is_discovery = WELL_KNOWN.iter().any(|path| url.contains(path));
    let source = match is_discovery {
        true => KeySource::Discovery(url),
        false => KeySource::Url(url),
    };
    Some((source, false))
}

/// Whether a file of keys is PEM; a problem, if a token cannot be verified with it.
fn check_file(at: At<'_>, references: &References<'_>) -> Option<bool> {
    if at.text()?.starts_with("http") {
        at.problem("several sources of keys are files; write one URL, which may list several keys");
        return None;
    }
    if !references.follow() {
        references.public_file(at);
        return Some(Path::new(at.text()?).extension() != Some("json".as_ref()));
    }
    let bytes = references.public_file(at)?;
    match KeySet::read(&bytes) {
        Ok(keys) if keys.left_out.private > 0 => {
            at.problem("the file holds a private key or a shared secret beside public keys; leave it out, and replace it if it is in use: only the provider may have it");
            None
        }
        Ok(keys) => {
            if keys.left_out.not_used > 0 {
                at.warning(format!(
                    "{} of the keys in this file cannot verify a token and are left out; what counts is RSA of at least 2048 bits, P-256, P-384 and Ed25519, for signatures",
                    keys.left_out.not_used
                ));
            }
            Some(!bytes.trim_ascii_start().starts_with(b"{"))
        }
        Err(fault) => {
            at.problem(format!("the keys in this file {}", fault.text()));
            None
        }
    }
}

/// A URL that keys can be fetched from.
fn url(at: &At<'_>, text: &str) -> Option<Box<str>> {
    let uri: Option<Uri> = text.parse().ok();
    let authority = uri.as_ref().and_then(|uri| uri.authority());
    let host = authority.map(|authority| authority.host().trim_matches(['[', ']']));
    let is_plain = authority.is_some_and(|authority| !authority.as_str().contains('@'));
    let (Some(uri), Some(host), true, false) = (&uri, host, is_plain, text.contains('#')) else {
        at.problem(
            "this is read from file:PATH, or fetched from an https:// URL with a host and a path",
        );
        return None;
    };
    match uri.scheme_str() {
        Some("https") => Some(text.into()),
        Some("http") if is_loopback(host) => Some(text.into()),
        Some("http") => {
            at.problem("keys that are fetched over http:// can be anybody's; use https://");
            None
        }
        _ => {
            at.problem("this is read from file:PATH, or fetched from an https:// URL with a host and a path");
            None
        }
    }
}

fn algorithm(at: At<'_>) -> Option<Algorithm> {
    let name = at.text()?;
    let found = Algorithm::parse(name);
    if found.is_none() {
        let upper = name.to_ascii_uppercase();
        if upper.starts_with("HS") || upper == "NONE" {
            at.problem("tokens are verified with public keys only: whoever could verify one of this algorithm could make one; choose RS256 or another asymmetric one at the provider");
        } else {
            let known = Algorithm::ALL.into_iter().map(Algorithm::name);
            at.problem(format!(
                "there is no such algorithm; {}",
                cure(name, known, "algorithms")
            ));
        }
    }
    found
}

fn required_claims(at: At<'_>) -> Option<Vec<(Box<str>, Vec<Wanted>)>> {
    let claims = at.map()?.into_iter().map(|(name, node)| {
        let place = join(at.place(), name);
        let at = at.child(node, &place);
        if ["iss", "aud", "exp", "nbf", "iat"].contains(&name) {
            at.problem("this claim is judged already; issuer and audience have keys of their own");
        }
        let wanted = at.one_or_each(|at| {
            Some(match at.scalar()? {
                Scalar::Text(text) => Wanted::Text(text.into()),
                Scalar::Number(number) => Wanted::Integer(number),
                Scalar::Flag(flag) => Wanted::Flag(flag),
            })
        });
        (name.into(), wanted)
    });
    Some(claims.collect())
}

/// Two callers of a route whom one token could name are a problem: it would be refused.
pub(in crate::config::compile) fn check_apart(fields: &Fields<'_>, callers: &[ActingCaller]) {
    let mut by_issuer: HashMap<&str, Vec<(&str, &TokenRules)>> = HashMap::new();
    for acting in callers {
        let Some(Credential::Jwt(rules)) = &acting.caller.credential else {
            continue;
        };
        let others = by_issuer.entry(&rules.issuer.name).or_default();
        if let Some((other, _)) = others.iter().find(|(_, other)| may_share(rules, other)) {
            fields.problem_at(
                "callers",
                format!(
                    "a token could be {other}'s and {}'s: they have an issuer and an audience in common; give both a required claim with another value in each",
                    acting.caller.name
                ),
            );
        }
        others.push((&acting.caller.name, rules));
    }
}

/// Whether a token may fit both.
fn may_share(one: &TokenRules, other: &TokenRules) -> bool {
    let audience = |audience| other.audiences.contains(audience);
    let tells_apart = |(name, wanted): &(Box<str>, Vec<Wanted>)| {
        let theirs = other
            .required_claims
            .iter()
            .find(|(theirs, _)| theirs == name);
        theirs.is_some_and(|(_, theirs)| !wanted.iter().any(|value| theirs.contains(value)))
    };
    one.audiences.iter().any(audience) && !one.required_claims.iter().any(tells_apart)
}
