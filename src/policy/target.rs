//! The one spelling of a path: what routes and capabilities match is what goes upstream.
//!
//! A [`Target`] borrows the bytes that came in, and exactly those go on. Beside them stands the
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
    /// Where the path begins in the bytes that came: after the authority of an absolute-form target.
    path_start: usize,
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
    /// [`Refusal::TargetTooLong`], and [`Refusal::BadTarget`] for what can be read in two ways:
    /// other forms, dot segments in any encoding, empty segments, `%2f`, `%5c`, `%00` and other
    /// control bytes, `\`, bytes that are not visible ASCII, broken escapes, escapes that are not
    /// UTF-8.
    pub fn parse(raw: &'a [u8], host: &str) -> Result<Self, Refusal> {
        if raw.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        // To the end even where it could stop: so it looks at many bytes at once.
        let is_odd = raw.iter().fold(false, |odd, byte| {
            odd | !matches!(byte, 0x21..=0x7e) | (*byte == b'#')
        });
        if is_odd {
            return Err(Refusal::BadTarget);
        }
        let text = std::str::from_utf8(raw).map_err(|_| Refusal::BadTarget)?;
        let origin_form = origin_form(text, host)?;
        let (path, query) = match memchr::memchr(b'?', origin_form.as_bytes()) {
            Some(mark) => (&origin_form[..mark], Some(&origin_form[mark + 1..])),
            None => (origin_form, None),
        };
        let segments = canonical_segments(path)?;
        Ok(Self {
            path_start: text.len() - origin_form.len(),
            path,
            query,
            segments,
        })
    }

    /// Where the path begins in the bytes that came.
    pub fn path_start(&self) -> usize {
        self.path_start
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
}

/// Compares a canonical segment with a word of the API, as the site may read it at worst: decoded
/// again where an encoding is left, without what lenient servers drop (path parameters after `;`,
/// trailing dots and spaces, characters outside ASCII), letters in any case.
///
/// Used where a match *forbids*, so that reading too much into a segment only forbids more.
pub fn may_be_read_as(segment: &str, word: &str) -> bool {
    if reads_one_way(segment) {
        return segment.eq_ignore_ascii_case(word);
    }
    let mut view = Cow::Borrowed(segment);
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
        view = Cow::Owned(decoded);
    }
    let name = view.split(';').next().unwrap_or_default();
    let mut seen = name
        .trim_end_matches(['.', ' ', '+'])
        .chars()
        .filter(char::is_ascii_graphic)
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

/// Whether a segment has nothing in it that a server might drop or decode: it is what it looks like.
pub fn reads_one_way(segment: &str) -> bool {
    !segment.bytes().fold(false, |odd, byte| {
        odd | !byte.is_ascii_graphic() | matches!(byte, b'%' | b';' | b'.' | b'+')
    })
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
    let mut start = 0;
    let slashes = memchr::memchr_iter(b'/', inner.as_bytes());
    for end in slashes.chain([inner.len()]) {
        if segments.len() == SEGMENTS_MAX {
            return Err(Refusal::BadTarget);
        }
        segments.push(canonical_segment(&inner[start..end])?);
        start = end + 1;
    }
    Ok(segments)
}

fn canonical_segment(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    let odd = memchr::memchr2(b'\\', b'%', segment.as_bytes());
    if segment.is_empty() || odd.is_some_and(|_| segment.contains('\\')) {
        return Err(Refusal::BadTarget);
    }
    if odd.is_none() {
        // Visible ASCII, as the whole target is.
        return (!is_dots(segment))
            .then_some(Cow::Borrowed(segment))
            .ok_or(Refusal::BadTarget);
    }
    let decoded = decode_once(segment)?;
    let forbidden = |c: char| c == '/' || c == '\\' || c.is_control();
    if decoded.chars().any(forbidden) || is_dots(&decoded) {
        return Err(Refusal::BadTarget);
    }
    Ok(Cow::Owned(decoded))
}

/// Strict percent-decoding: two hexadecimal digits after every `%`, UTF-8 in the end.
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

/// Whether some server takes the segment for `.` or `..`: also encoded again, with trailing spaces,
/// or with path parameters after it.
fn is_dots(segment: &str) -> bool {
    if !segment.starts_with(['.', ' ', '%']) {
        return false;
    }
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
    fn the_path_begins_where_it_came() {
        let check = |raw: &str, rest: &str| {
            let target = Target::parse(raw.as_bytes(), "h").unwrap();
            assert_eq!(&raw[target.path_start()..], rest, "{raw}");
            assert!(rest.starts_with(target.path()), "{raw}");
        };
        let origin_form = "/crm/@api/deki/pages/=A%252FB?x=%2B+y";
        check(origin_form, origin_form);
        check("HTTP://h/a?b=http://h/c", "/a?b=http://h/c");
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
