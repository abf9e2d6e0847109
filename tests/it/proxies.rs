//! Who a request comes from: what proxies say of it where they are trusted, and nothing else.

mod products;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{API_KEY, Answer, Log, ROUTES, Reply, Rig, Wire, get, until, within};

const TARGET: &str = "/crm/@api/deki/pages/home";

/// The proxy's address in these tests, and a stranger's.
const PROXY: &str = "127.0.0.1";
const STRANGER: &str = "127.0.0.2";

const V4: &str = "PROXY TCP4 203.0.113.7 10.0.0.5 56324 443\r\n";

/// The file with more for its listener.
fn with_listener(more: &str) -> String {
    ROUTES.replace(
        "{ address: \"127.0.0.1:0\" }]\nadmin",
        &format!("{{ address: \"127.0.0.1:0\", {more} }}]\nadmin"),
    )
}

async fn rig(listener: &str) -> Rig {
    Rig::with(&with_listener(listener), |_| Reply::ok()).await
}

/// A connection from one of this machine's addresses.
async fn connect(from: &str, to: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    Wire::over(within(socket.connect(to)).await.expect("it listens"))
}

/// An answer to bytes from one of this machine's addresses.
async fn send(rig: &Rig, from: &str, bytes: impl AsRef<[u8]>) -> Answer {
    let mut wire = connect(from, rig.gateway.address).await;
    wire.write(bytes).await;
    wire.answer().await
}

/// The same, and the record of it, which is written after the answer.
async fn recorded(rig: &Rig, log: &Log, from: &str, bytes: impl AsRef<[u8]>) -> (Answer, Value) {
    let before = log.named("exchange").len();
    let answer = send(rig, from, bytes).await;
    until("it is recorded", || log.named("exchange").len() > before).await;
    (answer, log.named("exchange").remove(before))
}

/// What the site is told, and the record says.
async fn told(rig: &Rig, log: &Log, from: &str, bytes: impl AsRef<[u8]>) -> String {
    let (answer, record) = recorded(rig, log, from, bytes).await;
    assert_eq!(answer.status, 200);
    let seen = rig.site.take();
    let address = seen[0].header("x-forwarded-for").to_owned();
    assert!(!seen[0].has("forwarded"));
    assert_eq!(record["client"], address, "the record says the same");
    address
}

/// Fails unless a request is no message, and is laid to an address.
async fn refused(rig: &Rig, log: &Log, from: &str, bytes: impl AsRef<[u8]>, client: &str) -> Value {
    let (answer, record) = recorded(rig, log, from, bytes).await;
    answer.refused(400, "bad_message");
    assert_eq!(record["client"], client);
    assert!(rig.site.take().is_empty());
    record
}

#[tokio::test]
async fn headers_of_a_trusted_proxy_name_the_client() {
    let log = Log::listen();
    let rig = rig("h2c: true, trusted_proxies: [127.0.0.1, 10.0.0.0/8]").await;
    for (lines, expected) in [
        ("", PROXY),
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"),
        (
            "X-Forwarded-For: 1.2.3.4, 203.0.113.7:80, 10.0.0.2\r\n",
            "203.0.113.7",
        ),
        (
            "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: ::ffff:203.0.113.7\r\n",
            "203.0.113.7",
        ),
        (
            "Forwarded: for=1.2.3.4, for=\"[2001:db8::7]:4711\";proto=https\r\n",
            "2001:db8::7",
        ),
        ("X-Forwarded-For: 203.0.113.7, unknown\r\n", PROXY),
        (
            "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\n",
            "203.0.113.7",
        ),
    ] {
        assert_eq!(
            told(&rig, &log, PROXY, get(TARGET, lines)).await,
            expected,
            "{lines}"
        );
        // The next request on the same connection may be another client's.
        let mut wire = connect(PROXY, rig.gateway.address).await;
        for (line, expected) in [
            (lines, expected),
            ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ] {
            wire.write(get(TARGET, line)).await;
            assert_eq!(wire.answer().await.status, 200);
            assert_eq!(rig.site.take()[0].header("x-forwarded-for"), expected);
        }
    }
    assert_eq!(h2(&rig, "", "1.2.3.4, 203.0.113.9").await, 200);
    assert_eq!(rig.site.take()[0].header("x-forwarded-for"), "203.0.113.9");
}

