//! proxy.yaml exactly as written: a tree of scalars, lists and maps that keeps duplicate keys.
//!
//! serde's own derive stops at the first mistake, quotes values in its messages, takes `key:` for an
//! empty text and lets the last of two equal keys of a map win. Reading a tree first and taking
//! fields out of it reports every mistake at once, with its place and without its value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::problem::Findings;

/// Largest file in bytes that is read.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A piece of YAML.
#[derive(Debug)]
pub enum Node {
    /// Nothing: `key:` without a value.
    Empty,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(i128),
    /// Text, also numbers with a fraction.
    Text(String),
    /// `- a` or `[a]`.
    List(Vec<Self>),
    /// `a: b` or `{a: b}`, in the order written, duplicates included.
    Map(Vec<(String, Self)>),
}

impl Node {
    /// Parses a file.
    ///
    /// # Errors
    /// What a YAML parser has to say, which names lines and columns but no values.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > FILE_BYTES_MAX {
            return Err("the file is larger than 16 MiB; it holds rules, not data".to_owned());
        }
        let is_empty = text
            .lines()
            .all(|line| line.trim().is_empty() || line.starts_with('#'));
        if is_empty {
            return Err("the file is empty; it needs listeners, sites and routes".to_owned());
        }
        serde_yaml::from_str(text).map_err(|error| match error.location() {
            Some(at) => format!(
                "line {}, column {}: this is not YAML that can be read; check the indentation, the quotes and that no tag (!) or anchor is used",
                at.line(),
                at.column()
            ),
            None => "this is not one YAML document; check that the file holds no second document (---) and no tag (!)".to_owned(),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Flag(_) => "a flag",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

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

    /// Another node at a place below.
    pub fn child<'b>(&self, node: &'b Node, place: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At::new(node, place, self.findings)
    }

    /// Whether a list stands here.
    pub fn is_list(&self) -> bool {
        matches!(self.node, Node::List(_))
    }

    /// Whether a map stands here.
    pub fn is_map(&self) -> bool {
        matches!(self.node, Node::Map(_))
    }

    /// Whether a number stands here.
    pub fn is_number(&self) -> bool {
        matches!(self.node, Node::Number(_))
    }

    /// Notes a problem here.
    pub fn problem(&self, text: impl fmt::Display) {
        self.findings.problem(self.place, text);
    }

    /// Notes a warning here.
    pub fn warning(&self, text: impl fmt::Display) {
        self.findings.warning(self.place, text);
    }

    /// The text that stands here.
    pub fn text(&self) -> Option<&'a str> {
        match self.node {
            Node::Text(text) if text.trim().is_empty() => self.wrong("text that is not empty"),
            Node::Text(text) => Some(text),
            _ => self.wrong("text"),
        }
    }

    /// The flag that stands here.
    pub fn flag(&self) -> Option<bool> {
        match self.node {
            Node::Flag(flag) => Some(*flag),
            _ => self.wrong("true or false"),
        }
    }

    /// A whole number from 1 to `most`.
    pub fn count(&self, most: u32) -> Option<u32> {
        self.whole(1, most)
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&self, least: u32, most: u32) -> Option<u32> {
        let number = match self.node {
            Node::Number(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        number.or_else(|| self.wrong(&format!("a whole number from {least} to {most}")))
    }

    /// The elements of the list that stands here, at least one; `[]` counts as a mistake.
    pub fn list(&self) -> Option<&'a [Node]> {
        match self.node {
            Node::List(list) if list.is_empty() => self.wrong("a list with at least one element"),
            Node::List(list) => Some(list),
            _ => self.wrong("a list"),
        }
    }

    /// The entries of the map that stands here, each key once.
    pub fn map(&self) -> Option<Vec<(&'a str, &'a Node)>> {
        let Node::Map(entries) = self.node else {
            return self.wrong("a map");
        };
        if entries.is_empty() {
            return self.wrong("a map with at least one entry");
        }
        let mut seen: Vec<(&str, &Node)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            if seen.iter().any(|(known, _)| known == key) {
                self.findings.problem(
                    &join(self.place, key),
                    "this key stands twice; remove one of them",
                );
            } else {
                seen.push((key, node));
            }
        }
        Some(seen)
    }

    /// The named fields of the map that stands here; keys that are not among `known` are problems.
    pub fn fields(&self, known: &[&str]) -> Option<Fields<'a>> {
        let entries = self.map()?;
        for (key, _) in &entries {
            if !known.contains(key) {
                let cure = match nearest(key, known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("known keys are {}", known.join(", ")),
                };
                self.findings.problem(
                    &join(self.place, key),
                    format!("there is no such key; {cure}"),
                );
            }
        }
        Some(Fields {
            entries,
            place: self.place.to_owned(),
            findings: self.findings,
        })
    }

    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        let found = match self.node {
            Node::Text(text) if text.trim().is_empty() => "empty text",
            Node::List(list) if list.is_empty() => "an empty list",
            Node::Map(map) if map.is_empty() => "an empty map",
            node => node.kind(),
        };
        self.problem(format!("{wanted} must stand here, not {found}"));
        None
    }
}

