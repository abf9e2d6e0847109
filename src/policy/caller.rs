//! Who is calling: turns what a request presents into a [`Caller`], or refuses.
//!
//! One credential identifies. Two that could each identify somebody are refused, whoever they name:
//! which of them counts would be a matter of order. A credential of a kind that no caller of the route
//! has counts for nothing beside one that does: Zendesk signs every webhook, whatever it authenticates
//! with, and ServiceNow documents Basic beside its certificate.

pub mod api_key;
pub mod basic;
pub mod certificate;
mod certified;
pub mod hmac;
pub mod jwt;
mod presented;
mod signed;
#[cfg(test)]
mod tests_of_kinds;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use zeroize::Zeroizing;

pub use self::api_key::{KeyDigest, is_key_of_ours};
use self::basic::{Basic, Pair};
use self::certificate::CertificateRule;
use self::hmac::{Once, Scheme, SignatureFault};
use self::jwt::{Claims, Issuer, TokenFault, TokenRules, Verified};
use self::presented::{Presented, may_be_token};
use super::Refusal;
use super::acts_as::ActingCaller;
use super::peer::Networks;
use super::proof::Need;
use super::request::Request;

/// The headers a credential may come in, beside `X-Deki-Token` and those of signatures.
pub const CREDENTIAL_HEADERS: [&str; 2] = ["authorization", "x-api-key"];

/// Longest credential in bytes that is looked at: Entra tokens with many groups have more than 8 KiB.
const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// A program that may call the gateway.
#[derive(Debug)]
pub struct Caller {
    /// Its name in the file, in the access log and in metrics.
    pub name: Arc<str>,
    /// What it presents in its messages; nothing, if its certificate is all.
    pub credential: Option<Credential>,
    /// The certificate it must present, be it alone or beside its credential.
    pub certificate: Option<CertificateRule>,
    /// Where it may call from; `None` for anywhere.
    pub allowed_addresses: Option<Networks>,
}

impl Caller {
    /// The digests of its keys; none, if it presents something else.
    pub fn api_keys(&self) -> &[KeyDigest] {
        match &self.credential {
            Some(Credential::ApiKeys(keys)) => keys,
            _ => &[],
        }
    }
}

/// What a caller presents in its messages.
#[derive(Debug)]
pub enum Credential {
    /// One of these keys: several while one is rotated out.
    ApiKeys(Vec<KeyDigest>),
    /// A user name and a password.
    Basic(Basic),
    /// A token of an identity provider.
    Jwt(TokenRules),
    /// A signature of each message.
    Signature(Scheme),
}

/// The callers of one route, found by what they present. Without any, nobody is let in.
///
/// One caller costs what ten thousand cost: keys, user names and certificates are looked up. A key's
/// digest is compared in constant time, and nobody can make digests that are nearly right, so timing
/// tells nothing of a key.
#[derive(Debug, Default)]
pub struct Callers {
    all: Vec<ActingCaller>,
    /// Where in `all` the caller with this key stands.
    by_key: HashMap<KeyDigest, usize, RandomState>,
    by_user_name: HashMap<Box<[u8]>, usize, RandomState>,
    /// Those that present a password.
    with_passwords: Vec<usize>,
    /// Callers whose certificate is all they present, or is demanded beside.
    by_certificate: HashMap<CertificateRule, usize, RandomState>,
    /// Whose tokens any of them presents.
    issuers: Arc<[Arc<Issuer>]>,
    /// Those that present tokens.
    with_token: Vec<usize>,
    /// Those that sign.
    signing: Vec<usize>,
}

/// What is found of a request's caller.
#[derive(Debug)]
pub enum Identified<'c> {
    /// It is this one, and its token says so.
    Caller(&'c ActingCaller, Option<Arc<Claims>>),
    /// It is this one, and its signature says so; perhaps it counts once.
    Signed(&'c ActingCaller, Option<Once>),
    /// That cannot be told before this is known.
    Needs(Need),
}

/// Why what a request presents does not let it in, and what exactly was wrong, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What the caller is told.
    pub refusal: Refusal,
    /// One word of a closed list, where there is more to say.
    pub cause: Option<&'static str>,
    /// Whose credential it is, where that is proved and something else is wrong, such as the place. A
    /// name alone, with a wrong password or signature, is nobody's.
    pub caller: Option<Arc<str>>,
}

