//! Pages at allowed hosts.

use countersign::policy::Refusal;
use serde_json::json;

use super::{CRM, SEARCH, Scene};
use crate::harness::{API_KEY, BROWSER_KEY};

pub async fn reads_an_answer(scene: &Scene) {
    scene.browser.visit(CRM).await;
    let answer = scene.fetch(SEARCH, json!({})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(
        (&answer["type"], &answer["text"]),
        (&json!("cors"), &json!("<user id=\"3\"/>"))
    );
    let headers = &answer["headers"];
    assert_eq!(
        (&headers["x-deki-session"], &headers["etag"]),
        (&json!("s1"), &json!("\"e1\""))
    );
    assert!(headers["x-request-id"].is_string(), "{headers}");
    assert!(
        headers["x-hidden"].is_null(),
        "what the site exposes does not count: {headers}"
    );
    let seen = scene.rig.site.only();
    assert!(seen.is_from_page(), "{seen:?}");
    assert_eq!((seen.method.as_str(), seen.header("origin")), ("GET", CRM));
}

pub async fn sends_json(scene: &Scene) {
    scene.browser.visit(CRM).await;
    drop(scene.gateway.take());
    let init = json!({
        "method": "POST",
        "headers": { "Content-Type": "application/json" },
        "body": "{\"comment\":\"gut\"}",
    });
    let comments = "https://gateway.test/widget/@api/deki/pages/home/comments";
    let answer = scene.fetch(comments, init).await;
    assert_eq!(answer["status"], 200, "{answer}");
    let sent = scene.gateway.take();
    assert!(
        sent.contains("OPTIONS /widget/@api/deki/pages/home/comments "),
        "preflighted: {sent}"
    );
    let seen = scene.rig.site.only();
    assert_eq!(
        (seen.method.as_str(), &seen.body[..]),
        ("POST", &b"{\"comment\":\"gut\"}"[..])
    );
    assert!(seen.is_from_page(), "{seen:?}");
}

pub async fn sends_the_browser_token(scene: &Scene) {
    scene.browser.visit(CRM).await;
    let page = "https://gateway.test/widget/@api/deki/pages/home";
    let with_token =
        |token: &str| json!({ "headers": { "X-Deki-Token": token, "X-Deki-Client": "widget" } });
    drop(scene.gateway.take());
    let answer = scene.fetch(page, with_token(BROWSER_KEY)).await;
    assert_eq!(
        answer["status"], 200,
        "as widgets do that call the site directly: {answer}"
    );
    let sent = scene.gateway.take();
    assert!(
        sent.contains("OPTIONS /widget/@api/deki/pages/home "),
        "preflighted: {sent}"
    );
    let seen = scene.rig.site.only();
    assert!(seen.is_from_page(), "{seen:?}");
    assert_eq!(seen.header("x-deki-client"), "widget");

    let answer = scene.fetch(page, with_token("another")).await;
    assert_eq!(
        (
            &answer["status"],
            &answer["headers"]["x-countersign-refusal"]
        ),
        (&json!(400), &json!("caller_sent_token"))
    );
    let init = json!({ "headers": { "X-Of-My-Own": "x" } });
    let answer = scene.fetch(page, init).await;
    assert_eq!(
        answer["fault"], "TypeError: Failed to fetch",
        "the route does not name that header"
    );
    assert_eq!(scene.rig.site.take(), []);
}

pub async fn hosts_below_a_wildcard(scene: &Scene) {
    for page in ["https://a.apps.example.com", "https://a.b.apps.example.com"] {
        scene.browser.visit(page).await;
        let answer = scene.fetch(SEARCH, json!({})).await;
        assert_eq!(answer["status"], 200, "{page}: {answer}");
        assert_eq!(scene.rig.site.only().header("origin"), page);
    }
}

pub async fn reads_why_it_is_refused(scene: &Scene) {
    scene.browser.visit(CRM).await;
    for (call, status, refusal) in [
        (
            "groups?dream.out.format=json",
            403,
            Refusal::CapabilityMissing,
        ),
        ("users/authenticate", 403, Refusal::MintsCredentials),
        ("site/query?authtoken=1", 400, Refusal::CallerSentToken),
        (
            "site/query?dream.out.pre=x",
            400,
            Refusal::ForbiddenParameter,
        ),
    ] {
        let address = format!("https://gateway.test/widget/@api/deki/{call}");
        let answer = scene.fetch(&address, json!({})).await;
        assert_eq!(
            (
                &answer["status"],
                &answer["headers"]["x-countersign-refusal"]
            ),
            (&json!(status), &json!(refusal.code())),
            "{call}: {answer}"
        );
        let text = answer["text"].as_str().unwrap();
        assert!(
            text.contains(&format!("countersign.{}", refusal.code())),
            "{text}"
        );
    }
    assert_eq!(scene.rig.site.take(), []);
}

/// `origins` of a server route: the page needs a credential as every caller does.
pub async fn calls_a_server_route_with_a_key(scene: &Scene) {
    scene.browser.visit(CRM).await;
    let page = "https://gateway.test/shared/@api/deki/pages/home";
    let with_key = |credentials: &str| json!({ "credentials": credentials, "headers": { "X-Api-Key": API_KEY } });
    let answer = scene.fetch(page, with_key("omit")).await;
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(scene.rig.site.only().user(), "=crm-bot");
    let answer = scene.fetch(page, json!({})).await;
    assert_eq!(
        (
            &answer["status"],
            &answer["headers"]["x-countersign-refusal"]
        ),
        (&json!(401), &json!("credential_missing"))
    );
    let answer = scene.fetch(page, with_key("include")).await;
    assert_eq!(
        answer["fault"], "TypeError: Failed to fetch",
        "no cookies on server routes"
    );
    scene.browser.visit("https://evil.test").await;
    let answer = scene.fetch(page, with_key("omit")).await;
    assert_eq!(
        answer["fault"], "TypeError: Failed to fetch",
        "a leaked key is of no use to a page"
    );
    assert_eq!(scene.rig.site.take(), []);
}

pub async fn first_rollout(scene: &Scene) {
    scene.browser.visit("https://new.example.org").await;
    let telemetry = &scene.rig.gateway.shared.telemetry;
    let before = telemetry.would_have_refused();
    let address = "https://gateway.test/trial/@api/deki/site/query?q=x";
    let answer = scene.fetch(address, json!({})).await;
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(
        scene.rig.site.only().header("origin"),
        "https://new.example.org"
    );
    crate::harness::until("it is counted", || {
        telemetry.would_have_refused() == before + 1
    })
    .await;
}
