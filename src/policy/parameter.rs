//! Which query parameters may pass, with their names read exactly as the site reads them.
//!
//! Dream, the framework under the API, splits a query at `&` only, decodes `+`, `%XX` and `%uXXXX`,
//! leaves broken escapes as they are, compares names without case and lets the first one win
//! (`XUriParser.Decode`, `XUri.GetParam` in MindTouch/DReAM). Every occurrence is judged here, so
//! which one wins does not matter.

use std::borrow::Cow;

use http::Method;

use super::Refusal;
use super::escape::decoded;
use super::names::Names;

/// What the parameters that may pass mean for the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `dream.in.verb`, decoded, as sent.
    pub verb: Option<Method>,
}

impl Parameters {
    /// Judges every parameter of a query; `may_mint` says whether the route allows what sets
    /// passwords.
    ///
    /// # Errors
    /// [`Refusal::CallerSentToken`] for a token or an identity, [`Refusal::ForbiddenParameter`] for
    /// one that steers the site, reshapes its answer or sets a password,
    /// [`Refusal::ConflictingMethod`] for a `dream.in.verb` that repeats or is no method.
    pub fn judge(query: Option<&str>, may_mint: bool) -> Result<Self, Refusal> {
        let mut parameters = Self::default();
        for (name, value) in pairs(query.unwrap_or_default()) {
            let name = decode(name);
            // No parameter of the API is named outside ASCII; some comparisons of names that
            // ignore case also ignore invisible characters and compatibility forms.
            if name.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
                return Err(Refusal::ForbiddenParameter);
            }
            let name = name.trim();
            let is = |known: &&str| name.eq_ignore_ascii_case(known);
            let begins = |prefix: &&str| {
                name.get(..prefix.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            };
            if IDENTITIES.has(name.as_bytes()) || begins(&"x-deki-") {
                return Err(Refusal::CallerSentToken);
            }
            // The vendor documents it on nearly every call. It asks for credentials, and names nobody.
            if is(&"authenticate") {
                let value = decode(value);
                if !["true", "false"]
                    .iter()
                    .any(|one| value.eq_ignore_ascii_case(one))
                {
                    return Err(Refusal::CallerSentToken);
                }
            } else if is(&"dream.in.verb") {
                if parameters.verb.is_some() {
                    return Err(Refusal::ConflictingMethod);
                }
                let verb = decode(value).to_ascii_uppercase();
                parameters.verb = Some(
                    Method::from_bytes(verb.as_bytes()).map_err(|_| Refusal::ConflictingMethod)?,
                );
            } else if is(&"dream.out.format") {
                let format = decode(value);
                if !FORMATS.iter().any(|one| format.eq_ignore_ascii_case(one)) {
                    return Err(Refusal::ForbiddenParameter);
                }
            } else if !is(&"dream.out.select") && STEERING.iter().any(begins)
                || !may_mint && sets_a_password(name)
            {
                return Err(Refusal::ForbiddenParameter);
            }
        }
        Ok(parameters)
    }
}

/// Whether the first `dream.out.format` of a query is `json`: how a refusal is to be written. Reads
/// any query, also one that is refused.
pub fn asks_for_json(query: &str) -> Option<bool> {
    pairs(query)
        .find(|(name, _)| decode(name).eq_ignore_ascii_case("dream.out.format"))
        .map(|(_, value)| decode(value).eq_ignore_ascii_case("json"))
}

/// The value of the only parameter of this name in a target, decoded as forms are (WHATWG URL,
/// `application/x-www-form-urlencoded`); `None` for none, for several in any spelling of the name, and
/// for broken escapes.
pub fn only(target: &[u8], name: &str) -> Option<Vec<u8>> {
    let target = std::str::from_utf8(target).ok()?;
    let (_, query) = target.split_once('?')?;
    let mut values =
        pairs(query).filter(|(sent, _)| decode(sent).trim().eq_ignore_ascii_case(name));
    let (Some((_, value)), None) = (values.next(), values.next()) else {
        return None;
    };
    let is_hex = |at: usize| {
        let digits = value.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let mut escapes = memchr::memchr_iter(b'%', value.as_bytes());
    if !escapes.all(is_hex) {
        return None;
    }
    Some(decoded(value, |byte| if byte == b'+' { b' ' } else { byte }).0)
}

/// A target without the parameters of these names, however their names are spelt; the rest of it byte
/// for byte.
pub fn without<'t>(target: &'t [u8], names: &[Box<str>]) -> Cow<'t, [u8]> {
    let whole = Cow::Borrowed(target);
    let (Some(at), false) = (memchr::memchr(b'?', target), names.is_empty()) else {
        return whole;
    };
    let (path, query) = (&target[..at], &target[at + 1..]);
    let is_dropped = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name = decode(&name);
        names
            .iter()
            .any(|one| name.trim().eq_ignore_ascii_case(one))
    };
    let pairs = || query.split(|byte| *byte == b'&');
    if !pairs().any(is_dropped) {
        return whole;
    }
    let kept: Vec<&[u8]> = pairs().filter(|pair| !is_dropped(pair)).collect();
    let mut shorter = path.to_vec();
    if !kept.is_empty() {
        shorter.push(b'?');
        shorter.extend_from_slice(&kept.join(&b'&'));
    }
    Cow::Owned(shorter)
}

