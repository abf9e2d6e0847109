//! Where a body ends: read strictly on both sides, and written anew.
//!
//! A peer before or after the gateway that takes an empty chunk size, spaces around it or a bare
//! line feed in another way sees other messages than the gateway (request smuggling; RFC 9112
//! sections 6.3, 7.1 and 11.2). The first byte that is not as the standard has it ends the message.
//! Chunk extensions and trailers are read and dropped.

use crate::policy::fault::MessageFault;
use crate::policy::request::{self, Body, Field, Version};

/// Longest line with a chunk's size in bytes, and longest trailer section.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Sizes of chunks and lengths of bodies stay below this, so that sums cannot overflow.
const SIZE_MAX: u64 = 1 << 56;

/// Framing that two readers could take in two ways, or that is none; and in which part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misframed(pub MessageFault);

/// What follows a request's header section.
///
/// # Errors
/// [`Misframed`] for several lengths, a length that is not digits, a transfer coding other than one
/// `chunked`, both at once, or a coding in HTTP/1.0 (RFC 9112 section 6.1).
pub fn of_request(version: Version, fields: &[Field<'_>]) -> Result<Body, Misframed> {
    let said = Said::read(fields)?;
    match said {
        Said::Nothing | Said::Length(0) => Ok(Body::None),
        Said::Length(length) => Ok(Body::Length(length)),
        Said::Chunked if version == Version::Http11 => Ok(Body::Unknown),
        Said::Chunked => Err(Misframed(MessageFault::Coding)),
    }
}

/// What follows an answer's header section; `bodiless` if its request or status says that nothing
/// does (RFC 9112 section 6.3).
///
/// # Errors
/// [`Misframed`] as for requests; equal lengths that repeat are one (RFC 9110 section 8.6).
pub fn of_answer(
    version: Version,
    fields: &[Field<'_>],
    bodiless: bool,
) -> Result<(Decoder, Option<u64>), Misframed> {
    let said = Said::read_lenient(fields)?;
    if said == Said::Chunked && version != Version::Http11 {
        return Err(Misframed(MessageFault::Coding));
    }
    let announced = match said {
        Said::Length(length) => Some(length),
        Said::Nothing | Said::Chunked => None,
    };
    let decoder = match said {
        _ if bodiless => Decoder::none(),
        Said::Length(length) => Decoder::length(length),
        Said::Chunked => Decoder::chunked(),
        Said::Nothing => Decoder::until_close(),
    };
    Ok((decoder, announced))
}

/// Whether the sender of a message keeps its connection after it (RFC 9112 section 9.3).
pub(crate) fn keeps(version: Version, fields: &[Field<'_>]) -> bool {
    let names = |option: &[u8]| {
        request::all(fields, "connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(option))
    };
    !names(b"close") && (version != Version::Http10 || names(b"keep-alive"))
}

/// What the fields of a message say of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Length(u64),
    Chunked,
}

impl Said {
    fn read(fields: &[Field<'_>]) -> Result<Self, Misframed> {
        let mut said = Self::Nothing;
        for field in fields {
            let one = match Self::of(field) {
                None => continue,
                Some(Named::Length) => Self::Length(length(field.value)?),
                Some(Named::Coding) => coding(field.value)?,
            };
            let fault = match (said, one) {
                (Self::Nothing, _) => None,
                (Self::Length(_), Self::Length(_)) => Some(MessageFault::Length),
                (Self::Chunked, Self::Chunked) => Some(MessageFault::Coding),
                _ => Some(MessageFault::LengthAndCoding),
            };
            if let Some(fault) = fault {
                return Err(Misframed(fault));
            }
            said = one;
        }
        Ok(said)
    }

    /// The same, but equal lengths may repeat, in one field or in several.
    fn read_lenient(fields: &[Field<'_>]) -> Result<Self, Misframed> {
        let mut said = Self::Nothing;
        for field in fields {
            match Self::of(field) {
                None => {}
                Some(Named::Coding) if said == Self::Nothing => said = coding(field.value)?,
                Some(Named::Coding) => return Err(Misframed(MessageFault::LengthAndCoding)),
                Some(Named::Length) => {
                    for one in field.value.split(|byte| *byte == b',') {
                        let one = Self::Length(length(one.trim_ascii())?);
                        if said == Self::Chunked {
                            return Err(Misframed(MessageFault::LengthAndCoding));
                        }
                        if said != Self::Nothing && said != one {
                            return Err(Misframed(MessageFault::Length));
                        }
                        said = one;
                    }
                }
            }
        }
        Ok(said)
    }

    fn of(field: &Field<'_>) -> Option<Named> {
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case(b"content-length") => Some(Named::Length),
            17 if field.name.eq_ignore_ascii_case(b"transfer-encoding") => Some(Named::Coding),
            _ => None,
        }
    }
}

enum Named {
    Length,
    Coding,
}

fn length(digits: &[u8]) -> Result<u64, Misframed> {
    const FAULT: Misframed = Misframed(MessageFault::Length);
    if digits.is_empty() || digits.len() > 19 {
        return Err(FAULT);
    }
    let mut length = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(FAULT);
        }
        length = length * 10 + u64::from(digit - b'0');
    }
    if length < SIZE_MAX {
        Ok(length)
    } else {
        Err(FAULT)
    }
}

fn coding(value: &[u8]) -> Result<Said, Misframed> {
    if value.eq_ignore_ascii_case(b"chunked") {
        Ok(Said::Chunked)
    } else {
        Err(Misframed(MessageFault::Coding))
    }
}

/// Finds the payload among the bytes of a body.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
    line_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes of a body with a length are left.
    Length(u64),
    /// Everything up to the end of the connection.
    UntilClose,
    /// In the digits of a chunk's size, which is this so far.
    Size(Option<u64>),
    /// After the `;` of a chunk's size.
    Extension(u64),
    /// After the carriage return of that line.
    SizeEnd(u64),
    /// This many bytes of a chunk are left.
    Data(u64),
    /// At the carriage return after a chunk.
    DataReturn,
    /// At the line feed after it.
    DataFeed,
    /// At the beginning of a line after the last chunk.
    TrailerStart,
    /// In such a line.
    Trailer,
    /// After the carriage return of one; whether it was empty.
    TrailerEnd(bool),
    /// The body is over.
    Done,
}

/// How far a decoder came in the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of payload, which stand at the front now.
    pub payload: usize,
    /// Bytes that were read; what comes after them was not looked at.
    pub consumed: usize,
}

