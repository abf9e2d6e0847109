//! Files that cannot be used: the exact text an operator reads.
//!
//! Each `tests/fixtures/config/bad/NAME.yaml` stands beside `NAME.txt`, what `countersign check` says
//! of it. With `BLESS=1` in the environment the texts are written anew; read the difference before
//! you commit it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use countersign::config;
use countersign::config::reference::Sources;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::harness::certificate::Authority;
use crate::harness::{ROUTES, Reply, Rig};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

/// The environment of the fixtures, and files in a folder of their own.
fn load(text: &str, folder: &Path) -> Result<config::Loaded, config::Unusable> {
    let environment = |name: &str| match name {
        "KEY" | "SECRET" | "BROWSER" => Some(format!("canary-{}", name.to_lowercase())),
        "SITE" => Some("acme.mindtouch.us".to_owned()),
        "DIGEST" => Some("0123456789abcdef".repeat(4)),
        "EMULATED" => Some(countersign_emulator::TOKEN_KEY.to_owned()),
        "EMULATED_BROWSER" => Some(countersign_emulator::BROWSER_KEY.to_owned()),
        "PROXIES" => Some("10.0.0.0/8,198.51.100.0/24\n".to_owned()),
        "LISTEN" | "ADMIN" => Some(format!("127.0.0.1:{}", 8080 + name.len())),
        "ACTS_AS" => Some("=canary-bot\n".to_owned()),
        "HOOK" => Some("canary-of-a-webhook-0".to_owned()),
        "OLD_HOOK" => Some("canary-of-a-webhook-1".to_owned()),
        "ZENDESK_TEST" => Some("dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==".to_owned()),
        "EMPTY" => Some(String::new()),
        "MULTILINE" => Some("canary\ncanary".to_owned()),
        _ => None,
    };
    let sources = Sources {
        environment: &environment,
        folder: folder.to_owned(),
    };
    config::load_text("proxy.yaml", text, &sources)
}

/// Secret files with modes that a repository cannot keep.
fn folder_with_secrets() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8], mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, mode) in [("open", 0o777), ("..2x", 0o700)] {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, mode) in [
        ("private", 0o600),
        ("group", 0o640),
        ("public", 0o644),
        ("everybody", 0o666),
        ("written", 0o602),
        ("..2x/token", 0o644),
        ("open/token", 0o600),
    ] {
        put(name, b"canary-from-a-file\n", mode);
    }
    put("bom", b"\xef\xbb\xbfcanary\r\n", 0o600);
    put("utf16", b"\xff\xfec\0a\0n\0a\0r\0y\0", 0o600);
    put("latin1", b"canary\xe9\n", 0o600);
    put("empty", b"\n", 0o600);
    let certificate = rcgen::generate_simple_self_signed(["salesforce".to_owned()]).unwrap();
    put("salesforce.crt", certificate.cert.pem().as_bytes(), 0o644);
    let key =
        "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"";
    for (name, keys) in [
        ("some.jwks", format!("{{{key}}},{{\"kty\":\"RSA\"}}")),
        (
            "private.jwks",
            format!("{{{key}}},{{{key},\"d\":\"canary\"}}"),
        ),
        (
            "shared.jwks",
            "{\"kty\":\"oct\",\"k\":\"canary\"}".to_owned(),
        ),
        (
            "weak.jwks",
            "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}".to_owned(),
        ),
    ] {
        put(name, format!("{{\"keys\":[{keys}]}}").as_bytes(), 0o644);
    }
    let digest = format!("{}\n", "fedcba9876543210".repeat(4));
    std::fs::write(folder.path().join("digest"), digest).unwrap();
    std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::set_permissions(
        folder.path().join("binary"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    folder
}

#[test]
fn bad_files_say_everything_that_is_wrong() {
    let folder = folder_with_secrets();
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures().join("bad")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let said = match load(&text, folder.path()) {
            Ok(_) => panic!("{} is usable", path.display()),
            Err(unusable) => {
                format!("{unusable}\n").replace(folder.path().to_str().unwrap(), "FOLDER")
            }
        };
        assert!(
            !said.contains("canary"),
            "{}: a value is repeated: {said}",
            path.display()
        );
        let beside = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&beside, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(said, expected, "{}", path.display());
    }
    assert!(count >= 20, "{count} bad files");
}

