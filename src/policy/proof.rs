//! What deciding cannot find out by itself: it says what it needs, and is asked again with the answer.
//!
//! A password takes a slow hash, a token the keys of an issuer, a signature the whole body. None of
//! that is a matter of a pure function of a head; what comes of it is.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::caller::basic::PasswordHash;
use super::caller::jwt::{Issuer, TokenFault, Verified};

/// What has been found out about a request beside its head.
#[derive(Default)]
pub struct Proof {
    /// Its whole body, where a signature covers it.
    pub body: Option<Bytes>,
    /// Whether the password it presents is the caller's.
    pub password_is_right: Option<bool>,
    /// What came of verifying the token it presents.
    pub token: Option<Result<Verified, TokenFault>>,
}

/// A body is its caller's, and no matter of logs.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("body_bytes", &self.body.as_ref().map(|body| body.len()))
            .field("password_is_right", &self.password_is_right)
            .finish_non_exhaustive()
    }
}

impl Proof {
    /// Nothing yet.
    pub const NONE: &'static Self = &Self {
        body: None,
        password_is_right: None,
        token: None,
    };
}

/// What must be found out before a request can be judged.
pub enum Need {
    /// Its body, up to so many bytes: [`Proof::body`].
    Body {
        /// Most bytes.
        bytes_max: u64,
    },
    /// Whether this password is one of these: [`Proof::password_is_right`].
    Password {
        /// Whose password it is to be.
        user_name: Box<[u8]>,
        /// What it is compared with.
        hashes: Arc<[PasswordHash]>,
        /// What was presented.
        password: Zeroizing<Vec<u8>>,
        /// Whether anybody has that name; if not, the password is wrong, and only takes as long to
        /// find out as somebody's would.
        is_known: bool,
    },
    /// Whether this token was signed by one of these: [`Proof::token`].
    Token {
        /// By whom it may be.
        issuers: Arc<[Arc<Issuer>]>,
        /// What was presented: ASCII.
        token: Zeroizing<Box<str>>,
    },
}

/// What was presented is no matter of logs.
impl fmt::Debug for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body { .. } => "Body",
            Self::Password { .. } => "Password",
            Self::Token { .. } => "Token",
        })
    }
}
