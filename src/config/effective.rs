//! The policy in force as JSON for people: what is allowed to whom, and never what proves it.
//!
//! Its text is the same for the same policy, whatever made it: lists stand in the order of the file,
//! and names are sorted.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::compile::settings::Settings;
use crate::policy::Policy;
use crate::policy::acts_as::{ActsAs, Choice, Source, Taken};
use crate::policy::caller::certificate::CertificateRule;
use crate::policy::caller::{Caller, Credential};
use crate::policy::capability::{Allowance, Rule};
use crate::policy::effective::Effective;
use crate::policy::limit::RequestLimits;
use crate::policy::origin::Origins;
use crate::policy::route::{Access, Route};
use crate::policy::site::Site;
use crate::signing::UserEncoding;

impl Settings {
    /// What these settings and this policy come to.
    pub fn effective(&self, policy: &Policy) -> Effective {
        let mut allowances: Vec<(&[Box<str>], Value)> = Vec::new();
        let (mut sites, mut callers) = (Map::new(), Map::new());
        let limits_of = self.caller_limits.iter();
        let limits_of: HashMap<&str, &RequestLimits> =
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

fn route(route: &Route) -> Value {
    let (token, callers, pages) = match &route.access {
        Access::Server { callers, origins } => {
            let callers = callers.iter().map(|acting| {
                json!({ "name": &*acting.caller.name, "acts_as": acts_as(&acting.acts_as) })
            });
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

fn acts_as(acts_as: &ActsAs) -> Value {
    match acts_as {
        ActsAs::Fixed(user) => user.as_sent().into(),
        ActsAs::Taken(taken) => taken_from(taken),
    }
}

fn taken_from(taken: &Taken) -> Value {
    let (from, name) = match &taken.source {
        Source::Claim(name) => ("claim", name),
        Source::Header(name) => ("header", name),
        Source::SignedQuery(name) => ("signed_query", name),
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

fn caller(caller: &Caller, may_use: Option<&RequestLimits>) -> Value {
    let credential = match &caller.credential {
        None => Value::Null,
        Some(Credential::ApiKeys(keys)) => json!({ "kind": "api_key", "keys": keys.len() }),
        Some(Credential::Basic(_)) => json!({ "kind": "basic" }),
        Some(Credential::Jwt(rules)) => json!({
            "kind": "jwt",
            "issuer": rules.issuer.name,
            "audiences": rules.audiences,
            "required_claims": rules.required_claims,
        }),
        Some(Credential::Signature(scheme)) => {
            json!({ "kind": "hmac", "header": scheme.signature_header })
        }
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
        "limits": may_use.map(limits),
    })
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
