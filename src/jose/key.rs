//! One public key, and the algorithms it verifies: never more than its type, its curve and its own
//! word allow (RFC 8725 section 3.1).

use ring::agreement::{self, EphemeralPrivateKey, agree_ephemeral};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    self, EcdsaVerificationAlgorithm, EdDSAParameters, RsaParameters, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384};
use x509_parser::oid_registry::{OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Json;
use super::token::base64url;
use crate::policy::caller::jwt::Algorithm;

/// Bits of an RSA key that is used: fewer have been factored, more cost too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Largest public exponent in bytes: whatever is in use fits, and verifying stays cheap.
const EXPONENT_BYTES_MAX: usize = 4;

/// A public key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name among its issuer's keys.
    pub(super) id: Option<Box<str>>,
    material: Material,
    /// The one that it says, if it does.
    algorithm: Option<Algorithm>,
    /// Of all of the above.
    pub(super) digest: [u8; 32],
}

#[derive(Debug)]
enum Material {
    /// Modulus and exponent, without zeros before them.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a piece of a set is no key to verify with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is for something else, or of a kind that is not used here, or broken.
    NotUsed,
    /// It holds what only its owner may have.
    Private,
}

/// Members of a JWK that hold a secret (RFC 7518 sections 6.2.2, 6.3.2, 6.4).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl Key {
    /// The key of a JWK.
    pub(super) fn of_jwk(jwk: &Json) -> Result<Self, Unfit> {
        let members = jwk.members().ok_or(Unfit::NotUsed)?;
        let is_private = |(name, _): &(Box<str>, Json)| PRIVATE_MEMBERS.contains(&&**name);
        if members.iter().any(is_private) {
            return Err(Unfit::Private);
        }
        if jwk.has_twins() || !is_for_signatures(jwk) {
            return Err(Unfit::NotUsed);
        }
        let text = |name: &str| match jwk.get(name) {
            None => Ok(None),
            Some(value) => value.text().map(Some).ok_or(Unfit::NotUsed),
        };
        let bytes = |name: &str| {
            let decoded = text(name)?.and_then(|text| base64url(text.as_bytes()));
            decoded.ok_or(Unfit::NotUsed)
        };
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let is_whole = x.len() == length && y.len() == length;
            let point = [&[4], &x[..], &y[..]].concat();
            is_whole.then_some(point).ok_or(Unfit::NotUsed)
        };
        let material = match (text("kty")?, text("crv")?) {
            (Some("RSA"), _) => Material::rsa(&bytes("n")?, &bytes("e")?),
            (Some("EC"), Some("P-256")) => Material::P256(point(32)?).on_curve(),
            (Some("EC"), Some("P-384")) => Material::P384(point(48)?).on_curve(),
            (Some("OKP"), Some("Ed25519")) => Material::ed25519(&bytes("x")?),
            _ => None,
        };
        let algorithm = match text("alg")? {
            None => None,
            Some(name) => Some(Algorithm::parse(name).ok_or(Unfit::NotUsed)?),
        };
        Self::new(text("kid")?, material, algorithm)
    }

    /// The key of a `SubjectPublicKeyInfo` in DER, as certificates hold it.
    pub(super) fn of_spki(der: &[u8]) -> Result<Self, Unfit> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| Unfit::NotUsed)?;
        if !rest.is_empty() {
            return Err(Unfit::NotUsed);
        }
        let bytes = &*spki.subject_public_key.data;
        let kind = &spki.algorithm;
        let material = if kind.algorithm == OID_PKCS1_RSAENCRYPTION {
            return Self::of_pkcs1(bytes);
        } else if kind.algorithm == OID_SIG_ED25519 {
            Material::ed25519(bytes)
        } else if kind.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = kind
                .parameters
                .as_ref()
                .and_then(|curve| curve.as_oid().ok());
            match curve {
                Some(curve) if curve == OID_EC_P256 => Material::P256(bytes.to_vec()).on_curve(),
                Some(curve) if curve == OID_NIST_EC_P384 => {
                    Material::P384(bytes.to_vec()).on_curve()
                }
                _ => None,
            }
        } else {
            None
        };
        Self::new(None, material, None)
    }

    /// The key of an `RSAPublicKey` in DER (RFC 8017 appendix A.1.1).
    pub(super) fn of_pkcs1(der: &[u8]) -> Result<Self, Unfit> {
        let (rest, key) = RSAPublicKey::from_der(der).map_err(|_| Unfit::NotUsed)?;
        if !rest.is_empty() {
            return Err(Unfit::NotUsed);
        }
        Self::new(None, Material::rsa(key.modulus, key.exponent), None)
    }

    fn new(
        id: Option<&str>,
        material: Option<Material>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, Unfit> {
        let material = material.ok_or(Unfit::NotUsed)?;
        let fits = algorithm.is_none_or(|algorithm| material.verifies(algorithm));
        if !fits {
            return Err(Unfit::NotUsed);
        }
        let mut hash = Sha256::new();
        let name = algorithm.map_or("", Algorithm::name);
        for piece in [id.unwrap_or_default(), name] {
            hash.update((piece.len() as u64).to_be_bytes());
            hash.update(piece);
        }
        material.digest(&mut hash);
        Ok(Self {
            id: id.map(Box::from),
            material,
            algorithm,
            digest: hash.finalize().into(),
        })
    }

    /// Whether signatures of this algorithm may be verified with it.
    pub(super) fn verifies(&self, algorithm: Algorithm) -> bool {
        match self.algorithm {
            Some(only) => only == algorithm,
            None => self.material.verifies(algorithm),
        }
    }

    /// Whether a signature of a message is good.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.verifies(algorithm) && self.material.verify(algorithm, message, signature)
    }
}

