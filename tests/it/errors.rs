//! Errors of the site: which go on as they are, what goes down in the place of the others, and what the
//! operator is told.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use countersign::telemetry::LogFormat;
use countersign_emulator::{Emulator, Options};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{API_KEY, Capture, Gateway, ROUTES, Reply, Rig, Seen, get, until, within};

const TARGET: &str = "/crm/@api/deki/pages/home";
const WINDOW: usize = 64 << 10;

const TRACE: &str = "<exception><type>System.Exception</type><message>canary</message><stacktrace><frame>at A.B(C)</frame></stacktrace></exception>";
const ERROR: &str = "<error><exception>MindTouch.Deki.Exceptions.NotFoundException</exception><resource>System.API.Error.page</resource><message>at System: no such page</message></error>";
const REFUSED: &str = "<error><exception>MindTouch.Deki.Auth.Exceptions.TokenValidationFailedException</exception><resource>System.API.Error.developer-token-validation-failed</resource><message>canary</message></error>";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// How a body is framed.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunks,
    Close,
}

fn framed(status: u16, lines: &str, framing: Framing, body: &[u8]) -> Reply {
    let mut bytes = format!("HTTP/1.1 {status} Error\r\n{lines}").into_bytes();
    match framing {
        Framing::Length => {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(body);
        }
        Framing::Chunks => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(5000) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\nX-Deki-Token: canary\r\n\r\n");
        }
        Framing::Close => {
            bytes.extend(b"\r\n");
            bytes.extend(body);
            return Reply::Last(bytes);
        }
    }
    Reply::Bytes(bytes)
}

/// What the caller gets where the site answers so; the code of the refusal, or nothing where the answer
/// went on byte for byte.
async fn check(status: u16, lines: &'static str, body: Vec<u8>, expected: &str) {
    for framing in [Framing::Length, Framing::Chunks, Framing::Close] {
        let sent = body.clone();
        let rig = Rig::with(ROUTES, move |seen: &Seen| {
            if seen.target.ends_with("good") {
                Reply::ok()
            } else {
                framed(status, lines, framing, &sent)
            }
        })
        .await;
        let mut wire = rig.gateway.connect().await;
        // The next request is there before the answer is.
        wire.write(get(TARGET, "") + &get("/crm/@api/deki/pages/good", ""))
            .await;
        let answer = wire.answer().await;
        if expected.is_empty() {
            assert_eq!(
                (answer.status, answer.refusal()),
                (status, ""),
                "{lines} {framing:?}"
            );
            assert!(answer.body == body, "byte for byte: {lines} {framing:?}");
        } else {
            answer.refused(502, expected);
            assert!(
                !format!("{answer:?} {}", answer.text()).contains("canary"),
                "{answer:?}"
            );
        }
        let next = wire.answer().await;
        assert_eq!(
            next.text(),
            "<user id=\"3\"/>",
            "the next answer is its own"
        );
        let seen = rig.site.take();
        assert_eq!(
            seen[1].connection != 0,
            !expected.is_empty() || matches!(framing, Framing::Close),
            "a connection whose answer was replaced is not used again: {framing:?}"
        );
    }
}

