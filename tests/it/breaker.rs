//! When a site is left alone, who can bring that about and who cannot, and what operators are told.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::rustls::ServerConfig;

use crate::harness::{
    API_KEY, Answer, Gateway, Log, OTHER_KEY, ROUTES, Reply, Rig, Seen, Site, Wire, get, until,
};
use crate::tls::identity;

const TARGET: &str = "/crm/@api/deki/pages/home";

/// Timeouts a test can wait for.
fn impatient() -> String {
    ROUTES.replace(
        "url: http://@SITE@",
        "url: http://@SITE@\n    timeouts: { connect: 300ms, tls: 300ms, response: 300ms, between_bytes: 300ms }",
    )
}

/// An address nobody listens at.
fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn as_other(request: &str) -> String {
    request.replace(API_KEY, OTHER_KEY)
}

/// A page at an origin that anybody can write into a header.
fn page(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\n\r\n")
}

pub async fn readiness(gateway: &Gateway) -> (u16, Value) {
    let mut operator = Wire::open(gateway.admin.unwrap()).await;
    let question = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    operator.write(question).await;
    let answer = operator.answer().await;
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// Waits until the gateway itself says that the site's breaker is so; no caller asks anything.
async fn until_breaker_is(gateway: &Gateway, state: &str) {
    let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while readiness(gateway).await.1["sites"]["acme"]["breaker"] != state {
        assert!(tokio::time::Instant::now() < deadline, "{state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn upload(target: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 500\r\n\r\n{body}"
    )
}

/// However a caller or a stranger makes a site fail, everybody else is served.
#[tokio::test]
async fn what_one_caller_shapes_shuts_nobody_out() {
    let exception = "<exception><stacktrace>at System.Foo.Bar()</stacktrace></exception>";
    for (name, reply) in [
        ("silence", Reply::Hang(Vec::new())),
        ("reset", Reply::Reset(Vec::new())),
        ("closed", Reply::Last(Vec::new())),
        ("garbage", Reply::Last(b"hello\r\n\r\n".to_vec())),
        (
            "truncated",
            Reply::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_vec()),
        ),
        (
            "stalled",
            Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_vec()),
        ),
        (
            "half_a_head",
            Reply::Hang(b"HTTP/1.1 200 OK\r\nA: ".to_vec()),
        ),
        (
            "exception",
            Reply::status("500 Error", "X-A: b\r\n", exception),
        ),
        ("unavailable", Reply::status("503 No", "", "")),
    ] {
        let text = impatient() + "\nlimits: { body_grace: 1s }\n";
        let rig = Rig::with(&text, move |seen: &Seen| {
            if seen.target.contains("bad") {
                reply.clone()
            } else {
                Reply::ok()
            }
        })
        .await;
        let mut all = Vec::new();
        for _ in 0..8 {
            for request in [
                get("/crm/@api/deki/pages/bad", ""),
                page("/widget/@api/deki/pages/bad"),
                upload("/write/@api/deki/pages/bad/contents", ""),
            ] {
                let mut wire = rig.gateway.connect().await;
                wire.write(request).await;
                all.push(wire);
            }
        }
        for mut wire in all {
            if let Some(answer) = wire.try_answer("GET").await {
                assert_ne!(answer.refusal(), "site_unavailable", "{name}");
            }
        }
        let request = as_other(&get(TARGET, ""));
        assert_eq!(rig.send(request).await.status, 200, "{name}");
        assert!(
            readiness(&rig.gateway).await.1["sites"]["acme"]["breaker"] == "closed",
            "{name}"
        );
    }
}

/// Two callers, and pages, all at the same slow page, while the site answers others.
#[tokio::test]
async fn a_slow_page_is_not_a_slow_site() {
    let rig = Rig::with(&impatient(), |seen: &Seen| {
        if seen.target.contains("slow") {
            Reply::Hang(Vec::new())
        } else {
            Reply::ok()
        }
    })
    .await;
    let slow = get("/crm/@api/deki/pages/slow", "");
    for _ in 0..3 {
        let mut held = Vec::new();
        for request in [slow.clone(), as_other(&slow)].iter().cycle().take(10) {
            let mut wire = rig.gateway.connect().await;
            wire.write(request).await;
            held.push(wire);
        }
        until("all are under way", || rig.site.count() >= 10).await;
        assert_eq!(rig.get(TARGET, "").await.status, 200);
        for mut wire in held {
            wire.answer().await.refused(504, "site_timeout");
        }
        rig.site.take();
    }
    assert_eq!(rig.get(TARGET, "").await.status, 200);
}

