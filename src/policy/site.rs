//! A MindTouch site: where it is, what it signs with, and how long it may take.

use std::sync::Arc;
use std::time::Duration;

use super::origin::Origins;
use crate::signing::{Secret, SignedToken, Signer, User, UserEncoding};

/// A MindTouch site and the tokens that open it.
#[derive(Debug)]
pub struct Site {
    /// Its name in the file, in logs and in metrics.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SiteAddress,
    /// The value of `Host`: [`SiteAddress::authority`], put together once.
    pub authority: Arc<str>,
    /// What its server tokens mint with, in order of preference.
    pub signers: Vec<Signer>,
    /// The token for web pages, and who may use it.
    pub browser_token: Option<BrowserToken>,
    /// How user names are spelt in a token.
    pub user_encoding: UserEncoding,
    /// As whom its server tokens are tried, where the file says so.
    pub probe_user: Option<User>,
    /// Whether the caller's address is sent as `X-Forwarded-For`.
    pub forwards_address: bool,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// How many more attempts a request may have.
    pub retries_max: u32,
}

impl Site {
    /// Whether it is the same site as another one: at the same address, vouched for by the same
    /// authorities, opened by the same tokens. How it is asked may differ.
    pub fn is_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.signers, &other.signers);
        let pages = [self, other].map(|site| site.browser_token.as_ref().map(|token| &token.key));
        self.name == other.name
            && self.address == other.address
            && ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(one, two)| one.is_like(two))
            && match pages {
                [Some(one), Some(two)] => one.is(two),
                [one, two] => one.is_none() && two.is_none(),
            }
    }

    /// Whether a value holds one of the site's token keys, and so perhaps a token.
    pub fn holds_token_key(&self, value: &[u8]) -> bool {
        self.signers
            .iter()
            .any(|signer| signer.key_is_within(value))
            || self
                .browser_token
                .as_ref()
                .is_some_and(|token| token.key.is_within(value))
    }
}

/// Scheme, host and port of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteAddress {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// A DNS name in A-labels or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Certificates of the authorities it is verified against, in DER; `None` for the system's.
    pub ca: Option<Arc<[Vec<u8>]>>,
}

impl SiteAddress {
    /// The value of `Host`: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let default_port = if self.tls { 443 } else { 80 };
        if self.port == default_port {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// How long a site may take over each part of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// To finish the TLS handshake.
    pub tls: Duration,
    /// From the end of the request to the end of the answer's header section.
    pub response: Duration,
    /// Between two reads of the answer's body, or two writes of the request.
    pub between_bytes: Duration,
    /// From the end of the request to the end of the answer's header section, all attempts included.
    pub total: Duration,
    /// That a pooled connection is kept without use.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(10),
            response: Duration::from_secs(60),
            between_bytes: Duration::from_secs(60),
            total: Duration::from_secs(75),
            idle: Duration::from_secs(50),
        }
    }
}

/// A browser token: a key without a secret that works on the pages of its allowed hosts.
#[derive(Debug)]
pub struct BrowserToken {
    key: Secret,
    /// The pages that may use it.
    pub allowed_hosts: Origins,
}

impl BrowserToken {
    /// A browser token; `None` if the key cannot stand in a header.
    pub fn new(key: Secret, allowed_hosts: Origins) -> Option<Self> {
        key.is_visible_ascii()
            .then_some(Self { key, allowed_hosts })
    }

    /// What goes into `X-Deki-Token`.
    pub fn token(&self) -> SignedToken {
        SignedToken::of_browser(&self.key)
    }

    /// Whether a page sent exactly this token; compared in constant time.
    pub fn is(&self, sent: &[u8]) -> bool {
        self.key.matches(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_leaves_out_what_goes_without_saying() {
        let check = |tls: bool, host: &str, port: u16, expected: &str| {
            let address = SiteAddress {
                tls,
                host: host.to_owned(),
                port,
                ca: None,
            };
            assert_eq!(address.authority(), expected);
        };
        check(true, "acme.mindtouch.us", 443, "acme.mindtouch.us");
        check(true, "acme.mindtouch.us", 8443, "acme.mindtouch.us:8443");
        check(false, "127.0.0.1", 80, "127.0.0.1");
        check(false, "127.0.0.1", 8088, "127.0.0.1:8088");
        check(true, "::1", 443, "[::1]");
    }
}
