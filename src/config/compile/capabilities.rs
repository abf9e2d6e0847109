//! Capabilities: the catalogue that is compiled in, and the file's own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use crate::config::problem::Findings;
use crate::config::tree::{At, Fields, Node, join};
use crate::policy::capability::{Allowance, Minting, Pattern, Rule};
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
    /// What its rules list and is none of it; only where it is compiled in.
    pub(crate) except: Vec<Rule>,
}

/// Everything a route may allow.
pub(super) struct Catalogue {
    capabilities: Vec<NamedCapability>,
    minting: Arc<Minting>,
    /// What was joined so far, by the names: routes that allow the same share it.
    joined: RefCell<HashMap<Vec<String>, Allowance>>,
}

impl Catalogue {
    fn built_in() -> Self {
        let capabilities = built_in();
        let minting = capabilities.iter().find(|one| one.name == MINTING);
        let minting =
            minting.map(|minting| Minting::new(minting.rules.clone(), minting.except.clone()));
        Self {
            minting: minting.unwrap_or_default().into(),
            joined: RefCell::default(),
            capabilities,
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<&NamedCapability> {
        let mut capabilities = self.capabilities.iter();
        capabilities.find(|capability| capability.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.capabilities.iter().map(|one| one.name.as_str())
    }

    /// What a route with these capabilities allows.
    pub(super) fn join(&self, chosen: &[&NamedCapability]) -> Allowance {
        let names: Vec<&str> = chosen.iter().map(|one| &*one.name).collect();
        let join = || {
            let others = chosen.iter().filter(|one| one.name != MINTING);
            let rules = others.flat_map(|one| one.rules.iter().cloned()).collect();
            let may_mint = names.contains(&MINTING);
            Allowance::new(&names, rules, Arc::clone(&self.minting), may_mint)
        };
        let by_names = names.iter().copied().map(str::to_owned).collect();
        let mut joined = self.joined.borrow_mut();
        joined.entry(by_names).or_insert_with(join).clone()
    }
}

pub(super) fn compile(file: &Fields<'_>) -> Catalogue {
    let mut all = Catalogue::built_in();
    let own = file
        .optional("capabilities", |at| Some(section(at, &[])))
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
            if all.minting.shadows(rule) {
                file.warning_at(
                    &place,
                    format!(
                        "the pattern {} never matches: what it names hands out credentials or reaches beyond the knowledge base, and only {MINTING} allows that",
                        rule.pattern.text()
                    ),
                );
            }
        }
        all.capabilities.push(capability);
    }
    all
}

/// The capabilities that are compiled in.
pub(crate) fn built_in() -> Vec<NamedCapability> {
    let tree = Node::parse(CATALOGUE).expect("the catalogue is YAML, as a test shows");
    let findings = Findings::default();
    let fields = At::new(&tree, "", &findings).fields(&["version", "capabilities"]);
    let read =
        |fields: Fields<'_>| fields.optional("capabilities", |at| Some(section(at, &["except"])));
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

/// Capabilities by name, which may have these keys beside the ones that a file's own may have.
fn section(at: At<'_>, more: &[&str]) -> Vec<NamedCapability> {
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
            let fields = at.fields(&[&["about"], more, &methods()].concat())?;
            let about = fields.optional("about", |at| at.text().map(str::to_owned));
            let except = fields.optional("except", |at| Some(rules(&at.fields(&methods())?)));
            Some(NamedCapability {
                name: name.to_owned(),
                about: about.unwrap_or_default(),
                rules: rules(&fields),
                except: except.unwrap_or_default(),
            })
        })
        .collect()
}

/// The keys that hold patterns.
fn methods() -> Vec<&'static str> {
    ["any"]
        .into_iter()
        .chain(METHODS.iter().map(Method::as_str))
        .collect()
}

