//! A signed token in its compact form, from text to claims: what cannot be read in exactly one way is
//! none.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldhash::fast::RandomState;

use super::Json;
use super::key_set::{Candidates, KeySet};
use crate::policy::caller::jwt::{Algorithm, Claim, Claims, TokenFault};

/// A token that has been read, and whose word nobody takes yet.
#[derive(Debug)]
pub(crate) struct Unverified<'t> {
    /// What is signed.
    message: &'t str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    claims: Claims,
}

/// The key of a token whose signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signer {
    /// How it was used.
    pub(crate) algorithm: Algorithm,
    /// Which of the set it is.
    pub(crate) key: [u8; 32],
}

/// Why a token is not good, and whether keys that its issuer has meanwhile might make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSigned {
    /// What is wrong.
    pub(crate) fault: TokenFault,
    /// Whether it may be signed with a key that is not in the set.
    pub(crate) may_be_newer: bool,
}

impl<'t> Unverified<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with its form, its header or the form of its claims.
    pub(crate) fn read(token: &'t str) -> Result<Self, TokenFault> {
        let malformed = TokenFault::Malformed;
        let (message, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = message.split_once('.').ok_or(malformed)?;
        let part = |text: &str| base64url(text.as_bytes()).ok_or(malformed);
        let header = Json::read(&part(header)?).ok_or(malformed)?;
        let (algorithm, key_id) = read_header(&header)?;
        let claims = Json::read(&part(claims)?).ok_or(malformed)?;
        Ok(Self {
            message,
            signature: part(signature)?,
            algorithm,
            key_id,
            claims: claims_of(claims).ok_or(malformed)?,
        })
    }

    /// Who it says has issued it.
    pub(crate) fn issuer(&self) -> Option<&str> {
        match self.claims.0.get("iss") {
            Some(Claim::Text(name)) => Some(name),
            _ => None,
        }
    }

    /// Which of these keys signed it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn signer(&self, keys: &KeySet) -> Result<Signer, NotSigned> {
        let not_signed = |fault, may_be_newer| NotSigned {
            fault,
            may_be_newer,
        };
        let (candidates, are_named) = match keys.candidates(self.key_id.as_deref(), self.algorithm)
        {
            Candidates::None => return Err(not_signed(TokenFault::KeyUnknown, true)),
            Candidates::OtherAlgorithm => return Err(not_signed(TokenFault::Algorithm, false)),
            Candidates::Some { keys, are_named } => (keys, are_named),
        };
        let message = self.message.as_bytes();
        let mut candidates = candidates.into_iter().map(|index| keys.key(index));
        let signer = candidates.find(|key| key.verify(self.algorithm, message, &self.signature));
        let signer = signer.map(|key| Signer {
            algorithm: self.algorithm,
            key: key.digest,
        });
        signer.ok_or(not_signed(TokenFault::Signature, !are_named))
    }

    /// What it says, once it is known who signed it.
    pub(crate) fn into_claims(self) -> Claims {
        self.claims
    }
}

/// The algorithm and the name of the key. Where a header says where to find a key (`jku`, `x5u`), or
/// brings one along (`jwk`, `x5c`), nobody looks.
fn read_header(header: &Json) -> Result<(Algorithm, Option<Box<str>>), TokenFault> {
    header.members().ok_or(TokenFault::Malformed)?;
    // RFC 7515 section 4.1.11: who does not understand what is critical must refuse. `b64` changes
    // what is signed (RFC 7797), and must be critical.
    if header.get("crit").is_some() || header.get("b64").is_some() {
        return Err(TokenFault::Critical);
    }
    check_type(header)?;
    let algorithm = header.get("alg").and_then(Json::text);
    let algorithm = algorithm
        .and_then(Algorithm::parse)
        .ok_or(TokenFault::Algorithm)?;
    let key_id = match header.get("kid") {
        None => None,
        Some(id) => Some(id.text().ok_or(TokenFault::Malformed)?.into()),
    };
    Ok((algorithm, key_id))
}

/// An access token says `at+jwt` (RFC 9068 section 2.1), `JWT`, or nothing. One with a content type
/// holds another token.
fn check_type(header: &Json) -> Result<(), TokenFault> {
    let is_access_token = match header.get("typ").map(Json::text) {
        None => true,
        Some(Some(kind)) => ["JWT", "at+jwt", "application/at+jwt"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known)),
        Some(None) => false,
    };
    match is_access_token && header.get("cty").is_none() {
        true => Ok(()),
        false => Err(TokenFault::Type),
    }
}

fn claims_of(json: Json) -> Option<Claims> {
    let Json::Map(members) = json else {
        return None;
    };
    let mut claims = HashMap::with_capacity_and_hasher(members.len(), RandomState::default());
    for (name, value) in members {
        let claim = match value {
            Json::Text(text) => Claim::Text(text),
            Json::Integer(number) => Claim::Integer(number),
            Json::Fraction(number) => Claim::Fraction(number),
            Json::Flag(flag) => Claim::Flag(flag),
            Json::List(list) => Claim::Texts(list.into_iter().filter_map(text_of).collect()),
            Json::Null | Json::Map(_) => Claim::Other,
        };
        claims.insert(name, claim);
    }
    Some(Claims(claims))
}

fn text_of(json: Json) -> Option<Box<str>> {
    match json {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

/// Decodes base64url as tokens and keys have it: without padding, without anything between, in the one
/// way each text of bytes is written.
pub(super) fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
