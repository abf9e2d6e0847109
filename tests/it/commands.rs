//! The built program, as an operator and a shell see it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::{Wire, within};

const VECTORS: &str = include_str!("../fixtures/tokens.txt");

fn countersign(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .env_remove("COUNTERSIGN_LOG");
    command
}

fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

fn run(arguments: &[&str], code: i32) -> (String, String) {
    ended(&countersign(arguments).output().unwrap(), code)
}

/// A file for a site with this token.
fn file_with_token(folder: &std::path::Path, key: &str, secret: &str, more: &str) -> String {
    let (key_file, secret_file) = (folder.join("key"), folder.join("secret"));
    for (file, text) in [
        (key_file, format!("{key}\n")),
        (secret_file, secret.to_owned()),
    ] {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let path = folder.join("proxy.yaml");
    let text = format!(
        "sites:\n  acme:\n    url: http://127.0.0.1:1\n{more}    server_tokens: [{{ key: file:key, secret: file:secret }}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn usage() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["token", "verify", "--help"],
        &["--version"],
    ] {
        let (out, _) = run(arguments, 0);
        assert!(out.contains("countersign"), "{out}");
    }
    for arguments in [
        &[][..],
        &["frob"],
        &["run", "--frob"],
        &["token", "mint"],
        &["check", "--config"],
        &["token", "mint", "--user", "1", "--at", "now"],
    ] {
        let (out, err) = run(arguments, 2);
        assert_eq!(out, "");
        assert!(err.contains("Usage") || err.contains("--help"), "{err}");
    }
}

#[test]
fn check_says_what_is_wrong() {
    let (out, err) = run(&["check"], 0);
    let first = out.lines().next();
    assert_eq!(first, Some("proxy.yaml is usable (1 listener, 3 routes)"));
    assert_eq!(err, "");
    let (out, err) = run(
        &[
            "check",
            "--config",
            "tests/fixtures/config/bad/no_callers.yaml",
        ],
        1,
    );
    assert_eq!(out, "");
    assert!(err.contains("is not usable ("), "{err}");
    let (out, _) = run(
        &[
            "check",
            "--json",
            "--config",
            "tests/fixtures/config/bad/typos.yaml",
        ],
        1,
    );
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["usable"], false);
    assert_eq!(report["problems"][0]["place"], "listener");
    let (out, _) = run(&["check", "--json"], 0);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["usable"], &report["problems"]),
        (&true.into(), &serde_json::json!([]))
    );
    let (_, err) = run(&["check", "--config", "/nowhere/proxy.yaml"], 1);
    assert!(
        err.contains("there is no such file; name one with --config"),
        "{err}"
    );
    let (_, err) = run(
        &[
            "run",
            "--config",
            "tests/fixtures/config/bad/no_callers.yaml",
        ],
        1,
    );
    assert!(err.contains("is not usable ("), "run says the same: {err}");
}

#[test]
fn known_tokens_are_minted_and_verified() {
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [dialect, key, secret, epoch, user, token] = fields[..] else {
            panic!("{line}")
        };
        let folder = tempfile::tempdir().unwrap();
        let encoding = if user.contains('%') || user.starts_with("==") {
            "    user_encoding: raw\n"
        } else {
            ""
        };
        let config = file_with_token(
            folder.path(),
            key,
            secret,
            &format!("    dialect: {dialect}\n{encoding}"),
        );
        let (out, _) = run(
            &[
                "token", "mint", "--config", &config, "--site", "acme", "--user", user, "--at",
                epoch,
            ],
            0,
        );
        assert_eq!(out.trim_end(), token, "{line}");
        let (out, _) = run(
            &["token", "verify", token, "--config", &config, "--at", epoch],
            0,
        );
        for part in [
            "valid\n",
            &format!("dialect: {dialect}"),
            &format!("user: {user}"),
            "key: the site's",
            "age: 0 s",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
        let (out, _) = run(&["token", "verify", token, "--config", &config], 1);
        assert!(out.contains("expired"), "{out}");
    }
}

#[test]
fn tokens_made_elsewhere() {
    // By openssl, the way the vendor's page says it.
    let folder = tempfile::tempdir().unwrap();
    let (key, secret) = ("dacaffe7", "5b703192");
    let config = file_with_token(folder.path(), key, secret, "");
    let script = format!(
        "key={key}; secret={secret}; epoch=$(date +%s); user==admin; \
         hash=$(printf %s \"${{key}}_${{epoch}}_${{user}}\" | openssl dgst -sha256 -hmac \"$secret\" | sed 's/^.* //'); \
         printf %s \"tkn_${{key}}_${{epoch}}_${{user}}_${{hash}}\""
    );
    let token = Command::new("sh").args(["-c", &script]).output().unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    run(&["token", "verify", &token, "--config", &config], 0);

    let mut child = countersign(&["token", "verify", "-", "--json", "--config", &config])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let wrong = token.replace("=admin", "admin");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(wrong.as_bytes())
        .unwrap();
    let (out, _) = ended(&child.wait_with_output().unwrap(), 1);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["valid"], &report["code"]),
        (&false.into(), &"equals_not_sent".into()),
        "{out}"
    );
    assert!(!out.contains(secret), "{out}");

    let (_, err) = run(
        &[
            "token", "verify", "x", "--config", &config, "--site", "other",
        ],
        1,
    );
    assert!(
        err.contains("choose one with --site; known sites are acme"),
        "{err}"
    );
    let (_, err) = run(
        &["token", "mint", "--user", "jane doe", "--config", &config],
        1,
    );
    assert!(err.contains("--user:"), "{err}");
}

