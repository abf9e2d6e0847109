//! JSON that nobody can read in two ways: bounded depth, and no two members of one name.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deepest nesting that is read. The claims of real tokens have four levels.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Flag(bool),
    Integer(i128),
    /// Any other number; finite.
    Fraction(f64),
    Text(Box<str>),
    List(Vec<Self>),
    /// In the order written.
    Map(Vec<(Box<str>, Self)>),
}

impl Json {
    /// Reads one value and nothing else; nothing of what is read in two ways or nested too deeply.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_with_twins(bytes).filter(|value| !value.has_twins())
    }

    /// The same, but members of one name are kept, for whoever judges each piece by itself.
    pub(crate) fn read_with_twins(bytes: &[u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Seed { depth: 0 }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(value)
    }

    /// Whether any map in it has two members of one name.
    pub(crate) fn has_twins(&self) -> bool {
        match self {
            Self::List(list) => list.iter().any(Self::has_twins),
            Self::Map(members) => {
                let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
                names.sort_unstable();
                names.windows(2).any(|pair| pair[0] == pair[1])
                    || members.iter().any(|(_, value)| value.has_twins())
            }
            _ => false,
        }
    }

    /// The members of a map.
    pub(crate) fn members(&self) -> Option<&[(Box<str>, Self)]> {
        match self {
            Self::Map(members) => Some(members),
            _ => None,
        }
    }

    /// The only member of a map with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let mut found = self.members()?.iter().filter(|(key, _)| **key == *name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }

    /// The text that this is.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads a value at a depth.
#[derive(Clone, Copy)]
struct Seed {
    depth: usize,
}

impl Seed {
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Fraction(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(below)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut members: Vec<(Box<str>, Json)> = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value_seed(below)?));
        }
        Ok(Json::Map(members))
    }
}

#[derive(Deserialize)]
struct Name(Box<str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, is_good: bool) {
        assert_eq!(Json::read(text.as_bytes()).is_some(), is_good, "{text}");
    }

    #[test]
    fn what_is_read_in_one_way_only() {
        for good in [
            "{}",
            "{\"iss\":\"joe\",\r\n \"exp\":1300819380}",
            " {\"a\":[1,-2,3.5,1e3,true,null,{\"b\":\"\\u00e9\\\"\"}]} ",
            "[]",
        ] {
            check(good, true);
        }
        for bad in [
            "",
            "{",
            "{}{}",
            "{} x",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":{\"b\":1,\"c\":[],\"b\":2}}",
            "[{\"x\":[{\"b\":1,\"b\":2}]}]",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":1}//",
            "\u{feff}{}",
        ] {
            check(bad, false);
        }
        assert_eq!(Json::read(b"{\"a\":\"\xff\"}"), None, "no UTF-8");
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(&nested(DEPTH_MAX), true);
        check(&nested(DEPTH_MAX + 1), false);
        check(&nested(100_000), false);
    }

    #[test]
    fn twins_are_kept_only_for_whoever_asks() {
        let text = b"{\"keys\":[{\"n\":1,\"n\":2},{\"n\":3}]}";
        let json = Json::read_with_twins(text).unwrap();
        let Some(Json::List(keys)) = json.get("keys") else {
            panic!("{json:?}");
        };
        assert!(keys[0].has_twins() && !keys[1].has_twins());
        assert_eq!(keys[0].get("n"), None, "neither of them counts");
        assert_eq!(keys[1].get("n"), Some(&Json::Integer(3)));
    }
}
