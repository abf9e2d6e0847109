//! `countersign demo`: an emulated site and the gateway on free ports, calls and attacks, and what
//! came of each. It runs with the very proxy.yaml that lies at the top of the repository.

mod calls;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use tokio::sync::oneshot;

use self::calls::{Arrives, CALLS, Call};
use super::{Outcome, complain, runtime};
use crate::client::{self, Answer};
use crate::config::reference::Sources;
use crate::config::{self, Loaded};
use crate::server::Server;
use crate::telemetry::may_colour;
use countersign_emulator::{
    Arrival, BROWSER_KEY, Emulator, Journal, Options, TOKEN_KEY, TOKEN_SECRET,
};

/// Start an emulated site and the gateway, make calls and attacks, and show what came of each.
///
/// Needs no account, no network and no configuration. Ends with 0 only if each call went as it should.
#[derive(Args, Debug)]
pub struct Demo {
    /// Call a gateway that runs already, with the demo's proxy.yaml, instead of starting one
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

impl Demo {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        runtime()?.block_on(async {
            match self.gateway {
                Some(url) => {
                    let url = url.trim_end_matches('/').to_owned();
                    writeln!(out, "Calling the gateway at {url}.\n")?;
                    let stage = Stage { url, journal: None };
                    stage.play(out).await
                }
                None => on_this_machine(out).await,
            }
        })
    }
}

/// Starts both, plays, and stops both.
async fn on_this_machine(out: &mut dyn Write) -> std::io::Result<Outcome> {
    let emulator = Emulator::bind(Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        ..Options::default()
    })
    .await?;
    let site = emulator.local_addr();
    let server = match configure(site) {
        Ok(loaded) => Server::bind(&loaded.settings, loaded.policy)
            .await
            .map_err(|fault| fault.to_string()),
        Err(unusable) => Err(unusable.to_string()),
    };
    let server = match server {
        Ok(server) => server,
        Err(fault) => {
            complain(fault);
            return Ok(Outcome::Bad);
        }
    };
    let gateway = server.addresses()[0];
    writeln!(
        out,
        "An emulated MindTouch site listens on http://{site}, the gateway before it on http://{gateway}.\n\
         Both are real servers on this machine; what follows are real HTTP requests to the gateway.\n"
    )?;
    let stage = Stage {
        url: format!("http://{gateway}"),
        journal: Some(emulator.journal()),
    };
    let (stop_site, site_stopped) = oneshot::channel::<()>();
    let (stop_gateway, gateway_stopped) = oneshot::channel::<()>();
    // Dropping the sender tells as much as sending would.
    let emulating = tokio::spawn(emulator.serve(async move { drop(site_stopped.await) }));
    let serving = tokio::spawn(server.serve(async move { drop(gateway_stopped.await) }));
    let outcome = stage.play(out).await;
    drop(stop_gateway);
    serving.await.map_err(std::io::Error::other)?;
    drop(stop_site);
    emulating.await.map_err(std::io::Error::other)?;
    outcome
}

/// The example file with free ports, and with the emulator's secrets in place of their files.
fn configure(site: SocketAddr) -> Result<Loaded, config::Unusable> {
    let text = EXAMPLE
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("admin: { address: 127.0.0.1:9901 }", "")
        .replace("127.0.0.1:8088", &site.to_string())
        .replace("file:deploy/emulator/", "env:");
    let environment = |name: &str| match name {
        "token_key" => Some(TOKEN_KEY.to_owned()),
        "token_secret" => Some(TOKEN_SECRET.to_owned()),
        "browser_key" => Some(BROWSER_KEY.to_owned()),
        _ => None,
    };
    let sources = Sources {
        environment: &environment,
        folder: PathBuf::new(),
    };
    config::load_text("proxy.yaml", &text, &sources)
}

const EXAMPLE: &str = include_str!("../../proxy.yaml");

/// A gateway to call, and what is known of the site behind it.
struct Stage {
    url: String,
    journal: Option<Journal>,
}

