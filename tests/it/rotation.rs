//! Which server token signs, what probes find, and clocks that are apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign::telemetry::LogFormat;
use countersign_emulator::{TOKEN_KEY as OTHER_TOKEN_KEY, TOKEN_SECRET as OTHER_TOKEN_SECRET};
use serde_json::Value;

use crate::breaker::readiness;
use crate::harness::{
    API_KEY, Capture, Gateway, PATIENCE, ROUTES, Reply, Seen, Site, TOKEN_KEY, TOKEN_SECRET, Wire,
    get, token, until,
};
use crate::tls::identity;

const READ: &str = "/crm/@api/deki/pages/home";

const REFUSED: &str = "<error><resource>System.API.Error.developer-token-validation-failed</resource><message>no</message></error>";

/// Two tokens, the one that is called old first.
fn two_tokens() -> String {
    ROUTES.replace(
        "server_tokens: [",
        "server_tokens: [{ key: env:EMULATED_KEY, secret: env:EMULATED_SECRET }, ",
    )
}

/// As whom and when a request is signed, and whether with the old token.
fn signed(seen: &Seen) -> (String, u64, bool) {
    let sent = seen.header("x-deki-token");
    if let Some((user, epoch)) = token::user_of(sent, TOKEN_KEY, TOKEN_SECRET) {
        return (user, epoch, false);
    }
    let old = token::user_of(sent, OTHER_TOKEN_KEY, OTHER_TOKEN_SECRET);
    let (user, epoch) = old.expect("it is well signed");
    (user, epoch, true)
}

fn refusal(headers: &str) -> Reply {
    Reply::status("403 Forbidden", headers, REFUSED)
}

fn answer(seen: &Seen) -> Reply {
    if seen.target.ends_with("users/current") {
        Reply::user(&signed(seen).0)
    } else {
        Reply::ok()
    }
}

fn post() -> String {
    format!(
        "POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 5\r\n\r\nhello"
    )
}

/// Waits until `/readyz` says so of the site, and returns that.
async fn until_ready(gateway: &Gateway, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (status, said) = readiness(gateway).await;
        let site = said["sites"]["acme"].clone();
        if holds(&site) {
            assert_eq!(status, 200, "whatever its tokens are: {said}");
            assert_eq!(site["usable"], true, "{site}");
            return site;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {site}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn metrics(gateway: &Gateway) -> String {
    let mut operator = Wire::open(gateway.admin.unwrap()).await;
    operator
        .write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    operator.answer().await.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_accepted_token_signs() {
    let site = Site::start_frank(|seen| {
        if signed(seen).2 {
            refusal("")
        } else {
            answer(seen)
        }
    })
    .await;
    let gateway = Gateway::start(&two_tokens(), site.address).await;
    let said = until_ready(&gateway, "the second one signs", |site| {
        site["server_tokens"][1]["signs"] == true
    })
    .await;
    let [old, new] = [0, 1].map(|position| &said["server_tokens"][position]);
    assert_eq!(
        (&old["accepted"], &old["cause"]),
        (&false.into(), &"token_refused".into())
    );
    assert_eq!(
        (&new["accepted"], &new["user"]),
        (&true.into(), &"=crm-bot".into())
    );
    assert!(new["since"].as_u64() > Some(1_700_000_000), "{new}");
    for request in [get(READ, ""), post()] {
        assert_eq!(gateway.send(request).await.status, 200);
        assert!(
            !signed(&site.only()).2,
            "it is asked once, with the new token"
        );
    }
    let metrics = metrics(&gateway).await;
    for line in [
        "countersign_token_accepted{site=\"acme\",token=\"0\"} 0",
        "countersign_token_accepted{site=\"acme\",token=\"1\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(
        !metrics.contains("countersign_clock_skew_seconds{"),
        "over http://"
    );
}

/// The worst order: the old token signs, and is removed at the site while it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_removed_under_load() {
    let revoked = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&revoked);
    let site = Site::start_frank(move |seen| {
        if signed(seen).2 && gone.load(Ordering::SeqCst) {
            refusal("")
        } else {
            answer(seen)
        }
    })
    .await;
    let gateway = Arc::new(Gateway::start(&two_tokens(), site.address).await);
    until_ready(&gateway, "both are accepted", |site| {
        site["server_tokens"][0]["signs"] == true && site["server_tokens"][1]["accepted"] == true
    })
    .await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, over) = (Arc::clone(&gateway), Arc::clone(&over));
            tokio::spawn(async move {
                let mut count = 0;
                while !over.load(Ordering::SeqCst) {
                    assert_eq!(gateway.send(get(READ, "")).await.status, 200);
                    count += 1;
                    // Its limits are not what is tested.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                count
            })
        })
        .collect();
    revoked.store(true, Ordering::SeqCst);
    // Probes come no sooner than five seconds after the first ones, so this is signed with the old one.
    gateway
        .send(post())
        .await
        .refused(502, "site_refused_token");
    until_ready(&gateway, "the new one signs", |site| {
        site["server_tokens"][1]["signs"] == true && site["server_tokens"][0]["accepted"] == false
    })
    .await;
    over.store(true, Ordering::SeqCst);
    let mut count = 0;
    for caller in callers {
        count += caller.await.unwrap();
    }
    let seen = site.take();
    let posts: Vec<_> = seen.iter().filter(|seen| seen.method == "POST").collect();
    assert_eq!(posts.len(), 1, "a POST is never sent twice");
    let refused = seen
        .iter()
        .filter(|seen| seen.method == "GET" && signed(seen).2);
    assert!(refused.count() > 0 && count > 10, "{count} calls");
    assert_eq!(gateway.send(post()).await.status, 200);
    assert!(!signed(&site.only()).2);
}