/// Whether a key's own word does not speak against verifying with it (RFC 7517 sections 4.2 and 4.3).
fn is_for_signatures(jwk: &Json) -> bool {
    let by_use = match jwk.get("use") {
        None => true,
        Some(value) => value.text() == Some("sig"),
    };
    let by_operations = match jwk.get("key_ops") {
        None => true,
        Some(Json::List(list)) => list.iter().any(|value| value.text() == Some("verify")),
        Some(_) => false,
    };
    by_use && by_operations
}

impl Material {
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let [n, e] = [n, e].map(|bytes| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        });
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        let is_odd = e.last()? & 1 == 1;
        let is_one = e == [1];
        let is_good =
            RSA_BITS.contains(&bits) && is_odd && !is_one && e.len() <= EXPONENT_BYTES_MAX;
        is_good.then_some(Self::Rsa { n, e })
    }

    fn ed25519(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 32).then(|| Self::Ed25519(bytes.to_vec()))
    }

    /// The same, if its point is one of its curve. Agreeing on something with a key of the moment is
    /// how ring tells.
    fn on_curve(self) -> Option<Self> {
        let (curve, point) = match &self {
            Self::P256(point) => (&agreement::ECDH_P256, point),
            Self::P384(point) => (&agreement::ECDH_P384, point),
            Self::Rsa { .. } | Self::Ed25519(_) => return None,
        };
        let ours = EphemeralPrivateKey::generate(curve, &SystemRandom::new()).ok()?;
        let theirs = agreement::UnparsedPublicKey::new(curve, point);
        agree_ephemeral(ours, &theirs, |_| ()).ok()?;
        Some(self)
    }

    fn verifies(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            Self::Rsa { .. } => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Self::P256(_) => algorithm == Es256,
            Self::P384(_) => algorithm == Es384,
            Self::Ed25519(_) => algorithm == EdDsa,
        }
    }

    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (self, verifier(algorithm)) {
            (Self::Rsa { n, e }, Verifier::Rsa(how)) => {
                PublicKeyComponents { n, e }.verify(how, message, signature)
            }
            (Self::P256(point) | Self::P384(point), Verifier::Ecdsa(how)) => {
                verify(how, point, message, signature)
            }
            (Self::Ed25519(key), Verifier::EdDsa(how)) => verify(how, key, message, signature),
            _ => return false,
        };
        verified.is_ok()
    }

    fn digest(&self, hash: &mut Sha256) {
        let (kind, pieces) = match self {
            Self::Rsa { n, e } => (0, [&n[..], e]),
            Self::P256(point) => (1, [&point[..], &[]]),
            Self::P384(point) => (2, [&point[..], &[]]),
            Self::Ed25519(key) => (3, [&key[..], &[]]),
        };
        hash.update([kind]);
        for piece in pieces {
            hash.update((piece.len() as u64).to_be_bytes());
            hash.update(piece);
        }
    }
}

fn verify(
    how: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), ring::error::Unspecified> {
    UnparsedPublicKey::new(how, key).verify(message, signature)
}

enum Verifier {
    Rsa(&'static RsaParameters),
    Ecdsa(&'static EcdsaVerificationAlgorithm),
    EdDsa(&'static EdDSAParameters),
}

/// How each is verified. Signatures of ECDSA are two numbers of fixed length (RFC 7518 section 3.4).
fn verifier(algorithm: Algorithm) -> Verifier {
    match algorithm {
        Algorithm::Rs256 => Verifier::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Verifier::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Verifier::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Verifier::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Verifier::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Verifier::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 => Verifier::Ecdsa(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::Es384 => Verifier::Ecdsa(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDsa => Verifier::EdDsa(&signature::ED25519),
    }
}
