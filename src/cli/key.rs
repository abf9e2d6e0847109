//! `countersign key new`: a key for a caller, shown once, and its digest for the file.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::json;

use super::{Outcome, complain};
use crate::policy::caller::KeyDigest;

/// Make keys for callers.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key for a caller: print it once, and the digest for proxy.yaml
    New {
        /// The caller's name in proxy.yaml
        caller: String,
        /// Write one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// 256 bits: nobody guesses them, so that a plain digest of the key may be stored.
const KEY_BYTES: usize = 32;

impl Key {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let Self::New { caller, json } = self;
        let mut random = [0_u8; KEY_BYTES];
        if let Err(error) = getrandom::fill(&mut random) {
            complain(format_args!(
                "the system gives no random numbers ({error}); try again"
            ));
            return Ok(Outcome::Bad);
        }
        // The prefix lets secret scanners find a key that was committed somewhere.
        let key = format!("cs_{}", URL_SAFE_NO_PAD.encode(random));
        let digest = KeyDigest::of(key.as_bytes()).to_hex();
        if json {
            let made = json!({"caller": caller, "key": key, "sha256": digest});
            writeln!(out, "{made:#}")?;
            return Ok(Outcome::Good);
        }
        writeln!(
            out,
            "The key of {caller}, shown this once; the caller sends it as X-Api-Key, as Authorization: Bearer or as X-Deki-Token\n\n  \
             {key}\n\n\
             For proxy.yaml, which never holds the key itself:\n\n\
             callers:\n  \
             {caller}:\n    \
             api_key: {{ sha256: \"{digest}\" }}\n    \
             acts_as: \"=NAME-OF-A-MINDTOUCH-USER\""
        )?;
        Ok(Outcome::Good)
    }
}
