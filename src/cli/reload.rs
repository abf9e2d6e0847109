//! `countersign reload`: has a running gateway read its file again, and says what that changed.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{ConfigFile, Outcome, complain, runtime};
use crate::client;
use crate::config;

/// Have the running gateway of this configuration read it again.
///
/// It is asked at the address of `admin`, with its token. Exit code 1 if the file cannot be used: then the
/// gateway goes on as before.
#[derive(Args, Debug)]
pub struct Reload {
    #[command(flatten)]
    config: ConfigFile,
}

impl Reload {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let admin = match config::load_admin(&self.config.config) {
            Ok(Some(admin)) => admin,
            Ok(None) => {
                complain(
                    "the configuration has no admin address to ask at; add admin: { address: 127.0.0.1:9901 } and restart, or send the gateway SIGHUP",
                );
                return Ok(Outcome::Bad);
            }
            Err(unusable) => {
                complain(unusable);
                return Ok(Outcome::Bad);
            }
        };
        let url = format!("http://{}/reload", reachable(admin.address));
        let token = admin.token.map(|token| token.as_bearer());
        let presented = token.iter().map(|token| ("Authorization", token.as_str()));
        let headers: Vec<_> = presented.collect();
        let asked = runtime()?.block_on(client::send(Method::POST, &url, &headers, ""));
        let answer = match asked {
            Ok(answer) => answer,
            Err(fault) => {
                complain(format_args!(
                    "the gateway cannot be asked at {}: {fault}; if admin was changed, restart it",
                    admin.address
                ));
                return Ok(Outcome::Bad);
            }
        };
        let report: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
        match answer.status {
            200 => {
                self.tell(&report, out)?;
                Ok(Outcome::Good)
            }
            422 => {
                let file = self.config.config.display();
                complain(format_args!(
                    "{file} is not usable; the gateway goes on as before"
                ));
                self.list(&report["problems"], "");
                Ok(Outcome::Bad)
            }
            status => {
                let error = report["error"].as_str().unwrap_or("no reason given");
                complain(format_args!("the gateway answered {status}: {error}"));
                Ok(Outcome::Bad)
            }
        }
    }

    /// Says what is different now.
    fn tell(&self, report: &Value, out: &mut dyn Write) -> std::io::Result<()> {
        self.list(&report["warnings"], "warning: ");
        let is_unchanged = report["outcome"] == "unchanged";
        let mut lines = changes(&report["changes"]);
        if lines.is_empty() && !is_unchanged {
            lines.push(
                "only what is never shown, such as a secret, or nothing that counts".to_owned(),
            );
        }
        let head = match is_unchanged {
            true => "unchanged",
            false => "reloaded; what changed:",
        };
        writeln!(out, "{head}")?;
        for line in lines {
            writeln!(out, "  {line}")?;
        }
        let restart = texts(&report["restart"]);
        if !restart.is_empty() {
            writeln!(out, "waits for a restart: {}", restart.join(", "))?;
        }
        Ok(())
    }

    fn list(&self, problems: &Value, what: &str) {
        let file = self.config.config.display();
        for problem in problems.as_array().into_iter().flatten() {
            let line = problem["line"].as_u64();
            let line = line.map_or(String::new(), |line| format!("{line}:"));
            let place = match problem["place"].as_str() {
                None | Some("") => String::new(),
                Some(place) => format!("{place}: "),
            };
            let text = problem["text"].as_str().unwrap_or_default();
            complain(format_args!("{what}{file}:{line} {place}{text}"));
        }
    }
}

fn changes(changes: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in ["routes", "callers", "sites"] {
        for how in ["added", "removed", "changed"] {
            let names = texts(&changes[kind][how]);
            if !names.is_empty() {
                lines.push(format!("{kind} {how}: {}", names.join(", ")));
            }
        }
    }
    if changes["limits"] == true {
        lines.push("limits".to_owned());
    }
    lines
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// Where to reach from here what listens there: at every address means at this machine's own, too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
