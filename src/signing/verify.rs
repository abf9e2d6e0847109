//! What is wrong with a token someone shows us, found by making every token a mistake would make.
//!
//! The forms are those of [`super`], and the oldest one, `{key}_{epoch}_{hash}`, from the vendor's
//! former page "Validate your API token for integration" (success.mindtouch.com/Support).

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Epoch, Finding, HASH_HEX_BYTES, Secret, TAG};

/// Reads `token` as one of the site whose token has `key` and `secret`, at the moment `at`.
pub fn examine(token: &str, key: &Secret, secret: &Secret, at: Epoch) -> Examination {
    let (bare, mut remarks) = unwrap(token);
    let parts = match Parts::read(bare) {
        Ok(parts) => parts,
        Err(_) if holds_secret(bare, secret) => return Examination::of(Finding::SecretSent),
        Err(finding) => {
            let key_matches = finding == Finding::BareKey && same(bare, key.expose());
            return Examination {
                key_matches,
                also: remarks,
                ..Examination::of(finding)
            };
        }
    };
    let swapped = same(parts.key, secret.expose());
    if !swapped && holds_secret(bare, secret) {
        return Examination {
            form: Some(parts.form),
            ..Examination::of(Finding::SecretSent)
        };
    }
    if parts.hash.bytes().any(|digit| matches!(digit, b'A'..=b'F')) && parts.hash_is_hex() {
        remarks.push(Finding::UpperCaseHash);
    }

    let signed_at = parts.signed_at();
    let mut findings = parts.faults(key, secret);
    findings.extend(signed_at.and_then(|seconds| untimely(seconds, at)));
    if findings.is_empty() {
        findings.push(match parts.form {
            Form::Oldest => Finding::ValidOldest,
            Form::Tkn | Form::Legacy => Finding::Valid,
        });
    }
    let finding = findings.remove(0);
    findings.extend(remarks);
    Examination {
        form: Some(parts.form),
        key_matches: same(parts.key, key.expose()),
        user: parts.user.map(str::to_owned),
        age_seconds: signed_at.and_then(|seconds| at.as_unix().checked_signed_diff(seconds)),
        finding,
        also: findings,
    }
}

/// What can be said about a token. It holds neither its key nor its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// The form it is written in, if it is one at all.
    pub form: Option<Form>,
    /// Whether its key is the site's.
    pub key_matches: bool,
    /// The user as sent.
    pub user: Option<String>,
    /// How long ago it was signed; negative where that is not yet.
    pub age_seconds: Option<i64>,
    /// The verdict: valid, or what to mend first.
    pub finding: Finding,
    /// What else there is to mend, and remarks that leave a token valid.
    pub also: Vec<Finding>,
}

impl Examination {
    /// Whether the verdict is that the token is valid, be it in the oldest form.
    pub fn is_accepted(&self) -> bool {
        matches!(self.finding, Finding::Valid | Finding::ValidOldest)
    }

    fn of(finding: Finding) -> Self {
        Self {
            form: None,
            key_matches: false,
            user: None,
            age_seconds: None,
            finding,
            also: Vec::new(),
        }
    }
}

/// How a token is written, which says how it should have been signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `tkn_{key}_{epoch}_{user}_{hash}`
    Tkn,
    /// `{key}_{epoch}_{user}_{hash}`
    Legacy,
    /// `{key}_{epoch}_{hash}`, of 2017 and before.
    Oldest,
}

impl Form {
    /// The stable name; of the two that we mint, as `dialect:` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tkn => "tkn",
            Self::Legacy => "legacy",
            Self::Oldest => "oldest",
        }
    }
}

/// A token taken apart: the key from the left and the hash from the right, because a user name
/// may hold the separator.
struct Parts<'a> {
    form: Form,
    tag_twice: bool,
    key: &'a str,
    epoch: &'a str,
    user: Option<&'a str>,
    hash: &'a str,
}

impl<'a> Parts<'a> {
    fn read(bare: &'a str) -> Result<Self, Finding> {
        if bare.is_empty() {
            return Err(Finding::Empty);
        }
        if !bare.contains('_') {
            let key = bare.bytes().all(|byte| byte.is_ascii_graphic());
            return Err(if key {
                Finding::BareKey
            } else {
                Finding::NotAToken
            });
        }
        let untagged = bare.trim_start_matches(TAG);
        let tags = (bare.len() - untagged.len()) / TAG.len();
        let (key, rest) = untagged.split_once('_').ok_or(Finding::NotAToken)?;
        let (epoch, rest) = rest.split_once('_').ok_or(Finding::NotAToken)?;
        let (user, hash) = split_hash(rest);
        let form = match (tags, user) {
            (0, None) => Form::Oldest,
            (0, Some(_)) => Form::Legacy,
            _ => Form::Tkn,
        };
        Ok(Self {
            form,
            tag_twice: tags > 1,
            key,
            epoch,
            user,
            hash,
        })
    }

