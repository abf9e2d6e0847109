//! The documents tell the truth: their commands run, their files compile, what they name is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use countersign_emulator::{Emulator, Options, TOKEN_KEY, TOKEN_SECRET};

use crate::harness::certificate::write_private;
use crate::harness::{Need, PATIENCE, cannot};

/// The documents, by their names from the top.
pub fn documents() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions", "secrets"] {
        for entry in std::fs::read_dir(top.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(top).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 8);
    found
}

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The blocks of a document: the language after its fence (empty if it is indented), and its lines.
fn blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut fenced = false;
    // Whether the line before was blank or of an indented block, so that another one may stand here.
    let mut open = true;
    let mut inside = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fenced = !fenced;
            assert!(
                fenced || language.is_empty(),
                "a block before ```{language} has no end: {:?}",
                blocks.last()
            );
            if fenced {
                blocks.push((language.to_owned(), Vec::new()));
            }
            (open, inside) = (false, false);
        } else if fenced {
            blocks.last_mut().unwrap().1.push(line.to_owned());
        } else if let Some(code) = line.strip_prefix("    ").filter(|_| open) {
            if !inside {
                blocks.push((String::new(), Vec::new()));
            }
            blocks.last_mut().unwrap().1.push(code.to_owned());
            inside = true;
        } else {
            open = line.is_empty();
            inside = inside && open;
        }
    }
    assert!(!fenced, "the last block has no end: {:?}", blocks.last());
    blocks
}

/// Without one, everything below is shown the other way round.
#[test]
fn blocks_have_an_end() {
    for (name, text) in documents() {
        let fences = text.lines().filter(|line| line.starts_with("```")).count();
        assert!(fences.is_multiple_of(2), "{name}: a block has no end");
    }
}

/// The commands of a document's blocks, without comments.
fn commands(text: &str) -> Vec<String> {
    let shell = blocks(text)
        .into_iter()
        .filter(|(language, _)| language.is_empty());
    let lines = shell.flat_map(|(_, lines)| lines);
    let code = lines.map(|line| line.split("  #").next().unwrap().trim().to_owned());
    code.filter(|line| !line.is_empty()).collect()
}

/// What stands between backticks in the text around the blocks.
fn quoted(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("    ") && !line.starts_with("```"));
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

fn countersign() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.env_remove("COUNTERSIGN_LOG");
    command
}

/// A gateway started as the README says; killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What the README's reader has: the folder with the file, and what was printed so far.
struct Reader {
    folder: tempfile::TempDir,
    key: String,
    token: String,
    running: Option<(Running, SocketAddr, SocketAddr)>,
}