impl Rejected {
    /// The same, of a caller whose credential is proved.
    fn of(self, acting: &ActingCaller) -> Self {
        Self {
            caller: Some(Arc::clone(&acting.caller.name)),
            ..self
        }
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            cause: None,
            caller: None,
        }
    }
}

impl From<TokenFault> for Rejected {
    fn from(fault: TokenFault) -> Self {
        Self {
            refusal: fault.refusal(),
            cause: Some(fault.name()),
            caller: None,
        }
    }
}

impl From<SignatureFault> for Rejected {
    fn from(fault: SignatureFault) -> Self {
        Self {
            refusal: fault.refusal(),
            cause: Some(fault.name()),
            caller: None,
        }
    }
}

impl Callers {
    /// Arranges callers; no two of them have a key, a user name or a certificate in common.
    pub fn new(all: Vec<ActingCaller>) -> Self {
        let mut callers = Self::default();
        let mut issuers: Vec<Arc<Issuer>> = Vec::new();
        for (index, acting) in all.iter().enumerate() {
            match &acting.caller.credential {
                Some(Credential::ApiKeys(keys)) => {
                    let keys = keys.iter().map(|digest| (*digest, index));
                    callers.by_key.extend(keys);
                }
                Some(Credential::Basic(basic)) => {
                    let name = basic.user_name.as_bytes();
                    callers.by_user_name.insert(name.into(), index);
                    callers.with_passwords.push(index);
                }
                Some(Credential::Jwt(rules)) => {
                    callers.with_token.push(index);
                    if !issuers.contains(&rules.issuer) {
                        issuers.push(Arc::clone(&rules.issuer));
                    }
                }
                None => {}
                Some(Credential::Signature(_)) => callers.signing.push(index),
            }
            if let Some(rule) = &acting.caller.certificate {
                let known = callers.by_certificate.entry(rule.clone());
                if acting.caller.credential.is_none() {
                    known.insert_entry(index);
                } else {
                    known.or_insert(index);
                }
            }
        }
        Self {
            all,
            issuers: issuers.into(),
            ..callers
        }
    }

    /// Whether any of them presents a password.
    pub fn take_passwords(&self) -> bool {
        !self.with_passwords.is_empty()
    }

    /// Every caller.
    pub fn iter(&self) -> impl Iterator<Item = &ActingCaller> {
        self.all.iter()
    }

    /// Whose tokens any of them presents.
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// The caller whose credential a request presents.
    ///
    /// # Errors
    /// The refusals of a credential that is missing, ambiguous, unknown or expired, and of an address
    /// that is not the caller's.
    pub fn identify(&self, request: &Request<'_>) -> Result<Identified<'_>, Rejected> {
        let presented = Presented::by(request)?;
        let is_signed = self.is_signed(request)?;
        let found = match presented {
            Some(presented) if !is_signed || self.uses(presented) => {
                if is_signed {
                    return Err(Refusal::AmbiguousCredential.into());
                }
                // A credential of a kind that no caller here has, beside a certificate that is one.
                if !self.uses(presented) && self.is_certificate_enough(request) {
                    None
                } else {
                    Some(self.by_message(presented, request)?)
                }
            }
            _ if is_signed => Some(self.by_signature(request)?),
            _ => None,
        };
        match found {
            Some(Identified::Needs(need)) => Ok(Identified::Needs(need)),
            Some(Identified::Caller(acting, claims)) => {
                self.check_certificate(acting, request)?;
                admit_from(acting, request)?;
                Ok(Identified::Caller(acting, claims))
            }
            Some(Identified::Signed(acting, once)) => {
                self.check_certificate(acting, request)?;
                admit_from(acting, request)?;
                Ok(Identified::Signed(acting, once))
            }
            None => {
                let acting = self.by_certificate(request)?;
                admit_from(acting, request)?;
                Ok(Identified::Caller(acting, None))
            }
        }
    }

    /// Whether any caller has a credential of this kind.
    fn uses(&self, presented: Presented<'_>) -> bool {
        match presented {
            Presented::Bearer(_) => !self.by_key.is_empty() || !self.issuers.is_empty(),
            Presented::Basic(_) => !self.by_user_name.is_empty(),
            Presented::Other => false,
        }
    }

    /// The caller whose key, password or token a message presents.
    fn by_message(
        &self,
        presented: Presented<'_>,
        request: &Request<'_>,
    ) -> Result<Identified<'_>, Rejected> {
        let unknown = Err(Refusal::CredentialUnknown.into());
        match presented {
            Presented::Bearer(key) | Presented::Basic(key) if key.len() > CREDENTIAL_BYTES_MAX => {
                unknown
            }
            Presented::Bearer(key) => match self.by_key.get(&KeyDigest::of(key)) {
                Some(index) => Ok(Identified::Caller(&self.all[*index], None)),
                None if may_be_token(key) && !self.issuers.is_empty() => {
                    self.by_token(key, request)
                }
                None => unknown,
            },
            Presented::Basic(encoded) => self.by_password(encoded, request),
            Presented::Other => unknown,
        }
    }

