//! `countersign check`: every problem of proxy.yaml, and every warning.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigFile, Outcome, complain};
use crate::config::problem::Problem;
use crate::config::{self, Loaded};

/// Say everything that is wrong with the configuration, without starting anything.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    /// Judge the file where its secrets are not, as in CI: what env: and file: refer to is not looked up
    #[arg(long)]
    no_secrets: bool,
}

impl Check {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let file = self.config.config.display().to_string();
        let checked = if self.no_secrets {
            config::judge_without_secrets(&self.config.config)
        } else {
            config::load(&self.config.config).map(Loaded::overview)
        };
        let outcome = if checked.is_ok() {
            Outcome::Good
        } else {
            Outcome::Bad
        };
        if self.json {
            let (problems, warnings) = match &checked {
                Ok(overview) => (&[][..], &overview.warnings[..]),
                Err(unusable) => (&unusable.problems[..], &[][..]),
            };
            let report = json!({
                "file": file,
                "usable": checked.is_ok(),
                "secrets": !self.no_secrets,
                "problems": list(problems),
                "warnings": list(warnings),
            });
            writeln!(out, "{report:#}")?;
            return Ok(outcome);
        }
        match checked {
            Ok(overview) => {
                for warning in &overview.warnings {
                    complain(format_args!("warning: {}", warning.in_file(&file)));
                }
                let proviso = if self.no_secrets {
                    " as far as can be told without its secrets"
                } else {
                    ""
                };
                writeln!(
                    out,
                    "{file} is usable{proviso} ({}, {})",
                    counted(overview.listeners, "listener"),
                    counted(overview.routes, "route"),
                )?;
            }
            Err(unusable) => complain(unusable),
        }
        Ok(outcome)
    }
}

fn list(problems: &[Problem]) -> Value {
    let one = |problem: &Problem| {
        json!({
            "line": problem.line,
            "path": problem.path(),
            "place": problem.place,
            "text": problem.text,
        })
    };
    problems.iter().map(one).collect()
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
