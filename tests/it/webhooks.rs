//! Callers that sign each message: every product's way of it, signed by openssl, over real sockets.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign::telemetry::LogFormat;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::harness::{
    API_KEY, Capture, HOOK_SECRET, Log, NEW_HOOK_SECRET, Need, ROUTES, Reply, Rig, STANDARD_SECRET,
    Seen, Wire, cannot, until, within,
};

/// A caller and a route for each preset, and routes with more than one caller.
fn file() -> String {
    let mut callers = String::new();
    let mut routes = String::new();
    for product in PRODUCTS {
        let secret = match product.is_decoded {
            true => "env:STANDARD_SECRET",
            false => "[env:HOOK_SECRET, env:NEW_HOOK_SECRET]",
        };
        let more = match product.preset {
            "hubspot" => ", public_url: https://hooks.example.com",
            "github" => ", body_max: 64KiB",
            _ => "",
        };
        let name = product.preset;
        callers += &format!(
            "  {name}: {{ hmac: {{ preset: {name}, secret: {secret}{more} }}, acts_as: \"={name}-bot\" }}\n"
        );
        routes += &format!(
            "  - {{ name: {name}, mount: /{name}, site: acme, token: server, callers: [{name}], allow: [all] }}\n"
        );
    }
    routes += "  - { name: both, mount: /both, site: acme, token: server, callers: [zendesk, crm, github], allow: [all] }\n";
    routes += "  - { name: small, mount: /small, site: acme, token: server, callers: [zendesk], allow: [all], body_max: 1KiB }\n";
    ROUTES
        .replace("\nroutes:\n", &format!("\n{callers}routes:\n{routes}"))
        .replace(
            "{ address: \"127.0.0.1:0\" }]",
            "{ address: \"127.0.0.1:0\", h2c: true }]",
        )
        + "limits: { body_grace: 1s }\n"
}

async fn rig() -> Rig {
    Rig::with(&file(), |_| Reply::ok()).await
}

const CONTENTS: &str = "/@api/deki/pages/home/contents";
const BODY: &[u8] = b"{\"ticket\": \"caf\xc3\xa9\", \"bytes\": \"\xff\x00\r\n\"}";

/// How a product signs, in words of its own: nothing here is the gateway's.
struct Product {
    preset: &'static str,
    is_decoded: bool,
    /// The header lines of a message that was signed then, and its refusal once that is long ago.
    sign: fn(&Call<'_>) -> String,
    has_time: bool,
}

/// What is signed.
struct Call<'a> {
    secret: &'a [u8],
    method: &'a str,
    target: &'a str,
    body: &'a [u8],
    at: u64,
}

