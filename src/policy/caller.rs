//! Who is calling: turns a presented credential into a [`Caller`], or refuses.
//!
//! Only SHA-256 digests of keys are held. A presented key is hashed, and its digest looked up: one
//! caller costs what ten thousand cost. Nobody can make digests that are nearly right, and the one
//! that is found is compared in constant time, so timing tells nothing of a key.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Refusal;
use super::acts_as::ActingCaller;
use super::request::Request;

/// The headers an API key may come in.
pub const CREDENTIAL_HEADERS: [&str; 2] = ["authorization", "x-api-key"];

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

/// The callers of one route, found by what they present. Without any, nobody is let in.
#[derive(Debug, Default)]
pub struct Callers {
    all: Vec<ActingCaller>,
    /// Where in `all` the caller with this key stands.
    by_key: HashMap<KeyDigest, usize, RandomState>,
}

impl Callers {
    /// Arranges callers; no two of them have a key in common.
    pub fn new(all: Vec<ActingCaller>) -> Self {
        let by_key = all.iter().enumerate().flat_map(|(index, acting)| {
            let keys = acting.caller.api_keys.iter();
            keys.map(move |digest| (*digest, index))
        });
        Self {
            by_key: by_key.collect(),
            all,
        }
    }

    /// Every caller.
    pub fn iter(&self) -> impl Iterator<Item = &ActingCaller> {
        self.all.iter()
    }

    /// The caller whose credential a request presents.
    ///
    /// # Errors
    /// The refusals of a credential that is missing, ambiguous or unknown.
    pub fn identify(&self, request: &Request<'_>) -> Result<&ActingCaller, Refusal> {
        let key = presented(request)?;
        if key.is_empty() || key.len() > CREDENTIAL_BYTES_MAX {
            return Err(Refusal::CredentialUnknown);
        }
        self.by_key
            .get(&KeyDigest::of(key))
            .map(|index| &self.all[*index])
            .ok_or(Refusal::CredentialUnknown)
    }
}

/// Reads the one credential of a request.
///
/// # Errors
/// [`Refusal::CredentialMissing`] for none, [`Refusal::AmbiguousCredential`] for more than one,
/// [`Refusal::CredentialUnknown`] for a scheme that no caller uses.
fn presented<'a>(request: &Request<'a>) -> Result<&'a [u8], Refusal> {
    let [authorization, api_key] = CREDENTIAL_HEADERS.map(|name| request.only(name));
    let several = |_| Refusal::AmbiguousCredential;
    let value = match (authorization.map_err(several)?, api_key.map_err(several)?) {
        (None, None) => return Err(Refusal::CredentialMissing),
        (Some(_), Some(_)) => return Err(Refusal::AmbiguousCredential),
        (None, Some(key)) => return Ok(key.trim_ascii()),
        (Some(value), None) => value.trim_ascii(),
    };
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(key.trim_ascii()),
        _ => Err(Refusal::CredentialUnknown),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{fields, request};
    use super::*;
    use crate::signing::{User, UserEncoding};

    fn check(headers: &[(&str, &str)], expected: Result<&str, Refusal>) {
        let caller = |name: &str, keys: &[&str]| ActingCaller {
            caller: Arc::new(Caller {
                name: name.into(),
                api_keys: keys
                    .iter()
                    .map(|key| KeyDigest::of(key.as_bytes()))
                    .collect(),
            }),
            user: User::parse("1", UserEncoding::Plain).unwrap(),
        };
        let callers = Callers::new(vec![
            caller("a", &["key-a", "old-a"]),
            caller("b", &["key-b"]),
        ]);
        let fields = fields(headers);
        let found = callers
            .identify(&request("GET", "/", &fields))
            .map(|acting| &*acting.caller.name);
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn one_key_in_either_header() {
        check(&[("authorization", "Bearer key-a")], Ok("a"));
        check(&[("authorization", "bearer  old-a")], Ok("a"));
        check(&[("x-api-key", "key-b")], Ok("b"));
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
    fn nobody_is_let_in_where_nobody_is_listed() {
        let fields = fields(&[("x-api-key", "key-a")]);
        let verdict = Callers::default()
            .identify(&request("GET", "/", &fields))
            .map(|_| ());
        assert_eq!(verdict, Err(Refusal::CredentialUnknown));
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
