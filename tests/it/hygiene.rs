//! What a caller must not send does not go up, and what a caller must not have does not come down.

use crate::harness::{API_KEY, BROWSER_KEY, ROUTES, Reply, Rig, Seen, TOKEN_KEY, get};

/// What a request to the site may carry, whatever the caller sent.
const EXPECTED: [&str; 10] = [
    "host",
    "x-forwarded-for",
    "x-request-id",
    "x-deki-token",
    "accept",
    "accept-language",
    "content-type",
    "user-agent",
    "x-deki-client",
    "traceparent",
];

fn only_expected(seen: &Seen) {
    for (name, _) in &seen.headers {
        let name = name.to_ascii_lowercase();
        assert!(
            EXPECTED.contains(&name.as_str()),
            "{name} went up: {seen:?}"
        );
    }
}

#[tokio::test]
async fn identities_of_the_callers_own_do_not_go_up() {
    let rig = Rig::start().await;
    let forged = [
        "Cookie: authtoken=\"1_admin\"; dekisession=1; service-key=x",
        "Cookie: mtwebsession=1",
        "X-Authtoken: 1_admin",
        "x-authtoken: again",
        "X-ApiKey: master",
        "X-Deki-Site: id=other",
        "X-Deki-Session: 1:abc",
        "X-Deki-Requested-With: XMLHttpRequest",
        "X-Deki-Anything: x",
        "X-Requested-With: XMLHttpRequest",
        "X-Dream-Transport: local",
        "X-Dream-Public-Uri: http://other.example",
        "X-Dream-User-Host: other.example",
        "X-Dream-Origin: http://other.example",
        "X-Dream-Request-Id: 1",
        "X-Dream-ClientIP: 10.0.0.1",
        "X-Dream-In-Auth: x",
        "X-Dream-Event-Origin: x",
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Host: other.example",
        "X-Forwarded-Server: other.example",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Anything: x",
        "X-Real-IP: 10.0.0.1",
        "Forwarded: for=10.0.0.1;host=other.example",
        "Front-End-Https: On",
        "Via: 1.1 other",
        "Proxy-Authorization: Basic YWRtaW46YWRtaW4=",
        "Proxy-Connection: keep-alive",
        "Proxy: http://evil.test",
        "Referer: https://crm.example.com/secret",
        "X_Deki_Token: tkn_1",
        "x_authtoken: 1",
        "Content_Length: 5",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X-Deki-Token",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
        "X-Original-URL: /@api/deki/users/authenticate",
        "X-Rewrite-URL: /@api/deki/users/authenticate",
        "X-Host: other.example",
        "Connection: close, X-Deki-Token, X-Mine\r\nX-Mine: x",
    ];
    for line in forged {
        let answer = rig
            .get(
                "/crm/@api/deki/users/current",
                &format!("{line}\r\nAccept: */*\r\n"),
            )
            .await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
        let seen = rig.site.only();
        only_expected(&seen);
        assert_eq!(seen.user(), "=crm-bot", "{line}");
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1", "{line}");
        assert_eq!(seen.header("host"), rig.site.address.to_string(), "{line}");
    }
    let all: String = forged
        .iter()
        .filter(|line| !line.starts_with("Content_Length"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let answer = rig.get("/crm/@api/deki/users/current", &all).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    only_expected(&rig.site.only());
}

#[tokio::test]
async fn what_the_site_needs_goes_up() {
    let rig = Rig::start().await;
    let useful = [
        ("Accept", "application/json"),
        ("Accept-Language", "de"),
        ("User-Agent", "crm/1.0"),
        ("X-Deki-Client", "mindtouch-martian"),
        ("If-None-Match", "\"1\""),
        ("If-Modified-Since", "Mon, 05 Oct 2015 18:44:27 GMT"),
        ("Range", "bytes=0-9"),
        ("Accept-Encoding", "gzip"),
    ];
    let lines: String = useful
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    rig.get("/crm/@api/deki/files/1/a.png", &lines).await;
    let seen = rig.site.only();
    for (name, value) in useful {
        assert_eq!(seen.header(name), value);
    }
}

#[tokio::test]
async fn tokens_in_the_open_are_refused() {
    let rig = Rig::start().await;
    for value in ["", "tkn_1_2_3_4", "canary0browser", " "] {
        let more = format!("X-Deki-Token: {value}\r\n");
        rig.get("/crm/@api/deki/users/current", &more)
            .await
            .refused(400, "caller_sent_token");
    }
    for parameter in [
        "x-deki-token=1",
        "X-Deki-Token=1",
        "x%2Ddeki%2dtoken=1",
        "x-deki-%u0074oken=1",
        "authtoken=1",
        "AuthToken=1",
        "%61uthtoken=1",
        "%u0061uthtoken=1",
        "a=b&authtoken",
        "&&authtoken=",
        "apikey=1",
        "api%6bey=1",
        "impersonateuserid=1",
        "IMPERSONATEUSERID=1",
        "authenticate=1_admin",
    ] {
        rig.get(&format!("/crm/@api/deki/users/current?{parameter}"), "")
            .await
            .refused(400, "caller_sent_token");
    }
    for parameter in [
        "dream.in.host=other",
        "dream.in.uri=http://other",
        "dream.in.origin=http://other",
        "dream.in.scheme=https",
        "dream.in.root=x",
        "dream.in.format=xhtml",
        "dream.in.authtoken=x",
        "DREAM%2EIN%2EHOST=x",
        "dream%u002ein%u002ehost=x",
        "a=1&dream.in.anything=x",
        "accountpassword=x",
        "Account%50assword=x",
        "newpassword=x",
        "dream.out.callback=x",
        "dream.out.pre=x",
        "dream.out.post=x",
        "dream.out.type=text/html",
        "dream.out.saveas=x",
        "Dream.Out.PRE=x",
        "dream.out.format=jsonp",
        "dream.out.format=xhtml",
        "dream.out.format=xspan",
        "dream.out.format=versit",
        "dream.out.format=",
        "dream.out.format=js%6fnp",
        "dream.out.format=json&dream.out.format=jsonp",
        "dream.out.anything=x",
    ] {
        rig.get(&format!("/crm/@api/deki/users/current?{parameter}"), "")
            .await
            .refused(400, "forbidden_parameter");
    }
    assert_eq!(rig.site.count(), 0);
    for parameter in [
        "dream.out.format=json",
        "dream.out.format=PHP",
        "dream.out.format=xml",
        "dream.out.select=//title",
        "authtokens=1",
        "xauthtoken=1",
        "a;authtoken=1",
        "q=authtoken=1",
    ] {
        let answer = rig
            .get(&format!("/crm/@api/deki/users/current?{parameter}"), "")
            .await;
        assert_eq!(answer.status, 200, "{parameter}: {}", answer.text());
        rig.site.only();
    }
}

#[tokio::test]
async fn sessions_and_traces_do_not_come_down() {
    let rig = Rig::with(ROUTES, |_| {
        Reply::with(
            "Set-Cookie: authtoken=\"canary\"\r\nset-cookie: dekisession=canary\r\nX-Deki-Token: canary\r\nX-Authtoken: canary\r\n\
             X-Deki-Site: id=\"canary\"\r\nX-Dream-Transport: canary\r\nX-Data-Stats: canary\r\nX-Deki-DB-Calls: canary\r\nP3P: canary\r\n\
             Server: canary\r\nX-Powered-By: canary\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
             Access-Control-Expose-Headers: canary\r\nKeep-Alive: canary\r\nProxy-Authenticate: canary\r\nUpgrade: canary\r\n\
             Connection: keep-alive, X-Canary\r\nX-Canary: canary\r\n\
             X-Deki-Session: 3:abc\r\nETag: \"1\"\r\nLast-Modified: Mon, 05 Oct 2015 18:44:27 GMT\r\nRetry-After: 3\r\n",
            "<a/>",
        )
    })
    .await;
    for _ in 0..2 {
        let answer = rig.get("/crm/@api/deki/users/current", "").await;
        assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert_eq!(answer.header("server"), "");
        for (name, value) in [
            ("x-deki-session", "3:abc"),
            ("etag", "\"1\""),
            ("last-modified", "Mon, 05 Oct 2015 18:44:27 GMT"),
            ("retry-after", "3"),
            ("content-type", "application/xml"),
        ] {
            assert_eq!(answer.header(name), value);
        }
    }
}

/// A value in every spelling in which some reader takes it for the same.
fn spellings(value: &str) -> Vec<String> {
    let whole: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let twice = whole.replace('%', "%25");
    let first = format!("%{:02X}{}", value.as_bytes()[0], &value[1..]);
    let wide = format!("%u00{:02x}{}", value.as_bytes()[0], &value[1..]);
    let quoted: String = value.chars().map(|letter| format!("\\{letter}")).collect();
    vec![
        value.to_owned(),
        value.to_uppercase(),
        value.to_lowercase(),
        first,
        wide,
        whole,
        twice,
        quoted,
    ]
}

#[tokio::test]
async fn no_header_of_an_answer_holds_a_credential() {
    let text = ROUTES.replace(
        "allow: [search, read-pages, read-files, read-users, whoami] }",
        "allow: [search, read-pages], answer_headers: [Link, Refresh, X-Anything] }",
    );
    let rig = Rig::with(&text, |seen| {
        // Our own token among them, as it was sent.
        let token = seen.header("x-deki-token");
        let mut lines = Vec::new();
        let kinds = [
            token,
            TOKEN_KEY,
            BROWSER_KEY,
            "authtoken=canary",
            "dekisession=canary",
        ];
        for value in kinds.into_iter().flat_map(spellings) {
            for line in [
                format!("ETag: \"{value}\""),
                format!("Location: https://other.example/x?a=b&{value}"),
                format!("Content-Location: /x?{value}"),
                format!("Content-Disposition: attachment; filename=\"{value}\""),
                format!("Link: </x?{value}>; rel=next"),
                format!("Refresh: 1; url=/x?{value}"),
                format!("X-Anything: {value}"),
                format!("X-Deki-Session: {value}"),
                format!("X-Deki-Token: {value}"),
                format!("Authorization: {value}"),
                format!("X-ApiKey: {value}"),
                format!("Set-Cookie: {value}"),
            ] {
                lines.push(line + "\r\n");
            }
        }
        // As many as a head may have, a different part of them for each request.
        let part: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(lines.len().div_ceil(100), 5);
        let lines = lines.chunks(100).nth(part).unwrap();
        Reply::with(&format!("{}Vary: X\r\n", lines.concat()), "<a/>")
    })
    .await;
    for part in 0..5 {
        let answer = rig.get(&format!("/crm/@api/deki/pages/{part}"), "").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "<a/>"));
        let mut names: Vec<_> = answer
            .headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort();
        let expected = [
            "cache-control",
            "content-length",
            "content-type",
            "vary",
            "vary",
            "x-request-id",
        ];
        assert_eq!(names, expected, "nothing else comes down: {answer:?}");
    }
}

