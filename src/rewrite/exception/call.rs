//! A call as the frames of a trace name it: `at A.B (C) in file:line 7`.

use memchr::{memchr, memchr_iter};

use super::{CALL_BYTES_MAX, window};

/// A qualified name with arguments after it, as it stands in a trace: after a word, or with an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) start: usize,
    pub(super) end: usize,
    /// After `at`, in one of the languages that runtimes say it in.
    pub(super) is_after_word: bool,
    /// It says where in a file, or in the code, it is.
    pub(super) is_located: bool,
}

/// `at`, as runtimes are translated.
const WORDS: [&str; 8] = ["at", "bei", "à", "en", "em", "в", "w", "在"];

impl Call {
    /// The calls of a text, in their order.
    pub(super) fn all(text: &[u8]) -> impl Iterator<Item = Self> {
        memchr_iter(b'(', text).filter_map(|open| Self::around(text, open))
    }

    /// The call whose arguments open at `open`.
    fn around(text: &[u8], open: usize) -> Option<Self> {
        let name_end = open - blanks_before(&text[..open]);
        let name = last_word(&text[..name_end]);
        let name_start = name_end - name.len();
        let close = open + 1 + memchr(b')', window(text, open + 1, CALL_BYTES_MAX))?;
        let arguments = &text[open + 1..close];
        let behind = window(text, close + 1, CALL_BYTES_MAX);
        let word_end = name_start - blanks_before(&text[..name_start]);
        let word = if word_end < name_start {
            at_before(&text[..word_end])
        } else {
            None
        };
        let is_located = names_line(arguments) || names_place(behind);
        let is_qualified = name.iter().any(|byte| matches!(byte, b'.' | b':'))
            && name.first().is_some_and(u8::is_ascii_alphabetic);
        let dots = name.iter().filter(|byte| **byte == b'.').count();
        let is_after_word = word.is_some() && (is_qualified || (is_located && !name.is_empty()));
        let is_bare = is_qualified && dots >= 2 && has_offset(behind);
        (is_after_word || is_bare).then(|| Self {
            start: word.map_or(name_start, |length| word_end - length),
            end: close + 1 + place_length(behind),
            is_after_word,
            is_located: (is_located && is_after_word)
                || behind.trim_ascii_start().starts_with(b"[0x"),
        })
    }
}

fn blanks_before(text: &[u8]) -> usize {
    // A no-break space, too.
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | 0xc2 | 0xa0);
    text.iter().rev().take(8).take_while(is_blank).count()
}

/// The bytes that end a text and have no space and no quote among them.
fn last_word(text: &[u8]) -> &[u8] {
    let is_part = |byte: &&u8| byte.is_ascii_graphic() && !b"\"'(){},;".contains(byte);
    let length = text
        .iter()
        .rev()
        .take(CALL_BYTES_MAX)
        .take_while(is_part)
        .count();
    &text[text.len() - length..]
}

/// How long the word for `at` is that ends a text, if one does.
fn at_before(text: &[u8]) -> Option<usize> {
    let ends = |word: &&&str| {
        let Some(before) = text.strip_suffix(word.as_bytes()) else {
            return false;
        };
        before
            .last()
            .is_none_or(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric())
    };
    WORDS.iter().find(ends).map(|word| word.len())
}

/// Whether arguments are the place in a source that Java and scripts write there: `File.java:12`.
fn names_line(arguments: &[u8]) -> bool {
    if matches!(
        arguments,
        b"Native Method" | b"Unknown Source" | b"<anonymous>"
    ) {
        return true;
    }
    let digits = arguments
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let path = &arguments[..arguments.len() - digits];
    digits > 0
        && path
            .strip_suffix(b":")
            .is_some_and(|path| path.contains(&b'.'))
        && !arguments.contains(&b' ')
}

/// Whether a place in code follows a call: `[0x0001c]`, `in <a1b2>:0`, `in C:\a\b.cs:line 12`.
fn names_place(behind: &[u8]) -> bool {
    let behind = behind.trim_ascii_start();
    behind.starts_with(b"[0x") || place_in_file(behind).is_some()
}

/// Where ` in FILE:line N` ends, if it is what stands here.
fn place_in_file(behind: &[u8]) -> Option<usize> {
    let line = behind.split(|byte| matches!(byte, b'\n' | b'\r')).next()?;
    let path = line
        .strip_prefix(b"in ")
        .or_else(|| line.strip_prefix(b"dans "))?;
    let offset = line.len() - path.len();
    memchr_iter(b':', path).find_map(|colon| {
        let rest = &path[colon + 1..];
        let word = rest
            .iter()
            .take(12)
            .take_while(|byte| !byte.is_ascii_digit() && **byte != b' ')
            .count();
        let blank = usize::from(word > 0 && rest.get(word) == Some(&b' '));
        let digits = rest[word + blank..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let is_line = digits > 0 && (word == 0 || blank == 1);
        is_line.then_some(offset + colon + 1 + word + blank + digits)
    })
}

/// Whether an offset follows a call that no word announces: ` +12`, `[0x0001c]`.
fn has_offset(behind: &[u8]) -> bool {
    let behind = behind.trim_ascii_start();
    let digits = behind
        .strip_prefix(b"+")
        .is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit));
    digits || names_place(behind)
}

/// How much of what follows a call belongs to its frame.
fn place_length(behind: &[u8]) -> usize {
    let rest = behind.trim_ascii_start();
    let blank = behind.len() - rest.len();
    match place_in_file(rest) {
        Some(length) => blank + length,
        None if has_offset(rest) => {
            blank
                + rest
                    .iter()
                    .take_while(|byte| byte.is_ascii_graphic())
                    .count()
        }
        None => 0,
    }
}
