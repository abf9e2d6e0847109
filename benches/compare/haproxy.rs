//! HAProxy, with nothing but its own converters and maps.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Outcome;
use crate::process::{Ends, Program};
use crate::scene::{TOKEN_KEY, TOKEN_SECRET, fill, lines};

/// Debian's, or the one that `HAPROXY` names.
pub(crate) fn program() -> String {
    std::env::var("HAPROXY").unwrap_or_else(|_| "haproxy".to_owned())
}

/// Writes its files, and says how it is run.
pub(crate) fn prepare(folder: &Path, ends: &Ends) -> Outcome<Program> {
    let digests = lines(|caller| format!("{} {}", caller.digest().to_uppercase(), caller.name));
    std::fs::write(folder.join("callers.map"), digests)?;
    let users = lines(|caller| format!("{} {}", caller.name, caller.user));
    std::fs::write(folder.join("users.map"), users)?;
    let text = fill(
        include_str!("haproxy.cfg"),
        &[
            ("listen", &ends.plain.to_string()),
            ("listen_tls", &ends.secured.to_string()),
            ("site", &ends.site.to_string()),
            ("folder", &folder.display().to_string()),
            ("key", TOKEN_KEY),
            ("secret", &STANDARD.encode(TOKEN_SECRET)),
        ],
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let mut program = Program::new(&program(), folder);
    // In the foreground, one process.
    program.arguments(["-db", "-f"]).argument(&file);
    Ok(program)
}
