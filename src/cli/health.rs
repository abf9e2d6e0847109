//! `countersign health`: asks a running gateway whether it is ready, where there is no curl.

use std::io::Write;

use clap::Args;
use http::Method;

use super::{Outcome, complain, runtime};
use crate::client;

/// Ask a running gateway whether it is ready; for container health checks.
#[derive(Args, Debug)]
pub struct Health {
    /// What to ask; http only, a status below 300 is good
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9901/readyz")]
    url: String,
}

impl Health {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let asked = runtime()?.block_on(client::send(Method::GET, &self.url, &[], ""));
        match asked {
            Ok(answer) => {
                writeln!(out, "{}", answer.text().trim_end())?;
                Ok(if answer.status < 300 {
                    Outcome::Good
                } else {
                    Outcome::Bad
                })
            }
            Err(fault) => {
                complain(format_args!("not healthy: {fault}"));
                Ok(Outcome::Bad)
            }
        }
    }
}
