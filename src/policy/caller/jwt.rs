//! Callers that present a signed token of an identity provider: what its claims must say.
//!
//! Whether its signature is good is found out beside deciding, with keys that are learnt at run time;
//! what comes of it is [`Verified`]. The rules are those of RFC 7519 and of RFC 8725, and narrower
//! where nobody needs more.

mod fault;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use self::fault::TokenFault;
use crate::signing::Epoch;

/// How far a provider's clock may be from ours, in seconds.
pub const LEEWAY_SECONDS: f64 = 60.0;

/// The end of the year 9999. A time beyond it is none: milliseconds in place of seconds, most likely.
const TIME_MAX: f64 = 253_402_300_799.0;

/// Who issues tokens, and with which keys. Callers of one issuer share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The claim `iss`, exactly.
    pub name: Box<str>,
    /// Which set of keys its tokens are verified with.
    pub keys: KeySource,
    /// What the server of its keys is verified against, in DER; `None` for the system's authorities.
    pub ca: Option<Arc<[Vec<u8>]>>,
}

/// Where the keys of an issuer come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// Files, read again when they change, whose keys all count: each a JWKS (RFC 7517 section 5), or
    /// certificates or public keys in PEM.
    Files(Vec<Box<str>>),
    /// The URL of a JWKS.
    Url(Box<str>),
    /// The URL of a discovery document, which names the JWKS in `jwks_uri`.
    Discovery(Box<str>),
}

/// An algorithm that tokens may be signed with: those with a public key, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// As `alg` writes it (RFC 7518 section 3.1, RFC 8037 section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The one of this name; case counts.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }
}

/// What a caller's tokens must say.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// Who must have issued them.
    pub issuer: Arc<Issuer>,
    /// With which of these they must be signed.
    pub algorithms: Vec<Algorithm>,
    /// One of these must be in `aud`.
    pub audiences: Vec<Box<str>>,
    /// Claims that must have one of these values: a single one is compared, a list must contain it,
    /// and `scope` and `scp` are lists of words.
    pub required_claims: Vec<(Box<str>, Vec<Wanted>)>,
}

/// A value that a claim must have, as the file writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This text, exactly.
    Text(Box<str>),
    /// This number.
    Integer(i128),
    /// `true` or `false`.
    Flag(bool),
}

/// A token whose signature is good.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Whose keys verified it, and whose name it bears.
    pub issuer: Arc<Issuer>,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// What it says.
    pub claims: Arc<Claims>,
}

/// The claims of a token.
#[derive(Debug, Default)]
pub struct Claims(pub HashMap<Box<str>, Claim, RandomState>);

impl Claims {
    /// How many bytes they take in memory, about: a list of short texts many times what it takes in a
    /// token.
    pub fn weight(&self) -> usize {
        let claims = self.0.iter();
        let claims = claims.map(|(name, claim)| TEXT_BYTES + name.len() + claim.weight());
        claims.sum()
    }
}

impl Claim {
    fn weight(&self) -> usize {
        let text = |text: &str| TEXT_BYTES + text.len();
        let more = match self {
            Self::Text(value) => text(value),
            Self::Texts(texts) => texts.iter().map(|value| text(value)).sum(),
            _ => 0,
        };
        size_of::<Self>() + more
    }
}

/// What a text takes beside its bytes: where it is, how long it is, and what the allocator adds.
const TEXT_BYTES: usize = 48;

/// The value of a claim, as far as anything here looks at it.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// A string.
    Text(Box<str>),
    /// A whole number.
    Integer(i128),
    /// Any other number, which is finite.
    Fraction(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A list; what in it is no string is left out.
    Texts(Vec<Box<str>>),
    /// Anything else.
    Other,
}

impl TokenRules {
    /// Whether a token is one of this caller's, at this time.
    ///
    /// # Errors
    /// What is wrong with it. Its time comes last, so that a token is only called expired that would
    /// have been good before.
    pub fn check(&self, verified: &Verified, at: Epoch) -> Result<(), TokenFault> {
        if !self.algorithms.contains(&verified.algorithm) {
            return Err(TokenFault::Algorithm);
        }
        let claims = &*verified.claims;
        let mut audiences = self.audiences.iter();
        if !audiences.any(|audience| claims.has_text("aud", audience)) {
            return Err(TokenFault::Audience);
        }
        let fits = |(name, wanted): &(Box<str>, Vec<Wanted>)| {
            wanted.iter().any(|wanted| claims.has(name, wanted))
        };
        if !self.required_claims.iter().all(fits) {
            return Err(TokenFault::ClaimMissing);
        }
        let says_type = |(name, _): &(Box<str>, _)| &**name == "typ";
        if !self.required_claims.iter().any(says_type) && !claims.is_access_token() {
            return Err(TokenFault::Type);
        }
        claims.check_time(at)
    }
}

impl Claims {
    /// Whether a claim is this, or a list that contains it.
    fn has(&self, name: &str, wanted: &Wanted) -> bool {
        match (wanted, self.0.get(name)) {
            (Wanted::Text(wanted), _) => self.has_text(name, wanted),
            (Wanted::Integer(wanted), Some(Claim::Integer(number))) => number == wanted,
            (Wanted::Flag(wanted), Some(Claim::Flag(flag))) => flag == wanted,
            _ => false,
        }
    }

    fn has_text(&self, name: &str, wanted: &str) -> bool {
        match self.0.get(name) {
            Some(Claim::Text(text)) => {
                // RFC 8693 section 4.2: words with single spaces between them. `scp` is a list at
                // Okta, and words at Entra and Salesforce.
                let is_words = matches!(name, "scope" | "scp");
                **text == *wanted || is_words && text.split(' ').any(|word| word == wanted)
            }
            Some(Claim::Texts(texts)) => texts.iter().any(|text| **text == *wanted),
            _ => false,
        }
    }

    /// Whether the claim `typ`, where there is one, is an access token's. Keycloak signs ID, refresh and
    /// logout tokens with the same key, and tells them apart by it.
    fn is_access_token(&self) -> bool {
        match self.0.get("typ") {
            None => true,
            Some(Claim::Text(kind)) => ["Bearer", "JWT", "at+jwt"]
                .iter()
                .any(|known| kind.eq_ignore_ascii_case(known)),
            Some(_) => false,
        }
    }

    fn check_time(&self, at: Epoch) -> Result<(), TokenFault> {
        let expires = self.time("exp")?.ok_or(TokenFault::Time)?;
        let begins = self.time("nbf")?.unwrap_or_default();
        let issued = self.time("iat")?.unwrap_or_default();
        let now = at.as_unix() as f64;
        if begins.max(issued) > now + LEEWAY_SECONDS {
            return Err(TokenFault::NotYetValid);
        }
        // RFC 7519 section 4.1.4: on or after it, the token is not good any more.
        if now >= expires + LEEWAY_SECONDS {
            return Err(TokenFault::Expired);
        }
        Ok(())
    }

    /// A time, in seconds (RFC 7519 section 2, NumericDate: perhaps with a fraction).
    fn time(&self, name: &str) -> Result<Option<f64>, TokenFault> {
        let seconds = match self.0.get(name) {
            None => return Ok(None),
            Some(Claim::Integer(seconds)) => *seconds as f64,
            Some(Claim::Fraction(seconds)) => *seconds,
            Some(_) => return Err(TokenFault::Time),
        };
        let is_time = (0.0..=TIME_MAX).contains(&seconds);
        is_time.then_some(Some(seconds)).ok_or(TokenFault::Time)
    }
}
