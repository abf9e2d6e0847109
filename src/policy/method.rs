//! The method a request becomes: what capabilities, retries and metrics go by, and what is sent.
//!
//! On a POST the API lets `dream.in.verb` or `X-HTTP-Method-Override` replace the method
//! (`DreamHostService` in MindTouch/DReAM); the vendor's PHP client sends every PUT so. A request is
//! judged as what it becomes, and goes to the site as that: nothing rests on the site's reading.

use http::Method;

use super::Refusal;
use super::request::Request;

/// The header that overrides the method of a POST.
pub const OVERRIDE_HEADER: &str = "x-http-method-override";

/// The methods of the API.
pub const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
];

/// The method sent, and the method it becomes. Both are the API's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveMethod {
    /// What the request came with.
    pub sent: Method,
    /// What the site is sent, and will do.
    pub effective: Method,
}

impl EffectiveMethod {
    /// Finds the effective method of a request from its method, the query's `dream.in.verb` and the
    /// override header.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn find(request: &Request<'_>, verb: Option<&Method>) -> Result<Self, Refusal> {
        let header = request
            .only(OVERRIDE_HEADER)
            .map_err(|_| Refusal::ConflictingMethod)?;
        let header = match header {
            None => None,
            Some(value) => Some(
                Method::from_bytes(&value.to_ascii_uppercase())
                    .map_err(|_| Refusal::ConflictingMethod)?,
            ),
        };
        Self::of(request.method, verb, header.as_ref())
    }

    /// The effective method of `sent` under the overrides.
    ///
    /// # Errors
    /// [`Refusal::MethodNotSupported`] for a method that is not the API's (also `get`: methods are
    /// case-sensitive, RFC 9110 section 9.1), [`Refusal::ConflictingMethod`] for overrides that
    /// disagree, or make of a request anything but a PUT or a DELETE of a POST. One that names the
    /// method it came with says nothing and passes.
    pub fn of(
        sent: &[u8],
        verb: Option<&Method>,
        header: Option<&Method>,
    ) -> Result<Self, Refusal> {
        let sent = METHODS
            .into_iter()
            .find(|method| method.as_str().as_bytes() == sent)
            .ok_or(Refusal::MethodNotSupported)?;
        let wanted = match (verb, header) {
            (Some(verb), Some(header)) if verb != header => {
                return Err(Refusal::ConflictingMethod);
            }
            (Some(wanted), _) | (None, Some(wanted)) => wanted.clone(),
            (None, None) => sent.clone(),
        };
        let is_possible = wanted == sent
            || (sent == Method::POST && matches!(wanted, Method::PUT | Method::DELETE));
        if !is_possible {
            return Err(Refusal::ConflictingMethod);
        }
        Ok(Self {
            sent,
            effective: wanted,
        })
    }

    /// The effective method as the request line has it.
    pub fn on_the_wire(&self) -> &'static str {
        match self.effective {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            _ => "OPTIONS",
        }
    }

    /// Whether the request may be sent again after a failure (RFC 9110 section 9.2.2): both as it
    /// came and as it goes it does the same twice as once.
    pub fn may_repeat(&self) -> bool {
        self.sent.is_idempotent() && self.effective.is_idempotent()
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{fields, request};
    use super::*;

    fn check(sent: &str, verb: Option<&str>, headers: &[&str], expected: Result<&str, Refusal>) {
        let verb = verb.map(|text| Method::from_bytes(text.as_bytes()).unwrap());
        let lines: Vec<_> = headers
            .iter()
            .map(|value| ("X-HTTP-Method-Override", *value))
            .collect();
        let fields = fields(&lines);
        let got = EffectiveMethod::find(&request(sent, "/", &fields), verb.as_ref());
        if let Ok(found) = &got {
            assert_eq!(found.sent, sent, "what came is remembered");
            assert_eq!(found.on_the_wire(), found.effective.as_str());
        }
        let got = got
            .as_ref()
            .map(|found| found.effective.as_str())
            .map_err(|r| *r);
        assert_eq!(got, expected, "{sent} {verb:?} {headers:?}");
    }

    #[test]
    fn a_post_becomes_what_it_says() {
        check("POST", None, &[], Ok("POST"));
        check("POST", Some("PUT"), &[], Ok("PUT"));
        check("POST", None, &["DELETE"], Ok("DELETE"));
        check("POST", None, &["delete"], Ok("DELETE"));
        check("POST", Some("PUT"), &["PUT"], Ok("PUT"));
        check("POST", Some("POST"), &[], Ok("POST"));
        check("POST", None, &["POST"], Ok("POST"));
        check("GET", Some("GET"), &[], Ok("GET"));
        check("DELETE", None, &[], Ok("DELETE"));
        check("PUT", None, &["put"], Ok("PUT"));
    }

    #[test]
    fn impossible_overrides_are_refused() {
        let conflict = Err(Refusal::ConflictingMethod);
        check("GET", Some("DELETE"), &[], conflict);
        check("GET", Some("HEAD"), &[], conflict);
        check("GET", None, &["PUT"], conflict);
        check("GET", None, &["OPTIONS"], conflict);
        check("PUT", Some("DELETE"), &[], conflict);
        check("POST", Some("GET"), &[], conflict);
        check("POST", Some("HEAD"), &[], conflict);
        check("POST", None, &["OPTIONS"], conflict);
        check("POST", Some("LOCK"), &[], conflict);
        check("POST", Some("PUT"), &["DELETE"], conflict);
        check("POST", Some("POST"), &["PUT"], conflict);
        check("POST", None, &["PUT", "PUT"], conflict);
        check("POST", None, &["PUT, DELETE"], conflict);
        check("POST", None, &[""], conflict);
    }

    #[test]
    fn other_methods_are_not_supported() {
        for method in [
            "TRACE", "CONNECT", "PATCH", "get", "Post", "PROPFIND", "LOCK", "",
        ] {
            check(method, None, &[], Err(Refusal::MethodNotSupported));
        }
    }

    #[test]
    fn what_may_be_sent_again() {
        let may = |sent: &str, verb: Option<Method>| {
            EffectiveMethod::of(sent.as_bytes(), verb.as_ref(), None)
                .unwrap()
                .may_repeat()
        };
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            assert!(may(method, None), "{method}");
        }
        assert!(!may("POST", None));
        assert!(!may("POST", Some(Method::PUT)), "it came as a POST");
    }
}
