//! What is told about exchanges: the access record, the counters, and the log that events go to.
//!
//! Every exchange ends in exactly one event named `exchange` with fixed fields. Fields hold names
//! and numbers of our own and the caller's address; tokens, queries and values of headers are in
//! none of them, paths and origins only where the file asks for them.

mod log;
mod meters;
mod metrics;
mod record;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

pub use self::log::queue::LogWriter;
pub use self::meters::{Ending, Histogram, Meters, Observed, RouteMeters, Tally};
pub use self::metrics::Telemetry;
pub use self::record::{Detail, Record};

use self::log::Lines;
use self::log::line::Style;
use self::log::queue::Queue;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One line of text, for people.
    Text,
}

/// Installs the subscriber of this process: JSON on standard output, text on standard error. The
/// variable `COUNTERSIGN_LOG` overrides what is shown (`warn`, `countersign::telemetry=off`, …).
///
/// Lines are written by a thread of their own, so that whoever reads them slowly holds up nothing
/// else. What is returned must live as long as events are to be written.
///
/// # Errors
/// The system's, where there can be no thread or no further file.
pub fn install(format: LogFormat) -> io::Result<LogWriter> {
    // Neither std's lock nor its buffer stands between the thread and the file.
    let (style, out) = match format {
        LogFormat::Json => (Style::Json, io::stdout().as_fd().try_clone_to_owned()?),
        LogFormat::Text => {
            let stderr = io::stderr();
            (
                Style::Text {
                    coloured: may_colour(&stderr),
                },
                stderr.as_fd().try_clone_to_owned()?,
            )
        }
    };
    let queue = Arc::new(Queue::default());
    let writer = LogWriter::start(Arc::clone(&queue), std::fs::File::from(out), style)?;
    let filter = std::env::var("COUNTERSIGN_LOG").unwrap_or_default();
    // A second call, from a test, keeps the first subscriber.
    drop(tracing::subscriber::set_global_default(filtered(
        style, &filter, queue,
    )));
    Ok(writer)
}

/// Whether `out` may be coloured: a terminal that is not a dumb one, and no NO_COLOR (no-color.org).
pub(crate) fn may_colour(out: &impl IsTerminal) -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    out.is_terminal() && variable("TERM") != "dumb" && variable("NO_COLOR").is_empty()
}

/// A subscriber that writes this program's events to `writer`, each as it happens: those that
/// `filter` lets through, or from `info` up where it is empty or cannot be read.
///
/// Events of other crates are never written, whatever the filter says. The engine's hold whole
/// header sections and targets with their queries; what there is to know of an exchange is in its
/// record.
pub fn subscriber<W>(format: LogFormat, filter: &str, writer: W) -> impl tracing::Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Text => Style::Text { coloured: false },
    };
    filtered(style, filter, writer)
}

fn filtered<W>(style: Style, filter: &str, writer: W) -> impl tracing::Subscriber + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(filter);
    let ours = filter_fn(|metadata| metadata.target().starts_with(env!("CARGO_CRATE_NAME")));
    tracing_subscriber::registry()
        .with(Lines::new(style, writer))
        .with(filter)
        .with(ours)
}

/// The target of what is said about exchanges and about the log itself; filters name it.
const TARGET: &str = "countersign::telemetry";
