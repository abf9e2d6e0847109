//! What the gateway adds: the same client goes straight to a site and through the gateway, in turn, at
//! 1 and 32 connections, with empty and 100 kB answers.
//!
//! `cargo bench --bench end_to_end`. Both ways are measured alternately in one run, so that a busy
//! machine is equally busy for both; the number to look at is the difference of the medians.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use countersign::config::{self, reference::Sources};
use countersign::policy::caller::KeyDigest;
use countersign::server::Server;
use countersign::telemetry::{self, LogFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests of one measurement on each connection, and how often each way is measured.
const REQUESTS: usize = 300;
const ROUNDS: usize = 15;

fn main() {
    // Every exchange is formatted as the program does it; where it goes costs nothing here.
    let subscriber = telemetry::subscriber(LogFormat::Json, "", std::io::sink);
    tracing::subscriber::set_global_default(subscriber).expect("the first one");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        println!(
            "{:>12} {:>8} {:>12} {:>12} {:>12}",
            "connections", "bytes", "direct", "gateway", "difference"
        );
        for bytes in [0, 100_000] {
            let site = site(bytes).await;
            let gateway = gateway(site).await;
            for connections in [1, 32] {
                let (mut direct, mut through) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    direct.push(measure(site, "/@api/deki/pages/home", connections, bytes).await);
                    through.push(
                        measure(gateway, "/crm/@api/deki/pages/home", connections, bytes).await,
                    );
                }
                let (direct, through) = (median(direct), median(through));
                println!(
                    "{connections:>12} {bytes:>8} {direct:>12.1?} {through:>12.1?} {:>12.1?}",
                    through.saturating_sub(direct)
                );
            }
        }
    });
}

/// Time for one request on one connection, on average over a measurement.
async fn measure(address: SocketAddr, target: &str, connections: usize, bytes: usize) -> Duration {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n\r\n");
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let request = request.clone();
        running.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            let mut buffer = vec![0; 256 * 1024];
            for _ in 0..REQUESTS / connections.min(10) {
                stream
                    .write_all(request.as_bytes())
                    .await
                    .expect("it reads");
                let mut read = 0;
                let mut wanted = usize::MAX;
                while read < wanted {
                    let count = stream.read(&mut buffer[read..]).await.expect("it answers");
                    assert!(count > 0, "an answer is whole");
                    read += count;
                    if wanted == usize::MAX
                        && let Some(end) = buffer[..read]
                            .windows(4)
                            .position(|window| window == b"\r\n\r\n")
                    {
                        assert!(
                            buffer.starts_with(b"HTTP/1.1 200"),
                            "every call is answered"
                        );
                        wanted = end + 4 + bytes;
                    }
                }
            }
        });
    }
    running.join_all().await;
    let requests = connections * (REQUESTS / connections.min(10));
    started.elapsed() / u32::try_from(requests).expect("few")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A site that answers at once.
async fn site(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
    answer.extend(vec![b'x'; bytes]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true).expect("a socket");
                let mut buffer = vec![0; 16 * 1024];
                let mut read = 0;
                loop {
                    match stream.read(&mut buffer[read..]).await {
                        Ok(count) if count > 0 => read += count,
                        _ => return,
                    }
                    if buffer[..read].ends_with(b"\r\n\r\n") {
                        read = 0;
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

const API_KEY: &str = "cs_a_key_of_a_caller_in_a_bench";

/// A gateway before that site, whose one caller may do more than any CRM does.
async fn gateway(site: SocketAddr) -> SocketAddr {
    let digest = KeyDigest::of(API_KEY.as_bytes()).to_hex();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\n\
         sites: {{ acme: {{ url: \"http://{site}\", server_tokens: [{{ key: env:KEY, secret: env:SECRET }}] }} }}\n\
         callers:\n  crm:\n    api_key: {{ sha256: \"{digest}\" }}\n    acts_as: \"=crm-bot\"\n    \
         limits: {{ requests_per_second: 1000000, burst: 1000000, in_flight: 1000 }}\n\
         routes: [{{ name: crm, mount: /crm, site: acme, token: server, callers: [crm], allow: [read-pages] }}]\n"
    );
    let sources = Sources {
        environment: &|name| Some(name.to_lowercase()),
        folder: std::path::PathBuf::new(),
    };
    let loaded = config::load_text("bench", &text, &sources).expect("a good file");
    let server = Server::bind(&loaded.settings, loaded.policy)
        .await
        .expect("a port");
    let address = server.addresses()[0];
    tokio::spawn(server.serve(std::future::pending()));
    address
}
