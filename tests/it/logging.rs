//! The log as its reader gets it: one line of JSON for each exchange; and a reader that stalls, or
//! goes, costs lines and nothing else.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{PATIENCE, Wire, within};

/// The built program.
struct Program {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

/// A file with one route, before a site that is not there.
pub fn file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    let digest = countersign::policy::caller::KeyDigest::of(b"cs_a_key_of_a_caller").to_hex();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         sites: {{ acme: {{ url: \"http://127.0.0.1:1\", server_tokens: [{{ key: env:LOGGED_KEY, secret: env:LOGGED_SECRET }}] }} }}\n\
         callers: {{ crm: {{ api_key: {{ sha256: \"{digest}\" }}, acts_as: \"7\" }} }}\n\
         routes: [{{ name: all, mount: /all, site: acme, token: server, callers: [crm], allow: [all] }}]\n\
         log: {{ paths: full }}\n\
         limits: {{ unidentified: {{ requests_per_second: 1000000, burst: 1000000 }} }}\n"
    );
    std::fs::write(&path, text).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

impl Program {
    fn start() -> (Self, Log) {
        let (folder, path) = file();
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["run", "--log-format", "json", "--config", &path])
            .env("LOGGED_KEY", "a")
            .env("LOGGED_SECRET", "b")
            .env_remove("COUNTERSIGN_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = Log(BufReader::new(child.stdout.take().unwrap()).lines());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut program = Self {
            child,
            address: nowhere,
            admin: nowhere,
            folder,
        };
        let mut address = |message: &str| {
            let event = std::iter::from_fn(|| log.next()).find(|event| event["message"] == message);
            let event = event.expect("it says where it listens");
            event["address"].as_str().unwrap().parse().unwrap()
        };
        program.address = address("listening");
        program.admin = address("listening for operators");
        (program, log)
    }

    /// Makes so many calls without a credential, one after the other.
    async fn calls(address: SocketAddr, count: usize, path: &str) {
        let mut wire = Wire::open(address).await;
        for _ in 0..count {
            wire.write(format!("GET /all{path} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .await;
            wire.answer().await.refused(401, "credential_missing");
        }
    }

    async fn is_alive(&self) {
        let mut wire = Wire::open(self.admin).await;
        wire.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
    }

    fn tell_to_stop(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(told.success());
    }

    async fn ended_well(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The end of the pipe that its log goes to.
struct Log(Lines<BufReader<ChildStdout>>);

impl Log {
    /// The next event, each of which is a line of JSON; but for the one that the site cannot be reached.
    fn next(&mut self) -> Option<Value> {
        loop {
            let line = self.0.next()?.unwrap();
            let event: Value = serde_json::from_str(&line).expect(&line);
            for name in ["timestamp", "level", "message", "target"] {
                assert!(event[name].is_string(), "{name}: {line}");
            }
            if event["cause"] != "connect_refused" {
                return Some(event);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_of_json_for_each_exchange() {
    let (mut program, mut log) = Program::start();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let address = program.address;
            tokio::spawn(Program::calls(address, 200, "/@api/deki/pages/home"))
        })
        .collect();
    for calls in calls {
        within(calls).await.unwrap();
    }
    program.tell_to_stop();
    let mut ids = BTreeSet::new();
    let mut told = Vec::new();
    while let Some(event) = log.next() {
        told.push(event["message"].as_str().unwrap().to_owned());
        if event["message"] == "exchange" {
            assert_eq!(event["client"], "127.0.0.1");
            assert!(event.get("user").is_none(), "what is unknown is left out");
            ids.insert(event["request_id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(told.last().unwrap(), "stopped", "the last line is written");
    assert_eq!(ids.len(), 800);
    told.retain(|message| message == "exchange");
    assert_eq!(told.len(), 800, "one for each");
    program.ended_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_misses_lines() {
    let (mut program, mut log) = Program::start();
    let path = format!("/@api/deki/pages/{}", "x".repeat(4000));
    Program::calls(program.address, 1, &path).await;
    let one = log.next().unwrap().to_string().len();
    // Nobody reads from here on, and what is written does not fit in the pipe and twice the queue.
    let sent = (9 << 20) / one + 100;
    Program::calls(program.address, sent, &path).await;
    program.is_alive().await;
    let (mut read, mut lost) = (0, 0);
    while read + lost < sent {
        let event = log.next().unwrap();
        match event["message"].as_str().unwrap() {
            "exchange" => read += 1,
            _ => {
                assert_eq!(event["level"], "WARN");
                assert_eq!(lost, 0, "it is said once: {event}");
                lost = usize::try_from(event["lines"].as_u64().unwrap()).unwrap();
            }
        }
    }
    assert_eq!(read + lost, sent, "each line is there or counted");
    assert!(lost > 0 && read > 100, "{read} read, {lost} lost");
    Program::calls(program.address, 1, &path).await;
    assert_eq!(log.next().unwrap()["message"], "exchange");
    program.tell_to_stop();
    while let Some(event) = log.next() {
        assert!(event["message"].as_str().unwrap().starts_with("stop"));
    }
    program.ended_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_does_not_hold_up_the_end() {
    let (mut program, log) = Program::start();
    let path = format!("/@api/deki/pages/{}", "x".repeat(4000));
    Program::calls(program.address, 3000, &path).await;
    program.is_alive().await;
    program.tell_to_stop();
    let since = Instant::now();
    program.ended_well().await;
    assert!(since.elapsed() < Duration::from_secs(10));
    drop(log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_the_file_read_again() {
    let (mut program, mut log) = Program::start();
    let file = program.folder.path().join("proxy.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let mut told = |message: &str| {
        let event = log.next().unwrap();
        let said = event["message"].as_str().unwrap();
        assert!(said.starts_with(message), "{message}: {event}");
    };
    program.signal("-HUP");
    told("configuration read again: it is unchanged");
    std::fs::write(&file, good.replace("acts_as: \"7\"", "acts_as: \"8\"")).unwrap();
    program.signal("-HUP");
    // A warning of the file, as at the start.
    told("callers of this route");
    told("configuration reloaded");
    std::fs::write(&file, "no").unwrap();
    program.signal("-HUP");
    told("the configuration cannot be used");
    told("");
    Program::calls(program.address, 1, "/@api/deki/pages/home").await;
    told("exchange");
    program.tell_to_stop();
    program.ended_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_ends_nothing() {
    let (mut program, log) = Program::start();
    drop(log);
    for _ in 0..10 {
        Program::calls(program.address, 10, "/@api/deki/pages/home").await;
    }
    program.is_alive().await;
    program.tell_to_stop();
    program.ended_well().await;
}
