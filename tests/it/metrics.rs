//! What is counted is what is recorded; what strangers type makes no series; and Prometheus reads it.

mod exposition;
mod prometheus;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::exposition::Exposition;
use self::exposition::{Labels, labels_of};
use crate::harness::{API_KEY, Answer, Gateway, Log, ROUTES, Reply, Rig, Wire, get, until};

/// Asks the admin listener.
pub async fn ask(gateway: &Gateway, target: &str, more: &str) -> Answer {
    let mut wire = Wire::open(gateway.admin.unwrap()).await;
    wire.write(format!(
        "GET {target} HTTP/1.1\r\nHost: admin\r\n{more}\r\n"
    ))
    .await;
    wire.answer().await
}

/// The metrics as they are now.
async fn scrape(gateway: &Gateway) -> Exposition {
    let answer = ask(gateway, "/metrics", "").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    Exposition::parse(&answer.text())
}

/// A site that does what the last segment of a path says.
fn reply(target: &str) -> Reply {
    let name = target
        .rsplit('/')
        .next()
        .unwrap()
        .split('?')
        .next()
        .unwrap();
    match name {
        "missing" => Reply::status("404 Not Found", "", "<error/>"),
        "made-up" => Reply::status("299 Whatever", "", ""),
        "nonsense" => Reply::Last(b"nonsense\r\n\r\n".to_vec()),
        "reset" => Reply::Reset(Vec::new()),
        "torn" => Reply::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()),
        "trace" => Reply::status("500 Error", "", "at A.B (x) [0x00001] in x:0"),
        _ => Reply::ok(),
    }
}

/// How often each combination of these fields stands in records, as labels have it.
fn counted(records: &[Value], fields: &[(&str, &str)]) -> BTreeMap<Labels, f64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let text = |field: &str| match &record[field] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Number(number) if field == "status" && number.as_u64() == Some(299) => {
                "other".to_owned()
            }
            other => other.to_string(),
        };
        let labels: Labels = fields
            .iter()
            .map(|(label, field)| ((*label).to_owned(), text(field)))
            .collect();
        *counts.entry(labels).or_insert(0.0) += 1.0;
    }
    counts
}

