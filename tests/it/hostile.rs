//! Messages that two parsers in a chain might read differently: each is refused, or goes on as
//! exactly one well-formed request. A second request with the caller's key rides behind each; where
//! the first is ambiguous, the second must never be found.

use std::time::Duration;

use crate::harness::{API_KEY, ROUTES, Reply, Rig, get, until};

/// A request with a body that some parser might not see the end of.
fn post(lines: &str, body: &str) -> String {
    format!(
        "POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{lines}\r\n{body}"
    )
}

/// What a smuggler hides.
fn hidden() -> String {
    get("/write/@api/deki/pages/hidden", "")
}

/// Sends a message with a hidden request behind it; nothing may arrive, and nothing but a refusal
/// with this code, or a closed connection, may come back.
async fn refused(rig: &Rig, attack: &str, message: impl AsRef<[u8]>, code: &str) {
    let mut wire = rig.gateway.connect().await;
    wire.write(message).await;
    wire.write(hidden()).await;
    wire.finish().await;
    match wire.try_answer("GET").await {
        Some(answer) => {
            assert!(answer.status >= 400, "{attack}: {answer:?}");
            if !code.is_empty() {
                assert_eq!(answer.refusal(), code, "{attack}: {answer:?}");
            }
            let rest = wire.rest().await;
            assert!(
                rest.is_empty(),
                "{attack}: a second answer {}",
                String::from_utf8_lossy(&rest)
            );
        }
        None => assert!(code.is_empty(), "{attack}: closed without a word"),
    }
    let seen = rig.site.take();
    assert!(seen.is_empty(), "{attack}: arrived: {seen:?}");
}

#[tokio::test]
async fn two_ways_to_say_how_long() {
    let rig = Rig::start().await;
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (attack, lines, body) in [
        (
            "length_then_chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "chunked_then_length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            chunks,
        ),
        (
            "zero_length_and_chunked",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "different_lengths",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "hello",
        ),
        (
            "equal_lengths",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "hello",
        ),
        ("length_list", "Content-Length: 5, 5\r\n", "hello"),
        ("length_with_plus", "Content-Length: +5\r\n", "hello"),
        ("length_in_hex", "Content-Length: 0x5\r\n", "hello"),
        ("negative_length", "Content-Length: -5\r\n", "hello"),
        ("length_with_a_dot", "Content-Length: 5.0\r\n", "hello"),
        (
            "length_beyond_all_measure",
            "Content-Length: 99999999999999999999999\r\n",
            "hello",
        ),
        ("empty_length", "Content-Length: \r\n", "hello"),
        (
            "length_with_blank_inside",
            "Content-Length: 5 5\r\n",
            "hello",
        ),
        (
            "gzip_and_chunked",
            "Transfer-Encoding: gzip, chunked\r\n",
            chunks,
        ),
        (
            "chunked_and_gzip",
            "Transfer-Encoding: chunked, gzip\r\n",
            chunks,
        ),
        (
            "chunked_twice",
            "Transfer-Encoding: chunked, chunked\r\n",
            chunks,
        ),
        ("identity", "Transfer-Encoding: identity\r\n", chunks),
        (
            "two_codings",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            chunks,
        ),
        (
            "two_codings_reversed",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "two_equal_codings",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "coding_lookalike",
            "Transfer-Encoding: xchunked\r\n",
            chunks,
        ),
        (
            "coding_in_quotes",
            "Transfer-Encoding: \"chunked\"\r\n",
            chunks,
        ),
        (
            "coding_with_parameter",
            "Transfer-Encoding: chunked;q=1\r\n",
            chunks,
        ),
        ("empty_coding", "Transfer-Encoding:\r\n", chunks),
        (
            "coding_with_vertical_tab",
            "Transfer-Encoding: \x0bchunked\r\n",
            chunks,
        ),
        (
            "coding_with_form_feed",
            "Transfer-Encoding: chunked\x0c\r\n",
            chunks,
        ),
        (
            "blank_before_colon",
            "Transfer-Encoding : chunked\r\n",
            chunks,
        ),
        (
            "blank_before_colon_of_length",
            "Content-Length : 5\r\n",
            "hello",
        ),
        (
            "folded_coding",
            "Transfer-Encoding:\r\n chunked\r\n",
            chunks,
        ),
        ("folded_length", "Content-Length:\r\n 5\r\n", "hello"),
        (
            "blank_before_name",
            " Transfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "line_feed_only",
            "X-A: b\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "carriage_return_only",
            "X-A: b\rTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "nul_in_value",
            "X-A: b\0\r\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "line_without_colon",
            "Transfer-Encoding\r\nContent-Length: 5\r\n",
            "hello",
        ),
        (
            "length_named_in_connection",
            "Connection: Content-Length\r\nContent-Length: 5\r\n",
            "hello",
        ),
        (
            "coding_named_in_connection",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
            chunks,
        ),
        (
            "credential_named_in_connection",
            "Connection: close, x-api-KEY\r\nContent-Length: 5\r\n",
            "hello",
        ),
        (
            "origin_named_in_connection",
            "Connection: Origin\r\nOrigin: https://crm.example.com\r\nContent-Length: 5\r\n",
            "hello",
        ),
        (
            "host_named_in_connection",
            "Connection: Host\r\nContent-Length: 5\r\n",
            "hello",
        ),
    ] {
        refused(&rig, attack, post(lines, body), "bad_message").await;
    }
}

