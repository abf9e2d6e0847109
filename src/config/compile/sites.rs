//! Sites: where they are, their tokens, how long they may take.

use std::sync::Arc;
use std::time::Duration;

use super::units::duration;
use super::{NAME_CURE, is_name};
use crate::config::problem::Findings;
use crate::config::reference::References;
use crate::config::tls;
use crate::config::tree::{At, Fields, Node, Spot, join};
use crate::config::words::cure;
use crate::policy::host::{Host, Scheme, is_loopback, port_number, split_port};
use crate::policy::origin::{OriginPattern, Origins};
use crate::policy::site::{BrowserToken, Site, SiteAddress, Timeouts};
use crate::signing::{Dialect, Secret, Signer, User, UserEncoding};

/// A site as far as it could be compiled; `None` keeps its name known to the routes.
pub(super) struct NamedSite {
    pub(super) name: Arc<str>,
    pub(super) spot: Spot,
    pub(super) site: Option<Arc<Site>>,
    /// Whether the file gives it server tokens, usable or not.
    pub(super) has_server_tokens: bool,
    /// Whether the file gives it a browser token, usable or not.
    pub(super) has_browser_token: bool,
    /// Whether it has no token but the emulator's own, which are published and open no real site;
    /// also where the tokens are not looked up, since then nobody can tell.
    pub(super) is_emulated: bool,
    /// Users of whom the operator is told where a caller can be one of them: `=admin`, `1`.
    pub(super) administrators: Vec<String>,
}

/// The first user of a site, by name and id.
const ADMINISTRATORS: [&str; 2] = ["=admin", "1"];

/// The key of the emulator's server token.
const EMULATED_KEY: &str = include_str!("../../../deploy/emulator/token_key");

/// The emulator's browser token.
const EMULATED_BROWSER_KEY: &str = include_str!("../../../deploy/emulator/browser_key");

/// What signs for one site: for making and examining tokens by hand.
#[derive(Debug)]
pub struct SiteTokens {
    /// The dialect it mints in.
    pub dialect: Dialect,
    /// How it spells user names.
    pub user_encoding: UserEncoding,
    /// Keys and secrets, in order of preference; at least one.
    pub pairs: Vec<(Secret, Secret)>,
}

/// What a site may say of itself.
const SITE_KEYS: [&str; 13] = [
    "url",
    "plaintext",
    "ca",
    "http2",
    "dialect",
    "user_encoding",
    "administrators",
    "server_tokens",
    "browser_token",
    "forward_address",
    "timeouts",
    "retries",
    "probe_user",
];

pub(super) fn compile(file: &Fields<'_>, references: &References<'_>) -> Vec<NamedSite> {
    let read = |at: At<'_>| {
        let sites = at.map()?.into_iter().map(|(name, node)| {
            let place = join(at.place(), name);
            let at = at.child(node, &place);
            if !is_name(name) {
                at.problem(NAME_CURE);
            }
            named_site(at, name, references)
        });
        Some(sites.collect())
    };
    file.required(
        "sites",
        "write sites: with the name of one, its url and its tokens",
        read,
    )
    .unwrap_or_default()
}

