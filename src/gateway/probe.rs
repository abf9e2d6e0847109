//! What we ask a site ourselves, on a connection of its own, to learn whether it is there.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::warn;

use super::Gateway;
use crate::policy::Identity;
use crate::policy::site::Site;
use crate::signing::{Epoch, SignedToken};
use crate::upstream::{Duplex, Failure};
use crate::watch::generation::Watched;
use crate::wire::clock;
use crate::wire::connection::{Connection, Torn};
use crate::wire::framing;
use crate::wire::head::{AnswerHead, Finder};

/// What probes say they are.
pub(super) const USER_AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"), " (probe)");

/// What a site answered to a question of ours.
#[derive(Debug)]
pub(super) struct Heard {
    head: Vec<u8>,
    /// As far as it was wanted.
    pub(super) body: Vec<u8>,
    /// This machine's clock when the question went out.
    sent: Epoch,
    /// From there to the answer's head.
    took: Duration,
}

impl Heard {
    /// Its head.
    pub(super) fn head(&self) -> Result<AnswerHead<'_>, Failure> {
        AnswerHead::parse(&self.head).map_err(|_| Failure::Invalid)
    }

    /// This machine's clock half-way between question and answer, when the site's clock was read.
    pub(super) fn midpoint(&self) -> Epoch {
        Epoch::from_unix(self.sent.as_unix() + self.took.as_secs() / 2)
    }
}

impl Gateway {
    /// Asks a site each time its breaker wants to know, and tries its server tokens now and then; never
    /// returns.
    pub(crate) async fn keep_probing(&self, watched: &Watched) {
        tokio::join!(self.keep_asking(watched), self.keep_trying_tokens(watched));
    }

    async fn keep_asking(&self, watched: &Watched) {
        loop {
            watched.breaker.probe_is_due().await;
            let failure = self.probe(watched).await.err();
            let outcome = match failure {
                None => Some(Ok(())),
                Some(Failure::Exhausted) => None,
                Some(failure) => Some(Err(failure.cause())),
            };
            let tells = watched.breaker.probed(outcome, chance(), Instant::now());
            if let Some(failure) = failure.filter(|_| tells) {
                tell_operator(failure, &watched.site());
            }
        }
    }

    /// Any whole head is an answer, whatever it says.
    async fn probe(&self, watched: &Watched) -> Result<(), Failure> {
        let (site, probe_as) = (&*watched.site(), watched.probe_as());
        let signer = site.signers.get(watched.server_tokens.signing());
        let token = match (&probe_as, signer) {
            (Some(Identity::User(user)), Some(signer)) => {
                let at = watched.clock.corrected(clock::now(), Instant::now());
                Some(signer.mint(user, at))
            }
            _ => None,
        };
        let path = match token {
            Some(_) => "users/current",
            None => "site/status",
        };
        let question = question(site, path, USER_AGENT, token.as_ref());
        self.ask(watched, &question, 0).await.map(drop)
    }

    /// Asks on a connection of its own; takes so much of the answer's body.
    pub(super) async fn ask(
        &self,
        watched: &Watched,
        question: &[u8],
        bytes_max: usize,
    ) -> Result<Heard, Failure> {
        let site = &*watched.site();
        let address = watched.addresses.pick(0).ok_or(Failure::Dns)?;
        let stream = self
            .dial
            .dial(watched, site, address)
            .await
            .inspect_err(|_| {
                watched.addresses.advance();
            })?;
        let mut up = Connection::new(stream);
        up.queue().extend_from_slice(question);
        let asking = answer_to(&mut up, bytes_max);
        let answered = timeout(site.timeouts.response.min(site.timeouts.total), asking).await;
        answered.unwrap_or(Err(Failure::Silent))
    }
}

/// Sends what is queued and reads the answer.
async fn answer_to(
    up: &mut Connection<Box<dyn Duplex>>,
    bytes_max: usize,
) -> Result<Heard, Failure> {
    let (sent, asked) = (clock::now(), Instant::now());
    poll_fn(|cx| up.poll_flush(cx))
        .await
        .map_err(|_| Failure::Reset)?;
    let mut finder = Finder::default();
    loop {
        if let Some((_, end)) = finder.find(up.unread()).map_err(|_| Failure::Invalid)? {
            let head = up.unread()[..end].to_vec();
            let parsed = AnswerHead::parse(&head).map_err(|_| Failure::Invalid)?;
            up.skip(end);
            if parsed.status >= 200 {
                let took = asked.elapsed();
                let body = body_of(up, &parsed, bytes_max).await?;
                return Ok(Heard {
                    head,
                    body,
                    sent,
                    took,
                });
            }
            finder = Finder::default();
            continue;
        }
        match poll_fn(|cx| up.poll_fill(cx)).await {
            Ok(count) if count > 0 => {}
            _ => return Err(Failure::Reset),
        }
    }
}

async fn body_of(
    up: &mut Connection<Box<dyn Duplex>>,
    head: &AnswerHead<'_>,
    bytes_max: usize,
) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    if bytes_max == 0 {
        return Ok(body);
    }
    let is_bare = matches!(head.status, 204 | 304);
    let (mut decoder, _) =
        framing::of_answer(head.version, &head.fields, is_bare).map_err(|_| Failure::Invalid)?;
    while body.len() < bytes_max {
        match poll_fn(|cx| up.poll_payload(&mut decoder, cx)).await {
            Ok(true) => {
                let payload = up.payload();
                let count = payload.len();
                body.extend_from_slice(&payload[..count.min(bytes_max - body.len())]);
                up.consume(count);
            }
            Ok(false) => break,
            Err(Torn::Misframed) => return Err(Failure::Invalid),
            Err(Torn::Lost | Torn::Ended) => return Err(Failure::Reset),
        }
    }
    Ok(body)
}

/// A question of ours to a site: a path of its API, and the token it is asked with.
pub(super) fn question(
    site: &Site,
    path: &str,
    user_agent: &str,
    token: Option<&SignedToken>,
) -> Vec<u8> {
    let mut question = Vec::with_capacity(512);
    for part in [
        "GET /@api/deki/",
        path,
        " HTTP/1.1\r\nHost: ",
        &site.authority,
        "\r\nUser-Agent: ",
        user_agent,
        "\r\nConnection: close\r\n",
    ] {
        question.extend_from_slice(part.as_bytes());
    }
    if let Some(token) = token {
        question.extend_from_slice(b"X-Deki-Token: ");
        question.extend_from_slice(token.as_bytes());
        question.extend_from_slice(b"\r\n");
    }
    question.extend_from_slice(b"\r\n");
    question
}

/// What spreads pauses.
pub(super) fn chance() -> u8 {
    let mut chance = [0];
    if getrandom::fill(&mut chance).is_err() {
        // Then gateways that lost a site together ask for it together.
        chance = [0];
    }
    chance[0]
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
