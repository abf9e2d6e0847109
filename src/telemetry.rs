//! The access record, the counters, and the subscriber that writes events.
//!
//! Every exchange ends in exactly one event named `exchange` with fixed fields. Fields hold names
//! and numbers of our own and the path without its query; a caller's values, tokens and queries are
//! in none of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::info;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::policy::Refusal;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One line of text, for people.
    Text,
}

/// Installs the subscriber of this process; the variable `COUNTERSIGN_LOG` overrides what is shown
/// (`warn`, `countersign::telemetry=off`, …).
pub fn install(format: LogFormat) {
    let filter = std::env::var("COUNTERSIGN_LOG").unwrap_or_default();
    let installed = match format {
        LogFormat::Json => {
            tracing::subscriber::set_global_default(subscriber(format, &filter, std::io::stdout))
        }
        LogFormat::Text => {
            tracing::subscriber::set_global_default(subscriber(format, &filter, std::io::stderr))
        }
    };
    // A second call, from a test, keeps the first subscriber.
    drop(installed);
}

/// A subscriber that writes this program's events to `writer`: those that `filter` lets through, or
/// from `info` up where it is empty or cannot be read.
///
/// This program's crates are those whose names begin with this one's: the emulated site's events are
/// written, too. Those of other crates never are, whatever the filter says. The engine's hold whole
/// header sections and targets with their queries; what there is to know of an exchange is in its
/// record.
pub fn subscriber<W>(format: LogFormat, filter: &str, writer: W) -> impl tracing::Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => layer
            .with_ansi(
                std::io::IsTerminal::is_terminal(&std::io::stderr())
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            )
            .boxed(),
    };
    let ours = filter_fn(|metadata| metadata.target().starts_with(env!("CARGO_CRATE_NAME")));
    tracing_subscriber::registry()
        .with(layer)
        .with(filter)
        .with(ours)
}

/// What is recorded of one exchange.
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    /// The id on the answer and on the request to the site.
    pub request_id: &'a str,
    /// Who called, if that was found.
    pub caller: Option<&'a str>,
    /// As whom the site was told.
    pub user: Option<&'a str>,
    /// The route, if one was found.
    pub route: Option<&'a str>,
    /// The method sent.
    pub method: &'a str,
    /// What it became.
    pub effective_method: Option<&'a str>,
    /// The path as it came, without its query.
    pub path: &'a str,
    /// The status of the answer; 0 if the caller was gone.
    pub status: u16,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
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
    /// From the request's header section to the end of the answer, in milliseconds.
    pub total_ms: u64,
}

/// Counts and writes exchanges.
#[derive(Debug, Default)]
pub struct Telemetry {
    exchanges: AtomicU64,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    would_refuse: AtomicU64,
    connections_refused: AtomicU64,
    connections_cut: AtomicU64,
}

impl Telemetry {
    /// Writes the one event of an exchange, and counts it.
    pub fn record(&self, record: &Record<'_>) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = record.refusal {
            // Nothing can panic while this lock is held; a count is worth more than its purity.
            let mut refusals = self
                .refusals
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *refusals.entry(refusal.code()).or_default() += 1;
        }
        if record.would_refuse.is_some() {
            self.would_refuse.fetch_add(1, Ordering::Relaxed);
        }
        info!(
            request_id = record.request_id,
            caller = record.caller,
            user = record.user,
            route = record.route,
            method = record.method,
            effective_method = record.effective_method,
            path = record.path,
            status = record.status,
            refusal = record.refusal.map(Refusal::code),
            would_refuse = record.would_refuse.map(Refusal::code),
            attempts = record.attempts,
            request_bytes = record.request_bytes,
            answer_bytes = record.answer_bytes,
            upstream_ms = record.upstream_ms,
            total_ms = record.total_ms,
            "exchange"
        );
    }

    /// Counts a connection that was not taken because of the limits.
    pub fn connection_refused(&self) {
        self.connections_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was closed because its peer was too slow.
    pub fn connection_cut(&self) {
        self.connections_cut.fetch_add(1, Ordering::Relaxed);
    }

    /// How many exchanges ended so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// How many exchanges ended in a refusal.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        let refusals = self
            .refusals
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        refusals.get(refusal.code()).copied().unwrap_or_default()
    }

    /// How many exchanges a `report_only` route let pass.
    pub fn would_have_refused(&self) -> u64 {
        self.would_refuse.load(Ordering::Relaxed)
    }

    /// Connections that were not taken, and connections that were cut for slowness.
    pub fn connections(&self) -> (u64, u64) {
        (
            self.connections_refused.load(Ordering::Relaxed),
            self.connections_cut.load(Ordering::Relaxed),
        )
    }
}
