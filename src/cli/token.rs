//! `countersign token`: MindTouch server tokens by hand, and what is wrong with those of others.

use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigFile, Outcome, complain};
use crate::config::{self, SiteTokens};
use crate::signing::{Epoch, Examination, Finding, Form, Signer, User, examine};

/// Make and examine MindTouch server tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token, as the gateway sends it with a request
    Mint(Mint),
    /// Say whether a token is valid, or which of the usual mistakes it shows
    Verify(Verify),
}

/// Make a token, as the gateway sends it with a request.
#[derive(Args, Debug)]
pub struct Mint {
    /// The MindTouch user: an id, or a name with = before it
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    user: String,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    moment: Moment,
}

/// Say whether a token is valid, or which of the usual mistakes it shows.
#[derive(Args, Debug)]
pub struct Verify {
    /// The token as it was sent in X-Deki-Token; - reads it from standard input
    #[arg(allow_hyphen_values = true)]
    token: String,
    #[command(flatten)]
    tokens: Tokens,
    #[command(flatten)]
    moment: Moment,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Whose tokens.
#[derive(Args, Debug)]
struct Tokens {
    #[command(flatten)]
    config: ConfigFile,
    /// The site in the file; not needed where there is only one
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
}

/// At which moment.
#[derive(Args, Debug)]
struct Moment {
    /// The moment in Unix seconds instead of now
    #[arg(long, value_name = "EPOCH")]
    at: Option<u64>,
}

impl Token {
    pub(super) fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        match self {
            Self::Mint(mint) => mint.run(out),
            Self::Verify(verify) => verify.run(out),
        }
    }
}

impl Tokens {
    fn load(&self) -> Option<SiteTokens> {
        config::load_tokens(&self.config.config, self.site.as_deref())
            .map_err(complain)
            .ok()
    }
}

impl Moment {
    fn epoch(&self) -> Epoch {
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        Epoch::from_unix(self.at.unwrap_or_else(now))
    }
}

impl Mint {
    fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let Some(tokens) = self.tokens.load() else {
            return Ok(Outcome::Bad);
        };
        let user = match User::parse(&self.user, tokens.user_encoding) {
            Ok(user) => user,
            Err(fault) => {
                complain(format_args!("--user: {fault}"));
                return Ok(Outcome::Bad);
            }
        };
        let Some((key, secret)) = tokens.pairs.first() else {
            complain("the site has no server token");
            return Ok(Outcome::Bad);
        };
        match Signer::new(tokens.dialect, key, secret) {
            Ok(signer) => {
                let token = signer.mint(&user, self.moment.epoch());
                writeln!(out, "{}", token.as_text())?;
                Ok(Outcome::Good)
            }
            Err(fault) => {
                complain(fault);
                Ok(Outcome::Bad)
            }
        }
    }
}

impl Verify {
    fn run(self, out: &mut dyn Write) -> std::io::Result<Outcome> {
        let Some(tokens) = self.tokens.load() else {
            return Ok(Outcome::Bad);
        };
        let mut token = self.token;
        if token == "-" {
            token.clear();
            std::io::stdin()
                .take(TOKEN_BYTES_MAX)
                .read_to_string(&mut token)?;
        }
        let at = self.moment.epoch();
        let examined = tokens
            .pairs
            .iter()
            .map(|(key, secret)| examine(&token, key, secret, at));
        // While a token is rotated out there are two; the one whose key was sent is the one meant.
        let Some(best) = examined.max_by_key(|found| (found.is_accepted(), found.key_matches))
        else {
            complain("the site has no server token");
            return Ok(Outcome::Bad);
        };
        if self.json {
            writeln!(out, "{:#}", report(&best))?;
        } else {
            describe(&best, out)?;
        }
        Ok(if best.is_accepted() {
            Outcome::Good
        } else {
            Outcome::Bad
        })
    }
}

/// No token is longer.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

fn report(found: &Examination) -> serde_json::Value {
    let also: Vec<_> = found
        .also
        .iter()
        .map(|finding| json!({"code": finding.code(), "text": finding.sentence()}))
        .collect();
    json!({
        "valid": found.is_accepted(),
        "code": found.finding.code(),
        "text": found.finding.sentence(),
        "also": also,
        "form": found.form.map(Form::name),
        "key_matches": found.key_matches,
        "user": found.user,
        "age_seconds": found.age_seconds,
    })
}

fn describe(found: &Examination, out: &mut dyn Write) -> std::io::Result<()> {
    let verdict = if found.is_accepted() {
        "valid"
    } else {
        "not valid"
    };
    let line = |finding: &Finding| format!("{}: {}", finding.code(), finding.sentence());
    writeln!(out, "{verdict}")?;
    writeln!(out, "  {}", line(&found.finding))?;
    for finding in &found.also {
        writeln!(out, "  {}", line(finding))?;
    }
    if let Some(form) = found.form {
        let key = if found.key_matches {
            "the site's"
        } else {
            "another than the site's"
        };
        writeln!(out, "  dialect: {}", form.name())?;
        writeln!(out, "  key: {key}")?;
    }
    if let Some(user) = &found.user {
        // As it was sent, but for what would move the cursor of a terminal.
        let user: String = user.chars().filter(|c| !c.is_control()).collect();
        writeln!(out, "  user: {user}")?;
    }
    if let Some(age) = found.age_seconds {
        writeln!(out, "  age: {age} s")?;
    }
    Ok(())
}
