//! proxy.yaml becomes settings and a policy, or every problem at once.

pub mod compile;
mod effective;
mod file;
pub mod inputs;
mod lines;
mod node;
mod overview;
pub mod problem;
pub mod reference;
pub mod tls;
pub mod tree;
mod words;
mod yaml;

use std::fmt;
use std::path::Path;

use self::file::Opened;
use self::inputs::{Inputs, Mark};
pub use self::overview::{Overview, RouteOverview};
use self::problem::{Findings, Problem};
use self::reference::{References, Sources};
use self::tree::Node;
pub(crate) use self::words::cure;
use self::yaml::{FILE_BYTES_MAX, Mistake};
pub use crate::config::compile::SiteTokens;
pub(crate) use crate::config::compile::capabilities::{NamedCapability, built_in as capabilities};
pub use crate::config::compile::settings::{Admin, Listener, Settings};
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

impl Loaded {
    /// What `check` has to say of it.
    pub fn overview(self) -> Overview {
        Overview::new(self.settings.listeners.len(), &self.policy, self.warnings)
    }
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
            write!(f, "\n  {}", problem.in_file(&self.file))?;
        }
        Ok(())
    }
}

impl std::error::Error for Unusable {}

/// What came of reading a file, and what it was read from.
#[derive(Debug)]
pub struct Attempt {
    /// Also where it cannot be used, as far as it was read.
    pub inputs: Inputs,
    /// The file, or every problem of it.
    pub outcome: Result<Loaded, Unusable>,
}

/// Reads and compiles a file, with secrets from the environment and from files.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: &Path) -> Result<Loaded, Unusable> {
    attempt(path).outcome
}

/// The same, with what it was read from.
pub fn attempt(path: &Path) -> Attempt {
    let file = path.display().to_string();
    let mark = Mark::of(path);
    let mut attempt = match read(path, &file) {
        Ok(text) => attempt_text(&file, &text, &sources_of(path)),
        Err(unusable) => Attempt {
            inputs: Inputs::default(),
            outcome: Err(unusable),
        },
    };
    attempt.inputs.marks.insert(path.to_owned(), mark);
    attempt
}

/// Judges a file where what its references lead to is elsewhere: they are judged by their form.
///
/// What comes of it can be looked at and not run: its secrets are stand-ins.
///
/// # Errors
/// Every problem of the file.
pub fn judge_without_secrets(path: &Path) -> Result<Overview, Unusable> {
    let file = path.display().to_string();
    let text = read(path, &file)?;
    let sources = sources_of(path);
    compile_text(&file, &text, &References::by_form(&sources)).map(|loaded| loaded.overview())
}

/// Fetches the server tokens of `site`, or of the only one, and judges nothing else of the file.
///
/// # Errors
/// Every problem with that site's tokens.
pub fn load_tokens(path: &Path, site: Option<&str>) -> Result<SiteTokens, Unusable> {
    let file = path.display().to_string();
    let text = read(path, &file)?;
    let findings = Findings::default();
    let sources = sources_of(path);
    let tree = Node::parse(&text).map_err(|mistakes| not_yaml(&file, mistakes))?;
    let tokens = compile::tokens(&tree, site, &References::to(&sources), &findings);
    let (mut problems, _) = findings.into_parts();
    if tokens.is_none() && problems.is_empty() {
        problems.push(Problem::of_the_file(
            "there is no site to take a token from",
        ));
    }
    match tokens {
        Some(tokens) if problems.is_empty() => Ok(tokens),
        _ => Err(Unusable { file, problems }),
    }
}

fn read(path: &Path, file: &str) -> Result<String, Unusable> {
    let unusable = |problem| Unusable {
        file: file.to_owned(),
        problems: vec![problem],
    };
    let bytes = Opened::open(path)
        .and_then(|opened| opened.read(FILE_BYTES_MAX))
        .map_err(|fault| {
            let cure = match path.exists() {
                true => "",
                false => "; name one with --config",
            };
            unusable(Problem::of_the_file(format!(
                "the configuration {fault}{cure}"
            )))
        })?;
    yaml::decode(bytes.to_vec()).map_err(|mistake| unusable(mistake.into()))
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
    attempt_text(file, text, sources).outcome
}

/// The same, with what it was read from.
pub fn attempt_text(file: &str, text: &str, sources: &Sources<'_>) -> Attempt {
    let references = References::to(sources);
    references.note_text(file, text);
    let outcome = compile_text(file, text, &references);
    Attempt {
        inputs: references.into_inputs(),
        outcome,
    }
}

/// The address and the token of operators, and nothing else of the file; `None` if it has no `admin`.
///
/// # Errors
/// Every problem with them.
pub fn load_admin(path: &Path) -> Result<Option<Admin>, Unusable> {
    let file = path.display().to_string();
    let text = read(path, &file)?;
    let sources = sources_of(path);
    let tree = Node::parse(&text).map_err(|mistakes| not_yaml(&file, mistakes))?;
    let findings = Findings::default();
    let admin = compile::admin(&tree, &References::to(&sources), &findings);
    let (problems, _) = findings.into_parts();
    match problems.is_empty() {
        true => Ok(admin),
        false => Err(Unusable { file, problems }),
    }
}

fn compile_text(file: &str, text: &str, references: &References<'_>) -> Result<Loaded, Unusable> {
    let tree = Node::parse(text).map_err(|mistakes| not_yaml(file, mistakes))?;
    let findings = Findings::default();
    let compiled = compile::compile(&tree, references, &findings);
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

fn not_yaml(file: &str, mistakes: Vec<Mistake>) -> Unusable {
    Unusable {
        file: file.to_owned(),
        problems: mistakes.into_iter().map(Problem::from).collect(),
    }
}

impl From<Mistake> for Problem {
    fn from(mistake: Mistake) -> Self {
        Self {
            line: mistake.line,
            ..Self::of_the_file(mistake.text)
        }
    }
}
