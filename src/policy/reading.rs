//! The deeper readings of a path: what a site that decodes more often than once may take it for.
//!
//! Nobody knows how often a site decodes, or how it folds what it compares. Everything here reads as
//! the most lenient server would: escapes of bytes and of UTF-16 units, overlong UTF-8, letters that
//! some folding of Unicode makes ASCII. It is used only where a match *forbids*, so that reading too
//! much into a path forbids more.

use std::borrow::Cow;

use icu_normalizer::DecomposingNormalizerBorrowed;

use super::escape::decoded;

/// How often the canonical view is decoded again. Titles and names come encoded once more; who
/// encodes more often than this only looks for a reader that decodes more often.
pub(super) const DECODINGS_MAX: usize = 8;

/// The separators of the most lenient reading; what follows the last three is cut off by some.
const SLASHES: [char; 2] = ['/', '\\'];

/// What a segment of the canonical view holds in some reading of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    /// Nothing that is forbidden everywhere.
    Nothing,
    /// A dot segment.
    Dots,
    /// A control character.
    Control,
    /// Further encodings than are looked at.
    TooDeep,
}

/// Looks for what no reading of any segment may hold, be it a title or a name.
pub(super) fn hidden_in(segment: &str) -> Hidden {
    if is_plain(segment) {
        return Hidden::Nothing;
    }
    let mut text = Cow::Borrowed(segment);
    for _ in 0..=DECODINGS_MAX {
        if text.chars().any(char::is_control) {
            return Hidden::Control;
        }
        // Only a dot, or what folding may make one of, makes a dot segment.
        let may_have_dots = text.contains('.') || !text.is_ascii();
        if may_have_dots && fold(&text).split(SLASHES).any(is_dots) {
            return Hidden::Dots;
        }
        match decoded_again(&text) {
            Some(deeper) => text = Cow::Owned(deeper),
            None => return Hidden::Nothing,
        }
    }
    Hidden::TooDeep
}

/// Whether a segment reads the same to everybody: nothing in it is decoded, cut off or folded, but
/// that letters may be compared without case.
pub(super) fn is_plain(segment: &str) -> bool {
    let is_odd = segment.bytes().fold(false, |odd, byte| {
        odd | !byte.is_ascii_graphic()
            | matches!(byte, b'%' | b';' | b'+' | b'?' | b'#' | b'/' | b'\\')
    });
    !is_odd && !segment.ends_with('.')
}

