//! Callers that sign each message with a shared secret: webhooks, described as data.
//!
//! What is signed are raw bytes, before anything is decoded. A signature is compared after it is decoded
//! to the length of a digest, in constant time, and with every secret of the caller.

mod key;
pub mod presets;
pub mod rules;
mod timestamp;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq;

use self::key::Key;
pub use self::key::SecretFault;
use self::rules::{Encoding, Part, Rules, Source, UrlDecoding};
use crate::policy::{Refusal, Request};
use crate::signing::Secret;

/// Most signatures of one message that are looked at: products that rotate a secret send two.
const SIGNATURES_MAX: usize = 16;

/// How a product signs its messages, and with which secrets.
#[derive(Debug)]
pub struct Scheme {
    rules: Rules,
    /// Several while one is rotated out.
    keys: Vec<Key>,
}

/// What the head of a signed message says of its signature.
pub(super) struct Claimed<'a> {
    /// Decoded; each as long as a digest.
    signatures: Vec<Vec<u8>>,
    timestamp: &'a [u8],
    id: &'a [u8],
}

/// That a message counts once: a signature without a time would be good for ever.
#[derive(Clone, PartialEq, Eq)]
pub struct Once {
    /// Whose message it is.
    pub caller: Arc<str>,
    /// What tells the message from any other: nobody without the secret can make another one.
    pub signature: [u8; 32],
    /// How long it is remembered.
    pub kept_for: Duration,
}

/// A signature is a credential for as long as it is fresh.
impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = f.debug_struct("Once");
        printed
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a signature. Its name stands in the record. Of two, the later one says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureFault {
    /// Its header stands there twice, or holds no signature of this form.
    Malformed,
    /// The message has no id, or two.
    IdMissing,
    /// The message does not say when it was signed, or says it twice.
    TimestampMissing,
    /// When it was signed is written in another form.
    TimestampMalformed,
    /// It was signed too long ago.
    TimestampOld,
    /// It was signed too far in the future.
    TimestampAhead,
    /// It covers the body only, and there is none: whoever saw one could sign every such message.
    CoversNothing,
    /// It is another message's, or made with another secret.
    Mismatch,
    /// The same message came before.
    Replayed,
}

impl SignatureFault {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::IdMissing,
        Self::TimestampMissing,
        Self::TimestampMalformed,
        Self::TimestampOld,
        Self::TimestampAhead,
        Self::CoversNothing,
        Self::Mismatch,
        Self::Replayed,
    ];

    /// What the caller is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::TimestampOld => Refusal::CredentialExpired,
            _ => Refusal::CredentialUnknown,
        }
    }

    /// One word for the record, which never changes its meaning.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "signature_malformed",
            Self::IdMissing => "id_missing",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampOld => "timestamp_old",
            Self::TimestampAhead => "timestamp_ahead",
            Self::CoversNothing => "signature_covers_nothing",
            Self::Mismatch => "signature_mismatch",
            Self::Replayed => "signature_replayed",
        }
    }
}

impl Scheme {
    /// A scheme with these secrets, in the order they are given.
    ///
    /// # Errors
    /// The position of the first secret that is none of this form, and why.
    pub fn new(rules: Rules, secrets: &[Secret]) -> Result<Self, (usize, SecretFault)> {
        let key = |(index, secret)| Key::new(&rules, secret).map_err(|fault| (index, fault));
        let keys = secrets.iter().enumerate().map(key);
        let keys = keys.collect::<Result<_, _>>()?;
        Ok(Self { rules, keys })
    }

