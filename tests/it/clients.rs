//! Clients as people write them for the MindTouch API, in four languages: each works with the site
//! directly, signing for itself, and through the gateway with its base address and its credential
//! changed, nothing else. Over TLS, with a certificate of their own.

mod certificates;

use std::path::Path;
use std::process::{Command, Stdio};

use countersign_emulator::{
    Arrival, Emulator, Journal, Options, TOKEN_KEY, TOKEN_SECRET, TokenSeen,
};

use crate::harness::{API_KEY, Gateway, Need, ROUTES, cannot, get, within};

/// Whether a program is there, that is, runs; a test cannot do its work without it.
fn is_there(program: &str) -> bool {
    let found = Command::new(program)
        .arg(if program == "openssl" {
            "version"
        } else {
            "--version"
        })
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        cannot(
            Need::Clients,
            &format!("a test of clients needs {program}; make test installs it as root on Debian"),
        );
    }
    found
}

fn has_requests() -> bool {
    let has_requests = Command::new("python3")
        .args(["-c", "import requests"])
        .output()
        .is_ok_and(|output| output.status.success());
    has_requests || is_there("python3-requests")
}

async fn check(program: &str, script: &str) {
    // A shell need not know --version, and is always there.
    if program != "sh" && !is_there(program) {
        return;
    }
    let emulator = Emulator::bind(Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Options::default()
    })
    .await
    .unwrap();
    let (site, journal) = (emulator.local_addr(), emulator.journal());
    tokio::spawn(emulator.serve(std::future::pending()));
    let gateway = gateway(site).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/clients")
        .join(script);
    let run = |base: String, credential: &'static str| {
        let mut command = Command::new(program);
        command
            .arg(&script)
            .env("BASE", base)
            .env("CREDENTIAL", credential)
            .env("API_KEY", API_KEY)
            .env("TOKEN_KEY", TOKEN_KEY)
            .env("TOKEN_SECRET", TOKEN_SECRET)
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("ALL_PROXY")
            .stdin(Stdio::null());
        async move {
            let ended = within(tokio::task::spawn_blocking(move || command.output())).await;
            ended.unwrap().expect("it runs")
        }
    };
    for (base, credential) in [
        (format!("http://{site}/@api/deki"), "token"),
        (format!("http://{site}/@api/deki"), "legacy"),
        (
            format!("http://{}/work/@api/deki", gateway.address),
            "api_key",
        ),
    ] {
        drop(journal.take());
        let output = run(base, credential).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} with {credential}: {said}"
        );
        let arrivals = of_callers(&journal);
        assert!(arrivals.len() >= 5, "{program}: {arrivals:?}");
        for arrival in &arrivals {
            assert!(
                matches!(arrival.token, TokenSeen::Server),
                "{program}: {arrival:?}"
            );
            assert_eq!(
                arrival.user.as_deref(),
                Some("crm-bot"),
                "{program}: {arrival:?}"
            );
        }
    }
}

async fn gateway(site: std::net::SocketAddr) -> Gateway {
    let text = format!("{ROUTES}  - {{ name: work, mount: /work, site: emulated, token: server, callers: [crm], allow: [search, read-pages, write-pages, read-files, write-files, whoami] }}\n")
        .replace("callers:\n  crm:", "  emulated:\n    url: http://@SITE@\n    server_tokens: [{ key: env:EMULATED_KEY, secret: env:EMULATED_SECRET }]\ncallers:\n  crm:");
    Gateway::start(&text, site).await
}

/// Bytes that no URL has and that clients leave raw in a query, and how the emulated site notes them.
const RAW: [(char, &str); 11] = [
    ('"', "%22"),
    ('<', "%3C"),
    ('>', "%3E"),
    ('{', "{"),
    ('}', "}"),
    ('|', "|"),
    ('^', "^"),
    ('[', "["),
    (']', "]"),
    ('`', "`"),
    ('\'', "'"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_leave_raw_in_a_query() {
    let emulator = Emulator::bind(Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Options::default()
    })
    .await
    .unwrap();
    let (site, journal) = (emulator.local_addr(), emulator.journal());
    tokio::spawn(emulator.serve(std::future::pending()));
    let gateway = gateway(site).await;
    // A body that looks like a request goes before, on the same connection to the site.
    let body = "GET /x?\"<>\" HTTP/1.1\r\n\r\n";
    let upload = format!(
        "PUT /work/@api/deki/pages/home/files/=raw.txt HTTP/1.1\r\nHost: gateway.test\r\nX-Api-Key: {API_KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(gateway.send(upload).await.status, 200);
    drop(journal.take());
    for (byte, noted) in RAW {
        let query = |byte: &str| format!("/@api/deki/site/search?q=a{byte}b{byte}&limit=5");
        let target = format!("/work{}", query(&byte.to_string()));
        let answer = gateway.send(get(&target, "")).await;
        assert_eq!(answer.status, 200, "{target}");
        let arrivals = of_callers(&journal);
        let targets: Vec<_> = arrivals.iter().map(|one| &one.target).collect();
        assert_eq!(targets, [&query(noted)], "{byte}");
    }
    let file = gateway
        .send(get("/work/@api/deki/pages/home/files/=raw.txt", ""))
        .await;
    assert_eq!(file.text(), body, "a body is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_with_curl_and_openssl() {
    if is_there("curl") && is_there("openssl") {
        check("sh", "client.sh").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_with_requests() {
    if has_requests() {
        check("python3", "client.py").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node() {
    check("node", "client.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn php_with_curl() {
    check("php", "client.php").await;
}

/// What arrived for callers.
fn of_callers(journal: &Journal) -> Vec<Arrival> {
    let mut arrivals = journal.take();
    let is_probe =
        |(name, value): &(String, String)| name == "user-agent" && value.ends_with("probe)");
    arrivals.retain(|arrival| !arrival.headers.iter().any(is_probe));
    arrivals
}
