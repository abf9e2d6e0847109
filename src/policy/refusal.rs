//! Every reason to say no: its status, its stable code, and the sentence that says what to change.
//!
//! The sentences are constants. Nothing of a request or of a secret can be in them, so a refusal
//! may be logged, counted and shown without a second thought.

use http::StatusCode;

use super::fault::{MessageFault, TargetFault};

/// Why a request is not forwarded, or why its answer is not passed on.
///
/// The code of a refusal never changes its meaning: it is the metric label, the header
/// `X-Countersign-Refusal`, the `resource` of the error document and the tests' expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request target cannot be judged the way the site would read it.
    BadTarget(TargetFault),
    /// The message breaks a rule of HTTP that peers read in different ways.
    BadMessage(MessageFault),
    /// The caller sent a MindTouch token or a MindTouch identity of its own.
    CallerSentToken,
    /// A query parameter would steer the site or reshape its answer.
    ForbiddenParameter,
    /// The method overrides repeat, disagree, or ask for what they cannot.
    ConflictingMethod,
    /// More than one credential was presented.
    AmbiguousCredential,
    /// No credential was presented.
    CredentialMissing,
    /// The credential presented is not one of the route's callers'.
    CredentialUnknown,
    /// The credential presented is no longer good.
    CredentialExpired,
    /// A page of this route must say where it comes from, and did not.
    OriginMissing,
    /// The page's origin is not on the list.
    OriginNotAllowed,
    /// The caller may not act as that user.
    UserNotAllowed,
    /// The route allows no such call.
    CapabilityMissing,
    /// The call would hand out a credential.
    MintsCredentials,
    /// The caller's address is not on its list.
    AddressNotAllowed,
    /// No route answers this host and path.
    NoRoute,
    /// The host has a certificate of its own, and the connection was opened with another one.
    Misdirected,
    /// The method is not one of the API's.
    MethodNotSupported,
    /// The request took too long to arrive.
    RequestTimeout,
    /// The body is longer than the route accepts.
    BodyTooLarge,
    /// The request target is longer than 16 KiB.
    TargetTooLong,
    /// Too many requests in too short a time.
    RateLimited,
    /// Too many requests at once.
    ConcurrencyLimited,
    /// The header section is larger than 64 KiB or holds more than 128 fields.
    HeadersTooLarge,
    /// No connection to the site could be made, or it was lost.
    SiteUnreachable,
    /// What the site answered is not an answer that may be passed on.
    SiteInvalidAnswer,
    /// The site does not take the gateway's own token.
    SiteRefusedToken,
    /// The site failed repeatedly and is being left alone for a while.
    SiteUnavailable,
    /// The gateway is stopping.
    Draining,
    /// The site did not answer in time.
    SiteTimeout,
    /// Something here went wrong, and nobody outside can mend it.
    Internal,
}

