//! Callers over TLS: real sockets, real clients, certificates made for the occasion.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::certificate::{Authority, write_private};
use crate::harness::{
    API_KEY, Gateway, Log, Need, ROUTES, Reply, Seen, Site, Wire, cannot, get, until, within,
};

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

    /// With what else the file says.
    async fn limited(file: &str) -> Self {
        Self::made("", file, |_| Reply::ok()).await
    }

    async fn with(more: &str, reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::made(more, "", reply).await
    }

    async fn made(
        more: &str,
        file: &str,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
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
        let gateway = Gateway::start(&(text + file), site.address).await;
        Self {
            gateway,
            site,
            ca,
            folder,
        }
    }

    async fn connect_to(&self, host: &str) -> Wire<TlsStream<TcpStream>> {
        Wire::tls(self.gateway.address, host, &self.ca.caller()).await
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

/// The site takes this long to answer, so that a request is under way while something else happens.
async fn slow(seen: &str) -> Secure {
    let seen = seen.to_owned();
    Secure::with("", move |asked| match asked.target.contains(&seen) {
        true => Reply::Drip(
            Duration::from_secs(8),
            vec![b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow".to_vec()],
        ),
        false => Reply::ok(),
    })
    .await
}

#[tokio::test]
async fn certificates_are_replaced_while_requests_are_under_way() {
    let log = Log::listen();
    let secure = slow("slow").await;
    let address = secure.gateway.address;
    let mut kept = secure.connect_to("gw.example").await;
    let mut busy = secure.connect_to("gw.example").await;
    let ask = |path: &str| get(path, "").replace("gateway.test", "gw.example");
    busy.write(ask("/crm/@api/deki/pages/slow")).await;

    let other = Authority::new("others");
    let others = other.caller();
    assert!(Wire::try_tls(address, "gw.example", &others).await.is_err());
    let issued = other.issue(&["gw.example"], |_| {});
    issued.write(secure.folder.path(), "gateway");
    let taken = async {
        while Wire::try_tls(address, "gw.example", &others).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(taken).await;
    kept.write(ask(READ)).await;
    assert_eq!(kept.answer().await.status, 200, "a connection goes on");
    assert_eq!(busy.answer().await.text(), "slow", "and so does a request");
    let told = log.named("certificate taken");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0]["file"].as_str().unwrap().ends_with("gateway.pem"));
    assert!(told[0]["until"].as_str().unwrap().ends_with(" GMT"));

    write_private(&secure.folder.path().join("gateway.key"), "no key");
    let message = "certificates were replaced and cannot be used; those from before stay in use";
    until("it is told", || !log.named(message).is_empty()).await;
    let told = log.named(message);
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("gateway.key holds no private key"),
        "{reason}"
    );
    Wire::tls(address, "gw.example", &others).await;
}

