//! Raw quotation marks and angle brackets in a query, which the real site takes and hyper does not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

/// What comes on a connection, with those bytes percent-encoded in the query of each request line.
pub(super) struct Lenient<R> {
    stream: R,
    place: Place,
    ready: BytesMut,
}

impl<R> Lenient<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            place: Place::default(),
            ready: BytesMut::new(),
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lenient<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        wanted: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ready.is_empty() {
            let mut piece = [0; PIECE_BYTES];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut piece))?;
            this.place.pass(piece.filled(), &mut this.ready);
        }
        let count = wanted.remaining().min(this.ready.len());
        wanted.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Where in the messages of a connection the next byte stands.
#[derive(Default)]
struct Place {
    part: Part,
    /// The line so far, in lower case, without its end; no more of it than tells what it is.
    line: Vec<u8>,
    /// Whether the line is a request line whose query has begun.
    is_in_query: bool,
    body: Body,
}

/// A part of a message; the numbers are bytes that are still to come.
#[derive(Default)]
enum Part {
    #[default]
    RequestLine,
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    /// What is no HTTP/1: HTTP/2, or what hyper will refuse.
    Rest,
}

/// What the head says of the body.
#[derive(Clone, Copy, Default)]
enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
}

impl Place {
    /// Passes bytes on, each as it is but for those in a query.
    fn pass(&mut self, mut bytes: &[u8], out: &mut BytesMut) {
        while let Some(byte) = bytes.first() {
            let whole = match &mut self.part {
                Part::Rest => bytes.len(),
                Part::Body(left) | Part::Chunk(left) => {
                    let count = bytes
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= count as u64;
                    count
                }
                _ => {
                    self.pass_of_line(*byte, out);
                    bytes = &bytes[1..];
                    continue;
                }
            };
            out.extend_from_slice(&bytes[..whole]);
            bytes = &bytes[whole..];
            match self.part {
                Part::Body(0) => self.part = Part::RequestLine,
                Part::Chunk(0) => self.part = Part::ChunkSize,
                _ => {}
            }
        }
    }

    fn pass_of_line(&mut self, byte: u8, out: &mut BytesMut) {
        match byte {
            b'"' | b'<' | b'>' if self.is_in_query => {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            _ => out.extend_from_slice(&[byte]),
        }
        match byte {
            b'\n' => {
                let line = std::mem::take(&mut self.line);
                self.is_in_query = false;
                self.part = self.after(line.strip_suffix(b"\r").unwrap_or(&line));
            }
            b'?' if matches!(self.part, Part::RequestLine) => self.is_in_query = true,
            _ => {}
        }
        if byte != b'\n' && self.line.len() < LINE_BYTES_MAX {
            self.line.push(byte.to_ascii_lowercase());
        }
    }

    /// The part after a line.
    fn after(&mut self, line: &[u8]) -> Part {
        match (&self.part, line) {
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            (Part::RequestLine | Part::Trailers, b"") => Part::RequestLine,
            (Part::RequestLine, [b'p', b'r', b'i', b' ', ..]) => Part::Rest,
            (Part::RequestLine, _) => Part::Head,
            (Part::Head, b"") => match std::mem::take(&mut self.body) {
                Body::None | Body::Length(0) => Part::RequestLine,
                Body::Length(bytes) => Part::Body(bytes),
                Body::Chunked => Part::ChunkSize,
            },
            (Part::Head, line) => {
                self.body = body_of(line).unwrap_or(self.body);
                Part::Head
            }
            (Part::ChunkSize, line) => match chunk_size(line) {
                Some(0) => Part::Trailers,
                // And the end of its line.
                Some(bytes) => Part::Chunk(bytes.saturating_add(2)),
                None => Part::Rest,
            },
            (Part::Trailers, _) => Part::Trailers,
            (Part::Body(_) | Part::Chunk(_) | Part::Rest, _) => Part::Rest,
        }
    }
}

/// What a line of a head says of the body, if it does.
fn body_of(line: &[u8]) -> Option<Body> {
    let line = std::str::from_utf8(line).ok()?;
    let (name, value) = line.split_once(':')?;
    match name {
        "content-length" => value.trim().parse().ok().map(Body::Length),
        "transfer-encoding" => value.trim().ends_with("chunked").then_some(Body::Chunked),
        _ => None,
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let size = line.split(';').next()?;
    u64::from_str_radix(size.trim(), 16).ok()
}

/// How much is read at once.
const PIECE_BYTES: usize = 16 * 1024;

/// More of a line than any that says how long a body is.
const LINE_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of bytes that arrive in pieces of every size.
    fn check(sent: &str, expected: &str) {
        for size in [1, 2, 3, 7, sent.len()] {
            let mut place = Place::default();
            let mut out = BytesMut::new();
            for piece in sent.as_bytes().chunks(size) {
                place.pass(piece, &mut out);
            }
            let out = String::from_utf8(out.into()).unwrap();
            assert_eq!(out, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn the_query_of_each_request_line_and_nothing_else() {
        let odd = "GET /x?q=\"<a>\"?\" HTTP/1.1\r\n";
        let even = "GET /x?q=%22%3Ca%3E%22?%22 HTTP/1.1\r\n";
        let next = format!("{odd}H: a?\"<>\r\n\r\n");
        let kept = format!("{even}H: a?\"<>\r\n\r\n");
        check(&next, &kept);
        check(&format!("\r\n{next}{next}"), &format!("\r\n{kept}{kept}"));
        // Not in the path: nor does the real site know such a page.
        check("GET /<a>?<b> HTTP/1.1\n\n", "GET /<a>?%3Cb%3E HTTP/1.1\n\n");
        // A body may look like a request.
        let with = |line: &str, body: &str| {
            let head = format!("POST /x HTTP/1.1\r\n{line}\r\n\r\n{body}");
            check(&format!("{head}{next}"), &format!("{head}{kept}"));
        };
        let length = odd.len();
        with(&format!("CONTENT-LENGTH:{length}"), odd);
        with(&format!("Content-Length:  {length} "), odd);
        with("Content-Length: 0", "");
        let size = format!("{length:X}");
        with(
            "Transfer-Encoding: chunked",
            &format!("{size};x=\"\r\n{odd}\r\n0\r\n\r\n"),
        );
        with(
            "transfer-encoding: Chunked",
            &format!("{size}\r\n{odd}\r\n{size}\r\n{odd}\r\n0\r\nT: ?<\r\n\r\n"),
        );
    }

    #[test]
    fn what_is_no_http_1_passes_as_it_is() {
        for sent in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /?< HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nGET /?< HTTP/1.1\r\n\r\n",
        ] {
            check(sent, sent);
        }
        let long = "a".repeat(100_000);
        let sent = format!("GET /?{long}< HTTP/1.1\r\n{long}: <\r\n\r\n");
        check(&sent, &sent.replacen('<', "%3C", 1));
    }
}
