//! What a request must look like as an HTTP message, where peers are known to read it differently.
//!
//! The engine underneath is lenient in places (it lets `Transfer-Encoding` win over
//! `Content-Length`, takes a bare LF for a line end, forwards a missing `Host`). Whatever two
//! parsers in a chain may take for two different messages is refused here (RFC 9112 sections 3.2,
//! 6.1, 6.3 and 11.2; RFC 9110 sections 5.5, 7.2 and 10.1.1).

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Method, Version};

use super::Refusal;

/// Most header fields of a request.
pub const HEADERS_MAX: usize = 128;

/// Largest header section of a request in bytes: names, values and four bytes for each line.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method sent.
    pub method: &'a Method,
    /// The bytes of the request target.
    pub target: &'a [u8],
    /// `:authority` of HTTP/2; `None` on HTTP/1.
    pub authority: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The version of the protocol.
    pub version: Version,
    /// Whether a body of at least one byte follows, or may follow.
    pub has_body: bool,
    /// The bytes of the header section, where the protocol has any: the engine has already dropped
    /// what it found redundant from [`Self::headers`].
    pub head: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// The authority the request is for, after checking the whole message.
    ///
    /// # Errors
    /// [`Refusal::HeadersTooLarge`], [`Refusal::MethodNotSupported`] for CONNECT and TRACE, and
    /// [`Refusal::BadMessage`].
    pub fn check(&self) -> Result<&'a str, Refusal> {
        self.check_size()?;
        if matches!(*self.method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::MethodNotSupported);
        }
        let visible = |value: &http::HeaderValue| {
            value
                .as_bytes()
                .iter()
                .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        };
        if !self.headers.values().all(visible) {
            return Err(Refusal::BadMessage);
        }
        self.check_framing()?;
        if let Some(head) = self.head {
            check_head(head)?;
        }
        self.check_expectation()?;
        self.host()
    }

    /// The announced length of the body in bytes.
    pub fn body_bytes(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn check_size(&self) -> Result<(), Refusal> {
        let bytes: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if self.headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            return Err(Refusal::HeadersTooLarge);
        }
        Ok(())
    }

    fn check_framing(&self) -> Result<(), Refusal> {
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err(Refusal::BadMessage);
        }
        if let Some(length) = length {
            let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
            if !digits || self.body_bytes().is_none() {
                return Err(Refusal::BadMessage);
            }
        }
        let mut codings = self.headers.get_all(TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let alone = codings.next().is_none() && length.is_none();
            let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !alone || !chunked || self.version != Version::HTTP_11 {
                return Err(Refusal::BadMessage);
            }
        }
        if names_framing(self.headers) {
            return Err(Refusal::BadMessage);
        }
        // A body on these has no meaning (RFC 9110 section 9.3.1), and servers that do not read it
        // take it for the next request.
        let bodiless = matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if bodiless && self.has_body {
            return Err(Refusal::BadMessage);
        }
        Ok(())
    }

    fn check_expectation(&self) -> Result<(), Refusal> {
        let mut expectations = self.headers.get_all(EXPECT).iter();
        match (expectations.next(), expectations.next()) {
            (None, _) => Ok(()),
            (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
            _ => Err(Refusal::BadMessage),
        }
    }

    fn host(&self) -> Result<&'a str, Refusal> {
        let mut hosts = self.headers.get_all(HOST).iter();
        let header = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(value), None) => Some(value.to_str().map_err(|_| Refusal::BadMessage)?),
            (Some(_), Some(_)) => return Err(Refusal::BadMessage),
        };
        let host = match (self.authority, header) {
            (Some(authority), Some(header)) if authority.eq_ignore_ascii_case(header) => authority,
            (Some(authority), None) => authority,
            (None, Some(header)) => header,
            (Some(_), Some(_)) | (None, None) => return Err(Refusal::BadMessage),
        };
        let well_formed = host.parse::<Authority>().is_ok() && !host.contains('@');
        well_formed.then_some(host).ok_or(Refusal::BadMessage)
    }
}

/// Whether `Connection` names a field that says where the message ends or whom it is for: a proxy that
/// follows it takes that away, one that does not keeps it (RFC 9110 section 7.6.1 forbids it).
fn names_framing(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter();
    options
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|option| {
            [CONTENT_LENGTH, TRANSFER_ENCODING, HOST]
                .iter()
                .any(|name| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
        })
}

/// The request target of an HTTP/1 header section: what stands between the two blanks of its first
/// line (RFC 9112 section 3); nothing if that is not its shape, and nothing is no target.
pub fn target_of(head: &[u8]) -> &[u8] {
    // An empty line before the first one is ignored (section 2.2).
    let mut lines = head.split(|byte| matches!(byte, b'\r' | b'\n'));
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(target), Some(_), None) => target,
        _ => b"",
    }
}

