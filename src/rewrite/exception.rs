//! Whether an error answer holds a stack trace: the classes, files and versions behind a site.
//!
//! A trace is one of three things: a field that is named so and holds something (`<stacktrace>`,
//! `"stackTrace": …`, `s:10:"stacktrace";…`), the frames of one (`at A.B (C) in file:line 7`, or two in
//! a row), or the line that tools print around one (`Traceback (most recent call last)`). An error that
//! names an exception's class, or mentions such words in a sentence, holds none.
//!
//! The same text is looked at as it is, without its tags, and with one layer of escaping after the other
//! taken off, so that no form of document and no depth of quoting hides it.

mod call;
mod plain;

use memchr::{memchr, memchr_iter, memmem};

use self::call::Call;
pub(super) use self::plain::unescaped;
use self::plain::without_tags;

/// Layers of escaping that are taken off: a document within a document within a page.
const ESCAPINGS_MAX: usize = 4;

/// Longest name of a field, longest tag, longest list of a call's arguments, and how far a heading is
/// from what it stands over.
const NAME_BYTES_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 1024;
const CALL_BYTES_MAX: usize = 512;
const HEADING_BYTES: usize = 2048;

/// Whether a text, in any form an error may have, holds a stack trace.
pub fn holds_trace(text: &[u8]) -> bool {
    let mut view = without_marks(text);
    for _ in 0..=ESCAPINGS_MAX {
        if shows_trace(&view) || shows_trace(&without_tags(&view)) {
            return true;
        }
        let plainer = unescaped(&view);
        if plainer == view {
            break;
        }
        view = plainer;
    }
    false
}

/// A text without NUL and the bytes of byte order marks: so UTF-16 and UTF-32 read as ASCII does.
pub(super) fn without_marks(text: &[u8]) -> Vec<u8> {
    let is_letter = |byte: &u8| !matches!(byte, 0 | 0xfe | 0xff | 0xef | 0xbb | 0xbf);
    text.iter().copied().filter(is_letter).collect()
}

fn shows_trace(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    has_frames(text) || has_marker(&lower) || has_field(text, &lower)
}

/// What tools print around a trace, in lower case.
const MARKERS: [&str; 6] = [
    "traceback (most recent call last)",
    "--- end of inner exception stack trace",
    "--- end of stack trace",
    "--- end of managed stack trace",
    "[clr: managed stack ends]",
    "[running]:\n",
];

fn has_marker(lower: &[u8]) -> bool {
    let has = |marker: &&str| memmem::find(lower, marker.as_bytes()).is_some();
    MARKERS.iter().any(has) || is_debugging_page(lower) || has_heading(lower)
}

/// What ASP.NET shows in place of a page: `Server Error in '/' Application.`
fn is_debugging_page(lower: &[u8]) -> bool {
    memmem::find_iter(lower, b"server error in '").any(|at| {
        let rest = window(lower, at + 17, NAME_BYTES_MAX * 4);
        memmem::find(rest, b"' application").is_some()
    })
}

/// A line that begins `Stack trace:`, over calls.
fn has_heading(lower: &[u8]) -> bool {
    ["stack trace:", "stacktrace:", "stack trace\n"]
        .iter()
        .any(|heading| {
            memmem::find_iter(lower, heading).any(|at| {
                let below = window(lower, at + heading.len(), HEADING_BYTES);
                begins_line(lower, at)
                    && (memmem::find(below, b"#0 ").is_some() || Call::all(below).next().is_some())
            })
        })
}

/// Whether only white space stands between a place and the beginning of its line or text.
fn begins_line(text: &[u8], at: usize) -> bool {
    let before = &text[at.saturating_sub(NAME_BYTES_MAX)..at];
    let line = before
        .rsplit(|byte| matches!(byte, b'\n' | b'"' | b'>'))
        .next();
    line.is_some_and(|line| line.trim_ascii().is_empty())
}

/// Whether a field named as a trace holds something, or one named as a part of a trace a frame.
fn has_field(text: &[u8], lower: &[u8]) -> bool {
    ["trace", "stack", "frame"].iter().any(|word| {
        memmem::find_iter(lower, word).any(|at| {
            let Some((name, value)) = field_around(lower, at) else {
                return false;
            };
            let name: Vec<u8> = name
                .iter()
                .copied()
                .filter(u8::is_ascii_alphanumeric)
                .collect();
            let has = |part: &str| memmem::find(&name, part.as_bytes()).is_some();
            if has("stacktrace") || has("backtrace") {
                return holds_something(&lower[value..]);
            }
            let is_part = matches!(
                &*name,
                b"trace"
                    | b"stack"
                    | b"callstack"
                    | b"frame"
                    | b"frames"
                    | b"stackframe"
                    | b"stackframes"
            );
            is_part && begins_with_frame(window(text, value, HEADING_BYTES))
        })
    })
}