#[tokio::test]
async fn traces_are_replaced_whatever_holds_them() {
    let xml = "Content-Type: application/xml; charset=utf-8\r\n";
    let gz = "Content-Type: application/xml\r\nContent-Encoding: gzip\r\n";
    for status in [400, 404, 500, 503, 599] {
        check(status, xml, TRACE.into(), "site_invalid_answer").await;
    }
    let json = r#"{"@type":"x","\u0073tacktrace":{"frame":["at A.B(C)"]},"canary":""}"#;
    check(
        500,
        "Content-Type: application/json\r\n",
        json.into(),
        "site_invalid_answer",
    )
    .await;
    let php = r#"a:1:{s:10:"stacktrace";a:1:{s:5:"frame";s:9:"at A.B(C)";}}canary"#;
    check(
        500,
        "Content-Type: application/php\r\n",
        php.into(),
        "site_invalid_answer",
    )
    .await;
    let wide: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(TRACE.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    check(500, "", wide, "site_invalid_answer").await;
    check(500, gz, gzip(TRACE.as_bytes()), "site_invalid_answer").await;
    check(500, gz, TRACE.into(), "site_invalid_answer").await;
    check(
        500,
        "Content-Encoding: deflate\r\n",
        zlib(TRACE.as_bytes()),
        "site_invalid_answer",
    )
    .await;
    check(
        500,
        "Content-Encoding: gzip\r\nContent-Encoding: deflate\r\n",
        zlib(&gzip(TRACE.as_bytes())),
        "site_invalid_answer",
    )
    .await;
    check(
        500,
        "Content-Encoding: compress\r\n",
        b"canary".to_vec(),
        "site_invalid_answer",
    )
    .await;
    let late = format!("{}{TRACE}", " ".repeat(WINDOW - TRACE.len()));
    check(500, xml, late.into(), "site_invalid_answer").await;
    // By its media type, whatever its status, and wherever the type stands.
    for lines in [
        "Content-Type: application/x-dream-exception+xml\r\n",
        "Content-Type: text/plain\r\nContent-Type: APPLICATION/X-DREAM-EXCEPTION+JSON;a=b\r\n",
        "Content-Type: text/xml, application/x-dream-exception+php\r\n",
    ] {
        check(500, lines, b"canary".to_vec(), "site_invalid_answer").await;
        check(200, lines, b"canary".to_vec(), "site_invalid_answer").await;
    }
}

#[tokio::test]
async fn other_errors_go_on_as_they_are() {
    let xml = "Content-Type: application/xml\r\n";
    check(404, xml, ERROR.into(), "").await;
    check(
        404,
        "Content-Encoding: gzip\r\n",
        gzip(ERROR.as_bytes()),
        "",
    )
    .await;
    // What does not decode is read as it is, and says nothing.
    check(404, "Content-Encoding: br\r\n", ERROR.into(), "").await;
    check(404, "Content-Encoding: identity\r\n", ERROR.into(), "").await;
    check(404, xml, Vec::new(), "").await;
    check(302, xml, TRACE.replace("canary", "").into(), "").await;
    for length in [WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW] {
        check(500, xml, vec![b'x'; length], "").await;
    }
    // Beyond what is looked at.
    check(
        500,
        xml,
        format!("{}{TRACE}", " ".repeat(WINDOW)).into(),
        "",
    )
    .await;
    let bomb = gzip(&vec![b' '; 200 << 20]);
    assert!(bomb.len() > WINDOW);
    check(500, "Content-Encoding: gzip\r\n", bomb, "").await;
    // A permission of the user's is not about our token.
    check(403, "WWW-Authenticate: Basic\r\n", ERROR.into(), "").await;
    check(401, xml, ERROR.into(), "").await;
    check(404, xml, REFUSED.into(), "").await;
}

#[tokio::test]
async fn a_refused_token_is_not_the_callers_fault() {
    let json =
        r#"{"resource":"System.API.Error.developer-token-validation-failed","message":"canary"}"#;
    let php = r#"a:1:{s:5:"error";a:1:{s:8:"resource";s:50:"System.API.Error.developer-token-validation-failed";}}"#;
    for status in [401, 403] {
        check(
            status,
            "WWW-Authenticate: Basic realm=canary\r\n",
            REFUSED.into(),
            "site_refused_token",
        )
        .await;
        check(
            status,
            "Content-Encoding: gzip\r\n",
            gzip(REFUSED.as_bytes()),
            "site_refused_token",
        )
        .await;
        check(status, "", json.into(), "site_refused_token").await;
        check(status, "", php.into(), "site_refused_token").await;
    }
}

#[tokio::test]
async fn whole_answers_are_no_evidence_against_a_site() {
    let rig = Rig::with(ROUTES, |seen| {
        match seen.target.rsplit('/').next().unwrap() {
            "trace" => Reply::status("500 Error", "", TRACE),
            "token" => Reply::status("403 Forbidden", "", REFUSED),
            _ => Reply::ok(),
        }
    })
    .await;
    for (page, code) in [
        ("trace", "site_invalid_answer"),
        ("token", "site_refused_token"),
    ] {
        for _ in 0..10 {
            rig.get(&format!("/crm/@api/deki/pages/{page}"), "")
                .await
                .refused(502, code);
        }
        assert_eq!(
            rig.get(TARGET, "").await.status,
            200,
            "the site is not left alone"
        );
    }
}

#[tokio::test]
async fn a_head_has_nothing_to_look_into() {
    let rig = Rig::with(ROUTES, |_| {
        Reply::Bytes(b"HTTP/1.1 500 Error\r\nContent-Length: 5\r\nX: y\r\n\r\n".to_vec())
    })
    .await;
    let mut wire = rig.gateway.connect().await;
    for _ in 0..2 {
        wire.write(get(TARGET, "").replace("GET", "HEAD")).await;
        let answer = wire.answer_to("HEAD").await;
        assert_eq!((answer.status, answer.header("content-length")), (500, "5"));
    }
    // But for what its head says.
    let rig = Rig::with(ROUTES, |_| {
        Reply::Bytes(b"HTTP/1.1 500 Error\r\nContent-Type: application/x-dream-exception+xml\r\nContent-Length: 5\r\n\r\n".to_vec())
    })
    .await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get(TARGET, "").replace("GET", "HEAD")).await;
    wire.answer_to("HEAD")
        .await
        .refused(502, "site_invalid_answer");
    wire.write(get("/nowhere", "")).await;
    wire.answer().await.refused(404, "no_route");
}

