//! What some tests need and not every machine has; where it is missing, they say so or fail.
//!
//! They fail if `COUNTERSIGN_TESTS_REQUIRE` names it (or says `all`, as CI does), unless
//! `COUNTERSIGN_TESTS_MAY_SKIP` names it. Both are lists with commas.

use std::io::Write;

/// Something that can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Chromium and its driver.
    Browser,
    /// Programs that people call the API with: curl, openssl, python3 with requests, node, php, java.
    Clients,
    /// More open files than some systems grant.
    Files,
    /// What people put before the gateway: HAProxy, and nginx with its stream module.
    Proxies,
    /// A pseudo-terminal, which python3 makes.
    Terminal,
    /// Prometheus and promtool.
    Prometheus,
}

/// What the two variables may name; `docker` is for `.ci/docker`.
const NAMES: [&str; 8] = [
    "all",
    "browser",
    "clients",
    "docker",
    "files",
    "prometheus",
    "proxies",
    "terminal",
];

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Clients => "clients",
            Self::Files => "files",
            Self::Proxies => "proxies",
            Self::Terminal => "terminal",
            Self::Prometheus => "prometheus",
        }
    }

    /// Whether a test fails without it.
    fn is_required(self, require: &str, ci: &str, may_skip: &str) -> bool {
        let names = |list: &str| {
            let mut listed = list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            listed.any(|name| {
                assert!(
                    NAMES.contains(&name),
                    "nothing that tests need is called {name}; there are {NAMES:?}"
                );
                name == "all" || name == self.name()
            })
        };
        let is_ci = !matches!(ci, "" | "0" | "false");
        (is_ci || names(require)) && !names(may_skip)
    }
}

/// Says loudly that a test cannot do its work, past the capture of its output, which shows nothing
/// of tests that pass; fails it where that must not be.
#[track_caller]
pub fn cannot(need: Need, why: &str) {
    let line = format!("\nNOT RUN: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    let variable = |name| std::env::var(name).unwrap_or_default();
    let is_required = need.is_required(
        &variable("COUNTERSIGN_TESTS_REQUIRE"),
        &variable("CI"),
        &variable("COUNTERSIGN_TESTS_MAY_SKIP"),
    );
    assert!(
        !is_required,
        "this must be tried here: {why}; where it is known, say COUNTERSIGN_TESTS_MAY_SKIP={}",
        need.name()
    );
}

#[test]
fn what_is_required() {
    for (require, ci, may_skip, expected) in [
        ("", "", "", false),
        ("all", "", "", true),
        ("browser", "", "", true),
        ("clients, browser", "", "", true),
        ("clients", "", "", false),
        ("docker", "", "", false),
        ("", "true", "", true),
        ("", "1", "", true),
        ("", "false", "", false),
        ("all", "true", "browser", false),
        ("all", "true", "docker,browser", false),
        ("browser", "", "all", false),
        ("all", "true", "docker,clients", true),
    ] {
        assert_eq!(
            Need::Browser.is_required(require, ci, may_skip),
            expected,
            "{require:?}, CI={ci:?}, skip {may_skip:?}"
        );
    }
    for (require, may_skip) in [("broswer", ""), ("all", "chromium")] {
        let asked = std::panic::catch_unwind(|| Need::Browser.is_required(require, "", may_skip));
        assert!(
            asked.is_err(),
            "a name that nothing has is told: {require}, {may_skip}"
        );
    }
}
