//! What is allowed arrives, signed, byte for byte; what is not does not.

use crate::harness::{API_KEY, OTHER_KEY, Reply, Rig, get};

#[tokio::test]
async fn an_allowed_call_arrives_signed() {
    let rig = Rig::start().await;
    let answer = rig.get("/crm/@api/deki/users/current", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text(), "<user id=\"3\"/>");
    let seen = rig.site.only();
    assert_eq!(seen.user(), "=crm-bot");
    assert_eq!(seen.target, "/@api/deki/users/current");
    assert_eq!(seen.header("host"), rig.site.address.to_string());
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(
        seen.header("x-request-id"),
        answer.header("x-request-id"),
        "one id names the exchange on both sides"
    );
    assert!(!seen.has("x-api-key"), "the caller's credential stays here");
}

#[tokio::test]
async fn each_caller_is_its_own_user() {
    let rig = Rig::start().await;
    for (credential, user) in [
        (format!("X-Api-Key: {API_KEY}"), "=crm-bot"),
        (format!("authorization: bearer {API_KEY}"), "=crm-bot"),
        (format!("Authorization: Bearer {OTHER_KEY}"), "7"),
        (format!("x-api-key: {OTHER_KEY}"), "7"),
    ] {
        let request =
            format!("GET /crm/@api/deki/users/current HTTP/1.1\r\nHost: x\r\n{credential}\r\n\r\n");
        let answer = rig.send(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = rig.site.only();
        assert_eq!(seen.user(), user);
        assert!(!seen.has("authorization") && !seen.has("x-api-key"));
    }
}

#[tokio::test]
async fn credentials_that_are_none() {
    let rig = Rig::start().await;
    let key = API_KEY;
    for (lines, code) in [
        (String::new(), "credential_missing"),
        ("Cookie: authtoken=1\r\n".to_owned(), "credential_missing"),
        ("X-Api-Key: \r\n".to_owned(), "credential_missing"),
        (
            "Authorization: \r\nX-Api-Key:\r\n".to_owned(),
            "credential_missing",
        ),
        ("X-Api-Key: guessed\r\n".to_owned(), "credential_unknown"),
        (format!("X-Api-Key: {key}x\r\n"), "credential_unknown"),
        (
            format!("X-Api-Key: {}\r\n", &key[1..]),
            "credential_unknown",
        ),
        (
            format!("X-Api-Key: {}\r\n", key.to_uppercase()),
            "credential_unknown",
        ),
        (
            format!("Authorization: Basic {key}\r\n"),
            "credential_unknown",
        ),
    ] {
        let answer = rig
            .send(format!(
                "GET /crm/@api/deki/users/current HTTP/1.1\r\nHost: x\r\n{lines}\r\n"
            ))
            .await;
        answer.refused(401, code);
        assert_ne!(
            answer.header("www-authenticate"),
            "",
            "401 names the scheme"
        );
    }
    for lines in [
        format!("X-Api-Key: {key}\r\nX-Api-Key: {key}\r\n"),
        format!("X-Api-Key: {key}\r\nAuthorization: Bearer {key}\r\n"),
        format!("Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n"),
    ] {
        rig.send(format!(
            "GET /crm/@api/deki/users/current HTTP/1.1\r\nHost: x\r\n{lines}\r\n"
        ))
        .await
        .refused(400, "ambiguous_credential");
    }
    // A caller that this route does not list.
    rig.send(format!(
        "GET /write/@api/deki/pages/home HTTP/1.1\r\nHost: x\r\nX-Api-Key: {OTHER_KEY}\r\n\r\n"
    ))
    .await
    .refused(401, "credential_unknown");
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn routes_by_host_and_mount() {
    let rig = Rig::start().await;
    for target in [
        "/",
        "/@api/deki/users/current",
        "/crmx/@api/deki/users/current",
        "/CRM/@api/deki/users/current",
    ] {
        rig.get(target, "").await.refused(404, "no_route");
    }
    for host in ["api.example.com", "API.Example.COM", "api.example.com:8080"] {
        let request = format!(
            "GET /@api/deki/users/current HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {API_KEY}\r\n\r\n"
        );
        assert_eq!(rig.send(request).await.status, 200, "{host}");
        assert_eq!(rig.site.only().target, "/@api/deki/users/current");
    }
    rig.send(format!(
        "GET /@api/deki/users/current HTTP/1.1\r\nHost: api.example.com.evil.test\r\nX-Api-Key: {API_KEY}\r\n\r\n"
    ))
    .await
    .refused(404, "no_route");
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn paths_and_queries_arrive_byte_for_byte() {
    let rig = Rig::start().await;
    for path in [
        "/@api/deki/pages/=A%252FB",
        "/@api/deki/pages/=Caf%25C3%25A9",
        "/@api/deki/pages/=a%2Bb",
        "/@api/deki/pages/=C%252B%252B/info",
        "/@api/deki/pages/12/files,subpages",
        "/@api/deki/pages/:0f3c2a1b-0000-4000-8000-000000000001/info",
        "/%40api/deki/pages/home",
        "/@api/deki/pages/=Some%2520page/contents",
        "/@api/deki/pages/=x%252E",
        "/@api/deki/pages/1/",
        "/@api/deki/files/?x=1",
        "/@api/deki/pages/42/properties/mindtouch.page%2523overview",
        "/@api/deki/pages/42/properties/urn%253acustom/info",
        "/@api/deki/pages/42/properties/my%2520prop",
        "/@api/deki/site/tags/article%253Atopic",
        "/@api/deki/files/1/Caf%25C3%25A9%2520x.pdf",
        "/@api/deki/users/=j%252Fd",
        "/@api/deki/users/current?authenticate=true",
        "/@api/deki/site/query?q=\"a\"+<b>{c}|^[d]`\\",
        "/@api/deki/pages/=don't~(do)!*that;a=b",
        "/@api/deki/Pages/HOME",
        "/@api/deki/users/current?dream.out.format=json&_=1700000000",
        "/@api/deki/site/query?q=a+b%2Bc&constraint=type:wiki+AND+%2B(%2Bnamespace:main)&limit=5",
        "/@api/deki/site/query?q=%C3%A9&&=&a&b=&c=%zz",
        "/@api/deki/site/query?",
    ] {
        let answer = rig.get(&format!("/crm{path}"), "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let seen = rig.site.only();
        assert_eq!(seen.target, path);
        assert_eq!(seen.user(), "=crm-bot");
    }
}

#[tokio::test]
async fn paths_that_do_not_arrive() {
    let rig = Rig::start().await;
    for path in [
        "/@api/../x",
        "/@api/%2e%2e/x",
        "/@api/.%2E/x",
        "/@api/deki/./users/current",
        "/@api/deki/%2e/users/current",
        "/@api/deki/users/%2e%2e/users/current",
        "//@api/deki/users/current",
        "/@api/deki//users/current",
        "/@api//deki/users/current",
        "/@api/deki/users/current//",
        "/@api/deki/users%2fcurrent",
        "/@api/deki/users/current%3fauthtoken=x",
        "/@api/deki/pages/1%3Fdream.out.callback=f",
        "/@api/deki/pages/1%23x",
        "/@api/deki/files/1/..%252f..%252fusers%252fauthenticate",
        "/@api/deki/files/1/%25u002e%25u002e",
        "/@api/deki/files/1/..%2500",
        "/@api/deki/pages/=A%252F..%252FB",
        "/@api/deki/pages/%ef%bc%8e%ef%bc%8e/x",
        "/@api/deki/pages/1\"",
        "/@api/deki/pages/<1>",
        "/@api/deki/site/query?q=a\tb",
        "/@api/deki/site/query?q=a\u{0}",
        "/@api/deki/site/query?q=a\u{7f}",
        "/@api/deki/site/query?q=a\rb",
        "/@api/deki/users%5ccurrent",
        "/@api/deki/users\\current",
        "/@api/deki/users/current%00",
        "/@api/deki/users/current%0d%0aX-Deki-Token:x",
        "/@api/deki/users/current%7f",
        "/@api/deki/users/curren%",
        "/@api/deki/users/curren%7",
        "/@api/deki/users/curren%7z",
        "/@api/deki/users/curr\u{e9}nt",
        "/@api/deki/users/..;/users/current",
        "/@api/deki/users/current#fragment",
    ] {
        let answer = rig.get(&format!("/crm{path}"), "").await;
        assert!(
            matches!(
                answer.refusal(),
                "bad_target" | "bad_message" | "capability_missing"
            ),
            "{path}: {answer:?}"
        );
        let answer = rig.get(&format!("/mint{path}"), "").await;
        assert!(
            matches!(answer.refusal(), "bad_target" | "bad_message"),
            "{path} on a route that allows everything: {answer:?}"
        );
    }
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn minting_endpoints_in_every_spelling() {
    let rig = Rig::start().await;
    for path in [
        "users/authenticate",
        "users/AUTHENTICATE",
        "users/%61uthenticate",
        "USERS/%41uthenticate",
        "users/authenticate?redirect=https://evil.test",
        "%75sers/authenticat%65",
        "users/=admin/password",
        "users/1/password",
        "users/current/password",
        "site/developer-tokens",
        "site/developer-tokens/3",
        "site/Developer%2Dtokens",
        "site/services",
        "site/services/12/proxy",
        "site/settings",
        "site/export/users",
        "site/import/groups",
        "users/%25u0061uthenticate",
        "users/authent%C4%B1cate",
        "%C5%BFite/services",
        "site%252Fservices",
        "users/authenticate%253Fx",
        "users/authenticate%253B",
        "users/authenticate/",
        "users/%EF%BD%81uthenticate",
        "users/1/pa%C3%9Fword",
        "users/=x%252Fpassword",
        "site/bans",
        "host/stats",
        "license",
    ] {
        for (verb, more) in [("GET", ""), ("POST", "Content-Length: 0\r\n")] {
            let request = format!(
                "{verb} /all/@api/deki/{path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{more}\r\n"
            );
            rig.send(request).await.refused(403, "mints_credentials");
        }
    }
    assert_eq!(rig.site.count(), 0, "also where all is allowed");
    for path in [
        "@app/auth",
        "deki/cp",
        "@gui/x",
        "Special:Admin",
        "@api",
        "@api/other/users",
    ] {
        rig.get(&format!("/all/{path}"), "")
            .await
            .refused(403, "mints_credentials");
        rig.get(&format!("/mint/{path}"), "")
            .await
            .refused(403, "mints_credentials");
    }
    assert_eq!(rig.site.count(), 0, "nothing outside the API is forwarded");
}

#[tokio::test]
async fn sessions_stay_here_even_where_minting_is_allowed() {
    let rig = Rig::with(crate::harness::ROUTES, |_| {
        Reply::with(
            "Set-Cookie: authtoken=\"canary-session\"\r\nX-Authtoken: canary-session\r\nLocation: /x?authtoken=canary-session\r\nETag: \"canary-session\"\r\n",
            "canary-session",
        )
    })
    .await;
    let answer = rig.get("/mint/@api/deki/users/authenticate", "").await;
    assert_eq!(answer.status, 200);
    assert!(
        !format!("{answer:?}{}", answer.text()).contains("canary-session"),
        "{answer:?}"
    );
    assert_eq!(rig.site.only().user(), "=crm-bot");
    let answer = rig.get("/sessions/@api/deki/users/authenticate", "").await;
    assert_eq!(answer.text(), "canary-session", "return_sessions says so");
    assert_eq!(
        answer.header("set-cookie"),
        "",
        "a cookie of the site is of no use here"
    );
}

#[tokio::test]
async fn method_override_is_judged_as_what_it_becomes() {
    let rig = Rig::start().await;
    let post = |mount: &str, target: &str, more: &str| {
        format!(
            "POST /{mount}/@api/deki/{target} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 0\r\n{more}\r\n"
        )
    };
    for (target, more) in [
        ("pages/home?dream.in.verb=DELETE", ""),
        ("pages/home?dream.in.verb=delete", ""),
        ("pages/home?DREAM%2eIN%2EVERB=DELETE", ""),
        ("pages/home?dream.in.%76erb=D%45LETE", ""),
        ("pages/home?dream.in.%u0076erb=DELETE", ""),
        ("pages/home", "X-HTTP-Method-Override: DELETE\r\n"),
        ("pages/home", "x-http-method-override: delete\r\n"),
        (
            "pages/home?dream.in.verb=DELETE",
            "X-HTTP-Method-Override: DELETE\r\n",
        ),
    ] {
        let answer = rig.send(post("crm", target, more)).await;
        assert!(
            matches!(
                answer.refusal(),
                "capability_missing" | "method_not_supported"
            ),
            "{target} {more}: {answer:?}"
        );
    }
    for (target, more) in [
        ("pages/home?dream.in.verb=DELETE&dream.in.verb=GET", ""),
        ("pages/home?dream.in.verb=GET&DREAM.in.verb=DELETE", ""),
        (
            "pages/home?dream.in.verb=PUT",
            "X-HTTP-Method-Override: DELETE\r\n",
        ),
        (
            "pages/home",
            "X-HTTP-Method-Override: PUT\r\nX-HTTP-Method-Override: DELETE\r\n",
        ),
    ] {
        rig.send(post("write", target, more))
            .await
            .refused(400, "conflicting_method");
    }
    assert_eq!(rig.site.count(), 0);
    for (target, more, method) in [
        ("pages/home?dream.in.verb=DELETE", "", "DELETE"),
        ("pages/home", "X-HTTP-Method-Override: DELETE\r\n", "DELETE"),
        (
            "pages/home/tags?dream.out.format=php&dream.in.verb=PUT",
            "",
            "PUT",
        ),
        (
            "pages/home/contents",
            "X-HTTP-Method-Override: post\r\n",
            "POST",
        ),
    ] {
        let answer = rig.send(post("write", target, more)).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let seen = rig.site.only();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (method, format!("/@api/deki/{target}").as_str()),
            "what it becomes is what goes out, and the parameter stays"
        );
        assert!(
            !seen.has("x-http-method-override"),
            "nothing rests on the site honouring it"
        );
        assert_eq!(seen.user(), "=crm-bot");
    }
}

#[tokio::test]
async fn refusals_are_the_apis_own_error_documents() {
    let rig = Rig::start().await;
    let xml = rig
        .send("GET /crm/@api/deki/users/current HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(xml.header("content-type"), "application/xml; charset=utf-8");
    for part in [
        "<status>401</status>",
        "<title>Unauthorized</title>",
        "<resource>countersign.credential_missing</resource>",
    ] {
        assert!(xml.text().contains(part), "{}", xml.text());
    }
    assert!(xml.text().contains(&format!(
        "<request_id>{}</request_id>",
        xml.header("x-request-id")
    )));
    assert_eq!(xml.header("cache-control"), "no-store");
    for (target, accept) in [
        ("/crm/@api/deki/users/current?dream.out.format=json", "*/*"),
        (
            "/crm/@api/deki/users/current?DREAM.out.%66ormat=JSON",
            "*/*",
        ),
        ("/crm/@api/deki/users/current", "application/json"),
    ] {
        let json = rig
            .send(format!(
                "GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
            ))
            .await;
        assert_eq!(
            json.header("content-type"),
            "application/json; charset=utf-8"
        );
        let document: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(document["status"], "401");
        assert_eq!(document["resource"], "countersign.credential_missing");
        assert_eq!(document["request_id"], json.header("x-request-id"));
    }
    let head = {
        let mut wire = rig.gateway.connect().await;
        wire.write("HEAD /crm/@api/deki/users/current HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let answer = wire.answer_to("HEAD").await;
        wire.write(get("/crm/@api/deki/users/current", "")).await;
        assert_eq!(
            wire.answer().await.status,
            200,
            "a refused HEAD leaves the connection usable"
        );
        answer
    };
    head.refused(401, "credential_missing");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let rig = Rig::with(crate::harness::ROUTES, |seen| {
        Reply::with("", &format!("{}", seen.body.len()))
    })
    .await;
    let body = vec![b'x'; 300_000];
    let head = |framing: &str| {
        format!(
            "PUT /write/@api/deki/pages/home/files/=a.bin HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\n{framing}\r\n\r\n"
        )
    };
    let mut wire = rig.gateway.connect().await;
    wire.write(head("Content-Length: 300000")).await;
    wire.write(&body).await;
    assert_eq!(wire.answer().await.text(), "300000");
    assert!(
        rig.site.only().body == body,
        "the bytes arrive as they were"
    );
    wire.write(head("Transfer-Encoding: chunked")).await;
    for part in body.chunks(70_001) {
        wire.write(format!("{:x}\r\n", part.len())).await;
        wire.write(part).await;
        wire.write("\r\n").await;
    }
    wire.write("0\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "300000");
    assert!(rig.site.only().body == body, "also in chunks");
    wire.write(head("Content-Length: 3\r\nExpect: 100-continue"))
        .await;
    wire.write("abc").await;
    assert_eq!(
        wire.answer().await.text(),
        "3",
        "also where the caller waits to be asked"
    );
}