/// The status of an answer over HTTP/2, after bytes that come first.
async fn h2(rig: &Rig, first: &str, forwarded_for: &str) -> u16 {
    let mut stream = TcpStream::connect(rig.gateway.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, first.as_bytes())
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driving = tokio::spawn(connection);
    let request = http::Request::get(format!("http://gateway.test{TARGET}"))
        .header("x-api-key", API_KEY)
        .header("x-forwarded-for", forwarded_for)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = within(sender.send_request(request)).await.unwrap();
    driving.abort();
    answer.status().as_u16()
}

#[tokio::test]
async fn two_headers_that_disagree_are_refused_unless_the_file_says_which() {
    let log = Log::listen();
    let both = get(
        TARGET,
        "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.8\r\n",
    );
    let unsaid = rig("trusted_proxies: 127.0.0.1").await;
    let record = refused(&unsaid, &log, PROXY, &both, PROXY).await;
    assert_eq!(record["cause"], "two_clients");
    for (header, expected) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("forwarded", "203.0.113.8"),
    ] {
        let rig = rig(&format!(
            "trusted_proxies: [127.0.0.1], forwarded_header: {header}"
        ))
        .await;
        assert_eq!(told(&rig, &log, PROXY, &both).await, expected);
    }
}

#[tokio::test]
async fn from_anybody_else_they_say_nothing() {
    let log = Log::listen();
    for listener in [
        "h2c: false",
        "trusted_proxies: [127.0.0.1]",
        "trusted_proxies: [127.0.0.1], forwarded_header: forwarded",
        "trusted_proxies: [10.0.0.0/8, 127.0.0.1/32, \"::/16\"]",
    ] {
        let rig = rig(listener).await;
        for lines in [
            "X-Forwarded-For: 203.0.113.7\r\n",
            "X-Forwarded-For: 127.0.0.1\r\n",
            "X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\nX-Forwarded-For: 10.0.0.3\r\n",
            "Forwarded: for=203.0.113.7\r\n",
            "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.8\r\n",
            "X-Real-IP: 203.0.113.7\r\nCF-Connecting-IP: 203.0.113.7\r\nTrue-Client-IP: 203.0.113.7\r\n",
        ] {
            assert_eq!(
                told(&rig, &log, STRANGER, get(TARGET, lines)).await,
                STRANGER,
                "{listener}: {lines}"
            );
        }
        // A PROXY header is no request where none is expected, trusted or not.
        for from in [STRANGER, PROXY] {
            let bytes = V4.to_owned() + &get(TARGET, "");
            refused(&rig, &log, from, bytes, from).await;
        }
    }
}

/// Pages of a browser route, with what a proxy says.
fn page(forwarded_for: &str) -> String {
    format!(
        "GET /widget/@api/deki/site/query?q=x HTTP/1.1\r\nHost: x\r\nOrigin: https://a.apps.example.com\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n"
    )
}

/// How many of five requests in a row are limited.
async fn limited(rig: &Rig, from: &str, request: impl Fn(usize) -> String) -> usize {
    let mut limited = 0;
    for turn in 0..5 {
        let answer = send(rig, from, request(turn)).await;
        limited += usize::from(answer.refusal() == "rate_limited");
    }
    limited
}

