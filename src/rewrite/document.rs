//! What we answer ourselves: a refusal as the API's own error document, a preflight's answer.
//!
//! Clients written for the API show the sentence of an error document to their users; `resource` and
//! the header `X-Countersign-Refusal` carry the code.

use std::time::Duration;

use http::StatusCode;

use super::sharing::{grant, share};
use super::{REFUSAL_HEADER, REQUEST_ID_HEADER, Value};
use crate::policy::Refusal;
use crate::policy::cors::{Preflights, Sharing};
use crate::policy::parameter::asks_for_json;
use crate::policy::request::Request;
use crate::policy::route::Route;

/// An answer of our own, but for what frames it and `Connection`.
#[derive(Debug)]
pub struct Own<'a> {
    /// The status code.
    pub status: u16,
    /// Its fields.
    pub set: Vec<(&'static str, Value<'a>)>,
    /// Its body; empty where there is none.
    pub body: Vec<u8>,
}

/// What a request wants of a refusal. By default an XML document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Whether `dream.out.format=json` or what `Accept` prefers.
    pub json: bool,
}

impl Wants {
    /// What a request wants, whatever else is wrong with it.
    pub fn of(request: &Request<'_>) -> Self {
        let mut parts = request.target.splitn(2, |byte| *byte == b'?');
        let query = parts
            .nth(1)
            .and_then(|query| std::str::from_utf8(query).ok());
        let by_accept = || {
            let accept = request.all("accept").next();
            accept.is_some_and(prefers_json)
        };
        Self {
            json: query.and_then(asks_for_json).unwrap_or_else(by_accept),
        }
    }
}

/// The answer that says no; `route` is the one that answers, if one was found.
pub fn refusal<'a>(
    refusal: Refusal,
    route: Option<&Route>,
    wants: Wants,
    request_id: &'a str,
    sharing: &'a Sharing,
    retry_after: Option<Duration>,
) -> Own<'a> {
    let (body, media_type) = document(refusal, wants.json, request_id);
    let mut set = Vec::with_capacity(10);
    set.extend([
        ("Content-Type", Value::Static(media_type)),
        ("Cache-Control", Value::Static("no-store")),
        (REFUSAL_HEADER, Value::Static(refusal.code())),
        (REQUEST_ID_HEADER, Value::Bytes(request_id.as_bytes())),
    ]);
    if refusal.status() == StatusCode::UNAUTHORIZED {
        let challenge = Value::Static("Bearer realm=\"countersign\"");
        set.push(("WWW-Authenticate", challenge));
        if route.is_some_and(Route::asks_for_passwords) {
            // RFC 7617 section 2.1.
            let challenge = Value::Static("Basic realm=\"countersign\", charset=\"UTF-8\"");
            set.push(("WWW-Authenticate", challenge));
        }
    }
    if refusal == Refusal::MethodNotSupported {
        let methods = Value::Static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
        set.push(("Allow", methods));
    }
    if let Some(pause) = retry_after {
        // Rounded up: who comes back a moment too early waits once more.
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        set.push(("Retry-After", Value::Number(seconds.max(1))));
    }
    share(sharing, &[], std::iter::empty(), &mut set);
    Own {
        status: refusal.status().as_u16(),
        set,
        body,
    }
}

/// The answer to a preflight of the page that `sharing` names.
pub fn preflight<'a>(
    preflights: &'a Preflights,
    sharing: &'a Sharing,
    request_id: &'a str,
) -> Own<'a> {
    let mut set = Vec::with_capacity(8);
    set.push((REQUEST_ID_HEADER, Value::Bytes(request_id.as_bytes())));
    grant(preflights, sharing, &mut set);
    Own {
        status: 204,
        set,
        body: Vec::new(),
    }
}

/// The answer to an OPTIONS that may go no further.
pub fn options<'a>(methods: &'a str, sharing: &'a Sharing, request_id: &'a str) -> Own<'a> {
    let mut set = Vec::with_capacity(8);
    set.push(("Allow", Value::Bytes(methods.as_bytes())));
    set.push((REQUEST_ID_HEADER, Value::Bytes(request_id.as_bytes())));
    share(sharing, &[], std::iter::empty(), &mut set);
    Own {
        status: 204,
        set,
        body: Vec::new(),
    }
}

