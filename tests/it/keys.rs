//! docs/configuration.md held against the code, both ways: keys, defaults, examples, variables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use countersign::config::{self, reference::Sources};
use serde_yaml::Value;

use crate::harness::certificate::Authority;

/// A file in which every key has a place.
const BASE: &str = "\
listeners: [{ address: 127.0.0.1:8080, trusted_proxies: [192.0.2.1] }]
admin: { address: 127.0.0.1:9902 }
sites:
  acme:
    url: https://acme.mindtouch.us
    server_tokens: [{ key: env:KEY, secret: env:SECRET }]
    browser_token: { key: env:BROWSER, allowed_hosts: [crm.example.com] }
callers:
  crm:
    api_key: { sha256: \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\" }
    acts_as: \"=crm-bot\"
routes: [{ name: crm, site: acme, token: server, callers: [crm], allow: [search] }]
capabilities: { own: { GET: [\"pages/*/own\"] } }
";

/// What a listener has for keys that have their place only where there is TLS.
const BASE_OF_TLS: &str =
    "tls: { certificates: [{ chain: file:gateway.pem, key: file:gateway.key }] }";

/// A caller that signs.
const SIGNING: &str = "{ hmac: { header: X-Signature, secret: env:HOOK, signed: [{ text: \"v0:\" }, url, id, timestamp, body], public_url: \"https://gw.example.com\", timestamp_header: X-Time, id_header: X-Id }, acts_as: \"=crm-bot\" }";

/// Such a caller for a key of its own.
fn signing(key: &str) -> String {
    let (before, after) = match key {
        "timestamp_prefix" => (
            "timestamp_header: X-Time",
            "timestamp_prefix: t=, separator: comma",
        ),
        "secret_prefix" => (
            "env:HOOK",
            "env:STANDARD, secret_encoding: base64, secret_prefix: w",
        ),
        "remember" => (
            "timestamp, body], public_url: \"https://gw.example.com\", timestamp_header: X-Time",
            "body], public_url: \"https://gw.example.com\"",
        ),
        _ => ("", ""),
    };
    let signing = SIGNING.replacen(before, after, 1);
    assert!(signing != SIGNING || before.is_empty(), "{key}");
    signing
}

/// Callers in which a key has its place that has none in the base file's: by the key's place, or by its
/// section.
const CALLERS: [(&str, &str); 7] = [
    (
        "callers.NAME.api_key[]",
        "{ api_key: [{ sha256: env:DIGEST }], acts_as: \"=crm-bot\" }",
    ),
    (
        "callers.NAME.basic",
        "{ basic: { password: env:HASH }, acts_as: \"=crm-bot\" }",
    ),
    (
        "callers.NAME.jwt",
        "{ jwt: { issuer: x, audience: y, keys: \"https://login.example.com/jwks\" }, acts_as: \"=crm-bot\" }",
    ),
    (
        "callers.NAME.acts_as.claim",
        "{ jwt: { issuer: x, audience: y, keys: \"https://login.example.com/jwks\" }, acts_as: { allow: [a] } }",
    ),
    (
        "callers.NAME.acts_as.signed_query",
        "{ hmac: { preset: hubspot, secret: env:HOOK, public_url: \"https://gw.example.com\" }, acts_as: { allow: [a] } }",
    ),
    (
        "callers.NAME.acts_as.map",
        "{ api_key: { sha256: env:DIGEST }, acts_as: { header: X-User-Name } }",
    ),
    (
        "callers.NAME.acts_as",
        "{ api_key: { sha256: env:DIGEST }, acts_as: { header: X-User-Name, allow: [a] } }",
    ),
];

/// A key that nothing is called.
const NO_KEY: &str = "qqqqqqqqqqqqqqqq";

fn page() -> String {
    read("docs/configuration.md")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn load(text: &str) -> Result<config::Loaded, config::Unusable> {
    // The same ones each time, so that settings can be compared.
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        for name in ["gateway", "other"] {
            let issued = authority.issue(&["gw.example"], |_| {});
            issued.write(folder.path(), name);
        }
        folder
    });
    let environment = |name: &str| {
        match name {
        "KEY" | "SECRET" | "BROWSER" => Some("canary".to_owned()),
        "HOOK" => Some("Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5".to_owned()),
        "NEW_HOOK" => Some("Y2FuYXJ5Y2FuYXJ5Y2FuYXJ6".to_owned()),
        "STANDARD" => Some("whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5".to_owned()),
        "TOKEN" => Some("0123456789abcdef".to_owned()),
        "DIGEST" => Some("0123456789abcdef".repeat(4)),
        "HASH" => Some("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$rC5wOdNa+G0FGxcWYcQq0Hn6qLjh4vxuMEfLNphiY1s".to_owned()),
        _ => None,
    }
    };
    let sources = Sources {
        environment: &environment,
        folder: FOLDER.path().to_owned(),
    };
    config::load_text("proxy.yaml", text, &sources)
}

/// One row of the page.
#[derive(Debug)]
struct Row {
    kind: String,
    default: String,
    example: String,
}

/// The rows of the page by section and key.
fn rows() -> BTreeMap<String, BTreeMap<String, Row>> {
    let mut sections: BTreeMap<String, BTreeMap<String, Row>> = BTreeMap::new();
    let mut section = None;
    for line in page().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading
                .rsplit_once(": `")
                .map(|(_, path)| path.trim_end_matches('`').to_owned());
        }
        let (Some(section), true) = (&section, line.starts_with("| `")) else {
            continue;
        };
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [key, kind, default, example, what] = cells[..] else {
            panic!("a row has five cells: {line}");
        };
        assert!(what.ends_with('.'), "a row ends with a sentence: {line}");
        let row = Row {
            kind: kind.to_owned(),
            default: default.to_owned(),
            example: example.to_owned(),
        };
        let known = sections
            .entry(section.clone())
            .or_default()
            .insert(key.trim_matches('`').to_owned(), row);
        assert!(known.is_none(), "{section}: {key} stands twice");
    }
    sections
}

/// What the code knows in a section, learnt from what it says of a key that it does not know; with
/// the sections below. `wrap` puts a value where the section stands.
fn known(
    section: &str,
    wrap: &dyn Fn(String) -> String,
    found: &mut BTreeMap<String, BTreeSet<String>>,
) {
    let shapes: [(&str, String); 3] = [
        ("", format!("{{ {NO_KEY}: 1 }}")),
        (".NAME", format!("{{ name: {{ {NO_KEY}: 1 }} }}")),
        ("[]", format!("[{{ {NO_KEY}: 1 }}]")),
    ];
    for (shape, value) in shapes {
        let Err(unusable) = load(&wrap(value)) else {
            continue;
        };
        let said = unusable.problems.iter().find(|problem| {
            let path = problem.path();
            let depth = match shape {
                ".NAME" => path.ends_with(&format!("name.{NO_KEY}")),
                _ => !path.contains("name."),
            };
            path.ends_with(NO_KEY) && (depth || section.contains("NAME"))
        });
        let keys = said.and_then(|problem| problem.text.split_once("known keys are "));
        let Some((_, keys)) = keys else {
            continue;
        };
        let path = match (section, shape) {
            (".", "") => ".".to_owned(),
            _ => format!("{section}{shape}"),
        };
        let keys: BTreeSet<String> = keys.split(", ").map(str::to_owned).collect();
        if found.insert(path.clone(), keys.clone()).is_some() {
            continue;
        }
        for key in keys {
            let below = match path.as_str() {
                "." => key.clone(),
                path => format!("{path}.{key}"),
            };
            let wrap_below = |value: String| {
                let inner = format!("{{ {key}: {value} }}");
                wrap(match shape {
                    "" => inner,
                    ".NAME" => format!("{{ name: {inner} }}"),
                    _ => format!("[{inner}]"),
                })
            };
            known(&below, &wrap_below, found);
        }
    }
}

#[test]
fn every_key_stands_on_the_page_and_no_other() {
    let mut code = BTreeMap::new();
    known(".", &|value| value, &mut code);
    assert!(code.len() >= 12, "{code:#?}");
    let page: BTreeMap<String, BTreeSet<String>> = rows()
        .into_iter()
        .map(|(section, rows)| (section, rows.into_keys().collect()))
        .collect();
    let mut to_do = Vec::new();
    for (section, keys) in &code {
        let Some(written) = page.get(section) else {
            to_do.push(format!("add a section with a heading that ends in `: `{section}``, and a row for each of {keys:?}"));
            continue;
        };
        for key in keys.difference(written) {
            to_do.push(format!("in the section `{section}`, add | `{key}` | type | default | example | what it does. |"));
        }
        for key in written.difference(keys) {
            to_do.push(format!("in the section `{section}`, remove the row of `{key}`, which the code does not know"));
        }
    }
    for section in page.keys().filter(|section| !code.contains_key(*section)) {
        to_do.push(format!(
            "remove the section `{section}`, which the code does not know"
        ));
    }
    assert!(to_do.is_empty(), "docs/configuration.md: {to_do:#?}");
}

/// The base file, with a caller in which this key has its place.
fn base_of(section: &str, key: &str) -> Value {
    let text = match section.starts_with("listeners[].tls") {
        true => BASE.replace("[192.0.2.1] }", &format!("[192.0.2.1], {BASE_OF_TLS} }}")),
        false => BASE.to_owned(),
    };
    let mut file: Value = serde_yaml::from_str(&text).unwrap();
    let places = [format!("{section}.{key}"), section.to_owned()];
    let caller = places
        .iter()
        .find_map(|place| CALLERS.iter().find(|(known, _)| known == place));
    let caller = match caller {
        Some((_, caller)) => Some((*caller).to_owned()),
        None => section
            .starts_with("callers.NAME.hmac")
            .then(|| signing(key)),
    };
    if let Some(caller) = caller {
        file["callers"]["crm"] = serde_yaml::from_str(&caller).unwrap();
    }
    file
}

/// The base file with a value at a key of a section.
fn with(section: &str, key: &str, value: &str) -> String {
    let mut file = base_of(section, key);
    let mut at = &mut file;
    for step in section.split('.').filter(|step| !step.is_empty()) {
        let (name, is_list) = match step.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (step, false),
        };
        at = match name {
            "NAME" => at.as_mapping_mut().unwrap().values_mut().next().unwrap(),
            name => at
                .as_mapping_mut()
                .unwrap()
                .entry(name.into())
                .or_insert_with(|| Value::Mapping(serde_yaml::Mapping::new())),
        };
        if is_list {
            at = at.as_sequence_mut().unwrap().first_mut().unwrap();
        }
    }
    let value: Value = serde_yaml::from_str(value).unwrap();
    let at = at.as_mapping_mut().unwrap();
    at.insert(key.into(), value);
    if key == "discovery" {
        // It stands in place of the other.
        at.remove("keys");
    }
    serde_yaml::to_string(&file).unwrap()
}

