//! What may be done: named sets of methods and paths of the MindTouch API, and what no set but one
//! may hold.
//!
//! A pattern is a path after `/@api/deki/`: words; `*` for one segment that is an id, a word or a
//! title (`=…`); `{key}` for one that is a name in any encoding; `**` at the end for any number of
//! `*`. Patterns see the canonical view of a path ([`super::target`]), and only what they list
//! passes. What hands out credentials is looked for in every deeper reading of a path as well
//! (`reading.rs`).

mod minting;
mod rules;

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use thiserror::Error;

pub use self::minting::Minting;
use self::rules::Rules;
use super::method::METHODS;
use super::reading::readings;

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
    /// `*`
    Segment,
    /// `{key}`
    Key,
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
        "a segment is a word of the API in letters, digits and -.,:_=!, or *, or {{key}}, or ** at the end"
    )]
    BadSegment,
    /// `@config` and its like.
    #[error("what begins with @ is a feature of the framework under the API, and never forwarded")]
    ServiceFeature,
}

impl Pattern {
    /// Reads a pattern such as `pages/*/properties/{key}`.
    ///
    /// # Errors
    /// A [`PatternFault`] that says what would be right.
    pub fn parse(text: &str) -> Result<Self, PatternFault> {
        let (body, any_tail) = match text.strip_suffix("**") {
            Some("") => ("", true),
            Some(head) => (
                head.strip_suffix('/').ok_or(PatternFault::BadSegment)?,
                true,
            ),
            None => (text, false),
        };
        let parts: Vec<_> = if text == "**" {
            Vec::new()
        } else {
            body.split('/').map(Part::parse).collect::<Result<_, _>>()?
        };
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
            any_tail,
        })
    }

    /// The pattern as it was written: how logs and metrics call the paths that match it.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether the canonical segments after `/@api/deki/` are such a path. No pattern matches none:
    /// the empty call is a feature of the framework.
    pub fn matches(&self, call: &[Cow<'_, str>]) -> bool {
        let tail = self.tail(call);
        !call.is_empty()
            && tail.is_some_and(|tail| tail.iter().all(|segment| is_segment(segment)))
            && self
                .parts
                .iter()
                .zip(call)
                .all(|(part, segment)| part.matches(segment))
    }

    /// Whether a reading of a call is such a path, where a wildcard takes whatever is there.
    fn forbids<S: AsRef<str>>(&self, reading: &[S]) -> bool {
        self.tail(reading).is_some() && self.agrees_with(reading)
    }

    /// Whether the words of the pattern are those of a path that begins so.
    fn agrees_with<S: AsRef<str>>(&self, beginning: &[S]) -> bool {
        let mut pairs = self.parts.iter().zip(beginning);
        pairs.all(|(part, segment)| match part {
            Part::Word(word) => word.eq_ignore_ascii_case(segment.as_ref()),
            Part::Segment | Part::Key => true,
        })
    }

    /// Whether every call that `other` matches is one of this pattern's.
    pub fn covers(&self, other: &Self) -> bool {
        let is_long_enough = match (self.any_tail, other.any_tail) {
            (true, _) => other.parts.len() >= self.parts.len(),
            (false, false) => other.parts.len() == self.parts.len(),
            (false, true) => false,
        };
        let mut pairs = self.parts.iter().zip(other.parts.iter());
        is_long_enough
            && pairs.all(|pair| match pair {
                (Part::Word(ours), Part::Word(theirs)) => ours.eq_ignore_ascii_case(theirs),
                (Part::Word(_), Part::Segment | Part::Key) => false,
                (Part::Segment | Part::Key, _) => true,
            })
    }

    /// Whether some call is both patterns'.
    fn meets(&self, other: &Self) -> bool {
        let (short, long) = match self.parts.len() <= other.parts.len() {
            true => (self, other),
            false => (other, self),
        };
        let mut pairs = self.parts.iter().zip(other.parts.iter());
        (short.any_tail || short.parts.len() == long.parts.len())
            && pairs.all(|pair| match pair {
                (Part::Word(ours), Part::Word(theirs)) => ours.eq_ignore_ascii_case(theirs),
                _ => true,
            })
    }

    /// What stands after the parts, if there may stand so much.
    fn tail<'s, S>(&self, segments: &'s [S]) -> Option<&'s [S]> {
        let tail = segments.get(self.parts.len()..)?;
        (self.any_tail || tail.is_empty()).then_some(tail)
    }
}