#[tokio::test]
async fn what_is_counted_is_what_is_recorded() {
    let log = Log::listen();
    let text = format!("{ROUTES}limits: {{ header_timeout: 1s }}\n");
    let rig = Rig::with(&text, |seen| reply(&seen.target)).await;
    let page = |name: &str| format!("/crm/@api/deki/pages/{name}");
    for name in [
        "1", "2", "missing", "made-up", "nonsense", "reset", "torn", "trace",
    ] {
        let mut wire = rig.gateway.connect().await;
        wire.write(get(&page(name), "")).await;
        drop(wire.try_answer("GET").await);
    }
    let post = format!(
        "POST /write/@api/deki/pages/1/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 3\r\n\r\nabc"
    );
    let origin = "Origin: https://elsewhere.example\r\n";
    for request in [
        post,
        get("/nowhere", ""),
        get("/crm/@api/deki/site/settings", ""),
        "GET /crm/@api/deki/pages/1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /crm/@api/deki/pages/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: other\r\n\r\n".to_owned(),
        format!("GET /widget/@api/deki/site/query HTTP/1.1\r\nHost: x\r\n{origin}\r\n"),
        format!("GET /trial/@api/deki/site/query HTTP/1.1\r\nHost: x\r\n{origin}\r\n"),
        "FROB / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "no request\r\n\r\n".to_owned(),
        // Its header section never ends.
        "GET / HTTP/1.1\r\n".to_owned(),
    ] {
        rig.send(request).await;
    }
    let sent = 18;
    until("every exchange is recorded", || {
        log.named("exchange").len() == sent
    })
    .await;

    let metrics = scrape(&rig.gateway).await;
    let records = log.named("exchange");
    let check = |metric: &str, fields: &[(&str, &str)], of: &dyn Fn(&Value) -> bool| {
        let mut records = records.clone();
        records.retain(|record| of(record));
        assert_eq!(
            metrics.series(metric),
            counted(&records, fields),
            "{metric}"
        );
    };
    let all = |_: &Value| true;
    check(
        "countersign_requests_total",
        &[
            ("route", "route"),
            ("caller", "caller"),
            ("status", "status"),
            ("refusal", "refusal"),
        ],
        &all,
    );
    let route = [("route", "route")];
    check("countersign_request_duration_seconds_count", &route, &all);
    check("countersign_gateway_duration_seconds_count", &route, &all);
    check(
        "countersign_endpoint_duration_seconds_count",
        &[("endpoint", "endpoint")],
        &|record| record["endpoint"].is_string(),
    );
    check(
        "countersign_would_refuse_total",
        &[("route", "route"), ("refusal", "would_refuse")],
        &|record| record["would_refuse"].is_string(),
    );
    let attempts: f64 = metrics
        .series("countersign_upstream_attempts_total")
        .values()
        .sum();
    let recorded: u64 = records
        .iter()
        .map(|record| record["attempts"].as_u64().unwrap())
        .sum();
    assert_eq!(attempts, recorded as f64);
    for (outcome, expected) in [("answered", 7.0), ("invalid_answer", 1.0), ("reset", 2.0)] {
        let labels = [("site", "acme"), ("outcome", outcome)];
        let found = metrics.value("countersign_upstream_attempts_total", &labels);
        assert_eq!(found, expected, "{outcome}: {metrics:?}");
    }
    assert_eq!(metrics.value("countersign_connections_cut_total", &[]), 1.0);
    assert_eq!(
        metrics.value("countersign_breaker_state", &[("site", "acme")]),
        0.0
    );
    assert_eq!(metrics.value("countersign_in_flight", &[]), 0.0);
    let policy = &records[0]["policy"];
    assert!(records.iter().all(|record| record["policy"] == *policy));
    let version: Value =
        serde_json::from_slice(&ask(&rig.gateway, "/version", "").await.body).unwrap();
    let (hash, short) = (
        version["policy"].as_str().unwrap(),
        policy.as_str().unwrap(),
    );
    assert!(short.len() == 12 && hash.len() == 64 && hash.starts_with(short));
}

