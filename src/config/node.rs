//! proxy.yaml exactly as written: scalars, lists and maps that keep duplicate keys, with their lines.
//!
//! serde's own derive stops at the first mistake, quotes values in its messages, takes `key:` for an
//! empty text and lets the last of two equal keys of a map win. Reading a tree first and taking
//! fields out of it reports every mistake at once, with its place and without its value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::lines::{Kind, Lines};
use super::yaml::{self, Mistake};

/// A piece of YAML.
#[derive(Debug)]
pub struct Node {
    pub(super) value: Value,
    /// Where it stands, or its key if it has one; counted from 1.
    pub(super) line: Option<usize>,
}

/// What a piece of YAML is.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing: `key:` without a value.
    Empty,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(i128),
    /// Text.
    Text(String),
    /// A number with a fraction, which nothing takes but as text.
    Fraction(String),
    /// `- a` or `[a]`.
    List(Vec<Node>),
    /// `a: b` or `{a: b}`, in the order written, duplicates included.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Parses a file.
    ///
    /// # Errors
    /// What is no YAML, or YAML that the file does not take.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        yaml::check_characters(text).map_err(|mistake| vec![mistake])?;
        let lines = Lines::of(text);
        match serde_yaml::from_str::<Self>(text) {
            Ok(mut node) if lines.not_taken.is_empty() => {
                // Where the parsers disagree, the rest has no lines.
                let _ = node.take_lines(&mut lines.pieces.iter().copied());
                Ok(node)
            }
            Ok(_) => Err(lines.not_taken),
            Err(error) => {
                let mistake = yaml::explain(text, &error, &lines);
                let mut mistakes = lines.not_taken;
                if !mistakes.iter().any(|known| known.text == mistake.text) {
                    mistakes.push(mistake);
                }
                Err(mistakes)
            }
        }
    }

    /// Takes the lines of this piece and all below, in the order of the file.
    fn take_lines(&mut self, pieces: &mut impl Iterator<Item = (Kind, usize)>) -> Option<()> {
        let (kind, line) = pieces.next()?;
        let expected = match self.value {
            Value::List(_) => Kind::List,
            Value::Map(_) => Kind::Map,
            _ => Kind::Scalar,
        };
        if kind != expected {
            return None;
        }
        self.line = Some(line);
        match &mut self.value {
            Value::List(list) => list.iter_mut().try_for_each(|node| node.take_lines(pieces)),
            Value::Map(entries) => entries.iter_mut().try_for_each(|(_, node)| {
                let (Kind::Scalar, line) = pieces.next()? else {
                    return None;
                };
                node.take_lines(pieces)?;
                node.line = Some(line);
                Some(())
            }),
            _ => Some(()),
        }
    }
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Flag(_) => "a flag",
            Self::Number(_) | Self::Fraction(_) => "a number",
            Self::Text(text) if text.trim().is_empty() => "empty text",
            Self::Text(_) => "text",
            Self::List(list) if list.is_empty() => "an empty list",
            Self::List(_) => "a list",
            Self::Map(map) if map.is_empty() => "an empty map",
            Self::Map(_) => "a map",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Self { value, line: None })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_u128<E>(self, _number: u128) -> Result<Value, E> {
        // No field takes a number this large, so its exact value does not matter.
        Ok(Value::Number(i128::MAX))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Fraction(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            let key = match key.value {
                Value::Text(text) | Value::Fraction(text) => text,
                Value::Flag(flag) => flag.to_string(),
                Value::Number(number) => number.to_string(),
                Value::Empty | Value::List(_) | Value::Map(_) => String::new(),
            };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}
