//! What there is to say about a token: a stable code, and a sentence that teaches.

use std::fmt;

/// One thing found in a token. [`Finding::code`] never changes meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// The site takes it.
    Valid,
    /// Well signed in the oldest form, which only old sites take.
    ValidOldest,

    /// There is nothing.
    Empty,
    /// A key without the rest.
    BareKey,
    /// The token secret itself is in what was shown.
    SecretSent,
    /// No part of it is where a token has it.
    NotAToken,
    /// `tkn_tkn_`.
    TagTwice,
    /// The token secret was used as key and the key as secret.
    KeyAndSecretSwapped,
    /// The key is another than the site's.
    UnknownKey,
    /// The epoch is not a whole number.
    EpochNotANumber,
    /// No user, or `=` without a name.
    UserMissing,
    /// The hash is neither hexadecimal nor base64 of a digest.
    HashUnreadable,
    /// The hash has the length of another algorithm's.
    HashOfOtherAlgorithm,
    /// The hash is base64.
    HashInBase64,
    /// The hash is the beginning of the right one.
    HashTruncated,

    /// Well signed as the current form is, but sent without `tkn_`.
    TagMissing,
    /// `tkn_` was signed as well.
    TagSigned,
    /// Sent with `tkn_`, but signed without separators.
    SeparatorsNotSigned,
    /// Sent in the oldest form, but signed with separators.
    SeparatorsSigned,
    /// The user is sent, but was not signed.
    UserNotSigned,
    /// The user was signed without the `=` that is sent.
    EqualsNotSigned,
    /// The user was signed with an `=` that is not sent.
    EqualsNotSent,
    /// The user is sent percent-encoded, but was signed as it is.
    EncodedAfterSigning,
    /// The user was signed percent-encoded, but is sent as it is.
    EncodedOnlyForSigning,
    /// Well signed for a user who is neither an id nor `=` and a name.
    EqualsMissing,
    /// The secret was read as hexadecimal.
    SecretDecoded,
    /// The secret was used with the line break that ended its file.
    SecretWithNewline,
    /// Nothing was used as the secret.
    SecretEmpty,
    /// HMAC's two arguments were swapped.
    HmacArgumentsSwapped,
    /// A plain digest, where an HMAC belongs.
    NotAnHmac,
    /// The signature fits nothing we know.
    WrongSecret,

    /// The epoch counts milliseconds.
    EpochInMilliseconds,
    /// Older than five minutes.
    Expired,
    /// Signed for a moment that is not yet.
    AheadOfClock,

    /// The hash has upper-case digits.
    UpperCaseHash,
    /// Quotes or white space stood around the token.
    Surrounded,
    /// The name of its header, or of its query parameter, stood before the token.
    HeaderName,
}

