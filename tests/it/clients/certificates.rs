//! Clients as people write them, with a certificate of their own and without one.

use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::PublicKeyData;

use super::{has_requests, is_there};
use crate::harness::certificate::{Authority, write_private};
use crate::harness::{Gateway, Need, ROUTES, Reply, Site, cannot, within};

const READ: &str = "/certified/@api/deki/pages/home";

/// With a certificate that is vouched for, one that is known by its key, one that nobody knows: the answer,
/// and the user that the site sees.
const CERTIFICATES: [(&str, &str, Option<&str>); 3] = [
    ("vouched", "200 -", Some("=desk")),
    ("pinned", "200 -", Some("=own")),
    ("stranger", "401 credential_unknown", None),
];

/// A listener with TLS and callers with certificates, whose files lie in a folder.
async fn gateway(folder: &Path, site: &Site) -> Gateway {
    let (ours, callers) = (Authority::new("ours"), Authority::new("the callers'"));
    let name = "desk.example";
    ours.issue(&["127.0.0.1"], |_| {}).write(folder, "gateway");
    callers.issue(&[name], |_| {}).write(folder, "vouched");
    Authority::new("nobody's")
        .issue(&[name], |_| {})
        .write(folder, "stranger");
    std::fs::write(folder.join("callers-ca.pem"), callers.pem()).unwrap();
    std::fs::write(folder.join("ca.pem"), ours.pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(["desk.example".to_owned()]).unwrap();
    let own = own.self_signed(&key).unwrap();
    std::fs::write(folder.join("pinned.pem"), own.pem()).unwrap();
    write_private(&folder.join("pinned.key"), &key.serialize_pem());
    let at = folder.display();
    let digest =
        countersign::policy::caller::KeyDigest::of(&key.subject_public_key_info()).to_hex();
    let tls = format!(
        "tls: {{ certificates: [{{ chain: file:{at}/gateway.pem, key: file:{at}/gateway.key }}], client_ca: file:{at}/callers-ca.pem }}"
    );
    let callers = format!(
        "callers:\n  desk: {{ client_certificate: {{ dns_name: desk.example }}, acts_as: \"=desk\" }}\n  own: {{ client_certificate: {{ spki_sha256: {digest} }}, acts_as: \"=own\" }}\n"
    );
    let text = ROUTES
        .replacen(
            "address: \"127.0.0.1:0\"",
            &format!("address: \"127.0.0.1:0\", {tls}"),
            1,
        )
        .replace("callers:\n", &callers)
        + "  - { name: certified, mount: /certified, site: acme, token: server, callers: [desk, own], allow: [read-pages] }\n";
    Gateway::start(&text, site.address).await
}

async fn check(program: &str, script: &str) {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(|_| Reply::ok()).await;
    let gateway = gateway(folder.path(), &site).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/clients")
        .join(script);
    for (name, answer, user) in CERTIFICATES {
        let mut command = Command::new(program);
        command
            .arg(&script)
            .arg(format!("https://{}{READ}", gateway.address));
        for file in ["ca.pem", &format!("{name}.pem"), &format!("{name}.key")] {
            command.arg(folder.path().join(file));
        }
        command.stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output());
        let output = within(ended).await.unwrap().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            said.replace('\r', ""),
            format!("{answer}\n401 credential_missing\n"),
            "{program}, {name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let seen: Vec<_> = site.take().iter().map(|seen| seen.user()).collect();
        assert_eq!(seen, Vec::from_iter(user), "{program}, {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_with_curl() {
    if is_there("curl") {
        check("sh", "certificate.sh").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_with_requests() {
    if has_requests() {
        check("python3", "certificate.py").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node() {
    if is_there("node") {
        check("node", "certificate.mjs").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn php_with_curl() {
    if is_there("php") {
        check("php", "certificate.php").await;
    }
}

/// Java 11 and later run a source file; a runtime without a compiler does not.
#[tokio::test(flavor = "multi_thread")]
async fn java() {
    let modules = Command::new("java").arg("--list-modules").output();
    let compiles = modules
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("jdk.compiler"));
    match compiles {
        true => check("java", "Certificate.java").await,
        false => cannot(
            Need::Clients,
            "a test of clients needs java with its compiler; make test installs it as root on Debian",
        ),
    }
}
