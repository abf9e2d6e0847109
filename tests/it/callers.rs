//! Who calls, and as whom: every credential that needs no network of its own, and users that a request
//! chooses.

use std::process::Command;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::policy::caller::basic::PasswordHash;
use countersign::telemetry::LogFormat;
use tokio::net::TcpSocket;

use crate::harness::{
    API_KEY, Capture, Log, Need, OTHER_KEY, Reply, Rig, Wire, cannot, compile, until,
};

const PASSWORD: &str = "canary-password-of-the-desk";

/// The hash of [`PASSWORD`].
fn hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let hash = PasswordHash::of(PASSWORD.as_bytes(), b"saltsaltsaltsalt").unwrap();
        hash.as_str().to_owned()
    })
}

const FILE: &str = r#"
listeners: [{ address: "127.0.0.1:0" }]
sites:
  acme:
    url: http://@SITE@
    user_encoding: percent
    server_tokens: [{ key: env:TOKEN_KEY, secret: env:TOKEN_SECRET }]
callers:
  desk: { basic: { password: "@HASH@" }, acts_as: "=desk" }
  hook: { basic: { user: "h\u00f6ok", password: ["@HASH@"] }, acts_as: "=hook" }
  crm:
    api_key: { sha256: "@API@" }
    acts_as: { header: X-Acting-User, allow: ["support-*", "jane doe"], deny: ["support-admin"] }
    limits: { per_user: { requests_per_second: 1, burst: 3 } }
  portal:
    api_key: [{ sha256: "@OTHER@" }]
    allowed_addresses: [127.0.0.1, "2001:db8::/32"]
    acts_as: { header: X-Acting-User, map: { "42": "=jane", "43": "7" } }
routes:
  - { name: read, mount: /crm, site: acme, token: server, callers: [desk, hook, crm, portal], allow: [read-pages] }
  - { name: keys, mount: /keys, site: acme, token: server, callers: [crm], allow: [read-pages] }
  - { name: pages, mount: /pages, site: acme, token: server, callers: [desk, crm, portal], allow: [read-pages], origins: [crm.example.com] }
"#;

const TARGET: &str = "/crm/@api/deki/pages/home";

async fn rig() -> Rig {
    Rig::with(&FILE.replace("@HASH@", hash()), |_| Reply::ok()).await
}

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gateway.test\r\n{lines}\r\n")
}

