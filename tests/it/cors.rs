//! Browser routes: allowed hosts on every request, and what a page may read.

use crate::harness::{API_KEY, Answer, BROWSER_KEY, ROUTES, Reply, Rig};

/// A request without a credential, with these header lines (each ending in CRLF).
fn ask(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: gateway.test\r\n{more}\r\n")
}

const TARGET: &str = "/widget/@api/deki/site/query?q=x";

/// What holds of every answer on a route that looks at origins.
#[track_caller]
fn sound(answer: &Answer, origin: Option<&str>) {
    let vary = answer.all("vary").join(", ").to_ascii_lowercase();
    assert!(
        vary.split(',').any(|name| name.trim() == "origin"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("access-control-allow-origin"),
        origin.unwrap_or_default()
    );
    let credentials = answer.header("access-control-allow-credentials");
    assert!(
        credentials.is_empty() || (credentials == "true" && origin.is_some()),
        "{answer:?}"
    );
    assert_eq!(answer.header("set-cookie"), "");
}

#[tokio::test]
async fn origins_of_allowed_hosts() {
    let rig = Rig::start().await;
    for origin in [
        "https://crm.example.com",
        "https://a.apps.example.com",
        "https://a.b.apps.example.com",
        "https://shop.example.com:8443",
    ] {
        for method in ["GET", "HEAD"] {
            let mut wire = rig.gateway.connect().await;
            wire.write(ask(method, TARGET, &format!("Origin: {origin}\r\n")))
                .await;
            let answer = wire.answer_to(method).await;
            assert_eq!(answer.status, 200, "{origin}: {}", answer.text());
            sound(&answer, Some(origin));
            assert_eq!(answer.header("access-control-allow-credentials"), "true");
            let exposed = answer
                .header("access-control-expose-headers")
                .to_ascii_lowercase();
            for name in [
                "x-deki-session",
                "etag",
                "location",
                "retry-after",
                "x-request-id",
                "x-countersign-refusal",
            ] {
                assert!(exposed.contains(name), "{exposed}");
            }
            let seen = rig.site.only();
            assert!(seen.is_from_page(), "{seen:?}");
            assert_eq!(seen.header("origin"), origin, "the site checks it again");
        }
    }
}

#[tokio::test]
async fn origins_that_are_none_of_ours() {
    let rig = Rig::start().await;
    let long = format!("https://{}.apps.example.com", "a".repeat(5000));
    for origin in [
        "https://evil.test",
        // suffix, prefix, embedded, userinfo
        "https://crm.example.com.evil.test",
        "https://evilcrm.example.com",
        "https://crm.example.comevil.test",
        "https://evil.test/crm.example.com",
        "https://evil.test?crm.example.com",
        "https://evil.test#crm.example.com",
        "https://crm.example.com@evil.test",
        "https://evil.test@crm.example.com",
        "https://crm.example.com:secret@crm.example.com",
        // the bare domain of a wildcard, an empty label
        "https://apps.example.com",
        "https://.apps.example.com",
        "https://a..apps.example.com",
        "https://xapps.example.com",
        // scheme and port
        "http://crm.example.com",
        "https://crm.example.com:443",
        "https://crm.example.com:8443",
        "https://crm.example.com:",
        "https://shop.example.com",
        "https://shop.example.com:84430",
        "https://shop.example.com:08443",
        "ws://crm.example.com",
        "file://crm.example.com",
        "chrome-extension://crm.example.com",
        // spellings no browser sends
        "https://crm.example.com.",
        "https://CRM.example.com",
        "HTTPS://crm.example.com",
        "https://crm.example.com/",
        "https://crm_x.apps.example.com",
        "https://xn--crm-example.com",
        "https://crm%2eexample.com",
        "https://crm.example.com%00.evil.test",
        "https://crm\u{3002}example.com",
        "https://cr\u{43c}.example.com",
        " https://evil.test",
        "https:crm.example.com",
        "https:/crm.example.com",
        "https:\\\\crm.example.com",
        "https://crm.example.com\\@evil.test",
        "//crm.example.com",
        "crm.example.com",
        "https://",
        "*",
        "null",
        "NULL",
        "",
        // lists
        "https://crm.example.com, https://evil.test",
        "https://evil.test https://crm.example.com",
        "https://crm.example.com https://crm.example.com",
        "https://crm.example.com,https://crm.example.com",
        &long,
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
            let length = if matches!(method, "POST" | "PUT") {
                "Content-Length: 0\r\n"
            } else {
                ""
            };
            let mut wire = rig.gateway.connect().await;
            wire.write(ask(
                method,
                TARGET,
                &format!("Origin: {origin}\r\n{length}"),
            ))
            .await;
            let answer = wire.answer_to(method).await;
            assert!(
                matches!(answer.refusal(), "origin_not_allowed" | "bad_message"),
                "{method} {origin}: {answer:?}"
            );
            if answer.refusal() == "origin_not_allowed" {
                assert_eq!(answer.status, 403);
            }
            sound(&answer, None);
        }
    }
    for lines in [
        "Origin: https://crm.example.com\r\nOrigin: https://evil.test\r\n",
        "Origin: https://evil.test\r\nOrigin: https://crm.example.com\r\n",
        "Origin: https://crm.example.com\r\norigin: https://crm.example.com\r\n",
    ] {
        rig.send(ask("GET", TARGET, lines))
            .await
            .refused(403, "origin_not_allowed");
    }
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn no_origin_is_no_page() {
    let rig = Rig::start().await;
    for lines in [
        String::new(),
        "X-Requested-With: XMLHttpRequest\r\n".to_owned(),
        "X-Deki-Requested-With: XMLHttpRequest\r\n".to_owned(),
        "Referer: https://crm.example.com/\r\n".to_owned(),
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n".to_owned(),
        format!("X-Deki-Token: {BROWSER_KEY}\r\n"),
        format!("X-Api-Key: {API_KEY}\r\n"),
    ] {
        let answer = rig.send(ask("GET", TARGET, &lines)).await;
        answer.refused(403, "origin_missing");
        sound(&answer, None);
    }
    assert_eq!(rig.site.count(), 0);
    let lines = "Origin: https://crm.example.com\r\nX-Requested-With: XMLHttpRequest\r\nX-Deki-Requested-With: XMLHttpRequest\r\n";
    rig.send(ask("GET", TARGET, lines)).await;
    let seen = rig.site.only();
    assert!(
        !seen.has("x-requested-with") && !seen.has("x-deki-requested-with"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn the_token_of_a_page() {
    let rig = Rig::start().await;
    let origin = "Origin: https://crm.example.com\r\n";
    let answer = rig
        .send(ask(
            "GET",
            TARGET,
            &format!("{origin}X-Deki-Token: {BROWSER_KEY}\r\n"),
        ))
        .await;
    assert_eq!(
        answer.status, 200,
        "an existing widget sends the browser token itself"
    );
    assert!(rig.site.only().is_from_page());
    for lines in [
        format!("X-Deki-Token: {BROWSER_KEY}x\r\n"),
        format!("X-Deki-Token: {}\r\n", BROWSER_KEY.to_uppercase()),
        format!("X-Deki-Token: {BROWSER_KEY}\r\nX-Deki-Token: {BROWSER_KEY}\r\n"),
        "X-Deki-Token: tkn_1_2_3_4\r\n".to_owned(),
        "X-Deki-Token:\r\n".to_owned(),
    ] {
        let answer = rig
            .send(ask("GET", TARGET, &format!("{origin}{lines}")))
            .await;
        answer.refused(400, "caller_sent_token");
        sound(&answer, Some("https://crm.example.com"));
    }
    assert_eq!(rig.site.count(), 0);
    // Nothing ambient counts on a browser route.
    let lines =
        "Cookie: authtoken=1_admin\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\nX-Authtoken: 1\r\n";
    rig.send(ask("GET", TARGET, &format!("{origin}{lines}")))
        .await;
    let seen = rig.site.only();
    assert!(!seen.has("cookie") && !seen.has("authorization") && !seen.has("x-authtoken"));
    assert!(seen.is_from_page());
}

#[tokio::test]
async fn preflights() {
    let rig = Rig::start().await;
    let preflight = |target: &str, origin: &str, method: &str, headers: &str| {
        let lines =
            format!("Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{headers}");
        ask("OPTIONS", target, &lines)
    };
    let crm = "https://crm.example.com";
    let answer = rig
        .send(preflight(
            TARGET,
            crm,
            "GET",
            "Access-Control-Request-Headers: x-deki-token,x-deki-client\r\n",
        ))
        .await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    sound(&answer, Some(crm));
    for name in [
        "origin",
        "access-control-request-method",
        "access-control-request-headers",
    ] {
        assert!(
            answer
                .all("vary")
                .join(",")
                .to_ascii_lowercase()
                .contains(name)
        );
    }
    assert_ne!(answer.header("access-control-max-age"), "");
    let methods = answer.header("access-control-allow-methods");
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
        assert!(methods.contains(method), "{methods}");
    }
    let headers = answer
        .header("access-control-allow-headers")
        .to_ascii_lowercase();
    for name in [
        "content-type",
        "x-deki-token",
        "x-deki-client",
        "x-deki-requested-with",
        "x-requested-with",
        "range",
        "if-none-match",
        "if-modified-since",
    ] {
        assert!(headers.contains(name), "{headers}");
    }
    assert!(
        !headers.contains('*') && !headers.contains("authorization"),
        "{headers}"
    );

    let server = rig
        .send(preflight("/shared/@api/deki/pages/home", crm, "GET", ""))
        .await;
    assert_eq!(server.status, 204);
    sound(&server, Some(crm));
    assert_eq!(
        server.header("access-control-allow-credentials"),
        "",
        "never on server routes"
    );
    assert!(
        server
            .header("access-control-allow-headers")
            .to_ascii_lowercase()
            .contains("x-api-key")
    );

    for (target, origin, method, status, code) in [
        (
            TARGET,
            "https://evil.test",
            "GET",
            403,
            "origin_not_allowed",
        ),
        (TARGET, "null", "GET", 403, "origin_not_allowed"),
        (
            "/widget/@api/deki/users/authenticate",
            crm,
            "GET",
            403,
            "mints_credentials",
        ),
        (
            "/widget/@api/deki/groups",
            crm,
            "GET",
            403,
            "capability_missing",
        ),
        (TARGET, crm, "DELETE", 403, "capability_missing"),
        (TARGET, crm, "TRACE", 405, "method_not_supported"),
        (TARGET, crm, "get", 405, "method_not_supported"),
        (
            "/crm/@api/deki/pages/home",
            crm,
            "GET",
            403,
            "origin_not_allowed",
        ),
        ("/nowhere", crm, "GET", 404, "no_route"),
        (
            "/widget/@api/deki/site/query?authtoken=1",
            crm,
            "GET",
            400,
            "caller_sent_token",
        ),
    ] {
        let answer = rig.send(preflight(target, origin, method, "")).await;
        answer.refused(status, code);
        sound(&answer, None);
    }
    assert_eq!(rig.site.count(), 0, "the gateway answers preflights itself");
}

#[tokio::test]
async fn pages_can_read_why_they_are_refused() {
    let rig = Rig::start().await;
    let crm = "https://crm.example.com";
    let origin = format!("Origin: {crm}\r\n");
    let answer = rig
        .send(ask("GET", "/widget/@api/deki/groups", &origin))
        .await;
    answer.refused(403, "capability_missing");
    sound(&answer, Some(crm));
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("X-Countersign-Refusal")
    );
    for (query, code) in [
        ("authtoken=1", "caller_sent_token"),
        ("dream.out.pre=x", "forbidden_parameter"),
    ] {
        let target = format!("/widget/@api/deki/site/query?{query}");
        let answer = rig.send(ask("GET", &target, &origin)).await;
        answer.refused(400, code);
        sound(&answer, Some(crm));
        let answer = rig
            .send(ask("GET", &target, "Origin: https://evil.test\r\n"))
            .await;
        answer.refused(400, code);
        sound(&answer, None);
    }
    let answer = rig
        .send(ask("GET", "/shared/@api/deki/pages/home", &origin))
        .await;
    answer.refused(401, "credential_missing");
    sound(&answer, Some(crm));
}

#[tokio::test]
async fn pages_on_server_routes() {
    let rig = Rig::start().await;
    let crm = "https://crm.example.com";
    let answer = rig
        .get(
            "/shared/@api/deki/pages/home",
            &format!("Origin: {crm}\r\nReferer: {crm}/x\r\n"),
        )
        .await;
    assert_eq!(answer.status, 200);
    sound(&answer, Some(crm));
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let seen = rig.site.only();
    assert!(!seen.has("origin") && !seen.has("referer"), "{seen:?}");
    for (target, origin) in [
        ("/shared/@api/deki/pages/home", "https://evil.test"),
        ("/shared/@api/deki/pages/home", "https://a.apps.example.com"),
        ("/crm/@api/deki/pages/home", crm),
        ("/crm/@api/deki/pages/home", "null"),
    ] {
        rig.get(target, &format!("Origin: {origin}\r\n"))
            .await
            .refused(403, "origin_not_allowed");
    }
    assert_eq!(rig.site.count(), 0);
    let answer = rig.get("/shared/@api/deki/pages/home", "").await;
    assert_eq!(answer.status, 200, "programs send no Origin");
    sound(&answer, None);
}

#[tokio::test]
async fn the_sites_own_cors_headers_are_replaced() {
    let rig = Rig::with(ROUTES, |_| {
        Reply::with(
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept-Encoding\r\nSet-Cookie: a=b\r\n",
            "<a/>",
        )
    })
    .await;
    let answer = rig
        .send(ask("GET", TARGET, "Origin: https://crm.example.com\r\n"))
        .await;
    sound(&answer, Some("https://crm.example.com"));
    assert!(
        answer.all("vary").join(",").contains("Accept-Encoding"),
        "what else it varies by stays"
    );
    let answer = rig.get("/shared/@api/deki/pages/home", "").await;
    sound(&answer, None);
}

#[tokio::test]
async fn a_first_rollout_only_records() {
    let rig = Rig::start().await;
    let target = "/trial/@api/deki/site/query?q=x";
    let answer = rig
        .send(ask("GET", target, "Origin: https://new.example.org\r\n"))
        .await;
    assert_eq!(answer.status, 200);
    sound(&answer, Some("https://new.example.org"));
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        "",
        "only allowed origins get that"
    );
    rig.site.only();
    assert_eq!(rig.send(ask("GET", target, "")).await.status, 200);
    rig.site.only();
    crate::harness::until("both are counted", || {
        rig.gateway.shared.telemetry.would_have_refused() == 2
    })
    .await;
    rig.send(ask(
        "GET",
        "/trial/@api/deki/pages/home",
        "Origin: https://new.example.org\r\n",
    ))
    .await
    .refused(403, "capability_missing");
    assert_eq!(rig.site.count(), 0, "capabilities hold there as everywhere");
}
