//! Which route answers a request: found by host, then by the longest mount in whole segments.

use std::collections::HashMap;
use std::sync::Arc;

use super::caller::Callers;
use super::capability::Allowance;
use super::cors::Preflights;
use super::host::{Authority, Host};
use super::origin::Origins;
use super::site::Site;
use foldhash::fast::RandomState;

/// A way through the gateway: from a host and a mount to a site, and who may do what on it.
#[derive(Debug)]
pub struct Route {
    /// Its name in the file, in logs and in metrics.
    pub name: Arc<str>,
    /// The host it answers; `None` answers any.
    pub host: Option<Host>,
    /// What it answers below.
    pub mount: Mount,
    /// Where its requests go.
    pub site: Arc<Site>,
    /// Who may use it.
    pub access: Access,
    /// What may be done on it.
    pub allow: Allowance,
    /// The answer to preflights.
    pub preflights: Preflights,
    /// Headers that go to the site beside the usual ones, in lower case.
    pub request_headers: Vec<Box<str>>,
    /// Headers that go to the caller beside the usual ones, in lower case.
    pub answer_headers: Vec<Box<str>>,
    /// Longest body of a request in bytes.
    pub body_bytes_max: u64,
    /// Whether origins that are not allowed are only recorded, not refused.
    pub report_only: bool,
    /// Whether the answers of credential-minting calls keep their body.
    pub return_sessions: bool,
}

impl Route {
    /// Whether its requests are sent with the browser token.
    pub fn is_for_browsers(&self) -> bool {
        matches!(self.access, Access::Browser)
    }

    /// Whether who comes without a credential is told that a user name and a password are one. Not
    /// where pages call: their browser would ask its user for them, and then send them by itself.
    pub fn asks_for_passwords(&self) -> bool {
        match &self.access {
            Access::Server { callers, origins } => callers.take_passwords() && origins.is_empty(),
            Access::Browser => false,
        }
    }
}

/// Who may use a route, and what its requests are sent with.
#[derive(Debug)]
pub enum Access {
    /// Callers with a credential; requests are signed with the site's server token.
    Server {
        /// The callers and the users they act as; never empty.
        callers: Box<Callers>,
        /// Pages that may ride along; empty for none.
        origins: Origins,
    },
    /// Pages of the allowed hosts of the site's browser token; requests are sent with it.
    Browser,
}

/// The beginning of the paths a route answers, removed before forwarding: `/crm`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    text: Box<str>,
    segments: usize,
}

impl Mount {
    /// Reads a mount such as `/crm` or `/eu/crm`; `None` for what a path could spell in several ways.
    pub fn parse(text: &str) -> Option<Self> {
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        let inner = text.strip_prefix('/')?;
        inner.split('/').all(is_segment).then(|| Self {
            text: text.into(),
            segments: inner.split('/').count(),
        })
    }

    /// As it stands in a path; nothing for no mount.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many segments of a path it takes.
    pub fn segments(&self) -> usize {
        self.segments
    }
}

/// All routes, for finding one.
#[derive(Debug, Default)]
pub struct Routes {
    by_host: HashMap<Box<str>, Mounted, RandomState>,
    any_host: Mounted,
    /// In the file's order.
    listed: Vec<Arc<Route>>,
}

impl Routes {
    /// Arranges routes; no two of them have the same host and mount.
    pub fn new(routes: Vec<Arc<Route>>) -> Self {
        let mut all = Self::default();
        for route in &routes {
            match &route.host {
                Some(host) => all.by_host.entry(host.as_str().into()).or_default(),
                None => &mut all.any_host,
            }
            .add(Arc::clone(route));
        }
        all.listed = routes;
        all
    }

    /// The route for an authority and a path as it came.
    pub fn find(&self, authority: Authority<'_>, path: &str) -> Option<&Arc<Route>> {
        let of_host = match self.by_host.is_empty() {
            true => None,
            false => self.by_host.get(&*authority.canonical_host()),
        };
        of_host
            .and_then(|mounted| mounted.find(path))
            .or_else(|| self.any_host.find(path))
    }

    /// Every route, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.listed.iter()
    }
}

/// The routes of one host, by mount.
#[derive(Debug, Default)]
struct Mounted {
    by_mount: HashMap<Box<str>, Arc<Route>, RandomState>,
    /// The most segments of a mount.
    deepest: usize,
}

impl Mounted {
    fn add(&mut self, route: Arc<Route>) {
        self.deepest = self.deepest.max(route.mount.segments());
        self.by_mount.insert(route.mount.as_str().into(), route);
    }

    /// Looks up each beginning of the path that ends before a slash, as long as there are mounts so
    /// deep; the last one found is the longest.
    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if self.by_mount.is_empty() {
            return None;
        }
        let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        slashes
            .take(self.deepest + 1)
            .filter_map(|(end, _)| self.by_mount.get(&path[..end]))
            .last()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::route;
    use super::*;

    fn check(routes: &[(&str, Option<&str>, &str)], cases: &[(&str, &str, Option<&str>)]) {
        let routes = routes.iter().map(|(name, host, mount)| {
            let mut route = route(name, mount);
            route.host = host.map(|host| Host::parse(host).unwrap());
            Arc::new(route)
        });
        let routes = Routes::new(routes.collect());
        for (host, path, expected) in cases {
            let found = routes.find(Authority::parse(host).unwrap(), path);
            let found = found.map(|route| &*route.name);
            assert_eq!(found, *expected, "{host}{path}");
        }
    }

    #[test]
    fn the_longest_mount_in_whole_segments() {
        check(
            &[
                ("root", None, ""),
                ("crm", None, "/crm"),
                ("deep", None, "/crm/eu/x"),
            ],
            &[
                ("h", "/crm/@api", Some("crm")),
                ("h", "/crm/", Some("crm")),
                ("h", "/crm", Some("root")),
                ("h", "/crmx/@api", Some("root")),
                ("h", "/CRM/@api", Some("root")),
                ("h", "/crm/eu/@api", Some("crm")),
                ("h", "/crm/eu/x/@api", Some("deep")),
                ("h", "/crm/eu/xy/@api", Some("crm")),
                ("h", "/", Some("root")),
            ],
        );
        check(
            &[("crm", None, "/crm")],
            &[("h", "/@api", None), ("h", "/x/crm/@api", None)],
        );
    }

    #[test]
    fn the_host_before_any_host() {
        check(
            &[
                ("widget", Some("widget.example"), ""),
                ("crm", None, "/crm"),
                ("own", Some("own.example"), "/own"),
            ],
            &[
                ("widget.example", "/crm/x", Some("widget")),
                ("WIDGET.example:8443", "/crm/x", Some("widget")),
                ("widget.example.", "/crm/x", Some("widget")),
                ("widget.example.:443", "/crm/x", Some("widget")),
                ("widget.example..", "/crm/x", Some("crm")),
                ("own.example", "/crm/x", Some("crm")),
                ("own.example", "/own/x", Some("own")),
                ("other.example", "/own/x", None),
                ("x.widget.example", "/y/x", None),
            ],
        );
    }

    #[test]
    fn mounts() {
        for text in ["/crm", "/eu/crm", "/a.b-c_d~e"] {
            assert_eq!(Mount::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "", "/", "crm", "/crm/", "//crm", "/a//b", "/.", "/../a", "/a b", "/%41", "/@api",
        ] {
            assert_eq!(Mount::parse(text), None, "{text}");
        }
        assert_eq!(Mount::parse("/eu/crm").unwrap().segments(), 2);
        assert_eq!(Mount::default().segments(), 0);
    }
}
