//! Every spelling that a generator can make of every endpoint that hands out credentials, on every
//! kind of route: none of them goes to the site, but where a route allows it by name.

use std::sync::LazyLock;

use countersign::policy::peer::Peer;
use countersign::policy::request::{Field, Request};
use countersign::policy::{Policy, Verdict};
use countersign::signing::Epoch;
use proptest::prelude::*;
use proptest::sample::select;

use crate::harness::{API_KEY, ROUTES, compile};

const ENDPOINTS: [&[&str]; 19] = [
    &["users", "authenticate"],
    &["users", "1", "password"],
    &["users", "=admin", "password"],
    &["users", "current", "password"],
    &["site", "developer-tokens"],
    &["site", "developer-tokens", "internal"],
    &["site", "services"],
    &["site", "services", "1", "proxy", "x"],
    &["site", "settings"],
    &["site", "bans", "1"],
    &["site", "export", "users"],
    &["host"],
    &["host", "stats"],
    &["license"],
    &["license", "transfer"],
    &["license", "key", "x"],
    &["site", "import", "x"],
    &["site", "jobs", "1", "archive"],
    &["site", "jobs", "1", "x", "y"],
];

/// A route of the file's own that allows whatever a wildcard takes stands beside the others.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let own = "  - { name: own, mount: /own, site: acme, token: server, callers: [crm], allow: [wild] }\n";
    let wild =
        "capabilities: { wild: { any: [\"**\", \"users/{key}\", \"{key}/{key}\", \"{key}\"] } }\n";
    let text = format!("{ROUTES}{own}{wild}");
    compile(&text, "127.0.0.1:8088".parse().unwrap())
        .unwrap()
        .policy
});

/// Ways to write one character, which some server takes for it.
fn spelling(character: char) -> BoxedStrategy<String> {
    let byte = character as u32;
    let encoded = |text: &str, depth: usize| -> String {
        let mut text = text.to_owned();
        for _ in 0..depth {
            text = text
                .bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                    byte => format!("%{byte:02X}"),
                })
                .collect();
        }
        text
    };
    let escape = format!("%{byte:02x}");
    let overlong = format!("%{:02x}%{:02x}", 0xc0 | byte >> 6, 0x80 | byte & 0x3f);
    let fullwidth = char::from_u32(byte + 0xfee0).unwrap().to_string();
    let mut all = vec![
        escape.clone(),
        encoded(&escape, 1),
        encoded(&escape, 2),
        encoded(&overlong, 1),
        encoded(&format!("%u{byte:04x}"), 1),
        encoded(&fullwidth, 1),
        encoded(&fullwidth, 2),
        encoded(&format!("{character}\u{200b}"), 1),
        encoded(&format!("{character}\u{301}"), 1),
    ];
    if let Some(folded) = match character {
        'i' => Some("\u{131}"),
        's' => Some("\u{17f}"),
        'k' => Some("\u{212a}"),
        _ => None,
    } {
        all.push(encoded(folded, 1));
        all.push(encoded(folded, 2));
    }
    let odd = select(all);
    let plain = Just(character.to_string());
    let upper = Just(character.to_ascii_uppercase().to_string());
    prop_oneof![6 => plain, 2 => upper, 1 => odd].boxed()
}

fn word(word: &str) -> BoxedStrategy<String> {
    let letters: Vec<_> = word.chars().map(spelling).collect();
    let after = prop_oneof![
        8 => Just(""),
        1 => select(vec![".", "..", ";x", "%3B", "%253Bx", "%2520", "+", "%252E", ".;a=b", "%E2%80%8B"]),
    ];
    (letters, after)
        .prop_map(|(letters, after)| letters.concat() + after)
        .boxed()
}

fn path(endpoint: &'static [&'static str]) -> BoxedStrategy<String> {
    let words: Vec<_> = endpoint.iter().map(|one| word(one)).collect();
    let slash =
        || prop_oneof![6 => Just("/"), 1 => select(vec!["%252F", "%255c", "%25252f", "%25u002f"])];
    let slashes = proptest::collection::vec(slash(), endpoint.len());
    let ending = prop_oneof![
        4 => Just(""),
        1 => select(vec!["/", "/x", "?redirect=x", "%253Fx", "%2523x", "%253Bx", "%252Fx", "?dream.in.verb=PUT", "?dream.out.format=json"]),
    ];
    (words, slashes, ending)
        .prop_map(|(words, slashes, ending)| {
            let mut path = String::new();
            for (word, slash) in words.iter().zip(slashes) {
                if !path.is_empty() {
                    path.push_str(slash);
                }
                path.push_str(word);
            }
            path + ending
        })
        .boxed()
}

fn decide(mount: &str, method: &str, path: &str) -> Verdict {
    let target = format!("{mount}/@api/deki/{path}");
    let credential = if mount == "/widget" {
        ("Origin", "https://crm.example.com")
    } else {
        ("X-Api-Key", API_KEY)
    };
    let fields = [("Host", "gw.example"), credential].map(|(name, value)| Field {
        name: name.as_bytes(),
        value: value.as_bytes(),
    });
    let peer = Peer::plain([192, 0, 2, 7].into());
    let request = Request::new(
        &peer,
        method.as_bytes(),
        target.as_bytes(),
        &fields,
        Epoch::from_unix(1_800_000_000),
    );
    POLICY.decide(&request).verdict
}

fn check(mount: &str, method: &str, path: &str) {
    if let Verdict::Forward(admission) = decide(mount, method, path) {
        let by_name = ["/mint", "/sessions"].contains(&mount);
        assert!(
            by_name && admission.mints,
            "{method} {mount} {path} is forwarded"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_spelling_of_a_minting_endpoint_goes_up(
        path in select(ENDPOINTS.to_vec()).prop_flat_map(path),
        mount in select(vec!["/crm", "/write", "/all", "/shared", "/widget", "/own", "/mint", "/sessions"]),
        method in select(vec!["GET", "POST", "PUT", "DELETE", "HEAD"]),
    ) {
        check(mount, method, &path);
    }
}

#[test]
fn the_plain_spellings_go_up_where_they_are_allowed() {
    for endpoint in ENDPOINTS {
        let path = endpoint.join("/");
        let verdict = decide("/mint", "GET", &path);
        assert!(
            matches!(verdict, Verdict::Forward(admission) if admission.mints),
            "{path}"
        );
    }
}