impl Refusal {
    /// Every refusal there is, one for each code.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter()
    }

    /// The stable code: lower-case ASCII letters and underscores.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        self.row().0
    }

    /// One sentence for the person who reads the answer: what to change.
    pub fn sentence(self) -> &'static str {
        self.row().2
    }

    /// Whether whoever runs the gateway or the site has to mend it: no caller can.
    pub fn is_for_operators(self) -> bool {
        self.status().is_server_error() && self != Self::Draining
    }

    /// Which of its causes a refusal has, for the record, where its code has several.
    pub fn fault(self) -> Option<&'static str> {
        match self {
            Self::BadTarget(fault) => Some(fault.name()),
            Self::BadMessage(fault) => Some(fault.name()),
            _ => None,
        }
    }

    /// Where its code stands in [`Self::all`].
    pub fn position(self) -> usize {
        let kind = std::mem::discriminant(&self);
        let is_kind = |one: &Self| std::mem::discriminant(one) == kind;
        ALL.iter().position(is_kind).unwrap_or_default()
    }

    /// Whether it says something of who asks, or from where, and nothing of what is asked.
    pub fn is_of_who_asks(self) -> bool {
        matches!(
            self,
            Self::CredentialMissing
                | Self::CredentialUnknown
                | Self::CredentialExpired
                | Self::AddressNotAllowed
                | Self::UserNotAllowed
        )
    }

    /// Whether the connection must close after this refusal, because where the next request
    /// starts is not certain or the rest of this one is not worth reading.
    pub fn closes_connection(self) -> bool {
        matches!(
            self,
            Self::BadMessage(_)
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::HeadersTooLarge
                | Self::TargetTooLong
        )
    }

    /// Status, code and sentence.
    #[expect(
        clippy::too_many_lines,
        reason = "the one list of everything that is refused"
    )]
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadTarget(fault) => (StatusCode::BAD_REQUEST, "bad_target", fault.sentence()),
            Self::BadMessage(fault) => (StatusCode::BAD_REQUEST, "bad_message", fault.sentence()),
            Self::CallerSentToken => (
                StatusCode::BAD_REQUEST,
                "caller_sent_token",
                "Do not send a MindTouch token, API key or user: this gateway adds them. Send only the credential that the gateway's operator gave you.",
            ),
            Self::ForbiddenParameter => (
                StatusCode::BAD_REQUEST,
                "forbidden_parameter",
                "A query parameter is not accepted here: of dream.in.* only dream.in.verb, of dream.out.* only dream.out.select and dream.out.format with json, php or xml, and none that sets a password.",
            ),
            Self::ConflictingMethod => (
                StatusCode::BAD_REQUEST,
                "conflicting_method",
                "Override the method once, and only that of a POST: dream.in.verb or X-HTTP-Method-Override with PUT or DELETE.",
            ),
            Self::AmbiguousCredential => (
                StatusCode::BAD_REQUEST,
                "ambiguous_credential",
                "Send exactly one credential, once: in Authorization, in X-Api-Key or in X-Deki-Token, as a signature, or as a client certificate.",
            ),
            Self::CredentialMissing => (
                StatusCode::UNAUTHORIZED,
                "credential_missing",
                "Send the credential that the gateway's operator gave you: a key or a token as Authorization: Bearer, a key as X-Api-Key or, if it begins with cs_, as X-Deki-Token, a user name and a password as Authorization: Basic, a signature, or a client certificate.",
            ),
            Self::CredentialUnknown => (
                StatusCode::UNAUTHORIZED,
                "credential_unknown",
                "This credential is not accepted on this route: check it, or ask the gateway's operator to add you to the route.",
            ),
            Self::CredentialExpired => (
                StatusCode::UNAUTHORIZED,
                "credential_expired",
                "This credential has expired: obtain a new one.",
            ),
            Self::OriginMissing => (
                StatusCode::FORBIDDEN,
                "origin_missing",
                "This route serves web pages: the request must carry the page's Origin, exactly one.",
            ),
            Self::OriginNotAllowed => (
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                "The page's origin is not allowed on this route: ask the gateway's operator to add its host.",
            ),
            Self::UserNotAllowed => (
                StatusCode::FORBIDDEN,
                "user_not_allowed",
                "You may not act as this user: ask the gateway's operator which users are allowed.",
            ),
            Self::CapabilityMissing => (
                StatusCode::FORBIDDEN,
                "capability_missing",
                "This route does not allow that call: ask the gateway's operator to add the capability that covers it.",
            ),
            Self::MintsCredentials => (
                StatusCode::FORBIDDEN,
                "mints_credentials",
                "This call hands out credentials or reaches beyond the knowledge base; it is not available through this gateway.",
            ),
            Self::AddressNotAllowed => (
                StatusCode::FORBIDDEN,
                "address_not_allowed",
                "Your address may not use this credential: ask the gateway's operator to add it.",
            ),
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                "no_route",
                "No route answers this host and path: check the gateway's address and mount.",
            ),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                "This host is served with another certificate than this connection was opened with: open a connection of its own to it, naming it in the TLS handshake (SNI).",
            ),
            Self::MethodNotSupported => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_supported",
                "Use GET, HEAD, POST, PUT, DELETE or OPTIONS, in capital letters.",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "The request arrived too slowly: send its header section within 10 seconds and its body without long pauses.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The body is larger than this route accepts: send less, or ask the gateway's operator to raise body_max.",
            ),
            Self::TargetTooLong => (
                StatusCode::URI_TOO_LONG,
                "target_too_long",
                "The request target is longer than 16 KiB: shorten the path or the query.",
            ),
            Self::RateLimited => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "Too many requests: wait as long as Retry-After says.",
            ),
            Self::ConcurrencyLimited => (
                StatusCode::TOO_MANY_REQUESTS,
                "concurrency_limited",
                "Too many requests at the same time: wait for some to finish.",
            ),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "The header section is larger than 64 KiB or has more than 128 fields: send fewer or shorter ones.",
            ),
            Self::SiteUnreachable => (
                StatusCode::BAD_GATEWAY,
                "site_unreachable",
                "The MindTouch site could not be reached, or the connection was lost before it answered.",
            ),
            Self::SiteInvalidAnswer => (
                StatusCode::BAD_GATEWAY,
                "site_invalid_answer",
                "The MindTouch site answered with something that may not be passed on.",
            ),
            Self::SiteRefusedToken => (
                StatusCode::BAD_GATEWAY,
                "site_refused_token",
                "The MindTouch site did not accept this gateway's token: tell the gateway's operator the request id.",
            ),
            Self::SiteUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "site_unavailable",
                "The MindTouch site failed repeatedly and is left alone for a while: try again as Retry-After says.",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "This gateway is stopping: try again, and you will reach another one.",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong inside the gateway: tell its operator the request id.",
            ),
            Self::SiteTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "site_timeout",
                "The MindTouch site did not answer in time.",
            ),
        }
    }
}