impl Finding {
    /// The stable name, for scripts and tests.
    pub fn code(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::ValidOldest => "valid_oldest",
            Self::Empty => "empty",
            Self::BareKey => "bare_key",
            Self::SecretSent => "secret_sent",
            Self::NotAToken => "not_a_token",
            Self::TagTwice => "tag_twice",
            Self::KeyAndSecretSwapped => "key_and_secret_swapped",
            Self::UnknownKey => "unknown_key",
            Self::EpochNotANumber => "epoch_not_a_number",
            Self::UserMissing => "user_missing",
            Self::HashUnreadable => "hash_unreadable",
            Self::HashOfOtherAlgorithm => "hash_of_other_algorithm",
            Self::HashInBase64 => "hash_in_base64",
            Self::HashTruncated => "hash_truncated",
            Self::TagMissing => "tag_missing",
            Self::TagSigned => "tag_signed",
            Self::SeparatorsNotSigned => "separators_not_signed",
            Self::SeparatorsSigned => "separators_signed",
            Self::UserNotSigned => "user_not_signed",
            Self::EqualsNotSigned => "equals_not_signed",
            Self::EqualsNotSent => "equals_not_sent",
            Self::EncodedAfterSigning => "encoded_after_signing",
            Self::EncodedOnlyForSigning => "encoded_only_for_signing",
            Self::EqualsMissing => "equals_missing",
            Self::SecretDecoded => "secret_decoded",
            Self::SecretWithNewline => "secret_with_newline",
            Self::SecretEmpty => "secret_empty",
            Self::HmacArgumentsSwapped => "hmac_arguments_swapped",
            Self::NotAnHmac => "not_an_hmac",
            Self::WrongSecret => "wrong_secret",
            Self::EpochInMilliseconds => "epoch_in_milliseconds",
            Self::Expired => "expired",
            Self::AheadOfClock => "ahead_of_clock",
            Self::UpperCaseHash => "upper_case_hash",
            Self::Surrounded => "surrounded",
            Self::HeaderName => "header_name",
        }
    }

    /// What it means and what would mend it.
    #[allow(
        clippy::too_many_lines,
        reason = "a table is easiest to read in one piece"
    )]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Valid => "the site takes this token",
            Self::ValidOldest => {
                "well signed, in a form without a user that only old sites accept; \
                 send tkn_{key}_{epoch}_{user}_{hash}"
            }
            Self::Empty => "there is no token here; was a variable not set?",
            Self::BareKey => {
                "this is a key alone, which is how a browser token is sent; \
                 a server token is signed for every call"
            }
            Self::SecretSent => {
                "the token secret itself is in what was shown; it must never be sent: \
                 replace the token on the site, then sign with the new secret"
            }
            Self::NotAToken => "a server token reads tkn_{key}_{epoch}_{user}_{hash}",
            Self::TagTwice => "tkn_ is there twice; it is not part of the key, write it once",
            Self::KeyAndSecretSwapped => {
                "key and secret are swapped; the first of the two on the site's page is the key. \
                 If the secret was sent as the key, replace the token on the site"
            }
            Self::UnknownKey => {
                "the key is not this site's; every site has its own tokens, check which is used"
            }
            Self::EpochNotANumber => {
                "the epoch is not a whole number; write Unix seconds in digits, without a fraction"
            }
            Self::UserMissing => "the token names no user; write an id as 123, or a name as =admin",
            Self::HashUnreadable => {
                "the hash is not one of HMAC-SHA256; write its 32 bytes as 64 lower-case hex digits"
            }
            Self::HashOfOtherAlgorithm => {
                "the hash is as long as that of MD5, SHA-1, SHA-224, SHA-384 or SHA-512; \
                 use HMAC-SHA256, which has 64 hex digits"
            }
            Self::HashInBase64 => "the hash is in base64; write it as 64 lower-case hex digits",
            Self::HashTruncated => "the hash is right but cut off; send all of its 64 hex digits",
            Self::TagMissing => {
                "signed as {key}_{epoch}_{user} but sent without tkn_; write tkn_ before the key \
                 (a site of the legacy dialect: sign without the separators)"
            }
            Self::TagSigned => {
                "tkn_ was signed as well; sign {key}_{epoch}_{user}, then write tkn_ before it"
            }
            Self::SeparatorsNotSigned => {
                "tkn_ was sent but key, epoch and user were signed without the `_` between them; \
                 sign {key}_{epoch}_{user}"
            }
            Self::SeparatorsSigned => {
                "a token without user has key and epoch signed without the `_` between them; \
                 better name a user: tkn_{key}_{epoch}_{user}_{hash}"
            }
            Self::UserNotSigned => "the user is sent but was not signed; sign {key}_{epoch}_{user}",
            Self::EqualsNotSigned => {
                "the user was signed without the = that is sent; sign what is sent (an id has no =)"
            }
            Self::EqualsNotSent => {
                "the user was signed with an = that is not sent; send =NAME, as it was signed"
            }
            Self::EncodedAfterSigning => {
                "the user was percent-encoded after signing; encode first, then sign what is sent"
            }
            Self::EncodedOnlyForSigning => {
                "the user was signed percent-encoded but is sent as it is; send what was signed"
            }
            Self::EqualsMissing => {
                "well signed, but the user is neither an id nor a name with = before it; \
                 write =NAME, in what is signed and in what is sent"
            }
            Self::SecretDecoded => {
                "the secret was decoded from hexadecimal; use its text, as it stands, as HMAC key"
            }
            Self::SecretWithNewline => {
                "the secret was used with the line break at its end; trim what is read from a file"
            }
            Self::SecretEmpty => "signed with an empty secret; was a variable not set?",
            Self::HmacArgumentsSwapped => {
                "HMAC's arguments are swapped; the secret is its key, \
                 and {key}_{epoch}_{user} its message"
            }
            Self::NotAnHmac => "this is plain SHA-256; use HMAC-SHA256 with the secret as its key",
            Self::WrongSecret => {
                "the signature fits none of the mistakes we know; most often the secret is another \
                 token's, or key, epoch or user changed after signing"
            }
            Self::EpochInMilliseconds => {
                "the epoch counts milliseconds; divide by 1000 and drop the fraction, then sign"
            }
            Self::Expired => "older than five minutes; sign a new token for every call",
            Self::AheadOfClock => {
                "signed for a moment that is not yet; set the signing machine's clock (NTP)"
            }
            Self::UpperCaseHash => {
                "the hash has upper-case digits, which sites accept today; write them lower-case"
            }
            Self::Surrounded => {
                "quotes or white space around the token were left out; send it without them"
            }
            Self::HeaderName => {
                "X-Deki-Token before the token was left out; the value is what follows it"
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}
