//! A message's head, parsed once into slices; where two readings are possible, refused.
//!
//! Lines end in CRLF and nothing else, a request line has two spaces, no line is folded, a name is a
//! token right up to its colon, and no value holds a control byte but the tab (RFC 9112 sections
//! 2.2, 3, 5; RFC 9110 section 5.5). Bytes from 0x80 up pass here: who uses a value judges them.

use memchr::memchr;

use crate::policy::Refusal;
use crate::policy::fault::MessageFault;
use crate::policy::request::{Field, Version};
use crate::policy::target::TARGET_BYTES_MAX;

/// Largest header section in bytes, with its line ends.
pub const HEADER_BYTES_MAX: usize = crate::policy::request::HEADER_BYTES_MAX;

/// Most fields of a message that are looked at; one more is enough to refuse it.
const FIELDS_MAX: usize = crate::policy::request::HEADERS_MAX + 1;

/// Longest request line or status line: a target, a method, a version.
const FIRST_LINE_BYTES_MAX: usize = TARGET_BYTES_MAX + 64;

/// Empty lines that may stand before a request (RFC 9112 section 2.2).
const EMPTY_LINES_MAX: usize = 8;

const FIRST_LINE: HeadFault = HeadFault::Malformed(MessageFault::StartLine);
const LINE: HeadFault = HeadFault::Malformed(MessageFault::Line);

/// Finds the end of a head while it arrives, looking at each byte once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finder {
    /// Bytes that were looked at.
    seen: usize,
    /// Where the present line begins.
    line: usize,
    /// Empty lines before the first one.
    empty: usize,
    /// Where the first line begins and ends, once it is whole.
    first: Option<(usize, usize)>,
}

/// Why no head comes of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// It can be read in two ways, or in none.
    Malformed(MessageFault),
    /// The request line is longer than a target may be.
    TargetTooLong,
    /// The header section is too large, or has too many fields.
    TooLarge,
}

impl HeadFault {
    /// The refusal of a request.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Malformed(fault) => Refusal::BadMessage(fault),
            Self::TargetTooLong => Refusal::TargetTooLong,
            Self::TooLarge => Refusal::HeadersTooLarge,
        }
    }
}

impl Finder {
    /// Looks at what is new in `input`: where the head begins and ends in it, if it is whole.
    ///
    /// # Errors
    /// A [`HeadFault`] as soon as it is certain.
    pub fn find(&mut self, input: &[u8]) -> Result<Option<(usize, usize)>, HeadFault> {
        while let Some(found) = memchr(b'\n', &input[self.seen..]) {
            let end = self.seen + found;
            if end == self.line || input[end - 1] != b'\r' {
                return Err(self.first.map_or(FIRST_LINE, |_| LINE));
            }
            let is_empty = end - 1 == self.line;
            match self.first {
                None if is_empty => {
                    self.empty += 1;
                    if self.empty > EMPTY_LINES_MAX {
                        return Err(FIRST_LINE);
                    }
                }
                None if !is_token_byte(input[self.line]) => return Err(FIRST_LINE),
                None if end - self.line > FIRST_LINE_BYTES_MAX => {
                    return Err(HeadFault::TargetTooLong);
                }
                None => self.first = Some((self.line, end + 1)),
                Some((_, lines)) if end - lines > HEADER_BYTES_MAX => {
                    return Err(HeadFault::TooLarge);
                }
                Some((start, _)) if is_empty => return Ok(Some((start, end + 1))),
                Some(_) => {}
            }
            self.line = end + 1;
            self.seen = end + 1;
        }
        self.seen = input.len();
        let unfinished = &input[self.line..];
        match self.first {
            // Not HTTP at all, and may never send a line feed: TLS, for instance.
            None if unfinished
                .first()
                .is_some_and(|byte| !is_token_byte(*byte) && *byte != b'\r') =>
            {
                Err(FIRST_LINE)
            }
            None if unfinished.len() > FIRST_LINE_BYTES_MAX => Err(HeadFault::TargetTooLong),
            Some((_, lines)) if input.len() - lines > HEADER_BYTES_MAX => Err(HeadFault::TooLarge),
            _ => Ok(None),
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// A token.
    pub method: &'a [u8],
    /// Bytes without a space.
    pub target: &'a [u8],
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    /// In their order.
    pub fields: Vec<Field<'a>>,
    /// Bytes of the head, with the empty line that ends it.
    pub length: usize,
}

impl<'a> RequestHead<'a> {
    /// Parses the head that `head` begins with.
    ///
    /// # Errors
    /// A [`HeadFault`].
    pub fn parse(head: &'a [u8]) -> Result<Self, HeadFault> {
        let (line, rest) = split_line(head).ok_or(FIRST_LINE)?;
        let space = memchr(b' ', line).ok_or(FIRST_LINE)?;
        let (method, after) = (&line[..space], &line[space + 1..]);
        let space = memchr(b' ', after).ok_or(FIRST_LINE)?;
        let (target, version) = (&after[..space], &after[space + 1..]);
        // A carriage return within the line, which some take for its end.
        if !is_token(method) || target.is_empty() || memchr(b'\r', target).is_some() {
            return Err(FIRST_LINE);
        }
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(FIRST_LINE),
        };
        let (fields, rest) = fields(rest)?;
        Ok(Self {
            method,
            target,
            version,
            fields,
            length: head.len() - rest.len(),
        })
    }
}

/// An answer's head.
#[derive(Debug)]
pub struct AnswerHead<'a> {
    /// From 100 to 999.
    pub status: u16,
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    /// In their order.
    pub fields: Vec<Field<'a>>,
    /// Bytes of the head, with the empty line that ends it.
    pub length: usize,
}

