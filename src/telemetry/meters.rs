//! What is counted of exchanges: by route, caller, status and refusal, and how long they took.
//!
//! Every label is a name of the file, a pattern of a capability, a status or a word of a closed list.
//! What can be labelled is laid out when the policy is compiled, so that counting an exchange is a
//! look-up of its route, its caller and its endpoint, and a few atomic additions: no lock, no text that
//! is put together.

mod histogram;
mod row;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::StatusCode;

use self::histogram::Bounds;
pub use self::histogram::{Histogram, Observed};
pub use self::tally::Tally;
use super::record::Record;
use crate::policy::route::Access;
use crate::policy::{Policy, Refusal};

/// What is counted of the exchanges of one policy.
#[derive(Debug)]
pub struct Meters {
    routes: HashMap<Arc<str>, RouteMeters, RandomState>,
    /// Of exchanges that found no route.
    unrouted: RouteMeters,
    endpoints: HashMap<Arc<str>, Arc<Histogram>, RandomState>,
}

/// What is counted of the exchanges of one route.
#[derive(Debug)]
pub struct RouteMeters {
    /// Whole exchanges.
    pub duration: Arc<Histogram>,
    /// The gateway's own share of them.
    pub own: Arc<Histogram>,
    /// What a `report_only` route let pass, by the code of the refusal.
    pub would_refuse: Arc<Tally<&'static str>>,
    callers: HashMap<Arc<str>, Arc<Tally<Ending>>, RandomState>,
    /// Of exchanges whose caller is not known.
    unidentified: Arc<Tally<Ending>>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    status: u16,
    /// The code of the refusal; empty for none.
    pub refusal: &'static str,
}

/// Stands for every status that nobody has registered: a site may answer whatever it likes.
const UNREGISTERED: u16 = u16::MAX;

impl Ending {
    fn of(record: &Record<'_>) -> Self {
        let is_registered = |status: &u16| {
            let code = StatusCode::from_u16(*status);
            *status == 0 || code.is_ok_and(|code| code.canonical_reason().is_some())
        };
        Self {
            status: Some(record.status)
                .filter(is_registered)
                .unwrap_or(UNREGISTERED),
            refusal: record.refusal.map_or("", Refusal::code),
        }
    }

    /// The status as a label: its number, 0 if the caller was gone, `other` for one that is not
    /// registered with IANA.
    pub fn status(self) -> String {
        match self.status {
            UNREGISTERED => "other".to_owned(),
            status => status.to_string(),
        }
    }
}

impl Meters {
    /// What these routes may see: what was counted before goes on under its name, and nothing is counted
    /// yet of what is new.
    pub fn new(policy: &Policy, before: Option<&Self>) -> Self {
        let routes = policy.routes().map(|route| {
            let callers: Vec<_> = match &route.access {
                Access::Server { callers, .. } => {
                    let names = callers.iter().map(|acting| Arc::clone(&acting.caller.name));
                    names.collect()
                }
                Access::Browser => Vec::new(),
            };
            let known = before.and_then(|before| before.routes.get(&route.name));
            (Arc::clone(&route.name), RouteMeters::new(callers, known))
        });
        let endpoints = policy.routes().flat_map(|route| {
            let rules = route.allow.rules().into_iter();
            rules.map(|rule| {
                let endpoint = Arc::clone(rule.pattern.text());
                let known = before.and_then(|before| before.endpoints.get(&endpoint));
                let histogram = known.cloned();
                let histogram = histogram.unwrap_or_else(|| Histogram::of(&Bounds::EXCHANGES));
                (endpoint, histogram)
            })
        });
        Self {
            routes: routes.collect(),
            unrouted: RouteMeters::new([], before.map(|before| &before.unrouted)),
            endpoints: endpoints.collect(),
        }
    }

    /// Counts an exchange that has ended.
    pub fn count(&self, record: &Record<'_>) {
        let route = record.route.and_then(|route| self.routes.get(route));
        let route = route.unwrap_or(&self.unrouted);
        let caller = record.caller.and_then(|caller| route.callers.get(caller));
        let ending = Ending::of(record);
        caller.unwrap_or(&route.unidentified).count(ending);
        route.duration.observe(record.total);
        if let Some(own) = record.own {
            route.own.observe(own);
        }
        if let Some(refusal) = record.would_refuse {
            route.would_refuse.count(refusal.code());
        }
        let endpoint = record.endpoint.and_then(|text| self.endpoints.get(text));
        if let Some(endpoint) = endpoint {
            endpoint.observe(record.total);
        }
    }

