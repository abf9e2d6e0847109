//! Text that cannot be printed, cloned or serialized: token keys, token secrets, callers' keys.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Sensitive text. `Debug` prints `[redacted]`, there is no `Display`, and its memory is wiped
/// on drop.
pub struct Secret(SecretString);

impl Secret {
    /// Takes `text` into custody; the memory it came in is wiped.
    pub fn new(text: String) -> Self {
        // Copied at its exact length: shrinking the string in place could leave a copy behind.
        let text = Zeroizing::new(text);
        Self(SecretString::from(text.as_str()))
    }

    /// The text itself. A tidy test lists the few places that may ask for it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether it can stand in a header: at least one character, all of them visible ASCII.
    pub fn is_visible_ascii(&self) -> bool {
        !self.is_empty() && self.expose().bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Whether a text that goes to strangers holds this one, in either case: hexadecimal digits mean the
    /// same in both. Not in constant time: the text comes from a site that knows it. An empty one is
    /// nowhere.
    pub fn is_within(&self, text: &[u8]) -> bool {
        is_within(self.expose().as_bytes(), text)
    }

    /// Whether `presented` is this text; the time taken tells only its length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(presented).into()
    }

    /// Whether it is the same text as another one.
    pub fn is(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }

    /// The value of an `Authorization` header that presents it.
    pub fn as_bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.expose()))
    }

    /// How long the text is, in bytes.
    pub fn byte_count(&self) -> usize {
        self.expose().len()
    }

    /// Whether there is no text at all, as from an environment variable set to nothing.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

/// Whether `text` holds a part of a secret that is not empty.
pub(super) fn is_within(part: &[u8], text: &[u8]) -> bool {
    let Some(first) = part.first() else {
        return false;
    };
    // Most values are shorter than a token key, which saves the search. In the others it is not worth
    // preparing for more than to look for its first byte.
    let Some(starts) = text.get(..(text.len() + 1).saturating_sub(part.len())) else {
        return false;
    };
    memchr::memchr2_iter(
        first.to_ascii_lowercase(),
        first.to_ascii_uppercase(),
        starts,
    )
    .any(|at| text[at..at + part.len()].eq_ignore_ascii_case(part))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_it_was_given() {
        let secret = Secret::new("canary-5b70".to_owned());
        assert_eq!(secret.expose(), "canary-5b70");
        assert!(!secret.is_empty());
        assert!(Secret::new(String::new()).is_empty());
    }

    #[test]
    fn found_within_what_holds_it() {
        let secret = Secret::new("canary-5b70".to_owned());
        assert!(secret.is_within(b"canary-5b70"));
        assert!(secret.is_within(b"\"tkn_canary-5b70_1_=x_00\""));
        assert!(secret.is_within(b"x Canary-5B70"));
        assert!(!secret.is_within(b"canary-5b7"));
        assert!(!secret.is_within(b""));
        assert!(secret.is_within(b"ccanary-canary-5b70"));
        assert!(!secret.is_within(b"canary-5b71 canary"));
        assert!(!Secret::new(String::new()).is_within(b"anything"));
    }

    #[test]
    fn debug_prints_nothing_of_it() {
        let secret = Secret::new("canary-5b70".to_owned());
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret))
                .matches("canary")
                .count(),
            0
        );
        assert_eq!(format!("{secret:?}"), "[redacted]");
    }
}