    /// Everything but its age, in the order in which to mend it.
    fn faults(&self, key: &Secret, secret: &Secret) -> Vec<Finding> {
        let mut faults = Vec::new();
        faults.extend(self.tag_twice.then_some(Finding::TagTwice));
        let key_fault = if same(self.key, secret.expose()) {
            Some(Finding::KeyAndSecretSwapped)
        } else {
            (!same(self.key, key.expose())).then_some(Finding::UnknownKey)
        };
        faults.extend(key_fault);
        faults.extend(
            self.epoch_number()
                .is_none()
                .then_some(Finding::EpochNotANumber),
        );
        if self.lacks_user() {
            faults.push(Finding::UserMissing);
        } else if key_fault.is_none() {
            faults.extend(self.signature_faults(secret));
        }
        faults.extend(
            self.is_in_milliseconds()
                .then_some(Finding::EpochInMilliseconds),
        );
        faults
    }

    /// The second it was signed at, as far as its epoch says so.
    fn signed_at(&self) -> Option<u64> {
        let number = self.epoch_number()?;
        Some(if self.is_in_milliseconds() {
            number / 1000
        } else {
            number
        })
    }

    fn is_in_milliseconds(&self) -> bool {
        matches!(
            self.epoch_number(),
            Some(MILLISECONDS_MIN..=MILLISECONDS_MAX)
        )
    }

    /// The epoch as a number; `u64` alone would also read a sign.
    fn epoch_number(&self) -> Option<u64> {
        let digits = self.epoch.bytes().all(|byte| byte.is_ascii_digit());
        self.epoch.parse().ok().filter(|_| digits)
    }

    fn lacks_user(&self) -> bool {
        match self.user {
            Some(user) => matches!(user, "" | "="),
            None => self.form == Form::Tkn,
        }
    }

    fn hash_is_hex(&self) -> bool {
        self.hash.bytes().all(|digit| digit.is_ascii_hexdigit())
    }

    fn signature_faults(&self, secret: &Secret) -> Vec<Finding> {
        let (digits, spelling) = match self.hash_digits() {
            Ok(read) => read,
            Err(unreadable) => return vec![unreadable],
        };
        if let Some(mistakes) = self.mistakes_that_make(&digits, secret) {
            return spelling.into_iter().chain(mistakes).collect();
        }
        match (spelling, digits.len()) {
            (Some(Finding::HashTruncated), 32 | 40 | 56) => vec![Finding::HashOfOtherAlgorithm],
            (Some(Finding::HashTruncated), _) => vec![Finding::HashUnreadable],
            _ => spelling.into_iter().chain([Finding::WrongSecret]).collect(),
        }
    }

    /// The hash as lower-case hexadecimal digits, and what is wrong with how it is spelled.
    fn hash_digits(&self) -> Result<(String, Option<Finding>), Finding> {
        if self.hash_is_hex() {
            let digits = self.hash.to_ascii_lowercase();
            return match digits.len() {
                HASH_HEX_BYTES => Ok((digits, None)),
                HASH_DIGITS_MIN..HASH_HEX_BYTES => Ok((digits, Some(Finding::HashTruncated))),
                96 | 128 => Err(Finding::HashOfOtherAlgorithm),
                _ => Err(Finding::HashUnreadable),
            };
        }
        let hash = decode_base64(self.hash).ok_or(Finding::HashUnreadable)?;
        Ok((
            base16ct::lower::encode_string(&hash),
            Some(Finding::HashInBase64),
        ))
    }

    /// Tries every way to sign this token that we know; the mistakes of the one that fits.
    fn mistakes_that_make(&self, digits: &str, secret: &Secret) -> Option<Vec<Finding>> {
        let seals = Seal::all(self.key, secret);
        let mut epochs = vec![self.epoch];
        if self.is_in_milliseconds() {
            epochs.push(&self.epoch[..self.epoch.len() - 3]);
        }
        for (user_mistake, user) in self.users() {
            for (form_mistake, message) in epochs
                .iter()
                .flat_map(|epoch| self.messages(epoch, user.as_deref()))
            {
                for (seal_mistake, seal) in &seals {
                    let digest = seal.digest(&message, secret);
                    let made = base16ct::lower::encode_string(&digest);
                    if same(&made[..digits.len()], digits) {
                        let shape = (user_mistake.is_none() && self.lacks_equals())
                            .then_some(Finding::EqualsMissing);
                        let mistakes = [*seal_mistake, form_mistake, user_mistake, shape];
                        return Some(mistakes.into_iter().flatten().collect());
                    }
                }
            }
        }
        None
    }

