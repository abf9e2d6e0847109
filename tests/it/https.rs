//! Callers over TLS: real sockets, real clients, certificates made for the occasion.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::harness::certificate::Authority;
use crate::harness::{API_KEY, Gateway, Need, ROUTES, Reply, Site, Wire, cannot, get, within};

const READ: &str = "/crm/@api/deki/pages/home";

/// A gateway whose listener speaks TLS, and where its files are.
struct Secure {
    gateway: Gateway,
    site: Arc<Site>,
    ca: Authority,
    folder: tempfile::TempDir,
}

impl Secure {
    /// With a certificate for gw.example, api.example.com and this machine, one for *.apps.example, and what
    /// else the listener's `tls` says.
    async fn start(more: &str) -> Self {
        Self::with(more, |_| Reply::ok()).await
    }

    async fn with(
        more: &str,
        reply: impl Fn(&crate::harness::Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let ca = Authority::new("ours");
        let folder = tempfile::tempdir().unwrap();
        let names = ["gw.example", "api.example.com", "localhost", "127.0.0.1"];
        ca.issue(&names, |_| {}).write(folder.path(), "gateway");
        ca.issue(&["*.apps.example"], |_| {})
            .write(folder.path(), "apps");
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let at = folder.path().display();
        let pair =
            |name: &str| format!("{{ chain: file:{at}/{name}.pem, key: file:{at}/{name}.key }}");
        let tls = format!(
            "tls: {{ certificates: [{}, {}]{} }}",
            pair("gateway"),
            pair("apps"),
            more.replace("FOLDER", &at.to_string())
        );
        let listener = "address: \"127.0.0.1:0\" }]\nadmin";
        assert!(ROUTES.contains(listener));
        let text = ROUTES.replace(
            listener,
            &format!("address: \"127.0.0.1:0\", {tls} }}]\nadmin"),
        );
        let site = Site::start(reply).await;
        let gateway = Gateway::start(&text, site.address).await;
        Self {
            gateway,
            site,
            ca,
            folder,
        }
    }

    /// What a caller speaks TLS with that trusts the authority and has no certificate.
    fn config(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.ca.roots())
            .with_no_client_auth()
    }

    async fn connect_to(&self, host: &str) -> Wire<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.config()));
        let stream = TcpStream::connect(self.gateway.address).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        Wire::on(within(connector.connect(name, stream)).await.unwrap())
    }
}

/// Whether a program runs; a test cannot do its work without it.
fn has(program: &str, version: &str) -> bool {
    let found = Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        cannot(Need::Clients, &format!("a test of TLS needs {program}"));
    }
    found
}

/// Runs a program to its end, with nothing to read but `input`.
async fn run(mut command: Command, input: &'static [u8]) -> Output {
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may have ended already.
        drop(std::io::Write::write_all(&mut stdin, input));
        drop(stdin);
        child.wait_with_output().unwrap()
    });
    within(running).await.unwrap()
}

