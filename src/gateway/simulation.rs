//! Both peers of the relay in memory, and a die that says what happens next: bytes in any pieces,
//! hang-ups, late and second answers, refused connections, clocks that run on. Whatever comes, there is no
//! panic and no hang, and no byte of one exchange in another.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Gateway;
use crate::config::{self, reference::Sources};
use crate::policy::caller::KeyDigest;
use crate::policy::effective::Effective;
use crate::policy::peer::Peer;
use crate::policy::site::Site;
use crate::upstream::{Dial, Duplex, Failure};
use crate::watch::generation::{Generation, Live, Watched};
use crate::wire::h1::H1;
use crate::wire::slots::Slots;

/// Rounds of one case after which everything must have come to an end.
const ROUNDS_MAX: usize = 20_000;

/// Says what happens next: the bytes of a fuzzer first, then a sequence of its own.
struct Die<'a> {
    given: std::slice::Iter<'a, u8>,
    state: u64,
}

impl Die<'_> {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        if let Some(byte) = self.given.next() {
            return usize::from(*byte) % sides;
        }
        // xorshift64
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 33).unwrap() % sides
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    /// How much fits in.
    room: usize,
    is_ended: bool,
    is_reset: bool,
    waker: Option<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A connection: what the gateway reads, and what it writes.
#[derive(Default)]
struct Lanes {
    to_gateway: Lane,
    from_gateway: Lane,
}

#[derive(Clone)]
struct Wire(Arc<Mutex<Lanes>>);

impl Wire {
    fn new(room: usize) -> Self {
        let lanes = Lanes {
            from_gateway: Lane {
                room,
                ..Lane::default()
            },
            ..Lanes::default()
        };
        Self(Arc::new(Mutex::new(lanes)))
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.0.lock().unwrap()
    }

    fn send(&self, bytes: &[u8]) {
        let mut lanes = self.lock();
        lanes.to_gateway.bytes.extend(bytes);
        lanes.to_gateway.wake();
    }

    fn end(&self) {
        let mut lanes = self.lock();
        lanes.to_gateway.is_ended = true;
        lanes.to_gateway.wake();
    }

    fn reset(&self) {
        let mut lanes = self.lock();
        let lanes = &mut *lanes;
        for lane in [&mut lanes.to_gateway, &mut lanes.from_gateway] {
            lane.is_reset = true;
            lane.wake();
        }
    }

    /// Takes up to `count` bytes the gateway has written.
    fn take(&self, count: usize) -> Vec<u8> {
        let mut lanes = self.lock();
        let count = count.min(lanes.from_gateway.bytes.len());
        let taken = lanes.from_gateway.bytes.drain(..count).collect();
        lanes.from_gateway.wake();
        taken
    }

    /// Whether the gateway has let go of the connection.
    fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn has_unread(&self) -> bool {
        !self.lock().from_gateway.bytes.is_empty()
    }
}

/// The gateway's end.
struct End(Wire);

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let lane = &mut self.0.lock().to_gateway;
        if lane.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if lane.bytes.is_empty() && !lane.is_ended {
            lane.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = lane.bytes.len().min(into.remaining());
        let bytes: Vec<u8> = lane.bytes.drain(..count).collect();
        into.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let lane = &mut self.0.lock().from_gateway;
        if lane.is_reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(lane.room.saturating_sub(lane.bytes.len()));
        if count == 0 {
            lane.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        lane.bytes.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().from_gateway.is_ended = true;
        Poll::Ready(Ok(()))
    }
}

/// Every connection to the site so far.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Dialled>>);

#[derive(Default)]
struct Dialled {
    wires: Vec<Wire>,
    refuses: bool,
    room: usize,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Dial for Memory {
    fn dial<'a>(
        &'a self,
        _: &'a Watched,
        _: &'a Site,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Failure>> + Send + 'a>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            let mut dialled = self.0.lock().unwrap();
            if std::mem::take(&mut dialled.refuses) {
                return Err(Failure::ConnectRefused);
            }
            let wire = Wire::new(dialled.room);
            dialled.wires.push(wire.clone());
            Ok(Box::new(End(wire)) as Box<dyn Duplex>)
        })
    }
}

/// A caller: what it asks, one request after the other, and what it hears.
struct Caller {
    key: &'static str,
    user: &'static str,
    wire: Wire,
    unsent: VecDeque<u8>,
    asked: Vec<Asked>,
    heard: Vec<u8>,
}

