//! Writes what the site is sent beside what the caller sent: its host, the caller's address, the
//! token. The wall clock is read here and nowhere else.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HOST;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};

use super::Gateway;
use super::exchange::Exchange;
use super::reply::REQUEST_ID_HEADER;
use crate::policy::Identity;
use crate::policy::method::OVERRIDE_HEADER;
use crate::signing::Epoch;

impl Gateway {
    /// Sets what the site is sent beside what the caller sent; the token last, so that nothing can
    /// shadow it.
    pub(super) fn sign(&self, header: &mut RequestHeader, exchange: &Exchange) -> Result<()> {
        let admission = exchange.admission()?;
        let site = &admission.route.site;
        let internal = |why: &'static str| Error::explain(ErrorType::InternalError, why);
        header.set_raw_path(admission.target.as_bytes())?;
        header.insert_header(HOST, site.address.authority())?;
        header.insert_header(REQUEST_ID_HEADER, &exchange.request_id)?;
        if admission.method.by_header {
            header.insert_header(OVERRIDE_HEADER, admission.method.effective.as_str())?;
        }
        if let Some(connection) = exchange
            .connection
            .as_ref()
            .filter(|_| site.forwards_address)
        {
            let address = connection.peer.ip().to_canonical().to_string();
            header.insert_header("X-Forwarded-For", address)?;
        }
        let token = match &admission.identity {
            Identity::User(user) => {
                let signer = site
                    .signers
                    .first()
                    .ok_or_else(|| internal("no server token"))?;
                signer.mint(user, now()).into_header_value()
            }
            Identity::Page => {
                let token = site.browser_token.as_ref();
                token.ok_or_else(|| internal("no browser token"))?.header()
            }
        };
        header.insert_header("X-Deki-Token", token)
    }
}

/// The wall clock.
fn now() -> Epoch {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Epoch::from_unix(since.map_or(0, |time| time.as_secs()))
}
