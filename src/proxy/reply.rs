//! Writes a refusal or a preflight's answer.
//!
//! A refusal is the API's own error document, so that clients written for the API show its sentence
//! to their users; `resource` and the header `X-Countersign-Refusal` carry the code.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::policy::Refusal;
use crate::policy::cors::{Headers, Sharing};
use crate::policy::parameter::asks_for_json;

/// The header that carries a refusal's code.
pub const REFUSAL_HEADER: &str = "X-Countersign-Refusal";

/// The header that carries a request's id.
pub const REQUEST_ID_HEADER: &str = "X-Request-Id";

/// A refusal, and what its answer needs beside it.
#[derive(Debug)]
pub struct RefusalReply<'a> {
    /// Why.
    pub refusal: Refusal,
    /// The id on the answer.
    pub request_id: &'a str,
    /// Which page may read it.
    pub sharing: &'a Sharing,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// How an error document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The API's default.
    Xml,
    /// `dream.out.format=json`, or what `Accept` prefers.
    Json,
}

impl Format {
    /// The format that a query and the headers of a request ask for.
    pub fn wanted(query: Option<&str>, headers: &HeaderMap) -> Self {
        let by_query = query.and_then(asks_for_json);
        let json = by_query.unwrap_or_else(|| {
            let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
            accept.is_some_and(prefers_json)
        });
        if json { Self::Json } else { Self::Xml }
    }

    /// The error document of a refusal, and its media type.
    pub fn document(self, refusal: Refusal, request_id: &str) -> (Bytes, &'static str) {
        let (status, title) = (refusal.status().as_u16(), title(refusal.status()));
        let (code, sentence) = (refusal.code(), refusal.sentence());
        // Every part is a constant of ours or a request id in hexadecimal: nothing needs escaping.
        match self {
            Self::Xml => (
                Bytes::from(format!(
                    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<error><status>{status}</status><title>{title}</title><message>{sentence}</message><resource>countersign.{code}</resource><request_id>{request_id}</request_id></error>\n"
                )),
                "application/xml; charset=utf-8",
            ),
            Self::Json => (
                Bytes::from(format!(
                    "{{\"status\":\"{status}\",\"title\":\"{title}\",\"message\":\"{sentence}\",\"resource\":\"countersign.{code}\",\"request_id\":\"{request_id}\"}}\n"
                )),
                "application/json; charset=utf-8",
            ),
        }
    }
}

/// Answers with a refusal.
///
/// # Errors
/// The transport's, if the caller is gone.
pub async fn refuse(session: &mut Session, reply: &RefusalReply<'_>) -> pingora::Result<usize> {
    let request = session.req_header();
    let format = Format::wanted(request.uri.query(), &request.headers);
    let is_head = request.method == http::Method::HEAD;
    let (body, media_type) = format.document(reply.refusal, reply.request_id);
    let closes = reply.refusal.closes_connection();
    let mut answer = ResponseHeader::build(reply.refusal.status(), Some(12))?;
    answer.insert_header(CONTENT_TYPE, media_type)?;
    answer.insert_header(CONTENT_LENGTH, body.len())?;
    answer.insert_header(CACHE_CONTROL, "no-store")?;
    answer.insert_header(REFUSAL_HEADER, reply.refusal.code())?;
    answer.insert_header(REQUEST_ID_HEADER, reply.request_id)?;
    if reply.refusal.status() == StatusCode::UNAUTHORIZED {
        answer.insert_header(WWW_AUTHENTICATE, "Bearer realm=\"countersign\"")?;
    }
    if reply.refusal == Refusal::MethodNotSupported {
        answer.insert_header(ALLOW, "GET, HEAD, POST, PUT, DELETE, OPTIONS")?;
    }
    if let Some(pause) = reply.retry_after {
        answer.insert_header(RETRY_AFTER, pause.as_secs_f64().ceil().max(1.0) as u64)?;
    }
    for (name, value) in reply.sharing.headers(&HeaderMap::new()) {
        answer.append_header(name, value)?;
    }
    if closes {
        session.set_keepalive(None);
        answer.insert_header(CONNECTION, "close")?;
    }
    let length = body.len();
    session
        .write_response_header(Box::new(answer), is_head)
        .await?;
    if !is_head {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(length)
}

/// Answers a preflight.
///
/// # Errors
/// The transport's, if the caller is gone.
pub async fn preflight(
    session: &mut Session,
    headers: Headers,
    request_id: &str,
) -> pingora::Result<()> {
    let mut answer = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
    answer.insert_header(REQUEST_ID_HEADER, request_id)?;
    for (name, value) in headers {
        answer.append_header(name, value)?;
    }
    session.write_response_header(Box::new(answer), true).await
}

/// The reason phrase of a status, which the API puts into `title`.
fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// Whether an `Accept` header names JSON with at least the weight of XML (RFC 9110 section 12.5.1).
fn prefers_json(accept: &str) -> bool {
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
    use super::*;

    fn check(query: Option<&str>, accept: Option<&str>, expected: Format) {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        assert_eq!(
            Format::wanted(query, &headers),
            expected,
            "{query:?} {accept:?}"
        );
    }

    #[test]
    fn json_where_it_is_asked_for() {
        check(None, None, Format::Xml);
        check(None, Some("*/*"), Format::Xml);
        check(None, Some("application/json"), Format::Json);
        check(
            None,
            Some("application/json, text/plain, */*"),
            Format::Json,
        );
        check(
            None,
            Some("application/xml, application/json;q=0.5"),
            Format::Xml,
        );
        check(Some("dream.out.format=json"), None, Format::Json);
        check(
            Some("dream.out.format=xml"),
            Some("application/json"),
            Format::Xml,
        );
    }

    #[test]
    fn every_document_is_well_formed() {
        for refusal in Refusal::all() {
            let (json, _) = Format::Json.document(refusal, "00ff");
            let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(
                parsed["resource"],
                format!("countersign.{}", refusal.code())
            );
            let (xml, _) = Format::Xml.document(refusal, "00ff");
            let mut reader = quick_xml::Reader::from_reader(&xml[..]);
            reader.config_mut().check_end_names = true;
            while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
        }
    }
}
