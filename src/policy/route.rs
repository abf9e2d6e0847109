//! Which route answers a request: found by host, then by the longest mount in whole segments.

use std::collections::HashMap;
use std::sync::Arc;

use super::acts_as::ActingCaller;
use super::capability::Allowance;
use super::cors::Preflights;
use super::origin::Origins;
use super::site::Site;

/// A way through the gateway: from a host and a mount to a site, and who may do what on it.
#[derive(Debug)]
pub struct Route {
    /// Its name in the file, in logs and in metrics.
    pub name: Arc<str>,
    /// The host it answers, in lower case without a port; `None` answers any.
    pub host: Option<String>,
    /// The prefix it answers below, such as `/crm`, or empty; removed before forwarding.
    pub mount: String,
    /// Where its requests go.
    pub site: Arc<Site>,
    /// Who may use it.
    pub access: Access,
    /// What may be done on it.
    pub allow: Allowance,
    /// The answer to preflights.
    pub preflights: Preflights,
    /// Longest body of a request in bytes.
    pub body_bytes_max: u64,
    /// Whether origins that are not allowed are only recorded, not refused.
    pub report_only: bool,
    /// Whether the answers of credential-minting calls keep their body.
    pub return_sessions: bool,
}

/// Who may use a route, and what its requests are sent with.
#[derive(Debug)]
pub enum Access {
    /// Callers with a credential; requests are signed with the site's server token.
    Server {
        /// The callers and the users they act as; never empty.
        callers: Vec<ActingCaller>,
        /// Pages that may ride along; empty for none.
        origins: Origins,
    },
    /// Pages of the allowed hosts of the site's browser token; requests are sent with it.
    Browser,
}

/// All routes, for finding one.
#[derive(Debug, Default)]
pub struct Routes {
    by_host: HashMap<String, Vec<Arc<Route>>>,
    any_host: Vec<Arc<Route>>,
}

impl Routes {
    /// Arranges routes; no two of them have the same host and mount.
    pub fn new(routes: Vec<Arc<Route>>) -> Self {
        let mut all = Self::default();
        for route in routes {
            match route.host.clone() {
                Some(host) => all.by_host.entry(host).or_default().push(route),
                None => all.any_host.push(route),
            }
        }
        let longest_first = |group: &mut Vec<Arc<Route>>| {
            group.sort_by_key(|route| std::cmp::Reverse(route.mount.len()));
        };
        all.by_host.values_mut().for_each(longest_first);
        longest_first(&mut all.any_host);
        all
    }

    /// The route for a host (lower case, without port) and a path as it came.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let mounted = |route: &&Arc<Route>| {
            path.strip_prefix(route.mount.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let of_host = self.by_host.get(host).into_iter().flatten();
        of_host.chain(&self.any_host).find(mounted)
    }

    /// Every route.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_host.values().flatten().chain(&self.any_host)
    }
}
