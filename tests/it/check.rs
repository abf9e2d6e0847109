//! `countersign check` of the built program: files that are none, secrets that others can read,
//! places for programs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILE: &str = "\
listeners: [{ address: 127.0.0.1:8080 }]
sites:
  acme:
    url: https://acme.mindtouch.us
    server_tokens: [{ key: env:KEY, secret: file:secret }]
callers:
  crm:
    api_key: { sha256: \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\" }
    acts_as: \"=crm-bot\"
routes:
  - name: crm
    site: acme
    token: server
    callers: [crm]
    allow: [search]
";

/// What the program says of the file in a folder, and with which code it ends. A program that hangs
/// is ended after a while, with no code.
fn check_with(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .env("KEY", "canary-key")
        .env_remove("NOT_SET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("canary"), "a value is repeated: {text}");
    (output.status.code(), text)
}

/// Asserts that the file in a folder has one problem, which says this.
#[track_caller]
fn refused(folder: &Path, expected: &str) {
    let (code, said) = check_with(folder, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("(1 problem)"), "{said}");
    assert!(said.contains(expected), "{expected}: {said}");
}

#[track_caller]
fn taken(folder: &Path) {
    let (code, said) = check_with(folder, &[]);
    assert_eq!(code, Some(0), "{said}");
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with a file that can be used.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    write(&folder.path().join("proxy.yaml"), FILE, 0o644);
    write(&folder.path().join("secret"), "canary-secret\n", 0o600);
    folder
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Each way to be no file, made at a path.
type NoFile = (&'static str, fn(&Path), &'static str);

const NO_FILES: [NoFile; 6] = [
    ("a pipe", fifo, "is a pipe and no file"),
    (
        "a folder",
        |path| std::fs::create_dir(path).unwrap(),
        "is a folder and no file",
    ),
    (
        "a device without end",
        |path| symlink("/dev/zero", path).unwrap(),
        "is a device and no file",
    ),
    (
        "a socket",
        |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        "is a socket and no file",
    ),
    (
        "a hole of 1 TiB",
        |path| {
            let file = std::fs::File::create(path).unwrap();
            file.set_len(1 << 40).unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(0o600))
                .unwrap();
        },
        "is larger than ",
    ),
    ("nothing", |_| {}, "cannot be read: there is no such file"),
];

#[test]
fn what_is_no_file_is_neither_waited_for_nor_swallowed() {
    for (what, make, expected) in NO_FILES {
        for name in ["proxy.yaml", "secret", "ca.pem"] {
            let folder = folder();
            let path = folder.path().join(name);
            if name == "ca.pem" {
                let text = FILE.replace("    url:", "    ca: file:ca.pem\n    url:");
                write(&folder.path().join("proxy.yaml"), &text, 0o644);
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            make(&path);
            let (code, said) = check_with(folder.path(), &[]);
            assert_eq!(code, Some(1), "{what} as {name}: {said}");
            assert!(said.contains("(1 problem)"), "{what} as {name}: {said}");
            assert!(said.contains(expected), "{what} as {name}: {said}");
        }
    }
}

#[test]
fn secrets_that_others_can_read() {
    let folder = folder();
    let secret = folder.path().join("secret");
    for mode in [0o600, 0o400, 0o640, 0o440, 0o660] {
        write(&secret, "canary-secret", mode);
        taken(folder.path());
    }
    for mode in [0o644, 0o666, 0o604, 0o602, 0o777, 0o444] {
        std::fs::remove_file(&secret).unwrap();
        write(&secret, "canary-secret", mode);
        refused(folder.path(), "is open to every user of this machine");
    }
    // Neither does a link hide it, nor the address of the site.
    std::fs::rename(&secret, folder.path().join("other")).unwrap();
    symlink("other", &secret).unwrap();
    let text = FILE.replace("https://acme.mindtouch.us", "http://127.0.0.1:8088");
    write(&folder.path().join("proxy.yaml"), &text, 0o644);
    refused(folder.path(), "is open to every user of this machine");
}

#[test]
fn secrets_as_a_kubelet_mounts_them() {
    const NEWEST: &str = "..2024_01_02_03_04_05.123456789";
    // As a kubelet does it, below a folder.
    let mount = |folder: &Path, time: &str, data: &str| {
        let volume = folder.join("volume");
        std::fs::create_dir_all(volume.join(time)).unwrap();
        write(&volume.join(time).join("token"), "canary-secret", 0o644);
        symlink(data, volume.join("..data")).unwrap();
        symlink("..data/token", volume.join("token")).unwrap();
        let text = FILE.replace("file:secret", "file:volume/token");
        write(&folder.join("proxy.yaml"), &text, 0o644);
    };
    let in_memory = || tempfile::tempdir_in("/dev/shm").unwrap();
    let memory = in_memory();
    mount(memory.path(), NEWEST, NEWEST);
    taken(memory.path());
    // The names alone are none.
    for time in ["..2x", "..2024_01_02", "..2024_01_02_03_04_05.x"] {
        let memory = in_memory();
        mount(memory.path(), time, time);
        refused(memory.path(), "is open to every user of this machine");
    }
    // Nor is the same on a disk.
    let disk = folder();
    mount(disk.path(), NEWEST, NEWEST);
    refused(disk.path(), "is open to every user of this machine");
    // Nor a folder that ..data does not lead to.
    let memory = in_memory();
    mount(memory.path(), NEWEST, NEWEST);
    let volume = memory.path().join("volume");
    std::fs::remove_file(volume.join("..data")).unwrap();
    std::fs::remove_file(volume.join("token")).unwrap();
    symlink(format!("{NEWEST}/token"), volume.join("token")).unwrap();
    refused(memory.path(), "is open to every user of this machine");
}

#[test]
fn a_file_without_its_secrets() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let judge = |text: &str, arguments: &[&str]| {
        write(&folder.path().join("proxy.yaml"), text, 0o644);
        check_with(folder.path(), arguments)
    };
    let elsewhere = FILE
        .replace("env:KEY", "env:NOT_SET")
        .replace("127.0.0.1:8080", "env:NOT_SET")
        .replace(
            "https://acme.mindtouch.us",
            "env:NOT_SET\n    ca: file:ca.pem",
        )
        .replace("\"=crm-bot\"", "env:NOT_SET")
        .replace(
            "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
            "env:NOT_SET",
        );
    let (code, said) = judge(&elsewhere, &[]);
    assert_eq!(code, Some(1), "{said}");
    let listener = "address: env:NOT_SET, tls: { client_ca: file:ca.pem, certificates: [{ chain: file:gw.pem, key: file:gw.key }] }";
    let elsewhere = elsewhere.replace("address: env:NOT_SET", listener);
    let (code, said) = judge(&elsewhere, &["--no-secrets"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("is usable as far as can be told without its secrets (1 listener, 1 route)"),
        "{said}"
    );
    assert!(!said.contains("administrator"), "nobody can tell: {said}");
    // Everything else is judged, and so is the form of references.
    for (from, to, expected) in [
        ("[search]", "[serach]", "did you mean search?"),
        (
            "env:NOT_SET, secret",
            "env:NOT SET, secret",
            "env: is followed by the name of a variable",
        ),
        ("file:secret", "canary", "a secret is never written here"),
        ("file:secret", "env:tkn_canary", "looks like a secret"),
        (
            "file:secret",
            "\"file:\"",
            "file: is followed by the path of a file",
        ),
        ("file:ca.pem", "env:CA", "write file:PATH"),
        ("file:gw.key", "env:GW_KEY", "write file:PATH"),
        ("file:gw.pem", "tkn_canary", "write file:PATH"),
    ] {
        assert!(elsewhere.contains(from), "{from}");
        let (code, said) = judge(&elsewhere.replacen(from, to, 1), &["--no-secrets"]);
        assert_eq!(code, Some(1), "{to}: {said}");
        assert!(
            said.contains("(1 problem)") && said.contains(expected),
            "{to}: {said}"
        );
    }
    // The example holds what everybody may know; where it is not looked up, nobody can tell.
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.yaml"));
    let (code, said) = judge(&example.unwrap(), &["--no-secrets"]);
    assert_eq!(code, Some(0), "{said}");
    let run = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["run", "--no-secrets"])
        .output();
    assert_eq!(
        run.unwrap().status.code(),
        Some(2),
        "run takes no such thing"
    );
}

#[test]
fn places_for_programs() {
    let folder = folder();
    let text = FILE.replace("[search]", "\n      - search\n      - serach");
    write(&folder.path().join("proxy.yaml"), &text, 0o644);
    let (code, said) = check_with(folder.path(), &["--json"]);
    assert_eq!(code, Some(1), "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let expected = serde_json::json!([{
        "line": 17,
        "path": "routes[0].allow[1]",
        "place": "routes[0] (crm).allow[1]",
        "text": "there is no such capability; did you mean search?",
    }]);
    assert_eq!(report["problems"], expected);
    let (_, said) = check_with(folder.path(), &[]);
    assert!(
        said.contains("\n  proxy.yaml:17: routes[0] (crm).allow[1]: there is no such capability"),
        "{said}"
    );
    let text = FILE.replace("127.0.0.1:8080", "0.0.0.0:8080");
    write(&folder.path().join("proxy.yaml"), &text, 0o644);
    let (code, said) = check_with(folder.path(), &["--json"]);
    assert_eq!(code, Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["warnings"][0]["line"], 1, "{said}");
}