/// Whom the site takes us for, and what `/readyz` and the log say of it.
#[tokio::test]
async fn who_the_site_takes_us_for() {
    let mine = ROUTES.replace(
        "browser_token:",
        "probe_user: \"=Monitor\"\n    browser_token:",
    );
    assert!(mine.contains("probe_user"));
    let user = |name: &str| Reply::user(&format!("={name}"));
    let anonymous = Reply::with(
        "",
        "<user id=\"2\" anonymous=\"true\"><username>Anonymous</username></user>",
    );
    for (reply, cause) in [
        (user("monitor"), None),
        (user("admin"), Some("other_user")),
        (anonymous, Some("anonymous")),
        (Reply::ok(), Some("no_user")),
        (
            Reply::status("404 Not Found", "", "<error/>"),
            Some("no_user"),
        ),
        (
            Reply::status("401 Unauthorized", "", "<a/>"),
            Some("token_refused"),
        ),
        (
            refusal("Date: Mon, 05 Oct 2015 18:44:27 GMT\r\n"),
            Some("clock"),
        ),
        (Reply::status("503 No", "", ""), Some("site_error")),
        (Reply::Last(Vec::new()), Some("reset")),
    ] {
        let (capture, _guard) = Capture::start(LogFormat::Json, "info");
        let site = Site::start_frank(move |_| reply.clone()).await;
        let gateway = Gateway::start(&mine, site.address).await;
        let said = until_ready(&gateway, "it was tried", |site| {
            let token = &site["server_tokens"][0];
            !token["accepted"].is_null() || !token["cause"].is_null()
        })
        .await;
        let token = &said["server_tokens"][0];
        assert_eq!(token["cause"].as_str(), cause, "{token}");
        let is_told = !matches!(cause, Some("site_error" | "reset"));
        let accepted = is_told.then_some(cause.is_none());
        assert_eq!(token["accepted"].as_bool(), accepted, "{token}");
        assert_eq!(signed(&site.token_probes()[0]).0, "=Monitor");
        let events = capture.events("server token not accepted: ");
        assert_eq!(
            events.len(),
            usize::from(accepted == Some(false)),
            "{events:?}"
        );
        for event in events {
            assert_eq!(event["cause"].as_str(), cause);
            assert_eq!(
                (&event["level"], &event["position"]),
                (&"WARN".into(), &0.into())
            );
        }
    }
}

/// A site whose clock is off by so many seconds, which takes tokens of five minutes by that clock.
fn by_its_clock(off: i64) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let there = now.as_secs().checked_add_signed(off).unwrap();
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(there));
        if signed(seen).1.abs_diff(there) > 300 {
            return refusal(&format!("Date: {date}\r\n"));
        }
        let body = format!(
            "<user id=\"3\"><username>{}</username></user>",
            signed(seen).0.trim_start_matches('=')
        );
        Reply::with(&format!("Date: {date}\r\n"), &body)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_apart() {
    for (minutes, corrected, works) in [
        (0, false, true),
        (4, true, true),
        (8, true, true),
        (20, false, false),
    ] {
        for off in [minutes * 60, -minutes * 60] {
            let identity = identity(&["127.0.0.1"], &["http/1.1"]);
            let site = Site::start_frank_tls(identity.config, by_its_clock(off)).await;
            let (gateway, _folder) =
                crate::tls::gateway(site.address, "127.0.0.1", &identity.pem, "").await;
            let said = until_ready(&gateway, "it was tried", |site| {
                !site["server_tokens"][0]["accepted"].is_null()
            })
            .await;
            let clock = &said["clock"];
            let skew = clock["skew_seconds"].as_i64().unwrap();
            assert!((skew + off).abs() <= 5, "{off}: {clock}");
            let expected = if corrected { skew } else { 0 };
            assert_eq!(clock["corrected_seconds"].as_i64(), Some(expected), "{off}");
            let token = &said["server_tokens"][0];
            assert_eq!(token["accepted"].as_bool(), Some(works), "{off}: {token}");
            let answer = gateway.send(get(READ, "")).await;
            if works {
                assert_eq!(answer.status, 200, "{off}: {}", answer.text());
            } else {
                assert_eq!(token["cause"], "clock", "{off}");
                answer.refused(502, "site_refused_token");
            }
            let metrics = metrics(&gateway).await;
            let line = format!("countersign_clock_skew_seconds{{site=\"acme\"}} {skew}\n");
            assert!(metrics.contains(&line), "{off}: {metrics}");
        }
    }
}

#[tokio::test]
async fn over_http_no_clock_is_believed() {
    let site = Site::start_frank(by_its_clock(480)).await;
    let gateway = Gateway::start(ROUTES, site.address).await;
    until("it is tried", || !site.token_probes().is_empty()).await;
    let said = until_ready(&gateway, "it was tried", |site| {
        site["server_tokens"][0]["cause"] == "clock"
    })
    .await;
    assert!(said["clock"]["skew_seconds"].is_null(), "{said}");
    gateway
        .send(get(READ, ""))
        .await
        .refused(502, "site_refused_token");
}

#[tokio::test]
async fn a_probe_user_that_is_none() {
    let check = |text: &str, expected: &str| {
        let site = "127.0.0.1:1".parse().unwrap();
        let problems = crate::harness::compile(text, site)
            .err()
            .unwrap()
            .to_string();
        assert!(
            problems.contains("sites.acme.probe_user: ") && problems.contains(expected),
            "{problems}"
        );
    };
    let with = |user: &str| {
        ROUTES.replace(
            "browser_token:",
            &format!("probe_user: {user}\n    browser_token:"),
        )
    };
    check(&with("crm-bot"), "a name with = before it");
    check(&with("7"), "write the user id in quotes");
    check(&with("\"=jane doe\""), "user_encoding");
}
