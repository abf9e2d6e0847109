//! An answer of the site is cleaned before it goes down.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{StatusCode, Uri};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};

use crate::policy::Admission;
use crate::policy::site::SiteAddress;
use crate::scrub;

/// The media type of Dream's stack traces.
const DREAM_EXCEPTION: &[u8] = b"application/x-dream-exception+xml";

/// Cleans the header section of an answer.
///
/// # Errors
/// If the answer may not be passed on at all: a protocol switch nobody asked for, a stack trace.
pub fn clean(answer: &mut ResponseHeader, admission: &Admission) -> Result<()> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(invalid("a 101 that nobody asked for"));
    }
    let media_type = answer
        .headers
        .get(CONTENT_TYPE)
        .map(|value| value.as_bytes());
    let is_trace = media_type.is_some_and(|value| {
        value
            .get(..DREAM_EXCEPTION.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(DREAM_EXCEPTION))
    });
    if is_trace {
        return Err(invalid("a stack trace"));
    }
    for name in scrub::answer(&answer.headers) {
        answer.remove_header(&name);
    }
    let route = &admission.route;
    if withholds_body(admission) && !answer.status.is_informational() {
        // Any header may hold what the body would.
        let names: Vec<_> = answer.headers.keys().cloned().collect();
        for name in names {
            answer.remove_header(&name);
        }
        answer.insert_header(CONTENT_LENGTH, 0)?;
        answer.insert_header(CACHE_CONTROL, "no-store")?;
        return Ok(());
    }
    let location = answer
        .headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    if let Some(ours) =
        location.and_then(|text| through_gateway(text, &route.site.address, &route.mount))
    {
        answer.insert_header(LOCATION, ours)?;
    }
    Ok(())
}

/// Whether the body of the answer holds a credential that the route does not hand on.
pub fn withholds_body(admission: &Admission) -> bool {
    admission.mints && !admission.route.return_sessions
}

/// An error of the site's own making.
fn invalid(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}

/// A `Location` to the site's own API as a reference that leads through the gateway: relative to
/// its address (RFC 9110 section 10.2.2), whatever name and scheme the caller knows it by.
fn through_gateway(location: &str, site: &SiteAddress, mount: &str) -> Option<String> {
    let target = if location.starts_with('/') && !location.starts_with("//") {
        location
    } else {
        let absolute = if location.starts_with("//") {
            format!("{}:{location}", if site.tls { "https" } else { "http" })
        } else {
            location.to_owned()
        };
        let uri: Uri = absolute.parse().ok()?;
        let scheme = uri.scheme_str()?;
        let default_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']);
        // The site may name itself by either scheme; the port tells whether it is the same server.
        let same_port = uri.port_u16().unwrap_or(default_port) == site.port
            || (uri.port().is_none() && matches!(site.port, 80 | 443));
        if !host.eq_ignore_ascii_case(&site.host) || !same_port {
            return None;
        }
        let after_scheme = &location[location.find("//")? + 2..];
        &after_scheme[after_scheme.find('/')?..]
    };
    let is_api = ["/@api/deki/", "/%40api/deki/"].iter().any(|prefix| {
        target
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    });
    is_api.then(|| format!("{mount}{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(location: &str, expected: Option<&str>) {
        let site = SiteAddress {
            tls: true,
            host: "acme.mindtouch.us".to_owned(),
            port: 443,
            ca: None,
            h2: true,
        };
        assert_eq!(
            through_gateway(location, &site, "/crm").as_deref(),
            expected,
            "{location}"
        );
    }

    #[test]
    fn the_sites_own_api_leads_through_the_gateway() {
        check(
            "https://acme.mindtouch.us/@api/deki/pages/2?x=1",
            Some("/crm/@api/deki/pages/2?x=1"),
        );
        check(
            "http://ACME.mindtouch.us/@api/deki/pages/=A%252FB",
            Some("/crm/@api/deki/pages/=A%252FB"),
        );
        check(
            "https://acme.mindtouch.us:443/@api/deki/pages/2",
            Some("/crm/@api/deki/pages/2"),
        );
        check(
            "//acme.mindtouch.us/@api/deki/pages/2",
            Some("/crm/@api/deki/pages/2"),
        );
        check("/@api/deki/pages/2", Some("/crm/@api/deki/pages/2"));
    }

    #[test]
    fn other_places_stay_where_they_are() {
        check("https://files.mtstatic.com/site/1?Signature=x", None);
        check("https://acme.mindtouch.us/Some/Page", None);
        check("https://acme.mindtouch.us:8443/@api/deki/pages/2", None);
        check(
            "https://acme.mindtouch.us.evil.test/@api/deki/pages/2",
            None,
        );
        check("/Some/Page", None);
        check("pages/2", None);
        check("", None);
    }
}