impl Decoder {
    /// Of a message without a body.
    pub fn none() -> Self {
        Self::length(0)
    }

    /// Of a body with a length.
    pub fn length(length: u64) -> Self {
        Self::at(match length {
            0 => State::Done,
            length => State::Length(length),
        })
    }

    /// Of a chunked body.
    pub fn chunked() -> Self {
        Self::at(State::Size(None))
    }

    /// Of a body that ends with its connection.
    pub fn until_close() -> Self {
        Self::at(State::UntilClose)
    }

    fn at(state: State) -> Self {
        Self {
            state,
            line_bytes: 0,
        }
    }

    /// Whether the body is over, whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Reads on in `raw`, and moves the payload in it to the front.
    ///
    /// # Errors
    /// [`Misframed`] at the first byte that is not as the standard has it. Payload before it is lost:
    /// a message that breaks off is not worth its beginning.
    pub fn decode(&mut self, raw: &mut [u8]) -> Result<Decoded, Misframed> {
        let (mut payload, mut at) = (0, 0);
        while at < raw.len() {
            match self.state {
                State::Done => break,
                State::UntilClose => {
                    return Ok(Decoded {
                        payload: raw.len(),
                        consumed: raw.len(),
                    });
                }
                State::Length(left) | State::Data(left) => {
                    let taken = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(raw.len() - at);
                    if payload != at {
                        raw.copy_within(at..at + taken, payload);
                    }
                    payload += taken;
                    at += taken;
                    let left = left - taken as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::DataReturn,
                        _ => State::Data(left),
                    };
                }
                state => {
                    self.state = self.step(state, raw[at])?;
                    at += 1;
                }
            }
        }
        Ok(Decoded {
            payload,
            consumed: at,
        })
    }

    /// One byte of the framing.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Misframed> {
        const FAULT: Misframed = Misframed(MessageFault::Body);
        self.line_bytes += 1;
        if self.line_bytes > LINE_BYTES_MAX {
            return Err(FAULT);
        }
        Ok(match (state, byte) {
            (State::Size(size), byte) if byte.is_ascii_hexdigit() => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or_default());
                match size.unwrap_or_default() * 16 + digit {
                    size if size < SIZE_MAX => State::Size(Some(size)),
                    _ => return Err(FAULT),
                }
            }
            (State::Size(Some(size)), b';') => State::Extension(size),
            (State::Size(Some(size)) | State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), b'\t' | b' '..=b'~') => State::Extension(size),
            (State::SizeEnd(size), b'\n') => {
                self.line_bytes = 0;
                match size {
                    0 => State::TrailerStart,
                    size => State::Data(size),
                }
            }
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => {
                self.line_bytes = 0;
                State::Size(None)
            }
            // The lines of the trailer section share one limit: `line_bytes` is not reset in it.
            (State::TrailerStart, b'\r') => State::TrailerEnd(true),
            (State::Trailer, b'\r') => State::TrailerEnd(false),
            (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~') => State::Trailer,
            (State::TrailerEnd(true), b'\n') => State::Done,
            (State::TrailerEnd(false), b'\n') => State::TrailerStart,
            _ => return Err(FAULT),
        })
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// As it is: its length stands in the header section, or the connection ends after it.
    Plain,
    /// In chunks, of which the present one has this many bytes left.
    Chunked {
        /// Bytes.
        left: usize,
    },
}

