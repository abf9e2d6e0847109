//! Tokens read by code of the tests' own, which shares nothing with the signer.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Whether a token is one a site with this key and secret takes, and as whom: in the current
/// dialect, or in the older one.
pub fn user_of(token: &str, key: &str, secret: &str) -> Option<(String, u64)> {
    let (token, tagged) = match token.strip_prefix("tkn_") {
        Some(rest) => (rest, true),
        None => (token, false),
    };
    let rest = token.strip_prefix(key)?.strip_prefix('_')?;
    let (rest, hash) = rest.rsplit_once('_')?;
    let (epoch, user) = rest.split_once('_')?;
    let message = if tagged {
        format!("{key}_{epoch}_{user}")
    } else {
        format!("{key}{epoch}{user}")
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let expected: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    (hash == expected).then(|| (user.to_owned(), epoch.parse().unwrap()))
}
