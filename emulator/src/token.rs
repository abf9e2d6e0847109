//! Whether a token is good: both dialects of the server token, and the browser token with its hosts.
//!
//! Written from the vendor's pages on server and browser tokens alone, and apart from the gateway's
//! signer, so that a mistake there does not answer itself here.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::clock::Moment;

/// The tokens an administrator of this site has made.
pub(super) struct Keys {
    pub(super) token_key: String,
    pub(super) token_secret: String,
    pub(super) browser_key: String,
}

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Signed; the user as sent: an id, or a name behind `=`.
    Server { user: String },
    /// The bare browser key. Where it may be used from is for [`admits`] to say.
    Browser,
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Missing,
    Invalid,
    Expired,
    Origin,
}

impl Flaw {
    /// The argument of the error document. The first text is known from production; what the vendor
    /// says in the other cases is not documented.
    pub(super) const fn argument(self) -> &'static str {
        match self {
            Self::Missing => "missing required token",
            Self::Invalid => "invalid token",
            Self::Expired => "expired token",
            Self::Origin => "invalid origin",
        }
    }
}

impl Keys {
    /// Reads the key from the left and the hash from the right, for a user's name may hold `_`.
    pub(super) fn verify(&self, token: &str, now: Moment) -> Result<Token, Flaw> {
        if same(token, &self.browser_key) {
            return Ok(Token::Browser);
        }
        let (text, separator) = match token.strip_prefix("tkn_") {
            Some(rest) => (rest, "_"),
            None => (token, ""),
        };
        let (key, rest) = text.split_once('_').ok_or(Flaw::Invalid)?;
        let (claim, hash) = rest.rsplit_once('_').ok_or(Flaw::Invalid)?;
        let (epoch, user) = claim.split_once('_').ok_or(Flaw::Invalid)?;
        let message = [key, epoch, user].join(separator);
        if user.is_empty() || !same(key, &self.token_key) || !self.signed(&message, hash) {
            return Err(Flaw::Invalid);
        }
        let epoch: i64 = epoch.parse().map_err(|_| Flaw::Invalid)?;
        if now.seconds().abs_diff(epoch) > WINDOW_SECONDS {
            return Err(Flaw::Expired);
        }
        Ok(Token::Server {
            user: user.to_owned(),
        })
    }

    fn signed(&self, message: &str, hash: &str) -> bool {
        let mut digest = [0; 32];
        if base16ct::mixed::decode(hash, &mut digest).map(<[u8]>::len) != Ok(32) {
            return false;
        }
        // The ASCII bytes of the secret are the key; its hexadecimal digits are never decoded.
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.token_secret.as_bytes())
            .expect("HMAC takes a key of any length");
        hmac.update(message.as_bytes());
        hmac.verify_slice(&digest).is_ok()
    }
}

/// Whether a list of host patterns admits a web origin. Only the host name counts; scheme and port
/// do not. `*.example.com` is one or more labels before `example.com`, and not `example.com` itself.
pub(super) fn admits(patterns: &[String], origin: &str) -> bool {
    let Some(host) = host_of(origin) else {
        return false;
    };
    patterns
        .iter()
        .flat_map(|list| list.split(','))
        .map(|pattern| pattern.trim().to_ascii_lowercase())
        .any(|pattern| match pattern.strip_prefix('*') {
            Some(suffix) => {
                suffix.starts_with('.')
                    && host
                        .strip_suffix(suffix)
                        .is_some_and(|labels| !labels.is_empty() && !labels.starts_with('.'))
            }
            None => host == pattern,
        })
}

fn host_of(origin: &str) -> Option<String> {
    let (_, rest) = origin.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The vendor says five minutes, and nothing about clocks that run ahead; here it is both ways.
const WINDOW_SECONDS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    /// (dialect, keys, epoch, user, token) of each line.
    fn known_answers() -> Vec<(String, Keys, i64, String, String)> {
        include_str!("../../tests/fixtures/tokens.txt")
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
            .map(|line| {
                let fields: Vec<&str> = line.split(" | ").collect();
                let keys = Keys {
                    token_key: fields[1].to_owned(),
                    token_secret: fields[2].to_owned(),
                    browser_key: "f".repeat(64),
                };
                (
                    fields[0].to_owned(),
                    keys,
                    fields[3].parse().unwrap(),
                    fields[4].to_owned(),
                    fields[5].to_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn known_answers_are_accepted() {
        let answers = known_answers();
        assert!(answers.len() >= 12, "the fixture holds both dialects");
        for (dialect, keys, epoch, user, token) in answers {
            let good = Ok(Token::Server { user: user.clone() });
            assert_eq!(
                keys.verify(&token, Moment::at(epoch)),
                good,
                "{dialect} {user}"
            );
            let (head, hash) = token.rsplit_once('_').unwrap();
            let shouted = format!("{head}_{}", hash.to_uppercase());
            assert_eq!(
                keys.verify(&shouted, Moment::at(epoch + 300)),
                good,
                "{dialect} {user}"
            );
        }
    }

    #[test]
    fn what_is_nearly_right_is_refused() {
        for (dialect, keys, epoch, user, token) in known_answers() {
            let at = Moment::at(epoch);
            let flaw = |token: &str| keys.verify(token, at).unwrap_err();
            let (head, hash) = token.rsplit_once('_').unwrap();
            for wrong in [
                token[..token.len() - 1].to_owned(),
                format!("{token}00"),
                format!("{head}x_{hash}"),
                format!("{head}_{}", "0".repeat(64)),
                format!("{head}_"),
                token.replacen(&epoch.to_string(), &(epoch + 1).to_string(), 1),
                String::new(),
                "tkn_".to_owned(),
                keys.token_key.clone(),
                match token.strip_prefix("tkn_") {
                    Some(rest) => rest.to_owned(),
                    None => format!("tkn_{token}"),
                },
            ] {
                assert_eq!(flaw(&wrong), Flaw::Invalid, "{dialect} {user}: {wrong}");
            }
            for late in [-301, 301] {
                let at = Moment::at(epoch + late);
                assert_eq!(
                    keys.verify(&token, at),
                    Err(Flaw::Expired),
                    "{dialect} {user}"
                );
            }
            let stranger = Keys {
                token_key: "0".repeat(64),
                ..keys
            };
            assert_eq!(
                stranger.verify(&token, at),
                Err(Flaw::Invalid),
                "{dialect} {user}"
            );
        }
    }

    #[test]
    fn the_browser_token_is_the_bare_key() {
        let (_, keys, ..) = known_answers().remove(0);
        let now = Moment::at(0);
        assert_eq!(keys.verify(&"f".repeat(64), now), Ok(Token::Browser));
        assert_eq!(keys.verify(&"f".repeat(63), now), Err(Flaw::Invalid));
    }

    #[test]
    fn hosts_are_compared_and_nothing_else() {
        let patterns = [
            "crm.example.org, *.example.com".to_owned(),
            "localhost".to_owned(),
        ];
        for origin in [
            "https://crm.example.org",
            "http://CRM.Example.Org:8080",
            "https://a.example.com",
            "https://a.b.example.com:443",
            "http://localhost:5173",
        ] {
            assert!(admits(&patterns, origin), "{origin} is allowed");
        }
        for origin in [
            "https://example.com",
            "https://badexample.com",
            "https://.example.com",
            "https://a.example.com.evil.net",
            "https://x.crm.example.org",
            "null",
            "",
            "localhost",
        ] {
            assert!(!admits(&patterns, origin), "{origin} is not allowed");
        }
    }
}
