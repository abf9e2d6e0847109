//! Where in the file something is wrong, what is wrong, and what would be right.

use std::cell::RefCell;
use std::fmt;

/// One thing in the file that an operator must change, or should know.
///
/// The text never holds a value from the file: a value may be a secret in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// A path such as `routes[2].allow[0]`; empty for the file as a whole.
    pub place: String,
    /// What is wrong and what would be right, in one sentence without a capital and a full stop.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.text)
        } else {
            write!(f, "{}: {}", self.place, self.text)
        }
    }
}

/// Problems and warnings as they are found.
#[derive(Debug, Default)]
pub struct Findings {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Findings {
    /// Notes what makes the file unusable.
    pub fn problem(&self, place: &str, text: impl fmt::Display) {
        self.problems.borrow_mut().push(Problem {
            place: place.to_owned(),
            text: text.to_string(),
        });
    }

    /// Notes what the operator should know.
    pub fn warning(&self, place: &str, text: impl fmt::Display) {
        self.warnings.borrow_mut().push(Problem {
            place: place.to_owned(),
            text: text.to_string(),
        });
    }

    /// Problems, then warnings, each in the order they were found.
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }
}