    /// How it signs.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The headers it reads, in lower case; the signature's first.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let timestamp = match self.rules.timestamp.as_ref().map(|rules| &rules.source) {
            Some(Source::Header(name)) => Some(&**name),
            Some(Source::Entry(_)) | None => None,
        };
        std::iter::once(&*self.rules.signature_header)
            .chain(timestamp)
            .chain(self.rules.id_header.as_deref())
    }

    /// Whether a signature covers the URL, so that what stands in the query is the caller's word.
    pub fn covers_url(&self) -> bool {
        self.rules.signs(&Part::Url)
    }

    /// Whether a message of the other could be taken for one of this: the same header, and a secret in
    /// common.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        self.rules.signature_header == other.rules.signature_header
            && self.keys.iter().any(|key| other.keys.contains(key))
    }

    /// Reads what needs no body; `None` for a message without the signature's header.
    pub(super) fn read<'a>(
        &self,
        request: &Request<'a>,
    ) -> Result<Option<Claimed<'a>>, SignatureFault> {
        let rules = &self.rules;
        let header = request.only(&rules.signature_header);
        let header = match header.map_err(|_| SignatureFault::Malformed)? {
            None | Some(b"") => return Ok(None),
            Some(value) => value,
        };
        let signatures = self.signatures(header)?;
        let id = match &rules.id_header {
            Some(name) => request.only(name).ok().flatten(),
            None => Some(&b""[..]),
        };
        let id = id.filter(|id| rules.id_header.is_none() || !id.is_empty());
        let timestamp = match &rules.timestamp {
            None => b"",
            Some(timestamp) => {
                let value = match &timestamp.source {
                    Source::Header(name) => request.only(name).ok().flatten(),
                    Source::Entry(prefix) => only(rules.entries(header), prefix),
                };
                let value = value.filter(|value| !value.is_empty());
                let value = value.ok_or(SignatureFault::TimestampMissing)?;
                timestamp.check(value, request.at)?;
                value
            }
        };
        Ok(Some(Claimed {
            signatures,
            timestamp,
            id: id.ok_or(SignatureFault::IdMissing)?,
        }))
    }

    /// The signatures of a header: those of its entries that begin as they must.
    fn signatures(&self, header: &[u8]) -> Result<Vec<Vec<u8>>, SignatureFault> {
        let rules = &self.rules;
        let prefix = rules.prefix.as_bytes();
        let encoded = rules
            .entries(header)
            .filter_map(|entry| entry.strip_prefix(prefix));
        let digest_bytes = rules.algorithm.digest_bytes();
        let signatures: Option<Vec<_>> = encoded
            .take(SIGNATURES_MAX + 1)
            .map(|encoded| decode(rules.encoding, encoded).filter(|it| it.len() == digest_bytes))
            .collect();
        signatures
            .filter(|signatures| (1..=SIGNATURES_MAX).contains(&signatures.len()))
            .ok_or(SignatureFault::Malformed)
    }

    /// Whether a request with this body is signed so; then what the signature is.
    pub(super) fn verify(
        &self,
        request: &Request<'_>,
        claimed: &Claimed<'_>,
        body: &[u8],
    ) -> Result<[u8; 32], SignatureFault> {
        let rules = &self.rules;
        let varies = [Part::Timestamp, Part::Id, Part::Url];
        if body.is_empty() && !varies.iter().any(|part| rules.signs(part)) {
            return Err(SignatureFault::CoversNothing);
        }
        let pieces: Vec<Cow<'_, [u8]>> = rules
            .signed
            .iter()
            .map(|part| match part {
                Part::Timestamp => Cow::Borrowed(claimed.timestamp),
                Part::Id => Cow::Borrowed(claimed.id),
                Part::Body => Cow::Borrowed(body),
                Part::Method => Cow::Borrowed(request.method),
                Part::Url => Cow::Owned(self.url(request)),
                Part::Text(text) => Cow::Borrowed(text.as_bytes()),
            })
            .collect();
        let mut found = None;
        for key in &self.keys {
            let expected = key.sign(&pieces);
            // All of them, so that the time tells of none.
            let is_one = |known: bool, one: &Vec<u8>| known | bool::from(one.ct_eq(&expected));
            if claimed.signatures.iter().fold(false, is_one) {
                found = Some(expected);
            }
        }
        let expected = found.ok_or(SignatureFault::Mismatch)?;
        let mut signature = [0; 32];
        let length = expected.len().min(signature.len());
        signature[..length].copy_from_slice(&expected[..length]);
        Ok(signature)
    }

    /// That a message with this signature counts once, if no time stands in it.
    pub(super) fn once(&self, caller: &Arc<str>, signature: [u8; 32]) -> Option<Once> {
        self.rules.timestamp.is_none().then(|| Once {
            caller: Arc::clone(caller),
            signature,
            kept_for: self.rules.remembered_for,
        })
    }

    /// The URL as the caller knows it, in the form it signs.
    fn url(&self, request: &Request<'_>) -> Vec<u8> {
        let rules = &self.rules;
        let target = match memchr::memmem::find(request.target, b"://") {
            // In absolute form: the path begins after the authority.
            Some(at) if !request.target.starts_with(b"/") => {
                let rest = &request.target[at + 3..];
                let path = memchr::memchr(b'/', rest).unwrap_or(rest.len());
                &rest[path..]
            }
            _ => request.target,
        };
        let mut url = rules.public_url.as_bytes().to_vec();
        match rules.url_decoding {
            UrlDecoding::None => url.extend_from_slice(target),
            UrlDecoding::Hubspot => decode_some(target, &mut url),
        }
        url
    }
}