impl Stage {
    async fn play(&self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let mut failed = 0;
        for (index, call) in CALLS.iter().enumerate() {
            if let Some(part) = call.part {
                writeln!(out, "{part}")?;
            }
            let seen = self.make(call).await;
            let faults = seen.as_ref().map_or_else(
                |fault| vec![fault.clone()],
                |(answer, arrivals)| call.faults(answer, arrivals.as_deref()),
            );
            let mark = match (faults.is_empty(), may_colour(&std::io::stdout())) {
                (true, false) => "ok  ",
                (true, true) => "\x1b[32mok\x1b[0m  ",
                (false, false) => "FAIL",
                (false, true) => "\x1b[31mFAIL\x1b[0m",
            };
            writeln!(out, "{:3} {mark} {}", index + 1, call.about)?;
            writeln!(out, "         {} {}", call.method, call.target)?;
            if let Ok((answer, arrivals)) = &seen {
                writeln!(out, "         {}", told(answer, arrivals.as_deref()))?;
            }
            for fault in &faults {
                writeln!(out, "         but {fault}")?;
            }
            failed += usize::from(!faults.is_empty());
        }
        writeln!(out)?;
        if failed > 0 {
            writeln!(
                out,
                "{failed} of {} calls did not go as they should.",
                CALLS.len()
            )?;
            return Ok(Outcome::Bad);
        }
        writeln!(
            out,
            "All {} calls went as they should: what was allowed arrived signed, the rest was refused at the gateway.",
            CALLS.len()
        )?;
        Ok(Outcome::Good)
    }

    /// Makes a call, and finds what of it arrived at the site.
    async fn make(&self, call: &Call) -> Result<(Answer, Option<Vec<Arrival>>), String> {
        if let Some(journal) = &self.journal {
            drop(journal.take());
        }
        let url = format!("{}{}", self.url, call.target);
        let method = call.method.parse().map_err(|_| "the method is none")?;
        let answer = client::send(method, &url, call.headers, call.body).await?;
        let mut arrivals = self.journal.as_ref().map(Journal::take);
        if let Some(arrivals) = &mut arrivals {
            arrivals.retain(|arrival| !is_probe(arrival));
        }
        Ok((answer, arrivals))
    }
}

/// Whether the gateway asked this for itself.
fn is_probe(arrival: &Arrival) -> bool {
    let mut fields = arrival.headers.iter();
    fields.any(|(name, value)| name == "user-agent" && value.ends_with("probe)"))
}

/// What came of a call, in one line.
fn told(answer: &Answer, arrivals: Option<&[Arrival]>) -> String {
    let mut line = match answer.header("x-countersign-refusal") {
        "" => answer.status.to_string(),
        code => format!("{} {code}", answer.status),
    };
    match arrivals {
        None => {}
        Some([]) => line.push_str("; nothing reached the site"),
        Some(arrivals) => {
            for arrival in arrivals {
                line.push_str("; reached the site with ");
                line.push_str(calls::token_name(arrival));
                line.push_str(", as ");
                line.push_str(arrival.user.as_deref().unwrap_or("nobody"));
            }
        }
    }
    line
}

impl Call {
    /// What went otherwise than it should; empty if nothing did.
    fn faults(&self, answer: &Answer, arrivals: Option<&[Arrival]>) -> Vec<String> {
        let mut faults = Vec::new();
        if answer.status != self.status {
            faults.push(format!("the status should be {}", self.status));
        }
        let code = answer.header("x-countersign-refusal");
        if code != self.refusal {
            faults.push(match self.refusal {
                "" => "it should not be refused".to_owned(),
                expected => format!("it should be refused as {expected}"),
            });
        }
        if !answer.text().contains(self.shows) {
            faults.push(format!("the answer should show {:?}", self.shows));
        }
        if let Some((name, value)) = self.answer_header
            && answer.header(name) != value
        {
            faults.push(format!("the answer should have {name}: {value}"));
        }
        for leak in ["set-cookie", "x-deki-token", "x-deki-site", "server"] {
            if answer.headers.contains_key(leak) {
                faults.push(format!("the answer should not have {leak}"));
            }
        }
        if let Some(arrivals) = arrivals {
            faults.extend(self.arrives.faults(arrivals));
        }
        faults
    }
}

impl Arrives {
    fn faults(self, arrivals: &[Arrival]) -> Option<String> {
        match (self, arrivals) {
            (Self::Nothing, []) => None,
            (Self::Nothing, _) => Some("nothing should reach the site".to_owned()),
            (Self::Signed(user), [arrival]) if calls::is_signed(arrival, user) => None,
            (Self::Signed(user), _) => Some(format!(
                "the site should get one request, well signed, as {user}"
            )),
            (Self::FromPage, [arrival]) if calls::is_from_page(arrival) => None,
            (Self::FromPage, _) => {
                Some("the site should get one request with the browser token".to_owned())
            }
        }
    }
}
