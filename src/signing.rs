//! The server token the site believes: minted for one user at one second, with the token secret.
//!
//! The vendor describes it in "Use a Server API Token With an Integration"
//! (success.mindtouch.com/Integrations/API/API_Tokens/Server_API_Tokens), its older form in
//! (success.mindtouch.com/Support/Extend/API_Documentation/API_Tokens), and its limits in
//! (success.mindtouch.com/Integrations/API/Authorization_Tokens). Every published example holds
//! with the secret's text as HMAC key, so the secret is never decoded from hexadecimal.

mod finding;
mod secret;
mod user;
mod verify;

use std::fmt::{self, Write};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use self::finding::Finding;
pub use self::secret::Secret;
pub use self::user::{User, UserEncoding, UserFault};
pub use self::verify::{Examination, Form, examine};

/// Signs for one token: a token key and its token secret, in one dialect.
///
/// What every token has in common is prepared once: its beginning, and the HMAC state after the
/// secret and the token key. So a token costs one allocation and a few hash blocks, and nothing
/// is worth caching.
pub struct Signer {
    dialect: Dialect,
    /// `tkn_{key}_`, or `{key}_`.
    opening: Secret,
    keyed: Hmac<Sha256>,
}

impl Signer {
    /// Prepares to sign, unless key or secret cannot be those of a token.
    pub fn new(dialect: Dialect, key: &Secret, secret: &Secret) -> Result<Self, KeyFault> {
        KeyFault::of_key(key)?;
        KeyFault::of_secret(secret)?;
        let mut keyed = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
            .expect("HMAC takes a key of any length");
        keyed.update(key.expose().as_bytes());
        let opening = match dialect {
            Dialect::Tkn => {
                keyed.update(b"_");
                format!("{TAG}{}_", key.expose())
            }
            Dialect::Legacy => format!("{}_", key.expose()),
        };
        Ok(Self {
            dialect,
            opening: Secret::new(opening),
            keyed,
        })
    }

    /// The dialect it mints in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether a text that goes to strangers holds the token key.
    pub fn key_is_within(&self, text: &[u8]) -> bool {
        let opening = self.opening.expose();
        let key = match self.dialect {
            Dialect::Tkn => &opening[TAG.len()..],
            Dialect::Legacy => opening,
        };
        secret::is_within(key.trim_end_matches('_').as_bytes(), text)
    }

    /// Whether it mints what another one does, of the same key and the same secret in the same dialect.
    pub fn is_like(&self, other: &Self) -> bool {
        let [one, two] = [self, other].map(|signer| signer.keyed.clone().finalize().into_bytes());
        // The opening tells the dialect, too.
        self.opening.is(&other.opening) && one == two
    }

    /// The token that says `user` asks, good for about five minutes from `at`.
    pub fn mint(&self, user: &User, at: Epoch) -> SignedToken {
        let opening = self.opening.expose();
        let user = user.as_sent();
        let epoch_end = opening.len() + at.digits();
        let message_end = epoch_end + 1 + user.len();

        // Exact, so that the string does not move while it grows.
        let mut token = Zeroizing::new(String::with_capacity(message_end + 1 + HASH_HEX_BYTES));
        write!(token, "{opening}{}_{user}", at.0).expect("a String takes what is written");

        let mut keyed = self.keyed.clone();
        match self.dialect {
            Dialect::Tkn => keyed.update(&token.as_bytes()[opening.len()..]),
            Dialect::Legacy => {
                keyed.update(&token.as_bytes()[opening.len()..epoch_end]);
                keyed.update(user.as_bytes());
            }
        }
        let mut hex = [0; HASH_HEX_BYTES];
        let hash = base16ct::lower::encode_str(&keyed.finalize().into_bytes(), &mut hex)
            .expect("the buffer has two digits for each byte of SHA-256");
        token.push('_');
        token.push_str(hash);
        SignedToken(token)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

/// Which generation of the token a site is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `tkn_{key}_{epoch}_{user}_{hash}`, the hash over `{key}_{epoch}_{user}`.
    #[default]
    Tkn,
    /// `{key}_{epoch}_{user}_{hash}`, the hash over key, epoch and user without separators.
    Legacy,
}

impl Dialect {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tkn => "tkn",
            Self::Legacy => "legacy",
        }
    }
}

/// A second: how many passed since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The second that Unix time counts as `seconds`.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// The count of Unix time.
    pub fn as_unix(self) -> u64 {
        self.0
    }

    fn digits(self) -> usize {
        self.0.checked_ilog10().map_or(1, |tens| tens as usize + 1)
    }
}

/// A token ready to be sent, and wiped if it is not.
pub struct SignedToken(Zeroizing<String>);

impl SignedToken {
    /// A browser token, which is sent as it is.
    pub fn of_browser(key: &Secret) -> Self {
        Self(Zeroizing::new(key.expose().to_owned()))
    }

    /// The value of `X-Deki-Token`.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The token as text, for an operator who asked to see one.
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a token key or a token secret cannot be one. The message holds the cure, not the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The token key is the empty text.
    #[error("the token key is empty; copy it from the site's API token page")]
    KeyEmpty,
    /// The token key is longer than the vendor makes them.
    #[error("the token key has more than {KEY_BYTES_MAX} bytes; give the key alone")]
    KeyTooLong,
    /// The token key holds the character that ends it in a token.
    #[error("the token key holds `_`, which ends it in a token; give the key, not a signed token")]
    KeyHasSeparator,
    /// The token key holds something other than visible ASCII.
    #[error("the token key has visible ASCII only; look for a space or a line break around it")]
    KeyNotVisibleAscii,
    /// The token secret is the empty text.
    #[error("the token secret is empty; copy it from the site's API token page")]
    SecretEmpty,
    /// The token secret is longer than the vendor makes them.
    #[error("the token secret has more than {KEY_BYTES_MAX} bytes; give the secret alone")]
    SecretTooLong,
    /// The token secret holds a control character, most often the line break that ends a file.
    #[error("the token secret has no control characters; remove the line break at its end")]
    SecretControl,
}

