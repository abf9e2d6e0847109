//! What is judged: one message head as slices of the bytes that came, who sent it, and when.
//!
//! Where a message ends, and that its lines are lines, is settled before there is a [`Request`].
//! What is left is refused here: whatever two parsers in a chain may take for two different requests
//! (RFC 9112 section 3.2; RFC 9110 sections 7.2, 7.6.1, 9.3.1 and 10.1.1).

use std::fmt;
use std::net::IpAddr;

use super::Refusal;
use super::fault::MessageFault;
use super::host::Authority;
use super::names::Names;
use super::peer::Peer;
use super::proof::Proof;
use crate::signing::Epoch;

/// Most header fields of a request.
pub const HEADERS_MAX: usize = 128;

/// Largest header section of a request in bytes: names, values and four bytes for each line.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// One line of a header section.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// The name as it was sent.
    pub name: &'a [u8],
    /// The value without the blanks around it.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name, given in lower case.
    pub fn is(&self, name: &str) -> bool {
        is_name(self.name, name)
    }
}

/// A value may be a credential.
impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [redacted]", self.name.escape_ascii())
    }
}

/// The version a message was spoken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing; also an announced length of 0.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// A body that says itself where it ends; it may turn out to be empty.
    Unknown,
}

/// A request as it arrived.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method sent.
    pub method: &'a [u8],
    /// The bytes of the request target.
    pub target: &'a [u8],
    /// `:authority` of HTTP/2; `None` on HTTP/1.
    pub authority: Option<&'a [u8]>,
    /// The header fields, in the order they came.
    pub fields: &'a [Field<'a>],
    /// The version of the protocol.
    pub version: Version,
    /// What follows.
    pub body: Body,
    /// Who sent it.
    pub peer: &'a Peer,
    /// Where it comes from, as far as [`Peer::client`] could tell.
    pub client: IpAddr,
    /// When it came.
    pub at: Epoch,
    /// What has been found out about it beside its head.
    pub proof: &'a Proof,
}

/// A target may hold a credential, which is why it is refused there.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method.escape_ascii().to_string())
            .field("fields", &self.fields)
            .field("version", &self.version)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// A field that may stand once stands there several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

impl<'a> Request<'a> {
    /// A request on HTTP/1.1, without a body.
    pub fn new(
        peer: &'a Peer,
        method: &'a [u8],
        target: &'a [u8],
        fields: &'a [Field<'a>],
        at: Epoch,
    ) -> Self {
        Self {
            method,
            target,
            authority: None,
            fields,
            version: Version::Http11,
            body: Body::None,
            peer,
            client: peer.client(fields),
            at,
            proof: Proof::NONE,
        }
    }

    /// The values of every field of this name, given in lower case.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        all(self.fields, name)
    }

    /// The value of the only field of this name, given in lower case.
    ///
    /// # Errors
    /// [`Repeated`].
    pub fn only(&self, name: &str) -> Result<Option<&'a [u8]>, Repeated> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Repeated),
            (value, None) => Ok(value),
        }
    }

    /// Whether `Connection` names this header, given in lower case: then whoever follows it takes the
    /// header away.
    pub fn nominates(&self, name: &str) -> bool {
        let mut options = self
            .all("connection")
            .flat_map(|value| value.split(|byte| *byte == b','));
        options.any(|option| is_name(option.trim_ascii(), name))
    }

    /// The authority the request is for, after checking the whole head.
    ///
    /// # Errors
    /// [`Refusal::HeadersTooLarge`], [`Refusal::MethodNotSupported`] for CONNECT and TRACE, and
    /// [`Refusal::BadMessage`].
    pub fn check(&self) -> Result<Authority<'a>, Refusal> {
        self.check_size()?;
        if matches!(self.method, b"CONNECT" | b"TRACE") {
            return Err(Refusal::MethodNotSupported);
        }
        self.check_values().map_err(Refusal::BadMessage)?;
        self.check_expectation().map_err(Refusal::BadMessage)?;
        if self.peer.names_two_clients(self.fields) {
            return Err(Refusal::BadMessage(MessageFault::TwoClients));
        }
        // A body on these has no meaning (RFC 9110 section 9.3.1), and servers that do not read it
        // take it for the next request.
        let bodiless = matches!(self.method, b"GET" | b"HEAD" | b"OPTIONS");
        if bodiless && matches!(self.body, Body::Length(1..)) {
            return Err(Refusal::BadMessage(MessageFault::BodyWithoutMeaning));
        }
        self.host().map_err(Refusal::BadMessage)
    }

    fn check_size(&self) -> Result<(), Refusal> {
        let line = |field: &Field<'_>| field.name.len() + field.value.len() + 4;
        if self.fields.len() > HEADERS_MAX
            || self.fields.iter().map(line).sum::<usize>() > HEADER_BYTES_MAX
        {
            return Err(Refusal::HeadersTooLarge);
        }
        Ok(())
    }

    /// Judges the values the decision rests on, and no others: what else a stranger sends is dropped
    /// unread.
    fn check_values(&self) -> Result<(), MessageFault> {
        for field in self.fields {
            if !DECISIVE.has(field.name) {
                continue;
            }
            let nominates_too_much = || {
                let mut options = field.value.split(|byte| *byte == b',');
                field.is("connection") && options.any(|option| self.rests_on(option.trim_ascii()))
            };
            if !is_plain(field.value) {
                return Err(MessageFault::Value);
            }
            if nominates_too_much() {
                return Err(MessageFault::Connection);
            }
        }
        Ok(())
    }

    /// Whether the request holds a field of this name that the decision, or the message's end, rests
    /// on: who follows a nomination in `Connection` takes it away, who does not keeps it (RFC 9110
    /// section 7.6.1 forbids it). What else is nominated is not sent on anyway.
    fn rests_on(&self, option: &[u8]) -> bool {
        let counts = DECISIVE.has(option) && !is_name(option, "connection");
        (counts || FRAMING.has(option))
            && self
                .fields
                .iter()
                .any(|field| field.name.eq_ignore_ascii_case(option))
    }

    fn check_expectation(&self) -> Result<(), MessageFault> {
        match self.only("expect") {
            Ok(None) => Ok(()),
            Ok(Some(value)) if value.eq_ignore_ascii_case(b"100-continue") => Ok(()),
            _ => Err(MessageFault::Expectation),
        }
    }

    fn host(&self) -> Result<Authority<'a>, MessageFault> {
        let header = self.only("host");
        let header = header.map_err(|Repeated| MessageFault::HostCount)?;
        let host = match (self.authority, header) {
            (Some(authority), Some(header)) if authority.eq_ignore_ascii_case(header) => authority,
            (Some(host), None) | (None, Some(host)) => host,
            (Some(_), Some(_)) => return Err(MessageFault::HostMismatch),
            (None, None) => return Err(MessageFault::HostCount),
        };
        let host = std::str::from_utf8(host).map_err(|_| MessageFault::HostForm)?;
        Authority::parse(host).ok_or(MessageFault::HostForm)
    }
}

