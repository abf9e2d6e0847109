//! `acts_as`: a fixed user, or where a value that names one stands, and which values are good.

use std::sync::Arc;

use super::NamedCaller;
use crate::config::compile::sites::NamedSite;
use crate::config::reference::References;
use crate::config::tree::{At, Fields, join};
use crate::policy::acts_as::{ActsAs, Choice, Glob, Source, Taken, VALUE_BYTES_MAX, fold};
use crate::policy::parameter::Parameters;
use crate::policy::route::{Access, Route};
use crate::policy::site::Site;
use crate::rewrite::names;
use crate::signing::{User, UserFault};

/// Whom a caller acts as, as the file writes it; the route's site decides how users are spelt.
#[derive(Debug)]
pub(in crate::config::compile) enum Written {
    /// Always this one.
    Fixed(String),
    /// The one that a value names.
    Taken {
        /// Where the value stands.
        source: Source,
        /// Which values are good.
        choice: WrittenChoice,
    },
}

#[derive(Debug)]
pub(in crate::config::compile) enum WrittenChoice {
    Names {
        allow: Vec<String>,
        deny: Vec<String>,
    },
    Table(Vec<(String, String)>),
}

/// What stands for a user who is elsewhere: nobody of whom the operator would be told.
const STAND_IN: &str = "9999999999";

/// What of a caller's credential matters for where a user may be taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proves {
    /// Whether it is a token, which has claims.
    pub(super) claims: bool,
    /// Whether it is a signature that covers the URL.
    pub(super) query: bool,
}

pub(super) fn compile(at: At<'_>, references: &References<'_>, proves: Proves) -> Option<Written> {
    if at.is_map() {
        return taken(at, proves);
    }
    if at.is_number() {
        at.problem("write the user id in quotes, such as \"123\"");
        return None;
    }
    references.plain(&at, STAND_IN).map(Written::Fixed)
}

fn taken(at: At<'_>, proves: Proves) -> Option<Written> {
    let fields = at.fields(&["claim", "header", "signed_query", "allow", "deny", "map"])?;
    let source = source(&fields, proves);
    let choice = match fields.has("map") {
        true => table(&fields),
        false => names(&fields),
    };
    Some(Written::Taken {
        source: source?,
        choice: choice?,
    })
}

fn source(fields: &Fields<'_>, proves: Proves) -> Option<Source> {
    let sources = ["claim", "header", "signed_query"];
    let given = sources.iter().filter(|key| fields.has(key)).count();
    if given > 1 || given == 0 && !fields.has("map") {
        fields.problem("write exactly one of claim, header and signed_query: where the value stands that names the user");
        return None;
    }
    if !proves.claims && (fields.has("claim") || given == 0) {
        let key = if given == 0 { "map" } else { "claim" };
        fields.problem_at(key, "a claim is what a token says, and this caller presents none; write jwt in place of its credential, or header");
        return None;
    }
    if !proves.query && fields.has("signed_query") {
        fields.problem_at("signed_query", "only a signature that covers the URL proves a query parameter, and this caller has none; write hmac with such a scheme in place of its credential, or header");
        return None;
    }
    if given == 0 {
        return Some(Source::Claim("sub".into()));
    }
    let claim = fields.optional("claim", |at| Some(Source::Claim(at.text()?.into())));
    let header = fields.optional("header", |at| header(at).map(Source::Header));
    let query = fields.optional("signed_query", |at| query(at).map(Source::SignedQuery));
    claim.or(header).or(query)
}

/// The name of a header that means nothing but what the caller means by it. Such names begin with
/// `X-`, so that none which is given a meaning some day is among them.
fn header(at: At<'_>) -> Option<Box<str>> {
    let name = at.text()?.to_ascii_lowercase();
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_free = name.len() > 2 && name.starts_with("x-") && !names::never_go_up(&name);
    if !is_name || !is_free {
        at.problem("a header that names a user begins with X-, has letters, digits and hyphens, and has no other meaning; write one such as X-Acting-User");
        return None;
    }
    Some(name.into())
}

