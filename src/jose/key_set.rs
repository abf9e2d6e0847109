//! The keys of an issuer: read from a JWKS or from PEM, each judged by itself, and found by their
//! names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Json;
use super::key::{Key, Unfit};
use crate::policy::caller::jwt::Algorithm;

/// Most keys of an issuer that are used: Entra publishes up to a thousand.
pub(crate) const KEYS_MAX: usize = 1000;

/// Most keys that one token is tried with. A token that names its key needs one.
const TRIED_MAX: usize = 8;

/// The public keys of an issuer.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Arc<Key>>,
    by_id: HashMap<Box<str>, Vec<usize>, RandomState>,
    digests: HashSet<[u8; 32], RandomState>,
    /// What was left out of it.
    pub(crate) left_out: LeftOut,
}

/// How many pieces of a set are no keys to verify with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// For something else, of a kind that is not used, broken, or too many.
    pub(crate) not_used: usize,
    /// With what only their owner may have, so that anybody may have signed with them.
    pub(crate) private: usize,
}

/// Why there is no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetFault {
    /// Neither a JWKS nor PEM.
    Unreadable,
    /// Nothing in it can verify a token.
    NoKey,
    /// Nothing in it but private keys.
    OnlyPrivate,
}

impl SetFault {
    /// What is wrong, as the end of a sentence that begins with whose keys they are.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Unreadable => {
                "are neither a JWKS (a JSON object with a list of keys) nor certificates or public keys in PEM"
            }
            Self::NoKey => {
                "hold no public key for signatures: RSA of at least 2048 bits, P-256, P-384 or Ed25519"
            }
            Self::OnlyPrivate => {
                "are private: whoever can read them can sign, so they prove nothing"
            }
        }
    }
}

/// What a token's header says of its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Candidates {
    /// Nobody has such a key.
    None,
    /// There is a key of this name, for another algorithm.
    OtherAlgorithm,
    /// One of these: whether they have the name that the token says.
    Some { keys: Vec<usize>, are_named: bool },
}

impl KeySet {
    /// Reads a JWKS or PEM, by how it begins.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, SetFault> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            Self::of_jwks(bytes)
        } else {
            Self::of_pem(bytes)
        }
    }

    /// Reads a JWKS.
    pub(crate) fn of_jwks(bytes: &[u8]) -> Result<Self, SetFault> {
        let json = Json::read_with_twins(bytes).ok_or(SetFault::Unreadable)?;
        let Some(Json::List(jwks)) = json.get("keys") else {
            return Err(SetFault::Unreadable);
        };
        Self::of(jwks.iter().map(Key::of_jwk))
    }

    fn of_pem(bytes: &[u8]) -> Result<Self, SetFault> {
        let blocks: Result<Vec<_>, _> = Pem::iter_from_buffer(bytes).collect();
        let blocks = blocks.map_err(|_| SetFault::Unreadable)?;
        if blocks.is_empty() {
            return Err(SetFault::Unreadable);
        }
        Self::of(blocks.iter().map(|block| match &*block.label {
            "CERTIFICATE" => match X509Certificate::from_der(&block.contents) {
                Ok(([], certificate)) => Key::of_spki(certificate.tbs_certificate.subject_pki.raw),
                _ => Err(Unfit::NotUsed),
            },
            "PUBLIC KEY" => Key::of_spki(&block.contents),
            "RSA PUBLIC KEY" => Key::of_pkcs1(&block.contents),
            label if label.ends_with("PRIVATE KEY") => Err(Unfit::Private),
            _ => Err(Unfit::NotUsed),
        }))
    }

    fn of(mut found: impl Iterator<Item = Result<Key, Unfit>>) -> Result<Self, SetFault> {
        let mut set = Self::default();
        while set.keys.len() < KEYS_MAX {
            match found.next() {
                None => break,
                Some(Ok(key)) => set.add(Arc::new(key)),
                Some(Err(Unfit::NotUsed)) => set.left_out.not_used += 1,
                Some(Err(Unfit::Private)) => set.left_out.private += 1,
            }
        }
        // Not looked at: checking a point of a curve takes time.
        set.left_out.not_used += found.size_hint().0;
        match set.left_out {
            _ if !set.keys.is_empty() => Ok(set),
            LeftOut { private: 1.., .. } => Err(SetFault::OnlyPrivate),
            _ => Err(SetFault::NoKey),
        }
    }

    /// All keys of several sets.
    pub(crate) fn union(sets: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for set in sets {
            for key in set.keys {
                all.add(key);
            }
            all.left_out.not_used += set.left_out.not_used;
            all.left_out.private += set.left_out.private;
        }
        all
    }

    fn add(&mut self, key: Arc<Key>) {
        if !self.digests.insert(key.digest) {
            return;
        }
        if let Some(id) = &key.id {
            let index = self.keys.len();
            self.by_id.entry(id.clone()).or_default().push(index);
        }
        self.keys.push(key);
    }

    /// How many keys it has.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has the very key of this digest.
    pub(crate) fn has(&self, digest: &[u8; 32]) -> bool {
        self.digests.contains(digest)
    }

    /// Whether both have the same keys, in whatever order.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.digests == other.digests
    }

    pub(super) fn key(&self, index: usize) -> &Key {
        &self.keys[index]
    }

    /// The keys that a token may be signed with. One that names its key may be signed with that one;
    /// where no key has that name, with those that have none, as keys of PEM files do.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates {
        let fitting = |indexes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
            let fitting = indexes.filter(|index| self.keys[*index].verifies(algorithm));
            fitting.take(TRIED_MAX).collect()
        };
        let (keys, are_named) = match id.map(|id| (id, self.by_id.get(id))) {
            Some((_, Some(named))) => {
                let fitting = fitting(&mut named.iter().copied());
                if fitting.is_empty() {
                    return Candidates::OtherAlgorithm;
                }
                (fitting, true)
            }
            Some((_, None)) => {
                let mut nameless =
                    (0..self.keys.len()).filter(|index| self.keys[*index].id.is_none());
                (fitting(&mut nameless), false)
            }
            None => (fitting(&mut (0..self.keys.len())), false),
        };
        match keys.is_empty() {
            true => Candidates::None,
            false => Candidates::Some { keys, are_named },
        }
    }
}