/// The value of the only entry that begins so.
fn only<'a>(entries: impl Iterator<Item = &'a [u8]>, prefix: &str) -> Option<&'a [u8]> {
    let mut values = entries.filter_map(|entry| entry.strip_prefix(prefix.as_bytes()));
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Takes what is decoded of a URL before `HubSpot` signs it: twelve characters, and no others
/// (developers.hubspot.com, "Validating requests").
fn decode_some(target: &[u8], into: &mut Vec<u8>) {
    let mut rest = target;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match crate::policy::escape::escape(rest) {
            Some((byte, 3)) => char::from_u32(byte).filter(|c| ":/?@!$'()*,;".contains(*c)),
            _ => None,
        };
        match escaped {
            Some(c) => {
                into.push(c as u8);
                rest = &rest[3..];
            }
            None => {
                into.push(*first);
                rest = after;
            }
        }
    }
}

/// A signature's bytes; `None` for what is not written in this encoding.
fn decode(encoding: Encoding, encoded: &[u8]) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Hex => base16ct::mixed::decode_vec(encoded).ok(),
        Encoding::Base64 => BASE64.decode(encoded).ok(),
        Encoding::Base64Url => BASE64_URL.decode(encoded).ok(),
    }
}

/// With padding as it was sent: there may be some or none.
const PADDING_AS_SENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, PADDING_AS_SENT);
const BASE64_URL: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, PADDING_AS_SENT);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::presets::{NAMES, ZENDESK_TEST_SECRET, preset};
    use super::rules::{Algorithm, SecretEncoding, Separator, Timestamp};
    use super::*;
    use crate::policy::request::Field;
    use crate::policy::request::tests::PEER;
    use crate::signing::Epoch;

    /// A signed message, and what its receiver knows.
    #[derive(Clone)]
    struct Message {
        rules: Rules,
        secrets: Vec<&'static str>,
        method: &'static str,
        target: &'static str,
        headers: Vec<(String, String)>,
        body: &'static str,
        /// When it arrives.
        at: u64,
    }

    /// A POST that a product signed.
    fn post(
        name: &str,
        secret: &'static str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Message {
        Message {
            rules: preset(name).unwrap(),
            secrets: vec![secret],
            method: "POST",
            target: "/",
            headers: headers
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body,
            at: 1_790_000_000,
        }
    }

    impl Message {
        fn at(self, at: u64) -> Self {
            Self { at, ..self }
        }

        fn to(self, method: &'static str, public_url: &str, target: &'static str) -> Self {
            let rules = Rules {
                public_url: public_url.into(),
                ..self.rules
            };
            Self {
                rules,
                method,
                target,
                ..self
            }
        }

        /// What comes of it; nothing if it is not signed.
        fn outcome(&self) -> Option<Result<(), SignatureFault>> {
            let secret = |text: &&str| Secret::new((*text).to_owned());
            let secrets: Vec<_> = self.secrets.iter().map(secret).collect();
            let scheme = Scheme::new(self.rules.clone(), &secrets).unwrap();
            let field = |(name, value): &'_ (String, String)| (name.clone(), value.clone());
            let owned: Vec<_> = self.headers.iter().map(field).collect();
            let fields: Vec<_> = owned
                .iter()
                .map(|(name, value)| Field {
                    name: name.as_bytes(),
                    value: value.as_bytes(),
                })
                .collect();
            let (method, target) = (self.method.as_bytes(), self.target.as_bytes());
            let at = Epoch::from_unix(self.at);
            let request = Request::new(&PEER, method, target, &fields, at);
            let claimed = match scheme.read(&request) {
                Ok(claimed) => claimed?,
                Err(fault) => return Some(Err(fault)),
            };
            let verified = scheme.verify(&request, &claimed, self.body.as_bytes());
            Some(verified.map(drop))
        }

        #[track_caller]
        fn check(&self, expected: Result<(), SignatureFault>) {
            assert_eq!(self.outcome(), Some(expected), "{:?}", self.headers);
        }

        /// The message with something else in the place of a header's value.
        fn with(&self, name: &str, change: impl Fn(&str) -> String) -> Self {
            let mut changed = self.clone();
            let header = changed.headers.iter_mut().find(|(one, _)| one == name);
            let value = &mut header.expect(name).1;
            *value = change(value);
            changed
        }
    }

    const ZENDESK: [&str; 2] = [
        "X-Zendesk-Webhook-Signature",
        "X-Zendesk-Webhook-Signature-Timestamp",
    ];
    const ZENDESK_BODY: &str = r#"{"ticket_id": 12345, "status": "open"}"#;

    fn zendesk(secret: &'static str, signature: &str, at: &str, body: &'static str) -> Message {
        let headers = [(ZENDESK[0], signature), (ZENDESK[1], at)];
        // When the messages were signed: the last one in 2021.
        let arrives = if at.starts_with("2021") {
            1_627_207_200
        } else {
            1_784_030_400
        };
        post("zendesk", secret, &headers, body).at(arrives)
    }

    const OLD_ZENDESK_SECRET: &str = "HRkRd4BeOAoUkfZr-mhauJT64rvBASlJRoIyPsd3zeA=";
    const HUBSPOT_SECRET: &str = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy";
    const HUBSPOT: [&str; 2] = ["X-HubSpot-Signature-v3", "X-HubSpot-Request-Timestamp"];

    fn hubspot(signature: &str, millis: &str, body: &'static str) -> Message {
        let headers = [(HUBSPOT[0], signature), (HUBSPOT[1], millis)];
        let at = millis.parse::<u64>().unwrap() / 1000;
        let message = post("hubspot", HUBSPOT_SECRET, &headers, body).at(at);
        message.to("POST", "https://www.example.com", "/webhook_uri")
    }

    const STRIPE_BODY: &str = r#"{"id":"evt_1","object":"event"}"#;
    const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const HUBSPOT_GET: &str = "/acme/@api/deki/site/query?q=hs%3Aapp%2Fv3&userId=1&portalId=62515&userEmail=a%40example.com&appId=54321";

    /// Every message that is signed as it should be.
    #[expect(clippy::too_many_lines, reason = "a table is read in one piece")]
    fn good() -> Vec<Message> {
        vec![
            zendesk(
                ZENDESK_TEST_SECRET,
                "DM4vdWm3RFsaESVGQ1PGkJ2ES0CrXVJSpknXWR06Kss=",
                "2026-07-14T12:00:00Z",
                ZENDESK_BODY,
            ),
            zendesk(
                ZENDESK_TEST_SECRET,
                "FByJZLm3S/YrpvmQJdjhQbRN3LM9mHHGtzNT1smnqSc=",
                "2026-07-14T12:00:00Z",
                "",
            ),
            zendesk(
                OLD_ZENDESK_SECRET,
                "Rry/4TtIdFyawtXXp8QdI6tlAUUQ/5kL1OTp5qo/ZIk=",
                "2021-07-25T10:00:00Z",
                r#"{"say": "hello"}"#,
            ),
            post(
                "github",
                "It's a Secret to Everybody",
                &[(
                    "X-Hub-Signature-256",
                    "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
                )],
                "Hello, World!",
            ),
            post(
                "stripe",
                "whsec_test_secret",
                &[(
                    "Stripe-Signature",
                    "t=1790000000,v1=765d0d35514a56905b8ddef451bc5570cc45dfa0395a213879a36689a6be55a3",
                )],
                STRIPE_BODY,
            ),
            post(
                "stripe",
                "whsec_test_secret",
                &[(
                    "Stripe-Signature",
                    "t=1790000000,v1=f709c7ebcd3dc93872ebff7d4f4a69197753f5cd419bfc840d682039b56d4b57,v1=765d0d35514a56905b8ddef451bc5570cc45dfa0395a213879a36689a6be55a3,v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
                )],
                STRIPE_BODY,
            ),
            post(
                "slack",
                "8f742231b10e8888abcd99yyyzzz85a5",
                &[
                    (
                        "X-Slack-Signature",
                        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                    ),
                    ("X-Slack-Request-Timestamp", "1531420618"),
                ],
                SLACK_BODY,
            )
            .at(1_531_420_618),
            standard("webhook"),
            standard("svix"),
            hubspot(
                "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y=",
                "1693657560000",
                "{'example_field':'example_value'}",
            ),
            hubspot(
                "RnbPH7+UMKVkbV32P8bz450N4M56aPmcru1+D3kSDtw=",
                "1700000300000",
                "{'example_field':'example_value'}",
            ),
            hubspot(
                "XJJFPMYDUzg6RAw/kugkMJFLtQC6gBWdCutzgL2jx9g=",
                "1790000000000",
                "",
            )
            .to("GET", "https://gw.example.com", HUBSPOT_GET),
            post(
                "nexus",
                "nexus-test-secret",
                &[
                    (
                        "X-Nexus-Signature-256",
                        "sha256=f81211dac2eab866fc9fbf3cfb2e2e6eaac2b7058c40c0ba69e8ac03df6b8374",
                    ),
                    ("X-Nexus-Timestamp", "1790000000"),
                ],
                r#"<event id="1"/>"#,
            ),
            post(
                "intercom",
                "client-secret",
                &[(
                    "X-Hub-Signature",
                    "sha1=afd46c2e2b3cd345f03cef349d0d10c6ebe3542a",
                )],
                r#"{"type":"notification_event","topic":"ping"}"#,
            ),
            post(
                "sfmc",
                "opaque-signature-key",
                &[(
                    "x-sfmc-ens-signature",
                    "4DS/ndWuXXTSYd/Dg/762wdmUur75jyGgeBeD/sGzL0=",
                )],
                r#"[{"eventCategoryType":"TransactionalSendEvents.EmailSent"}]"#,
            ),
            post(
                "shopify",
                "hush",
                &[(
                    "X-Shopify-Hmac-Sha256",
                    "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=",
                )],
                r#"{"id":1}"#,
            ),
        ]
    }

    fn standard(word: &str) -> Message {
        let name = match word {
            "webhook" => "standard-webhooks",
            other => other,
        };
        let [id, time, signature] =
            ["id", "timestamp", "signature"].map(|it| format!("{word}-{it}"));
        let headers = [
            (&*id, "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (&*time, "1614265330"),
            (
                &*signature,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ];
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        post(name, secret, &headers, r#"{"test": 2432232314}"#).at(1_614_265_330)
    }

    #[test]
    fn as_the_products_publish_them() {
        let mut seen: Vec<_> = NAMES.to_vec();
        for message in good() {
            message.check(Ok(()));
            seen.retain(|name| {
                preset(name).unwrap().signature_header != message.rules.signature_header
            });
        }
        assert!(seen.is_empty(), "no example of {seen:?}");
        assert!(preset("Zendesk").is_none() && preset("").is_none());
    }

    /// What signs each message, where its head says so, and in lower case.
    fn signature_header(message: &Message) -> String {
        let is_it = |(name, _): &&(String, String)| {
            name.eq_ignore_ascii_case(&message.rules.signature_header)
        };
        message.headers.iter().find(is_it).unwrap().0.clone()
    }

    #[test]
    fn each_with_one_thing_wrong() {
        for message in good() {
            let changed = |change: &dyn Fn(&mut Message)| {
                let mut other = message.clone();
                change(&mut other);
                other
            };
            let mismatch = Err(SignatureFault::Mismatch);
            changed(&|it| it.body = "something else").check(mismatch);
            changed(&|it| it.secrets = vec!["whsec_bm90IHRoZSBzZWNyZXQgb2YgYW55Ym9keQ"])
                .check(mismatch);
            if message.rules.signs(&Part::Url) {
                changed(&|it| it.target = "/elsewhere").check(mismatch);
                changed(&|it| it.method = "PUT").check(mismatch);
                changed(&|it| it.rules.public_url = "http://www.example.com".into())
                    .check(mismatch);
            } else {
                // What is not signed may be anything: TLS protects it, and nothing else.
                changed(&|it| it.target = "/elsewhere").check(Ok(()));
            }

            let header = signature_header(&message);
            let malformed = Err(SignatureFault::Malformed);
            changed(&|it| it.headers.push((header.to_lowercase(), String::new()))).check(malformed);
            changed(&|it| {
                let twice = it.headers.iter().find(|(name, _)| *name == header);
                let twice = twice.cloned().unwrap();
                it.headers.push(twice);
            })
            .check(malformed);
            for junk in ["x", "sha256=", "v1=,v1=", "v0=", "v1,", "=", "t=1790000000"] {
                message.with(&header, |_| junk.to_owned()).check(malformed);
            }
            message
                .with(&header, |value| {
                    value.chars().take(value.len() / 2).collect()
                })
                .check(malformed);
            let none = changed(&|it| it.headers.retain(|(name, _)| *name != header));
            assert_eq!(none.outcome(), None, "not signed at all");
            let empty = message.with(&header, |_| String::new());
            assert_eq!(empty.outcome(), None, "a header without a signature");

            match &message.rules.timestamp {
                None => {
                    changed(&|it| it.body = "").check(Err(SignatureFault::CoversNothing));
                    changed(&|it| it.at += 1_000_000_000).check(Ok(()));
                }
                Some(_) => {
                    changed(&|it| it.at += 300).check(Ok(()));
                    changed(&|it| it.at += 301).check(Err(SignatureFault::TimestampOld));
                    changed(&|it| it.at -= 299).check(Ok(()));
                    changed(&|it| it.at -= 302).check(Err(SignatureFault::TimestampAhead));
                }
            }
        }
    }

    #[test]
    fn headers_beside_the_signature_stand_there_once() {
        for message in good() {
            let signature = signature_header(&message);
            for (name, value) in message.headers.clone() {
                if name == signature {
                    continue;
                }
                let fault = Err(match name.to_lowercase().ends_with("-id") {
                    true => SignatureFault::IdMissing,
                    false => SignatureFault::TimestampMissing,
                });
                let mut none = message.clone();
                none.headers.retain(|(one, _)| *one != name);
                none.check(fault);
                message.with(&name, |_| String::new()).check(fault);
                let mut twice = message.clone();
                twice.headers.push((name.clone(), value.clone()));
                twice.check(fault);
                let other = match fault {
                    Err(SignatureFault::IdMissing) => SignatureFault::Mismatch,
                    _ => SignatureFault::TimestampMalformed,
                };
                message
                    .with(&name, |value| format!("{value}x"))
                    .check(Err(other));
            }
        }
    }

    #[test]
    fn a_key_that_is_decoded_is_another_key() {
        let wrong = zendesk(
            ZENDESK_TEST_SECRET,
            "qySi1KZc7ke4o4wJp7r8bydiMXDqEQqJNW4bcZUQ12E=",
            "2026-07-14T12:00:00Z",
            ZENDESK_BODY,
        );
        wrong.check(Err(SignatureFault::Mismatch));
        let mut decoded = wrong;
        decoded.rules.secret_encoding = SecretEncoding::Base64;
        decoded.check(Ok(()));
    }

    #[test]
    fn what_others_once_signed() {
        // The body before the time, as one page said once.
        let old = zendesk(
            OLD_ZENDESK_SECRET,
            "tRDSF7URY8BLCDlaBcQ7FHu051Zk+aAB0NKMP53teMw=",
            "2021-07-25T10:00:00Z",
            r#"{"say": "hello"}"#,
        );
        old.check(Err(SignatureFault::Mismatch));
        let mut by_hand = old;
        by_hand.rules.signed = vec![Part::Body, Part::Timestamp];
        by_hand.check(Ok(()));
        // The URL as it came, without HubSpot's decoding.
        let plain = hubspot(
            "VewAJIUvi5h9Bgmd9g62JlqlsfchBhXTvgsyYn+odt4=",
            "1790000000000",
            "",
        );
        let plain = plain.to("GET", "https://gw.example.com", HUBSPOT_GET);
        plain.check(Err(SignatureFault::Mismatch));
        let mut by_hand = plain;
        by_hand.rules.url_decoding = UrlDecoding::None;
        by_hand.check(Ok(()));
        // HubSpot's older versions are no HMAC.
        for digest in [
            "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de",
            "9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900",
            "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e",
        ] {
            let body = "{\"example_field\":\"example_value\"}";
            hubspot(digest, "1790000000000", body).check(Err(SignatureFault::Malformed));
        }
        // GitHub sends its old header beside the new one: it says nothing.
        let sha1 = [(
            "X-Hub-Signature",
            "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59",
        )];
        let old = post(
            "github",
            "It's a Secret to Everybody",
            &sha1,
            "Hello, World!",
        );
        assert_eq!(old.outcome(), None);
    }

    #[test]
    fn one_digest_in_three_encodings() {
        let check = |encoding: Encoding, signature: &str, expected| {
            let mut message = post("shopify", "k", &[("X-Shopify-Hmac-Sha256", signature)], "b");
            message.rules.encoding = encoding;
            message.check(expected);
        };
        let hex = "2fb39898cf6b5cadbde2377d14dbc7331caaf0825d59106d090deeb785aaa389";
        let url = "L7OYmM9rXK294jd9FNvHMxyq8IJdWRBtCQ3ut4Wqo4k";
        let (upper, padded) = (hex.to_uppercase(), format!("{url}="));
        let mixed = format!("2FB3{}", &hex[4..]);
        for signature in [hex, &upper, &mixed] {
            check(Encoding::Hex, signature, Ok(()));
            check(Encoding::Base64, signature, Err(SignatureFault::Malformed));
        }
        for encoding in [Encoding::Base64, Encoding::Base64Url] {
            check(encoding, url, Ok(()));
            check(encoding, &padded, Ok(()));
            for wrong in [
                &url[1..],
                &format!("{url}=="),
                &format!("{url}A"),
                &url.replace('q', "!"),
            ] {
                check(encoding, wrong, Err(SignatureFault::Malformed));
            }
        }
        for wrong in [
            &hex[2..],
            &format!("{hex}00"),
            &format!("0x{hex}"),
            &hex.replace('f', "g"),
        ] {
            check(Encoding::Hex, wrong, Err(SignatureFault::Malformed));
        }
    }

    #[test]
    fn sha_512_and_whatever_else_stands_in_a_file() {
        // printf '{"id":1}\n1790000000' | openssl dgst -sha512 -hmac hush -r
        let signature = "sha512 be7de9e336aec4b88c630d65666efd05";
        let mut message = post(
            "shopify",
            "hush",
            &[("X-Signature", signature), ("X-Time", "1790000000")],
            "{\"id\":1}",
        );
        message.rules = Rules {
            prefix: "sha512 ".into(),
            algorithm: Algorithm::Sha512,
            signed: vec![Part::Body, Part::Text("\n".into()), Part::Timestamp],
            timestamp: Some(Timestamp::within_minutes(
                Source::Header("x-time".into()),
                rules::Format::Seconds,
            )),
            ..Rules::of_body("x-signature")
        };
        message.check(Err(SignatureFault::Malformed));
        let whole = message.with("X-Signature", |_| format!("sha512 {SHA512}"));
        whole.check(Ok(()));
        let mut early = whole.clone();
        let timestamp = early.rules.timestamp.as_mut().unwrap();
        timestamp.tolerance_ahead = Duration::ZERO;
        early.clone().check(Ok(()));
        early
            .at(1_789_999_998)
            .check(Err(SignatureFault::TimestampAhead));
    }

    const SHA512: &str = "be7de9e336aec4b88c630d65666efd05473cd1e6d863eaec7aed11168fd90fa98efec326fee5482af956e6ab4dc8de0931209d10218d4e52bd69c68cc9a2da36";

    #[test]
    fn several_signatures_in_one_header() {
        let good = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let check = |header: &str, expected| {
            let message = standard("webhook");
            message
                .with("webhook-signature", |_| header.to_owned())
                .check(expected);
        };
        check(&format!("v1,{other} v1,{good}"), Ok(()));
        check(&format!("v1,{good}  v1a,whatever v2,{other}"), Ok(()));
        check(&format!("v1,{other}"), Err(SignatureFault::Mismatch));
        check(&format!("v1a,{good}"), Err(SignatureFault::Malformed));
        check(
            &format!("v1,{good},v1,{other}"),
            Err(SignatureFault::Malformed),
        );
        check(&format!("v1,x v1,{good}"), Err(SignatureFault::Malformed));
        let many = |count: usize| vec![format!("v1,{good}"); count].join(" ");
        check(&many(SIGNATURES_MAX), Ok(()));
        check(&many(SIGNATURES_MAX + 1), Err(SignatureFault::Malformed));

        let stripe = |header: &str, expected| {
            let message = good_stripe();
            message
                .with("Stripe-Signature", |_| header.to_owned())
                .check(expected);
        };
        let v1 = "v1=765d0d35514a56905b8ddef451bc5570cc45dfa0395a213879a36689a6be55a3";
        stripe(&format!("{v1}, t=1790000000"), Ok(()));
        stripe(v1, Err(SignatureFault::TimestampMissing));
        stripe(&format!("t=,{v1}"), Err(SignatureFault::TimestampMissing));
        let twice = format!("t=1790000000,t=1790000000,{v1}");
        stripe(&twice, Err(SignatureFault::TimestampMissing));
        let other = format!("t=1790000001,{v1}");
        stripe(&other, Err(SignatureFault::Mismatch));
        let v0 = format!("t=1790000000,{}", v1.replace("v1", "v0"));
        stripe(&v0, Err(SignatureFault::Malformed));
    }

    fn good_stripe() -> Message {
        good()
            .into_iter()
            .find(|it| it.rules.separator == Some(Separator::Comma))
            .unwrap()
    }

    #[test]
    fn a_secret_that_is_rotated_out() {
        for message in good() {
            let mut rotating = message.clone();
            rotating
                .secrets
                .insert(0, "whsec_bm90IHRoZSBzZWNyZXQgb2YgYW55Ym9keQ");
            rotating.check(Ok(()));
            rotating.secrets.reverse();
            rotating.check(Ok(()));
            rotating.secrets.remove(0);
            rotating.check(Err(SignatureFault::Mismatch));
        }
    }

    #[test]
    fn secrets_that_are_none() {
        let check = |text: &str, expected: Option<(usize, SecretFault)>| {
            let rules = preset("svix").unwrap();
            let secrets = [
                Secret::new("whsec_AAAA".to_owned()),
                Secret::new(text.to_owned()),
            ];
            assert_eq!(Scheme::new(rules, &secrets).err(), expected, "{text}");
        };
        check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
        for text in [
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!",
            "whsec_A",
            "WHSEC_AAAA",
        ] {
            check(text, Some((1, SecretFault::Encoding)));
        }
    }

    #[test]
    fn twelve_characters_are_decoded_and_no_others() {
        let check = |sent: &str, expected: &str| {
            let mut decoded = Vec::new();
            decode_some(sent.as_bytes(), &mut decoded);
            assert_eq!(String::from_utf8(decoded).unwrap(), expected, "{sent}");
        };
        check("%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B", ":/?@!$'()*,;");
        check("%3a%2f%2c", ":/,");
        for escape in [
            "%20", "%26", "%3D", "%25", "%23", "%2B", "%u003A", "%C3%A4", "%3", "%", "+",
        ] {
            check(escape, escape);
        }
        check("%253A", "%253A");
        check("a%20b%3Ac%", "a%20b:c%");
    }

    #[test]
    fn the_url_is_the_same_in_absolute_form() {
        let target = "http://gw.internal/webhook_uri";
        let signed = good()
            .into_iter()
            .find(|it| it.target == "/webhook_uri")
            .unwrap();
        Message { target, ..signed }.check(Ok(()));
    }

    #[test]
    fn callers_that_could_be_taken_for_one_another() {
        let scheme = |name: &str, secrets: &[&str]| {
            let secrets: Vec<_> = secrets
                .iter()
                .map(|it| Secret::new((*it).to_owned()))
                .collect();
            Scheme::new(preset(name).unwrap(), &secrets).unwrap()
        };
        let check = |a: &Scheme, b: &Scheme, expected| {
            assert_eq!(a.is_shared_with(b), expected);
            assert_eq!(b.is_shared_with(a), expected);
        };
        let github = scheme("github", &["canary", "two"]);
        check(&github, &scheme("github", &["three", "two"]), true);
        check(&github, &scheme("github", &["three"]), false);
        check(&github, &scheme("shopify", &["canary"]), false);
        assert!(!format!("{github:?}").contains("canary"), "{github:?}");
        assert!(scheme("hubspot", &["one"]).covers_url() && !github.covers_url());
    }

    #[test]
    fn words_for_the_record() {
        for pair in SignatureFault::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        let names: std::collections::HashSet<_> =
            SignatureFault::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), SignatureFault::ALL.len());
    }
}
