//! Routes: who may do what, where.

mod signing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::callers::{NamedCaller, check_apart};
use super::capabilities::{ALL, Catalogue, MINTING};
use super::sites::{NamedSite, origin_patterns};
use super::units::bytes;
use super::{NAME_CURE, is_name};
use crate::config::problem::Findings;
use crate::config::tree::{At, Fields};
use crate::config::words::cure;
use crate::policy::acts_as::ActingCaller;
use crate::policy::caller::{CREDENTIAL_HEADERS, Callers, KeyDigest};
use crate::policy::capability::Allowance;
use crate::policy::cors::Preflights;
use crate::policy::host::Host;
use crate::policy::limit::{BODY_BYTES_MAX, PAGE_BODY_BYTES_MAX};
use crate::policy::origin::Origins;
use crate::policy::route::{Access, Mount, Route};
use crate::policy::site::Site;
use crate::rewrite::names;

/// Most routes of a file.
const ROUTES_MAX: usize = 10_000;

/// The digest of `cs_demo_key_for_the_emulator_only`, the key in the example file and its documents.
const EXAMPLE_DIGEST: &str = include_str!("example_digest.txt");

/// What routes are put together from.
pub(super) struct Parts<'a> {
    pub(super) sites: &'a [NamedSite],
    pub(super) callers: &'a HashMap<&'a str, &'a NamedCaller>,
    pub(super) catalogue: &'a Catalogue,
}

pub(super) fn compile(file: &Fields<'_>, parts: &Parts<'_>) -> Vec<Arc<Route>> {
    if !file.has("routes") {
        file.problem("routes is missing; without a route every request is refused");
    }
    let mut seen: Vec<(Option<Host>, Mount, String)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let routes = file.each("routes", |at| {
        let fields = at.fields(&[
            "name",
            "host",
            "mount",
            "site",
            "token",
            "callers",
            "allow",
            "origins",
            "request_headers",
            "answer_headers",
            "body_max",
            "report_only",
            "return_sessions",
        ])?;
        let host = fields.optional("host", host);
        let mount = fields.optional("mount", mount);
        let place_is_sound =
            host.is_some() == fields.has("host") && mount.is_some() == fields.has("mount");
        let key = (host.clone(), mount.clone().unwrap_or_default());
        if place_is_sound {
            if let Some((.., other)) = seen.iter().find(|(h, m, _)| (h, m) == (&key.0, &key.1)) {
                fields.problem(format!("{other} answers the same host and mount; give one of them another host or mount"));
            }
            seen.push((key.0, key.1, at.place().to_owned()));
        }
        if let Some(name) = fields.optional("name", |at| at.text().map(str::to_owned)) {
            if names.contains(&name) {
                fields.problem_at("name", "another route has this name; names tell routes apart in logs and metrics");
            }
            names.push(name);
        }
        route(&fields, host, mount.unwrap_or_default(), parts).map(Arc::new)
    });
    if routes.len() > ROUTES_MAX {
        file.problem_at("routes", format!("there are more than {ROUTES_MAX} routes"));
    }
    routes
}

fn route(
    fields: &Fields<'_>,
    host: Option<Host>,
    mount: Mount,
    parts: &Parts<'_>,
) -> Option<Route> {
    let name = fields.required("name", "name the route; logs and metrics call it so", name);
    let named_site = fields.required("site", "name one of sites", |at| site(at, parts.sites));
    let allow = allowance(fields, parts.catalogue);
    let acting_headers = acting_headers(fields, parts.callers);
    let request_headers = fields.each("request_headers", |at| request_header(at, &acting_headers));
    let access = fields.required(
        "token",
        "write server (signed, for callers) or browser (for web pages)",
        |at| match at.text()? {
            "server" => server(fields, named_site, parts),
            "browser" => browser(fields, named_site),
            _ => {
                at.problem("a token is server (signed, for callers) or browser (for web pages)");
                None
            }
        },
    );
    let answer_headers = fields.each("answer_headers", answer_header);
    let report_only = risky_flag(
        fields,
        "report_only",
        "origins that are not allowed are recorded and let through on this route; remove it when the record is clean",
    );
    let return_sessions = risky_flag(
        fields,
        "return_sessions",
        "answers of credential-minting calls keep their body, so callers of this route receive sessions that work without the gateway",
    );
    let body_max = fields.optional("body_max", |at| bytes(at, 1 << 40));
    let (access, allow) = (access?, allow?);
    let default = match &access {
        Access::Server { callers, .. } => {
            signing::check(fields, callers, &request_headers);
            BODY_BYTES_MAX
        }
        Access::Browser => PAGE_BODY_BYTES_MAX,
    };
    Some(Route {
        name: name?.into(),
        host,
        mount,
        site: named_site?.site.clone()?,
        preflights: preflights(&access, &allow, &request_headers, &acting_headers),
        access,
        allow,
        request_headers,
        answer_headers,
        body_bytes_max: body_max.unwrap_or(default),
        report_only,
        return_sessions,
    })
}

