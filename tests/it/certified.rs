//! Callers with certificates, end to end: made and presented by other programs, alone and beside another
//! credential, in every protocol and behind a proxy, and what the record says of each.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::policy::caller::basic::PasswordHash;
use rcgen::{CertificateParams, CustomExtension, SanType};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::harness::certificate::{Authority, Issued, write_private};
use crate::harness::{
    API_KEY, Answer, Gateway, Log, Need, OTHER_KEY, Reply, Site, Wire, cannot, until, within,
};

const TARGET: &str = "/crm/@api/deki/pages/home";
const PASSWORD: &str = "canary-password-of-the-desk";

/// @MORE@ is what else the listener says, @TLS@ what else its `tls` does.
const FILE: &str = r#"
listeners:
  - address: "127.0.0.1:0"
    @MORE@
    tls: { certificates: [{ chain: file:@AT@/gateway.pem, key: file:@AT@/gateway.key }], client_ca: file:@AT@/ca.pem@TLS@ }
sites:
  acme:
    url: http://@SITE@
    server_tokens: [{ key: env:TOKEN_KEY, secret: env:TOKEN_SECRET }]
callers:
  desk: { client_certificate: { dns_name: desk.example }, acts_as: "=desk" }
  robot: { client_certificate: { uri: "spiffe://example/robot" }, acts_as: "=robot" }
  pinned: { client_certificate: { spki_sha256: "@OWN@" }, acts_as: "=pinned" }
  store: { client_certificate: { spki_sha256: "@STORE@" }, acts_as: "=store" }
  both: { client_certificate: { dns_name: both.example }, api_key: { sha256: "@OTHER@" }, acts_as: "=both" }
  snow: { client_certificate: { dns_name: snow.example }, basic: { password: "@HASH@" }, acts_as: "=snow" }
  near: { client_certificate: { dns_name: near.example }, allowed_addresses: [203.0.113.0/24, 127.0.0.2], acts_as: "=near" }
  crm: { api_key: { sha256: "@API@" }, acts_as: "=crm-bot" }
routes:
  - { name: all, mount: /crm, site: acme, token: server, callers: [desk, robot, pinned, store, both, snow, near, crm], allow: [read-pages] }
  - { name: keys, mount: /keys, site: acme, token: server, callers: [crm], allow: [read-pages] }
"#;

/// A gateway, its authority, and where the files are.
struct Rig {
    gateway: Gateway,
    site: Arc<Site>,
    ca: Authority,
    folder: tempfile::TempDir,
    log: Log,
    seen: usize,
}

/// What the digest of a key that is pinned is while there is none.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Rig {
    async fn start(more: &str, tls: &str) -> Self {
        Self::pinned(tempfile::tempdir().unwrap(), more, tls, [NO_DIGEST, "11"]).await
    }

    /// With files that are there already, and the digests of two keys.
    async fn pinned(folder: tempfile::TempDir, more: &str, tls: &str, digests: [&str; 2]) -> Self {
        let ca = Authority::new("ours");
        ca.issue(&["gw.example", "127.0.0.1"], |_| {})
            .write(folder.path(), "gateway");
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let hash = PasswordHash::of(PASSWORD.as_bytes(), b"saltsaltsaltsalt").unwrap();
        let text = FILE
            .replace("@MORE@", more)
            .replace("@TLS@", tls)
            .replace("@AT@", folder.path().to_str().unwrap())
            .replace("@OWN@", digests[0])
            .replace("@STORE@", &format!("{:0<64}", digests[1]))
            .replace("@HASH@", hash.as_str());
        let log = Log::listen();
        let site = Site::start(|_| Reply::ok()).await;
        let gateway = Gateway::start(&text, site.address).await;
        Self {
            gateway,
            site,
            ca,
            folder,
            log,
            seen: 0,
        }
    }

    /// The next record.
    async fn record(&mut self) -> Value {
        let number = self.seen;
        self.seen += 1;
        until("it is recorded", || {
            self.log.named("exchange").len() > number
        })
        .await;
        self.log.named("exchange").remove(number)
    }

    /// Fails unless an answer, what the site saw, and the record say this.
    async fn check(&mut self, answer: (u16, String), expected: &Expected<'_>, what: &str) {
        let record = self.record().await;
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let Expected(code, caller, cause) = *expected;
        assert_eq!(answer.1, code, "{what}: {record}");
        let of = (text("refusal"), text("caller"), text("cause"));
        let of = (of.0.as_str(), of.1.as_str(), of.2.as_str());
        assert_eq!(of, (code, caller, cause), "{what}: {record}");
        if code.is_empty() {
            assert_eq!(answer.0, 200, "{what}");
            let seen = self.site.only();
            assert_eq!(text("user"), seen.user(), "{what}");
            let user = if caller == "crm" { "crm-bot" } else { caller };
            assert_eq!(seen.user(), format!("={user}"), "{what}");
            assert!(!seen.has("authorization") && !seen.has("x-api-key"));
        } else {
            assert_eq!(record["user"], Value::Null, "{what}");
            assert_eq!(self.site.count(), 0, "{what}");
        }
    }

    /// One request over TLS with a certificate, or none.
    async fn ask(&self, own: Option<&Issued>, path: &str, lines: &str) -> (u16, String) {
        let config = self.config(own);
        let mut wire = Wire::tls(self.gateway.address, "gw.example", &config).await;
        wire.write(get(path, lines)).await;
        told(&wire.answer().await)
    }

    fn config(&self, own: Option<&Issued>) -> Arc<ClientConfig> {
        own.map_or_else(|| self.ca.caller(), |own| self.ca.caller_with(own))
    }
}