/// The name of an element, an attribute or a key that a word at `at` belongs to, and where its value
/// begins; `None` where the word is not in a name's place.
fn field_around(text: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let before = &text[at.saturating_sub(NAME_BYTES_MAX)..at];
    let start = at
        - before
            .iter()
            .rev()
            .take_while(|byte| is_of_name(byte))
            .count();
    let after = window(text, at, NAME_BYTES_MAX);
    let end = at + after.iter().take_while(|byte| is_of_name(byte)).count();
    let name = &text[start..end];
    let rest = &text[end..];
    let skipped = |bytes: &[u8]| bytes.len() - bytes.trim_ascii_start().len();
    match text[..start].last() {
        Some(b'<' | b':') if is_element(&text[..start]) => {
            let close = memchr(b'>', window(rest, 0, TAG_BYTES_MAX))?;
            let is_empty = rest[..close].ends_with(b"/");
            (!is_empty).then_some((name, end + close + 1))
        }
        Some(quote @ (b'"' | b'\'')) => {
            let after = rest.strip_prefix(&[*quote])?;
            let blank = skipped(after);
            // `:` of JSON, `=>` and `=` of programs, `;` of serialized PHP.
            let sign = after.get(blank)?;
            let is_key = b":=;".contains(sign);
            is_key.then_some((name, end + 1 + blank + 1))
        }
        Some(byte) if byte.is_ascii_whitespace() => {
            let blank = skipped(rest);
            let value = rest.get(blank..)?.strip_prefix(b"=")?;
            let quoted = value.trim_ascii_start().first();
            let is_attribute = matches!(quoted, Some(b'"' | b'\''));
            is_attribute.then_some((name, end + blank + 1))
        }
        _ => None,
    }
}

/// Whether what ends a text opens an element: `<`, or `<` and a prefix.
fn is_element(before: &[u8]) -> bool {
    let prefix = before.strip_suffix(b":").unwrap_or(before);
    let prefix = &prefix[prefix.len().saturating_sub(NAME_BYTES_MAX)..];
    let length = prefix
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte))
        .count();
    prefix[..prefix.len() - length].ends_with(b"<")
}

/// Whether a value, in lower case, is more than a way to write nothing. One that is cut off counts.
fn holds_something(value: &[u8]) -> bool {
    const NOTHING: [&[u8]; 9] = [
        b"</", b"\"\"", b"''", b"[]", b"{}", b"n;", b"s:0:", b"a:0:", b"b:0",
    ];
    const WORDS: [&[u8]; 4] = [b"null", b"none", b"nil", b"false"];
    let mut value = value.trim_ascii_start();
    while let Some(rest) = value
        .strip_prefix(b"<![cdata[")
        .or_else(|| value.strip_prefix(b"]]>"))
    {
        value = rest.trim_ascii_start();
    }
    let length = value
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric())
        .count();
    let is_word = WORDS.contains(&&value[..length]) && !value[length..].starts_with(b".");
    let beginning = window(value, 0, 16).iter().copied();
    let bare: Vec<u8> = beginning
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    !is_word && !NOTHING.iter().any(|nothing| bare.starts_with(nothing))
}

fn begins_with_frame(value: &[u8]) -> bool {
    Call::all(value)
        .find(|call| call.is_after_word)
        .is_some_and(|call| is_gap(&value[..call.start]))
}

/// Whether there is a frame that says where in a file it is, or two in a row.
fn has_frames(text: &[u8]) -> bool {
    let mut last_end = None;
    for call in Call::all(text) {
        let follows =
            last_end.is_some_and(|end| call.start >= end && is_gap(&text[end..call.start]));
        if call.is_located || follows {
            return true;
        }
        last_end = Some(call.end);
    }
    has_script_frame(text)
}

/// Frames of PHP and Python: `#0 /a/b.php(12): f()`, `File "/a/b.py", line 12, in f`.
fn has_script_frame(text: &[u8]) -> bool {
    let digits_then = |bytes: &[u8], then: &[u8]| {
        let count = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        count > 0 && bytes[count..].starts_with(then)
    };
    let is_php = |at: usize| {
        let line = window(text, at, CALL_BYTES_MAX);
        memchr_iter(b'(', line).any(|open| digits_then(&line[open + 1..], b"): "))
    };
    let is_python = |at: usize| {
        let line = window(text, at, CALL_BYTES_MAX);
        memmem::find(line, b"\", line ")
            .is_some_and(|found| digits_then(&line[found + 8..], b", in "))
    };
    memmem::find_iter(text, b"#0 ").any(is_php)
        || memmem::find_iter(text, b"File \"").any(|at| begins_line(text, at) && is_python(at))
}

