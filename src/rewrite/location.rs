//! A `Location` to the site's own API, as one that leads through the gateway.

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
    let is_api = [&b"/@api/deki/"[..], b"/%40api/deki/"]
        .iter()
        .any(|prefix| begins(target, prefix));
    is_api.then_some(target)
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
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))?;
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
            "//",
            "",
        ] {
            check(location.as_bytes(), None);
        }
    }
}
