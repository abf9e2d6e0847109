//! What a test can check, no reviewer has to: the map, the direction of imports, where secrets are
//! opened, the length of things.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.sort();
    assert!(found.len() > 50);
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// A file's lines before its tests.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The module of the map that a file belongs to.
fn module(name: &str) -> &str {
    name.split(['/', '.']).next().unwrap()
}

/// What each module may import of the crate.
fn allowed(module: &str) -> &'static [&'static str] {
    match module {
        "signing" | "scrub" | "emulator" => &[],
        "policy" => &["signing", "scrub"],
        "config" => &["policy", "signing"],
        "telemetry" => &["policy"],
        "watch" => &["policy", "telemetry"],
        "proxy" => &["watch", "telemetry", "policy", "signing", "scrub"],
        "server" => &["proxy", "watch", "telemetry", "config", "policy"],
        "cli" => &[
            "server",
            "config",
            "telemetry",
            "emulator",
            "policy",
            "signing",
        ],
        "main" | "lib" => &["cli"],
        other => panic!("{other} is not on the map in lib.rs"),
    }
}

#[test]
fn imports_run_one_way() {
    for (name, text) in sources() {
        let module = module(&name);
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for (at, _) in line.match_indices("crate::") {
                let imported = &line[at + "crate::".len()..];
                let imported = imported
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                assert!(
                    imported == module || allowed(module).contains(&imported),
                    "src/{name} imports {imported}: {line}"
                );
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    for (name, text) in sources() {
        if !matches!(module(&name), "signing" | "scrub" | "policy") {
            continue;
        }
        for line in before_tests(&text)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for word in [
                "pingora",
                "tokio",
                "serde",
                "SystemTime",
                "Instant",
                "std::env",
                "std::fs",
                "std::net::Tcp",
                "async ",
                "println",
                "std::io",
            ] {
                assert!(
                    !line.contains(word),
                    "src/{name} is core and has {word}: {line}"
                );
            }
        }
    }
}

#[test]
fn the_map_is_complete() {
    let library =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules: BTreeSet<_> = sources()
        .iter()
        .map(|(name, _)| module(name).to_owned())
        .collect();
    for module in modules
        .iter()
        .filter(|module| !matches!(module.as_str(), "lib" | "main"))
    {
        assert!(
            library.contains(&format!("//! - [`{module}`]: ")),
            "{module} has no sentence in lib.rs"
        );
    }
}

#[test]
fn secrets_are_opened_where_they_are_used() {
    for (name, text) in sources() {
        let may = name.starts_with("signing") || name.starts_with("policy/caller");
        assert!(
            may || !text.contains("expose()") && !text.contains("expose_secret"),
            "src/{name} opens a secret"
        );
    }
}

#[test]
fn files_say_what_they_are_for() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! "),
            "src/{name} opens with a sentence"
        );
        assert!(!first.contains("This module"), "src/{name}");
        assert!(!name.ends_with("mod.rs"), "src/{name}");
        let lines = before_tests(&text).lines().count();
        if lines > 500 {
            long.push(format!(
                "src/{name} has {lines} lines; look for the noun that wants to leave"
            ));
        }
        for word in ["TODO", "FIXME", "dbg!", "todo!", "unimplemented!"] {
            assert!(!text.contains(word), "src/{name} has {word}");
        }
        if name.contains("/tests") {
            continue;
        }
        let code = before_tests(&text);
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(!line.contains(".unwrap()"), "src/{name}: {line}");
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}
