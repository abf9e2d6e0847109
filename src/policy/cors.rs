//! Cross-origin resource sharing as the Fetch standard has it: what a preflight is, what a route says
//! to one, and which page may read an answer.
//!
//! The headers that come of it ([`crate::rewrite`] writes them) only tell a browser what its page may
//! *read*. What keeps a foreign page's request from the site is the refusal in
//! [`super::Policy::decide`], on every method.

use std::sync::Arc;

use http::Method;

use super::Refusal;
use super::fault::MessageFault;
use super::request::{Repeated, Request};

/// What a page may always send.
const SENDABLE: &str = "Content-Type, X-Deki-Token, X-Deki-Client, X-Deki-Requested-With, X-Requested-With, \
Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range";

/// What a route answers to preflights, put together once. Cloning it copies no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflights {
    /// The value of `Access-Control-Allow-Methods`.
    pub methods: Arc<str>,
    /// The value of `Access-Control-Allow-Headers`.
    pub headers: Arc<str>,
}

impl Preflights {
    /// The answer of a route that allows `methods`, with the headers its pages send beside the usual
    /// ones (the credentials of its callers, those it names).
    pub fn new<'a>(methods: &[Method], more_headers: impl IntoIterator<Item = &'a str>) -> Self {
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let headers: Vec<&str> = std::iter::once(SENDABLE).chain(more_headers).collect();
        Self {
            methods: methods.join(", ").into(),
            headers: headers.join(", ").into(),
        }
    }
}

/// Which page may read an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The page's origin as it sent it, if it may read the answer.
    pub origin: Option<Box<str>>,
    /// Whether a page that fetches with credentials may read it too. Nothing ambient counts: cookies
    /// and `Authorization` are dropped.
    pub with_credentials: bool,
}

/// The method a preflight asks for; `None` if the request is none (Fetch standard, CORS-preflight
/// request: OPTIONS with `Origin` and `Access-Control-Request-Method`).
///
/// # Errors
/// [`Refusal::BadMessage`] if it asks for several or for what is no method.
pub fn preflight_method<'a>(request: &Request<'a>) -> Result<Option<&'a [u8]>, Refusal> {
    if request.method != b"OPTIONS" || request.all("origin").next().is_none() {
        return Ok(None);
    }
    let asked = request
        .only("access-control-request-method")
        .map_err(|Repeated| Refusal::BadMessage(MessageFault::Repeated))?;
    match asked {
        Some(value) if Method::from_bytes(value).is_err() => {
            Err(Refusal::BadMessage(MessageFault::Value))
        }
        asked => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{fields, request};
    use super::*;

    #[test]
    fn a_preflights_answer() {
        let preflights = Preflights::new(&[Method::GET, Method::POST], ["x-api-key"]);
        assert_eq!(&*preflights.methods, "GET, POST");
        assert!(preflights.headers.starts_with("Content-Type, X-Deki-Token"));
        assert!(preflights.headers.ends_with("If-Range, x-api-key"));
    }

    #[test]
    fn what_a_preflight_is() {
        let check = |method: &str, lines: &[(&str, &str)], expected| {
            let fields = fields(lines);
            let asked = preflight_method(&request(method, "/", &fields));
            assert_eq!(asked, expected, "{method} {lines:?}");
        };
        let origin = ("Origin", "https://a.test");
        let put = ("Access-Control-Request-Method", "PUT");
        check("OPTIONS", &[], Ok(None));
        check("OPTIONS", &[origin], Ok(None));
        check("OPTIONS", &[put], Ok(None));
        check("OPTIONS", &[origin, put], Ok(Some(b"PUT")));
        check("GET", &[origin, put], Ok(None));
        let repeated = Refusal::BadMessage(MessageFault::Repeated);
        check("OPTIONS", &[origin, put, put], Err(repeated));
        let odd = ("access-control-request-method", "PUT, GET");
        let odd_value = Refusal::BadMessage(MessageFault::Value);
        check("OPTIONS", &[origin, odd], Err(odd_value));
    }
}
