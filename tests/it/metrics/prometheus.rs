//! Prometheus itself, and its promtool: what is written is what they read, and the rules in `deploy/` are
//! rules.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{ADMIN_TOKEN, ask, with_token};
use crate::harness::{Need, PATIENCE, Reply, Rig, cannot, get};

/// Whether a program of Prometheus's can be run.
fn has(program: &str) -> bool {
    let ran = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let has = ran.is_ok_and(|status| status.success());
    if !has {
        cannot(
            Need::Prometheus,
            &format!("a test of metrics needs {program}; make test installs it as root on Debian"),
        );
    }
    has
}

/// What promtool says of `input`; fails if it is not content.
fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    if arguments.contains(&"metrics") {
        assert_eq!(said, "", "promtool {arguments:?} has nothing to say");
    }
}

/// Some traffic that leaves something in every metric.
async fn traffic(rig: &Rig) {
    rig.get("/crm/@api/deki/pages/1", "").await;
    rig.get("/nowhere", "").await;
    let foreign = "Origin: https://elsewhere.example\r\n";
    rig.send(format!(
        "GET /trial/@api/deki/site/query HTTP/1.1\r\nHost: x\r\n{foreign}\r\n"
    ))
    .await;
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    if !has("promtool") {
        return;
    }
    let rig = Rig::start().await;
    promtool(
        &["check", "metrics"],
        &ask(&rig.gateway, "/metrics", "").await.text(),
    );
    traffic(&rig).await;
    promtool(
        &["check", "metrics"],
        &ask(&rig.gateway, "/metrics", "").await.text(),
    );
}

#[tokio::test]
async fn the_rules_are_rules() {
    let path = "deploy/prometheus-rules.yaml";
    let rules = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let rig = Rig::start().await;
    let metrics = super::scrape(&rig.gateway).await;
    let mut names = 0;
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if !word.starts_with("countersign_") && !word.starts_with("process_") {
            continue;
        }
        names += 1;
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| word.strip_suffix(suffix));
        let family = family.unwrap_or(word);
        assert!(
            metrics.0.contains_key(family),
            "the rules name {word}, which is no metric"
        );
    }
    assert!(names > 8, "{names} names");
    if has("promtool") {
        promtool(&["check", "rules", path], "");
        promtool(
            &["test", "rules", "tests/fixtures/prometheus-rules-test.yaml"],
            "",
        );
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A free port; whoever is faster may still take it.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes() {
    if !has("prometheus") {
        return;
    }
    let rig = Rig::with(&with_token(), |_| Reply::ok()).await;
    traffic(&rig).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("token"), ADMIN_TOKEN).unwrap();
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: countersign\n    authorization: {{ credentials_file: {} }}\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
        path("token"),
        rig.gateway.admin.unwrap()
    );
    std::fs::write(path("prometheus.yml"), config).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", path("prometheus.yml")))
        .arg(format!("--storage.tsdb.path={}", path("data")))
        .arg(format!("--web.listen-address={listen}"))
        .arg("--log.level=error")
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let address = listen.parse().unwrap();
    let deadline = std::time::Instant::now() + 2 * PATIENCE;
    let mut scrapes = 0.0;
    // Several scrapes while calls go on.
    while scrapes < 4.0 {
        assert!(std::time::Instant::now() < deadline, "{scrapes} scrapes");
        rig.send(get("/crm/@api/deki/users/current", "")).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        scrapes = query(address, "sum(count_over_time(up[5m]))")
            .await
            .unwrap_or_default();
    }
    assert_eq!(
        query(address, "min_over_time(up[5m])").await,
        Some(1.0),
        "none of them failed"
    );
    for (question, expected) in [
        ("countersign_requests_total{refusal=\"no_route\"}", 1.0),
        (
            "countersign_requests_total{route=\"trial\",status=\"200\",refusal=\"\"}",
            1.0,
        ),
        ("countersign_would_refuse_total", 1.0),
        ("countersign_breaker_state{site=\"acme\"}", 0.0),
        (
            "countersign_endpoint_duration_seconds_count{endpoint=\"pages/*\"}",
            1.0,
        ),
        ("count(countersign_build_info)", 1.0),
        ("count(process_resident_memory_bytes > 1e6)", 1.0),
        (
            "count(histogram_quantile(0.99, sum by (le) (countersign_gateway_duration_seconds_bucket)) > 0)",
            1.0,
        ),
    ] {
        assert_eq!(query(address, question).await, Some(expected), "{question}");
    }
}

/// The value of the one series that a query leads to.
async fn query(address: std::net::SocketAddr, question: &str) -> Option<f64> {
    let encoded: String = question
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let mut wire = crate::harness::Wire::over(stream);
    wire.write(format!(
        "GET /api/v1/query?query={encoded} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let answer = wire.try_answer("GET").await?;
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let series = body["data"]["result"].as_array()?;
    assert!(series.len() < 2, "{question}: {body}");
    series.first()?["value"][1].as_str()?.parse().ok()
}