#[test]
fn good_files_warn_of_what_is_odd() {
    let folder = folder_with_secrets();
    for entry in std::fs::read_dir(fixtures().join("good")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = load(&text, folder.path())
            .unwrap_or_else(|unusable| panic!("{}: {unusable}", path.display()));
        let said: String = loaded
            .warnings
            .iter()
            .map(|warning| format!("{}\n", warning.in_file("proxy.yaml")))
            .collect();
        let beside = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&beside, &said).unwrap();
        }
        assert_eq!(
            said,
            std::fs::read_to_string(&beside).unwrap_or_default(),
            "{}",
            path.display()
        );
    }
}

/// The examples of docs/callers.md are the callers of files that can be used.
#[test]
fn examples_of_tokens_are_those_that_are_tried() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/callers.md"))
            .unwrap();
    let (_, tokens) = page
        .split_once("## Tokens of an identity provider")
        .unwrap();
    let tokens = tokens.split("\n## ").next().unwrap();
    let blocks: Vec<&str> = tokens.split("```\n").skip(1).step_by(2).collect();
    let mut tried = Vec::new();
    for entry in std::fs::read_dir(fixtures().join("good")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let callers = text.find("callers:\n").zip(text.find("routes:\n"));
        tried.extend(callers.map(|(from, to)| text[from..to].to_owned()));
    }
    assert!(blocks.len() >= 8, "{}", blocks.len());
    for block in blocks {
        assert!(
            tried.contains(&block.to_owned()),
            "no good file has:\n{block}"
        );
    }
}

#[test]
fn the_example_can_be_used_as_it_is() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.yaml");
    let loaded = config::load(&example).unwrap_or_else(|unusable| panic!("{unusable}"));
    assert_eq!(loaded.warnings, [], "and without a warning");
    let emulator = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy/emulator")
            .join(name);
        std::fs::read_to_string(path).unwrap().trim_end().to_owned()
    };
    assert_eq!(emulator("token_key"), countersign_emulator::TOKEN_KEY);
    assert_eq!(emulator("token_secret"), countersign_emulator::TOKEN_SECRET);
    assert_eq!(emulator("browser_key"), countersign_emulator::BROWSER_KEY);
}

