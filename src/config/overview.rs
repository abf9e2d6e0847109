//! What a usable file sets up, for people who look at it.

use std::sync::Arc;

use super::problem::Problem;
use crate::policy::Policy;
use crate::policy::capability::Allowance;
use crate::policy::route::{Access, Route};

/// What `check` has to say of a file that can be used.
#[derive(Debug)]
pub struct Overview {
    /// How many listeners it has.
    pub listeners: usize,
    /// Its routes, in its order.
    pub routes: Vec<RouteOverview>,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
}

/// One route of a file.
#[derive(Debug)]
pub struct RouteOverview {
    /// Its name.
    pub name: Arc<str>,
    /// The host it answers; `None` answers any.
    pub host: Option<String>,
    /// What it answers below; empty for everything.
    pub mount: String,
    /// The site it leads to.
    pub site: Arc<str>,
    /// Who may use it; `None` for web pages.
    pub callers: Option<Vec<Arc<str>>>,
    /// What may be done on it.
    pub allow: Allowance,
}

impl Overview {
    pub(super) fn new(listeners: usize, policy: &Policy, warnings: Vec<Problem>) -> Self {
        Self {
            listeners,
            routes: policy
                .routes()
                .map(|route| RouteOverview::of(route))
                .collect(),
            warnings,
        }
    }
}

impl RouteOverview {
    fn of(route: &Route) -> Self {
        Self {
            name: Arc::clone(&route.name),
            host: route.host.as_ref().map(|host| host.as_str().to_owned()),
            mount: route.mount.as_str().to_owned(),
            site: Arc::clone(&route.site.name),
            callers: match &route.access {
                Access::Server { callers, .. } => {
                    let names = callers.iter().map(|acting| Arc::clone(&acting.caller.name));
                    Some(names.collect())
                }
                Access::Browser => None,
            },
            allow: route.allow.clone(),
        }
    }
}
