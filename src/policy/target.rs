//! The one spelling of a path: what routes and capabilities match is what goes upstream.
//!
//! A [`Target`] borrows the bytes that came in and forwards exactly those. Beside them stands the
//! canonical view: each segment percent-decoded once (RFC 3986 section 2.4), which is how the
//! site's front end reads it. What could be read in two ways there is refused, because a path that
//! the policy and the site read differently is a hole in the policy. `pages/=A%252FB` is a page
//! title encoded twice; its canonical view still holds `%2F` and it passes.

use std::borrow::Cow;

use super::Refusal;

/// Longest request target in bytes that is looked at.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;

/// Most segments of a path that are looked at; the API's deepest path has a handful.
const SEGMENTS_MAX: usize = 64;

/// A request target in origin-form that reads the same to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    path: &'a str,
    query: Option<&'a str>,
    segments: Vec<Cow<'a, str>>,
}

impl<'a> Target<'a> {
    /// Reads `raw`, the bytes of the request line's target.
    ///
    /// An absolute-form target (RFC 9112 section 3.2.2) is accepted when its authority is `host`,
    /// the request's own, and becomes origin-form.
    ///
    /// # Errors
    /// [`Refusal::TargetTooLong`], and [`Refusal::BadTarget`] for everything in section 7 of the
    /// contract: other forms, dot segments in any encoding, empty segments, `%2f`, `%5c`, `%00`
    /// and other control bytes, `\`, bytes that are not visible ASCII, broken escapes, escapes
    /// that are not UTF-8.
    pub fn parse(raw: &'a [u8], host: &str) -> Result<Self, Refusal> {
        if raw.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        let visible = |byte: &u8| matches!(byte, 0x21..=0x7e) && *byte != b'#';
        if !raw.iter().all(visible) {
            return Err(Refusal::BadTarget);
        }
        let text = std::str::from_utf8(raw).map_err(|_| Refusal::BadTarget)?;
        let origin_form = origin_form(text, host)?;
        let (path, query) = match origin_form.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (origin_form, None),
        };
        let segments = canonical_segments(path)?;
        Ok(Self {
            path,
            query,
            segments,
        })
    }

    /// The path as it came, with its leading slash.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The query as it came, without the question mark.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The canonical view: segments decoded once.
    pub fn segments(&self) -> &[Cow<'a, str>] {
        &self.segments
    }

    /// The target behind a mount that was matched against this path: what goes upstream.
    ///
    /// `mount` is a prefix of [`Self::path`] in whole segments, such as `/crm`, or empty.
    pub fn behind(&self, mount: &str) -> String {
        let path = &self.path[mount.len()..];
        match self.query {
            Some(query) => {
                let mut whole = String::with_capacity(path.len() + 1 + query.len());
                whole.push_str(path);
                whole.push('?');
                whole.push_str(query);
                whole
            }
            None => path.to_owned(),
        }
    }
}

/// Compares a canonical segment with a word of the API, as the site may read it at worst: decoded
/// again where an encoding is left, without what lenient servers drop (path parameters behind `;`,
/// trailing dots and blanks, characters outside ASCII), letters in any case.
///
/// Used where a match *forbids*, so that reading too much into a segment only forbids more.
pub fn may_be_read_as(segment: &str, word: &str) -> bool {
    let mut view = segment.to_owned();
    for _ in 0..3 {
        if !view.contains('%') {
            break;
        }
        let decoded = percent_encoding::percent_decode_str(&view)
            .decode_utf8_lossy()
            .into_owned();
        if decoded == view {
            break;
        }
        view = decoded;
    }
    let view = view.split(';').next().unwrap_or_default();
    let mut seen = view
        .trim_end_matches(['.', ' ', '+'])
        .chars()
        .filter(|c| c.is_ascii_graphic())
        .map(|c| c.to_ascii_lowercase());
    let mut wanted = word.chars();
    loop {
        match (seen.next(), wanted.next()) {
            (None, None) => return true,
            (a, b) if a == b => {}
            _ => return false,
        }
    }
}

fn origin_form<'a>(text: &'a str, host: &str) -> Result<&'a str, Refusal> {
    if text.starts_with('/') {
        return Ok(text);
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let head = text.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme)
            .then(|| &text[scheme.len()..])
    });
    let rest = rest.ok_or(Refusal::BadTarget)?;
    let slash = rest.find('/').ok_or(Refusal::BadTarget)?;
    if !rest[..slash].eq_ignore_ascii_case(host) || host.is_empty() {
        return Err(Refusal::BadTarget);
    }
    Ok(&rest[slash..])
}

fn canonical_segments(path: &str) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let inner = path.strip_prefix('/').ok_or(Refusal::BadTarget)?;
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments = Vec::with_capacity(8);
    for segment in inner.split('/') {
        if segments.len() == SEGMENTS_MAX {
            return Err(Refusal::BadTarget);
        }
        segments.push(canonical_segment(segment)?);
    }
    Ok(segments)
}

fn canonical_segment(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    if segment.is_empty() || segment.contains('\\') {
        return Err(Refusal::BadTarget);
    }
    let decoded = if segment.contains('%') {
        Cow::Owned(decode_once(segment)?)
    } else {
        Cow::Borrowed(segment)
    };
    let forbidden = |c: char| c == '/' || c == '\\' || c.is_control();
    if decoded.chars().any(forbidden) || is_dots(&decoded) {
        return Err(Refusal::BadTarget);
    }
    Ok(decoded)
}

