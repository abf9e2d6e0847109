//! YAML as people mistype it: which mistake it is, on which line, in a sentence of its own.

use super::lines::{Kind, Lines};

/// Something that is no YAML, or YAML that the file does not take. The sentence holds no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Counted from 1; `None` for the file as a whole.
    pub(super) line: Option<usize>,
    pub(super) text: &'static str,
}

impl Mistake {
    pub(super) fn on(line: usize, text: &'static str) -> Self {
        Self {
            line: Some(line),
            text,
        }
    }
}

pub(super) const ALIAS: &str = "a value that begins with * stands in quotes, such as \"*.example.com\"; without them it is an alias, and this file takes none: write the value out";
pub(super) const ANCHOR: &str = "a value that begins with & stands in quotes; without them it is an anchor, and this file takes none: write the value out wherever it is needed";
pub(super) const TAG: &str = "a value that begins with ! stands in quotes; without them it is a tag, and this file takes none";
pub(super) const MERGE_KEY: &str =
    "<< is a merge key, and this file takes none: write the keys out";
const TAB: &str = "a tab stands here for indentation; YAML takes only spaces";
const TOO_LARGE: &str = "the file is larger than 16 MiB; it holds rules, not data";
const EMPTY: &str = "the file is empty; it needs listeners, sites and routes";
const BYTE_ORDER_MARK: &str =
    "a byte order mark stands here, which editors do not show; save the file as UTF-8 without BOM";
const UTF_16: &str = "the file is UTF-16 text; save it as UTF-8 without BOM";
const NOT_UTF_8: &str = "this line is not UTF-8 text; save the file as UTF-8";
const CONTROL: &str =
    "this line holds a control character, which editors do not show; write the line anew";
const SECOND_DOCUMENT: &str =
    "a second document begins here (---); the file holds one: remove the line, or what follows it";
const OUTDENTED: &str = "this line begins further left than the first one; every key of the file's top level begins in the same column";
const RESERVED: [(char, &str); 3] = [
    ('@', "a value that begins with @ stands in quotes"),
    ('`', "a value that begins with a backtick stands in quotes"),
    ('%', "a value that begins with % stands in quotes"),
];
const DIRECTIVE: &str = "a line that begins with % is a directive of YAML, and this file needs none: remove it, or put the value in quotes";
const CANNOT_BEGIN: &str = "no value begins with this character; put the value in quotes";
const UNCLOSED_QUOTE: &str = "a quote is opened here and not closed on this line; close it (in single quotes, '' stands for one)";
const AFTER_QUOTE: &str = "something stands after the closing quote; put the whole value in quotes (in single quotes, '' stands for one)";
const AFTER_BRACKET: &str = "something stands after the closing bracket; begin the next key on a line of its own, or put the whole value in quotes";
const ESCAPE: &str = "a backslash in double quotes begins an escape that YAML does not know; use single quotes, where a backslash is a backslash";
const UNCLOSED_LIST: &str =
    "a [ is opened here that no ] closes, or a comma is missing after it; write [a, b]";
const UNCLOSED_MAP: &str =
    "a { is opened here that no } closes, or a comma is missing after it; write { a: b, c: d }";
const STRAY_BRACKET: &str =
    "a closing bracket stands here that nothing opened; remove it, or put the value in quotes";
const GLUED: &str = "a space is missing after the colon; write key: value";
const NO_COLON: &str = "this line is no key with its value; write key: value, or - value in a list";
const COLON_INSIDE: &str = "a value with a colon and a space in it stands in quotes";
const COLON_IN_FLOW: &str = "in [ ] and { } a value with a colon at its beginning or end stands in quotes, and a space follows the colon after a key";
const INDENTATION: &str = "the indentation does not fit the lines before it; keys of one map and elements of one list begin in the same column";
const DASH: &str = "a dash stands here where no list can begin; begin the list on a line of its own, or put the value in quotes";
const TEMPLATE: &str =
    "{{ }} of a template has not been filled in; fill it in, or put the value in quotes";
