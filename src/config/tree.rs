//! What should stand where: fields are taken out of the tree, and what is wrong with each is noted
//! with its place and without its value.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

pub use super::node::Node;
use super::node::Value;
use super::problem::Findings;
use super::words::{cure, may_be_repeated};
use super::yaml::is_glued;

/// A node and where it stands; what it should be is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    node: &'a Node,
    place: &'a str,
    findings: &'a Findings,
}

impl<'a> At<'a> {
    /// A node at a place.
    pub fn new(node: &'a Node, place: &'a str, findings: &'a Findings) -> Self {
        Self {
            node,
            place,
            findings,
        }
    }

    /// The place, as problems name it.
    pub fn place(&self) -> &'a str {
        self.place
    }

    /// The place and its line, for what can be judged only later.
    pub(super) fn spot(&self) -> Spot {
        Spot {
            place: self.place.to_owned(),
            line: self.node.line,
        }
    }

    /// Another node at a place below.
    pub fn child<'b>(&self, node: &'b Node, place: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At::new(node, place, self.findings)
    }

    /// Whether a list stands here.
    pub fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Whether a map stands here.
    pub fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Whether a number stands here.
    pub fn is_number(&self) -> bool {
        matches!(self.node.value, Value::Number(_))
    }

    /// Whether a flag stands here.
    pub fn is_flag(&self) -> bool {
        matches!(self.node.value, Value::Flag(_))
    }

    /// Notes a problem here.
    pub fn problem(&self, text: impl fmt::Display) {
        self.findings.problem(self.place, self.node.line, text);
    }

    /// Notes that what a reference here leads to cannot be used: one problem, wherever else the same
    /// reference stands.
    pub fn reference_problem(&self, reference: &str, text: impl fmt::Display) {
        self.findings
            .reference_problem(reference, self.place, self.node.line, text);
    }

    /// Notes a warning here.
    pub fn warning(&self, text: impl fmt::Display) {
        self.findings.warning(self.place, self.node.line, text);
    }

    /// The text that stands here.
    pub fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) if text.trim().is_empty() => self.wrong("text that is not empty"),
            Value::Text(text) | Value::Fraction(text) => Some(text),
            _ => self.wrong("text"),
        }
    }

    /// The text that stands here, be it nothing but space.
    pub fn any_text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => self.text(),
        }
    }

    /// The flag that stands here.
    pub fn flag(&self) -> Option<bool> {
        match &self.node.value {
            Value::Flag(flag) => Some(*flag),
            _ => self.wrong("true or false"),
        }
    }

    /// A whole number from 1 to `most`.
    pub fn count(&self, most: u32) -> Option<u32> {
        self.whole(1, most)
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&self, least: u32, most: u32) -> Option<u32> {
        let number = match &self.node.value {
            Value::Number(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        number.or_else(|| self.wrong(&format!("a whole number from {least} to {most}")))
    }

    /// The text, the whole number or the flag that stands here. A number with a fraction is a problem:
    /// YAML does not keep how it was written.
    pub(super) fn scalar(&self) -> Option<Scalar<'a>> {
        match &self.node.value {
            Value::Flag(flag) => Some(Scalar::Flag(*flag)),
            Value::Number(number) => Some(Scalar::Number(*number)),
            Value::Fraction(_) => {
                self.problem("put a number with a fraction in quotes");
                None
            }
            _ => self.text().map(Scalar::Text),
        }
    }

    /// What `read` makes of what stands here, or of each element where a list does.
    pub fn one_or_each<T>(&self, mut read: impl FnMut(At<'_>) -> Option<T>) -> Vec<T> {
        match self.node.value {
            Value::List(_) => self.each(read).unwrap_or_default(),
            _ => read(*self).into_iter().collect(),
        }
    }

    /// The elements of the list that stands here, at least one; `[]` counts as a mistake.
    pub fn list(&self) -> Option<&'a [Node]> {
        match &self.node.value {
            Value::List(list) if list.is_empty() => self.wrong("a list with at least one element"),
            Value::List(list) => Some(list),
            _ => self.wrong("a list"),
        }
    }

    /// The entries of the map that stands here, each key once.
    pub fn map(&self) -> Option<Vec<(&'a str, &'a Node)>> {
        let Value::Map(entries) = &self.node.value else {
            return self.wrong("a map");
        };
        if entries.is_empty() {
            return self.wrong("a map with at least one entry");
        }
        let mut seen: Vec<(&str, &Node)> = Vec::with_capacity(entries.len());
        let mut lines: HashMap<&str, Option<usize>> = HashMap::with_capacity(entries.len());
        for (key, node) in entries {
            let place = join(self.place, key);
            let at = At::new(node, &place, self.findings);
            if key.is_empty() {
                at.problem(format!("a key is a word; {TEMPLATE}"));
                continue;
            }
            match lines.entry(key) {
                Entry::Occupied(first) => {
                    let first = first
                        .get()
                        .map_or(String::new(), |line| format!(" (first on line {line})"));
                    at.problem(format!("this key stands twice{first}; remove one of them"));
                }
                Entry::Vacant(free) => {
                    free.insert(node.line);
                    seen.push((key, node));
                }
            }
        }
        Some(seen)
    }

    /// The named fields of the map that stands here; keys that are not among `known` are problems.
    pub fn fields(&self, known: &[&str]) -> Option<Fields<'a>> {
        let entries = self.map()?;
        for (key, node) in &entries {
            if !known.contains(key) {
                let cure = if is_glued(key) {
                    SPACE_MISSING.to_owned()
                } else {
                    cure(key, known.iter().copied(), "keys")
                };
                let place = join(self.place, key);
                At::new(node, &place, self.findings)
                    .problem(format!("there is no such key; {cure}"));
            }
        }
        Some(Fields {
            entries,
            place: self.place.to_owned(),
            line: self.node.line,
            findings: self.findings,
        })
    }

    /// What `read` makes of each element of the list that stands here.
    fn each<T>(&self, mut read: impl FnMut(At<'_>) -> Option<T>) -> Option<Vec<T>> {
        let items = self.list()?.iter().enumerate().filter_map(|(index, node)| {
            let place = format!("{}[{index}]{}", self.place, node.shown_name());
            read(At::new(node, &place, self.findings))
        });
        Some(items.collect())
    }

    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        let found = self.node.value.kind();
        let cure = match &self.node.value {
            // As an element: a host with its port lacks no space.
            Value::Text(text) if is_glued(&format!("- {text}")) && !wanted.starts_with("text") => {
                format!("; {SPACE_MISSING}")
            }
            Value::Map(map) if map.iter().any(|(key, _)| key.is_empty()) => {
                format!("; {TEMPLATE}")
            }
            Value::Number(_) | Value::Flag(_) if wanted == "text" => {
                "; put it in quotes".to_owned()
            }
            _ => String::new(),
        };
        self.problem(format!("{wanted} must stand here, not {found}{cure}"));
        None
    }
}

