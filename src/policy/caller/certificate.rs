//! Callers that present a certificate: what of it identifies them.

use crate::policy::x509::Contents;
use crate::signing::Epoch;

/// What of a caller's certificate can identify it. The handshake has proved that the caller holds its
/// key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its DNS names, in lower case: subject alternative names only (RFC 9525 section 2).
    pub dns_names: Vec<Box<str>>,
    /// Its URIs: subject alternative names only.
    pub uris: Vec<Box<str>>,
    /// The SHA-256 digest of its public key (`SubjectPublicKeyInfo`, RFC 7469 section 2.4).
    pub spki_sha256: [u8; 32],
    /// What is to be said of it.
    pub standing: Standing,
}

impl Certificate {
    /// What a certificate that says this has to say at a time; `is_vouched` tells whether an authority
    /// of the listener vouches for it.
    pub fn new(contents: Contents, is_vouched: bool, now: Epoch) -> Self {
        let standing = match is_vouched {
            _ if !contents.is_in_date(now) => Standing::OutOfDate,
            true => Standing::Vouched,
            false => Standing::Unknown,
        };
        Self {
            dns_names: contents.dns_names,
            uris: contents.uris,
            spki_sha256: contents.spki_sha256,
            standing,
        }
    }
}

/// Whether a certificate's names can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An authority of the listener vouches for it.
    Vouched,
    /// No authority of the listener does; its key is proved all the same.
    Unknown,
    /// Its time is over, or has not begun.
    OutOfDate,
}