impl Encoder {
    /// Before a chunk's first byte.
    pub const CHUNKED: Self = Self::Chunked { left: 0 };

    /// What ends the body.
    pub fn ending(self) -> &'static [u8] {
        match self {
            Self::Plain => b"",
            Self::Chunked { .. } => b"0\r\n\r\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BROKEN: Result<(Vec<u8>, usize, bool), Misframed> = Err(Misframed(MessageFault::Body));

    /// How much of `body` passes as a chunked body: the payload, or nothing if a byte is wrong.
    fn decode(body: &[u8]) -> Result<(Vec<u8>, usize, bool), Misframed> {
        let mut decoder = Decoder::chunked();
        let mut raw = body.to_vec();
        let whole = decoder.decode(&mut raw).map(|decoded| {
            (
                raw[..decoded.payload].to_vec(),
                decoded.consumed,
                decoder.is_done(),
            )
        });
        // Whatever the pieces are that it comes in.
        let mut decoder = Decoder::chunked();
        let (mut payload, mut consumed) = (Vec::new(), 0);
        let mut pieces = Ok(());
        for byte in body {
            let mut one = [*byte];
            match decoder.decode(&mut one) {
                Ok(decoded) => {
                    payload.extend_from_slice(&one[..decoded.payload]);
                    consumed += decoded.consumed;
                }
                Err(misframed) => {
                    pieces = Err(misframed);
                    break;
                }
            }
        }
        let pieces = pieces.map(|()| (payload, consumed, decoder.is_done()));
        assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(body));
        whole
    }

    fn good(body: &str, payload: &str, rest: &str) {
        let expected = (payload.as_bytes().to_vec(), body.len() - rest.len(), true);
        assert_eq!(decode(body.as_bytes()), Ok(expected), "{body:?}");
    }

    #[test]
    fn chunks_as_the_standard_has_them() {
        good("5\r\nhello\r\n0\r\n\r\n", "hello", "");
        good("5;name=\"a b\"\r\nhello\r\n00\r\n\r\n", "hello", "");
        good("A\r\n\r\n0\r\n\r\n123\r\n0\r\n\r\n", "\r\n0\r\n\r\n123", "");
        good(
            "0\r\nX-Trailer: a\r\nY: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "",
            "GET / HTTP/1.1\r\n\r\n",
        );
        good("1\r\na\r\n2\r\nbc\r\n0\r\n\r\nx", "abc", "x");
    }

    #[test]
    fn chunks_in_another_way() {
        for body in [
            "\r\nhello",
            " 5\r\nhello",
            "5 \r\nhello",
            "5\t;a\r\nhello",
            "5\nhello",
            "5;a\nb\r\nhello",
            "5;a\0\r\nhello",
            "5;\u{e9}\r\nhello",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0\r\n",
            "5\r\nhello\r\r\n",
            "0x5\r\nhello",
            "+5\r\n",
            "-5\r\n",
            "0_5\r\n",
            ";a\r\n",
            "100000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "0\r\n\n",
            "0\r\nX: a\n\r\n",
            "0\r\nX: a\rb\r\n",
            "0\r\nX: a\0\r\n",
        ] {
            assert_eq!(decode(body.as_bytes()), BROKEN, "{body:?}");
        }
    }

    #[test]
    fn endless_lines() {
        let long = "a".repeat(LINE_BYTES_MAX);
        assert_eq!(decode(format!("5;{long}").as_bytes()), BROKEN);
        assert_eq!(decode(format!("0\r\nX: {long}").as_bytes()), BROKEN);
        let many = "X: a\r\n".repeat(LINE_BYTES_MAX / 6 + 1);
        assert_eq!(decode(format!("0\r\n{many}").as_bytes()), BROKEN);
    }