const TEMPLATE: &str = "{{ }} of a template has to be filled in first";

const SPACE_MISSING: &str = "a space is missing after a colon; write key: value";

impl Node {
    /// The name an element of a list gives itself, as places show it.
    fn shown_name(&self) -> String {
        let Value::Map(entries) = &self.value else {
            return String::new();
        };
        let name = entries.iter().find(|(key, _)| key == "name");
        match name.map(|(_, node)| &node.value) {
            Some(Value::Text(name)) if may_be_repeated(name) => format!(" ({name})"),
            _ => String::new(),
        }
    }
}

/// A single value, as the file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Number(i128),
    Flag(bool),
}

/// Where something stands.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    place: String,
    line: Option<usize>,
}

/// The entries of a map with a fixed set of keys.
#[derive(Debug)]
pub struct Fields<'a> {
    entries: Vec<(&'a str, &'a Node)>,
    place: String,
    line: Option<usize>,
    findings: &'a Findings,
}

impl<'a> Fields<'a> {
    /// The same fields, with what is found noted elsewhere.
    pub fn noting_in<'f>(&'f self, findings: &'f Findings) -> Fields<'f> {
        Fields {
            entries: self.entries.clone(),
            place: self.place.clone(),
            line: self.line,
            findings,
        }
    }

