//! The built program side by side with HAProxy and nginx, which are configured for the same job: find the caller by
//! the digest of its key, strip what it must not send, sign, forward, write one JSON line.
//!
//! `make bench-compare` installs what is missing and runs it; docs/performance.md says how it measures and how to read
//! the table, which goes to standard output. `ROUNDS=9` takes longer and is steadier, `QUICK=1` only looks whether
//! everything works. Whatever the figures are, it ends with success: it fails if one of the three does not do the job,
//! or cannot run.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]

mod count;
mod countersign;
mod haproxy;
mod load;
mod measure;
mod nginx;
mod process;
mod proof;
mod scene;
mod secured;
mod site;
mod streams;
mod table;

use std::process::ExitCode;

/// What went wrong, in words.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let ended = match arguments.first().map(String::as_str) {
        Some(site::ARGUMENT) => site::run(),
        Some("side-by-side") => compare(),
        // `cargo bench` without more: it takes minutes, and needs the other two.
        _ => {
            println!("compare: not run; `make bench-compare` does");
            Ok(())
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Outcome<()> {
    let extent = measure::Extent::from_environment()?;
    process::warn_if_busy();
    process::pin_this_one()?;
    drop(rlimit::increase_nofile_limit(20_000));
    let site = site::Site::start()?;
    let table = measure::all(&site, &extent)?;
    println!("{table}");
    Ok(())
}
