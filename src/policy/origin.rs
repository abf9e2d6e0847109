//! Web origins and the patterns that allow them.
//!
//! ```text
//! patterns = pattern *( "," pattern )        ; as the vendor's form takes them
//! pattern  = [ scheme "://" ] [ "*." / name "--*." ] host [ ":" ( port / "*" ) ]
//! scheme   = "https" / "http"                ; default https; http only with a loopback host
//! host     = name / IPv4 / "[" IPv6 "]"      ; a name in ASCII or IDN; "*." needs two labels after it
//! ```
//!
//! `*.` stands for one or more whole labels, never for none: `*.example.com` allows
//! `a.b.example.com` but not `example.com`. `acme--*.` stands for one label that begins so: all
//! sandboxes of one Salesforce organization. Without a port the scheme's own is meant, `:*` means
//! any. There are no regular expressions and no substrings.
//!
//! An `Origin` is compared in the only form a browser sends it (the Fetch standard's `Origin`
//! header, serialized as HTML section 7.1.1 says): lower case, A-labels, no default port, no path,
//! no user. Anything else comes from no browser and matches nothing: `null`, lists, other spellings
//! of a host, a trailing dot, an underscore.

use std::fmt;

use thiserror::Error;

use super::host::{Host, Scheme, is_spelt_by_browsers, port_number, split_port};
use super::request::Request;

/// Longest `Origin` in bytes that is looked at: a scheme, 253 bytes of host name, a port.
const ORIGIN_BYTES_MAX: usize = 300;

/// A web origin as a browser spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    scheme: Scheme,
    host: &'a str,
    port: u16,
}

impl<'a> Origin<'a> {
    /// Reads the value of an `Origin` header; `None` for whatever no browser would send as the
    /// origin of a page on the web.
    pub fn parse(value: &'a str) -> Option<Self> {
        if value.len() > ORIGIN_BYTES_MAX {
            return None;
        }
        let (scheme, rest) = Scheme::strip(value)?;
        let (host, port) = split_port(rest);
        let port = match port {
            None => scheme.default_port(),
            Some(text) => {
                let port = port_number(text)?;
                // A browser leaves out the port that goes without saying.
                if port == scheme.default_port() {
                    return None;
                }
                port
            }
        };
        is_spelt_by_browsers(host).then_some(Self { scheme, host, port })
    }
}

/// What the `Origin` headers of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// There is none.
    Missing,
    /// There is exactly one, and it is on the list.
    Allowed(&'a str),
    /// There is exactly one of a page on the web, and it is not on the list.
    Foreign(&'a str),
    /// There are several, or it is `null`, or none that a browser sends for a page on the web.
    Malformed,
}

/// The origins that one token or one route allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<OriginPattern>);

impl Origins {
    /// A list of patterns. An empty one allows nobody.
    pub fn new(patterns: Vec<OriginPattern>) -> Self {
        Self(patterns)
    }

    /// Whether it allows nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &OriginPattern> {
        self.0.iter()
    }

    /// Whether some pattern allows the origin. Does not allocate.
    pub fn allow(&self, origin: &Origin<'_>) -> bool {
        self.0.iter().any(|pattern| pattern.allows(origin))
    }

    /// The pattern that an origin is nearest to, as far as one is near: most of one host is the
    /// beginning and the end of the other.
    pub fn nearest(&self, origin: &str) -> Option<&OriginPattern> {
        let host = &Origin::parse(origin)?.host;
        let nearness = |pattern: &&OriginPattern| {
            let (ours, theirs) = (pattern.host.as_str(), *host);
            let pairs = || ours.bytes().zip(theirs.bytes());
            let before = pairs().take_while(|(a, b)| a == b).count();
            let backwards = ours.bytes().rev().zip(theirs.bytes().rev());
            let after = backwards.take_while(|(a, b)| a == b).count();
            let shared = (before + after).min(ours.len().min(theirs.len()));
            (shared * 2 >= ours.len()).then_some(shared)
        };
        let near = self
            .0
            .iter()
            .filter_map(|pattern| Some((nearness(&pattern)?, pattern)));
        near.max_by_key(|(nearness, _)| *nearness)
            .map(|(_, pattern)| pattern)
    }

    /// Judges the `Origin` headers of a request.
    pub fn check<'a>(&self, request: &Request<'a>) -> Presented<'a> {
        let value = match request.only("origin") {
            Ok(Some(value)) => value,
            Ok(None) => return Presented::Missing,
            Err(_) => return Presented::Malformed,
        };
        let Ok(text) = std::str::from_utf8(value) else {
            return Presented::Malformed;
        };
        match Origin::parse(text) {
            None => Presented::Malformed,
            Some(origin) if self.allow(&origin) => Presented::Allowed(text),
            Some(_) => Presented::Foreign(text),
        }
    }
}