    /// Where the map stands.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The place of one of its keys.
    pub fn place_of(&self, key: &str) -> String {
        join(&self.place, key)
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Notes a problem of the map as a whole.
    pub fn problem(&self, text: impl fmt::Display) {
        // The file as a whole stands on no line.
        let line = self.line.filter(|_| !self.place.is_empty());
        self.findings.problem(&self.place, line, text);
    }

    /// Notes a problem at one of its keys, or further down, as in `callers.crm`.
    pub fn problem_at(&self, path: &str, text: impl fmt::Display) {
        let (place, line) = self.below(path);
        self.findings.problem(&place, line, text);
    }

    /// Notes a warning at one of its keys, or further down.
    pub fn warning_at(&self, path: &str, text: impl fmt::Display) {
        let (place, line) = self.below(path);
        self.findings.warning(&place, line, text);
    }

    /// Notes a problem anywhere in the file.
    pub(super) fn problem_on(&self, spot: &Spot, text: impl fmt::Display) {
        self.findings.problem(&spot.place, spot.line, text);
    }

    /// Notes a warning anywhere in the file.
    pub(super) fn warning_on(&self, spot: &Spot, text: impl fmt::Display) {
        self.findings.warning(&spot.place, spot.line, text);
    }

    /// What `read` makes of the value of a key, if the key is there.
    pub fn optional<T>(&self, key: &str, read: impl FnOnce(At<'_>) -> Option<T>) -> Option<T> {
        let node = self.node(key)?;
        let place = self.place_of(key);
        read(At::new(node, &place, self.findings))
    }

    /// The same for a key that must be there; `cure` says what to write.
    pub fn required<T>(
        &self,
        key: &str,
        cure: &str,
        read: impl FnOnce(At<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.problem(format!("{key} is missing; {cure}"));
            return None;
        }
        self.optional(key, read)
    }

    /// What `read` makes of each element of a list, if the key is there.
    pub fn each<T>(&self, key: &str, read: impl FnMut(At<'_>) -> Option<T>) -> Vec<T> {
        self.optional(key, |at| at.each(read)).unwrap_or_default()
    }

    /// The same where one text may stand in place of a list.
    pub fn one_or_each<T>(&self, key: &str, mut read: impl FnMut(At<'_>) -> Option<T>) -> Vec<T> {
        let read_all = |at: At<'_>| match at.node.value {
            Value::Text(_) => Some(read(at).into_iter().collect()),
            _ => at.each(read),
        };
        self.optional(key, read_all).unwrap_or_default()
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, node)| *node)
    }

    /// The place and the line of what a path leads to, or of as much of it as is there.
    fn below(&self, path: &str) -> (String, Option<usize>) {
        let mut place = self.place.clone();
        let mut line = self.line;
        let mut entries: Vec<(&str, &Node)> = self.entries.clone();
        let mut rest = path;
        // A name may hold dots, so keys are recognized and the path is not split.
        while let Some((key, node)) = entries.iter().find(|(key, _)| {
            let after = rest.strip_prefix(key);
            after.is_some_and(|after| after.is_empty() || after.starts_with('.'))
        }) {
            place = join(&place, key);
            line = node.line;
            rest = rest[key.len()..].trim_start_matches('.');
            entries = match &node.value {
                Value::Map(entries) => entries.iter().map(|(key, node)| (&**key, node)).collect(),
                _ => Vec::new(),
            };
        }
        if !rest.is_empty() {
            place = join(&place, rest);
        }
        (place, line)
    }
}

/// A place below another. A key that reads like no name may be a value that slid out of place, so it
/// is not repeated.
pub fn join(place: &str, key: &str) -> String {
    let key = if may_be_repeated(key) { key } else { "(a key)" };
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(findings: Findings) -> Vec<String> {
        let (problems, _) = findings.into_parts();
        problems
            .iter()
            .map(|problem| problem.in_file("f").to_string())
            .collect()
    }

    #[test]
    fn duplicates_and_unknown_keys_are_all_found() {
        let node = Node::parse("addres: 1\naddress: a\n\naddress: b\n").unwrap();
        let findings = Findings::default();
        At::new(&node, "listeners[0]", &findings)
            .fields(&["address", "tls"])
            .unwrap();
        assert_eq!(
            said(findings),
            [
                "f:1: listeners[0].addres: there is no such key; did you mean address?",
                "f:4: listeners[0].address: this key stands twice (first on line 2); remove one of them",
            ]
        );
    }

    #[test]
    fn places_show_names_and_find_what_lies_below() {
        let text = "a:\n  b.c:\n    d: 1\nl:\n  - name: x\n    e:\n      - 1\n  - {name: cs_secret, e: 2}\n";
        let node = Node::parse(text).unwrap();
        let findings = Findings::default();
        let fields = At::new(&node, "", &findings).fields(&["a", "l"]).unwrap();
        fields.problem_at("a.b.c.d", "deep");
        fields.problem_at("a.b.c.e", "not there");
        fields.problem("whole");
        fields.each("l", |at| {
            at.fields(&["name", "e"])?
                .optional("e", |at| at.text().map(drop))
        });
        assert_eq!(
            said(findings),
            [
                "f:2: a.b.c.e: not there",
                "f:3: a.b.c.d: deep",
                "f:6: l[0] (x).e: text must stand here, not a list",
                "f:8: l[1].e: text must stand here, not a number; put it in quotes",
                "f: whole",
            ]
        );
    }

    #[test]
    fn secrets_that_slid_into_a_key_are_not_repeated() {
        assert_eq!(join("sites", &"ab12".repeat(16)), "sites.(a key)");
        assert_eq!(join("", "a secret, with spaces"), "(a key)");
        assert_eq!(join("sites", "acme"), "sites.acme");
    }
}
