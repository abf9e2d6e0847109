//! What a listener is told of the proxies before it: which are trusted, and what they write.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};

use super::networks::networks;
use crate::config::reference::References;
use crate::config::tree::Fields;
use crate::policy::forwarded::{Header, TrustedProxies};

/// Shortest prefix of trusted IPv4 networks: the largest private one is as large.
const V4_PREFIX_MIN: u8 = 8;

/// Shortest prefix of trusted IPv6 networks, but for private ones.
const V6_PREFIX_MIN: u8 = 16;

/// The private IPv6 networks: unique local addresses (RFC 4193 section 3.1).
const V6_PRIVATE: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);

/// The keys of a listener that are read here.
pub(super) const KEYS: [&str; 3] = ["trusted_proxies", "forwarded_header", "proxy_protocol"];

/// Who is trusted, and whether connections begin with a PROXY header.
pub(super) fn proxies(
    listener: &Fields<'_>,
    references: &References<'_>,
) -> (Arc<TrustedProxies>, bool) {
    let [trusted, header, protocol] = KEYS;
    let networks = networks(listener, trusted, references, check_width);
    let word = |key: &str, known: &[&str], cure: &str| {
        listener.optional(key, |at| {
            let text = if at.is_flag() { "" } else { at.text()? };
            let found = known.iter().position(|word| *word == text);
            if found.is_none() {
                at.problem(cure);
            }
            found
        })
    };
    let written = word(
        header,
        &["x-forwarded-for", "forwarded"],
        "write x-forwarded-for or forwarded, whichever your proxies write, or leave it out: then the two must agree where both are there",
    );
    let is_required = word(
        protocol,
        &["required"],
        "write required, which takes version 1 and 2, or leave it out: then no PROXY header is read",
    );
    let is_required = is_required.is_some();
    if !listener.has(trusted) {
        if listener.has(header) {
            listener.problem_at(header, "headers of proxies say nothing without trusted_proxies; list where the proxies are there, or remove this");
        }
        if is_required {
            listener.problem_at(protocol, "nobody could connect, since the PROXY header is believed only from trusted_proxies; list there where it comes from, such as trusted_proxies: [127.0.0.1]");
        }
    }
    let header = written.map(|index| [Header::XForwardedFor, Header::Forwarded][index]);
    (Arc::new(TrustedProxies { networks, header }), is_required)
}

/// Whoever is trusted says where a request comes from, so strangers must not be among them.
fn check_width(network: IpNet) -> Result<(), String> {
    let is_narrow = match network {
        IpNet::V4(v4) => v4.prefix_len() >= V4_PREFIX_MIN,
        IpNet::V6(v6) => v6.prefix_len() >= V6_PREFIX_MIN || V6_PRIVATE.contains(&v6),
    };
    if is_narrow {
        return Ok(());
    }
    Err("so wide a network holds strangers, and whoever is trusted may claim any address; list the addresses of your proxies, or the network they alone are in".to_owned())
}