impl Part {
    fn parse(segment: &str) -> Result<Self, PatternFault> {
        let is_of_a_word = |b: u8| b.is_ascii_alphanumeric() || b"-.,:_=!".contains(&b);
        match segment {
            "" => Err(PatternFault::EmptySegment),
            "*" => Ok(Self::Segment),
            "{key}" => Ok(Self::Key),
            "**" => Err(PatternFault::TailInside),
            word if word.starts_with('@') => Err(PatternFault::ServiceFeature),
            word if word.bytes().all(is_of_a_word) => Ok(Self::Word(word.into())),
            _ => Err(PatternFault::BadSegment),
        }
    }

    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Word(word) => word.eq_ignore_ascii_case(segment),
            Self::Segment => is_segment(segment),
            Self::Key => true,
        }
    }
}

/// Whether a segment is what `*` takes: a title, which begins with `=` and holds anything, or an id or
/// a word, in which nothing is left to decode, to cut off or to fold, and which names no feature of
/// the framework.
fn is_segment(segment: &str) -> bool {
    let is_of_a_word = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$'()*,:@=&+".contains(&b);
    segment.starts_with('=') || (!segment.starts_with('@') && segment.bytes().all(is_of_a_word))
}

/// One line of a capability: a method and the paths it may be used on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The effective method; `None` means every method.
    pub method: Option<Method>,
    /// The paths.
    pub pattern: Pattern,
}

impl Rule {
    /// The methods it covers, a bit each in the order of [`METHODS`].
    fn methods(&self) -> u8 {
        match &self.method {
            None => METHODS.iter().map(bit).sum(),
            // HEAD is GET without the body (RFC 9110 section 9.3.2).
            Some(Method::GET) => bit(&Method::GET) | bit(&Method::HEAD),
            Some(method) => bit(method),
        }
    }

    /// Whether it covers one of these methods.
    fn is_for(&self, methods: u8) -> bool {
        self.methods() & methods != 0
    }

    fn allows(&self, method: u8, call: &[Cow<'_, str>]) -> bool {
        self.is_for(method) && self.pattern.matches(call)
    }

    /// Whether every call that `other` allows is one of this rule's.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.methods() & !self.methods() == 0 && self.pattern.covers(&other.pattern)
    }
}

/// A method as a bit; none for one that is not the API's.
fn bit(method: &Method) -> u8 {
    METHODS
        .iter()
        .position(|known| known == method)
        .map_or(0, |index| 1 << index)
}

/// What one route allows: the rules of its capabilities together. Cloning it copies no rule.
#[derive(Clone, Debug, Default)]
pub struct Allowance {
    /// The names of the capabilities, as the file lists them.
    capabilities: Arc<[Box<str>]>,
    rules: Arc<Rules>,
    minting: Arc<Minting>,
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
    /// Joins the rules of capabilities but `mint-credentials`, which is what `minting` and `may_mint`
    /// say; `names` are those of all.
    pub fn new(names: &[&str], rules: Vec<Rule>, minting: Arc<Minting>, may_mint: bool) -> Self {
        Self {
            capabilities: names.iter().copied().map(Box::from).collect(),
            rules: Rules::new(rules).into(),
            minting,
            may_mint,
        }
    }

