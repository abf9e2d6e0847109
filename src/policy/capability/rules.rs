//! The rules of a route as a tree of their segments, so that a call meets only those it agrees with.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::{Part, Rule, is_segment};

/// Rules in their order, and where each of them is found.
#[derive(Debug, Default)]
pub(super) struct Rules {
    listed: Vec<Rule>,
    /// The methods that some rule names.
    methods: u8,
    root: Node,
}

/// What stands after one beginning of a path.
#[derive(Debug, Default)]
struct Node {
    /// Those that go on with a word, in lower case and in order.
    words: Vec<(Box<str>, Self)>,
    /// Those that go on with `*`.
    segment: Option<Box<Self>>,
    /// Those that go on with `{key}`.
    key: Option<Box<Self>>,
    /// Those that are at their end.
    ends: Vec<End>,
    /// Those that end here in `**`.
    tails: Vec<End>,
}

/// The end of one rule's pattern.
#[derive(Debug)]
struct End {
    methods: u8,
    /// The rule's place in the list.
    place: usize,
}

impl Rules {
    /// Arranges rules; a later one that is the same as an earlier one is left out.
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let mut all = Self::default();
        for rule in rules {
            let methods = rule.methods();
            let parts = rule.pattern.parts.iter();
            let node = parts.fold(&mut all.root, Node::after);
            let ends = match rule.pattern.any_tail {
                true => &mut node.tails,
                false => &mut node.ends,
            };
            // What ends here is the same pattern, be it in other letters.
            if ends.iter().all(|end| end.methods != methods) {
                let place = all.listed.len();
                ends.push(End { methods, place });
                all.methods |= methods;
                all.listed.push(rule);
            }
        }
        all
    }

    /// The rules, in order.
    pub(super) fn listed(&self) -> &[Rule] {
        &self.listed
    }

    /// The methods that some rule names.
    pub(super) fn methods(&self) -> u8 {
        self.methods
    }

    /// The pattern of the first rule that lists a call.
    pub(super) fn find(&self, method: u8, call: &[Cow<'_, str>]) -> Option<&Arc<str>> {
        // No pattern matches the empty call, `**` neither.
        let place = (!call.is_empty()).then(|| self.root.first(method, call))??;
        self.listed.get(place).map(|rule| rule.pattern.text())
    }
}

impl Node {
    /// Where patterns go on after a part, which is made if it is not there.
    fn after(&mut self, part: &Part) -> &mut Self {
        match part {
            Part::Segment => self.segment.get_or_insert_default(),
            Part::Key => self.key.get_or_insert_default(),
            Part::Word(word) => {
                let at = self.find(word).unwrap_or_else(|at| {
                    let word = word.to_ascii_lowercase().into();
                    self.words.insert(at, (word, Self::default()));
                    at
                });
                &mut self.words[at].1
            }
        }
    }

    /// Where a word in any case stands among the words, or where it would.
    fn find(&self, word: &str) -> Result<usize, usize> {
        self.words
            .binary_search_by(|(known, _)| compare(known, word))
    }