#[test]
fn the_other_caller_of_the_example_can_be_used() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = std::fs::read_to_string(top.join("proxy.yaml")).unwrap();
    let mut is_in = false;
    let lines = example.lines().map(|line| {
        is_in = line.starts_with("  # portal:") || is_in && line.starts_with("  #  ");
        if is_in {
            return line.replacen("# ", "", 1);
        }
        line.replace("callers: [salesforce]", "callers: [salesforce, portal]")
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.contains("\n  portal:") && text.contains("required_claims"));
    let sources = Sources {
        environment: &|_| None,
        folder: top.to_owned(),
    };
    let loaded = config::load_text("proxy.yaml", &text, &sources);
    let loaded = loaded.unwrap_or_else(|unusable| panic!("{unusable}"));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn every_default_in_the_example_is_the_default() {
    let example =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.yaml")).unwrap();
    let example = example
        .replace("file:deploy/emulator/", "env:")
        .replace("token_key", "EMULATED")
        .replace("token_secret", "SECRET")
        .replace("browser_key", "EMULATED_BROWSER");
    // Every commented default, taken in: the file must stay usable and mean the same.
    let mut spelt_out = String::new();
    for line in example.lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let is_default = [
            "h2c:",
            "plaintext:",
            "forward_address:",
            "retries:",
            "timeouts:",
            "limits:",
            "body_max:",
            "report_only:",
            "  connections",
            "  header_",
            "  idle_",
            "  body_",
            "  drain_",
            "  per_",
            "  unidentified",
        ]
        .iter()
        .any(|key| {
            trimmed
                .strip_prefix("# ")
                .is_some_and(|rest| rest.starts_with(key))
        });
        if is_default {
            spelt_out.push_str(&format!(
                "{indent}{}\n",
                trimmed.strip_prefix("# ").unwrap()
            ));
        } else {
            spelt_out.push_str(&format!("{line}\n"));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (short, long) = (
        load(&example, folder.path()),
        load(&spelt_out, folder.path()),
    );
    let short = short.unwrap_or_else(|unusable| panic!("{unusable}"));
    let long = long.unwrap_or_else(|unusable| panic!("{unusable}\n{spelt_out}"));
    assert!(spelt_out.contains("\n  drain_timeout: 30s"), "{spelt_out}");
    assert_eq!(
        format!("{:?}", short.settings),
        format!("{:?}", long.settings)
    );
    let routes = |loaded: &config::Loaded| {
        let mut routes: Vec<_> = loaded
            .policy
            .routes()
            .map(|route| {
                format!(
                    "{:?}",
                    (
                        &route.name,
                        &route.site.timeouts,
                        route.site.retries_max,
                        route.site.forwards_address,
                        &route.site.address,
                        route.body_bytes_max,
                        route.report_only
                    )
                )
            })
            .collect();
        routes.sort();
        routes
    };
    assert_eq!(routes(&short), routes(&long));
}

#[test]
fn the_files_in_the_documents_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let issued = Authority::new("ca").issue(&["gw.example"], |_| {});
    issued.write(folder.path(), "gateway");
    let mut count = 0;
    for name in [
        "README.md",
        "docs/browser-tokens.md",
        "docs/configuration.md",
        "docs/tls.md",
    ] {
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            count += 1;
            let block = block.split("```").next().unwrap();
            let block = block
                .replace("…the digest…", &"0123456789abcdef".repeat(4))
                .replace("env:ACME_BROWSER_KEY", "env:BROWSER")
                .replace("env:ACME_TOKEN_KEY", "env:KEY")
                .replace("file:/etc/countersign/acme_token_secret", "env:SECRET");
            let loaded =
                load(&block, folder.path()).unwrap_or_else(|unusable| panic!("{name}: {unusable}"));
            assert_eq!(loaded.warnings, [], "{name}");
        }
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn ten_thousand_callers_each_are_themselves() {
    let mut text = ROUTES.split("callers:").next().unwrap().to_owned() + "callers:\n";
    let mut names = Vec::new();
    for number in 0..10_000 {
        let key = format!("cs_{number}");
        let digest = countersign::policy::caller::KeyDigest::of(key.as_bytes()).to_hex();
        text += &format!(
            "  c{number}: {{ api_key: {{ sha256: \"{digest}\" }}, acts_as: \"{}\" }}\n",
            number + 1
        );
        names.push(format!("c{number}"));
    }
    text += &format!(
        "routes: [{{ name: all, site: acme, token: server, callers: [{}], allow: [all] }}]\n",
        names.join(", ")
    );
    let rig = Rig::with(&text, |_| Reply::ok()).await;
    for number in [0, 4_999, 9_999] {
        let request =
            format!("GET /@api/deki/pages/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: cs_{number}\r\n\r\n");
        assert_eq!(rig.send(request).await.status, 200);
        assert_eq!(rig.site.only().user(), (number + 1).to_string());
    }
    let stranger = "GET /@api/deki/pages/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: cs_10000\r\n\r\n";
    rig.send(stranger).await.refused(401, "credential_unknown");
}

/// What is said of a listener whose certificate and key are these texts, with FOLDER for its place.
fn of_certificate(chain: &str, key: &str, mode: u32, more: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gw.pem"), chain).unwrap();
    std::fs::write(folder.path().join("gw.key"), key).unwrap();
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(folder.path().join("gw.key"), permissions).unwrap();
    std::fs::write(folder.path().join("ca.pem"), Authority::new("ca").pem()).unwrap();
    let text = format!(
        "listeners:\n  - address: 0.0.0.0:8443\n    tls:\n      certificates:\n        - chain: file:gw.pem\n          key: file:gw.key\n{more}{}",
        include_str!("../fixtures/config/good/reachable.yaml")
            .split_once("admin:")
            .map(|(_, rest)| format!("admin:{}", rest.replace("192.168.1.5", "127.0.0.1")))
            .unwrap()
    );
    let without_folder = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    match load(&text, folder.path()) {
        Ok(loaded) => {
            let warnings = loaded.warnings.iter();
            let warnings = warnings.map(|it| it.in_file("f").to_string());
            Ok(warnings.map(without_folder).collect())
        }
        Err(unusable) => Err(without_folder(unusable.to_string())),
    }
}

#[test]
fn certificates_that_cannot_be_used() {
    let ca = Authority::new("ca");
    let good = ca.issue(&["gw.example"], |_| {});
    let other = ca.issue(&["other.example"], |_| {});
    let middle = ca.below("middle");
    let below = middle.issue(&["gw.example"], |_| {});
    let whole = format!("{}{}{}", below.chain, middle.pem(), ca.pem());
    let usable = |chain: &str, key: &str| {
        assert_eq!(of_certificate(chain, key, 0o600, ""), Ok(Vec::new()));
    };
    usable(&good.chain, &good.key);
    usable(&whole, &below.key);
    usable(
        &format!("words\n{}", good.chain),
        &format!("{}\n", good.key),
    );
    let check = |chain: &str, key: &str, mode: u32, expected: &str| {
        let said = of_certificate(chain, key, mode, "").unwrap_err();
        assert!(said.contains(expected), "{expected}: {said}");
        let leaked = key
            .lines()
            .filter(|line| line.len() > 40)
            .any(|line| said.contains(line));
        assert!(!leaked, "{said}");
    };
    const PLACE: &str = "listeners[0].tls.certificates[0]";
    let at_chain = |fault: &str| format!("proxy.yaml:5: {PLACE}.chain: the file gw.pem {fault}");
    let at_key = |fault: &str| format!("proxy.yaml:6: {PLACE}.key: the file gw.key {fault}");
    let check_chain = |chain: &str, fault: &str| check(chain, &good.key, 0o600, &at_chain(fault));
    check_chain("", "holds no certificate in PEM");
    check_chain("hello", "holds no certificate in PEM");
    check_chain(&good.key, "holds a private key and no certificate");
    check_chain(&good.chain[..300], "holds PEM that is damaged");
    check_chain(
        &good.chain.replacen("MII", "MIA", 1),
        "holds a certificate that is damaged",
    );
    check_chain(&format!("{}{}", ca.pem(), good.chain), "is out of order");
    check_chain(&format!("{}{}", good.chain, other.chain), "is out of order");
    let reversed = format!("{}{}{}", ca.pem(), middle.pem(), below.chain);
    check(&reversed, &below.key, 0o600, &at_chain("is out of order"));
    let check_key = |key: &str, fault: &str| check(&good.chain, key, 0o600, &at_key(fault));
    check_key("", "holds no private key in PEM");
    check_key(&good.chain, "holds no private key in PEM");
    check_key(&other.key, "does not belong to the certificate of chain");
    check_key(&good.key[..100], "holds PEM that is damaged");
    check_key(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "is encrypted, and nobody is there to type",
    );
    check_key(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        "is encrypted, and nobody is there to type",
    );
    check_key(
        "-----BEGIN PRIVATE KEY-----\nMAoCAQAwBQYDK2VvBAA=\n-----END PRIVATE KEY-----\n",
        "holds a key of a kind that is not served",
    );
    for mode in [0o644, 0o604, 0o602] {
        check(
            &good.chain,
            &good.key,
            mode,
            &at_key("is open to every user"),
        );
    }
}

#[test]
fn the_tls_of_the_example_can_be_taken_in() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.yaml");
    let example = std::fs::read_to_string(example).unwrap();
    let (before, rest) = example.split_once("    # tls:\n").unwrap();
    let lines: Vec<&str> = rest.lines().collect();
    let end = lines
        .iter()
        .position(|line| !line.starts_with("    #   "))
        .unwrap();
    let taken: String = lines[..end]
        .iter()
        .map(|line| format!("    {}\n", line.trim_start().strip_prefix("# ").unwrap()))
        .collect();
    let text = format!("{before}    tls:\n{taken}{}", lines[end..].join("\n"))
        .replace("file:deploy/emulator/token_key", "env:EMULATED")
        .replace("file:deploy/emulator/token_secret", "env:SECRET")
        .replace("file:deploy/emulator/browser_key", "env:EMULATED_BROWSER");
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("callers");
    std::fs::write(folder.path().join("callers-ca.pem"), ca.pem()).unwrap();
    ca.issue(&["gw.example"], |_| {})
        .write(folder.path(), "gateway");
    let loaded = load(&text, folder.path()).unwrap_or_else(|it| panic!("{text}{it}"));
    let tls = loaded.settings.listeners[0].tls.as_ref().unwrap();
    assert_eq!((tls.identities.len(), tls.client_ca.len()), (1, 1));
}

#[test]
fn keys_of_certificates_are_not_shown() {
    let issued = Authority::new("ca").issue(&["gw.example"], |_| {});
    let folder = tempfile::tempdir().unwrap();
    issued.write(folder.path(), "gw");
    let text = std::fs::read_to_string(fixtures().join("good/reachable.yaml")).unwrap();
    let tls = "tls: { certificates: [{ chain: file:gw.pem, key: file:gw.key }] }";
    let text = text.replace("0.0.0.0:8080", &format!("0.0.0.0:8080\n    {tls}"));
    let shown = format!("{:?}", load(&text, folder.path()).unwrap());
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    // The private number of a P-256 key stands near the front of its PKCS #8.
    let secret = &key.secret_der()[36..52];
    let numbers = format!("{secret:?}");
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    for spelt in [numbers.trim_matches(['[', ']']), &digits] {
        assert!(!shown.contains(spelt), "{spelt}");
    }
}

#[test]
fn certificates_that_are_odd() {
    let ca = Authority::new("ca");
    let check = |names: &[&str], days: (i64, i64), expected: &[&str]| {
        let issued = ca.issue(names, |asked| {
            let now = std::time::SystemTime::now();
            let day = |days: i64| {
                let time = std::time::Duration::from_secs(86_400 * days.unsigned_abs() + 3600);
                if days < 0 { now - time } else { now + time }
            };
            asked.not_before = day(days.0).into();
            asked.not_after = day(days.1).into();
        });
        let said = of_certificate(&issued.chain, &issued.key, 0o600, "").unwrap();
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            let place =
                "f:5: listeners[0].tls.certificates[0].chain: the certificate in the file gw.pem ";
            assert!(said.starts_with(&format!("{place}{expected}")), "{said}");
        }
    };
    check(&["gw.example"], (-1, 400), &[]);
    check(&["gw.example"], (-1, 21), &[]);
    check(&["gw.example"], (-1, 20), &["expires in 20 days, on "]);
    check(&["gw.example"], (-1, 1), &["expires in 1 day, on "]);
    check(&["gw.example"], (-9, -1), &["expired on "]);
    check(&["gw.example"], (1, 90), &["is not valid before "]);
    check(&[], (-1, 90), &["names no host (subjectAltName)"]);
}