#[tokio::test]
async fn clients_of_one_proxy_share_no_budget() {
    const LIMITS: &str = "limits: { per_address: { requests_per_second: 1, burst: 2 }, unidentified: { requests_per_second: 1, burst: 2 } }";
    let text = format!(
        "{}\n{LIMITS}\n",
        with_listener("trusted_proxies: [127.0.0.1]")
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let unknown = |client: &str| {
        get(TARGET, &format!("X-Forwarded-For: {client}\r\n")).replace(API_KEY, "cs_nobody")
    };
    for request in [&page as &dyn Fn(&str) -> String, &unknown] {
        assert!(limited(&rig, PROXY, |_| request("203.0.113.7")).await >= 2);
        let other = send(&rig, PROXY, request("203.0.113.8")).await;
        assert_ne!(other.refusal(), "rate_limited", "another client's budget");
        // What stands to the left of what the proxy added changes nothing.
        let forged = |turn| request(&format!("192.0.2.{turn}, 203.0.113.7"));
        assert!(limited(&rig, PROXY, forged).await >= 3);
        // A stranger's headers do not lead out of its own budget, nor into another's.
        let forged = |turn| request(&format!("192.0.2.{turn}"));
        assert!(limited(&rig, STRANGER, forged).await >= 2);
        let spared = send(&rig, PROXY, request("192.0.2.1")).await;
        assert_ne!(spared.refusal(), "rate_limited");
    }
}

#[tokio::test]
async fn a_proxy_may_hold_more_connections_than_one_client() {
    let text = format!(
        "{}\nlimits: {{ connections_per_address: 3 }}\n",
        with_listener("trusted_proxies: [127.0.0.1]")
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut wire = connect(PROXY, rig.gateway.address).await;
        wire.write(get(TARGET, "")).await;
        assert_eq!(wire.answer().await.status, 200);
        held.push(wire);
    }
    for turn in 0..4 {
        let mut wire = connect(STRANGER, rig.gateway.address).await;
        wire.write(get(TARGET, "X-Forwarded-For: 203.0.113.7\r\n"))
            .await;
        assert_eq!(wire.try_answer("GET").await.is_some(), turn < 3);
        held.push(wire);
    }
}

#[tokio::test]
async fn a_proxy_header_names_the_client() {
    let log = Log::listen();
    let rig =
        rig("proxy_protocol: required, h2c: true, trusted_proxies: [127.0.0.1, 10.0.0.0/8]").await;
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [
            b"\r\n\r\n\0\r\nQUIT\n",
            &[command, family][..],
            &length,
            rest,
        ]
        .concat()
    };
    let addresses = [203, 0, 113, 7, 10, 0, 0, 5, 0xdc, 4, 1, 0xbb];
    let forged = "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.5\r\n";
    for (header, expected) in [
        (V4.into(), "203.0.113.7"),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::5 56324 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.0.0.5 56324 443\r\n".to_vec(),
            "203.0.113.7",
        ),
        (v2(0x21, 0x11, &addresses), "203.0.113.7"),
        // Nobody is named: the proxy itself, which says nothing more.
        (b"PROXY UNKNOWN\r\n".to_vec(), PROXY),
        (v2(0x20, 0, b""), PROXY),
        (v2(0x20, 0x11, &addresses), PROXY),
        (v2(0x21, 0, b""), PROXY),
        (v2(0x21, 0x31, &[b'/'; 216]), PROXY),
    ] {
        for lines in ["", forged] {
            let bytes = [&header[..], get(TARGET, lines).as_bytes()].concat();
            assert_eq!(told(&rig, &log, PROXY, bytes).await, expected);
        }
    }
    // Another trusted proxy that is named may say from where its requests come.
    let second = "PROXY TCP4 10.0.0.3 10.0.0.5 56324 443\r\n";
    let bytes = second.to_owned() + &get(TARGET, "X-Forwarded-For: 1.2.3.4, 203.0.113.9\r\n");
    assert_eq!(told(&rig, &log, PROXY, bytes).await, "203.0.113.9");
    assert_eq!(h2(&rig, V4, "1.2.3.4").await, 200);
    assert_eq!(rig.site.take()[0].header("x-forwarded-for"), "203.0.113.7");
    // One header; a client's own after it is no request.
    for again in [V4.as_bytes(), &v2(0x21, 0x11, &addresses)] {
        let bytes = [V4.as_bytes(), again, get(TARGET, "").as_bytes()].concat();
        refused(&rig, &log, PROXY, bytes, "203.0.113.7").await;
    }
}