const ALL: [Refusal; 31] = [
    Refusal::BadTarget(TargetFault::Form),
    Refusal::BadMessage(MessageFault::StartLine),
    Refusal::CallerSentToken,
    Refusal::ForbiddenParameter,
    Refusal::ConflictingMethod,
    Refusal::AmbiguousCredential,
    Refusal::CredentialMissing,
    Refusal::CredentialUnknown,
    Refusal::CredentialExpired,
    Refusal::OriginMissing,
    Refusal::OriginNotAllowed,
    Refusal::UserNotAllowed,
    Refusal::CapabilityMissing,
    Refusal::MintsCredentials,
    Refusal::AddressNotAllowed,
    Refusal::NoRoute,
    Refusal::Misdirected,
    Refusal::MethodNotSupported,
    Refusal::RequestTimeout,
    Refusal::BodyTooLarge,
    Refusal::TargetTooLong,
    Refusal::RateLimited,
    Refusal::ConcurrencyLimited,
    Refusal::HeadersTooLarge,
    Refusal::SiteUnreachable,
    Refusal::SiteInvalidAnswer,
    Refusal::SiteRefusedToken,
    Refusal::SiteUnavailable,
    Refusal::Draining,
    Refusal::SiteTimeout,
    Refusal::Internal,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_stable_in_form() {
        let rows = include_str!("refusal.rs").split("fn row(").nth(1).unwrap();
        let rows = rows.split("const ALL").next().unwrap();
        let rows = rows.matches("StatusCode::").count();
        assert_eq!(rows, ALL.len(), "none is left out");
        let codes: HashSet<_> = Refusal::all().map(Refusal::code).collect();
        assert_eq!(codes.len(), ALL.len(), "two refusals share a code");
        for (index, refusal) in Refusal::all().enumerate() {
            assert_eq!(
                index,
                refusal.position(),
                "{refusal:?} stands in its own place"
            );
            assert!(
                refusal
                    .code()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{} is a code of lower-case words",
                refusal.code()
            );
            assert!(
                refusal.sentence().ends_with('.'),
                "{} ends its sentence",
                refusal.code()
            );
            assert!(
                !refusal.sentence().contains(['<', '>', '&', '"', '\\']),
                "{} needs no escaping in XML or JSON",
                refusal.code()
            );
        }
    }

    #[test]
    fn statuses_say_whose_the_mistake_is() {
        let check =
            |refusal: Refusal, status: u16| assert_eq!(refusal.status(), status, "{refusal:?}");
        check(Refusal::BadTarget(TargetFault::Dots), 400);
        check(Refusal::CredentialUnknown, 401);
        check(Refusal::MintsCredentials, 403);
        check(Refusal::NoRoute, 404);
        check(Refusal::Misdirected, 421);
        check(Refusal::MethodNotSupported, 405);
        check(Refusal::RequestTimeout, 408);
        check(Refusal::BodyTooLarge, 413);
        check(Refusal::TargetTooLong, 414);
        check(Refusal::RateLimited, 429);
        check(Refusal::HeadersTooLarge, 431);
        check(Refusal::SiteInvalidAnswer, 502);
        check(Refusal::SiteRefusedToken, 502);
        check(Refusal::Draining, 503);
        check(Refusal::SiteTimeout, 504);
    }
}