/// The refusal's code, the caller and the cause in the record; empty for none.
struct Expected<'a>(&'a str, &'a str, &'a str);

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.refusal().to_owned())
}

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: gw.example\r\n{lines}\r\n")
}

fn basic(user: &str, password: &str) -> String {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

/// A subject alternative name with any bytes.
fn named(bytes: &[u8]) -> CustomExtension {
    let length = |of: &[u8]| u8::try_from(of.len()).unwrap();
    let name = [&[0x82, length(bytes)], bytes].concat();
    let names = [&[0x30, length(&name)], &*name].concat();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], names)
}

#[tokio::test]
async fn each_certificate_alone() {
    let mut rig = Rig::start("", "").await;
    let date = rcgen::date_time_ymd;
    let (ca, stranger) = (&rig.ca, Authority::new("strangers"));
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let over = |asked: &mut CertificateParams| asked.not_after = date(2020, 1, 1);
    let early = |asked: &mut CertificateParams| asked.not_before = date(3000, 1, 1);
    let desk = &["desk.example"][..];
    let unknown = || Expected("credential_unknown", "", "certificate_unknown");
    let unvouched = || Expected("credential_unknown", "", "certificate_not_vouched_for");
    let expired = || Expected("credential_expired", "desk", "certificate_out_of_date");
    let middle = ca.below("middle");
    let mut through = middle.issue(desk, |_| {});
    let alone = Issued {
        chain: through.chain.clone(),
        key: through.key.clone(),
    };
    through.chain += &middle.pem();
    let presented = [
        ("right", ca.issue(desk, |_| {}), Expected("", "desk", "")),
        (
            "in capitals",
            ca.issue(&["DESK.Example"], |_| {}),
            Expected("", "desk", ""),
        ),
        ("through a middle", through, Expected("", "desk", "")),
        ("without the middle", alone, unvouched()),
        (
            "a uri",
            ca.issue(&[], |asked| {
                asked.subject_alt_names.push(uri("spiffe://example/robot"))
            }),
            Expected("", "robot", ""),
        ),
        (
            "another uri",
            ca.issue(&[], |asked| {
                asked.subject_alt_names.push(uri("spiffe://example/Robot"))
            }),
            unknown(),
        ),
        ("of a stranger", stranger.issue(desk, |_| {}), unvouched()),
        (
            "of a namesake",
            Authority::new("ours").issue(desk, |_| {}),
            unvouched(),
        ),
        ("expired", ca.issue(desk, over), expired()),
        ("not yet valid", ca.issue(desk, early), expired()),
        // Whoever makes one whose time is over learns no names.
        (
            "of a stranger, expired",
            stranger.issue(desk, over),
            unvouched(),
        ),
        (
            "of a stranger, early",
            stranger.issue(desk, early),
            unvouched(),
        ),
        ("another name", ca.issue(&["x.example"], |_| {}), unknown()),
        ("a wildcard", ca.issue(&["*.example"], |_| {}), unknown()),
        (
            "a name with a NUL",
            ca.issue(&[], |asked| {
                asked.custom_extensions = vec![named(b"desk.example\0.evil.test")]
            }),
            unknown(),
        ),
        (
            "a name with a NUL at its end",
            ca.issue(&[], |asked| {
                asked.custom_extensions = vec![named(b"desk.example\0")]
            }),
            unknown(),
        ),
        (
            "a common name",
            ca.issue(&[], |asked| {
                asked
                    .distinguished_name
                    .push(rcgen::DnType::CommonName, "desk.example");
            }),
            unknown(),
        ),
        (
            "of two callers",
            ca.issue(&["desk.example", "near.example"], |_| {}),
            Expected("ambiguous_credential", "", ""),
        ),
        (
            "in a wrong place",
            ca.issue(&["near.example"], |_| {}),
            Expected("address_not_allowed", "near", ""),
        ),
        (
            "one that is not enough",
            ca.issue(&["both.example"], |_| {}),
            Expected("credential_missing", "", ""),
        ),
    ];
    for (what, own, expected) in &presented {
        let answer = rig.ask(Some(own), TARGET, "").await;
        rig.check(answer, expected, what).await;
    }
    let answer = rig.ask(None, TARGET, "").await;
    rig.check(answer, &Expected("credential_missing", "", ""), "none")
        .await;
    // Where certificates count for nothing, it is none.
    let answer = rig.ask(Some(&presented[0].1), "/keys/@api/deki/pages/home", "");
    let answer = answer.await;
    rig.check(answer, &Expected("credential_missing", "", ""), "elsewhere")
        .await;
}

