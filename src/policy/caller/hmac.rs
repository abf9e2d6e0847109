//! Callers that sign each message with a shared secret: webhooks, described as data.

use crate::policy::{Refusal, Request};

/// How a product signs its messages.
#[derive(Debug)]
pub struct Scheme {
    /// The header the signature comes in, in lower case.
    pub signature_header: Box<str>,
    /// Longest body in bytes that is read to verify it.
    pub body_bytes_max: u64,
}

/// What is wrong with a signature. Its name stands in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureFault {
    /// It is another message's, or made with another secret.
    Mismatch,
}

impl SignatureFault {
    /// What the caller is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Mismatch => Refusal::CredentialUnknown,
        }
    }

    /// One word for the record, which never changes its meaning.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mismatch => "signature_mismatch",
        }
    }
}

impl Scheme {
    /// Whether a request with this body is signed by it.
    ///
    /// # Errors
    /// What is wrong with the signature.
    pub fn verify(&self, _request: &Request<'_>, _body: &[u8]) -> Result<(), SignatureFault> {
        Err(SignatureFault::Mismatch)
    }
}
