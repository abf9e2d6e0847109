//! One event as one line: JSON for machines, text for people.
//!
//! Whatever a value holds, a line stays one line and shows what is in it: control characters (C0, DEL
//! and C1) and those that reorder or break text are written as escapes. Nothing here can fail or
//! panic.

use std::fmt::{self, Write};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::telemetry::TARGET;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Style {
    /// An object with `timestamp`, `level`, the event's fields with `message` first, and `target`.
    Json,
    /// Time, level, message and `key=value`.
    Text {
        /// Whether it goes to a terminal that shows colours.
        coloured: bool,
    },
}

/// A line in the making.
pub(super) struct Line<'a> {
    bytes: &'a mut Vec<u8>,
    style: Style,
    /// Whether the value at hand is a message for people, which stands without quotation marks.
    is_prose: bool,
    /// Whether what was written of it so far needs quotation marks in text.
    quoted: bool,
}

impl<'a> Line<'a> {
    /// Appends an event.
    pub(super) fn write(bytes: &'a mut Vec<u8>, style: Style, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Self::begin(bytes, style, SystemTime::now(), *metadata.level());
        event.record(&mut line);
        line.end(metadata.target());
    }

    /// Appends the event that says how many lines were lost.
    pub(super) fn write_lost(bytes: &'a mut Vec<u8>, style: Style, lost: u64) {
        let mut line = Self::begin(bytes, style, SystemTime::now(), Level::WARN);
        line.string(
            MESSAGE,
            "log lines lost: they came faster than they were read",
        );
        line.number("lines", lost);
        line.end(TARGET);
    }

    fn begin(bytes: &'a mut Vec<u8>, style: Style, at: SystemTime, level: Level) -> Self {
        match style {
            Style::Json => {
                bytes.extend_from_slice(b"{\"timestamp\":\"");
                bytes.extend_from_slice(&timestamp(at));
                bytes.extend_from_slice(b"\",\"level\":\"");
                bytes.extend_from_slice(level.as_str().as_bytes());
                bytes.push(b'"');
            }
            Style::Text { coloured } => {
                let (dim, colour, plain) = if coloured {
                    (DIM, colour(level), PLAIN)
                } else {
                    ("", "", "")
                };
                bytes.extend_from_slice(dim.as_bytes());
                bytes.extend_from_slice(&timestamp(at));
                bytes.extend_from_slice(plain.as_bytes());
                bytes.push(b' ');
                if level.as_str().len() < 5 {
                    bytes.push(b' ');
                }
                bytes.extend_from_slice(colour.as_bytes());
                bytes.extend_from_slice(level.as_str().as_bytes());
                bytes.extend_from_slice(plain.as_bytes());
            }
        }
        Self {
            bytes,
            style,
            is_prose: false,
            quoted: false,
        }
    }

    fn end(mut self, target: &str) {
        if self.style == Style::Json {
            self.string("target", target);
            self.bytes.push(b'}');
        }
        self.bytes.push(b'\n');
    }

    /// Names are written as they are: only this program's events are, whose fields are identifiers.
    fn key(&mut self, name: &str) {
        match self.style {
            Style::Json => {
                self.bytes.extend_from_slice(b",\"");
                self.bare(name);
                self.bytes.extend_from_slice(b"\":");
            }
            Style::Text { .. } if name == MESSAGE => self.bytes.push(b' '),
            Style::Text { coloured } => {
                self.bytes.push(b' ');
                if coloured {
                    self.bytes.extend_from_slice(DIM.as_bytes());
                }
                self.bare(name);
                self.bytes.push(b'=');
                if coloured {
                    self.bytes.extend_from_slice(PLAIN.as_bytes());
                }
            }
        }
    }

    fn number(&mut self, name: &str, number: impl itoa::Integer) {
        self.key(name);
        self.bare(itoa::Buffer::new().format(number));
    }

    fn bare(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, name: &str, text: &str) {
        self.value(name, |line| line.escape(text));
    }

    /// A value that is text, written by `write` through [`Self::escape`].
    fn value(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.key(name);
        if self.style == Style::Json {
            self.bytes.push(b'"');
            write(self);
            self.bytes.push(b'"');
            return;
        }
        let start = self.bytes.len();
        self.is_prose = name == MESSAGE;
        self.quoted = false;
        write(self);
        if !self.is_prose && (self.quoted || self.bytes.len() == start) {
            self.bytes.insert(start, b'"');
            self.bytes.push(b'"');
        }
        self.is_prose = false;
    }

