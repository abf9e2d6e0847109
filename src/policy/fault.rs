//! What exactly is wrong with a message or a target: one fixed sentence for each cause.
//!
//! Both become a [`super::Refusal`], whose code is the same whatever the cause; the sentence goes to
//! the caller, the name into the record.

/// What makes a message ambiguous, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageFault {
    /// The request line is not a method, a target and a version.
    StartLine,
    /// A line of the header section is no field, or does not end as lines do.
    Line,
    /// A header that the decision rests on holds something else than visible ASCII.
    Value,
    /// The message broke off within its header section.
    Cut,
    /// No `Host`, or several.
    HostCount,
    /// `Host` is not a host name with an optional port.
    HostForm,
    /// `:authority` and `Host` differ.
    HostMismatch,
    /// Several `Content-Length`, or one that is no number.
    Length,
    /// A transfer coding other than one `chunked`, or one in HTTP/1.0.
    Coding,
    /// Both a length and a coding.
    LengthAndCoding,
    /// A body whose chunks, or whose end, are not as announced.
    Body,
    /// A body on a method that has none.
    BodyWithoutMeaning,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// `Connection` names a header that the decision rests on.
    Connection,
    /// A header that may stand once stands there several times.
    Repeated,
    /// It comes without TLS to where TLS is spoken.
    WithoutTls,
    /// `X-Forwarded-For` and `Forwarded` of a trusted proxy lead to different clients.
    TwoClients,
}

impl MessageFault {
    /// Every cause.
    pub const ALL: [Self; 17] = [
        Self::StartLine,
        Self::Line,
        Self::Value,
        Self::Cut,
        Self::HostCount,
        Self::HostForm,
        Self::HostMismatch,
        Self::Length,
        Self::Coding,
        Self::LengthAndCoding,
        Self::Body,
        Self::BodyWithoutMeaning,
        Self::Expectation,
        Self::Connection,
        Self::Repeated,
        Self::WithoutTls,
        Self::TwoClients,
    ];

    /// As it stands in the record.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// What to change.
    pub fn sentence(self) -> &'static str {
        self.row().1
    }

    #[expect(
        clippy::too_many_lines,
        reason = "the one list of what can be wrong with a message"
    )]
    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::StartLine => (
                "request_line",
                "The first line is no request line: send a method, one space, a target without spaces, one space and HTTP/1.1, and speak plain HTTP to this port.",
            ),
            Self::Line => (
                "header_line",
                "A line of the header section is malformed: send Name: value in one line that ends in CRLF, without a space before the colon and without control characters.",
            ),
            Self::Value => (
                "header_value",
                "A header that this gateway has to read holds something else than visible ASCII: correct Host, Origin, Connection, Expect, the credential or the method override.",
            ),
            Self::Cut => (
                "cut_short",
                "The connection ended within the header section: send it whole, with an empty line at its end.",
            ),
            Self::HostCount => ("host_count", "Send the Host header exactly once."),
            Self::HostForm => (
                "host_form",
                "The Host header is not a host name with an optional port: correct the address the client is configured with.",
            ),
            Self::HostMismatch => (
                "host_mismatch",
                "The Host header differs from the :authority of the request: send only one of them, or the same in both.",
            ),
            Self::Length => (
                "content_length",
                "Content-Length is not one decimal number: send it once, or leave it out.",
            ),
            Self::Coding => (
                "transfer_encoding",
                "Transfer-Encoding is not acceptable: send it once, with the value chunked, over HTTP/1.1, or send Content-Length.",
            ),
            Self::LengthAndCoding => (
                "length_and_coding",
                "The message has both Content-Length and Transfer-Encoding: send one of them.",
            ),
            Self::Body => (
                "body_framing",
                "The body does not end as its header section says: send as many bytes as Content-Length says, or well-formed chunks.",
            ),
            Self::BodyWithoutMeaning => (
                "body_not_expected",
                "A GET, HEAD or OPTIONS has a body here: send it without one, or use the method that is meant.",
            ),
            Self::Expectation => (
                "expect",
                "Expect is not acceptable: send 100-continue, once, or leave it out.",
            ),
            Self::Connection => (
                "connection",
                "The Connection header names a header that says who asks or what is asked: name only headers of this connection in it.",
            ),
            Self::Repeated => (
                "repeated_header",
                "A header that may stand once stands there several times: send it once.",
            ),
            Self::WithoutTls => (
                "without_tls",
                "This port speaks TLS: write https:// in place of http:// in the address the client is configured with.",
            ),
            Self::TwoClients => (
                "two_clients",
                "X-Forwarded-For and Forwarded name different clients: send neither, and let the proxy before this gateway write one; its operator can say which one counts (forwarded_header).",
            ),
        }
    }
}