fn basic(user: &str, password: &str) -> String {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

/// Each example of the page, in a file around it.
#[test]
fn the_examples_of_the_page_can_be_used() {
    let page = include_str!("../../docs/callers.md");
    // Those that sign are tried where signatures are made.
    let (before, signed) = page.split_once("## Signed webhooks").unwrap();
    let after = signed.split_once("\n## ").unwrap().1;
    let pages = [before, after].map(|part| part.split("```yaml\n").skip(1));
    let mut count = 0;
    for block in pages.into_iter().flatten() {
        count += 1;
        let block = block.split("```").next().unwrap();
        let names = block
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
        let names: Vec<_> = names.filter(|name| !name.starts_with(' ')).collect();
        assert!(
            block.starts_with("callers:\n") && !names.is_empty(),
            "{block}"
        );
        let top = FILE.split("callers:").next().unwrap();
        let text = format!(
            "{top}{block}routes: [{{ name: all, site: acme, token: server, callers: [{}], allow: [search] }}]\n",
            names.join(", ")
        );
        let text = text.replace(
            "env:SERVICENOW_OLD_PASSWORD_HASH",
            &format!("\"{}\"", hash()),
        );
        let loaded = compile(&text, "127.0.0.1:1".parse().unwrap());
        let loaded = loaded.unwrap_or_else(|unusable| panic!("{unusable}\n{block}"));
        // The file around it has no TLS.
        let unasked = "no listener asks for client certificates";
        let warnings = loaded.warnings.iter();
        let warnings: Vec<_> = warnings
            .filter(|one| !one.text.starts_with(unasked))
            .collect();
        assert!(warnings.is_empty(), "{warnings:?}\n{block}");
    }
    assert!(count >= 7, "{count}");
}

#[tokio::test]
async fn a_user_name_and_a_password() {
    let rig = rig().await;
    for (user, acts_as) in [("desk", "=desk"), ("h\u{f6}ok", "=hook")] {
        // Compared once, then known.
        for _ in 0..3 {
            let answer = rig.send(get(TARGET, &basic(user, PASSWORD))).await;
            assert_eq!(answer.status, 200, "{user}");
            let seen = rig.site.only();
            assert_eq!(seen.user(), acts_as);
            assert!(!seen.has("authorization"));
        }
    }
    for lines in [
        basic("desk", "canary-wrong"),
        basic("desk", ""),
        basic("nobody", PASSWORD),
        basic("Desk", PASSWORD),
        "Authorization: Basic ZGVzaw==\r\n".to_owned(),
        "Authorization: Basic !\r\n".to_owned(),
    ] {
        let answer = rig.send(get(TARGET, &lines)).await;
        answer.refused(401, "credential_unknown");
    }
    let both = format!("{}X-Api-Key: {API_KEY}\r\n", basic("desk", PASSWORD));
    rig.send(get(TARGET, &both))
        .await
        .refused(400, "ambiguous_credential");
    // It is no caller of this route.
    let elsewhere = get("/keys/@api/deki/pages/home", &basic("desk", PASSWORD));
    rig.send(elsewhere).await.refused(401, "credential_unknown");
    assert_eq!(rig.site.count(), 0);
}

#[tokio::test]
async fn passwords_stand_in_no_event_and_no_debug_output() {
    let (capture, _guard) = Capture::start(LogFormat::Text, "trace");
    let text = FILE.replace("@HASH@", hash());
    let rig = rig().await;
    for (user, password) in [
        ("desk", PASSWORD),
        ("desk", "canary-wrong"),
        ("canary-name", PASSWORD),
    ] {
        let answer = rig.send(get(TARGET, &basic(user, password))).await;
        assert!(!answer.text().contains("canary"), "{}", answer.text());
    }
    let pair = STANDARD.encode(format!("desk:{PASSWORD}"));
    let loaded = compile(&text, "127.0.0.1:1".parse().unwrap()).unwrap();
    let shown = format!("{:?}", loaded.policy);
    assert!(shown.contains("argon2id(m=19456,t=2,p=1, [redacted])"));
    let (_, secret) = hash().rsplit_once('$').unwrap();
    for told in [capture.text(), shown] {
        for canary in ["canary", &pair, secret] {
            assert!(!told.contains(canary), "{canary} in {told}");
        }
    }
    assert!(capture.text().contains("password_wrong"));
    assert!(capture.text().contains("user_name_unknown"));
}

#[tokio::test]
async fn challenges_name_what_is_taken() {
    let rig = rig().await;
    let bearer = "Bearer realm=\"countersign\"";
    let password = "Basic realm=\"countersign\", charset=\"UTF-8\"";
    for (mount, expected) in [
        ("/crm", &[bearer, password][..]),
        ("/keys", &[bearer]),
        // A browser would ask its user, and then send them by itself.
        ("/pages", &[bearer]),
    ] {
        let answer = rig
            .send(get(&format!("{mount}/@api/deki/pages/home"), ""))
            .await;
        answer.refused(401, "credential_missing");
        let challenges: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(challenges, expected, "{mount}");
    }
}

/// As people call it: with -u, and with the header that Python's requests writes.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_as_curl_sends_them() {
    if Command::new("curl").arg("--version").output().is_err() {
        cannot(Need::Clients, "a password from curl: it needs curl");
        return;
    }
    let rig = rig().await;
    let url = format!("http://{}{TARGET}", rig.gateway.address);
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--noproxy", "*", "--write-out", "%{http_code}"])
            .args(["--output", "/dev/null"])
            .args(arguments)
            .arg(&url)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let pair = format!("desk:{PASSWORD}");
    assert_eq!(curl(&["-u", &pair]), "200");
    assert_eq!(rig.site.only().user(), "=desk");
    // It asks without them first, and takes the challenge it understands.
    assert_eq!(curl(&["--anyauth", "-u", &pair]), "200");
    assert_eq!(rig.site.only().user(), "=desk");
    assert_eq!(curl(&["-u", &format!("h\u{f6}ok:{PASSWORD}")]), "200");
    assert_eq!(rig.site.only().user(), "=hook");
    assert_eq!(curl(&["-u", "desk:wrong"]), "401");
    assert_eq!(curl(&[]), "401");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_as_requests_sends_them() {
    let has_requests = Command::new("python3")
        .args(["-c", "import requests"])
        .output();
    if !has_requests.is_ok_and(|output| output.status.success()) {
        cannot(
            Need::Clients,
            "a password from requests: it needs python3 with requests",
        );
        return;
    }
    let rig = rig().await;
    let url = format!("http://{}{TARGET}", rig.gateway.address);
    let script = "import sys, requests\n\
        session = requests.Session()\n\
        session.trust_env = False\n\
        url, user, password = sys.argv[1:]\n\
        for name in (user, user.encode()):\n    \
            print(session.get(url, auth=(name, password)).status_code)\n";
    let ask = |user: &str, password: &str| {
        let output = Command::new("python3")
            .args(["-c", script, &url, user, password])
            .env("PYTHONIOENCODING", "utf-8")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask("desk", PASSWORD), "200\n200\n");
    // As docs/callers.md says: Latin-1, unless it is given bytes.
    assert_eq!(ask("h\u{f6}ok", PASSWORD), "401\n200\n");
    assert_eq!(ask("desk", "wrong"), "401\n401\n");
}

/// A connection from another address of this machine.
async fn from(rig: &Rig, address: &str) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(format!("{address}:0").parse().unwrap())
        .unwrap();
    Wire::over(socket.connect(rig.gateway.address).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_passwords_costs_who_sends_it() {
    let rig = rig().await;
    let right = get(TARGET, &basic("desk", PASSWORD));
    assert_eq!(rig.send(&right).await.status, 200);
    let mut floods = Vec::new();
    for number in 2..10 {
        let mut wire = from(&rig, &format!("127.0.0.{number}")).await;
        floods.push(tokio::spawn(async move {
            let mut codes = Vec::new();
            for guess in 0..40 {
                let user = if guess % 2 == 0 { "desk" } else { "nobody" };
                let lines = basic(user, &format!("canary-guess-{number}-{guess}"));
                wire.write(get(TARGET, &lines)).await;
                let answer = wire.answer().await;
                if answer.status == 429 {
                    let pause: u64 = answer.header("retry-after").parse().unwrap();
                    assert!((1..=10).contains(&pause), "{pause}");
                }
                codes.push(answer.refusal().to_owned());
            }
            codes
        }));
    }
    // Who is known is not slowed, nor who comes from an address of its own.
    for _ in 0..20 {
        assert_eq!(rig.send(&right).await.status, 200);
    }
    for flood in floods {
        let codes = flood.await.unwrap();
        let answered = codes.iter().filter(|code| *code == "credential_unknown");
        let limited = codes.iter().filter(|code| *code == "rate_limited");
        let answered = answered.count();
        assert_eq!(answered + limited.count(), codes.len(), "{codes:?}");
        // Ten, and what time gives back; fewer where the name had too many.
        assert!((1..=25).contains(&answered), "{codes:?}");
    }
    let hook = get(TARGET, &basic("h\u{f6}ok", PASSWORD));
    assert_eq!(rig.send(&hook).await.status, 200);
}

#[tokio::test]
async fn who_asks_at_once_with_a_password_that_is_not_known_yet() {
    let rig = rig().await;
    let mut wires = Vec::new();
    for _ in 0..50 {
        let mut wire = rig.gateway.connect().await;
        wire.write(get(TARGET, &basic("desk", PASSWORD))).await;
        wires.push(wire);
    }
    for mut wire in wires {
        assert_eq!(
            wire.answer().await.status,
            200,
            "one comparison for all of them"
        );
    }
}

#[tokio::test]
async fn users_that_a_header_chooses() {
    let log = Log::listen();
    let rig = rig().await;
    let ask = |lines: &str| get(TARGET, &format!("X-Api-Key: {API_KEY}\r\n{lines}"));
    for (value, sent) in [
        ("support-1", "=support-1"),
        ("support-a@b.c", "=support-a@b.c"),
        ("jane doe", "=jane%20doe"),
        ("support-J\u{f6}rg", "=support-J%C3%B6rg"),
    ] {
        let answer = rig.send(ask(&format!("x-ACTING-user: {value}\r\n"))).await;
        assert_eq!(answer.status, 200, "{value}");
        let seen = rig.site.only();
        assert_eq!(seen.user(), sent, "{value}");
        assert!(!seen.has("x-acting-user"), "it goes no further");
        assert_eq!(log.named("exchange").last().unwrap()["user"], sent);
    }
    let one = "X-Acting-User: support-1\r\n";
    for lines in [
        "",
        "X-Acting-User: admin\r\n",
        "X-Acting-User: =admin\r\n",
        "X-Acting-User: SUPPORT-1\r\n",
        "X-Acting-User: support-admin\r\n",
        "X-Acting-User: support-Admin\r\n",
        "X-Acting-User: support-\u{e0}dmin\r\n",
        "X-Acting-User: support-x%0aadmin\r\n",
        "X-Acting-User: support-1, admin\r\n",
        "X-Acting-User: 1\r\n",
        "X-Acting-User:\r\n",
        "X_Acting_User: support-1\r\n",
        "X-Acting-User : \r\n",
        &format!("{one}{one}"),
        &format!("{one}X-Acting-User: admin\r\n"),
    ] {
        let answer = rig.send(ask(lines)).await;
        if lines.contains(" :") {
            answer.refused(400, "bad_message");
            continue;
        }
        answer.refused(403, "user_not_allowed");
        let record = log.named("exchange").last().unwrap().clone();
        assert_eq!(record["caller"], "crm", "{lines}");
        assert_eq!(record.get("user"), None, "{record}");
    }
    let nominated = ask(&format!("{one}Connection: x-acting-user\r\n"));
    rig.send(nominated).await.refused(400, "bad_message");
    // To a caller that may not choose, the header is one that is dropped like any other.
    let fixed = get(TARGET, &format!("{}{one}", basic("desk", PASSWORD)));
    assert_eq!(rig.send(fixed).await.status, 200);
    let seen = rig.site.only();
    assert_eq!(
        (seen.user().as_str(), seen.has("x-acting-user")),
        ("=desk", false)
    );
}

#[tokio::test]
async fn users_that_a_table_names() {
    let rig = rig().await;
    let ask = |value: &str| {
        let lines = format!("X-Api-Key: {OTHER_KEY}\r\nX-Acting-User: {value}\r\n");
        get(TARGET, &lines)
    };
    for (value, sent) in [("42", "=jane"), ("43", "7")] {
        assert_eq!(rig.send(ask(value)).await.status, 200);
        assert_eq!(rig.site.only().user(), sent);
    }
    for value in ["44", "=jane", "jane", "7", "042", "42,43"] {
        rig.send(ask(value)).await.refused(403, "user_not_allowed");
    }
}

#[tokio::test]
async fn one_user_does_not_use_up_its_callers_budget() {
    let rig = rig().await;
    let ask = |user: &str| {
        let lines = format!("X-Api-Key: {API_KEY}\r\nX-Acting-User: {user}\r\n");
        get(TARGET, &lines)
    };
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(rig.send(ask("support-runaway")).await.refusal().to_owned());
    }
    assert!(codes[..3].iter().all(String::is_empty), "{codes:?}");
    assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
    for user in ["support-1", "support-2", "jane doe"] {
        assert_eq!(rig.send(ask(user)).await.status, 200, "{user}");
    }
}

#[tokio::test]
async fn only_from_its_addresses() {
    let log = Log::listen();
    let rig = rig().await;
    let lines = format!("X-Api-Key: {OTHER_KEY}\r\nX-Acting-User: 42\r\n");
    assert_eq!(rig.send(get(TARGET, &lines)).await.status, 200);
    // What a stranger says about where it comes from counts for nothing.
    let forged = format!("{lines}X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n");
    for lines in [&lines, &forged] {
        let mut wire = from(&rig, "127.0.0.2").await;
        wire.write(get(TARGET, lines)).await;
        wire.answer().await.refused(403, "address_not_allowed");
        until("it is recorded", || {
            let records = log.named("exchange");
            let last = records.last();
            last.is_some_and(|record| record["client"] == "127.0.0.2")
        })
        .await;
    }
    let mut wire = from(&rig, "127.0.0.2").await;
    wire.write(get(TARGET, "X-Api-Key: cs_guessed\r\n")).await;
    wire.answer().await.refused(401, "credential_unknown");
}

#[tokio::test]
async fn pages_may_send_the_header_that_names_a_user() {
    let rig = rig().await;
    let preflight = |mount: &str| {
        format!(
            "OPTIONS {mount}/@api/deki/pages/home HTTP/1.1\r\nHost: x\r\nOrigin: https://crm.example.com\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-acting-user,x-api-key\r\n\r\n"
        )
    };
    let answer = rig.send(preflight("/pages")).await;
    assert_eq!(answer.status, 204);
    let allowed = answer.header("access-control-allow-headers").to_owned();
    let named: Vec<_> = allowed.split(", ").collect();
    let count = named
        .iter()
        .filter(|name| **name == "x-acting-user")
        .count();
    assert_eq!(count, 1, "{allowed}");
    assert!(named.contains(&"x-api-key"), "{allowed}");
}
