//! The callers: as fast as answers come, or at a constant rate whether they come or not. Only to this machine.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;

use crate::scene::{CALLERS, Caller, HOST};
use crate::site::{LARGE_BYTES, PAGE, PIECE, UPLOAD, head_end, header};
use crate::{Outcome, secured};

/// What is asked for, and over how many connections.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) target: &'static str,
    pub(crate) connections: usize,
    /// A connection for each request.
    pub(crate) fresh: bool,
    pub(crate) line: Line,
}

/// What connections begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Plain,
    /// A full TLS handshake.
    Full,
    /// One that resumes the session of the connection before.
    Resumed,
}

impl Line {
    /// How a caller makes handshakes, if it does.
    fn caller(self) -> Outcome<Option<Arc<ClientConfig>>> {
        match self {
            Self::Plain => Ok(None),
            Self::Full | Self::Resumed => {
                Ok(Some(secured::caller("http/1.1", self == Self::Resumed)?))
            }
        }
    }
}

/// How long it goes on, before it is measured and while it is.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) warming: Duration,
    pub(crate) measured: Duration,
}

/// What came of some requests.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
}

/// A request as a CRM sends it, with some that has to be stripped.
pub(crate) fn request(caller: usize, method: &str, target: &str, extra: &str) -> Vec<u8> {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: crm-connector/4.2 (bench)\r\n\
         Accept: application/json\r\nAccept-Language: en\r\nX-Api-Key: {}\r\nCookie: authtoken=7_638412_00ff\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Correlation-Id: 0af7651916cd43dd\r\n{extra}\r\n",
        Caller::of(caller).key
    )
    .into_bytes()
}

/// A connection, and what was read of it.
struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// Whether its TLS session is an older one.
    is_resumed: bool,
}

/// What a connection is to those that hold it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Wire {
    async fn open(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Outcome<Self> {
        Self::over(TcpStream::connect(to).await?, tls).await
    }

    /// From an address that no other connection had for a while. Between two addresses there are ports for a second or
    /// so: after that, a connection would wait until the proxy has forgotten an older one.
    async fn open_from(
        from: [u8; 4],
        to: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Outcome<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        Self::over(socket.connect(to).await?, tls).await
    }

    async fn over(stream: TcpStream, tls: Option<&Arc<ClientConfig>>) -> Outcome<Self> {
        stream.set_nodelay(true)?;
        let (stream, is_resumed): (Box<dyn Stream>, bool) = match tls {
            None => (Box::new(stream), false),
            Some(caller) => {
                let (stream, is_resumed) = secured::shake_hands(caller, stream).await?;
                (Box::new(stream), is_resumed)
            }
        };
        Ok(Self {
            stream,
            buffer: vec![0; 16 * 1024],
            is_resumed,
        })
    }

    async fn ask(&mut self, request: &[u8]) -> Outcome<()> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// Reads a good answer to its end.
    async fn answer(&mut self) -> Outcome<()> {
        let mut filled = 0;
        let end = loop {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err("no answer".into()),
                count => filled += count,
            }
            if let Some(end) = head_end(&self.buffer[..filled]) {
                break end;
            }
        };
        let mut left = body_length(&self.buffer[..end])? - (filled - end);
        while left > 0 {
            match self.stream.read(&mut self.buffer).await? {
                0 => return Err("an answer breaks off".into()),
                count => left -= count,
            }
        }
        Ok(())
    }
}

/// The length of a good answer's body.
fn body_length(head: &[u8]) -> Outcome<usize> {
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head.lines().next().unwrap_or_default().into());
    }
    Ok(header(head, "content-length")
        .ok_or("an answer without a length")?
        .parse()?)
}

/// A runtime on this thread, which is on the core of the load.
pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// How far callers have come that go on until they are told.
#[derive(Default)]
pub(crate) struct Progress {
    done: AtomicU64,
    over: AtomicBool,
}

