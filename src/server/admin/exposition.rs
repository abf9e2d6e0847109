//! The metrics as scrapers read them: every counter of the process, asked for when it is written.
//!
//! docs/operations.md has what each of them means; a test holds that page against what is written here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
    prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;
use crate::server::{Outcome, Shared};
use crate::telemetry::{Histogram, RouteMeters};
use crate::watch::generation::{Generation, Watched};

/// Content type and text for scrapers of old, and everybody else.
pub(super) fn prometheus(shared: &Shared) -> (&'static str, String) {
    let mut text = String::new();
    let written = prometheus_text::encode(&mut text, &registry(shared));
    written.expect("a String takes all that is written to it");
    (prometheus_text::CONTENT_TYPE, text)
}

/// Content type and text in the format of OpenMetrics.
pub(super) fn openmetrics(shared: &Shared) -> (&'static str, String) {
    let mut text = String::new();
    let written = text::encode(&mut text, &registry(shared));
    written.expect("a String takes all that is written to it");
    (
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        text,
    )
}

fn registry(shared: &Shared) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        shared: shared.clone(),
        generation: shared.generation(),
        process: Process::now(),
    }));
    registry
}

/// What is asked for one answer.
#[derive(Debug)]
struct Scrape {
    shared: Shared,
    generation: Arc<Generation>,
    process: Process,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.write_exchanges(&mut out)?;
        self.write_sites(&mut out)?;
        self.write_connections(&mut out)?;
        self.write_reloads(&mut out)?;
        self.write_process(&mut out)
    }
}

impl Scrape {
    fn write_exchanges(&self, out: &mut Out<'_>) -> fmt::Result {
        let meters = &self.generation.meters;
        let mut requests = out.counters(
            "countersign_requests",
            "Exchanges that ended, each once: by route, caller, status and the code of the refusal.",
        )?;
        for (route, of_route) in meters.routes() {
            for (caller, endings) in of_route.callers() {
                for (ending, count) in endings.counts() {
                    let labels = [
                        ("route", route),
                        ("caller", caller),
                        ("status", &ending.status()),
                        ("refusal", ending.refusal),
                    ];
                    counter(&mut requests, &labels, &count)?;
                }
            }
        }
        let of_routes = |which: fn(&RouteMeters) -> &Histogram| {
            let routes = meters.routes().into_iter();
            routes.map(move |(route, of_route)| (route, which(of_route)))
        };
        out.histograms(
            "countersign_request_duration",
            "From a request's header section to the end of its answer.",
            "route",
            of_routes(|route| &route.duration),
        )?;
        out.histograms(
            "countersign_gateway_duration",
            "The gateway's own share of the time to the beginning of the answer: without connecting to the site and waiting for it.",
            "route",
            of_routes(|route| &route.own),
        )?;
        out.histograms(
            "countersign_endpoint_duration",
            "The same as countersign_request_duration_seconds, of requests that a capability allows: by its pattern.",
            "endpoint",
            meters.endpoints().into_iter(),
        )?;
        let mut would_refuse = out.counters(
            "countersign_would_refuse",
            "Requests that a report_only route let pass: by route and the code of the refusal.",
        )?;
        for (route, of_route) in meters.routes() {
            for (refusal, count) in of_route.would_refuse.counts() {
                let labels = [("route", route), ("refusal", refusal)];
                counter(&mut would_refuse, &labels, &count)?;
            }
        }
        out.gauge(
            "countersign_in_flight",
            "Requests under way.",
            None,
            Some(self.shared.in_flight.load(Ordering::Acquire) as u64),
        )
    }

    fn write_sites(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut sites: Vec<_> = self.generation.sites().collect();
        sites.sort_unstable_by_key(|(name, _)| *name);
        let mut attempts = out.counters(
            "countersign_upstream_attempts",
            "Attempts to send a request to a site: answered, abandoned before an answer, or the cause of the failure.",
        )?;
        for (site, watched) in &sites {
            for (outcome, count) in watched.attempts.counts() {
                let labels = [("site", *site), ("outcome", outcome)];
                counter(&mut attempts, &labels, &count)?;
            }
        }
        let mut breakers = out.gauges(
            "countersign_breaker_state",
            "Whether a site is left alone (1) or not (0).",
        )?;
        for (site, watched) in &sites {
            let open = u64::from(watched.breaker.open_cause().is_some());
            gauge(&mut breakers, &[("site", *site)], &open)?;
        }
        self.write_tokens(&sites, out)
    }

