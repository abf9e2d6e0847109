//! Callers that present a token of an identity provider: whose is taken, which attacks are not, and keys
//! that come, go and stay away.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use countersign_emulator::{Emulator, Options};
use serde_json::Value;

use crate::harness::issuer::{Pair, Provider, claims, encode, now, set};
use crate::harness::{API_KEY, Answer, Gateway, Log, Need, ROUTES, Reply, Site, cannot, within};
use crate::tls::identity;

const PATH: &str = "/jwt/@api/deki/users/current";

/// A file with a caller `portal` whose keys come from here.
fn file(keys: &str, more: &str) -> String {
    let caller = format!(
        "callers:\n  tokens:\n    jwt: {{ issuer: \"https://login.example.com/\", audience: countersign, keys: {keys}{more} }}\n    acts_as: \"=portal\"\n"
    );
    let route = "  - { name: jwt, mount: /jwt, site: acme, token: server, callers: [tokens, crm], allow: [whoami] }\n";
    ROUTES.replace("callers:\n", &caller) + route
}

async fn start(keys: &str, more: &str) -> (std::sync::Arc<Site>, Gateway) {
    let site = Site::start(|_| Reply::ok()).await;
    let gateway = Gateway::start(&file(keys, more), site.address).await;
    (site, gateway)
}

async fn call(gateway: &Gateway, token: &str) -> Answer {
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    gateway.send(request).await
}

async fn passes(gateway: &Gateway, token: &str, what: &str) {
    let answer = call(gateway, token).await;
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
}

