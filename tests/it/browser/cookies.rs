//! Cookies: a page may fetch with credentials, and none go up or come down.

use serde_json::json;

use super::{CRM, Scene};

pub async fn neither_up_nor_down(scene: &Scene) {
    let with_cookies = || json!({ "credentials": "include" });
    // Without the gateway the browser would keep the site's cookie, and send it from any page.
    scene.browser.visit(CRM).await;
    let direct = "https://site.example.com/@api/deki/site/query?q=x";
    for _ in 0..2 {
        let answer = scene.fetch(direct, with_cookies()).await;
        assert_eq!(answer["status"], 200, "{answer}");
    }
    let seen = scene.rig.site.take();
    assert!(!seen[0].has("cookie"));
    assert_eq!(
        seen[1].header("cookie"),
        "authtoken=1_7_canary",
        "the browser keeps cookies"
    );
    drop(scene.site.take());

    // The same through the gateway, whose host has a cookie already.
    scene.browser.visit("https://gateway.example.com/").await;
    scene
        .browser
        .run(
            "document.cookie = 'authtoken=ambient; path=/; secure; samesite=none'; return null;",
            &json!(null),
        )
        .await;
    scene.browser.visit(CRM).await;
    drop(scene.gateway.take());
    for init in [
        with_cookies(),
        json!({ "credentials": "include", "method": "POST", "body": "x" }),
    ] {
        let address = match init["method"].as_str() {
            None => "https://gateway.example.com/widget/@api/deki/site/query?q=x",
            Some(_) => "https://gateway.example.com/widget/@api/deki/pages/home/comments",
        };
        let answer = scene.fetch(address, init).await;
        assert_eq!(answer["status"], 200, "existing widgets fetch so: {answer}");
        let sent = scene.gateway.take();
        assert!(
            sent.contains("Cookie: authtoken=ambient\r\n"),
            "the browser sends it: {sent}"
        );
        let seen = scene.rig.site.only();
        assert!(!seen.has("cookie") && seen.is_from_page(), "{seen:?}");
    }
    scene.browser.visit("https://gateway.example.com/").await;
    assert_eq!(
        scene.browser.cookies().await,
        ["authtoken=ambient"],
        "the site's own did not come down"
    );
}