    /// The caller with a user name, if the password is its own. A name that nobody has is somebody's
    /// for as long as it takes to compare the password: so time tells nothing of names.
    fn by_password(
        &self,
        encoded: &[u8],
        request: &Request<'_>,
    ) -> Result<Identified<'_>, Rejected> {
        let unknown = Refusal::CredentialUnknown;
        let pair = Pair::read(encoded).ok_or(unknown)?;
        let name = pair.user_name();
        let found = self.by_user_name.get(name);
        let stand_in = || {
            let hash = self.by_user_name.hasher().hash_one(name);
            let all = self.with_passwords.len() as u64;
            let index = usize::try_from(hash.checked_rem(all)?).ok()?;
            self.with_passwords.get(index)
        };
        let acting = &self.all[*found.or_else(stand_in).ok_or(unknown)?];
        let Some(Credential::Basic(basic)) = &acting.caller.credential else {
            return Err(Refusal::Internal.into());
        };
        match request.proof.password_is_right {
            Some(true) if found.is_some() => Ok(Identified::Caller(acting, None)),
            Some(_) => Err(Rejected {
                refusal: unknown,
                cause: Some(match found {
                    Some(_) => "password_wrong",
                    None => "user_name_unknown",
                }),
                caller: None,
            }),
            None => Ok(Identified::Needs(Need::Password {
                user_name: name.into(),
                hashes: Arc::clone(&basic.passwords),
                password: Zeroizing::new(pair.password().to_vec()),
                is_known: found.is_some(),
            })),
        }
    }

    fn by_token(&self, token: &[u8], request: &Request<'_>) -> Result<Identified<'_>, Rejected> {
        let Some(verified) = &request.proof.token else {
            let token = std::str::from_utf8(token).map_err(|_| Refusal::CredentialUnknown)?;
            return Ok(Identified::Needs(Need::Token {
                issuers: Arc::clone(&self.issuers),
                token: Zeroizing::new(token.into()),
            }));
        };
        let verified = verified.as_ref().map_err(|fault| Rejected::from(*fault))?;
        self.by_claims(verified, request)
    }

    /// The only caller that a token's claims fit. Of several reasons why it fits none, the one of the
    /// caller whom it fits most is told.
    fn by_claims(
        &self,
        verified: &Verified,
        request: &Request<'_>,
    ) -> Result<Identified<'_>, Rejected> {
        let mut found = None;
        let mut expired = None;
        let mut fault = None;
        for acting in self.with_token.iter().map(|index| &self.all[*index]) {
            let Some(Credential::Jwt(rules)) = &acting.caller.credential else {
                continue;
            };
            if rules.issuer != verified.issuer {
                continue;
            }
            match rules.check(verified, request.at) {
                Ok(()) if found.is_some() => return Err(Refusal::AmbiguousCredential.into()),
                Ok(()) => found = Some(acting),
                Err(TokenFault::Expired) => expired = Some(acting),
                Err(other) => fault = fault.max(Some(other)),
            }
        }
        // All else is right.
        if let (None, Some(acting)) = (found, expired) {
            return Err(Rejected::from(TokenFault::Expired).of(acting));
        }
        match (found, fault) {
            (Some(acting), _) => {
                let claims = Some(Arc::clone(&verified.claims));
                Ok(Identified::Caller(acting, claims))
            }
            (None, Some(fault)) => Err(fault.into()),
            (None, None) => Err(Refusal::CredentialUnknown.into()),
        }
    }
}