impl Progress {
    pub(crate) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Counts an answer.
    pub(crate) fn note(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each connection asks again as soon as it is answered.
pub(crate) async fn closed(
    to: SocketAddr,
    traffic: Traffic,
    span: Span,
    cpu: impl Fn() -> Outcome<Duration>,
) -> Outcome<Sample> {
    let progress = Arc::<Progress>::default();
    let mut running = JoinSet::new();
    for number in 0..traffic.connections {
        running.spawn(asking(to, traffic, number, Arc::clone(&progress)));
    }
    measured(running, &progress, span, cpu).await
}

/// What comes of callers that are running, until they are told to end.
pub(crate) async fn measured(
    running: JoinSet<Outcome<()>>,
    progress: &Progress,
    span: Span,
    cpu: impl Fn() -> Outcome<Duration>,
) -> Outcome<Sample> {
    let done = || progress.done.load(Ordering::Relaxed);
    tokio::time::sleep(span.warming).await;
    let (started, before, cpu_before) = (Instant::now(), done(), cpu()?);
    tokio::time::sleep(span.measured).await;
    let sample = Sample {
        requests: done() - before,
        elapsed: started.elapsed(),
        cpu: cpu()? - cpu_before,
    };
    progress.over.store(true, Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(30), finish(running)).await??;
    if sample.requests == 0 {
        return Err("no request was answered".into());
    }
    Ok(sample)
}

pub(crate) async fn finish(mut running: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn asking(
    to: SocketAddr,
    traffic: Traffic,
    number: usize,
    progress: Arc<Progress>,
) -> Outcome<()> {
    let extra = if traffic.fresh {
        "Connection: close\r\n"
    } else {
        ""
    };
    let request = request(number, "GET", traffic.target, extra);
    if traffic.fresh {
        return asking_afresh(to, &request, traffic.line, &progress).await;
    }
    let mut wire = Wire::open(to, traffic.line.caller()?.as_ref()).await?;
    while progress.goes_on() {
        wire.ask(&request).await?;
        progress.note();
    }
    Ok(())
}

/// A connection for each request, each from an address that was not used for long: the system holds a pair of
/// addresses and ports for a minute after its connection.
async fn asking_afresh(
    to: SocketAddr,
    request: &[u8],
    line: Line,
    progress: &Progress,
) -> Outcome<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let tls = line.caller()?;
    let mut is_first = true;
    while progress.goes_on() {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let part = |of: u64| u8::try_from(number / of % 250 + 1);
        let from = [127, part(62_500)?, part(250)?, part(1)?];
        let mut wire = Wire::open_from(from, to, tls.as_ref()).await?;
        if wire.is_resumed != (line == Line::Resumed) && !is_first {
            return Err("a handshake is full or resumed, and should not be".into());
        }
        is_first = false;
        wire.ask(request).await?;
        progress.note();
        // Whoever closes first keeps the port; it should be them.
        while wire.stream.read(&mut wire.buffer).await? > 0 {}
    }
    Ok(())
}

/// A request on a connection of its own, but for the end of its head; the status and body of its answer.
pub(crate) async fn once(to: SocketAddr, line: Line, request: &str) -> Outcome<(u16, Vec<u8>)> {
    let mut wire = Wire::open(to, line.caller()?.as_ref()).await?;
    let request = format!("{request}Connection: close\r\n\r\n");
    wire.stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    wire.stream.read_to_end(&mut answer).await?;
    let end = head_end(&answer).ok_or("no answer")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, answer.split_off(end)))
}

/// So many requests, evenly over so many connections.
pub(crate) async fn counted(
    to: SocketAddr,
    line: Line,
    connections: usize,
    requests: usize,
) -> Outcome<()> {
    let mut running = JoinSet::new();
    for number in 0..connections {
        running.spawn(async move {
            let request = request(number, "GET", PAGE, "");
            let mut wire = Wire::open(to, line.caller()?.as_ref()).await?;
            for _ in 0..requests / connections {
                wire.ask(&request).await?;
            }
            Ok(())
        });
    }
    tokio::time::timeout(Duration::from_secs(300), finish(running)).await?
}

/// Which way large bodies go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down(&'static str),
    Up,
}

