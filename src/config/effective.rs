//! The policy in force as JSON for people: what is allowed to whom, and never what proves it.
//!
//! Its text is the same for the same policy, whatever made it: lists stand in the order of the file,
//! and names are sorted.

use std::collections::HashMap;
use std::fmt::Debug;

use serde_json::{Map, Value, json};

use super::compile::settings::{Listener, Settings};
use crate::policy::Policy;
use crate::policy::acts_as::{self, ActsAs, Choice, Taken};
use crate::policy::caller::certificate::CertificateRule;
use crate::policy::caller::hmac::rules::{Part, Rules, Source};
use crate::policy::caller::jwt::{KeySource, TokenRules, Wanted};
use crate::policy::caller::{Caller, Credential};
use crate::policy::capability::{Allowance, Rule};
use crate::policy::effective::Effective;
use crate::policy::limit::{CallerLimits, RequestLimits};
use crate::policy::origin::Origins;
use crate::policy::route::{Access, Route};
use crate::policy::site::Site;
use crate::signing::{User, UserEncoding};

impl Settings {
    /// What these settings and this policy come to.
    pub fn effective(&self, policy: &Policy) -> Effective {
        let mut allowances: Vec<(&[Box<str>], Value)> = Vec::new();
        let (mut sites, mut callers) = (Map::new(), Map::new());
        let limits_of = self.caller_limits.iter();
        let limits_of: HashMap<&str, &CallerLimits> =
            limits_of.map(|(name, limits)| (&**name, limits)).collect();
        for route in policy.routes() {
            sites.insert(route.site.name.to_string(), site(&route.site));
            let names = route.allow.capabilities();
            if !allowances.iter().any(|(known, _)| *known == names) {
                allowances.push((names, allowance(&route.allow)));
            }
            if let Access::Server {
                callers: of_route, ..
            } = &route.access
            {
                for acting in of_route.iter() {
                    let name = &*acting.caller.name;
                    if !callers.contains_key(name) {
                        let caller = caller(&acting.caller, limits_of.get(name).copied());
                        callers.insert(name.to_owned(), caller);
                    }
                }
            }
        }
        let allowances = allowances.into_iter().map(|(_, allowance)| allowance);
        let whole = json!({
            "listeners": self.listeners.iter().map(listener).collect::<Value>(),
            "routes": policy.routes().map(|of| route(of)).collect::<Value>(),
            "allowances": allowances.collect::<Value>(),
            "callers": callers,
            "sites": sites,
            "limits": self.limits(),
        });
        Effective::new(whole.to_string())
    }

    fn limits(&self) -> Value {
        let (connections, shared) = (&self.connections, &self.shared_limits);
        json!({
            "connections": connections.connections_max,
            "connections_per_address": connections.per_address_max,
            "header_timeout_ms": millis(connections.header_timeout),
            "idle_timeout_ms": millis(connections.idle_timeout),
            "body_bytes_per_second_min": connections.body_bytes_per_second_min,
            "body_grace_ms": millis(connections.body_grace),
            "drain_timeout_ms": millis(self.drain_timeout),
            "per_address": limits(&shared.per_address),
            "per_route": limits(&shared.per_route),
            "per_origin": limits(&shared.per_origin),
            "unidentified": limits(&shared.unidentified),
        })
    }
}

fn listener(listener: &Listener) -> Value {
    let proxies = &listener.trusted_proxies;
    json!({
        "address": listener.address.to_string(),
        "h2c": listener.h2c,
        "tls": listener.tls.as_ref().map(|tls| json!({
            "certificates": tls.identities.len(),
            "client_ca": tls.client_ca.len(),
            "client_certificate": word(tls.asks),
        })),
        "trusted_proxies": proxies.networks.iter().map(ToString::to_string).collect::<Value>(),
        "forwarded_header": proxies.header.map(word),
        "proxy_protocol": listener.proxy_protocol,
    })
}