/// Fetches the server tokens of one site, and looks at nothing else of the file: a token can be
/// examined before everything is right.
pub(super) fn tokens(
    file: &Node,
    wanted: Option<&str>,
    references: &References<'_>,
    findings: &Findings,
) -> Option<SiteTokens> {
    let at = At::new(file, "", findings);
    let (_, sites) = at.map()?.into_iter().find(|(key, _)| *key == "sites")?;
    let at = at.child(sites, "sites");
    let entries = at.map()?;
    let found = match (wanted, &entries[..]) {
        (Some(wanted), _) => entries.iter().find(|(name, _)| *name == wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some((name, node)) = found else {
        let known = entries.iter().map(|(name, _)| *name);
        let cure = cure(wanted.unwrap_or_default(), known, "sites");
        at.problem(format!("choose one with --site; {cure}"));
        return None;
    };
    let place = join("sites", name);
    let fields = at.child(node, &place).fields(&SITE_KEYS)?;
    let is_published = is_emulated(&fields, references);
    let pairs = fields.each("server_tokens", |at| {
        token_halves(at, references, is_published)
    });
    if !fields.has("server_tokens") {
        fields.problem("server_tokens is missing; there is nothing to sign or verify with");
    }
    Some(SiteTokens {
        dialect: fields.optional("dialect", dialect).unwrap_or(Dialect::Tkn),
        user_encoding: fields
            .optional("user_encoding", user_encoding)
            .unwrap_or(UserEncoding::Plain),
        pairs,
    })
}

fn named_site(at: At<'_>, name: &str, references: &References<'_>) -> NamedSite {
    let fields = at.fields(&SITE_KEYS);
    let has = |key| fields.as_ref().is_some_and(|fields| fields.has(key));
    let is_emulated = fields
        .as_ref()
        .is_some_and(|fields| is_emulated(fields, references));
    let site = fields
        .as_ref()
        .and_then(|fields| site(fields, name, references, is_emulated));
    let administrators = fields.as_ref().filter(|_| has("administrators"));
    let administrators = administrators.map(|fields| fields.each("administrators", administrator));
    NamedSite {
        name: name.into(),
        spot: at.spot(),
        has_server_tokens: has("server_tokens"),
        has_browser_token: has("browser_token"),
        site: site.map(Arc::new),
        is_emulated,
        administrators: administrators
            .unwrap_or_else(|| ADMINISTRATORS.map(str::to_owned).to_vec()),
    }
}

fn administrator(at: At<'_>) -> Option<String> {
    if at.is_number() {
        at.problem("write the user id in quotes, such as \"7\"");
        return None;
    }
    let text = at.text()?;
    // However the site spells it: it is only compared.
    let user = User::parse(text, UserEncoding::Raw);
    user.map_err(|fault| at.problem(fault)).ok()?;
    Some(text.to_owned())
}

/// As whom server tokens are tried.
fn probe_user(at: At<'_>, encoding: UserEncoding) -> Option<User> {
    if at.is_number() {
        at.problem("write the user id in quotes, such as \"7\"");
        return None;
    }
    let user = User::parse(at.text()?, encoding);
    user.map_err(|fault| at.problem(fault)).ok()
}

/// Whether the only tokens of a site are the emulator's. Its address says nothing: behind one of this
/// machine's own there may be a tunnel to a real site.
fn is_emulated(fields: &Fields<'_>, references: &References<'_>) -> bool {
    if !references.follow() {
        return true;
    }
    let quiet = Findings::default();
    let fields = fields.noting_in(&quiet);
    let is_key = |at: At<'_>, known: &str| {
        let key = at.fields(&["key", "secret", "allowed_hosts"]);
        let key = key.and_then(|fields| fields.optional("key", |at| references.secret(at, true)));
        Some(key.is_some_and(|key| key.matches(known.trim_end().as_bytes())))
    };
    let mut tokens = fields.each("server_tokens", |at| is_key(at, EMULATED_KEY));
    tokens.extend(fields.optional("browser_token", |at| is_key(at, EMULATED_BROWSER_KEY)));
    !tokens.is_empty() && !tokens.contains(&false)
}

fn site(
    fields: &Fields<'_>,
    name: &str,
    references: &References<'_>,
    is_emulated: bool,
) -> Option<Site> {
    if fields.has("http2") {
        fields.problem_at("http2", "HTTP/2 to sites is no longer spoken: users are never multiplexed on one connection; remove it");
    }
    let address = address(fields, references);
    let dialect = fields.optional("dialect", dialect).unwrap_or(Dialect::Tkn);
    let user_encoding = fields
        .optional("user_encoding", user_encoding)
        .unwrap_or(UserEncoding::Plain);
    let signers = fields.each("server_tokens", |at| {
        let (key, secret) = token_halves(at, references, is_emulated)?;
        let signer = Signer::new(dialect, &key, &secret);
        signer.map_err(|fault| at.problem(fault)).ok()
    });
    let probe_user = fields.optional("probe_user", |at| probe_user(at, user_encoding));
    if probe_user.is_some() && !fields.has("server_tokens") {
        fields.problem_at("probe_user", "the site has no server_tokens that could be tried as this user; remove it, or give it some");
    }
    let browser_token = fields.optional("browser_token", |at| {
        browser_token(at, references, is_emulated)
    });
    if !fields.has("server_tokens") && !fields.has("browser_token") {
        fields.problem(
            "a site needs server_tokens or a browser_token; without a token nothing can be signed",
        );
    }
    let forwards_address = fields
        .optional("forward_address", |at| at.flag())
        .unwrap_or(true);
    let timeouts = fields.optional("timeouts", timeouts).unwrap_or_default();
    let retries_max = fields.optional("retries", retries).unwrap_or(2);
    let address = address?;
    Some(Site {
        name: name.into(),
        authority: address.authority().into(),
        address,
        signers,
        browser_token,
        user_encoding,
        probe_user,
        forwards_address,
        timeouts,
        retries_max,
    })
}

fn address(fields: &Fields<'_>, references: &References<'_>) -> Option<SiteAddress> {
    let plaintext = fields
        .optional("plaintext", |at| at.flag())
        .unwrap_or(false);
    let ca = fields.optional("ca", |at| authorities(at, references));
    fields.required("url", "write the site's address, such as https://acme.mindtouch.us", |at| {
        let fault = match parse_url(&url_text(&at, references)?) {
            Ok(mut address) => {
                let open = !address.tls && !plaintext && !is_loopback(&address.host);
                address.ca = ca;
                if !open {
                    return Some(address);
                }
                "over http:// the token travels in the clear; use https://, or write plaintext: true beside it if the network is your own"
            }
            Err(fault) => fault,
        };
        at.problem(fault);
        None
    })
}

/// The certificates of a `ca:` file, each of which a verifier would take.
pub(super) fn authorities(at: At<'_>, references: &References<'_>) -> Option<Arc<[Vec<u8>]>> {
    let pem = references.public_file(at)?;
    let found = tls::authorities(&pem).map_err(|fault| at.problem(fault));
    let certificates = found.ok()?.into_iter().map(|it| it.to_vec());
    Some(certificates.collect())
}

/// A site's url as it stands, or from where `env:` or `file:` says, where a bare host name means https.
fn url_text(at: &At<'_>, references: &References<'_>) -> Option<String> {
    let text = references.plain(at, "https://site.invalid")?;
    let is_bare = at.text().is_some_and(|written| written != text) && !text.contains("://");
    Some(if is_bare {
        format!("https://{text}")
    } else {
        text
    })
}

fn parse_url(text: &str) -> Result<SiteAddress, &'static str> {
    const FORM: &str =
        "a site's url is https:// and a host name, such as https://acme.mindtouch.us";
    let (scheme, rest) = Scheme::strip(text).ok_or(FORM)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@', '\\']) {
        return Err(
            "a site's url has no user, path, query or fragment; write scheme and host only",
        );
    }
    let (host, port) = split_port(rest);
    let host = Host::parse(host).ok_or(FORM)?;
    let port = match port {
        None => scheme.default_port(),
        Some("") => return Err(FORM),
        Some(digits) => port_number(digits).ok_or("a port is a number from 1 to 65535")?,
    };
    Ok(SiteAddress {
        tls: scheme == Scheme::Https,
        host: host.without_brackets().to_owned(),
        port,
        ca: None,
    })
}