    /// Whether another is this one, and no copy of its rules.
    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
    }

    /// The names of the capabilities, as the file lists them.
    pub fn capabilities(&self) -> &[Box<str>] {
        &self.capabilities
    }

    /// Everything it lists, each rule once. What can be read as minting passes only by the rules of
    /// `mint-credentials`, which are among them where it is.
    pub fn rules(&self) -> Vec<Rule> {
        let minting = match self.may_mint {
            true => self.minting.rules(),
            false => &[],
        };
        [self.rules.listed(), minting].concat()
    }

    /// What the rules of `mint-credentials` list and does not pass by them, nor by another.
    pub fn exceptions(&self) -> Vec<Rule> {
        let passes = |harmless: &&Rule| {
            let mut rules = self.rules.listed().iter();
            rules.any(|rule| rule.covers(harmless))
        };
        let harmless = match self.may_mint {
            true => self.minting.harmless(),
            false => &[],
        };
        let kept = harmless.iter().filter(|rule| !passes(rule));
        kept.cloned().collect()
    }

    /// Whether `mint-credentials` is among the capabilities.
    pub fn may_mint(&self) -> bool {
        self.may_mint
    }

    /// Judges a call by its effective method and the canonical segments of the whole path.
    pub fn judge(&self, method: &Method, segments: &[Cow<'_, str>]) -> Allowed {
        let call = match segments {
            [api, deki, call @ ..] if api == "@api" && deki == "deki" => call,
            _ if reaches_beyond(segments) => return Allowed::NoItMints,
            _ => return Allowed::No,
        };
        let method = bit(method);
        if self.minting.may_be(method, call) {
            return match self.minting.find(method, call) {
                Some(endpoint) if self.may_mint => Allowed::Yes {
                    endpoint,
                    mints: true,
                },
                _ => Allowed::NoItMints,
            };
        }
        match self.rules.find(method, call) {
            Some(endpoint) => Allowed::Yes {
                endpoint: Arc::clone(endpoint),
                mints: false,
            },
            None => Allowed::No,
        }
    }

    /// The methods that some rule names, for a preflight's answer; every one of the API's if a rule
    /// names none.
    pub fn methods(&self) -> Vec<Method> {
        let covered = match self.may_mint {
            true => self.rules.methods() | self.minting.methods(),
            false => self.rules.methods(),
        };
        let covers = |method: &Method| covered & bit(method) != 0;
        // A PUT or DELETE may also come as a POST (`dream.in.verb`).
        let by_post = covers(&Method::PUT) || covers(&Method::DELETE);
        METHODS
            .into_iter()
            .filter(|method| covers(method) || (by_post && *method == Method::POST))
            .collect()
    }
}

