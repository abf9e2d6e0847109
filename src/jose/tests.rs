//! Tokens and keys, as they should be and with one thing wrong.

mod keys;
mod products;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::{KeySet, Unverified};
use crate::policy::caller::jwt::{
    Algorithm, Issuer, KeySource, TokenFault, TokenRules, Verified, Wanted,
};
use crate::signing::Epoch;

const FIXTURE: &str = include_str!("../../tests/fixtures/jwt/tokens.txt");

/// When they are judged.
const NOW: u64 = 1_790_000_100;

fn fixture(name: &str) -> &'static str {
    let mut lines = FIXTURE.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is in the fixture"))
}

fn keys() -> KeySet {
    KeySet::read(fixture("keys").as_bytes()).unwrap()
}

fn rules(issuer: &str, audience: &str, claims: &[(&str, &[&str])]) -> TokenRules {
    let text = |text: &&str| Wanted::Text((*text).into());
    let required = claims
        .iter()
        .map(|(name, values)| ((*name).into(), values.iter().map(text).collect()));
    TokenRules {
        issuer: Arc::new(Issuer {
            name: issuer.into(),
            keys: KeySource::Files(Vec::new()),
            ca: None,
        }),
        algorithms: Algorithm::ALL.to_vec(),
        audiences: vec![audience.into()],
        required_claims: required.collect(),
    }
}

/// What comes of a token with these keys and rules.
fn judge(token: &str, keys: &KeySet, rules: &TokenRules, at: u64) -> Result<(), TokenFault> {
    let unverified = Unverified::read(token)?;
    if unverified.issuer() != Some(&*rules.issuer.name) {
        return Err(TokenFault::Issuer);
    }
    let signer = unverified.signer(keys).map_err(|why| why.fault)?;
    let verified = Verified {
        issuer: Arc::clone(&rules.issuer),
        algorithm: signer.algorithm,
        claims: Arc::new(unverified.into_claims()),
    };
    rules.check(&verified, Epoch::from_unix(at))
}

/// Whatever comes as a token, as its header, as its claims, as keys: it is read in one way or not, and
/// nobody guesses a signature.
#[test]
fn whatever_comes() {
    let keys = keys();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (header, claims) = (encode(b"{\"alg\":\"EdDSA\"}"), encode(b"{\"iss\":\"a\"}"));
    let signature = encode(&[7; 64]);
    bolero::check!().for_each(|input: &[u8]| {
        let part = encode(input);
        let tokens = [
            String::from_utf8_lossy(input).into_owned(),
            format!("{part}.{claims}.{signature}"),
            format!("{header}.{part}.{signature}"),
            format!("{header}.{claims}.{part}"),
        ];
        for token in tokens {
            let Ok(unverified) = Unverified::read(&token) else {
                continue;
            };
            assert!(unverified.signer(&keys).is_err(), "{token}");
            let parts: Vec<_> = token.split('.').collect();
            assert_eq!(parts.len(), 3, "{token}");
            let payload = URL_SAFE_NO_PAD.decode(parts[1]).expect("it was read");
            let value: serde_json::Value = serde_json::from_slice(&payload).expect("it was read");
            // Which takes the last of two members of one name.
            let members = value.as_object().expect("claims are a map").len();
            let claims = unverified.into_claims();
            assert_eq!(claims.0.len(), members, "{token}");
        }
        // Whether it holds keys or not.
        drop(KeySet::read(input));
    });
}

/// A public key of Ed25519 in PEM.
fn spki(pair: &Ed25519KeyPair) -> String {
    let der = [
        &[
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ],
        pair.public_key().as_ref(),
    ]
    .concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// A key of the moment, its set, and tokens that it signs.
struct Mint {
    pair: Ed25519KeyPair,
    keys: KeySet,
    rules: TokenRules,
}

impl Mint {
    fn new() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Self {
            keys: KeySet::read(spki(&pair).as_bytes()).unwrap(),
            pair,
            rules: rules("joe", "us", &[]),
        }
    }

    fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(&self, header: &str, expected: Result<(), TokenFault>) {
        let token = self.sign(
            header.as_bytes(),
            b"{\"iss\":\"joe\",\"aud\":\"us\",\"exp\":1790000200}",
        );
        let judged = judge(&token, &self.keys, &self.rules, NOW);
        assert_eq!(judged, expected, "{header}");
    }

    fn claims(&self, claims: &str, expected: Result<(), TokenFault>) {
        let token = self.sign(b"{\"alg\":\"EdDSA\"}", claims.as_bytes());
        let judged = judge(&token, &self.keys, &self.rules, NOW);
        assert_eq!(judged, expected, "{claims}");
    }
}

