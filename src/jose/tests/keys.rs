//! Sets of keys: what in them is used, and how it is found.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::KeyPair;

use super::Mint;
use crate::jose::key_set::SetFault;
use crate::jose::{KeySet, Unverified};
use crate::policy::caller::jwt::TokenFault;

fn jwks(keys: &[&str]) -> Result<KeySet, SetFault> {
    KeySet::read(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes())
}

const ED: &str =
    "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"";
/// Of RFC 7515 appendix A.3.
const EC: &str = "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"";

fn rsa(bytes: usize, e: &str) -> String {
    let n = URL_SAFE_NO_PAD.encode(vec![0xc3; bytes]);
    format!("\"kty\":\"RSA\",\"n\":\"{n}\",\"e\":\"{e}\"")
}

#[test]
fn keys_are_judged_one_by_one() {
    let check = |members: &str, is_used: bool| {
        let set = jwks(&[&format!("{{{members}}}")]);
        assert_eq!(set.is_ok(), is_used, "{members}: {set:?}");
        // Beside a good one, a bad one does no harm.
        let set = jwks(&[
            &format!("{{{members}}}"),
            &format!("{{{ED},\"kid\":\"good\"}}"),
        ]);
        assert_eq!(set.unwrap().len(), 1 + usize::from(is_used), "{members}");
    };
    let big = |bytes| rsa(bytes, "AQAB");
    for good in [
        ED,
        EC,
        &big(256),
        &big(512),
        &rsa(256, "Aw"),
        &format!("{ED},\"alg\":\"EdDSA\",\"use\":\"sig\",\"key_ops\":[\"verify\"]"),
        &format!("{ED},\"x5c\":[\"AA==\"],\"issuer\":\"https://x/{{tenantid}}\",\"ext\":true"),
        &format!("{EC},\"alg\":\"ES256\""),
        &format!("{},\"alg\":\"PS384\"", big(256)),
    ] {
        check(good, true);
    }
    let with = |key: &str, more: &str| format!("{key},{more}");
    for bad in [
        "",
        "\"kty\":\"RSA\"",
        &big(128),
        &big(255),
        &big(1025),
        &rsa(256, "AQ"),
        &rsa(256, "AA"),
        &rsa(256, ""),
        &rsa(256, "Ag"),
        &rsa(256, "AQABAQAB"),
        &rsa(256, "AQAB=="),
        &with(ED, "\"use\":\"enc\""),
        &with(ED, "\"use\":[\"sig\"]"),
        &with(ED, "\"key_ops\":[\"encrypt\"]"),
        &with(ED, "\"key_ops\":[]"),
        &with(ED, "\"key_ops\":\"verify\""),
        &with(ED, "\"alg\":\"ES256\""),
        &with(ED, "\"alg\":\"HS256\""),
        &with(ED, "\"alg\":\"none\""),
        &with(ED, "\"alg\":7"),
        &with(ED, "\"kid\":7"),
        &with(ED, "\"kid\":\"a\",\"kid\":\"b\""),
        &with(ED, "\"y\":{\"a\":1,\"a\":1}"),
        &with(EC, "\"alg\":\"ES384\""),
        &with(&big(256), "\"alg\":\"RSA-OAEP\""),
        &with(&big(256), "\"alg\":\"RSA1_5\""),
        &ED.replace("Ed25519", "X25519"),
        &ED.replace("Ed25519", "Ed448"),
        &ED.replace("URo\"", "\""),
        &ED.replace("11qY", "11q+"),
        &EC.replace("P-256", "P-384"),
        &EC.replace("P-256", "P-521"),
        &EC.replace("P-256", "secp256k1"),
        // Not on the curve, at infinity, too long.
        &EC.replace("x_FE", "x_FF"),
        &EC.replace("f83O", "f83P"),
        &EC.replace(
            "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"",
            "\"x\":\"\"",
        ),
        &EC.replace("f83O", "AAAAf83O"),
        // Secrets.
        &with(ED, "\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\""),
        &with(&big(256), "\"p\":\"AQ\""),
        &with(&big(256), "\"qi\":\"AQ\""),
        "\"kty\":\"oct\",\"k\":\"c2VjcmV0\"",
    ] {
        check(bad, false);
    }
    for (text, fault) in [
        ("", SetFault::Unreadable),
        ("{}", SetFault::Unreadable),
        ("[]", SetFault::Unreadable),
        ("null", SetFault::Unreadable),
        ("{\"keys\":{}}", SetFault::Unreadable),
        ("{\"keys\":[],\"keys\":[]}", SetFault::Unreadable),
        ("{\"keys\":[]", SetFault::Unreadable),
        ("<html>", SetFault::Unreadable),
        ("{\"keys\":[]}", SetFault::NoKey),
        ("{\"keys\":[1,null,\"x\",[]]}", SetFault::NoKey),
        (
            "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}",
            SetFault::OnlyPrivate,
        ),
        (
            "-----BEGIN X-----\nAAAA\n-----END X-----\n",
            SetFault::NoKey,
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            SetFault::NoKey,
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAA*A\n-----END PUBLIC KEY-----\n",
            SetFault::Unreadable,
        ),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", SetFault::Unreadable),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            SetFault::OnlyPrivate,
        ),
    ] {
        assert_eq!(KeySet::read(text.as_bytes()).err(), Some(fault), "{text}");
    }
}

