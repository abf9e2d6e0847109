//! proxy.yaml becomes settings and a policy, or every problem at once.

pub mod compile;
pub mod problem;
pub mod reference;
pub mod tree;

use std::fmt;
use std::path::Path;

use self::problem::{Findings, Problem};
use self::reference::Sources;
use self::tree::Node;
pub use crate::config::compile::SiteTokens;
pub(crate) use crate::config::compile::capabilities::{NamedCapability, built_in as capabilities};
pub use crate::config::compile::settings::Settings;
use crate::policy::Policy;

/// A file that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// Listeners and limits: what the program is started with.
    pub settings: Settings,
    /// What requests are judged by.
    pub policy: Policy,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
}

/// A file that cannot be used, and everything that is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The name of the file.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{} is not usable ({count} problem{plural}):", self.file)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unusable {}

/// Reads and compiles a file, with secrets from the environment and from files.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: &Path) -> Result<Loaded, Unusable> {
    let file = path.display().to_string();
    let text = read(path, &file)?;
    load_text(&file, &text, &sources_of(path))
}

/// Fetches the server tokens of `site`, or of the only one, and judges nothing else of the file.
///
/// # Errors
/// Every problem with that site's tokens.
pub fn load_tokens(path: &Path, site: Option<&str>) -> Result<SiteTokens, Unusable> {
    let file = path.display().to_string();
    let text = read(path, &file)?;
    let findings = Findings::default();
    let tokens = match Node::parse(&text) {
        Ok(tree) => compile::tokens(&tree, site, &sources_of(path), &findings),
        Err(fault) => {
            findings.problem("", fault);
            None
        }
    };
    let (mut problems, _) = findings.into_parts();
    if tokens.is_none() && problems.is_empty() {
        problems.push(Problem {
            place: "sites".to_owned(),
            text: "there is no site to take a token from".to_owned(),
        });
    }
    match tokens {
        Some(tokens) if problems.is_empty() => Ok(tokens),
        _ => Err(Unusable { file, problems }),
    }
}

fn read(path: &Path, file: &str) -> Result<String, Unusable> {
    std::fs::read_to_string(path).map_err(|error| Unusable {
        file: file.to_owned(),
        problems: vec![Problem {
            place: String::new(),
            text: match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "there is no such file; name one with --config".to_owned()
                }
                std::io::ErrorKind::InvalidData => "the file is not UTF-8 text".to_owned(),
                kind => format!("the file cannot be read: {kind}"),
            },
        }],
    })
}

fn sources_of(path: &Path) -> Sources<'static> {
    Sources {
        environment: &|name| std::env::var(name).ok(),
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

/// Compiles the text of a file named `file`, with secrets from `sources`.
///
/// # Errors
/// Every problem of the text.
pub fn load_text(file: &str, text: &str, sources: &Sources<'_>) -> Result<Loaded, Unusable> {
    let findings = Findings::default();
    let compiled = match Node::parse(text) {
        Ok(tree) => compile::compile(&tree, sources, &findings),
        Err(fault) => {
            findings.problem("", fault);
            None
        }
    };
    let (problems, warnings) = findings.into_parts();
    match compiled {
        Some((settings, policy)) if problems.is_empty() => Ok(Loaded {
            settings,
            policy,
            warnings,
        }),
        _ => Err(Unusable {
            file: file.to_owned(),
            problems,
        }),
    }
}
