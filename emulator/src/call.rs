//! One call as an endpoint sees it: the effective method, the decoded path, and who is asking.

use std::fmt::Display;
use std::sync::{Arc, MutexGuard};

use http::{HeaderMap, Method};

use super::Site;
use super::body::Intake;
use super::clock::Moment;
use super::denial::Denial;
use super::identity::Asking;
use super::parameters::{Parameters, Plus, decode};
use super::wiki::{Role, Wiki};

/// A request, read as far as it can be before anybody knows who is asking.
pub(super) struct Received {
    pub(super) site: Arc<Site>,
    /// The effective method.
    pub(super) method: Method,
    pub(super) path: String,
    /// The host in the target: HTTP/2 has it there.
    pub(super) authority: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) headers: HeaderMap,
    pub(super) now: Moment,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The address of the API as the caller has it, and as anybody on the way may change it.
    fn base(&self) -> String {
        let host = self
            .parameters
            .first("dream.in.host")
            .or_else(|| self.header("x-forwarded-host"))
            .and_then(|hosts| hosts.split([',', ' ']).next())
            .or_else(|| self.header("host"))
            .or(self.authority.as_deref())
            .unwrap_or("localhost");
        let https = self.parameters.first("dream.in.scheme") == Some("https")
            || self.header("front-end-https") == Some("On");
        let scheme = if https { "https" } else { "http" };
        format!("{scheme}://{host}/@api/deki")
    }
}

/// A request that was let in.
pub(super) struct Call<'a> {
    pub(super) received: &'a Received,
    pub(super) asking: Asking,
    pub(super) body: &'a mut Intake,
}

impl Call<'_> {
    pub(super) fn wiki(&self) -> MutexGuard<'_, Wiki> {
        self.received.site.wiki()
    }

    pub(super) const fn now(&self) -> Moment {
        self.received.now
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.received.parameters.first(name)
    }

    /// A link to a resource of the API.
    pub(super) fn href(&self, path: impl Display) -> String {
        format!("{}/{path}", self.received.base())
    }

    /// Which part of a list to answer.
    pub(super) fn window(&self) -> Window {
        let parameters = &self.received.parameters;
        Window {
            offset: parameters.number("offset", 0),
            limit: match parameters.first("limit") {
                Some("all") => usize::MAX,
                _ => parameters.number("limit", 100),
            },
        }
    }

    /// The effective method if the resource has it. HEAD counts as GET: the server leaves out the
    /// body.
    pub(super) fn method_of(&self, allowed: &[Method]) -> Result<Method, Denial> {
        let method = match &self.received.method {
            head if *head == Method::HEAD => Method::GET,
            other => other.clone(),
        };
        if allowed.contains(&method) {
            return Ok(method);
        }
        let head = allowed.contains(&Method::GET).then_some(Method::HEAD);
        let allowed: Vec<Method> = allowed.iter().cloned().chain(head).collect();
        Err(Denial::method(&allowed))
    }

    pub(super) fn must_write(&self) -> Result<(), Denial> {
        if self.asking.user.may_write() {
            Ok(())
        } else {
            Err(Denial::access("UPDATE"))
        }
    }

    pub(super) fn must_be_admin(&self) -> Result<(), Denial> {
        match self.asking.user.role {
            Role::Admin => Ok(()),
            Role::Contributor | Role::Viewer => Err(Denial::access("ADMIN")),
        }
    }

    /// The essence of the content type, in lower case.
    pub(super) fn media_type(&self) -> String {
        self.received
            .header("content-type")
            .and_then(|value| value.split(';').next())
            .map(|essence| essence.trim().to_ascii_lowercase())
            .unwrap_or_default()
    }
}

/// Part of a list.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Window {
    pub(super) fn of<T>(self, items: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        items.into_iter().skip(self.offset).take(self.limit)
    }
}

/// The method a request means (MindTouch/DReAM, `DreamHostService`): the parameter goes before the
/// header, a POST may become anything, and a GET only what does no harm.
pub(super) fn effective_method(
    method: &Method,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Method {
    let requested = parameters
        .first("dream.in.verb")
        .or_else(|| headers.get("x-http-method-override")?.to_str().ok())
        .and_then(|name| name.trim().to_ascii_uppercase().parse::<Method>().ok());
    match requested {
        Some(requested) if *method == Method::POST => requested,
        Some(harmless @ (Method::HEAD | Method::OPTIONS)) if *method == Method::GET => harmless,
        _ => method.clone(),
    }
}

/// The segments below `/@api/deki`, or `None` for a path elsewhere. As the front end does, the whole
/// path is decoded once before anything else, so an encoded slash separates, too, and dot segments
/// are followed.
pub(super) fn segments(path: &str) -> Option<Vec<String>> {
    let decoded = decode(path, Plus::Literal);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    match segments.as_slice() {
        ["@api", "deki", rest @ ..] => Some(rest.iter().map(|part| (*part).to_owned()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_is_overridden_as_dream_does() {
        for (method, query, header, expected) in [
            ("POST", "dream.in.verb=PUT", None, "PUT"),
            ("POST", "DREAM.IN.VERB=delete", Some("PUT"), "DELETE"),
            ("POST", "", Some("PUT"), "PUT"),
            ("POST", "", None, "POST"),
            ("GET", "dream.in.verb=HEAD", None, "HEAD"),
            ("GET", "", Some("OPTIONS"), "OPTIONS"),
            ("GET", "dream.in.verb=DELETE", None, "GET"),
            ("PUT", "dream.in.verb=DELETE", None, "PUT"),
            ("POST", "dream.in.verb=", None, "POST"),
        ] {
            let headers = header
                .map(|value: &str| {
                    (
                        "x-http-method-override".parse().unwrap(),
                        value.parse().unwrap(),
                    )
                })
                .into_iter()
                .collect();
            let method: Method = method.parse().unwrap();
            let effective = effective_method(&method, &headers, &Parameters::read(Some(query)));
            assert_eq!(effective.as_str(), expected, "{method} {query} {header:?}");
        }
    }

    #[test]
    fn paths_are_decoded_once_by_the_front_end() {
        for (path, expected) in [
            ("/@api/deki/pages/home", Some("pages|home")),
            ("/%40api/deki/pages/home/", Some("pages|home")),
            (
                "/@api/deki/pages/=Some%252FPage",
                Some("pages|=Some%2FPage"),
            ),
            ("/@api/deki/pages/=Some%2FPage", Some("pages|=Some|Page")),
            (
                "/@api/deki/pages/%2e%2e/site//settings",
                Some("site|settings"),
            ),
            ("/@api/deki", Some("")),
            ("/@api/dekiwiki", None),
            ("/@app/auth", None),
            ("/@api/deki/../../@gui/x", None),
        ] {
            let found = segments(path).map(|segments| segments.join("|"));
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
