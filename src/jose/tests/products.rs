//! Tokens as each product issues them, made elsewhere, each as it is and with one thing wrong.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{NOW, fixture, judge, keys, rules, spki};
use crate::jose::KeySet;
use crate::policy::caller::jwt::{Algorithm, Issuer, KeySource, TokenFault, TokenRules, Wanted};

/// Each product's token, with what its caller's rules say.
fn products() -> Vec<(&'static str, TokenRules, u64)> {
    let tenant = "https://login.microsoftonline.com/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/v2.0";
    let client = "75dbe77f-10a3-4e59-85fd-8c127544f17c";
    let api = "6e74172b-be56-4843-9ff4-e66a39bb12e3";
    let auth0 = "https://acme.us.auth0.com/";
    let auth0_client = "Zk3mPq7RtXw2Yb9Lc4Nd8Vf1Hg6Js0Ae";
    let gateway = "https://gw.example.com";
    let okta = "https://acme.okta.com/oauth2/default";
    let okta_client = "0oa1b2c3d4E5f6G7h8i9";
    let salesforce = "https://acme.my.salesforce.com";
    vec![
        (
            "rs256-entra-v2",
            rules(tenant, api, &[("azp", &[client]), ("ver", &["2.0"])]),
            1_790_003_600,
        ),
        (
            "jwt-entra-v2",
            rules(
                tenant,
                api,
                &[
                    ("azp", &[client]),
                    ("idtyp", &["app"]),
                    ("roles", &["Gateway.Call"]),
                ],
            ),
            1_790_003_600,
        ),
        (
            "jwt-entra-v1",
            rules(
                "https://sts.windows.net/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/",
                &format!("api://{api}"),
                &[("appid", &[client])],
            ),
            1_790_003_600,
        ),
        (
            "jwt-okta",
            rules(
                okta,
                "api://countersign",
                &[("cid", &["other", okta_client]), ("scp", &["gateway.call"])],
            ),
            1_790_003_600,
        ),
        (
            "jwt-auth0",
            rules(
                auth0,
                gateway,
                &[("azp", &[auth0_client]), ("gty", &["client-credentials"])],
            ),
            1_790_003_600,
        ),
        (
            "jwt-auth0-rfc9068",
            rules(auth0, gateway, &[("client_id", &[auth0_client])]),
            1_790_003_600,
        ),
        (
            "jwt-keycloak",
            rules(
                "https://sso.example.com/realms/crm",
                "countersign",
                &[("azp", &["crm-job"]), ("scope", &["profile"])],
            ),
            1_790_000_300,
        ),
        (
            "jwt-pingone",
            rules(
                "https://auth.pingone.eu/0f1e2d3c-aaaa-bbbb-cccc-1234567890ab/as",
                gateway,
                &[("client_id", &["3c7d1a5e-0f0e-4f35-9a4e-6c1b6f0a1d11"])],
            ),
            1_790_003_600,
        ),
        (
            "jwt-salesforce-core",
            rules(
                salesforce,
                salesforce,
                &[("client_id", &["3MVG9aaaaaaaaaaaaaaaaaaaaaaaaaaaa"])],
            ),
            1_790_001_800,
        ),
        (
            "jwt-salesforce-ec",
            rules(salesforce, gateway, &[]),
            1_790_000_120,
        ),
        (
            "jwt-trap-claims",
            rules(okta, "api://countersign", &[("cid", &[okta_client])]),
            // And half a second.
            1_790_003_601,
        ),
    ]
}

#[test]
fn the_tokens_of_every_product() {
    // The external credential names a certificate, which has no name in PEM.
    let seed = URL_SAFE_NO_PAD
        .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
        .unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let nameless = format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\"}}]}}");
    let nameless = KeySet::read(nameless.as_bytes()).unwrap();
    for (name, rules, ends) in products() {
        let keys = match name {
            "jwt-salesforce-ec" => KeySet::read(format!("{}\n", spki(&pair)).as_bytes()).unwrap(),
            _ => keys(),
        };
        let token = fixture(name);
        let check = |rules: &TokenRules, at, expected: Result<(), TokenFault>| {
            assert_eq!(judge(token, &keys, rules, at), expected, "{name} at {at}");
        };
        check(&rules, NOW, Ok(()));
        if name != "rs256-entra-v2" {
            assert_eq!(judge(token, &nameless, &rules, NOW), Ok(()), "{name}");
        }
        check(&rules, ends + 59, Ok(()));
        check(&rules, ends + 60, Err(TokenFault::Expired));
        // Issued at 1 790 000 000, and our clock may be late.
        check(&rules, 1_789_999_940, Ok(()));
        check(&rules, 1_789_999_939, Err(TokenFault::NotYetValid));
        let other = TokenRules {
            audiences: vec!["https://gw.example.org".into(), "".into()],
            ..rules.clone()
        };
        check(&other, NOW, Err(TokenFault::Audience));
        // Late as well, but not only late.
        check(&other, ends + 600, Err(TokenFault::Audience));
        for index in 0..rules.required_claims.len() {
            let mut other = rules.clone();
            other.required_claims[index].1 = vec![Wanted::Text("other".into())];
            check(&other, NOW, Err(TokenFault::ClaimMissing));
        }
        let mut demanding = rules.clone();
        let absent = ("not_there".into(), vec![Wanted::Text("x".into())]);
        demanding.required_claims.push(absent);
        check(&demanding, NOW, Err(TokenFault::ClaimMissing));
        let mut other = rules.clone();
        other.issuer = Arc::new(Issuer {
            name: format!("{}x", rules.issuer.name).into(),
            keys: KeySource::Files(Vec::new()),
            ca: None,
        });
        check(&other, NOW, Err(TokenFault::Issuer));
        let other = TokenRules {
            algorithms: vec![Algorithm::Es256],
            ..rules.clone()
        };
        check(&other, NOW, Err(TokenFault::Algorithm));
        changed_anywhere(token, &keys, &rules);
    }
}

/// No byte of a token can be another.
fn changed_anywhere(token: &str, keys: &KeySet, rules: &TokenRules) {
    let bytes = token.as_bytes();
    for index in 0..bytes.len() {
        for other in [b'A', b'B', b'.', b'=', b' ', b'\n', b'~'] {
            if bytes[index] == other {
                continue;
            }
            let mut changed = bytes.to_vec();
            changed[index] = other;
            let changed = String::from_utf8(changed).unwrap();
            let judged = judge(&changed, keys, rules, NOW);
            assert!(judged.is_err(), "{index} {other}: {changed}");
        }
        let judged = judge(&token[..index], keys, rules, NOW);
        assert!(judged.is_err(), "cut at {index}");
    }
    for odd in [
        format!("{token}A"),
        format!("{token}="),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{token}"),
        format!("{token},{token}"),
        format!(" {token}"),
        format!("{token}\n"),
    ] {
        assert!(judge(&odd, keys, rules, NOW).is_err(), "{odd}");
    }
}

#[test]
fn no_audience_is_no_audience() {
    let rules = rules("https://sso.example.com/realms/crm", "countersign", &[]);
    let judged = judge(fixture("jwt-keycloak-no-aud"), &keys(), &rules, NOW);
    assert_eq!(judged, Err(TokenFault::Audience));
}
