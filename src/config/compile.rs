//! Strings become domain types, once.

mod callers;
pub(crate) mod capabilities;
mod dates;
mod networks;
mod proxies;
mod routes;
pub mod settings;
mod sites;
mod tls;
mod units;

use self::settings::Settings;
pub use self::sites::SiteTokens;
use super::problem::Findings;
use super::reference::References;
use super::tree::{At, Node};
use crate::policy::Policy;

/// Compiles a tree; `None`, or findings with problems in them, mean that it cannot be used.
pub fn compile(
    tree: &Node,
    references: &References<'_>,
    findings: &Findings,
) -> Option<(Settings, Policy)> {
    let known = [
        "listeners",
        "admin",
        "sites",
        "callers",
        "routes",
        "capabilities",
        "limits",
        "log",
    ];
    let file = At::new(tree, "", findings).fields(&known)?;
    let (mut settings, per_user) = settings::compile(&file, references);
    let sites = sites::compile(&file, references);
    let callers = callers::compile(&file, references, per_user);
    let catalogue = capabilities::compile(&file);
    let by_name = callers.iter().map(|named| (&*named.name, named)).collect();
    let routes = routes::compile(
        &file,
        &routes::Parts {
            sites: &sites,
            callers: &by_name,
            catalogue: &catalogue,
        },
    );
    routes::check_use(&file, &sites, &callers, &routes);
    callers::acts_as::warn_of_administrators(&file, &sites, &callers, &routes);
    settings.caller_limits = callers
        .into_iter()
        .map(|named| (named.name, named.limits))
        .collect();
    Some((settings, Policy::new(routes)))
}

/// Fetches what signs for one site, or for the only one; `None`, or findings with problems in them,
/// mean that it cannot be used.
pub fn tokens(
    tree: &Node,
    site: Option<&str>,
    references: &References<'_>,
    findings: &Findings,
) -> Option<SiteTokens> {
    sites::tokens(tree, site, references, findings)
}

/// The address and the token of operators, and nothing else; `None` without them, or if they cannot be used.
pub fn admin(
    tree: &Node,
    references: &References<'_>,
    findings: &Findings,
) -> Option<settings::Admin> {
    let file = At::new(tree, "", findings);
    let entries = file.map()?;
    let (_, node) = entries.iter().find(|(key, _)| *key == "admin")?;
    settings::admin(file.child(node, "admin"), references)
}

/// Whether a name may label a metric and stand in a log: lower-case words.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// What a name must look like, for problems.
const NAME_CURE: &str =
    "a name has at most 64 lower-case letters, digits, hyphens, dots and underscores";
