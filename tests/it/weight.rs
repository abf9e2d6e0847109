//! What the program weighs: memory does not grow with bodies, and idle connections are cheap.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::certificate::Authority;
use crate::harness::{API_KEY, Need, PATIENCE, Wire, cannot, get, within};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// The built program in a process of its own, before a site of ours.
struct Weighed {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Weighed {
    fn start(site: SocketAddr) -> Self {
        Self::with(site, tempfile::tempdir().unwrap(), "")
    }

    /// With what else the listener says.
    fn with(site: SocketAddr, folder: tempfile::TempDir, listener: &str) -> Self {
        let digest = countersign::policy::caller::KeyDigest::of(API_KEY.as_bytes()).to_hex();
        let text = format!(
            "listeners: [{{ address: \"127.0.0.1:0\"{listener} }}]\n\
             sites: {{ acme: {{ url: \"http://{site}\", server_tokens: [{{ key: env:WEIGHED_KEY, secret: env:WEIGHED_SECRET }}] }} }}\n\
             callers: {{ crm: {{ api_key: {{ sha256: \"{digest}\" }}, acts_as: \"7\", limits: {{ requests_per_second: 100000 }} }} }}\n\
             routes: [{{ name: all, mount: /all, site: acme, token: server, callers: [crm], allow: [all], body_max: 2GiB }}]\n\
             limits: {{ connections_per_address: 20000 }}\n"
        );
        let path = folder.path().join("proxy.yaml");
        std::fs::write(&path, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["run", "--log-format", "json", "--config"])
            .arg(&path)
            .env("WEIGHED_KEY", "a")
            .env("WEIGHED_SECRET", "b")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let event: serde_json::Value =
                serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if event["message"] == "listening" {
                break event["address"].as_str().unwrap().parse().unwrap();
            }
        };
        // Whoever reads nothing more would stop the program when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// Resident memory in bytes, now and at most so far.
    fn resident(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
                * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Weighed {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Takes bodies of any size, and answers a GET with one GiB.
async fn site() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 256 * 1024];
                let mut head = Vec::new();
                loop {
                    let count = stream.read(&mut buffer).await.unwrap_or_default();
                    if count == 0 {
                        return;
                    }
                    head.extend_from_slice(&buffer[..count]);
                    let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
                        continue;
                    };
                    let mut body = (head.len() - end - 4) as u64;
                    let text = String::from_utf8_lossy(&head[..end]).into_owned();
                    head.clear();
                    if text.starts_with("GET") && text.contains("big") {
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n");
                        drop(stream.write_all(answer.as_bytes()).await);
                        for _ in 0..GIB / buffer.len() as u64 {
                            if stream.write_all(&buffer).await.is_err() {
                                return;
                            }
                        }
                        continue;
                    }
                    let length = text
                        .lines()
                        .find_map(|line| {
                            line.to_ascii_lowercase()
                                .strip_prefix("content-length: ")?
                                .parse::<u64>()
                                .ok()
                        })
                        .unwrap_or_default();
                    while body < length {
                        match stream.read(&mut buffer).await {
                            Ok(count) if count > 0 => body += count as u64,
                            _ => return,
                        }
                    }
                    let told = body.to_string();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}",
                        told.len()
                    );
                    drop(stream.write_all(answer.as_bytes()).await);
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_up_and_down() {
    let gateway = Weighed::start(site().await);
    let mut wire = Wire::open(gateway.address).await;
    wire.write(get("/all/@api/deki/pages/home", "")).await;
    assert_eq!(wire.answer().await.status, 200);
    let (idle, _) = gateway.resident();

    let piece = vec![b'x'; 256 * 1024];
    wire.write(format!(
        "PUT /all/@api/deki/files/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: {GIB}\r\n\r\n"
    ))
    .await;
    for _ in 0..GIB / piece.len() as u64 {
        wire.write(&piece).await;
    }
    let answer = wire.answer().await;
    assert_eq!(answer.text(), GIB.to_string(), "{answer:?}");

    wire.write(get("/all/@api/deki/files/1/big", "")).await;
    let mut buffer = vec![0; 256 * 1024];
    let mut read = 0;
    let reading = async {
        while read < GIB {
            let count = wire.stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "it breaks off after {read}");
            read += count as u64;
        }
    };
    tokio::time::timeout(4 * PATIENCE, reading)
        .await
        .expect("it comes down");
    let (_, most) = gateway.resident();
    assert!(
        most < idle + 32 * MIB,
        "{} MiB at most, {} MiB when idle",
        most / MIB,
        idle / MIB
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_stalled_downloads() {
    const DOWNLOADS: usize = 100;
    let gateway = Weighed::start(site().await);
    let mut held = Vec::new();
    let mut weights = Vec::new();
    // Twice as many, and then the difference: what is made once does not count.
    for _ in 0..2 {
        for _ in 0..DOWNLOADS {
            let mut wire = Wire::open(gateway.address).await;
            wire.write(get("/all/@api/deki/files/1/big", "")).await;
            // The answer has begun, and nobody reads on.
            within(wire.stream.readable()).await.unwrap();
            held.push(wire);
        }
        // Until the buffers of the system are full on both sides, which is when nothing grows any more.
        let mut before = 0;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let (now, _) = gateway.resident();
            if now <= before {
                break;
            }
            before = now;
        }
        weights.push(before);
    }
    let each = weights[1].saturating_sub(weights[0]) / DOWNLOADS as u64;
    assert!(each < 128 * 1024, "a stalled download weighs {each} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections() {
    const CONNECTIONS: usize = 10_000;
    let granted = rlimit::increase_nofile_limit(CONNECTIONS as u64 + 500).unwrap_or_default();
    if granted < CONNECTIONS as u64 + 500 {
        cannot(
            Need::Files,
            &format!(
                "ten thousand idle connections: this process may open {granted} files; raise ulimit -n"
            ),
        );
        return;
    }
    let gateway = Weighed::start(site().await);
    let mut first = Wire::open(gateway.address).await;
    first.write(get("/all/@api/deki/pages/home", "")).await;
    assert_eq!(first.answer().await.status, 200);
    let (before, _) = gateway.resident();
    let mut held = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS - 1 {
        held.push(
            within(TcpStream::connect(gateway.address))
                .await
                .expect("it is taken"),
        );
    }
    // Whoever is there already is served, and whoever comes last, too.
    first.write(get("/all/@api/deki/pages/home", "")).await;
    assert_eq!(first.answer().await.status, 200);
    let mut last = Wire::open(gateway.address).await;
    last.write(get("/all/@api/deki/pages/home", "")).await;
    assert_eq!(last.answer().await.status, 200);
    let (after, _) = gateway.resident();
    let each = (after.saturating_sub(before)) / CONNECTIONS as u64;
    assert!(each < 6 * 1024, "an idle connection weighs {each} bytes");
    assert!(
        held[0]
            .try_read(&mut [0])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
        "none is given up for another"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_over_tls() {
    const CONNECTIONS: usize = 600;
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("ours");
    ca.issue(&["gw.example"], |_| {}).write(folder.path(), "gw");
    let tls = ", tls: { certificates: [{ chain: file:gw.pem, key: file:gw.key }] }";
    let gateway = Weighed::with(site().await, folder, tls);
    let config = ca.caller();
    let connect = async || {
        let mut wire = Wire::tls(gateway.address, "gw.example", &config).await;
        wire.write(get("/all/@api/deki/pages/home", "").replace("gateway.test", "gw.example"))
            .await;
        assert_eq!(wire.answer().await.status, 200);
        wire
    };
    let mut held = Vec::new();
    let mut weights = Vec::new();
    // As many again, and then the difference: what is made once does not count.
    for _ in 0..2 {
        for _ in 0..CONNECTIONS {
            held.push(connect().await);
        }
        weights.push(gateway.resident().0);
    }
    let each = (weights[1].saturating_sub(weights[0])) / CONNECTIONS as u64;
    assert!(
        each < 16 * 1024,
        "an idle connection over TLS weighs {each} bytes"
    );
}