#[tokio::test]
async fn a_large_error_streams_once_it_is_known() {
    const LENGTH: usize = 100 << 20;
    let rig = Rig::with(ROUTES, |_| {
        let mut bytes =
            format!("HTTP/1.1 500 Error\r\nContent-Length: {LENGTH}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + LENGTH, b'x');
        Reply::Bytes(bytes)
    })
    .await;
    let answer = rig.get(TARGET, "").await;
    assert_eq!((answer.status, answer.body.len()), (500, LENGTH));
}

fn impatient() -> String {
    ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { between_bytes: 700ms, total: 1500ms }",
    )
}

#[tokio::test]
async fn an_error_that_does_not_come_is_not_waited_for_without_end() {
    let head = b"HTTP/1.1 500 Error\r\nContent-Length: 60000\r\n\r\n".to_vec();
    // It stops, or comes a byte at a time.
    let dribble = std::iter::once(head.clone())
        .chain(vec![b"x".to_vec(); 600])
        .collect();
    for reply in [
        Reply::Hang(head.clone()),
        Reply::Drip(Duration::from_millis(100), dribble),
    ] {
        let rig = Rig::with(&impatient(), move |_| reply.clone()).await;
        rig.get(TARGET, "").await.refused(504, "site_timeout");
    }
    // It breaks off: better no error than half of one that nobody has looked into.
    let half = [&head[..], TRACE.as_bytes()].concat();
    for reply in [Reply::Last(half.clone()), Reply::Reset(half)] {
        let rig = Rig::with(&impatient(), move |_| reply.clone()).await;
        rig.get(TARGET, "").await.refused(502, "site_unreachable");
        assert_eq!(rig.site.count(), 1, "it was answered once");
    }
}

#[tokio::test]
async fn an_error_that_breaks_off_on_a_used_connection_is_not_asked_for_again() {
    let rig = Rig::with(ROUTES, |seen| {
        if seen.target.ends_with("bad") {
            Reply::Last(b"HTTP/1.1 500 Error\r\nContent-Length: 10\r\n\r\nhalf".to_vec())
        } else {
            Reply::ok()
        }
    })
    .await;
    assert_eq!(rig.get(TARGET, "").await.status, 200);
    rig.get("/crm/@api/deki/pages/bad", "")
        .await
        .refused(502, "site_unreachable");
    assert_eq!(rig.site.count(), 2);
}