#[tokio::test]
async fn without_a_good_proxy_header_there_is_no_answer() {
    let log = Log::listen();
    let text = format!(
        "{}\nlimits: {{ header_timeout: 1s }}\n",
        with_listener("proxy_protocol: required, trusted_proxies: [127.0.0.1]")
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let summed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xcb\0\x71\x07\x0a\0\0\x05\xdc\x04\x01\xbb\x03\0\x04\x3c\xc1\x6d\xfc";
    for bytes in [
        get(TARGET, "").as_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &V4.to_lowercase().into_bytes(),
        b"PROXY TCP4 203.0.113.7 10.0.0.5 056324 443\r\n",
        &[b'P'; 200],
        // Its last bit is wrong.
        summed,
        // Slow ones, and one that never ends.
        b"",
        &V4.as_bytes()[..20],
        &summed[..20],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\0",
    ] {
        let mut wire = connect(PROXY, rig.gateway.address).await;
        wire.write(bytes).await;
        assert!(wire.is_closed().await, "{}", bytes.escape_ascii());
    }
    // From whom nothing is believed, not even a good one.
    let mut wire = connect(STRANGER, rig.gateway.address).await;
    wire.write(V4.to_owned() + &get(TARGET, "")).await;
    assert!(wire.is_closed().await);
    until("all are closed", || rig.gateway.shared.slots.open() == 0).await;
    assert!(rig.site.take().is_empty());
    assert!(log.named("exchange").is_empty());
    let warnings = log.named("connection closed");
    assert_eq!(warnings.len(), 1, "once a minute: {warnings:?}");
    assert_eq!(warnings[0]["from"], PROXY);
    let reason = warnings[0]["reason"].as_str().unwrap();
    assert!(reason.contains("send-proxy-v2"), "{reason}");
    assert_eq!(
        told(&rig, &log, PROXY, V4.to_owned() + &get(TARGET, "")).await,
        "203.0.113.7"
    );
}

#[tokio::test]
async fn connections_are_those_of_the_client_that_is_named() {
    let text = format!(
        "{}\nlimits: {{ connections_per_address: 3 }}\n",
        with_listener("proxy_protocol: required, trusted_proxies: [127.0.0.1]")
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let open = async |header: &str| {
        let mut wire = connect(PROXY, rig.gateway.address).await;
        wire.write(header.to_owned() + &get(TARGET, "")).await;
        wire.try_answer("GET").await.map(|answer| {
            assert_eq!(answer.status, 200);
            wire
        })
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open(V4).await.expect("three are allowed"));
    }
    assert!(open(V4).await.is_none(), "a fourth is closed");
    for other in 8..20 {
        let header = V4.replace("113.7", &format!("113.{other}"));
        held.push(open(&header).await.expect("another client's"));
    }
    held.remove(0);
    until("it is given back", || rig.gateway.shared.slots.open() == 14).await;
    assert!(open(V4).await.is_some());
}

/// The order to stop waits for no header.
#[tokio::test]
async fn stopping_waits_for_no_proxy_header() {
    let mut rig = rig("proxy_protocol: required, trusted_proxies: [127.0.0.1]").await;
    let mut wire = connect(PROXY, rig.gateway.address).await;
    wire.write(&V4[..10]).await;
    until("it is there", || rig.gateway.shared.slots.open() == 1).await;
    rig.gateway.tell_to_stop();
    within(rig.gateway.stopped()).await;
    assert!(
        tokio::time::timeout(Duration::from_secs(20), wire.is_closed())
            .await
            .unwrap()
    );
}
