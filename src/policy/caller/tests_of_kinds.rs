//! Every kind of credential, alone and beside every other, on routes that know it and that do not.

use super::super::peer::{Peer, Secured};
use super::super::proof::Proof;
use super::super::request::tests::{fields, request};
use super::basic::PasswordHash;
use super::basic::tests::HASH;
use super::certificate::{Certificate, Standing};
use super::hmac::presets::preset;
use super::jwt::{Algorithm, KeySource};
use super::tests::acting;
use super::*;
use crate::policy::acts_as::ActsAs;
use crate::signing::{Secret, User, UserEncoding};

const OUT_OF_DATE: Standing = Standing::OutOfDate { is_vouched: true };

/// The kinds, as bits of what a request presents and of what a route's callers present.
const KEY: u8 = 1;
const BASIC: u8 = 2;
const TOKEN: u8 = 4;
const SIGNATURE: u8 = 8;
const CERTIFICATE: u8 = 16;

/// `b64("basic:canary")`.
const PAIR: &str = "Basic YmFzaWM6Y2FuYXJ5";
const JWT: &str = "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
const SIGNED: (&str, &str) = ("x-shopify-hmac-sha256", "AA==");

fn credential(kind: u8) -> Option<Credential> {
    Some(match kind {
        KEY => Credential::ApiKeys(vec![KeyDigest::of(b"key")]),
        BASIC => Credential::Basic(Basic {
            user_name: "basic".into(),
            passwords: vec![PasswordHash::parse(HASH).unwrap()].into(),
        }),
        TOKEN => Credential::Jwt(TokenRules {
            issuer: Arc::new(Issuer {
                name: "https://issuer.example/".into(),
                keys: KeySource::Files(vec!["keys.json".into()]),
                ca: None,
            }),
            algorithms: Algorithm::ALL.to_vec(),
            audiences: vec!["countersign".into()],
            required_claims: Vec::new(),
        }),
        SIGNATURE => {
            let secret = Secret::new("canary-canary-canary".to_owned());
            Credential::Signature(Scheme::new(preset("shopify").unwrap(), &[secret]).unwrap())
        }
        _ => return None,
    })
}

fn dns(name: &str) -> CertificateRule {
    CertificateRule::DnsName(name.into())
}

fn name_of(kind: u8) -> &'static str {
    match kind {
        KEY => "key",
        BASIC => "basic",
        TOKEN => "token",
        SIGNATURE => "signature",
        _ => "certificate",
    }
}

/// One caller of each of these kinds.
fn callers(kinds: u8) -> Callers {
    let all = [KEY, BASIC, TOKEN, SIGNATURE, CERTIFICATE];
    let all = all.into_iter().filter(|kind| kinds & kind != 0);
    let all = all.map(|kind| {
        let rule = (kind == CERTIFICATE).then(|| dns("desk.example.com"));
        acting(name_of(kind), credential(kind), rule)
    });
    Callers::new(all.collect())
}

fn certificate(names: &[&str], standing: Standing) -> Certificate {
    Certificate {
        dns_names: names.iter().map(|name| Box::from(*name)).collect(),
        uris: vec!["spiffe://example.com/desk".into()],
        spki_sha256: [7; 32],
        standing,
    }
}

/// Who it is, or what must be known first, with a proof that takes every password.
fn outcome(
    callers: &Callers,
    headers: &[(&str, &str)],
    certificate: Option<Certificate>,
) -> Result<String, Refusal> {
    let mut peer = Peer::plain([192, 0, 2, 7].into());
    peer.tls = Some(Secured {
        certificate: certificate.map(Arc::new),
        ..Secured::default()
    });
    let proof = Proof {
        password_is_right: Some(true),
        ..Proof::default()
    };
    let fields = fields(headers);
    let request = Request {
        peer: &peer,
        proof: &proof,
        ..request("GET", "/", &fields)
    };
    match callers.identify(&request) {
        Ok(Identified::Caller(acting, _) | Identified::Signed(acting, _)) => {
            Ok(acting.caller.name.to_string())
        }
        Ok(Identified::Needs(need)) => Ok(format!("needs {need:?}")),
        Err(rejected) => Err(rejected.refusal),
    }
}