    fn fields<'a>(lines: &'a [(&'a str, &'a str)]) -> Vec<Field<'a>> {
        lines
            .iter()
            .map(|(name, value)| Field {
                name: name.as_bytes(),
                value: value.as_bytes(),
            })
            .collect()
    }

    fn asked(lines: &[(&str, &str)]) -> Result<Body, Misframed> {
        of_request(Version::Http11, &fields(lines))
    }

    #[test]
    fn requests_that_read_one_way() {
        assert_eq!(asked(&[]), Ok(Body::None));
        assert_eq!(asked(&[("Content-Length", "0")]), Ok(Body::None));
        assert_eq!(asked(&[("CONTENT-LENGTH", "0012")]), Ok(Body::Length(12)));
        assert_eq!(
            asked(&[("transfer-encoding", "Chunked")]),
            Ok(Body::Unknown)
        );
        assert_eq!(
            of_request(Version::Http10, &fields(&[("content-length", "3")])),
            Ok(Body::Length(3))
        );
    }

    #[test]
    fn requests_that_read_two_ways() {
        let (length, chunked) = (("content-length", "12"), ("transfer-encoding", "chunked"));
        let identity = ("transfer-encoding", "identity");
        for (lines, fault) in [
            ([length, length], MessageFault::Length),
            ([length, chunked], MessageFault::LengthAndCoding),
            ([chunked, length], MessageFault::LengthAndCoding),
            ([chunked, chunked], MessageFault::Coding),
            ([chunked, identity], MessageFault::Coding),
        ] {
            assert_eq!(asked(&lines), Err(Misframed(fault)), "{lines:?}");
        }
        for value in [
            "",
            "12, 12",
            "+12",
            "-1",
            "0x5",
            "5.0",
            "5 5",
            "99999999999999999999999",
            "9999999999999999999",
        ] {
            assert_eq!(
                asked(&[("content-length", value)]),
                Err(Misframed(MessageFault::Length)),
                "{value}"
            );
        }
        for value in [
            "",
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "xchunked",
            "\"chunked\"",
            "chunked;q=1",
            "chunked,",
        ] {
            assert_eq!(
                asked(&[("transfer-encoding", value)]),
                Err(Misframed(MessageFault::Coding)),
                "{value}"
            );
        }
        assert_eq!(
            of_request(
                Version::Http10,
                &fields(&[("transfer-encoding", "chunked")])
            ),
            Err(Misframed(MessageFault::Coding))
        );
    }

    #[test]
    fn who_keeps_a_connection() {
        let check = |version, value: &str, expected| {
            let lines = [("Connection", value)];
            assert_eq!(
                keeps(version, &fields(&lines)),
                expected,
                "{version:?} {value}"
            );
        };
        assert!(keeps(Version::Http11, &[]) && !keeps(Version::Http10, &[]));
        check(Version::Http11, "x-a, CLOSE", false);
        check(Version::Http11, "closed", true);
        check(Version::Http10, "Keep-Alive", true);
        check(Version::Http10, "keep-alive, close", false);
        check(Version::Http10, "keep-alive-not", false);
    }

    #[test]
    fn answers() {
        let read = |lines: &[(&str, &str)]| {
            of_answer(Version::Http11, &fields(lines), false)
                .map(|(decoder, length)| (decoder.state, length))
        };
        assert_eq!(read(&[]), Ok((State::UntilClose, None)));
        assert_eq!(
            read(&[("content-length", "5, 5"), ("content-length", "5")]),
            Ok((State::Length(5), Some(5)))
        );
        let differing = read(&[("content-length", "5, 6")]);
        assert_eq!(differing, Err(Misframed(MessageFault::Length)));
        let other = read(&[("transfer-encoding", "identity")]);
        assert_eq!(other, Err(Misframed(MessageFault::Coding)));
        let both = read(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(both, Err(Misframed(MessageFault::LengthAndCoding)));
        let (decoder, length) =
            of_answer(Version::Http11, &fields(&[("content-length", "5")]), true).unwrap();
        assert!(
            decoder.is_done() && length == Some(5),
            "an answer to a HEAD"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_in_chunks_is_read_again(body in prop::collection::vec(any::<u8>(), 0..200), size in 1_usize..20) {
            let mut raw = Vec::new();
            for chunk in body.chunks(size) {
                raw.extend(format!("{:x};a=b\r\n", chunk.len()).bytes());
                raw.extend(chunk);
                raw.extend(b"\r\n");
            }
            raw.extend(Encoder::CHUNKED.ending());
            let length = raw.len();
            prop_assert_eq!(decode(&raw), Ok((body, length, true)));
        }
    }
}
