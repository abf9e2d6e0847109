//! Chromium without a window, driven through chromedriver (W3C WebDriver: JSON over HTTP).

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::harness::{Need, Wire, cannot, within};

/// A browser with a profile of its own. It ends with this value, whether the test passes or not.
pub struct Browser {
    session: String,
    driver: Driver,
    /// Dropped behind the driver: the browser writes to it.
    _profile: TempDir,
}

/// chromedriver, and what it started.
struct Driver {
    process: Child,
    address: SocketAddr,
}

/// Says that nothing was tested, and fails where it must not be so.
fn not_run(why: &str) {
    cannot(
        Need::Browser,
        &format!("the browser tests: install chromium and chromium-driver ({why})"),
    );
}

impl Browser {
    /// Starts one that knows only the hosts of `rules` (as for `--host-resolver-rules`) and trusts
    /// the public key with this digest; `None` where none is installed.
    pub async fn open(rules: &str, key_digest: &str) -> Option<Self> {
        let profile = TempDir::new().unwrap();
        let Some(driver) = Driver::start(&profile).await else {
            not_run("there is no chromedriver");
            return None;
        };
        let arguments = [
            "--headless=new".to_owned(),
            // Containers have neither user namespaces nor a large /dev/shm.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            // A page over http stays one.
            "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
            format!("--host-resolver-rules={rules}"),
            format!("--ignore-certificate-errors-spki-list={key_digest}"),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 20_000, "pageLoad": 20_000 },
        } } });
        let created = match driver.command("POST", "/session", &wanted).await {
            Ok(created) => created,
            Err(fault) if fault.contains("cannot find") => {
                not_run("there is no chromium");
                return None;
            }
            Err(fault) => panic!("the browser does not start: {fault}"),
        };
        Some(Self {
            session: format!("/session/{}", created["sessionId"].as_str().unwrap()),
            driver,
            _profile: profile,
        })
    }

    /// Ends it and waits until it has ended.
    pub async fn close(self) {
        self.command("DELETE", "", json!({})).await;
    }

    /// Opens a page and waits until it is loaded.
    pub async fn visit(&self, address: &str) {
        self.command("POST", "/url", json!({ "url": address }))
            .await;
    }

    /// Runs the body of an `async function (argument)` in the page, and returns what it returns.
    pub async fn run(&self, body: &str, argument: &Value) -> Value {
        let script = format!(
            "const done = arguments[1];
             (async (argument) => {{ {body} }})(arguments[0])
                 .then(done, (fault) => done({{ thrown: String(fault) }}));"
        );
        let script = json!({ "script": script, "args": [argument] });
        let result = self.command("POST", "/execute/async", script).await;
        assert!(result["thrown"].is_null(), "{body}: {result}");
        result
    }

    /// The cookies that the browser holds for the page that is open, as `name=value`.
    pub async fn cookies(&self) -> Vec<String> {
        let cookies = self.command("GET", "/cookie", Value::Null).await;
        let text = |cookie: &Value, key: &str| cookie[key].as_str().unwrap().to_owned();
        let cookies = cookies.as_array().unwrap().iter();
        cookies
            .map(|cookie| format!("{}={}", text(cookie, "name"), text(cookie, "value")))
            .collect()
    }

    /// What was written to the console since this was asked last.
    pub async fn console(&self) -> Vec<String> {
        let kind = json!({ "type": "browser" });
        let entries = self.command("POST", "/se/log", kind).await;
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn command(&self, method: &str, path: &str, body: Value) -> Value {
        let path = format!("{}{path}", self.session);
        let answer = self.driver.command(method, &path, &body).await;
        answer.unwrap_or_else(|fault| panic!("{method} {path} {body}: {fault}"))
    }
}

impl Driver {
    async fn start(profile: &TempDir) -> Option<Self> {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            // What it leaves behind goes with the profile.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // The browser joins the group, so that one signal ends all of it.
            .process_group(0)
            .spawn()
            .ok()?;
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut driver = Self {
            process,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in output.lines().map_while(Result::ok) {
                let port = line.split_once("successfully on port ");
                let port = port.and_then(|(_, rest)| rest.trim_end_matches('.').parse().ok());
                if let Some((port, tell)) = port.zip(tell.take_if(|_| port.is_some())) {
                    _ = tell.send(port);
                }
            }
        });
        let port: u16 = within(told).await.expect("chromedriver names its port");
        driver.address.set_port(port);
        Some(driver)
    }

    /// Sends a command; its value, or what went wrong.
    async fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let mut wire = Wire::open(self.address).await;
        wire.write(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        ))
        .await;
        let answer = wire.answer().await;
        let mut answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"])),
            None => Ok(value),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let group = format!("kill -s KILL -- -{}", self.process.id());
        drop(Command::new("sh").args(["-c", &group]).status());
        drop(self.process.wait());
    }
}