const PRODUCTS: [Product; 11] = [
    Product {
        preset: "zendesk",
        is_decoded: false,
        has_time: true,
        sign: |call| {
            let at = iso(call.at);
            let signature = call.mac("sha256", &[at.as_bytes(), call.body]);
            format!(
                "X-Zendesk-Webhook-Signature: {}\r\nX-Zendesk-Webhook-Signature-Timestamp: {at}\r\n",
                STANDARD.encode(signature)
            )
        },
    },
    Product {
        preset: "hubspot",
        is_decoded: false,
        has_time: true,
        sign: |call| {
            let at = format!("{}000", call.at);
            let url = format!("https://hooks.example.com{}", call.target)
                .replace("%40", "@")
                .replace("%3A", ":");
            let pieces = [
                call.method.as_bytes(),
                url.as_bytes(),
                call.body,
                at.as_bytes(),
            ];
            let signature = call.mac("sha256", &pieces);
            format!(
                "X-HubSpot-Signature: 0011\r\nX-HubSpot-Signature-Version: v1\r\nX-HubSpot-Signature-v3: {}\r\nX-HubSpot-Request-Timestamp: {at}\r\n",
                STANDARD.encode(signature)
            )
        },
    },
    Product {
        preset: "github",
        is_decoded: false,
        has_time: false,
        sign: |call| {
            format!(
                "X-GitHub-Delivery: 72d3162e\r\nX-Hub-Signature: sha1={}\r\nX-Hub-Signature-256: sha256={}\r\n",
                hex(&call.mac("sha1", &[call.body])),
                hex(&call.mac("sha256", &[call.body]))
            )
        },
    },
    Product {
        preset: "stripe",
        is_decoded: false,
        has_time: true,
        sign: |call| {
            let at = call.at.to_string();
            let signature = hex(&call.mac("sha256", &[at.as_bytes(), b".", call.body]));
            let other = "0".repeat(64);
            format!("Stripe-Signature: t={at},v1={other},v1={signature},v0={other}\r\n")
        },
    },
    Product {
        preset: "slack",
        is_decoded: false,
        has_time: true,
        sign: |call| {
            let at = call.at.to_string();
            let signature = call.mac("sha256", &[b"v0:", at.as_bytes(), b":", call.body]);
            format!(
                "X-Slack-Request-Timestamp: {at}\r\nX-Slack-Signature: v0={}\r\n",
                hex(&signature)
            )
        },
    },
    Product {
        preset: "standard-webhooks",
        is_decoded: true,
        has_time: true,
        sign: |call| standard(call, "webhook"),
    },
    Product {
        preset: "svix",
        is_decoded: true,
        has_time: true,
        sign: |call| standard(call, "Svix"),
    },
    Product {
        preset: "intercom",
        is_decoded: false,
        has_time: false,
        sign: |call| {
            let signature = hex(&call.mac("sha1", &[call.body]));
            format!("X-Hub-Signature: sha1={}\r\n", signature.to_uppercase())
        },
    },
    Product {
        preset: "sfmc",
        is_decoded: false,
        has_time: false,
        sign: |call| {
            let signature = STANDARD.encode(call.mac("sha256", &[call.body]));
            format!("x-sfmc-ens-signature: {signature}\r\n")
        },
    },
    Product {
        preset: "shopify",
        is_decoded: false,
        has_time: false,
        sign: |call| {
            let signature = STANDARD.encode(call.mac("sha256", &[call.body]));
            format!("X-Shopify-Hmac-Sha256: {signature}\r\n")
        },
    },
    Product {
        preset: "nexus",
        is_decoded: false,
        has_time: true,
        sign: |call| {
            let at = call.at.to_string();
            let signature = hex(&call.mac("sha256", &[at.as_bytes(), b".", call.body]));
            format!("X-Nexus-Signature-256: sha256={signature}\r\nX-Nexus-Timestamp: {at}\r\n")
        },
    },
];

fn standard(call: &Call<'_>, word: &str) -> String {
    let at = call.at.to_string();
    let signature = call.mac("sha256", &[b"msg_1.", at.as_bytes(), b".", call.body]);
    let signature = STANDARD.encode(signature);
    format!(
        "{word}-Id: msg_1\r\n{word}-Timestamp: {at}\r\n{word}-Signature: v1a,AAAA v1,{signature}\r\n"
    )
}

impl Call<'_> {
    /// An HMAC that openssl makes.
    fn mac(&self, algorithm: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let child = Command::new("openssl")
            .args(["dgst", &format!("-{algorithm}"), "-mac", "HMAC", "-binary"])
            .args(["-macopt", &format!("hexkey:{}", hex(self.secret))])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("openssl is there");
        let mut input = child.stdin.take().unwrap();
        for piece in pieces {
            input.write_all(piece).unwrap();
        }
        drop(input);
        child.wait_with_output().unwrap().stdout
    }
}