fn rules(fields: &Fields<'_>) -> Vec<Rule> {
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
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::capability::Allowed;
    use crate::policy::target::Target;

    /// Every line of the table of calls that public clients make: `K` is a name in whatever encoding.
    const CALLS: &str = include_str!("../../../tests/fixtures/calls.txt");

    fn allowance(names: &[&str]) -> Allowance {
        let catalogue = Catalogue::built_in();
        let chosen = names.iter().map(|name| catalogue.find(name).unwrap());
        catalogue.join(&chosen.collect::<Vec<_>>())
    }

    fn judge(allowance: &Allowance, method: &str, path: &str) -> Allowed {
        let target = format!("/@api/deki/{path}");
        let target = Target::parse(target.as_bytes(), "h").unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        allowance.judge(&method, target.segments())
    }

    #[test]
    fn every_call_of_the_public_clients_is_covered() {
        let all = allowance(&["all"]);
        for line in CALLS.lines().filter(|line| !line.starts_with('#')) {
            let [name, methods, paths] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let named = allowance(&[name]);
            for path in paths.split(' ') {
                for method in methods.split(',') {
                    for key in [
                        "K",
                        "mindtouch.page%2523overview",
                        "urn%253ax",
                        "my%2520prop",
                    ] {
                        let path = path.replace('K', key);
                        let said = |judged| match judged {
                            Allowed::Yes { mints: true, .. } => "mints",
                            Allowed::Yes { .. } => "yes",
                            Allowed::No => "no",
                            Allowed::NoItMints => "no, it mints",
                        };
                        let expected = match name {
                            MINTING => ["mints", "no, it mints"],
                            _ => ["yes", "yes"],
                        };
                        let judged = [&named, &all].map(|by| said(judge(by, method, &path)));
                        assert_eq!(judged, expected, "{method} {path} by {name} and all");
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
        for rule in &minting.rules {
            let is_whole = rule.method.is_none() && rule.pattern.text().ends_with("/**");
            assert!(
                is_whole,
                "an endpoint mints in all that lies below: {rule:?}"
            );
        }
        let is_covered = |rule: &Rule| {
            let mut minting = minting.rules.iter();
            minting.any(|minting| minting.pattern.covers(&rule.pattern))
        };
        let others = capabilities.iter().filter(|one| one.name != MINTING);
        let listed: Vec<&Rule> = others.flat_map(|one| &one.rules).collect();
        for rule in &listed {
            let is_harmless = minting.except.contains(rule);
            assert!(!is_covered(rule) || is_harmless, "{rule:?}");
        }
        for rule in &minting.except {
            assert!(is_covered(rule) && listed.contains(&rule), "{rule:?}");
            let has_tail = rule.method.is_none() || rule.pattern.text().contains("**");
            assert!(!has_tail, "an exception is no more than it says: {rule:?}");
        }
    }

    #[test]
    fn routes_that_allow_the_same_share_it() {
        let catalogue = Catalogue::built_in();
        let join = |names: &[&str]| {
            let chosen = names.iter().map(|name| catalogue.find(name).unwrap());
            catalogue.join(&chosen.collect::<Vec<_>>())
        };
        for names in [&["all"][..], &["search", "whoami"], &["all", MINTING]] {
            assert_eq!(join(names).may_mint(), names.contains(&MINTING));
            let two = [join(names), join(names)];
            assert!(two[0].is_same(&two[1]), "{names:?}");
        }
        assert!(!join(&["all"]).is_same(&join(&["search"])));
    }

    /// Whatever a file's own wildcard takes.
    #[test]
    fn nothing_below_what_mints_is_taken_by_a_wildcard() {
        let wild = ["**", "{key}", "{key}/{key}", "{key}/{key}/{key}"].map(|pattern| Rule {
            method: None,
            pattern: Pattern::parse(pattern).unwrap(),
        });
        let minting = Catalogue::built_in().minting;
        let allowance = Allowance::new(&[], wild.into(), minting, false);
        for (method, path) in [
            ("GET", "license"),
            ("GET", "license/key"),
            ("POST", "license/transfer"),
            ("PUT", "license/usage"),
            ("GET", "License/download/x"),
            ("GET", "license/usage/users"),
            ("GET", "site/export"),
            ("GET", "site/export/users"),
            ("POST", "site/import/groups"),
            ("POST", "site/import/x/y"),
            ("DELETE", "site/jobs/1"),
            ("PUT", "site/jobs/import"),
            ("GET", "site/jobs/1/archive"),
            ("GET", "site/bans/1"),
            ("GET", "host/x"),
        ] {
            let judged = judge(&allowance, method, path);
            assert_eq!(judged, Allowed::NoItMints, "{method} {path}");
        }
        for (method, path) in [
            ("GET", "license/usage"),
            ("GET", "site/jobs/1"),
            ("POST", "site/jobs/import"),
            ("POST", "site/export"),
            ("GET", "licenses"),
            ("GET", "pages/license"),
            ("GET", "site/license"),
        ] {
            let judged = judge(&allowance, method, path);
            let passes = matches!(judged, Allowed::Yes { mints: false, .. });
            assert!(passes, "{method} {path}: {judged:?}");
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
