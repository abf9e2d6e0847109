//! Text as a reader sees it: without tags, and with escaping taken off, one layer at a time.

use memchr::{memchr, memchr2};

use super::{TAG_BYTES_MAX, window};

/// Elements that stand within a line, and so within a name.
const WITHIN_LINES: [&str; 14] = [
    "a", "b", "i", "u", "em", "tt", "kbd", "var", "code", "font", "mark", "span", "small", "strong",
];

/// The text without tags; most of them end a line, and what comments and CDATA hold stays.
pub(super) fn without_tags(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = memchr(b'<', rest) {
        plain.extend_from_slice(&rest[..open]);
        rest = &rest[open..];
        let delimiter = ["<!--", "<![CDATA["]
            .iter()
            .find(|one| rest.starts_with(one.as_bytes()));
        if let Some(delimiter) = delimiter {
            plain.push(b'\n');
            rest = &rest[delimiter.len()..];
            continue;
        }
        let is_tag = matches!(rest.get(1), Some(b'/' | b'!' | b'?'))
            || rest.get(1).is_some_and(u8::is_ascii_alphabetic);
        match memchr(b'>', window(rest, 0, TAG_BYTES_MAX)).filter(|_| is_tag) {
            Some(close) => {
                let tag = rest[1..close].trim_ascii_start();
                let tag = tag.strip_prefix(b"/").unwrap_or(tag);
                let name = tag
                    .split(|byte| !byte.is_ascii_alphanumeric())
                    .next()
                    .unwrap_or_default();
                if !WITHIN_LINES
                    .iter()
                    .any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
                {
                    plain.push(b'\n');
                }
                rest = &rest[close + 1..];
            }
            None => {
                plain.push(b'<');
                rest = &rest[1..];
            }
        }
    }
    plain.extend_from_slice(rest);
    plain
}

/// The text with one layer of escaping taken off: that of strings in JSON, that of XML and HTML.
pub(in crate::rewrite) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr2(b'\\', b'&', rest) {
        plain.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let read = if rest[0] == b'\\' {
            backslashed(rest)
        } else {
            entity(rest)
        };
        let (letter, length) = read.unwrap_or((char::from(rest[0]), 1));
        plain.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[length..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// What a backslash and the bytes after it stand for, and how many they are.
fn backslashed(text: &[u8]) -> Option<(char, usize)> {
    let hexadecimal = |digits: usize| {
        let digits = std::str::from_utf8(text.get(2..2 + digits)?).ok()?;
        char::from_u32(u32::from_str_radix(digits, 16).ok()?)
    };
    match text.get(1)? {
        b'u' => hexadecimal(4).map(|letter| (letter, 6)),
        b'x' => hexadecimal(2).map(|letter| (letter, 4)),
        b'n' | b'r' => Some(('\n', 2)),
        b't' => Some((' ', 2)),
        sign @ (b'"' | b'\'' | b'/' | b'\\') => Some((char::from(*sign), 2)),
        _ => None,
    }
}

/// What an entity stands for, and how long it is.
fn entity(text: &[u8]) -> Option<(char, usize)> {
    const NAMED: [(&str, char); 14] = [
        ("lt", '<'),
        ("gt", '>'),
        ("amp", '&'),
        ("quot", '"'),
        ("apos", '\''),
        ("nbsp", ' '),
        ("lpar", '('),
        ("rpar", ')'),
        ("colon", ':'),
        ("period", '.'),
        ("lowbar", '_'),
        ("sol", '/'),
        ("Tab", ' '),
        ("NewLine", '\n'),
    ];
    let inner = window(text, 1, 12);
    let digits = |bytes: &[u8], radix: u32| {
        let count = bytes
            .iter()
            .take_while(|byte| char::from(**byte).is_digit(radix))
            .count();
        let number = std::str::from_utf8(&bytes[..count]).ok()?;
        Some((
            char::from_u32(u32::from_str_radix(number, radix).ok()?)?,
            count,
        ))
    };
    // A semicolon may be missing, as browsers have it.
    let whole = |letter: char, length: usize| {
        let ends = usize::from(text.get(length) == Some(&b';'));
        Some((if letter == '\u{a0}' { ' ' } else { letter }, length + ends))
    };
    if let [b'#', b'x' | b'X', number @ ..] = inner {
        let (letter, count) = digits(number, 16)?;
        return whole(letter, 3 + count);
    }
    if let [b'#', number @ ..] = inner {
        let (letter, count) = digits(number, 10)?;
        return whole(letter, 2 + count);
    }
    let (name, letter) = NAMED.iter().find(|(name, _)| {
        inner
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b';'))
    })?;
    whole(*letter, 1 + name.len())
}
