//! What is learnt beside the traffic: names, breakers, and what each caller uses.

pub mod breaker;
pub mod budget;
pub mod names;

use std::collections::HashMap;
use std::sync::Arc;

use self::breaker::Breaker;
use self::budget::Budgets;
use self::names::Addresses;
use crate::policy::Policy;
use crate::policy::limit::RequestLimits;
use crate::policy::site::{Site, SiteAddress};

/// Everything that is learnt at run time.
#[derive(Debug)]
pub struct Watch {
    sites: HashMap<Arc<str>, Watched>,
    /// What callers and pages use.
    pub budgets: Budgets,
}

/// What is learnt of one site.
#[derive(Debug)]
pub struct Watched {
    /// Where its name leads.
    pub addresses: Arc<Addresses>,
    /// Whether it is being left alone.
    pub breaker: Arc<Breaker>,
}

impl Watch {
    /// Nothing learnt yet, of the sites of a policy.
    pub fn new(
        policy: &Policy,
        callers: &[(Arc<str>, RequestLimits)],
        origins: RequestLimits,
    ) -> Self {
        let sites = policy
            .routes()
            .map(|route| {
                let watched = Watched {
                    addresses: Arc::new(Addresses::of(&route.site.address)),
                    breaker: Arc::default(),
                };
                (Arc::clone(&route.site.name), watched)
            })
            .collect();
        Self {
            sites,
            budgets: Budgets::new(callers, origins),
        }
    }

    /// What is learnt of a site; `None` for a site that no route leads to.
    pub fn site(&self, site: &Site) -> Option<&Watched> {
        self.sites.get(&site.name)
    }

    /// Every site that is watched, by name.
    pub fn sites(&self) -> impl Iterator<Item = (&str, &Watched)> {
        self.sites.iter().map(|(name, watched)| (&**name, watched))
    }

    /// Where each site's name leads, for the task that resolves them.
    pub fn addresses(&self) -> Vec<Arc<Addresses>> {
        self.sites
            .values()
            .map(|watched| Arc::clone(&watched.addresses))
            .collect()
    }
}

impl Addresses {
    fn of(address: &SiteAddress) -> Self {
        Self::new(&address.host, address.port)
    }
}