/// The entries of a map with a fixed set of keys.
#[derive(Debug)]
pub struct Fields<'a> {
    entries: Vec<(&'a str, &'a Node)>,
    place: String,
    findings: &'a Findings,
}

impl<'a> Fields<'a> {
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
        self.findings.problem(&self.place, text);
    }

    /// Notes a problem at one of its keys.
    pub fn problem_at(&self, key: &str, text: impl fmt::Display) {
        self.findings.problem(&self.place_of(key), text);
    }

    /// Notes a warning at one of its keys.
    pub fn warning_at(&self, key: &str, text: impl fmt::Display) {
        self.findings.warning(&self.place_of(key), text);
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
    pub fn each<T>(&self, key: &str, mut read: impl FnMut(At<'_>) -> Option<T>) -> Vec<T> {
        let read_all = |at: At<'_>| {
            let list = at.list()?;
            let items = list.iter().enumerate().filter_map(|(index, node)| {
                let place = format!("{}[{index}]", at.place());
                read(At::new(node, &place, self.findings))
            });
            Some(items.collect())
        };
        self.optional(key, read_all).unwrap_or_default()
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, node)| *node)
    }
}

/// A place below another. A key that is no plain word may be a value that slid out of place, so it
/// is not repeated.
pub fn join(place: &str, key: &str) -> String {
    let plain = key.len() <= 64
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let looks_random = key.len() >= 32 && key.bytes().all(|b| b.is_ascii_hexdigit());
    let key = if plain && !looks_random {
        key
    } else {
        "(a key)"
    };
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

/// The known key that differs from `key` by the fewest edits, if that is few.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let close = known
        .iter()
        .map(|candidate| (distance(key, candidate), *candidate));
    close
        .min()
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .map(|(_, near)| near)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Empty)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Number(number))
    }

    fn visit_u128<E>(self, _number: u128) -> Result<Node, E> {
        // No field takes a number this large, so its exact value does not matter.
        Ok(Node::Number(i128::MAX))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            let key = match key {
                Node::Text(text) => text,
                Node::Flag(flag) => flag.to_string(),
                Node::Number(number) => number.to_string(),
                Node::Empty | Node::List(_) | Node::Map(_) => String::new(),
            };
            entries.push((key, map.next_value()?));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_unknown_keys_are_all_found() {
        let node = Node::parse("addres: 1\naddress: a\naddress: b\n").unwrap();
        let findings = Findings::default();
        At::new(&node, "listeners[0]", &findings)
            .fields(&["address", "tls"])
            .unwrap();
        let texts: Vec<_> = findings
            .into_parts()
            .0
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                "listeners[0].address: this key stands twice; remove one of them",
                "listeners[0].addres: there is no such key; did you mean address?",
            ]
        );
    }

    #[test]
    fn secrets_that_slid_into_a_key_are_not_repeated() {
        assert_eq!(join("sites", &"ab12".repeat(16)), "sites.(a key)");
        assert_eq!(join("", "a secret, with blanks"), "(a key)");
        assert_eq!(join("sites", "acme"), "sites.acme");
    }

    #[test]
    fn what_is_not_yaml() {
        for text in [
            "a: [",
            "a: 1\n---\nb: 2\n",
            "a: !secret x",
            "\t- a",
            "a: *x",
        ] {
            assert!(Node::parse(text).is_err(), "{text:?}");
        }
    }
}
