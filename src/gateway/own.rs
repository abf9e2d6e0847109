//! What is answered without asking the site: refusals, preflights, the methods of a route.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::Gateway;
use super::exchange::Exchange;
use crate::policy::Refusal;
use crate::policy::cors::Preflights;
use crate::rewrite::{self, Edits, Keep, Value};
use crate::wire::clock;
use crate::wire::{Announced, Downstream, Outgoing};

/// How long a caller may take over an answer of our own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is answered without asking the site.
pub(super) enum Own {
    /// No, and when to try again.
    Refusal(Refusal, Option<Duration>),
    /// A preflight's answer.
    Preflight(Preflights),
    /// The methods of a route.
    Options(Arc<str>),
}

impl Gateway {
    /// Answers without asking the site.
    pub(super) async fn answer<D: Downstream>(
        &self,
        down: &mut D,
        exchange: &mut Exchange<'_>,
        own: Own,
    ) {
        if let Own::Refusal(refusal, _) = own {
            exchange.refusal = Some(refusal);
        }
        let closes = exchange.refusal.is_some_and(Refusal::closes_connection);
        let (id, sharing) = (exchange.id, &exchange.found.sharing);
        let rewrite::Own { status, set, body } = match &own {
            Own::Refusal(refusal, pause) => {
                let temporary = matches!(refusal, Refusal::Draining | Refusal::SiteUnavailable);
                let pause = pause.or(temporary.then_some(Duration::from_secs(1)));
                let route = exchange.found.route.as_deref();
                rewrite::refusal(*refusal, route, exchange.wants, id.as_str(), sharing, pause)
            }
            Own::Preflight(preflights) => rewrite::preflight(preflights, sharing, id.as_str()),
            Own::Options(methods) => rewrite::options(methods, sharing, id.as_str()),
        };
        let mut edits = Edits {
            keep: Keep::default(),
            set,
        };
        // Who answers says when (RFC 9110 section 6.6.1).
        edits.set.push(("Date", Value::Text(clock::date())));
        rewrite::keep_to_tls(exchange.found.keeps_to_tls, &mut edits.set);
        down.begin(&Outgoing {
            status,
            fields: &[],
            edits: &edits,
            body: match status {
                204 => Announced::Nothing,
                _ => Announced::Length(body.len() as u64),
            },
            keeps: self.keeps() && !closes,
        });
        exchange.note_begun();
        let body: &[u8] = if down.is_head() { &[] } else { &body };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut sent = 0;
        let written = poll_fn(|cx| {
            loop {
                if sent == body.len() {
                    down.finish();
                    match down.poll_flush(cx) {
                        Poll::Ready(flushed) => return Poll::Ready(flushed.is_ok()),
                        Poll::Pending => break,
                    }
                }
                match down.poll_send(&body[sent..], cx) {
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => break,
                }
            }
            down.alarm().poll(deadline, cx).map(|()| false)
        });
        // A caller that is gone by now cannot be told; the record says what happened.
        if written.await {
            exchange.status = status;
            exchange.answer_bytes = sent as u64;
        } else {
            down.give_up();
        }
    }
}