pub fn has_openssl() -> bool {
    let is_there = Command::new("openssl").arg("version").output().is_ok();
    if !is_there {
        cannot(Need::Clients, "signed webhooks: they need openssl");
    }
    is_there
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A time as Zendesk writes it.
fn iso(at: u64) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at));
    let parts: Vec<&str> = date.split([' ', ',']).filter(|it| !it.is_empty()).collect();
    let [_, day, month, year, time, _] = parts[..] else {
        panic!("{date}");
    };
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(month).unwrap() / 3 + 1;
    format!("{year}-{month:02}-{day}T{time}Z")
}

fn product(preset: &str) -> &'static Product {
    PRODUCTS.iter().find(|it| it.preset == preset).unwrap()
}

/// A signed message: the header lines of its signature.
pub fn signed(preset: &str, method: &str, target: &str, body: &[u8], at: u64) -> String {
    let product = product(preset);
    let decoded = STANDARD.decode(&STANDARD_SECRET["whsec_".len()..]).unwrap();
    let secret = match product.is_decoded {
        true => &decoded[..],
        false => HOOK_SECRET.as_bytes(),
    };
    (product.sign)(&Call {
        secret,
        method,
        target,
        body,
        at,
    })
}

/// A message with these header lines and this body.
pub fn message(method: &str, target: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: gateway.test\r\n{lines}{length}\r\n");
    [head.as_bytes(), body].concat()
}

/// A message that Zendesk signed just now.
fn from_zendesk(method: &str, target: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let lines = signed("zendesk", method, target, body, now());
    message(method, target, &format!("{lines}{more}"), body)
}

/// Nothing of a signature goes up.
#[track_caller]
fn is_bare(seen: &Seen) {
    for (name, _) in &seen.headers {
        let name = name.to_lowercase();
        let word = [
            "signature",
            "hmac",
            "hub-",
            "webhook",
            "svix",
            "github",
            "nexus",
            "timestamp",
        ]
        .into_iter()
        .find(|word| name.contains(word));
        assert_eq!(word, None, "{name} went up");
    }
}

/// The records, one after the other.
struct Records {
    log: Log,
    seen: usize,
}

impl Records {
    fn listen() -> Self {
        Self {
            log: Log::listen(),
            seen: 0,
        }
    }

    /// The refusal in the next one, and what it says was wrong.
    async fn next(&mut self) -> (String, String) {
        let number = self.seen;
        self.seen += 1;
        let records = || self.log.named("exchange");
        until("it is recorded", || records().len() > number).await;
        let record = &records()[number];
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        (text("refusal"), text("cause"))
    }
}

fn pair(code: &str, cause: &str) -> (String, String) {
    (code.to_owned(), cause.to_owned())
}

#[tokio::test]
async fn as_each_product_signs() {
    if !has_openssl() {
        return;
    }
    let mut records = Records::listen();
    let rig = rig().await;
    for product in &PRODUCTS {
        let preset = product.preset;
        let target = format!("/{preset}{CONTENTS}?title=a%3Ab%20c");
        let lines = signed(preset, "POST", &target, BODY, now());
        let answer = rig.send(message("POST", &target, &lines, BODY)).await;
        assert_eq!(answer.status, 200, "{preset}: {answer:?}");
        let seen = rig.site.only();
        assert_eq!(seen.user(), format!("={preset}-bot"));
        assert_eq!(seen.body, BODY, "{preset}: byte for byte");
        assert_eq!(seen.target, format!("{CONTENTS}?title=a%3Ab%20c"));
        is_bare(&seen);

        let other = [BODY, b"x"].concat();
        let answer = rig.send(message("POST", &target, &lines, &other)).await;
        assert_eq!(answer.status, 401);
        assert_eq!(records.next().await, pair("", ""));
        let mismatch = pair("credential_unknown", "signature_mismatch");
        assert_eq!(records.next().await, mismatch, "{preset}");
        rig.send(message("POST", &target, "", BODY)).await;
        assert_eq!(records.next().await, pair("credential_missing", ""));

        let old = signed(preset, "POST", &target, BODY, now() - 301);
        rig.send(message("POST", &target, &old, BODY)).await;
        let expected = match product.has_time {
            true => pair("credential_expired", "timestamp_old"),
            false => pair("credential_unknown", "signature_replayed"),
        };
        assert_eq!(records.next().await, expected, "{preset}");
        assert_eq!(rig.site.count(), 0, "{preset}: nothing of that arrives");
    }
}