#[tokio::test]
async fn what_a_route_names_comes_down_and_pages_may_read_it() {
    let text = ROUTES.replace(
        "allow: [search], report_only",
        "allow: [search], answer_headers: [X-Data-Stats], report_only",
    );
    let rig = Rig::with(&text, |_| {
        Reply::with("X-Data-Stats: 5\r\nX-Other: 1\r\n", "")
    })
    .await;
    let page = "GET /trial/@api/deki/site/query HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\n\r\n";
    let answer = rig.send(page).await;
    assert_eq!(
        (answer.header("x-data-stats"), answer.header("x-other")),
        ("5", "")
    );
    assert!(
        answer
            .header("access-control-expose-headers")
            .ends_with(", x-data-stats")
    );
    let answer = rig.send(page.replace("trial", "widget")).await;
    assert_eq!(answer.header("x-data-stats"), "", "on that route only");
}

#[tokio::test]
async fn hints_of_a_call_that_mints_stay_here() {
    let rig = Rig::with(ROUTES, |_| {
        Reply::Bytes(
            b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: authtoken=canary\r\nLink: </canary>\r\n\r\n\
              HTTP/1.1 200 OK\r\nSet-Cookie: authtoken=canary\r\nTransfer-Encoding: chunked\r\n\r\n\
              6\r\ncanary\r\n0\r\nSet-Cookie: canary\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    let mut wire = rig.gateway.connect().await;
    let request = get(
        "/mint/@api/deki/users/authenticate",
        "Connection: close\r\n",
    );
    wire.write(request).await;
    let bytes = String::from_utf8(wire.rest().await).unwrap();
    assert!(bytes.starts_with("HTTP/1.1 200 OK\r\n"), "{bytes}");
    assert!(!bytes.contains("canary"), "{bytes}");
}

#[tokio::test]
async fn locations() {
    const CASES: [(&str, &str); 21] = [
        (
            "http://HOST/@api/deki/pages/2?x=1",
            "/crm/@api/deki/pages/2?x=1",
        ),
        ("HTTP://HOST/@API/deki/pages/2", "/crm/@API/deki/pages/2"),
        ("https://HOST/@api/deki/pages/2", "/crm/@api/deki/pages/2"),
        ("//HOST/@api/deki/pages/2#a", "/crm/@api/deki/pages/2#a"),
        ("//u:p@HOST/@api/deki/pages/2", "/crm/@api/deki/pages/2"),
        ("/@api/deki/pages/2", "/crm/@api/deki/pages/2"),
        ("/@api/deki", "/crm/@api/deki"),
        ("/%40api/deki/pages/2", "/crm/%40api/deki/pages/2"),
        (
            "/@api/deki/pages/=Caf\u{e9}",
            "/crm/@api/deki/pages/=Caf\u{e9}",
        ),
        (
            "/@api/deki/pages/../files/1",
            "/crm/@api/deki/pages/../files/1",
        ),
        ("/@api/deki/../x", "/@api/deki/../x"),
        ("/@app/x", "/@app/x"),
        ("2?x=1", "2?x=1"),
        ("?x=1", "?x=1"),
        ("http://HOST/Some/Page", "http://HOST/Some/Page"),
        (
            "https://files.mtstatic.com/site_1/2?Expires=1&Signature=a%2Bb~&Key-Pair-Id=K",
            "https://files.mtstatic.com/site_1/2?Expires=1&Signature=a%2Bb~&Key-Pair-Id=K",
        ),
        (
            "https://b.s3.amazonaws.com/a%2520b?X-Amz-Security-Token=a%2F%3D&X-Amz-Signature=0",
            "https://b.s3.amazonaws.com/a%2520b?X-Amz-Security-Token=a%2F%3D&X-Amz-Signature=0",
        ),
        ("https://u:p@files.mtstatic.com/1", ""),
        ("https://files.mtstatic.com/1?authtoken=x", ""),
        ("/@api/deki/pages/2?%61uthtoken%3Dx", ""),
        ("http://HOST/@api/deki/pages/2?x-deki-token=x", ""),
    ];
    let rig = Rig::with(ROUTES, |seen| {
        let number: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        let location = CASES[number].0.replace("HOST", seen.header("host"));
        Reply::status("302 Found", &format!("Location: {location}\r\n"), "")
    })
    .await;
    let host = rig.site.address.to_string();
    for (number, (sent, expected)) in CASES.iter().enumerate() {
        let answer = rig.get(&format!("/crm/@api/deki/pages/{number}"), "").await;
        let expected = expected.replace("HOST", &host);
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, &*expected),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn stack_traces_are_replaced() {
    let rig = Rig::with(ROUTES, |_| {
        Reply::Bytes(
            b"HTTP/1.1 500 Internal Error\r\nContent-Type: Application/X-Dream-Exception+XML; charset=utf-8\r\nContent-Length: 6\r\n\r\ncanary"
                .to_vec(),
        )
    })
    .await;
    let answer = rig.get("/crm/@api/deki/users/current", "").await;
    answer.refused(502, "site_invalid_answer");
    assert!(!answer.text().contains("canary"));
}

#[tokio::test]
async fn each_request_is_signed_for_itself() {
    let rig = Rig::start().await;
    let mut wire = rig.gateway.connect().await;
    for _ in 0..3 {
        for (route, key, user) in [
            ("crm", API_KEY, "=crm-bot"),
            ("crm", crate::harness::OTHER_KEY, "7"),
            ("write", API_KEY, "=crm-bot"),
        ] {
            wire.write(format!(
                "GET /{route}/@api/deki/pages/home HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n"
            ))
            .await;
            assert_eq!(wire.answer().await.status, 200);
            assert_eq!(
                rig.site.only().user(),
                user,
                "on one connection of the caller"
            );
        }
    }
    assert_eq!(
        rig.site.connections(),
        2,
        "a connection to the site is reused, by the same user"
    );
}
