//! HTTP/2 by prior knowledge, where a listener speaks it: the same judgement, and the protocol's own
//! floods cost their sender the connection.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::harness::{API_KEY, PATIENCE, ROUTES, Reply, Rig, Wire, get, until, within};

fn with_h2c() -> String {
    ROUTES.replace(
        "{ address: \"127.0.0.1:0\" }]",
        "{ address: \"127.0.0.1:0\", h2c: true }]",
    )
}

async fn rig() -> Rig {
    Rig::with(&with_h2c(), |seen| {
        if seen.target.contains("slow") {
            Reply::Hang(Vec::new())
        } else {
            Reply::with(
                "Set-Cookie: a=b\r\nX-Deki-Session: 1:a\r\n",
                &format!("{}", seen.body.len()),
            )
        }
    })
    .await
}

/// A decent client's request.
async fn ask(
    rig: &Rig,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> (u16, String, String) {
    let stream = TcpStream::connect(rig.gateway.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://gateway.test{target}"))
        .header("x-api-key", API_KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(body))).unwrap();
    let answer = within(sender.send_request(request)).await.unwrap();
    let status = answer.status().as_u16();
    let refusal = answer
        .headers()
        .get("x-countersign-refusal")
        .map_or(String::new(), |code| code.to_str().unwrap().to_owned());
    assert!(!answer.headers().contains_key("set-cookie"));
    let body = within(answer.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    driving.abort();
    (status, refusal, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_judgement() {
    let rig = rig().await;
    for target in [
        "/crm/@api/deki/pages/=A%252FB?x=%2B+y",
        "/crm/%40api/deki/users/current",
    ] {
        let (status, _, _) = ask(
            &rig,
            "GET",
            target,
            &[("cookie", "authtoken=1"), ("x-dream-origin", "x")],
            b"",
        )
        .await;
        assert_eq!(status, 200, "{target}");
        let seen = rig.site.only();
        assert_eq!(seen.target, &target[4..], "byte for byte");
        assert_eq!(seen.user(), "=crm-bot");
        assert!(
            !seen.has("cookie") && !seen.has("x-dream-origin") && !seen.has("x-api-key"),
            "{seen:?}"
        );
        assert_eq!(seen.header("host"), rig.site.address.to_string());
    }
    let (status, _, body) = ask(
        &rig,
        "POST",
        "/write/@api/deki/pages/home/contents",
        &[("content-type", "text/plain")],
        b"hello",
    )
    .await;
    assert_eq!((status, body.as_str()), (200, "5"));
    assert_eq!(rig.site.only().body, b"hello");
    for (method, target, headers, code) in [
        (
            "GET",
            "/crm/@api/deki/users/%61uthenticate",
            &[][..],
            "mints_credentials",
        ),
        ("GET", "/crm/@api/%2e%2e/x", &[], "bad_target"),
        ("GET", "/crm//@api/deki/x", &[], "bad_target"),
        (
            "GET",
            "/crm/@api/deki/pages/home?authtoken=1",
            &[],
            "caller_sent_token",
        ),
        (
            "GET",
            "/crm/@api/deki/pages/home",
            &[("x-deki-token", "tkn_1")],
            "caller_sent_token",
        ),
        (
            "GET",
            "/crm/@api/deki/pages/home",
            &[("origin", "https://evil.test")],
            "origin_not_allowed",
        ),
        (
            "GET",
            "/crm/@api/deki/pages/home",
            &[("host", "other.test")],
            "bad_message",
        ),
        (
            "TRACE",
            "/crm/@api/deki/pages/home",
            &[],
            "method_not_supported",
        ),
        (
            "FROB",
            "/crm/@api/deki/pages/home",
            &[],
            "method_not_supported",
        ),
        (
            "DELETE",
            "/crm/@api/deki/pages/home",
            &[],
            "capability_missing",
        ),
        ("GET", "/nowhere", &[], "no_route"),
    ] {
        let (status, refusal, _) = ask(&rig, method, target, headers, b"").await;
        assert!(status >= 400, "{method} {target}");
        assert_eq!(refusal, code, "{method} {target} {headers:?}");
    }
    assert_eq!(rig.site.count(), 0);
    // Other listeners do not speak it, and HTTP/1.1 works beside it.
    assert_eq!(rig.get("/crm/@api/deki/pages/home", "").await.status, 200);
    let plain = Rig::start().await;
    let mut wire = plain.gateway.connect().await;
    wire.write(PREFACE).await;
    wire.write(frame(SETTINGS, 0, 0, b"")).await;
    wire.finish().await;
    assert!(
        !wire.rest().await.starts_with(b"\0\0"),
        "no HTTP/2 where it was not asked for"
    );
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header fields as literals without indexing and without Huffman coding (RFC 7541 section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

fn request(target: &str) -> Vec<u8> {
    fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", target),
        ("x-api-key", API_KEY),
    ])
}

async fn raw(rig: &Rig) -> Wire {
    let mut wire = rig.gateway.connect().await;
    wire.write(PREFACE).await;
    wire.write(frame(SETTINGS, 0, 0, b"")).await;
    wire
}

/// Others are served while, and after, somebody floods.
async fn others_are_served(rig: &Rig) {
    let answer = tokio::time::timeout(
        PATIENCE,
        rig.gateway.send(get("/crm/@api/deki/pages/home", "")),
    )
    .await;
    assert_eq!(answer.expect("others wait for a flood").status, 200);
}

/// Sends until the gateway hangs up; fails if it never does.
async fn until_cut(wire: &mut Wire, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut reading, mut writing) = wire.stream.split();
    let sent = std::sync::atomic::AtomicU32::new(0);
    let flooding = async {
        for number in 0..200_000 {
            if writing.write_all(&next(number)).await.is_err() {
                return;
            }
            sent.store(number, Ordering::Relaxed);
        }
    };
    let draining = async {
        let mut buffer = vec![0; 64 * 1024];
        while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::select! {
        () = flooding => {}
        () = draining => {}
        () = tokio::time::sleep(PATIENCE) => panic!("a flood goes on and on"),
    }
    sent.load(Ordering::Relaxed)
}

/// Opens stream after stream to a slow page, each followed by a frame that ends it, until cut.
async fn flood_of_streams(ending: impl Fn(u32) -> Vec<u8>) {
    let rig = rig().await;
    let mut wire = raw(&rig).await;
    let block = request("/crm/@api/deki/pages/slow");
    let sent = until_cut(&mut wire, |number| {
        let stream = 2 * number + 1;
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        bytes.extend(ending(stream));
        bytes
    })
    .await;
    assert!(sent < 150_000, "cut after {sent}");
    let arrived = rig.site.count();
    assert!(arrived < 5000, "the site is spared: {arrived}");
    others_are_served(&rig).await;
    drop(wire);
    until("nothing stays behind", || {
        rig.gateway.shared.in_flight.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset() {
    // CVE-2023-44487
    flood_of_streams(|stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_you_reset() {
    // An increment of nothing makes the other side reset the stream (CVE-2025-8671).
    flood_of_streams(|stream| frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn continuation_flood() {
    let rig = rig().await;
    let mut wire = raw(&rig).await;
    let block = request("/crm/@api/deki/pages/home");
    let more = fields(&[("x-a", &"b".repeat(100))]).repeat(100);
    let sent = until_cut(&mut wire, |number| match number {
        0 => frame(HEADERS, END_STREAM, 1, &block),
        _ => frame(CONTINUATION, 0, 1, &more),
    })
    .await;
    assert!(sent < 10_000, "cut after {sent}");
    assert_eq!(rig.site.count(), 0);
    others_are_served(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_compression_bomb() {
    let rig = rig().await;
    let mut wire = raw(&rig).await;
    // One large field into the table, then thousands of references of one byte each.
    let mut block = request("/crm/@api/deki/pages/home");
    block.push(0x40);
    block.extend([3]);
    block.extend(b"x-a");
    // 3000 bytes, its length as an integer with a prefix of seven bits.
    block.extend([0x7f, 0xb9, 0x16]);
    block.extend("b".repeat(3000).as_bytes());
    block.extend(vec![0x80 | 62; 10_000]);
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    wire.write(bytes).await;
    wire.write(frame(PING, 0, 0, &[0; 8])).await;
    wire.finish().await;
    drop(within(wire.rest()).await);
    assert_eq!(
        rig.site.count(),
        0,
        "thirty megabytes of header fields are no request"
    );
    others_are_served(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_small_frames() {
    let rig = rig().await;
    for (name, bytes) in [
        ("settings", frame(SETTINGS, 0, 0, b"")),
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("empty frames of no kind", frame(0xfe, 0, 0, b"")),
    ] {
        let mut wire = raw(&rig).await;
        let flood = bytes.repeat(20_000);
        // Whoever does not read what it asks for is not waited for for ever.
        wire.write(&flood).await;
        let answer = tokio::time::timeout(
            Duration::from_secs(20),
            rig.gateway.send(get("/crm/@api/deki/pages/home", "")),
        )
        .await;
        assert_eq!(answer.expect("others wait").status, 200, "{name}");
    }
    rig.site.take();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_none() {
    let rig = rig().await;
    let base = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", "/crm/@api/deki/pages/home"),
        ("x-api-key", API_KEY),
    ];
    let with = |more: &[(&str, &str)]| fields(&[&base[..], more].concat());
    let mut wire = raw(&rig).await;
    wire.write(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &with(&[("x-a", "b")]),
    ))
    .await;
    until("a sound one arrives", || rig.site.count() == 1).await;
    rig.site.take();
    for (name, block) in [
        ("upper_case_name", with(&[("X-Upper", "a")])),
        ("connection_header", with(&[("connection", "x-api-key")])),
        (
            "transfer_encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("te_other_than_trailers", with(&[("te", "gzip")])),
        ("line_feed_in_value", with(&[("x-a", "b\nx-deki-token: 1")])),
        (
            "carriage_return_in_value",
            with(&[("x-a", "b\r\nx-deki-token: 1")]),
        ),
        ("nul_in_value", with(&[("x-a", "b\0")])),
        ("colon_in_name", with(&[("x-a:x-b", "b")])),
        (
            "pseudo_header_twice",
            with(&[(":path", "/crm/@api/deki/users/authenticate")]),
        ),
        (
            "pseudo_header_behind",
            with(&[("x-a", "b"), (":scheme", "http")]),
        ),
        ("unknown_pseudo_header", with(&[(":protocol", "websocket")])),
        ("no_path", fields(&[base[0], base[1], base[2], base[4]])),
        (
            "empty_path",
            fields(&[base[0], base[1], base[2], (":path", ""), base[4]]),
        ),
        (
            "path_without_slash",
            fields(&[
                base[0],
                base[1],
                base[2],
                (":path", "crm/@api/deki/pages/home"),
                base[4],
            ]),
        ),
        (
            "path_with_blank",
            fields(&[
                base[0],
                base[1],
                base[2],
                (":path", "/crm/@api/deki/pages/home HTTP/1.1"),
                base[4],
            ]),
        ),
        (
            "method_with_blank",
            fields(&[
                (":method", "GET /x HTTP/1.1"),
                base[1],
                base[2],
                base[3],
                base[4],
            ]),
        ),
        (
            "authority_with_user",
            fields(&[
                base[0],
                base[1],
                (":authority", "a@gateway.test"),
                base[3],
                base[4],
            ]),
        ),
        (
            "no_authority",
            fields(&[base[0], base[1], base[3], base[4]]),
        ),
        (
            "length_of_a_body_that_is_not_there",
            with(&[("content-length", "5")]),
        ),
    ] {
        let mut wire = raw(&rig).await;
        wire.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
            .await;
        wire.finish().await;
        drop(within(wire.rest()).await);
        let seen = rig.site.take();
        assert!(seen.is_empty(), "{name}: {seen:?}");
    }
    others_are_served(&rig).await;
}

fn upload(target: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let base = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", target),
        ("x-api-key", API_KEY),
    ];
    fields(&[&base[..], more].concat())
}

const WRITE: &str = "/write/@api/deki/pages/home/contents";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_makes_one_message_however_it_ends() {
    let rig = rig().await;
    for (name, more, frames) in [
        (
            "in its last frame",
            &[][..],
            vec![frame(DATA, END_STREAM, 1, b"hello")],
        ),
        (
            "with an empty frame",
            &[],
            vec![frame(DATA, 0, 1, b"hello"), frame(DATA, END_STREAM, 1, b"")],
        ),
        (
            "with empty frames inside",
            &[],
            vec![
                frame(DATA, 0, 1, b""),
                frame(DATA, 0, 1, b"he"),
                frame(DATA, 0, 1, b""),
                frame(DATA, END_STREAM, 1, b"llo"),
            ],
        ),
        (
            "padded",
            &[],
            vec![frame(DATA, END_STREAM | PADDED, 1, b"\x03hello\0\0\0")],
        ),
        (
            "with trailers",
            &[],
            vec![
                frame(DATA, 0, 1, b"hello"),
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &fields(&[("x-deki-token", "evil")]),
                ),
            ],
        ),
        (
            "where it says, and an empty frame",
            &[("content-length", "5")],
            vec![frame(DATA, 0, 1, b"hello"), frame(DATA, END_STREAM, 1, b"")],
        ),
    ] {
        let mut wire = raw(&rig).await;
        wire.write(frame(HEADERS, END_HEADERS, 1, &upload(WRITE, more)))
            .await;
        for frame in frames {
            wire.write(frame).await;
        }
        until(name, || rig.site.count() == 1).await;
        let seen = rig.site.only();
        assert!(
            seen.is_complete && seen.body == b"hello",
            "{name}: {seen:?}"
        );
        assert!(!format!("{seen:?}").contains("evil"), "{name}");
        // Whatever came after it on that connection to the site would be answered to this one.
        let answer = rig.get("/write/@api/deki/pages/home", "").await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "0"),
            "{name}"
        );
        assert_eq!(rig.site.only().method, "GET", "{name}");
    }
    // A body where none was announced is no message at all.
    let mut wire = raw(&rig).await;
    wire.write(frame(
        HEADERS,
        END_HEADERS,
        1,
        &upload(WRITE, &[("content-length", "0")]),
    ))
    .await;
    wire.write(frame(DATA, END_STREAM, 1, b"hello")).await;
    wire.finish().await;
    drop(within(wire.rest()).await);
    for seen in rig.site.take() {
        assert!(
            seen.body.is_empty() && seen.header("content-length") == "0",
            "{seen:?}"
        );
    }
    others_are_served(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_a_stream() {
    let text = with_h2c().replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { response: 500ms }",
    ) + "\nlimits: { body_grace: 1s, body_rate_min: 1KiB }\n";
    let rig = Rig::with(&text, |seen| {
        if seen.target.contains("silent") {
            Reply::Hang(Vec::new())
        } else {
            Reply::with("", &"x".repeat(300_000))
        }
    })
    .await;
    let silent = "/write/@api/deki/pages/silent/contents";
    let (status, code, _) = ask(&rig, "POST", silent, &[], b"hello").await;
    assert_eq!((status, code.as_str()), (504, "site_timeout"));
    rig.site.take();
    // A body that does not come.
    let mut wire = raw(&rig).await;
    wire.write(frame(HEADERS, END_HEADERS, 1, &upload(WRITE, &[])))
        .await;
    wire.write(frame(DATA, 0, 1, b"he")).await;
    until("it is refused", || {
        rig.gateway
            .shared
            .telemetry
            .refused(countersign::policy::Refusal::RequestTimeout)
            == 1
    })
    .await;
    // An answer that nobody takes: no window is ever opened for it.
    let mut held = raw(&rig).await;
    held.write(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    for stream in [1, 3, 5] {
        let block = request("/crm/@api/deki/files/1/big");
        held.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block))
            .await;
    }
    let under_way = &rig.gateway.shared.in_flight;
    until("the site is asked", || rig.site.count() >= 3).await;
    until("nobody holds the site for ever", || {
        under_way.load(Ordering::SeqCst) == 0
    })
    .await;
    assert!(
        rig.gateway.shared.telemetry.connections().1 >= 4,
        "and is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_of_one_stream_is_not_its_siblings() {
    let rig = rig().await;
    let mut wire = raw(&rig).await;
    let good = request("/crm/@api/deki/pages/home");
    let bad = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a@gateway.test"),
        (":path", "/crm/@api/deki/pages/home"),
        ("x-api-key", API_KEY),
    ]);
    for stream in 0..60 {
        let block = if stream % 2 == 0 { &good } else { &bad };
        wire.write(frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            2 * stream + 1,
            block,
        ))
        .await;
    }
    until("every good one arrives", || rig.site.count() == 30).await;
    until("every bad one is refused, with a code and a record", || {
        rig.gateway
            .shared
            .telemetry
            .refused(countersign::policy::Refusal::BadMessage(
                countersign::policy::fault::MessageFault::Line,
            ))
            == 30
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_hold_few_connections_to_the_site() {
    let text = with_h2c() + "\nlimits: { body_grace: 1s, body_rate_min: 1KiB }\n";
    let rig = Rig::with(&text, |_| Reply::with("", &"x".repeat(300_000))).await;
    let of_page = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", "/widget/@api/deki/pages/home"),
        ("origin", "https://crm.example.com"),
    ]);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut wire = raw(&rig).await;
        wire.write(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
        for stream in 0..50 {
            let ends = END_HEADERS | END_STREAM;
            wire.write(frame(HEADERS, ends, 2 * stream + 1, &of_page))
                .await;
        }
        held.push(wire);
    }
    let shared = &rig.gateway.shared;
    let refused = || {
        let telemetry = &shared.telemetry;
        telemetry.refused(countersign::policy::Refusal::ConcurrencyLimited)
    };
    until("most of them are refused", || refused() >= 200 - 64).await;
    assert!(rig.site.connections() <= 64, "{}", rig.site.connections());
    until("the others are let go", || {
        shared.in_flight.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(rig.get("/crm/@api/deki/pages/home", "").await.status, 200);
}

/// The error code with which a stream is reset, or nothing if its answer ends.
async fn reset_of(wire: &mut Wire, stream: u32) -> Option<u32> {
    use tokio::io::AsyncReadExt;
    loop {
        let mut head = [0; 9];
        wire.stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, rest @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        wire.stream.read_exact(&mut payload).await.unwrap();
        if u32::from_be_bytes(rest) != stream {
            continue;
        }
        match kind {
            RST_STREAM => return Some(u32::from_be_bytes(payload.try_into().unwrap())),
            HEADERS | DATA if flags & END_STREAM != 0 => return None,
            _ => {}
        }
    }
}

/// What stands raw in a target is judged by the protocol's library before the gateway sees it: some
/// bytes reset the stream, the others end as on HTTP/1.1. Client libraries encode all of them.
#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_in_a_target() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Forwarded,
        Cut,
        Refused,
        Reset,
    }
    use End::{Cut, Forwarded, Refused, Reset};
    let rig = rig().await;
    let mut wire = raw(&rig).await;
    for (number, (byte, in_path, in_query)) in [
        ('"', Refused, Reset),
        ('<', Reset, Reset),
        ('>', Reset, Reset),
        ('{', Refused, Forwarded),
        ('}', Refused, Forwarded),
        ('|', Refused, Forwarded),
        ('^', Refused, Forwarded),
        ('[', Refused, Forwarded),
        (']', Refused, Forwarded),
        ('`', Reset, Forwarded),
        ('\'', Forwarded, Forwarded),
        (' ', Reset, Reset),
        ('\\', Refused, Forwarded),
        ('\u{1}', Reset, Reset),
        ('\u{7f}', Reset, Reset),
        ('\u{e9}', Refused, Refused),
        ('#', Cut, Cut),
    ]
    .into_iter()
    .enumerate()
    {
        for (which, target, expected) in [
            (0, format!("/crm/@api/deki/pages/=a{byte}b"), in_path),
            (1, format!("/crm/@api/deki/pages?q=a{byte}b"), in_query),
        ] {
            let stream = 4 * u32::try_from(number).unwrap() + 2 * which + 1;
            let opening = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request(&target));
            wire.write(opening).await;
            let reset = within(reset_of(&mut wire, stream)).await;
            let seen = rig.site.take();
            let seen: Vec<_> = seen.iter().map(|seen| &*seen.target).collect();
            let end = match (reset, &seen[..]) {
                (Some(1), []) => Reset,
                (None, []) => Refused,
                (None, [one]) if *one == &target[4..] => Forwarded,
                (None, [one]) if target[4..].starts_with(&format!("{one}#")) => Cut,
                other => panic!("{target}: {other:?}"),
            };
            assert_eq!(end, expected, "{target}");
        }
    }
    // What is no UTF-8 costs the connection.
    let mut block = request("/crm/@api/deki/pages?q=~~");
    let at = block.windows(2).position(|two| two == b"~~").unwrap();
    block[at] = 0xff;
    wire.write(frame(HEADERS, END_HEADERS | END_STREAM, 101, &block))
        .await;
    drop(within(wire.rest()).await);
    assert_eq!(rig.site.count(), 0);
    others_are_served(&rig).await;
}