/// The parts of a site beside its API that sign people in or act without it, as some server may read
/// them.
fn reaches_beyond(segments: &[Cow<'_, str>]) -> bool {
    readings(segments).any(|reading| {
        reading.first().is_some_and(|first| {
            ["@api", "@app", "@gui", "@embed", "deki"].contains(&first.as_str())
                || first.starts_with("special:")
        })
    })
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
        check("pages/*", "pages/=Caf\u{e9};x", true);
        check("pages/*", "pages/:guid", true);
        for odd in [
            "%61",
            "caf\u{e9}",
            "a b",
            "a;b",
            "a?b",
            "a#b",
            "a\\b",
            "@config",
            "a\"b",
            "\u{ff11}",
        ] {
            check("pages/*", &format!("pages/{odd}"), false);
            check("pages/**", &format!("pages/{odd}"), false);
            check("pages/{key}", &format!("pages/{odd}"), true);
        }
        check("pages/*", "pages", false);
        check("pages/*", "pages/1/info", false);
        check("files/*/**", "files/1", true);
        check("files/*/**", "files/1/a.pdf/b", true);
        check("files/*/**", "files/1/Caf%C3%A9.pdf", false);
        check("files/*/{key}", "files/1/Caf%C3%A9.pdf", true);
        check("files/*/{key}", "files/1/a/b", false);
        check("files/*/**", "files", false);
        check("**", "anything/at/all", true);
        check("**", "", false);
        check("**", "@config", false);
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
        check("pages/{id}", PatternFault::BadSegment);
        check("pages/a{key}", PatternFault::BadSegment);
        check("@config", PatternFault::ServiceFeature);
        check("pages/@grants", PatternFault::ServiceFeature);
    }

    fn rule(method: Option<Method>, pattern: &str) -> Rule {
        Rule {
            method,
            pattern: Pattern::parse(pattern).unwrap(),
        }
    }

    fn allowance(may_mint: bool) -> Allowance {
        let minting = vec![
            rule(None, "users/authenticate"),
            rule(None, "users/*/password"),
            rule(None, "site/services/**"),
        ];
        let minting = Minting::new(minting, Vec::new());
        Allowance::new(&[], vec![rule(None, "**")], minting.into(), may_mint)
    }

    fn yes(endpoint: &str, mints: bool) -> Allowed {
        Allowed::Yes {
            endpoint: endpoint.into(),
            mints,
        }
    }

    #[test]
    fn whatever_a_wildcard_takes_does_not_mint() {
        let judge = |path: &str| allowance(false).judge(&Method::GET, &segments(path));
        for path in [
            "@api/deki/pages/1",
            "@api/deki/users/1",
            "@api/deki/pages/=a.b",
            "@api/deki/pages/=users%2Fauthenticate",
            "@api/deki/users/=authenticate",
        ] {
            assert_eq!(judge(path), yes("**", false), "{path}");
        }
        for path in [
            "@api/deki/users/authenticate",
            "@api/deki/users/AUTHENTICATE",
            "@api/deki/users/authenticate.",
            "@api/deki/users/%61uthenticate",
            "@api/deki/users/%2561uthenticate",
            "@api/deki/users/%u0061uthenticate",
            "@api/deki/users/authent\u{131}cate",
            "@api/deki/\u{17f}ite/services",
            "@api/deki/site%2Fservices",
            "@api/deki/site%255cservices",
            "@api/deki/users/=a%2Fb/password",
            "@api/deki/users/=x%2Fpassword",
            "@api/deki/users/a.b/password;x",
            "@api/deki/users;x/authenticate",
            "@api/deki/Users/1/Password",
            "@api/deki/site/services",
            "@api/deki/site/services/3/proxy/x",
            "@app/auth",
            "@API/x",
            "@api/host",
            "%40app/x",
            "deki/cp",
            "Special:Userlogin",
        ] {
            assert_eq!(judge(path), Allowed::NoItMints, "{path}");
        }
        for path in [
            "elsewhere",
            "",
            "@api/deki",
            "@api/deki/@config",
            "@api/deki/pages/@grants",
            "@api/deki/pages/a%2Fb",
            "@api/deki/pages/1;x",
        ] {
            assert_eq!(judge(path), Allowed::No, "{path}");
        }
    }

    #[test]
    fn minting_is_allowed_only_where_named_and_only_in_plain_spelling() {
        let judge = |path: &str| allowance(true).judge(&Method::POST, &segments(path));
        assert_eq!(
            judge("@api/deki/users/authenticate"),
            yes("users/authenticate", true)
        );
        assert_eq!(judge("@api/deki/users/authenticate;x"), Allowed::NoItMints);
        let mints = Minting::new(vec![rule(Some(Method::PUT), "x")], Vec::new());
        let methods =
            |may_mint| Allowance::new(&[], Vec::new(), mints.clone().into(), may_mint).methods();
        assert_eq!(methods(true), [Method::POST, Method::PUT]);
        assert!(methods(false).is_empty());
    }

    #[test]
    fn a_read_is_no_write() {
        let read = rule(Some(Method::GET), "pages/*");
        let allowance = Allowance::new(&[], vec![read], Arc::default(), false);
        let judge = |method: Method| allowance.judge(&method, &segments("@api/deki/pages/1"));
        assert_eq!(judge(Method::GET), yes("pages/*", false));
        assert_eq!(judge(Method::HEAD), yes("pages/*", false));
        assert_eq!(judge(Method::DELETE), Allowed::No);
        assert_eq!(judge(Method::OPTIONS), Allowed::No);
        assert_eq!(allowance.methods(), [Method::GET, Method::HEAD]);
    }
}