fn token_halves(
    at: At<'_>,
    references: &References<'_>,
    is_published: bool,
) -> Option<(Secret, Secret)> {
    let fields = at.fields(&["key", "secret"])?;
    let cure = "write env:NAME or file:PATH";
    let key = fields.required("key", cure, |at| references.secret(at, is_published));
    let secret = fields.required("secret", cure, |at| references.secret(at, is_published));
    Some((key?, secret?))
}

fn browser_token(
    at: At<'_>,
    references: &References<'_>,
    is_published: bool,
) -> Option<BrowserToken> {
    let fields = at.fields(&["key", "allowed_hosts"])?;
    if !fields.has("allowed_hosts") {
        fields.problem("allowed_hosts is missing; list the hosts of the pages that may use the token, such as crm.example.com: without them nobody may");
    }
    let hosts = fields.one_or_each("allowed_hosts", origin_patterns);
    let origins = Origins::new(hosts.into_iter().flatten().collect());
    let key = fields.required("key", "write env:NAME or file:PATH", |at| {
        references.secret(at, is_published)
    })?;
    let token = BrowserToken::new(key, origins);
    if token.is_none() {
        fields.problem_at(
            "key",
            "what this refers to cannot stand in a header; a browser token is visible ASCII",
        );
    }
    token
}

/// One pattern, or a comma-separated list as the vendor's form takes it.
pub(super) fn origin_patterns(at: At<'_>) -> Option<Vec<OriginPattern>> {
    let parsed = OriginPattern::parse_list(at.text()?);
    parsed.map_err(|fault| at.problem(fault)).ok()
}

fn dialect(at: At<'_>) -> Option<Dialect> {
    match at.text()? {
        "tkn" => Some(Dialect::Tkn),
        "legacy" => Some(Dialect::Legacy),
        _ => {
            at.problem("a dialect is tkn (the current one) or legacy");
            None
        }
    }
}

fn user_encoding(at: At<'_>) -> Option<UserEncoding> {
    match at.text()? {
        "percent" => Some(UserEncoding::Percent),
        "raw" => Some(UserEncoding::Raw),
        _ => {
            at.problem("a user_encoding is percent or raw; leave it out if all names are of letters, digits and .@_-");
            None
        }
    }
}

fn timeouts(at: At<'_>) -> Option<Timeouts> {
    let fields = at.fields(&[
        "connect",
        "tls",
        "response",
        "between_bytes",
        "total",
        "idle",
    ])?;
    let read = |key: &str, default: Duration| {
        let bounds =
            |at: At<'_>| duration(at, Duration::from_millis(100), Duration::from_secs(3600));
        fields.optional(key, bounds).unwrap_or(default)
    };
    let defaults = Timeouts::default();
    Some(Timeouts {
        connect: read("connect", defaults.connect),
        tls: read("tls", defaults.tls),
        response: read("response", defaults.response),
        between_bytes: read("between_bytes", defaults.between_bytes),
        total: read("total", defaults.total),
        idle: read("idle", defaults.idle),
    })
}

fn retries(at: At<'_>) -> Option<u32> {
    at.whole(0, 5)
}
