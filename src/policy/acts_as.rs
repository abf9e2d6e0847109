//! As which user a caller acts at a site: a fixed one, or one that is taken from what the caller has
//! proved, and then only within bounds.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use icu_normalizer::DecomposingNormalizerBorrowed;
use icu_normalizer::properties::CanonicalCombiningClassMapBorrowed;

use super::caller::hmac::Once;
use super::caller::jwt::{Claim, Claims};
use super::caller::{Caller, Credential};
use super::fault::MessageFault;
use super::request::{Repeated, Request};
use super::{Refusal, Signed, parameter};
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

impl ActingCaller {
    /// What follows from a message being signed by this caller.
    pub(super) fn signed(&self, once: Option<Once>) -> Signed {
        let mut drop_query = match &self.caller.credential {
            Some(Credential::Signature(scheme)) => scheme.rules().drop_query.clone(),
            _ => Vec::new(),
        };
        if let ActsAs::Taken(taken) = &self.acts_as
            && let Source::SignedQuery(name) = &taken.source
        {
            drop_query.push(name.clone());
        }
        Signed { once, drop_query }
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
                if value.is_some() && request.nominates(name) {
                    return Err(Refusal::BadMessage(MessageFault::Connection));
                }
                // A proxy makes one line of two, with a comma between them (RFC 9110 section 5.3).
                value
                    .filter(|value| !value.contains(&b','))
                    .and_then(|value| self.user(value))
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
                let is_denied = || deny.iter().any(|glob| is_matched_by_any_fold(glob, value));
                (is_allowed && is_name(value) && !is_denied()).then_some(value)?
            }
        };
        User::parse(&format!("={name}"), self.encoding).ok()
    }
}

/// Whether a value can be a user's name as it stands, so that the user a site finds is the one that
/// was matched. Whoever needs another one is spelt in a table.
fn is_name(value: &str) -> bool {
    let is_trimmed = |c: char| c == '_' || c == ' ';
    !value.starts_with(is_trimmed) && !value.ends_with(is_trimmed)
        // `=` before a name says that it is one, and `%` that a character is encoded.
        && !value.starts_with('=') && !value.contains('%')
        && value.chars().all(is_of_a_name)
}

