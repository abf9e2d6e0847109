//! What is written to the log, kept to be read.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use countersign::telemetry::{self, LogFormat};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::MakeWriter;

/// Everything that was written so far.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// Listens to this thread, on which everything of a test runs, until the guard is dropped.
    pub fn start(format: LogFormat, filter: &str) -> (Self, DefaultGuard) {
        // While there is one listener, an event that another thread is the first to write would be
        // judged by what that thread listens to, and lost for all: so there are always two.
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
        LazyLock::force(&SECOND);
        let capture = Self::default();
        let subscriber = telemetry::subscriber(format, filter, capture.clone());
        (capture, tracing::subscriber::set_default(subscriber))
    }

    /// What was written.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The events with this message, from lines of JSON.
    pub fn events(&self, message: &str) -> Vec<serde_json::Value> {
        let text = self.text();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &serde_json::Value| {
                event["message"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with(message)
            })
            .collect()
    }
}

/// The events of this thread, for as long as it lives: of everything, in a test with one thread.
pub struct Log {
    capture: Capture,
    _guard: DefaultGuard,
}

impl Log {
    /// Listens from now on.
    pub fn listen() -> Self {
        let (capture, guard) = Capture::start(LogFormat::Json, "");
        Self {
            capture,
            _guard: guard,
        }
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.capture.events("")
    }

    /// The events with this message so far.
    pub fn named(&self, message: &str) -> Vec<serde_json::Value> {
        let mut events = self.events();
        events.retain(|event| event["message"] == message);
        events
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Capture {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