#[test]
fn many_keys() {
    let key = |index: usize| {
        let n = [
            &[0xc3; 252][..],
            &u32::try_from(index).unwrap().to_be_bytes(),
        ]
        .concat();
        let n = URL_SAFE_NO_PAD.encode(n);
        format!("{{\"kty\":\"RSA\",\"n\":\"{n}\",\"e\":\"AQAB\",\"kid\":\"k{index}\"}}")
    };
    let list: Vec<String> = (0..10_000).map(key).collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let set = jwks(&list).unwrap();
    assert_eq!((set.len(), set.left_out.not_used), (1000, 9000));
    // Twice the same is one.
    let set = jwks(&[list[0], list[0], list[1]]).unwrap();
    assert_eq!(set.len(), 2);
    assert!(set.is_like(&jwks(&[list[1], list[0]]).unwrap()));
    assert!(!set.is_like(&jwks(&[list[0]]).unwrap()));
}

#[test]
fn a_key_is_found_by_its_very_name() {
    let mint = Mint::new();
    let x = URL_SAFE_NO_PAD.encode(mint.pair.public_key());
    let key = |id: &str| {
        format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\",\"kid\":\"{id}\"}}")
    };
    let other = format!("{{{ED},\"kid\":\"other\"}}");
    let check = |keys: &[&str], header: &str, expected: Result<(), (TokenFault, bool)>| {
        let set = jwks(keys).unwrap();
        let claims = b"{\"iss\":\"joe\",\"aud\":\"us\",\"exp\":1790000200}";
        let token = mint.sign(header.as_bytes(), claims);
        let signer = Unverified::read(&token).unwrap().signer(&set);
        let found = signer
            .map(drop)
            .map_err(|why| (why.fault, why.may_be_newer));
        assert_eq!(found, expected, "{header}");
    };
    let named = |id: &str| format!("{{\"alg\":\"EdDSA\",\"kid\":\"{id}\"}}");
    check(&[&key("a"), &other], &named("a"), Ok(()));
    check(&[&key("a"), &other], "{\"alg\":\"EdDSA\"}", Ok(()));
    let unknown = Err((TokenFault::KeyUnknown, true));
    for id in [
        "A",
        "a ",
        "",
        "other2",
        "../a",
        "a' or '1'='1",
        "a\\u0000",
        "%61",
    ] {
        check(&[&key("a"), &other], &named(id), unknown);
    }
    // Another one's key, whatever good ones there are.
    let wrong = Err((TokenFault::Signature, false));
    check(&[&key("a"), &other], &named("other"), wrong);
    // Two keys of one name, as some providers have it.
    check(
        &[&format!("{{{ED},\"kid\":\"a\"}}"), &key("a")],
        &named("a"),
        Ok(()),
    );
    // The name of a key of another algorithm.
    let ec = format!("{{{EC},\"kid\":\"ec\"}}");
    check(
        &[&key("a"), &ec],
        &named("ec"),
        Err((TokenFault::Algorithm, false)),
    );
    // One without a name can be any.
    check(
        &[&other],
        "{\"alg\":\"EdDSA\"}",
        Err((TokenFault::Signature, true)),
    );
}
