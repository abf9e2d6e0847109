//! From where a request comes that trusted proxies have passed on: `X-Forwarded-For`, `Forwarded`.
//!
//! Each proxy adds the address it was called from at the right end, so the list is read from there,
//! for as long as the one who wrote an entry is trusted: what stands further to the left is the word
//! of strangers. An entry that is no address ends the reading and is never passed over, since what
//! lies beyond it is nobody's word.

use std::net::IpAddr;

use super::peer::Networks;
use super::request::{Field, all};

/// How many entries are read: more proxies in a row than anybody has.
const HOPS_MAX: usize = 32;

/// Whose word about where a request comes from is believed, and where they write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where the proxies are; nobody is trusted where there are none.
    pub networks: Networks,
    /// The header they write. `None`: the one that is there, and where both are, they must agree.
    pub header: Option<Header>,
}

/// A header that proxies write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// `X-Forwarded-For`: addresses, perhaps with ports.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): elements with a `for` parameter each.
    Forwarded,
}

/// Both headers are there and lead to different clients: one of them was written by a proxy, the
/// other by whoever likes, and nothing here tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoClients;

impl TrustedProxies {
    /// From where a request with these fields comes that `peer` has sent.
    ///
    /// # Errors
    /// [`TwoClients`].
    pub fn client(&self, peer: IpAddr, fields: &[Field<'_>]) -> Result<IpAddr, TwoClients> {
        if !self.networks.have(peer) {
            return Ok(peer);
        }
        let told = |header| self.told(header, peer, fields);
        let told = match self.header {
            Some(header) => told(header),
            None => match (told(Header::XForwardedFor), told(Header::Forwarded)) {
                (Some(one), Some(other)) if one != other => return Err(TwoClients),
                (one, other) => one.or(other),
            },
        };
        Ok(told.unwrap_or(peer))
    }

    /// What a header says; nothing if it is not there.
    fn told(&self, header: Header, peer: IpAddr, fields: &[Field<'_>]) -> Option<IpAddr> {
        match header {
            Header::XForwardedFor => {
                let mut lines = all(fields, "x-forwarded-for").rev().peekable();
                lines.peek()?;
                let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
                Some(self.walk(peer, entries.map(|entry| address_of(bare(entry)))))
            }
            Header::Forwarded => {
                let mut lines = all(fields, "forwarded").rev().peekable();
                lines.peek()?;
                let elements = lines.flat_map(|line| Pieces::of(line, b','));
                Some(self.walk(peer, elements.map(node_of)))
            }
        }
    }

    /// The first address from the right that is not trusted, or the last one that is.
    fn walk(&self, peer: IpAddr, entries: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for entry in entries.take(HOPS_MAX) {
            let Some(address) = entry else {
                break;
            };
            client = address;
            if !self.networks.have(client) {
                break;
            }
        }
        client
    }
}

/// An entry without the blanks and the quotes around it.
fn bare(entry: &[u8]) -> &[u8] {
    let entry = entry.trim_ascii();
    let quoted = entry.strip_prefix(b"\"");
    quoted
        .and_then(|entry| entry.strip_suffix(b"\""))
        .unwrap_or(entry)
}

/// The address of an entry, which may have a port; an IPv6 address with one stands in brackets.
fn address_of(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?;
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => {
            let (address, port) = entry.split_at(entry.find(':')?);
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then(|| address.to_canonical())
}

/// Whether a text is a port, or a name in place of one (RFC 7239 section 6).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(is_of_name)
        }
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// The address that an element of `Forwarded` was received from. One that says nothing of it, or
/// names somebody in another way (`unknown`, `_hidden`), has none.
fn node_of(element: &[u8]) -> Option<IpAddr> {
    let mut node = None;
    for pair in Pieces::of(element, b';') {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        // A parameter stands once in an element (RFC 7239 section 4).
        if name.eq_ignore_ascii_case(b"for") && node.replace(&value[1..]).is_some() {
            return None;
        }
    }
    address_of(bare(node?))
}

/// The pieces between separators outside quoted strings, from the right: whatever a stranger has
/// left unquoted or unclosed further to the left changes nothing of what a proxy has added.
#[derive(Debug)]
struct Pieces<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a [u8], separator: u8) -> Self {
        Self {
            rest: Some(text),
            separator,
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            if *byte == b'"' && !(is_quoted && is_escaped(&rest[..at])) {
                is_quoted = !is_quoted;
            } else if *byte == self.separator && !is_quoted {
                self.rest = Some(&rest[..at]);
                return Some(&rest[at + 1..]);
            }
        }
        Some(rest)
    }
}

