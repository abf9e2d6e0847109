//! Who is calling: turns a presented credential into a [`Caller`], or refuses.
//!
//! Only SHA-256 digests of keys are held. A presented key is hashed and its digest compared with
//! every digest in constant time, to the end of the list, so that timing tells neither how much of
//! a key was right nor whose it nearly was.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::Refusal;

/// The other header an API key may come in.
pub const API_KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// Longest credential in bytes that is looked at.
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// A program that may call the gateway.
#[derive(Debug)]
pub struct Caller {
    /// Its name in the file, in the access log and in metrics.
    pub name: Arc<str>,
    /// Digests of the keys it may present: several while one is rotated out.
    pub api_keys: Vec<KeyDigest>,
}

/// The SHA-256 digest of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Reads the one credential of a request.
///
/// # Errors
/// [`Refusal::CredentialMissing`] for none, [`Refusal::AmbiguousCredential`] for more than one,
/// [`Refusal::CredentialUnknown`] for a scheme that no caller uses.
fn presented(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut all = headers
        .get_all(AUTHORIZATION)
        .iter()
        .map(|value| (true, value))
        .chain(
            headers
                .get_all(API_KEY_HEADER)
                .iter()
                .map(|value| (false, value)),
        );
    let (is_authorization, value) = all.next().ok_or(Refusal::CredentialMissing)?;
    if all.next().is_some() {
        return Err(Refusal::AmbiguousCredential);
    }
    let value = value.as_bytes().trim_ascii();
    if !is_authorization {
        return Ok(value);
    }
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(key.trim_ascii()),
        _ => Err(Refusal::CredentialUnknown),
    }
}

/// Finds which of `callers` presents its key, by index.
///
/// # Errors
/// The refusals of a credential that is missing, ambiguous or unknown.
pub fn identify<'c>(
    callers: impl Iterator<Item = &'c Caller>,
    headers: &HeaderMap,
) -> Result<usize, Refusal> {
    let key = presented(headers)?;
    if key.is_empty() || key.len() > CREDENTIAL_BYTES_MAX {
        return Err(Refusal::CredentialUnknown);
    }
    let digest = KeyDigest::of(key);
    let mut found = None;
    for (index, caller) in callers.enumerate() {
        let hit = caller
            .api_keys
            .iter()
            .fold(Choice::from(0), |hit, known| hit | known.0.ct_eq(&digest.0));
        if bool::from(hit) {
            found = Some(index);
        }
    }
    found.ok_or(Refusal::CredentialUnknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expected: Result<usize, Refusal>) {
        let caller = |name: &str, keys: &[&str]| Caller {
            name: name.into(),
            api_keys: keys
                .iter()
                .map(|key| KeyDigest::of(key.as_bytes()))
                .collect(),
        };
        let callers = [caller("a", &["key-a", "old-a"]), caller("b", &["key-b"])];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        assert_eq!(identify(callers.iter(), &map), expected, "{headers:?}");
    }

    #[test]
    fn one_key_in_either_header() {
        check(&[("authorization", "Bearer key-a")], Ok(0));
        check(&[("authorization", "bearer  old-a")], Ok(0));
        check(&[("x-api-key", "key-b")], Ok(1));
    }

    #[test]
    fn none_several_or_strange() {
        check(&[], Err(Refusal::CredentialMissing));
        check(
            &[("x-api-key", "key-b"), ("x-api-key", "key-b")],
            Err(Refusal::AmbiguousCredential),
        );
        check(
            &[("x-api-key", "key-b"), ("authorization", "Bearer key-b")],
            Err(Refusal::AmbiguousCredential),
        );
        for (name, value) in [
            ("x-api-key", ""),
            ("x-api-key", "key"),
            ("x-api-key", "key-a2"),
            ("x-api-key", "KEY-A"),
            ("authorization", "key-a"),
            ("authorization", "Basic a2V5LWE6"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("authorization", "Bearerkey-a"),
            ("authorization", "Bearer key-a,key-b"),
        ] {
            check(&[(name, value)], Err(Refusal::CredentialUnknown));
        }
        check(
            &[("x-api-key", &"k".repeat(CREDENTIAL_BYTES_MAX + 1))],
            Err(Refusal::CredentialUnknown),
        );
    }

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