/// What makes a target unacceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetFault {
    /// It is neither a path nor an absolute URL.
    Form,
    /// It is an absolute URL of another host.
    OtherHost,
    /// A byte that is not visible ASCII.
    Bytes,
    /// A fragment.
    Fragment,
    /// A character that no path has.
    Character,
    /// A backslash, plain.
    Backslash,
    /// A `%` that no two hexadecimal digits follow.
    Escape,
    /// Escapes that are not UTF-8.
    Encoding,
    /// An encoded slash, backslash, question mark or number sign.
    Separator,
    /// An encoded control character.
    Control,
    /// A dot segment.
    Dots,
    /// Two slashes in a row.
    EmptySegment,
    /// More segments than any path of the API has.
    Depth,
    /// Encoded more often than any client does.
    Encodings,
}

impl TargetFault {
    /// Every cause.
    pub const ALL: [Self; 14] = [
        Self::Form,
        Self::OtherHost,
        Self::Bytes,
        Self::Fragment,
        Self::Character,
        Self::Backslash,
        Self::Escape,
        Self::Encoding,
        Self::Separator,
        Self::Control,
        Self::Dots,
        Self::EmptySegment,
        Self::Depth,
        Self::Encodings,
    ];

    /// As it stands in the record.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// What to change.
    pub fn sentence(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Form => (
                "form",
                "The request target is no path: send an absolute path such as /@api/deki/pages/home.",
            ),
            Self::OtherHost => (
                "other_host",
                "The request target is an absolute URL of another host than the Host header says: send the path alone.",
            ),
            Self::Bytes => (
                "not_ascii",
                "The request target holds a byte that is not visible ASCII: percent-encode it as UTF-8.",
            ),
            Self::Fragment => (
                "fragment",
                "The request target holds a number sign: leave the fragment out, and encode one that belongs to a name (%2523 in a path, %23 in a query).",
            ),
            Self::Character => (
                "character",
                "The path holds a quotation mark, an angle bracket, a brace, a bracket, a bar, a caret or a backtick: percent-encode it.",
            ),
            Self::Backslash => (
                "backslash",
                "The path holds a backslash: write a slash, or encode one that belongs to a title twice (%255C).",
            ),
            Self::Escape => (
                "escape",
                "The path holds a percent sign that two hexadecimal digits do not follow: write %25 for the sign itself.",
            ),
            Self::Encoding => (
                "encoding",
                "The path's percent-escapes are not UTF-8: encode names as UTF-8.",
            ),
            Self::Separator => (
                "separator",
                "The path holds an encoded slash, backslash, question mark or number sign: encode one that belongs to a title or a name twice (%252F, %255C, %253F, %2523).",
            ),
            Self::Control => (
                "control",
                "The path holds an encoded control character: leave it out.",
            ),
            Self::Dots => (
                "dot_segment",
                "The path holds a dot segment (one or two dots between slashes, in whatever encoding): send the path that is meant.",
            ),
            Self::EmptySegment => (
                "empty_segment",
                "The path holds two slashes in a row: leave one out, and encode slashes that belong to a title twice (%252F).",
            ),
            Self::Depth => (
                "depth",
                "The path has more than 64 segments: encode slashes that belong to a title twice (%252F).",
            ),
            Self::Encodings => (
                "encodings",
                "The path is percent-encoded more than eight times: a title or a name is encoded twice.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_cause_has_a_name_and_a_sentence_of_its_own() {
        let messages = MessageFault::ALL.map(|fault| (fault.name(), fault.sentence()));
        let targets = TargetFault::ALL.map(|fault| (fault.name(), fault.sentence()));
        let (mut names, mut sentences) = (HashSet::new(), HashSet::new());
        for (name, sentence) in messages.into_iter().chain(targets) {
            assert!(names.insert(name), "{name} stands once");
            assert!(sentences.insert(sentence), "{name} has its own sentence");
            assert!(sentence.ends_with('.'), "{name}");
            // They stand in JSON and XML as they are.
            assert!(!sentence.contains(['"', '\\', '<', '>', '&']), "{name}");
        }
        assert_eq!(
            MessageFault::TwoClients as usize + 1,
            MessageFault::ALL.len()
        );
        assert_eq!(TargetFault::Encodings as usize + 1, TargetFault::ALL.len());
    }
}
