//! Callers that present a user name and a password: only a slow hash of the password is held.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::phc;
use argon2::password_hash::{CustomizedPasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A user name, and the passwords that go with it.
#[derive(Clone, Debug)]
pub struct Basic {
    /// The user name, compared byte for byte.
    pub user_name: Box<str>,
    /// Hashes of the passwords: several while one is rotated out.
    pub passwords: Arc<[PasswordHash]>,
}

/// The argon2id hash of a password (RFC 9106), read from the PHC string format
/// (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: Box<str>,
    parsed: phc::PasswordHash,
}

/// Why a text is no hash that a password can be compared with. The message holds the cure, not the
/// text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashFault {
    /// No PHC string of argon2id, version 19, with the parameters m, t and p alone.
    #[error(
        "a password stands here as its argon2id hash, which begins with $argon2id$v=19$; run countersign key new --basic NAME, and never write the password itself here"
    )]
    Form,
    /// A salt of less than 16 bytes, or a hash of less.
    #[error(
        "the hash has a salt or a length of less than 16 bytes; run countersign key new --basic NAME"
    )]
    Short,
    /// Guessing is too cheap.
    #[error(
        "the hash is too cheap to keep guessers off: at least {M_MIN} KiB of memory (m), and {COST_MIN} with its passes (m times t); run countersign key new --basic NAME"
    )]
    TooCheap,
    /// Comparing would keep the gateway from its work.
    #[error(
        "the hash is too costly for a gateway: at most {M_MAX} KiB of memory (m), {COST_MAX} with its passes (m times t), and {P_MAX} lanes (p); run countersign key new --basic NAME"
    )]
    TooCostly,
}

/// Least memory in KiB, and least memory times passes: the weakest of the settings that OWASP's
/// cheat sheet on password storage takes for equal (m=7168, t=5).
const M_MIN: u32 = 7 * 1024;
const COST_MIN: u64 = 7 * 1024 * 5;

/// Most of them: the setting RFC 9106 recommends second (m=65536, t=3, p=4) fits, and half a second
/// of one core is not exceeded.
const M_MAX: u32 = 256 * 1024;
const COST_MAX: u64 = 512 * 1024;
const P_MAX: u32 = 16;

/// Least bytes of a salt and of a hash.
const BYTES_MIN: usize = 16;

impl PasswordHash {
    /// Reads a hash in the PHC string format.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, HashFault> {
        let parsed = phc::PasswordHash::new(text).map_err(|_| HashFault::Form)?;
        let params = Params::try_from(&parsed).map_err(|_| HashFault::Form)?;
        let names = parsed.params.iter().map(|(name, _)| name);
        let (Some(salt), Some(hash)) = (&parsed.salt, &parsed.hash) else {
            return Err(HashFault::Form);
        };
        if parsed.algorithm != Algorithm::Argon2id.ident()
            || parsed.version != Some(Version::V0x13.into())
            || !names.eq(["m", "t", "p"].map(phc::Ident::new_unwrap))
        {
            return Err(HashFault::Form);
        }
        if salt.len() < BYTES_MIN || hash.len() < BYTES_MIN {
            return Err(HashFault::Short);
        }
        let memory = params.m_cost();
        let cost = u64::from(memory) * u64::from(params.t_cost());
        if memory > M_MAX || cost > COST_MAX || params.p_cost() > P_MAX {
            return Err(HashFault::TooCostly);
        }
        if memory < M_MIN || cost < COST_MIN {
            return Err(HashFault::TooCheap);
        }
        Ok(Self {
            text: text.into(),
            parsed,
        })
    }

    /// Hashes a password with the crate's default cost, which is OWASP's first choice (19 MiB, two
    /// passes); `None` if that cannot be done.
    pub fn of(password: &[u8], salt: &[u8; 16]) -> Option<Self> {
        let hashed = Argon2::default().hash_password_customized(
            password,
            salt,
            None,
            None,
            Params::default(),
        );
        Self::parse(&hashed.ok()?.to_string()).ok()
    }

    /// In the PHC string format.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the hash of a password: takes as long as the hash was made to take, and the
    /// same time whatever comes of it.
    pub fn matches(&self, password: &[u8]) -> bool {
        Argon2::default()
            .verify_password(password, &self.parsed)
            .is_ok()
    }
}

