//! Stopping: what is under way finishes, and then it is over at once.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::harness::{Gateway, ROUTES, Reply, Rig, Wire, get, until};

const TARGET: &str = "/crm/@api/deki/pages/home";

#[tokio::test]
async fn what_is_under_way_finishes() {
    let rig = Rig::with(ROUTES, |seen| {
        if seen.target.contains("slow") {
            Reply::Drip(
                Duration::from_millis(2500),
                vec![b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec()],
            )
        } else {
            Reply::ok()
        }
    })
    .await;
    let mut kept = rig.gateway.connect().await;
    kept.write(get(TARGET, "")).await;
    assert_eq!(kept.answer().await.status, 200);
    let mut slow = rig.gateway.connect().await;
    slow.write(get("/crm/@api/deki/pages/slow", "")).await;
    until("it is under way", || rig.site.count() == 2).await;
    let mut gateway = rig.gateway;
    let admin = gateway.admin.unwrap();
    gateway.tell_to_stop();
    until("it is told", || {
        gateway
            .shared
            .draining
            .load(std::sync::atomic::Ordering::SeqCst)
    })
    .await;
    let mut operator = Wire::open(admin).await;
    operator
        .write("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(
        operator.answer().await.status,
        503,
        "balancers are told to send no more"
    );
    kept.write(get(TARGET, "")).await;
    let answer = kept.answer().await;
    assert_eq!(
        answer.status, 200,
        "a request on a kept connection is still answered"
    );
    assert_eq!(
        answer.header("connection"),
        "close",
        "and is the last one there"
    );
    assert_eq!(
        slow.answer().await.text(),
        "slow",
        "what was under way finishes"
    );
    let address = gateway.address;
    let since = Instant::now();
    gateway.stopped().await;
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "long before the drain timeout"
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens there any more"
    );
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let rig = Rig::start().await;
    let mut idle = rig.gateway.connect().await;
    idle.write(get(TARGET, "")).await;
    assert_eq!(idle.answer().await.status, 200);
    let Rig { mut gateway, .. } = rig;
    gateway.tell_to_stop();
    gateway.stopped().await;
    assert!(idle.is_closed().await, "idle connections do not hold it up");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut() {
    let text = format!("{ROUTES}\nlimits: {{ drain_timeout: 1s }}\n");
    let rig = Rig::with(&text, |_| Reply::Hang(Vec::new())).await;
    let mut wire = rig.gateway.connect().await;
    wire.write(get(TARGET, "")).await;
    until("it is under way", || rig.site.count() == 1).await;
    let Rig { mut gateway, site } = rig;
    gateway.tell_to_stop();
    gateway.stopped().await;
    drop(site);
    assert!(
        wire.try_answer("GET")
            .await
            .is_none_or(|answer| answer.status >= 500)
    );
}

#[tokio::test]
async fn two_gateways_want_one_port() {
    let rig = Rig::start().await;
    let text = ROUTES.replacen("127.0.0.1:0", &rig.gateway.address.to_string(), 1);
    let loaded = crate::harness::compile(&text, rig.site.address).unwrap();
    let fault = countersign::server::Server::bind(&loaded.settings, loaded.policy)
        .await
        .err()
        .expect("the port is taken");
    assert!(
        fault
            .to_string()
            .contains("another program listens there already"),
        "{fault}"
    );
    drop(Gateway::start(ROUTES, rig.site.address).await);
}

#[tokio::test]
async fn operators_are_told() {
    let rig = Rig::start().await;
    let admin = rig.gateway.admin.unwrap();
    for (target, status, part) in [
        ("/healthz", 200, "alive"),
        ("/readyz", 200, "\"ready\":true"),
        ("/version", 200, env!("CARGO_PKG_VERSION")),
        ("/crm/@api/deki/users/current", 404, "/readyz"),
    ] {
        let mut wire = Wire::open(admin).await;
        wire.write(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.text().contains(part), "{target}: {}", answer.text());
    }
    rig.get("/readyz", "").await.refused(404, "no_route");
}
