//! Both directions at once: early answers, pauses, callers that wait to be told, callers of old, and
//! answers framed anew.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{API_KEY, Gateway, OTHER_KEY, ROUTES, Reply, Rig, Wire, get, until, within};

const TARGET: &str = "/crm/@api/deki/pages/home";
const WRITE: &str = "/write/@api/deki/pages/home/contents";

fn post(lines: &str, body: &str) -> String {
    format!("POST {WRITE} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{lines}\r\n{body}")
}

/// A site whose every connection is served by `serve`.
async fn raw_site<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads a request's head; what came after it.
async fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap(), rest));
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Reads bytes until `wanted` is among them.
async fn read_until(wire: &mut Wire, wanted: &str) -> String {
    let mut bytes = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&bytes).contains(wanted) {
            let count = wire.stream.read_buf(&mut bytes).await.unwrap();
            assert!(
                count > 0,
                "closed after {}",
                String::from_utf8_lossy(&bytes)
            );
        }
    })
    .await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_good_request_before_a_bad_one_gets_its_own_answer() {
    let rig = Rig::with(ROUTES, |seen| Reply::with("", &seen.target)).await;
    for bad in [
        "GET  /x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "\u{16}\u{3}\u{1}",
        "GET /x HTTP/1.1\nHost: x\n\n",
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut wire = rig.gateway.connect().await;
        wire.write(format!("{}{bad}", get(TARGET, ""))).await;
        let first = wire.answer().await;
        assert_eq!(
            (first.status, first.text().as_str()),
            (200, "/@api/deki/pages/home"),
            "{bad:?}"
        );
        let second = wire.answer().await;
        second.refused(400, "bad_message");
        assert_ne!(second.header("x-request-id"), first.header("x-request-id"));
        assert_eq!(second.header("connection"), "close");
        assert!(wire.is_closed().await);
        rig.site.only();
    }
}

