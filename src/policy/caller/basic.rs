//! Callers that present a user name and a password: only a slow hash of the password is held.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A user name, and the passwords that go with it.
#[derive(Clone, Debug)]
pub struct Basic {
    /// The user name, compared byte for byte.
    pub user_name: Box<str>,
    /// Hashes of the passwords: several while one is rotated out.
    pub passwords: Vec<PasswordHash>,
}

/// The hash of a password, in the PHC string format (`$argon2id$v=19$m=…$salt$hash`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash(pub Box<str>);

/// What a Basic credential holds (RFC 7617 section 2).
pub(super) struct Pair {
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Pair {
    /// Reads what follows the scheme; `None` for what is no pair.
    pub(super) fn read(encoded: &[u8]) -> Option<Self> {
        let text = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let colon = memchr::memchr(b':', &text)?;
        Some(Self { text, colon })
    }

    pub(super) fn user_name(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}
