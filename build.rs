//! Which commit a release is built from: what COUNTERSIGN_COMMIT says, else what git says, where there is a checkout.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=COUNTERSIGN_COMMIT");
    let said = std::env::var("COUNTERSIGN_COMMIT").unwrap_or_default();
    // A commit is no reason to build anew what is only tested.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match (is_commit(&said), is_release) {
        (true, _) => Some(said),
        (false, true) => checked_out(),
        (false, false) => None,
    };
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=COUNTERSIGN_COMMIT={commit}");
}

/// The commit that is checked out here; looked at again when another one is.
fn checked_out() -> Option<String> {
    // Sources that lie in the checkout of something else are not its commit.
    if !Path::new(".git").exists() {
        return None;
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Hexadecimal digits and nothing else: it is shown, and labels a metric.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
