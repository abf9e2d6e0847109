//! What we ask a site ourselves, on a connection of its own, to learn whether it is there.

use std::future::poll_fn;

use tokio::time::{Instant, timeout};
use tracing::warn;

use super::Gateway;
use crate::policy::Identity;
use crate::policy::site::Site;
use crate::upstream::Failure;
use crate::watch::generation::Watched;
use crate::wire::clock;
use crate::wire::connection::Connection;
use crate::wire::head::{AnswerHead, Finder};

/// What probes say they are.
const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"), " (probe)");

impl Gateway {
    /// Asks a site each time its breaker wants to know; never returns.
    pub(crate) async fn keep_probing(&self, watched: &Watched) {
        loop {
            watched.breaker.probe_is_due().await;
            let failure = self.probe(watched).await.err();
            let outcome = match failure {
                None => Some(Ok(())),
                Some(Failure::Exhausted) => None,
                Some(failure) => Some(Err(failure.cause())),
            };
            let mut chance = [0];
            if getrandom::fill(&mut chance).is_err() {
                // Then gateways that lost a site together ask for it together.
                chance = [0];
            }
            let tells = watched.breaker.probed(outcome, chance[0], Instant::now());
            if let Some(failure) = failure.filter(|_| tells) {
                tell_operator(failure, &watched.site());
            }
        }
    }

    /// Any whole head is an answer, whatever it says.
    async fn probe(&self, watched: &Watched) -> Result<(), Failure> {
        let (site, probe_as) = (&*watched.site(), watched.probe_as());
        let address = watched.addresses.pick(0).ok_or(Failure::Dns)?;
        let stream = self
            .dial
            .dial(watched, site, address)
            .await
            .inspect_err(|_| {
                watched.addresses.advance();
            })?;
        let mut up = Connection::new(stream);
        write_question(up.queue(), site, probe_as.as_ref());
        let asking = async {
            poll_fn(|cx| up.poll_flush(cx))
                .await
                .map_err(|_| Failure::Reset)?;
            let mut finder = Finder::default();
            loop {
                if let Some((_, end)) = finder.find(up.unread()).map_err(|_| Failure::Invalid)? {
                    let head = AnswerHead::parse(&up.unread()[..end]);
                    let head = head.map_err(|_| Failure::Invalid)?;
                    if head.status >= 200 {
                        return Ok(());
                    }
                    up.skip(end);
                    finder = Finder::default();
                    continue;
                }
                match poll_fn(|cx| up.poll_fill(cx)).await {
                    Ok(count) if count > 0 => {}
                    _ => return Err(Failure::Reset),
                }
            }
        };
        let answered = timeout(site.timeouts.response.min(site.timeouts.total), asking).await;
        answered.unwrap_or(Err(Failure::Silent))
    }
}

fn write_question(queue: &mut Vec<u8>, site: &Site, identity: Option<&Identity>) {
    let signer = site.signers.first();
    let token = match (identity, signer) {
        (Some(Identity::User(user)), Some(signer)) => Some(signer.mint(user, clock::now())),
        _ => None,
    };
    let path = match token {
        Some(_) => "users/current",
        None => "site/status",
    };
    queue.reserve_exact(512);
    for part in [
        "GET /@api/deki/",
        path,
        " HTTP/1.1\r\nHost: ",
        &site.authority,
        "\r\nUser-Agent: ",
        USER_AGENT,
        "\r\nConnection: close\r\n",
    ] {
        queue.extend_from_slice(part.as_bytes());
    }
    if let Some(token) = token {
        queue.extend_from_slice(b"X-Deki-Token: ");
        queue.extend_from_slice(token.as_bytes());
        queue.extend_from_slice(b"\r\n");
    }
    queue.extend_from_slice(b"\r\n");
}

/// Says in words what is wrong with a site and what to change.
pub(super) fn tell_operator(failure: Failure, site: &Site) {
    warn!(
        site = &*site.name,
        cause = failure.cause(),
        "{}",
        failure.advice(site)
    );
}
