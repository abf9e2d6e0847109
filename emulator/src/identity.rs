//! Whom the site takes a caller for, by every credential the API family accepts.
//!
//! More than a careful site would: sessions and passwords count without the gateway, so that a test
//! shows at once what the gateway has let through.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, ORIGIN};

use super::clock::Moment;
use super::denial::Denial;
use super::journal::TokenSeen;
use super::parameters::Parameters;
use super::token::{Flaw, Keys, Token, admits};
use super::wiki::{User, Wiki};

/// A caller the site lets in.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) user: User,
    pub(super) seen: TokenSeen,
    /// The user a server token names, whether there is such a user or not.
    pub(super) named: Option<String>,
}

/// What there is to know a caller by.
pub(super) struct Credentials<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) parameters: &'a Parameters,
}

impl Credentials<'_> {
    /// The header before the parameter; which of the two the real site prefers is not documented.
    pub(super) fn token(&self) -> Option<String> {
        match self.headers.get(TOKEN_HEADER) {
            Some(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
            None => self.parameters.first(TOKEN_HEADER).map(str::to_owned),
        }
    }

    pub(super) fn identify(
        &self,
        keys: &Keys,
        allowed_hosts: &[String],
        wiki: &Wiki,
        now: Moment,
    ) -> Result<Asking, Denial> {
        let Some(token) = self.token() else {
            return match self.without_token(wiki)? {
                Some(user) => Ok(Asking {
                    user,
                    seen: TokenSeen::None,
                    named: None,
                }),
                None => Err(Denial::token(Flaw::Missing)),
            };
        };
        match keys.verify(&token, now).map_err(Denial::token)? {
            Token::Server { user } => Ok(Asking {
                // A user nobody knows is no error: the caller is Anonymous then.
                user: wiki
                    .user_called(&user)
                    .cloned()
                    .unwrap_or_else(|| wiki.anonymous()),
                seen: TokenSeen::Server,
                named: Some(user),
            }),
            Token::Browser if self.on_allowed_page(allowed_hosts) => Ok(Asking {
                user: self
                    .without_token(wiki)?
                    .unwrap_or_else(|| wiki.anonymous()),
                seen: TokenSeen::Browser,
                named: None,
            }),
            Token::Browser => Err(Denial::token(Flaw::Origin)),
        }
    }

    /// Without an `Origin`, a header that any program can send makes up for it: the hole through
    /// which browser tokens are used by servers in production.
    fn on_allowed_page(&self, allowed_hosts: &[String]) -> bool {
        match self.header(ORIGIN.as_str()) {
            Some(origin) => admits(allowed_hosts, origin),
            None => ["x-requested-with", "x-deki-requested-with"]
                .into_iter()
                .any(|name| self.header(name) == Some("XMLHttpRequest")),
        }
    }

    /// By a session, or by the administrator's password.
    fn without_token(&self, wiki: &Wiki) -> Result<Option<User>, Denial> {
        if let Some(user) = self
            .sessions()
            .find_map(|session| wiki.session_user(session))
        {
            return Ok(Some(user.clone()));
        }
        let Some(basic) = self.authorization("Basic ") else {
            return Ok(None);
        };
        let password = BASE64_STANDARD.decode(basic).unwrap_or_default();
        if password.eq_ignore_ascii_case(b"admin:admin") {
            Ok(wiki.user(1).cloned())
        } else {
            Err(Denial::unauthenticated())
        }
    }

    /// In the order of the old source: query, cookie, header; and the newer bearer token.
    fn sessions(&self) -> impl Iterator<Item = &str> {
        let cookies = self
            .headers
            .get_all(COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().strip_prefix("authtoken="));
        self.parameters
            .first("authtoken")
            .into_iter()
            .chain(cookies)
            .chain(self.header("x-authtoken"))
            .chain(self.authorization("Bearer "))
            .map(|session| session.trim_matches('"'))
    }

    fn authorization(&self, scheme: &str) -> Option<&str> {
        let value = self.header(AUTHORIZATION.as_str())?;
        let (head, rest) = value.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| rest.trim())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// 32 random hexadecimal digits, as sessions have.
pub(super) fn nonce() -> String {
    let mut bytes = [0; 16];
    // Without random bytes sessions can be guessed, which harms nobody here.
    getrandom::fill(&mut bytes).ok();
    base16ct::lower::encode_string(&bytes)
}

pub(super) const TOKEN_HEADER: &str = "x-deki-token";

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "b0b0";

    /// Who is asking, by these headers and this query: the name, or the status of the refusal.
    fn check(headers: &[(&'static str, &str)], query: &str) -> Result<String, String> {
        let keys = Keys {
            token_key: "a".to_owned(),
            token_secret: "s".to_owned(),
            browser_key: BROWSER.to_owned(),
        };
        let mut wiki = Wiki::sample(Moment::at(0));
        wiki.open_session("4_session".to_owned(), 4);
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let parameters = Parameters::read(Some(query));
        Credentials {
            headers: &headers,
            parameters: &parameters,
        }
        .identify(&keys, &["*.example.com".to_owned()], &wiki, Moment::at(0))
        .map(|asking| asking.user.name)
        .map_err(|denial| format!("{denial:?}"))
    }

    #[test]
    fn sessions_and_passwords_work_without_the_gateway() {
        for (headers, query) in [
            (vec![("cookie", "a=b; authtoken=\"4_session\"")], ""),
            (vec![("x-authtoken", "4_session")], ""),
            (vec![("authorization", "bearer 4_session")], ""),
            (vec![], "AuthToken=4_session"),
        ] {
            assert_eq!(
                check(&headers, query).as_deref(),
                Ok("support-anna"),
                "{headers:?} {query}"
            );
        }
        let basic = [("authorization", "Basic YWRtaW46YWRtaW4=")];
        assert_eq!(check(&basic, "").as_deref(), Ok("Admin"));
        assert!(check(&[("authorization", "Basic AAAA")], "").is_err());
        assert!(
            check(&[], "")
                .unwrap_err()
                .contains("missing required token")
        );
        assert!(check(&[("cookie", "authtoken=other")], "").is_err());
    }

    #[test]
    fn the_browser_token_needs_its_page() {
        let token = (TOKEN_HEADER, BROWSER);
        let page = ("origin", "https://crm.example.com");
        assert_eq!(check(&[token, page], "").as_deref(), Ok("Anonymous"));
        assert_eq!(
            check(&[page], "X-Deki-Token=b0b0").as_deref(),
            Ok("Anonymous")
        );
        assert!(check(&[token, ("origin", "https://evil.test")], "").is_err());
        assert!(check(&[token], "").is_err(), "no page at all");
        let hole = ("x-requested-with", "XMLHttpRequest");
        assert_eq!(
            check(&[token, hole], "").as_deref(),
            Ok("Anonymous"),
            "the known hole"
        );
        assert!(check(&[token, hole, ("origin", "null")], "").is_err());
        let session = ("cookie", "authtoken=4_session");
        assert_eq!(
            check(&[token, page, session], "").as_deref(),
            Ok("support-anna")
        );
    }
}
