//! What may be done: named sets of methods and paths of the MindTouch API, and what no set but one
//! may hold.
//!
//! A pattern is a path after `/@api/deki/`: words, `*` for one segment, `**` at the end for any
//! number of them. Patterns see the canonical view of a path ([`super::target`]). `*` and `**` do
//! not look the same at what is left encoded there: a page title (`=A%2FB`) or a file name may be
//! anything, but a segment that stands where the API has ids must not hide a word of the API, so
//! `*` takes a segment with an escape or a letter outside ASCII only if it is a title.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use thiserror::Error;

use super::method::METHODS;
use super::target::{may_be_read_as, reads_one_way};

/// A path of the API with wildcards. Cloning it copies no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    parts: Arc<[Part]>,
    any_tail: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Word(Box<str>),
    AnySegment,
}

/// Why a pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PatternFault {
    /// Nothing, or nothing between two slashes.
    #[error(
        "a pattern has no empty segments; write a path after /@api/deki/ such as pages/*/contents"
    )]
    EmptySegment,
    /// `**` that is not at the end.
    #[error("** stands only at the end of a pattern; use * for one segment")]
    TailInside,
    /// A wildcard within a segment, or a character that no word of the API has.
    #[error(
        "a segment is a word of the API in letters, digits and -.,:_@=!, or *, or ** at the end"
    )]
    BadSegment,
}

impl Pattern {
    /// Reads a pattern such as `pages/*/files/**`.
    ///
    /// # Errors
    /// A [`PatternFault`] that says what would be right.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        let (body, any_tail) = match text.strip_suffix("**") {
            Some("") => {
                return Ok(Self {
                    text: text.into(),
                    parts: Arc::new([]),
                    any_tail: true,
                });
            }
            Some(head) => (
                head.strip_suffix('/').ok_or(PatternFault::BadSegment)?,
                true,
            ),
            None => (text, false),
        };
        let parts = body
            .split('/')
            .map(|segment| match segment {
                "" => Err(PatternFault::EmptySegment),
                "*" => Ok(Part::AnySegment),
                "**" => Err(PatternFault::TailInside),
                word if word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-.,:_@=!".contains(&b)) =>
                {
                    Ok(Part::Word(word.into()))
                }
                _ => Err(PatternFault::BadSegment),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.into(),
            parts,
            any_tail,
        })
    }

    /// The pattern as it was written: how logs and metrics call the paths that match it.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether the canonical segments after `/@api/deki/` are such a path.
    pub fn matches(&self, segments: &[Cow<'_, str>]) -> bool {
        self.fits(segments, |_, part, segment| match part {
            Part::Word(word) => word.eq_ignore_ascii_case(segment),
            Part::AnySegment => {
                segment.starts_with('=') || !segment.bytes().any(|b| b == b'%' || !b.is_ascii())
            }
        })
    }

    /// Whether the site might take the segments for such a path, at worst. `plain` has a bit for each
    /// of them that [`reads_one_way`].
    fn may_match(&self, segments: &[Cow<'_, str>], plain: u64) -> bool {
        self.fits(segments, |index, part, segment| match part {
            Part::Word(word) if index < 64 && plain >> index & 1 == 1 => {
                word.eq_ignore_ascii_case(segment)
            }
            Part::Word(word) => may_be_read_as(segment, word),
            Part::AnySegment => true,
        })
    }

    fn fits(&self, segments: &[Cow<'_, str>], fit: impl Fn(usize, &Part, &str) -> bool) -> bool {
        let enough = if self.any_tail {
            segments.len() >= self.parts.len()
        } else {
            segments.len() == self.parts.len()
        };
        enough
            && self
                .parts
                .iter()
                .zip(segments)
                .enumerate()
                .all(|(index, (part, segment))| fit(index, part, segment))
    }
}

/// One line of a capability: a method and the paths it may be used on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The effective method; `None` means every method.
    pub method: Option<Method>,
    /// The paths.
    pub pattern: Pattern,
}

/// A rule as it is judged by.
#[derive(Clone, Debug)]
struct Judged {
    /// The methods it covers, a bit each in the order of [`METHODS`].
    methods: u8,
    pattern: Pattern,
}

impl Judged {
    fn new(rule: Rule) -> Self {
        let methods = match &rule.method {
            None => METHODS.iter().map(bit).sum(),
            // HEAD is GET without the body (RFC 9110 section 9.3.2).
            Some(Method::GET) => bit(&Method::GET) | bit(&Method::HEAD),
            Some(method) => bit(method),
        };
        Self {
            methods,
            pattern: rule.pattern,
        }
    }

    fn allows(&self, method: u8, segments: &[Cow<'_, str>]) -> bool {
        self.methods & method != 0 && self.pattern.matches(segments)
    }
}

/// A method as a bit; none for one that is not the API's.
fn bit(method: &Method) -> u8 {
    METHODS
        .iter()
        .position(|known| known == method)
        .map_or(0, |index| 1 << index)
}

/// What one route allows: the rules of its capabilities in one list.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    rules: Vec<Judged>,
    /// The credential-minting endpoints; empty means that the route's file was compiled without.
    minting: Vec<Judged>,
    /// Whether `mint-credentials` is among the capabilities.
    may_mint: bool,
}

/// What an allowance says of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It may be made.
    Yes {
        /// The pattern that matched, such as `pages/*/contents`.
        endpoint: Arc<str>,
        /// Whether its answer holds a credential.
        mints: bool,
    },
    /// No capability of the route covers it.
    No,
    /// It mints credentials or reaches beyond, and the route may not.
    NoItMints,
}

