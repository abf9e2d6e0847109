//! The identity provider beside the site.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

use super::*;

async fn get(rig: &Rig, path: &str) -> Value {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    serde_json::from_str(&rig.raw(&request).await.body).unwrap()
}

async fn issue(rig: &Rig, claims: &str) -> Answered {
    rig.raw(&format!(
        "POST /emulate/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{claims}",
        claims.len()
    ))
    .await
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The claims of a token that the key in the JWKS signed.
fn verified(token: &str, jwks: &Value) -> Value {
    let key = &jwks["keys"][0];
    let part = |name: &str| decode(key[name].as_str().unwrap());
    let point = [vec![4], part("x"), part("y")].concat();
    let (message, signature) = token.trim_end().rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message.as_bytes(), &decode(signature))
        .unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!((&header["kid"], &header["alg"]), (&key["kid"], &key["alg"]));
    serde_json::from_slice(&decode(claims)).unwrap()
}

#[tokio::test]
async fn tokens_with_the_claims_asked_for() {
    let rig = Rig::with(Options {
        clock_skew_seconds: -86_400,
        ..Options::default()
    })
    .await;
    let jwks = get(&rig, "/jwks.json").await;
    let discovered = get(&rig, "/.well-known/openid-configuration").await;
    let issuer = format!("http://{}", rig.address);
    assert_eq!(discovered["issuer"], issuer);
    assert_eq!(discovered["jwks_uri"], format!("{issuer}/jwks.json"));
    let answer = issue(&rig, "{\"azp\":\"crm\",\"roles\":[\"a\"]}").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let claims = verified(&answer.body, &jwks);
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&issuer.clone().into(), &"countersign".into())
    );
    assert_eq!(
        (&claims["azp"], &claims["roles"][0]),
        (&"crm".into(), &"a".into())
    );
    let (issued, ends) = (
        claims["iat"].as_i64().unwrap(),
        claims["exp"].as_i64().unwrap(),
    );
    assert_eq!(ends - issued, 300);
    let yesterday = Moment::now(-86_400).seconds();
    assert!(
        (yesterday - 60..=yesterday).contains(&issued),
        "by the site's own clock"
    );
    let answer = issue(&rig, "{\"iss\":\"x\",\"aud\":[\"y\"],\"exp\":1}").await;
    let claims = verified(&answer.body, &jwks);
    assert_eq!((&claims["iss"], &claims["exp"]), (&"x".into(), &1.into()));
    for bad in ["", "[]", "{", "x"] {
        assert_eq!(issue(&rig, bad).await.status, 400, "{bad}");
    }
    assert!(
        rig.journal.take().is_empty(),
        "it is not the site that was asked"
    );
}

#[tokio::test]
async fn every_one_has_a_key_of_its_own() {
    let (one, other) = (Rig::start().await, Rig::start().await);
    let keys = |rig| get(rig, "/jwks.json");
    assert_ne!(keys(&one).await, keys(&other).await);
    assert_eq!(keys(&one).await, keys(&one).await);
}
