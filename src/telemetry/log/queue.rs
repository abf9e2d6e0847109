//! Between those who have something to tell and whoever reads it: a bounded queue of lines, and the
//! thread that writes them.
//!
//! Who adds a line never waits for the reader. What does not fit is lost and counted, and once there
//! is space again one line says how many were. Under load nobody is woken for a line either: the
//! thread comes back for more by itself, and sleeps only when there was nothing.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::line::{Line, Style};

/// Lines that are not yet written.
#[derive(Debug)]
pub(in crate::telemetry) struct Queue {
    state: Mutex<State>,
    /// For the thread: there is something to do.
    wake: Condvar,
    /// For whoever ends it: it is over.
    ended: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// How many came after `lines` and did not fit. They make one gap: none is taken before the
    /// thread has been here.
    lost: u64,
    /// Whether the thread sleeps until it is woken.
    sleeps: bool,
    /// Whether the thread is to end when everything is written.
    closed: bool,
    ended: bool,
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
            bytes_max,
        }
    }

    /// Adds a line, or counts it as lost.
    fn add(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lost > 0 || state.lines.len() + line.len() > self.bytes_max {
            state.lost += 1;
            LINES_LOST.fetch_add(1, Ordering::Relaxed);
        } else {
            state.lines.extend_from_slice(line);
        }
        let wake = std::mem::take(&mut state.sleeps);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Waits for lines and moves them to `batch`, which is empty; says how many were lost after them,
    /// and whether to end.
    fn take(&self, batch: &mut Vec<u8>) -> (u64, bool) {
        let mut state = self.lock();
        while state.lines.is_empty() && state.lost == 0 && !state.closed {
            state.sleeps = true;
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeps = false;
        std::mem::swap(&mut state.lines, batch);
        (std::mem::take(&mut state.lost), state.closed)
    }

    /// Lets lines gather for a moment.
    fn linger(&self) {
        drop(
            self.wake
                .wait_timeout_while(self.lock(), LINGER, |state| !state.closed),
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and a log is worth more than its purity.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

/// Each write is one line.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes the log. When dropped, what is in the queue is written, unless that takes
/// longer than a second: then nobody reads it.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub struct LogWriter {
    queue: Arc<Queue>,
}

impl LogWriter {
    /// Starts it.
    ///
    /// # Errors
    /// The system's, where there can be no further thread.
    pub(in crate::telemetry) fn start(
        queue: Arc<Queue>,
        out: impl Write + Send + 'static,
        style: Style,
    ) -> io::Result<Self> {
        let writing = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&writing, Out::new(out), style))?;
        Ok(Self { queue })
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.closed = true;
        self.queue.wake.notify_one();
        drop(
            self.queue
                .ended
                .wait_timeout_while(state, LAST_WORDS, |state| !state.ended),
        );
    }
}

/// Writes what comes until the queue is closed and empty.
fn write_all(queue: &Queue, mut out: Out<impl Write>, style: Style) {
    let mut batch = Vec::new();
    let mut lost = 0;
    loop {
        let (more_lost, closed) = queue.take(&mut batch);
        lost += more_lost;
        if closed && batch.is_empty() && lost == 0 {
            break;
        }
        let lines_end = batch.len();
        if lost > 0 {
            Line::write_lost(&mut batch, style, lost);
        }
        let written = out.write(&batch);
        if written == batch.len() {
            lost = 0;
        } else {
            let unwritten = batch.get(written..lines_end).unwrap_or_default();
            let more_lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
            LINES_LOST.fetch_add(more_lost, Ordering::Relaxed);
            lost += more_lost;
            if closed {
                break;
            }
        }
        batch.clear();
        batch.shrink_to(BUFFER_KEPT);
        if !closed {
            queue.linger();
        }
    }
    queue.lock().ended = true;
    queue.ended.notify_all();
}

/// Where lines go; after a failure the next one begins on a line of its own.
struct Out<W> {
    out: W,
    is_torn: bool,
}

impl<W: Write> Out<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            is_torn: false,
        }
    }

    /// Writes as much as it can, and says how much that was.
    fn write(&mut self, lines: &[u8]) -> usize {
        if self.is_torn {
            if self.out.write_all(b"\n").is_err() {
                return 0;
            }
            self.is_torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => break,
                Ok(count) => {
                    self.is_torn = rest.get(count - 1) != Some(&b'\n');
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever shares the file has made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(LINGER);
                }
                // The reader is gone, or the disk is full.
                Err(_) => break,
            }
        }
        lines.len() - rest.len()
    }
}

/// How many lines of this process's log could not be written.
pub(in crate::telemetry) fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// A process has one log.
static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// The longest queue. While it fills, as much again may be on its way to the reader.
const BYTES_MAX: usize = 4 << 20;

