//! Cross-origin resource sharing as the Fetch standard has it: what a preflight is, and the headers
//! that let an allowed page read an answer.
//!
//! The headers only tell a browser what its page may *read*. What keeps a foreign page's request
//! from the site is the refusal in [`super::Policy::decide`], on every method.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use super::Refusal;

/// How long a browser may remember a preflight, in seconds: what Chromium caps it to.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// What a page may read beside the safelisted headers.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Deki-Session, ETag, Location, Retry-After, X-Request-Id, X-Countersign-Refusal",
);

/// What a page may always send.
const SENDABLE: &str = "Content-Type, X-Deki-Token, X-Deki-Client, X-Deki-Requested-With, X-Requested-With, \
Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range";

const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// What a route answers to preflights, put together once.
#[derive(Clone, Debug)]
pub struct Preflights {
    methods: HeaderValue,
    headers: HeaderValue,
}

impl Preflights {
    /// The answer of a route that allows `methods`, with the headers its pages send beside the usual
    /// ones (the credentials of its callers, those it names).
    pub fn new(methods: &[Method], more_headers: &[HeaderName]) -> Self {
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let more = more_headers.iter().map(HeaderName::as_str);
        let headers: Vec<&str> = std::iter::once(SENDABLE).chain(more).collect();
        let text = |parts: &[&str]| {
            HeaderValue::from_str(&parts.join(", "))
                .expect("methods and header names are visible ASCII")
        };
        Self {
            methods: text(&methods),
            headers: text(&headers),
        }
    }

    /// The headers of a 204 to a preflight of an allowed page.
    pub fn answer(&self, sharing: &Sharing) -> Headers {
        let mut headers = sharing.allow();
        headers.extend([
            (ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()),
            (ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone()),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS),
            (VARY, VARY_PREFLIGHT),
        ]);
        headers
    }
}

/// Headers to append to an answer.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// Which page may read an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The page's origin as it sent it, if it may read the answer.
    pub origin: Option<HeaderValue>,
    /// Whether a page that fetches with credentials may read it too. Nothing ambient counts: cookies
    /// and `Authorization` are dropped.
    pub with_credentials: bool,
}

impl Sharing {
    /// The headers to append to an answer that carries no CORS headers of the site any more
    /// ([`crate::scrub::answer`] takes them): leave for the page to read it, and `Vary: Origin`
    /// unless it varies by that already.
    pub fn headers(&self, answer: &HeaderMap) -> Headers {
        let mut headers = self.allow();
        if self.origin.is_some() {
            headers.push((ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED));
        }
        let varies = answer.get_all(VARY).iter().any(|value| {
            let mut tokens = value.to_str().unwrap_or_default().split(',').map(str::trim);
            tokens.any(|token| token == "*" || token.eq_ignore_ascii_case("origin"))
        });
        if !varies {
            headers.push((VARY, HeaderValue::from_static("Origin")));
        }
        headers
    }

    fn allow(&self) -> Headers {
        let mut headers = Vec::with_capacity(6);
        if let Some(origin) = &self.origin {
            headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            if self.with_credentials {
                headers.push((
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                ));
            }
        }
        headers
    }
}

/// The method a preflight asks for; `None` if the request is none (Fetch standard, CORS-preflight
/// request: OPTIONS with `Origin` and `Access-Control-Request-Method`).
///
/// # Errors
/// [`Refusal::BadMessage`] if it asks for several or for what is no method.
pub fn preflight_method(method: &Method, headers: &HeaderMap) -> Result<Option<Method>, Refusal> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return Ok(None);
    }
    let mut asked = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
    match (asked.next(), asked.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Method::from_bytes(value.as_bytes())
            .map(Some)
            .map_err(|_| Refusal::BadMessage),
        (Some(_), Some(_)) => Err(Refusal::BadMessage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sharing() -> Sharing {
        Sharing {
            origin: Some(HeaderValue::from_static("https://crm.example.com")),
            with_credentials: true,
        }
    }

    fn text(headers: Headers) -> Vec<String> {
        headers
            .into_iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn an_allowed_page_may_read() {
        let mut answer = HeaderMap::new();
        answer.append(VARY, HeaderValue::from_static("Accept"));
        let lines = text(sharing().headers(&answer));
        assert_eq!(
            lines[0],
            "access-control-allow-origin: https://crm.example.com"
        );
        assert_eq!(lines[1], "access-control-allow-credentials: true");
        assert!(lines[2].starts_with("access-control-expose-headers: X-Deki-Session"));
        assert_eq!(lines[3..], ["vary: Origin"]);
    }

    #[test]
    fn nobody_is_told_nothing_but_vary() {
        let mut answer = HeaderMap::new();
        assert_eq!(text(Sharing::default().headers(&answer)), ["vary: Origin"]);
        answer.append(VARY, HeaderValue::from_static("accept, origin"));
        assert_eq!(
            text(Sharing::default().headers(&answer)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_preflights_answer() {
        let preflights = Preflights::new(
            &[Method::GET, Method::POST],
            &[HeaderName::from_static("x-api-key")],
        );
        let lines = text(preflights.answer(&sharing()));
        assert!(lines.contains(&"access-control-allow-methods: GET, POST".to_owned()));
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("access-control-allow-headers")
                    && line.ends_with("If-Range, x-api-key"))
        );
        assert!(
            lines.contains(
                &"vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
                    .to_owned()
            )
        );
        assert!(lines.contains(&"access-control-allow-credentials: true".to_owned()));
    }

    #[test]
    fn what_a_preflight_is() {
        let mut headers = HeaderMap::new();
        let ask = |method: Method, headers: &HeaderMap| preflight_method(&method, headers);
        assert_eq!(ask(Method::OPTIONS, &headers), Ok(None));
        headers.insert(ORIGIN, HeaderValue::from_static("https://a.test"));
        assert_eq!(ask(Method::OPTIONS, &headers), Ok(None));
        headers.append(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("PUT"),
        );
        assert_eq!(ask(Method::OPTIONS, &headers), Ok(Some(Method::PUT)));
        assert_eq!(ask(Method::GET, &headers), Ok(None));
        headers.append(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("PUT"),
        );
        assert_eq!(ask(Method::OPTIONS, &headers), Err(Refusal::BadMessage));
    }
}