/// So many large bodies, one after the other on one connection.
pub(crate) async fn bodies(
    to: SocketAddr,
    way: Way,
    count: u64,
    cpu: impl Fn() -> Outcome<Duration>,
) -> Outcome<Sample> {
    let mut wire = Wire::open(to, None).await?;
    wire.buffer = vec![0; 256 * 1024];
    let (started, cpu_before) = (Instant::now(), cpu()?);
    for number in 0..count {
        let caller = usize::try_from(number)?;
        match way {
            Way::Down(target) => wire.ask(&request(caller, "GET", target, "")).await?,
            Way::Up => {
                let length = format!("Content-Length: {LARGE_BYTES}\r\n");
                wire.stream
                    .write_all(&request(caller, "PUT", UPLOAD, &length))
                    .await?;
                for _ in 0..LARGE_BYTES / PIECE.len() {
                    wire.stream.write_all(&PIECE).await?;
                }
                wire.answer().await?;
            }
        }
    }
    Ok(Sample {
        requests: count,
        elapsed: started.elapsed(),
        cpu: cpu()? - cpu_before,
    })
}

/// Every caller once, each on a connection of its own, one after the other.
pub(crate) async fn everyone(to: SocketAddr) -> Outcome<()> {
    for number in 0..CALLERS {
        Wire::open(to, None)
            .await?
            .ask(&request(number, "GET", PAGE, ""))
            .await?;
    }
    Ok(())
}

/// So many connections that were used one after the other, and now are idle.
pub(crate) async fn idle(
    to: SocketAddr,
    line: Line,
    count: usize,
) -> Outcome<Vec<Box<dyn Stream>>> {
    let caller = line.caller()?;
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let mut wire = Wire::open(to, caller.as_ref()).await?;
        wire.ask(&request(number, "GET", PAGE, "")).await?;
        held.push(wire.stream);
    }
    Ok(held)
}

/// So many connections that ask for a large body and read nothing of it.
pub(crate) async fn stalled(
    to: SocketAddr,
    target: &str,
    count: usize,
) -> Outcome<Vec<Box<dyn Stream>>> {
    let mut held: Vec<Box<dyn Stream>> = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = TcpStream::connect(to).await?;
        stream
            .write_all(&request(number, "GET", target, ""))
            .await?;
        held.push(Box::new(stream));
    }
    Ok(held)
}

/// Times of requests that are sent at a constant rate, in order of length.
///
/// Threads take turns, each with a connection and a timetable of its own, so that a late answer holds up nobody else. A
/// time runs from when its request was due, if the answer before it was late, else from when it was sent: a thread
/// that oversleeps is no fault of the proxy.
pub(crate) fn steady(to: SocketAddr, per_second: u32, span: Span) -> Outcome<Vec<Duration>> {
    const THREADS: u32 = 32;
    let each = Duration::from_secs(THREADS.into()) / per_second;
    let start = Instant::now() + Duration::from_millis(20);
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            std::thread::spawn(move || {
                on_time(to, start + each * number / THREADS, each, span, number)
            })
        })
        .collect();
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().map_err(|_| "a thread panicked")??);
    }
    if times.is_empty() {
        return Err("no request was answered".into());
    }
    times.sort_unstable();
    Ok(times)
}

fn on_time(
    to: SocketAddr,
    start: Instant,
    each: Duration,
    span: Span,
    number: u32,
) -> Outcome<Vec<Duration>> {
    let request = request(usize::try_from(number)?, "GET", PAGE, "");
    let mut stream = std::net::TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut buffer = vec![0; 16 * 1024];
    let mut times = Vec::new();
    let mut due = start;
    while due < start + span.warming + span.measured {
        let wait = due.saturating_duration_since(Instant::now());
        let from = if wait.is_zero() {
            due
        } else {
            std::thread::sleep(wait);
            Instant::now()
        };
        stream.write_all(&request)?;
        let mut filled = 0;
        let mut wanted = usize::MAX;
        while filled < wanted {
            match stream.read(&mut buffer[filled..])? {
                0 => return Err("no answer".into()),
                count => filled += count,
            }
            if wanted == usize::MAX
                && let Some(end) = head_end(&buffer[..filled])
            {
                wanted = end + body_length(&buffer[..end])?;
            }
        }
        if due >= start + span.warming {
            times.push(from.elapsed());
        }
        due += each;
    }
    Ok(times)
}