#[tokio::test]
async fn an_error_before_the_upload_is_over() {
    for (body, status, code) in [
        (ERROR, 404, ""),
        (TRACE, 502, "site_invalid_answer"),
        (REFUSED, 502, "site_refused_token"),
    ] {
        let site = answering_early(body).await;
        let gateway = Gateway::start(ROUTES, site).await;
        let mut wire = gateway.connect().await;
        wire.write(format!("POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 100\r\n\r\nhalf")).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, answer.refusal()), (status, code));
    }
}

/// A site that answers as soon as it has a request's head, and reads on.
async fn answering_early(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
            }
            let status = if body == ERROR { 404 } else { 403 };
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} Error\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
        }
    });
    address
}

#[tokio::test]
async fn callers_on_http2_get_the_same() {
    let text = ROUTES.replace(
        "{ address: \"127.0.0.1:0\" }]",
        "{ address: \"127.0.0.1:0\", h2c: true }]",
    );
    let large = vec![b'x'; 3 * WINDOW];
    let sent = large.clone();
    let rig = Rig::with(&text, move |seen| {
        match seen.target.rsplit('/').next().unwrap() {
            "trace" => framed(
                500,
                "Content-Encoding: gzip\r\n",
                Framing::Chunks,
                &gzip(TRACE.as_bytes()),
            ),
            "token" => framed(401, "", Framing::Length, REFUSED.as_bytes()),
            "error" => framed(404, "", Framing::Chunks, ERROR.as_bytes()),
            "large" => framed(500, "", Framing::Length, &sent),
            _ => framed(500, "", Framing::Close, b""),
        }
    })
    .await;
    let stream = TcpStream::connect(rig.gateway.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    // All on one connection, and twice.
    for (page, status, code, body) in [
        ("trace", 502, "site_invalid_answer", None),
        ("token", 502, "site_refused_token", None),
        ("error", 404, "", Some(ERROR.as_bytes())),
        ("large", 500, "", Some(&*large)),
        ("empty", 500, "", Some(&b""[..])),
    ]
    .repeat(2)
    {
        let request = http::Request::get(format!("http://gateway.test/crm/@api/deki/pages/{page}"))
            .header("x-api-key", API_KEY)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = within(sender.send_request(request)).await.unwrap();
        let refusal = answer
            .headers()
            .get("x-countersign-refusal")
            .map_or("", |code| code.to_str().unwrap());
        assert_eq!(
            (answer.status().as_u16(), refusal),
            (status, code),
            "{page}"
        );
        let received = within(answer.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        match body {
            Some(body) => assert!(received == body, "byte for byte: {page}"),
            None => assert!(
                !received.is_empty() && !String::from_utf8_lossy(&received).contains("canary")
            ),
        }
    }
}

#[tokio::test]
async fn callers_of_old_get_the_same() {
    let rig = Rig::with(ROUTES, |seen| {
        let body = if seen.target.ends_with("trace") {
            TRACE
        } else {
            ERROR
        };
        framed(500, "", Framing::Chunks, body.as_bytes())
    })
    .await;
    for (page, ending) in [("trace", "</error>"), ("error", ERROR)] {
        let mut wire = rig.gateway.connect().await;
        wire.write(
            get(&format!("/crm/@api/deki/pages/{page}"), "").replace("HTTP/1.1", "HTTP/1.0"),
        )
        .await;
        let bytes = String::from_utf8(wire.rest().await).unwrap();
        assert!(
            bytes.trim_end().ends_with(ending) && !bytes.contains("canary"),
            "{bytes}"
        );
        assert!(
            !bytes.to_ascii_lowercase().contains("transfer-encoding"),
            "{bytes}"
        );
    }
}

#[tokio::test]
async fn the_record_has_the_sites_status() {
    let (capture, _guard) = Capture::start(LogFormat::Json, "info");
    let rig = Rig::with(ROUTES, |seen| {
        match seen.target.rsplit('/').next().unwrap() {
            "trace" => Reply::status("418 Error", "", TRACE),
            "good" => Reply::status("404 Not Found", "", ERROR),
            _ => Reply::Last(Vec::new()),
        }
    })
    .await;
    for (page, status, site_status, refusal) in [
        ("trace", 502, Some(418), Some("site_invalid_answer")),
        ("good", 404, Some(404), None),
        ("silent", 502, None, Some("site_unreachable")),
    ] {
        let answer = rig.get(&format!("/crm/@api/deki/pages/{page}"), "").await;
        assert_eq!(answer.status, status);
        let id = answer.header("x-request-id").to_owned();
        until("it is recorded", || capture.text().contains(&id)).await;
        let events = capture.events("exchange");
        let event = events
            .iter()
            .find(|event| event["request_id"] == id.as_str())
            .unwrap();
        assert_eq!(event["status"], status);
        assert_eq!(event["site_status"].as_u64(), site_status, "{event}");
        assert_eq!(event["refusal"].as_str(), refusal);
    }
}

/// The emulated site behind a gateway that has been told other secrets, or lives at another time.
async fn emulated(options: Options, text: &str) -> Gateway {
    let emulator = Emulator::bind(Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..options
    })
    .await
    .unwrap();
    let site = emulator.local_addr();
    tokio::spawn(emulator.serve(std::future::pending()));
    Gateway::start(text, site).await
}

#[tokio::test]
async fn the_operator_learns_which_token_and_why() {
    let mine = ROUTES
        .replace("env:TOKEN_KEY", "env:EMULATED_KEY")
        .replace("env:TOKEN_SECRET", "env:EMULATED_SECRET");
    let legacy = ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    dialect: legacy",
    );
    let skewed = |seconds| Options {
        clock_skew_seconds: seconds,
        ..Options::default()
    };
    let server = "/crm/@api/deki/users/current?dream.out.format=";
    for (options, text, target, token, dialect, reason) in [
        (
            Options::default(),
            ROUTES,
            server,
            "server",
            Some("tkn"),
            "key or secret is wrong",
        ),
        (
            Options::default(),
            &legacy,
            server,
            "server",
            Some("legacy"),
            "key or secret is wrong",
        ),
        (
            skewed(1000),
            &mine,
            server,
            "server",
            Some("tkn"),
            "s behind the site's, and more than 600 s are not corrected; fix NTP",
        ),
        (
            skewed(-1000),
            &mine,
            server,
            "server",
            Some("tkn"),
            "s ahead of the site's, and more than 600 s are not corrected; fix NTP",
        ),
        (
            Options::default(),
            ROUTES,
            "/widget/@api/deki/users/current?dream.out.format=",
            "browser",
            None,
            "not in its list at the site",
        ),
    ] {
        let (capture, _guard) = Capture::start(LogFormat::Json, "info");
        let gateway = emulated(options, text).await;
        for format in ["xml", "json", "php"] {
            let request = if token == "browser" {
                format!(
                    "GET {target}{format} HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\n\r\n"
                )
            } else {
                get(&format!("{target}{format}"), "")
            };
            let answer = gateway.send(request).await;
            answer.refused(502, "site_refused_token");
            assert_eq!(answer.header("www-authenticate"), "");
        }
        let events = capture.events("the site does not accept this gateway's token: ");
        assert_eq!(events.len(), 1, "once, not for each request: {events:?}");
        let event = &events[0];
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["site"], "acme");
        assert_eq!(event["token"], token);
        assert_eq!(event["dialect"].as_str(), dialect);
        assert!(
            event["message"].as_str().unwrap().contains(reason),
            "{event}"
        );
        if reason.contains("NTP") {
            assert!(
                (990..=1010).contains(&event["skew_seconds"].as_i64().unwrap().abs()),
                "{event}"
            );
        }
    }
    // With what the site knows it goes well.
    let gateway = emulated(skewed(200), &mine).await;
    assert_eq!(
        gateway.send(get(&format!("{server}xml"), "")).await.status,
        200
    );
}
