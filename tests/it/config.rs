//! Files that cannot be used: the exact text an operator reads.
//!
//! Each `tests/fixtures/config/bad/NAME.yaml` stands beside `NAME.txt`, what `countersign check` says
//! of it. With `BLESS=1` in the environment the texts are written anew; read the difference before
//! you commit it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use countersign::config;
use countersign::config::reference::Sources;

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
    let mut count = 0;
    for name in [
        "README.md",
        "docs/browser-tokens.md",
        "docs/configuration.md",
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
    assert_eq!(count, 3);
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
