//! The access record: what is written of one exchange, as the one event named `exchange`.
//!
//! Its fields are names of the configuration, numbers, addresses and words of closed lists. What a
//! stranger typed, a path or an origin, is in it only where the file asks for it ([`Detail`]).

use std::time::Duration;

use super::TARGET;
use crate::policy::Refusal;

/// What records hold beside what is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The path as it came: titles and names of users stand in it.
    pub paths: bool,
    /// Origins that are on no list, and hosts that found no route.
    pub origins: bool,
}

/// Longest path in bytes that is recorded.
const PATH_BYTES_MAX: usize = 512;

/// What is recorded of one exchange.
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    /// The id on the answer and on the request to the site.
    pub request_id: &'a str,
    /// The address it came from.
    pub client: Option<&'a str>,
    /// Who called, if that was found.
    pub caller: Option<&'a str>,
    /// As whom the site was told.
    pub user: Option<&'a str>,
    /// The site its route leads to, if one was found.
    pub site: Option<&'a str>,
    /// The route, if one was found.
    pub route: Option<&'a str>,
    /// The host that the route answers, as it is configured.
    pub host: Option<&'a str>,
    /// The caller's own id of the request.
    pub caller_request_id: Option<&'a str>,
    /// The method sent.
    pub method: &'a str,
    /// What it became.
    pub effective_method: Option<&'a str>,
    /// The pattern of the capability that allowed it.
    pub endpoint: Option<&'a str>,
    /// The path as it came, without its query.
    pub path: Option<&'a str>,
    /// The page's origin, where it is on no list.
    pub origin: Option<&'a str>,
    /// The configured pattern that it is nearest to.
    pub nearest: Option<&'a str>,
    /// The host that was asked for, where no route answers it.
    pub unknown_host: Option<&'a str>,
    /// The status of the answer; 0 if the caller was gone.
    pub status: u16,
    /// The status of the site's answer, also where it was not passed on.
    pub site_status: Option<u16>,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// What failed on the way to the site, or what made the request malformed; from closed lists.
    pub cause: Option<&'static str>,
    /// What a `report_only` route let pass.
    pub would_refuse: Option<Refusal>,
    /// How many times the site was asked.
    pub attempts: u32,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// From asking the site to its answer's header section, in milliseconds.
    pub upstream_ms: Option<u64>,
    /// From the request's header section to the end of the answer.
    pub total: Duration,
    /// From there to the beginning of the answer, without what was waited for the site; `None` where
    /// there was no answer.
    pub own: Option<Duration>,
    /// Which policy it was judged by: the first digits of its hash.
    pub policy: &'a str,
}

impl Record<'_> {
    /// Writes the one event of an exchange: as a warning where somebody has to mend something.
    pub(super) fn write(&self) {
        // The level of an event is part of where it is written.
        macro_rules! exchange {
            ($event:ident) => {
                tracing::$event!(
                    target: TARGET,
                    request_id = self.request_id,
                    caller_request_id = self.caller_request_id,
                    client = self.client,
                    caller = self.caller,
                    user = self.user,
                    site = self.site,
                    route = self.route,
                    host = self.host,
                    method = self.method,
                    effective_method = self.effective_method,
                    endpoint = self.endpoint,
                    path = self.path.map(cut),
                    status = self.status,
                    refusal = self.refusal.map(Refusal::code),
                    cause = self.cause,
                    would_refuse = self.would_refuse.map(Refusal::code),
                    origin = self.origin,
                    nearest = self.nearest,
                    unknown_host = self.unknown_host,
                    site_status = self.site_status,
                    attempts = self.attempts,
                    request_bytes = self.request_bytes,
                    answer_bytes = self.answer_bytes,
                    upstream_ms = self.upstream_ms,
                    total_ms = u64::try_from(self.total.as_millis()).unwrap_or(u64::MAX),
                    policy = self.policy,
                    "exchange"
                )
            };
        }
        if self.refusal.is_some_and(Refusal::is_for_operators) {
            exchange!(warn);
        } else {
            exchange!(info);
        }
    }
}

/// The beginning of a path that is too long to be recorded whole.
fn cut(path: &str) -> &str {
    &path[..path.floor_char_boundary(PATH_BYTES_MAX)]
}
