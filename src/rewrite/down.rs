//! What goes to a caller: the headers that are listed, if nothing in them is a credential.

use std::borrow::Cow;

use super::exception::holds_trace;
use super::refused_token::refuses_token;
use super::sharing::share;
use super::{Edits, Keep, Nominated, REQUEST_ID_HEADER, Value, location, names};
use crate::policy::cors::Sharing;
use crate::policy::escape::escape;
use crate::policy::request::{Field, all};
use crate::policy::site::Site;
use crate::policy::{Admission, Refusal};

/// The head of a site's answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The header fields, in the order they came.
    pub fields: &'a [Field<'a>],
}

/// The answer that goes to the caller for one of the site's.
///
/// What frames it is the relay's: `set` never says it, `keep` never holds it.
///
/// # Errors
/// Those of [`judge_head`].
pub fn down<'a>(
    answer: &Answer<'a>,
    admission: &'a Admission,
    sharing: &'a Sharing,
    request_id: &'a str,
) -> Result<Edits<'a>, Refusal> {
    judge_head(answer)?;
    let mut edits = Edits {
        keep: Keep::default(),
        set: Vec::with_capacity(8),
    };
    if withholds_body(admission) {
        // Any header may hold what the body would.
        edits.set.push(("Cache-Control", Value::Static("no-store")));
    } else {
        keep(answer, admission, &mut edits);
        if !admission.route.is_for_browsers() {
            keep_private(answer, &mut edits);
        }
    }
    let kept = edits.keep;
    let more = &admission.route.answer_headers;
    let vary = values_kept(answer, kept, "vary");
    share(sharing, more, vary, &mut edits.set);
    edits
        .set
        .push((REQUEST_ID_HEADER, Value::Bytes(request_id.as_bytes())));
    Ok(edits)
}

/// Whether the body of the answer holds a credential that the route does not hand on.
pub fn withholds_body(admission: &Admission) -> bool {
    admission.mints && !admission.route.return_sessions
}

/// Whether an answer may be passed on, as far as its head tells.
///
/// # Errors
/// [`Refusal::SiteInvalidAnswer`] for a protocol switch nobody asked for, and for an exception.
pub fn judge_head(answer: &Answer<'_>) -> Result<(), Refusal> {
    if answer.status == 101 || all(answer.fields, "content-type").any(is_of_exception) {
        return Err(Refusal::SiteInvalidAnswer);
    }
    Ok(())
}

/// Whether an answer may be passed on that says that something went wrong and begins like this, in any
/// of the ways it may be read.
///
/// # Errors
/// [`Refusal::SiteRefusedToken`] for the site's word that our own token is not good, and
/// [`Refusal::SiteInvalidAnswer`] for a stack trace.
pub fn judge_error(status: u16, readings: &[Cow<'_, [u8]>]) -> Result<(), Refusal> {
    let any = |says: fn(&[u8]) -> bool| readings.iter().any(|reading| says(reading));
    // The vendor does not say which of the two it is.
    if matches!(status, 401 | 403) && any(refuses_token) {
        return Err(Refusal::SiteRefusedToken);
    }
    if any(holds_trace) {
        return Err(Refusal::SiteInvalidAnswer);
    }
    Ok(())
}

/// Whether a media type, or one of several, is that of Dream's exceptions
/// (`application/x-dream-exception+xml`). No other has these words in it, so where they stand is left
/// open: readers differ in what they take of a list.
fn is_of_exception(media_type: &[u8]) -> bool {
    const SUBTYPE: &[u8] = b"x-dream-exception";
    media_type
        .windows(SUBTYPE.len())
        .any(|part| part.eq_ignore_ascii_case(SUBTYPE))
}

fn keep<'a>(answer: &Answer<'a>, admission: &'a Admission, edits: &mut Edits<'a>) {
    let route = &*admission.route;
    let nominated = Nominated::by(answer.fields);
    for (index, field) in answer.fields.iter().enumerate() {
        let is_listed = goes_down(field.name, answer.status)
            || route.answer_headers.iter().any(|name| field.is(name));
        if !is_listed || nominated.has(field.name) || !may_be_read(field.value, &route.site) {
            continue;
        }
        if !field.is("location") {
            edits.keep.insert(index);
        } else if let Some(target) = location::within_api(field.value, &route.site.address) {
            let mount = route.mount.as_str().as_bytes();
            edits.set.push(("Location", Value::Joined(mount, target)));
        } else if !location::names_somebody(field.value) {
            edits.keep.insert(index);
        }
    }
}