const BLOCK: &str = "a value that begins with | or > stands in quotes";
const TOO_DEEP: &str = "this is nested too deeply; nothing in this file is";
const UNKNOWN: &str = "this is not YAML that can be read; check the indentation and the quotes on this line and the one before it";

/// Largest file in bytes that is read.
pub(super) const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The text of a file, if it is text.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, Mistake> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Mistake::on(1, UTF_16));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        // What is valid up to there is text.
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        Mistake::on(line_of(&before, before.len()), NOT_UTF_8)
    })
}

/// What is wrong with a text before its structure is looked at.
pub(super) fn check_characters(text: &str) -> Result<(), Mistake> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Mistake {
            line: None,
            text: TOO_LARGE,
        });
    }
    for (at, character) in text.char_indices() {
        let what = match character {
            '\t' | '\n' | '\r' => continue,
            '\u{feff}' => BYTE_ORDER_MARK,
            // The last three end a line for one parser and not for another.
            _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => CONTROL,
            _ => continue,
        };
        let zeros = character == '\0' && text.bytes().filter(|byte| *byte == 0).count() > 1;
        return Err(Mistake::on(
            line_of(text, at),
            if zeros { UTF_16 } else { what },
        ));
    }
    let is_empty = lines(text).all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || matches!(line, "---" | "...")
    });
    if is_empty {
        return Err(Mistake {
            line: None,
            text: EMPTY,
        });
    }
    Ok(())
}

/// What was meant by a text that serde_yaml refuses with `error`.
pub(super) fn explain(text: &str, error: &serde_yaml::Error, found: &Lines) -> Mistake {
    let fault = Fault::of(text, error, found);
    let of_quotes = || fault.of_quotes();
    fault
        .quote_from_before()
        .and_then(|_| of_quotes())
        .or_else(|| fault.of_characters())
        .or_else(of_quotes)
        .or_else(|| fault.of_brackets())
        .or_else(|| fault.of_colons())
        .or_else(|| fault.of_shape())
        .unwrap_or(Mistake {
            line: fault.line,
            text: UNKNOWN,
        })
}

/// Where and why libyaml gave up. Its messages are fixed texts, and its words no longer change.
struct Fault<'a> {
    lines: Vec<&'a str>,
    message: String,
    line: Option<usize>,
    /// The character it did not take, and what stands before it on its line.
    character: Option<char>,
    before: &'a str,
    /// The line on which what it was reading begins.
    context: Option<usize>,
    found: &'a Lines,
}

impl<'a> Fault<'a> {
    fn of(text: &'a str, error: &serde_yaml::Error, found: &'a Lines) -> Self {
        let lines: Vec<&str> = lines(text).collect();
        let message = error.to_string();
        let at = error.location();
        let line = at.as_ref().map(serde_yaml::Location::line);
        let text = line
            .and_then(|line| lines.get(line - 1).copied())
            .unwrap_or_default();
        let column = at.map_or(0, |at| at.column() - 1);
        let byte = text
            .char_indices()
            .nth(column)
            .map_or(text.len(), |(at, _)| at);
        let context = message
            .rsplit_once(", while ")
            .and_then(|(_, context)| context.split_once(" at line "))
            .and_then(|(_, at)| at.split(' ').next()?.parse().ok());
        Self {
            character: text[byte..].chars().next(),
            before: &text[..byte],
            context: context.or(line),
            lines,
            message,
            line,
            found,
        }
    }

    fn says(&self, part: &str) -> bool {
        self.message.contains(part)
    }

    fn here(&self, text: &'static str) -> Option<Mistake> {
        Some(Mistake::on(self.line?, text))
    }

    fn at_context(&self, text: &'static str) -> Option<Mistake> {
        Some(Mistake::on(self.context?, text))
    }

