//! A site that fails: the right refusal, no hang, no second POST, and the next request is good.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{API_KEY, Answer, Gateway, ROUTES, Reply, Rig, Seen, get, until};

const TARGET: &str = "/crm/@api/deki/pages/home";

/// Short timeouts, and a breaker that the many failures here would open is not what is tested.
fn impatient() -> String {
    ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { connect: 500ms, response: 500ms, between_bytes: 500ms }",
    )
}

fn post(target: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 5\r\n\r\nhello"
    )
}

const WRITE: &str = "/write/@api/deki/pages/home/contents";

/// The site fails on a page named `bad`, and is good otherwise.
async fn failing(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Rig {
    Rig::with(&impatient(), move |seen: &Seen| {
        if seen.target.contains("bad") {
            reply()
        } else {
            Reply::ok()
        }
    })
    .await
}

async fn bad(rig: &Rig) -> Answer {
    rig.get("/crm/@api/deki/pages/bad", "").await
}

/// The next request goes well, and nothing is left open.
async fn recovers(rig: &Rig) {
    rig.site.take();
    assert_eq!(
        rig.get(TARGET, "").await.status,
        200,
        "the next request is good"
    );
    rig.site.only();
    until("every connection is given back", || {
        rig.gateway.shared.slots.open() == 0
    })
    .await;
    assert_eq!(rig.gateway.shared.in_flight.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nobody_listens() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Gateway::start(&impatient(), closed).await;
    for request in [get(TARGET, ""), post(WRITE)] {
        gateway.send(request).await.refused(502, "site_unreachable");
    }
}

#[tokio::test]
async fn a_name_that_nobody_has() {
    let site = "127.0.0.1:1".parse().unwrap();
    let text = impatient().replace("url: http://@SITE@", "url: https://nobody.invalid");
    let gateway = Gateway::start(&text, site).await;
    gateway
        .send(get(TARGET, ""))
        .await
        .refused(502, "site_unreachable");
    let mut operator = crate::harness::Wire::open(gateway.admin.unwrap()).await;
    operator
        .write("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let answer = operator.answer().await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("\"resolved\":false"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_site_that_says_nothing() {
    let rig = failing(|| Reply::Hang(Vec::new())).await;
    bad(&rig).await.refused(504, "site_timeout");
    assert_eq!(rig.site.count(), 1, "a slow site is not asked again");
    recovers(&rig).await;
    let answer = rig.send(post("/write/@api/deki/pages/bad/contents")).await;
    answer.refused(504, "site_timeout");
    assert_eq!(rig.site.count(), 1);
    recovers(&rig).await;
}

#[tokio::test]
async fn a_site_that_resets_before_it_answers() {
    let rig = failing(|| Reply::Reset(Vec::new())).await;
    bad(&rig).await.refused(502, "site_unreachable");
    recovers(&rig).await;
    let answer = rig.send(post("/write/@api/deki/pages/bad/contents")).await;
    answer.refused(502, "site_unreachable");
    assert_eq!(rig.site.count(), 1, "a POST is never sent twice");
    recovers(&rig).await;
}

#[tokio::test]
async fn a_pooled_connection_that_died() {
    let asked = AtomicUsize::new(0);
    // The first answer is whole, and the connection ends without a word when it is used again.
    let rig = Rig::with(&impatient(), move |_| {
        match asked.fetch_add(1, Ordering::SeqCst) {
            1 | 4 => Reply::Last(Vec::new()),
            _ => Reply::ok(),
        }
    })
    .await;
    assert_eq!(rig.get(TARGET, "").await.status, 200);
    let answer = rig.get(TARGET, "").await;
    assert_eq!(
        answer.status,
        200,
        "a GET is tried again: {}",
        answer.text()
    );
    let seen = rig.site.take();
    assert_eq!(seen.len(), 3);
    assert_eq!(
        (seen[0].connection, seen[1].connection, seen[2].connection),
        (0, 0, 1)
    );
    for one in &seen {
        assert_eq!(one.user(), "=crm-bot", "each attempt is well signed");
    }
    assert_eq!(rig.get(TARGET, "").await.status, 200);
    rig.site.take();
    rig.send(post(WRITE)).await.refused(502, "site_unreachable");
    assert_eq!(rig.site.count(), 1, "a POST is not");
    recovers(&rig).await;
}

#[tokio::test]
async fn a_put_is_repeated_only_while_its_body_is_at_hand() {
    let asked = AtomicUsize::new(0);
    let rig = Rig::with(&impatient(), move |_| {
        match asked.fetch_add(1, Ordering::SeqCst) {
            1 | 4 => Reply::Last(Vec::new()),
            _ => Reply::ok(),
        }
    })
    .await;
    assert_eq!(rig.get(TARGET, "").await.status, 200);
    rig.site.take();
    let answer = rig
        .send(post("/write/@api/deki/pages/home/tags").replace("POST", "PUT"))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = rig.site.take();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter().all(|one| one.body == b"hello"),
        "with the whole body: {seen:?}"
    );
    assert_ne!(seen[0].connection, seen[1].connection);

    assert_eq!(rig.get(TARGET, "").await.status, 200);
    rig.site.take();
    let mut wire = rig.gateway.connect().await;
    let body = vec![b'x'; 1 << 20];
    wire.write(format!(
        "PUT /write/@api/deki/files/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    wire.write(&body).await;
    wire.answer().await.refused(502, "site_unreachable");
    assert_eq!(
        rig.site.count(),
        1,
        "a body that is gone is not half repeated"
    );
}

/// A site whose one connection is pooled, and ends without a word when it is used again.
async fn dying_when_reused() -> Rig {
    let asked = AtomicUsize::new(0);
    let rig = Rig::with(&impatient(), move |_| {
        match asked.fetch_add(1, Ordering::SeqCst) {
            1 => Reply::Last(Vec::new()),
            _ => Reply::ok(),
        }
    })
    .await;
    assert_eq!(rig.get(TARGET, "").await.status, 200);
    rig.site.take();
    rig
}

#[tokio::test]
async fn a_post_without_a_body_is_not_repeated_either() {
    let rig = dying_when_reused().await;
    let post = format!(
        "POST {WRITE} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 0\r\n\r\n"
    );
    rig.send(post).await.refused(502, "site_unreachable");
    let seen = rig.site.take();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(
        seen[0].connection, 0,
        "it went out on the pooled connection"
    );
}

#[tokio::test]
async fn a_post_that_becomes_a_put_is_not_repeated() {
    let rig = dying_when_reused().await;
    rig.send(post("/write/@api/deki/pages/home/tags?dream.in.verb=PUT"))
        .await
        .refused(502, "site_unreachable");
    assert_eq!(rig.site.count(), 1, "its sender took it for a POST");
}

#[tokio::test]
async fn an_answer_that_breaks_off() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    ] {
        for reset in [false, true] {
            let rig = failing(move || {
                let bytes = bytes.as_bytes().to_vec();
                if reset {
                    Reply::Reset(bytes)
                } else {
                    Reply::Last(bytes)
                }
            })
            .await;
            let mut wire = rig.gateway.connect().await;
            wire.write(get("/crm/@api/deki/pages/bad", "")).await;
            if let Some(answer) = wire.try_answer("GET").await {
                answer.refused(502, answer.refusal().to_owned().as_str());
                assert!(
                    answer.status == 502,
                    "half an answer is never a whole one: {bytes}"
                );
            }
            assert_eq!(rig.site.count(), 1, "and is not asked for again");
            drop(wire);
            recovers(&rig).await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_stalls() {
    let rig =
        failing(|| Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()))
            .await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get("/crm/@api/deki/pages/bad", "")).await;
    assert!(
        wire.try_answer("GET").await.is_none(),
        "cut, since it can no longer be refused"
    );
    recovers(&rig).await;
}

#[tokio::test]
async fn answers_that_are_none() {
    let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(2 << 20));
    for (name, bytes) in [
        ("garbage", "hello\r\n\r\n"),
        ("another_protocol", "SSH-2.0-OpenSSH\r\n"),
        (
            "unasked_switch",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ),
        (
            "header_without_colon",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        ),
        ("status_of_four_digits", "HTTP/1.1 2000 OK\r\n\r\n"),
        (
            "two_lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        ("header_too_large", long.as_str()),
    ] {
        let bytes = bytes.as_bytes().to_vec();
        let rig = failing(move || Reply::Last(bytes.clone())).await;
        let answer = bad(&rig).await;
        assert!(
            matches!(
                (answer.status, answer.refusal()),
                (502, "site_invalid_answer" | "site_unreachable")
            ),
            "{name}: {answer:?}"
        );
        recovers(&rig).await;
    }
}

#[tokio::test]
async fn two_answers_to_one_question() {
    let rig = failing(|| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        bytes.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        Reply::Bytes(bytes)
    })
    .await;
    assert_eq!(bad(&rig).await.text(), "ok");
    for _ in 0..3 {
        let answer = rig.get(TARGET, "").await;
        assert_eq!(answer.status, 200);
        assert!(
            !answer.text().contains("poison"),
            "the second answer meets no other question"
        );
    }
}

#[tokio::test]
async fn interim_answers_and_trailers() {
    let rig = failing(|| {
        Reply::Bytes(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nSet-Cookie: canary\r\n\r\n\
              HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSet-Cookie: canary\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get("/crm/@api/deki/pages/bad", "Connection: close\r\n"))
        .await;
    let bytes = String::from_utf8(wire.rest().await).unwrap();
    assert!(bytes.contains("hello"), "{bytes}");
    assert!(!bytes.contains("canary"), "{bytes}");
    recovers(&rig).await;
}

#[tokio::test]
async fn a_caller_that_goes_away() {
    let rig = failing(|| Reply::Hang(Vec::new())).await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get("/crm/@api/deki/pages/bad", "")).await;
    until("the site is asked", || rig.site.count() == 1).await;
    drop(wire);
    recovers(&rig).await;
    // In the middle of its body.
    let mut wire = rig.gateway.connect().await;
    wire.write(format!("POST {WRITE} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 500\r\n\r\nhalf")).await;
    drop(wire);
    until("the gateway notices", || rig.site.count() == 1).await;
    assert!(
        rig.site.take().iter().all(|seen| !seen.is_complete),
        "half a body is no whole request"
    );
    recovers(&rig).await;
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_ends() {
    let rig = Rig::with(&impatient(), |_| {
        Reply::status("413 Too Large", "Connection: close\r\n", "<error/>")
    })
    .await;
    let answer = rig.send(post(WRITE)).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.refusal(), "", "the site's own words pass");
}