    fn lacks_equals(&self) -> bool {
        self.user.is_some_and(|user| {
            !user.starts_with('=') && !user.bytes().all(|byte| byte.is_ascii_digit())
        })
    }

    /// Who may have been signed for, given who was sent.
    fn users(&self) -> Vec<(Option<Finding>, Option<String>)> {
        let Some(user) = self.user else {
            return vec![(None, None)];
        };
        let mut users = vec![(None, user.to_owned())];
        users.push(match user.strip_prefix('=') {
            Some(name) => (Some(Finding::EqualsNotSigned), name.to_owned()),
            None => (Some(Finding::EqualsNotSent), format!("={user}")),
        });
        if let Ok(decoded) = percent_decode_str(user).decode_utf8() {
            users.push((Some(Finding::EncodedAfterSigning), decoded.into_owned()));
        }
        let (sign, name) = user.split_at(user.len() - user.trim_start_matches('=').len());
        for kept in ENCODINGS {
            let encoded = utf8_percent_encode(name, kept).to_string();
            let mistake = Some(Finding::EncodedOnlyForSigning);
            users.push((mistake, format!("{sign}{}", encoded.replace("%20", "+"))));
            users.push((mistake, format!("{sign}{encoded}")));
            users.push((mistake, utf8_percent_encode(user, kept).to_string()));
        }
        users
            .into_iter()
            .map(|(mistake, user)| (mistake, Some(user)))
            .collect()
    }

    /// What may have been signed; without a mistake, what this form should have.
    fn messages(&self, epoch: &str, user: Option<&str>) -> Vec<(Option<Finding>, String)> {
        let key = self.key;
        let Some(user) = user else {
            return vec![
                (None, format!("{key}{epoch}")),
                (Some(Finding::SeparatorsSigned), format!("{key}_{epoch}")),
            ];
        };
        let (separated, run_together) = match self.form {
            Form::Tkn => (None, Some(Finding::SeparatorsNotSigned)),
            Form::Legacy | Form::Oldest => (Some(Finding::TagMissing), None),
        };
        vec![
            (separated, format!("{key}_{epoch}_{user}")),
            (run_together, format!("{key}{epoch}{user}")),
            (
                Some(Finding::TagSigned),
                format!("{TAG}{key}_{epoch}_{user}"),
            ),
            (Some(Finding::UserNotSigned), format!("{key}_{epoch}")),
            (Some(Finding::UserNotSigned), format!("{key}{epoch}")),
        ]
    }
}

/// How a message may have been turned into a hash.
enum Seal {
    Hmac(Zeroizing<Vec<u8>>),
    HmacSwapped,
    PlainDigest,
    SecretBefore,
    SecretAfter,
}

impl Seal {
    fn all(key: &str, secret: &Secret) -> Vec<(Option<Finding>, Self)> {
        let keyed = |bytes: &[u8]| Self::Hmac(Zeroizing::new(bytes.to_vec()));
        let text = secret.expose().as_bytes();
        let mut seals = vec![(None, keyed(text))];
        if let Ok(decoded) = base16ct::mixed::decode_vec(text).map(Zeroizing::new) {
            seals.push((Some(Finding::SecretDecoded), keyed(&decoded)));
        }
        for line_break in [&b"\n"[..], b"\r\n"] {
            let line = Zeroizing::new([text, line_break].concat());
            seals.push((Some(Finding::SecretWithNewline), keyed(&line)));
        }
        seals.extend([
            (Some(Finding::SecretEmpty), keyed(b"")),
            (Some(Finding::KeyAndSecretSwapped), keyed(key.as_bytes())),
            (Some(Finding::HmacArgumentsSwapped), Self::HmacSwapped),
            (Some(Finding::NotAnHmac), Self::PlainDigest),
            (Some(Finding::NotAnHmac), Self::SecretBefore),
            (Some(Finding::NotAnHmac), Self::SecretAfter),
        ]);
        seals
    }

