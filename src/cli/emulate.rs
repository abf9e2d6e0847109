//! `countersign emulate`: a small MindTouch site on this machine, and tokens of the identity provider
//! beside it.

use std::io::Write;
use std::net::SocketAddr;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value};
use tracing::info;

use super::{Log, Outcome, complain, runtime, told_to_stop};
use crate::client::{self, Ask};
use countersign_emulator::{Emulator, Options};

/// Run an emulated MindTouch site, for development without one.
///
/// It verifies tokens as the site does, keeps its pages in memory, and plays faults on demand
/// (?emulate.status=503, ?emulate.delay=2000). Its token and its secret are printed in the
/// documentation: it is for development only.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Emulate {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// How far its clock is off, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    clock_skew: i64,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Have a running emulated site sign a token, as an identity provider would, and print it
    Token(Token),
}

/// Have a running emulated site sign a token, as an identity provider would, and print it.
///
/// The claims iss, aud, iat and exp are added where they are not given.
#[derive(Args, Debug)]
struct Token {
    /// A claim, such as azp=crm, exp=1790000000 or roles=["reader"]: JSON where it reads as such, else text
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// Where the emulated site listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8088")]
    emulator: String,
}

impl Token {
    fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let mut claims = Map::new();
        for claim in &self.claims {
            let Some((name, value)) = claim.split_once('=') else {
                complain("a claim is NAME=VALUE, such as azp=crm");
                return Ok(Outcome::Bad);
            };
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            claims.insert(name.to_owned(), value);
        }
        let url = format!("{}/emulate/token", self.emulator.trim_end_matches('/'));
        let ask = Ask {
            body: Value::Object(claims).to_string().into(),
            ..Ask::new(Method::POST, &url)
        };
        match runtime()?.block_on(client::ask(&ask)) {
            Ok(answer) if answer.status == 200 => {
                write!(out, "{}", answer.text())?;
                Ok(Outcome::Good)
            }
            Ok(answer) => {
                complain(format_args!(
                    "the emulated site at {} issues no token: {}",
                    self.emulator,
                    answer.text().trim_end()
                ));
                Ok(Outcome::Bad)
            }
            Err(fault) => {
                complain(format_args!(
                    "{fault}; start the emulated site with countersign emulate, or name it with --emulator"
                ));
                Ok(Outcome::Bad)
            }
        }
    }
}

impl Emulate {
    pub(super) fn run(self) -> std::io::Result<Outcome> {
        if let Some(Command::Token(token)) = self.command {
            return token.run(&mut std::io::stdout().lock());
        }
        // Until the command has ended, however it does.
        let _log = self.log.install()?;
        let options = Options {
            listen: self.listen,
            clock_skew_seconds: self.clock_skew,
            ..Options::default()
        };
        runtime()?.block_on(async {
            let stop = told_to_stop();
            let emulator = match Emulator::bind(options).await {
                Ok(emulator) => emulator,
                Err(error) => {
                    complain(format_args!(
                        "cannot listen on {}: {error}; choose another address with --listen",
                        self.listen
                    ));
                    return Ok(Outcome::Bad);
                }
            };
            info!(address = %emulator.local_addr(), "emulated site listening");
            emulator.serve(stop).await;
            Ok(Outcome::Good)
        })
    }
}
