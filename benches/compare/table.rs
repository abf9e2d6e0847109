//! What was found, as one table in Markdown: medians of the rounds, and medians of each round's ratio to HAProxy.

use std::collections::BTreeMap;
use std::fmt;

use crate::process::Kind;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Page,
    PageRate,
    Instructions,
    SystemCalls,
    File,
    Fresh,
    Thousand,
    Tls,
    TlsInstructions,
    TlsSystemCalls,
    FullHandshake,
    ResumedHandshake,
    Streams,
    StreamInstructions,
    StreamSystemCalls,
    DownCpu,
    UpCpu,
    DownRate,
    UpRate,
    AddedHalf,
    AddedMost,
    Idle,
    TlsIdle,
    Stalled,
}

impl Figure {
    fn name(self, rate: u32) -> String {
        match self {
            Self::Page => "signed 1 KiB GET, 64 connections: CPU µs".to_owned(),
            Self::PageRate => "the same: thousand requests/s".to_owned(),
            Self::Instructions | Self::TlsInstructions | Self::StreamInstructions => {
                "the same: thousand user instructions".to_owned()
            }
            Self::SystemCalls | Self::TlsSystemCalls | Self::StreamSystemCalls => {
                "the same: system calls".to_owned()
            }
            Self::File => "100 KiB down, 16 connections: CPU µs".to_owned(),
            Self::Fresh => "a new connection for each request, 16 at once: CPU µs".to_owned(),
            Self::Thousand => "1,000 active connections: CPU µs".to_owned(),
            Self::Tls => "the 1 KiB GET over TLS, 64 connections: CPU µs".to_owned(),
            Self::FullHandshake => {
                "a new TLS connection for each request, 16 at once: CPU µs".to_owned()
            }
            Self::ResumedHandshake => "the same, resumed with a ticket: CPU µs".to_owned(),
            Self::Streams => "HTTP/2 over TLS, 10 connections of 10 streams: CPU µs".to_owned(),
            Self::DownCpu => "100 MiB down: CPU ms".to_owned(),
            Self::UpCpu => "100 MiB up: CPU ms".to_owned(),
            Self::DownRate => "100 MiB down: MB/s".to_owned(),
            Self::UpRate => "100 MiB up: MB/s".to_owned(),
            Self::AddedHalf => format!("{rate} requests/s: p50 added, µs"),
            Self::AddedMost => format!("{rate} requests/s: p99 added, µs"),
            Self::Idle => "an idle kept-alive connection: KiB".to_owned(),
            Self::TlsIdle => "the same over TLS: KiB".to_owned(),
            Self::Stalled => "a stalled download: KiB".to_owned(),
        }
    }
}

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Proxy(Kind),
    /// From the load to the site: its CPU, its throughput, the time that the others' is added to.
    Direct,
}

/// All that was found.
#[derive(Default)]
pub(crate) struct Table {
    /// Who was measured.
    pub(crate) versions: Vec<String>,
    /// Requests a second at which latency was measured.
    pub(crate) rate: u32,
    /// One figure a round.
    found: BTreeMap<(Figure, Column), Vec<f64>>,
}

impl Table {
    /// Adds a round's figure.
    pub(crate) fn add(&mut self, figure: Figure, column: Column, value: f64) {
        self.found.entry((figure, column)).or_default().push(value);
    }

    /// The median of all rounds so far.
    pub(crate) fn median(&self, figure: Figure, column: Column) -> f64 {
        median(self.rounds(figure, column).to_vec())
    }

    fn rounds(&self, figure: Figure, column: Column) -> &[f64] {
        self.found.get(&(figure, column)).map_or(&[], Vec::as_slice)
    }

    /// The median of each round's ratio to HAProxy.
    fn ratio(&self, figure: Figure, column: Column) -> f64 {
        let haproxy = self.rounds(figure, Column::Proxy(Kind::HaProxy));
        let ratios = self.rounds(figure, column).iter().zip(haproxy);
        median(ratios.map(|(value, base)| value / base).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// As many digits as there is to know.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        0.0..10.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn ratio(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2}")
    } else {
        "–".to_owned()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [own, haproxy, nginx] = Kind::ALL.map(Column::Proxy);
        writeln!(f, "{}.\n", self.versions.join("; "))?;
        writeln!(
            f,
            "| | countersign | × HAProxy | HAProxy | nginx + Lua | × HAProxy | direct |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
        let mut figures: Vec<_> = self.found.keys().map(|(figure, _)| *figure).collect();
        figures.dedup();
        for figure in figures {
            writeln!(
                f,
                "| {} | {} | **{}** | {} | {} | {} | {} |",
                figure.name(self.rate),
                number(self.median(figure, own)),
                ratio(self.ratio(figure, own)),
                number(self.median(figure, haproxy)),
                number(self.median(figure, nginx)),
                ratio(self.ratio(figure, nginx)),
                number(self.median(figure, Column::Direct)),
            )?;
        }
        Ok(())
    }
}