impl<'a> AnswerHead<'a> {
    /// Parses the head that `head` begins with. What the reason phrase says, nobody hears.
    ///
    /// # Errors
    /// A [`HeadFault`].
    pub fn parse(head: &'a [u8]) -> Result<Self, HeadFault> {
        let (line, rest) = split_line(head).ok_or(FIRST_LINE)?;
        let (version, after) = line.split_at_checked(9).ok_or(FIRST_LINE)?;
        let version = match version {
            b"HTTP/1.1 " => Version::Http11,
            b"HTTP/1.0 " => Version::Http10,
            _ => return Err(FIRST_LINE),
        };
        let (digits, reason) = after.split_at_checked(3).ok_or(FIRST_LINE)?;
        // Servers that leave the reason out often leave its space out as well.
        let ends = reason.is_empty() || (reason[0] == b' ' && is_text(reason));
        if !ends || !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
            return Err(FIRST_LINE);
        }
        let status = digits
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let (fields, rest) = fields(rest)?;
        Ok(Self {
            status,
            version,
            fields,
            length: head.len() - rest.len(),
        })
    }
}

/// The first line without its CRLF, and what follows it.
fn split_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', head)?;
    let line = head[..end].strip_suffix(b"\r")?;
    Some((line, &head[end + 1..]))
}

/// The lines up to the empty one, and what follows that. Each byte is looked at once: a name ends at
/// the first byte that no token has, a value at the first that no text has.
fn fields(mut rest: &[u8]) -> Result<(Vec<Field<'_>>, &[u8]), HeadFault> {
    let mut fields = Vec::with_capacity(16);
    loop {
        let name_ends = |byte: &u8| !is_token_byte(*byte);
        let colon = rest.iter().position(name_ends).ok_or(LINE)?;
        let (name, after) = rest.split_at(colon);
        let value = match after {
            [b'\r', b'\n', body @ ..] if name.is_empty() => return Ok((fields, body)),
            [b':', value @ ..] if !name.is_empty() => value,
            _ => return Err(LINE),
        };
        let end = control_at(value).ok_or(LINE)?;
        let (value, after) = value.split_at(end);
        let [b'\r', b'\n', after @ ..] = after else {
            return Err(LINE);
        };
        if fields.len() == FIELDS_MAX {
            return Err(HeadFault::TooLarge);
        }
        fields.push(Field {
            name,
            value: trim(value),
        });
        rest = after;
    }
}