    /// The text of a line, counted from 1.
    fn text(&self, line: usize) -> &'a str {
        line.checked_sub(1)
            .and_then(|index| self.lines.get(index).copied())
            .unwrap_or_default()
    }

    /// Characters that begin no value.
    fn of_characters(&self) -> Option<Mistake> {
        let text = self.text(self.line?);
        let indentation = &text[..text.len() - text.trim_start().len()];
        if indentation.contains('\t') {
            return self.here(TAB);
        }
        if self.says("scanning an alias") || self.says("unknown anchor") {
            return self.here(ALIAS);
        }
        if self.says("scanning an anchor") {
            return self.here(ANCHOR);
        }
        if self.says("tag") && !self.says("directive") || self.says("invalid type: enum") {
            return self.at_context(TAG);
        }
        if self.says("directive") {
            return self.at_context(DIRECTIVE);
        }
        if self.says("cannot start any token") {
            let character = self.character?;
            if character == '\t' {
                return self.here(TAB);
            }
            let reserved = RESERVED.iter().find(|(known, _)| *known == character);
            return self.here(reserved.map_or(CANNOT_BEGIN, |(_, text)| *text));
        }
        None
    }

    /// Quotes that are not closed, or closed too early.
    fn of_quotes(&self) -> Option<Mistake> {
        if self.says("escape character")
            || self.says("hexadecimal")
            || self.says("character escape")
        {
            return self.here(ESCAPE);
        }
        if self.says("scanning a quoted scalar") {
            return self.at_context(UNCLOSED_QUOTE);
        }
        let line = self.line?;
        if let Some(line) = self.quote_from_before() {
            return Some(Mistake::on(line, UNCLOSED_QUOTE));
        }
        if let Some((at, info)) = &self.found.fault {
            if info.starts_with("invalid indentation in quoted scalar") && *at <= line {
                return Some(Mistake::on(*at, UNCLOSED_QUOTE));
            }
            if info.starts_with("invalid trailing content") && *at == line {
                return self.here(AFTER_QUOTE);
            }
        }
        // A text in quotes that ends on this line began on an earlier one: most likely it took the
        // opening quote of another text for its closing one.
        match self.found.quoted {
            Some((first, last)) if first < last && last == line => {
                Some(Mistake::on(first, UNCLOSED_QUOTE))
            }
            _ => None,
        }
    }

    /// The line of a quote that took the opening quote right before the fault for its closing one.
    fn quote_from_before(&self) -> Option<usize> {
        let before = self.before.trim_end_matches([' ', '*', '&', '!']);
        let quote = before.chars().next_back()?;
        let is_odd = |text: &str| text.matches(quote).count() % 2 == 1;
        if !matches!(quote, '"' | '\'') || !is_odd(self.before) {
            return None;
        }
        let without_comment = |line| {
            let text = self.text(line);
            text.split(" #").next().unwrap_or(text)
        };
        (1..self.line?)
            .rev()
            .find(|line| is_odd(without_comment(*line)))
    }

    /// Brackets and braces.
    fn of_brackets(&self) -> Option<Mistake> {
        let stray = self.found.fault.as_ref().is_some_and(|(at, info)| {
            info.starts_with("misplaced bracket") && Some(*at) == self.line
        });
        if self.before.contains("{{") || self.text(self.context?).contains("{{") {
            return self.here(TEMPLATE);
        }
        if stray {
            return self.here(STRAY_BRACKET);
        }
        if self.says("unexpected ':'") || self.character == Some(':') && self.says("a flow node") {
            return self.here(COLON_IN_FLOW);
        }
        if self.says("a flow sequence") {
            return self.at_context(UNCLOSED_LIST);
        }
        if self.says("a flow mapping") {
            return self.at_context(UNCLOSED_MAP);
        }
        None
    }

    /// Colons without a space, without a key, or within a value.
    fn of_colons(&self) -> Option<Mistake> {
        let line = self.line?;
        if self.says("could not find expected ':'") {
            let context = self.context?;
            return self.at_context(if is_glued(self.text(context)) {
                GLUED
            } else {
                NO_COLON
            });
        }
        if !self.says("mapping values are not allowed") {
            return None;
        }
        if self.before.contains(": ") {
            return self.here(COLON_INSIDE);
        }
        let glued = self.glued_before(line);
        glued.or_else(|| self.here(INDENTATION))
    }

    /// The first of the lines directly before one that lack a space after their colon: YAML takes
    /// such a line for a text that goes on.
    fn glued_before(&self, line: usize) -> Option<Mistake> {
        let says_something = |line: &usize| {
            let text = self.text(*line).trim();
            !text.is_empty() && !text.starts_with('#')
        };
        let glued = (1..line)
            .rev()
            .filter(says_something)
            .take_while(|line| is_glued(self.text(*line)))
            .last();
        glued.map(|line| Mistake::on(line, GLUED))
    }

    /// Indentation, and whatever else is left.
    fn of_shape(&self) -> Option<Mistake> {
        if self.says("more than one document") {
            return self.second_document();
        }
        if self.says("recursion limit") {
            return self.here(TOO_DEEP);
        }
        if self.says("a block scalar") {
            return self.at_context(BLOCK);
        }
        let in_brackets = self.found.open.filter(|(_, line)| Some(*line) < self.line);
        if let Some((kind, line)) = in_brackets {
            let text = match kind {
                Kind::List => UNCLOSED_LIST,
                _ => UNCLOSED_MAP,
            };
            return Some(Mistake::on(line, text));
        }
        if self.says("block sequence entries are not allowed") {
            return self.here(DASH);
        }
        if self.says("did not find expected node content") {
            return self.here(CANNOT_BEGIN);
        }
        let structure = self.says("expected key") || self.says("'-' indicator");
        if structure && self.before.trim_end().ends_with([']', '}']) {
            return self.here(AFTER_BRACKET);
        }
        if structure && self.before.trim().is_empty() {
            let glued = self.glued_before(self.line?);
            return glued.or_else(|| self.here(INDENTATION));
        }
        None
    }

    /// A second document, or what the parser takes for the beginning of one.
    fn second_document(&self) -> Option<Mistake> {
        if let Some(line) = self.found.second_document {
            return Some(Mistake::on(line, SECOND_DOCUMENT));
        }
        let (line, info) = self.found.fault.as_ref()?;
        let text = if info.contains("expected <document start>") {
            OUTDENTED
        } else if info.starts_with("invalid trailing content") {
            AFTER_QUOTE
        } else {
            UNKNOWN
        };
        Some(Mistake::on(*line, text))
    }
}