    fn write_tokens(&self, sites: &[(&str, &Arc<Watched>)], out: &mut Out<'_>) -> fmt::Result {
        let mut accepted = out.gauges(
            "countersign_token_accepted",
            "Whether the site accepts a server token (1) or not (0), once it was tried: by its position in the file, from 0.",
        )?;
        for (site, watched) in sites {
            for (position, standing) in watched.server_tokens.standings().iter().enumerate() {
                if let Some(verdict) = &standing.verdict {
                    let labels = [("site", *site), ("token", &*position.to_string())];
                    gauge(&mut accepted, &labels, &u64::from(verdict.is_ok()))?;
                }
            }
        }
        let mut skews = out.0.encode_descriptor(
            "countersign_clock_skew",
            "How far this machine's clock is ahead of the site's, once that was measured.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (site, watched) in sites {
            if let Some(skew) = watched.clock.skew_seconds() {
                gauge(&mut skews, &[("site", *site)], &skew)?;
            }
        }
        Ok(())
    }

    fn write_connections(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut connections = out.gauges(
            "countersign_connections",
            "Connections: open ones of callers, and pooled ones to sites, which wait to be used again.",
        )?;
        for (state, count) in [
            ("open", self.shared.slots.open()),
            ("pooled", self.shared.gateway.pool.idle()),
        ] {
            gauge(&mut connections, &[("state", state)], &(count as u64))?;
        }
        let telemetry = &self.shared.telemetry;
        let (refused, cut) = telemetry.connections();
        for (name, help, count) in [
            (
                "countersign_connections_refused",
                "Connections of callers that were not taken because of limits.connections or limits.connections_per_address.",
                refused,
            ),
            (
                "countersign_connections_cut",
                "Connections of callers that were closed because they were too slow.",
                cut,
            ),
            (
                "countersign_handshakes_failed",
                "TLS handshakes of callers that came to nothing.",
                telemetry.handshakes(),
            ),
            (
                "countersign_log_lines_lost",
                "Lines of the log that its reader was too slow for.",
                telemetry.lines_lost(),
            ),
        ] {
            counter(&mut out.counters(name, help)?, &[], &count)?;
        }
        Ok(())
    }

    fn write_reloads(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut reloads = out.counters(
            "countersign_reload",
            "How often the configuration was read again: put in force, unchanged, or failed, so that the one before stays.",
        )?;
        for outcome in Outcome::ALL {
            let labels = [("outcome", outcome.word())];
            counter(&mut reloads, &labels, &self.shared.reloads.count(outcome))?;
        }
        Ok(())
    }

    fn write_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Which version this is, and from which commit.";
        let version = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("COUNTERSIGN_COMMIT")),
        ];
        out.0
            .encode_descriptor("countersign_build", help, None, MetricType::Info)?
            .encode_info(&version)?;
        let process = &self.process;
        if let Some(seconds) = process.cpu_seconds {
            let help = "Time on processors, in user and in system mode.";
            let unit = Some(&Unit::Seconds);
            let mut cpu =
                out.0
                    .encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
            counter(&mut cpu, &[], &seconds)?;
        }
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        out.gauge(
            "process_start_time",
            "When the process started, since 1970.",
            seconds,
            process.start_seconds,
        )?;
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Memory that is resident.",
                bytes,
                process.resident_bytes,
            ),
            (
                "process_virtual_memory",
                "Memory that is mapped.",
                bytes,
                process.virtual_bytes,
            ),
            ("process_threads", "Threads.", None, process.threads),
            (
                "process_open_fds",
                "Open files, sockets among them.",
                None,
                process.open_files,
            ),
            (
                "process_max_fds",
                "How many files may be open.",
                None,
                process.files_max,
            ),
        ] {
            out.gauge(name, help, unit, value)?;
        }
        Ok(())
    }
}

/// Where metrics are written. Names come without what their type and unit append.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counters<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)
    }

    fn gauges<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)
    }

    /// One gauge, if there is a value.
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: Option<impl EncodeGaugeValue>,
    ) -> fmt::Result {
        let Some(value) = value else {
            return Ok(());
        };
        self.0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// A histogram in seconds for each value of a label.
    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl Iterator<Item = (&'h str, &'h Histogram)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut out = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (value, histogram) in all {
            if let Some(observed) = histogram.observed() {
                out.encode_family(&[(label, value)])?
                    .encode_histogram::<NoLabelSet>(
                        observed.sum,
                        observed.count,
                        &observed.buckets,
                        None,
                    )?;
            }
        }
        Ok(())
    }
}

fn counter(
    out: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    value: &impl EncodeCounterValue,
) -> fmt::Result {
    out.encode_family(&labels)?
        .encode_counter::<NoLabelSet, _, u64>(value, None)
}

fn gauge(
    out: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    out.encode_family(&labels)?.encode_gauge(value)
}
