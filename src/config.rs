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
    let text = std::fs::read_to_string(path).map_err(|error| Unusable {
        file: file.clone(),
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
    })?;
    let environment = |name: &str| std::env::var(name).ok();
    let sources = Sources {
        environment: &environment,
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
    };
    load_text(&file, &text, &sources)
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