/// The name of a parameter that could go up.
fn query(at: At<'_>) -> Option<Box<str>> {
    let name = at.text()?;
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !is_name || Parameters::judge(Some(name), false) != Ok(Parameters::default()) {
        at.problem("a parameter that names a user has letters, digits, hyphens, dots and underscores, and no meaning to the site; write one such as userEmail");
        return None;
    }
    Some(name.into())
}

fn names(fields: &Fields<'_>) -> Option<WrittenChoice> {
    if !fields.has("allow") {
        fields.problem("allow is missing; list patterns of the names that may be taken, such as \"support-*\": without them nobody may");
    }
    let (mut allowed, mut denied) = (0, 0);
    let allow = fields.each("allow", |at| {
        allowed += 1;
        pattern(at)
    });
    let deny = fields.each("deny", |at| {
        denied += 1;
        let pattern = pattern(at)?;
        if fold(&pattern.replace('*', "")).is_empty() {
            at.problem("this has no letter or digit, so it would deny every name; leave it out, or write what the names have");
            return None;
        }
        Some(pattern)
    });
    let is_whole = allow.len() == allowed && deny.len() == denied && !allow.is_empty();
    is_whole.then_some(WrittenChoice::Names { allow, deny })
}

/// A pattern that a name could match.
fn pattern(at: At<'_>) -> Option<String> {
    let text = at.text()?;
    let fault = if text.starts_with('=') {
        "a pattern is of bare names; leave out the = before it"
    } else if text.contains('%') {
        "a pattern is of names as they are, unencoded, and no name that is taken holds a percent sign; write map for such a one"
    } else if text.len() > VALUE_BYTES_MAX || text.chars().any(char::is_control) {
        "a pattern has at most 255 bytes and no control characters"
    } else {
        return Some(text.to_owned());
    };
    at.problem(fault);
    None
}

fn table(fields: &Fields<'_>) -> Option<WrittenChoice> {
    for key in ["allow", "deny"] {
        if fields.has(key) {
            fields.problem_at(
                key,
                "map names every value that is good already; remove one of them",
            );
        }
    }
    let users = fields.optional("map", |at| {
        let entries = at.map()?;
        let users: Vec<_> = entries
            .iter()
            .filter_map(|(value, node)| {
                let place = join(at.place(), value);
                let at = at.child(node, &place);
                if value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
                    at.problem(
                        "a value that names a user has at most 255 bytes and no control characters",
                    );
                    return None;
                }
                if at.is_number() {
                    at.problem("write the user id in quotes, such as \"123\"");
                    return None;
                }
                Some(((*value).to_owned(), at.text()?.to_owned()))
            })
            .collect();
        (users.len() == entries.len()).then_some(users)
    })?;
    Some(WrittenChoice::Table(users))
}

impl Written {
    /// The same with users spelt as a site wants them.
    pub(in crate::config::compile) fn at_site(&self, site: &Site) -> Result<ActsAs, UserFault> {
        let encoding = site.user_encoding;
        let (source, choice) = match self {
            Self::Fixed(text) => return User::parse(text, encoding).map(ActsAs::Fixed),
            Self::Taken { source, choice } => (source, choice),
        };
        let choice = match choice {
            WrittenChoice::Table(users) => {
                let users = users.iter().map(|(value, user)| {
                    User::parse(user, encoding).map(|user| (value.as_str().into(), user))
                });
                Choice::Table(users.collect::<Result<_, _>>()?)
            }
            WrittenChoice::Names { allow, deny } => {
                for pattern in allow {
                    // A name that it matches, whatever stands for its stars.
                    User::parse(&format!("={}", pattern.replace('*', "x")), encoding)?;
                }
                Choice::Names {
                    allow: allow.iter().map(|text| Glob::new(text)).collect(),
                    deny: deny.iter().map(|text| Glob::folded(text)).collect(),
                }
            }
        };
        Ok(ActsAs::Taken(Arc::new(Taken {
            source: source.clone(),
            choice,
            encoding,
        })))
    }

    /// The header it is taken from, in lower case.
    pub(in crate::config::compile) fn header(&self) -> Option<&str> {
        match self {
            Self::Taken {
                source: Source::Header(name),
                ..
            } => Some(name),
            _ => None,
        }
    }

