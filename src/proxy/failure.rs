//! What an error of the engine means: which refusal the caller gets, and whether the site is to
//! blame.

use pingora::{Error, ErrorSource, ErrorType};

use super::guard::Cut;
use crate::policy::Refusal;
use crate::watch::breaker::Health;

/// The refusal for an error; `None` if the caller is gone and nobody is there to be told.
pub fn refusal(error: &Error, cut: Cut) -> Option<Refusal> {
    match cut {
        Cut::SlowPeer => return Some(Refusal::RequestTimeout),
        Cut::SlowSite => return Some(Refusal::SiteTimeout),
        Cut::Misframed => return Some(Refusal::BadMessage),
        Cut::No => {}
    }
    match error.esource() {
        ErrorSource::Downstream => match error.etype() {
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed
            | ErrorType::H2Error => None,
            ErrorType::ReadTimedout => Some(Refusal::RequestTimeout),
            _ => Some(Refusal::BadMessage),
        },
        ErrorSource::Upstream => Some(match error.etype() {
            ErrorType::ConnectTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::TLSHandshakeTimedout => Refusal::SiteTimeout,
            ErrorType::InvalidHTTPHeader
            | ErrorType::H1Error
            | ErrorType::InvalidH2
            | ErrorType::H2Downgrade => Refusal::SiteInvalidAnswer,
            _ => Refusal::SiteUnreachable,
        }),
        // Something here went wrong; the request is refused, and the site is not to blame.
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::SiteUnreachable),
    }
}

/// What an error says of the site.
pub fn health(error: &Error, cut: Cut) -> Health {
    match (cut, error.esource()) {
        (Cut::SlowSite, _) | (Cut::No, ErrorSource::Upstream) => Health::Bad,
        _ => Health::Unknown,
    }
}

/// Whether the request is certain not to have been sent when this error came.
pub fn was_not_sent(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
    )
}