/// Names that say who asks, by any of the ways the API family accepts.
static IDENTITIES: Names<8> = Names::new([
    "apikey",
    "x-apikey",
    "authtoken",
    "dekisession",
    "service-key",
    "x-authtoken",
    "x-deki-token",
    "impersonateuserid",
]);

/// The formats of an answer that no browser runs as a program.
const FORMATS: [&str; 3] = ["json", "php", "xml"];

/// How the names begin of what steers the site or reshapes its answer.
const STEERING: [&str; 3] = ["dream.in", "dream.out", "x-dream-"];

/// Whether a parameter is one of those that set a credential: `accountpassword`, `authpassword`,
/// `newpassword` and whatever else is called so.
fn sets_a_password(name: &str) -> bool {
    let name = name.as_bytes();
    memchr::memchr2_iter(b'p', b'P', name).any(|at| {
        ["password", "passwd", "passphrase", "pwd"]
            .iter()
            .any(|word| {
                let piece = name.get(at..at + word.len());
                piece.is_some_and(|piece| piece.eq_ignore_ascii_case(word.as_bytes()))
            })
    })
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes as Dream does: `+`, `%XX`, `%uXXXX`; what is no escape stays.
fn decode(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'+', b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let (decoded, _) = decoded(text, |byte| if byte == b'+' { b' ' } else { byte });
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(query: &str, expected: Result<Option<&str>, Refusal>) {
        let got = Parameters::judge(Some(query), false).map(|p| p.verb.map(|v| v.to_string()));
        assert_eq!(got, expected.map(|verb| verb.map(str::to_owned)), "{query}");
    }

    #[test]
    fn ordinary_queries_pass() {
        check("", Ok(None));
        check("q=a&limit=10&dream.out.format=json", Ok(None));
        check("DREAM.OUT.FORMAT=PHP&dream.out.select=//page", Ok(None));
        check(
            "constraint=type:wiki+AND+%2B(%2Bnamespace:main)&_=1&origin=mt-web",
            Ok(None),
        );
        check(
            "q=authtoken&title=x-deki-token&a;authtoken=1&redirect=%zz",
            Ok(None),
        );
        check("authenticate=true&AUTHENTICATE=False", Ok(None));
        check("dream.in.verb=PUT", Ok(Some("PUT")));
        check("Dream%2EIn%2EVerb=delete", Ok(Some("DELETE")));
    }

    #[test]
    fn what_is_taken_out_of_a_target() {
        let check = |target: &str, expected: &str| {
            let names = ["userId", "appId"].map(Box::from);
            let left = without(target.as_bytes(), &names);
            assert_eq!(String::from_utf8_lossy(&left), expected, "{target}");
            let is_same = matches!(left, Cow::Borrowed(_));
            assert_eq!(is_same, target == expected, "{target}");
            assert_eq!(&*without(target.as_bytes(), &[]), target.as_bytes());
        };
        for same in [
            "/a",
            "/a?",
            "/a?b=%zz&&c",
            "/userId=1?x=userId",
            "/a?userId2=1&myuserId=1&x%3DuserId=1",
            "/a?x=1;userId=2",
        ] {
            check(same, same);
        }
        check("/a?userId=1", "/a");
        check("/a?userId", "/a");
        check("/a?b=%41&userId=1&c=+", "/a?b=%41&c=+");
        check("/a?USERID=1&b&appid=&userId=2", "/a?b");
        check("/a?&userId=1&", "/a?&");
        for spelt in [
            "%75serId",
            "userI%64",
            "%u0075serId",
            "+userId+",
            "%20userId",
        ] {
            check(&format!("/a?{spelt}=1&b=2"), "/a?b=2");
        }
    }

    #[test]
    fn identities_in_any_spelling() {
        for query in [
            "x-deki-token=1",
            "authtoken=1",
            "AuthToken=",
            "apikey=1",
            "a=1&ApiKey=2",
            "impersonateuserid=1",
            "%61uthtoken=1",
            "%u0061uthtoken=1",
            "%U0061uthtoken=1",
            "x%2ddeki%2Dtoken",
            "authtoken",
            "+authtoken=1",
            "X-Authtoken=1",
            "authenticate=1_admin",
            "authenticate",
            "authenticate=true&Authenticate=x",
            "x-deki-site=1",
        ] {
            check(query, Err(Refusal::CallerSentToken));
        }
    }

    #[test]
    fn steering_and_shaping_in_any_spelling() {
        for query in [
            "dream.in.host=x",
            "dream.in.uri=x",
            "dream.in.origin=x",
            "dream.in.scheme=x",
            "dream.in.root=x",
            "dream.in.format=xpost",
            "DREAM%2EIN%2EHOST=x",
            "dream.out.callback=f",
            "dream.out.pre=x",
            "dream.out.post=x",
            "dream.out.type=text/html",
            "dream.out.saveas=x",
            "dream.out.format=jsonp",
            "dream.out.format=xhtml",
            "dream.out.format=json&dream.out.format=versit",
            "dream.out.format=",
            "dream%u002eout.callback=f",
            "dream.out.unheard=1",
            "auth%e2%80%8btoken=1",
            "%00authtoken=1",
        ] {
            check(query, Err(Refusal::ForbiddenParameter));
        }
    }

    #[test]
    fn what_sets_a_password() {
        for name in [
            "accountpassword",
            "AccountPassword",
            "authpassword",
            "newpassword",
            "currentpassword",
            "password",
            "account%70assword",
            "account%u0050assword",
            "altpasswd",
            "userpwd",
        ] {
            let query = format!("a=1&{name}=x");
            check(&query, Err(Refusal::ForbiddenParameter));
            let where_it_may = Parameters::judge(Some(&query), true);
            assert_eq!(where_it_may, Ok(Parameters::default()), "{name}");
        }
        check("q=password&title=accountpassword", Ok(None));
    }

    #[test]
    fn one_verb_only() {
        check(
            "dream.in.verb=PUT&dream.in.verb=PUT",
            Err(Refusal::ConflictingMethod),
        );
        check(
            "dream.in.verb=PUT&Dream.in.Verb=GET",
            Err(Refusal::ConflictingMethod),
        );
        check("dream.in.verb=", Err(Refusal::ConflictingMethod));
        check("dream.in.verb=PUT%20", Err(Refusal::ConflictingMethod));
    }

    #[test]
    fn the_first_format_counts_for_refusals() {
        assert_eq!(asks_for_json("a=1&dream.out.format=JSON"), Some(true));
        assert_eq!(
            asks_for_json("dream.out.format=xml&dream.out.format=json"),
            Some(false)
        );
        assert_eq!(asks_for_json("a=1"), None);
    }

    #[test]
    fn the_only_one_of_its_name() {
        let check = |target: &str, expected: Option<&str>| {
            let value = only(target.as_bytes(), "userEmail");
            assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{target}");
        };
        check("/a?userEmail=x", Some("x"));
        check("/a?b=1&userEmail=x%40y&c=%2e&&d", Some("x@y"));
        check("/a?USEREMAIL=a+b", Some("a b"));
        check("/a?user%45mail=x", Some("x"));
        check("/a?userEmail", Some(""));
        check("/a?userEmail=x&userEmail=x", None);
        check("/a?userEmail=x&b=1&User%45mail=y", None);
        for broken in ["%", "%zz", "a%4", "%u0041"] {
            check(&format!("/a?userEmail={broken}"), None);
        }
        check("/a?b=userEmail=x", None);
        check("/a", None);
        check("/userEmail=x", None);
    }

    proptest! {
        #[test]
        fn an_encoded_identity_never_passes(mask in proptest::collection::vec(0u8..4, 9)) {
            let name: String = "authtoken".bytes().zip(mask).map(|(b, how)| match how {
                0 => (b as char).to_string(),
                1 => (b as char).to_ascii_uppercase().to_string(),
                2 => format!("%{b:02x}"),
                _ => format!("%u{b:04X}"),
            }).collect();
            prop_assert_eq!(
                Parameters::judge(Some(&format!("a=b&{name}=x")), false),
                Err(Refusal::CallerSentToken)
            );
        }

        #[test]
        fn decoding_never_panics(query in "\\PC{0,60}") {
            let _ = Parameters::judge(Some(&query), false);
        }
    }
}