#[tokio::test]
async fn a_certificate_beside_another_credential() {
    let mut rig = Rig::start("", "").await;
    let of = |name: &str| rig.ca.issue(&[name], |_| {});
    let (desk, both, snow) = (of("desk.example"), of("both.example"), of("snow.example"));
    let wild = of("*.example");
    let old = rig.ca.issue(&["both.example"], |asked| {
        asked.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let self_made = Authority::new("ours").issue(&["snow.example"], |_| {});
    let key = |key: &str| format!("X-Api-Key: {key}\r\n");
    let ambiguous = || Expected("ambiguous_credential", "", "");
    let wrong = |caller| Expected("credential_unknown", caller, "certificate_unknown");
    let missing = |caller| Expected("credential_missing", caller, "certificate_missing");
    for (what, own, lines, expected) in [
        (
            "both",
            Some(&both),
            key(OTHER_KEY),
            Expected("", "both", ""),
        ),
        (
            "a bearer",
            Some(&both),
            format!("Authorization: Bearer {OTHER_KEY}\r\n"),
            Expected("", "both", ""),
        ),
        ("only the key", None, key(OTHER_KEY), missing("both")),
        ("a wildcard", Some(&wild), key(OTHER_KEY), wrong("both")),
        (
            "an old one",
            Some(&old),
            key(OTHER_KEY),
            Expected("credential_expired", "both", "certificate_out_of_date"),
        ),
        ("another's", Some(&snow), key(OTHER_KEY), wrong("both")),
        ("a caller's own", Some(&desk), key(OTHER_KEY), ambiguous()),
        (
            "a wrong key",
            Some(&both),
            key("cs_guessed"),
            Expected("credential_unknown", "", ""),
        ),
        (
            "both of two callers",
            Some(&desk),
            key(API_KEY),
            ambiguous(),
        ),
        (
            "one that is nobody's alone",
            Some(&both),
            key(API_KEY),
            Expected("", "crm", ""),
        ),
        (
            "with a password",
            Some(&snow),
            basic("snow", PASSWORD),
            Expected("", "snow", ""),
        ),
        (
            "only the password",
            None,
            basic("snow", PASSWORD),
            missing("snow"),
        ),
        (
            "self-made",
            Some(&self_made),
            basic("snow", PASSWORD),
            wrong("snow"),
        ),
        (
            "a wrong password",
            Some(&snow),
            basic("snow", "wrong"),
            Expected("credential_unknown", "", "password_wrong"),
        ),
        (
            "a wrong password alone",
            None,
            basic("snow", "wrong"),
            Expected("credential_unknown", "", "password_wrong"),
        ),
        (
            "nobody's password",
            Some(&snow),
            basic("snowy", PASSWORD),
            Expected("credential_unknown", "", "user_name_unknown"),
        ),
        (
            "a password and another's",
            Some(&desk),
            basic("snow", PASSWORD),
            ambiguous(),
        ),
        (
            "a key and a password",
            Some(&snow),
            basic("snow", PASSWORD) + &key(OTHER_KEY),
            ambiguous(),
        ),
        (
            "only the certificate",
            Some(&snow),
            String::new(),
            Expected("credential_missing", "", ""),
        ),
    ] {
        let answer = rig.ask(own, TARGET, &lines).await;
        rig.check(answer, &expected, what).await;
    }
}

/// Whoever holds a caller's credential where it is not good floods neither that caller nor others.
#[tokio::test]
async fn a_stolen_credential_costs_its_caller_nothing() {
    let mut rig = Rig::start("", "").await;
    let (near, both) = (
        rig.ca.issue(&["near.example"], |_| {}),
        rig.ca.issue(&["both.example"], |_| {}),
    );
    let mut thieves = Vec::new();
    for (own, lines) in [
        (Some(&near), String::new()),
        (None, format!("X-Api-Key: {OTHER_KEY}\r\n")),
    ] {
        let config = rig.config(own);
        let mut wire = Wire::tls(rig.gateway.address, "gw.example", &config).await;
        let mut codes = Vec::new();
        for _ in 0..400 {
            wire.write(get(TARGET, &lines)).await;
            codes.push(wire.answer().await.refusal().to_owned());
        }
        thieves.push(codes);
    }
    for (codes, code) in thieves
        .iter()
        .zip(["address_not_allowed", "credential_missing"])
    {
        let count = |wanted: &str| codes.iter().filter(|code| *code == wanted).count();
        assert_eq!(
            count(code) + count("rate_limited"),
            codes.len(),
            "{codes:?}"
        );
        assert!(count(code) >= 100 && count("rate_limited") > 0, "{codes:?}");
    }
    rig.seen = rig.log.named("exchange").len();
    // The same caller with all that it needs, and one whose credential nobody knows.
    let lines = format!("X-Api-Key: {OTHER_KEY}\r\n");
    for _ in 0..20 {
        let answer = rig.ask(Some(&both), TARGET, &lines).await;
        rig.check(answer, &Expected("", "both", ""), "its caller")
            .await;
    }
    let answer = rig.ask(None, TARGET, "X-Api-Key: cs_guessed\r\n").await;
    rig.check(
        answer,
        &Expected("credential_unknown", "", ""),
        "a stranger",
    )
    .await;
}

/// Whether programs run; a test cannot do its work without them.
fn have(programs: &[(&str, &str)]) -> bool {
    programs.iter().all(|(program, version)| {
        let found = Command::new(program)
            .arg(version)
            .stdin(Stdio::null())
            .output();
        let found = found.is_ok_and(|output| output.status.success());
        if !found {
            cannot(
                Need::Clients,
                &format!("certificates of callers: they need {program}"),
            );
        }
        found
    })
}

/// Runs a line in a folder, as a shell does; what it writes.
fn shell(folder: &Path, line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// The digest of a certificate's key, by a line of a page that names this file.
fn digest(folder: &Path, page: &str, file: &str, of: &str) -> String {
    let line = page
        .lines()
        .find(|line| line.starts_with("    openssl x509 ") && line.contains("pkey"));
    let said = shell(folder, &line.expect("the page says how").replace(file, of));
    let digest = said.split_whitespace().find(|word| word.len() == 64);
    digest.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// The status and the code that curl is told.
async fn curl(rig: &Rig, options: &[&str]) -> (u16, String) {
    let port = rig.gateway.address.port();
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
            "ca.pem",
        ])
        .args(["--resolve", &format!("gw.example:{port}:127.0.0.1")])
        .args(options)
        .arg(format!("https://gw.example:{port}{TARGET}"))
        .current_dir(rig.folder.path())
        .env_remove("SSL_CERT_FILE");
    let output = within(spawn_blocking(move || command.output().unwrap()))
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = said
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let lines = said.lines().filter_map(|line| line.split_once(": "));
    let mut codes = lines.filter(|(name, _)| name.eq_ignore_ascii_case("x-countersign-refusal"));
    (status, codes.next().unwrap_or_default().1.to_owned())
}

#[tokio::test]
async fn certificates_that_people_make_for_themselves() {
    if !have(&[
        ("curl", "--version"),
        ("openssl", "version"),
        ("keytool", "-help"),
    ]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    shell(
        at,
        "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=own -keyout own.key -out own.pem",
    );
    shell(
        at,
        "keytool -genkeypair -alias store -keyalg EC -dname CN=store -keystore store.p12 -storetype PKCS12 -storepass changeit",
    );
    shell(
        at,
        "keytool -exportcert -rfc -alias store -keystore store.p12 -storepass changeit -file store.pem",
    );
    let (callers, tls) = (
        include_str!("../../docs/callers.md"),
        include_str!("../../docs/tls.md"),
    );
    let own = digest(at, callers, "Gateway_Client.crt", "own.pem");
    assert_eq!(
        own,
        digest(at, tls, "desk.pem", "own.pem"),
        "both pages say the same"
    );
    let store = digest(at, callers, "Gateway_Client.crt", "store.pem");
    // A renewed certificate, and one whose time is over, of the same key; and another key.
    shell(
        at,
        "openssl req -x509 -key own.key -days 30 -subj /CN=renewed -out renewed.pem",
    );
    shell(
        at,
        "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=own -addext subjectAltName=DNS:desk.example -keyout other.key -out other.pem",
    );
    let mut rig = Rig::pinned(folder, "", "", [&own, &store]).await;
    for protocol in [
        &["--http1.1", "--tlsv1.3"][..],
        &["--http1.1", "--tls-max", "1.2"],
        &["--http2", "--tlsv1.3"],
        &["--http2", "--tls-max", "1.2"],
    ] {
        let pinned = || Expected("", "pinned", "");
        for (what, options, expected) in [
            (
                "openssl",
                &["--cert", "own.pem", "--key", "own.key"][..],
                pinned(),
            ),
            (
                "renewed",
                &["--cert", "renewed.pem", "--key", "own.key"],
                pinned(),
            ),
            (
                "keytool",
                &["--cert", "store.p12:changeit", "--cert-type", "P12"],
                Expected("", "store", ""),
            ),
            (
                "another key",
                &["--cert", "other.pem", "--key", "other.key"],
                Expected("credential_unknown", "", "certificate_not_vouched_for"),
            ),
            ("none", &[], Expected("credential_missing", "", "")),
        ] {
            let answer = curl(&rig, &[protocol, options].concat()).await;
            rig.check(answer, &expected, &format!("{what} {protocol:?}"))
                .await;
        }
    }
    // A name for other clients' sake: with it curl is who its certificate says, and with a key nobody.
    rig.ca
        .issue(&["desk.example"], |_| {})
        .write(rig.folder.path(), "desk");
    let desk = ["--http2", "--cert", "desk.pem", "--key", "desk.key"];
    let answer = curl(&rig, &desk).await;
    rig.check(answer, &Expected("", "desk", ""), "desk").await;
    let key = format!("X-Api-Key: {API_KEY}");
    let answer = curl(&rig, &[&desk[..], &["-H", &key]].concat()).await;
    rig.check(
        answer,
        &Expected("ambiguous_credential", "", ""),
        "with a key",
    )
    .await;
}

/// A ticket brings back the certificate; it is judged anew.
#[tokio::test]
async fn on_resumed_sessions() {
    if !have(&[("openssl", "version")]) {
        return;
    }
    let mut rig = Rig::start("", "").await;
    rig.ca
        .issue(&["desk.example"], |_| {})
        .write(rig.folder.path(), "desk");
    let connect = async |rig: &Rig, options: &str| {
        let line = format!(
            "printf 'GET {TARGET} HTTP/1.1\\r\\nHost: gw.example\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -connect {} -servername gw.example -CAfile ca.pem -ign_eof {options} 2>&1",
            rig.gateway.address
        );
        let folder = rig.folder.path().to_owned();
        within(spawn_blocking(move || shell(&folder, &line)))
            .await
            .unwrap()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let own = "-cert desk.pem -key desk.key";
        let said = connect(&rig, &format!("{version} {own} -sess_out session")).await;
        assert!(
            said.contains("New, TLS") && said.contains("HTTP/1.1 200"),
            "{said}"
        );
        rig.check((200, String::new()), &Expected("", "desk", ""), version)
            .await;
        // Without the certificate: it is in the ticket.
        let said = connect(&rig, &format!("{version} -sess_in session")).await;
        assert!(
            said.contains("Reused, TLS") && said.contains("HTTP/1.1 200"),
            "{said}"
        );
        rig.check((200, String::new()), &Expected("", "desk", ""), version)
            .await;
    }
}

/// A connection that begins with these bytes, and goes on with TLS.
async fn after(rig: &Rig, first: &str, own: Option<&Issued>) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(rig.gateway.address).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let connector = TlsConnector::from(rig.config(own));
    let made = within(connector.connect("gw.example".try_into().unwrap(), stream)).await;
    let mut wire = Wire::on(made.ok()?);
    // What a client says of itself counts for nothing.
    let lines = "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\n";
    wire.write(get(TARGET, lines)).await;
    wire.try_answer("GET").await.map(|answer| told(&answer))
}

#[tokio::test]
async fn behind_a_balancer_that_passes_tls_on() {
    let trusted = "proxy_protocol: required\n    forwarded_header: x-forwarded-for\n    trusted_proxies: [127.0.0.1]";
    let mut rig = Rig::start(trusted, ", client_certificate: required").await;
    let (desk, near) = (
        rig.ca.issue(&["desk.example"], |_| {}),
        rig.ca.issue(&["near.example"], |_| {}),
    );
    let from = |client: &str| format!("PROXY TCP4 {client} 10.0.0.5 56324 443\r\n");
    for (client, own, expected) in [
        ("203.0.113.7", &desk, Expected("", "desk", "")),
        ("203.0.113.7", &near, Expected("", "near", "")),
        (
            "198.51.100.7",
            &near,
            Expected("address_not_allowed", "near", ""),
        ),
    ] {
        let answer = after(&rig, &from(client), Some(own)).await.unwrap();
        rig.check(answer, &expected, client).await;
        assert_eq!(rig.log.named("exchange")[rig.seen - 1]["client"], client);
    }
    for first in ["", "PROXY TCP4 203.0.113.7\r\n"] {
        assert_eq!(after(&rig, first, Some(&desk)).await, None, "{first:?}");
    }
    assert_eq!(
        after(&rig, &from("203.0.113.7"), None).await,
        None,
        "no certificate"
    );
    // The header within TLS is no request.
    let unsaid = Rig::start("", "").await;
    assert_eq!(
        after(&unsaid, &from("203.0.113.7"), Some(&desk)).await,
        None
    );
    assert_eq!(rig.site.count() + unsaid.site.count(), 0);
}

/// HAProxy passes TLS through and says for whom: what Azure, AWS and others do with the same header.
#[tokio::test]
async fn behind_haproxy() {
    if !have(&[("curl", "--version"), ("haproxy", "-v")]) {
        return;
    }
    let trusted = "proxy_protocol: required\n    trusted_proxies: [127.0.0.1]";
    let mut rig = Rig::start(trusted, ", client_certificate: required").await;
    rig.ca
        .issue(&["near.example"], |_| {})
        .write(rig.folder.path(), "near");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut text = String::from(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n",
    );
    write!(
        text,
        "listen gateway\n  bind 127.0.0.1:{port}\n  server gateway {} send-proxy-v2\n",
        rig.gateway.address
    )
    .unwrap();
    write_private(&rig.folder.path().join("haproxy.cfg"), &text);
    let mut haproxy = Command::new("haproxy");
    haproxy
        .args(["-db", "-f", "haproxy.cfg"])
        .current_dir(rig.folder.path());
    let mut haproxy = haproxy
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("HAProxy listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    let through = format!("gw.example:{}:127.0.0.1:{port}", rig.gateway.address.port());
    for (from, expected) in [
        ("127.0.0.2", Expected("", "near", "")),
        ("127.0.0.3", Expected("address_not_allowed", "near", "")),
    ] {
        for protocol in ["--http1.1", "--http2"] {
            let answer = curl(
                &rig,
                &[
                    protocol,
                    "--connect-to",
                    &through,
                    "--interface",
                    from,
                    "--cert",
                    "near.pem",
                    "--key",
                    "near.key",
                ],
            )
            .await;
            rig.check(answer, &expected, from).await;
            assert_eq!(rig.log.named("exchange")[rig.seen - 1]["client"], from);
        }
    }
    haproxy.kill().unwrap();
    haproxy.wait().unwrap();
}