/// Asks until the answer is this refusal; nothing else than `before` comes until then.
async fn ask_until(gateway: &Gateway, request: &str, before: &str, code: &str) -> Answer {
    let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let answer = gateway.send(request).await;
        if answer.refusal() == code {
            return answer;
        }
        assert_eq!(answer.refusal(), before);
        assert!(tokio::time::Instant::now() < deadline, "{code} never comes");
    }
}

async fn serve_at(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
                    drop(stream.write_all(answer).await);
                }
            });
        }
    });
}

#[tokio::test]
async fn two_callers_open_it_and_a_probe_closes_it() {
    let log = Log::listen();
    let site = nowhere();
    let gateway = Gateway::start(&impatient(), site).await;
    let request = get(TARGET, "");
    for request in [&request, &as_other(&request)].iter().cycle().take(5) {
        gateway.send(request).await.refused(502, "site_unreachable");
    }
    let answer = gateway.send(&request).await;
    answer.refused(503, "site_unavailable");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    let (status, body) = readiness(&gateway).await;
    let acme = &body["sites"]["acme"];
    assert_eq!(
        (acme["breaker"].as_str(), acme["cause"].as_str()),
        (Some("open"), Some("connect_refused")),
    );
    assert_eq!(status == 200, acme["usable"] == true, "{body}");

    serve_at(site).await;
    until_breaker_is(&gateway, "closed").await;
    assert_eq!(
        readiness(&gateway).await.0,
        200,
        "without any caller's request"
    );
    assert_eq!(gateway.send(&request).await.status, 404, "the site's own");

    let [opened, closed] = ["breaker opened", "breaker closed"].map(|turn| log.named(turn));
    assert_eq!((opened.len(), closed.len()), (1, 1), "{:?}", log.events());
    for event in [&opened[0], &closed[0]] {
        assert_eq!(event["level"], "WARN", "{event}");
        assert_eq!(event["site"], "acme", "{event}");
        assert_eq!(event["cause"], "connect_refused", "{event}");
        assert!(event["failures"].as_u64().unwrap() >= 5, "{event}");
    }
    let told: Vec<_> = log.events().into_iter().filter(is_advice).collect();
    assert_eq!(told.len(), 1, "once and not for each request: {told:?}");
    let failed: Vec<_> = log
        .named("exchange")
        .into_iter()
        .filter(|record| record["refusal"].is_string())
        .collect();
    assert_eq!(failed.len(), 6);
    for record in failed {
        assert_eq!(record["cause"], "connect_refused", "{record}");
    }
}

/// One caller cannot open it alone, and pages cannot; then the gateway asks for itself.
#[tokio::test]
async fn whoever_is_alone_is_confirmed_by_a_probe() {
    for request in [get(TARGET, ""), page("/widget/@api/deki/pages/home")] {
        let gateway = Gateway::start(&impatient(), nowhere()).await;
        let answer = ask_until(&gateway, &request, "site_unreachable", "site_unavailable").await;
        assert_eq!(answer.status, 503);
    }
    // A site that takes connections and says nothing.
    let rig = Rig::with(&impatient(), |_| Reply::Hang(Vec::new())).await;
    ask_until(
        &rig.gateway,
        &get(TARGET, ""),
        "site_timeout",
        "site_unavailable",
    )
    .await;
    rig.site.take();
    let asked = rig.site.probes().len();
    until("probes go on", || rig.site.probes().len() > asked).await;
    assert_eq!(rig.site.count(), 0, "nobody else is let through");
}

