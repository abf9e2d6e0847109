//! The headers that let an allowed page read an answer, and an answer's caches tell pages apart
//! (Fetch standard, CORS protocol).

use super::{Value, lists};
use crate::policy::cors::{Preflights, Sharing};

/// How long a browser may remember a preflight, in seconds: what Chromium caps it to.
const MAX_AGE_SECONDS: &str = "7200";

/// What a page may read beside the safelisted headers.
const EXPOSED: &str =
    "X-Deki-Session, ETag, Location, Retry-After, X-Request-Id, X-Countersign-Refusal";

const VARY_PREFLIGHT: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// Lets the page that `sharing` names read an answer, `more` headers included, and says that the answer
/// varies by origin unless one of `vary`, the values that are kept, says so already.
pub(super) fn share<'a, 'v>(
    sharing: &'a Sharing,
    more: &[Box<str>],
    mut vary: impl Iterator<Item = &'v [u8]>,
    set: &mut Vec<(&'static str, Value<'a>)>,
) {
    allow(sharing, set);
    if sharing.origin.is_some() {
        let exposed = if more.is_empty() {
            Value::Static(EXPOSED)
        } else {
            Value::Text(format!("{EXPOSED}, {}", more.join(", ")))
        };
        set.push(("Access-Control-Expose-Headers", exposed));
    }
    if !vary.any(|value| lists(value, "*") || lists(value, "origin")) {
        set.push(("Vary", Value::Static("Origin")));
    }
}

/// Answers a preflight of the page that `sharing` names.
pub(super) fn grant<'a>(
    preflights: &'a Preflights,
    sharing: &'a Sharing,
    set: &mut Vec<(&'static str, Value<'a>)>,
) {
    allow(sharing, set);
    let text = |text: &'a str| Value::Bytes(text.as_bytes());
    set.extend([
        ("Access-Control-Allow-Methods", text(&preflights.methods)),
        ("Access-Control-Allow-Headers", text(&preflights.headers)),
        ("Access-Control-Max-Age", Value::Static(MAX_AGE_SECONDS)),
        ("Vary", Value::Static(VARY_PREFLIGHT)),
    ]);
}

fn allow<'a>(sharing: &'a Sharing, set: &mut Vec<(&'static str, Value<'a>)>) {
    let Some(origin) = &sharing.origin else {
        return;
    };
    set.push((
        "Access-Control-Allow-Origin",
        Value::Bytes(origin.as_bytes()),
    ));
    if sharing.with_credentials {
        set.push(("Access-Control-Allow-Credentials", Value::Static("true")));
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::tests::set_lines;
    use super::*;

    fn sharing() -> Sharing {
        Sharing {
            origin: Some("https://crm.example.com".into()),
            with_credentials: true,
        }
    }

    fn shared(sharing: &Sharing, vary: &[&str]) -> Vec<String> {
        let mut set = Vec::new();
        share(sharing, &[], vary.iter().map(|v| v.as_bytes()), &mut set);
        set_lines(&set)
    }

    #[test]
    fn an_allowed_page_may_read() {
        let lines = shared(&sharing(), &["Accept"]);
        assert_eq!(
            lines[..2],
            [
                "Access-Control-Allow-Origin: https://crm.example.com",
                "Access-Control-Allow-Credentials: true"
            ]
        );
        assert!(lines[2].starts_with("Access-Control-Expose-Headers: X-Deki-Session"));
        assert_eq!(lines[3..], ["Vary: Origin"]);
        let (page, mut set) = (sharing(), Vec::new());
        let more = ["x-a".into(), "link".into()];
        share(&page, &more, std::iter::empty(), &mut set);
        let exposed = format!("Access-Control-Expose-Headers: {EXPOSED}, x-a, link");
        assert_eq!(set_lines(&set)[2], exposed);
        let without = Sharing {
            with_credentials: false,
            ..sharing()
        };
        assert_eq!(shared(&without, &[]).len(), 3, "no credentials");
    }

    #[test]
    fn nobody_is_told_nothing_but_vary() {
        let check = |vary: &[&str], expected: &[&str]| {
            assert_eq!(shared(&Sharing::default(), vary), expected, "{vary:?}");
        };
        check(&[], &["Vary: Origin"]);
        check(&["origins"], &["Vary: Origin"]);
        check(&["accept, origin"], &[]);
        check(&["accept", "ORIGIN"], &[]);
        check(&["*"], &[]);
    }

    #[test]
    fn a_preflights_answer() {
        let preflights = Preflights::new(&[Method::GET, Method::POST], ["x-api-key"]);
        let sharing = sharing();
        let mut set = Vec::new();
        grant(&preflights, &sharing, &mut set);
        let lines = set_lines(&set);
        for line in [
            "Access-Control-Allow-Origin: https://crm.example.com",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Allow-Methods: GET, POST",
            "Access-Control-Max-Age: 7200",
            "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ] {
            assert!(lines.iter().any(|one| one == line), "{line}");
        }
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("Access-Control-Allow-Headers")
                    && line.ends_with("If-Range, x-api-key"))
        );
    }
}
