//! Where the requests on a connection begin and end, read more strictly than the engine reads it.
//!
//! The engine takes an empty chunk size for the last chunk, takes blanks and whatever stands behind
//! a `;` (bare line feeds included) for nothing. A proxy before the gateway that reads such a line
//! in another way sees other requests than the gateway (request smuggling; RFC 9112 section 7.1 and
//! 11.2). The guard lets every byte through a [`Framing`] first, and ends the connection at the
//! first one that is not as the standard has it. Header sections are judged by the policy; of them
//! this reads only how long a body follows, and that the request line has two blanks: the engine
//! would escape others and never tell.

/// How far into a connection's requests the bytes so far have come.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// The beginning of the line, as far as it tells anything.
    line: Vec<u8>,
    /// Bytes of the line.
    line_bytes: usize,
    /// Of the body that follows; `None` if what the header section says of it cannot be read.
    length: Option<u64>,
    chunked: bool,
    /// Blanks of the request line so far; `None` behind it.
    blanks: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a header section, or before one.
    Head,
    /// This many bytes of a body with a length are left.
    Body(u64),
    /// In the digits of a chunk's size, which is this so far.
    Size(Option<u64>),
    /// Behind the `;` of a chunk's size.
    Extension(u64),
    /// Behind the carriage return of that line.
    SizeEnd(u64),
    /// This many bytes of a chunk are left.
    Data(u64),
    /// At the carriage return behind a chunk.
    DataReturn,
    /// At the line feed behind it.
    DataFeed,
    /// In the lines behind the last chunk.
    Trailers,
    /// Behind the carriage return of one.
    TrailerEnd,
    /// How long the body is, is unclear: the policy refuses the request, and nothing more passes.
    Lost,
    /// A byte was wrong; nothing passes any more.
    Broken,
}

/// Bytes of a header line that are looked at.
const LINE_BYTES_KEPT: usize = 128;
/// Longest line with a chunk's size, and longest line behind the last chunk.
const LINE_BYTES_MAX: usize = 8 * 1024;

impl Default for Framing {
    /// Before the first request.
    fn default() -> Self {
        Self {
            state: State::Head,
            line: Vec::with_capacity(LINE_BYTES_KEPT),
            line_bytes: 0,
            length: Some(0),
            chunked: false,
            blanks: Some(0),
        }
    }
}

impl Framing {
    /// Reads on; returns how many of the bytes are good: all of them, or those before the first one
    /// that is not.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.state {
                State::Body(left) => {
                    let (taken, left) = skip(rest, left);
                    self.state = match left {
                        0 => State::Head,
                        left => State::Body(left),
                    };
                    taken
                }
                State::Data(left) => {
                    let (taken, left) = skip(rest, left);
                    self.state = match left {
                        0 => State::DataReturn,
                        left => State::Data(left),
                    };
                    taken
                }
                state => {
                    self.state = self.step(state, rest[0]);
                    if self.state == State::Broken {
                        return at;
                    }
                    1
                }
            };
        }
        at
    }

    /// Whether a byte was wrong.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    fn step(&mut self, state: State, byte: u8) -> State {
        self.line_bytes += 1;
        let next = match (state, byte) {
            (State::Head, b'\n') => return self.head_line(),
            (State::Head, byte) => {
                if self.line.len() < LINE_BYTES_KEPT {
                    self.line.push(byte);
                }
                return match &mut self.blanks {
                    Some(2) if byte == b' ' => State::Broken,
                    Some(blanks) => {
                        *blanks += u8::from(byte == b' ');
                        State::Head
                    }
                    None => State::Head,
                };
            }
            (State::Size(size), byte) if byte.is_ascii_hexdigit() => {
                let digit = u64::from((byte as char).to_digit(16).unwrap_or_default());
                match size.unwrap_or_default().checked_mul(16) {
                    // Bodies are limited far below.
                    Some(size) if size < 1 << 56 => State::Size(Some(size + digit)),
                    _ => State::Broken,
                }
            }
            (State::Size(Some(size)), b';') => State::Extension(size),
            (State::Size(Some(size)) | State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), b'\t' | b' '..=b'~') => State::Extension(size),
            (State::SizeEnd(size), b'\n') => {
                self.line_bytes = 0;
                match size {
                    0 => State::Trailers,
                    size => State::Data(size),
                }
            }
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => {
                self.line_bytes = 0;
                State::Size(None)
            }
            (State::Trailers, b'\r') => State::TrailerEnd,
            (State::Trailers, b'\t' | b' '..=b'~') => State::Trailers,
            (State::TrailerEnd, b'\n') => {
                // The carriage return and the line feed themselves.
                let is_last = self.line_bytes == 2;
                self.line_bytes = 0;
                if is_last {
                    State::Head
                } else {
                    State::Trailers
                }
            }
            _ => State::Broken,
        };
        if self.line_bytes > LINE_BYTES_MAX {
            return State::Broken;
        }
        next
    }

    /// A line of a header section is over: notes what it says of the body, and knows after the
    /// empty one what follows.
    fn head_line(&mut self) -> State {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let is_empty = self.line_bytes == self.line.len() + 1 && line.is_empty();
        let is_cut = self.line_bytes > LINE_BYTES_KEPT;
        let value_of = |name: &[u8]| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        };
        if value_of(b"transfer-encoding").is_some() {
            self.chunked = true;
        }
        if let Some(value) = value_of(b"content-length") {
            let length = std::str::from_utf8(value).ok();
            let length = length.and_then(|length| length.trim().parse().ok());
            self.length = length.filter(|_| !is_cut);
        }
        self.line.clear();
        self.line_bytes = 0;
        if !is_empty {
            self.blanks = None;
            return State::Head;
        }
        if self.blanks.is_some() {
            // An empty line before a request (RFC 9112 section 2.2).
            return State::Head;
        }
        self.blanks = Some(0);
        let length = self.length.replace(0);
        match (std::mem::take(&mut self.chunked), length) {
            (true, _) => State::Size(None),
            (false, None) => State::Lost,
            (false, Some(0)) => State::Head,
            (false, Some(length)) => State::Body(length),
        }
    }
}

