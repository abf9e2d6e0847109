//! The method a request becomes: what capabilities, retries and metrics go by.
//!
//! On a POST the API lets `dream.in.verb` or `X-HTTP-Method-Override` replace the method, on a GET
//! only by HEAD or OPTIONS (`DreamHostService` in MindTouch/DReAM). The vendor's PHP client sends
//! every PUT so. A request is judged as what it becomes at the site.

use http::{HeaderMap, Method};

use super::Refusal;

/// The header that overrides the method of a POST.
pub const OVERRIDE_HEADER: &str = "x-http-method-override";

/// The method sent, and the method it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveMethod {
    /// What the site will do.
    pub effective: Method,
    /// Whether [`OVERRIDE_HEADER`] is what makes it so, and must be sent on.
    pub by_header: bool,
}

impl EffectiveMethod {
    /// Finds the effective method from the method sent, the query's `dream.in.verb` and the headers.
    ///
    /// # Errors
    /// [`Refusal::MethodNotSupported`] for a method that is not the API's (also `get`: methods are
    /// case-sensitive, RFC 9110 section 9.1), [`Refusal::ConflictingMethod`] for overrides that
    /// repeat, disagree, or ask for what the site would not do.
    pub fn find(
        sent: &Method,
        verb: Option<&Method>,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        if !METHODS.contains(sent) {
            return Err(Refusal::MethodNotSupported);
        }
        let mut overrides = headers.get_all(OVERRIDE_HEADER).iter();
        let header = match (overrides.next(), overrides.next()) {
            (None, _) => None,
            (Some(value), None) => {
                let value = value.as_bytes().to_ascii_uppercase();
                Some(Method::from_bytes(&value).map_err(|_| Refusal::ConflictingMethod)?)
            }
            (Some(_), Some(_)) => return Err(Refusal::ConflictingMethod),
        };
        let wanted = match (verb, header.as_ref()) {
            (None, None) => sent,
            (Some(verb), None) => verb,
            (None, Some(header)) => header,
            (Some(verb), Some(header)) if verb == header => verb,
            (Some(_), Some(_)) => return Err(Refusal::ConflictingMethod),
        };
        let possible: &[Method] = match *sent {
            Method::POST => &[
                Method::POST,
                Method::PUT,
                Method::DELETE,
                Method::HEAD,
                Method::OPTIONS,
            ],
            Method::GET => &[Method::GET, Method::HEAD, Method::OPTIONS],
            _ => std::slice::from_ref(sent),
        };
        if !possible.contains(wanted) {
            return Err(Refusal::ConflictingMethod);
        }
        Ok(Self {
            effective: wanted.clone(),
            by_header: verb.is_none() && wanted != sent,
        })
    }

    /// Whether the request may be sent again after a failure (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.effective.is_idempotent()
    }
}

/// The methods of the API.
pub const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        sent: &str,
        verb: Option<&str>,
        headers: &[&str],
        expected: Result<(&str, bool), Refusal>,
    ) {
        let method = |text: &str| Method::from_bytes(text.as_bytes()).unwrap();
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(OVERRIDE_HEADER, value.parse().unwrap());
        }
        let verb = verb.map(method);
        let got = EffectiveMethod::find(&method(sent), verb.as_ref(), &map);
        let got = got
            .as_ref()
            .map(|found| (found.effective.as_str(), found.by_header))
            .map_err(|r| *r);
        assert_eq!(got, expected, "{sent} {verb:?} {headers:?}");
    }

    #[test]
    fn a_post_becomes_what_it_says() {
        check("POST", None, &[], Ok(("POST", false)));
        check("POST", Some("PUT"), &[], Ok(("PUT", false)));
        check("POST", None, &["DELETE"], Ok(("DELETE", true)));
        check("POST", None, &["delete"], Ok(("DELETE", true)));
        check("POST", Some("PUT"), &["PUT"], Ok(("PUT", false)));
        check("POST", Some("POST"), &[], Ok(("POST", false)));
        check("GET", Some("HEAD"), &[], Ok(("HEAD", false)));
        check("DELETE", None, &[], Ok(("DELETE", false)));
    }

    #[test]
    fn impossible_overrides_are_refused() {
        let conflict = Err(Refusal::ConflictingMethod);
        check("GET", Some("DELETE"), &[], conflict);
        check("GET", None, &["PUT"], conflict);
        check("PUT", Some("DELETE"), &[], conflict);
        check("POST", Some("GET"), &[], conflict);
        check("POST", Some("LOCK"), &[], conflict);
        check("POST", Some("PUT"), &["DELETE"], conflict);
        check("POST", None, &["PUT", "PUT"], conflict);
        check("POST", None, &["PUT, DELETE"], conflict);
        check("POST", None, &[""], conflict);
    }

    #[test]
    fn other_methods_are_not_supported() {
        for method in [
            "TRACE", "CONNECT", "PATCH", "get", "Post", "PROPFIND", "LOCK",
        ] {
            check(method, None, &[], Err(Refusal::MethodNotSupported));
        }
    }
}