/// What a request that presents these kinds gets where callers of those kinds are listed, each of its
/// credentials being right, but for the signature.
fn expected(presented: u8, known: u8) -> Result<String, Refusal> {
    let in_message = presented & (KEY | BASIC | TOKEN);
    // Keys and tokens come in the same header.
    let bearers = if known & (KEY | TOKEN) == 0 {
        0
    } else {
        KEY | TOKEN
    };
    let is_taken = in_message & (bearers | known & BASIC) != 0;
    let is_signed = presented & known & SIGNATURE != 0;
    let is_certified = presented & known & CERTIFICATE != 0;
    let of = |kind: u8| Ok(name_of(kind).to_owned());
    match in_message {
        _ if in_message.count_ones() > 1 => Err(Refusal::AmbiguousCredential),
        _ if is_signed && is_taken => Err(Refusal::AmbiguousCredential),
        _ if is_signed => Err(Refusal::CredentialUnknown),
        0 if is_certified => of(CERTIFICATE),
        // A certificate that is nobody's, where certificates count for nothing, is no credential.
        0 => Err(Refusal::CredentialMissing),
        _ if !is_taken && is_certified => of(CERTIFICATE),
        TOKEN if known & TOKEN != 0 => Ok("needs Token".to_owned()),
        kind if kind & known == 0 => Err(Refusal::CredentialUnknown),
        _ if is_certified => Err(Refusal::AmbiguousCredential),
        kind => of(kind),
    }
}

#[test]
fn every_set_of_credentials_on_every_kind_of_route() {
    for presented in 0..32_u8 {
        let mut headers = Vec::new();
        for (kind, header) in [
            (KEY, ("x-api-key", "key")),
            (BASIC, ("authorization", PAIR)),
            (TOKEN, ("authorization", JWT)),
            (SIGNATURE, SIGNED),
        ] {
            if presented & kind != 0 {
                headers.push(header);
            }
        }
        let certificate = (presented & CERTIFICATE != 0)
            .then(|| certificate(&["desk.example.com"], Standing::Vouched));
        for known in 0..32_u8 {
            let seen = outcome(&callers(known), &headers, certificate.clone());
            let expected = expected(presented, known);
            assert_eq!(
                seen, expected,
                "{headers:?}, {certificate:?} where {known:05b}"
            );
        }
    }
}

#[test]
fn certificates_of_every_standing() {
    let spki = CertificateRule::Spki([7; 32]);
    let uri = |uri: &str| CertificateRule::Uri(uri.into());
    let check = |rule: &CertificateRule, names: &[&str], standing, expected| {
        let callers = Callers::new(vec![acting("desk", None, Some(rule.clone()))]);
        let seen = outcome(&callers, &[], Some(certificate(names, standing)));
        assert_eq!(seen, expected, "{rule:?} by {names:?} {standing:?}");
    };
    let desk = || Ok("desk".to_owned());
    let name = dns("desk.example.com");
    let names = &["desk.example.com"][..];
    let unknown = Err(Refusal::CredentialUnknown);
    for rule in [&name, &spki, &uri("spiffe://example.com/desk")] {
        check(rule, names, Standing::Vouched, desk());
        check(rule, names, OUT_OF_DATE, Err(Refusal::CredentialExpired));
    }
    check(&name, names, Standing::Unknown, unknown.clone());
    // Anybody can make one whose time is over, with any name.
    let forged = Standing::OutOfDate { is_vouched: false };
    let expired = Err(Refusal::CredentialExpired);
    check(&name, names, forged, unknown.clone());
    check(&spki, names, forged, expired);
    let of_uri = uri("spiffe://example.com/desk");
    check(&of_uri, names, Standing::Unknown, unknown.clone());
    check(&spki, &[], Standing::Unknown, desk());
    for names in [
        &[][..],
        &["*.example.com"],
        &["example.com"],
        &["desk.example.com.evil.test"],
        &["xdesk.example.com"],
        &["desk.example.com\0.evil.test"],
        &["*"],
    ] {
        check(&name, names, Standing::Vouched, unknown.clone());
    }
    for other in ["spiffe://example.com/desk/", "spiffe://example.com", ""] {
        check(&uri(other), &[], Standing::Vouched, unknown.clone());
    }
    let other_key = CertificateRule::Spki([8; 32]);
    check(&other_key, names, Standing::Vouched, unknown);
}