    fn digest(&self, message: &str, secret: &Secret) -> [u8; HASH_HEX_BYTES / 2] {
        let (message, secret) = (message.as_bytes(), secret.expose().as_bytes());
        let hmac = |key: &[u8], message: &[u8]| {
            let mut keyed =
                Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
            keyed.update(message);
            keyed.finalize().into_bytes()
        };
        match self {
            Self::Hmac(key) => hmac(key, message),
            Self::HmacSwapped => hmac(message, secret),
            Self::PlainDigest => Sha256::digest(message),
            Self::SecretBefore => Sha256::new()
                .chain_update(secret)
                .chain_update(message)
                .finalize(),
            Self::SecretAfter => Sha256::new()
                .chain_update(message)
                .chain_update(secret)
                .finalize(),
        }
        .into()
    }
}

/// Takes off what is around a token where it was copied from.
fn unwrap(shown: &str) -> (&str, Vec<Finding>) {
    let is_wrapping = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '\u{feff}');
    let mut remarks = Vec::new();
    let mut token = shown;
    if let Some(at) = shown.to_ascii_lowercase().rfind(HEADER_NAME) {
        let rest = shown[at + HEADER_NAME.len()..].trim_start_matches(is_wrapping);
        if let Some(value) = rest.strip_prefix([':', '=']) {
            remarks.push(Finding::HeaderName);
            token = value.trim_start();
        }
    }
    let bare = token.trim_matches(is_wrapping);
    if bare.len() < token.len() {
        remarks.push(Finding::Surrounded);
    }
    (bare, remarks)
}