#[tokio::test]
async fn a_probe_is_signed_as_callers_are() {
    let rig = Rig::with(&impatient(), |seen: &Seen| {
        if seen.is_probe() {
            Reply::ok()
        } else {
            Reply::Reset(Vec::new())
        }
    })
    .await;
    for _ in 0..3 {
        rig.get(TARGET, "").await.refused(502, "site_unreachable");
    }
    until("the site is asked", || !rig.site.probes().is_empty()).await;
    let probe = rig.site.probes().remove(0);
    assert_eq!(
        (probe.method.as_str(), probe.target.as_str()),
        ("GET", "/@api/deki/users/current")
    );
    assert_eq!(probe.user(), "=crm-bot");
    assert_eq!(probe.header("host"), rig.site.address.to_string());

    let pages_only = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nsites: {{ acme: {{ url: \"http://{}\", browser_token: {{ key: env:BROWSER_KEY, allowed_hosts: [crm.example.com] }} }} }}\n\
         routes: [{{ name: widget, mount: /widget, site: acme, token: browser, allow: [read-pages] }}]\n",
        rig.site.address
    );
    let gateway = Gateway::start(&pages_only, rig.site.address).await;
    let before = rig.site.probes().len();
    for _ in 0..3 {
        let answer = gateway.send(page("/widget/@api/deki/pages/home")).await;
        answer.refused(502, "site_unreachable");
    }
    until("the site is asked", || rig.site.probes().len() > before).await;
    let probe = rig.site.probes().pop().unwrap();
    assert_eq!(probe.target, "/@api/deki/site/status");
    assert!(!probe.has("x-deki-token"), "{probe:?}");
}

fn is_advice(event: &Value) -> bool {
    let turn = event["message"].as_str().unwrap().starts_with("breaker");
    event["level"] == "WARN"
        && event["cause"].is_string()
        && !turn
        && event["message"] != "exchange"
}

/// One call to a site that cannot be reached: the cause in its record, and the words beside it.
async fn check(text: &str, site: SocketAddr, cause: &str, words: &str) {
    let log = Log::listen();
    let gateway = Gateway::start(text, site).await;
    for _ in 0..2 {
        let answer = gateway.send(get(TARGET, "")).await;
        assert!(answer.status >= 502, "{cause}: {answer:?}");
    }
    until("both are recorded", || log.named("exchange").len() == 2).await;
    for record in log.named("exchange") {
        assert_eq!(record["cause"], cause, "{record}");
    }
    let told: Vec<_> = log.events().into_iter().filter(is_advice).collect();
    assert_eq!(told.len(), 1, "{cause}: {told:?}");
    assert_eq!(told[0]["cause"], cause);
    let message = told[0]["message"].as_str().unwrap();
    assert!(message.contains(words), "{cause}: {message}");
    assert!(
        message.contains("acme") && message.contains(": "),
        "{message}"
    );
}

#[tokio::test]
async fn causes_of_sites_that_cannot_be_connected() {
    check(&impatient(), nowhere(), "connect_refused", "nobody listens").await;
    let unnamed = impatient().replace("url: http://@SITE@", "url: https://nobody.invalid");
    check(&unnamed, nowhere(), "dns", "has no address").await;

    // A queue of one that is full: what comes after it is not answered at all.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    check(&impatient(), address, "connect_timeout", "firewall").await;
}

#[tokio::test]
async fn causes_of_sites_that_fail_once_connected() {
    for (reply, cause, words) in [
        (Reply::Reset(Vec::new()), "reset", "without an answer"),
        (Reply::Hang(Vec::new()), "silent", "in time"),
        (
            Reply::Last(b"SSH-2.0-x\r\n\r\n".to_vec()),
            "invalid_answer",
            "not HTTP/1.1",
        ),
    ] {
        let site = Site::start(move |_| reply.clone()).await;
        check(&impatient(), site.address, cause, words).await;
    }
}

/// A file whose site is at `host`, over TLS, verified against `authority`.
fn secure(host: &str, site: SocketAddr, authority: &std::path::Path) -> String {
    impatient().replace(
        "url: http://@SITE@",
        &format!(
            "url: https://{host}:{}\n    ca: file:{}",
            site.port(),
            authority.display()
        ),
    )
}

#[tokio::test]
async fn causes_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let ours = identity(&["127.0.0.1"], &[]);
    std::fs::write(&authority, &ours.pem).unwrap();
    let serve = |config: ServerConfig| Site::start_tls(config, |_| Reply::ok());

    let strange = serve(identity(&["127.0.0.1"], &[]).config).await;
    let text = secure("127.0.0.1", strange.address, &authority);
    check(&text, strange.address, "tls_untrusted", "set ca:").await;

    let named = serve(ours.config).await;
    let text = secure("localhost", named.address, &authority);
    check(&text, named.address, "tls_name", "another name").await;

    let http2 = identity(&["127.0.0.1"], &["h2"]);
    std::fs::write(&authority, &http2.pem).unwrap();
    let http2 = serve(http2.config).await;
    let text = secure("127.0.0.1", http2.address, &authority);
    check(&text, http2.address, "tls_protocol", "does not speak TLS").await;

    for (from, to) in [(1990, 1991), (2990, 2991)] {
        let past = crate::tls::identity_of(&["127.0.0.1"], &[], |asked| {
            asked.not_before = rcgen::date_time_ymd(from, 1, 1);
            asked.not_after = rcgen::date_time_ymd(to, 1, 1);
        });
        std::fs::write(&authority, &past.pem).unwrap();
        let past = serve(past.config).await;
        let text = secure("127.0.0.1", past.address, &authority);
        check(&text, past.address, "tls_expired", "expired").await;
    }

    // A server that speaks no TLS takes a handshake for a bad request.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
            stream.readable().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
                .await
                .unwrap();
        }
    });
    let text = secure("127.0.0.1", address, &authority);
    check(&text, address, "tls_protocol", "does not speak TLS").await;

    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = mute.local_addr().map(|address| (mute, address)).unwrap();
    let text = secure("127.0.0.1", mute.1, &authority);
    check(&text, mute.1, "tls_timeout", "timeouts.tls").await;
}
