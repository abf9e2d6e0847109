//! How much one caller may use, and how long it may take.

use std::time::Duration;

use crate::harness::{API_KEY, OTHER_KEY, PATIENCE, ROUTES, Reply, Rig, Wire, get, until, within};

const TARGET: &str = "/crm/@api/deki/pages/home";

#[tokio::test]
async fn requests_a_second_of_each_caller() {
    let text = ROUTES.replace(
        "acts_as: \"=crm-bot\"",
        "acts_as: \"=crm-bot\", limits: { requests_per_second: 1, burst: 3 }",
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut refused = None;
    for _ in 0..5 {
        let answer = rig.get(TARGET, "").await;
        if answer.status != 200 {
            refused = Some(answer);
        }
    }
    let answer = refused.expect("five at once are too many");
    answer.refused(429, "rate_limited");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(rig.site.take().len() <= 4);
    let request = get(TARGET, "").replace(API_KEY, OTHER_KEY);
    assert_eq!(
        rig.send(request).await.status,
        200,
        "another caller has its own"
    );
}

#[tokio::test]
async fn requests_in_flight_of_each_caller() {
    let text = ROUTES.replace(
        "acts_as: \"=crm-bot\"",
        "acts_as: \"=crm-bot\", limits: { in_flight: 2 }",
    );
    let rig = Rig::with(&text, |seen| {
        if seen.target.contains("slow") {
            Reply::Hang(Vec::new())
        } else {
            Reply::ok()
        }
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = rig.gateway.connect().await;
        wire.write(get("/crm/@api/deki/pages/slow", "")).await;
        held.push(wire);
    }
    until("both are under way", || rig.site.count() == 2).await;
    let answer = rig.get(TARGET, "").await;
    answer.refused(429, "concurrency_limited");
    assert_ne!(answer.header("retry-after"), "");
    let request = get(TARGET, "").replace(API_KEY, OTHER_KEY);
    assert_eq!(
        rig.send(request).await.status,
        200,
        "another caller has its own"
    );
    held.clear();
    let in_flight = &rig.gateway.shared.in_flight;
    until("the gateway notices that nobody waits any more", || {
        in_flight.load(std::sync::atomic::Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(rig.get(TARGET, "").await.status, 200, "they are given back");
}

#[tokio::test]
async fn who_has_nothing_more_to_ask_still_gets_an_answer() {
    let rig = Rig::with(ROUTES, |_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n".to_vec();
        Reply::Drip(
            Duration::from_millis(700),
            vec![head, b"hel".to_vec(), b"lo!".to_vec()],
        )
    })
    .await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get(TARGET, "")).await;
    wire.finish().await;
    assert_eq!(wire.answer().await.text(), "hello!");
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn requests_a_second_of_each_origin() {
    let text =
        format!("{ROUTES}\nlimits: {{ per_origin: {{ requests_per_second: 1, burst: 2 }} }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let ask = |origin: &str| {
        format!(
            "GET /widget/@api/deki/site/query?q=x HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n"
        )
    };
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(
            rig.send(ask("https://a.apps.example.com"))
                .await
                .refusal()
                .to_owned(),
        );
    }
    assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
    assert_eq!(
        rig.send(ask("https://b.apps.example.com")).await.status,
        200
    );
}

/// Three connections that were answered, and one more that has asked.
async fn three_and_a_fourth(rig: &Rig) -> (Vec<Wire>, Wire) {
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = rig.gateway.connect().await;
        wire.write(get(TARGET, "")).await;
        assert_eq!(wire.answer().await.status, 200);
        held.push(wire);
    }
    let mut fourth = rig.gateway.connect().await;
    fourth.write(get(TARGET, "")).await;
    (held, fourth)
}

#[tokio::test]
async fn connections_of_one_address_and_in_total() {
    let text = format!("{ROUTES}\nlimits: {{ connections_per_address: 3 }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let (mut held, mut fourth) = three_and_a_fourth(&rig).await;
    assert!(
        fourth.is_closed().await,
        "closed at once, without costing a request"
    );
    held.pop();
    until("one is given back", || rig.gateway.shared.slots.open() == 2).await;
    assert_eq!(rig.get(TARGET, "").await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_cut() {
    let text = format!("{ROUTES}\nlimits: {{ body_grace: 1s, body_rate_min: 1KiB }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut wire = rig.gateway.connect().await;
    wire.write(format!(
        "POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 5000\r\n\r\n"
    ))
    .await;
    let dripping = async {
        let mut byte = [0; 1];
        while wire.stream.try_write(b"x").is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // `Ok` with bytes or without: the gateway has spoken, or hung up.
            if tokio::time::timeout(Duration::from_millis(1), wire.stream.peek(&mut byte))
                .await
                .is_ok()
            {
                break;
            }
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, dripping).await.is_ok(),
        "a drip holds the connection"
    );
    if let Some(answer) = wire.try_answer("POST").await {
        answer.refused(408, "request_timeout");
    }
    until("it is given back", || rig.gateway.shared.slots.open() == 0).await;
    assert!(rig.site.take().iter().all(|seen| !seen.is_complete));
    assert_eq!(
        rig.gateway.shared.telemetry.connections().1,
        1,
        "and is counted"
    );
}

#[tokio::test]
async fn a_slow_reader_is_cut() {
    let text = format!("{ROUTES}\nlimits: {{ body_grace: 1s, body_rate_min: 1KiB }}\n");
    let rig = Rig::with(&text, |_| Reply::with("", &"x".repeat(40 << 20))).await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get("/crm/@api/deki/files/1/big.bin", "")).await;
    // Nothing is read.
    until("the site answers", || rig.site.count() == 1).await;
    until("it is given back", || rig.gateway.shared.slots.open() == 0).await;
    assert_eq!(rig.gateway.shared.telemetry.connections().1, 1);
    assert_eq!(rig.get(TARGET, "").await.status, 200);
}

#[tokio::test]
async fn a_slow_site_does_not_make_its_caller_slow() {
    let text = format!("{ROUTES}\nlimits: {{ body_grace: 1s, body_rate_min: 1KiB }}\n");
    let rig = Rig::with(&text, |_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n".to_vec();
        let mut pieces = vec![head];
        pieces.extend((0..8).map(|_| b"x".to_vec()));
        Reply::Drip(Duration::from_millis(300), pieces)
    })
    .await;
    let answer = rig.get(TARGET, "").await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (200, 8),
        "2.7 seconds for eight bytes, but the site's"
    );
}

/// An address of this machine that is not the one everything else here comes from.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

async fn from_elsewhere(rig: &Rig) -> Wire {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((ELSEWHERE, 0).into()).unwrap();
    let stream = within(socket.connect(rig.gateway.address)).await.unwrap();
    Wire::over(stream)
}

/// A request of a page, or of whoever says that it is one.
fn page(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} /widget/@api/deki/{path} HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn slow_uploads_of_a_stranger_lock_no_page_out() {
    let rig = Rig::start().await;
    let mut held = Vec::new();
    let upload = page("POST", "pages/home/contents", "Content-Length: 200000\r\n");
    for _ in 0..300 {
        let mut wire = rig.gateway.connect().await;
        wire.write(&upload).await;
        held.push(wire);
    }
    let telemetry = &rig.gateway.shared.telemetry;
    let refused = || telemetry.refused(countersign::policy::Refusal::ConcurrencyLimited);
    until("most are refused", || refused() >= 300 - 32).await;
    assert!(rig.site.connections() <= 32, "{}", rig.site.connections());
    let mut wire = from_elsewhere(&rig).await;
    wire.write(page("GET", "pages/home", "")).await;
    assert_eq!(
        wire.answer().await.status,
        200,
        "the same origin, another address"
    );
    let body = page("POST", "pages/home/contents", "Content-Length: 2\r\n") + "hi";
    wire.write(body).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(
        rig.get(TARGET, "").await.status,
        200,
        "nor anybody with a key"
    );
}

#[tokio::test]
async fn a_flood_of_a_stranger_locks_no_page_out() {
    let rig = Rig::start().await;
    let mut wire = rig.gateway.connect().await;
    let mut limited = None;
    for n in 0..2_000 {
        // A name of its own each time does not help.
        let origin = format!("Origin: https://h{n}.apps.example.com");
        let request = page("GET", "pages/home", "");
        wire.write(request.replace("Origin: https://crm.example.com", &origin))
            .await;
        let answer = wire.answer().await;
        if answer.status != 200 {
            limited = Some(answer);
            break;
        }
    }
    let answer = limited.expect("one address has its limit");
    answer.refused(429, "rate_limited");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    let mut wire = from_elsewhere(&rig).await;
    wire.write(page("GET", "pages/home", "")).await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn bodies_of_pages_are_short_unless_the_file_says_more() {
    let rig = Rig::start().await;
    let body = |bytes: usize| {
        let length = format!("Content-Length: {bytes}\r\n");
        page("POST", "pages/home/contents", &length) + &"x".repeat(bytes)
    };
    assert_eq!(rig.send(body(256 << 10)).await.status, 200);
    rig.send(body((256 << 10) + 1))
        .await
        .refused(413, "body_too_large");
    let text = ROUTES.replace("name: widget,", "name: widget, body_max: 1MiB,");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    assert_eq!(rig.send(body(1 << 20)).await.status, 200);
}

#[tokio::test]
async fn refusals_of_strangers_cost_their_address_only() {
    let text =
        format!("{ROUTES}\nlimits: {{ unidentified: {{ requests_per_second: 1, burst: 40 }} }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let request =
        |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let bad_origin = "Origin: https://evil.example\r\n";
    let floods = [
        request(TARGET, ""),
        request(TARGET, "X-Api-Key: cs_guess\r\n"),
        request("/nowhere", ""),
        request("/widget/@api/deki/pages/home", bad_origin),
        request("/widget/@api/deki/../pages", ""),
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    for flood in floods.iter().cycle().take(60) {
        rig.send(flood).await;
    }
    for flood in &floods {
        let answer = rig.send(flood).await;
        answer.refused(429, "rate_limited");
        assert_ne!(answer.header("retry-after"), "");
    }
    // Behind the same address: whoever holds a key is served, and told what is really wrong.
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    assert_eq!(rig.send(request(TARGET, &key)).await.status, 200);
    for (target, status, code) in [
        ("/crm/@api/deki/../x", 400, "bad_target"),
        ("/nowhere", 404, "no_route"),
        ("/crm/@api/deki/groups", 403, "capability_missing"),
    ] {
        rig.send(request(target, &key)).await.refused(status, code);
    }
    // So are pages, and they are told so.
    assert_eq!(rig.send(page("GET", "pages/home", "")).await.status, 200);
    let mut wire = from_elsewhere(&rig).await;
    wire.write(request(TARGET, "")).await;
    wire.answer().await.refused(401, "credential_missing");
}

#[tokio::test]
async fn who_holds_a_key_is_never_charged() {
    let text =
        format!("{ROUTES}\nlimits: {{ unidentified: {{ requests_per_second: 1, burst: 3 }} }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    for _ in 0..20 {
        let request = get("/crm/@api/deki/../x", "");
        rig.send(request).await.refused(400, "bad_target");
    }
    let nobody = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    rig.send(nobody).await.refused(404, "no_route");
}

#[tokio::test]
async fn connections_of_one_address_are_a_fraction() {
    let text = format!("{ROUTES}\nlimits: {{ connections: 60 }}\n");
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let (_held, mut fourth) = three_and_a_fourth(&rig).await;
    assert!(fourth.is_closed().await, "one in twenty");
    let mut wire = from_elsewhere(&rig).await;
    wire.write(get(TARGET, "")).await;
    assert_eq!(wire.answer().await.status, 200);
}
