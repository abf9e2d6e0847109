//! Whom the site is told is asking: a user id, or a user name with `=` before it.
//!
//! The vendor's page "Use a Server API Token With an Integration"
//! (success.mindtouch.com/Integrations/API/API_Tokens/Server_API_Tokens) says of the user that it
//! "must be encoded" and not how, so a name that needs it is refused until the site's
//! [`UserEncoding`] says what to do.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A MindTouch user as a token names it.
///
/// A user is not secret: it appears in the access record. Cloning it copies no text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    sent: Arc<str>,
    /// The text it was parsed from, where that is not what is sent.
    written: Option<Arc<str>>,
}

impl User {
    /// Reads `123` or `=admin`.
    ///
    /// An id has up to ten digits, the first of them not 0. No source states a range; a leading
    /// zero would spell a second time a user that somebody denied under the usual spelling.
    ///
    /// A name of `[A-Za-z0-9.@_-]` is sent as it is under any encoding. A name that needs
    /// percent-encoding has everything outside `[A-Za-z0-9._-]` encoded, so its `@` as well.
    /// It is written unencoded in the file: a `%` in it means a percent sign.
    pub fn parse(text: &str, encoding: UserEncoding) -> Result<Self, UserFault> {
        if text.chars().any(char::is_control) {
            return Err(UserFault::Control);
        }
        let Some(name) = text.strip_prefix('=') else {
            return Self::parse_id(text);
        };
        if name.is_empty() {
            return Err(UserFault::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(UserFault::NameTooLong);
        }
        let as_written = || Self {
            sent: text.into(),
            written: None,
        };
        match encoding {
            _ if name.bytes().all(is_plain) => Ok(as_written()),
            UserEncoding::Plain => Err(UserFault::NeedsEncoding),
            UserEncoding::Raw => Ok(as_written()),
            UserEncoding::Percent => Ok(Self {
                sent: format!("={}", utf8_percent_encode(name, ENCODED)).into(),
                written: Some(text.into()),
            }),
        }
    }

    /// As it stands in the token: what is signed and what is sent.
    pub fn as_sent(&self) -> &str {
        &self.sent
    }

    /// The user name, unencoded and without `=`; nothing for an id.
    pub fn name(&self) -> Option<&str> {
        self.written
            .as_deref()
            .unwrap_or(&self.sent)
            .strip_prefix('=')
    }

    fn parse_id(text: &str) -> Result<Self, UserFault> {
        if text.is_empty() {
            return Err(UserFault::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UserFault::NeitherIdNorName);
        }
        if text.starts_with('0') || text.len() > ID_DIGITS_MAX {
            return Err(UserFault::IdOutOfRange);
        }
        Ok(Self {
            sent: text.into(),
            written: None,
        })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_sent())
    }
}

/// What a site wants done with a user name that is not plain (`user_encoding` in the file).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserEncoding {
    /// Nothing: only plain names are accepted.
    #[default]
    Plain,
    /// Percent-encode its UTF-8, and sign what is sent.
    Percent,
    /// Send and sign its UTF-8 as it is.
    Raw,
}

/// Why a text names no user that could be signed for. The message holds the cure, not the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserFault {
    /// There is no text, or nothing after the `=`.
    #[error("the user is empty; write an id as 123, or a name as =admin")]
    Empty,
    /// Not digits, and no `=` before it.
    #[error("a user is an id as 123, or a name with = before it; write =NAME")]
    NeitherIdNorName,
    /// Digits, but not those of an id.
    #[error("a user id has one to ten digits and does not begin with 0; write a name as =NAME")]
    IdOutOfRange,
    /// A byte that could end a header, a line or a terminal's patience.
    #[error("a user has no control characters; look for a line break or a tab at its end")]
    Control,
    /// Longer than any name the site keeps.
    #[error("a user name has at most {NAME_BYTES_MAX} bytes; give the user's id instead")]
    NameTooLong,
    /// A name outside `[A-Za-z0-9.@_-]`, and no encoding chosen.
    #[error(
        "a user name beyond A-Z a-z 0-9 . @ _ - needs the site's user_encoding: percent (or raw); \
         or give the user's id"
    )]
    NeedsEncoding,
}

