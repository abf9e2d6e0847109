//! Sites: where they are, their tokens, how long they may take.

use std::sync::Arc;
use std::time::Duration;

use pingora::tls::{CertificateDer, RootCertStore};
use rustls_pki_types::pem::PemObject;

use super::units::duration;
use super::{NAME_CURE, is_name};
use crate::config::problem::Findings;
use crate::config::reference::Sources;
use crate::config::tree::{At, Fields, Node};
use crate::policy::host::{Host, Scheme, is_loopback, port_number, split_port};
use crate::policy::origin::{OriginPattern, Origins};
use crate::policy::site::{BrowserToken, Site, SiteAddress, Timeouts};
use crate::signing::{Dialect, Secret, Signer, UserEncoding};

/// A site as far as it could be compiled; `None` keeps its name known to the routes.
pub(super) struct NamedSite {
    pub(super) name: Arc<str>,
    pub(super) site: Option<Arc<Site>>,
    /// Whether all that opens it is the emulator's published token, which opens no real site.
    pub(super) is_emulated: bool,
}

/// The key of the emulator's server token.
const EMULATED_KEY: &str = include_str!("../../../deploy/emulator/token_key");

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
const SITE_KEYS: [&str; 12] = [
    "url",
    "plaintext",
    "ca",
    "http2",
    "dialect",
    "user_encoding",
    "server_tokens",
    "browser_token",
    "forward_address",
    "timeouts",
    "retries",
    "probe_user",
];

pub(super) fn compile(file: &Fields<'_>, sources: &Sources<'_>) -> Vec<NamedSite> {
    let read = |at: At<'_>| {
        let sites = at.map()?.into_iter().map(|(name, node)| {
            let place = crate::config::tree::join(at.place(), name);
            let at = at.child(node, &place);
            if !is_name(name) {
                at.problem(NAME_CURE);
            }
            let mut is_emulated = true;
            let site = site(at, name, sources, &mut is_emulated).map(Arc::new);
            NamedSite {
                name: name.into(),
                site,
                is_emulated,
            }
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
    sources: &Sources<'_>,
    findings: &Findings,
) -> Option<SiteTokens> {
    let at = At::new(file, "", findings);
    let (_, sites) = at.map()?.into_iter().find(|(key, _)| *key == "sites")?;
    let at = at.child(sites, "sites");
    let entries = at.map()?;
    let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    let found = match (wanted, &entries[..]) {
        (Some(wanted), _) => entries.iter().find(|(name, _)| *name == wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some((name, node)) = found else {
        at.problem(format!("choose one with --site: {}", names.join(", ")));
        return None;
    };
    let place = crate::config::tree::join("sites", name);
    let fields = at.child(node, &place).fields(&SITE_KEYS)?;
    let development = fields
        .optional("url", |at| parse_url(&url_text(&at, sources)?).ok())
        .is_some_and(|address| is_loopback(&address.host));
    let pairs = fields.each("server_tokens", |at| token_halves(at, sources, development));
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

fn site(at: At<'_>, name: &str, sources: &Sources<'_>, is_emulated: &mut bool) -> Option<Site> {
    let fields = at.fields(&SITE_KEYS)?;
    super::settings::not_yet(&fields, "probe_user");
    if fields.has("http2") {
        fields.problem_at("http2", "HTTP/2 to sites is no longer spoken: users are never multiplexed on one connection; remove it");
    }
    let address = address(&fields, sources);
    let development = address
        .as_ref()
        .is_some_and(|address| is_loopback(&address.host));
    let dialect = fields.optional("dialect", dialect).unwrap_or(Dialect::Tkn);
    let user_encoding = fields
        .optional("user_encoding", user_encoding)
        .unwrap_or(UserEncoding::Plain);
    let signers = fields.each("server_tokens", |at| {
        let (key, secret) = token_halves(at, sources, development)?;
        *is_emulated &= key.matches(EMULATED_KEY.trim_end().as_bytes());
        let signer = Signer::new(dialect, &key, &secret);
        signer.map_err(|fault| at.problem(fault)).ok()
    });
    *is_emulated &= !signers.is_empty();
    let browser_token = fields.optional("browser_token", |at| {
        browser_token(at, sources, development)
    });
    if !fields.has("server_tokens") && !fields.has("browser_token") {
        fields.problem(
            "a site needs server_tokens or a browser_token; without a token nothing can be signed",
        );
    }
    Some(Site {
        name: name.into(),
        authority: address.as_ref()?.authority().into(),
        address: address?,
        signers,
        browser_token,
        user_encoding,
        forwards_address: fields
            .optional("forward_address", |at| at.flag())
            .unwrap_or(true),
        timeouts: fields.optional("timeouts", timeouts).unwrap_or_default(),
        retries_max: fields.optional("retries", retries).unwrap_or(2),
    })
}

fn address(fields: &Fields<'_>, sources: &Sources<'_>) -> Option<SiteAddress> {
    let plaintext = fields
        .optional("plaintext", |at| at.flag())
        .unwrap_or(false);
    let ca = fields.optional("ca", |at| authorities(at, sources));
    fields.required("url", "write the site's address, such as https://acme.mindtouch.us", |at| {
        let fault = match parse_url(&url_text(&at, sources)?) {
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
fn authorities(at: At<'_>, sources: &Sources<'_>) -> Option<Arc<[Vec<u8>]>> {
    let pem = sources.public_file(at)?;
    let mut store = RootCertStore::empty();
    let certificates: Option<Vec<_>> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| {
            let certificate = certificate.ok()?;
            store.add(certificate.clone()).ok()?;
            Some(certificate.to_vec())
        })
        .collect();
    let found = certificates.filter(|list| !list.is_empty());
    if found.is_none() {
        at.problem(
            "a ca file holds the certificates of authorities in PEM (-----BEGIN CERTIFICATE-----)",
        );
    }
    found.map(Arc::from)
}

/// A site's url as it stands, or from where `env:` or `file:` says, where a bare host name means https.
fn url_text(at: &At<'_>, sources: &Sources<'_>) -> Option<String> {
    let text = sources.plain(at)?;
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

fn token_halves(at: At<'_>, sources: &Sources<'_>, development: bool) -> Option<(Secret, Secret)> {
    let fields = at.fields(&["key", "secret"])?;
    let cure = "write env:NAME or file:PATH";
    let key = fields.required("key", cure, |at| sources.secret(at, development));
    let secret = fields.required("secret", cure, |at| sources.secret(at, development));
    Some((key?, secret?))
}

fn browser_token(at: At<'_>, sources: &Sources<'_>, development: bool) -> Option<BrowserToken> {
    let fields = at.fields(&["key", "allowed_hosts"])?;
    if !fields.has("allowed_hosts") {
        fields.problem("allowed_hosts is missing; list the hosts of the pages that may use the token, such as crm.example.com: without them nobody may");
    }
    let hosts = fields.each("allowed_hosts", origin_patterns);
    let origins = Origins::new(hosts.into_iter().flatten().collect());
    let key = fields.required("key", "write env:NAME or file:PATH", |at| {
        sources.secret(at, development)
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
