//! Counts instead of times: user instructions (callgrind) and system calls (strace) of a request.
//!
//! The proxy is run twice below the counting program, for so many requests and for twice as many; the difference is
//! what they cost, without what it takes to start and to stop.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use crate::load::Line;
use crate::process::{Kind, Proxy};
use crate::{Outcome, load, streams};

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    Instructions,
    SystemCalls,
}

impl Counter {
    /// The program that counts, with its results in this folder.
    fn words(self, folder: &Path) -> Vec<OsString> {
        let file = |option: &str, name: &str| {
            let mut word = OsString::from(option);
            word.push(folder.join(name));
            word
        };
        match self {
            Self::Instructions => vec![
                "valgrind".into(),
                "--tool=callgrind".into(),
                file("--callgrind-out-file=", "callgrind.out.%p"),
                file("--log-file=", "valgrind.%p"),
            ],
            Self::SystemCalls => vec![
                "strace".into(),
                "--follow-forks".into(),
                "--summary-only".into(),
                "--summary-columns=calls,name".into(),
                file("--output=", "strace.out"),
            ],
        }
    }

    /// All that was counted, of every process.
    fn total(self, folder: &Path) -> Outcome<u64> {
        let mut total = 0;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let part = match self {
                Self::Instructions if name.starts_with("callgrind.out.") => {
                    instructions(&std::fs::read_to_string(entry.path())?)?
                }
                Self::SystemCalls if name == "strace.out" => {
                    system_calls(&std::fs::read_to_string(entry.path())?)
                }
                _ => 0,
            };
            total += part;
        }
        match total {
            0 => Err("nothing was counted".into()),
            total => Ok(total),
        }
    }
}

/// Over what requests come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Plain,
    Tls,
    Streams,
}

/// What a request costs, with `requests` of them over `connections`.
pub(crate) fn of_a_request(
    counter: Counter,
    kind: Kind,
    site: SocketAddr,
    over: Over,
    connections: usize,
    requests: usize,
) -> Outcome<f64> {
    let run = |requests: usize| -> Outcome<u64> {
        let mut proxy = Proxy::start(kind, site, |folder| counter.words(folder))?;
        let ends = proxy.ends;
        load::runtime()?
            .block_on(async {
                match over {
                    Over::Plain => {
                        load::counted(ends.plain, Line::Plain, connections, requests).await
                    }
                    Over::Tls => {
                        load::counted(ends.secured, Line::Full, connections, requests).await
                    }
                    Over::Streams => streams::counted(ends.secured, connections, requests).await,
                }
            })
            .map_err(|error| proxy.complaint(error))?;
        proxy.stop()?;
        counter
            .total(proxy.folder.path())
            .map_err(|error| proxy.complaint(error))
    };
    let once = run(requests)?;
    let twice = run(2 * requests)?;
    Ok((twice as f64 - once as f64) / requests as f64)
}

/// Of a file of callgrind's: of the whole run, even if it is in several parts.
fn instructions(text: &str) -> Outcome<u64> {
    let totals = text
        .lines()
        .filter_map(|line| line.strip_prefix("totals: "))
        .map(|total| total.trim().parse::<u64>());
    Ok(totals.sum::<Result<u64, _>>()?)
}

/// Of a summary of strace's: lines of a number and a name, with the total last.
fn system_calls(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .filter(|(_, name)| name.trim() != "total")
        .filter_map(|(calls, _)| calls.parse::<u64>().ok())
        .sum()
}