/// Requests of every kind with something in each that nobody has typed before.
fn strange(number: usize) -> [String; 8] {
    let typed = format!("typed{number}");
    let page = |host: &str, lines: &str| {
        format!("GET /crm/@api/deki/pages/={typed} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
    };
    let key = format!("X-Api-Key: {API_KEY}\r\n");
    [
        page(
            "x",
            &format!("{key}X-Request-Id: {typed}\r\nUser-Agent: {typed}\r\n"),
        ),
        page(
            &format!("{typed}.example"),
            &format!("X-Api-Key: {typed}\r\n"),
        ),
        page("x", &format!("{key}Origin: https://{typed}.example\r\n")),
        page("x", &format!("Authorization: Basic {typed}\r\n")),
        format!("GET /crm/@api/deki/{typed}/{typed} HTTP/1.1\r\nHost: x\r\n{key}\r\n"),
        format!("GET /{typed}?{typed} HTTP/1.1\r\nHost: {typed}.example\r\n{key}\r\n"),
        format!(
            "{} /crm/@api/deki/pages/1 HTTP/1.1\r\nHost: x\r\n{key}\r\n",
            typed.to_uppercase()
        ),
        format!(
            "GET /widget/@api/deki/site/query?q={typed} HTTP/1.1\r\nHost: {typed}.example\r\nOrigin: https://{typed}.apps.example.com\r\n\r\n"
        ),
    ]
}

#[tokio::test]
async fn strangers_make_no_series() {
    let budget = "{ requests_per_second: 1000000, burst: 1000000 }";
    let pages = "{ requests_per_second: 1000000, burst: 1000000, in_flight: 1000 }";
    let text = ROUTES.replace(
        "acts_as: \"=crm-bot\"",
        &format!("acts_as: \"=crm-bot\", limits: {pages}"),
    );
    let text = format!(
        "{text}limits: {{ unidentified: {budget}, per_address: {pages}, per_route: {pages}, per_origin: {pages} }}\n"
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    let mut expected = Vec::new();
    for request in strange(0) {
        expected.push(rig.send(request).await.status);
    }
    assert_eq!(expected, [200, 401, 403, 401, 403, 404, 405, 200]);
    let before = scrape(&rig.gateway).await;
    let mut wire = rig.gateway.connect().await;
    for number in 1..=2500 {
        let requests = strange(number);
        wire.write(requests.concat()).await;
        for status in &expected {
            assert_eq!(wire.answer().await.status, *status, "{number}");
        }
        rig.site.take();
    }
    let after = scrape(&rig.gateway).await;
    assert_eq!(after.names(), before.names(), "no series more");
    let ended: f64 = after.series("countersign_requests_total").values().sum();
    assert_eq!(ended, 8.0 * 2501.0);
    assert!(!format!("{after:?}").contains("typed"));
}

#[tokio::test]
async fn the_admin_listener() {
    let rig = Rig::start().await;
    let gateway = &rig.gateway;
    for (target, status, part) in [
        ("/healthz", 200, "\"status\":\"alive\""),
        ("/readyz", 200, "\"ready\":true"),
        ("/version", 200, "\"commit\":"),
        ("/policy", 200, "{\"hash\":\""),
        ("/metrics?x=1", 200, "# HELP countersign_requests_total "),
        (
            "/",
            404,
            "\"/healthz\",\"/readyz\",\"/metrics\",\"/version\",\"/policy\"",
        ),
        ("/policy/", 404, "paths"),
    ] {
        let answer = ask(gateway, target, "").await;
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.text().contains(part), "{target}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store");
        let mut wire = Wire::open(gateway.admin.unwrap()).await;
        wire.write(format!(
            "HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let head = wire.answer_to("HEAD").await;
        assert_eq!(head.status, status, "{target}");
        assert_eq!(head.header("content-type"), answer.header("content-type"));
        assert!(wire.is_closed().await, "HEAD {target} has no body");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "FROB"] {
        let mut wire = Wire::open(gateway.admin.unwrap()).await;
        wire.write(format!(
            "{method} /policy HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "GET, HEAD"),
            "{method}"
        );
    }
    let openmetrics = ask(
        gateway,
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
    )
    .await;
    let kind = openmetrics.header("content-type");
    assert_eq!(
        kind,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(openmetrics.text().ends_with("\n# EOF\n"));
}

/// More connections than it takes are closed, and it goes on when they are gone.
#[tokio::test]
async fn operators_who_hang_on() {
    let rig = Rig::start().await;
    let admin = rig.gateway.admin.unwrap();
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut wire = Wire::open(admin).await;
        wire.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
        held.push(wire);
    }
    let mut one_more = Wire::open(admin).await;
    one_more
        .write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(one_more.try_answer("GET").await, None);
    held.clear();
    loop {
        let mut wire = Wire::open(admin).await;
        wire.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        if wire.try_answer("GET").await.is_some() {
            break;
        }
    }
}

const ADMIN_TOKEN: &str = "canary-admin-token-0123456789";

fn with_token() -> String {
    ROUTES.replace(
        "admin: { address: \"127.0.0.1:0\" }",
        "admin: { address: \"127.0.0.1:0\", token: env:ADMIN_TOKEN }",
    )
}

#[tokio::test]
async fn operators_hold_a_token() {
    let rig = Rig::with(&with_token(), |_| Reply::ok()).await;
    let good = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    let bad = [
        String::new(),
        good.replace("Bearer", "Basic"),
        good.replace("Bearer", "Digest"),
        good.replace("Bearer ", "Bearer"),
        good.replace("Bearer ", "Bearer  "),
        good.replace(ADMIN_TOKEN, ""),
        good.replace(ADMIN_TOKEN, &ADMIN_TOKEN[1..]),
        good.replace(ADMIN_TOKEN, &format!("{ADMIN_TOKEN}0")),
        good.replace(ADMIN_TOKEN, &ADMIN_TOKEN.to_uppercase()),
        format!("{good}{good}"),
        format!("X-Api-Key: {ADMIN_TOKEN}\r\n"),
        format!("Authorization: Bearer {API_KEY}\r\n"),
    ];
    for target in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/version",
        "/policy",
        "/elsewhere",
    ] {
        let is_open = ["/healthz", "/readyz"].contains(&target);
        for lines in &bad {
            let answer = ask(&rig.gateway, target, lines).await;
            let expected = if is_open { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{target} {lines}");
            let challenge = if is_open { "" } else { "Bearer" };
            assert_eq!(answer.header("www-authenticate"), challenge);
            assert!(!answer.text().contains("canary"), "{}", answer.text());
        }
        for lines in [good.clone(), good.replace("Bearer", "bearer")] {
            let answer = ask(&rig.gateway, target, &lines).await;
            let expected = if target == "/elsewhere" { 404 } else { 200 };
            assert_eq!(answer.status, expected, "{target} {lines}");
        }
    }
}

#[tokio::test]
async fn what_policy_shows() {
    let rig = Rig::start().await;
    let answer = ask(&rig.gateway, "/policy", "").await.text();
    let shown: Value = serde_json::from_str(&answer).unwrap();
    let text = answer
        .split_once("\"policy\":")
        .unwrap()
        .1
        .strip_suffix("}\n")
        .unwrap();
    let hash = countersign::policy::caller::KeyDigest::of(text.as_bytes()).to_hex();
    assert_eq!(shown["hash"], hash, "the hash is that of the text");
    let policy = &shown["policy"];
    let routes = policy["routes"].as_array().unwrap();
    let names: Vec<_> = routes
        .iter()
        .map(|route| route["name"].as_str().unwrap())
        .collect();
    let expected = [
        "read",
        "write",
        "everything",
        "minting",
        "sessions",
        "shared",
        "widget",
        "trial",
        "hosted",
    ];
    assert_eq!(names, expected, "in the order of the file");
    let portal = serde_json::json!({ "name": "portal", "acts_as": "7" });
    assert_eq!(routes[0]["callers"][1], portal);
    assert_eq!(routes[0]["mount"], "/crm");
    assert_eq!(routes[6]["token"], "browser");
    assert_eq!(routes[7]["report_only"], true);
    assert_eq!(routes[8]["host"], "api.example.com");
    let site = &policy["sites"]["acme"];
    assert_eq!(
        (&site["server_tokens"], &site["timeouts_ms"]["total"]),
        (&1.into(), &75_000.into())
    );
    let hosts = serde_json::json!([
        "https://crm.example.com",
        "https://*.apps.example.com",
        "https://shop.example.com:8443"
    ]);
    assert_eq!(site["browser_token"]["allowed_hosts"], hosts);
    let caller = &policy["callers"]["crm"];
    assert_eq!(
        caller["credential"],
        serde_json::json!({ "kind": "api_key", "keys": 1 })
    );
    assert_eq!(caller["limits"]["in_flight"], 256);
    let minting = policy["allowances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["allow"] == serde_json::json!(["whoami"]));
    assert_eq!(
        minting.unwrap()["rules"],
        serde_json::json!(["GET users/current"])
    );
}

/// The same file gives the same hash; whatever is decided otherwise gives another.
#[tokio::test]
async fn the_hash_tells_policies_apart() {
    let site = "127.0.0.1:1".parse().unwrap();
    let hash = |text: &str| {
        let loaded =
            crate::harness::compile(text, site).unwrap_or_else(|unusable| panic!("{unusable}"));
        loaded.settings.effective(&loaded.policy).hash().to_owned()
    };
    let own = format!("{ROUTES}capabilities: {{ own: {{ GET: [\"pages/*/pdf\"] }} }}\n")
        .replace("allow: [whoami]", "allow: [own]");
    let mut seen = std::collections::BTreeSet::from([hash(ROUTES), hash(&own)]);
    assert_eq!(seen.len(), 2);
    assert!(!seen.insert(hash(&format!("# the same\n{ROUTES}"))));
    for (from, to) in [
        ("mount: /crm", "mount: /crm2"),
        ("api.example.com", "api2.example.com"),
        ("=crm-bot", "=crm-bot2"),
        ("acts_as: \"7\"", "acts_as: \"7\", limits: { burst: 3 }"),
        ("callers: [crm, portal]", "callers: [crm]"),
        ("allow: [whoami]", "allow: [whoami, search]"),
        ("origins: [crm.example.com]", "origins: [crm2.example.com]"),
        ("*.apps.example.com", "*.apps2.example.com"),
        (", report_only: true", ""),
        ("return_sessions: true", "return_sessions: false"),
        ("allow: [whoami]", "allow: [whoami], body_max: 1MiB"),
        ("allow: [whoami]", "allow: [whoami], request_headers: [X-A]"),
        ("allow: [whoami]", "allow: [whoami], answer_headers: [X-A]"),
        ("    browser_token:", "    retries: 1\n    browser_token:"),
        (
            "    browser_token:",
            "    timeouts: { idle: 1s }\n    browser_token:",
        ),
        (
            "    browser_token:",
            "    user_encoding: percent\n    browser_token:",
        ),
        (
            "    browser_token:",
            "    dialect: legacy\n    browser_token:",
        ),
        (
            "    browser_token:",
            "    forward_address: false\n    browser_token:",
        ),
        ("routes:\n", "limits: { connections: 7 }\nroutes:\n"),
        (
            "acts_as: \"7\"",
            "acts_as: { header: X-User-Name, allow: [a] }",
        ),
        (
            "acts_as: \"7\"",
            "acts_as: { header: X-User-Name, map: { a: \"=b\" } }",
        ),
        (
            "acts_as: \"7\"",
            "acts_as: \"7\", allowed_addresses: [10.0.0.0/8]",
        ),
        (
            "acts_as: \"7\"",
            "acts_as: \"7\", limits: { per_user: { burst: 3 } }",
        ),
        (
            "routes:\n",
            "limits: { per_origin: { burst: 7 } }\nroutes:\n",
        ),
    ] {
        let changed = ROUTES.replacen(from, to, 1);
        assert_ne!(changed, ROUTES, "{from}");
        assert!(seen.insert(hash(&changed)), "{from} became {to}");
    }
    let wider = own.replace("pages/*/pdf", "pages/*/pdf2");
    assert!(
        seen.insert(hash(&wider)),
        "patterns of capabilities of one's own"
    );
}

#[tokio::test]
async fn no_secret_in_what_operators_read() {
    let rig = Rig::with(&with_token(), |_| Reply::ok()).await;
    for request in crate::leaks::requests() {
        let mut wire = rig.gateway.connect().await;
        wire.write(&request).await;
        wire.finish().await;
        wire.rest().await;
    }
    let digests = [API_KEY, crate::harness::OTHER_KEY]
        .map(|key| countersign::policy::caller::KeyDigest::of(key.as_bytes()).to_hex());
    let token = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    for target in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/version",
        "/policy",
        "/canary-sent",
        "/?canary-sent",
    ] {
        for lines in [
            token.clone(),
            format!("{token}Accept: application/openmetrics-text\r\n"),
            "Authorization: Bearer canary-sent\r\n".to_owned(),
        ] {
            let mut wire = Wire::open(rig.gateway.admin.unwrap()).await;
            wire.write(format!(
                "GET {target} HTTP/1.1\r\nHost: canary-sent\r\nConnection: close\r\n{lines}\r\n"
            ))
            .await;
            let told = String::from_utf8(wire.rest().await).unwrap();
            assert!(told.starts_with("HTTP/1.1 "), "{told}");
            crate::leaks::clean(target, &told);
            for secret in digests.iter().map(String::as_str).chain([ADMIN_TOKEN]) {
                assert!(!told.contains(secret), "{target} holds {secret}");
            }
        }
    }
    crate::leaks::clean("Debug", &format!("{:?}", rig.gateway.shared));
}

/// Every thread of the data plane is busy, and whatever is connected to it waits.
#[test]
fn operators_are_answered_while_nothing_else_is() {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const WORKERS: usize = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .unwrap();
    let gateway = runtime.block_on(async {
        tokio::spawn(async { Rig::start().await.gateway })
            .await
            .unwrap()
    });
    let (busy, over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    for _ in 0..WORKERS {
        let (busy, over) = (Arc::clone(&busy), Arc::clone(&over));
        runtime.spawn(async move {
            busy.fetch_add(1, Ordering::SeqCst);
            while !over.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
    }
    while busy.load(Ordering::SeqCst) < WORKERS {
        std::thread::yield_now();
    }
    let mut waiting = std::net::TcpStream::connect(gateway.address).unwrap();
    waiting
        .write_all(get("/crm/@api/deki/users/current", "").as_bytes())
        .unwrap();
    for target in ["/healthz", "/readyz", "/metrics", "/version", "/policy"] {
        let mut admin = std::net::TcpStream::connect(gateway.admin.unwrap()).unwrap();
        admin
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        admin.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }
    assert_eq!(
        gateway.shared.telemetry.exchanges(),
        0,
        "all of them were busy"
    );
    over.store(true, Ordering::SeqCst);
    waiting
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    let mut first = [0; 13];
    waiting.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 ");
}

#[tokio::test]
async fn every_metric_stands_in_its_page() {
    let page = include_str!("../../docs/operations.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| {
            row.split(" | ")
                .map(|cell| cell.trim_matches('`'))
                .collect()
        })
        .filter(|row: &Vec<_>| row[0].starts_with("countersign_") || row[0].starts_with("process_"))
        .collect();
    let rig = Rig::with(ROUTES, |seen| reply(&seen.target)).await;
    rig.get("/crm/@api/deki/pages/1", "").await;
    let foreign = "GET /trial/@api/deki/site/query HTTP/1.1\r\nHost: x\r\nOrigin: https://elsewhere.example\r\n\r\n";
    rig.send(foreign).await;
    let generation = rig.gateway.shared.generation();
    until("tokens are tried", || {
        let mut standings = generation
            .sites()
            .flat_map(|(_, site)| site.server_tokens.standings());
        standings.all(|standing| standing.verdict.is_some())
    })
    .await;
    let metrics = scrape(&rig.gateway).await;
    let known: Vec<_> = metrics
        .0
        .iter()
        .map(|(name, family)| {
            let labels = family.series.keys().flat_map(|(_, labels)| labels.keys());
            let mut labels: Vec<_> = labels
                .filter(|label| *label != "le")
                .map(String::as_str)
                .collect();
            labels.sort_unstable();
            labels.dedup();
            (name.clone(), family.kind.clone(), labels.join("`, `"))
        })
        .collect();
    let mut written: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.len(), 4, "{row:?}");
            let mut labels: Vec<_> = row[2].split("`, `").collect();
            labels.sort_unstable();
            // Measured over https:// only: it has no series here.
            labels.retain(|_| row[0] != "countersign_clock_skew_seconds");
            (row[0].to_owned(), row[1].to_owned(), labels.join("`, `"))
        })
        .collect();
    written.sort_unstable();
    assert_eq!(
        written, known,
        "metrics, types and labels of docs/operations.md"
    );
    // What stands in the page of outcomes and statuses is what there is.
    let label = labels_of(&[("site", "acme"), ("outcome", "answered")]);
    assert!(
        metrics
            .series("countersign_upstream_attempts_total")
            .contains_key(&label)
    );
}
