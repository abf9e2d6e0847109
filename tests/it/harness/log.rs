//! What the program writes while a test runs on this thread.

use std::io::Write;
use std::sync::{Arc, Mutex};

use countersign::telemetry::{LogFormat, subscriber};
use serde_json::Value;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::fmt::MakeWriter;

/// The events of this thread, for as long as it lives: of everything, in a test with one thread.
pub struct Log {
    written: Written,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Listens from now on.
    pub fn listen() -> Self {
        let written = Written::default();
        let guard = set_default(subscriber(LogFormat::Json, "", written.clone()));
        Self {
            written,
            _guard: guard,
        }
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Value> {
        let written = self.written.0.lock().unwrap();
        let lines = written.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// The events with this message so far.
    pub fn named(&self, message: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["message"] == message);
        events
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