/// Without the optional white space around it: spaces and tabs, nothing else.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A token (RFC 9110 section 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether there is no control byte but the tab.
fn is_text(bytes: &[u8]) -> bool {
    control_at(bytes).is_none()
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// Where the first control byte but the tab stands. Looks at eight bytes at a time.
fn control_at(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = u64::MAX / 255;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let bits = u64::from_le_bytes(*word);
        // The high bit of each byte below 0x20, and of each 0x7f; of some bytes after such a one, too.
        let low = bits.wrapping_sub(EACH * 0x20) & !bits;
        let other = bits ^ (EACH * 0x7f);
        let delete = other.wrapping_sub(EACH) & !other;
        if (low | delete) & (EACH << 7) != 0
            && let Some(found) = word.iter().position(|byte| is_control(*byte))
        {
            return Some(8 * index + found);
        }
    }
    let found = rest.iter().position(|byte| is_control(*byte))?;
    Some(8 * words.len() + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8]) -> Result<Option<(usize, usize)>, HeadFault> {
        let whole = Finder::default().find(bytes);
        // Byte by byte it comes to the same, as soon as it is certain.
        let mut finder = Finder::default();
        let mut step = Ok(None);
        for end in 1..=bytes.len() {
            step = finder.find(&bytes[..end]);
            if step != Ok(None) {
                break;
            }
        }
        match (&whole, &step) {
            (Ok(a), Ok(b)) => assert_eq!(a, b),
            (a, b) => assert_eq!(
                a.is_err(),
                b.is_err(),
                "{:?}",
                String::from_utf8_lossy(bytes)
            ),
        }
        whole
    }

    fn read(text: &str) -> Result<String, HeadFault> {
        let (start, end) = find(text.as_bytes())?.ok_or(HeadFault::Malformed(MessageFault::Cut))?;
        let head = RequestHead::parse(&text.as_bytes()[start..end])?;
        let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut shown = format!(
            "{} {} {:?}",
            part(head.method),
            part(head.target),
            head.version
        );
        for field in &head.fields {
            shown += &format!(" [{}={}]", part(field.name), part(field.value));
        }
        Ok(shown)
    }

    #[test]
    fn requests() {
        let check = |text: &str, expected: &str| assert_eq!(read(text).as_deref(), Ok(expected));
        check(
            "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a Http11 [Host=x]",
        );
        check("GET /a HTTP/1.0\r\n\r\n", "GET /a Http10");
        check(
            "\r\n\r\nP!T /?a=\"{} HTTP/1.1\r\nA:\r\nB: \t b c\t \r\n\r\nrest",
            "P!T /?a=\"{} Http11 [A=] [B=b c]",
        );
        check(
            "GET /a HTTP/1.1\r\nX: a\tb\u{e9}\r\n\r\n",
            "GET /a Http11 [X=a\tb\u{e9}]",
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways() {
        for text in [
            "GET  /a HTTP/1.1\r\n\r\n",
            "GET /a  HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1 \r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET\t/a HTTP/1.1\r\n\r\n",
            " GET /a HTTP/1.1\r\n\r\n",
            "GET /a\rb HTTP/1.1\r\n\r\n",
            "GET /a\r\n\r\n",
            "GET\r\n\r\n",
            "G:T /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.2\r\n\r\n",
            "GET /a HTTP/2.0\r\n\r\n",
            "GET /a http/1.1\r\n\r\n",
            "GET /a HTTP/1.1\n\r\n",
            "GET /a HTTP/1.1\r\n\n",
            "GET /a HTTP/1.1\nHost: x\n\n",
            "\nGET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\n\r\n",
            "GET /a HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET /a HTTP/1.1\r\nA : b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA\t: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA B: b\r\n\r\n",
            "GET /a HTTP/1.1\r\n: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nAb\r\n\r\n",
            "GET /a HTTP/1.1\r\nA\u{e9}: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\0\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: \u{b}b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\u{c}\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\u{7f}\r\n\r\n",
            "GET /a HTTP/1.1\r\n\r\r\n\r\n",
        ] {
            let fault = read(text).err();
            let expected = [FIRST_LINE, LINE, HeadFault::Malformed(MessageFault::Cut)];
            assert!(
                fault.is_some_and(|fault| expected.contains(&fault)),
                "{text:?}: {fault:?}"
            );
        }
    }

    #[test]
    fn control_bytes_wherever_they_stand() {
        for length in 0..40 {
            let mut text = vec![b'~'; length];
            assert_eq!(control_at(&text), None);
            for at in 0..length {
                for byte in 0..=255 {
                    text[at] = byte;
                    let expected = is_control(byte).then_some(at);
                    assert_eq!(control_at(&text), expected, "{byte} at {at} of {length}");
                }
                // A tab before it hides nothing.
                text[at] = b'\r';
                let before = at.saturating_sub(3);
                if before < at {
                    text[before] = b'\t';
                    assert_eq!(control_at(&text), Some(at));
                }
                text.fill(b' ');
            }
        }
    }

    #[test]
    fn what_is_too_large() {
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(length));
        assert_eq!(
            read(&format!("{}\r\n", line(TARGET_BYTES_MAX + 64))),
            Err(HeadFault::TargetTooLong)
        );
        let endless = "a".repeat(FIRST_LINE_BYTES_MAX + 1);
        assert_eq!(find(endless.as_bytes()), Err(HeadFault::TargetTooLong));
        assert!(read(&format!("{}\r\n", line(TARGET_BYTES_MAX - 1))).is_ok());
        let many = "A: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(
            read(&format!("{}{many}\r\n", line(1))),
            Err(HeadFault::TooLarge)
        );
        let long = "b".repeat(HEADER_BYTES_MAX + 1);
        assert_eq!(
            find(format!("{}A: {long}", line(1)).as_bytes()),
            Err(HeadFault::TooLarge)
        );
        assert_eq!(
            find("\r\n".repeat(EMPTY_LINES_MAX + 1).as_bytes()),
            Err(FIRST_LINE)
        );
        assert_eq!(find(b"\x16\x03\x01"), Err(FIRST_LINE), "a TLS hello");
    }

    #[test]
    fn answers() {
        let read = |text: &str| AnswerHead::parse(text.as_bytes()).map(|head| head.status);
        assert_eq!(read("HTTP/1.1 200 OK\r\nA: b\r\n\r\n"), Ok(200));
        assert_eq!(read("HTTP/1.0 404 \r\n\r\n"), Ok(404));
        assert_eq!(read("HTTP/1.1 204\r\n\r\n"), Ok(204));
        for text in [
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 abc OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        ] {
            let fault = read(text).err();
            let expected = [FIRST_LINE, LINE, HeadFault::Malformed(MessageFault::Cut)];
            assert!(
                fault.is_some_and(|fault| expected.contains(&fault)),
                "{text:?}: {fault:?}"
            );
        }
    }
}
