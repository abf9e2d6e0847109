//! The one credential of a message: in which header it stands, and of which kind it is.

use super::is_key_of_ours;
use crate::policy::request::Request;
use crate::policy::{Refusal, TOKEN_HEADER};

/// The credential of a message, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// A key or a token.
    Bearer(&'a [u8]),
    /// What follows `Basic`.
    Basic(&'a [u8]),
    /// A scheme that nobody here uses.
    Other,
}

impl<'a> Presented<'a> {
    /// Reads the one credential of a message. A header without one presents nothing: some products send
    /// an empty `Authorization` beside the key.
    ///
    /// # Errors
    /// [`Refusal::AmbiguousCredential`] for more than one.
    pub(super) fn by(request: &Request<'a>) -> Result<Option<Self>, Refusal> {
        let mut presented = request.fields.iter().filter_map(|field| {
            let value = field.value.trim_ascii();
            if field.is("x-api-key") || field.is(TOKEN_HEADER) && is_key_of_ours(value) {
                (!value.is_empty()).then_some(Self::Bearer(value))
            } else if field.is("authorization") {
                credentials(value)
            } else {
                None
            }
        });
        match (presented.next(), presented.next()) {
            (Some(_), Some(_)) => Err(Refusal::AmbiguousCredential),
            (first, _) => Ok(first),
        }
    }
}

/// Whether a bearer credential that is no known key may be a signed token, be it a broken one: its parts
/// have dots between them (RFC 7515 section 7.1), which keys of ours do not have.
pub(super) fn may_be_token(key: &[u8]) -> bool {
    memchr::memchr(b'.', key).is_some()
}

/// What follows the scheme of an `Authorization`; nothing, if nothing does (RFC 9110 section 11.4).
fn credentials(value: &[u8]) -> Option<Presented<'_>> {
    let end = memchr::memchr(b' ', value).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    let is = |known: &[u8]| scheme.eq_ignore_ascii_case(known);
    match rest.trim_ascii() {
        b"" if is(b"") || is(b"bearer") || is(b"basic") => None,
        b"" => Some(Presented::Other),
        key if is(b"bearer") => Some(Presented::Bearer(key)),
        pair if is(b"basic") => Some(Presented::Basic(pair)),
        _ => Some(Presented::Other),
    }
}