impl Allowance {
    /// Joins capabilities; `minting` are the rules of `mint-credentials`.
    pub fn new(rules: Vec<Rule>, minting: Vec<Rule>, may_mint: bool) -> Self {
        let judged = |rules: Vec<Rule>| rules.into_iter().map(Judged::new).collect();
        Self {
            rules: judged(rules),
            minting: judged(minting),
            may_mint,
        }
    }

    /// Judges a call by its effective method and the canonical segments of the whole path.
    pub fn judge(&self, method: &Method, segments: &[Cow<'_, str>]) -> Allowed {
        let call = match segments {
            [api, deki, call @ ..] if api == "@api" && deki == "deki" => call,
            _ if reaches_beyond(segments) => return Allowed::NoItMints,
            _ => return Allowed::No,
        };
        let method = bit(method);
        let found = |rules: &[Judged]| {
            let rule = rules.iter().find(|rule| rule.allows(method, call));
            rule.map(|rule| Arc::clone(rule.pattern.text()))
        };
        if self.may_be_minting(call) {
            return match found(&self.minting) {
                Some(endpoint) if self.may_mint => Allowed::Yes {
                    endpoint,
                    mints: true,
                },
                _ => Allowed::NoItMints,
            };
        }
        match found(&self.rules) {
            Some(endpoint) => Allowed::Yes {
                endpoint,
                mints: false,
            },
            None => Allowed::No,
        }
    }

    fn may_be_minting(&self, call: &[Cow<'_, str>]) -> bool {
        let plain = call.iter().take(64).rev().fold(0, |bits: u64, segment| {
            bits << 1 | u64::from(reads_one_way(segment))
        });
        self.minting
            .iter()
            .any(|rule| rule.pattern.may_match(call, plain))
    }

    /// The methods that some rule names, for a preflight's answer; every one of the API's if a rule
    /// names none.
    pub fn methods(&self) -> Vec<Method> {
        let covered = self.rules.iter().fold(0, |all, rule| all | rule.methods);
        let covers = |method: &Method| covered & bit(method) != 0;
        // A PUT or DELETE may also come as a POST (`dream.in.verb`).
        let by_post = covers(&Method::PUT) || covers(&Method::DELETE);
        METHODS
            .into_iter()
            .filter(|method| covers(method) || (by_post && *method == Method::POST))
            .collect()
    }
}

/// The parts of a site beside its API that sign people in or act without it.
fn reaches_beyond(segments: &[Cow<'_, str>]) -> bool {
    let Some(first) = segments.first() else {
        return false;
    };
    ["@api", "@app", "@gui", "@embed", "deki"]
        .iter()
        .any(|word| may_be_read_as(first, word))
        || first.to_ascii_lowercase().starts_with("special:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<Cow<'_, str>> {
        path.split('/')
            .filter(|s| !s.is_empty())
            .map(Cow::Borrowed)
            .collect()
    }

    fn check(pattern: &str, path: &str, expected: bool) {
        let pattern = Pattern::parse(pattern).unwrap();
        assert_eq!(
            pattern.matches(&segments(path)),
            expected,
            "{pattern:?} on {path}"
        );
    }

    #[test]
    fn patterns_and_their_nearest_neighbours() {
        check("site/search", "site/search", true);
        check("site/search", "SITE/Search", true);
        check("site/search", "site/search/rebuild", false);
        check("site/search", "site", false);
        check("pages/*", "pages/1", true);
        check("pages/*", "pages/=A%2FB", true);
        check("pages/*", "pages/=Café", true);
        check("pages/*", "pages/%61", false);
        check("pages/*", "pages/caf\u{e9}", false);
        check("pages/*", "pages", false);
        check("pages/*", "pages/1/info", false);
        check("files/*/**", "files/1", true);
        check("files/*/**", "files/1/Caf%C3%A9.pdf", true);
        check("files/*/**", "files", false);
        check("**", "anything/at/all", true);
        check("pages/*/files,subpages", "pages/1/files,subpages", true);
    }

    #[test]
    fn patterns_that_are_none() {
        let check = |text: &str, fault| assert_eq!(Pattern::parse(text), Err(fault), "{text}");
        check("", PatternFault::EmptySegment);
        check("pages//info", PatternFault::EmptySegment);
        check("/pages", PatternFault::EmptySegment);
        check("pages/", PatternFault::EmptySegment);
        check("**/info", PatternFault::TailInside);
        check("pages/a*", PatternFault::BadSegment);
        check("pages/a**", PatternFault::BadSegment);
        check("pages?x", PatternFault::BadSegment);
        check("pages/%61", PatternFault::BadSegment);
    }

    fn allowance(may_mint: bool) -> Allowance {
        let rule = |method: Option<Method>, pattern: &str| Rule {
            method,
            pattern: Pattern::parse(pattern).unwrap(),
        };
        Allowance::new(
            vec![rule(None, "**")],
            vec![
                rule(None, "users/authenticate"),
                rule(None, "users/*/password"),
                rule(None, "site/services/**"),
            ],
            may_mint,
        )
    }

    fn yes(endpoint: &str, mints: bool) -> Allowed {
        Allowed::Yes {
            endpoint: endpoint.into(),
            mints,
        }
    }

    #[test]
    fn all_is_everything_but_what_mints() {
        let judge = |path: &str| allowance(false).judge(&Method::GET, &segments(path));
        assert_eq!(judge("@api/deki/pages/1"), yes("**", false));
        assert_eq!(judge("@api/deki/users/1"), yes("**", false));
        assert_eq!(judge("@api/deki/pages/=a.b"), yes("**", false));
        for path in [
            "@api/deki/users/authenticate",
            "@api/deki/users/AUTHENTICATE",
            "@api/deki/users/authenticate.",
            "@api/deki/users/%61uthenticate",
            "@api/deki/users/=a%2Fb/password",
            "@api/deki/users/a.b/password;x",
            "@api/deki/Users/1/Password",
            "@api/deki/site/services",
            "@api/deki/site/services/3/proxy/x",
            "@app/auth",
            "@API/x",
            "@api/host",
            "deki/cp",
            "Special:Userlogin",
        ] {
            assert_eq!(judge(path), Allowed::NoItMints, "{path}");
        }
        assert_eq!(judge("elsewhere"), Allowed::No);
        assert_eq!(judge(""), Allowed::No);
    }

    #[test]
    fn minting_is_allowed_only_where_named_and_only_in_plain_spelling() {
        let judge = |path: &str| allowance(true).judge(&Method::POST, &segments(path));
        assert_eq!(
            judge("@api/deki/users/authenticate"),
            yes("users/authenticate", true)
        );
        assert_eq!(judge("@api/deki/users/authenticate;x"), Allowed::NoItMints);
    }

    #[test]
    fn a_read_is_no_write() {
        let read = Rule {
            method: Some(Method::GET),
            pattern: Pattern::parse("pages/*").unwrap(),
        };
        let allowance = Allowance::new(vec![read], Vec::new(), false);
        let judge = |method: Method| allowance.judge(&method, &segments("@api/deki/pages/1"));
        assert_eq!(judge(Method::GET), yes("pages/*", false));
        assert_eq!(judge(Method::HEAD), yes("pages/*", false));
        assert_eq!(judge(Method::DELETE), Allowed::No);
        assert_eq!(judge(Method::OPTIONS), Allowed::No);
        assert_eq!(allowance.methods(), [Method::GET, Method::HEAD]);
    }
}
