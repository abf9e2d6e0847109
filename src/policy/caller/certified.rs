//! Whom a connection's certificate identifies, alone or beside a credential.

use super::certificate::{Certificate, Match};
use super::{ActingCaller, Callers, Rejected};
use crate::policy::{Refusal, Request};

impl Callers {
    /// The caller that a certificate identifies, with nothing beside it.
    pub(super) fn by_certificate(&self, request: &Request<'_>) -> Result<&ActingCaller, Rejected> {
        let Some(certificate) = certificate(request) else {
            return Err(Refusal::CredentialMissing.into());
        };
        let fault = match self.of_certificate(certificate, Presents::Certificate)? {
            Some((acting, Match::Yes)) => return Ok(acting),
            Some((acting, Match::OutOfDate)) => {
                return Err(
                    rejected(Refusal::CredentialExpired, "certificate_out_of_date").of(acting),
                );
            }
            Some((_, Match::No)) => (Refusal::CredentialUnknown, "certificate_not_vouched_for"),
            None => match self.of_certificate(certificate, Presents::Both) {
                // What goes with it is missing.
                Err(_) | Ok(Some(_)) => return Err(Refusal::CredentialMissing.into()),
                // Nobody's: on a route where no certificate counts it is as good as none.
                Ok(None) if self.by_certificate.is_empty() => {
                    return Err(Refusal::CredentialMissing.into());
                }
                Ok(None) => (Refusal::CredentialUnknown, "certificate_unknown"),
            },
        };
        Err(rejected(fault.0, fault.1))
    }

    /// Whether a request's certificate would identify somebody, were it all that is presented.
    pub(super) fn is_certificate_enough(&self, request: &Request<'_>) -> bool {
        let certificate = certificate(request);
        let of = |certificate| self.of_certificate(certificate, Presents::Certificate);
        matches!(
            certificate.map(of),
            Some(Err(_) | Ok(Some((_, Match::Yes))))
        )
    }

    /// The caller whose rule a certificate names, of those who present so much, and how it stands to
    /// that.
    ///
    /// # Errors
    /// [`Refusal::AmbiguousCredential`] if it is that of two callers.
    fn of_certificate(
        &self,
        certificate: &Certificate,
        presents: Presents,
    ) -> Result<Option<(&ActingCaller, Match)>, Refusal> {
        let mut best: Option<(usize, Match)> = None;
        for rule in certificate.rules() {
            let Some(index) = self.by_certificate.get(&rule) else {
                continue;
            };
            let has_more = self.all[*index].caller.credential.is_some();
            if has_more != (presents == Presents::Both) {
                continue;
            }
            let judged = rule.judge(certificate);
            match best {
                Some((other, Match::Yes)) if judged == Match::Yes && other != *index => {
                    return Err(Refusal::AmbiguousCredential);
                }
                Some((_, Match::Yes)) => {}
                _ => best = Some((*index, judged)),
            }
        }
        Ok(best.map(|(index, judged)| (&self.all[index], judged)))
    }

    /// Checks the certificate that a caller must present beside its credential, or that it presents
    /// none that is another caller's.
    pub(super) fn check_certificate(
        &self,
        acting: &ActingCaller,
        request: &Request<'_>,
    ) -> Result<(), Rejected> {
        let certificate = certificate(request);
        let Some(rule) = &acting.caller.certificate else {
            return match self.is_certificate_enough(request) {
                true => Err(Refusal::AmbiguousCredential.into()),
                false => Ok(()),
            };
        };
        let (refusal, cause) = match certificate.map(|certificate| rule.judge(certificate)) {
            Some(Match::Yes) => return Ok(()),
            None => (Refusal::CredentialMissing, "certificate_missing"),
            Some(Match::OutOfDate) => (Refusal::CredentialExpired, "certificate_out_of_date"),
            Some(Match::No) if self.is_certificate_enough(request) => {
                return Err(Refusal::AmbiguousCredential.into());
            }
            Some(Match::No) => (Refusal::CredentialUnknown, "certificate_unknown"),
        };
        Err(rejected(refusal, cause).of(acting))
    }
}

fn rejected(refusal: Refusal, cause: &'static str) -> Rejected {
    Rejected {
        cause: Some(cause),
        ..Rejected::from(refusal)
    }
}

/// What a caller presents who has a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presents {
    /// It alone.
    Certificate,
    /// It, and a credential in its messages.
    Both,
}

/// The certificate the request's connection was made with.
fn certificate<'a>(request: &Request<'a>) -> Option<&'a Certificate> {
    request.peer.tls.as_ref()?.certificate.as_deref()
}
