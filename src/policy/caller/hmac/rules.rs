//! How a product signs, as data: what a preset fills in and a file may change.

use std::time::Duration;

pub use super::timestamp::{Format, Source, Timestamp};

/// How a product signs its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The header the signature comes in, in lower case.
    pub signature_header: Box<str>,
    /// What stands between several entries of that header; `None` if all of it is one signature.
    pub separator: Option<Separator>,
    /// What a signature begins with; entries that begin otherwise do not count.
    pub prefix: Box<str>,
    /// How a signature is written.
    pub encoding: Encoding,
    /// The hash of the HMAC.
    pub algorithm: Algorithm,
    /// How the secret is written.
    pub secret_encoding: SecretEncoding,
    /// What it begins with, where it is decoded; that is no part of it.
    pub secret_prefix: Box<str>,
    /// What is signed, in this order.
    pub signed: Vec<Part>,
    /// When the message was signed; `None` if nothing says so.
    pub timestamp: Option<Timestamp>,
    /// The header of the message's id, in lower case, if it is signed.
    pub id_header: Option<Box<str>>,
    /// What the caller's URLs begin with, before the path: scheme and authority.
    pub public_url: Box<str>,
    /// What is decoded of a URL before it is signed.
    pub url_decoding: UrlDecoding,
    /// Query parameters that the product adds for its own purposes; they do not go up.
    pub drop_query: Vec<Box<str>>,
    /// Longest body in bytes that is read to verify it.
    pub body_bytes_max: u64,
    /// How long a signature is remembered where no time stands in the message.
    pub remembered_for: Duration,
}

/// What stands between the entries of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// A comma, and perhaps spaces around it.
    Comma,
    /// A space.
    Space,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits, in either case.
    Hex,
    /// The standard alphabet (RFC 4648 section 4), with or without padding.
    Base64,
    /// The alphabet of URLs (RFC 4648 section 5), with or without padding.
    Base64Url,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-1. What breaks SHA-1 does not break it (RFC 6194 section 3.3).
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

impl Algorithm {
    pub(super) fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// Its characters are the key, whatever they look like.
    Text,
    /// It is decoded first.
    Base64,
}

/// A piece of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// When the message was signed, as it was sent.
    Timestamp,
    /// The message's id, as it was sent.
    Id,
    /// The body's bytes.
    Body,
    /// The method.
    Method,
    /// The whole URL.
    Url,
    /// This text.
    Text(Box<str>),
}

/// What is decoded of a URL before it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlDecoding {
    /// Nothing.
    None,
    /// The twelve characters that `HubSpot` decodes.
    Hubspot,
}

/// Longest body where nothing else is said: 1 MiB.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// How long a signature is remembered where nothing else is said.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

impl Rules {
    /// HMAC-SHA-256 in hexadecimal, of the body alone, in this header.
    pub fn of_body(signature_header: &str) -> Self {
        Self {
            signature_header: signature_header.into(),
            separator: None,
            prefix: "".into(),
            encoding: Encoding::Hex,
            algorithm: Algorithm::Sha256,
            secret_encoding: SecretEncoding::Text,
            secret_prefix: "".into(),
            signed: vec![Part::Body],
            timestamp: None,
            id_header: None,
            public_url: "".into(),
            url_decoding: UrlDecoding::None,
            drop_query: Vec::new(),
            body_bytes_max: BODY_BYTES_MAX,
            remembered_for: REMEMBERED_FOR,
        }
    }

    /// Whether a part is among what is signed.
    pub fn signs(&self, part: &Part) -> bool {
        self.signed.contains(part)
    }

    /// The entries of the signature's header.
    pub(super) fn entries<'a>(&self, header: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let separator = self.separator;
        let ends_entry = move |byte: &u8| match separator {
            Some(Separator::Comma) => *byte == b',',
            Some(Separator::Space) => *byte == b' ',
            None => false,
        };
        header.split(ends_entry).map(<[u8]>::trim_ascii)
    }
}