/// A longer buffer is given back.
const BUFFER_KEPT: usize = 256 * 1024;

/// How long lines gather after some were written.
const LINGER: Duration = Duration::from_millis(10);

/// How long the end of the program waits for a slow reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// A reader that does with each write what it is told: takes up to so many bytes, or fails.
    #[derive(Clone, Default)]
    struct Reader {
        takes: Arc<Mutex<Vec<Result<usize, io::ErrorKind>>>>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.takes.lock().unwrap().pop() {
                Some(Ok(count)) => count.min(bytes.len()),
                Some(Err(kind)) => return Err(kind.into()),
                None => bytes.len(),
            };
            self.read.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Reader {
        fn text(&self) -> String {
            String::from_utf8(self.read.lock().unwrap().clone()).unwrap()
        }
    }

    fn lost(line: &str) -> u64 {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_eq!(event["level"], "WARN");
        event["lines"].as_u64().unwrap()
    }

    #[test]
    fn what_does_not_fit_is_counted_and_said() {
        let before = lines_lost();
        let queue = Arc::new(Queue::new(10));
        for line in ["one\n", "two\n", "three\n", "4\n", "5\n"] {
            (&*queue).write_all(line.as_bytes()).unwrap();
        }
        let reader = Reader::default();
        let writer = LogWriter::start(Arc::clone(&queue), reader.clone(), Style::Json).unwrap();
        while reader.text().lines().count() < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        queue.add(b"six\n");
        drop(writer);
        let text = reader.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((&lines[..2], lines[3]), (&["one", "two"][..], "six"));
        assert_eq!(lost(lines[2]), 3, "a gap without a line within");
        assert_eq!(lines.len(), 4);
        assert!(lines_lost() >= before + 3);
    }

    #[test]
    fn a_reader_in_pieces_gets_all() {
        let reader = Reader::default();
        *reader.takes.lock().unwrap() = vec![
            Ok(2),
            Err(io::ErrorKind::WouldBlock),
            Ok(1),
            Err(io::ErrorKind::Interrupted),
            Ok(3),
        ];
        let queue = Arc::new(Queue::default());
        let writer = LogWriter::start(Arc::clone(&queue), reader.clone(), Style::Json).unwrap();
        queue.add(b"one\n");
        queue.add(b"two\n");
        drop(writer);
        assert_eq!(reader.text(), "one\ntwo\n");
    }

    #[test]
    fn a_full_disk_costs_lines() {
        let reader = Reader::default();
        *reader.takes.lock().unwrap() = vec![Err(io::ErrorKind::StorageFull), Ok(6)];
        let queue = Arc::new(Queue::default());
        for line in [b"one\n", b"two\n", b"six\n"] {
            queue.add(line);
        }
        let writer = LogWriter::start(Arc::clone(&queue), reader.clone(), Style::Json).unwrap();
        while !reader.takes.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        queue.add(b"ten\n");
        drop(writer);
        let text = reader.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(&lines[..3], ["one", "tw", "ten"]);
        assert_eq!(lost(lines[3]), 2);
    }

    #[test]
    fn a_reader_that_is_gone_ends_nothing() {
        let reader = Reader::default();
        *reader.takes.lock().unwrap() = vec![Err(io::ErrorKind::BrokenPipe); 9];
        let queue = Arc::new(Queue::default());
        let writer = LogWriter::start(Arc::clone(&queue), reader.clone(), Style::Json).unwrap();
        queue.add(b"one\n");
        let since = Instant::now();
        drop(writer);
        assert!(since.elapsed() < LAST_WORDS, "there is nothing to wait for");
        assert_eq!(reader.text(), "");
    }

    #[test]
    fn a_reader_that_stalls_is_given_up() {
        struct Stalled(mpsc::Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Until the test is over.
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (over, until) = mpsc::channel();
        let queue = Arc::new(Queue::new(100));
        let writer = LogWriter::start(Arc::clone(&queue), Stalled(until), Style::Json).unwrap();
        for _ in 0..1000 {
            queue.add(b"one\n");
        }
        assert!(queue.lock().lines.len() <= 100);
        let since = Instant::now();
        drop(writer);
        assert!(since.elapsed() >= LAST_WORDS);
        drop(over);
    }

    #[test]
    fn every_line_of_many_threads() {
        let reader = Reader::default();
        let queue = Arc::new(Queue::default());
        let writer = LogWriter::start(Arc::clone(&queue), reader.clone(), Style::Json).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..1000 {
                        queue.add(format!("{thread} {number}\n").as_bytes());
                        if number % 100 == 0 {
                            std::thread::sleep(Duration::from_millis(3));
                        }
                    }
                });
            }
        });
        drop(writer);
        let text = reader.text();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 4000);
    }
}