/// Takes up to `left` bytes: how many were taken, and how many are still to come.
fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (taken, left - taken as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// How much of `body` passes behind a header section that announces chunks.
    fn check(body: &str, good: usize) {
        let mut framing = Framing::default();
        assert_eq!(framing.feed(CHUNKED.as_bytes()), CHUNKED.len());
        assert_eq!(framing.feed(body.as_bytes()), good, "{body:?}");
        assert_eq!(framing.is_broken(), good < body.len(), "{body:?}");
        // Whatever the pieces are that it comes in.
        let mut framing = Framing::default();
        framing.feed(CHUNKED.as_bytes());
        let passed: usize = body
            .bytes()
            .map(|byte| framing.feed(&[byte]))
            .take_while(|n| *n == 1)
            .count();
        assert_eq!(passed, good, "{body:?} byte by byte");
    }

    fn all(body: &str) {
        check(body, body.len());
    }

    #[test]
    fn chunks_as_the_standard_has_them() {
        all("5\r\nhello\r\n0\r\n\r\n");
        all("5;name=\"a b\"\r\nhello\r\n00\r\n\r\n");
        all("A\r\n\r\n0\r\n\r\n123\r\n0\r\n\r\n");
        all("0\r\nX-Trailer: a\r\nY: b\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        all(
            "5\r\nhello\r\n0\r\n\r\nPOST / HTTP/1.1\r\ncontent-length:3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
        );
    }

    #[test]
    fn chunks_in_another_way() {
        check("\r\nhello", 0);
        check(" 5\r\nhello", 0);
        check("5 \r\nhello", 1);
        check("5\t;a\r\nhello", 1);
        check("5\nhello", 1);
        check("5;a\nb\r\nhello", 3);
        check("5\r\nhello0\r\n", 8);
        check("5\r\nhello\n0\r\n", 8);
        check("0x5\r\nhello", 1);
        check("+5\r\n", 0);
        check(";a\r\n", 0);
        check("100000000000000000\r\n", 14);
        check("0\r\n\n", 3);
        check("0\r\nX: a\n\r\n", 7);
        check("0\r\nX: a\rb\r\n", 8);
    }

    #[test]
    fn request_lines() {
        let check = |head: &str, good: usize| {
            assert_eq!(Framing::default().feed(head.as_bytes()), good, "{head:?}");
        };
        let good = "\r\n\r\nGET / HTTP/1.1\r\nHost: x y z\r\n\r\nGET /\r\n\r\n";
        check(good, good.len());
        check("GET /a b HTTP/1.1\r\n", 8);
        check("GET / HTTP/1.1\r\n\r\nGET  / HTTP/1.1\r\n", 24);
    }

    #[test]
    fn endless_lines() {
        let long = format!("5;{}", "a".repeat(10_000));
        check(&long, LINE_BYTES_MAX);
        let long = format!("0\r\nX: {}", "a".repeat(10_000));
        check(&long, LINE_BYTES_MAX + 3);
    }

    #[test]
    fn lengths() {
        let mut framing = Framing::default();
        let request = "PUT / HTTP/1.1\r\nCONTENT-LENGTH:   10  \r\n\r\n\r\n\r\n5\r\n\r\nxGET / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n\r\n";
        let good = framing.feed(request.as_bytes());
        assert_eq!(
            good,
            request.len() - 2,
            "the body is over where its length says"
        );
        for value in ["", "x", "-1", "1 1", "99999999999999999999"] {
            let mut framing = Framing::default();
            let head = format!("PUT / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n");
            assert_eq!(
                framing.feed(format!("{head}x").as_bytes()),
                head.len(),
                "{value:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_we_write_ourselves_passes(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5)) {
            let mut framing = Framing::default();
            for body in &bodies {
                let mut bytes = CHUNKED.as_bytes().to_vec();
                for chunk in body.chunks(7) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
                bytes.extend(format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(body);
                prop_assert_eq!(framing.feed(&bytes), bytes.len());
            }
            prop_assert_eq!(framing.state, State::Head);
        }
    }
}
