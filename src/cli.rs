//! The command line, one file per command.
//!
//! What a command has to say goes to standard output, what is wrong to standard error. Exit codes:
//! 0 good, 1 problems or a refusal, 2 usage.

pub mod capabilities;
pub mod check;
pub mod demo;
pub mod emulate;
pub mod health;
pub mod key;
pub mod reload;
pub mod run;
pub mod token;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::telemetry::{self, LogFormat, LogWriter};

/// A signing reverse proxy for the MindTouch API (NICE CXone Expert).
///
/// CRM integrations call it with a credential of their own; it decides whether they may and as which
/// MindTouch user, removes what they must not send, signs with the site's server token, forwards,
/// and cleans the answer.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    arg_required_else_help = true,
    after_help = "See it work: countersign demo\nExit codes: 0 good, 1 problems or a refusal, 2 usage"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::Run),
    /// Say everything that is wrong with proxy.yaml
    Check(check::Check),
    /// List the built-in capabilities, and what each covers
    Capabilities(capabilities::Capabilities),
    /// Run an emulated MindTouch site, for development without one
    Emulate(emulate::Emulate),
    /// Start an emulated site and the gateway, make some calls, and show what came of each
    Demo(demo::Demo),
    /// Make keys for callers
    #[command(subcommand)]
    Key(key::Key),
    /// Make and examine MindTouch server tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Have a running gateway read its file again, and say what that changed
    Reload(reload::Reload),
    /// Ask a running gateway whether it is ready; for container health checks
    Health(health::Health),
}

/// Which file to read.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "proxy.yaml")]
    pub config: PathBuf,
}

/// How events are written.
#[derive(Args, Clone, Copy, Debug)]
pub struct Log {
    /// Events as text for people (on standard error) or as JSON lines for machines (on standard output)
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Text,
}

impl Log {
    /// Begins the log, which ends with what is returned.
    fn install(self) -> std::io::Result<LogWriter> {
        telemetry::install(match self.log_format {
            Format::Json => LogFormat::Json,
            Format::Text => LogFormat::Text,
        })
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// With problems, or a refusal.
    Bad,
}

/// Runs the command that `arguments` (the program's name first) spell.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version are asked for and good; what cannot be printed cannot be told.
            drop(usage.print());
            return if usage.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let mut out = std::io::stdout().lock();
    let ended = match cli.command {
        Command::Run(command) => {
            // Its events go to the same place from other threads.
            drop(out);
            command.run()
        }
        Command::Emulate(command) => {
            drop(out);
            command.run()
        }
        Command::Check(command) => command.run(&mut out),
        Command::Capabilities(command) => command.run(&mut out),
        Command::Demo(command) => command.run(&mut out),
        Command::Key(command) => command.run(&mut out),
        Command::Token(command) => command.run(&mut out),
        Command::Reload(command) => command.run(&mut out),
        Command::Health(command) => command.run(&mut out),
    };
    match ended {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        // The reader of a pipe went away, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error what is wrong.
fn complain(what: impl std::fmt::Display) {
    // Nobody is left to tell if that fails.
    drop(writeln!(std::io::stderr(), "{what}"));
}

/// A runtime for one command.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// Resolves when the program is told to stop, by SIGTERM or SIGINT; a second one ends it at once.
///
/// They are caught from the call on, not only while the future is waited for.
fn told_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let caught = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async {
        let (Ok(mut term), Ok(mut int)) = caught else {
            complain("signals cannot be waited for; end the program with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            complain("told to stop twice; ending at once");
            std::process::exit(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
