//! What crosses, as edits: which fields of a message head go on, and what is set beside them.
//!
//! Both ways by allow-list. Upward ([`up()`]) nothing of the caller's goes on that says who asks, for
//! which site, or from where; our token is written last, afresh for every attempt ([`token`]).
//! Downward ([`down()`]) nothing goes on that tells of the site's sessions, tokens and software. What
//! we answer ourselves is a [`refusal`] or a [`preflight`]'s answer.
//!
//! The relay applies the edits and writes what is between two peers only: `Connection`, the framing
//! of answers.

mod document;
mod down;
mod exception;
mod location;
pub mod names;
mod refused_token;
mod sharing;
mod up;

use std::fmt;
use std::sync::Arc;

pub use self::document::{Own, Wants, options, preflight, refusal};
pub use self::down::{Answer, down, judge_error, judge_head, withholds_body};
pub use self::exception::holds_trace;
pub use self::up::{Upward, address_text, token, up};
use crate::policy::request::Field;

/// The header that carries a request's id.
pub const REQUEST_ID_HEADER: &str = "X-Request-Id";

/// The header that carries a refusal's code.
pub const REFUSAL_HEADER: &str = "X-Countersign-Refusal";

/// Tells browsers, if `is_told`, to come back to this host over TLS only, for a year (RFC 6797).
pub fn keep_to_tls(is_told: bool, set: &mut Vec<(&'static str, Value<'_>)>) {
    if is_told {
        set.push((
            "Strict-Transport-Security",
            Value::Static("max-age=31536000"),
        ));
    }
}

/// What is done to a message head.
#[derive(Debug)]
pub struct Edits<'a> {
    /// The fields that go on as they came.
    pub keep: Keep,
    /// What is written after them.
    pub set: Vec<(&'static str, Value<'a>)>,
}

/// A choice among the fields of a head, by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep(u128);

impl Keep {
    /// Chooses a field. One beyond the 128th is never chosen.
    pub fn insert(&mut self, index: usize) {
        if index < 128 {
            self.0 |= 1 << index;
        }
    }

    /// Whether a field is chosen.
    pub fn contains(&self, index: usize) -> bool {
        index < 128 && self.0 >> index & 1 == 1
    }
}

/// The value of a field that is set.
#[derive(Clone)]
pub enum Value<'a> {
    /// A constant.
    Static(&'static str),
    /// Bytes of the request, the answer or the policy.
    Bytes(&'a [u8]),
    /// Two pieces in a row, such as a mount and a path after it.
    Joined(&'a [u8], &'a [u8]),
    /// Made for this message.
    Text(String),
    /// A text of the policy.
    Shared(Arc<str>),
    /// A number in decimal.
    Number(u64),
}

impl Value<'_> {
    /// Appends the value as it goes over the wire.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Static(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Joined(first, second) => {
                out.extend_from_slice(first);
                out.extend_from_slice(second);
            }
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Shared(text) => out.extend_from_slice(text.as_bytes()),
            Self::Number(number) => write_number(*number, out),
        }
    }

    /// The value in bytes of its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_to(&mut out);
        out
    }
}

/// No token is ever a [`Value`], so all of them may be printed.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.to_bytes().escape_ascii())
    }
}

/// Appends decimal digits.
pub(crate) fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The fields that `Connection` names: they concern one connection only (RFC 9110 section 7.6.1).
#[derive(Clone, Copy)]
struct Nominated<'a> {
    fields: &'a [Field<'a>],
    /// Whether there is anything but what names no field, as nearly always.
    any: bool,
}

impl<'a> Nominated<'a> {
    fn by(fields: &'a [Field<'a>]) -> Self {
        let names_none =
            |option: &[u8]| matches!(option, b"" | b"close" | b"keep-alive" | b"Keep-Alive");
        let all = Self { fields, any: true };
        let any = !all.options().all(names_none);
        Self { fields, any }
    }

    fn has(self, name: &[u8]) -> bool {
        self.any
            && self
                .options()
                .any(|option| option.eq_ignore_ascii_case(name))
    }

    fn options(self) -> impl Iterator<Item = &'a [u8]> {
        crate::policy::request::all(self.fields, "connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }
}

/// Whether a value is a list that has this item, ignoring case.
fn lists(value: &[u8], item: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The edits as lines: what is kept, then what is set.
    pub(super) fn lines(fields: &[Field<'_>], edits: &Edits<'_>) -> Vec<String> {
        let kept = fields
            .iter()
            .enumerate()
            .filter(|(index, _)| edits.keep.contains(*index))
            .map(|(_, field)| {
                let name = String::from_utf8_lossy(field.name);
                format!("{name}: {}", String::from_utf8_lossy(field.value))
            });
        kept.chain(set_lines(&edits.set)).collect()
    }

    /// What is set, as lines.
    pub(super) fn set_lines(set: &[(&'static str, Value<'_>)]) -> Vec<String> {
        set.iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value.to_bytes())))
            .collect()
    }

    #[test]
    fn values_as_they_are_written() {
        let check = |value: Value<'_>, expected: &str| {
            assert_eq!(value.to_bytes(), expected.as_bytes());
        };
        check(Value::Static("a"), "a");
        check(Value::Joined(b"/crm", b"/x"), "/crm/x");
        check(Value::Shared("s".into()), "s");
        check(Value::Text("t".to_owned()), "t");
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            check(Value::Number(number), &number.to_string());
        }
        assert_eq!(format!("{:?}", Value::Bytes(b"a\"\xe9")), "\"a\\\"\\xe9\"");
    }

    #[test]
    fn nothing_is_kept_beyond_the_mask() {
        let mut keep = Keep::default();
        for index in [0, 127, 128, 1000] {
            keep.insert(index);
        }
        assert!(keep.contains(0) && keep.contains(127));
        assert!(!keep.contains(1) && !keep.contains(128) && !keep.contains(1000));
    }
}