#[test]
fn whose_certificates_callers_present() {
    let issued = Authority::new("ca").issue(&["gw.example"], |_| {});
    let said = |more: &str| of_certificate(&issued.chain, &issued.key, 0o600, more);
    for more in [
        "      client_ca: file:ca.pem\n",
        "      client_certificate: required\n",
        "      client_ca: file:ca.pem\n      client_certificate: optional\n",
    ] {
        assert_eq!(said(more), Ok(Vec::new()), "{more}");
    }
    for (more, expected) in [
        (
            "      client_ca: required\n",
            "client_ca: this is read from a file; write file:PATH",
        ),
        (
            "      client_ca: file:gw.key\n",
            "client_ca: a ca file holds the certificates of authorities in PEM",
        ),
        (
            "      client_ca: file:none.pem\n",
            "client_ca: the file none.pem cannot be read: there is no such file",
        ),
        (
            "      client_certificate: true\n",
            "client_certificate: text must stand here",
        ),
        (
            "      client_certificate: always\n",
            "client_certificate: write optional or required",
        ),
        (
            "    h2c: true\n",
            "h2c: HTTP/2 is chosen in the TLS handshake here",
        ),
    ] {
        let said = said(more).unwrap_err();
        assert!(said.contains(expected), "{more}: {said}");
    }
}
