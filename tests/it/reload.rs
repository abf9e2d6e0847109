//! The file read again while the gateway serves: what can be used is taken whole, what cannot changes
//! nothing, and nobody notices but those it concerns.

use std::fs::{create_dir, remove_dir, remove_file, rename};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign::policy::caller::KeyDigest;
use countersign::server::{Outcome, Report};
use serde_json::{Value, json};

use crate::harness::{
    API_KEY, Answer, Gateway, Log, OTHER_KEY, Reply, Site, TOKEN_KEY, TOKEN_SECRET, Wire, get,
    until, within,
};

const TARGET: &str = "/crm/@api/deki/pages/home";

/// A gateway with a file in a folder of its own, before a site.
struct Rig {
    folder: tempfile::TempDir,
    gateway: Gateway,
    site: Arc<Site>,
}

/// A file with some lines after a part that all have. `@SITE@` is the site's address.
fn file(site: SocketAddr, rest: &str) -> String {
    let digest = |key: &str| KeyDigest::of(key.as_bytes()).to_hex();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\n{rest}"
    );
    text.replace("@SITE@", &site.to_string())
        .replace("@API@", &digest(API_KEY))
        .replace("@OTHER@", &digest(OTHER_KEY))
}

const SITES: &str = "sites: { acme: { url: \"http://@SITE@\", server_tokens: [{ key: file:key, secret: file:secret }] } }\n";
const CRM: &str = "  crm: { api_key: { sha256: \"@API@\" }, acts_as: \"=crm-bot\" }\n";
const PORTAL: &str = "  portal: { api_key: { sha256: \"@OTHER@\" }, acts_as: \"7\" }\n";
const BOTH: &str = "routes: [{ name: read, mount: /crm, site: acme, token: server, callers: [crm, portal], allow: [read-pages] }]\n";
const ONE: &str = "routes: [{ name: read, mount: /crm, site: acme, token: server, callers: [crm], allow: [read-pages] }]\n";

fn usual() -> String {
    format!("{SITES}callers:\n{CRM}{PORTAL}{BOTH}")
}

/// Replaces a file as a whole, as editors and deployments do.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::set_permissions(&next, PermissionsExt::from_mode(0o600)).unwrap();
    rename(next, path).unwrap();
}