/// The error document of a refusal, and its media type.
fn document(refusal: Refusal, json: bool, request_id: &str) -> (Vec<u8>, &'static str) {
    let status = refusal.status();
    // The reason phrase of the status, which the API puts into `title`.
    let title = status.canonical_reason().unwrap_or("Error");
    let (status, code, sentence) = (status.as_u16(), refusal.code(), refusal.sentence());
    // Every part is a constant of ours or a request id in hexadecimal: nothing needs escaping.
    if json {
        let text = format!(
            "{{\"status\":\"{status}\",\"title\":\"{title}\",\"message\":\"{sentence}\",\"resource\":\"countersign.{code}\",\"request_id\":\"{request_id}\"}}\n"
        );
        (text.into_bytes(), "application/json; charset=utf-8")
    } else {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<error><status>{status}</status><title>{title}</title><message>{sentence}</message><resource>countersign.{code}</resource><request_id>{request_id}</request_id></error>\n"
        );
        (text.into_bytes(), "application/xml; charset=utf-8")
    }
}

/// Whether an `Accept` header names JSON with at least the weight of XML (RFC 9110 section 12.5.1).
fn prefers_json(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else {
        return false;
    };
    let weight = |wanted: &[&str]| {
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next()?;
            let named = wanted.iter().any(|one| media.eq_ignore_ascii_case(one));
            let weight = parts
                .find_map(|part| part.strip_prefix("q="))
                .unwrap_or("1");
            named.then(|| weight.parse::<f32>().unwrap_or(0.0))
        });
        ranges.fold(0.0, f32::max)
    };
    let json = weight(&["application/json"]);
    json > 0.0 && json >= weight(&["application/xml", "text/xml"])
}

#[cfg(test)]
mod tests {
    use super::super::tests::set_lines;
    use super::*;
    use crate::policy::request::tests::{fields, request};

    fn check(target: &str, accept: Option<&str>, json: bool) {
        let lines: Vec<_> = accept.iter().map(|value| ("Accept", *value)).collect();
        let fields = fields(&lines);
        let wants = Wants::of(&request("GET", target, &fields));
        let expected = Wants { json };
        assert_eq!(wants, expected, "{target} {accept:?}");
    }

    #[test]
    fn json_where_it_is_asked_for() {
        check("/", None, false);
        check("/", Some("*/*"), false);
        check("/", Some("application/json"), true);
        check("/", Some("application/json, text/plain, */*"), true);
        check("/", Some("application/xml, application/json;q=0.5"), false);
        check("/?dream.out.format=json", None, true);
        check("/?a=b?&dream.out.format=json", None, true);
        check("/?dream.out.format=xml", Some("application/json"), false);
        check("/dream.out.format=json", None, false);
    }

    #[test]
    fn every_document_is_well_formed() {
        for refusal in Refusal::all() {
            let (json, _) = document(refusal, true, "00ff");
            let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(
                parsed["resource"],
                format!("countersign.{}", refusal.code())
            );
            let (xml, _) = document(refusal, false, "00ff");
            let mut reader = quick_xml::Reader::from_reader(&xml[..]);
            reader.config_mut().check_end_names = true;
            while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
        }
    }

    #[test]
    fn what_stands_on_a_refusal() {
        let sharing = Sharing::default();
        let lines = |refusal: Refusal, retry_after| {
            let Own { status, set, .. } = super::refusal(
                refusal,
                None,
                Wants::default(),
                "00ff",
                &sharing,
                retry_after,
            );
            assert_eq!(status, refusal.status().as_u16());
            set_lines(&set)
        };
        assert_eq!(
            lines(Refusal::NoRoute, None),
            [
                "Content-Type: application/xml; charset=utf-8",
                "Cache-Control: no-store",
                "X-Countersign-Refusal: no_route",
                "X-Request-Id: 00ff",
                "Vary: Origin",
            ]
        );
        let has = |lines: Vec<String>, line: &str| {
            assert!(lines.iter().any(|one| one == line), "{line}: {lines:?}");
        };
        has(
            lines(Refusal::CredentialMissing, None),
            "WWW-Authenticate: Bearer realm=\"countersign\"",
        );
        has(
            lines(Refusal::MethodNotSupported, None),
            "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS",
        );
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            let pause = Some(Duration::from_millis(millis));
            let line = format!("Retry-After: {seconds}");
            has(lines(Refusal::RateLimited, pause), &line);
        }
    }
}