/// One pattern of the grammar above, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    scheme: Scheme,
    below: Below,
    /// The whole host, or what comes after the wildcard.
    host: Host,
    /// `None` is any port.
    port: Option<u16>,
}

/// Which hosts a pattern means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Below {
    /// The host itself.
    Itself,
    /// Every host below it.
    Any,
    /// Those directly below it whose first label begins so, and has more.
    Sandboxes(Box<str>),
}

/// Why a pattern cannot be used; the message says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginFault {
    /// Nothing, or nothing between two commas.
    #[error("an empty host allows nobody; write a host name such as crm.example.com")]
    Empty,
    /// `*` alone.
    #[error(
        "* would allow every page of the web; write the host names, or *.example.com for the hosts below one"
    )]
    Everybody,
    /// `*.com`.
    #[error("a wildcard needs at least two labels after it, such as *.example.com")]
    TooWide,
    /// A `*` elsewhere than at the front.
    #[error(
        "* stands only at the front, for whole labels, such as *.example.com, or after two hyphens, for a Salesforce sandbox, such as acme--*.sandbox.lightning.force.com"
    )]
    WildcardInside,
    /// `null`.
    #[error(
        "null is the origin of sandboxed frames and local files, anybody's; it cannot be allowed"
    )]
    Null,
    /// A scheme other than https or http.
    #[error(
        "an origin's scheme is https, or http for a loopback host; write crm.example.com or https://crm.example.com"
    )]
    Scheme,
    /// `http` for a host on the network.
    #[error(
        "http is allowed only for a loopback host (localhost, 127.0.0.1, [::1]): over the network anybody could pose as the page; use https"
    )]
    PlainHttp,
    /// A path, a query or a user.
    #[error("an origin has no path, no query and no user; write https://crm.example.com")]
    NotAnOrigin,
    /// A port that is none.
    #[error("a port is a number from 1 to 65535, or * for any")]
    Port,
    /// A host that is none.
    #[error(
        "a host is a DNS name in letters, digits and hyphens, or an IP address; write crm.example.com"
    )]
    Host,
}

impl OriginPattern {
    /// Reads one pattern or a comma-separated list of them.
    ///
    /// # Errors
    /// The first [`OriginFault`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, OriginFault> {
        text.split(',')
            .map(|pattern| Self::parse(pattern.trim()))
            .collect()
    }

    /// Reads one pattern.
    ///
    /// # Errors
    /// An [`OriginFault`].
    pub fn parse(text: &str) -> Result<Self, OriginFault> {
        match text {
            "" => return Err(OriginFault::Empty),
            "*" | "https://*" | "http://*" => return Err(OriginFault::Everybody),
            "null" => return Err(OriginFault::Null),
            _ => {}
        }
        let (scheme, rest) = match Scheme::strip(text) {
            Some(found) => found,
            None if text.contains("://") => return Err(OriginFault::Scheme),
            None => (Scheme::Https, text),
        };
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(OriginFault::NotAnOrigin);
        }
        let (host, port) = split_port(rest);
        let port = match port {
            None => Some(scheme.default_port()),
            Some("*") => None,
            Some(text) => Some(port_number(text).ok_or(OriginFault::Port)?),
        };
        let (host, below) = match host.split_once("*.") {
            None => (host, Below::Itself),
            Some(("", host)) => (host, Below::Any),
            Some((label, host)) if is_sandbox(label) => {
                (host, Below::Sandboxes(label.to_ascii_lowercase().into()))
            }
            Some(_) => return Err(OriginFault::WildcardInside),
        };
        let has_wildcard = below != Below::Itself;
        if host.contains('*') {
            return Err(OriginFault::WildcardInside);
        }
        // For a browser a name with a final dot is another origin, which no pattern means.
        if host.ends_with(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']) {
            return Err(OriginFault::Host);
        }
        let host = Host::parse(host)
            .filter(Host::is_spelt_by_browsers)
            .ok_or(OriginFault::Host)?;
        if has_wildcard && host.is_address() {
            return Err(OriginFault::WildcardInside);
        }
        if has_wildcard && !host.as_str().contains('.') && host.as_str() != "localhost" {
            return Err(OriginFault::TooWide);
        }
        if scheme == Scheme::Http && !host.is_loopback() {
            return Err(OriginFault::PlainHttp);
        }
        Ok(Self {
            scheme,
            below,
            host,
            port,
        })
    }

    /// Whether the pattern allows the origin.
    pub fn allows(&self, origin: &Origin<'_>) -> bool {
        let labels = || {
            let labels = origin.host.strip_suffix(self.host.as_str())?;
            labels.strip_suffix('.')
        };
        let host_fits = match &self.below {
            Below::Itself => origin.host == self.host.as_str(),
            Below::Any => labels().is_some_and(|labels| !labels.is_empty()),
            Below::Sandboxes(name) => labels()
                .and_then(|label| label.strip_prefix(&**name))
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('.')),
        };
        host_fits
            && self.scheme == origin.scheme
            && self.port.is_none_or(|port| port == origin.port)
    }
}