/// What may stand between two frames: white space, the punctuation and numbers of a list in any form.
fn is_gap(between: &[u8]) -> bool {
    let is_sign = |byte: &u8| !byte.is_ascii_alphabetic() && byte.is_ascii();
    between.len() <= NAME_BYTES_MAX
        && between.iter().enumerate().all(|(index, byte)| {
            // `s:12:"` and `i:1;` of serialized PHP.
            is_sign(byte) || between.get(index + 1) == Some(&b':')
        })
}

fn window(text: &[u8], from: usize, length: usize) -> &[u8] {
    let rest = text.get(from..).unwrap_or_default();
    &rest[..rest.len().min(length)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: &str =
        "   at MindTouch.Deki.Logic.PageBL.Get (System.UInt32 id) [0x0001c] in <5a2b>:0";
    const DREAM: &str = "<exception><type>System.NullReferenceException</type><message>no</message><source>mindtouch.deki</source>\
<stacktrace><frame>at MindTouch.Deki.PageDA.GetById(UInt32 id)</frame></stacktrace></exception>";

    fn held(text: &str) {
        assert!(holds_trace(text.as_bytes()), "{text}");
        let utf16: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect();
        assert!(holds_trace(&utf16), "in UTF-16: {text}");
        let quoted = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        assert!(
            holds_trace(format!("{{\"error\":\"{quoted}\"}}").as_bytes()),
            "quoted: {text}"
        );
        let escaped = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;");
        assert!(
            holds_trace(format!("<pre>{escaped}</pre>").as_bytes()),
            "escaped: {text}"
        );
    }

    fn passes(text: &str) {
        assert!(!holds_trace(text.as_bytes()), "{text}");
    }

    #[test]
    fn documents_of_exceptions() {
        held(DREAM);
        for other in [
            DREAM.replace("stacktrace", "StackTrace"),
            DREAM.replace("<stacktrace>", "<stacktrace\n\tcount = '1' >\n"),
            DREAM
                .replace("<stacktrace>", "<d:stacktrace xmlns:d=\"x\">")
                .replace("</stacktrace>", "</d:stacktrace>"),
            DREAM
                .replace("<frame>at ", "<frame><![CDATA[at ")
                .replace(")</frame>", ")]]></frame>"),
            DREAM
                .replace("<stacktrace>", "")
                .replace("</stacktrace>", ""),
            DREAM
                .replace("<frame>at ", "<frame>")
                .replace("</frame>", ""),
            DREAM.replace("at ", "&#97;&#x74;&#32;"),
            "<stack-trace>x</stack-trace>".to_owned(),
            "<b:backTrace>x</b:backTrace>".to_owned(),
            "<e stackTrace = 'x'/>".to_owned(),
            r#"{"@type":"System.Exception","stacktrace":{"frame":["at A.B(C)"]}}"#.to_owned(),
            r#"{ "StackTraceString" :"x"}"#.to_owned(),
            r#"{"stack_trace":["x"]}"#.to_owned(),
            r#"{"\u0073tack\u0054race":"x"}"#.to_owned(),
            r#"{"frame":"at MindTouch.Deki.PageDA.GetById(UInt32 id)"}"#.to_owned(),
            r#"{"frame":["at A.B(C)","x"]}"#.to_owned(),
            r#"{"e":"<stacktrace>x<\/stacktrace>"}"#.to_owned(),
            r#"a:1:{s:10:"stacktrace";a:1:{s:5:"frame";s:9:"at A.B(C)";}}"#.to_owned(),
            r#"a:1:{s:5:"frame";a:2:{i:0;s:9:"at A.B(C)";i:1;s:9:"at D.E(F)";}}"#.to_owned(),
        ] {
            held(&other);
        }
        assert!(holds_trace(b"<stacktrace>"), "what is cut off counts");
    }

    #[test]
    fn frames() {
        for text in [
            FRAME,
            "   at A.B.C(String d) in C:\\src\\new\\a.cs:line 12",
            "at A.B(C) in /src/a.cs:12",
            "x   bei A.B.C(String d) in C:\\a.cs:Zeile 12",
            "at A.B()\r\n   at C.D(E f)",
            "at A.B() at C.D(E f)",
            "at A.B()<br/>at C.D(E f)",
            "<li>at <b>A</b>.B()</li><li>at\u{a0}C.D(E f)</li>",
            "at A.<B>c__1.D(E f)\nat F.G`1[H].I()",
            "[\"at A.B()\",\n \"at C.D()\"]",
            "java.lang.Error: x\n\tat java.base/java.lang.Thread.run(Thread.java:829)",
            "\tat com.acme.A$1.<init>(A.java:3)",
            "\tat sun.reflect.A.invoke0(Native Method)",
            "Error\n    at handle (/srv/app.js:10:5)",
            "    at Object.<anonymous> (C:\\app.js:10:5)",
            "Traceback (most recent call last):\n  File",
            "\n  File \"/srv/a.py\", line 12, in b",
            "#0 /srv/a.php(12): b()\n#1 {main}",
            "   --- End of inner exception stack trace ---",
            "Stack Trace:</b> <pre>[NullReferenceException: no]\n   ASP.x.Load(Object s) +12",
            "ASP.default_aspx.Page_Load(Object s) +12\n System.Web.UI.Control.LoadRecursive() +71",
            "<h1>Server Error in '/' Application.<hr></h1>",
            "<h1>Server Error in '/a b' Application.</h1>",
            "<!-- [HttpException]: no\n at A.B()\n at C.D() -->",
            "{\"trace\":\"a.B: no\\n\\tat a.b.C.d(E.java:1)\"}",
            "\u{1}at A.B(C) [0x00012] in <f>:0",
        ] {
            held(text);
        }
    }

    #[test]
    fn ordinary_errors() {
        for text in [
            "",
            "<error><exception>MindTouch.Deki.Exceptions.NotFoundException</exception><resource>System.API.Error.page</resource>\
<arguments count=\"1\"><argument>page</argument></arguments><message>The page was not found</message></error>",
            r#"{"exception":"MindTouch.Deki.Exceptions.NotFoundException","message":"at System.API"}"#,
            "<error><status>400</status><title>Bad Request</title><message>at System</message><uri>http://a/b(c)</uri></error>",
            "The page at System.Web.Foo (see there) was moved",
            "Failed at A.B(C); ask the operator",
            "<message>at MindTouch.Deki.PageDA.GetById(UInt32 id)</message>",
            "Meet us at example.com (main entrance), or at example.org (side entrance)",
            "at example.com (Berlin) in 2024: 5 errors",
            "Stack trace: not available",
            "No stack trace: ask for one",
            "Read about stack traces at https://a.test/(x)",
            "Your stacktrace, please.",
            r#"{"message":"what is a stacktrace?","stack":"full"}"#,
            r#"{"stackTrace":null,"StackTrace":"","stack_trace":[ ],"stacktrace": {}}"#,
            "<stacktrace/><stacktrace /><stacktrace></stacktrace><stacktrace>\n <![CDATA[]]></stacktrace>",
            r#"a:1:{s:10:"stacktrace";N;}"#,
            r#"a:1:{s:10:"stacktrace";s:0:"";}"#,
            "<frameset><frame src=\"a.html\"><frame>at home (x)</frame></frameset>",
            "Error in '/' Application",
            "#0 is the first (12) of them",
            "a.b.c(d) + 12",
            "call a.b.c(d) +12, please",
            "f(x) at g(y) at h(z)",
        ] {
            passes(text);
        }
    }

    #[test]
    fn the_window_may_end_anywhere() {
        let text = format!("{DREAM}\n{FRAME}\n&#97;\\u0041");
        for end in 0..text.len() {
            holds_trace(&text.as_bytes()[..end]);
        }
    }

    #[test]
    fn odd_texts_come_to_an_end() {
        for piece in [
            "(",
            "a.b(",
            "at a.b(",
            "<",
            "<a",
            "&",
            "\\",
            "\\\\u",
            "trace",
            "<stacktrace",
            "\"stack\"",
            "#0 (1",
            "in :",
            "stack trace:",
        ] {
            holds_trace(&piece.repeat((64 << 10) / piece.len()).into_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            holds_trace(&bytes);
        }

        #[test]
        fn nor_do_pieces_of_traces(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "at ", "A.B", "(", ")", " in ", ":line 1", "[0x", "<", ">", "/", "stack", "trace", "frame", "\"", ":", ";",
                "&lt;", "&#", "\\u00", "73", "\n", " ", "s:0:", "![CDATA[", "]]", "é", "#0 ", "File \"", ", line ", "+1",
            ]), 0..40),
        ) {
            holds_trace(pieces.concat().as_bytes());
        }
    }
}