fn meaning(loaded: &config::Loaded) -> String {
    format!("{:?}\n{:?}", loaded.settings, loaded.policy)
}

#[test]
fn every_default_and_every_example_on_the_page_is_the_codes() {
    let sections = rows();
    let mut defaults = 0;
    for (section, rows) in &sections {
        for (key, row) in rows {
            let place = format!("{section}.{key}");
            let base = || {
                let text = serde_yaml::to_string(&base_of(section, key)).unwrap();
                meaning(&load(&text).unwrap())
            };
            let code = |cell: &str| cell.strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
            let Some(example) = code(&row.example) else {
                assert_eq!(
                    row.example, "below",
                    "{place}: an example in backticks, or `below`"
                );
                let path = place.trim_start_matches("..").to_owned();
                let is_there = |shape| sections.contains_key(&format!("{path}{shape}"));
                assert!(
                    ["", "[]", ".NAME"].into_iter().any(is_there),
                    "{path} has a section of its own"
                );
                continue;
            };
            let loaded = load(&with(section, key, &example));
            if matches!(row.kind.as_str(), "later" | "gone") {
                let unusable = loaded.expect_err(&place).to_string();
                assert!(
                    unusable.contains("not supported yet") || unusable.contains("no longer"),
                    "{place} is in this version: say so on the page: {unusable}"
                );
                continue;
            }
            let loaded = loaded.unwrap_or_else(|unusable| panic!("{place}: {unusable}"));
            let Some(default) = code(&row.default) else {
                assert!(
                    matches!(row.default.as_str(), "required" | "none"),
                    "{place}: {row:?}"
                );
                continue;
            };
            defaults += 1;
            assert_ne!(default, example, "{place}: an example that shows something");
            if place == "sites.NAME.plaintext" {
                // It changes nothing but whether this is permitted.
                let open = |value: &str| {
                    load(&with(section, key, value).replace("https://acme", "http://acme"))
                };
                assert!(open(&default).is_err() && open(&example).is_ok(), "{place}");
                continue;
            }
            assert!(
                meaning(&loaded) != base(),
                "{place}: the example changes nothing"
            );
            let same = load(&with(section, key, &default))
                .unwrap_or_else(|unusable| panic!("{place}: {unusable}"));
            assert!(
                meaning(&same) == base(),
                "{place}: {default} is not the default"
            );
        }
    }
    assert!(defaults >= 25, "{defaults} defaults");
}

