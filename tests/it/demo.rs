//! `countersign demo`: each call goes as it should, before the gateway it starts and before one that runs.

use std::path::Path;
use std::process::{Command, Stdio};

use countersign_emulator::{Emulator, Options};

use crate::harness::Gateway;

/// What it prints, and that it ends with this code.
fn demo(arguments: &[&str], code: i32) -> String {
    demo_in(&std::env::temp_dir(), arguments, code)
}

/// The same with this folder for temporary files.
fn demo_in(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", folder)
        .env_remove("COUNTERSIGN_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}\n{complained}");
    assert_eq!(complained, "");
    said
}

/// What came of each call, in order.
fn verdicts(out: &str) -> Vec<&str> {
    let mut lines = out.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.get(3..).is_some_and(|rest| rest.starts_with(" ok   ")) {
            found.push(lines.nth(1).unwrap().trim());
        }
    }
    found
}

const SIGNED: &str = "200; reached the site with a valid signature, as ";

/// Where nothing reaches the site.
const REFUSED: &str = "; nothing reached the site";

#[test]
fn each_call_goes_as_it_should() {
    let out = demo(&[], 0);
    assert!(
        out.contains("\nAll 29 calls went as they should: "),
        "{out}"
    );
    assert!(!out.contains("FAIL"), "{out}");
    assert!(!out.contains('\x1b'), "no colour into a pipe");
    let signed = |user: &str| format!("{SIGNED}{user}");
    let refused = |code: &str| format!("{code}{REFUSED}");
    let expected = [
        signed("crm-bot"),
        signed("crm-bot"),
        signed("crm-bot"),
        signed("crm-bot"),
        signed("crm-bot"),
        refused("401 credential_missing"),
        refused("401 credential_unknown"),
        refused("400 caller_sent_token"),
        refused("403 capability_missing"),
        refused("403 mints_credentials"),
        refused("400 bad_target"),
        refused("400 forbidden_parameter"),
        "200; reached the site with the browser token, as Anonymous".to_owned(),
        refused("204"),
        refused("403 origin_not_allowed"),
        refused("403 origin_missing"),
        signed("support-anna"),
        signed("support-ben"),
        signed("support-chloe"),
        refused("403 user_not_allowed"),
        refused("401 credential_expired"),
        signed("crm-bot"),
        refused("401 credential_missing"),
        refused("401 credential_unknown"),
        refused("400 bad_message"),
        signed("crm-bot"),
        refused("401 credential_unknown"),
        signed("crm-bot"),
        refused("401 credential_unknown"),
    ];
    assert_eq!(verdicts(&out), expected, "{out}");
}

/// Its keys and certificates stand in the folder for such things, and only until they are read.
#[test]
fn it_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let modified = || folder.path().metadata().unwrap().modified().unwrap();
    let handle = std::fs::File::open(folder.path()).unwrap();
    handle.set_modified(std::time::UNIX_EPOCH).unwrap();
    demo_in(folder.path(), &[], 0);
    assert_ne!(modified(), std::time::UNIX_EPOCH, "something was here");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// As in a container whose file system cannot be written to.
#[test]
fn it_needs_no_disk() {
    if Path::new("/dev/shm").exists() {
        demo_in(Path::new("/nowhere"), &[], 0);
    }
}

#[test]
fn it_fails_where_something_goes_otherwise() {
    // A gateway that is none.
    let out = demo(&["--gateway", "http://127.0.0.1:1"], 1);
    assert!(
        out.contains("FAIL") && out.contains("16 of 16 calls did not go as they should"),
        "{out}"
    );
}

/// The files that documents start a gateway with; the demo calls it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_runs_is_called() {
    for name in ["proxy.yaml", "deploy/compose/emulated.yaml"] {
        let emulator = Emulator::bind(Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Options::default()
        });
        let emulator = emulator.await.unwrap();
        let site = emulator.local_addr();
        tokio::spawn(emulator.serve(std::future::pending()));
        let mut text = std::fs::read_to_string(name).unwrap();
        for (written, here) in [
            ("0.0.0.0:", "127.0.0.1:"),
            ("http://site:8088", "http://127.0.0.1:8088"),
            ("127.0.0.1:8080", "127.0.0.1:0"),
            ("127.0.0.1:9901", "127.0.0.1:0"),
            ("127.0.0.1:8088", &site.to_string()),
            ("file:/run/secrets/", "file:deploy/emulator/"),
        ] {
            text = text.replace(written, here);
        }
        let gateway = Gateway::start(&text, site).await;
        let url = format!("http://{}", gateway.address);
        let called = tokio::task::spawn_blocking(move || demo(&["--gateway", &url], 0));
        let out = called.await.unwrap();
        assert!(
            out.contains("\nAll 16 calls went as they should: "),
            "{name}: {out}"
        );
    }
}

#[test]
fn the_file_it_runs_with_is_one() {
    let text = demo(&["--print-config"], 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    std::fs::write(&path, &text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["check", "--no-secrets", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("without its secrets (2 listeners, 7 routes)"),
        "{said}"
    );
}