fn name(at: At<'_>) -> Option<String> {
    let name = at.text()?;
    if !is_name(name) {
        at.problem(NAME_CURE);
    }
    Some(name.to_owned())
}

/// A flag that is a warning where it is set.
fn risky_flag(fields: &Fields<'_>, key: &str, warning: &str) -> bool {
    let is_set = fields.optional(key, |at| at.flag()).unwrap_or(false);
    if is_set {
        fields.warning_at(key, warning);
    }
    is_set
}

/// A page may send what goes up, and the credential where one is asked for.
fn preflights(
    access: &Access,
    allow: &Allowance,
    request_headers: &[Box<str>],
    acting_headers: &[&str],
) -> Preflights {
    let credentials: &[&str] = match access {
        Access::Server { .. } => &CREDENTIAL_HEADERS,
        Access::Browser => &[],
    };
    let named = request_headers.iter().map(|name| &**name);
    let named = named.chain(acting_headers.iter().copied());
    Preflights::new(&allow.methods(), named.chain(credentials.iter().copied()))
}

/// The headers in which callers of a route name their user, each once.
fn acting_headers<'c>(
    fields: &Fields<'_>,
    callers: &HashMap<&str, &'c NamedCaller>,
) -> Vec<&'c str> {
    // What is wrong with the list is told where it is compiled.
    let quiet = Findings::default();
    let mut headers = fields.noting_in(&quiet).each("callers", |at| {
        callers.get(at.text()?)?.acts_as.as_ref()?.header()
    });
    headers.sort_unstable();
    headers.dedup();
    headers
}

fn site<'s>(at: At<'_>, sites: &'s [NamedSite]) -> Option<&'s NamedSite> {
    let name = at.text()?;
    let named = sites.iter().find(|named| &*named.name == name);
    if named.is_none() {
        let known = sites.iter().map(|named| &*named.name);
        at.problem(format!(
            "there is no such site; {}",
            cure(name, known, "sites")
        ));
    }
    named
}

fn allowance(fields: &Fields<'_>, catalogue: &Catalogue) -> Option<Allowance> {
    let quiet = Findings::default();
    let token = fields.noting_in(&quiet);
    let is_signed = token.optional("token", |at| Some(at.text()? == "server"));
    let is_signed = is_signed == Some(true);
    if !fields.has("allow") {
        fields.problem("allow is missing; list capabilities such as search and read-pages: without them nothing may be done");
    }
    let chosen = fields.each("allow", |at| {
        let name = at.text()?;
        let capability = catalogue.find(name);
        if capability.is_none() {
            let cure = cure(name, catalogue.names(), "capabilities");
            at.problem(format!("there is no such capability; {cure}"));
        }
        if name == ALL && is_signed {
            at.warning("callers of this route may do everything but obtain credentials, also delete pages and manage users; list the capabilities they need");
        }
        if name == MINTING {
            at.warning("callers of this route may obtain sessions, passwords and tokens of the site; allow it only where nothing else will do");
        }
        capability
    });
    Some(catalogue.join(&chosen))
}

fn server(fields: &Fields<'_>, site: Option<&NamedSite>, parts: &Parts<'_>) -> Option<Access> {
    let callers = parts.callers;
    if site.is_some_and(|site| !site.has_server_tokens) {
        fields.problem_at(
            "token",
            "the route's site has no server_tokens to sign with",
        );
    }
    if !fields.has("callers") {
        fields.problem("callers is missing; a server route needs at least one, since an Origin is not a credential");
    }
    let mut taken = HashSet::new();
    let acting = fields.each("callers", |at| {
        let name = at.text()?;
        let Some(named) = callers.get(name) else {
            let cure = cure(name, callers.keys().copied(), "callers");
            at.problem(format!("there is no such caller; {cure}"));
            return None;
        };
        if !taken.insert(name.to_owned()) {
            at.problem("this caller stands twice; remove one");
        }
        let acts_as = named.acts_as.as_ref()?;
        let site = site?.site.as_ref()?;
        let acts_as = acts_as.at_site(site).map_err(|fault| {
            at.problem(format!(
                "this caller's acts_as cannot be used at site {}: {fault}",
                site.name
            ))
        });
        Some(ActingCaller {
            caller: named.caller.clone()?,
            acts_as: acts_as.ok()?,
        })
    });
    check_apart(fields, &acting);
    let origins = fields.one_or_each("origins", origin_patterns);
    Some(Access::Server {
        callers: Box::new(Callers::new(acting)),
        origins: Origins::new(origins.into_iter().flatten().collect()),
    })
}

