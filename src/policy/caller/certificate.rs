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
    /// of the listener vouches for it, or does within its time.
    pub fn new(contents: Contents, is_vouched: bool, now: Epoch) -> Self {
        let standing = match is_vouched {
            _ if !contents.is_in_date(now) => Standing::OutOfDate { is_vouched },
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
    OutOfDate {
        /// Whether an authority of the listener vouches for it within its time.
        is_vouched: bool,
    },
}

/// The certificate a caller must present.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateRule {
    /// One that an authority of the listener vouches for, with this DNS name, in lower case. A wildcard
    /// in a certificate names nobody in particular, so it is no such name.
    DnsName(Box<str>),
    /// One that an authority of the listener vouches for, with this URI.
    Uri(Box<str>),
    /// One with this public key, whoever made it.
    Spki([u8; 32]),
}

/// How a certificate stands to what a caller must present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It is the one.
    Yes,
    /// It would be, at another time.
    OutOfDate,
    /// It is another one, or nobody vouches for what it says.
    No,
}

impl CertificateRule {
    pub(super) fn judge(&self, certificate: &Certificate) -> Match {
        let (names_it, needs_voucher) = match self {
            Self::DnsName(name) => (certificate.dns_names.contains(name), true),
            Self::Uri(uri) => (certificate.uris.contains(uri), true),
            Self::Spki(digest) => (certificate.spki_sha256 == *digest, false),
        };
        match certificate.standing {
            _ if !names_it => Match::No,
            // Anybody can make one whose time is over, with any name in it.
            Standing::Unknown | Standing::OutOfDate { is_vouched: false } if needs_voucher => {
                Match::No
            }
            Standing::OutOfDate { .. } => Match::OutOfDate,
            Standing::Unknown | Standing::Vouched => Match::Yes,
        }
    }
}

impl Certificate {
    /// Every rule that this certificate could satisfy, were it vouched for and in time.
    pub(super) fn rules(&self) -> impl Iterator<Item = CertificateRule> {
        let dns_names = self.dns_names.iter().cloned().map(CertificateRule::DnsName);
        let uris = self.uris.iter().cloned().map(CertificateRule::Uri);
        std::iter::once(CertificateRule::Spki(self.spki_sha256))
            .chain(dns_names)
            .chain(uris)
    }
}