#[tokio::test]
async fn a_new_secret_beside_the_old_one() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    let target = format!("/zendesk{CONTENTS}");
    for (secret, status) in [(NEW_HOOK_SECRET, 200), ("canary-of-somebody-else", 401)] {
        let lines = (product("zendesk").sign)(&Call {
            secret: secret.as_bytes(),
            method: "POST",
            target: &target,
            body: BODY,
            at: now(),
        });
        let answer = rig.send(message("POST", &target, &lines, BODY)).await;
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn messages_without_a_body() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    for (method, more) in [
        ("GET", ""),
        ("GET", "Content-Length: 0\r\n"),
        ("DELETE", ""),
        ("GET", "Transfer-Encoding: chunked\r\n"),
        ("POST", "Transfer-Encoding: chunked\r\n"),
    ] {
        let target = format!("/zendesk{CONTENTS}");
        let mut bytes = from_zendesk(method, &target, more, b"");
        if more.contains("chunked") {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        let answer = rig.send(bytes).await;
        if method == "DELETE" {
            // No capability covers it: whoever is told that has been identified.
            assert_eq!(answer.header("x-countersign-refusal"), "capability_missing");
            continue;
        }
        assert_eq!(answer.status, 200, "{method} {more}: {answer:?}");
        let seen = rig.site.only();
        assert!(seen.body.is_empty() && !seen.has("transfer-encoding"));
        assert_eq!(seen.has("content-length"), method == "POST");
    }
    // A signature of nothing would be good for every message without a body.
    let lines = signed("github", "GET", "/", b"", now());
    let target = format!("/github{CONTENTS}");
    let answer = rig.send(message("GET", &target, &lines, b"")).await;
    assert_eq!(answer.header("x-countersign-refusal"), "credential_unknown");
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn bodies_in_chunks_and_after_a_word_to_go_on() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    let target = format!("/zendesk{CONTENTS}");
    let lines = signed("zendesk", "POST", &target, BODY, now());
    let mut wire = rig.gateway.connect().await;
    for _ in 0..2 {
        let head = message(
            "POST",
            &target,
            &format!("{lines}Transfer-Encoding: chunked\r\n"),
            b"",
        );
        wire.write(&head).await;
        for piece in BODY.chunks(7) {
            wire.write(format!("{:x};ext=1\r\n", piece.len())).await;
            wire.write(piece).await;
            wire.write("\r\n").await;
        }
        wire.write("0\r\nX-Trailer: 1\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200, "the connection is kept");
        let seen = rig.site.only();
        assert_eq!(seen.body, BODY);
        assert_eq!(seen.header("content-length"), BODY.len().to_string());
        assert!(!seen.has("transfer-encoding"));
    }
    let more = format!(
        "{lines}Expect: 100-continue\r\nContent-Length: {}\r\n",
        BODY.len()
    );
    wire.write(message("POST", &target, &more, b"")).await;
    let mut word = [0; 25];
    within(tokio::io::AsyncReadExt::read_exact(
        &mut wire.stream,
        &mut word,
    ))
    .await
    .unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.write(BODY).await;
    assert_eq!(wire.answer().await.status, 200);
    let seen = rig.site.only();
    assert!(seen.body == BODY && !seen.has("expect"), "{seen:?}");
}

/// A decent client's request on HTTP/2.
async fn ask_h2(rig: &Rig, method: &str, target: &str, lines: &str, body: &[u8]) -> u16 {
    let stream = TcpStream::connect(rig.gateway.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://gateway.test{target}"));
    for line in lines.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    let answer = within(sender.send_request(request)).await.unwrap();
    let status = answer.status().as_u16();
    within(answer.into_body().collect()).await.unwrap();
    driving.abort();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn on_http2() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    let large = vec![b'x'; 300_000];
    for (method, body) in [("POST", BODY), ("POST", &large), ("GET", b"")] {
        let target = format!("/zendesk{CONTENTS}");
        let lines = signed("zendesk", method, &target, body, now());
        assert_eq!(ask_h2(&rig, method, &target, &lines, body).await, 200);
        let seen = rig.site.only();
        assert!(seen.body == body && !seen.has("transfer-encoding"));
        is_bare(&seen);
        let other = [body, b"x"].concat();
        if method == "POST" {
            assert_eq!(ask_h2(&rig, method, &target, &lines, &other).await, 401);
        }
    }
    let large = vec![b'x'; 70_000];
    let lines = signed("github", "POST", "/", &large, now());
    let target = format!("/github{CONTENTS}");
    assert_eq!(ask_h2(&rig, "POST", &target, &lines, &large).await, 413);
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    for (target, most) in [
        ("/github", 64 * 1024),
        ("/small", 1024),
        ("/zendesk", 1 << 20),
    ] {
        let preset = if target == "/github" {
            "github"
        } else {
            "zendesk"
        };
        let target = format!("{target}{CONTENTS}");
        for (bytes, is_announced) in [
            (most, true),
            (most + 1, true),
            (most, false),
            (most + 1, false),
        ] {
            let body = vec![b'x'; bytes];
            // Each is another message.
            let body = [&body[1..], if is_announced { b"1" } else { b"2" }].concat();
            let lines = signed(preset, "POST", &target, &body, now());
            let mut wire = rig.gateway.connect().await;
            if is_announced {
                let more = format!("{lines}Content-Length: {bytes}\r\n");
                wire.write(message("POST", &target, &more, b"")).await;
                if bytes == most {
                    wire.write(&body).await;
                }
            } else {
                let more = format!("{lines}Transfer-Encoding: chunked\r\n");
                wire.write(message("POST", &target, &more, b"")).await;
                wire.write(format!("{bytes:x}\r\n")).await;
                wire.write(&body).await;
                wire.write("\r\n0\r\n\r\n").await;
            }
            // Refused before a byte of it is sent, where it is announced.
            let answer = wire.answer().await;
            let code = answer.header("x-countersign-refusal");
            if bytes == most {
                assert_eq!((answer.status, code), (200, ""), "{target} {bytes}");
                assert_eq!(rig.site.only().body.len(), most);
            } else {
                assert_eq!(
                    (answer.status, code),
                    (413, "body_too_large"),
                    "{target} {bytes}"
                );
            }
        }
    }
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn what_is_refused_before_a_byte_of_the_body_is_read() {
    if !has_openssl() {
        return;
    }
    let mut records = Records::listen();
    let rig = rig().await;
    let target = format!("/zendesk{CONTENTS}");
    let mut check = async |lines: String, code: &str, why: &str| {
        let more = format!("{lines}Expect: 100-continue\r\nContent-Length: 9\r\n");
        let mut wire = rig.gateway.connect().await;
        wire.write(message("POST", &target, &more, b"")).await;
        // No 100 comes before it.
        let mut start = [0; 12];
        within(tokio::io::AsyncReadExt::read_exact(
            &mut wire.stream,
            &mut start,
        ))
        .await
        .unwrap();
        let expected = if code == "bad_message" { "400" } else { "401" };
        assert_eq!(&start[9..], expected.as_bytes(), "{lines}");
        assert_eq!(records.next().await, pair(code, why), "{lines}");
    };
    let good = signed("zendesk", "POST", &target, b"123456789", now());
    check(
        good.replace("Signature: ", "Signature: x"),
        "credential_unknown",
        "signature_malformed",
    )
    .await;
    check(
        format!("{good}{good}"),
        "credential_unknown",
        "signature_malformed",
    )
    .await;
    let (signature, time) = good.split_once("\r\n").unwrap();
    check(
        format!("{signature}\r\n"),
        "credential_unknown",
        "timestamp_missing",
    )
    .await;
    check(
        format!("{signature}\r\n{time}{time}"),
        "credential_unknown",
        "timestamp_missing",
    )
    .await;
    check(
        good.replace("Z\r\n", "\r\n"),
        "credential_unknown",
        "timestamp_malformed",
    )
    .await;
    let old = signed("zendesk", "POST", &target, b"123456789", now() - 400);
    check(old, "credential_expired", "timestamp_old").await;
    let ahead = signed("zendesk", "POST", &target, b"123456789", now() + 400);
    check(ahead, "credential_unknown", "timestamp_ahead").await;
    let nominated = format!("{good}Connection: x-zendesk-webhook-signature-timestamp\r\n");
    check(nominated, "bad_message", "connection").await;
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn a_slow_body_is_cut_and_a_broken_one_is_told() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    let target = format!("/zendesk{CONTENTS}");
    let lines = signed("zendesk", "POST", &target, BODY, now());
    let more = format!("{lines}Content-Length: {}\r\n", BODY.len());
    let mut wire = rig.gateway.connect().await;
    wire.write(message("POST", &target, &more, b"")).await;
    wire.write(&BODY[..5]).await;
    assert_eq!(
        wire.answer().await.header("x-countersign-refusal"),
        "request_timeout"
    );

    let more = format!("{lines}Transfer-Encoding: chunked\r\n");
    let mut wire = rig.gateway.connect().await;
    wire.write(message("POST", &target, &more, b"")).await;
    wire.write("zz\r\n").await;
    assert_eq!(
        wire.answer().await.header("x-countersign-refusal"),
        "bad_message"
    );

    let mut wire = rig.gateway.connect().await;
    wire.write(message("POST", &target, &more, b"")).await;
    wire.finish().await;
    assert!(wire.is_closed().await, "nobody is there to be told");
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn a_webhook_that_presents_something_else_beside() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    let basic = "Authorization: Basic Y3JtOnMzY3JldA==\r\n";
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    let check = async |target: &str, more: &str, expected: &str| {
        let target = format!("{target}{CONTENTS}");
        let answer = rig.send(from_zendesk("POST", &target, more, BODY)).await;
        assert_eq!(
            answer.header("x-countersign-refusal"),
            expected,
            "{target} {more}"
        );
    };
    // Zendesk signs every webhook, whatever it is told to authenticate with.
    check("/zendesk", basic, "").await;
    assert_eq!(rig.site.only().user(), "=zendesk-bot");
    check("/zendesk", &key, "").await;
    check("/zendesk", "Authorization: Bearer x\r\n", "").await;
    check("/both", "", "").await;
    check("/both", &key, "ambiguous_credential").await;
    check("/both", "X-Api-Key: wrong\r\n", "ambiguous_credential").await;
    // No caller of this route signs: then a signature says nothing.
    check("/write", &key, "").await;
    check("/write", "", "credential_missing").await;
    // Two signatures, of two callers.
    let two = signed("github", "POST", "/", BODY, now());
    check("/both", &two, "ambiguous_credential").await;
    // The old header of GitHub's is another caller's, if anybody's.
    let old = format!(
        "X-Hub-Signature: {}\r\n",
        two.split("sha1=")
            .nth(1)
            .unwrap()
            .split_once('\r')
            .unwrap()
            .0
    );
    let target = format!("/github{CONTENTS}");
    let answer = rig.send(message("POST", &target, &old, BODY)).await;
    assert_eq!(answer.header("x-countersign-refusal"), "credential_missing");
}

#[tokio::test]
async fn parameters_of_the_products_own_do_not_go_up() {
    if !has_openssl() {
        return;
    }
    let rig = rig().await;
    let check = async |query: &str, expected: &str| {
        let target = format!("/hubspot/@api/deki/site/query{query}");
        let lines = signed("hubspot", "GET", &target, b"", now());
        let answer = rig.send(message("GET", &target, &lines, b"")).await;
        assert_eq!(answer.status, 200, "{query}");
        let expected = format!("/@api/deki/site/query{expected}");
        assert_eq!(rig.site.only().target, expected, "{query}");
    };
    check(
        "?q=hs%3Aapp&userId=1&portalId=2&userEmail=a%40example.com&appId=3",
        "?q=hs%3Aapp",
    )
    .await;
    check("?userId=1&q=a&&portalId=2&limit=%35", "?q=a&&limit=%35").await;
    check("?%75serid=1&+APPID+=2", "").await;
    check(
        "?q=userId&myuserId=1&userId2=2",
        "?q=userId&myuserId=1&userId2=2",
    )
    .await;
}

#[tokio::test]
async fn a_message_without_a_time_counts_once() {
    if !has_openssl() {
        return;
    }
    static STATUS: AtomicU16 = AtomicU16::new(200);
    let rig = Rig::with(&file(), |_| {
        let status = STATUS.load(Ordering::SeqCst);
        Reply::status(&format!("{status} X"), "", "<a/>")
    })
    .await;
    let send = async |body: &[u8], target: &str, status: u16| {
        STATUS.store(status, Ordering::SeqCst);
        let lines = signed("github", "POST", "/", body, now());
        let answer = rig.send(message("POST", target, &lines, body)).await;
        (
            answer.status,
            answer.header("x-countersign-refusal").to_owned(),
        )
    };
    let target = format!("/github{CONTENTS}");
    let replayed = (401, "credential_unknown".to_owned());
    assert_eq!(send(b"1", &target, 200).await.0, 200);
    assert_eq!(send(b"1", &target, 200).await, replayed);
    assert_eq!(
        send(b"1", &format!("{target}?x=1"), 200).await,
        replayed,
        "nor elsewhere"
    );
    let other_route = format!("/both{CONTENTS}");
    assert_eq!(
        send(b"1", &other_route, 200).await,
        replayed,
        "nor on another route"
    );
    // It may be sent again where nothing came of it, and only there.
    for (body, status) in [(b"2", 503), (b"3", 500)] {
        assert_eq!(send(body, &target, status).await.0, status);
        assert_eq!(send(body, &target, 200).await.0, 200);
        assert_eq!(send(body, &target, 200).await, replayed);
    }
    for (body, status) in [(b"4", 404), (b"5", 409), (b"6", 302)] {
        assert_eq!(send(body, &target, status).await.0, status);
        assert_eq!(send(body, &target, 200).await, replayed);
    }
}

#[tokio::test]
async fn what_strangers_make_us_hold_is_bounded() {
    if !has_openssl() {
        return;
    }
    let log = Log::listen();
    let file = file().replace("body_grace: 1s", "body_grace: 60s");
    let rig = Rig::with(&file, |_| Reply::ok()).await;
    let target = format!("/zendesk{CONTENTS}");
    let body = vec![b'x'; 1 << 20];
    // Well-formed, and signed by nobody; of each the last byte is missing.
    let lines = signed("zendesk", "POST", &target, b"another body", now());
    let more = format!("{lines}Content-Length: {}\r\n", body.len());
    let head = message("POST", &target, &more, b"");
    let mut held: Vec<Wire> = Vec::new();
    for _ in 0..24 {
        let mut wire = rig.gateway.connect().await;
        wire.write(&head).await;
        wire.write(&body[1..]).await;
        held.push(wire);
    }
    let refused = || {
        let records = log.named("exchange");
        let full = |record: &&serde_json::Value| record["refusal"] == "concurrency_limited";
        records.iter().filter(full).count()
    };
    until("one address holds 4 MiB", || refused() >= 20).await;
    assert!(refused() < 24, "and not less");
    // Who needs no space is served; and who needs some, once it is given back.
    let answer = rig.send(from_zendesk("GET", &target, "", b"")).await;
    assert_eq!(answer.status, 200);
    drop(held);
    let wanted = tokio::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let answer = rig.send(from_zendesk("POST", &target, "", &body)).await;
        if answer.status == 200 {
            break;
        }
        assert_ne!(answer.header("retry-after"), "", "{answer:?}");
        assert!(tokio::time::Instant::now() < wanted, "{answer:?}");
    }
}

#[tokio::test]
async fn no_secret_of_a_webhook_leaves_its_cage() {
    if !has_openssl() {
        return;
    }
    let (capture, _guard) = Capture::start(LogFormat::Text, "trace");
    let rig = rig().await;
    let body = b"canary-sent";
    for product in &PRODUCTS {
        let target = format!("/{}{CONTENTS}?q=canary-sent", product.preset);
        let lines = signed(product.preset, "POST", &target, body, now());
        for body in [&body[..], body, b"canary-sent too"] {
            let answer = rig.send(message("POST", &target, &lines, body)).await;
            assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
        }
    }
    let loaded = crate::harness::compile(&file(), rig.site.address).unwrap();
    let printed = format!("{loaded:?}{:?}", rig.gateway.shared);
    let events = capture.text();
    assert!(events.contains("signature_mismatch"), "{events}");
    let decoded = "canary-secret-of-the-webhooks";
    for secret in [
        HOOK_SECRET,
        NEW_HOOK_SECRET,
        &STANDARD_SECRET[6..],
        decoded,
        "canary-sent",
    ] {
        assert!(
            !printed.contains(secret) && !events.contains(secret),
            "{secret}"
        );
    }
}

#[test]
fn the_examples_in_the_documents_can_be_used() {
    let page = include_str!("../../docs/callers.md");
    let (_, page) = page.split_once("\n## Signed webhooks\n").unwrap();
    let section = page.split("\n## ").next().unwrap();
    let mut presets: Vec<&str> = PRODUCTS.iter().map(|product| product.preset).collect();
    let (before, _) = ROUTES.split_once("callers:\n").unwrap();
    let site = "127.0.0.1:1".parse().unwrap();
    for block in section.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let names = block.lines().filter_map(|line| {
            let name = line.strip_prefix("  ")?.strip_suffix(':')?;
            (!name.starts_with(' ')).then_some(name)
        });
        let names: Vec<&str> = names.collect();
        assert!(!names.is_empty(), "{block}");
        // Each caller's secret is where the rig has one.
        let words = block.split_inclusive([' ', '\n']).map(|word| {
            let name = word.trim_end().trim_end_matches('}');
            match name {
                "env:SVIX_SECRET" | "env:STANDARD_SECRET" => {
                    word.replace(name, "env:STANDARD_SECRET")
                }
                _ if name.starts_with("env:") || name.starts_with("file:") => {
                    word.replace(name, "env:HOOK_SECRET")
                }
                _ => word.to_owned(),
            }
        });
        let block: String = words.collect();
        let text = format!(
            "{before}{block}routes: [{{ name: x, site: acme, token: server, callers: [{}], allow: [search] }}]\n",
            names.join(", ")
        );
        let loaded = crate::harness::compile(&text, site);
        let loaded = loaded.unwrap_or_else(|unusable| panic!("{unusable}\n{text}"));
        for warning in loaded.warnings {
            assert!(warning.text.starts_with("no time stands"), "{warning:?}");
        }
        presets.retain(|preset| !block.contains(&format!("preset: {preset}")));
    }
    assert!(presets.is_empty(), "no example of {presets:?}");
}
