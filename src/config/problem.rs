//! Where in the file something is wrong, what is wrong, and what would be right.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

/// One thing in the file that an operator must change, or should know.
///
/// The text never holds a value from the file: a value may be a secret in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// A path such as `routes[2] (crm).allow[0]`, with the names that elements of lists give
    /// themselves; empty for the file as a whole.
    pub place: String,
    /// The line of the file, counted from 1, where it can be told.
    pub line: Option<usize>,
    /// What is wrong and what would be right, in one sentence without a capital and a full stop.
    pub text: String,
}

impl Problem {
    fn new(place: &str, line: Option<usize>, text: impl fmt::Display) -> Self {
        Self {
            place: place.to_owned(),
            line,
            text: text.to_string(),
        }
    }

    /// A problem of the file as a whole.
    pub(super) fn of_the_file(text: impl Into<String>) -> Self {
        Self {
            place: String::new(),
            line: None,
            text: text.into(),
        }
    }

    /// The path alone, for programs: `routes[2].allow[0]`.
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(self.place.len());
        let mut rest = self.place.as_str();
        while let Some((before, named)) = rest.split_once("] (") {
            path += before;
            path.push(']');
            rest = named.split_once(')').map_or("", |(_, after)| after);
        }
        path + rest
    }

    /// What is wrong in the file of this name: `proxy.yaml:31: routes[2] (crm).allow[0]: …`.
    pub fn in_file(&self, file: &str) -> impl fmt::Display {
        let Self { place, line, text } = self;
        let line = line.map_or(String::new(), |line| format!("{line}:"));
        let place = match place.as_str() {
            "" => String::new(),
            place => format!("{place}: "),
        };
        format!("{file}:{line} {place}{text}")
    }
}

/// Problems and warnings as they are found.
#[derive(Debug, Default)]
pub struct Findings {
    problems: RefCell<Vec<Noted>>,
    /// The problem of each reference that cannot be used, by its number.
    references: RefCell<HashMap<String, usize>>,
    warnings: RefCell<Vec<Problem>>,
}

/// A problem, and the other places that share it.
#[derive(Debug)]
struct Noted {
    problem: Problem,
    also: Vec<(String, Option<usize>)>,
}

/// How many other places a problem names.
const PLACES_MAX: usize = 3;

impl Findings {
    /// Notes what makes the file unusable.
    pub fn problem(&self, place: &str, line: Option<usize>, text: impl fmt::Display) {
        self.problems.borrow_mut().push(Noted {
            problem: Problem::new(place, line, text),
            also: Vec::new(),
        });
    }

    /// Notes that what a reference leads to cannot be used: one problem for all its places.
    pub(super) fn reference_problem(
        &self,
        reference: &str,
        place: &str,
        line: Option<usize>,
        text: impl fmt::Display,
    ) {
        let known = self.references.borrow().get(reference).copied();
        if let Some(number) = known {
            let elsewhere = (place.to_owned(), line);
            return self.problems.borrow_mut()[number].also.push(elsewhere);
        }
        let number = self.problems.borrow().len();
        self.references
            .borrow_mut()
            .insert(reference.to_owned(), number);
        self.problem(place, line, text);
    }

    /// Notes what the operator should know.
    pub fn warning(&self, place: &str, line: Option<usize>, text: impl fmt::Display) {
        self.warnings
            .borrow_mut()
            .push(Problem::new(place, line, text));
    }

    /// Problems, then warnings, each in the order of the file; what stands on no line comes last.
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let problems = self.problems.into_inner().into_iter();
        let in_order = |mut problems: Vec<Problem>| {
            problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
            problems
        };
        (
            in_order(problems.map(Noted::into_problem).collect()),
            in_order(self.warnings.into_inner()),
        )
    }
}

impl Noted {
    fn into_problem(self) -> Problem {
        let Self { mut problem, also } = self;
        if also.is_empty() {
            return problem;
        }
        let places = also
            .iter()
            .take(PLACES_MAX)
            .map(|(place, line)| match line {
                Some(line) => format!("{place} (line {line})"),
                None => place.clone(),
            });
        let places = places.collect::<Vec<_>>().join(", ");
        let more = match also.len().saturating_sub(PLACES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        problem.text += &format!("; also named at {places}{more}");
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_for_people_and_for_programs() {
        let problem = Problem {
            place: "routes[2] (crm).allow[0]".to_owned(),
            line: Some(31),
            text: "no".to_owned(),
        };
        assert_eq!(
            problem.in_file("proxy.yaml").to_string(),
            "proxy.yaml:31: routes[2] (crm).allow[0]: no"
        );
        assert_eq!(problem.path(), "routes[2].allow[0]");
        let whole = Problem::of_the_file("no");
        assert_eq!(whole.in_file("proxy.yaml").to_string(), "proxy.yaml: no");
        assert_eq!(whole.path(), "");
    }
}
