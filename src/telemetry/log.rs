//! The log: each event becomes one line in a buffer that is used again, and goes to a writer whole.

pub(super) mod line;
pub(super) mod queue;

use std::cell::Cell;
use std::io::Write;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

use self::line::{Line, Style};

/// Writes each event as one line, with one write.
#[derive(Debug)]
pub(super) struct Lines<W> {
    style: Style,
    writer: W,
}

impl<W> Lines<W> {
    pub(super) fn new(style: Style, writer: W) -> Self {
        Self { style, writer }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A thread that is ending has no buffer any more, and an event that happens while another
        // is formatted finds none: each gets one of its own.
        let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        buffer.clear();
        Line::write(&mut buffer, self.style, event);
        // Nobody is left to tell if that fails.
        drop(
            self.writer
                .make_writer_for(event.metadata())
                .write_all(&buffer),
        );
        if buffer.capacity() <= BUFFER_KEPT {
            let _ = BUFFER.try_with(|kept| kept.set(buffer));
        }
    }
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A longer buffer is given back.
const BUFFER_KEPT: usize = 16 * 1024;
