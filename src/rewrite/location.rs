//! A `Location` to the site's own API, as one that leads through the gateway.

use std::borrow::Cow;

use crate::policy::host::{Authority, without_brackets};
use crate::policy::site::SiteAddress;

/// The path and query of a `Location` to the site's own API: after the route's mount a reference
/// relative to the gateway's address (RFC 9110 section 10.2.2), whatever name and scheme the caller
/// knows it by. `None` for other places, which stay as they are.
///
/// Bytes, not text: sites put raw UTF-8 there.
pub(super) fn within_api<'a>(location: &'a [u8], site: &SiteAddress) -> Option<&'a [u8]> {
    let target = if location.starts_with(b"/") && !location.starts_with(b"//") {
        location
    } else {
        path_at_site(location, site)?
    };
    is_within_api(target).then_some(target)
}

/// Whether a place names somebody in front of its host: a name and a password are credentials.
pub(super) fn names_somebody(location: &[u8]) -> bool {
    let scheme = location
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte)));
    let rest = match scheme {
        Some(end) if location[end..].starts_with(b"://") => &location[end + 3..],
        _ => match location.strip_prefix(b"//") {
            Some(rest) => rest,
            None => return false,
        },
    };
    rest.split(|byte| is_delimiter(*byte))
        .next()
        .is_some_and(|authority| authority.contains(&b'@'))
}

/// Whether a path is that of the API or below it, any of its letters escaped or not, and stays there
/// when its dot segments are resolved.
fn is_within_api(target: &[u8]) -> bool {
    let path = target
        .split(|byte| matches!(byte, b'?' | b'#'))
        .next()
        .unwrap_or_default();
    let mut segments = path.split(|byte| *byte == b'/').map(unescaped);
    let mut is = |expected: &[u8]| {
        segments
            .next()
            .is_some_and(|one| one.eq_ignore_ascii_case(expected))
    };
    if !(is(b"") && is(b"@api") && is(b"deki")) {
        return false;
    }
    let mut depth = 0_usize;
    for segment in segments {
        match &*segment {
            b"." => {}
            b".." if depth == 0 => return false,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

/// A segment with what is percent-encoded in it decoded, once.
fn unescaped(segment: &[u8]) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode(segment).into()
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#')
}

/// What stands after scheme and authority, if those are the site's.
fn path_at_site<'a>(location: &'a [u8], site: &SiteAddress) -> Option<&'a [u8]> {
    let (default_port, rest) = if begins(location, b"//") {
        (if site.tls { 443 } else { 80 }, &location[2..])
    } else if begins(location, b"https://") {
        (443, &location[8..])
    } else if begins(location, b"http://") {
        (80, &location[7..])
    } else {
        return None;
    };
    let end = rest.iter().position(|byte| is_delimiter(*byte))?;
    let (authority, target) = rest.split_at(end);
    let after_user = authority
        .iter()
        .rposition(|byte| *byte == b'@')
        .map_or(0, |at| at + 1);
    let authority = Authority::parse(std::str::from_utf8(&authority[after_user..]).ok()?)?;
    // The site may name itself by either scheme; the port tells whether it is the same server.
    let same_port = authority.port.unwrap_or(default_port) == site.port
        || (authority.port.is_none() && matches!(site.port, 80 | 443));
    let host = authority.canonical_host();
    (without_brackets(&host) == site.host && same_port).then_some(target)
}