struct Asked {
    mark: usize,
    is_head: bool,
}

impl Caller {
    fn new(number: usize, first_mark: usize, die: &mut Die<'_>) -> Self {
        let (key, user) = [("cs_one", "=one"), ("cs_two", "=two")][number];
        let mut caller = Self {
            key,
            user,
            wire: Wire::new(1 + die.roll(400)),
            unsent: VecDeque::new(),
            asked: Vec::new(),
            heard: Vec::new(),
        };
        for at in 0..1 + die.roll(4) {
            caller.ask(first_mark + at, die);
        }
        caller
    }

    fn ask(&mut self, mark: usize, die: &mut Die<'_>) {
        let key = self.key;
        let target = format!("/@api/deki/pages/{mark}/contents?user={}", &self.user[1..]);
        let more = [
            "",
            "Connection: keep-alive\r\n",
            "Expect: 100-continue\r\n",
            "Cookie: a\r\n",
        ][die.roll(4)];
        let body = "b".repeat(die.roll(700));
        let text = match die.roll(8) {
            0 => format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n"),
            1 => format!(
                "POST {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n{more}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            2 => format!(
                "PUT {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n{more}Transfer-Encoding: chunked\r\n\r\n{:x}\r\nb{body}\r\n0\r\n\r\n",
                body.len() + 1
            ),
            3 => format!("GET {target} HTTP/1.0\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n"),
            4 => format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            5 if die.one_in(3) => format!("GET  {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
            _ => format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n"),
        };
        self.asked.push(Asked {
            mark,
            is_head: text.starts_with("HEAD"),
        });
        self.unsent.extend(text.bytes());
    }

    /// Sends something, hears something, or leaves.
    fn step(&mut self, die: &mut Die<'_>) {
        let count = (1 + die.roll(300)).min(self.unsent.len());
        let piece: Vec<u8> = self.unsent.drain(..count).collect();
        if !piece.is_empty() {
            self.wire.send(&piece);
        }
        self.heard.extend(self.wire.take(1 + die.roll(300)));
        match die.roll(1500) {
            0 => self.wire.reset(),
            1..4 => self.wire.end(),
            _ => {}
        }
    }

    /// Reads the answers heard so far: each is whole or the last, each is that of its request.
    ///
    /// Returns how many good ones there were.
    fn judge(&self) -> usize {
        let mut good = 0;
        let mut rest = &self.heard[..];
        let mut asked = self.asked.iter();
        while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(rest[..end].to_vec()).unwrap();
            rest = &rest[end + 4..];
            let status: u16 = head[9..12].parse().unwrap();
            if status == 100 {
                continue;
            }
            let Some(one) = asked.next() else {
                panic!("an answer to nothing: {head}");
            };
            let value = |name: &str| {
                let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
                lines
                    .find(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            };
            let body = if one.is_head || status == 204 {
                Vec::new()
            } else if let Some(length) = value("content-length") {
                let length = length.parse::<usize>().unwrap().min(rest.len());
                let body = rest[..length].to_vec();
                rest = &rest[length..];
                body
            } else if value("transfer-encoding").is_some() {
                let mut decoder = crate::wire::framing::Decoder::chunked();
                let mut raw = rest.to_vec();
                let decoded = decoder.decode(&mut raw).expect("chunks as they should be");
                rest = &rest[decoded.consumed..];
                raw[..decoded.payload].to_vec()
            } else {
                std::mem::take(&mut rest).to_vec()
            };
            let body = String::from_utf8(body).unwrap();
            assert!(
                !head.contains("poison") && !body.contains("poison"),
                "{head} {body}"
            );
            if value("x-countersign-refusal").is_none() {
                assert!(matches!(status, 200 | 404 | 500), "{head}");
                let mark = format!("[{} {}]", one.mark, self.user);
                let whole = mark.repeat(body.len() / mark.len() + 1);
                assert!(whole.starts_with(&body), "{body} is not of {mark}");
                good += 1;
            }
        }
        good
    }
}

/// The site's end of one connection.
struct Serving {
    wire: Wire,
    read: Vec<u8>,
    unsent: VecDeque<u8>,
    ends: bool,
    /// What is unsent goes in one piece: a second answer that came after the next request could not be
    /// told from the answer to that one, which is why connections belong to one user.
    bursts: bool,
}

impl Serving {
    fn step(&mut self, die: &mut Die<'_>) {
        self.read.extend(self.wire.take(1 + die.roll(300)));
        if self.unsent.is_empty() && self.ends {
            self.wire.end();
        }
        if self.unsent.is_empty() && !self.ends && self.take_request(die) {
            return;
        }
        let most = if self.bursts {
            usize::MAX
        } else {
            1 + die.roll(200)
        };
        let count = most.min(self.unsent.len());
        let piece: Vec<u8> = self.unsent.drain(..count).collect();
        if !piece.is_empty() {
            self.wire.send(&piece);
        } else if !self.ends
            && self.read.is_empty()
            && !self.wire.has_unread()
            && !self.wire.is_dropped()
            && die.one_in(60)
        {
            // A second answer, to nothing.
            self.wire
                .send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            self.ends = true;
        }
        if die.one_in(400) {
            self.wire.reset();
        }
    }

