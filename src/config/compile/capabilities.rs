//! Capabilities: the catalogue that is compiled in, and the file's own.

use http::Method;

use crate::config::problem::Findings;
use crate::config::tree::{At, Fields, Node, join};
use crate::policy::capability::{Pattern, Rule};
use crate::policy::method::METHODS;

/// The name of the capability that nothing else includes.
pub(super) const MINTING: &str = "mint-credentials";

/// The name of the one that includes every other built-in one.
pub(super) const ALL: &str = "all";

const CATALOGUE: &str = include_str!("../../policy/capabilities.yaml");

/// A capability by name.
#[derive(Debug)]
pub(crate) struct NamedCapability {
    pub(crate) name: String,
    /// What it is for, in one sentence; empty where a file does not say.
    pub(crate) about: String,
    pub(crate) rules: Vec<Rule>,
}

/// Everything a route may allow.
pub(super) struct Catalogue(Vec<NamedCapability>);

impl Catalogue {
    pub(super) fn find(&self, name: &str) -> Option<&NamedCapability> {
        self.0.iter().find(|capability| capability.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|capability| capability.name.as_str())
    }

    /// The rules of what hands out credentials.
    pub(super) fn minting(&self) -> &[Rule] {
        self.find(MINTING).map_or(&[], |minting| &minting.rules)
    }
}

pub(super) fn compile(file: &Fields<'_>) -> Catalogue {
    let mut all = Catalogue(built_in());
    let own = file
        .optional("capabilities", |at| Some(section(at)))
        .unwrap_or_default();
    for capability in own {
        let place = format!("capabilities.{}", capability.name);
        if all.find(&capability.name).is_some() {
            file.problem_at(
                &place,
                "there is a built-in capability of this name; choose another",
            );
            continue;
        }
        for rule in &capability.rules {
            let mut minting = all.minting().iter();
            if minting.any(|minting| minting.pattern.covers(&rule.pattern)) {
                file.warning_at(
                    &place,
                    format!(
                        "the pattern {} never matches: what it names hands out credentials or reaches beyond the knowledge base, and only {MINTING} allows that",
                        rule.pattern.text()
                    ),
                );
            }
        }
        all.0.push(capability);
    }
    all
}

/// The capabilities that are compiled in.
pub(crate) fn built_in() -> Vec<NamedCapability> {
    let tree = Node::parse(CATALOGUE).expect("the catalogue is YAML, as a test shows");
    let findings = Findings::default();
    let fields = At::new(&tree, "", &findings).fields(&["version", "capabilities"]);
    let read = |fields: Fields<'_>| fields.optional("capabilities", |at| Some(section(at)));
    let mut capabilities = fields.and_then(read).unwrap_or_default();
    let (problems, _) = findings.into_parts();
    assert!(
        problems.is_empty(),
        "the catalogue has no problems, as a test shows: {problems:?}"
    );
    let mut union: Vec<Rule> = Vec::new();
    for capability in capabilities.iter().filter(|one| one.name != MINTING) {
        for rule in &capability.rules {
            if !union.contains(rule) {
                union.push(rule.clone());
            }
        }
    }
    if let Some(all) = capabilities.iter_mut().find(|one| one.name == ALL) {
        all.rules = union;
    }
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
            let (about, rules) = entry(at)?;
            Some(NamedCapability {
                name: name.to_owned(),
                about,
                rules,
            })
        })
        .collect()
}

/// What a capability is for, and its rules.
fn entry(at: At<'_>) -> Option<(String, Vec<Rule>)> {
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
    let about = fields.optional("about", |at| at.text().map(str::to_owned));
    Some((about.unwrap_or_default(), rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::capability::{Allowance, Allowed};
    use crate::policy::target::Target;

    /// Every line of the table of calls that public clients make: `K` is a name in whatever encoding.
    const CALLS: &str = include_str!("../../../tests/fixtures/calls.txt");

    fn allowance(capabilities: &[NamedCapability], names: &[&str]) -> Allowance {
        let rules = |wanted: &dyn Fn(&str) -> bool| {
            let chosen = capabilities.iter().filter(|one| wanted(&one.name));
            chosen.flat_map(|one| one.rules.iter().cloned()).collect()
        };
        Allowance::new(
            rules(&|name| names.contains(&name)),
            rules(&|name| name == MINTING),
            false,
        )
    }

    fn judge(allowance: &Allowance, method: &str, path: &str) -> Allowed {
        let target = format!("/@api/deki/{path}");
        let target = Target::parse(target.as_bytes(), "h").unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        allowance.judge(&method, target.segments())
    }

    #[test]
    fn every_call_of_the_public_clients_is_covered() {
        let capabilities = built_in();
        let all = allowance(&capabilities, &["all"]);
        for line in CALLS.lines().filter(|line| !line.starts_with('#')) {
            let [name, methods, paths] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let named = allowance(&capabilities, &[name]);
            for path in paths.split(' ') {
                for method in methods.split(',') {
                    for key in [
                        "K",
                        "mindtouch.page%2523overview",
                        "urn%253ax",
                        "my%2520prop",
                    ] {
                        let path = path.replace('K', key);
                        for (what, allowance) in [(name, &named), ("all", &all)] {
                            let judged = judge(allowance, method, &path);
                            if name == MINTING {
                                assert_eq!(judged, Allowed::NoItMints, "{method} {path} by {what}");
                            } else {
                                let is_allowed =
                                    matches!(judged, Allowed::Yes { mints: false, .. });
                                assert!(is_allowed, "{method} {path} by {what}: {judged:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn reading_is_no_writing() {
        let capabilities = built_in();
        for capability in &capabilities {
            let only_reads = ["search", "reports", "generative", "whoami", "page-security"]
                .contains(&&*capability.name)
                || capability.name.starts_with("read-");
            for rule in &capability.rules {
                let reads = rule.method == Some(Method::GET);
                let asks = ["site/query/log/*", "site/search/log/*", "pages/*/allowed"]
                    .contains(&&**rule.pattern.text());
                assert!(
                    !only_reads || reads || asks,
                    "{}: {rule:?}",
                    capability.name
                );
            }
        }
    }

    #[test]
    fn nothing_but_its_own_capability_mints() {
        let capabilities = built_in();
        let minting = capabilities.iter().find(|one| one.name == MINTING).unwrap();
        assert!(!minting.rules.is_empty());
        let others = capabilities.iter().filter(|one| one.name != MINTING);
        for rule in others.flat_map(|one| &one.rules) {
            let mut shadows = minting.rules.iter();
            let shadow = shadows.find(|one| one.pattern.covers(&rule.pattern));
            assert_eq!(shadow, None, "{rule:?}");
        }
    }

    #[test]
    fn each_capability_has_its_sentence_and_rules() {
        for capability in built_in() {
            assert!(capability.about.ends_with('.'), "{}", capability.name);
            assert!(!capability.rules.is_empty(), "{}", capability.name);
        }
    }
}