    /// Appends text with escapes for what must not stand in a line as it is.
    fn escape(&mut self, text: &str) {
        if is_plain(text.as_bytes(), self.style) {
            self.bare(text);
            return;
        }
        for character in text.chars() {
            let escaped: &[u8] = match character {
                '"' if !self.is_prose => b"\\\"",
                '\\' => b"\\\\",
                '\n' => b"\\n",
                '\r' => b"\\r",
                '\t' => b"\\t",
                hidden if is_hidden(hidden) => {
                    self.quoted = true;
                    let escaped = format_args!("\\u{:04x}", u32::from(hidden));
                    // A vector takes everything.
                    drop(io::Write::write_fmt(self.bytes, escaped));
                    continue;
                }
                shown => {
                    self.quoted |= shown.is_whitespace() || shown == '=';
                    let mut bytes = [0; 4];
                    self.bytes
                        .extend_from_slice(shown.encode_utf8(&mut bytes).as_bytes());
                    continue;
                }
            };
            self.quoted = true;
            self.bytes.extend_from_slice(escaped);
        }
    }
}

impl Visit for Line<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() {
            self.key(field.name());
            drop(io::Write::write_fmt(self.bytes, format_args!("{value}")));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field.name());
        self.bare(if value { "true" } else { "false" });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field.name(), |line| {
            // What a type cannot say of itself is left out.
            let _ = write!(line, "{value:?}");
        });
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.escape(text);
        Ok(())
    }
}

/// Whether text may stand in a line without a closer look: visible ASCII that has no meaning in it,
/// and spaces where quotation marks are there anyway.
fn is_plain(text: &[u8], style: Style) -> bool {
    let visible = |byte: u8| (byte > b' ') & (byte < 0x7f) & (byte != b'"') & (byte != b'\\');
    // Neither ends early, so that many bytes are looked at at once.
    if style == Style::Json {
        text.iter()
            .fold(true, |all, &byte| all & (visible(byte) | (byte == b' ')))
    } else {
        text.iter()
            .fold(true, |all, &byte| all & visible(byte) & (byte != b'='))
    }
}

/// Whether a character acts instead of showing itself: controls, line separators, and those that turn
/// the direction of text around. All of them have four hexadecimal digits.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(at: SystemTime) -> [u8; 27] {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(END_OF_9999);
    let (year, month, day) = civil(seconds / 86_400);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (place, number) in [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, seconds / 3600 % 24),
        (14..16, seconds / 60 % 60),
        (17..19, seconds % 60),
        (20..26, u64::from(since.subsec_micros())),
    ] {
        let mut rest = number;
        for digit in text.get_mut(place).into_iter().flatten().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    text
}

/// Year, month and day of a day after 1970-01-01, as in Hinnant's "chrono-compatible low-level date
/// algorithms": years that begin in March, in eras of 400 of them.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[34m",
    }
}

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The field that `tracing` gives the message to.
const MESSAGE: &str = "message";

