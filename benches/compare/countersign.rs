//! The gateway itself: the built program with its allocator and its subscriber.

use std::path::Path;

use crate::process::{Ends, Program};
use crate::scene::{Caller, TOKEN_KEY, TOKEN_SECRET, fill, lines};
use crate::{Outcome, scene};

/// Writes its file, and says how it is run.
pub(crate) fn prepare(folder: &Path, ends: &Ends) -> Outcome<Program> {
    // What one caller may do must not be what is measured.
    let callers = lines(|caller| {
        format!(
            "  {}: {{ api_key: {{ sha256: \"{}\" }}, acts_as: \"{}\", \
             limits: {{ requests_per_second: 1000000, burst: 1000000, in_flight: 100000 }} }}",
            caller.name,
            caller.digest(),
            caller.user
        )
    });
    let names: Vec<_> = (0..scene::CALLERS)
        .map(|number| Caller::of(number).name)
        .collect();
    let text = fill(
        include_str!("proxy.yaml"),
        &[
            ("listen", &ends.plain.to_string()),
            ("listen_tls", &ends.secured.to_string()),
            ("site", &ends.site.to_string()),
            ("callers", callers.trim_end()),
            ("names", &names.join(", ")),
        ],
    );
    let file = folder.join("proxy.yaml");
    std::fs::write(&file, text)?;
    let mut program = Program::new(env!("CARGO_BIN_EXE_countersign"), folder);
    program
        .arguments(["run", "--log-format", "json", "--config"])
        .argument(&file)
        .environment("BENCH_TOKEN_KEY", TOKEN_KEY)
        .environment("BENCH_TOKEN_SECRET", TOKEN_SECRET)
        // One core, one worker; like the other two.
        .environment("TOKIO_WORKER_THREADS", "1");
    Ok(program)
}