#[test]
fn a_certificate_of_two_callers_is_neither_s() {
    let both = || certificate(&["a.example.com", "b.example.com"], Standing::Vouched);
    let a = || acting("a", None, Some(dns("a.example.com")));
    let b = || acting("b", None, Some(dns("b.example.com")));
    let key = || acting("key", credential(KEY), None);
    let with_key = &[("x-api-key", "key")][..];
    let ambiguous = Err(Refusal::AmbiguousCredential);
    let callers = Callers::new(vec![a(), b(), key()]);
    assert_eq!(outcome(&callers, &[], Some(both())), ambiguous);
    assert_eq!(outcome(&callers, with_key, Some(both())), ambiguous);
    assert_eq!(outcome(&callers, with_key, None), Ok("key".to_owned()));
    // Who must present more than that is not meant where there is no more.
    let with_more = acting("b", credential(BASIC), Some(dns("b.example.com")));
    let callers = Callers::new(vec![a(), with_more]);
    assert_eq!(outcome(&callers, &[], Some(both())), Ok("a".to_owned()));
    let basic = &[("authorization", PAIR)][..];
    assert_eq!(outcome(&callers, basic, Some(both())), Ok("b".to_owned()));
}

#[test]
fn who_must_present_both_presents_both() {
    let both = |kind| acting("both", credential(kind), Some(dns("desk.example.com")));
    let good = || Some(certificate(&["desk.example.com"], Standing::Vouched));
    for (kind, header) in [
        (KEY, ("x-api-key", "key")),
        (BASIC, ("authorization", PAIR)),
    ] {
        let callers = Callers::new(vec![both(kind), acting("other", None, Some(dns("x.test")))]);
        let check = |headers: &[(&str, &str)], certificate, expected: Result<&str, Refusal>| {
            let seen = outcome(&callers, headers, certificate);
            assert_eq!(seen, expected.map(str::to_owned), "{headers:?}");
        };
        let missing = Err(Refusal::CredentialMissing);
        let unknown = Err(Refusal::CredentialUnknown);
        check(&[header], good(), Ok("both"));
        check(&[header], None, missing);
        check(&[], good(), missing);
        check(&[], None, missing);
        let of = |names: &[&str], standing| Some(certificate(names, standing));
        check(
            &[header],
            of(&["*.example.com"], Standing::Vouched),
            unknown,
        );
        check(
            &[header],
            of(&["desk.example.com"], Standing::Unknown),
            unknown,
        );
        let old = of(&["desk.example.com"], OUT_OF_DATE);
        check(&[header], old, Err(Refusal::CredentialExpired));
        let ambiguous = Err(Refusal::AmbiguousCredential);
        check(&[header], of(&["x.test"], Standing::Vouched), ambiguous);
        check(&[header], of(&["y.test"], Standing::Vouched), unknown);
        check(&[("x-api-key", "wrong")], good(), unknown);
        check(&[header, header], good(), Err(Refusal::AmbiguousCredential));
    }
}

#[test]
fn one_certificate_beside_the_keys_of_two() {
    let of = |name: &str, key: &str| {
        let keys = Credential::ApiKeys(vec![KeyDigest::of(key.as_bytes())]);
        acting(name, Some(keys), Some(dns("org.example.com")))
    };
    let callers = Callers::new(vec![of("a", "key-a"), of("b", "key-b")]);
    for (key, name) in [("key-a", "a"), ("key-b", "b")] {
        let certificate = certificate(&["org.example.com"], Standing::Vouched);
        let seen = outcome(&callers, &[("x-api-key", key)], Some(certificate));
        assert_eq!(seen, Ok(name.to_owned()));
    }
}

#[test]
fn an_unknown_user_name_takes_as_long_as_a_known_one() {
    let callers = callers(BASIC | KEY);
    let needs = |user_name: &str, password_is_right| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user_name}:x"));
        let value = format!("Basic {pair}");
        let fields = fields(&[("authorization", &value)]);
        let proof = Proof {
            password_is_right,
            ..Proof::default()
        };
        let request = Request {
            proof: &proof,
            ..request("GET", "/", &fields)
        };
        match callers.identify(&request) {
            Ok(Identified::Needs(Need::Password {
                hashes, is_known, ..
            })) => Ok((hashes.len(), is_known)),
            Ok(other) => panic!("{other:?}"),
            Err(rejected) => Err(rejected.refusal),
        }
    };
    assert_eq!(needs("basic", None), Ok((1, true)));
    for name in ["nobody", "", "Basic", "basic ", "b\u{e4}sic"] {
        assert_eq!(needs(name, None), Ok((1, false)), "{name}");
        let unknown = Err(Refusal::CredentialUnknown);
        assert_eq!(needs(name, Some(false)), unknown, "{name}");
        // Even if its password is that of whoever stands in.
        assert_eq!(needs(name, Some(true)), unknown, "{name}");
    }
    assert_eq!(needs("basic", Some(false)), Err(Refusal::CredentialUnknown));
}

