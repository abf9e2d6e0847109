//! A policy and all that belongs to it: what is learnt of its sites, what its callers use. Swapped
//! whole.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::breaker::Breaker;
use super::budget::Budgets;
use super::names::Addresses;
use super::passwords::Passwords;
use super::quiet::Quiet;
use super::replays::Replays;
use super::rotation::Rotation;
use super::skew::SiteClock;
use super::tokens::Tokens;
use crate::policy::effective::Effective;
use crate::policy::limit::{CallerLimits, SharedLimits};
use crate::policy::route::{Access, Route};
use crate::policy::site::Site;
use crate::policy::{Identity, Policy};
use crate::telemetry::{Meters, Tally};

/// What requests live under from their beginning to their end.
#[derive(Debug)]
pub struct Generation {
    /// The rules.
    pub policy: Policy,
    /// What callers and pages use.
    pub budgets: Budgets,
    /// The passwords that callers present.
    pub passwords: Passwords,
    /// The tokens that callers present, and the keys of their issuers.
    pub tokens: Tokens,
    /// Messages that count once.
    pub replays: Arc<Replays>,
    /// What is counted of exchanges.
    pub meters: Meters,
    /// The rules as people are shown them.
    pub effective: Effective,
    sites: HashMap<Arc<str>, Arc<Watched>, RandomState>,
}

/// What is learnt of one site.
#[derive(Debug)]
pub struct Watched {
    /// The site.
    pub site: Arc<Site>,
    /// As whom probes ask; without a token where no caller acts as anybody there.
    pub probe_as: Option<Identity>,
    /// Which site it is, at this address and vouched for by these authorities; no two share one.
    pub id: u64,
    /// Where its name leads.
    pub addresses: Arc<Addresses>,
    /// Whether it is being left alone.
    pub breaker: Breaker,
    /// Which of its server tokens signs.
    pub server_tokens: Rotation,
    /// How far its clock is from this machine's.
    pub clock: SiteClock,
    /// That it does not take the gateway's server token.
    pub server_token_refused: Quiet,
    /// That it does not take the browser token.
    pub browser_token_refused: Quiet,
    /// How attempts to send a request there ended.
    pub attempts: Tally<&'static str>,
}

impl Generation {
    /// Nothing learnt yet.
    pub fn new(
        policy: Policy,
        callers: &[(Arc<str>, CallerLimits)],
        shared: &SharedLimits,
        effective: Effective,
    ) -> Self {
        let mut routes: Vec<_> = policy.routes().collect();
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut sites: HashMap<Arc<str>, Arc<Watched>, RandomState> = HashMap::default();
        for (route, id) in routes.iter().zip(0..) {
            let site = &route.site;
            if !sites.contains_key(&site.name) {
                let watched = Watched::new(site, user_of(site, &routes), id);
                sites.insert(Arc::clone(&site.name), watched);
            }
        }
        let for_pages = routes.iter().filter(|route| route.is_for_browsers());
        let budgets = Budgets::new(callers, for_pages.map(|route| &route.name), shared);
        Self {
            meters: Meters::new(&policy),
            tokens: Tokens::new(policy.issuers()),
            policy,
            budgets,
            passwords: Passwords::new(),
            replays: Arc::default(),
            effective,
            sites,
        }
    }

    /// What is learnt of a site; `None` for a site that no route leads to.
    pub fn site(&self, site: &Site) -> Option<&Arc<Watched>> {
        self.sites.get(&site.name)
    }

    /// Every site that is watched, by name.
    pub fn sites(&self) -> impl Iterator<Item = (&str, &Arc<Watched>)> {
        self.sites.iter().map(|(name, watched)| (&**name, watched))
    }
}

impl Watched {
    fn new(site: &Arc<Site>, probe_as: Option<Identity>, id: u64) -> Arc<Self> {
        Arc::new(Self {
            site: Arc::clone(site),
            probe_as,
            id,
            addresses: Arc::new(Addresses::new(&site.address.host, site.address.port)),
            breaker: Breaker::new(Arc::clone(&site.name)),
            server_tokens: Rotation::new(Arc::clone(&site.name), site.signers.len()),
            clock: SiteClock::new(Arc::clone(&site.name)),
            server_token_refused: Quiet::default(),
            browser_token_refused: Quiet::default(),
            attempts: Tally::default(),
        })
    }
}

/// The user that the file names for probes; else the first one, by the names of the routes, that callers
/// of a site act as, whatever they send.
fn user_of(site: &Site, routes: &[&Arc<Route>]) -> Option<Identity> {
    if let Some(user) = &site.probe_user {
        return Some(Identity::User(user.clone()));
    }
    let of_site = routes.iter().filter(|route| route.site.name == site.name);
    let mut users = of_site.filter_map(|route| match &route.access {
        Access::Server { callers, .. } => callers.iter().find_map(|acting| acting.acts_as.fixed()),
        Access::Browser => None,
    });
    Some(Identity::User(users.next()?.clone()))
}

/// The program's one mutable cell: which generation new requests live under.
#[derive(Debug)]
pub struct Live(ArcSwap<Generation>);

impl Live {
    /// A cell with a first generation.
    pub fn new(generation: Generation) -> Self {
        Self(ArcSwap::from_pointee(generation))
    }

    /// The generation in force now.
    pub fn pin(&self) -> Arc<Generation> {
        self.0.load_full()
    }
}
