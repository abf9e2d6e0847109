//! What hands out credentials or reaches beyond the knowledge base, in whatever way a site may read it.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::reading::{is_plain, readings};
use super::Rule;

/// The endpoints that do so, and what stands among them and is harmless.
#[derive(Clone, Debug, Default)]
pub struct Minting {
    rules: Vec<Rule>,
    harmless: Vec<Rule>,
}

impl Minting {
    /// Of these rules, the first whatever their methods are, the second for theirs only.
    pub fn new(rules: Vec<Rule>, harmless: Vec<Rule>) -> Self {
        Self { rules, harmless }
    }

    /// The endpoints.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What stands among them and is harmless.
    pub(super) fn harmless(&self) -> &[Rule] {
        &self.harmless
    }

    /// Whether all that a rule lists is among these endpoints, so that it never lets anything pass.
    pub fn shadows(&self, rule: &Rule) -> bool {
        let mut harmless = self.harmless.iter();
        self.rules
            .iter()
            .any(|minting| minting.pattern.covers(&rule.pattern))
            && !harmless.any(|harmless| {
                harmless.is_for(rule.methods()) && harmless.pattern.meets(&rule.pattern)
            })
    }

    /// The methods that some rule names.
    pub(super) fn methods(&self) -> u8 {
        self.rules.iter().fold(0, |all, rule| all | rule.methods())
    }

    /// The pattern that lists a call in its plain spelling.
    pub(super) fn find(&self, method: u8, call: &[Cow<'_, str>]) -> Option<Arc<str>> {
        let rule = self.rules.iter().find(|rule| rule.allows(method, call));
        rule.map(|rule| Arc::clone(rule.pattern.text()))
    }

    /// Whether some server may take a call for one of these endpoints.
    pub(super) fn may_be(&self, method: u8, call: &[Cow<'_, str>]) -> bool {
        // What a path begins with, up to the first segment that can be read in several ways, it
        // begins with in every reading; most paths are plain to their end.
        let plain = call.iter().take_while(|segment| is_plain(segment)).count();
        let (beginning, rest) = call.split_at(plain);
        let patterns = self.rules.iter().map(|rule| &rule.pattern);
        let mut possible = patterns.filter(|pattern| pattern.agrees_with(beginning));
        if rest.is_empty() {
            return possible.any(|pattern| pattern.forbids(call))
                && !self.is_harmless(method, call);
        }
        let possible: Vec<_> = possible.collect();
        !possible.is_empty()
            && readings(call).any(|reading| {
                possible.iter().any(|pattern| pattern.forbids(&reading))
                    && !self.is_harmless(method, &reading)
            })
    }

    /// Whether one reading of a call is harmless.
    fn is_harmless<S: AsRef<str>>(&self, method: u8, reading: &[S]) -> bool {
        let mut harmless = self.harmless.iter();
        harmless.any(|rule| rule.is_for(method) && rule.pattern.forbids(reading))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::{Pattern, bit};
    use super::*;

    fn rules(lines: &[(&str, &str)]) -> Vec<Rule> {
        let rule = |(method, pattern): &(&str, &str)| Rule {
            method: (*method != "any").then(|| method.parse().unwrap()),
            pattern: Pattern::parse(pattern).unwrap(),
        };
        lines.iter().map(rule).collect()
    }

    fn minting() -> Minting {
        Minting::new(
            rules(&[("any", "license/**"), ("any", "site/jobs/**")]),
            rules(&[
                ("GET", "license/usage"),
                ("GET", "site/jobs"),
                ("GET", "site/jobs/*"),
                ("POST", "site/jobs/*/cancel"),
            ]),
        )
    }

    #[test]
    fn what_is_harmless_is_so_in_every_reading_and_for_its_methods_only() {
        let check = |method: Method, path: &str, expected: bool| {
            let call: Vec<_> = path.split('/').map(Cow::Borrowed).collect();
            let may_be = minting().may_be(bit(&method), &call);
            assert_eq!(may_be, expected, "{method} {path}");
        };
        for (method, path) in [
            (Method::GET, "license/usage"),
            (Method::HEAD, "License/Usage"),
            (Method::GET, "license/usage;x"),
            (Method::GET, "site/jobs"),
            (Method::GET, "site/jobs/1"),
            (Method::GET, "site/jobs/my%20job"),
            (Method::POST, "site/jobs/1/cancel"),
            (Method::DELETE, "licenses"),
            (Method::DELETE, "site/job/1"),
        ] {
            check(method, path, false);
        }
        for (method, path) in [
            (Method::GET, "license"),
            (Method::GET, "license/"),
            (Method::GET, "license/key"),
            (Method::GET, "license/usages"),
            (Method::GET, "license/usage/key"),
            (Method::PUT, "license/usage"),
            (Method::OPTIONS, "license/usage"),
            // In one reading it is harmless, in another it is not.
            (Method::GET, "license/us%61ge"),
            (Method::GET, "license%23/usage"),
            (Method::GET, "license/usage%2Fkey"),
            (Method::GET, "license%2Fusage/key"),
            (Method::GET, "site/jobs/1%2Fx"),
            (Method::GET, "site/jobs/1/cancel"),
            (Method::POST, "site/jobs/1"),
            (Method::POST, "site/jobs/1%252Fcancel%252Fx"),
            (Method::DELETE, "site/jobs/1"),
        ] {
            check(method, path, true);
        }
    }

    #[test]
    fn rules_that_never_let_anything_pass() {
        let check = |method: &str, pattern: &str, expected: bool| {
            let [rule] = &rules(&[(method, pattern)])[..] else {
                unreachable!("one line is one rule");
            };
            assert_eq!(minting().shadows(rule), expected, "{method} {pattern}");
        };
        for pattern in ["license", "license/key", "site/jobs/*/*/*", "LICENSE/x/**"] {
            check("any", pattern, true);
        }
        check("POST", "license/usage", true);
        check("POST", "license/**", true);
        check("PUT", "site/jobs/*", true);
        for (method, pattern) in [
            ("GET", "license/usage"),
            ("HEAD", "license/usage"),
            ("any", "license/**"),
            ("any", "license/{key}"),
            ("any", "site/jobs/**"),
            ("POST", "site/jobs/*/{key}"),
            ("POST", "site/*/x"),
            ("any", "**"),
        ] {
            check(method, pattern, false);
        }
    }
}