/// Strict percent-decoding: two hexadecimal digits behind every `%`, UTF-8 in the end.
fn decode_once(segment: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = (rest.next()? as char).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Refusal::BadTarget);
        };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| Refusal::BadTarget)
}

/// Whether some server takes the segment for `.` or `..`: also encoded again, with trailing blanks,
/// or with path parameters behind it.
fn is_dots(segment: &str) -> bool {
    let dots = |text: &str| {
        let name = text.split(';').next().unwrap_or_default();
        !name.is_empty() && name.chars().all(|c| c == '.' || c == ' ')
    };
    if dots(segment) {
        return true;
    }
    segment.contains('%')
        && dots(&percent_encoding::percent_decode_str(segment).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, expected: Result<&[&str], Refusal>) {
        let got = Target::parse(raw.as_bytes(), "gw.example:8080");
        let segments = got.as_ref().map(|target| {
            target
                .segments()
                .iter()
                .map(AsRef::as_ref)
                .collect::<Vec<&str>>()
        });
        match (segments, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{raw}"),
            (Err(got), Err(expected)) => assert_eq!(*got, expected, "{raw}"),
            (got, expected) => panic!("{raw}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn titles_pass_with_their_encoding() {
        check(
            "/@api/deki/pages/=A%252FB",
            Ok(&["@api", "deki", "pages", "=A%2FB"]),
        );
        check(
            "/@api/deki/pages/=Caf%25C3%25A9",
            Ok(&["@api", "deki", "pages", "=Caf%C3%A9"]),
        );
        check(
            "/@api/deki/pages/=a%2Bb",
            Ok(&["@api", "deki", "pages", "=a+b"]),
        );
        check(
            "/%40api/deki/pages/:guid",
            Ok(&["@api", "deki", "pages", ":guid"]),
        );
        check(
            "/@api/deki/pages/1/files,subpages",
            Ok(&["@api", "deki", "pages", "1", "files,subpages"]),
        );
        check(
            "/@api/deki/pages/=...a",
            Ok(&["@api", "deki", "pages", "=...a"]),
        );
        check("/?a=/../b", Ok(&[]));
    }

    #[test]
    fn dot_segments_in_any_encoding() {
        for path in [
            "/@api/../x",
            "/@api/%2e%2e/x",
            "/@api/.%2E/x",
            "/@api/./x",
            "/@api/%2e/x",
            "/..",
            "/a/..",
            "/a/..;x/b",
            "/a/%2e%2e%3b/b",
            "/a/..%20/b",
            "/a/.../b",
            "/a/%252e%252e/b",
        ] {
            check(path, Err(Refusal::BadTarget));
        }
    }

    #[test]
    fn empty_segments_and_other_forms() {
        for path in [
            "//users/authenticate",
            "/a//b",
            "/a/",
            "",
            "*",
            "foo",
            "?x",
            "http://gw.example:8080",
            "http://other.example/x",
            "http://user@gw.example:8080/x",
            "ftp://gw.example:8080/x",
            "https:///x",
        ] {
            check(path, Err(Refusal::BadTarget));
        }
        check("http://GW.example:8080/a?b", Ok(&["a"]));
    }

    #[test]
    fn separators_and_control_bytes_in_disguise() {
        for path in [
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00b",
            "/a%0d%0ab",
            "/a%7f",
            "/a%c2%85b",
            "/a%c0%ae",
            "/a%ff",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%u0061",
            "/a b",
            "/a#b",
            "/caf\u{e9}",
        ] {
            check(path, Err(Refusal::BadTarget));
        }
    }

    #[test]
    fn too_long_and_too_deep() {
        check(
            &format!("/{}", "a".repeat(TARGET_BYTES_MAX)),
            Err(Refusal::TargetTooLong),
        );
        check(&"/a".repeat(SEGMENTS_MAX + 1), Err(Refusal::BadTarget));
    }

    #[test]
    fn behind_the_mount_are_the_bytes_that_came() {
        let raw = b"/crm/@api/deki/pages/=A%252FB?x=%2B+y";
        let target = Target::parse(raw, "h").unwrap();
        assert_eq!(target.behind("/crm"), "/@api/deki/pages/=A%252FB?x=%2B+y");
        assert_eq!(target.behind("").as_bytes(), raw);
    }

    #[test]
    fn forbidden_words_in_disguise() {
        for segment in [
            "authenticate",
            "AUTHENTICATE",
            "authenticate.",
            "authenticate;x",
            "authenticate ",
            "%61uthenticate",
            "%2561uthenticate",
            "auth\u{200b}enticate",
            "authenticate%20",
        ] {
            assert!(
                may_be_read_as(segment, "authenticate"),
                "{segment:?} may be read so"
            );
        }
        for segment in ["authenticated", "authenticat", "=authenticate", "1"] {
            assert!(
                !may_be_read_as(segment, "authenticate"),
                "{segment:?} cannot"
            );
        }
    }

    proptest! {
        #[test]
        fn what_passes_has_no_second_reading(raw in "[/.%a-zA-Z0-9;=@:,+ \\\\-]{0,40}") {
            if let Ok(target) = Target::parse(format!("/{raw}").as_bytes(), "h") {
                let path = target.path();
                prop_assert!(!path.contains("//") && !path.contains('\\'));
                for segment in target.segments() {
                    prop_assert!(!segment.is_empty() && segment != "." && segment != "..");
                    prop_assert!(!segment.contains(['/', '\\', '\0']));
                }
            }
        }
    }
}