/// Judges the bytes of a header section: every line ends in CRLF, and the two ways to say how long a
/// body is do not stand side by side.
fn check_head(head: &[u8]) -> Result<(), Refusal> {
    let mut before = 0;
    for byte in head {
        if *byte == b'\n' && before != b'\r' {
            return Err(Refusal::BadMessage);
        }
        before = *byte;
    }
    let names = |name: &[u8]| {
        head.split(|byte| *byte == b'\n')
            .filter(|line| {
                line.get(..name.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(name))
                    && line.get(name.len()) == Some(&b':')
            })
            .count()
    };
    let (lengths, codings) = (names(b"content-length"), names(b"transfer-encoding"));
    if lengths + codings > 1 {
        return Err(Refusal::BadMessage);
    }
    Ok(())
}

/// The host of an authority without its port, in lower case.
pub fn host_name(authority: &str) -> String {
    let parsed = authority.parse::<Authority>();
    parsed
        .map(|parsed| parsed.host().to_ascii_lowercase())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn check_with(
        method: &str,
        version: Version,
        headers: &[(&str, &str)],
        head: Option<&str>,
    ) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                name.parse::<HeaderName>().unwrap(),
                http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        Request {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            target: b"/",
            authority: None,
            headers: &map,
            version,
            has_body: map.contains_key(TRANSFER_ENCODING)
                || map.get(CONTENT_LENGTH).is_some_and(|n| n != "0"),
            head: head.map(str::as_bytes),
        }
        .check()
        .map(|_| ())
    }

    fn check(method: &str, headers: &[(&str, &str)], expected: Result<(), Refusal>) {
        let mut all = vec![("host", "gw.example")];
        all.extend_from_slice(headers);
        assert_eq!(
            check_with(method, Version::HTTP_11, &all, None),
            expected,
            "{method} {headers:?}"
        );
    }

    const BAD: Result<(), Refusal> = Err(Refusal::BadMessage);

    #[test]
    fn framing_that_reads_one_way() {
        check("GET", &[], Ok(()));
        check("GET", &[("content-length", "0")], Ok(()));
        check("POST", &[("content-length", "12")], Ok(()));
        check(
            "PUT",
            &[("transfer-encoding", "chunked"), ("expect", "100-Continue")],
            Ok(()),
        );
        check(
            "POST",
            &[("content-length", "12"), ("content-length", "12")],
            BAD,
        );
        check("POST", &[("content-length", "12, 12")], BAD);
        check("POST", &[("content-length", "+12")], BAD);
        check("POST", &[("content-length", "")], BAD);
        check(
            "POST",
            &[("content-length", "99999999999999999999999")],
            BAD,
        );
        check(
            "POST",
            &[("content-length", "3"), ("transfer-encoding", "chunked")],
            BAD,
        );
        check("POST", &[("transfer-encoding", "gzip, chunked")], BAD);
        check("POST", &[("transfer-encoding", "identity")], BAD);
        check(
            "POST",
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            BAD,
        );
        check("GET", &[("content-length", "1")], BAD);
        check("HEAD", &[("transfer-encoding", "chunked")], BAD);
        check("POST", &[("expect", "200-ok")], BAD);
    }

    #[test]
    fn the_bytes_of_the_head_count_too() {
        let host = [("host", "h")];
        let check = |head: &str, expected| {
            assert_eq!(
                check_with("POST", Version::HTTP_11, &host, Some(head)),
                expected,
                "{head:?}"
            );
        };
        check(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
            Ok(()),
        );
        check(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            BAD,
        );
        check(
            "POST / HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\nCONTENT-LENGTH: 3\r\n\r\n",
            BAD,
        );
        check("POST / HTTP/1.1\nHost: h\r\n\r\n", BAD);
    }

    #[test]
    fn exactly_one_host() {
        let check = |headers: &[(&str, &str)], expected| {
            assert_eq!(
                check_with("GET", Version::HTTP_11, headers, None),
                expected,
                "{headers:?}"
            );
            assert_eq!(
                check_with("GET", Version::HTTP_10, headers, None),
                expected,
                "{headers:?}"
            );
        };
        check(&[("host", "gw.example:8080")], Ok(()));
        check(&[("host", "[::1]:8080")], Ok(()));
        check(&[], BAD);
        check(&[("host", "")], BAD);
        check(&[("host", "a"), ("host", "a")], BAD);
        check(&[("host", "a@b")], BAD);
        check(&[("host", "a/b")], BAD);
        check(&[("host", "a b")], BAD);
    }

    #[test]
    fn bytes_outside_ascii_and_other_methods() {
        check("GET", &[("x-name", "J\u{f6}rg")], BAD);
        check("TRACE", &[], Err(Refusal::MethodNotSupported));
        check("CONNECT", &[], Err(Refusal::MethodNotSupported));
    }

    #[test]
    fn too_many_headers_and_too_large_ones() {
        check(
            "GET",
            &vec![("x-a", "1"); HEADERS_MAX],
            Err(Refusal::HeadersTooLarge),
        );
        check(
            "GET",
            &[("x-a", &"a".repeat(HEADER_BYTES_MAX))],
            Err(Refusal::HeadersTooLarge),
        );
    }

    #[test]
    fn host_names() {
        assert_eq!(host_name("GW.Example:8080"), "gw.example");
        assert_eq!(host_name("[::1]:80"), "[::1]");
    }
}