fn route(route: &Route) -> Value {
    let (token, callers, pages) = match &route.access {
        Access::Server { callers, origins } => {
            let callers = callers.iter().map(
                |acting| json!({ "name": &*acting.caller.name, "acts_as": whom(&acting.acts_as) }),
            );
            ("server", callers.collect(), patterns(origins))
        }
        Access::Browser => ("browser", Value::Null, Value::Null),
    };
    json!({
        "name": &*route.name,
        "host": route.host.as_ref().map(|host| host.as_str()),
        "mount": route.mount.as_str(),
        "site": &*route.site.name,
        "token": token,
        "callers": callers,
        "origins": pages,
        "allow": route.allow.capabilities(),
        "request_headers": &route.request_headers,
        "answer_headers": &route.answer_headers,
        "body_bytes_max": route.body_bytes_max,
        "report_only": route.report_only,
        "return_sessions": route.return_sessions,
    })
}

fn whom(acts_as: &ActsAs) -> Value {
    match acts_as {
        ActsAs::Fixed(user) => user.as_sent().into(),
        ActsAs::Taken(taken) => taken_from(taken),
    }
}

fn taken_from(taken: &Taken) -> Value {
    let (from, name) = match &taken.source {
        acts_as::Source::Claim(name) => ("claim", name),
        acts_as::Source::Header(name) => ("header", name),
        acts_as::Source::SignedQuery(name) => ("signed_query", name),
    };
    let users: Value = match &taken.choice {
        Choice::Names { allow, deny } => {
            let texts = |globs: &[_]| globs.iter().map(ToString::to_string).collect::<Value>();
            json!({ "allow": texts(allow), "deny": texts(deny) })
        }
        Choice::Table(users) => {
            let users = users.iter();
            let users = users.map(|(value, user)| (value.to_string(), user.as_sent().into()));
            json!({ "table": users.collect::<Map<_, _>>() })
        }
    };
    json!({ "from": from, "name": name, "users": users })
}

/// What the capabilities of a list come to together.
fn allowance(allowance: &Allowance) -> Value {
    let texts = |rules: Vec<Rule>| {
        let text = |rule: &Rule| {
            let method = rule.method.as_ref().map_or("any", |method| method.as_str());
            format!("{method} {}", rule.pattern.text())
        };
        let mut texts: Vec<_> = rules.iter().map(text).collect();
        texts.sort_unstable();
        texts
    };
    json!({
        "allow": allowance.capabilities(),
        "rules": texts(allowance.rules()),
        "exceptions": texts(allowance.exceptions()),
    })
}

fn caller(caller: &Caller, may_use: Option<&CallerLimits>) -> Value {
    let credential = match &caller.credential {
        None => Value::Null,
        Some(Credential::ApiKeys(keys)) => json!({ "kind": "api_key", "keys": keys.len() }),
        Some(Credential::Basic(basic)) => json!({
            "kind": "basic",
            "user": &*basic.user_name,
            "passwords": basic.passwords.len(),
        }),
        Some(Credential::Jwt(rules)) => tokens(rules),
        Some(Credential::Signature(scheme)) => signatures(scheme.rules()),
    };
    let certificate = caller.certificate.as_ref().map(|rule| match rule {
        CertificateRule::DnsName(name) => json!({ "dns_name": name }),
        CertificateRule::Uri(uri) => json!({ "uri": uri }),
        // Not secret, but a digest all the same.
        CertificateRule::Spki(_) => json!("public_key"),
    });
    let networks = caller.allowed_addresses.as_ref();
    json!({
        "credential": credential,
        "client_certificate": certificate,
        "allowed_addresses": networks.map(|all| all.iter().map(ToString::to_string).collect::<Value>()),
        "limits": may_use.map(|may_use| limits(&may_use.all)),
        "limits_per_user": may_use.map(|may_use| limits(&may_use.per_user)),
    })
}