/// Adds `Cache-Control: private` to what is kept, unless that is as strict already. What is made for
/// one user must not stand in a cache that others share (RFC 9111 section 5.2.2.7).
fn keep_private(answer: &Answer<'_>, edits: &mut Edits<'_>) {
    let mut is_private = false;
    let mut keep = Keep::default();
    for (index, field) in answer.fields.iter().enumerate() {
        if !edits.keep.contains(index) {
            continue;
        }
        if field.is("cache-control") {
            // `private="field"` is about that field only.
            is_private |=
                super::lists(field.value, "private") | super::lists(field.value, "no-store");
            if super::lists(field.value, "public") {
                continue;
            }
        }
        keep.insert(index);
    }
    edits.keep = keep;
    if !is_private {
        edits.set.push(("Cache-Control", Value::Static("private")));
    }
}

fn goes_down(name: &[u8], status: u16) -> bool {
    const CONTENT: &[u8] = b"content-";
    let (start, rest) = name.split_at_checked(CONTENT.len()).unwrap_or_default();
    let is_content = start.eq_ignore_ascii_case(CONTENT)
        && !rest.is_empty()
        && !rest.eq_ignore_ascii_case(b"length")
        && rest
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    match status {
        304 => names::DOWNWARD_OF_304.has(name),
        // Without content there is nothing to say of it, but where it is.
        204 if is_content => rest.eq_ignore_ascii_case(b"location"),
        _ => is_content || names::DOWNWARD.has(name),
    }
}

/// Whether a value may be shown to a caller: no control bytes, no credential. Bytes outside ASCII
/// stay as they are: file names come so.
fn may_be_read(value: &[u8], site: &Site) -> bool {
    // To the end even where it could stop: so it looks at many bytes at once.
    let odd = |byte: &u8| (*byte < b' ') & (*byte != b'\t') | (*byte == 0x7f);
    let is_text = !value.iter().fold(false, |found, byte| found | odd(byte));
    let shows = |reading: &[u8]| site.holds_token_key(reading) || names_a_session(reading);
    is_text && !in_any_reading(value, shows)
}

/// Whether something is so of a value, or of what is left when its escapes are taken off, again and
/// again. A value with more layers of them than anybody needs counts as if it were so.
fn in_any_reading(value: &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    const LAYERS_MAX: usize = 8;
    if is(value) {
        return true;
    }
    let mut reading = Cow::Borrowed(value);
    for _ in 0..LAYERS_MAX {
        match without_escapes(&reading) {
            None => return false,
            Some(plainer) if is(&plainer) => return true,
            Some(plainer) => reading = Cow::Owned(plainer),
        }
    }
    true
}

/// A value without one layer of what is written `%41`, `%u0041` and `\A` (RFC 9110 section 5.6.4);
/// `None` if there is none.
fn without_escapes(value: &[u8]) -> Option<Vec<u8>> {
    let first = memchr::memchr2(b'%', b'\\', value)?;
    let mut plain = value[..first].to_vec();
    let mut rest = &value[first..];
    while let Some(byte) = rest.first() {
        let (letter, length) = match byte {
            // A letter beyond is part of no name that is looked for.
            b'%' => escape(rest).map_or((b'%', 1), |(letter, length)| {
                (u8::try_from(letter).unwrap_or(b'?'), length)
            }),
            b'\\' if rest.len() > 1 => (rest[1], 2),
            other => (*other, 1),
        };
        plain.push(letter);
        rest = &rest[length..];
    }
    (plain.len() < value.len()).then_some(plain)
}