/// Guesses can be compared with a hash: only what it costs is shown.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argon2id({}, [redacted])", self.parsed.params)
    }
}

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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A hash of `canary-password`, made with argon2-cffi, which is the reference implementation:
    /// `hash_secret(b"canary-password", b"saltsaltsaltsalt", 2, 19456, 1, 32, Type.ID)`.
    pub(crate) const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$rC5wOdNa+G0FGxcWYcQq0Hn6qLjh4vxuMEfLNphiY1s";

    #[test]
    fn hashes_that_can_be_compared() {
        let check = |text: &str, expected: Result<(), HashFault>| {
            let parsed = PasswordHash::parse(text);
            assert_eq!(parsed.map(|_| ()), expected, "{text}");
        };
        let with = |params: &str| HASH.replace("m=19456,t=2,p=1", params);
        check(HASH, Ok(()));
        for good in [
            "m=7168,t=5,p=1",
            "m=47104,t=1,p=1",
            "m=65536,t=3,p=4",
            "m=262144,t=2,p=16",
        ] {
            check(&with(good), Ok(()));
        }
        for cheap in [
            "m=7167,t=64,p=1",
            "m=7168,t=4,p=1",
            "m=19456,t=1,p=1",
            "m=8,t=1,p=1",
        ] {
            check(&with(cheap), Err(HashFault::TooCheap));
        }
        for costly in [
            "m=262145,t=1,p=1",
            "m=262144,t=3,p=1",
            "m=7168,t=74,p=1",
            "m=19456,t=4294967295,p=1",
            "m=4294967295,t=1,p=1",
            "m=19456,t=2,p=17",
        ] {
            check(&with(costly), Err(HashFault::TooCostly));
        }
        for odd in [
            "",
            "canary-password",
            "$2y$10$abcdefghijklmnopqrstuv",
            "{SHA}canary",
            &HASH.replace("argon2id", "argon2i"),
            &HASH.replace("argon2id", "argon2d"),
            &HASH.replace("v=19", "v=16"),
            &HASH.replace("$v=19", ""),
            &with("m=19456,t=2"),
            &with("t=2,m=19456,p=1"),
            &with("m=19456,t=2,p=1,keyid=AAAA"),
            &with("m=19456,t=2,t=2,p=1"),
            &with("m=019456,t=2,p=1"),
            HASH.rsplit_once('$').unwrap().0,
            &format!("{HASH}$"),
            &format!(" {HASH}"),
        ] {
            check(odd, Err(HashFault::Form));
        }
        let short = HASH.replace(HASH.split('$').nth(4).unwrap(), "c2FsdHNhbHQ");
        check(&short, Err(HashFault::Short));
    }

    #[test]
    fn the_right_password_and_no_other() {
        let hash = PasswordHash::parse(HASH).unwrap();
        assert!(hash.matches(b"canary-password"));
        for wrong in ["canary-passwor", "canary-password\0", "Canary-password", ""] {
            assert!(!hash.matches(wrong.as_bytes()), "{wrong}");
        }
        let made = PasswordHash::of("p\u{e4}ss".as_bytes(), b"0123456789abcdef").unwrap();
        assert!(made.matches("p\u{e4}ss".as_bytes()) && !made.matches(b"p\xe4ss"));
        assert!(made.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn debug_shows_the_cost_alone() {
        let shown = format!("{:?}", PasswordHash::parse(HASH).unwrap());
        assert_eq!(shown, "argon2id(m=19456,t=2,p=1, [redacted])");
    }

    #[test]
    fn pairs_are_read_at_their_first_colon() {
        let check = |text: &[u8], expected: Option<(&[u8], &[u8])>| {
            let pair = Pair::read(STANDARD.encode(text).as_bytes());
            let seen = pair
                .as_ref()
                .map(|pair| (pair.user_name(), pair.password()));
            assert_eq!(seen, expected, "{}", text.escape_ascii());
        };
        check(b"crm:secret", Some((b"crm", b"secret")));
        check(b"crm:se:cr:et", Some((b"crm", b"se:cr:et")));
        check(b"crm:", Some((b"crm", b"")));
        check(b":secret", Some((b"", b"secret")));
        check(
            "j\u{f6}rg:\u{a3}".as_bytes(),
            Some(("j\u{f6}rg".as_bytes(), "\u{a3}".as_bytes())),
        );
        check(b"crm", None);
        check(b"", None);
        for odd in [
            "Y3JtOnNlY3JldA",
            "Y3Jt OnM=",
            "Y3JtOnNlY3JldA===",
            "crm:secret",
            "Y3JtOi_-",
        ] {
            assert!(Pair::read(odd.as_bytes()).is_none(), "{odd}");
        }
    }
}