fn begins(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: &[u8], expected: Option<&[u8]>) {
        let site = SiteAddress {
            tls: true,
            host: "acme.mindtouch.us".to_owned(),
            port: 443,
            ca: None,
        };
        assert_eq!(
            within_api(location, &site),
            expected,
            "{}",
            location.escape_ascii()
        );
    }

    #[test]
    fn the_sites_own_api_leads_through_the_gateway() {
        check(
            b"https://acme.mindtouch.us/@api/deki/pages/2?x=1",
            Some(b"/@api/deki/pages/2?x=1"),
        );
        check(
            b"HTTP://ACME.mindtouch.us/@api/deki/pages/=A%252FB",
            Some(b"/@api/deki/pages/=A%252FB"),
        );
        check(
            b"https://acme.mindtouch.us:443/@API/deki/pages/2",
            Some(b"/@API/deki/pages/2"),
        );
        check(
            b"https://acme.mindtouch.us./@api/deki/pages/2",
            Some(b"/@api/deki/pages/2"),
        );
        check(
            b"//acme.mindtouch.us/%40api/deki/pages/2",
            Some(b"/%40api/deki/pages/2"),
        );
        check(b"/@api/deki/pages/2", Some(b"/@api/deki/pages/2"));
        let raw = "/@api/deki/pages/=Caf\u{e9}".as_bytes();
        check(raw, Some(raw));
        check(
            b"/@api/deki/pages/=Caf\xe9",
            Some(b"/@api/deki/pages/=Caf\xe9"),
        );
        check(
            "https://acme.mindtouch.us/@api/deki/pages/=Caf\u{e9}".as_bytes(),
            Some(raw),
        );
        check(
            b"https://u:p@acme.mindtouch.us/@api/deki/x",
            Some(b"/@api/deki/x"),
        );
        for target in [
            "/@api/deki",
            "/@api/deki?a=b",
            "/@api/deki#a",
            "/@api/deki/",
            "/%40api/deki/",
            "/%40API/%64eki/pages/1",
            "/@api/deki/pages/2?x=/../..#a",
            "/@api/deki/pages/../files/1",
            "/@api/deki/a/%2E./b",
            "/@api/deki/./x",
            "/@api/deki/pages/=A%252FB",
        ] {
            for at in [
                "",
                "https://acme.mindtouch.us",
                "hTTp://acme.MINDTOUCH.us",
                "//acme.mindtouch.us",
                "https://acme.mindtouch.us:443",
                "https://acme.mindtouch.us.",
            ] {
                let location = format!("{at}{target}");
                check(location.as_bytes(), Some(target.as_bytes()));
            }
        }
    }

    #[test]
    fn who_is_named_in_front_of_a_host() {
        let check = |location: &str, expected| {
            assert_eq!(names_somebody(location.as_bytes()), expected, "{location}");
        };
        for location in [
            "https://u:p@files.example/x",
            "HTTPS://u@files.example",
            "//u:@files.example/x",
            "ftp://a%40b@files.example?x",
        ] {
            check(location, true);
        }
        for location in [
            "https://files.example/@api/deki",
            "https://files.example?a=b@c",
            "https://files.example#a@b",
            "/@api/deki/pages/1",
            "pages/=a@b",
            "mailto:a@b.example",
            "//files.example/a@b",
            "",
            "@",
        ] {
            check(location, false);
        }
    }

    #[test]
    fn other_places_stay_where_they_are() {
        for location in [
            "https://files.mtstatic.com/site/1?Signature=x",
            "https://acme.mindtouch.us/Some/Page",
            "https://acme.mindtouch.us:8443/@api/deki/pages/2",
            "https://acme.mindtouch.us.evil.test/@api/deki/pages/2",
            "https://acme.mindtouch.us@evil.test/@api/deki/pages/2",
            "https://acme.mindtouch.us?/@api/deki/pages/2",
            "https://acme.mindtouch.us",
            "ftp://acme.mindtouch.us/@api/deki/pages/2",
            "/Some/Page",
            "pages/2",
            "/@api/dekix/pages/2",
            "/@api",
            "/@app/x",
            "/@api/deki/../x",
            "/@api/deki/pages/../../x",
            "/@api/deki/%2e%2E/x",
            "/@api/deki/.%2e",
            "//@api/deki/pages/2",
            "//files.mtstatic.com/@api/deki/pages/2",
            "https://acme.mindtouch.us/x/@api/deki/pages/2",
            "//",
            "",
        ] {
            check(location.as_bytes(), None);
        }
    }
}