/// The user and the hash. URL-safe base64 may hold the separator, so it is tried by its length.
fn split_hash(rest: &str) -> (Option<&str>, &str) {
    for length in BASE64_LENGTHS {
        if let Some((before, hash)) = rest
            .len()
            .checked_sub(length)
            .and_then(|at| rest.split_at_checked(at))
            && let Some(user) = before.strip_suffix('_')
            && decode_base64(hash).is_some()
        {
            return (Some(user), hash);
        }
    }
    match rest.rsplit_once('_') {
        Some((user, hash)) => (Some(user), hash),
        None => (None, rest),
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
        .filter(|hash| hash.len() == HASH_HEX_BYTES / 2)
}

/// What is wrong with a token signed at `seconds` and seen at `at`.
fn untimely(seconds: u64, at: Epoch) -> Option<Finding> {
    if at.as_unix() > seconds.saturating_add(LIFETIME_SECONDS) {
        Some(Finding::Expired)
    } else if seconds > at.as_unix().saturating_add(AHEAD_SECONDS_MAX) {
        Some(Finding::AheadOfClock)
    } else {
        None
    }
}

/// Short secrets, as a test site may have, would be found in any text.
fn holds_secret(text: &str, secret: &Secret) -> bool {
    secret.expose().len() >= SECRET_BYTES_TELLING && text.contains(secret.expose())
}

fn same(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

const HEADER_NAME: &str = "x-deki-token";
/// The vendor's five minutes.
const LIFETIME_SECONDS: u64 = 300;
/// Nobody says how far ahead a clock may be; ours warns of that much.
const AHEAD_SECONDS_MAX: u64 = 30;
/// What would be the years 5138 and later in seconds, and is 1973 and later in milliseconds.
const MILLISECONDS_MIN: u64 = 100_000_000_000;
const MILLISECONDS_MAX: u64 = 99_999_999_999_999;
/// Fewer digits could agree by chance.
const HASH_DIGITS_MIN: usize = 16;
const BASE64_LENGTHS: [usize; 2] = [44, 43];
const SECRET_BYTES_TELLING: usize = 16;
/// What the usual libraries encode in a name, from the strictest on.
const ENCODINGS: [&AsciiSet; 3] = [
    &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-'),
    &NON_ALPHANUMERIC
        .remove(b'.')
        .remove(b'_')
        .remove(b'-')
        .remove(b'~'),
    &NON_ALPHANUMERIC
        .remove(b'.')
        .remove(b'_')
        .remove(b'-')
        .remove(b'~')
        .remove(b'@'),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Dialect, Signer, User, UserEncoding};
    use super::*;

    const MISTAKES: &str = include_str!("../../tests/fixtures/mistakes.txt");
    const VECTORS: &str = include_str!("../../tests/fixtures/tokens.txt");
    const KEY: &str = "dacaffe7ce69dfd1071531e925f667905a1c981fb40d06c676880e84352cb3aa";
    const SECRET: &str = "5b70319201e9abad12a3458b32ed30cf634ef569ea47906e5012baf11cab5046";
    const NOW: u64 = 1_422_940_200;

    fn examine_now(token: &str) -> Examination {
        let (key, secret) = (Secret::new(KEY.to_owned()), Secret::new(SECRET.to_owned()));
        examine(token, &key, &secret, Epoch::from_unix(NOW))
    }

    fn check(token: &str, expected: &str) {
        let examination = examine_now(token);
        let also = examination
            .also
            .iter()
            .map(|finding| format!(" {}", finding.code()));
        let codes = examination.finding.code().to_owned() + &also.collect::<String>();
        assert_eq!(codes, expected, "{token:?}");
        let printed = format!("{examination:?} {}", examination.finding);
        assert!(!printed.contains(SECRET), "{token:?} leaks the secret");
        assert!(!printed.contains(KEY), "{token:?} leaks the key");
    }

    #[test]
    fn mistakes_have_their_finding() {
        for line in MISTAKES.lines().filter(|line| !line.starts_with('#')) {
            let (codes, token) = line.split_once(" | ").unwrap();
            check(token, codes);
        }
    }

    #[test]
    fn white_space_is_taken_off() {
        let token = VECTORS
            .lines()
            .find(|line| line.starts_with("tkn |"))
            .unwrap();
        let token = token.rsplit_once(" | ").unwrap().1;
        check(token, "valid");
        for shown in [
            format!("{token}\n"),
            format!(" {token}"),
            format!("\"{token}\"\r\n"),
        ] {
            check(&shown, "valid surrounded");
        }
        check(
            &format!("X-Deki-Token: {token}\r\n"),
            "valid header_name surrounded",
        );
        for shown in ["", "  \n", "\"\"", "X-Deki-Token: "] {
            assert_eq!(examine_now(shown).finding, Finding::Empty, "{shown:?}");
        }
    }

    #[test]
    fn known_answers_are_valid_when_fresh() {
        for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split(" | ").collect();
            let examination = examine_now(fields[5]);
            let fresh = fields[3] == NOW.to_string();
            let expected = if fresh {
                Finding::Valid
            } else {
                Finding::AheadOfClock
            };
            assert_eq!(examination.finding, expected, "{line}");
            assert_eq!(examination.form.map(Form::name), Some(fields[0]), "{line}");
            assert_eq!(examination.user.as_deref(), Some(fields[4]), "{line}");
            assert!(examination.key_matches, "{line}");
        }
    }

    #[test]
    fn age_is_counted_in_seconds() {
        for (epoch, age) in [
            ("1422940200", Some(0)),
            ("1422940100", Some(100)),
            ("1422940300", Some(-100)),
            ("1422940100999", Some(100)),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("now", None),
        ] {
            let token = format!("tkn_{KEY}_{epoch}_=admin_{}", "0".repeat(64));
            assert_eq!(examine_now(&token).age_seconds, age, "{epoch}");
        }
    }

    #[test]
    fn short_secrets_are_not_seen_everywhere() {
        let (key, secret) = (Secret::new("k".to_owned()), Secret::new("1".to_owned()));
        let signer = Signer::new(Dialect::Tkn, &key, &secret).unwrap();
        let at = Epoch::from_unix(NOW);
        let token = signer.mint(&User::parse("1", UserEncoding::Plain).unwrap(), at);
        assert_eq!(
            examine(token.as_text(), &key, &secret, at).finding,
            Finding::Valid
        );
    }

    proptest! {
        #[test]
        fn what_we_mint_is_valid(
            user in "[1-9][0-9]{0,9}|=[A-Za-z0-9.@_-]{1,80}",
            key in "[!#-&(-^a-~]{1,80}",
            secret in "[ -~]{1,80}",
            seconds in 0..MILLISECONDS_MIN,
            legacy: bool,
        ) {
            prop_assume!(key != secret && key != "tkn" && !user.contains(&secret));
            let (key, secret) = (Secret::new(key), Secret::new(secret));
            let dialect = if legacy { Dialect::Legacy } else { Dialect::Tkn };
            let at = Epoch::from_unix(seconds);
            let parsed = User::parse(&user, UserEncoding::Plain).unwrap();
            let token = Signer::new(dialect, &key, &secret).unwrap().mint(&parsed, at);
            let examination = examine(token.as_text(), &key, &secret, at);
            prop_assert_eq!(examination.finding, Finding::Valid);
            prop_assert_eq!(examination.also, []);
            prop_assert_eq!(examination.user, Some(user));
            prop_assert_eq!(examination.age_seconds, Some(0));
        }

        #[test]
        fn anything_can_be_shown(token in "\\PC*|(tkn_)?[0-9a-f_=%:\u{f6}]{0,120}") {
            let examination = examine_now(&token);
            prop_assert!(!examination.is_accepted());
        }
    }
}
