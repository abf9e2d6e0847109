//! What a test can check, no reviewer has to: the map, the direction of imports, where secrets are
//! opened, the length of things.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each source file below `folder`: its name from there, and its text.
fn sources_of(folder: &str) -> Vec<(String, String)> {
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.sort();
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

/// The gateway's files.
fn sources() -> Vec<(String, String)> {
    let found = sources_of("src");
    assert!(found.len() > 50);
    found
}

/// The emulated site's files.
fn emulator() -> Vec<(String, String)> {
    let found = sources_of("emulator/src");
    assert!(found.len() > 20);
    found
}

/// The files of both crates, named from the top.
fn all_sources() -> impl Iterator<Item = (String, String)> {
    let of = |folder, files: Vec<(String, String)>| {
        files
            .into_iter()
            .map(move |(name, text)| (format!("{folder}/{name}"), text))
    };
    of("src", sources()).chain(of("emulator/src", emulator()))
}

/// A file's lines before its tests.
fn before_tests(text: &str) -> &str {
    let at = ["mod tests {", "pub(crate) mod tests {"]
        .into_iter()
        .find_map(|opening| text.find(&format!("#[cfg(test)]\n{opening}")));
    &text[..at.unwrap_or(text.len())]
}

/// The module of the map that a file belongs to.
fn module(name: &str) -> &str {
    name.split(['/', '.']).next().unwrap()
}

/// What each module may import of the crate.
fn allowed(module: &str) -> &'static [&'static str] {
    match module {
        "signing" => &[],
        "policy" => &["signing"],
        "rewrite" => &["policy", "signing"],
        "jose" => &["policy", "signing"],
        "config" => &["jose", "rewrite", "policy", "signing"],
        "telemetry" => &["policy"],
        "watch" => &["client", "jose", "policy", "signing", "telemetry"],
        "wire" => &["telemetry", "rewrite", "policy", "signing"],
        "upstream" => &["client", "wire", "watch", "policy", "signing"],
        "gateway" => &[
            "upstream",
            "wire",
            "watch",
            "telemetry",
            "rewrite",
            "policy",
            "signing",
        ],
        "server" => &[
            "gateway",
            "upstream",
            "wire",
            "watch",
            "telemetry",
            "config",
            "policy",
            "signing",
        ],
        "client" => &[],
        "cli" => &[
            "client",
            "server",
            "config",
            "telemetry",
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
        // A test that needs a whole gateway.
        if name.ends_with("simulation.rs") {
            continue;
        }
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

/// Code of one that the other uses could hide a mistake from both.
#[test]
fn the_emulator_and_the_gateway_share_no_code() {
    for (name, text) in emulator() {
        assert!(
            !text.contains("countersign::"),
            "emulator/src/{name} uses the gateway"
        );
    }
    for (name, text) in sources() {
        let may = module(&name) == "cli";
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(
                may || !line.contains("countersign_emulator"),
                "src/{name} uses the emulator: {line}"
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    for (name, text) in sources() {
        if !matches!(module(&name), "signing" | "policy" | "rewrite") {
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
    for (name, text) in all_sources() {
        let may = name.starts_with("src/signing") || name.starts_with("src/policy/caller");
        assert!(
            may || !text.contains("expose()") && !text.contains("expose_secret"),
            "{name} opens a secret"
        );
    }
}

#[test]
fn files_say_what_they_are_for() {
    let mut long = Vec::new();
    for (name, text) in all_sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{name} opens with a sentence");
        assert!(!first.contains("This module"), "{name}");
        assert!(!name.ends_with("mod.rs"), "{name}");
        let lines = before_tests(&text).lines().count();
        if lines > 500 && !name.ends_with("simulation.rs") {
            long.push(format!(
                "{name} has {lines} lines; look for the noun that wants to leave"
            ));
        }
        for word in ["TODO", "FIXME", "dbg!", "todo!", "unimplemented!"] {
            assert!(!text.contains(word), "{name} has {word}");
        }
        if name.contains("/tests") || name.ends_with("simulation.rs") {
            continue;
        }
        let code = before_tests(&text);
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(!line.contains(".unwrap()"), "{name}: {line}");
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// Nobody who reads them here could look them up.
#[test]
fn nothing_refers_to_papers_that_are_not_here() {
    let documents = crate::documents::documents().into_iter();
    let ours = sources_of("tests")
        .into_iter()
        .map(|(name, text)| (format!("tests/{name}"), text));
    let benches = sources_of("benches").into_iter();
    for (name, text) in all_sources().chain(documents).chain(ours).chain(benches) {
        let text = text.to_lowercase();
        for paper in ["the contract", "spec.md", "style guide", "(spec "] {
            // This list is no such reference.
            assert!(
                name.ends_with("tidy.rs") || !text.contains(paper),
                "{name} refers to {paper}"
            );
        }
    }
}
