//! How well-known products sign.
//!
//! Sources: each product's page about verifying its webhooks; where those are silent, the code of its
//! own libraries. Their published examples are tests.

use super::rules::{
    Algorithm, Encoding, Format, Part, Rules, SecretEncoding, Separator, Source, Timestamp,
    UrlDecoding,
};

/// The names of all presets.
pub const NAMES: [&str; 11] = [
    "github",
    "hubspot",
    "intercom",
    "nexus",
    "sfmc",
    "shopify",
    "slack",
    "standard-webhooks",
    "stripe",
    "svix",
    "zendesk",
];

/// The secret that the builder of every Zendesk webhook signs its test with. Zendesk publishes it.
pub const ZENDESK_TEST_SECRET: &str = "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==";

/// How a product signs; `None` for a name that is no preset's.
#[expect(clippy::too_many_lines, reason = "the one list of all presets")]
pub fn preset(name: &str) -> Option<Rules> {
    let text = |text: &str| Part::Text(text.into());
    Some(match name {
        "github" => Rules {
            prefix: "sha256=".into(),
            ..Rules::of_body("x-hub-signature-256")
        },
        "hubspot" => Rules {
            encoding: Encoding::Base64,
            signed: vec![Part::Method, Part::Url, Part::Body, Part::Timestamp],
            timestamp: in_header("x-hubspot-request-timestamp", Format::Milliseconds),
            url_decoding: UrlDecoding::Hubspot,
            drop_query: ["userId", "portalId", "userEmail", "appId"]
                .map(Box::from)
                .into(),
            ..Rules::of_body("x-hubspot-signature-v3")
        },
        "intercom" => Rules {
            prefix: "sha1=".into(),
            algorithm: Algorithm::Sha1,
            ..Rules::of_body("x-hub-signature")
        },
        // Whether it sends seconds or milliseconds is said nowhere.
        "nexus" => Rules {
            prefix: "sha256=".into(),
            signed: vec![Part::Timestamp, text("."), Part::Body],
            timestamp: in_header("x-nexus-timestamp", Format::Unix),
            ..Rules::of_body("x-nexus-signature-256")
        },
        "sfmc" => Rules {
            encoding: Encoding::Base64,
            ..Rules::of_body("x-sfmc-ens-signature")
        },
        "shopify" => Rules {
            encoding: Encoding::Base64,
            ..Rules::of_body("x-shopify-hmac-sha256")
        },
        "slack" => Rules {
            prefix: "v0=".into(),
            signed: vec![text("v0:"), Part::Timestamp, text(":"), Part::Body],
            timestamp: in_header("x-slack-request-timestamp", Format::Seconds),
            ..Rules::of_body("x-slack-signature")
        },
        "standard-webhooks" => standard("webhook"),
        "stripe" => Rules {
            separator: Some(Separator::Comma),
            prefix: "v1=".into(),
            signed: vec![Part::Timestamp, text("."), Part::Body],
            timestamp: Some(Timestamp::within_minutes(
                Source::Entry("t=".into()),
                Format::Seconds,
            )),
            ..Rules::of_body("stripe-signature")
        },
        "svix" => standard("svix"),
        "zendesk" => Rules {
            encoding: Encoding::Base64,
            signed: vec![Part::Timestamp, Part::Body],
            timestamp: in_header("x-zendesk-webhook-signature-timestamp", Format::Iso8601),
            ..Rules::of_body("x-zendesk-webhook-signature")
        },
        _ => return None,
    })
}

/// Standard Webhooks (standardwebhooks.com), whose headers begin with one word or another. Entries of
/// the version `v1a` are made with another kind of key.
fn standard(word: &str) -> Rules {
    let text = |text: &str| Part::Text(text.into());
    Rules {
        separator: Some(Separator::Space),
        prefix: "v1,".into(),
        encoding: Encoding::Base64,
        secret_encoding: SecretEncoding::Base64,
        secret_prefix: "whsec_".into(),
        signed: vec![Part::Id, text("."), Part::Timestamp, text("."), Part::Body],
        timestamp: in_header(&format!("{word}-timestamp"), Format::Seconds),
        id_header: Some(format!("{word}-id").into()),
        ..Rules::of_body(&format!("{word}-signature"))
    }
}

fn in_header(name: &str, format: Format) -> Option<Timestamp> {
    Some(Timestamp::within_minutes(
        Source::Header(name.into()),
        format,
    ))
}