    /// Whether it can be this user, `=admin` or `1`, by any spelling that a site may take for it.
    pub(in crate::config::compile) fn may_be(&self, user: &str) -> bool {
        let is_same = |text: &str| match (text.strip_prefix('='), user.strip_prefix('=')) {
            (Some(text), Some(user)) => fold(text) == fold(user),
            (None, None) => text == user,
            _ => false,
        };
        match self {
            Self::Fixed(text) => is_same(text),
            Self::Taken { choice, .. } => match choice {
                WrittenChoice::Table(users) => users.iter().any(|(_, user)| is_same(user)),
                WrittenChoice::Names { allow, deny } => {
                    let Some(name) = user.strip_prefix('=').map(fold) else {
                        return false;
                    };
                    let has = |patterns: &[String]| {
                        let mut globs = patterns.iter().map(|text| Glob::folded(text));
                        globs.any(|glob| glob.matches(&name))
                    };
                    has(allow) && !has(deny)
                }
            },
        }
    }
}

/// Tells the operator of callers that can be an administrator of a site they have a route to.
pub(in crate::config::compile) fn warn_of_administrators(
    file: &Fields<'_>,
    sites: &[NamedSite],
    callers: &[NamedCaller],
    routes: &[Arc<Route>],
) {
    for named in callers {
        let Some(acts_as) = &named.acts_as else {
            continue;
        };
        let calls = |route: &Route| match &route.access {
            Access::Server { callers, .. } => callers
                .iter()
                .any(|acting| acting.caller.name == named.name),
            Access::Browser => false,
        };
        let is_dangerous = |site: &&NamedSite| {
            let mut of_site = routes.iter().filter(|route| route.site.name == site.name);
            let mut administrators = site.administrators.iter();
            administrators.any(|user| acts_as.may_be(user)) && of_site.any(|route| calls(route))
        };
        if let Some(site) = sites.iter().find(is_dangerous) {
            file.warning_on(&named.acts_as_spot, format!("this caller can act as an administrator of site {}; take a user that may do no more than it has to, or deny the administrators", site.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(allow: &[&str], deny: &[&str]) -> Written {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Written::Taken {
            source: Source::Claim("sub".into()),
            choice: WrittenChoice::Names {
                allow: texts(allow),
                deny: texts(deny),
            },
        }
    }

    #[test]
    fn who_can_become_an_administrator() {
        let check = |written: &Written, user: &str, expected: bool| {
            assert_eq!(written.may_be(user), expected, "{written:?} {user}");
        };
        let fixed = |text: &str| Written::Fixed(text.to_owned());
        check(&fixed("=admin"), "=admin", true);
        check(&fixed("=Ad_min"), "=admin", true);
        check(&fixed("=admins"), "=admin", false);
        check(&fixed("1"), "1", true);
        check(&fixed("=1"), "1", false);
        check(&fixed("11"), "1", false);
        check(&names(&["*"], &[]), "=admin", true);
        check(&names(&["a*"], &[]), "=admin", true);
        check(&names(&["Admin"], &[]), "=admin", true);
        check(&names(&["x-*", "*min"], &[]), "=Admin", true);
        check(&names(&["*"], &["ADMIN"]), "=admin", false);
        check(&names(&["*"], &["a*"]), "=admin", false);
        check(&names(&["*"], &["admins", "wiki*"]), "=admin", true);
        check(&names(&["*"], &["admin"]), "=wikiadmin", true);
        check(&names(&["support-*"], &[]), "=admin", false);
        check(&names(&["*"], &[]), "1", false);
        let table = Written::Taken {
            source: Source::Claim("sub".into()),
            choice: WrittenChoice::Table(vec![
                ("a".to_owned(), "=jane".to_owned()),
                ("b".to_owned(), "=Admin".to_owned()),
                ("c".to_owned(), "1".to_owned()),
            ]),
        };
        check(&table, "=admin", true);
        check(&table, "1", true);
        check(&table, "7", false);
        check(&table, "=a", false);
    }
}