#[test]
fn headers() {
    let mint = Mint::new();
    let with = |more: &str| format!("{{\"alg\":\"EdDSA\"{more}}}");
    for good in [
        "",
        ",\"typ\":\"JWT\"",
        ",\"typ\":\"jwt\"",
        ",\"typ\":\"at+jwt\"",
        ",\"typ\":\"AT+JWT\"",
        ",\"typ\":\"application/at+jwt\"",
        // Nobody looks where a token says its key is.
        ",\"jku\":\"https://evil.example/keys\",\"x5u\":\"https://evil.example/c\"",
        ",\"jwk\":{\"kty\":\"OKP\"},\"x5c\":[\"AA==\"],\"x5t\":\"AA\",\"tty\":\"x\"",
        ",\"kid\":\"../../dev/null\"",
        ",\"kid\":\"' OR 1=1 --\"",
        ",\"kid\":\"\"",
    ] {
        // The one key has no name, so it may be meant by any.
        mint.header(&with(good), Ok(()));
    }
    let malformed = TokenFault::Malformed;
    for (more, fault) in [
        (",\"typ\":\"dpop+jwt\"", TokenFault::Type),
        (",\"typ\":\"logout+jwt\"", TokenFault::Type),
        (",\"typ\":\"secevent+jwt\"", TokenFault::Type),
        (",\"typ\":\"JWT \"", TokenFault::Type),
        (",\"typ\":\"\"", TokenFault::Type),
        (",\"typ\":null", TokenFault::Type),
        (",\"typ\":[\"JWT\"]", TokenFault::Type),
        (",\"cty\":\"JWT\"", TokenFault::Type),
        (",\"cty\":\"application/json\"", TokenFault::Type),
        (",\"crit\":[]", TokenFault::Critical),
        (",\"crit\":[\"exp\"],\"exp\":1", TokenFault::Critical),
        (",\"crit\":[\"b64\"],\"b64\":false", TokenFault::Critical),
        (",\"crit\":null", TokenFault::Critical),
        (",\"b64\":false", TokenFault::Critical),
        (",\"b64\":true", TokenFault::Critical),
        (",\"kid\":7", malformed),
        (",\"kid\":null", malformed),
        (",\"alg\":\"EdDSA\"", malformed),
        (",\"kid\":\"a\",\"kid\":\"a\"", malformed),
        (",\"x\":{\"a\":1,\"a\":1}", malformed),
        (",\"\\u0061lg\":\"none\"", malformed),
    ] {
        mint.header(&with(more), Err(fault));
    }
    for algorithm in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "HS256",
        "HS384",
        "HS512",
        "eddsa",
        "EDDSA",
        "ES512",
        "ES256K",
        "RSA-OAEP",
        "dir",
        "RS256 ",
        "EdDSA\\u0000",
    ] {
        let header = format!("{{\"alg\":\"{algorithm}\"}}");
        mint.header(&header, Err(TokenFault::Algorithm));
    }
    for (header, fault) in [
        ("{}", TokenFault::Algorithm),
        ("{\"alg\":null}", TokenFault::Algorithm),
        ("{\"alg\":[\"EdDSA\"]}", TokenFault::Algorithm),
        ("[]", malformed),
        ("\"EdDSA\"", malformed),
        ("", malformed),
        // An algorithm of ours, and not the key's.
        ("{\"alg\":\"RS256\"}", TokenFault::KeyUnknown),
        ("{\"alg\":\"ES256\"}", TokenFault::KeyUnknown),
    ] {
        mint.header(header, Err(fault));
    }
}