#[tokio::test]
async fn half_a_head_after_a_good_request_is_not_waited_for_without_end() {
    let text = format!("{ROUTES}\nlimits: {{ header_timeout: 1s }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut wire = rig.gateway.connect().await;
    wire.write(format!("{}GET /x HTTP/1.1\r\nHo", get(TARGET, "")))
        .await;
    assert_eq!(wire.answer().await.status, 200);
    wire.answer().await.refused(408, "request_timeout");
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn an_answer_before_the_upload_is_over_is_delivered() {
    let closed = std::sync::Arc::new(AtomicUsize::new(0));
    let seen_closed = std::sync::Arc::clone(&closed);
    let site = raw_site(move |mut stream| {
        let closed = std::sync::Arc::clone(&seen_closed);
        async move {
            while let Some((head, _)) = read_head(&mut stream).await {
                let answer = if head.starts_with("POST") {
                    "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if head.starts_with("POST") {
                    // The rest of the upload does not come, and the connection ends.
                    let mut rest = Vec::new();
                    drop(stream.read_to_end(&mut rest).await);
                    assert!(rest.len() < 40 << 20, "{}", rest.len());
                    closed.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(ROUTES, site).await;
    for lines in [
        "Content-Length: 60000000\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let mut wire = gateway.connect().await;
        wire.write(post(lines, "")).await;
        if lines.starts_with("Transfer") {
            wire.write("10\r\n0123456789abcdef\r\n").await;
        } else {
            wire.write("0123456789abcdef").await;
        }
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
        assert_eq!(
            answer.header("connection"),
            "close",
            "what comes then is no request"
        );
        wire.write("GET /x HTTP/1.1\r\n\r\n").await;
        wire.finish().await;
        assert!(wire.is_closed().await);
    }
    until("the connections to the site end", || {
        closed.load(Ordering::SeqCst) == 2
    })
    .await;
    assert_eq!(gateway.send(get(TARGET, "")).await.text(), "ok");
}

#[tokio::test]
async fn what_the_site_said_goes_on_when_it_pauses() {
    let (go, gone) = tokio::sync::watch::channel(0);
    let site = raw_site(move |mut stream| {
        let mut gone = gone.clone();
        async move {
            while let Some((head, _)) = read_head(&mut stream).await {
                let pieces = if head.contains("chunked") {
                    [
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                        "5\r\nfirst\r\n",
                        "6\r\nsecond\r\n0\r\n\r\n",
                    ]
                } else {
                    [
                        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n",
                        "first",
                        "second",
                    ]
                };
                for (number, piece) in (0..).zip(pieces) {
                    gone.wait_for(|went| *went >= number).await.unwrap();
                    stream.write_all(piece.as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(ROUTES, site).await;
    for target in [TARGET.to_owned(), format!("{TARGET}?chunked")] {
        go.send_replace(0);
        let mut wire = gateway.connect().await;
        wire.write(get(&target, "")).await;
        let head = read_until(&mut wire, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "the head alone: {head}");
        go.send_replace(1);
        read_until(&mut wire, "first").await;
        go.send_replace(2);
        read_until(&mut wire, "second").await;
    }
}

#[tokio::test]
async fn callers_that_wait_to_be_told() {
    let site = raw_site(|mut stream| async move {
        while let Some((head, rest)) = read_head(&mut stream).await {
            assert!(rest.is_empty(), "nobody sends before it is told");
            assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
            if head.contains("no") {
                drop(
                    stream
                        .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                        .await,
                );
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest).await);
                assert!(rest.is_empty());
                return;
            }
            stream
                .write_all(
                    b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\nX: y\r\n\r\n",
                )
                .await
                .unwrap();
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    })
    .await;
    let gateway = Gateway::start(ROUTES, site).await;
    let mut wire = gateway.connect().await;
    for _ in 0..2 {
        wire.write(post("Content-Length: 5\r\nExpect: 100-continue\r\n", ""))
            .await;
        let told = read_until(&mut wire, "\r\n\r\n").await;
        assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n", "and nothing else");
        wire.write("hello").await;
        assert_eq!(wire.answer().await.text(), "ok");
    }
    // The site's no comes instead, and whether the body follows is unclear.
    let mut wire = gateway.connect().await;
    let refused = post("Content-Length: 5\r\nExpect: 100-continue\r\n", "").replace("home", "no");
    wire.write(refused).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (413, "close"));
    // Our own no, too.
    let mut wire = gateway.connect().await;
    let refused =
        post("Content-Length: 5\r\nExpect: 100-continue\r\n", "").replace("/write", "/crm");
    wire.write(refused).await;
    let answer = wire.answer().await;
    answer.refused(403, "capability_missing");
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn nobody_waits_to_be_told_for_ever() {
    let text = ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { response: 500ms }",
    );
    let site =
        raw_site(|mut stream| async move { while read_head(&mut stream).await.is_some() {} }).await;
    let gateway = Gateway::start(&text, site).await;
    let answer = gateway
        .send(post("Content-Length: 5\r\nExpect: 100-continue\r\n", ""))
        .await;
    answer.refused(504, "site_timeout");
}

#[tokio::test]
async fn a_site_has_so_long_in_all() {
    let text = ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { total: 700ms }",
    );
    // It lives, but never answers.
    let site = raw_site(|mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            while stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&text, site).await;
    gateway
        .send(get(TARGET, ""))
        .await
        .refused(504, "site_timeout");
}

#[tokio::test]
async fn callers_of_old_get_what_they_understand() {
    let rig = Rig::with(ROUTES, |seen| {
        if seen.target.contains("chunked") {
            Reply::Bytes(
                b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
            )
        } else {
            Reply::with("", "hello")
        }
    })
    .await;
    let old = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.0\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{more}\r\n")
    };
    let mut wire = rig.gateway.connect().await;
    wire.write(old(
        &format!("{TARGET}?chunked"),
        "Connection: keep-alive\r\n",
    ))
    .await;
    let bytes = String::from_utf8(wire.rest().await).unwrap();
    assert!(bytes.starts_with("HTTP/1.1 200 OK\r\n"), "{bytes}");
    assert!(
        !bytes.to_ascii_lowercase().contains("transfer-encoding"),
        "{bytes}"
    );
    assert!(
        bytes.ends_with("\r\n\r\nhello"),
        "the end of the connection is its end: {bytes}"
    );
    let mut wire = rig.gateway.connect().await;
    wire.write(old(TARGET, "")).await;
    let answer = wire.answer().await;
    assert_eq!(
        (answer.text().as_str(), answer.header("connection")),
        ("hello", "close")
    );
    assert!(wire.is_closed().await);
    let mut wire = rig.gateway.connect().await;
    for _ in 0..2 {
        wire.write(old(TARGET, "Connection: Keep-Alive\r\n")).await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.text().as_str(), answer.header("connection")),
            ("hello", "keep-alive")
        );
    }
}

#[tokio::test]
async fn answers_are_framed_anew() {
    let rig = Rig::with(ROUTES, |seen| {
        let name = seen.target.rsplit('/').next().unwrap();
        let lines = match name {
            "lengths" => "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello",
            "trailers" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
            "error" => "HTTP/1.1 404 Not Found\r\nContent-Length: 5, 5\r\nTrailer: X\r\n\r\nhello",
            "bare" => "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n",
            "same" => "HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\nETag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n",
            "reason" => "HTTP/1.1 200 canary reason\r\nContent-Length: 5\r\n\r\nhello",
            "close" => return Reply::Last(b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec()),
            _ => unreachable!("{name}"),
        };
        Reply::Bytes(lines.as_bytes().to_vec())
    })
    .await;
    for (name, status) in [
        ("lengths", 200),
        ("trailers", 200),
        ("reason", 200),
        ("close", 200),
        ("error", 404),
    ] {
        let answer = rig.get(&format!("/crm/@api/deki/pages/{name}"), "").await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, "hello"),
            "{name}"
        );
        assert_eq!(answer.header("trailer"), "", "{name}");
    }
    for (name, status) in [("bare", 204), ("same", 304)] {
        let mut wire = rig.gateway.connect().await;
        wire.write(get(&format!("/crm/@api/deki/pages/{name}"), ""))
            .await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, status);
        for header in [
            "transfer-encoding",
            "content-length",
            "content-encoding",
            "content-type",
        ] {
            assert_eq!(answer.header(header), "", "{name}: {header}");
        }
        // The connection is at its next request, on both sides.
        wire.write(get("/crm/@api/deki/pages/lengths", "")).await;
        assert_eq!(wire.answer().await.text(), "hello", "{name}");
    }
    assert_eq!(
        rig.get("/crm/@api/deki/pages/same", "")
            .await
            .header("etag"),
        "\"1\""
    );
}

#[tokio::test]
async fn answers_that_read_two_ways_are_none() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 404 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 404 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 1xx OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
    ] {
        let rig = Rig::with(ROUTES, move |_| Reply::Bytes(head.as_bytes().to_vec())).await;
        let answer = rig.get(TARGET, "").await;
        answer.refused(502, "site_invalid_answer");
        rig.get(TARGET, "")
            .await
            .refused(502, "site_invalid_answer");
        assert_eq!(
            rig.site.connections(),
            2,
            "such a connection is not used again: {head:?}"
        );
    }
}

#[tokio::test]
async fn chunked_reads_without_a_byte_are_reads_without_a_body() {
    let rig = Rig::start().await;
    let chunked = |body: &str| get(TARGET, "Transfer-Encoding: chunked\r\n") + body;
    let mut wire = rig.gateway.connect().await;
    for body in ["0\r\n\r\n", "0;a=b\r\nX: y\r\n\r\n"] {
        wire.write(chunked(body)).await;
        assert_eq!(wire.answer().await.status, 200);
        let seen = rig.site.only();
        assert!(
            !seen.has("transfer-encoding") && !seen.has("content-length"),
            "{seen:?}"
        );
    }
    // In pieces, too.
    wire.write(chunked("0")).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    wire.write("\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
    rig.site.only();
    wire.write(chunked("1\r\na\r\n0\r\n\r\n")).await;
    wire.answer().await.refused(400, "bad_message");
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn a_connection_that_speaks_while_it_is_idle_is_closed() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let site = raw_site(move |mut stream| {
        let mut gone = gone.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.unwrap();
            gone.wait_for(|went| *went).await.unwrap();
            drop(
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
                    .await,
            );
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            assert!(rest.is_empty(), "nothing is asked there any more");
        }
    })
    .await;
    let gateway = Gateway::start(ROUTES, site).await;
    assert_eq!(gateway.send(get(TARGET, "")).await.text(), "ok");
    go.send_replace(true);
    // Once the bytes are there; loopback takes no time worth naming.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..3 {
        assert_eq!(gateway.send(get(TARGET, "")).await.text(), "ok");
    }
}

#[tokio::test]
async fn users_share_no_connection() {
    let rig = Rig::start().await;
    let mut connections = Vec::new();
    for key in [API_KEY, OTHER_KEY, API_KEY, OTHER_KEY] {
        let request = get(TARGET, "").replace(API_KEY, key);
        assert_eq!(rig.send(request).await.status, 200);
        connections.push(rig.site.only().connection);
    }
    let page = "GET /widget/@api/deki/site/query HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\n\r\n";
    assert_eq!(rig.send(page).await.status, 200);
    connections.push(rig.site.only().connection);
    assert_eq!(connections, [0, 1, 0, 1, 2]);
}

#[tokio::test]
async fn refusals_of_a_head_have_no_body() {
    let rig = Rig::start().await;
    let ask = |target: &str, more: &str| {
        format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{more}\r\n")
    };
    let mut wire = rig.gateway.connect().await;
    wire.write(ask("/crm/@api/deki/users/authenticate", ""))
        .await;
    wire.answer_to("HEAD")
        .await
        .refused(403, "mints_credentials");
    wire.write(ask("/nowhere", "") + &get(TARGET, "")).await;
    let refused = wire.answer_to("HEAD").await;
    refused.refused(404, "no_route");
    assert_ne!(
        refused.header("content-length"),
        "0",
        "as a GET would have it"
    );
    assert_eq!(
        wire.answer().await.status,
        200,
        "and the connection goes on"
    );
    // Also where it is hardly a message.
    let mut wire = rig.gateway.connect().await;
    wire.write(ask(TARGET, "X A: b\r\n")).await;
    wire.answer_to("HEAD").await.refused(400, "bad_message");
    assert!(wire.is_closed().await);
    let mut wire = rig.gateway.connect().await;
    wire.write(ask(&format!(" {TARGET}"), "")).await;
    wire.answer_to("HEAD").await.refused(400, "bad_message");
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_site_that_takes_an_upload_slowly_has_its_time() {
    let text = ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { response: 500ms, between_bytes: 500ms, total: 700ms }",
    );
    const LENGTH: usize = 12 << 20;
    let site = raw_site(|mut stream| async move {
        let (_, rest) = read_head(&mut stream).await.unwrap();
        let mut left = LENGTH - rest.len();
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            // Never half a second without a byte, but two seconds in all.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{left} bytes did not come");
            left -= count.min(left);
            if left < LENGTH / 2 {
                continue;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
    })
    .await;
    let gateway = Gateway::start(&text, site).await;
    let mut wire = gateway.connect().await;
    wire.write(post(&format!("Content-Length: {LENGTH}\r\n"), ""))
        .await;
    wire.write(vec![b'x'; LENGTH]).await;
    let answer = wire.answer().await;
    assert_eq!(answer.text(), "ok");
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let rig = Rig::start().await;
    for head in [
        format!("GET {TARGET} HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        post("Content-Length: 99999999999\r\n", ""),
    ] {
        for _ in 0..2 {
            let mut wire = rig.gateway.connect().await;
            wire.write(&head).await;
            // A reset in the middle of it would cost some systems' callers the answer.
            for _ in 0..64 {
                let sent = within(wire.stream.write_all(&[b'x'; 64 << 10])).await;
                assert!(sent.is_ok(), "it may send on for a while: {sent:?}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let answer = wire.answer().await;
            assert!(
                answer.status >= 400 && !answer.refusal().is_empty(),
                "{answer:?}"
            );
        }
    }
    assert_eq!(rig.site.count(), 0);
}