#[test]
fn keys_for_callers() {
    let (first, _) = run(&["key", "new", "salesforce"], 0);
    let (second, _) = run(&["key", "new", "salesforce", "--json"], 0);
    let made: serde_json::Value = serde_json::from_str(&second).unwrap();
    let key = made["key"].as_str().unwrap();
    assert!(
        key.len() > 40 && key.starts_with("cs_") && !first.contains(key),
        "each is new: {key}"
    );
    let digest = countersign::policy::caller::KeyDigest::of(key.as_bytes()).to_hex();
    assert_eq!(made["sha256"], digest);
    assert!(
        first.contains("salesforce:\n    api_key: { sha256: \""),
        "{first}"
    );
}

/// Runs `key new --basic` with a first line of standard input.
fn hash_typed(line: &str, more: &[&str]) -> (String, String, bool) {
    let mut child =
        countersign(&[&["key", "new", "desk", "--basic", "--password-stdin"], more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.success(),
    )
}

#[test]
fn passwords_for_callers() {
    use countersign::policy::caller::basic::PasswordHash;
    let (first, _) = run(&["key", "new", "--basic", "desk"], 0);
    assert!(first.contains("\n  user name  desk\n"), "{first}");
    let password = first
        .split("password   ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert_eq!(password.len(), 43, "256 bits in base64url: {password}");
    let hash = first
        .split("basic: { password: \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        PasswordHash::parse(hash)
            .unwrap()
            .matches(password.as_bytes())
    );

    let (second, _) = run(&["key", "new", "--basic", "desk", "--json"], 0);
    let made: serde_json::Value = serde_json::from_str(&second).unwrap();
    let (other, other_hash) = (&made["password"], &made["password_hash"]);
    assert_ne!(other, password, "each is new");
    let parsed = PasswordHash::parse(other_hash.as_str().unwrap()).unwrap();
    assert!(parsed.matches(other.as_str().unwrap().as_bytes()));

    let typed = "canary typed p\u{e4}ssword";
    for end in ["", "\n", "\r\n", "\nanother line\n"] {
        let (out, err, is_good) = hash_typed(&format!("{typed}{end}"), &["--json"]);
        assert!(is_good && !out.contains("canary"), "{out}{err}");
        let made: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(made.get("password"), None);
        let parsed = PasswordHash::parse(made["password_hash"].as_str().unwrap()).unwrap();
        assert!(parsed.matches(typed.as_bytes()), "{end:?}");
    }
    for bad in ["", "\n", "canary-short", "canary\twith a tab in it\n"] {
        let (out, err, is_good) = hash_typed(bad, &[]);
        assert!(!is_good && out.is_empty(), "{bad:?}: {out}");
        assert!(
            err.contains("at least 16 bytes") && !err.contains("canary"),
            "{err}"
        );
    }
    run(&["key", "new", "desk", "--password-stdin"], 2);
}

/// A running gateway of the built program; killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn run_listens_logs_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.yaml")).unwrap();
    let text = example
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9901", "127.0.0.1:0")
        .replace("127.0.0.1:8088", "127.0.0.1:1")
        .replace(
            "file:deploy",
            concat!("file:", env!("CARGO_MANIFEST_DIR"), "/deploy"),
        );
    std::fs::write(&path, text).unwrap();
    let mut running = Running(
        countersign(&[
            "run",
            "--log-format",
            "json",
            "--config",
            path.to_str().unwrap(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap(),
    );
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut next = |message: &str| loop {
        let line = lines.next().expect("it logs").unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).expect("one JSON object a line");
        if event["message"] == message {
            return event;
        }
    };
    let address = next("listening")["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let admin = next("listening for operators")["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let (out, _) = run(&["health", &format!("http://{admin}/healthz")], 0);
    assert!(out.contains("alive"), "{out}");
    let mut wire = Wire::open(address).await;
    wire.write("GET /crm/@api/deki/users/current?q=secret HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    wire.answer().await.refused(401, "credential_missing");
    let event = next("exchange");
    assert_eq!(
        (
            &event["route"],
            &event["status"],
            &event["refusal"],
            &event["cause"]
        ),
        (
            &"crm".into(),
            &401.into(),
            &"credential_missing".into(),
            &serde_json::Value::Null
        )
    );
    assert!(event.get("path").is_none(), "{event}");
    let told = Command::new("kill")
        .args(["-TERM", &running.0.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    next("stopped");
    let code = within(tokio::task::spawn_blocking(move || running.0.wait()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(code.code(), Some(0));
    run(&["health", &format!("http://{admin}/healthz")], 1);
}

#[test]
fn a_capability_that_is_nearly_right() {
    for (name, expected) in [
        (
            "serach",
            "there is no built-in capability of this name; did you mean search?",
        ),
        ("read_pages", "did you mean read-pages?"),
        ("MINT-CREDENTIALS", "did you mean mint-credentials?"),
        ("traslate", "did you mean translate?"),
        ("canary", "known capabilities are search, read-pages,"),
        ("", "known capabilities are search, read-pages,"),
    ] {
        for json in [&[][..], &["--json"]] {
            let arguments = [&["capabilities", name], json].concat();
            let (out, err) = run(&arguments, 1);
            assert!(out.is_empty(), "{name}: {out}");
            assert!(err.contains(expected), "{name}: {err}");
            assert!(!err.contains("canary"), "{err}");
        }
    }
    let (out, _) = run(&["capabilities", "whoami"], 0);
    assert_eq!(
        out,
        "whoami: Ask the site which user it sees.\n  GET     users/current\n"
    );
}