#[test]
fn only_from_the_addresses_it_may_call_from() {
    let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap());
    let caller = Caller {
        name: "desk".into(),
        credential: credential(KEY),
        certificate: None,
        allowed_addresses: Some(Networks::new(networks.to_vec())),
    };
    let callers = Callers::new(vec![ActingCaller {
        caller: Arc::new(caller),
        acts_as: ActsAs::Fixed(User::parse("1", UserEncoding::Plain).unwrap()),
    }]);
    let check = |address: &str, key: &str, expected: Result<&str, Refusal>| {
        let peer = Peer::plain(address.parse().unwrap());
        let fields = fields(&[("x-api-key", key)]);
        let request = Request {
            peer: &peer,
            client: peer.client(&fields),
            ..request("GET", "/", &fields)
        };
        let seen = match callers.identify(&request) {
            Ok(Identified::Caller(acting, _) | Identified::Signed(acting, _)) => {
                Ok(&*acting.caller.name)
            }
            Ok(Identified::Needs(need)) => panic!("{need:?}"),
            Err(rejected) => Err(rejected.refusal),
        };
        assert_eq!(seen, expected, "{address} {key}");
    };
    let elsewhere = Err(Refusal::AddressNotAllowed);
    check("192.0.2.255", "key", Ok("desk"));
    check("::ffff:192.0.2.1", "key", Ok("desk"));
    check("2001:db8:1::7", "key", Ok("desk"));
    check("192.0.3.0", "key", elsewhere);
    check("::ffff:192.0.3.1", "key", elsewhere);
    check("::192.0.2.1", "key", elsewhere);
    check("2001:db9::7", "key", elsewhere);
    // Whoever holds no key is not told where it could be used.
    check("192.0.3.0", "wrong", Err(Refusal::CredentialUnknown));
}

/// One caller of each kind, of whom all but `basic` may call from elsewhere only.
fn far_callers() -> Callers {
    let elsewhere = Networks::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let far = |name: &str, kind, certificate| {
        let caller = Caller {
            name: name.into(),
            credential: credential(kind),
            certificate,
            allowed_addresses: Some(elsewhere.clone()),
        };
        ActingCaller {
            caller: Arc::new(caller),
            ..acting(name, None, None)
        }
    };
    Callers::new(vec![
        far("key", KEY, None),
        acting("basic", credential(BASIC), Some(dns("b.example"))),
        far("desk", 0, Some(dns("desk.example.com"))),
        far("signature", SIGNATURE, None),
    ])
}

#[test]
fn whose_credential_is_refused() {
    let callers = far_callers();
    let check = |header: Option<(&str, &str)>, right: bool, name: &str, expected| {
        let names = (!name.is_empty()).then_some(name);
        let presented = names.map(|name| certificate(&[name], Standing::Vouched));
        let mut peer = Peer::plain([192, 0, 2, 7].into());
        peer.tls = Some(Secured {
            certificate: presented.map(Arc::new),
            ..Secured::default()
        });
        let proof = Proof {
            password_is_right: Some(right),
            ..Proof::default()
        };
        let fields = fields(header.as_slice());
        let request = Request {
            peer: &peer,
            proof: &proof,
            ..request("GET", "/", &fields)
        };
        let rejected = callers.identify(&request).unwrap_err();
        let seen = (rejected.refusal, rejected.caller.as_deref());
        assert_eq!(seen, expected, "{header:?} {right} {name}");
    };
    let (missing, unknown) = (Refusal::CredentialMissing, Refusal::CredentialUnknown);
    let not_there = Refusal::AddressNotAllowed;
    let basic = Some(("authorization", PAIR));
    let key = Some(("x-api-key", "key"));
    check(key, true, "", (not_there, Some("key")));
    check(Some(("x-api-key", "yek")), true, "", (unknown, None));
    check(basic, true, "", (missing, Some("basic")));
    check(basic, true, "x.example", (unknown, Some("basic")));
    // A wrong password names nobody, whatever stands beside it.
    check(basic, false, "", (unknown, None));
    check(basic, false, "b.example", (unknown, None));
    check(None, true, "desk.example.com", (not_there, Some("desk")));
    check(None, true, "x.example", (unknown, None));
    check(None, true, "b.example", (missing, None));
    let both = (Refusal::AmbiguousCredential, None);
    check(key, true, "desk.example.com", both);
    check(Some(SIGNED), true, "", (unknown, None));
}
