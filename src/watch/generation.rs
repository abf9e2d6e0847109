//! A policy and all that belongs to it: what is learnt of its sites, what its callers use. Swapped
//! whole.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use pingora::tls::CertificateDer;

use super::breaker::Breaker;
use super::budget::Budgets;
use super::names::Addresses;
use super::passwords::Passwords;
use super::quiet::Quiet;
use super::replays::Replays;
use super::rotation::Rotation;
use super::skew::SiteClock;
use super::tokens::Tokens;
use crate::client::trust::{SiteTls, store, system_authorities};
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
    pub passwords: Arc<Passwords>,
    /// The tokens that callers present, and the keys of their issuers.
    pub tokens: Tokens,
    /// Messages that count once.
    pub replays: Arc<Replays>,
    /// What is counted of exchanges.
    pub meters: Meters,
    /// The rules as people are shown them.
    pub effective: Effective,
    sites: Sites,
    /// That of the next site that is new, in this generation and all that follow.
    next_id: u64,
}

/// What is learnt of one site. It outlives the generation in which it was learnt, for as long as the file
/// means the same site.
#[derive(Debug)]
pub struct Watched {
    asked: ArcSwap<Asked>,
    /// Which site it is, at this address, vouched for by these authorities, opened by these tokens; no two
    /// share one.
    pub id: u64,
    /// How it is spoken to over TLS; `None` for one that is not, or that no certificate can name.
    pub(crate) tls: Option<SiteTls>,
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

/// How we ask a site ourselves, which may change while it stays the same site.
#[derive(Debug)]
struct Asked {
    site: Arc<Site>,
    probe_as: Option<Identity>,
}

impl Generation {
    /// A generation that goes on with what was learnt in the one before, as far as that still holds.
    pub fn new(
        policy: Policy,
        callers: &[(Arc<str>, CallerLimits)],
        shared: &SharedLimits,
        effective: Effective,
        before: Option<&Self>,
    ) -> Self {
        let (sites, next_id) = watched(&policy, before);
        let for_pages = policy.routes().filter(|route| route.is_for_browsers());
        let of_pages = for_pages.map(|route| &route.name);
        Self {
            meters: Meters::new(&policy, before.map(|before| &before.meters)),
            tokens: Tokens::new(policy.issuers(), before.map(|before| &before.tokens)),
            budgets: Budgets::new(
                callers,
                of_pages,
                shared,
                before.map(|before| &before.budgets),
            ),
            // A password that was right is found by its hash, a message that came by its caller: nothing
            // in them holds for another policy that should not.
            passwords: before.map_or_else(Arc::default, |before| Arc::clone(&before.passwords)),
            replays: before.map_or_else(Arc::default, |before| Arc::clone(&before.replays)),
            policy,
            effective,
            sites,
            next_id,
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

    /// Now this one counts: sites that were the same before are asked as it says.
    fn begin(&self) {
        for watched in self.sites.values() {
            let name = &watched.site().name;
            let mut sites = self.policy.routes().map(|route| &route.site);
            if let Some(site) = sites.find(|site| site.name == *name) {
                watched.asked.store(Arc::new(Asked::of(site, &self.policy)));
            }
        }
    }
}

type Sites = HashMap<Arc<str>, Arc<Watched>, RandomState>;

/// What is learnt of the sites of a policy: of those that are the same, what was learnt before. With it,
/// the id of the next site that is new.
fn watched(policy: &Policy, before: Option<&Generation>) -> (Sites, u64) {
    let mut next_id = before.map_or(0, |before| before.next_id);
    let mut sites = Sites::default();
    // Read only where a site is verified against it, and then once.
    let mut system = None;
    for site in policy.routes().map(|route| &route.site) {
        if sites.contains_key(&site.name) {
            continue;
        }
        let known = before.and_then(|before| before.site(site));
        let known = known.filter(|known| known.site().is_same(site));
        let watched = known.cloned().unwrap_or_else(|| {
            let mut roots = |ca: &Option<Arc<[Vec<u8>]>>| match ca {
                Some(ca) => Arc::new(store(ca.iter().cloned().map(CertificateDer::from))),
                None => Arc::clone(system.get_or_insert_with(|| Arc::new(system_authorities()))),
            };
            let address = &site.address;
            let tls = address.tls.then(|| roots(&address.ca));
            let tls = tls.and_then(|roots| SiteTls::new(&address.host, roots));
            next_id += 1;
            Watched::new(Asked::of(site, policy), next_id, tls)
        });
        sites.insert(Arc::clone(&site.name), watched);
    }
    (sites, next_id)
}

impl Watched {
    fn new(asked: Asked, id: u64, tls: Option<SiteTls>) -> Arc<Self> {
        let site = Arc::clone(&asked.site);
        Arc::new(Self {
            asked: ArcSwap::from_pointee(asked),
            id,
            tls,
            addresses: Arc::new(Addresses::new(&site.address.host, site.address.port)),
            breaker: Breaker::new(Arc::clone(&site.name)),
            server_tokens: Rotation::new(Arc::clone(&site.name), site.signers.len()),
            clock: SiteClock::new(Arc::clone(&site.name)),
            server_token_refused: Quiet::default(),
            browser_token_refused: Quiet::default(),
            attempts: Tally::default(),
        })
    }

    /// The site, as the file in force has it.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.asked.load().site)
    }

    /// As whom probes ask; without a token where no caller acts as anybody there.
    pub fn probe_as(&self) -> Option<Identity> {
        self.asked.load().probe_as.clone()
    }
}

impl Asked {
    fn of(site: &Arc<Site>, policy: &Policy) -> Self {
        Self {
            site: Arc::clone(site),
            probe_as: user_of(site, policy),
        }
    }
}

/// The user that the file names for probes; else the first one, by the names of the routes, that callers
/// of a site act as, whatever they send.
fn user_of(site: &Site, policy: &Policy) -> Option<Identity> {
    if let Some(user) = &site.probe_user {
        return Some(Identity::User(user.clone()));
    }
    let of_site = policy.routes().filter(|route| route.site.name == site.name);
    let mut of_site: Vec<&Arc<Route>> = of_site.collect();
    of_site.sort_by(|a, b| a.name.cmp(&b.name));
    let mut users = of_site.iter().filter_map(|route| match &route.access {
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

    /// Puts another generation in force; exchanges under way end under theirs.
    pub fn publish(&self, generation: Arc<Generation>) {
        generation.begin();
        self.0.store(generation);
    }

    /// The generation in force now.
    pub fn pin(&self) -> Arc<Generation> {
        self.0.load_full()
    }
}
