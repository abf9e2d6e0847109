//! The one spelling of a path: what routes and capabilities match is what goes upstream.
//!
//! A [`Target`] borrows the bytes that came in, and exactly those go on. Beside them stands the
//! canonical view: each segment percent-decoded once (RFC 3986 section 2.4), which is how the
//! site's front end reads it. What could be read in two ways there is refused, because a path that
//! the policy and the site read differently is a hole in the policy. `pages/=A%252FB` is a page
//! title encoded twice; its canonical view still holds `%2F` and it passes.

use std::borrow::Cow;

use super::Refusal;
use super::escape::escape;
use super::fault::TargetFault;
use super::reading::{Hidden, hidden_in};

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
    /// [`Refusal::TargetTooLong`], and [`Refusal::BadTarget`] with the first [`TargetFault`] found.
    pub fn parse(raw: &'a [u8], host: &str) -> Result<Self, Refusal> {
        if raw.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        Self::read(raw, host).map_err(Refusal::BadTarget)
    }

    fn read(raw: &'a [u8], host: &str) -> Result<Self, TargetFault> {
        // To the end even where it could stop: so it looks at many bytes at once.
        let is_visible = raw
            .iter()
            .fold(true, |visible, byte| visible & matches!(byte, 0x21..=0x7e));
        let text = std::str::from_utf8(raw).map_err(|_| TargetFault::Bytes)?;
        if !is_visible {
            return Err(TargetFault::Bytes);
        }
        if memchr::memchr(b'#', raw).is_some() {
            return Err(TargetFault::Fragment);
        }
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

fn origin_form<'a>(text: &'a str, host: &str) -> Result<&'a str, TargetFault> {
    if text.starts_with('/') {
        return Ok(text);
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let head = text.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme)
            .then(|| &text[scheme.len()..])
    });
    let rest = rest.ok_or(TargetFault::Form)?;
    let slash = rest.find('/').ok_or(TargetFault::Form)?;
    if !rest[..slash].eq_ignore_ascii_case(host) || host.is_empty() {
        return Err(TargetFault::OtherHost);
    }
    Ok(&rest[slash..])
}

fn canonical_segments(path: &str) -> Result<Vec<Cow<'_, str>>, TargetFault> {
    if has_odd_characters(path) {
        return Err(TargetFault::Character);
    }
    let inner = path.strip_prefix('/').ok_or(TargetFault::Form)?;
    // Clients write `files/?x`: a slash at the end adds nothing.
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() {
        return if path == "/" {
            Ok(Vec::new())
        } else {
            Err(TargetFault::EmptySegment)
        };
    }
    let mut segments = Vec::with_capacity(8);
    let mut start = 0;
    let slashes = memchr::memchr_iter(b'/', inner.as_bytes());
    for end in slashes.chain([inner.len()]) {
        if segments.len() == SEGMENTS_MAX {
            return Err(TargetFault::Depth);
        }
        segments.push(canonical_segment(&inner[start..end])?);
        start = end + 1;
    }
    Ok(segments)
}

/// Whether a path holds visible characters that stand in none (RFC 3986 section 3.3), but for the
/// backslash. To the end even where it could stop: so it looks at many bytes at once.
fn has_odd_characters(path: &str) -> bool {
    path.bytes().fold(false, |odd, byte| {
        odd | matches!(
            byte,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
    })
}

fn canonical_segment(segment: &str) -> Result<Cow<'_, str>, TargetFault> {
    if segment.is_empty() {
        return Err(TargetFault::EmptySegment);
    }
    let segment = match memchr::memchr2(b'\\', b'%', segment.as_bytes()) {
        // Visible ASCII, as the whole target is.
        None => Cow::Borrowed(segment),
        Some(_) if segment.contains('\\') => return Err(TargetFault::Backslash),
        Some(_) => Cow::Owned(decoded_once(segment)?),
    };
    // In this order, so that the fault that is named is the nearest.
    if matches!(segment, Cow::Owned(_)) {
        if segment.chars().any(char::is_control) {
            return Err(TargetFault::Control);
        }
        if segment.contains(['/', '\\', '?', '#']) {
            return Err(TargetFault::Separator);
        }
    }
    match hidden_in(&segment) {
        Hidden::Nothing => Ok(segment),
        Hidden::Dots => Err(TargetFault::Dots),
        Hidden::Control => Err(TargetFault::Control),
        Hidden::TooDeep => Err(TargetFault::Encodings),
    }
}