impl KeyFault {
    fn of_key(key: &Secret) -> Result<(), Self> {
        let key = key.expose();
        match key.len() {
            0 => Err(Self::KeyEmpty),
            1..=KEY_BYTES_MAX if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Self::KeyNotVisibleAscii)
            }
            1..=KEY_BYTES_MAX if key.contains('_') => Err(Self::KeyHasSeparator),
            1..=KEY_BYTES_MAX => Ok(()),
            _ => Err(Self::KeyTooLong),
        }
    }

    fn of_secret(secret: &Secret) -> Result<(), Self> {
        let secret = secret.expose();
        match secret.len() {
            0 => Err(Self::SecretEmpty),
            1..=KEY_BYTES_MAX if secret.chars().any(char::is_control) => Err(Self::SecretControl),
            1..=KEY_BYTES_MAX => Ok(()),
            _ => Err(Self::SecretTooLong),
        }
    }
}

/// Says that a token is of the dialect [`Dialect::Tkn`].
const TAG: &str = "tkn_";
/// "Token string values can be up to 255 characters long."
const KEY_BYTES_MAX: usize = 255;
const HASH_HEX_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: &str = include_str!("../tests/fixtures/tokens.txt");

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn signer(dialect: Dialect) -> Signer {
        Signer::new(dialect, &secret("canary-key"), &secret("canary-secret")).unwrap()
    }

    #[test]
    fn known_answers() {
        let mut count = 0;
        for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let [dialect, key, token_secret, epoch, sent, expected] =
                line.split(" | ").collect::<Vec<_>>()[..]
            else {
                panic!("six fields: {line}");
            };
            let dialect = match dialect {
                "tkn" => Dialect::Tkn,
                "legacy" => Dialect::Legacy,
                other => panic!("{other} is no dialect"),
            };
            let signer = Signer::new(dialect, &secret(key), &secret(token_secret)).unwrap();
            let at = Epoch::from_unix(epoch.parse().unwrap());
            let name = percent_encoding::percent_decode_str(sent)
                .decode_utf8()
                .unwrap();
            let encoding = if sent.contains('%') {
                UserEncoding::Percent
            } else {
                UserEncoding::Raw
            };
            for user in [
                User::parse(&name, encoding),
                User::parse(sent, UserEncoding::Raw),
            ] {
                let token = signer.mint(&user.unwrap(), at);
                assert_eq!(token.as_text(), expected, "{line}");
            }
            count += 1;
        }
        assert_eq!(count, 32, "every vector is tried");
    }

    #[test]
    fn tokens_do_not_grow() {
        let user = User::parse("=admin", UserEncoding::Plain).unwrap();
        for seconds in [0, 9, 10, 1_422_940_200, u64::MAX] {
            for dialect in [Dialect::Tkn, Dialect::Legacy] {
                let token = signer(dialect).mint(&user, Epoch::from_unix(seconds));
                assert_eq!(
                    token.0.len(),
                    token.0.capacity(),
                    "{seconds} in {dialect:?}"
                );
            }
        }
    }

    #[test]
    fn raw_names_fit_a_header() {
        let user = User::parse("=J\u{f6}rg \u{444}", UserEncoding::Raw).unwrap();
        let token = signer(Dialect::Tkn).mint(&user, Epoch::from_unix(1));
        assert!(
            token
                .as_bytes()
                .starts_with("tkn_canary-key_1_=J\u{f6}rg \u{444}_".as_bytes())
        );
        assert!(!token.as_text().chars().any(char::is_control));
    }

    #[test]
    fn debug_prints_nothing_secret() {
        let signer = signer(Dialect::Legacy);
        let user = User::parse("1", UserEncoding::Plain).unwrap();
        let token = signer.mint(&user, Epoch::from_unix(1));
        let printed = format!("{signer:?} {token:?} {:?}", signer.opening);
        assert_eq!(
            printed,
            "Signer { dialect: Legacy, .. } [redacted] [redacted]"
        );
        let browser = SignedToken::of_browser(&secret("canary-browser"));
        assert_eq!(format!("{browser:?}"), "[redacted]");
        assert_eq!(browser.as_bytes(), b"canary-browser");
    }

    #[test]
    fn keys_and_secrets_are_text_of_a_token() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        let longer = "k".repeat(KEY_BYTES_MAX + 1);
        for (key, token_secret, expected) in [
            ("k", "s", None),
            (longest.as_str(), longest.as_str(), None),
            ("dacaffe7", "a secret_with ~anything\u{f6}", None),
            ("", "s", Some(KeyFault::KeyEmpty)),
            (&longer, "s", Some(KeyFault::KeyTooLong)),
            ("tkn_k", "s", Some(KeyFault::KeyHasSeparator)),
            ("k\n", "s", Some(KeyFault::KeyNotVisibleAscii)),
            (" k", "s", Some(KeyFault::KeyNotVisibleAscii)),
            ("k\u{f6}", "s", Some(KeyFault::KeyNotVisibleAscii)),
            ("k", "", Some(KeyFault::SecretEmpty)),
            ("k", &longer, Some(KeyFault::SecretTooLong)),
            ("k", "s\n", Some(KeyFault::SecretControl)),
            ("k", "s\u{85}", Some(KeyFault::SecretControl)),
        ] {
            let fault = Signer::new(Dialect::Tkn, &secret(key), &secret(token_secret)).err();
            assert_eq!(fault, expected, "key {key:?}, secret {token_secret:?}");
        }
    }
}
