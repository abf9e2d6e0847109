//! What a certificate says: names, key and dates. Whether it can be believed is settled elsewhere.
//!
//! Names are subject alternative names alone; the common name names nobody (RFC 9525 section 2). Of
//! those, what is written with other bytes than names are made of is passed over: two readers of a
//! name with a NUL in it do not see the same one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::signing::Epoch;

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its DNS names, in lower case; wildcards as they stand.
    pub dns_names: Vec<Box<str>>,
    /// Its URIs.
    pub uris: Vec<Box<str>>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The SHA-256 digest of its public key (`SubjectPublicKeyInfo`).
    pub spki_sha256: [u8; 32],
    /// The first second of its time.
    pub not_before: Epoch,
    /// The last second of its time.
    pub not_after: Epoch,
    /// Whom it is about, in DER.
    subject: Box<[u8]>,
    /// Who issued it, in DER.
    issuer: Box<[u8]>,
}

impl Contents {
    /// Reads a certificate in DER; `None` if it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let validity = certificate.validity();
        let epoch = |timestamp: i64| Epoch::from_unix(u64::try_from(timestamp).unwrap_or(0));
        let mut contents = Self {
            dns_names: Vec::new(),
            uris: Vec::new(),
            addresses: Vec::new(),
            spki_sha256: Sha256::digest(certificate.public_key().raw).into(),
            not_before: epoch(validity.not_before.timestamp()),
            not_after: epoch(validity.not_after.timestamp()),
            subject: certificate.subject().as_raw().into(),
            issuer: certificate.issuer().as_raw().into(),
        };
        // Where two extensions hold names, or one that cannot be read, there are none.
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            contents.take(name);
        }
        Some(contents)
    }

    fn take(&mut self, name: &GeneralName<'_>) {
        let of_dns = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        match name {
            GeneralName::DNSName(name) if !name.is_empty() && name.bytes().all(of_dns) => {
                self.dns_names.push(name.to_ascii_lowercase().into());
            }
            GeneralName::URI(uri)
                if !uri.is_empty() && uri.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                self.uris.push((*uri).into());
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(|it| IpAddr::V4(Ipv4Addr::from(it)));
                let v6 = <[u8; 16]>::try_from(*bytes).map(|it| IpAddr::V6(Ipv6Addr::from(it)));
                self.addresses.extend(v4.or(v6));
            }
            _ => {}
        }
    }

    /// Whether its time has begun and is not over.
    pub fn is_in_date(&self, now: Epoch) -> bool {
        (self.not_before.as_unix()..=self.not_after.as_unix()).contains(&now.as_unix())
    }

    /// The moment of its time that is nearest to another.
    pub fn nearest_to(&self, moment: Epoch) -> Epoch {
        let (from, to) = (self.not_before.as_unix(), self.not_after.as_unix());
        Epoch::from_unix(moment.as_unix().min(to).max(from))
    }

    /// Whether the subject of another certificate is who issued this one, by its own word.
    pub fn names_as_issuer(&self, other: &Self) -> bool {
        self.issuer == other.subject
    }
}