/// Whether a character is seen, and told from its neighbours: what is not seen, some comparisons
/// overlook, and beyond the basic plane tables in MySQL's `utf8` cut a name off.
fn is_of_a_name(c: char) -> bool {
    const CLASSES: CanonicalCombiningClassMapBorrowed<'static> =
        CanonicalCombiningClassMapBorrowed::new();
    match c {
        ' ' | '!'..='~' => true,
        // Fillers of Hangul: letters without a glyph.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{10000}'.. => false,
        // An accent is part of a letter.
        c => c.is_alphanumeric() || CLASSES.get_u8(c) != 0,
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

/// One spelling of all that a site may take for the same user name.
///
/// The site's ancestor keeps names in MySQL with the collation `utf8_general_ci` (DekiWiki,
/// `createTables.sql`) and is itself a descendant of MediaWiki. So names are compared without case,
/// without accents, with compatibility forms resolved, and without what comparisons overlook or
/// exchange for one another: spaces, underscores, punctuation, invisible characters.
pub fn fold(name: &str) -> String {
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(name);
    let mut folded = String::with_capacity(decomposed.len());
    for c in decomposed.chars().flat_map(char::to_lowercase) {
        match c {
            // Letters that nothing decomposes, and collations of Unicode take for these.
            '\u{df}' => folded.push_str("ss"),
            '\u{e6}' => folded.push_str("ae"),
            '\u{153}' => folded.push_str("oe"),
            '\u{fe}' => folded.push_str("th"),
            '\u{f8}' => folded.push('o'),
            '\u{f0}' | '\u{111}' => folded.push('d'),
            '\u{127}' => folded.push('h'),
            '\u{131}' => folded.push('i'),
            '\u{142}' => folded.push('l'),
            '\u{167}' => folded.push('t'),
            c if c.is_alphanumeric() || matches!(c, '.' | '@' | '-' | '=' | '%' | '+') => {
                folded.push(c);
            }
            _ => {}
        }
    }
    folded
}

/// Whether a folded pattern matches a value in either reading of its sharp s: `ss` to the Unicode
/// collations, `s` to `utf8_general_ci`.
fn is_matched_by_any_fold(pattern: &Glob, value: &str) -> bool {
    let is_sharp = |c: char| matches!(c, '\u{df}' | '\u{1e9e}');
    pattern.matches(&fold(value))
        || value.contains(is_sharp) && pattern.matches(&fold(&value.replace(is_sharp, "s")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::tests::{fields, request};
    use super::*;

    fn names(allow: &[&str], deny: &[&str]) -> Choice {
        Choice::Names {
            allow: allow.iter().map(|text| Glob::new(text)).collect(),
            deny: deny.iter().map(|text| Glob::folded(text)).collect(),
        }
    }

    fn taken(source: Source, choice: Choice, encoding: UserEncoding) -> Taken {
        Taken {
            source,
            choice,
            encoding,
        }
    }

    fn header(choice: Choice, encoding: UserEncoding) -> Taken {
        taken(Source::Header("x-acting-user".into()), choice, encoding)
    }

    /// The user that values of the header name, as it is sent.
    fn sent(taken: &Taken, values: &[&str]) -> Result<String, Refusal> {
        let lines: Vec<_> = values
            .iter()
            .map(|value| ("X-Acting-User", *value))
            .collect();
        let fields = fields(&lines);
        let user = taken.choose(&request("GET", "/", &fields), None);
        user.map(|user| user.as_sent().to_owned())
    }

    const ENCODINGS: [UserEncoding; 3] = [
        UserEncoding::Plain,
        UserEncoding::Percent,
        UserEncoding::Raw,
    ];

    #[test]
    fn who_is_on_the_list_and_nobody_else() {
        for encoding in ENCODINGS {
            let taken = header(names(&["support-*", "jane@example.com"], &[]), encoding);
            for good in ["support-1", "support-", "support-x_y", "support-a@b.c"] {
                assert_eq!(sent(&taken, &[good]), Ok(format!("={good}")), "{good}");
            }
            let long = format!("support-{}", "x".repeat(248));
            for bad in [
                "admin",
                "=admin",
                "1",
                "123",
                "",
                "=support-1",
                "==support-1",
                "support",
                "SUPPORT-1",
                "Support-1",
                "xsupport-1",
                " support-1",
                "support-1 ",
                "support-x\nadmin",
                "support-x\r\nX-Deki-Token: 1",
                "support-x\0",
                "support-x\u{85}",
                "support-%61",
                "support-x%0aadmin",
                "support-x%2f",
                "%73upport-1",
                "support-1, admin",
                "support-1,admin",
                "support-1, support-2",
                "support-\u{200b}x",
                "support-x\u{202e}",
                "support-x\u{3164}",
                "support-x\u{a0}",
                "support-x\u{1f600}admin",
                "support-x\u{20000}admin",
                "s\u{ad}upport-1",
                "\u{ff53}upport-1",
                "support-x_",
                "jane@example.com.evil.test",
                "xjane@example.com",
                "JANE@example.com",
                &long,
            ] {
                assert_eq!(
                    sent(&taken, &[bad]),
                    Err(Refusal::UserNotAllowed),
                    "{bad} as {encoding:?}"
                );
            }
            let refused = Err(Refusal::UserNotAllowed);
            assert_eq!(sent(&taken, &[]), refused);
            assert_eq!(sent(&taken, &["support-1", "support-1"]), refused);
            assert_eq!(sent(&taken, &["support-1", "admin"]), refused);
            assert_eq!(sent(&taken, &["", "support-1"]), refused);
        }
    }

    #[test]
    fn what_is_matched_is_what_is_signed() {
        let everybody = || names(&["*"], &[]);
        let check = |value: &str, expected: [Option<&str>; 3]| {
            for (encoding, expected) in ENCODINGS.into_iter().zip(expected) {
                let seen = sent(&header(everybody(), encoding), &[value]);
                assert_eq!(seen.ok().as_deref(), expected, "{value} as {encoding:?}");
            }
        };
        check("jane", [Some("=jane"); 3]);
        // Digits are the name of somebody, never an id.
        check("1", [Some("=1"); 3]);
        check("jane doe", [None, Some("=jane%20doe"), Some("=jane doe")]);
        check("J\u{f6}rg", [None, Some("=J%C3%B6rg"), Some("=J\u{f6}rg")]);
        check(
            "Jo\u{308}rg",
            [None, Some("=Jo%CC%88rg"), Some("=Jo\u{308}rg")],
        );
        check("O'Brien", [None, Some("=O%27Brien"), Some("=O'Brien")]);
        check(
            "\u{645}\u{62d}\u{645}\u{62f}",
            [
                None,
                Some("=%D9%85%D8%AD%D9%85%D8%AF"),
                Some("=\u{645}\u{62d}\u{645}\u{62f}"),
            ],
        );
        check("a%b", [None; 3]);
        check("=a", [None; 3]);
        check("a\tb", [None; 3]);
        let nobody = header(names(&[], &[]), UserEncoding::Raw);
        assert_eq!(sent(&nobody, &["jane"]), Err(Refusal::UserNotAllowed));
    }

    #[test]
    fn who_is_denied_is_denied_in_any_spelling() {
        let all_but = |deny: &[&str]| header(names(&["*"], deny), UserEncoding::Raw);
        let admin = all_but(&["Admin", "boss-*", "Jo\u{df}", "\u{17d}an"]);
        for spelling in [
            "admin",
            "Admin",
            "ADMIN",
            "aDmIn",
            "ad_min",
            "ad min",
            "\u{ff41}\u{ff44}\u{ff4d}\u{ff49}\u{ff4e}",
            "\u{c1}dm\u{ed}n",
            "a\u{301}dmin",
            "adm\u{131}n",
            "ADM\u{130}N",
            "a\u{111}min",
            "\u{1d43}dmin",
            "ad'min",
            "admin!",
            "BOSS-1",
            "bo\u{df}-1",
            "bo\u{1e9e}-1",
            "boss-",
            "JOSS",
            "jos\u{17f}",
            "zan",
        ] {
            let refused = Err(Refusal::UserNotAllowed);
            assert_eq!(sent(&admin, &[spelling]), refused, "{spelling}");
        }
        for other in [
            "admins",
            "xadmin",
            "a.dmin",
            "administrator",
            "boss",
            "jane",
            "\u{430}dmin",
        ] {
            assert_eq!(sent(&admin, &[other]), Ok(format!("={other}")), "{other}");
        }
        // `utf8_general_ci` reads a sharp s as one s.
        assert!(sent(&all_but(&["bos"]), &["bo\u{df}"]).is_err());
        assert!(sent(&all_but(&["boss"]), &["bo\u{df}"]).is_err());
        assert!(sent(&all_but(&["bos"]), &["boss"]).is_ok());
    }

    #[test]
    fn tables_hold_whole_values() {
        let user = |text: &str| User::parse(text, UserEncoding::Plain).unwrap();
        let table: HashMap<_, _, _> = [
            ("auth0|5f7", "=jane"),
            ("*", "=everybody"),
            ("=admin", "7"),
            ("100%", "8"),
        ]
        .into_iter()
        .map(|(value, name)| (value.into(), user(name)))
        .collect();
        let taken = header(Choice::Table(table), UserEncoding::Plain);
        for (value, expected) in [
            ("auth0|5f7", Some("=jane")),
            ("*", Some("=everybody")),
            ("=admin", Some("7")),
            ("100%", Some("8")),
            ("auth0|5f", None),
            ("Auth0|5f7", None),
            ("auth0|5f7 ", None),
            ("jane", None),
            ("=jane", None),
            ("admin", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(sent(&taken, &[value]).ok().as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn only_a_claim_that_is_a_text() {
        let source = Source::Claim("preferred_username".into());
        let taken = taken(source, names(&["support-*"], &[]), UserEncoding::Plain);
        let check = |claims: Option<&[(&str, Claim)]>, expected: Option<&str>| {
            let claims = claims.map(|claims| {
                let claims = claims.iter().cloned();
                Claims(claims.map(|(name, claim)| (name.into(), claim)).collect())
            });
            let user = taken.choose(&request("GET", "/", &[]), claims.as_ref());
            let seen = user.as_ref().map(User::as_sent);
            assert_eq!(seen, expected.ok_or(&Refusal::UserNotAllowed), "{claims:?}");
        };
        let text = |value: &str| Claim::Text(value.into());
        check(
            Some(&[("preferred_username", text("support-1"))]),
            Some("=support-1"),
        );
        check(Some(&[("preferred_username", text("support-1, x"))]), None);
        check(Some(&[("preferred_username", text("admin"))]), None);
        check(
            Some(&[("preferred_username", text(&"support-".repeat(32)))]),
            None,
        );
        let list = Claim::Texts(vec!["support-1".into()]);
        for odd in [
            list,
            Claim::Texts(Vec::new()),
            Claim::Integer(1),
            Claim::Fraction(1.5),
            Claim::Flag(true),
            Claim::Other,
        ] {
            check(Some(&[("preferred_username", odd)]), None);
        }
        check(Some(&[("Preferred_Username", text("support-1"))]), None);
        check(Some(&[("sub", text("support-1"))]), None);
        check(Some(&[]), None);
        check(None, None);
    }

    #[test]
    fn only_a_parameter_that_stands_once() {
        let source = Source::SignedQuery("userEmail".into());
        let taken = taken(source, names(&["*@example.com"], &[]), UserEncoding::Plain);
        let check = |target: &str, expected: Option<&str>| {
            let user = taken.choose(&request("GET", target, &[]), None);
            assert_eq!(user.ok().as_ref().map(User::as_sent), expected, "{target}");
        };
        check("/a?userEmail=jane%40example.com", Some("=jane@example.com"));
        check(
            "/a?userEmail=jane@example.com&b=1",
            Some("=jane@example.com"),
        );
        check("/a?userEmail=jane%2540example.com", None);
        check("/a?userEmail=jane%40example.com%0a", None);
        check("/a?userEmail=jane%40example.com&useremail=x", None);
        check("/a?userEmail=x&userEmail=jane%40example.com", None);
        check("/a?b=jane%40example.com", None);
        check("/userEmail=jane%40example.com", None);
    }

    #[test]
    fn a_header_that_a_proxy_would_have_taken_away() {
        let taken = header(names(&["*"], &[]), UserEncoding::Plain);
        let lines = [("X-Acting-User", "jane"), ("Connection", "x-acting-user")];
        let user = |lines: &[(&str, &str)]| {
            let fields = fields(lines);
            taken.choose(&request("GET", "/", &fields), None)
        };
        let nominated = Refusal::BadMessage(MessageFault::Connection);
        assert_eq!(user(&lines), Err(nominated));
        assert_eq!(user(&lines[1..]), Err(Refusal::UserNotAllowed));
        assert!(user(&lines[..1]).is_ok());
    }

    #[test]
    fn patterns_match_whole_values() {
        let check = |pattern: &str, good: &[&str], bad: &[&str]| {
            let glob = Glob::new(pattern);
            for value in good {
                assert!(glob.matches(value), "{pattern} {value}");
            }
            for value in bad {
                assert!(!glob.matches(value), "{pattern} {value}");
            }
        };
        check("a", &["a"], &["", "A", "aa", "a "]);
        check("", &[""], &["a"]);
        check("*", &["", "a", "a*b"], &[]);
        check("a*", &["a", "ab", "a*"], &["ba", ""]);
        check("*a", &["a", "ba"], &["ab"]);
        check("a*a", &["aa", "aba"], &["a", "ab"]);
        check("a**b", &["ab", "axb"], &["a"]);
        check("*ab*ab*", &["abab", "xabyabz"], &["ab", "aab", "abxa"]);
        check("a*b*c", &["abc", "a-b-b-c"], &["acb", "abcd"]);
        check("a?c", &["a?c"], &["abc"]);
        check("[a]", &["[a]"], &["a"]);
    }

    /// Matching by trying every place: what shells do, in the fewest words.
    fn matches(pattern: &[char], value: &[char]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                matches(rest, value) || !value.is_empty() && matches(pattern, &value[1..])
            }
            ([a, rest @ ..], [b, others @ ..]) => a == b && matches(rest, others),
            _ => false,
        }
    }

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    proptest! {
        #[test]
        fn patterns_match_as_shells_do(pattern in "[ab*]{0,8}", value in "[ab]{0,10}") {
            let expected = matches(&chars(&pattern), &chars(&value));
            prop_assert_eq!(Glob::new(&pattern).matches(&value), expected);
        }

        #[test]
        fn nobody_becomes_somebody_else(
            pattern in "[a-c*-]{0,4}",
            denied in "[a-c]{1,3}",
            value in prop_oneof!["[a-cA-C=%_ ,1-]{0,6}", "\\PC{0,12}", "[\\x00-\\x7f]{0,8}"],
        ) {
            for encoding in ENCODINGS {
                let taken = header(names(&[&pattern], &[&denied]), encoding);
                let Some(user) = taken.user(value.as_bytes()) else { continue };
                prop_assert!(matches(&chars(&pattern), &chars(&value)), "not on the list");
                prop_assert_ne!(fold(&value), fold(&denied));
                prop_assert_eq!(user.name(), Some(&*value), "the very name");
                prop_assert!(user.as_sent().starts_with('='), "never an id");
                let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b".@_-".contains(&b));
                prop_assert!(plain || encoding != UserEncoding::Plain);
                prop_assert!(!value.chars().any(char::is_control));
            }
        }

        #[test]
        fn folding_goes_no_further(name in "\\PC{0,12}") {
            let folded = fold(&name);
            prop_assert_eq!(fold(&folded), folded.clone());
            prop_assert_eq!(fold(&format!(" {}_", name.to_uppercase())), fold(&name.to_uppercase()));
        }
    }
}