/// Whether a value sets or passes on the cookie of a session, or a token in a parameter.
fn names_a_session(value: &[u8]) -> bool {
    const NAMES: [&[u8]; 4] = [
        b"authtoken",
        b"dekisession",
        b"service-key",
        b"x-deki-token",
    ];
    memchr::memchr2_iter(b'=', b':', value).any(|sign| {
        let is_part = |byte: &u8| *byte > b' ' && !b"\"'".contains(byte);
        let end = value[..sign]
            .iter()
            .rposition(is_part)
            .map_or(0, |last| last + 1);
        NAMES.iter().any(|name| {
            let start = end.checked_sub(name.len());
            start.is_some_and(|start| value[start..end].eq_ignore_ascii_case(name))
        })
    })
}

fn values_kept<'a>(
    answer: &Answer<'a>,
    kept: Keep,
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let fields = answer.fields.iter().enumerate();
    fields
        .filter(move |(index, field)| kept.contains(*index) && field.is(name))
        .map(|(_, field)| field.value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::lines;
    use super::*;
    use crate::policy::Identity;
    use crate::policy::method::EffectiveMethod;
    use crate::policy::request::tests::fields;
    use crate::policy::route::Route;
    use crate::policy::tests::{BROWSER_KEY, TOKEN_KEY, route, widget};

    fn admission(route: Route) -> Admission {
        Admission {
            route: Arc::new(route),
            identity: Identity::Page,
            method: EffectiveMethod::of(b"GET", None, None).unwrap(),
            target_from: 0,
            mints: false,
            signed: None,
        }
    }

    /// What goes down on a route of pages, without what is set on every answer.
    fn kept(status: u16, sent: &[(&str, &str)]) -> Result<Vec<String>, Refusal> {
        let fields = fields(sent);
        let answer = Answer {
            status,
            fields: &fields,
        };
        let admission = admission(widget());
        let sharing = Sharing::default();
        let edits = down(&answer, &admission, &sharing, "00ff")?;
        let mut lines = lines(&fields, &edits);
        assert_eq!(lines.pop().as_deref(), Some("X-Request-Id: 00ff"));
        if lines.last().is_some_and(|line| line == "Vary: Origin") {
            lines.pop();
        }
        Ok(lines)
    }

    fn check(sent: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(kept(200, sent).unwrap(), expected, "{sent:?}");
    }

    #[test]
    fn sessions_and_software_go_down_to_nobody() {
        for name in [
            "Set-Cookie",
            "Set-Cookie2",
            "WWW-Authenticate",
            "X-Deki-Token",
            "X_Deki_Session",
            "X.Deki.Session",
            "X-Authtoken",
            "X-Deki-Site",
            "X-Dream-Transport",
            "X-Data-Stats",
            "X-Deki-DB-Calls",
            "X-Amzn-Oidc-Identity",
            "P3P",
            "Server",
            "X-Powered-By",
            "Access-Control-Allow-Origin",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Upgrade",
            "Trailer",
            "TE",
            "Connection",
            "Alt-Svc",
            "X-Request-Id",
            "X-Countersign-Refusal",
            "Content-Length",
            "content_length",
            "Content-",
            "Transfer-Encoding",
            "Refresh",
            "X-Anything",
        ] {
            check(&[(name, "x")], &[]);
        }
    }

    #[test]
    fn what_callers_need_stays() {
        for name in [
            "Content-Type",
            "content-disposition",
            "Content-Encoding",
            "Content-Range",
            "Content-Security-Policy",
            "ETag",
            "Last-Modified",
            "Date",
            "Expires",
            "Age",
            "Cache-Control",
            "Accept-Ranges",
            "Allow",
            "Retry-After",
            "Location",
            "Via",
            "X-Content-Type-Options",
            "Referrer-Policy",
            "X-Deki-Session",
        ] {
            check(&[(name, "x")], &[&format!("{name}: x")]);
        }
        let name = "Content-Disposition: attachment; filename=J\u{f6}rg";
        check(&[("Content-Disposition", &name[21..])], &[name]);
        check(&[("Vary", "Accept, Origin")], &["Vary: Accept, Origin"]);
    }

    #[test]
    fn what_connection_names_goes() {
        let sent = [
            ("Connection", "close, ETag,Content-Type"),
            ("ETag", "1"),
            ("content-type", "x"),
            ("Date", "2"),
        ];
        check(&sent, &["Date: 2"]);
    }

    #[test]
    fn values_that_hold_a_credential_go() {
        for value in [
            TOKEN_KEY,
            BROWSER_KEY,
            &format!("\"tkn_{TOKEN_KEY}_1_=x_00\""),
            &format!("https://files.example/x?{BROWSER_KEY}"),
            "authtoken=1",
            "x; AuthToken=\"1\"",
            &TOKEN_KEY.to_uppercase(),
            &TOKEN_KEY.replacen('a', "%61", 2),
            &TOKEN_KEY.replacen('a', "%2561", 1),
            &TOKEN_KEY.replacen('c', "\\c", 1),
            &format!("x%u00{:02x}{}", TOKEN_KEY.as_bytes()[0], &TOKEN_KEY[1..]),
            &escaped_whole(&format!("tkn_{BROWSER_KEY}_1")),
            "AUTHTOKEN=1",
            "%61uthtoken=1",
            "authtoken%3D1",
            "authtoken%3d",
            "%25%36%31uthtoken%253D1",
            "/x?redirect=https%3A%2F%2Fa.test%2F%3Fauthtoken%253D1",
            "a=b; authtoken = 1",
            "{\"authtoken\":\"1\"}",
            "attachment; filename=\"auth\\token=1\"",
            "attachment; filename*=UTF-8''authtoken%3D1",
            "dekisession=1",
            "DekiSession%3D1",
            "/x?x-deki-token=other",
            "%2525252525252525252541",
            "a\u{0}b",
            "a\u{7f}",
            "a\nb",
        ] {
            check(
                &[("ETag", value), ("Location", value), ("Content-X", value)],
                &[],
            );
        }
        for value in [
            "authtoken",
            "token=authtoken",
            "=",
            "uthtoken=1",
            "authtokens=1",
            "authtoken; a=b",
            "authtoken%20a=b",
            "%",
            "%4",
            "%+f%zz%u00",
            "\\",
            "100%25 %41",
            "%252525252541",
            &TOKEN_KEY[1..],
            "https://b.s3.amazonaws.com/a%2Bb?X-Amz-Credential=A%2F1&X-Amz-Security-Token=x&X-Amz-Signature=0",
            "https://d1.cloudfront.net/a?Policy=e_&Signature=a~b&Key-Pair-Id=K",
        ] {
            check(&[("ETag", value)], &[&format!("ETag: {value}")]);
        }
        let ours = format!("https://acme.mindtouch.us/@api/deki/x?authtoken={TOKEN_KEY}");
        check(&[("Location", &ours)], &[]);
    }

    fn escaped_whole(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    #[test]
    fn a_place_that_names_somebody_is_no_place_to_go() {
        check(&[("Location", "https://u:p@files.example/x")], &[]);
        check(
            &[("Content-Location", "https://u:p@files.example/x")],
            &["Content-Location: https://u:p@files.example/x"],
        );
    }

    #[test]
    fn routes_name_more() {
        let sent = [
            ("Link", "</a>"),
            ("X-Data-Stats", "1"),
            ("X_Data_Stats", "2"),
            ("X-Data-Stats", "authtoken=1"),
            ("Connection", "Link"),
            ("P3P", "x"),
        ];
        let fields = fields(&sent);
        for status in [200, 304, 404] {
            let answer = Answer {
                status,
                fields: &fields,
            };
            let mut admission = admission(Route {
                answer_headers: vec!["x-data-stats".into(), "link".into()],
                ..widget()
            });
            let sharing = Sharing {
                origin: Some("https://crm.example.com".into()),
                with_credentials: true,
            };
            let lines = |admission: &Admission| {
                let edits = down(&answer, admission, &sharing, "00ff").unwrap();
                lines(&fields, &edits)
            };
            let told = lines(&admission);
            assert_eq!(told[0], "X-Data-Stats: 1");
            assert!(
                told[1].starts_with("Access-Control-Allow-Origin"),
                "{told:?}"
            );
            assert!(
                told[3].ends_with("X-Countersign-Refusal, x-data-stats, link"),
                "{told:?}"
            );
            admission.mints = true;
            assert!(
                !lines(&admission)[0].starts_with("X-Data"),
                "not where bodies are withheld"
            );
        }
    }

    #[test]
    fn locations_lead_through_the_gateway() {
        let mapped = |location: &str, expected: &str| {
            check(
                &[("Location", location)],
                &[&format!("Location: {expected}")],
            );
        };
        mapped(
            "https://acme.mindtouch.us/@api/deki/pages/2?x=1",
            "/widget/@api/deki/pages/2?x=1",
        );
        mapped(
            "/@api/deki/pages/=Caf\u{e9}",
            "/widget/@api/deki/pages/=Caf\u{e9}",
        );
        mapped(
            "https://files.mtstatic.com/1?S=x",
            "https://files.mtstatic.com/1?S=x",
        );
    }

    #[test]
    fn answers_without_content() {
        let sent = [
            ("Content-Type", "x"),
            ("Content-Encoding", "gzip"),
            ("Content-Location", "/x"),
            ("ETag", "1"),
            ("Last-Modified", "2"),
            ("Retry-After", "3"),
        ];
        let lines = kept(204, &sent).unwrap();
        assert_eq!(
            lines,
            [
                "Content-Location: /x",
                "ETag: 1",
                "Last-Modified: 2",
                "Retry-After: 3"
            ]
        );
        let lines = kept(304, &sent).unwrap();
        assert_eq!(
            lines,
            ["Content-Location: /x", "ETag: 1", "Last-Modified: 2"]
        );
    }

    #[test]
    fn what_may_not_be_passed_on() {
        let invalid = Err(Refusal::SiteInvalidAnswer);
        assert_eq!(kept(101, &[]), invalid);
        let trace = (
            "Content-Type",
            "Application/X-Dream-Exception+XML; charset=utf-8",
        );
        assert_eq!(kept(500, &[trace]), invalid);
        let plain = ("Content-Type", "text/xml");
        assert_eq!(kept(200, &[plain, trace]), invalid);
        assert!(kept(500, &[plain]).is_ok());
    }

    #[test]
    fn answers_to_a_user_are_private() {
        let check = |sent: &[(&str, &str)], expected: &[&str]| {
            let fields = fields(sent);
            let answer = Answer {
                status: 200,
                fields: &fields,
            };
            let admission = admission(route("crm", "/crm"));
            let sharing = Sharing::default();
            let edits = down(&answer, &admission, &sharing, "00ff").unwrap();
            let mut lines = lines(&fields, &edits);
            lines.retain(|line| line.starts_with("Cache-Control"));
            assert_eq!(lines, expected, "{sent:?}");
        };
        check(&[], &["Cache-Control: private"]);
        for value in ["private", "max-age=0, Private", "no-store"] {
            check(
                &[("Cache-Control", value)],
                &[&format!("Cache-Control: {value}")],
            );
        }
        check(
            &[("Cache-Control", "max-age=60")],
            &["Cache-Control: max-age=60", "Cache-Control: private"],
        );
        check(
            &[("Cache-Control", "public, max-age=60")],
            &["Cache-Control: private"],
        );
        let one_field = "private=\"x\"";
        check(
            &[("Cache-Control", one_field)],
            &[
                &format!("Cache-Control: {one_field}"),
                "Cache-Control: private",
            ],
        );
    }

    #[test]
    fn bodies_that_hold_a_credential_are_withheld() {
        let fields = fields(&[
            ("Content-Type", "text/plain"),
            ("X-Deki-Session", "x"),
            ("Location", "/@api/deki/x"),
        ]);
        let answer = Answer {
            status: 200,
            fields: &fields,
        };
        let mut admission = admission(route("crm", "/crm"));
        admission.mints = true;
        let sharing = Sharing {
            origin: Some("https://app.example.com".into()),
            with_credentials: false,
        };
        assert!(withholds_body(&admission));
        let edits = down(&answer, &admission, &sharing, "00ff").unwrap();
        let lines = lines(&fields, &edits);
        assert_eq!(lines[0], "Cache-Control: no-store");
        assert_eq!(
            lines[1],
            "Access-Control-Allow-Origin: https://app.example.com"
        );
        assert_eq!(lines[3..], ["Vary: Origin", "X-Request-Id: 00ff"]);
        let mut open = route("crm", "/crm");
        open.return_sessions = true;
        admission.route = Arc::new(open);
        assert!(!withholds_body(&admission));
    }
}
