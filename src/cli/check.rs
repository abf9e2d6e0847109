//! `countersign check`: every problem of proxy.yaml, and every warning.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigFile, Outcome, complain};
use crate::config;
use crate::config::problem::Problem;

/// Say everything that is wrong with the configuration, without starting anything.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let file = self.config.config.display().to_string();
        let checked = config::load(&self.config.config);
        let outcome = if checked.is_ok() {
            Outcome::Good
        } else {
            Outcome::Bad
        };
        if self.json {
            let (problems, warnings) = match &checked {
                Ok(loaded) => (&[][..], &loaded.warnings[..]),
                Err(unusable) => (&unusable.problems[..], &[][..]),
            };
            let report = json!({
                "file": file,
                "usable": checked.is_ok(),
                "problems": list(problems),
                "warnings": list(warnings),
            });
            writeln!(out, "{report:#}")?;
            return Ok(outcome);
        }
        match checked {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    complain(format_args!("warning: {warning}"));
                }
                writeln!(
                    out,
                    "{file} is usable ({}, {})",
                    counted(loaded.settings.listeners.len(), "listener"),
                    counted(loaded.policy.routes().count(), "route"),
                )?;
            }
            Err(unusable) => complain(unusable),
        }
        Ok(outcome)
    }
}

fn list(problems: &[Problem]) -> Value {
    problems
        .iter()
        .map(|problem| json!({"place": problem.place, "text": problem.text}))
        .collect()
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