impl Rig {
    async fn start(rest: &str) -> Self {
        let site = Site::start(|_| Reply::ok()).await;
        let folder = tempfile::tempdir().unwrap();
        put(&folder.path().join("key"), TOKEN_KEY);
        put(&folder.path().join("secret"), TOKEN_SECRET);
        let path = folder.path().join("proxy.yaml");
        put(&path, &file(site.address, rest));
        let gateway = Gateway::of_file(&path).await;
        Self {
            folder,
            gateway,
            site,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, rest: &str) {
        put(&self.path("proxy.yaml"), &file(self.site.address, rest));
    }

    async fn reload(&self) -> Report {
        let report = within(self.gateway.shared.reloads.reload()).await;
        report.expect("it has a file")
    }

    /// Another file, read again.
    async fn take(&self, rest: &str) -> Report {
        self.put(rest);
        let report = self.reload().await;
        assert_eq!(report.outcome, Outcome::Ok, "{report:?}");
        report
    }

    async fn ask(&self, key: &str) -> Answer {
        let head =
            format!("GET {TARGET} HTTP/1.1\r\nHost: gateway.test\r\nX-Api-Key: {key}\r\n\r\n");
        self.gateway.send(head).await
    }

    /// What an operator is answered.
    async fn operator(&self, method: &str, target: &str, more: &str) -> (u16, Value) {
        let mut wire = Wire::open(self.gateway.admin.unwrap()).await;
        wire.write(format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n"
        ))
        .await;
        let answer = wire.answer().await;
        let text = answer.text();
        (
            answer.status,
            serde_json::from_str(&text).unwrap_or(Value::Null),
        )
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.gateway.shared.reloads.count(outcome)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_cost_nobody_a_request() {
    let with = |user: &str| {
        format!(
            "{SITES}callers:\n  crm: {{ api_key: {{ sha256: \"@API@\" }}, acts_as: \"={user}\", limits: {{ requests_per_second: 1000000, burst: 1000000 }} }}\n\
             routes:\n  - {{ name: read-{user}, mount: /crm, site: acme, token: server, callers: [crm], allow: [read-pages], request_headers: [x-{user}] }}\n"
        )
    };
    let rig = Rig::start(&with("one")).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for kept in [true, true, false, false] {
        let (over, address) = (Arc::clone(&over), rig.gateway.address);
        callers.push(tokio::spawn(async move {
            let mut wire = Wire::open(address).await;
            let mut answered = 0_u32;
            while !over.load(Ordering::Relaxed) {
                if !kept {
                    wire = Wire::open(address).await;
                }
                wire.write(get(TARGET, "X-One: 1\r\nX-Two: 2\r\n")).await;
                let answer = wire.answer().await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered += 1;
            }
            answered
        }));
    }
    for round in 0..100 {
        let user = ["two", "one"][round % 2];
        let report = rig.take(&with(user)).await;
        let other = ["one", "two"][round % 2];
        assert_eq!(
            report.as_json()["changes"]["routes"],
            json!({ "added": [format!("read-{user}")], "removed": [format!("read-{other}")], "changed": [] })
        );
    }
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for caller in callers {
        answered += within(caller).await.unwrap();
    }
    let seen = rig.site.take();
    let seen: Vec<_> = seen.iter().filter(|seen| !seen.is_probe()).collect();
    assert_eq!(seen.len(), answered as usize, "each request once");
    let users: Vec<_> = seen.iter().map(|seen| seen.user()).collect();
    for (user, seen) in users.iter().zip(&seen) {
        let headers = [seen.has("x-one"), seen.has("x-two")];
        let expected = match user.as_str() {
            "=one" => [true, false],
            "=two" => [false, true],
            other => panic!("{other}"),
        };
        assert_eq!(headers, expected, "one request, one policy");
    }
    assert!(users.iter().any(|user| user == "=one") && users.iter().any(|user| user == "=two"));
    let ids: Vec<_> = rig
        .gateway
        .shared
        .generation()
        .sites()
        .map(|(_, it)| it.id)
        .collect();
    assert_eq!(ids, [1], "the site stayed the same all the time");
}

#[tokio::test]
async fn who_may_call_changes_at_once() {
    let rig = Rig::start(&usual()).await;
    for key in [API_KEY, OTHER_KEY] {
        assert_eq!(rig.ask(key).await.status, 200);
    }
    let mut kept = rig.gateway.connect().await;
    let ask = get(TARGET, "").replace(API_KEY, OTHER_KEY);
    kept.write(&ask).await;
    assert_eq!(kept.answer().await.status, 200);
    let report = rig
        .take(&format!("{SITES}callers:\n{CRM}{ONE}"))
        .await
        .as_json();
    assert_eq!(report["changes"]["callers"]["removed"], json!(["portal"]));
    assert_eq!(report["changes"]["routes"]["changed"], json!(["read"]));
    kept.write(&ask).await;
    assert_eq!(
        kept.answer().await.status,
        401,
        "on a connection from before, too"
    );
    rig.ask(OTHER_KEY).await.refused(401, "credential_unknown");
    assert_eq!(rig.ask(API_KEY).await.status, 200);
    rig.take(&usual()).await;
    assert_eq!(rig.ask(OTHER_KEY).await.status, 200, "it is back");
}

#[tokio::test]
async fn a_site_that_is_another_starts_afresh() {
    let rig = Rig::start(&usual()).await;
    let id = || rig.gateway.shared.generation().sites().next().unwrap().1.id;
    let first = id();
    for _ in 0..2 {
        assert_eq!(rig.ask(API_KEY).await.status, 200);
    }
    let connections = rig.site.connections();
    let slower = usual().replace("url:", "timeouts: { response: 9s }, url:");
    rig.take(&slower).await;
    assert_eq!(id(), first, "it is the same, and is asked otherwise");
    let watched = Arc::clone(rig.gateway.shared.generation().sites().next().unwrap().1);
    assert_eq!(watched.site().timeouts.response.as_secs(), 9);
    assert_eq!(rig.ask(API_KEY).await.status, 200);
    assert_eq!(
        rig.site.connections(),
        connections,
        "its connections are used"
    );

    put(&rig.path("secret"), &"5".repeat(64));
    let report = rig.reload().await;
    assert_eq!(report.outcome, Outcome::Ok);
    assert_eq!(
        report.as_json()["changes"]["sites"]["changed"],
        json!(["acme"])
    );
    assert_ne!(id(), first, "another token opens it");
    rig.site.take();
    assert_eq!(rig.ask(API_KEY).await.status, 200);
    assert_eq!(rig.site.connections(), connections + 1);
    let sent = rig.site.only();
    assert!(
        std::panic::catch_unwind(|| sent.user()).is_err(),
        "the old secret signs no more"
    );

    let other = Site::start(|_| Reply::ok()).await;
    let moved = file(other.address, &usual());
    put(&rig.path("secret"), TOKEN_SECRET);
    put(&rig.path("proxy.yaml"), &moved);
    assert_eq!(rig.reload().await.outcome, Outcome::Ok);
    rig.site.take();
    assert_eq!(rig.ask(API_KEY).await.status, 200);
    assert_eq!(
        (other.only().user().as_str(), rig.site.count()),
        ("=crm-bot", 0)
    );
}

#[tokio::test]
async fn what_was_learnt_and_used_stays_so() {
    let limited = |burst: u32, more: &str| {
        let crm = CRM.replace(
            "acts_as",
            &format!("limits: {{ requests_per_second: 1, burst: {burst} }}, acts_as"),
        );
        format!("{SITES}callers:\n{crm}{PORTAL}{BOTH}{more}")
    };
    let rig = Rig::start(&limited(2, "")).await;
    for _ in 0..2 {
        assert_eq!(rig.ask(API_KEY).await.status, 200);
    }
    rig.ask(API_KEY).await.refused(429, "rate_limited");
    let breaker = |what: &str| {
        let generation = rig.gateway.shared.generation();
        let watched = Arc::clone(generation.sites().next().unwrap().1);
        watched
            .attempts
            .counts()
            .into_iter()
            .any(|(outcome, count)| outcome == what && count == 2)
    };
    rig.take(&limited(2, "log: { paths: full }\n")).await;
    assert!(breaker("answered"), "what was counted goes on");
    rig.ask(API_KEY).await.refused(429, "rate_limited");
    assert_eq!(rig.ask(OTHER_KEY).await.status, 200);
    rig.take(&limited(3, "")).await;
    assert_eq!(
        rig.ask(API_KEY).await.status,
        200,
        "limits that are new begin anew"
    );
    let mut wire = Wire::open(rig.gateway.admin.unwrap()).await;
    wire.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let metrics = wire.answer().await.text();
    for line in [
        "countersign_requests_total{route=\"read\",caller=\"crm\",status=\"200\",refusal=\"\"} 3",
        "countersign_requests_total{route=\"read\",caller=\"crm\",status=\"429\",refusal=\"rate_limited\"} 2",
        "countersign_reload_total{outcome=\"ok\"} 2",
        "countersign_reload_total{outcome=\"failed\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_site_that_is_left_alone_is_left_alone_still() {
    let rig = Rig::start(&usual().replace("@SITE@", "127.0.0.1:1")).await;
    let cause = || {
        let generation = rig.gateway.shared.generation();
        generation.sites().next().unwrap().1.breaker.open_cause()
    };
    let mut asked = 0;
    while cause().is_none() {
        rig.ask([API_KEY, OTHER_KEY][asked % 2]).await;
        asked += 1;
        assert!(asked < 100);
    }
    rig.take(
        &usual()
            .replace("@SITE@", "127.0.0.1:1")
            .replace("=crm-bot", "=other"),
    )
    .await;
    assert!(cause().is_some(), "nothing learnt is lost");
    rig.take(&usual()).await;
    assert_eq!(cause(), None, "another site is another matter");
    assert_eq!(rig.ask(API_KEY).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let log = Log::listen();
    let rig = Rig::start(&usual()).await;
    let (yaml, secret) = (rig.path("proxy.yaml"), rig.path("secret"));
    let good = file(rig.site.address, &usual());
    let mut failed = 0;
    let mut check = async |what: &str| {
        assert_eq!(rig.reload().await.outcome, Outcome::Failed, "{what}");
        failed += 1;
        assert_eq!(rig.count(Outcome::Failed), failed, "{what}");
        for key in [API_KEY, OTHER_KEY] {
            assert_eq!(rig.ask(key).await.status, 200, "{what}");
        }
        let (status, ready) = rig.operator("GET", "/readyz", "").await;
        assert_eq!(
            (status, &ready["reload"]["outcome"]),
            (200, &json!("failed")),
            "{what}"
        );
        assert!(
            ready["reload"]["problems"].as_u64() > Some(0),
            "{what}: {ready}"
        );
    };
    put(&yaml, &good.replace("mount", "mout"));
    check("a key that is none").await;
    put(&yaml, &good[..good.len() / 2]);
    check("half a file").await;
    put(&yaml, "");
    check("an empty file").await;
    remove_file(&yaml).unwrap();
    check("no file").await;
    create_dir(&yaml).unwrap();
    check("a folder").await;
    remove_dir(&yaml).unwrap();
    put(&yaml, &good.replace("file:secret", "canary-literal-4711"));
    check("a secret in the file").await;
    put(&yaml, &good);
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).unwrap();
    check("a secret that all can read").await;
    put(&secret, "");
    check("a secret that is empty").await;
    remove_file(&secret).unwrap();
    check("no secret").await;
    put(&secret, TOKEN_SECRET);
    assert_eq!(rig.reload().await.outcome, Outcome::Unchanged);
    let (_, ready) = rig.operator("GET", "/readyz", "").await;
    assert_eq!(ready["reload"]["outcome"], "unchanged");
    assert_eq!(ready["reload"]["problems"], 0);
    let told = log
        .events()
        .iter()
        .map(Value::to_string)
        .collect::<String>();
    assert!(told.contains("there is no such key"), "{told}");
    assert!(!told.to_lowercase().contains("canary"), "{told}");
}

#[tokio::test]
async fn what_takes_a_restart_is_said_and_kept() {
    let log = Log::listen();
    let rig = Rig::start(&usual()).await;
    let text = file(rig.site.address, &usual())
        .replacen("127.0.0.1:0\" }]", "127.0.0.1:0\", h2c: true }]", 1)
        .replace("admin: {", "admin: { token: file:key,")
        + "limits: { connections: 77, drain_timeout: 7s }\n";
    put(&rig.path("proxy.yaml"), &text);
    for outcome in [Outcome::Ok, Outcome::Unchanged] {
        let report = rig.reload().await;
        assert_eq!(report.outcome, outcome);
        let expected = [
            "listeners",
            "admin",
            "limits.connections",
            "limits.connections_per_address",
        ];
        assert_eq!(report.restart, expected, "{outcome:?}");
    }
    let told = log
        .named("these parts of the configuration take a restart; until then they are as they were");
    assert_eq!(told.len(), 1);
    assert!(
        told[0]["keys"]
            .as_str()
            .unwrap()
            .starts_with("listeners, admin")
    );
    let (status, policy) = rig.operator("GET", "/policy", "").await;
    assert_eq!(status, 200, "it asks for no token yet");
    assert_eq!(
        policy["policy"]["listeners"][0]["h2c"], false,
        "the policy shown is the one in force"
    );
    assert_eq!(policy["policy"]["limits"]["drain_timeout_ms"], 7000);
}

#[tokio::test]
async fn a_file_that_changes_is_taken() {
    let rig = Rig::start(&usual()).await;
    rig.put(&format!("{SITES}callers:\n{CRM}{ONE}"));
    until("the file is taken", || rig.count(Outcome::Ok) == 1).await;
    assert_eq!(rig.ask(OTHER_KEY).await.status, 401);
    put(&rig.path("secret"), &"5".repeat(64));
    until("the secret is taken", || rig.count(Outcome::Ok) == 2).await;
    remove_file(rig.path("proxy.yaml")).unwrap();
    until("it is told that there is none", || {
        rig.count(Outcome::Failed) == 1
    })
    .await;
    assert_eq!(rig.ask(API_KEY).await.status, 200);
    rig.put(&usual());
    until("it is back", || rig.count(Outcome::Ok) == 3).await;
    assert_eq!(rig.ask(OTHER_KEY).await.status, 200);
    assert_eq!(rig.count(Outcome::Failed), 1, "a problem is told once");
}

#[tokio::test]
async fn a_link_on_the_way_is_turned() {
    let site = Site::start(|_| Reply::ok()).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, rest) in [
        ("v1", usual()),
        ("v2", format!("{SITES}callers:\n{CRM}{ONE}")),
    ] {
        create_dir(at(version)).unwrap();
        put(&at(version).join("key"), TOKEN_KEY);
        put(&at(version).join("secret"), TOKEN_SECRET);
        put(&at(version).join("proxy.yaml"), &file(site.address, &rest));
    }
    symlink("v1", at("..data")).unwrap();
    for name in ["key", "secret", "proxy.yaml"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let gateway = Gateway::of_file(&at("proxy.yaml")).await;
    let ask = get(TARGET, "").replace(API_KEY, OTHER_KEY);
    assert_eq!(gateway.send(&ask).await.status, 200);
    symlink("v2", at("..next")).unwrap();
    rename(at("..next"), at("..data")).unwrap();
    until("it is taken", || {
        gateway.shared.reloads.count(Outcome::Ok) == 1
    })
    .await;
    assert_eq!(gateway.send(&ask).await.status, 401);
}

#[tokio::test]
async fn operators_ask_for_it() {
    let rig = Rig::start(&usual()).await;
    assert_eq!(
        rig.operator("GET", "/readyz", "").await.1["reload"],
        Value::Null
    );
    assert_eq!(rig.operator("GET", "/reload", "").await.0, 405);
    assert_eq!(rig.operator("POST", "/policy", "").await.0, 405);
    let page = "Origin: http://127.0.0.1\r\n";
    assert_eq!(rig.operator("POST", "/reload", page).await.0, 403);
    rig.put(&format!("{SITES}callers:\n{CRM}{ONE}"));
    let (status, report) = rig.operator("POST", "/reload", "").await;
    assert_eq!((status, &report["outcome"]), (200, &json!("ok")));
    assert_eq!(report["changes"]["callers"]["removed"], json!(["portal"]));
    rig.put("routes: 5\n");
    let (status, report) = rig.operator("POST", "/reload", "").await;
    assert_eq!((status, &report["outcome"]), (422, &json!("failed")));
    assert!(!report["problems"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_changed() {
    let rig = Rig::start(&usual()).await;
    // Only where the gateway is asked stands in it.
    let asking = rig.path("asking.yaml");
    put(
        &asking,
        &format!("admin: {{ address: \"{}\" }}\n", rig.gateway.admin.unwrap()),
    );
    let run = async |code: i32| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(["reload", "--config"]).arg(&asking);
        let ended = within(tokio::task::spawn_blocking(move || command.output())).await;
        let output = ended.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    assert_eq!(run(0).await, "unchanged\n");
    rig.put(&format!(
        "{SITES}callers:\n{CRM}{ONE}limits: {{ connections: 77 }}\n"
    ));
    assert_eq!(
        run(0).await,
        "reloaded; what changed:\n  routes changed: read\n  callers removed: portal\n\
         waits for a restart: limits.connections, limits.connections_per_address\n"
    );
    rig.put("routes: 5\n");
    let said = run(1).await;
    assert!(
        said.contains("the gateway goes on as before") && said.contains("routes"),
        "{said}"
    );
    put(&asking, "admin: 5\n");
    assert!(run(1).await.contains("admin"));
    put(&asking, "sites: {}\n");
    assert!(run(1).await.contains("SIGHUP"));
}
