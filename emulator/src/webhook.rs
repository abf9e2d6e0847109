//! A product that signs the webhooks it sends, as Zendesk does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::clock::Moment;

/// The headers that Zendesk adds to a webhook with this body: when it was signed, which is now, and the
/// signature.
pub fn zendesk_headers(secret: &str, body: &str) -> [(&'static str, String); 2] {
    let time = Moment::now(0).iso();
    let signature = signature(secret, &time, body);
    [
        ("x-zendesk-webhook-signature-timestamp", time),
        ("x-zendesk-webhook-signature", signature),
    ]
}

/// Of the time and the body, with the secret as it is shown there, not decoded.
fn signature(secret: &str, time: &str, body: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(time.as_bytes());
    mac.update(body.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by openssl, with the secret that Zendesk publishes for tests.
    #[test]
    fn signatures_are_those_of_another_implementation() {
        let secret = "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==";
        for (body, expected) in [
            (
                r#"{"ticket_id": 12345, "status": "open"}"#,
                "DM4vdWm3RFsaESVGQ1PGkJ2ES0CrXVJSpknXWR06Kss=",
            ),
            ("", "FByJZLm3S/YrpvmQJdjhQbRN3LM9mHHGtzNT1smnqSc="),
        ] {
            assert_eq!(signature(secret, "2026-07-14T12:00:00Z", body), expected);
        }
    }
}