/// Strict percent-decoding: two hexadecimal digits after every `%`, UTF-8 in the end.
fn decoded_once(segment: &str) -> Result<String, TargetFault> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some(byte) = rest.first() {
        let (byte, length) = match escape(rest) {
            Some((byte, 3)) => (byte.to_le_bytes()[0], 3),
            None if *byte != b'%' => (*byte, 1),
            _ => return Err(TargetFault::Escape),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8(bytes).map_err(|_| TargetFault::Encoding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, expected: Result<&[&str], TargetFault>) {
        let got = Target::read(raw.as_bytes(), "gw.example:8080");
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
    fn a_slash_at_the_end_adds_nothing() {
        check("/@api/deki/files/?x", Ok(&["@api", "deki", "files"]));
        check("/a/", Ok(&["a"]));
        check("/", Ok(&[]));
    }

    #[test]
    fn dot_segments_in_any_encoding_and_at_any_depth() {
        for path in [
            "/@api/../x",
            "/@api/%2e%2e/x",
            "/@api/.%2E/x",
            "/@api/./x",
            "/@api/%2e/x",
            "/..",
            "/a/..",
            "/a/../",
            "/a/..;x/b",
            "/a/%2e%2e%3b/b",
            "/a/..%20/b",
            "/a/.../b",
            "/a/%252e%252e/b",
            "/a/%25252e%25252e/b",
            "/a/..%252f..%252fb",
            "/a/%25u002e%25u002e/b",
            "/a/=A%252F..%252FB",
            "/a/%ef%bc%8e%ef%bc%8e/b",
        ] {
            check(path, Err(TargetFault::Dots));
        }
    }

    #[test]
    fn empty_segments_and_other_forms() {
        for path in ["//users/authenticate", "/a//b", "//", "/a//"] {
            check(path, Err(TargetFault::EmptySegment));
        }
        for target in [
            "",
            "*",
            "foo",
            "?x",
            "http://gw.example:8080",
            "ftp://gw.example:8080/x",
        ] {
            check(target, Err(TargetFault::Form));
        }
        for target in [
            "http://other.example/x",
            "http://user@gw.example:8080/x",
            "https:///x",
        ] {
            check(target, Err(TargetFault::OtherHost));
        }
        check("http://GW.example:8080/a?b", Ok(&["a"]));
    }

    #[test]
    fn separators_and_control_bytes_in_disguise() {
        for path in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%3fb", "/a%3Fb", "/a%23b"] {
            check(path, Err(TargetFault::Separator));
        }
        for path in [
            "/a%00b",
            "/a%0d%0ab",
            "/a%7f",
            "/a%c2%85b",
            "/a%2500",
            "/..%2500",
            "/a/..%00/b",
        ] {
            check(path, Err(TargetFault::Control));
        }
        for path in ["/a%c0%ae", "/a%ff", "/caf%e9"] {
            check(path, Err(TargetFault::Encoding));
        }
        for path in ["/a%", "/a%2", "/a%zz", "/a%u0061"] {
            check(path, Err(TargetFault::Escape));
        }
        for target in [
            "/a b",
            "/caf\u{e9}",
            "/a?b\tc",
            "/a?b\u{0}",
            "/a?\rb",
            "/\u{7f}",
        ] {
            check(target, Err(TargetFault::Bytes));
        }
        check("/a\\b", Err(TargetFault::Backslash));
        check("/a#b", Err(TargetFault::Fragment));
        check("/a?b#c", Err(TargetFault::Fragment));
    }

    #[test]
    fn characters_of_no_path_pass_in_a_query_only() {
        for character in ["\"", "<", ">", "{", "}", "|", "^", "[", "]", "`"] {
            check(&format!("/a/b{character}c"), Err(TargetFault::Character));
            check(&format!("/a?b={character}c\\"), Ok(&["a"]));
        }
    }

    #[test]
    fn too_long_and_too_deep() {
        let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX));
        let parsed = Target::parse(long.as_bytes(), "h");
        assert_eq!(parsed, Err(Refusal::TargetTooLong));
        check(&"/a".repeat(SEGMENTS_MAX + 1), Err(TargetFault::Depth));
        let nested = format!("/=A%{}2FB", "25".repeat(12));
        check(&nested, Err(TargetFault::Encodings));
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