fn browser(fields: &Fields<'_>, site: Option<&NamedSite>) -> Option<Access> {
    if site.is_some_and(|site| !site.has_browser_token) {
        fields.problem_at("token", "the route's site has no browser_token");
    }
    for (key, why) in [
        (
            "callers",
            "a browser route has no callers: pages present no credential; use token: server with origins for pages that do",
        ),
        (
            "origins",
            "a browser route takes the browser token's allowed_hosts; remove this",
        ),
    ] {
        if fields.has(key) {
            fields.problem_at(key, why);
        }
    }
    Some(Access::Browser)
}

fn request_header(at: At<'_>, acting_headers: &[&str]) -> Option<Box<str>> {
    let name = header_name(at)?;
    if acting_headers.contains(&&*name) {
        at.problem("a caller of this route names its user in this header, which goes no further; remove it here");
        return None;
    }
    if names::never_go_up(&name) {
        at.problem("this header says who asks, for which site, from where, or how the message is framed; it never goes up");
        return None;
    }
    Some(name)
}

fn answer_header(at: At<'_>) -> Option<Box<str>> {
    let name = header_name(at)?;
    if names::never_go_down(&name) {
        at.problem("this header hands out or asks for a credential, frames the message, speaks for the connection or for this gateway's address, or is set by the gateway; it never comes down");
        return None;
    }
    Some(name)
}

pub(super) fn header_name(at: At<'_>) -> Option<Box<str>> {
    let name = at.text()?.to_ascii_lowercase();
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_name {
        at.problem("a header name has letters, digits and hyphens");
    }
    is_name.then(|| name.into())
}

fn host(at: At<'_>) -> Option<Host> {
    let host = Host::parse(at.text()?);
    if host.is_none() {
        at.problem("a host is a name without scheme, port and path, such as widget.example.com");
    }
    host
}

fn mount(at: At<'_>) -> Option<Mount> {
    let mount = Mount::parse(at.text()?);
    if mount.is_none() {
        at.problem("a mount starts with a slash, ends with none, and has segments of letters, digits and -._~, such as /crm");
    }
    mount
}

/// What can be known only of the whole: parts that nothing uses, and examples taken into earnest.
pub(super) fn check_use(
    file: &Fields<'_>,
    sites: &[NamedSite],
    callers: &[NamedCaller],
    routes: &[Arc<Route>],
) {
    let called: HashSet<&str> = routes
        .iter()
        .filter_map(|route| match &route.access {
            Access::Server { callers, .. } => Some(callers.iter()),
            Access::Browser => None,
        })
        .flatten()
        .map(|acting| &*acting.caller.name)
        .collect();
    let example = KeyDigest::from_hex(EXAMPLE_DIGEST.trim());
    let earnest = sites.iter().any(|named| {
        let has_token = |site: &Arc<Site>| !site.signers.is_empty() || site.browser_token.is_some();
        !named.is_emulated && named.site.as_ref().is_some_and(has_token)
    });
    for named in callers.iter().filter(|named| named.caller.is_some()) {
        if !called.contains(&*named.name) {
            file.warning_on(&named.spot, "no route lists this caller");
        }
        if earnest && named.has_published_secret {
            file.problem_on(&named.credential_spot, signing::PUBLISHED);
        }
        let digests = named.caller.iter().flat_map(|caller| caller.api_keys());
        if earnest && digests.copied().any(|digest| Some(digest) == example) {
            file.problem_on(
                &named.credential_spot,
                "this is the digest of the key printed in the documentation, which everybody knows; run countersign key new",
            );
        }
    }
    for named in sites.iter().filter(|named| named.site.is_some()) {
        if !routes.iter().any(|route| route.site.name == named.name) {
            file.warning_on(&named.spot, "no route leads to this site");
        }
    }
}