#[tokio::test]
async fn plain_http_is_told_that_this_is_no_place_for_it() {
    let log = Log::listen();
    let secure = Secure::start("").await;
    for (request, has_body) in [
        (get(READ, ""), true),
        (get(READ, "").replace("GET", "HEAD"), false),
        ("g".to_owned(), true),
    ] {
        let mut wire = secure.gateway.connect().await;
        wire.write(&request).await;
        let answer = wire.answer_to(&request[..request.len().min(4)]).await;
        answer.refused(400, "bad_message");
        let text = answer.text();
        assert_eq!(text.contains("write https://"), has_body, "{text}");
        assert_eq!(answer.header("strict-transport-security"), "");
        assert!(wire.is_closed().await);
    }
    let mut wire = secure.gateway.connect().await;
    wire.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    wire.answer().await.refused(400, "bad_message");
    let records = log.named("exchange");
    assert_eq!(records.len(), 4);
    assert!(
        records
            .iter()
            .all(|record| record["cause"] == "without_tls"),
        "{records:?}"
    );
    assert_eq!(secure.site.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_ends_and_is_counted() {
    let secure = Secure::start("").await;
    let telemetry = &secure.gateway.shared.telemetry;
    for (number, bytes) in [
        &[0; 64][..],
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x00\x02",
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = secure.gateway.connect().await;
        wire.write(bytes).await;
        wire.finish().await;
        let answer = wire.rest().await;
        assert!(
            answer.is_empty() || answer.starts_with(b"\x15\x03"),
            "{answer:?}"
        );
        until("it is counted", || {
            telemetry.handshakes() == number as u64 + 1
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_are_cut() {
    let secure = Secure::limited("limits: { header_timeout: 1s, idle_timeout: 1s }\n").await;
    for bytes in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut wire = secure.gateway.connect().await;
        wire.write(bytes).await;
        assert!(wire.is_closed().await, "{bytes:?}");
    }
    let shared = &secure.gateway.shared;
    until("they are counted", || shared.telemetry.connections().1 == 2).await;
    until("nothing is held", || shared.slots.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_with_certificates_as_people_make_them() {
    if !has("curl", "--version") || !has("openssl", "version") || !has("keytool", "-help") {
        return;
    }
    let secure =
        Secure::start(", client_ca: file:FOLDER/ca.pem, client_certificate: required").await;
    let folder = secure.folder.path();
    let at = |name: &str| folder.join(name).display().to_string();
    secure
        .ca
        .issue(&["desk.example"], |_| {})
        .write(folder, "desk");
    let make = async |program: &str, words: String| {
        let mut command = Command::new(program);
        command.args(words.split(' ')).current_dir(folder);
        let output = run(command, b"").await;
        assert!(output.status.success(), "{}", said(&output));
    };
    let openssl =
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=desk -keyout own.key -out own.pem";
    make("openssl", openssl.to_owned()).await;
    let keytool = "-genkeypair -alias desk -keyalg RSA -dname CN=desk -keystore desk.p12 -storetype PKCS12 -storepass changeit";
    make("keytool", keytool.to_owned()).await;
    for options in [
        [
            "--cert".to_owned(),
            at("desk.pem"),
            "--key".to_owned(),
            at("desk.key"),
        ],
        [
            "--cert".to_owned(),
            at("own.pem"),
            "--key".to_owned(),
            at("own.key"),
        ],
        [
            "--cert".to_owned(),
            at("desk.p12") + ":changeit",
            "--cert-type".to_owned(),
            "P12".to_owned(),
        ],
    ] {
        for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let options = [&options[..], version].concat();
            let output = run(curl(&secure, "gw.example", READ, &options), b"").await;
            let said = said(&output);
            assert!(said.contains(" 200"), "{options:?}: {said}");
        }
    }
    let output = run(curl(&secure, "gw.example", READ, &[]), b"").await;
    let said = said(&output);
    assert!(said.contains("alert certificate required"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_resumes_sessions() {
    if !has("openssl", "version") {
        return;
    }
    let secure = Secure::start("").await;
    let session = secure.folder.path().join("session").display().to_string();
    let connect = async |version: &str, more: &[&str]| {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-connect", &secure.gateway.address.to_string()])
            .args([
                "-servername",
                "a.apps.example",
                "-alpn",
                "h2,http/1.1",
                version,
                "-ign_eof",
            ])
            .args([
                "-CAfile",
                &secure.folder.path().join("ca.pem").display().to_string(),
            ])
            .args(more);
        let ask = b"GET / HTTP/1.1\r\nHost: a.apps.example\r\nConnection: close\r\n\r\n";
        said(&run(command, ask).await)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let first = connect(version, &["-sess_out", &session]).await;
        assert!(first.contains("ALPN protocol: h2"), "{first}");
        assert!(first.contains("Verify return code: 0 (ok)"), "{first}");
        assert!(first.contains("New, TLS"), "{first}");
        let second = connect(version, &["-sess_in", &session]).await;
        assert!(second.contains("Reused, TLS"), "{version}: {second}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_may_be_required() {
    let secure = Secure::start(", client_certificate: required").await;
    let address = secure.gateway.address;
    let ask = get(READ, "").replace("gateway.test", "gw.example");
    let mut wire = Wire::try_tls(address, "gw.example", &secure.ca.caller())
        .await
        .unwrap();
    // In TLS 1.3 a caller learns only after its part of the handshake that it was not enough.
    wire.write(&ask).await;
    assert!(wire.try_answer("GET").await.is_none());
    let middle = secure.ca.below("middle");
    let mut desk = middle.issue(&["desk.example"], |_| {});
    desk.chain += &middle.pem();
    let mut wire = Wire::tls(address, "gw.example", &secure.ca.caller_with(&desk)).await;
    wire.write(&ask).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(secure.site.count(), 1);
}

/// A handshake takes its time on a long way: the request that it will bring is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_under_way_is_waited_for_when_stopping() {
    let secure = Secure::start("").await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_caller, mut to_caller) = tokio::io::split(far);
    let tcp = TcpStream::connect(secure.gateway.address).await.unwrap();
    let (mut from_gateway, mut to_gateway) = tcp.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_caller, &mut to_gateway).await });
    let (arrive, arrived) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        drop(arrived.await);
        tokio::io::copy(&mut from_gateway, &mut to_caller).await
    });
    let connector = tokio_rustls::TlsConnector::from(secure.ca.caller());
    let connecting = tokio::spawn(connector.connect("gw.example".try_into().unwrap(), near));
    let in_flight = Arc::clone(&secure.gateway.shared.in_flight);
    until("it is under way", || in_flight.load(Ordering::SeqCst) == 1).await;
    let mut gateway = secure.gateway;
    gateway.tell_to_stop();
    // Longer than an idle gateway goes on.
    tokio::time::sleep(Duration::from_millis(700)).await;
    drop(arrive);
    let mut wire = Wire::on(within(connecting).await.unwrap().unwrap());
    wire.write(get(READ, "").replace("gateway.test", "gw.example"))
        .await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    gateway.stopped().await;
}