const ID_DIGITS_MAX: usize = 10;
const NAME_BYTES_MAX: usize = 255;
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'@' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::UserEncoding::{Percent, Plain, Raw};
    use super::*;

    fn check(text: &str, encoding: UserEncoding, expected: Result<&str, UserFault>) {
        let user = User::parse(text, encoding);
        let sent = user.as_ref().map(User::as_sent).map_err(|fault| *fault);
        assert_eq!(sent, expected, "{text:?} as {encoding:?}");
    }

    #[test]
    fn ids_are_digits() {
        for encoding in [Plain, Percent, Raw] {
            for id in ["1", "123", "4294967295", "9999999999"] {
                check(id, encoding, Ok(id));
            }
            for id in ["0", "007", "12345678901"] {
                check(id, encoding, Err(UserFault::IdOutOfRange));
            }
            for text in [
                "admin",
                "12a",
                " 123",
                "-1",
                "1.0",
                "\u{661}\u{662}",
                "admin=",
            ] {
                check(text, encoding, Err(UserFault::NeitherIdNorName));
            }
        }
    }

    #[test]
    fn plain_names_are_sent_as_they_are_under_any_encoding() {
        for encoding in [Plain, Percent, Raw] {
            for text in [
                "=foo",
                "=first_last",
                "=a_b_c_",
                "=jane@example.com",
                "=A-1.z",
                "=123",
            ] {
                check(text, encoding, Ok(text));
            }
        }
    }

    #[test]
    fn other_names_need_an_encoding() {
        for (text, percent) in [
            ("=jane doe", "=jane%20doe"),
            ("=J\u{f6}rg@example.com", "=J%C3%B6rg%40example.com"),
            ("==odd", "=%3Dodd"),
            ("=100%", "=100%25"),
            ("=jane%20doe", "=jane%2520doe"),
            ("=a/b~c", "=a%2Fb%7Ec"),
            ("=a+b", "=a%2Bb"),
        ] {
            check(text, Plain, Err(UserFault::NeedsEncoding));
            check(text, Percent, Ok(percent));
            check(text, Raw, Ok(text));
        }
    }

    #[test]
    fn control_characters_and_empty_names_never() {
        for encoding in [Plain, Percent, Raw] {
            for text in [
                "=a\r\nX: y",
                "=a\0",
                "=a\t",
                "=\u{7f}",
                "=a\u{85}b",
                "12\n",
                "=\u{9f}",
            ] {
                check(text, encoding, Err(UserFault::Control));
            }
            for text in ["", "="] {
                check(text, encoding, Err(UserFault::Empty));
            }
        }
    }

    #[test]
    fn names_have_a_length() {
        let longest = format!("={}", "a".repeat(NAME_BYTES_MAX));
        check(&longest, Plain, Ok(&longest));
        check(&format!("{longest}a"), Plain, Err(UserFault::NameTooLong));
        check(
            &format!("={}", "\u{f6}".repeat(128)),
            Raw,
            Err(UserFault::NameTooLong),
        );
    }

    #[test]
    fn name_is_unencoded_and_without_the_sign() {
        for (text, encoding, name) in [
            ("123", Plain, None),
            ("=admin", Percent, Some("admin")),
            ("=jane doe", Percent, Some("jane doe")),
            ("==odd", Raw, Some("=odd")),
        ] {
            let user = User::parse(text, encoding).unwrap();
            assert_eq!(user.name(), name, "{text:?}");
            assert_eq!(user.to_string(), user.as_sent());
        }
    }

    #[test]
    fn faults_do_not_quote_the_text() {
        for text in ["canary user", "=canary user", "=canary\n"] {
            let fault = User::parse(text, Plain).unwrap_err();
            assert!(!format!("{fault} {fault:?}").contains("canary"), "{fault}");
        }
    }
}
