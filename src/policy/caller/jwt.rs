//! Callers that present a signed token of an identity provider: what its claims must say.
//!
//! Whether its signature is good is found out beside deciding, with keys that are learnt at run time;
//! what comes of it is [`Verified`].

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::policy::Refusal;
use crate::signing::Epoch;

/// Who issues tokens, and with which keys. Callers of one issuer share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The claim `iss`, exactly.
    pub name: Box<str>,
    /// Which set of keys its tokens are verified with.
    pub keys: KeySource,
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A file, read again when it changes: a JWKS (RFC 7517 section 5), or certificates or public keys
    /// in PEM.
    File(Box<str>),
    /// The https URL of a JWKS.
    Url(Box<str>),
    /// The https URL of a discovery document, which names the JWKS in `jwks_uri`.
    Discovery(Box<str>),
}

/// What a caller's tokens must say.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// Who must have issued them.
    pub issuer: Arc<Issuer>,
    /// One of these must be in `aud`.
    pub audiences: Vec<Box<str>>,
    /// Claims that must have one of these values: a text is compared, a list must contain it, and
    /// `scope` is a list of words.
    pub required_claims: Vec<(Box<str>, Vec<Box<str>>)>,
}

/// A token whose signature is good.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Whose keys verified it, and whose name it bears.
    pub issuer: Arc<Issuer>,
    /// What it says.
    pub claims: Arc<Claims>,
}

/// The claims of a token.
#[derive(Debug, Default)]
pub struct Claims(pub HashMap<Box<str>, Claim, RandomState>);

/// The value of a claim, as far as anything here looks at it.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// A string.
    Text(Box<str>),
    /// A number: seconds, where it is a time (RFC 7519 section 2, NumericDate, may have a fraction).
    Number(f64),
    /// A list; what in it is no string is left out.
    Texts(Vec<Box<str>>),
    /// Anything else.
    Other,
}

/// What is wrong with a token. Its name stands in the record; the answer says only that the credential
/// is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenFault {
    /// Its time is over.
    Expired,
}

impl TokenFault {
    /// What the caller is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Expired => Refusal::CredentialExpired,
        }
    }

    /// One word for the record, which never changes its meaning.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "token_expired",
        }
    }
}

impl TokenRules {
    /// Whether a token's claims are those of this caller, at this time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, _claims: &Claims, _at: Epoch) -> Result<(), TokenFault> {
        Err(TokenFault::Expired)
    }
}