    /// Answers a request, if one is whole, or sometimes before.
    fn take_request(&mut self, die: &mut Die<'_>) -> bool {
        let Some(end) = self
            .read
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        else {
            return false;
        };
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let value = |name: &str| {
            let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
            lines
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let mut body = self.read[end + 4..].to_vec();
        let length = if value("transfer-encoding").is_some() {
            let mut decoder = crate::wire::framing::Decoder::chunked();
            let decoded = decoder.decode(&mut body).expect("chunks as they should be");
            decoder.is_done().then_some(decoded.consumed)
        } else {
            let length = value("content-length").map_or(0, |length| length.parse().unwrap());
            (body.len() >= length).then_some(length)
        };
        let is_early = length.is_none() && die.one_in(40);
        if value("expect").is_some() && length.is_none() && die.one_in(3) {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Some(length) = length.or(is_early.then_some(0)) else {
            return false;
        };
        self.read.drain(..end + 4 + length);
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let user = format!("={}", target.rsplit('=').next().unwrap());
        let token = value("x-deki-token").expect("every request is signed");
        assert!(
            token.contains(&format!("_{user}_")),
            "{token} is for {user}"
        );
        let mark = target.split('/').nth(4).unwrap();
        let body = format!("[{mark} {user}]").repeat(die.roll(60));
        self.answer(&head, &body, is_early, die);
        true
    }

    fn answer(&mut self, head: &str, body: &str, is_early: bool, die: &mut Die<'_>) {
        let mut text = String::new();
        if die.one_in(8) {
            text += "HTTP/1.1 103 Early Hints\r\nLink: poison\r\n\r\n";
        }
        let shown = if head.starts_with("HEAD") { "" } else { body };
        match die.roll(11) {
            9 => text += &trace_answer(head.starts_with("HEAD"), die),
            0 => {
                write!(
                    text,
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                .unwrap();
                if !head.starts_with("HEAD") {
                    for piece in body.as_bytes().chunks(1 + die.roll(90)) {
                        let piece = std::str::from_utf8(piece).unwrap();
                        write!(text, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
                    }
                    text += "0\r\nX-Trailer: poison\r\n\r\n";
                }
            }
            1 => {
                write!(text, "HTTP/1.0 200 OK\r\n\r\n{shown}").unwrap();
                self.ends = true;
            }
            2 => {
                // It breaks off.
                write!(
                    text,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}",
                    body.len() + 5
                )
                .unwrap();
                self.ends = true;
            }
            3 => {
                let cut = die.roll(20);
                text += &"HTTP/1.1 200 OK\r\nX: poison\r\n"[..cut];
                self.ends = true;
            }
            4 => {
                // Two answers to one question.
                self.bursts = true;
                write!(text, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", body.len()).unwrap();
                self.ends = true;
            }
            _ => {
                write!(
                    text,
                    "HTTP/1.1 200 OK\r\nSet-Cookie: poison\r\nContent-Length: {}\r\n\r\n{shown}",
                    body.len()
                )
                .unwrap();
            }
        }
        // Errors are held back until they are known.
        if die.one_in(3) {
            text = text.replacen(" 200 OK\r\n", " 404 Not Found\r\n", 1);
        }
        self.ends |= is_early;
        self.unsent.extend(text.bytes());
    }
}

/// An error that must not come through.
fn trace_answer(is_head: bool, die: &mut Die<'_>) -> String {
    let trace = "poison\n   at A.B(C)\n   at D.E(F)\n".repeat(1 + die.roll(20));
    let head = format!(
        "HTTP/1.1 500 Error\r\nContent-Length: {}\r\n\r\n",
        trace.len()
    );
    if is_head { head } else { head + &trace }
}

fn gateway(memory: &Memory) -> Gateway {
    let digest = |key: &str| KeyDigest::of(key.as_bytes()).to_hex();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\n\
         sites: {{ acme: {{ url: \"http://127.0.0.1:1\", server_tokens: [{{ key: env:A, secret: env:A }}] }} }}\n\
         callers:\n  one: {{ api_key: {{ sha256: \"{}\" }}, acts_as: \"=one\" }}\n  two: {{ api_key: {{ sha256: \"{}\" }}, acts_as: \"=two\" }}\n\
         routes: [{{ name: all, site: acme, token: server, callers: [one, two], allow: [all] }}]\n",
        digest("cs_one"),
        digest("cs_two"),
    );
    let sources = Sources {
        environment: &|_| Some("a".to_owned()),
        folder: std::path::PathBuf::new(),
    };
    let loaded = config::load_text("proxy.yaml", &text, &sources).unwrap();
    let settings = loaded.settings;
    let generation = Generation::new(
        loaded.policy,
        &settings.caller_limits,
        &settings.shared_limits,
        Effective::default(),
        None,
    );
    let telemetry = Arc::default();
    Gateway::new(
        Live::new(generation),
        Arc::clone(&telemetry),
        Slots::new(settings.connections, telemetry),
        Box::new(memory.clone()),
    )
}

/// One case: how many good answers were heard of how many requests.
async fn simulate(mut die: Die<'_>) -> (usize, usize) {
    let memory = Memory::default();
    memory.0.lock().unwrap().room = 1 + die.roll(500);
    let gateway = gateway(&memory);
    let mut callers: Vec<Caller> = (0..2)
        .map(|n| Caller::new(n, 100 * n + 1, &mut die))
        .collect();
    let mut tasks: Vec<_> = callers
        .iter()
        .map(|caller| {
            let peer = Arc::new(Peer::plain([127, 0, 0, 1].into()));
            let mut caller = H1::new(End(caller.wire.clone()), peer);
            let gateway = &gateway;
            Some(Box::pin(async move { gateway.serve(&mut caller).await }))
        })
        .collect();
    let mut site: Vec<Serving> = Vec::new();
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "it hangs");
        for (caller, task) in callers.iter_mut().zip(&mut tasks) {
            let Some(serving) = task else { continue };
            let done = std::future::poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_ready()));
            if done.await {
                *task = None;
            }
            caller.step(&mut die);
        }
        if tasks.iter().all(Option::is_none) {
            break;
        }
        memory.0.lock().unwrap().refuses = die.one_in(20);
        let dialled = memory.0.lock().unwrap().wires.split_off(0);
        site.extend(dialled.into_iter().map(|wire| Serving {
            wire,
            read: Vec::new(),
            unsent: VecDeque::new(),
            ends: false,
            bursts: false,
        }));
        for serving in &mut site {
            if !die.one_in(4) {
                serving.step(&mut die);
            }
        }
        let pause = [1, 1, 10, 500][die.roll(4)];
        tokio::time::advance(Duration::from_millis(pause)).await;
        gateway.pool.sweep();
    }
    let (mut good, mut asked) = (0, 0);
    for caller in &mut callers {
        caller.heard.extend(caller.wire.take(usize::MAX));
        good += caller.judge();
        asked += caller.asked.len();
    }
    drop(tasks);
    assert_eq!(gateway.in_flight.load(Ordering::SeqCst), 0);
    (good, asked)
}

fn run(given: &[u8], seed: u64) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulate(Die {
        given: given.iter(),
        state: seed * 2 + 1,
    }))
}

/// How many cases: `COUNTERSIGN_SIMULATIONS` says more.
fn cases() -> u64 {
    let wanted = std::env::var("COUNTERSIGN_SIMULATIONS").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

#[test]
fn no_byte_of_one_exchange_is_seen_in_another() {
    let (mut good, mut asked) = (0, 0);
    for seed in 0..cases() {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
        match std::panic::catch_unwind(|| run(&[], seed)) {
            Ok(case) => {
                good += case.0;
                asked += case.1;
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(good * 3 > asked, "most are served: {good} of {asked}");
}

#[test]
fn a_fuzzer_throws_the_die() {
    bolero::check!().for_each(|bytes: &[u8]| {
        run(bytes, 1);
    });
}