impl Reader {
    /// Runs a line in a shell, with the places of this machine in it; what it prints.
    fn shell(&self, line: &str) -> String {
        let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(self.folder.path())
            .env(
                "PATH",
                format!("{}:{path}", binary.parent().unwrap().display()),
            )
            .env("ACME_TOKEN_KEY", TOKEN_KEY)
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("http_proxy")
            .env_remove("COUNTERSIGN_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{line}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    /// The file of the README, before the emulated site and with the digest that was printed.
    fn write_file(&self, text: &str, site: SocketAddr, digest: &str) {
        let secret = self.folder.path().join("acme_token_secret");
        write_private(&secret, TOKEN_SECRET);
        let mut text = text.to_owned();
        for (documented, here) in [
            ("https://acme.mindtouch.us", format!("http://{site}")),
            (
                "/etc/countersign/acme_token_secret",
                secret.display().to_string(),
            ),
            ("…the digest…", digest.to_owned()),
            ("127.0.0.1:8080", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:9901", "127.0.0.1:0".to_owned()),
        ] {
            assert!(
                text.contains(documented),
                "{documented} in the README's file"
            );
            text = text.replace(documented, &here);
        }
        std::fs::write(self.folder.path().join("proxy.yaml"), text).unwrap();
    }

    fn run(&mut self) {
        let mut child = countersign()
            .arg("run")
            .current_dir(self.folder.path())
            .env("ACME_TOKEN_KEY", TOKEN_KEY)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = Running(child);
        let (tell, told) = mpsc::channel();
        // It reads on when nobody waits any more, so that the program can.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                drop(tell.send(line));
            }
        });
        let address = |message: &str| loop {
            let line = told.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("it never says that it is {message}"));
            if let Some((_, address)) = line.split_once(message) {
                return address
                    .trim()
                    .trim_start_matches("address=")
                    .parse()
                    .unwrap();
            }
        };
        let callers = address("listening ");
        let operators = address("listening for operators ");
        self.running = Some((running, callers, operators));
    }

    /// Does what the README says; every command of it is known here.
    fn obey(&mut self, line: &str) {
        let (callers, operators) = match &self.running {
            Some((_, callers, operators)) => (callers.to_string(), operators.to_string()),
            None => Default::default(),
        };
        if line.starts_with("make ") {
            assert!(is_target(line), "{line}");
        } else if line == "countersign run" {
            self.run();
        } else if line == "countersign health" {
            let said = self.shell(&format!("{line} http://{operators}/readyz"));
            assert!(said.contains("\"ready\":true"), "{said}");
            let asked = countersign().args(["health", "--help"]).output().unwrap();
            let help = String::from_utf8(asked.stdout).unwrap();
            assert!(
                help.contains("http://127.0.0.1:9901/readyz"),
                "the file's address is asked: {help}"
            );
        } else if line.starts_with("curl ") {
            assert!(
                line.contains("127.0.0.1:8080") && line.contains("cs_…"),
                "{line}"
            );
            let line = line
                .replace("127.0.0.1:8080", &callers)
                .replace("cs_…", &self.key);
            let said = self.shell(&line);
            assert!(said.contains("\"username\":\"crm-bot\""), "{line}: {said}");
        } else if line.starts_with("countersign token mint ") {
            self.token = self.shell(line).trim().to_owned();
            assert!(self.token.starts_with("tkn_"), "{}", self.token);
        } else if line.starts_with("countersign token verify ") {
            if self.token.is_empty() {
                self.token = self
                    .shell("countersign token mint --user 1")
                    .trim()
                    .to_owned();
            }
            assert!(line.contains("tkn_…"), "{line}");
            let said = self.shell(&line.replace("tkn_…", &self.token));
            assert!(said.contains("valid\n"), "{said}");
        } else if line == "countersign check" {
            assert!(self.shell(line).contains("proxy.yaml is usable"));
        } else if line == "countersign check --route crm" {
            assert!(self.shell(line).contains("\n  GET     users/current\n"));
        } else {
            panic!("a command of the README that nobody tries: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_from_top_to_bottom() {
    if Command::new("curl").arg("--version").output().is_err() {
        cannot(Need::Clients, "the README's commands: they need curl");
        return;
    }
    let emulator = Emulator::bind(Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Options::default()
    })
    .await
    .unwrap();
    let site = emulator.local_addr();
    tokio::spawn(emulator.serve(std::future::pending()));
    let mut reader = Reader {
        folder: tempfile::tempdir().unwrap(),
        key: String::new(),
        token: String::new(),
        running: None,
    };
    let mut digest = String::new();
    let mut obeyed = 0;
    for (language, lines) in blocks(&document("README.md")) {
        match language.as_str() {
            "yaml" => reader.write_file(&lines.join("\n"), site, &digest),
            "text" => {}
            "" => {
                for line in commands(&format!("\n    {}", lines.join("\n    "))) {
                    obeyed += 1;
                    if line == "countersign key new salesforce" {
                        let said = reader.shell(&line);
                        let words = said.split([' ', '\n', '"']);
                        reader.key = words
                            .clone()
                            .find(|word| word.starts_with("cs_"))
                            .unwrap()
                            .to_owned();
                        digest = words
                            .clone()
                            .find(|word| word.len() == 64)
                            .unwrap()
                            .to_owned();
                    } else {
                        reader.obey(&line);
                    }
                }
            }
            other => panic!("a block of {other} in the README that nobody tries"),
        }
    }
    assert!(obeyed >= 8, "{obeyed}");
}

/// The page's commands one after the other, in an empty folder, before a port of this test's.
#[test]
fn the_page_about_tls_from_top_to_bottom() {
    for (program, version) in [("curl", "--version"), ("openssl", "version")] {
        if Command::new(program).arg(version).output().is_err() {
            cannot(
                Need::Clients,
                "the commands of docs/tls.md: they need curl and openssl",
            );
            return;
        }
    }
    let mut reader = Reader {
        folder: tempfile::tempdir().unwrap(),
        key: String::new(),
        token: String::new(),
        running: None,
    };
    let folder = reader.folder.path().to_owned();
    let secret = folder.join("secret");
    write_private(&secret, TOKEN_SECRET);
    let mut said = Vec::new();
    for (language, lines) in blocks(&document("docs/tls.md")) {
        if language == "yaml" {
            let text = lines
                .join("\n")
                .replace("0.0.0.0:8443", "127.0.0.1:0")
                .replace("/etc/countersign/acme_token_secret", "secret")
                .replace("…the digest…", &"0123456789abcdef".repeat(4))
                + "\nadmin: { address: 127.0.0.1:0 }\n";
            std::fs::write(folder.join("proxy.yaml"), text).unwrap();
            continue;
        }
        for line in lines {
            if line == "countersign run" {
                reader.run();
                continue;
            }
            let port = reader
                .running
                .as_ref()
                .map(|(_, callers, _)| callers.port());
            let line = line.replace("8443", &port.unwrap_or_default().to_string());
            let line = line.replace("curl ", "curl -sS --noproxy '*' ");
            said.push(reader.shell(&line));
        }
    }
    assert_eq!(said.len(), 7, "{said:#?}");
    assert!(said[1].contains("proxy.yaml is usable"), "{}", said[1]);
    assert!(
        said[2].contains("countersign.credential_missing"),
        "{}",
        said[2]
    );
    assert!(
        said[4].contains("= ") && said[4].trim().len() > 64,
        "{}",
        said[4]
    );
    assert!(
        said[5].contains("countersign.credential_missing"),
        "{}",
        said[5]
    );
    assert!(said[6].contains("write https://"), "{}", said[6]);
}

/// The demo's output as the README shows it, but for addresses and what is left out.
#[test]
fn the_demo_prints_what_the_readme_shows() {
    let output = countersign().arg("demo").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let without_ports = |line: &str| {
        let mut pieces = line.split("127.0.0.1:");
        let mut text = pieces.next().unwrap().to_owned();
        for piece in pieces {
            text.push_str(piece.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        text
    };
    let mut printed = printed.lines().map(without_ports);
    let shown = blocks(&document("README.md"));
    let shown = shown.iter().find(|(language, _)| language == "text");
    let shown = &shown.expect("the README shows the demo").1;
    assert!(shown.len() > 10);
    for line in shown.iter().filter(|line| line.trim() != "…") {
        let line = without_ports(line);
        assert!(
            printed.any(|one| one == line),
            "the demo does not print, or not in this order: {line}"
        );
    }
}

/// Whether `make …` names targets that there are; variables may stand there, too.
fn is_target(line: &str) -> bool {
    let makefile = document("Makefile");
    let mut words = line.strip_prefix("make ").unwrap().split_whitespace();
    words.all(|word| {
        word.contains('=')
            || makefile
                .lines()
                .any(|line| line.starts_with(&format!("{word}:")))
    })
}

/// Whether `countersign …` names a command that there is, with options that it has.
fn is_command(line: &str) -> bool {
    let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words.retain(|word| !matches!(*word, "&" | "…"));
    let command = words
        .iter()
        .take_while(|word| !word.starts_with('-') && word.bytes().all(|b| b.is_ascii_lowercase()));
    // Names of things come after the command: `key new salesforce`.
    let depth = usize::from(matches!(
        words.first(),
        Some(&("emulate" | "key" | "token"))
    )) + 1;
    let command: Vec<&str> = command.take(depth).copied().collect();
    let output = countersign().args(&command).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let options = words.iter().filter(|word| word.starts_with("--"));
    let mut options = options.map(|word| word.split('=').next().unwrap());
    output.status.success() && options.all(|option| help.contains(option))
}

#[test]
fn what_documents_call_is_there() {
    let mut seen = 0;
    let mut texts = documents();
    // Their heads hold commands, too.
    for name in [
        "proxy.yaml",
        "docker-compose.yml",
        "Dockerfile",
        "deploy/countersign.service",
    ] {
        let comments = document(name);
        let comments = comments.lines().filter_map(|line| line.strip_prefix('#'));
        let text: Vec<_> = comments
            .map(|line| line.replacen("   ", "    ", 1))
            .collect();
        texts.push((name.to_owned(), text.join("\n")));
    }
    for (name, text) in texts {
        let mut lines = commands(&text);
        lines.extend(quoted(&text).into_iter().map(str::to_owned));
        for line in lines {
            let good = if line.starts_with("make ") {
                is_target(&line)
            } else if line.starts_with("countersign ") && !line.starts_with("countersign.") {
                is_command(&line)
            } else if line.starts_with("docker-compose ") {
                names_services(&line)
            } else {
                continue;
            };
            assert!(good, "{name}: {line}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

/// Whether the service that comes last, and the profiles, are in docker-compose.yml.
fn names_services(line: &str) -> bool {
    let compose = document("docker-compose.yml");
    let services = compose.split_once("\nservices:").unwrap().1;
    let service = line.split_whitespace().last().unwrap();
    let mut profiles = line
        .split("--profile ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap());
    services.contains(&format!("\n  {service}:\n"))
        && profiles.all(|profile| services.contains(&format!("profiles: [{profile}]")))
}

#[test]
fn links_lead_somewhere() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in documents() {
        let folder: PathBuf = top.join(&name).parent().unwrap().to_owned();
        for rest in text.split("](").skip(1) {
            let link = rest.split([')', '#']).next().unwrap();
            if link.starts_with("http") || link.is_empty() {
                continue;
            }
            assert!(folder.join(link).exists(), "{name} links to {link}");
        }
        for path in quoted(&text) {
            let is_path = ["docs/", "tests/", "benches/", "deploy/", ".ci/", "src/"]
                .iter()
                .any(|start| path.starts_with(start));
            if is_path && !path.contains(['*', ' ', '…', '{']) {
                assert!(top.join(path).exists(), "{name} names {path}");
            }
        }
    }
}

/// Each test of the integration binary, as `module::name`, and each module.
fn tests() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let line = line.trim_start_matches("async ");
                if let Some(rest) = line.strip_prefix("fn ") {
                    found.insert(format!("{module}::{}", rest.split('(').next().unwrap()));
                }
            }
            found.insert(format!("{module}::*"));
        }
    }
    found
}

#[test]
fn tests_that_documents_name_are_there() {
    let (tests, mut seen) = (tests(), 0);
    for (name, text) in documents() {
        for word in quoted(&text) {
            let is_name = |part: &str| {
                !part.is_empty()
                    && part.bytes().all(|b| {
                        b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'*'
                    })
            };
            // Of the library's own tests only the modules are named.
            if word.starts_with("gateway::")
                || word.split("::").count() != 2
                || !word.split("::").all(is_name)
            {
                continue;
            }
            assert!(tests.contains(word), "{name} names {word}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// The emulator's faults and what is said of them.
#[test]
fn every_fault_of_the_emulator_is_documented() {
    let names = |text: &str, before: &str| -> BTreeSet<String> {
        text.split(before)
            .skip(1)
            .map(|rest| {
                rest.split(|c: char| !c.is_ascii_alphanumeric())
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let read = names(&document("emulator/src/fault.rs"), "\"emulate.");
    let told = names(&document("docs/emulator.md"), "| `emulate.");
    assert_eq!(read, told);
    assert!(read.len() >= 7);
}

/// Pastes a block of commands into a shell, with `root` in the place of the file system's.
fn paste(block: &[String], root: &Path, answers: &[&str]) -> Option<String> {
    let binary = env!("CARGO_BIN_EXE_countersign");
    let mut text = block.join("\n");
    for (documented, here) in [
        ("target/release/countersign", binary.to_owned()),
        ("/usr/local/bin/", format!("{}/bin/", root.display())),
        (" /etc/", format!(" {}/etc/", root.display())),
        ("\"/etc/", format!("\"{}/etc/", root.display())),
        ("\"secrets/", format!("\"{}/secrets/", root.display())),
        // Giving files away is root's alone.
        ("-o 65532 ", String::new()),
    ] {
        text = text.replace(documented, &here);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pasted.py");
    let path = std::env::var("PATH").unwrap();
    let child = Command::new("python3")
        .arg(script)
        .args(answers)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", format!("{}:{path}", root.join("stubs").display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        cannot(Need::Terminal, "pasting commands: it needs python3");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    input.write_all(b"\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{said}");
    Some(said)
}

/// A root for what the documents install, with stand-ins for what only a real system can do.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "etc/systemd/system", "secrets", "stubs"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let log = root.path().join("called");
    for (name, text) in [("sudo", "exec \"$@\""), ("systemctl", ""), ("cargo", "")] {
        let path = root.path().join("stubs").join(name);
        let text = format!(
            "#!/bin/sh\necho \"{name} $*\" >>'{}'\n{text}\n",
            log.display()
        );
        std::fs::write(&path, text).unwrap();
        let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, may_run).unwrap();
    }
    root
}

/// Pastes those of `blocks` that are commands, one after the other, and looks at the secrets.
fn secrets_are_what_was_typed(blocks: &[(String, Vec<String>)], root: &Path, folder: &str) {
    let mut asked = 0;
    for (_, lines) in blocks {
        let questions = lines
            .iter()
            .filter(|line| line.contains("read -rs"))
            .count();
        let answers: &[&str] = if questions > 0 {
            &[
                "The token key, then=typed key",
                "The token secret, then=  typed secret",
            ]
        } else {
            &[]
        };
        let Some(shown) = paste(lines, root, answers) else {
            return;
        };
        assert!(!shown.contains("typed"), "secrets are not shown: {shown}");
        asked += questions;
    }
    assert_eq!(asked, 1, "one block asks");
    for (name, typed) in [("token_key", "typed key"), ("token_secret", "typed secret")] {
        let path = root.join(folder).join(name);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), typed, "{name}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// The blocks of commands below a heading.
fn section(document: &str, heading: &str) -> Vec<(String, Vec<String>)> {
    let text = document
        .split(&format!("\n## {heading}\n"))
        .nth(1)
        .expect(heading);
    let text = text.split("\n## ").next().unwrap();
    blocks(text)
        .into_iter()
        .filter(|(language, _)| language.is_empty())
        .collect()
}

#[test]
fn the_systemd_blocks_can_be_pasted() {
    let root = root();
    secrets_are_what_was_typed(
        &section(&document("docs/deploy.md"), "systemd"),
        root.path(),
        "etc/countersign/secrets",
    );
    if !root.path().join("called").exists() {
        return;
    }
    for installed in [
        "bin/countersign",
        "etc/countersign/proxy.yaml",
        "etc/systemd/system/countersign.service",
    ] {
        assert!(root.path().join(installed).exists(), "{installed}");
    }
    let called = std::fs::read_to_string(root.path().join("called")).unwrap();
    assert!(
        called.ends_with("systemctl daemon-reload\nsystemctl enable --now countersign\n"),
        "{called}"
    );
}

#[test]
fn the_secrets_of_compose_can_be_pasted() {
    let asks = |blocks: Vec<(String, Vec<String>)>| -> Vec<_> {
        blocks
            .into_iter()
            .filter(|(_, lines)| lines.iter().any(|line| line.contains("secrets/")))
            .collect()
    };
    for blocks in [
        asks(section(&document("docs/deploy.md"), "Docker Compose")),
        asks(blocks(&document("secrets/README.md"))),
    ] {
        let root = root();
        secrets_are_what_was_typed(&blocks, root.path(), "secrets");
    }
}
