//! As which user a caller acts at a site: a fixed one, or one that is taken from what the caller has
//! proved, and then only within bounds.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use icu_normalizer::ComposingNormalizerBorrowed;

use super::caller::Caller;
use super::caller::jwt::{Claim, Claims};
use super::fault::MessageFault;
use super::request::{Repeated, Request};
use super::{Refusal, parameter};
use crate::signing::{User, UserEncoding};

/// A caller on a route, and whom it acts as there, spelt as the route's site wants it.
#[derive(Clone, Debug)]
pub struct ActingCaller {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// Whom the site is told.
    pub acts_as: ActsAs,
}

/// How the user is found.
#[derive(Clone, Debug)]
pub enum ActsAs {
    /// Always this one: nothing in a request can choose another.
    Fixed(User),
    /// The one that a value names.
    Taken(Arc<Taken>),
}

/// A user that is taken from a request of a caller that may choose.
#[derive(Debug)]
pub struct Taken {
    /// Where the value stands.
    pub source: Source,
    /// Which values are good, and for whom.
    pub choice: Choice,
    /// How the site wants names spelt.
    pub encoding: UserEncoding,
}

/// Where the value that names a user stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a claim of the verified token.
    Claim(Box<str>),
    /// In a header, in lower case, that the caller is trusted to set; it goes no further.
    Header(Box<str>),
    /// In a query parameter that the caller's signature covers; it goes no further.
    SignedQuery(Box<str>),
}

/// Which values name a user.
#[derive(Debug)]
pub enum Choice {
    /// The value is the user's name, if it matches one of `allow` and none of `deny`.
    Names {
        /// Compared as it is.
        allow: Vec<Glob>,
        /// Compared in any spelling that a site may take for the same name.
        deny: Vec<Glob>,
    },
    /// The value stands for a user, by this table.
    Table(HashMap<Box<str>, User, RandomState>),
}

/// Longest value in bytes that names a user.
pub const VALUE_BYTES_MAX: usize = 255;

impl ActsAs {
    /// Whom a request's caller acts as.
    ///
    /// # Errors
    /// [`Refusal::UserNotAllowed`], and [`Refusal::BadMessage`] for a header that a proxy before us
    /// would have taken away.
    pub fn choose(&self, request: &Request<'_>, claims: Option<&Claims>) -> Result<User, Refusal> {
        match self {
            Self::Fixed(user) => Ok(user.clone()),
            Self::Taken(taken) => taken.choose(request, claims),
        }
    }

    /// The user that no request chooses, if it is such a one.
    pub fn fixed(&self) -> Option<&User> {
        match self {
            Self::Fixed(user) => Some(user),
            Self::Taken(_) => None,
        }
    }
}

impl Taken {
    fn choose(&self, request: &Request<'_>, claims: Option<&Claims>) -> Result<User, Refusal> {
        let user = match &self.source {
            Source::Claim(name) => match claims.and_then(|claims| claims.0.get(name)) {
                Some(Claim::Text(value)) => self.user(value.as_bytes()),
                _ => None,
            },
            Source::Header(name) => {
                let value = request.only(name);
                let value = value.map_err(|Repeated| Refusal::UserNotAllowed)?;
                if request.nominates(name) {
                    return Err(Refusal::BadMessage(MessageFault::Connection));
                }
                value.and_then(|value| self.user(value))
            }
            Source::SignedQuery(name) => {
                parameter::only(request.target, name).and_then(|value| self.user(&value))
            }
        };
        user.ok_or(Refusal::UserNotAllowed)
    }

    /// The user that a value names, if it may.
    fn user(&self, value: &[u8]) -> Option<User> {
        let value = std::str::from_utf8(value).ok()?;
        if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return None;
        }
        let name = match &self.choice {
            Choice::Table(users) => return users.get(value).cloned(),
            Choice::Names { allow, deny } => {
                let is_allowed = allow.iter().any(|glob| glob.matches(value));
                let folded = fold(value);
                let is_denied = deny.iter().any(|glob| glob.matches(&folded));
                (is_allowed && !is_denied).then_some(value)?
            }
        };
        // `=` before a name says that it is one, and `%` that a character is encoded: whoever needs
        // such a name is spelt in a table.
        if name.starts_with('=') || name.contains('%') {
            return None;
        }
        User::parse(&format!("={name}"), self.encoding).ok()
    }
}

/// A pattern of whole values, in which `*` stands for any run of characters, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// What stands between the stars: one more piece than there are stars.
    pieces: Vec<Box<str>>,
}

impl Glob {
    /// A pattern of this text.
    pub fn new(text: &str) -> Self {
        Self {
            pieces: text.split('*').map(Box::from).collect(),
        }
    }

    /// A pattern that matches the [`fold`]ed spellings of what this text matches.
    pub fn folded(text: &str) -> Self {
        Self {
            pieces: text.split('*').map(|piece| fold(piece).into()).collect(),
        }
    }

    /// Whether the whole of a value fits.
    pub fn matches(&self, value: &str) -> bool {
        let [first, middle @ .., last] = &*self.pieces else {
            return self.pieces.iter().all(|only| **only == *value);
        };
        let Some(rest) = value.strip_prefix(&**first) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(&**last) else {
            return false;
        };
        // The leftmost place of each piece leaves the most for those after it.
        for piece in middle {
            match rest.find(&**piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pieces.join("*"))
    }
}

/// One spelling of all that a site may take for the same user name: without case, with compatibility
/// forms resolved, and without what name comparisons overlook (blanks and underscores, which MediaWiki,
/// from which the site's user names come, takes for one another; invisible characters).
pub fn fold(name: &str) -> String {
    let folded = ComposingNormalizerBorrowed::new_nfkc().normalize(name);
    folded
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|c| c.is_alphanumeric() || matches!(c, '.' | '@' | '-' | '=' | '%' | '+'))
        .collect()
}
