//! A secret, prepared to sign with.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::BASE64;
use super::rules::{Algorithm, Rules, SecretEncoding};
use crate::signing::Secret;

/// A key schedule. It is wiped when it is dropped.
pub(super) struct Key(Keyed);

enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha512(Box<Hmac<Sha512>>),
}

/// Why a secret cannot be one of a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It does not begin as it must, or is no base64 after that.
    #[error("is no base64 text after its prefix; copy it whole, as the product shows it")]
    Encoding,
}

impl Key {
    pub(super) fn new(rules: &Rules, secret: &Secret) -> Result<Self, SecretFault> {
        let text = secret.expose();
        let bytes = match rules.secret_encoding {
            SecretEncoding::Text => Zeroizing::new(text.as_bytes().to_vec()),
            SecretEncoding::Base64 => {
                let encoded = text.strip_prefix(&*rules.secret_prefix);
                let decoded = BASE64.decode(encoded.ok_or(SecretFault::Encoding)?);
                Zeroizing::new(decoded.map_err(|_| SecretFault::Encoding)?)
            }
        };
        Ok(Self(match rules.algorithm {
            Algorithm::Sha1 => Keyed::Sha1(keyed(&bytes)),
            Algorithm::Sha256 => Keyed::Sha256(keyed(&bytes)),
            Algorithm::Sha512 => Keyed::Sha512(Box::new(keyed(&bytes))),
        }))
    }

    /// The signature of these pieces, one after the other.
    pub(super) fn sign(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8> {
        match &self.0 {
            Keyed::Sha1(keyed) => sign(keyed.clone(), pieces),
            Keyed::Sha256(keyed) => sign(keyed.clone(), pieces),
            Keyed::Sha512(keyed) => sign((**keyed).clone(), pieces),
        }
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn sign<M: Mac>(mut mac: M, pieces: &[Cow<'_, [u8]>]) -> Vec<u8> {
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Whether both sign alike.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.sign(&[]).ct_eq(&other.sign(&[])).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
