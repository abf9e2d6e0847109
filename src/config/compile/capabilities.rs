//! Capabilities: the catalogue that is compiled in, and the file's own.

use http::Method;

use crate::config::problem::Findings;
use crate::config::tree::{At, Fields, Node, join};
use crate::policy::capability::{Pattern, Rule};
use crate::policy::method::METHODS;

/// The name of the capability that nothing else includes.
pub(super) const MINTING: &str = "mint-credentials";

const CATALOGUE: &str = include_str!("../../policy/capabilities.yaml");

/// A capability by name.
pub(super) struct NamedCapability {
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
}

/// Everything a route may allow.
pub(super) struct Catalogue(Vec<NamedCapability>);

impl Catalogue {
    pub(super) fn find(&self, name: &str) -> Option<&NamedCapability> {
        self.0.iter().find(|capability| capability.name == name)
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self
            .0
            .iter()
            .map(|capability| capability.name.as_str())
            .collect();
        names.join(", ")
    }
}

pub(super) fn compile(file: &Fields<'_>) -> Catalogue {
    let mut all = built_in();
    let own = file
        .optional("capabilities", |at| Some(section(at)))
        .unwrap_or_default();
    for capability in own {
        if all.iter().any(|known| known.name == capability.name) {
            file.problem_at(
                &format!("capabilities.{}", capability.name),
                "there is a built-in capability of this name; choose another",
            );
        } else {
            all.push(capability);
        }
    }
    Catalogue(all)
}

fn built_in() -> Vec<NamedCapability> {
    let tree = Node::parse(CATALOGUE).expect("the catalogue is YAML, as a test shows");
    let findings = Findings::default();
    let fields = At::new(&tree, "", &findings).fields(&["version", "capabilities"]);
    let read = |fields: Fields<'_>| fields.optional("capabilities", |at| Some(section(at)));
    let capabilities = fields.and_then(read).unwrap_or_default();
    let (problems, _) = findings.into_parts();
    assert!(
        problems.is_empty(),
        "the catalogue has no problems, as a test shows: {problems:?}"
    );
    capabilities
}

fn section(at: At<'_>) -> Vec<NamedCapability> {
    let Some(entries) = at.map() else {
        return Vec::new();
    };
    entries
        .into_iter()
        .filter_map(|(name, node)| {
            let place = join(at.place(), name);
            let at = at.child(node, &place);
            if !super::is_name(name) {
                at.problem(super::NAME_CURE);
            }
            let rules = rules(at)?;
            Some(NamedCapability {
                name: name.to_owned(),
                rules,
            })
        })
        .collect()
}

fn rules(at: At<'_>) -> Option<Vec<Rule>> {
    let names: Vec<&str> = METHODS.iter().map(Method::as_str).collect();
    let known = [&["about", "any"][..], &names].concat();
    let fields = at.fields(&known)?;
    let methods = METHODS
        .iter()
        .map(|method| (method.as_str(), Some(method.clone())));
    let mut rules = Vec::new();
    for (key, method) in methods.chain([("any", None)]) {
        let patterns = fields.each(key, |at| {
            let parsed = Pattern::parse(at.text()?);
            parsed.map_err(|fault| at.problem(fault)).ok()
        });
        rules.extend(patterns.into_iter().map(|pattern| Rule {
            method: method.clone(),
            pattern,
        }));
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_holds_every_capability() {
        let catalogue = Catalogue(built_in());
        for name in [
            "search",
            "read-pages",
            "write-pages",
            "read-files",
            "write-files",
            "read-users",
            "read-groups",
            "read-site",
            "comments",
            "ratings",
            "activity",
            "whoami",
            "all",
            MINTING,
        ] {
            let capability = catalogue.find(name);
            assert!(
                capability.is_some_and(|one| !one.rules.is_empty()),
                "{name} is there and has rules"
            );
        }
    }

    #[test]
    fn each_capability_has_its_line() {
        let lines = CATALOGUE
            .lines()
            .filter(|line| line.starts_with("    about: "))
            .count();
        assert_eq!(lines, built_in().len());
    }
}