/// The values of every field of this name, given in lower case.
pub fn all<'a, 'n>(
    fields: &'a [Field<'a>],
    name: &'n str,
) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
    fields
        .iter()
        .filter(move |field| field.is(name))
        .map(|field| field.value)
}

/// Whether a value is of visible ASCII, blanks and tabs.
pub fn is_plain(value: &[u8]) -> bool {
    // To the end even where it could stop: so it looks at many bytes at once.
    !value.iter().fold(false, |odd, byte| {
        odd | !matches!(byte, b'\t' | b' '..=b'~')
    })
}

/// The headers that hold what a caller shows, or what it asks to be done.
static DECISIVE: Names<9> = Names::new([
    "host",
    "expect",
    "origin",
    "x-api-key",
    "connection",
    "x-deki-token",
    "authorization",
    "x-http-method-override",
    "access-control-request-method",
]);

/// Further headers that say what the message is and where it ends.
static FRAMING: Names<3> = Names::new(["content-type", "content-length", "transfer-encoding"]);

fn is_name(sent: &[u8], name: &str) -> bool {
    sent.len() == name.len() && sent.eq_ignore_ascii_case(name.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// Who sends the requests of tests.
    pub(crate) static PEER: LazyLock<Peer> = LazyLock::new(|| Peer::plain([192, 0, 2, 7].into()));

    /// The fields of a request in a test.
    pub(crate) fn fields<'a>(lines: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
        let field = |&(name, value): &(&'a str, &'a str)| Field {
            name: name.as_bytes(),
            value: value.as_bytes(),
        };
        lines.iter().map(field).collect()
    }

    /// A request in a test, without a body.
    pub(crate) fn request<'a>(
        method: &'a str,
        target: &'a str,
        fields: &'a [Field<'a>],
    ) -> Request<'a> {
        Request::new(
            &PEER,
            method.as_bytes(),
            target.as_bytes(),
            fields,
            Epoch::from_unix(1_800_000_000),
        )
    }

    fn bad(fault: MessageFault) -> Result<(), Refusal> {
        Err(Refusal::BadMessage(fault))
    }

    fn check(method: &str, lines: &[(&str, &str)], expected: Result<(), Refusal>) {
        let mut all = vec![("Host", "gw.example")];
        all.extend_from_slice(lines);
        let fields = fields(&all);
        let verdict = request(method, "/", &fields).check().map(|_| ());
        assert_eq!(verdict, expected, "{method} {lines:?}");
    }

    #[test]
    fn bodies_where_they_have_a_meaning() {
        let check = |method: &str, body: Body, expected| {
            let fields = fields(&[("host", "h")]);
            let mut request = request(method, "/", &fields);
            request.body = body;
            assert_eq!(request.check().map(|_| ()), expected, "{method} {body:?}");
        };
        check("GET", Body::None, Ok(()));
        check("GET", Body::Length(0), Ok(()));
        check("POST", Body::Length(12), Ok(()));
        check("PUT", Body::Unknown, Ok(()));
        check("GET", Body::Unknown, Ok(()));
        for method in ["GET", "HEAD", "OPTIONS"] {
            check(
                method,
                Body::Length(1),
                bad(MessageFault::BodyWithoutMeaning),
            );
        }
    }

    #[test]
    fn expectations() {
        check("PUT", &[("Expect", "100-Continue")], Ok(()));
        check(
            "POST",
            &[("expect", "200-ok")],
            bad(MessageFault::Expectation),
        );
        check(
            "PUT",
            &[("expect", "100-continue"), ("expect", "100-continue")],
            bad(MessageFault::Expectation),
        );
    }

    #[test]
    fn exactly_one_host() {
        let check = |lines: &[(&str, &str)], expected| {
            let fields = fields(lines);
            let verdict = request("GET", "/", &fields).check().map(|_| ());
            assert_eq!(verdict, expected, "{lines:?}");
        };
        check(&[("host", "gw.example:8080")], Ok(()));
        check(&[("HOST", "[::1]:8080")], Ok(()));
        check(&[], bad(MessageFault::HostCount));
        let twice = [("host", "a"), ("Host", "a")];
        check(&twice, bad(MessageFault::HostCount));
        for host in ["", "a@b", "a/b", "a b", "a, a", "a:b", "a:99999"] {
            check(&[("host", host)], bad(MessageFault::HostForm));
        }
    }

    #[test]
    fn the_authority_of_http2_agrees_with_host() {
        let check = |authority: &str, lines: &[(&str, &str)], expected| {
            let fields = fields(lines);
            let mut request = request("GET", "/", &fields);
            request.version = Version::Http2;
            request.authority = Some(authority.as_bytes());
            let seen = request.check().map(|authority| authority.text);
            assert_eq!(seen, expected, "{authority} {lines:?}");
        };
        check("gw.example", &[], Ok("gw.example"));
        check("gw.example", &[("host", "GW.example")], Ok("gw.example"));
        let differs = Refusal::BadMessage(MessageFault::HostMismatch);
        check("gw.example", &[("host", "other")], Err(differs));
        let malformed = Refusal::BadMessage(MessageFault::HostForm);
        check("a@gw.example", &[], Err(malformed));
    }

    #[test]
    fn only_values_that_count_are_judged() {
        check("GET", &[("x-name", "J\u{f6}rg")], Ok(()));
        check("GET", &[("cookie", "name=J\u{f6}rg")], Ok(()));
        check("GET", &[("user-agent", "J\u{f6}rg")], Ok(()));
        for name in DECISIVE.iter() {
            check("GET", &[(name, "J\u{f6}rg")], bad(MessageFault::Value));
        }
        let latin = [
            Field {
                name: b"host",
                value: b"h",
            },
            Field {
                name: b"cookie",
                value: b"a=\xe9",
            },
        ];
        assert!(request("GET", "/", &latin).check().is_ok());
        check("TRACE", &[], Err(Refusal::MethodNotSupported));
        check("CONNECT", &[], Err(Refusal::MethodNotSupported));
    }

    #[test]
    fn connection_may_not_name_what_the_decision_rests_on() {
        check(
            "GET",
            &[("connection", "keep-alive, x-custom, cookie")],
            Ok(()),
        );
        check("GET", &[("connection", "close, TE, Upgrade")], Ok(()));
        for name in [
            "Content-Length",
            "transfer-encoding",
            "Host",
            "ORIGIN",
            "authorization",
            "x-api-key",
            "X-Deki-Token",
            "x-http-method-override",
            "content-type",
        ] {
            let nominates = format!("close ,{name}\t");
            let sent = [(name, "https://a.test"), ("connection", &nominates)];
            if name == "Host" {
                check("GET", &sent[1..], bad(MessageFault::Connection));
                continue;
            }
            check("GET", &sent, bad(MessageFault::Connection));
            check(
                "GET",
                &[sent[0], ("connection", "close"), ("Connection", name)],
                bad(MessageFault::Connection),
            );
            check("GET", &sent[1..], Ok(()));
        }
        check(
            "GET",
            &[
                ("connection", "Forwarded, X-Forwarded-For"),
                ("x-forwarded-for", "x"),
            ],
            Ok(()),
        );
    }

    #[test]
    fn too_many_headers_and_too_large_ones() {
        check(
            "GET",
            &vec![("x-a", "1"); HEADERS_MAX],
            Err(Refusal::HeadersTooLarge),
        );
        check("GET", &vec![("x-a", "1"); HEADERS_MAX - 1], Ok(()));
        check(
            "GET",
            &[("x-a", &"a".repeat(HEADER_BYTES_MAX))],
            Err(Refusal::HeadersTooLarge),
        );
    }

    #[test]
    fn debug_prints_no_value() {
        let fields = fields(&[("x-api-key", "canary-key")]);
        let request = request("GET", "/?authtoken=canary-token", &fields);
        let printed = format!("{request:?}");
        assert!(!printed.contains("canary"), "{printed}");
        assert!(printed.contains("x-api-key: [redacted]"), "{printed}");
    }
}
