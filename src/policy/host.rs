//! Hosts, schemes and ports: one reader for sites, routes, origins and the `Host` of a request.
//!
//! A [`Host`] of the file is canonical: lower case, A-labels (UTS 46), IPv6 in brackets as RFC 5952
//! writes it. An [`Authority`] is what a peer wrote, checked but not changed.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a web page or a site is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP over TLS.
    Https,
    /// HTTP in the clear.
    Http,
}

impl Scheme {
    /// Takes `https://` or `http://` from the front of a text.
    pub fn strip(text: &str) -> Option<(Self, &str)> {
        text.strip_prefix("https://")
            .map(|rest| (Self::Https, rest))
            .or_else(|| text.strip_prefix("http://").map(|rest| (Self::Http, rest)))
    }

    /// The port that goes without saying.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// A host of the file: a DNS name in lower-case A-labels without a final dot, an IPv4 address, or an
/// IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host(Box<str>);

impl Host {
    /// Reads a host as people write it; `None` if it is none.
    ///
    /// An underscore may stand in a label: networks of containers name hosts so. A final dot, which
    /// marks a name as complete, names the same host and is cut.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            format!("[{address}]")
        } else {
            let ascii =
                idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL).ok()?;
            without_final_dot(&ascii).to_owned()
        };
        is_canonical(&canonical, |byte| byte == b'_').then(|| Self(canonical.into()))
    }

    /// The host as it stands in an authority.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host as resolvers and TLS take it: an IPv6 address without its brackets.
    pub fn without_brackets(&self) -> &str {
        without_brackets(&self.0)
    }

    /// Whether it is an IP address.
    pub fn is_address(&self) -> bool {
        self.0.starts_with('[') || self.0.parse::<Ipv4Addr>().is_ok()
    }

    /// Whether it is this machine itself, so that nothing sent there crosses a network (RFC 6761
    /// section 6.3 for the name).
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Whether a browser writes the host so in an `Origin`.
    pub fn is_spelt_by_browsers(&self) -> bool {
        is_canonical(&self.0, |_| false)
    }
}

/// Whether a host, with or without brackets, is this machine itself.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || without_brackets(host)
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An authority without user information: `host` or `host:port`, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host; an IPv6 address with its brackets.
    pub host: &'a str,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// All of it.
    pub text: &'a str,
}

impl<'a> Authority<'a> {
    /// Reads an authority (RFC 3986 section 3.2, of which only hosts that exist: letters, digits,
    /// `-`, `.`, `_`, or an IPv6 address in brackets).
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = split_port(text);
        let port = match port {
            None => None,
            Some(digits) => Some(port_number(digits)?),
        };
        let is_host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && !host.bytes().fold(false, |odd, byte| odd | !of_a_name(byte))
            }
        };
        is_host.then_some(Self { host, port, text })
    }

    /// The host in the spelling of a [`Host`] of the file: lower case, no final dot, an IPv6 address
    /// in its shortest form. Routes are found by it.
    pub fn canonical_host(&self) -> Cow<'a, str> {
        if self.host.starts_with('[') {
            let address = without_brackets(self.host).parse::<Ipv6Addr>();
            return address.map_or(Cow::Borrowed(self.host), |it| Cow::Owned(format!("[{it}]")));
        }
        let host = without_final_dot(self.host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        }
    }
}

fn of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_')
}

/// Splits `host:port`; the colons of an IPv6 address stand in brackets.
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    let bytes = text.as_bytes();
    let after_host = memchr::memrchr(b']', bytes).map_or(0, |bracket| bracket + 1);
    match memchr::memchr(b':', &bytes[after_host..]) {
        Some(colon) => (
            &text[..after_host + colon],
            Some(&text[after_host + colon + 1..]),
        ),
        None => (text, None),
    }
}

/// A port as a browser writes it: digits without leading zeros, not 0.
pub fn port_number(text: &str) -> Option<u16> {
    let digits =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    digits.then(|| text.parse().ok()).flatten()
}

/// A host as a browser writes it: an IPv4 address, an IPv6 address in brackets, or A-labels of
/// lower-case letters, digits and hyphens.
pub fn is_spelt_by_browsers(host: &str) -> bool {
    is_canonical(host, |_| false)
}

fn is_canonical(host: &str, also: impl Fn(u8) -> bool) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else {
            return false;
        };
        return inner
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| address.to_string() == inner);
    }
    if host.len() > 253 {
        return false;
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || also(b))
    };
    let last_is_number = host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    // A name whose last label is a number is an IPv4 address or nothing (URL standard, 3.6).
    host.split('.').all(label) && (!last_is_number || host.parse::<Ipv4Addr>().is_ok())
}

fn without_final_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// An IPv6 address without its brackets, and any other host as it is.
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_the_file() {
        let check = |text: &str, expected: Option<&str>| {
            let host = Host::parse(text);
            assert_eq!(host.as_ref().map(Host::as_str), expected, "{text}");
        };
        check("ACME.mindtouch.us", Some("acme.mindtouch.us"));
        check("B\u{dc}CHER.example", Some("xn--bcher-kva.example"));
        check("XN--BCHER-KVA.example.", Some("xn--bcher-kva.example"));
        check("b.example.com.", Some("b.example.com"));
        // The ideographic full stop is a dot (UTS 46).
        check("b\u{3002}example\u{3002}com\u{3002}", Some("b.example.com"));
        check("127.0.0.1.", Some("127.0.0.1"));
        check("[0:0:0:0:0:0:0:1]", Some("[::1]"));
        check("127.0.0.1", Some("127.0.0.1"));
        check("my_site", Some("my_site"));
        for text in [
            "", ".", "a..", "a..b", ".a", "a/b", "a:1", "[::1", "::1", "a b", "a@b", "*.a", "1.2.3",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn authorities() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let authority = Authority::parse(text).map(|a| (a.host, a.port));
            assert_eq!(authority, expected, "{text}");
        };
        check("gw.example", Some(("gw.example", None)));
        check("gw.example:8080", Some(("gw.example", Some(8080))));
        check("[::1]:80", Some(("[::1]", Some(80))));
        for text in [
            "", ":80", "a:", "a:0", "a:99999", "a:b", "a@b", "a/b", "a b", "a,b", "a%41", "a[::1]",
            "[::1]a", "[::1]]", "a:1:2", "[v1.x]", "\u{f6}",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn host_names() {
        let name = |text: &str| {
            Authority::parse(text)
                .unwrap()
                .canonical_host()
                .into_owned()
        };
        assert_eq!(name("GW.Example:8080"), "gw.example");
        assert_eq!(name("GW.example.:8080"), "gw.example");
        assert_eq!(name("gw.example.."), "gw.example.", "one dot, not two");
        assert_eq!(name("127.0.0.1."), "127.0.0.1");
        assert_eq!(name("[::1]:80"), "[::1]");
        assert_eq!(name("[0:0:0:0:0:0:0:1]"), "[::1]");
        assert_eq!(name("[FE80::A]"), "[fe80::a]");
    }

    #[test]
    fn this_machine() {
        for host in [
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "127.8.0.1",
            "[::1]",
        ] {
            assert!(Host::parse(host).unwrap().is_loopback(), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]", "xlocalhost"] {
            assert!(!Host::parse(host).unwrap().is_loopback(), "{host}");
        }
    }
}
