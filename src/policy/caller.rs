//! Who is calling: turns a presented credential into a [`Caller`], or refuses.
//!
//! Only SHA-256 digests of keys are held. A presented key is hashed, and its digest looked up: one
//! caller costs what ten thousand cost. Nobody can make digests that are nearly right, and the one
//! that is found is compared in constant time, so timing tells nothing of a key.

pub mod certificate;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::acts_as::ActingCaller;
use super::request::Request;
use super::{Refusal, TOKEN_HEADER};

/// The headers an API key may come in, beside `X-Deki-Token`.
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
        if key.len() > CREDENTIAL_BYTES_MAX {
            return Err(Refusal::CredentialUnknown);
        }
        self.by_key
            .get(&KeyDigest::of(key))
            .map(|index| &self.all[*index])
            .ok_or(Refusal::CredentialUnknown)
    }
}

/// Whether a value has the form of a key of ours (`countersign key new`): then it is no token, wherever
/// it stands. Most clients of the API can fill `X-Deki-Token` only.
pub fn is_key_of_ours(value: &[u8]) -> bool {
    value.starts_with(b"cs_")
}

/// Reads the one credential of a request. A header without one presents nothing: some products send
/// an empty `Authorization` beside the key.
///
/// # Errors
/// [`Refusal::CredentialMissing`] for none, [`Refusal::AmbiguousCredential`] for more than one,
/// [`Refusal::CredentialUnknown`] for a scheme that no caller uses.
fn presented<'a>(request: &Request<'a>) -> Result<&'a [u8], Refusal> {
    let mut presented = request.fields.iter().filter_map(|field| {
        let value = field.value.trim_ascii();
        let key = if field.is("x-api-key") {
            Ok(value)
        } else if field.is("authorization") {
            credentials(value)
        } else if field.is(TOKEN_HEADER) && is_key_of_ours(value) {
            Ok(value)
        } else {
            return None;
        };
        (key != Ok(b"")).then_some(key)
    });
    match (presented.next(), presented.next()) {
        (None, _) => Err(Refusal::CredentialMissing),
        (Some(_), Some(_)) => Err(Refusal::AmbiguousCredential),
        (Some(key), None) => key,
    }
}

/// What follows the scheme of an `Authorization`; nothing, if nothing does (RFC 9110 section 11.4).
fn credentials(value: &[u8]) -> Result<&[u8], Refusal> {
    let end = memchr::memchr(b' ', value).unwrap_or(value.len());
    let (scheme, key) = value.split_at(end);
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    let is = |known: &[u8]| scheme.eq_ignore_ascii_case(known);
    match key.trim_ascii() {
        b"" if is(b"") || is(b"bearer") || is(b"basic") => Ok(b""),
        b"" => Err(Refusal::CredentialUnknown),
        key if is(b"bearer") => Ok(key),
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
            caller("b", &["key-b", "cs_b"]),
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
        check(&[("x-deki-token", "cs_b")], Ok("b"));
        check(&[("x-api-key", "cs_b")], Ok("b"));
    }

    #[test]
    fn a_header_without_a_credential_presents_nothing() {
        for empty in ["", " ", "Bearer", "bearer ", "Basic"] {
            check(&[("authorization", empty)], Err(Refusal::CredentialMissing));
            check(&[("authorization", empty), ("x-api-key", "key-b")], Ok("b"));
            let with_token = [("x-deki-token", "cs_b"), ("Authorization", empty)];
            check(&with_token, Ok("b"));
        }
        check(&[("x-api-key", "")], Err(Refusal::CredentialMissing));
        check(
            &[("x-api-key", ""), ("authorization", "Bearer key-a")],
            Ok("a"),
        );
        check(&[("x-api-key", ""), ("x-api-key", "key-b")], Ok("b"));
        check(
            &[("x-deki-token", "key-b")],
            Err(Refusal::CredentialMissing),
        );
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
        for other in [
            ("x-api-key", "cs_b"),
            ("x-deki-token", "cs_b"),
            ("authorization", "Basic a2V5LWE6"),
        ] {
            let both = [("X-Deki-Token", "cs_b"), other];
            check(&both, Err(Refusal::AmbiguousCredential));
        }
        for (name, value) in [
            ("x-api-key", "key"),
            ("x-deki-token", "cs_a"),
            ("x-api-key", "key-a2"),
            ("x-api-key", "KEY-A"),
            ("authorization", "key-a"),
            ("authorization", "Basic a2V5LWE6"),
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