/// The last second that has a year of four digits.
const END_OF_9999: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::{error, info, warn};

    use super::*;

    /// What the events in `tell` look like, without their times.
    fn lines(style: Style, tell: impl FnOnce()) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let subscriber = crate::telemetry::filtered(style, "", file.reopen().unwrap());
        tracing::subscriber::with_default(subscriber, tell);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    fn json(tell: impl FnOnce()) -> String {
        let lines = lines(Style::Json, tell);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let parsed: serde_json::Value = serde_json::from_str(&lines[0]).expect(&lines[0]);
        assert_eq!(parsed["timestamp"].as_str().unwrap().len(), 27);
        let (timestamp, rest) = lines[0].split_at(42);
        assert!(timestamp.starts_with("{\"timestamp\":\"2"), "{timestamp}");
        rest.strip_suffix(&format!(",\"target\":\"{}\"}}", module_path!()))
            .expect("the target comes last")
            .to_owned()
    }

    fn text(tell: impl FnOnce()) -> String {
        let lines = lines(Style::Text { coloured: false }, tell);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0][27..].to_owned()
    }

    #[test]
    fn an_event_as_json() {
        let line = json(|| {
            info!(
                none = None::<&str>,
                some = Some("x"),
                number = 7_u16,
                negative = -7,
                large = u64::MAX,
                half = 0.5,
                no_number = f64::NAN,
                yes = true,
                shown = %std::net::Ipv4Addr::LOCALHOST,
                debugged = ?"x",
                "some {}",
                "words"
            );
        });
        assert_eq!(
            line,
            r#","level":"INFO","message":"some words","some":"x","number":7,"negative":-7,"large":18446744073709551615,"half":0.5,"no_number":"NaN","yes":true,"shown":"127.0.0.1","debugged":"\"x\"""#
        );
    }

    #[test]
    fn an_event_as_text() {
        for (tell, expected) in [
            (
                (|| info!(none = None::<&str>, a = "x", b = 7, c = true, "words")) as fn(),
                "  INFO words a=x b=7 c=true",
            ),
            (
                || {
                    warn!(
                        a = "two words",
                        b = "",
                        c = "=x",
                        d = "\"",
                        e = "\\",
                        "a \"b\""
                    )
                },
                r#"  WARN a "b" a="two words" b="" c="=x" d="\"" e="\\""#,
            ),
            (
                || error!(a = "é", b = "a\u{a0}b", c = %"d e"),
                " ERROR a=é b=\"a\u{a0}b\" c=\"d e\"",
            ),
        ] {
            assert_eq!(text(tell), expected);
        }
        let coloured = lines(Style::Text { coloured: true }, || warn!(a = 1, "words"));
        assert!(coloured[0].starts_with("\x1b[2m2"), "{coloured:?}");
        assert!(
            coloured[0].ends_with("Z\x1b[0m  \x1b[33mWARN\x1b[0m words \x1b[2ma=\x1b[0m1"),
            "{coloured:?}"
        );
    }

    #[test]
    fn what_acts_is_escaped() {
        for (value, escaped) in [
            ("a\nb", r"a\nb"),
            ("\r\t", r"\r\t"),
            ("\0\x1b[31m", r"\u0000\u001b[31m"),
            ("\x7f\u{80}\u{9b}", r"\u007f\u0080\u009b"),
            ("\u{202e}\u{2066}\u{61c}", r"\u202e\u2066\u061c"),
            ("\u{2028}\u{200f}", r"\u2028\u200f"),
            ("\"\\", r#"\"\\"#),
            ("\u{a1}é\u{200d}\u{10ffff}", "\u{a1}é\u{200d}\u{10ffff}"),
        ] {
            let line = json(|| info!(value, debugged = %value, "{}", value));
            let parsed: serde_json::Value =
                serde_json::from_str(&format!("{{{}}}", &line[1..])).unwrap();
            for name in ["message", "value", "debugged"] {
                assert_eq!(parsed[name], value);
                assert!(
                    line.contains(&format!("\"{name}\":\"{escaped}\"")),
                    "{line}"
                );
            }
            let line = text(|| info!(value, debugged = %value));
            let quoted = if escaped == value {
                escaped.to_owned()
            } else {
                format!("\"{escaped}\"")
            };
            assert_eq!(line, format!("  INFO value={quoted} debugged={quoted}"));
        }
        assert_eq!(text(|| info!("a\nb \u{9b}")), r"  INFO a\nb \u009b");
    }

    #[test]
    fn what_tells_of_itself_while_it_is_told() {
        struct Talkative;
        impl fmt::Display for Talkative {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                info!("inner");
                f.write_str("so far")?;
                Err(fmt::Error)
            }
        }
        let lines = lines(Style::Text { coloured: false }, || {
            info!(a = %Talkative, b = 1, "outer");
        });
        assert!(lines.last().unwrap().ends_with("outer a=\"so far\" b=1"));
    }

    #[test]
    fn only_this_programs_events() {
        let lines = lines(Style::Json, || {
            info!(target: "pingora_proxy", "not ours");
            info!(target: "log", "not ours");
        });
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn times() {
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, 120_000, "2100-03-01T00:00:00.120000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000Z"),
            (253_402_300_800, 0, "9999-12-31T23:59:59.000000Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(std::str::from_utf8(&timestamp(at)), Ok(expected));
        }
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert!(timestamp(before).starts_with(b"1970-01-01T00:00:00"));
    }
}
