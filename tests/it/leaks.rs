//! No secret byte in any answer, event, error or `Debug` output: secrets are canaries, and everything
//! that is written is searched for them, with the subscriber at TRACE.

use countersign::telemetry::LogFormat;

use crate::harness::{
    API_KEY, BROWSER_KEY, Capture, Gateway, OTHER_KEY, ROUTES, Reply, Rig, TOKEN_KEY, TOKEN_SECRET,
    compile, get,
};

/// What must appear nowhere, and what callers send that must not be repeated.
const CANARIES: [&str; 8] = [
    TOKEN_KEY,
    TOKEN_SECRET,
    BROWSER_KEY,
    API_KEY,
    OTHER_KEY,
    "canary-sent",
    "canary-answered",
    "tkn_",
];

pub fn clean(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} holds {canary}: {text}");
    }
    assert!(
        !text.contains(&TOKEN_SECRET[10..40]),
        "{what} holds a part of the secret"
    );
}

/// Requests of every kind, each with something in it that must not be repeated.
pub fn requests() -> Vec<String> {
    let lines = |lines: &str| get("/crm/@api/deki/pages/home?q=canary-sent", lines);
    vec![
        lines(""),
        lines("X-Deki-Token: canary-sent\r\n"),
        lines("Cookie: authtoken=canary-sent\r\nX-Authtoken: canary-sent\r\nReferer: https://x/canary-sent\r\n"),
        lines("Origin: https://canary-sent.example\r\n"),
        lines("Origin: canary-sent\r\n"),
        lines("Expect: canary-sent\r\n"),
        lines("Content-Length: canary-sent\r\n"),
        lines("Transfer-Encoding: canary-sent\r\n"),
        lines("Connection: canary-sent\r\n"),
        lines("X-HTTP-Method-Override: canary-sent\r\n"),
        lines("Host: canary-sent\r\n"),
        lines("X-A: canary-sent\u{e9}\r\n"),
        get("/crm/@api/deki/pages/home?authtoken=canary-sent", ""),
        get("/crm/@api/deki/pages/home?dream.in.verb=canary-sent", ""),
        get("/crm/@api/deki/pages/home?dream.out.pre=canary-sent", ""),
        get("/crm/@api/deki/users/authenticate?redirect=canary-sent", ""),
        get("/mint/@api/deki/users/authenticate?redirect=canary-sent", ""),
        get("/crm/../canary-sent", ""),
        get("/crm/%zz/canary-sent", ""),
        get("/crm/canary-sent\u{e9}", ""),
        get("/crm/@api/deki/pages/fault?q=canary-sent", ""),
        get("/crm/@api/deki/pages/trace?q=canary-sent", ""),
        get("/crm/@api/deki/pages/plain-trace?q=canary-sent", ""),
        get("/crm/@api/deki/pages/refused-token?q=canary-sent", ""),
        get("/crm/@api/deki/pages/broken?q=canary-sent", ""),
        get("/shared/@api/deki/pages/home?q=canary-sent", "Origin: https://crm.example.com\r\n"),
        "canary-sent\r\n\r\n".to_owned(),
        "CANARY-sent /nowhere HTTP/1.1\r\nHost: canary-sent\r\n\r\n".to_owned(),
        "GET /crm/@api/deki/pages/home HTTP/1.1\r\nHost: x\r\nX-Api-Key: canary-sent\r\n\r\n".to_owned(),
        "GET /crm/@api/deki/pages/home HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-sent\r\n\r\n".to_owned(),
        "GET /crm/@api/deki/pages/home HTTP/1.1\r\nHost: x\r\nAuthorization: Basic canary-sent\r\n\r\n".to_owned(),
        format!("GET /widget/@api/deki/site/query?q=canary-sent HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\nX-Deki-Token: {BROWSER_KEY}\r\n\r\n"),
        "GET /widget/@api/deki/site/query HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\nX-Deki-Token: canary-sent\r\n\r\n".to_owned(),
        format!("POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nContent-Length: 11\r\n\r\ncanary-sent"),
        format!("POST /write/@api/deki/pages/home/contents HTTP/1.1\r\nHost: x\r\nX-Api-Key: {API_KEY}\r\nTransfer-Encoding: chunked\r\n\r\ncanary-sent\r\n"),
    ]
}