/// curl to a host of the gateway's, which it finds at its address.
fn curl(secure: &Secure, host: &str, path: &str, more: &[&str]) -> Command {
    let port = secure.gateway.address.port();
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--max-time",
            "20",
            "--noproxy",
            "*",
            "-i",
            "--cacert",
        ])
        .arg(secure.folder.path().join("ca.pem"))
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(["-H", &format!("X-Api-Key: {API_KEY}")])
        .args(more)
        .arg(format!("https://{host}:{port}{path}"))
        .env_remove("SSL_CERT_FILE");
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_connection() {
    let secure = Secure::start("").await;
    let mut wire = secure.connect_to("gw.example").await;
    for _ in 0..3 {
        wire.write(get(READ, "").replace("gateway.test", "gw.example"))
            .await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    wire.write("GET / HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\r\n")
        .await;
    wire.answer().await.refused(404, "no_route");
    assert!(wire.is_closed().await, "with a word of goodbye");
    assert_eq!(secure.site.take().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways() {
    let big: String = ('a'..='z').cycle().take(3 << 20).collect();
    let answer = big.clone();
    let secure = Secure::with("", move |_| Reply::with("", &answer)).await;
    let mut wire = secure.connect_to("localhost").await;
    wire.write(format!(
        "PUT /write/@api/deki/files/1 HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {API_KEY}\r\nContent-Length: {}\r\n\r\n{big}",
        big.len()
    ))
    .await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == big.as_bytes());
    assert!(secure.site.only().body == big.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_in_every_version() {
    if !has("curl", "--version") {
        return;
    }
    let secure = Secure::start("").await;
    for (options, expected) in [
        (
            &["--http1.1", "--tlsv1.2", "--tls-max", "1.2"][..],
            "HTTP/1.1 200",
        ),
        (&["--http1.1", "--tlsv1.3"], "HTTP/1.1 200"),
        (&["--http2", "--tlsv1.2", "--tls-max", "1.2"], "HTTP/2 200"),
        (&["--http2", "--tlsv1.3"], "HTTP/2 200"),
        (&["--no-alpn", "--tlsv1.3"], "HTTP/1.1 200"),
        (
            &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"],
            "alert",
        ),
        (
            &["--tls-max", "1.2", "--ciphers", "AES128-SHA"],
            "alert handshake failure",
        ),
    ] {
        for host in ["gw.example", "b.apps.example"] {
            let output = run(curl(&secure, host, READ, options), b"").await;
            let said = said(&output);
            assert!(said.contains(expected), "{host} {options:?}: {said}");
        }
    }
    let output = run(curl(&secure, "elsewhere.example", READ, &[]), b"").await;
    assert!(said(&output).contains("no alternative certificate subject name matches"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_for_hosts_of_two_certificates() {
    let secure = Secure::start("").await;
    let ask = |host: &str| get(READ, "").replace("gateway.test", host);
    let mut wire = secure.connect_to("gw.example").await;
    for (host, expected) in [
        ("gw.example", 200),
        ("a.apps.example", 421),
        ("A.apps.example:8443", 421),
        ("127.0.0.1:8443", 200),
        ("elsewhere.example", 200),
    ] {
        wire.write(ask(host)).await;
        let answer = wire.answer().await;
        match expected {
            421 => answer.refused(421, "misdirected"),
            _ => assert_eq!(answer.status, 200, "{host}"),
        }
    }
    let mut wire = secure.connect_to("a.apps.example").await;
    wire.write(ask("gw.example")).await;
    wire.answer().await.refused(421, "misdirected");
    wire.write(ask("b.apps.example")).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(
        secure.site.take().len(),
        4,
        "none of the misdirected is sent on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_to_keep_to_tls() {
    let secure = Secure::start("").await;
    for (host, path, key, expected) in [
        (
            "api.example.com",
            "/@api/deki/users/current",
            true,
            "max-age=31536000",
        ),
        (
            "api.example.com",
            "/@api/deki/users/current",
            false,
            "max-age=31536000",
        ),
        (
            "api.example.com",
            "/@api/deki/pages/1",
            true,
            "max-age=31536000",
        ),
        // No host of the file's: whoever answers there may have its reasons.
        ("gw.example", READ, true, ""),
        ("gw.example", "/nowhere", true, ""),
    ] {
        let mut wire = secure.connect_to(host).await;
        let mut request = get(path, "").replace("gateway.test", host);
        if !key {
            request = request.replace(API_KEY, "cs_unknown");
        }
        wire.write(request).await;
        let answer = wire.answer().await;
        assert_eq!(
            answer.header("strict-transport-security"),
            expected,
            "{host}{path}"
        );
    }
    let plain = crate::harness::Rig::start().await;
    let ask = get("/@api/deki/users/current", "").replace("gateway.test", "api.example.com");
    let answer = plain.send(ask).await;
    assert_eq!(
        (answer.status, answer.header("strict-transport-security")),
        (200, "")
    );
}