#[test]
fn what_is_required_is_required() {
    for (section, rows) in rows() {
        for (key, row) in rows {
            let mut file = base_of(&section, &key);
            let at = section.split('.').filter(|step| !step.is_empty()).try_fold(
                &mut file,
                |at, step| {
                    let (name, is_list) = (step.trim_end_matches("[]"), step.ends_with("[]"));
                    let at = match name {
                        "NAME" => at.as_mapping_mut()?.values_mut().next()?,
                        name => at.get_mut(name)?,
                    };
                    if is_list { at.get_mut(0) } else { Some(at) }
                },
            );
            // Some sections, as the timeouts, are not in the file: nothing in them is required.
            let Some(at) = at else {
                assert_ne!(row.default, "required", "{section}.{key}");
                continue;
            };
            at.as_mapping_mut().unwrap().remove(&*key);
            if row.default != "required" {
                continue;
            }
            let said = load(&serde_yaml::to_string(&file).unwrap());
            let said = said
                .expect_err(&format!("{section}.{key} is required"))
                .to_string();
            assert!(
                said.contains(&format!("{key} is missing")) || said.contains("at least one entry"),
                "{section}.{key}: {said}"
            );
        }
    }
}

#[test]
fn every_variable_the_program_reads_stands_on_the_page() {
    let page = page();
    let (_, table) = page.split_once("## Environment variables").unwrap();
    let written: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    // Read by the library that loads the system's authorities.
    let mut read: BTreeSet<String> = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(str::to_owned).into();
    let mut folders = vec![
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator/src"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A test in the crate, and no part of the program.
            if path.ends_with("gateway/simulation.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for call in ["env::var(\"", "env::var_os(\"", " variable(\""] {
                for after in text.split(call).skip(1) {
                    read.insert(after.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    let read: BTreeSet<&str> = read.iter().map(String::as_str).collect();
    assert_eq!(
        written, read,
        "docs/configuration.md, Environment variables"
    );
}
