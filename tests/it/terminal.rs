//! Commands on a terminal: nothing is said but what there is to say, with colour where that is wanted.

use std::process::{Command, Stdio};

use crate::harness::{Need, cannot};

/// What a command of the built program says on a terminal of its own, in good order: one that says
/// `until` is told to stop then, another ends by itself.
fn said(arguments: &[&str], until: &str, environment: &[(&str, &str)]) -> Option<String> {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/on_a_terminal.py"
    );
    let output = Command::new("python3")
        .args([script, until, env!("CARGO_BIN_EXE_countersign")])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LOGGED_KEY", "a")
        .env("LOGGED_SECRET", "b")
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("COUNTERSIGN_LOG")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        cannot(Need::Terminal, "commands on a terminal: they need python3");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}

/// What the environment says of colour, and whether there is any then.
const COLOURS: [(&[(&str, &str)], bool); 6] = [
    (&[], true),
    (&[("NO_COLOR", "")], true),
    (&[("NO_COLOR", "1")], false),
    (&[("NO_COLOR", "false")], false),
    (&[("TERM", "dumb")], false),
    (&[("TERM", "xterm-256color"), ("NO_COLOR", "1")], false),
];

#[test]
fn run_and_emulate_say_nothing_but_events() {
    let (_folder, path) = crate::logging::file();
    let run = ["run", "--config", &path];
    let emulate = ["emulate", "--listen", "127.0.0.1:0"];
    for arguments in [run, emulate] {
        for (environment, coloured) in COLOURS {
            let Some(text) = said(&arguments, "listening", environment) else {
                return;
            };
            assert!(text.contains("listening"), "{text}");
            for line in text.lines() {
                assert!(
                    line.contains("INFO") || line.contains("WARN"),
                    "nothing but events: {text}"
                );
            }
            assert_eq!(text.contains("\x1b["), coloured, "{environment:?}: {text}");
        }
    }
}

#[test]
fn the_demo_is_coloured() {
    for (environment, coloured) in COLOURS {
        let Some(text) = said(&["demo"], "", environment) else {
            return;
        };
        assert!(text.contains("calls went as they should"), "{text}");
        assert_eq!(text.contains("\x1b["), coloured, "{environment:?}: {text}");
        let good = if coloured {
            "\x1b[32mok\x1b[0m  "
        } else {
            "ok  "
        };
        assert!(text.contains(good), "{environment:?}: {text}");
    }
}

#[test]
fn commands_that_end_say_what_they_say_into_a_pipe() {
    for arguments in [
        &["check"][..],
        &["--version"],
        &["check", "--json"],
        &["check", "--route", "crm"],
        &["capabilities", "translate"],
    ] {
        let piped = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let piped = String::from_utf8(piped.stdout).unwrap();
        let Some(text) = said(arguments, "", &[]) else {
            return;
        };
        assert_eq!(text.replace("\r\n", "\n"), piped, "{arguments:?}");
        assert!(!piped.is_empty());
    }
}