/// As the file may write it.
impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Scheme::Https => "https://",
            Scheme::Http => "http://",
        })?;
        match &self.below {
            Below::Itself => {}
            Below::Any => f.write_str("*.")?,
            Below::Sandboxes(name) => write!(f, "{name}*.")?,
        }
        f.write_str(self.host.as_str())?;
        match self.port {
            None => f.write_str(":*"),
            Some(port) if port == self.scheme.default_port() => Ok(()),
            Some(port) => write!(f, ":{port}"),
        }
    }
}

/// Whether the beginning of a label is a name and two hyphens.
fn is_sandbox(label: &str) -> bool {
    label.strip_suffix("--").is_some_and(|name| {
        !name.is_empty()
            && name.len() <= 60
            && !name.starts_with('-')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::Field;
    use super::super::request::tests::request;
    use super::*;

    /// Asserts which origins a list of patterns allows, and that it allows none of the others.
    fn check(patterns: &str, allowed: &[&str], refused: &[&str]) {
        let origins = Origins::new(OriginPattern::parse_list(patterns).unwrap());
        let verdict = |text: &str| Origin::parse(text).is_some_and(|origin| origins.allow(&origin));
        for origin in allowed {
            assert!(verdict(origin), "{patterns} allows {origin}");
        }
        for origin in refused {
            assert!(!verdict(origin), "{patterns} does not allow {origin}");
        }
    }

    #[test]
    fn a_host_allows_itself_only() {
        check(
            "crm.example.com",
            &["https://crm.example.com"],
            &[
                "http://crm.example.com",
                "https://example.com",
                "https://a.crm.example.com",
                "https://crm.example.com:8443",
                "https://crm.example.com:80",
            ],
        );
    }

    #[test]
    fn origin_suffix_lookalike() {
        let refused = &[
            "https://evilexample.com",
            "https://evil-example.com",
            "https://example.com.evil.test",
        ];
        check("example.com", &["https://example.com"], refused);
        check(
            "*.example.com",
            &["https://a.example.com", "https://a.b.example.com"],
            refused,
        );
        check(
            "*.example.com",
            &[],
            &[
                "https://example.com",
                "https://.example.com",
                "https://xexample.com",
            ],
        );
    }

    #[test]
    fn the_sandboxes_of_one_organization() {
        check(
            "Acme--*.sandbox.lightning.force.com",
            &[
                "https://acme--uat.sandbox.lightning.force.com",
                "https://acme--a-b2.sandbox.lightning.force.com",
            ],
            &[
                "https://acme--.sandbox.lightning.force.com",
                "https://acme.sandbox.lightning.force.com",
                "https://acme-uat.sandbox.lightning.force.com",
                "https://evil.acme--uat.sandbox.lightning.force.com",
                "https://acme--evil.x.sandbox.lightning.force.com",
                "https://xacme--uat.sandbox.lightning.force.com",
                "https://acme--uat.lightning.force.com",
                "https://acme--uat.evil.test",
                "http://acme--uat.sandbox.lightning.force.com",
            ],
        );
        for pattern in [
            "--*.example.com",
            "acme-*.example.com",
            "acme*.example.com",
            "a--*b.example.com",
            "a.b--*.example.com",
            "-a--*.example.com",
            "a--*.*.example.com",
        ] {
            let parsed = OriginPattern::parse(pattern);
            assert_eq!(parsed, Err(OriginFault::WildcardInside), "{pattern}");
        }
        assert_eq!(OriginPattern::parse("a--*.com"), Err(OriginFault::TooWide));
    }

    #[test]
    fn the_nearest_pattern_as_it_is_written() {
        let list =
            "crm.example.com, *.apps.example.com:8443, http://localhost:*, acme--*.force.com";
        let origins = Origins::new(OriginPattern::parse_list(list).unwrap());
        let check = |origin: &str, expected: Option<&str>| {
            let nearest = origins.nearest(origin).map(ToString::to_string);
            assert_eq!(nearest.as_deref(), expected, "{origin}");
        };
        let crm = Some("https://crm.example.com");
        check("https://crm.exmaple.com", crm);
        check("http://crm.example.com", crm);
        check("https://a.crm.example.com", crm);
        check(
            "https://x.apps.example.com",
            Some("https://*.apps.example.com:8443"),
        );
        check("https://localhost", Some("http://localhost:*"));
        check(
            "https://beta--x.force.com",
            Some("https://acme--*.force.com"),
        );
        check("https://evil.test", None);
        check("null", None);
    }

    #[test]
    fn origin_prefix_lookalike() {
        check(
            "crm.example.com",
            &[],
            &[
                "https://crm.example.com.evil.test",
                "https://crm.example.comevil.test",
            ],
        );
    }

    #[test]
    fn origin_embedded_lookalike() {
        check(
            "crm.example.com",
            &[],
            &[
                "https://evil.test/crm.example.com",
                "https://evil.test?crm.example.com",
            ],
        );
        check(
            "crm.example.com",
            &[],
            &[
                "https://evil.test#crm.example.com",
                "https://evil.test\\crm.example.com",
            ],
        );
    }

    #[test]
    fn origin_userinfo() {
        check(
            "crm.example.com",
            &[],
            &[
                "https://crm.example.com@evil.test",
                "https://evil.test@crm.example.com",
            ],
        );
        check(
            "crm.example.com",
            &[],
            &["https://crm.example.com:443@evil.test"],
        );
    }

    #[test]
    fn origin_other_port() {
        check(
            "crm.example.com:8443",
            &["https://crm.example.com:8443"],
            &["https://crm.example.com", "https://crm.example.com:844"],
        );
        check(
            "crm.example.com:*",
            &["https://crm.example.com", "https://crm.example.com:1"],
            &["https://crm.example.com:0", "https://crm.example.com:65536"],
        );
        check(
            "crm.example.com:*",
            &[],
            &[
                "https://crm.example.com:",
                "https://crm.example.com:08443",
                "https://crm.example.com:443",
            ],
        );
    }

    #[test]
    fn origin_trailing_dot() {
        check(
            "crm.example.com,*.example.com",
            &[],
            &["https://crm.example.com.", "https://a.example.com."],
        );
    }

    #[test]
    fn origin_mixed_case() {
        check(
            "CRM.Example.com",
            &["https://crm.example.com"],
            &["https://CRM.example.com", "HTTPS://crm.example.com"],
        );
    }

    #[test]
    fn origin_punycode() {
        check(
            "bücher.example.com",
            &["https://xn--bcher-kva.example.com"],
            &["https://bücher.example.com", "https://bucher.example.com"],
        );
        check(
            "xn--bcher-kva.example.com",
            &["https://xn--bcher-kva.example.com"],
            &[],
        );
    }

    #[test]
    fn origin_underscore() {
        check(
            "*.example.com",
            &[],
            &[
                "https://a_b.example.com",
                "https://crm_example.com",
                "https://_.example.com",
            ],
        );
    }

    #[test]
    fn null_origin_and_odd_ones() {
        let long = format!("https://{}.example.com", "a.".repeat(150));
        check(
            "*.example.com",
            &[],
            &[
                "null",
                "",
                "*",
                "https://",
                "https://*.example.com",
                "a.example.com",
                "https://a.example.com, https://b.example.com",
                "https://a.example.com https://b.example.com",
                " https://a.example.com",
                "https://a.example.com ",
                "https://a..example.com",
                "https://-a.example.com",
                "https://a.example.com/",
                "file://",
                "https://a\u{0}.example.com",
                "chrome-extension://a.example.com",
                "https:a.example.com",
                "https:///a.example.com",
                &long,
            ],
        );
    }

    #[test]
    fn loopback_may_use_http() {
        check(
            "http://localhost:3000",
            &["http://localhost:3000"],
            &["http://localhost", "https://localhost:3000"],
        );
        check(
            "http://127.0.0.1:*",
            &["http://127.0.0.1:1234", "http://127.0.0.1"],
            &["http://127.0.0.2:1234", "http://127.1:1234"],
        );
        check(
            "http://[::1]:8000",
            &["http://[::1]:8000"],
            &["http://[0:0:0:0:0:0:0:1]:8000", "http://[::2]:8000"],
        );
        check(
            "http://*.localhost",
            &["http://a.localhost"],
            &["http://localhost"],
        );
    }

    #[test]
    fn vendor_lists() {
        check(
            "crm.example.com, *.lightning.force.com",
            &[
                "https://crm.example.com",
                "https://x--c.lightning.force.com",
            ],
            &["https://lightning.force.com"],
        );
    }

    #[test]
    fn patterns_that_are_none() {
        let check =
            |text: &str, fault| assert_eq!(OriginPattern::parse_list(text), Err(fault), "{text}");
        check("", OriginFault::Empty);
        check("a.example.com,", OriginFault::Empty);
        check("*", OriginFault::Everybody);
        check("null", OriginFault::Null);
        check("*.com", OriginFault::TooWide);
        check("a.*.example.com", OriginFault::WildcardInside);
        check("*a.example.com", OriginFault::WildcardInside);
        check("*.*.example.com", OriginFault::WildcardInside);
        check("*.127.0.0.1", OriginFault::WildcardInside);
        check("ftp://example.com", OriginFault::Scheme);
        check("http://example.com", OriginFault::PlainHttp);
        check("https://example.com/", OriginFault::NotAnOrigin);
        check("user@example.com", OriginFault::NotAnOrigin);
        check("example.com:0", OriginFault::Port);
        check("example.com:https", OriginFault::Port);
        check("exa mple.com", OriginFault::Host);
        check("a_b.example.com", OriginFault::Host);
        check("example.com.", OriginFault::Host);
        check("*.example.com\u{3002}", OriginFault::Host);
        check("1.2.3", OriginFault::Host);
        check("https://", OriginFault::Host);
    }

    #[test]
    fn several_headers_are_malformed() {
        let origins = Origins::new(OriginPattern::parse_list("a.example.com").unwrap());
        let check = |values: &[&[u8]], expected| {
            let field = |value| Field {
                name: b"Origin",
                value,
            };
            let fields: Vec<_> = values.iter().copied().map(field).collect();
            let presented = origins.check(&request("GET", "/", &fields));
            assert_eq!(presented, expected, "{values:?}");
        };
        check(&[], Presented::Missing);
        let (ours, other) = ("https://a.example.com", "https://b.example.com");
        check(&[ours.as_bytes()], Presented::Allowed(ours));
        check(&[ours.as_bytes(), ours.as_bytes()], Presented::Malformed);
        check(&[other.as_bytes()], Presented::Foreign(other));
        check(&[b"https://a.example.com\xe9"], Presented::Malformed);
        check(&[b"null"], Presented::Malformed);
    }

    proptest! {
        #[test]
        fn no_accepted_origin_is_outside_the_list(text in "(https?://)?[a-z.@:/*\\-_%0-9\\[\\]]{0,40}(example\\.com)?[a-z.:/@0-9]{0,12}") {
            let origins = Origins::new(OriginPattern::parse_list("crm.example.com,*.w.example.com,http://localhost:*").unwrap());
            if Origin::parse(&text).is_some_and(|origin| origins.allow(&origin)) {
                let exact = text == "https://crm.example.com";
                let below = text.strip_prefix("https://").and_then(|t| t.strip_suffix(".w.example.com"))
                    .is_some_and(|labels| !labels.is_empty() && labels.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
                let local = text.strip_prefix("http://localhost").is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok()));
                prop_assert!(exact || below || local, "{}", text);
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            let _ = Origin::parse(&text);
            let _ = OriginPattern::parse_list(&text);
        }
    }
}
