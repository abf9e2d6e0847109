//! Text that cannot be printed, cloned or serialized: token keys, token secrets, callers' keys.

use std::fmt;

use http::HeaderValue;
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

    /// As the value of a header, marked sensitive so that nothing prints it; `None` if it cannot
    /// stand in one.
    pub fn header_value(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether `presented` is this text; the time taken tells only its length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(presented).into()
    }

    /// Whether there is no text at all, as from an environment variable set to nothing.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
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
