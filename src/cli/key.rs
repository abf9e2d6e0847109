//! `countersign key new`: a key or a password for a caller, shown once, and what the file holds of it.

use std::io::{BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Outcome, complain};
use crate::policy::caller::KeyDigest;
use crate::policy::caller::basic::PasswordHash;

/// Make keys for callers.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key for a caller: print it once, and the digest for proxy.yaml
    New {
        /// The caller's name in proxy.yaml
        caller: String,
        /// Make a user name and a password (HTTP Basic) in place of a key, and the password's hash
        #[arg(long)]
        basic: bool,
        /// Hash the password on the first line of standard input in place of a new one
        #[arg(long, requires = "basic")]
        password_stdin: bool,
        /// Write one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// 256 bits: nobody guesses them, so that a plain digest of the key may be stored.
const KEY_BYTES: usize = 32;

/// Least bytes of a password that somebody else made.
const PASSWORD_BYTES_MIN: usize = 16;

impl Key {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let Self::New {
            caller,
            basic,
            password_stdin,
            json,
        } = self;
        match basic {
            true => new_password(&caller, password_stdin, json, out),
            false => new_key(&caller, json, out),
        }
    }
}

fn new_key(caller: &str, json: bool, out: &mut dyn Write) -> std::io::Result<Outcome> {
    let Some(random) = random::<KEY_BYTES>() else {
        return Ok(Outcome::Bad);
    };
    // The prefix lets secret scanners find a key that was committed somewhere.
    let key = format!("cs_{}", URL_SAFE_NO_PAD.encode(*random));
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

fn new_password(
    caller: &str,
    password_stdin: bool,
    json: bool,
    out: &mut dyn Write,
) -> std::io::Result<Outcome> {
    let (Some(salt), Some(random)) = (random::<16>(), random::<KEY_BYTES>()) else {
        return Ok(Outcome::Bad);
    };
    let password = match password_stdin {
        true => typed()?,
        false => Some(Zeroizing::new(URL_SAFE_NO_PAD.encode(*random))),
    };
    let Some(password) = password else {
        return Ok(Outcome::Bad);
    };
    let Some(hash) = PasswordHash::of(password.as_bytes(), &salt) else {
        complain("the password cannot be hashed here: that takes 19 MiB of memory");
        return Ok(Outcome::Bad);
    };
    let hash = hash.as_str();
    if json {
        let mut made = json!({"caller": caller, "user": caller, "password_hash": hash});
        if !password_stdin {
            made["password"] = password.as_str().into();
        }
        writeln!(out, "{made:#}")?;
        return Ok(Outcome::Good);
    }
    if !password_stdin {
        writeln!(
            out,
            "The password of {caller}, shown this once; the caller sends it with its user name (HTTP Basic)\n\n  \
             user name  {caller}\n  \
             password   {}\n",
            *password
        )?;
    }
    writeln!(
        out,
        "For proxy.yaml, which never holds the password itself:\n\n\
         callers:\n  \
         {caller}:\n    \
         basic: {{ password: \"{hash}\" }}\n    \
         acts_as: \"=NAME-OF-A-MINDTOUCH-USER\""
    )?;
    Ok(Outcome::Good)
}

/// The password on the first line of standard input, if it is one.
fn typed() -> std::io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    // RFC 7617 section 2: no control characters.
    if password.len() < PASSWORD_BYTES_MIN || password.chars().any(char::is_control) {
        complain(format_args!(
            "a password has at least {PASSWORD_BYTES_MIN} bytes and no control characters; leave --password-stdin out to have one made"
        ));
        return Ok(None);
    }
    Ok(Some(Zeroizing::new(password.to_owned())))
}

/// Random bytes; complains where there are none.
pub(super) fn random<const COUNT: usize>() -> Option<Zeroizing<[u8; COUNT]>> {
    let mut bytes = Zeroizing::new([0; COUNT]);
    if let Err(error) = getrandom::fill(&mut *bytes) {
        complain(format_args!(
            "the system gives no random numbers ({error}); try again"
        ));
        return None;
    }
    Some(bytes)
}
