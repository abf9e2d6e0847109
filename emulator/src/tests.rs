//! The site over real connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::clock::Moment;
use super::*;

mod content;
mod provider;

/// A site on a free port.
struct Rig {
    address: SocketAddr,
    journal: Journal,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Rig {
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let emulator = Emulator::bind(Options { listen, ..options }).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            address: emulator.local_addr(),
            journal: emulator.journal(),
            stop,
            served: tokio::spawn(emulator.serve(async {
                stopped.await.ok();
            })),
        }
    }

    /// Sends these bytes and reads to the end.
    async fn raw(&self, request: &str) -> Answered {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answered {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// One request as a user; `as_user` is what a server token is signed for.
    async fn send(
        &self,
        as_user: &str,
        method: &str,
        target: &str,
        more: &str,
        body: &str,
    ) -> Answered {
        let length = body.len();
        let token = token(as_user);
        self.raw(&format!(
            "{method} /@api/deki/{target} HTTP/1.1\r\nHost: wiki.test\r\nConnection: close\r\n\
             X-Deki-Token: {token}\r\nContent-Length: {length}\r\n{more}\r\n{body}"
        ))
        .await
    }

    async fn get(&self, as_user: &str, target: &str) -> Answered {
        self.send(as_user, "GET", target, "", "").await
    }
}

struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn token(user: &str) -> String {
    let message = format!("{TOKEN_KEY}_{}_{user}", Moment::now(0).seconds());
    let mut hmac = Hmac::<sha2::Sha256>::new_from_slice(TOKEN_SECRET.as_bytes()).unwrap();
    hmac.update(message.as_bytes());
    let hash = base16ct::lower::encode_string(&hmac.finalize().into_bytes());
    format!("tkn_{message}_{hash}")
}

#[tokio::test]
async fn a_signed_call_is_answered_as_its_user() {
    let rig = Rig::start().await;
    for (user, name) in [
        ("=crm-bot", "crm-bot"),
        ("3", "crm-bot"),
        ("=CRM-Bot", "crm-bot"),
        ("=jane%20doe", "jane doe"),
        ("=J%C3%B6rg%40example.com", "Jörg@example.com"),
        ("=Jörg@example.com", "Jörg@example.com"),
        ("=nobody", "Anonymous"),
        ("99", "Anonymous"),
    ] {
        let answered = rig.get(user, "users/current").await;
        assert_eq!(answered.status, 200, "{user}");
        let expected = format!("<username>{name}</username>");
        assert!(
            answered.body.contains(&expected),
            "{user}: {}",
            answered.body
        );
        let arrival = rig.journal.take().remove(0);
        assert_eq!(arrival.user.as_deref(), Some(name));
        assert_eq!(arrival.token, TokenSeen::Server);
        assert!(
            !format!("{arrival:?}").contains("tkn_"),
            "no token in the journal"
        );
    }
    let answered = rig
        .get("=nobody", "users/current?dream.out.format=json")
        .await;
    assert!(
        answered.body.starts_with(r#"{"@anonymous":"true","#),
        "{}",
        answered.body
    );
    for leaked in [
        "x-deki-site",
        "server",
        "p3p",
        "x-data-stats",
        "x-deki-db-calls",
        "set-cookie",
        "x-deki-session",
    ] {
        assert!(answered.header(leaked).is_some(), "{leaked}");
    }
}

#[tokio::test]
async fn without_a_good_token_there_is_only_the_error_document() {
    let rig = Rig::start().await;
    let missing = rig
        .raw("GET /@api/deki/users/current HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(missing.status, 403);
    assert!(missing.body.ends_with(concat!(
        "<error><exception>MindTouch.Deki.Auth.Exceptions.TokenValidationFailedException</exception>",
        "<resource>System.API.Error.developer-token-validation-failed</resource>",
        "<arguments count=\"1\"><argument>missing required token</argument></arguments>",
        "<message>The request failed API token validation, missing required token</message></error>",
    )), "{}", missing.body);
    let late = Rig::with(Options {
        clock_skew_seconds: 400,
        ..Options::default()
    })
    .await;
    let answered = late
        .get("=crm-bot", "users/current?dream.out.format=json")
        .await;
    assert_eq!(answered.status, 403);
    assert!(answered.body.contains("expired token"), "{}", answered.body);
    assert_eq!(late.journal.arrivals()[0].token, TokenSeen::Refused);
    assert_eq!(late.journal.arrivals()[0].user, None);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_named() {
    let rig = Rig::start().await;
    for (method, target, status) in [
        ("GET", "nothing/here", 404),
        ("GET", "../../@app/x", 404),
        ("GET", "pages/999", 404),
        ("DELETE", "users", 405),
        ("PUT", "site/status", 405),
        ("GET", "emulate/sink", 405),
        ("GET", "site/settings", 403),
        ("POST", "site/developer-tokens", 403),
        ("GET", "users?dream.out.format=xspan", 400),
    ] {
        let answered = rig.send("=crm-bot", method, target, "", "").await;
        assert_eq!(answered.status, status, "{method} {target}");
        assert!(answered.body.contains("<error>"), "{method} {target}");
        assert_eq!(
            answered.header("allow").is_some(),
            status == 405,
            "{method} {target}"
        );
    }
    let answered = rig
        .send(
            "=crm-bot",
            "GET",
            "users",
            "X-Deki-Site: id=\"other\"\r\n",
            "",
        )
        .await;
    assert_eq!(answered.status, 410, "another tenant");
}

#[tokio::test]
async fn signing_in_opens_a_session_that_works_alone() {
    let rig = Rig::start().await;
    let target = "users/authenticate?redirect=https%3A%2F%2Fevil.test%2F";
    let signed_in = rig.get("=newcomer", target).await;
    assert_eq!(signed_in.status, 302);
    assert_eq!(signed_in.header("location"), Some("https://evil.test/"));
    let cookie = signed_in.header("set-cookie").unwrap();
    assert!(cookie.starts_with("authtoken=\"9_"), "{cookie}");
    let session = &signed_in.body;
    let alone = rig
        .raw(&format!(
            "GET /%40api/deki/users/current HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Cookie: authtoken=\"{session}\"\r\n\r\n"
        ))
        .await;
    assert!(
        alone.body.contains("<username>newcomer</username>"),
        "{}",
        alone.body
    );
    assert_eq!(rig.get("2", "users/authenticate").await.status, 401);
    let xml = "Content-Type: application/xml\r\n";
    let asked = "<developer-token><name>x</name></developer-token>";
    let minted = rig
        .send("1", "POST", "site/developer-tokens", xml, asked)
        .await;
    assert!(minted.body.contains("<token>emulated."), "{}", minted.body);
}

#[tokio::test]
async fn preflights_are_answered_for_allowed_hosts_only() {
    let rig = Rig::start().await;
    for (origin, status, allowed) in [
        (
            "https://app.example.com",
            200,
            Some("https://app.example.com"),
        ),
        ("https://evil.test", 403, None),
    ] {
        let answered = rig
            .raw(&format!(
                "OPTIONS /@api/deki/pages/home HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-deki-token\r\n\r\n"
            ))
            .await;
        assert_eq!(answered.status, status, "{origin}");
        assert_eq!(
            answered.header("access-control-allow-origin"),
            allowed,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn faults_come_as_asked() {
    let rig = Rig::start().await;
    let begun = Instant::now();
    let answered = rig
        .get("2", "users?emulate.status=503&emulate.delay=30")
        .await;
    assert_eq!(answered.status, 503);
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let thrown = rig
        .get("2", "users?emulate.exception=1&dream.out.format=json")
        .await;
    assert_eq!(
        thrown.header("content-type"),
        Some("application/x-dream-exception+xml")
    );
    assert!(thrown.body.contains("<stacktrace>"));
    let long = rig
        .get("2", "users?emulate.bytes=100000&emulate.truncate=70000")
        .await;
    assert_eq!(long.header("content-length"), Some("100000"));
    assert_eq!(
        long.body.len(),
        70_000,
        "cut, and what came before is all there"
    );
    let begun = Instant::now();
    let slow = rig.get("2", "users?emulate.bytes=20&emulate.drip=5").await;
    assert_eq!(slow.body.len(), 20);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let moved = rig
        .get("2", "users?emulate.redirect=https://cdn.test/x")
        .await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("https://cdn.test/x"))
    );
    let sound = Rig::with(Options {
        faults: false,
        ..Options::default()
    })
    .await;
    assert_eq!(sound.get("2", "users?emulate.status=503").await.status, 200);
}

#[tokio::test]
async fn a_sink_counts_and_waits_for_permission_to_send() {
    let rig = Rig::start().await;
    let expect = "Expect: 100-continue\r\n";
    let answered = rig.send("2", "POST", "emulate/sink", expect, "12345").await;
    assert!(
        answered.head.starts_with("HTTP/1.1 100"),
        "{}",
        answered.head
    );
    assert!(
        answered.body.ends_with("<sink bytes=\"5\" />"),
        "{}",
        answered.body
    );
}

#[tokio::test]
async fn who_leaves_early_has_arrived_all_the_same() {
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let request = "POST /@api/deki/emulate/sink HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n";
    let token = token("=crm-bot");
    let request = format!("{request}X-Deki-Token: {token}\r\n\r\n12345");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    while rig.journal.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let arrival = rig.journal.take().remove(0);
    assert_eq!(
        (arrival.user.as_deref(), arrival.body_bytes),
        (Some("crm-bot"), 5)
    );
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    let rig = Rig::start().await;
    for status in [204, 304] {
        let answered = rig
            .get("2", &format!("users?emulate.status={status}"))
            .await;
        assert_eq!((answered.status, answered.body.as_str()), (status, ""));
    }
    let limited = rig.get("2", "users?emulate.status=429").await;
    assert_eq!(limited.header("retry-after"), Some("1"));
    let head = rig.get("2", "users?dream.in.verb=HEAD").await;
    assert_eq!(
        (head.header("content-length"), head.body.as_str()),
        (Some("0"), "")
    );
}

#[tokio::test]
async fn http2_is_served_and_the_end_is_graceful() {
    let rig = Rig::start().await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let uri = format!(
        "http://{}/@api/deki/users/current?emulate.delay=100",
        rig.address
    );
    let request = Request::get(uri)
        .header("x-deki-token", token("=crm-bot"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let pending = tokio::spawn(client.send_request(request));
    // The request is under way well before its delay ends.
    tokio::time::sleep(Duration::from_millis(30)).await;
    rig.stop.send(()).unwrap();
    let answered = pending.await.unwrap().unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    let body = answered.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("crm-bot"));
    drop(client);
    rig.served.await.unwrap();
}
