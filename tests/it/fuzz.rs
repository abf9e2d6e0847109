//! Whatever bytes come: the parsers that face strangers do not panic, and what they accept holds what
//! they promise.
//!
//! Each test is a fuzz target. `cargo test` runs it over the seeds in `__fuzz__/*/corpus` and a
//! thousand inputs made at random; `cargo install cargo-bolero && cargo bolero test fuzz::target
//! --test it` runs it for as long as you like. What a run finds is kept as a new seed.

use std::path::PathBuf;
use std::sync::LazyLock;

use countersign::config::reference::Sources;
use countersign::policy::Verdict;
use countersign::policy::message::{Request, target_of};
use countersign::policy::origin::{OriginPattern, Origins};
use countersign::policy::target::Target;
use countersign::proxy::framing::Framing;
use countersign::signing::{Epoch, Secret, examine};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::harness::{API_KEY, ROUTES, compile};

static POLICY: LazyLock<countersign::policy::Policy> = LazyLock::new(|| {
    compile(ROUTES, "127.0.0.1:8088".parse().unwrap())
        .unwrap()
        .policy
});

#[test]
fn target() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(target) = Target::parse(input, "gw.example") else {
            return;
        };
        let path = target.path();
        assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\\'));
        let whole = target.behind("");
        assert!(
            input.ends_with(whole.as_bytes()),
            "what goes on is what came"
        );
        for segment in target.segments() {
            assert!(!segment.is_empty() && segment != "." && segment != "..");
            assert!(
                !segment
                    .chars()
                    .any(|c| c == '/' || c == '\\' || c.is_control())
            );
        }
        assert_eq!(
            Target::parse(whole.as_bytes(), "other").map(|again| again.segments().to_vec()),
            Ok(target.segments().to_vec()),
            "it reads the same again"
        );
    });
}

#[test]
fn origin() {
    let allowed = "crm.example.com, *.apps.example.com, shop.example.com:8443, http://localhost:*";
    let origins = Origins::new(OriginPattern::parse_list(allowed).unwrap());
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        let mut headers = HeaderMap::new();
        headers.insert("origin", value);
        let seen = format!("{:?}", origins.check(&headers));
        if !seen.starts_with("Allowed") {
            return;
        }
        let text = std::str::from_utf8(input).expect("what is allowed is ASCII");
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let below = text
            .strip_prefix("https://")
            .and_then(|host| host.strip_suffix(".apps.example.com"));
        let local = text.strip_prefix("http://localhost").is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(':')
                    .is_some_and(|port| port.parse::<u16>().is_ok())
        });
        assert!(
            text == "https://crm.example.com"
                || text == "https://shop.example.com:8443"
                || local
                || below.is_some_and(|labels| labels.split('.').all(is_label)),
            "{text} is allowed"
        );
    });
}

#[test]
fn pattern() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let Ok(patterns) = OriginPattern::parse_list(text) else {
            return;
        };
        let origins = Origins::new(patterns);
        for stranger in ["https://stranger.test", "null", "https://com"] {
            let mut headers = HeaderMap::new();
            headers.insert("origin", HeaderValue::from_static(stranger));
            let seen = format!("{:?}", origins.check(&headers));
            assert!(
                !seen.starts_with("Allowed") || text.contains("stranger.test"),
                "{text:?} allows {stranger}"
            );
        }
    });
}

#[test]
fn configuration() {
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let sources = Sources {
            environment: &|_| Some("value".to_owned()),
            folder: PathBuf::new(),
        };
        if let Err(unusable) = countersign::config::load_text("x", text, &sources) {
            assert!(!unusable.problems.is_empty(), "there is a reason");
        }
    });
}

/// A header section as it would come over the wire, decided by the policy of the other tests.
#[test]
fn decision() {
    bolero::check!().for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let mut lines = text.split("\r\n");
        let request_line = lines.next().unwrap_or_default();
        let mut words = request_line.split(' ');
        let Ok(method) = words.next().unwrap_or_default().parse::<Method>() else {
            return;
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            // A seed cannot know the key.
            let value = value.replace("KEY", API_KEY);
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.append(name, value);
            }
        }
        let request = Request {
            method: &method,
            target: target_of(input),
            authority: None,
            headers: &headers,
            version: Version::HTTP_11,
            has_body: false,
            head: Some(input),
        };
        let decision = POLICY.decide(&request);
        if let Verdict::Forward(admission) = &decision.verdict {
            let route = &admission.route;
            assert!(admission.target.starts_with('/'));
            let target = admission.target.to_ascii_lowercase().replace("%40", "@");
            assert!(
                target.starts_with("/@api/deki/") || route.name.contains("all"),
                "{target}"
            );
            assert!(!target.contains("authtoken="), "{target}");
            assert!(decision.found.effective_method.is_some());
            assert!(!admission.mints || matches!(&*route.name, "minting" | "sessions"));
            if &*route.name == "widget" {
                assert_eq!(headers.get_all("origin").iter().count(), 1);
            }
        }
    });
}

/// The guard's reader agrees with itself, however the bytes are cut.
#[test]
fn framing() {
    bolero::check!().for_each(|input: &[u8]| {
        let mut whole = Framing::default();
        let good = whole.feed(input);
        let mut pieces = Framing::default();
        let mut passed = 0;
        for piece in input.chunks(3) {
            let count = pieces.feed(piece);
            passed += count;
            if count < piece.len() {
                break;
            }
        }
        assert_eq!(good, passed);
        assert_eq!(whole.is_broken(), good < input.len());
    });
}

#[test]
fn token() {
    let (key, secret) = (
        Secret::new("dacaffe7".to_owned()),
        Secret::new("5b703192".to_owned()),
    );
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let found = examine(text, &key, &secret, Epoch::from_unix(1_422_940_200));
        assert!(
            !found.is_accepted() || text.contains("5e"),
            "nobody guesses a signature: {text:?}"
        );
    });
}