/// Refuses a caller that may not call from where it does.
fn admit_from(acting: &ActingCaller, request: &Request<'_>) -> Result<(), Rejected> {
    match &acting.caller.allowed_addresses {
        Some(networks) if !networks.have(request.client) => {
            Err(Rejected::from(Refusal::AddressNotAllowed).of(acting))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{fields, request};
    use super::*;
    use crate::policy::acts_as::ActsAs;
    use crate::signing::{User, UserEncoding};

    /// A caller who acts as user 1.
    pub(super) fn acting(
        name: &str,
        credential: Option<Credential>,
        certificate: Option<CertificateRule>,
    ) -> ActingCaller {
        ActingCaller {
            caller: Arc::new(Caller {
                name: name.into(),
                credential,
                certificate,
                allowed_addresses: None,
            }),
            acts_as: ActsAs::Fixed(User::parse("1", UserEncoding::Plain).unwrap()),
        }
    }

    /// The name of the caller, where none is in need of more.
    fn outcome<'c>(callers: &'c Callers, request: &Request<'_>) -> Result<&'c str, Refusal> {
        match callers.identify(request) {
            Ok(Identified::Caller(acting, _) | Identified::Signed(acting, _)) => {
                Ok(&acting.caller.name)
            }
            Ok(Identified::Needs(need)) => panic!("{need:?}"),
            Err(rejected) => Err(rejected.refusal),
        }
    }

    fn check(headers: &[(&str, &str)], expected: Result<&str, Refusal>) {
        let caller = |name: &str, keys: &[&str]| {
            let keys = keys.iter().map(|key| KeyDigest::of(key.as_bytes()));
            acting(name, Some(Credential::ApiKeys(keys.collect())), None)
        };
        let callers = Callers::new(vec![
            caller("a", &["key-a", "old-a"]),
            caller("b", &["key-b", "cs_b"]),
        ]);
        let fields = fields(headers);
        let request = request("GET", "/", &fields);
        assert_eq!(outcome(&callers, &request), expected, "{headers:?}");
    }

    #[test]
    fn one_key_in_either_header() {
        check(&[("authorization", "Bearer key-a")], Ok("a"));
        check(&[("authorization", "bearer  old-a")], Ok("a"));
        check(&[("x-api-key", "key-b")], Ok("b"));
        check(&[("x-deki-token", "cs_b")], Ok("b"));
        check(&[("x-api-key", "cs_b")], Ok("b"));
    }

    #[test]
    fn a_header_without_a_credential_presents_nothing() {
        for empty in ["", " ", "Bearer", "bearer ", "Basic"] {
            check(&[("authorization", empty)], Err(Refusal::CredentialMissing));
            check(&[("authorization", empty), ("x-api-key", "key-b")], Ok("b"));
            let with_token = [("x-deki-token", "cs_b"), ("Authorization", empty)];
            check(&with_token, Ok("b"));
        }
        check(&[("x-api-key", "")], Err(Refusal::CredentialMissing));
        check(
            &[("x-api-key", ""), ("authorization", "Bearer key-a")],
            Ok("a"),
        );
        check(&[("x-api-key", ""), ("x-api-key", "key-b")], Ok("b"));
        check(
            &[("x-deki-token", "key-b")],
            Err(Refusal::CredentialMissing),
        );
    }

    #[test]
    fn none_several_or_strange() {
        check(&[], Err(Refusal::CredentialMissing));
        check(
            &[("x-api-key", "key-b"), ("x-api-key", "key-b")],
            Err(Refusal::AmbiguousCredential),
        );
        check(
            &[("x-api-key", "key-b"), ("authorization", "Bearer key-b")],
            Err(Refusal::AmbiguousCredential),
        );
        for other in [
            ("x-api-key", "cs_b"),
            ("x-deki-token", "cs_b"),
            ("authorization", "Basic a2V5LWE6"),
        ] {
            let both = [("X-Deki-Token", "cs_b"), other];
            check(&both, Err(Refusal::AmbiguousCredential));
        }
        for (name, value) in [
            ("x-api-key", "key"),
            ("x-deki-token", "cs_a"),
            ("x-api-key", "key-a2"),
            ("x-api-key", "KEY-A"),
            ("authorization", "key-a"),
            ("authorization", "Basic a2V5LWE6"),
            ("authorization", "Bearerkey-a"),
            ("authorization", "Bearer key-a,key-b"),
        ] {
            check(&[(name, value)], Err(Refusal::CredentialUnknown));
        }
        check(
            &[("x-api-key", &"k".repeat(CREDENTIAL_BYTES_MAX + 1))],
            Err(Refusal::CredentialUnknown),
        );
    }

    #[test]
    fn nobody_is_let_in_where_nobody_is_listed() {
        let fields = fields(&[("x-api-key", "key-a")]);
        let request = request("GET", "/", &fields);
        let refused = Err(Refusal::CredentialUnknown);
        assert_eq!(outcome(&Callers::default(), &request), refused);
    }
}