/// Whether a line looks like `key:value`: no reference, no URL, and no address in a list.
pub(super) fn is_glued(line: &str) -> bool {
    let is_element = line.trim_start().starts_with('-');
    let text = line.trim_start_matches([' ', '-', '{']);
    let word = text
        .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.'))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(word);
    let Some(value) = rest.strip_prefix(':') else {
        return false;
    };
    let port = value.trim_end();
    let is_address = is_element && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let is_reference = matches!(word, "env" | "file");
    let is_url = value.starts_with("//");
    let is_key_alone = port.is_empty() || value.starts_with([' ', '\t']);
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && !(is_address || is_reference || is_url || is_key_alone)
}

/// The lines of a text, whatever ends them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\r')
    })
}

/// The line of a byte, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    lines(&text[..at]).count()
}

#[cfg(test)]
mod tests {
    use super::super::node::Node;
    use super::*;

    /// Asserts that a text has one mistake, on this line.
    #[track_caller]
    fn check(text: &str, line: usize, expected: &'static str) {
        let mistakes = Node::parse(text).expect_err(text);
        assert_eq!(mistakes, [Mistake::on(line, expected)], "{text:?}");
    }

    #[test]
    fn tabs() {
        check("a:\n\tb: 1\n", 2, TAB);
        check("a: x\n\tb: 1\n", 2, TAB);
        check("- a\n\t- b\n", 2, TAB);
        check("a:\n  b: 1\n\tc: 2\n", 3, TAB);
        check("a:\n  - x: 1\n \t  y: 2\n", 3, TAB);
        check("a:\n  - x: 1\n  \ty: 2\n", 3, TAB);
        check("\ta: 1\n", 1, TAB);
        check("-\ta: 1\n", 1, TAB);
        check("a:\r\n\tb: 1\r\n", 2, TAB);
        for text in [
            "a:\tb\n",
            "a: [x,\n\ty]\nb: c\n",
            "a: b\t# c\n",
            "a: 'b\tc'\n",
        ] {
            assert!(Node::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn aliases_anchors_tags_and_merge_keys() {
        for value in [
            "*",
            "*.x.com",
            "*foo",
            "*, b",
            "[*.x.com, b]",
            "[*]",
            "{b: *}",
        ] {
            check(&format!("x: 1\na: {value}\n"), 2, ALIAS);
        }
        check("a:\n  - b\n  - *\n", 3, ALIAS);
        check("*a: b\n", 1, ALIAS);
        for value in ["&", "& b", "&.x", "&x 1", "[&x b]", "{b: &x c}"] {
            check(&format!("x: 1\na: {value}\n"), 2, ANCHOR);
        }
        check("a: &x\n  b: 1\n", 1, ANCHOR);
        for value in [
            "!x b",
            "!!str 1",
            "!secret",
            "! b",
            "[!x]",
            "!<x",
            "!x!y b",
            "!x {b: 1}",
        ] {
            check(&format!("x: 1\na: {value}\n"), 2, TAG);
        }
        check("a: {<<: {b: 1}}\n", 1, MERGE_KEY);
        let all = Node::parse("a: &x {b: 1}\nc:\n  <<: *x\nd: !e f\n").unwrap_err();
        let lines: Vec<_> = all.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [Some(1), Some(3), Some(3), Some(4)], "{all:?}");
        for text in [
            "a: '*'\n",
            "a: b*c\n",
            "a: b & c\n",
            "a: b!\n",
            "a: \"!x\"\n",
        ] {
            assert!(Node::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn characters_that_begin_no_value() {
        check("a: @x\n", 1, RESERVED[0].1);
        check("a: [b, @x]\n", 1, RESERVED[0].1);
        check("@a: 1\n", 1, RESERVED[0].1);
        check("a: 1\nb: `x`\n", 2, RESERVED[1].1);
        check("a: %x\n", 1, RESERVED[2].1);
        check("- %x\n", 1, RESERVED[2].1);
        check("%x\na: 1\n", 1, DIRECTIVE);
        check("a: ,x\n", 1, CANNOT_BEGIN);
        check("a: |x\n", 1, BLOCK);
        check("a: >x\n", 1, BLOCK);
        check("a: -\n", 1, DASH);
        check("a: ]\n", 1, STRAY_BRACKET);
        check("a: [::1, b]\n", 1, COLON_IN_FLOW);
        check("a: {b:}\n", 1, COLON_IN_FLOW);
    }

    #[test]
    fn quotes() {
        for quote in ['"', '\''] {
            check(&format!("a: 1\nb: {quote}x\nc: 1\n"), 2, UNCLOSED_QUOTE);
            check(
                &format!("a: {quote}x\nb: {quote}y{quote}\nc: 1\n"),
                1,
                UNCLOSED_QUOTE,
            );
            check(&format!("a:\n  - {quote}x\n  - y\n"), 2, UNCLOSED_QUOTE);
            check(
                &format!("a: [{quote}x, y]\nb: {quote}z{quote}\n"),
                1,
                UNCLOSED_QUOTE,
            );
            check(
                &format!("a: {{ b: {quote}x, c: y }}\nd: e\n"),
                1,
                UNCLOSED_QUOTE,
            );
            check(&format!("a: {quote}x{quote} y\nb: 1\n"), 1, AFTER_QUOTE);
            check(&format!("a: {quote}b{quote}c\n"), 1, AFTER_QUOTE);
        }
        check("a: \"=crm\n    b: 2\n  c: 3\nd: \"0\"\n", 1, UNCLOSED_QUOTE);
        check("a: 'it's'\nb: 2\n", 1, AFTER_QUOTE);
        check("# it's\na: 'x\n  b: y\n  c: 'z'\n", 2, UNCLOSED_QUOTE);
        check("a: \"x\n  b: [\"*.y\"]\n", 1, UNCLOSED_QUOTE);
        check("a: \"C:\\data\"\n", 1, ESCAPE);
        check("a: \"\\x\"\n", 1, ESCAPE);
        assert!(Node::parse("a: 'C:\\data'\nb: x\"\nc: 'it''s'\n").is_ok());
    }

    #[test]
    fn brackets() {
        check("a: 1\nb: [x\nc: 1\n", 2, UNCLOSED_LIST);
        check("a: [x, y\n", 1, UNCLOSED_LIST);
        check("a: [x, y\nb: [c]\nd: 1\n", 1, UNCLOSED_LIST);
        check("r:\n  - a: [x\n  - b: 1\n", 2, UNCLOSED_LIST);
        check("a: [x}\n", 1, UNCLOSED_LIST);
        check("a: {b: c\nd: 1\n", 1, UNCLOSED_MAP);
        check("a: {b: {c: d}\ne: f\n", 1, UNCLOSED_MAP);
        check("a: {b: c]\n", 1, UNCLOSED_MAP);
        check("a: {b: c\n- d\n", 1, UNCLOSED_MAP);
        check("a: [x]]\n", 1, STRAY_BRACKET);
        check("a: {{ x }}/y\n", 1, TEMPLATE);
        check("a: [b]c\n", 1, AFTER_BRACKET);
        check("a: {b: c} d: e\n", 1, AFTER_BRACKET);
        check("a: [b\nc: d\ne:\n  - f\n", 1, UNCLOSED_LIST);
        check("a: [\ne:\n  - f\n", 1, UNCLOSED_LIST);
        check("a: {\n- e\n", 1, UNCLOSED_MAP);
    }

    #[test]
    fn colons() {
        check("a:1\nb: 2\n", 1, GLUED);
        check("b: 2\na:x\n", 2, GLUED);
        check("b: 2\na:x\nc: 3\n", 2, GLUED);
        check("s:\n  a:\n    u:https://x\n    d: t\n", 3, GLUED);
        check("- name:crm\n  site: acme\n", 1, GLUED);
        check("- name:crm\n  # why\n  site:acme\n  x: y\n", 1, GLUED);
        check("a:[x]\nb: 1\n", 1, GLUED);
        check("a:\"x\"\nb: 1\n", 1, GLUED);
        check("a: 1\nb\nc: 2\n", 2, NO_COLON);
        check("a:\n- x\nb\n", 3, NO_COLON);
        check("a: b: c\n", 1, COLON_INSIDE);
        for (line, expected) in [
            ("  - name:crm", true),
            ("url:x", true),
            ("  retries:2", true),
            ("{ mount:/crm", true),
            ("  url: x", false),
            ("- https://x", false),
            ("- env:KEY", false),
            ("- localhost:8080", false),
            ("key:", false),
            ("a b", false),
            ("::1", false),
        ] {
            assert_eq!(is_glued(line), expected, "{line}");
        }
    }

    #[test]
    fn indentation() {
        check("a: 1\n  b: 2\n", 2, INDENTATION);
        check("a:\n  b: 1\n c: 2\n", 3, INDENTATION);
        check("a:\n    b: 1\n  c: 2\n", 3, INDENTATION);
        check("a:\n  - x\n - y\n", 3, INDENTATION);
        check("a:\n  b: 1\n   c: 2\n", 3, INDENTATION);
        check("- a\nb: 1\n", 2, INDENTATION);
        check("  a: 1\nb: 2\n", 2, OUTDENTED);
        let deep = format!("a: {}{}\n", "[".repeat(500), "]".repeat(500));
        assert_eq!(Node::parse(&deep).unwrap_err()[0].text, TOO_DEEP);
    }

    #[test]
    fn documents_and_marks() {
        check("---\na: 1\n---\nb: 2\n", 3, SECOND_DOCUMENT);
        check("a: 1\n---\n", 2, SECOND_DOCUMENT);
        check("a: 1\n...\nb: 2\n", 3, SECOND_DOCUMENT);
        check("\u{feff}a: 1\n", 1, BYTE_ORDER_MARK);
        check("a: 1\n\u{feff}b: 2\n", 2, BYTE_ORDER_MARK);
        check("a: 1\nb: \u{7}\n", 2, CONTROL);
        check("a: 1\r\nb: x\0\r\n", 2, CONTROL);
        check("a: x\u{2028}b: 2\n", 1, CONTROL);
        check("a: x\u{85}b: 2\n", 1, CONTROL);
        check("a\0:\0 \0b\0", 1, UTF_16);
        for text in ["---\na: 1\n", "a: 1\n...\n", "%YAML 1.1\n---\na: 1\n"] {
            assert!(Node::parse(text).is_ok(), "{text:?}");
        }
        for text in ["", "\n  \n", "# x\n", "  # x\n---\n", "---\n...\n"] {
            let empty = Mistake {
                line: None,
                text: EMPTY,
            };
            assert_eq!(Node::parse(text).unwrap_err(), [empty], "{text:?}");
        }
    }

    #[test]
    fn bytes() {
        let check = |bytes: &[u8], line: usize, expected| {
            assert_eq!(
                decode(bytes.to_vec()),
                Err(Mistake::on(line, expected)),
                "{bytes:?}"
            );
        };
        check(b"a: 1\nb: caf\xe9\nc: 2\n", 2, NOT_UTF_8);
        check(b"\x80", 1, NOT_UTF_8);
        check(b"a: 1\r\nb: 1\r\n\xe2\x82", 3, NOT_UTF_8);
        check(b"\xff\xfea\0:\0", 1, UTF_16);
        check(b"\xfe\xff\0a\0:", 1, UTF_16);
        let mut long = "a: 1\n# ".to_owned();
        long.extend(std::iter::repeat_n('#', FILE_BYTES_MAX - long.len()));
        assert!(Node::parse(&long).is_ok());
        long.push('#');
        assert_eq!(Node::parse(&long).unwrap_err()[0].text, TOO_LARGE);
    }

    /// One slip of the finger anywhere: what is no YAML then is told with a line of the file, and with
    /// a sentence that says more than that.
    #[test]
    fn every_slip_has_a_sentence_and_a_line() {
        const FILE: &str = include_str!("../../tests/fixtures/config/good/plain.yaml");
        let typed = [
            "\"", "'", "[", "]", "{", "}", ":", ": ", "- ", "*", "&", "!", "@", "`", "%", "\t",
            "#", ",", "|", "\n", " ", "?", "\\",
        ];
        let (mut told, mut unknown) = (0, Vec::new());
        for (at, _) in FILE.char_indices() {
            let (before, after) = FILE.split_at(at);
            let without = format!("{before}{}", &after[1..]);
            let slips = typed.iter().map(|typed| format!("{before}{typed}{after}"));
            for text in slips.chain([without]) {
                for mistake in Node::parse(&text).err().into_iter().flatten() {
                    told += 1;
                    let line = mistake
                        .line
                        .unwrap_or_else(|| panic!("{}: {text}", mistake.text));
                    assert!((1..=lines(&text).count()).contains(&line), "{text}");
                    if mistake.text == UNKNOWN {
                        unknown.push(lines(&text).nth(line - 1).map(str::to_owned));
                    }
                }
            }
        }
        assert!(told > 4_000, "{told}");
        assert!(unknown.len() * 100 < told, "{told}: {unknown:#?}");
    }

    /// Each sentence says something of its own.
    #[test]
    fn no_two_mistakes_share_a_sentence() {
        let all = [
            ALIAS,
            ANCHOR,
            TAG,
            MERGE_KEY,
            TAB,
            BYTE_ORDER_MARK,
            UTF_16,
            NOT_UTF_8,
            CONTROL,
            SECOND_DOCUMENT,
            OUTDENTED,
            DIRECTIVE,
            CANNOT_BEGIN,
            UNCLOSED_QUOTE,
            AFTER_QUOTE,
            AFTER_BRACKET,
            ESCAPE,
            UNCLOSED_LIST,
            UNCLOSED_MAP,
            STRAY_BRACKET,
            GLUED,
            NO_COLON,
            COLON_INSIDE,
            COLON_IN_FLOW,
            INDENTATION,
            DASH,
            TEMPLATE,
            BLOCK,
            TOO_DEEP,
            UNKNOWN,
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
