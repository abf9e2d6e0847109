//! Callers that present a key: only its SHA-256 digest is held.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 digest of an API key.
#[derive(Clone, Copy, Debug)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        let decoded = base16ct::mixed::decode(text, &mut digest).ok()?;
        (decoded.len() == 32).then_some(Self(digest))
    }

    /// As it stands in the file: 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

/// In constant time.
impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyDigest {}

impl Hash for KeyDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Whether a value has the form of a key of ours (`countersign key new`): then it is no token, wherever
/// it stands. Most clients of the API can fill `X-Deki-Token` only.
pub fn is_key_of_ours(value: &[u8]) -> bool {
    value.starts_with(b"cs_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_in_the_file() {
        let digest = KeyDigest::of(b"key");
        assert_eq!(KeyDigest::from_hex(&digest.to_hex()), Some(digest));
        assert_eq!(
            KeyDigest::from_hex(&digest.to_hex().to_uppercase()),
            Some(digest)
        );
        assert_eq!(KeyDigest::from_hex("00"), None);
        assert_eq!(KeyDigest::from_hex(&"0".repeat(66)), None);
        assert_eq!(KeyDigest::from_hex(&"g".repeat(64)), None);
    }
}