#[tokio::test]
async fn no_canary_leaves_its_cage() {
    // For this thread, on which everything here runs; what the engine logs comes the same way.
    let (capture, _guard) = Capture::start(LogFormat::Text, "trace");
    drop(tracing_log_to_this_thread());

    let rig = Rig::with(ROUTES, |seen| {
        let name = seen.target.rsplit('/').next().unwrap().split('?').next().unwrap();
        match name {
            "fault" => Reply::Reset(b"canary-answered".to_vec()),
            "broken" => Reply::Last(b"HTTP/1.1 200 OK\r\nX: canary-answered\r\nContent-Length: canary-answered\r\n\r\n".to_vec()),
            "plain-trace" => Reply::status("404 Not Found", "X-Canary: canary-answered\r\n", "at A.B (canary-answered) [0x00001] in canary-answered:0"),
            "refused-token" => Reply::status(
                "403 Forbidden",
                &format!("WWW-Authenticate: {TOKEN_KEY}\r\n"),
                &format!("<error><resource>System.API.Error.developer-token-validation-failed</resource><message>{TOKEN_KEY} canary-answered</message></error>"),
            ),
            "trace" => Reply::with("X-A: b\r\n", "").clone_with_trace(),
            _ => Reply::with("Set-Cookie: canary-answered\r\nX-Deki-Token: canary-answered\r\nX-Authtoken: canary-answered\r\n", "<a/>"),
        }
    })
    .await;
    for request in requests() {
        let mut wire = rig.gateway.connect().await;
        wire.write(&request).await;
        wire.finish().await;
        clean(
            &format!("the answer to {request:?}"),
            &String::from_utf8_lossy(&wire.rest().await),
        );
    }
    for seen in rig.site.take() {
        let mut told = format!("{seen:?}");
        for sent in seen.all("x-deki-token") {
            told = told.replace(sent, "");
        }
        for canary in [TOKEN_SECRET, API_KEY, OTHER_KEY] {
            assert!(!told.contains(canary), "the site got {canary}: {told}");
        }
    }
    clean(
        "Debug of the shared state",
        &format!("{:?}", rig.gateway.shared),
    );
    let loaded = compile(ROUTES, rig.site.address).unwrap();
    clean("Debug of the policy", &format!("{loaded:?} {loaded:#?}"));
    let events = capture.text();
    assert!(events.contains("exchange"), "events are captured at all");
    assert!(events.contains("request_id"), "{events}");
    clean("an event", &events);
    drop(Gateway::start(ROUTES, rig.site.address).await);
}

#[test]
fn no_secret_in_problems() {
    for text in [
        ROUTES.replace("env:TOKEN_SECRET", "canary-sent"),
        ROUTES.replace("env:TOKEN_SECRET", "[canary-sent]"),
        ROUTES.replace("env:TOKEN_SECRET", "{ canary-sent: canary-sent }"),
        ROUTES.replace("env:TOKEN_SECRET", "env:canary-sent"),
        ROUTES.replace("secret: env:TOKEN_SECRET", "secret: \"canary-sent"),
        ROUTES.replace("token: server", "token: canary-sent"),
        ROUTES.replace("@API@", "canary-sent"),
        ROUTES.replace("\"@API@\"", "[canary-sent, canary-sent]"),
        ROUTES.replace("=crm-bot", "canary-sent"),
        ROUTES.replace("allow: [search", "allow: [canary-sent"),
        ROUTES.replace("url: http://@SITE@", "url: https://user:canary-sent@host/"),
        ROUTES.replace("crm.example.com,", "https://canary-sent/path,"),
        ROUTES.replace("mount: /crm", "mount: canary-sent"),
        ROUTES.replace("127.0.0.1:0", "canary-sent"),
        ROUTES.replace("key: env:BROWSER_KEY", "key: |\n        canary-sent"),
        format!("{ROUTES}\ncanary-sent"),
        format!("{ROUTES}\n- canary-sent"),
        format!("{ROUTES}\nlimits: canary-sent"),
        format!("{ROUTES}\nlimits: {{ connections: canary-sent }}"),
        "canary-sent".to_owned(),
        "[canary-sent".to_owned(),
        "a: &canary-sent b\nc: *other".to_owned(),
        "!canary-sent a".to_owned(),
    ] {
        let unusable = compile(&text, "127.0.0.1:1".parse().unwrap()).expect_err(&text);
        clean("a problem", &format!("{unusable} {unusable:?}"));
    }
}

/// The engine speaks `log`; lead it to the subscriber, once for the process.
fn tracing_log_to_this_thread() -> Result<(), tracing_log::log_tracer::SetLoggerError> {
    tracing_log::LogTracer::init()
}

impl Reply {
    fn clone_with_trace(self) -> Self {
        let body = "<exception>canary-answered</exception>";
        Self::Bytes(
            format!("HTTP/1.1 500 Error\r\nContent-Type: application/x-dream-exception+xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into_bytes(),
        )
    }
}