/// Whether what comes after `before` is escaped by it: an odd number of backslashes.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::fields;
    use super::*;

    const PEER: &str = "10.0.0.9";

    fn trusted(networks: &str, header: Option<Header>) -> TrustedProxies {
        let networks = networks.split(", ").map(|text| text.parse().unwrap());
        TrustedProxies {
            networks: Networks::new(networks.collect()),
            header,
        }
    }

    /// The client that these lines lead to, or `two`.
    fn client(trusted: &TrustedProxies, peer: &str, lines: &[(&str, &str)]) -> String {
        match trusted.client(peer.parse().unwrap(), &fields(lines)) {
            Ok(address) => address.to_string(),
            Err(TwoClients) => "two".to_owned(),
        }
    }

    /// What balancers and proxies were seen to send, or say that they do.
    #[test]
    fn as_products_send_it() {
        let check = |networks: &str, peer: &str, lines: &[(&str, &str)], expected: &str| {
            for header in [
                None,
                Some(match lines[0].0 {
                    "Forwarded" => Header::Forwarded,
                    _ => Header::XForwardedFor,
                }),
            ] {
                let found = client(&trusted(networks, header), peer, lines);
                assert_eq!(found, expected, "{networks} {peer} {lines:?}");
            }
        };
        let ten = "10.0.0.0/8";
        let xff = |networks, value, expected| {
            check(networks, PEER, &[("X-Forwarded-For", value)], expected);
        };
        // AWS ALB: the client sent none; forged one; `xff_client_port`; the same with IPv6.
        xff(ten, "203.0.113.7", "203.0.113.7");
        xff(ten, "1.2.3.4, 203.0.113.7", "203.0.113.7");
        xff(ten, "203.0.113.7:49152", "203.0.113.7");
        xff(ten, "[2001:db8::7]:49152", "2001:db8::7");
        // Azure Application Gateway.
        xff(ten, "203.0.113.7:49152", "203.0.113.7");
        // Google's external load balancer adds its own frontend address, which must be listed, too.
        xff(ten, "203.0.113.7,34.120.5.6", "34.120.5.6");
        xff(
            "10.0.0.0/8, 34.120.5.6/32",
            "1.2.3.4,203.0.113.7,34.120.5.6",
            "203.0.113.7",
        );
        // Cloudflare, then nginx.
        xff(
            "10.0.0.0/8, 173.245.48.0/20",
            "203.0.113.7,173.245.48.9",
            "203.0.113.7",
        );
        // Front Door, then App Service.
        xff(
            "10.0.0.0/8, 147.243.0.0/16",
            "203.211.106.230,147.243.18.238:45498,147.243.18.238",
            "203.211.106.230",
        );
        // HAProxy adds a line.
        let two_lines = [
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-For", "203.0.113.7"),
        ];
        check(ten, PEER, &two_lines, "203.0.113.7");
        // All trusted; garbage on the right; garbage on the left.
        xff(ten, "10.0.0.3, 10.0.0.4", "10.0.0.3");
        xff(ten, "203.0.113.7, unknown", PEER);
        xff(ten, "a,b,c,203.0.113.7", "203.0.113.7");
        let one = [("X-Forwarded-For", "203.0.113.7")];
        check(ten, "::ffff:10.0.0.9", &one, "203.0.113.7");
        check(ten, "198.51.100.9", &one, "198.51.100.9");
        let rfc = |value, expected| check(ten, PEER, &[("Forwarded", value)], expected);
        rfc(
            "for=1.2.3.4, for=\"[2001:db8::7]:4711\";proto=https",
            "2001:db8::7",
        );
        rfc("for=_hidden", PEER);
    }

    #[test]
    fn entries_of_x_forwarded_for() {
        let trusted = trusted("10.0.0.0/8, 2001:db8:a::/48", None);
        let check = |value: &str, expected: &str| {
            let found = client(&trusted, PEER, &[("x-forwarded-for", value)]);
            assert_eq!(found, expected, "{value:?}");
        };
        // Addresses, in every form that is in use.
        check(" \t203.0.113.7\t ", "203.0.113.7");
        check("\"203.0.113.7\"", "203.0.113.7");
        check("\"[2001:db8::7]:1\"", "2001:db8::7");
        check("2001:DB8::7", "2001:db8::7");
        check("[2001:db8::7]", "2001:db8::7");
        check("::ffff:203.0.113.7", "203.0.113.7");
        check("[::ffff:203.0.113.7]:80", "203.0.113.7");
        check("203.0.113.7:0", "203.0.113.7");
        check("203.0.113.7:65535", "203.0.113.7");
        // An IPv6 address without brackets has no port: this is one of eight groups.
        check("2001:db8:0:0:0:0:7:80", "2001:db8::7:80");
        // Through several, some of them with ports or as IPv6.
        check(
            "1.1.1.1, 203.0.113.7, [2001:db8:a::1]:5, ::ffff:10.1.1.1, 10.0.0.2:77",
            "203.0.113.7",
        );
        // No addresses: nobody is passed over, and the one who wrote it counts.
        for odd in [
            "",
            " ",
            ",",
            "203.0.113.7,",
            "203.0.113.7, ,",
            "203.0.113.7, -",
            "203.0.113.7, 203.0.113.8:",
            "203.0.113.7, 203.0.113.8:65536",
            "203.0.113.7, 203.0.113.8:+80",
            "203.0.113.7, 203.0.113.8:80:80",
            "203.0.113.7, 203.0.113.08",
            "203.0.113.7, 203.0.113",
            "203.0.113.7, 0x7f.1",
            "203.0.113.7, 2130706433",
            "203.0.113.7, 203.0.113.8 203.0.113.9",
            "203.0.113.7, 203.0.113.8;203.0.113.9",
            "203.0.113.7, [203.0.113.8]",
            "203.0.113.7, [2001:db8::8",
            "203.0.113.7, 2001:db8::8]",
            "203.0.113.7, [2001:db8::8]80",
            "203.0.113.7, [2001:db8::8]:",
            "203.0.113.7, fe80::1%eth0",
            "203.0.113.7, [fe80::1%25eth0]",
            "203.0.113.7, localhost",
            "203.0.113.7, for=203.0.113.8",
            "203.0.113.7, \"203.0.113.8",
            "203.0.113.7, \u{ff11}.1.1.1",
        ] {
            check(odd, PEER);
        }
        check("203.0.113.7, odd, 10.0.0.2", "10.0.0.2");
    }

    #[test]
    fn lines_are_joined_and_names_have_no_case() {
        let trusted = trusted("10.0.0.0/8", Some(Header::XForwardedFor));
        let check = |lines: &[(&str, &str)], expected: &str| {
            assert_eq!(client(&trusted, PEER, lines), expected, "{lines:?}");
        };
        let [a, b, c] = ["203.0.113.1", "203.0.113.2, 10.0.0.2", "10.0.0.3"];
        let lines = [
            ("x-forwarded-for", a),
            ("X-FORWARDED-FOR", b),
            ("Host", "gateway.test"),
            ("X-Forwarded-For", c),
        ];
        check(&lines, "203.0.113.2");
        check(&[("x-forwarded-for", a), ("x-forwarded-for", "")], PEER);
        for other in [
            "x-forwarded-fo",
            "x-forwarded-for2",
            "x_forwarded_for",
            "x-real-ip",
            "cf-connecting-ip",
            "true-client-ip",
            "x-client-ip",
            "x-original-forwarded-for",
        ] {
            check(&[(other, a)], PEER);
        }
    }

    fn check_element(value: &str, expected: &str) {
        let trusted = trusted("10.0.0.0/8", Some(Header::Forwarded));
        let found = client(&trusted, PEER, &[("forwarded", value)]);
        assert_eq!(found, expected, "{value:?}");
    }

    #[test]
    fn elements_of_forwarded() {
        let check = check_element;
        check("for=203.0.113.7", "203.0.113.7");
        check("FOR=203.0.113.7;By=10.0.0.9", "203.0.113.7");
        check(
            "proto=http;by=\"[2001:db8::1]\";For=\"203.0.113.7:80\"",
            "203.0.113.7",
        );
        check("for=\"203.0.113.7:_port\"", "203.0.113.7");
        check("for=\"[2001:db8::7]\" , for=10.0.0.2", "2001:db8::7");
        check("for=\"[::ffff:203.0.113.7]\"", "203.0.113.7");
        for odd in [
            "",
            "for",
            "for=",
            "for=unknown",
            "for=_gazonk",
            "for=\"_SEVKISEK\"",
            "for=\"203.0.113.7:_\"",
            "for=\"203.0.113.7:-1\"",
            "for=\"203.0.113.7\\\"\"",
            "for = 203.0.113.7",
            "by=203.0.113.7",
            "proto=https",
            "for=203.0.113.7;for=203.0.113.8",
            "for=203.0.113.7;",
            "203.0.113.7",
            "for=203.0.113.7, by=10.0.0.1",
            "for=203.0.113.7,",
            "for:203.0.113.7",
        ] {
            check(odd, PEER);
        }
    }

    #[test]
    fn quotes_of_strangers() {
        let check = check_element;
        // What stands in quotes separates nothing, even where it looks as if.
        check(
            "for=203.0.113.7;host=\"a, for=1.2.3.4;for=1.2.3.4\"",
            "203.0.113.7",
        );
        check(
            "host=\"\\\", for=1.2.3.4, \\\\\";for=203.0.113.7",
            "203.0.113.7",
        );
        check("host=\"x;for=1.2.3.4\";for=203.0.113.7", "203.0.113.7");
        check(
            "for=203.0.113.7;host=\"a\\\", for=1.2.3.4;x=\\\"b\"",
            "203.0.113.7",
        );
        // A stranger's own part may be as broken as it likes.
        for forged in [
            "for=\"",
            "for=\"1.2.3.4",
            "\\\"",
            "\"\\",
            "for=\"\\",
            "host=\"a, for=1.2.3.4",
            ";;;",
            "=\"\"\"",
        ] {
            check(
                &format!("{forged}, for=203.0.113.7;proto=https"),
                "203.0.113.7",
            );
        }
    }

    #[test]
    fn one_header_of_two() {
        let xff = ("X-Forwarded-For", "203.0.113.7");
        let forwarded = ("Forwarded", "for=203.0.113.8");
        let same = (
            "Forwarded",
            "for=\"203.0.113.7:99\";proto=https, for=10.0.0.3",
        );
        let check = |header, lines: &[(&str, &str)], expected: &str| {
            let found = client(&trusted("10.0.0.0/8", header), PEER, lines);
            assert_eq!(found, expected, "{header:?} {lines:?}");
        };
        check(None, &[xff], "203.0.113.7");
        check(None, &[forwarded], "203.0.113.8");
        check(None, &[xff, same], "203.0.113.7");
        // A proxy writes one of them, a stranger the other.
        check(None, &[xff, forwarded], "two");
        check(None, &[forwarded, xff], "two");
        check(None, &[xff, ("Forwarded", "for=unknown")], "two");
        check(None, &[("X-Forwarded-For", ""), forwarded], "two");
        // Where the file says which, the other says nothing.
        check(
            Some(Header::XForwardedFor),
            &[xff, forwarded],
            "203.0.113.7",
        );
        check(Some(Header::Forwarded), &[xff, forwarded], "203.0.113.8");
        check(Some(Header::XForwardedFor), &[forwarded], PEER);
        check(Some(Header::Forwarded), &[xff], PEER);
        // From an address that is not trusted, neither does.
        let found = client(
            &trusted("10.0.0.0/8", None),
            "198.51.100.9",
            &[xff, forwarded],
        );
        assert_eq!(found, "198.51.100.9");
        let nobody = TrustedProxies::default();
        assert_eq!(client(&nobody, PEER, &[xff, forwarded]), PEER);
    }

    #[test]
    fn work_is_bounded() {
        let trusted = trusted("10.0.0.0/8", None);
        let entries: Vec<String> = (0..100).map(|n| format!("10.1.1.{n}")).collect();
        let list = format!("203.0.113.7, {}", entries.join(", "));
        let found = client(&trusted, PEER, &[("X-Forwarded-For", &list)]);
        assert_eq!(
            found,
            format!("10.1.1.{}", 100 - HOPS_MAX),
            "still one that is trusted"
        );
    }
}
