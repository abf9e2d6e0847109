//! What can be wrong with a token: a closed list, each with one word for the record.

use crate::policy::Refusal;

/// What is wrong with a token. Its name stands in the record; the answer says only that the credential
/// is not accepted.
///
/// In the order in which they are looked for: of several, the last tells most of how near the token is
/// to a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenFault {
    /// It cannot be read, or can be read in two ways.
    Malformed,
    /// It demands to be understood in a way that nobody here knows.
    Critical,
    /// It is no access token.
    Type,
    /// It is not signed with an algorithm of ours, or not with that of its key.
    Algorithm,
    /// It is of an issuer that no caller of the route has.
    Issuer,
    /// Its issuer's keys were never to be had.
    KeysUnavailable,
    /// It names a key that its issuer does not have.
    KeyUnknown,
    /// Its signature is not good.
    Signature,
    /// It is for somebody else.
    Audience,
    /// A claim that the caller's tokens must have is missing, or has another value.
    ClaimMissing,
    /// It does not say when it ends, or a time in it is none.
    Time,
    /// Its time has not come.
    NotYetValid,
    /// Its time is over.
    Expired,
}

impl TokenFault {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Critical,
        Self::Type,
        Self::Algorithm,
        Self::Issuer,
        Self::KeysUnavailable,
        Self::KeyUnknown,
        Self::Signature,
        Self::Audience,
        Self::ClaimMissing,
        Self::Time,
        Self::NotYetValid,
        Self::Expired,
    ];

    /// What the caller is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Expired => Refusal::CredentialExpired,
            _ => Refusal::CredentialUnknown,
        }
    }

    /// One word for the record, which never changes its meaning.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Critical => "token_critical",
            Self::Type => "token_type",
            Self::Algorithm => "token_algorithm",
            Self::Issuer => "token_issuer",
            Self::KeysUnavailable => "issuer_keys_unavailable",
            Self::KeyUnknown => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Audience => "token_audience",
            Self::ClaimMissing => "token_claim_missing",
            Self::Time => "token_time",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Expired => "token_expired",
        }
    }
}
