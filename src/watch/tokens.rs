//! Tokens that callers present: verified with the keys of their issuer, and remembered while they are in
//! use, so that a request costs no signature.

mod remembered;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use self::remembered::{Entry, Remembered};
use super::keys::{self, IssuerKeys};
use crate::jose::{Signer, Unverified};
use crate::policy::caller::jwt::{Issuer, TokenFault, Verified};

/// What is known of tokens and of the keys that verify them.
#[derive(Debug)]
pub struct Tokens {
    issuers: HashMap<Box<str>, Arc<IssuerKeys>, RandomState>,
    remembered: Arc<Remembered>,
    /// That of the next issuer that is new, here and in all that follow.
    next_id: u64,
}

impl Tokens {
    /// What is known of these issuers, no two of which have one name: what was known before, where the
    /// issuer and the source of its keys are the same.
    pub(super) fn new(issuers: &[Arc<Issuer>], before: Option<&Self>) -> Self {
        let mut next_id = before.map_or(0, |before| before.next_id);
        let mut of = |issuer: &Arc<Issuer>| {
            let known = before.and_then(|before| before.issuers.get(&issuer.name));
            let known = known.filter(|known| known.issuer == *issuer);
            known.cloned().unwrap_or_else(|| {
                next_id += 1;
                IssuerKeys::new(issuer, next_id)
            })
        };
        let keys = issuers
            .iter()
            .map(|issuer| (issuer.name.clone(), of(issuer)));
        Self {
            issuers: keys.collect(),
            // What is remembered counts only with a key that its issuer still has.
            remembered: before.map_or_else(Arc::default, |it| Arc::clone(&it.remembered)),
            next_id,
        }
    }

    /// Reads the keys of all issuers once that have not been read yet. Starting waits a few seconds for one
    /// that is away, and not longer.
    pub async fn begin(&self) {
        let new = self.issuers.values().filter(|keys| keys.known().is_none());
        keys::begin(new.cloned()).await;
    }

    /// What keeps keys fresh, one for each issuer, each for as long as the issuer stays what it is; with
    /// the number of the issuer, which no two share.
    pub fn keepers(
        &self,
    ) -> impl Iterator<Item = (u64, impl Future<Output = ()> + Send + use<>)> + use<'_> {
        self.issuers.values().map(|keys| {
            let keys = Arc::clone(keys);
            (keys.id, async move { keys.keep_fresh().await })
        })
    }

    /// What a token says, if one of these issuers signed it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn verify(
        &self,
        issuers: &[Arc<Issuer>],
        token: &str,
    ) -> Result<Verified, TokenFault> {
        let digest = remembered::digest(token);
        if let Some(entry) = self.remembered.find(&digest) {
            let issuer = &entry.verified.issuer;
            // A key that was withdrawn ends its tokens; an issuer that was changed has others.
            let has_key = |keys: &Arc<IssuerKeys>| {
                let known = keys.known();
                keys.issuer == *issuer && known.is_some_and(|known| known.has(&entry.key))
            };
            if self.issuers.get(&issuer.name).is_some_and(has_key) {
                return match issuers.contains(issuer) {
                    true => Ok(entry.verified),
                    false => Err(TokenFault::Issuer),
                };
            }
        }
        let unverified = Unverified::read(token)?;
        let named = unverified.issuer().ok_or(TokenFault::Issuer)?;
        let issuer = issuers.iter().find(|issuer| *issuer.name == *named);
        let issuer = issuer.ok_or(TokenFault::Issuer)?;
        let keys = self.issuers.get(&issuer.name).ok_or(TokenFault::Issuer)?;
        let signer = signer(&unverified, keys).await?;
        let verified = Verified {
            issuer: Arc::clone(issuer),
            algorithm: signer.algorithm,
            claims: Arc::new(unverified.into_claims()),
        };
        let entry = Entry {
            verified: verified.clone(),
            key: signer.key,
        };
        self.remembered.insert(digest, entry);
        Ok(verified)
    }
}

/// Which of an issuer's keys signed a token; perhaps one that the issuer has only now.
async fn signer(token: &Unverified<'_>, keys: &IssuerKeys) -> Result<Signer, TokenFault> {
    let known = match keys.known() {
        Some(known) => known,
        None => {
            keys.newer().await;
            keys.known().ok_or(TokenFault::KeysUnavailable)?
        }
    };
    let not_signed = match token.signer(&known) {
        Ok(signer) => return Ok(signer),
        Err(not_signed) => not_signed,
    };
    if not_signed.may_be_newer && keys.newer().await {
        let known = keys.known().ok_or(TokenFault::KeysUnavailable)?;
        return token.signer(&known).map_err(|not_signed| not_signed.fault);
    }
    Err(not_signed.fault)
}