fn tokens(rules: &TokenRules) -> Value {
    let keys = match &rules.issuer.keys {
        KeySource::Files(files) => json!({ "files": files }),
        KeySource::Url(url) => json!({ "url": url }),
        KeySource::Discovery(url) => json!({ "discovery": url }),
    };
    let wanted = |wanted: &Wanted| match wanted {
        Wanted::Text(text) => Value::from(&**text),
        Wanted::Integer(number) => number.to_string().into(),
        Wanted::Flag(flag) => (*flag).into(),
    };
    let claims = rules.required_claims.iter();
    let claims =
        claims.map(|(name, values)| (name.to_string(), values.iter().map(wanted).collect()));
    json!({
        "kind": "jwt",
        "issuer": &*rules.issuer.name,
        "keys": keys,
        "authorities": rules.issuer.ca.as_ref().map(|ca| ca.len()),
        "algorithms": rules.algorithms.iter().map(|one| one.name()).collect::<Value>(),
        "audiences": &rules.audiences,
        "required_claims": claims.collect::<Map<String, Value>>(),
    })
}

fn signatures(rules: &Rules) -> Value {
    let part = |part: &Part| match part {
        Part::Timestamp => json!("timestamp"),
        Part::Id => json!("id"),
        Part::Body => json!("body"),
        Part::Method => json!("method"),
        Part::Url => json!("url"),
        Part::Text(text) => json!({ "text": text }),
    };
    let time = rules.timestamp.as_ref().map(|time| {
        let (kind, name) = match &time.source {
            Source::Header(name) => ("header", name),
            Source::Entry(prefix) => ("prefix", prefix),
        };
        json!({
            kind: name,
            "format": word(time.format),
            "tolerance_ms": millis(time.tolerance),
            "tolerance_ahead_ms": millis(time.tolerance_ahead),
        })
    });
    json!({
        "kind": "hmac",
        "header": &*rules.signature_header,
        "separator": rules.separator.map(word),
        "prefix": &*rules.prefix,
        "encoding": word(rules.encoding),
        "algorithm": word(rules.algorithm),
        "secret_encoding": word(rules.secret_encoding),
        "signed": rules.signed.iter().map(part).collect::<Value>(),
        "timestamp": time,
        "id_header": &rules.id_header,
        "public_url": &*rules.public_url,
        "url_decoding": word(rules.url_decoding),
        "drop_query": &rules.drop_query,
        "body_bytes_max": rules.body_bytes_max,
        "remembered_for_ms": millis(rules.remembered_for),
    })
}

/// A choice as the file writes it: the variant's name in lower case.
fn word(choice: impl Debug) -> String {
    format!("{choice:?}").to_ascii_lowercase()
}

fn site(site: &Site) -> Value {
    let (address, timeouts) = (&site.address, &site.timeouts);
    let scheme = if address.tls { "https" } else { "http" };
    let browser_token = site.browser_token.as_ref();
    json!({
        "url": format!("{scheme}://{}", site.authority),
        "authorities": address.ca.as_ref().map(|ca| ca.len()),
        "dialect": site.signers.first().map(|signer| signer.dialect().name()),
        "user_encoding": match site.user_encoding {
            UserEncoding::Plain => None,
            UserEncoding::Percent => Some("percent"),
            UserEncoding::Raw => Some("raw"),
        },
        "server_tokens": site.signers.len(),
        "browser_token": browser_token.map(|token| json!({ "allowed_hosts": patterns(&token.allowed_hosts) })),
        "probe_user": site.probe_user.as_ref().map(User::as_sent),
        "forward_address": site.forwards_address,
        "retries": site.retries_max,
        "timeouts_ms": {
            "connect": millis(timeouts.connect),
            "tls": millis(timeouts.tls),
            "response": millis(timeouts.response),
            "between_bytes": millis(timeouts.between_bytes),
            "total": millis(timeouts.total),
            "idle": millis(timeouts.idle),
        },
    })
}

fn patterns(origins: &Origins) -> Value {
    origins.iter().map(ToString::to_string).collect()
}

fn limits(limits: &RequestLimits) -> Value {
    json!({
        "requests_per_second": limits.per_second,
        "burst": limits.burst,
        "in_flight": limits.in_flight_max,
    })
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