/// What the record says of the one call since the last look.
fn cause(log: &Log) -> String {
    let records = log.named("exchange");
    let record = records.last().expect("a record");
    let text = |field: &str| {
        record
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    text("cause")
}

async fn refused(gateway: &Gateway, log: &Log, token: &str, expected: &str, what: &str) {
    let before = log.named("exchange").len();
    let answer = call(gateway, token).await;
    let code = match expected {
        "token_expired" => "credential_expired",
        _ => "credential_unknown",
    };
    assert_eq!((answer.status, answer.refusal()), (401, code), "{what}");
    assert_eq!(log.named("exchange").len(), before + 1, "{what}");
    assert_eq!(cause(log), expected, "{what}");
}

#[tokio::test]
async fn every_algorithm() {
    let pairs = [
        (
            Pair::rsa(),
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..],
        ),
        (Pair::p256(), &["ES256"]),
        (Pair::p384(), &["ES384"]),
        (Pair::ed25519(), &["EdDSA"]),
    ];
    let keys: Vec<String> = pairs
        .iter()
        .enumerate()
        .map(|(index, (pair, _))| pair.jwk(&format!(",\"kid\":\"k{index}\"")))
        .collect();
    let provider = Provider::start(&keys).await;
    let (site, gateway) = start(&provider.url(), "").await;
    for (index, (pair, algorithms)) in pairs.iter().enumerate() {
        for algorithm in *algorithms {
            for header in [
                format!("{{\"alg\":\"{algorithm}\",\"kid\":\"k{index}\",\"typ\":\"at+jwt\"}}"),
                format!("{{\"alg\":\"{algorithm}\"}}"),
            ] {
                let token = pair.sign(&header, &claims(",\"azp\":\"crm\""));
                passes(&gateway, &token, &header).await;
                let seen = site.take();
                assert_eq!(seen.len(), 1);
                assert_eq!(seen[0].user(), "=portal");
                assert!(!seen[0].has("authorization"), "the token stays here");
                // Again, now that it is known.
                passes(&gateway, &token, &header).await;
                site.take();
            }
        }
    }
    // Where keys go, too, and beside a caller with a key on the same route.
    let token = pairs[1].0.sign("{\"alg\":\"ES256\"}", &claims(""));
    for line in [
        format!("X-Api-Key: {token}"),
        format!("X-Api-Key: {API_KEY}"),
    ] {
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n");
        assert_eq!(gateway.send(request).await.status, 200);
    }
    let both = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    gateway
        .send(both)
        .await
        .refused(400, "ambiguous_credential");
    let twice = format!(
        "GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    gateway
        .send(twice)
        .await
        .refused(400, "ambiguous_credential");
    // Not on a route that does not list the caller.
    let elsewhere = format!(
        "GET /crm/@api/deki/users/current HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    gateway
        .send(elsewhere)
        .await
        .refused(401, "credential_unknown");
}

/// Tokens that somebody might try, and what the record says of them.
fn attacks(good: &Pair, ec: &Pair) -> Vec<(&'static str, String, &'static str)> {
    let rs = "{\"alg\":\"RS256\",\"kid\":\"rsa\"}";
    let fine = claims(",\"azp\":\"crm\"");
    let token = good.sign(rs, &fine);
    let parts: Vec<&str> = token.split('.').collect();
    let with = |header: &str| good.sign(header, &fine);
    let unsigned = |header: &str| format!("{}.{}.", encode(header), encode(&fine));
    let stranger = Pair::p256();
    let hmac = |algorithm: &str, key: &[u8]| {
        let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"rsa\"}}");
        let message = format!("{}.{}", encode(header), encode(&fine));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
        let tag = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", encode(tag))
    };
    let says = |claims: String| good.sign(rs, &claims);
    let timed = |times: &str| {
        says(format!(
            "{{\"iss\":\"https://login.example.com/\",\"aud\":\"countersign\",\"azp\":\"crm\"{times}}}"
        ))
    };
    let (past, soon) = (now() - 3600, now() + 3600);
    let zeros = |header: &str, length: usize| {
        format!(
            "{}.{}.{}",
            encode(header),
            encode(&fine),
            encode(vec![0; length])
        )
    };
    let es = "{\"alg\":\"ES256\",\"kid\":\"ec\"}";
    let ec_token = ec.sign(es, &fine);
    // The other root of the same curve's order would be good, too, were it not bound to r.
    let der = {
        let message = format!("{}.{}", encode(es), encode(&fine));
        let raw = ec.signature("ES256", message.as_bytes());
        let der = [
            &[0x30, 0x44, 0x02, 0x20],
            &raw[..32],
            &[0x02, 0x20],
            &raw[32..],
        ]
        .concat();
        format!("{message}.{}", encode(der))
    };
    vec![
        (
            "alg none",
            unsigned("{\"alg\":\"none\"}"),
            "token_algorithm",
        ),
        (
            "alg None",
            unsigned("{\"alg\":\"None\"}"),
            "token_algorithm",
        ),
        (
            "alg nOnE with a signature",
            with("{\"alg\":\"nOnE\",\"kid\":\"rsa\"}"),
            "token_algorithm",
        ),
        ("no alg", unsigned("{\"typ\":\"JWT\"}"), "token_algorithm"),
        (
            "signature cut off",
            format!("{}.{}.", parts[0], parts[1]),
            "token_signature",
        ),
        (
            "HS256 with the public key",
            hmac("HS256", good.jwk("").as_bytes()),
            "token_algorithm",
        ),
        ("HS256 with nothing", hmac("HS256", b""), "token_algorithm"),
        (
            "RS256 with an HMAC",
            hmac("RS256", good.jwk("").as_bytes()),
            "token_signature",
        ),
        (
            "another algorithm of the key",
            good.sign("{\"alg\":\"RS384\",\"kid\":\"rsa\"}", &fine),
            "token_algorithm",
        ),
        (
            "PS256 for a key of RS256",
            good.sign("{\"alg\":\"PS256\",\"kid\":\"rsa\"}", &fine),
            "token_algorithm",
        ),
        (
            "ES256 for an RSA key",
            ec.sign("{\"alg\":\"ES256\",\"kid\":\"rsa\"}", &fine),
            "token_algorithm",
        ),
        (
            "another's key under a good name",
            stranger.sign(es, &fine),
            "token_signature",
        ),
        (
            "another's key without a name",
            stranger.sign("{\"alg\":\"ES256\"}", &fine),
            "token_signature",
        ),
        (
            "another curve",
            Pair::p384().sign("{\"alg\":\"ES384\",\"kid\":\"ec\"}", &fine),
            "token_algorithm",
        ),
        (
            "another curve's signature",
            Pair::p384().sign(es, &fine),
            "token_signature",
        ),
        ("ECDSA of zeros", zeros(es, 64), "token_signature"),
        ("ECDSA in DER", der, "token_signature"),
        ("ECDSA with nothing", zeros(es, 0), "token_signature"),
        ("RSA of zeros", zeros(rs, 256), "token_signature"),
        ("RSA of one byte", zeros(rs, 1), "token_signature"),
        (
            "its key brought along",
            stranger.sign(
                &format!("{{\"alg\":\"ES256\",\"jwk\":{}}}", stranger.jwk("")),
                &fine,
            ),
            "token_signature",
        ),
        (
            "its key by jku",
            stranger.sign(
                "{\"alg\":\"ES256\",\"kid\":\"ec\",\"jku\":\"https://evil.example/jwks\"}",
                &fine,
            ),
            "token_signature",
        ),
        (
            "its key by x5u",
            stranger.sign(
                "{\"alg\":\"ES256\",\"kid\":\"ec\",\"x5u\":\"https://evil.example/c.pem\"}",
                &fine,
            ),
            "token_signature",
        ),
        (
            "its key by x5c",
            stranger.sign(
                "{\"alg\":\"ES256\",\"kid\":\"ec\",\"x5c\":[\"MIIB\"]}",
                &fine,
            ),
            "token_signature",
        ),
        (
            "kid is a path",
            with("{\"alg\":\"RS256\",\"kid\":\"../../../dev/null\"}"),
            "token_key_unknown",
        ),
        (
            "kid is SQL",
            with("{\"alg\":\"RS256\",\"kid\":\"x' UNION SELECT 'secret\"}"),
            "token_key_unknown",
        ),
        (
            "kid is a command",
            with("{\"alg\":\"RS256\",\"kid\":\"| id\"}"),
            "token_key_unknown",
        ),
        (
            "kid in other letters",
            with("{\"alg\":\"RS256\",\"kid\":\"RSA\"}"),
            "token_key_unknown",
        ),
        (
            "kid is a list",
            with("{\"alg\":\"RS256\",\"kid\":[\"rsa\"]}"),
            "token_malformed",
        ),
        (
            "kid twice",
            with("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"kid\":\"rsa\"}"),
            "token_malformed",
        ),
        (
            "crit",
            with("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"crit\":[\"exp\"],\"exp\":1}"),
            "token_critical",
        ),
        (
            "b64 false",
            with("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"b64\":false,\"crit\":[\"b64\"]}"),
            "token_critical",
        ),
        (
            "b64 without crit",
            with("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"b64\":false}"),
            "token_critical",
        ),
        (
            "nested",
            good.sign(
                "{\"alg\":\"RS256\",\"kid\":\"rsa\",\"cty\":\"JWT\"}",
                &token,
            ),
            "token_type",
        ),
        (
            "a logout token",
            with("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"typ\":\"logout+jwt\"}"),
            "token_type",
        ),
        (
            "a proof of possession",
            with("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"typ\":\"dpop+jwt\"}"),
            "token_type",
        ),
        (
            "an ID token of Keycloak",
            says(claims(",\"azp\":\"crm\",\"typ\":\"ID\"")),
            "token_type",
        ),
        (
            "a refresh token of Keycloak",
            says(claims(",\"azp\":\"crm\",\"typ\":\"Refresh\"")),
            "token_type",
        ),
        (
            "another audience",
            says(claims(",\"azp\":\"crm\"").replace("countersign", "another")),
            "token_audience",
        ),
        (
            "no audience",
            says(claims(",\"azp\":\"crm\"").replace("\"aud\":\"countersign\",", "")),
            "token_audience",
        ),
        (
            "an audience within a text",
            says(claims(",\"azp\":\"crm\"").replace("countersign", "countersign other")),
            "token_audience",
        ),
        (
            "another issuer",
            says(claims("").replace("login.example.com/", "login.example.org/")),
            "token_issuer",
        ),
        (
            "an issuer without its slash",
            says(claims("").replace("example.com/", "example.com")),
            "token_issuer",
        ),
        (
            "no issuer",
            says("{\"aud\":\"countersign\",\"exp\":99999999999}".to_owned()),
            "token_issuer",
        ),
        (
            "an issuer among others",
            says(claims("").replace(
                "\"https://login.example.com/\"",
                "[\"https://login.example.com/\"]",
            )),
            "token_issuer",
        ),
        (
            "another client",
            says(claims(",\"azp\":\"other\"")),
            "token_claim_missing",
        ),
        ("no client", says(claims("")), "token_claim_missing"),
        (
            "a client among others",
            says(claims(",\"azp\":{\"crm\":true}")),
            "token_claim_missing",
        ),
        (
            "expired",
            timed(&format!(",\"exp\":{past}")),
            "token_expired",
        ),
        ("never expires", timed(""), "token_time"),
        (
            "expires in milliseconds",
            timed(&format!(",\"exp\":{soon}000")),
            "token_time",
        ),
        (
            "expires as text",
            timed(&format!(",\"exp\":\"{soon}\"")),
            "token_time",
        ),
        (
            "expires at infinity",
            timed(",\"exp\":1e999"),
            "token_malformed",
        ),
        ("expires before 1970", timed(",\"exp\":-1"), "token_time"),
        (
            "expires twice",
            timed(&format!(",\"exp\":{past},\"exp\":{soon}")),
            "token_malformed",
        ),
        (
            "not yet",
            timed(&format!(",\"exp\":{soon},\"nbf\":{}", soon - 60)),
            "token_not_yet_valid",
        ),
        (
            "issued in the future",
            timed(&format!(",\"exp\":{soon},\"iat\":{}", soon - 60)),
            "token_not_yet_valid",
        ),
        (
            "claims twice",
            says(claims(",\"azp\":\"other\",\"azp\":\"crm\"")),
            "token_malformed",
        ),
        (
            "claims twice in disguise",
            says(claims(",\"azp\":\"other\",\"\\u0061zp\":\"crm\"")),
            "token_malformed",
        ),
        (
            "deep claims",
            says(claims(&format!(
                ",\"azp\":\"crm\",\"x\":{}{}",
                "[".repeat(2000),
                "]".repeat(2000)
            ))),
            "token_malformed",
        ),
        (
            "claims that are no object",
            says("\"crm\"".to_owned()),
            "token_malformed",
        ),
        (
            "claims that are no JSON",
            says("iss=x".to_owned()),
            "token_malformed",
        ),
        (
            "two parts",
            format!("{}.{}", parts[0], parts[1]),
            "token_malformed",
        ),
        (
            "four parts",
            format!("{token}.{}", parts[2]),
            "token_malformed",
        ),
        (
            "five parts, as an encrypted one",
            format!("{0}.{0}.{0}.{0}.{0}", parts[0]),
            "token_malformed",
        ),
        ("two tokens", format!("{token},{token}"), "token_malformed"),
        ("padding", format!("{token}=="), "token_malformed"),
        (
            "the alphabet of other base64",
            format!(
                "{}.{}.{}",
                parts[0],
                parts[1],
                parts[2].replace(['-', '_'], "+")
            ),
            "token_malformed",
        ),
        ("another last bit", last_bit(&ec_token), "token_malformed"),
        (
            "JSON serialization",
            "{\"payload\":\"e30\",\"signature\":\"\"}.x".to_owned(),
            "token_malformed",
        ),
    ]
}

/// The same bytes written in another way: the last letter of 64 bytes has four bits that say nothing.
fn last_bit(token: &str) -> String {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = LETTERS.find(token.chars().last().unwrap()).unwrap();
    let other = LETTERS.as_bytes()[last + 1] as char;
    format!("{}{other}", &token[..token.len() - 1])
}

#[tokio::test]
async fn attacks_are_refused_and_told_apart() {
    let log = Log::listen();
    let (rsa, ec) = (Pair::rsa(), Pair::p256());
    let provider = Provider::start(&[
        rsa.jwk(",\"kid\":\"rsa\",\"alg\":\"RS256\",\"use\":\"sig\""),
        ec.jwk(",\"kid\":\"ec\""),
    ])
    .await;
    let (site, gateway) = start(&provider.url(), ", required_claims: { azp: crm }").await;
    let token = rsa.sign(
        "{\"alg\":\"RS256\",\"kid\":\"rsa\"}",
        &claims(",\"azp\":\"crm\""),
    );
    passes(&gateway, &token, "the token that all of them are made from").await;
    site.take();
    let all = attacks(&rsa, &ec);
    assert!(all.len() >= 41, "{}", all.len());
    for (what, token, expected) in &all {
        refused(&gateway, &log, token, expected, what).await;
    }
    assert_eq!(site.count(), 0, "nothing of it reached the site");
    let known = countersign::policy::caller::jwt::TokenFault::ALL;
    for fault in known {
        // The one that has a test of its own.
        let is_elsewhere = fault.name() == "issuer_keys_unavailable";
        let is_here = all.iter().any(|(.., expected)| *expected == fault.name());
        assert!(is_here || is_elsewhere, "no attack is {}", fault.name());
    }
    // What a stranger invents brings about one look at the issuer's keys.
    assert!(provider.site.count() <= 2, "{}", provider.site.count());
    let logged = format!("{:?}", log.events());
    for part in token.split('.') {
        assert!(!logged.contains(part), "tokens are no matter of logs");
    }
}

#[tokio::test]
async fn long_tokens() {
    let pair = Pair::p256();
    let provider = Provider::start(&[pair.jwk("")]).await;
    let (_site, gateway) = start(&provider.url(), "").await;
    for (bytes, passes_through) in [
        (6_000, true),
        (11_900, true),
        (12_300, false),
        (40_000, false),
    ] {
        let groups = format!(",\"groups\":[\"{}\"]", "g".repeat(bytes));
        let token = pair.sign("{\"alg\":\"ES256\"}", &claims(&groups));
        let answer = call(&gateway, &token).await;
        let expected = if passes_through { 200 } else { 401 };
        assert_eq!(answer.status, expected, "{} bytes", token.len());
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_failed_call() {
    let log = Log::listen();
    let provider = Provider::start(&[]).await;
    let mut old: Option<(Pair, String)> = None;
    let mut gateway = None;
    for round in 0..4 {
        let pair = Pair::p256();
        let kid = format!("\"kid\":\"round{round}\"");
        let key = pair.jwk(&format!(",{kid}"));
        let mut keys = vec![key.clone()];
        keys.extend(old.iter().map(|(_, key)| key.clone()));
        provider.publish(&keys);
        if gateway.is_none() {
            gateway = Some(start(&provider.url(), "").await);
        }
        let (_, gateway) = gateway.as_ref().unwrap();
        // Nobody is told; the first token with the new name makes the gateway look.
        let new = pair.sign(&format!("{{\"alg\":\"ES256\",{kid}}}"), &claims(""));
        let calls = (0..8).map(|_| call(gateway, &new));
        for answer in futures(calls).await {
            assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        }
        old = Some((pair, key));
    }
    let (_, gateway) = gateway.unwrap();
    // The first one's key is gone, and its tokens with it, though they were known.
    let (last, _) = old.unwrap();
    let gone = last.sign("{\"alg\":\"ES256\",\"kid\":\"round0\"}", &claims(""));
    refused(
        &gateway,
        &log,
        &gone,
        "token_key_unknown",
        "a withdrawn key",
    )
    .await;
    let asked = provider.site.count();
    for index in 0..50 {
        let token = last.sign(
            &format!("{{\"alg\":\"ES256\",\"kid\":\"{index}\"}}"),
            &claims(""),
        );
        refused(
            &gateway,
            &log,
            &token,
            "token_key_unknown",
            "an invented key",
        )
        .await;
    }
    assert_eq!(
        provider.site.count(),
        asked,
        "no more than one a minute in vain"
    );
}

async fn futures<F: Future<Output = Answer>>(calls: impl Iterator<Item = F>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    answers
}

/// What an issuer may do to those who ask it for keys.
fn troubles(pair: &Pair) -> Vec<(&'static str, Reply)> {
    let many: Vec<String> = (0..10_000)
        .map(|index| format!("{{\"kty\":\"oct\",\"kid\":\"k{index}\",\"use\":\"enc\"}}"))
        .collect();
    let json = |text: &str| Reply::with("", text);
    vec![
        ("silence", Reply::Hang(Vec::new())),
        (
            "half an answer",
            Reply::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\"".to_vec()),
        ),
        ("a reset", Reply::Reset(Vec::new())),
        ("garbage", json("<html>maintenance</html>")),
        ("an endless number of bytes", json(&" ".repeat(3 << 20))),
        ("no keys", json("{\"keys\":[]}")),
        ("10,000 keys that are none", json(&set(&many))),
        (
            "private keys",
            json(&set(&[pair.jwk(",\"kid\":\"a\",\"d\":\"AAAA\"")])),
        ),
        (
            "an error",
            Reply::status("500 Internal Server Error", "", &set(&[pair.jwk("")])),
        ),
        (
            "a redirect",
            Reply::status(
                "302 Found",
                "Location: http://127.0.0.1:1/\r\n",
                &set(&[pair.jwk("")]),
            ),
        ),
        (
            "bytes that are no HTTP",
            Reply::Last(b"\x15\x03\x01\x00\x02\x02\x50".to_vec()),
        ),
    ]
}

#[tokio::test]
async fn an_issuer_in_trouble_changes_nothing() {
    let log = Log::listen();
    let pair = Pair::ed25519();
    for (what, trouble) in troubles(&pair) {
        let provider = Provider::start(&[pair.jwk(",\"kid\":\"a\"")]).await;
        let (_site, gateway) = start(&provider.url(), "").await;
        let token = |kid: &str, more: &str| {
            pair.sign(
                &format!("{{\"alg\":\"EdDSA\",\"kid\":\"{kid}\"}}"),
                &claims(more),
            )
        };
        passes(&gateway, &token("a", ""), what).await;
        provider.set(trouble);
        // Makes the gateway look again.
        refused(&gateway, &log, &token("b", ""), "token_key_unknown", what).await;
        passes(&gateway, &token("a", ",\"n\":1"), what).await;
        let ready = gateway.shared.generation();
        assert!(ready.sites().count() > 0);
    }
}

#[tokio::test]
async fn an_issuer_that_was_never_there() {
    let log = Log::listen();
    let pair = Pair::ed25519();
    let token = pair.sign("{\"alg\":\"EdDSA\",\"kid\":\"a\"}", &claims(""));
    for (what, trouble) in troubles(&pair) {
        let provider = Provider::start(&[]).await;
        provider.set(trouble);
        let begun = Instant::now();
        let (_site, gateway) = within(start(&provider.url(), "")).await;
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{what}: starting went on"
        );
        refused(&gateway, &log, &token, "issuer_keys_unavailable", what).await;
        // Others are not held up by it.
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n\r\n");
        assert_eq!(gateway.send(request).await.status, 200, "{what}");
    }
    assert!(
        log.named("issuer keys not read: its tokens are refused until they are")
            .len()
            >= 9
    );
    // One that comes back is asked again without anybody's doing.
    let provider = Provider::start(&[]).await;
    let (_site, gateway) = start(&provider.url(), "").await;
    refused(&gateway, &log, &token, "issuer_keys_unavailable", "not yet").await;
    provider.publish(&[pair.jwk(",\"kid\":\"a\"")]);
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while call(&gateway, &token).await.status != 200 {
        assert!(
            Instant::now() < deadline,
            "its keys are read once they are there"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn some_good_keys_among_ten_thousand() {
    let pair = Pair::p256();
    let mut keys = vec![pair.jwk(",\"kid\":\"good\"")];
    keys.extend((0..9_999).map(|index| format!("{{\"kty\":\"RSA\",\"kid\":\"{index}\"}}")));
    keys.push(Pair::p256().jwk(",\"kid\":\"private\",\"d\":\"AAAA\""));
    let provider = Provider::start(&keys).await;
    let (_site, gateway) = start(&provider.url(), "").await;
    let token = pair.sign("{\"alg\":\"ES256\",\"kid\":\"good\"}", &claims(""));
    passes(&gateway, &token, "the good key").await;
}

#[tokio::test]
async fn keys_over_tls() {
    let log = Log::listen();
    let pair = Pair::p256();
    let token = pair.sign("{\"alg\":\"ES256\"}", &claims(""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for is_trusted in [true, false] {
        let served = identity(&["127.0.0.1"], &[]);
        let trusted = match is_trusted {
            true => served.pem.clone(),
            false => identity(&["127.0.0.1"], &[]).pem,
        };
        std::fs::write(&path, trusted).unwrap();
        let provider = Provider::start_tls(served.config, &[pair.jwk("")]).await;
        let url = provider.url().replace("http://", "https://");
        let ca = format!(", ca: \"file:{}\"", path.display());
        let (_site, gateway) = start(&url, &ca).await;
        if is_trusted {
            passes(&gateway, &token, "an authority that vouches").await;
        } else {
            refused(
                &gateway,
                &log,
                &token,
                "issuer_keys_unavailable",
                "a stranger",
            )
            .await;
            assert_eq!(provider.site.count(), 0, "nothing is asked of a stranger");
        }
    }
}

#[tokio::test]
async fn a_discovery_document_must_be_the_issuers() {
    let log = Log::listen();
    let pair = Pair::p256();
    let keys = Provider::start(&[pair.jwk("")]).await;
    let token = pair.sign("{\"alg\":\"ES256\"}", &claims(""));
    let url = keys.url();
    for (issuer, named, is_good) in [
        ("https://login.example.com/", url.as_str(), true),
        ("https://login.example.com", &url, false),
        ("https://evil.example/", &url, false),
        (
            "https://login.example.com/",
            "http://keys.example.com/jwks",
            false,
        ),
        ("https://login.example.com/", "file:///etc/passwd", false),
        (
            "https://login.example.com/",
            "http://127.0.0.1@evil.example/",
            false,
        ),
    ] {
        let document = format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{named}\"}}");
        let provider = Provider::start(&[]).await;
        provider.set(Reply::with("", &document));
        let base = format!(
            "http://{}/.well-known/openid-configuration",
            provider.site.address
        );
        let (_site, gateway) = start(&base, "").await;
        match is_good {
            true => passes(&gateway, &token, named).await,
            false => refused(&gateway, &log, &token, "issuer_keys_unavailable", named).await,
        }
    }
}

#[tokio::test]
async fn key_files_are_read_again() {
    let log = Log::listen();
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["a.json", "b.json"].map(|name| folder.path().join(name));
    let (one, two, three) = (Pair::p256(), Pair::p256(), Pair::p256());
    let token = |pair: &Pair, kid: &str, more: &str| {
        pair.sign(
            &format!("{{\"alg\":\"ES256\",\"kid\":\"{kid}\"}}"),
            &claims(more),
        )
    };
    let key = |pair: &Pair, kid: &str| set(&[pair.jwk(&format!(",\"kid\":\"{kid}\""))]);
    std::fs::write(&first, key(&one, "1")).unwrap();
    std::fs::write(&second, key(&two, "2")).unwrap();
    let keys = format!(
        "[\"file:{}\", \"file:{}\"]",
        first.display(),
        second.display()
    );
    let (_site, gateway) = start(&keys, "").await;
    let known = token(&one, "1", "");
    passes(&gateway, &known, "the first file").await;
    passes(&gateway, &token(&two, "2", ""), "the second file").await;
    std::fs::write(&first, key(&three, "3")).unwrap();
    passes(
        &gateway,
        &token(&three, "3", ""),
        "a new key in the first file",
    )
    .await;
    refused(
        &gateway,
        &log,
        &known,
        "token_key_unknown",
        "a key that is gone",
    )
    .await;
    // One that is no good leaves everything as it is, and is told.
    std::fs::write(&first, "{").unwrap();
    let told = || {
        log.named("issuer keys not read: those known are kept")
            .len()
    };
    crate::harness::until("it is noticed", || told() == 1).await;
    passes(
        &gateway,
        &token(&three, "3", ",\"n\":1"),
        "the last good keys",
    )
    .await;
}

#[tokio::test]
async fn a_token_is_one_callers() {
    let log = Log::listen();
    let pair = Pair::p256();
    let provider = Provider::start(&[pair.jwk("")]).await;
    let jwt = |claims: &str| {
        format!(
            "jwt: {{ issuer: \"https://login.example.com/\", audience: [countersign, other], keys: {}, required_claims: {{ {claims} }} }}",
            provider.url()
        )
    };
    let callers = format!(
        "callers:\n  one: {{ {}, acts_as: \"=one\" }}\n  two: {{ {}, acts_as: \"=two\" }}\n",
        jwt("roles: [one, eins]"),
        jwt("roles: two, tier: 2")
    );
    let route = "  - { name: jwt, mount: /jwt, site: acme, token: server, callers: [one, two], allow: [whoami] }\n";
    let site = Site::start(|_| Reply::ok()).await;
    let gateway = Gateway::start(
        &(ROUTES.replace("callers:\n", &callers) + route),
        site.address,
    )
    .await;
    let token = |more: &str| pair.sign("{\"alg\":\"ES256\"}", &claims(more));
    for (more, user) in [
        (",\"roles\":[\"one\"]", "=one"),
        (",\"roles\":\"eins\"", "=one"),
        (",\"roles\":[\"x\",\"two\"],\"tier\":2", "=two"),
        (",\"roles\":[\"one\",\"two\"],\"tier\":3", "=one"),
    ] {
        passes(&gateway, &token(more), more).await;
        assert_eq!(site.take()[0].user(), user, "{more}");
    }
    let both = token(",\"roles\":[\"one\",\"two\"],\"tier\":2");
    call(&gateway, &both)
        .await
        .refused(400, "ambiguous_credential");
    refused(
        &gateway,
        &log,
        &token(",\"roles\":[\"three\"]"),
        "token_claim_missing",
        "neither",
    )
    .await;
    assert_eq!(gateway.shared.in_flight.load(Ordering::SeqCst), 0);
}

/// A token of the emulated provider, asked for on the command line, as docs/emulator.md has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_emulated_provider() {
    let emulator = Emulator::bind(Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Options::default()
    })
    .await
    .unwrap();
    let (address, provider) = (emulator.local_addr(), emulator.provider());
    tokio::spawn(emulator.serve(std::future::pending()));
    let site = Site::start(|_| Reply::ok()).await;
    let text = file(
        &format!("http://{address}/.well-known/openid-configuration"),
        ", required_claims: { azp: crm, roles: reader }",
    )
    .replace("https://login.example.com/", provider.issuer());
    let gateway = Gateway::start(&text, site.address).await;
    let ask = move |claims: &'static [&'static str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args([
            "emulate",
            "token",
            "--emulator",
            &format!("http://{address}"),
        ]);
        for claim in claims {
            command.args(["--claim", claim]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let good = tokio::task::spawn_blocking(move || ask(&["azp=crm", "roles=[\"reader\"]"]));
    passes(
        &gateway,
        good.await.unwrap().trim_end(),
        "what was asked for",
    )
    .await;
    let other = tokio::task::spawn_blocking(move || ask(&["azp=crm", "roles=[]"]));
    let refusal = call(&gateway, other.await.unwrap().trim_end()).await;
    refusal.refused(401, "credential_unknown");
}

/// Tokens that other libraries make, with a key that openssl made.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_other_libraries() {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(
            String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned(),
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made = run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=countersign_cert",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
    );
    if made.is_none() {
        return cannot(Need::Clients, "tokens of other libraries need openssl");
    }
    let (_site, gateway) = start(&format!("\"file:{certificate}\""), "").await;
    let claims = claims(",\"sub\":\"agent@acme.example\"");
    let python = "import json, jwt, sys; print(jwt.encode(json.loads(sys.argv[2]), open(sys.argv[1]).read(), sys.argv[3], headers={'kid': 'countersign_cert'}))";
    let node = "const [key, claims, algorithm] = process.argv.slice(1), crypto = require('crypto'); const part = (text) => Buffer.from(text).toString('base64url'); const message = part(JSON.stringify({ alg: algorithm, typ: 'JWT', kid: 'countersign_cert' })) + '.' + part(claims); const pss = algorithm.startsWith('PS') && { padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: crypto.constants.RSA_PSS_SALTLEN_DIGEST }; console.log(message + '.' + crypto.sign('sha' + algorithm.slice(2), Buffer.from(message), { key: require('fs').readFileSync(key), ...pss }).toString('base64url'))";
    for (program, option, script) in [("python3", "-c", python), ("node", "-e", node)] {
        for algorithm in ["RS256", "RS512", "PS256"] {
            match run(program, &[option, script, &key, &claims, algorithm]) {
                Some(token) => passes(&gateway, &token, program).await,
                None => cannot(
                    Need::Clients,
                    &format!(
                        "tokens of other libraries need {program}, and Python needs PyJWT with cryptography"
                    ),
                ),
            }
        }
    }
}