#[tokio::test]
async fn framing_of_old_versions() {
    let rig = Rig::start().await;
    let head = |version: &str, lines: &str| {
        format!(
            "POST /write/@api/deki/pages/home/contents {version}\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n"
        )
    };
    refused(
        &rig,
        "chunked_in_1_0",
        head("HTTP/1.0", "Transfer-Encoding: chunked\r\n"),
        "bad_message",
    )
    .await;
    refused(
        &rig,
        "chunked_and_kept_alive_in_1_0",
        head(
            "HTTP/1.0",
            "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
        ),
        "bad_message",
    )
    .await;
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3",
        "http/1.1",
        "HTTP/1.1 ",
        "HTTP/01.1",
        "HTTPS/1.1",
        "",
    ] {
        refused(
            &rig,
            version,
            head(version, "Transfer-Encoding: chunked\r\n"),
            "bad_message",
        )
        .await;
    }
    refused(
        &rig,
        "simple_request",
        "GET /crm/@api/deki/users/current\r\n",
        "bad_message",
    )
    .await;
}

#[tokio::test]
async fn chunks_that_end_where_nobody_knows() {
    let rig = Rig::start().await;
    for (attack, body) in [
        ("size_with_0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("size_with_plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("negative_size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("size_with_underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        (
            "size_beyond_all_measure",
            "fffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "size_that_wraps_around",
            "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        ),
        ("empty_size", "\r\nhello\r\n0\r\n\r\n"),
        ("size_of_letters", "hello\r\nhello\r\n0\r\n\r\n"),
        ("more_than_announced", "3\r\nhello\r\n0\r\n\r\n"),
        ("blank_before_size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("blank_behind_size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("only_an_extension", ";a=b\r\nhello\r\n0\r\n\r\n"),
        ("line_feed_behind_size", "5\nhello\r\n0\r\n\r\n"),
        ("line_feed_in_extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("line_feed_in_trailer", "0\r\nX: a\n\r\n"),
        ("no_line_end_behind_data", "5\r\nhello0\r\n\r\n"),
    ] {
        let mut wire = rig.gateway.connect().await;
        wire.write(post("Transfer-Encoding: chunked\r\n", body))
            .await;
        wire.write(hidden()).await;
        wire.finish().await;
        if let Some(answer) = wire.try_answer("POST").await {
            assert!(answer.status >= 400, "{attack}: {answer:?}");
        }
        for seen in rig.site.take() {
            assert!(
                !seen.is_complete && seen.method == "POST",
                "{attack}: {seen:?}"
            );
        }
    }
}

#[tokio::test]
async fn trailers_carry_nothing() {
    let rig = Rig::start().await;
    let mut wire = rig.gateway.connect().await;
    let body = "5\r\nhello\r\n0\r\nX-Deki-Token: tkn_evil\r\nCookie: authtoken=1\r\n\r\n";
    wire.write(post("Transfer-Encoding: chunked\r\n", body))
        .await;
    if let Some(answer) = wire.try_answer("POST").await {
        assert!(answer.status == 200 || answer.status >= 400, "{answer:?}");
    }
    for seen in rig.site.take() {
        assert!(!format!("{seen:?}").contains("evil"), "{seen:?}");
        assert_eq!(seen.all("x-deki-token").len(), 1);
    }
}

#[tokio::test]
async fn hosts_and_lines() {
    let rig = Rig::start().await;
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    let target = "/crm/@api/deki/users/current";
    for (attack, message, code) in [
        (
            "no_host",
            format!("GET {target} HTTP/1.1\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "no_host_in_1_0",
            format!("GET {target} HTTP/1.0\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "two_hosts",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nHost: y\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "two_equal_hosts",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nhost: x\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "host_list",
            format!("GET {target} HTTP/1.1\r\nHost: x, y\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "empty_host",
            format!("GET {target} HTTP/1.1\r\nHost:\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "host_with_user",
            format!("GET {target} HTTP/1.1\r\nHost: a@x\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "host_with_path",
            format!("GET {target} HTTP/1.1\r\nHost: x/y\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "host_with_blank",
            format!("GET {target} HTTP/1.1\r\nHost: x y\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "folded_host",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\n y\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "name_with_blank",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nX A: b\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "empty_name",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\n: b\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "name_beyond_ascii",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-\u{e9}: b\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "key_beyond_ascii",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: \u{e9}\r\n\r\n"),
            "",
        ),
        (
            "value_with_delete",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-A: \x7f\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "blank_before_first_header",
            format!("GET {target} HTTP/1.1\r\n Host: x\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "two_blanks",
            format!("GET  {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "tab_in_request_line",
            format!("GET\t{target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "blank_in_target",
            format!("GET {target} x HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "line_feeds_only",
            format!(
                "GET {target} HTTP/1.1\nHost: x\n{}\n",
                key.replace("\r\n", "\n")
            ),
            "bad_message",
        ),
        (
            "not_http",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
            "bad_message",
        ),
        (
            "tls_hello",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
            "bad_message",
        ),
        (
            "proxy_protocol",
            format!(
                "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"
            ),
            "bad_message",
        ),
        (
            "trace",
            format!("TRACE {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "method_not_supported",
        ),
        (
            "connect",
            format!("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n{key}\r\n"),
            "method_not_supported",
        ),
        (
            "lower_case_method",
            format!("get {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "method_not_supported",
        ),
        (
            "unknown_method",
            format!("FROB {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "method_not_supported",
        ),
        (
            "debug",
            format!("DEBUG {target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "method_not_supported",
        ),
        (
            "everything",
            format!("OPTIONS * HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "bad_target",
        ),
        (
            "absolute_form_elsewhere",
            format!("GET http://other{target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "",
        ),
        (
            "absolute_form_with_user",
            format!("GET http://a@x{target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "",
        ),
        (
            "absolute_form_of_a_file",
            format!("GET file://x{target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "",
        ),
        (
            "two_slashes",
            format!("GET /{target} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
            "bad_target",
        ),
        (
            "no_slash",
            format!("GET {} HTTP/1.1\r\nHost: x\r\n{key}\r\n", &target[1..]),
            "",
        ),
        (
            "another_expectation",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n{key}\r\n"),
            "bad_message",
        ),
        (
            "get_with_length",
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n{key}\r\nhello"),
            "bad_message",
        ),
        (
            "get_with_chunks",
            format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{key}\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
            "bad_message",
        ),
        (
            "head_with_length",
            format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n{key}\r\nhello"),
            "bad_message",
        ),
    ] {
        let mut wire = rig.gateway.connect().await;
        wire.write(&message).await;
        wire.finish().await;
        let method = if attack.starts_with("head") {
            "HEAD"
        } else {
            "GET"
        };
        match wire.try_answer(method).await {
            Some(answer) => {
                assert!(answer.status >= 400, "{attack}: {answer:?}");
                assert!(
                    code.is_empty() || answer.refusal() == code,
                    "{attack}: {answer:?}"
                );
                assert_eq!(answer.header("server"), "", "{attack}");
                assert_ne!(answer.header("x-request-id"), "", "{attack}");
            }
            None => panic!("{attack}: closed without a word"),
        }
        assert_eq!(rig.site.count(), 0, "{attack}");
    }
    let refused = rig
        .gateway
        .shared
        .telemetry
        .refused(countersign::policy::Refusal::BadMessage(
            countersign::policy::fault::MessageFault::Line,
        ));
    assert!(
        refused >= 20,
        "early refusals are counted like the others: {refused}"
    );
}

#[tokio::test]
async fn odd_but_good() {
    let rig = Rig::start().await;
    let target = "/crm/@api/deki/users/current";
    for (name, message) in [
        (
            "absolute_form",
            format!(
                "GET http://gateway.test{target} HTTP/1.1\r\nHost: gateway.test\r\nX-Api-Key: {API_KEY}\r\n\r\n"
            ),
        ),
        (
            "old_version",
            format!("GET {target} HTTP/1.0\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n\r\n"),
        ),
        ("no_length_on_get", get(target, "")),
        ("zero_length_on_get", get(target, "Content-Length: 0\r\n")),
        (
            "upgrade_asked_for",
            get(
                target,
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
            ),
        ),
        (
            "h2c_upgrade_asked_for",
            get(
                target,
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            ),
        ),
        ("empty_line_before", format!("\r\n{}", get(target, ""))),
        ("value_with_tab", get(target, "X-A: a\tb\r\n")),
        ("cookie_beyond_ascii", get(target, "Cookie: caf\u{e9}\r\n")),
        ("unlisted_beyond_ascii", get(target, "X-A: \u{e9}\r\n")),
        ("agent_beyond_ascii", get(target, "User-Agent: \u{e9}\r\n")),
        (
            "something_else_named_in_connection",
            get(
                target,
                "Connection: X-Forwarded-For, Cookie, X-A\r\nX-A: b\r\n",
            ),
        ),
    ] {
        let answer = rig.send(message).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let seen = rig.site.only();
        assert_eq!(seen.target, "/@api/deki/users/current", "{name}");
        assert_eq!(seen.user(), "=crm-bot", "{name}");
        assert!(
            !seen.has("upgrade") && !seen.has("http2-settings"),
            "{name}: {seen:?}"
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let rig = Rig::with(ROUTES, |seen| Reply::with("", &seen.target)).await;
    let mut wire = rig.gateway.connect().await;
    let mut bytes = String::new();
    for page in 0..5 {
        bytes.push_str(&get(&format!("/crm/@api/deki/pages/{page}"), ""));
        bytes.push_str(&get("/crm/@api/deki/users/authenticate", ""));
    }
    wire.write(bytes).await;
    for page in 0..5 {
        assert_eq!(
            wire.answer().await.text(),
            format!("/@api/deki/pages/{page}")
        );
        wire.answer().await.refused(403, "mints_credentials");
    }
    assert_eq!(rig.site.count(), 5);
}

#[tokio::test]
async fn too_much_of_everything() {
    let rig = Rig::start().await;
    let target = "/crm/@api/deki/users/current";
    let many: String = (0..140).map(|n| format!("X-A{n}: b\r\n")).collect();
    refused(
        &rig,
        "many_headers",
        get(target, &many),
        "headers_too_large",
    )
    .await;
    let many: String = (0..5000).map(|n| format!("X-A{n}: b\r\n")).collect();
    refused(&rig, "thousands_of_headers", get(target, &many), "").await;
    refused(
        &rig,
        "long_header",
        get(target, &format!("X-A: {}\r\n", "b".repeat(66_000))),
        "headers_too_large",
    )
    .await;
    refused(
        &rig,
        "longer_header",
        get(target, &format!("X-A: {}\r\n", "b".repeat(2_000_000))),
        "",
    )
    .await;
    refused(
        &rig,
        "long_target",
        get(&format!("{target}?q={}", "b".repeat(16_500)), ""),
        "target_too_long",
    )
    .await;
    refused(
        &rig,
        "longer_target",
        get(&format!("{target}?q={}", "b".repeat(600_000)), ""),
        "",
    )
    .await;
    refused(
        &rig,
        "body_announced_too_large",
        post("Content-Length: 67108865\r\n", ""),
        "body_too_large",
    )
    .await;
    let answer = rig
        .get(target, &format!("X-A: {}\r\n", "b".repeat(50_000)))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn bodies_are_counted_where_they_announce_nothing() {
    let text = ROUTES.replace("name: write,", "name: write, body_max: 100KiB,");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut wire = rig.gateway.connect().await;
    wire.write(post("Transfer-Encoding: chunked\r\n", "")).await;
    let chunk = "x".repeat(32 * 1024);
    for _ in 0..4 {
        wire.write(format!("{:x}\r\n{chunk}\r\n", chunk.len()))
            .await;
    }
    let answer = wire.answer().await;
    answer.refused(413, "body_too_large");
    until("the site sees that it is incomplete", || {
        rig.site.count() == 1
    })
    .await;
    assert!(
        rig.site.take().iter().all(|seen| !seen.is_complete),
        "and takes nothing for whole"
    );
}

#[tokio::test]
async fn a_slow_header_section_is_cut() {
    let text = format!("{ROUTES}\nlimits: {{ header_timeout: 1s, idle_timeout: 1s }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut wire = rig.gateway.connect().await;
    wire.write("GET /crm/@api/deki/users/current HTTP/1.1\r\n")
        .await;
    let dripping = async {
        loop {
            wire.stream.writable().await.unwrap();
            if wire.stream.try_write(b"X-A: b\r\n").is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut byte = [0; 1];
            if wire.stream.peek(&mut byte).await.is_ok() {
                break;
            }
        }
    };
    tokio::select! {
        () = dripping => {}
        () = tokio::time::sleep(crate::harness::PATIENCE) => panic!("a drip holds the connection"),
    }
    let answer = wire.try_answer("GET").await;
    if let Some(answer) = answer {
        answer.refused(408, "request_timeout");
    }
    until("the connection is given back", || {
        rig.gateway.shared.slots.open() == 0
    })
    .await;
    // Idle before the first byte, and after an answer.
    let mut idle = rig.gateway.connect().await;
    assert!(idle.is_closed().await);
    let mut kept = rig.gateway.connect().await;
    kept.write(get("/crm/@api/deki/users/current", "")).await;
    assert_eq!(kept.answer().await.status, 200);
    assert!(kept.is_closed().await, "also after the first request");
}