#[test]
fn claims() {
    let mint = Mint::new();
    let with = |more: &str| format!("{{\"iss\":\"joe\",\"aud\":\"us\"{more}}}");
    for good in [
        ",\"exp\":1790000200",
        ",\"exp\":1790000200.75",
        ",\"exp\":1.7900002e9",
        ",\"exp\":1790000041",
        ",\"exp\":253402300799",
        ",\"exp\":1790000200,\"nbf\":0",
        ",\"exp\":1790000200,\"nbf\":1790000160,\"iat\":1790000160",
        ",\"exp\":1790000200,\"iat\":1790000100.25",
        ",\"exp\":1790000200,\"typ\":\"Bearer\"",
        ",\"exp\":1790000200,\"typ\":\"bearer\"",
        ",\"exp\":1790000200,\"sub\":[\"admin\"],\"x\":{\"y\":[{}]}",
    ] {
        mint.claims(&with(good), Ok(()));
    }
    for (more, fault) in [
        ("", TokenFault::Time),
        (",\"exp\":null", TokenFault::Time),
        (",\"exp\":\"1790000200\"", TokenFault::Time),
        (",\"exp\":[1790000200]", TokenFault::Time),
        (",\"exp\":true", TokenFault::Time),
        (",\"exp\":-1", TokenFault::Time),
        (",\"exp\":-0.5", TokenFault::Time),
        // Milliseconds.
        (",\"exp\":1790000200000", TokenFault::Time),
        (",\"exp\":1e300", TokenFault::Time),
        (",\"exp\":18446744073709551615", TokenFault::Time),
        (",\"exp\":99999999999999999999999999", TokenFault::Time),
        (",\"exp\":1e999", TokenFault::Malformed),
        (",\"exp\":NaN", TokenFault::Malformed),
        (",\"exp\":Infinity", TokenFault::Malformed),
        (",\"exp\":1790000200,\"nbf\":\"0\"", TokenFault::Time),
        (",\"exp\":1790000200,\"iat\":{}", TokenFault::Time),
        (
            ",\"exp\":1790000200,\"nbf\":1790000161",
            TokenFault::NotYetValid,
        ),
        (
            ",\"exp\":1790000200,\"iat\":1790000160.5",
            TokenFault::NotYetValid,
        ),
        (",\"exp\":1790000040", TokenFault::Expired),
        (",\"exp\":0", TokenFault::Expired),
        (",\"exp\":1,\"exp\":1790000200", TokenFault::Malformed),
        (",\"exp\":1790000200,\"aud\":\"us\"", TokenFault::Malformed),
        (
            ",\"exp\":1790000200,\"x\":{\"a\":1,\"a\":1}",
            TokenFault::Malformed,
        ),
        (",\"exp\":1790000200,\"typ\":\"ID\"", TokenFault::Type),
        (",\"exp\":1790000200,\"typ\":\"Refresh\"", TokenFault::Type),
        (",\"exp\":1790000200,\"typ\":\"Offline\"", TokenFault::Type),
        (",\"exp\":1790000200,\"typ\":[\"Bearer\"]", TokenFault::Type),
        (",\"exp\":1790000200,\"typ\":null", TokenFault::Type),
    ] {
        mint.claims(&with(more), Err(fault));
    }
    for audience in [
        "\"US\"",
        "\"us \"",
        "\"\"",
        "[]",
        "[[\"us\"]]",
        "{\"us\":1}",
        "null",
        "\"us us\"",
        "\"u*\"",
    ] {
        let claims = format!("{{\"iss\":\"joe\",\"aud\":{audience},\"exp\":1790000200}}");
        mint.claims(&claims, Err(TokenFault::Audience));
    }
    for issuer in [
        "\"Joe\"",
        "\"joe/\"",
        "\"joe \"",
        "\" joe\"",
        "[\"joe\"]",
        "null",
        "\"\"",
        "{}",
    ] {
        let claims = format!("{{\"iss\":{issuer},\"aud\":\"us\",\"exp\":1790000200}}");
        mint.claims(&claims, Err(TokenFault::Issuer));
    }
    let deep = format!(
        ",\"exp\":1790000200,\"x\":{}{}",
        "[".repeat(50),
        "]".repeat(50)
    );
    mint.claims(&with(&deep), Err(TokenFault::Malformed));
    mint.claims("[]", Err(TokenFault::Malformed));
    mint.claims("null", Err(TokenFault::Malformed));
}

#[test]
fn required_claims() {
    let check = |value: &str, wanted: Wanted, name: &str, fits: bool| {
        let mut mint = Mint::new();
        mint.rules.required_claims = vec![(name.into(), vec![wanted.clone()])];
        let expected = fits.then_some(()).ok_or(TokenFault::ClaimMissing);
        let claims =
            format!("{{\"iss\":\"joe\",\"aud\":\"us\",\"exp\":1790000200,\"{name}\":{value}}}");
        mint.claims(&claims, expected);
    };
    let text = |text: &str| Wanted::Text(text.into());
    check("\"crm\"", text("crm"), "azp", true);
    check("\"CRM\"", text("crm"), "azp", false);
    check("\"crm \"", text("crm"), "azp", false);
    check("\"a crm b\"", text("crm"), "azp", false);
    check("[\"a\",\"crm\"]", text("crm"), "roles", true);
    check("[\"a\",\"crm2\"]", text("crm"), "roles", false);
    check("[[\"crm\"]]", text("crm"), "roles", false);
    check("{\"crm\":true}", text("crm"), "roles", false);
    check("[]", text("crm"), "roles", false);
    check("\"a crm b\"", text("crm"), "scope", true);
    check("\"a crm b\"", text("crm"), "scp", true);
    check("\"crm\"", text("crm"), "scope", true);
    check("\"a\\tcrm\"", text("crm"), "scope", false);
    check("\"acrm b\"", text("crm"), "scope", false);
    check("[\"crm\"]", text("crm"), "scp", true);
    check("[\"a crm\"]", text("crm"), "scp", false);
    check("1", Wanted::Integer(1), "ver", true);
    check("1.0", Wanted::Integer(1), "ver", false);
    check("\"1\"", Wanted::Integer(1), "ver", false);
    check("1", text("1"), "ver", false);
    check(
        "9007199254740993",
        Wanted::Integer(9_007_199_254_740_992),
        "n",
        false,
    );
    check("true", Wanted::Flag(true), "email_verified", true);
    check("\"true\"", Wanted::Flag(true), "email_verified", false);
    check("1", Wanted::Flag(true), "email_verified", false);
    check("false", Wanted::Flag(true), "email_verified", false);
    check("null", Wanted::Flag(false), "email_verified", false);
    // A file that says which typ it wants has the last word.
    check("\"Special\"", text("Special"), "typ", true);
}