/// Every reading of a call, each as segments: at each depth, with what stands after `?` and `#` cut
/// off from the whole, and with it cut off from each segment. Splits titles as well.
pub(super) fn readings(call: &[Cow<'_, str>]) -> impl Iterator<Item = Vec<String>> {
    let whole = call.join("/");
    let depths = std::iter::successors(Some(whole), |text| decoded_again(text));
    depths.take(DECODINGS_MAX + 1).flat_map(|text| {
        let folded = fold(&text);
        let before = folded.split(['?', '#']).next().unwrap_or_default();
        [segments(before), segments(&folded)]
    })
}

/// The segments of a folded path as the most lenient server sees them.
fn segments(folded: &str) -> Vec<String> {
    folded
        .split(SLASHES)
        .map(|segment| {
            let name = segment.split([';', '?', '#']).next().unwrap_or_default();
            name.trim_start_matches([' ', '+'])
                .trim_end_matches([' ', '+', '.'])
                .to_owned()
        })
        .filter(|segment| !segment.is_empty())
        .collect()
}

/// Whether a folded segment, without what some cut off it, is made of dots alone.
fn is_dots(segment: &str) -> bool {
    let name = segment.split([';', '?', '#']).next().unwrap_or_default();
    name.contains('.') && name.chars().all(|c| matches!(c, '.' | ' ' | '+'))
}

/// Letters in lower case, whatever Unicode calls compatible with ASCII as ASCII, and nothing else:
/// fullwidth forms, the long s, the Kelvin sign, the dotless i, ligatures; accents fall off, and what
/// cannot be seen goes.
fn fold(text: &str) -> String {
    if text.is_ascii() {
        let kept = text
            .bytes()
            .filter(|byte| matches!(byte, b' '..=b'~'))
            .map(|byte| char::from(byte.to_ascii_lowercase()));
        return kept.collect();
    }
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(text);
    decomposed
        .chars()
        // There and back: some letters meet ASCII only in one of the cases.
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .filter(|c| matches!(c, ' '..='~'))
        .collect()
}

/// The text with its escapes decoded, `None` if it has none. What is no escape stays, and what is no
/// character goes.
fn decoded_again(text: &str) -> Option<String> {
    let (decoded, has_changed) = decoded(text, |byte| byte);
    has_changed
        .then(|| String::from_utf8(decoded).unwrap_or_else(|error| lenient_utf8(error.as_bytes())))
}

/// Reads UTF-8 as decoders do that do not check for the shortest form (RFC 3629 section 10 tells of
/// them). What is no sequence is left out.
fn lenient_utf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&first) = bytes.get(at) {
        at += 1;
        let (mut code, following) = match first {
            0x00..=0x7f => (u32::from(first), 0),
            0xc0..=0xdf => (u32::from(first & 0x1f), 1),
            0xe0..=0xef => (u32::from(first & 0x0f), 2),
            0xf0..=0xf7 => (u32::from(first & 0x07), 3),
            // As UTF-8 once was (RFC 2279).
            0xf8..=0xfb => (u32::from(first & 0x03), 4),
            0xfc..=0xfd => (u32::from(first & 0x01), 5),
            _ => continue,
        };
        let tail = bytes.get(at..at + following).unwrap_or_default();
        if tail.len() < following || tail.iter().any(|byte| byte & 0xc0 != 0x80) {
            continue;
        }
        for byte in tail {
            code = code << 6 | u32::from(byte & 0x3f);
        }
        at += following;
        text.extend(char::from_u32(code));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_plain() {
        for segment in ["1", "=A.b", "files,subpages", ":guid", "a@b", "en-US"] {
            assert!(is_plain(segment), "{segment}");
        }
        for segment in [
            "a%20",
            "a;b",
            "a.",
            "a+b",
            "caf\u{e9}",
            "a b",
            "a?",
            "a#",
            "a\\",
        ] {
            assert!(!is_plain(segment), "{segment}");
        }
    }

    #[test]
    fn what_hides_in_a_segment() {
        let check = |segment: &str, expected| {
            assert_eq!(hidden_in(segment), expected, "{segment}");
        };
        for segment in [
            ".",
            "..",
            "...",
            ". .",
            "..;x",
            "%2e%2e",
            "%252e%252E",
            "..%2fx",
            "a%2f..%2fb",
            "=A%2F.%2FB",
            "=A%5c..%5cB",
            "..%5c",
            "%u002e%u002e",
            "..%20",
            "..%3bx",
            "..%3f",
            "a%2f..%23",
            "\u{ff0e}\u{ff0e}",
            "%ef%bc%8e%EF%BC%8E",
            "\u{2025}",
            "a%c0%af..%c0%af",
            "%c0%ae%c0%ae",
            "%e0%80%ae.",
            "%f8%80%80%80%ae%fc%80%80%80%80%ae",
            "a\u{ff0f}..\u{ff0f}b",
            ".%e2%80%8b.",
        ] {
            check(segment, Hidden::Dots);
        }
        for segment in ["..%00", "a%0d%0a", "a%7f", "a%u0000", "a%c2%85", "a%2500"] {
            check(segment, Hidden::Control);
        }
        for segment in [
            "=A%2FB",
            "=..",
            "=...a",
            "=Some%2FPage.",
            "mindtouch.page%23overview",
            "urn%3acustom",
            "my%20prop",
            "a%zz",
            "100%",
            "%e9t%e9",
            "=Caf%C3%A9",
            "=%E3%83%9A",
            "a.b..c",
            ":guid",
            "=What%3F%2FB",
        ] {
            check(segment, Hidden::Nothing);
        }
        let deep = |times: usize| format!("%{}41", "25".repeat(times));
        check(&deep(DECODINGS_MAX - 1), Hidden::Nothing);
        check(&deep(DECODINGS_MAX), Hidden::TooDeep);
    }

    #[test]
    fn letters_that_some_folding_makes_ascii() {
        for spelling in [
            "AUTHENTICATE",
            "\u{ff41}uthenticate",
            "authent\u{131}cate",
            "AUTHENT\u{130}CATE",
            "auth\u{200b}enticate",
            "auth\u{e9}nticate",
        ] {
            assert_eq!(fold(spelling), "authenticate", "{spelling}");
        }
        assert_eq!(fold("\u{17f}ite"), "site");
        assert_eq!(fold("pa\u{df}word"), "password");
        assert_eq!(fold("PA\u{1e9e}WORD"), "password");
        assert_eq!(fold("developer-to\u{212a}ens"), "developer-tokens");
        assert_eq!(fold("\u{fb01}le"), "file");
    }

    #[test]
    fn readings_of_a_call() {
        let check = |call: &str, expected: &str| {
            let call: Vec<_> = call.split('/').map(Cow::Borrowed).collect();
            let found = readings(&call).any(|reading| reading.join("/") == expected);
            assert!(found, "{call:?} may be read as {expected}");
        };
        check("users/authenticate%3Fx", "users/authenticate");
        check("users%2Fauthenticate", "users/authenticate");
        check("users/=x%2Fpassword", "users/=x/password");
        check("users;a/authenticate.;b", "users/authenticate");
        check("users/%u0061uthenticate", "users/authenticate");
        check("users/%c1%a1uthenticate", "users/authenticate");
        check("users/%e0%81%a1uthenticate", "users/authenticate");
        check("users/%f8%80%80%81%a1uthenticate", "users/authenticate");
        check("users/%fc%80%80%80%81%a1uthenticate", "users/authenticate");
        check("site%255Cservices", "site/services");
        check("license%23/usage", "license");
        check("license%23/usage", "license/usage");
        check("users/authenticate+", "users/authenticate");
    }

    proptest! {
        #[test]
        fn decoding_ends_and_nothing_panics(segment in "\\PC{0,40}", escapes in "(%[0-9a-fu]{0,6}){0,9}") {
            let call = [Cow::Owned(segment), Cow::Owned(escapes)];
            prop_assert!(readings(&call).count() <= 2 * (DECODINGS_MAX + 1));
            for segment in &call {
                let _ = hidden_in(segment);
            }
        }
    }
}