    /// What is counted of each route, by its name; of exchanges without one, by none. Sorted.
    pub fn routes(&self) -> Vec<(&str, &RouteMeters)> {
        let routes = self.routes.iter().map(|(name, route)| (&**name, route));
        sorted(routes.chain([("", &self.unrouted)]))
    }

    /// How long the exchanges of each endpoint took. Sorted.
    pub fn endpoints(&self) -> Vec<(&str, &Histogram)> {
        let endpoints = self.endpoints.iter();
        sorted(endpoints.map(|(text, histogram)| (&**text, &**histogram)))
    }
}

impl RouteMeters {
    fn new(callers: impl IntoIterator<Item = Arc<str>>, known: Option<&Self>) -> Self {
        let of_caller = |name: &Arc<str>| known?.callers.get(name).cloned();
        let callers = callers.into_iter().map(|name| {
            let tally = of_caller(&name).unwrap_or_default();
            (name, tally)
        });
        let callers = callers.collect();
        let Some(known) = known else {
            return Self {
                duration: Histogram::of(&Bounds::EXCHANGES),
                own: Histogram::of(&Bounds::OWN),
                would_refuse: Arc::default(),
                callers,
                unidentified: Arc::default(),
            };
        };
        Self {
            duration: Arc::clone(&known.duration),
            own: Arc::clone(&known.own),
            would_refuse: Arc::clone(&known.would_refuse),
            callers,
            unidentified: Arc::clone(&known.unidentified),
        }
    }

    /// How the exchanges of each caller ended, by its name; of callers that are not known, by none.
    /// Sorted.
    pub fn callers(&self) -> Vec<(&str, &Tally<Ending>)> {
        let callers = self.callers.iter().map(|(name, tally)| (&**name, &**tally));
        sorted(callers.chain([("", &*self.unidentified)]))
    }
}

fn sorted<'a, T>(named: impl Iterator<Item = (&'a str, &'a T)>) -> Vec<(&'a str, &'a T)> {
    let mut named: Vec<_> = named.collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    named
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::fault::TargetFault;

    fn statuses(statuses: impl IntoIterator<Item = u16>, refusal: Option<Refusal>) -> Vec<String> {
        let meters = Meters::new(&Policy::default(), None);
        for status in statuses {
            meters.count(&Record {
                status,
                refusal,
                route: Some("what no file names"),
                caller: Some("who no file names"),
                endpoint: Some("no/pattern"),
                total: Duration::from_millis(1),
                own: Some(Duration::from_micros(1)),
                ..Record::default()
            });
        }
        let routes = meters.routes();
        assert_eq!(routes.len(), 1, "a name of no route makes none");
        let (name, unrouted) = routes[0];
        assert_eq!((name, meters.endpoints().len()), ("", 0));
        let callers = unrouted.callers();
        assert_eq!(callers.len(), 1);
        let mut counts = callers[0].1.counts();
        counts.sort_unstable();
        let ended: u64 = counts.iter().map(|(_, count)| count).sum();
        for histogram in [&unrouted.duration, &unrouted.own] {
            let observed = histogram.observed().unwrap();
            assert_eq!(observed.count, ended, "each exchange once");
        }
        let of = |(ending, _): &(Ending, u64)| format!("{} {}", ending.status(), ending.refusal);
        counts.iter().map(of).collect()
    }

    #[test]
    fn a_site_cannot_make_up_statuses() {
        assert_eq!(statuses([0, 200, 404, 200], None), ["0 ", "200 ", "404 "]);
        assert_eq!(statuses([299, 599, 999, 600], None), ["other "]);
        let all = statuses(0..=999, None);
        assert!(all.len() < 70, "{all:?}");
        let refusal = Refusal::BadTarget(TargetFault::Dots);
        assert_eq!(statuses([400, 400], Some(refusal)), ["400 bad_target"]);
    }
}