#[test]
fn bytes_that_are_no_text() {
    let folder = folder();
    let path = folder.path().join("proxy.yaml");
    for (bytes, expected) in [
        (
            &b"listeners: []\nx: caf\xe9\n"[..],
            "proxy.yaml:2: this line is not UTF-8 text",
        ),
        (b"\xff\xfel\0", "proxy.yaml:1: the file is UTF-16 text"),
        (
            b"\xef\xbb\xbfa: 1\n",
            "proxy.yaml:1: a byte order mark stands here",
        ),
        (b"", "proxy.yaml: the file is empty"),
        (
            b"a: \x1b[31m\n",
            "proxy.yaml:1: this line holds a control character",
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        refused(folder.path(), expected);
    }
}

const ROUTES: &str = r#"  - { name: wide, mount: /wide, site: acme, token: server, callers: [crm, b, c, d, e], allow: [all, mint-credentials] }
  - { name: mint, mount: /mint, site: acme, token: server, callers: [b], allow: [mint-credentials] }
  - { name: own, host: own.example.com, mount: /x, site: acme, token: server, callers: [b], allow: [search, read-pages, wild, whoami, contexts, comments, ratings, reports] }
  - { name: pages, host: w.example.com, site: acme, token: browser, allow: [whoami] }
capabilities:
  wild: { GET: [users/current, "**"], any: [license/usage] }
"#;

/// [`FILE`] with more callers, and routes for every kind of line.
fn with_routes() -> tempfile::TempDir {
    let folder = folder();
    let callers: String = ["b", "c", "d", "e"]
        .iter()
        .map(|name| {
            let digest = name.repeat(64);
            format!("  {name}: {{ api_key: {{ sha256: \"{digest}\" }}, acts_as: \"=crm-bot\" }}\n")
        })
        .collect();
    let text = FILE
        .replace(
            "callers:\n  crm:",
            &format!("    browser_token: {{ key: env:KEY, allowed_hosts: [crm.example.com] }}\ncallers:\n{callers}  crm:"),
        )
        + ROUTES;
    write(&folder.path().join("proxy.yaml"), &text, 0o644);
    folder
}

#[test]
fn a_line_for_each_route() {
    let folder = with_routes();
    for arguments in [&[][..], &["--no-secrets"]] {
        let (code, said) = check_with(folder.path(), arguments);
        assert_eq!(code, Some(0), "{said}");
        let table: Vec<_> = said
            .lines()
            .skip_while(|line| !line.starts_with("route "))
            .take_while(|line| !line.is_empty())
            .collect();
        let expected = [
            "route  answers             site  token    callers        allows",
            "crm    /                   acme  server   crm            search",
            "wide   /wide/              acme  server   crm, b, c, +2  all, mint-credentials",
            "mint   /mint/              acme  server   b              mint-credentials",
            "own    own.example.com/x/  acme  server   b              search, read-pages, wild, whoami, contexts, comments, +2",
            "pages  w.example.com/      acme  browser  web pages      whoami",
        ];
        assert_eq!(table, expected, "{said}");
    }
}

#[test]
fn many_routes_are_not_all_shown() {
    let folder = folder();
    let more: String = (0..120)
        .map(|number| {
            format!("  - {{ name: r-{number}, mount: /r-{number}, site: acme, token: server, callers: [crm], allow: [all] }}\n")
        })
        .collect();
    write(
        &folder.path().join("proxy.yaml"),
        &format!("{FILE}{more}"),
        0o644,
    );
    let (code, said) = check_with(folder.path(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("(1 listener, 121 routes)"), "{said}");
    assert!(said.contains("r-98 ") && !said.contains("r-99 "), "{said}");
    assert!(
        said.contains("… and 21 more; --json has all of them"),
        "{said}"
    );
    let (_, said) = check_with(folder.path(), &["--route", "r-119"]);
    assert!(said.contains("(1 listener, 121 routes)"), "{said}");
    assert!(said.contains("answers  /r-119/"), "{said}");
}

/// The lines of rules that are printed of a route, and what is said after them.
fn rules_of(folder: &Path, route: &str) -> (Vec<String>, Vec<String>) {
    let (code, said) = check_with(folder, &["--route", route]);
    assert_eq!(code, Some(0), "{said}");
    let (said, _warnings) = said.split_once("warning: ").unwrap();
    let mut lines = said
        .lines()
        .skip_while(|line| !line.starts_with("of the API"))
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let rules: Vec<_> = lines
        .by_ref()
        .take_while(|line| !line.starts_with("but "))
        .collect();
    assert!(!rules.is_empty(), "{said}");
    (
        rules,
        said.lines()
            .skip_while(|line| !line.starts_with("but "))
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn what_a_route_allows_in_all() {
    let folder = with_routes();
    let none_mints =
        "but nothing of mint-credentials, which countersign capabilities mint-credentials lists";
    let (rules, after) = rules_of(folder.path(), "pages");
    assert_eq!(rules, ["GET users/current"]);
    assert_eq!(after, [none_mints]);

    let (rules, after) = rules_of(folder.path(), "own");
    for rule in [
        "GET site/search",
        "GET **",
        "any license/usage",
        "POST pages/*/ratings",
    ] {
        assert!(rules.iter().any(|one| one == rule), "{rule}: {rules:?}");
    }
    let of_whoami = rules.iter().filter(|rule| rule.ends_with("users/current"));
    assert_eq!(
        of_whoami.count(),
        1,
        "what two capabilities list stands once"
    );
    assert_eq!(after, [none_mints]);

    // The other capabilities cover what mint-credentials excepts.
    let (rules, after) = rules_of(folder.path(), "wide");
    for rule in [
        "any license/**",
        "GET license/usage",
        "POST site/jobs/import",
    ] {
        assert!(rules.iter().any(|one| one == rule), "{rule}: {rules:?}");
    }
    assert!(rules.len() > 200, "{}", rules.len());
    assert!(after.is_empty(), "{after:?}");

    let (rules, after) = rules_of(folder.path(), "mint");
    assert!(
        rules.iter().all(|rule| rule.starts_with("any ")),
        "{rules:?}"
    );
    assert_eq!(
        after[0],
        "but not these, which no capability of the route covers:"
    );
    assert!(
        after.contains(&"  GET     license/usage".to_owned()),
        "{after:?}"
    );
}

#[test]
fn routes_for_programs() {
    let folder = with_routes();
    let report = |arguments: &[&str]| -> serde_json::Value {
        let (code, said) = check_with(folder.path(), arguments);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    };
    let all = report(&["--json"]);
    let names: Vec<_> = all["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["crm", "wide", "mint", "own", "pages"]);
    let pages = serde_json::json!({
        "name": "pages",
        "host": "w.example.com",
        "mount": "",
        "site": "acme",
        "token": "browser",
        "callers": [],
        "allow": ["whoami"],
        "rules": { "GET": ["users/current"] },
        "except": {},
    });
    assert_eq!(all["routes"][4], pages);
    assert_eq!(all["routes"][1]["host"], serde_json::Value::Null);
    assert_eq!(
        all["routes"][1]["callers"],
        serde_json::json!(["crm", "b", "c", "d", "e"])
    );
    assert_eq!(all["routes"][2]["except"]["GET"][0], "license/usage");
    let one = report(&["--json", "--route", "pages"]);
    assert_eq!(one["routes"], serde_json::json!([pages]));
}

#[test]
fn a_route_that_is_not_there() {
    let folder = with_routes();
    for (name, expected) in [
        ("wid", "there is no route of this name; did you mean wide?"),
        (
            "canary",
            "there is no route of this name; known routes are crm, wide, mint, own, pages",
        ),
    ] {
        for json in [&[][..], &["--json"]] {
            let (code, said) = check_with(folder.path(), &[&["--route", name], json].concat());
            assert_eq!(code, Some(1), "{said}");
            assert_eq!(said.trim_end(), expected);
        }
    }
    // A file that cannot be used has its problems told first.
    let text = FILE.replace("[search]", "[serach]");
    write(&folder.path().join("proxy.yaml"), &text, 0o644);
    let (code, said) = check_with(folder.path(), &["--route", "canary"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did you mean search?"), "{said}");
}