    /// The place of the first rule that lists the rest of a call.
    fn first(&self, method: u8, call: &[Cow<'_, str>]) -> Option<usize> {
        // Ends stand in the order of their rules.
        let first_of = |ends: &[End]| {
            let end = ends.iter().find(|end| end.methods & method != 0);
            end.map(|end| end.place)
        };
        let is_tail = |call: &[Cow<'_, str>]| call.iter().all(|segment| is_segment(segment));
        let tail = first_of(&self.tails).filter(|_| is_tail(call));
        let Some((segment, rest)) = call.split_first() else {
            return first_of(&self.ends).into_iter().chain(tail).min();
        };
        let word = self.find(segment).ok().map(|at| &self.words[at].1);
        let any = self.segment.as_deref().filter(|_| is_segment(segment));
        let nodes = word.into_iter().chain(any).chain(self.key.as_deref());
        nodes
            .filter_map(|node| node.first(method, rest))
            .chain(tail)
            .min()
    }
}

/// How a word in lower case stands to one in any: the shorter is less, so that most are told by their
/// length alone.
fn compare(known: &str, word: &str) -> Ordering {
    let in_lower_case = word.bytes().map(|byte| byte.to_ascii_lowercase());
    let by_length = known.len().cmp(&word.len());
    by_length.then_with(|| known.bytes().cmp(in_lower_case))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::{Pattern, bit};
    use super::*;

    fn rule(method: Option<Method>, pattern: &str) -> Rule {
        Rule {
            method,
            pattern: Pattern::parse(pattern).unwrap(),
        }
    }

    /// What is found without a tree: the pattern of the first rule in the list that allows the call.
    fn scanned(rules: &[Rule], method: u8, call: &[Cow<'_, str>]) -> Option<String> {
        let found = rules.iter().find(|rule| rule.allows(method, call));
        found.map(|rule| rule.pattern.text().to_string())
    }

    #[test]
    fn the_first_rule_of_several_counts() {
        let check = |patterns: &[&str], path: &str, expected: Option<&str>| {
            let rules = patterns.iter().map(|text| rule(None, text)).collect();
            let call: Vec<_> = path.split('/').map(Cow::Borrowed).collect();
            let rules = Rules::new(rules);
            let found = rules.find(bit(&Method::GET), &call).map(|text| &**text);
            assert_eq!(found, expected, "{patterns:?} {path}");
        };
        let all = ["a/*", "a/b", "a/{key}", "a/**", "**", "{key}/{key}"];
        check(&all, "a/b", Some("a/*"));
        check(&all[1..], "A/B", Some("a/b"));
        check(&all[2..], "a/b", Some("a/{key}"));
        check(&all[3..], "a/b", Some("a/**"));
        check(&all[4..], "a/b", Some("**"));
        check(&all[5..], "a/b", Some("{key}/{key}"));
        check(&all, "a", Some("a/**"));
        check(&all, "b", Some("**"));
        check(&all, "a/%20", Some("a/{key}"));
        check(&all, "b/%20", Some("{key}/{key}"));
        check(&all, "b/%20/c", None);
        check(&["a", "A/b"], "a/b", Some("A/b"));
        check(&["**"], "@config", None);
        let rules = Rules::new(vec![rule(None, "**")]);
        assert_eq!(rules.find(bit(&Method::GET), &[]), None);
    }

    #[test]
    fn the_same_rule_stands_once() {
        let get = || Some(Method::GET);
        let rules = Rules::new(vec![
            rule(get(), "a"),
            rule(Some(Method::PUT), "a"),
            rule(get(), "A"),
            rule(get(), "a/**"),
            rule(get(), "a"),
        ]);
        let listed: Vec<_> = rules
            .listed
            .iter()
            .map(|rule| rule.pattern.text())
            .collect();
        assert_eq!(listed.len(), 3, "{listed:?}");
        assert_eq!(
            rules.methods(),
            bit(&Method::GET) | bit(&Method::HEAD) | bit(&Method::PUT)
        );
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let part = select(vec!["a", "B", "ab", "*", "{key}", "=t"]);
        let parts = proptest::collection::vec(part, 1..4);
        let methods = vec![
            None,
            Some(Method::GET),
            Some(Method::HEAD),
            Some(Method::PUT),
        ];
        (parts, any::<bool>(), select(methods)).prop_map(|(parts, has_tail, method)| {
            let tail = if has_tail { "/**" } else { "" };
            rule(method, &(parts.join("/") + tail))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn as_when_each_rule_is_asked(
            rules in proptest::collection::vec(any_rule(), 0..24),
            wild in proptest::option::of(0_usize..24),
            call in proptest::collection::vec(select(vec!["a", "A", "b", "AB", "c", "=t", "=a/b", "%20", "@a", "\u{e9}"]), 0..5),
            method in select(vec![Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::TRACE]),
        ) {
            let mut rules = rules;
            if let Some(at) = wild {
                rules.insert(at.min(rules.len()), rule(None, "**"));
            }
            let call: Vec<_> = call.into_iter().map(Cow::Borrowed).collect();
            let expected = scanned(&rules, bit(&method), &call);
            let arranged = Rules::new(rules);
            let found = arranged.find(bit(&method), &call).map(|text| text.to_string());
            prop_assert_eq!(found, expected);
        }
    }
}
