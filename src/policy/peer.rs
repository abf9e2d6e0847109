//! The other end of a connection: its address, for whom it may speak, what TLS has proved of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::caller::certificate::Certificate;
use super::forwarded::TrustedProxies;
use super::host::without_brackets;
use super::request::Field;

/// What all requests of one connection have in common.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from, or from where a balancer's PROXY header says it does.
    pub address: IpAddr,
    /// Whose word is believed about where a request comes from; nobody's where it is empty.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// What was settled by TLS; `None` for a connection without it.
    pub tls: Option<Secured>,
}

/// What the handshake of a connection settled.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// The certificate the caller presented, and holds the key of.
    pub certificate: Option<Arc<Certificate>>,
    /// The certificate the caller was shown.
    pub shown: Shown,
}

/// Whether a listener asks callers for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// It does not.
    Never,
    /// They may present one.
    Optionally,
    /// Without one there is no connection.
    Always,
}

/// Which of a listener's certificates a caller was shown, and which others there are.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    all: Arc<[HostNames]>,
    chosen: usize,
}

impl Shown {
    /// The certificate at `chosen` among those for `all`.
    pub fn new(all: Arc<[HostNames]>, chosen: usize) -> Self {
        Self { all, chosen }
    }

    /// Whether a host, in the spelling of [`super::host::Authority::canonical_host`], should have been
    /// asked for on another connection: the certificate that was shown is not for it, and another one
    /// is (RFC 9110 section 15.5.20).
    pub fn misdirects(&self, host: &str) -> bool {
        let is_shown = |names: &HostNames| names.cover(host);
        !self.all.get(self.chosen).is_none_or(is_shown) && self.all.iter().any(is_shown)
    }
}

/// The hosts a certificate of ours is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames {
    exact: Vec<Box<str>>,
    /// What follows `*.`.
    wildcards: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
}

impl HostNames {
    /// The hosts of a certificate with these names, in lower case, and addresses.
    pub fn new(dns_names: &[Box<str>], addresses: Vec<IpAddr>) -> Self {
        let exact = dns_names.iter().filter(|name| !name.starts_with("*."));
        let wildcards = dns_names.iter().filter_map(|name| name.strip_prefix("*."));
        Self {
            exact: exact.cloned().collect(),
            wildcards: wildcards.map(Box::from).collect(),
            addresses,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty() && self.addresses.is_empty()
    }

    /// Whether a host, in lower case, is named, or is one of the addresses.
    pub fn name(&self, host: &str) -> bool {
        let is_address = |address: IpAddr| self.addresses.contains(&address.to_canonical());
        self.exact.iter().any(|name| **name == *host)
            || without_brackets(host).parse().is_ok_and(is_address)
    }

    /// Whether a wildcard stands for a host, in lower case: for exactly one label, the first (RFC 9525
    /// section 6.3).
    pub fn match_by_wildcard(&self, host: &str) -> bool {
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty());
        parent.is_some_and(|(_, parent)| self.wildcards.iter().any(|name| **name == *parent))
    }

    /// Either.
    pub fn cover(&self, host: &str) -> bool {
        self.name(host) || self.match_by_wildcard(host)
    }
}

impl Peer {
    /// A connection without TLS, from an address that speaks for itself.
    pub fn plain(address: IpAddr) -> Self {
        Self {
            address,
            trusted_proxies: Arc::default(),
            tls: None,
        }
    }

    /// From where a request with these fields comes: the address that is limited, recorded and told
    /// to the site. The other end itself where [`Self::names_two_clients`].
    pub fn client(&self, fields: &[Field<'_>]) -> IpAddr {
        let found = self.trusted_proxies.client(self.address, fields);
        found.unwrap_or(self.address)
    }

    /// Whether these fields say in one header that a request comes from one client, and in another
    /// that it comes from another.
    pub fn names_two_clients(&self, fields: &[Field<'_>]) -> bool {
        let trusted = &self.trusted_proxies;
        trusted.header.is_none() && trusted.client(self.address, fields).is_err()
    }
}

/// A set of networks: in order, and none within another, so that a search halves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// These networks.
    pub fn new(mut networks: Vec<IpNet>) -> Self {
        networks = IpNet::aggregate(&networks);
        Self(networks)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }

    /// Whether an address lies in one of them. An IPv4 address that is written as an IPv6 one is
    /// itself.
    pub fn have(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let at = self.0.partition_point(|network| network.addr() <= address);
        at > 0 && self.0[at - 1].contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_a_certificate() {
        let names = ["gw.example", "*.apps.example"].map(Box::from);
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        let hosts = HostNames::new(&names, addresses.to_vec());
        let check = |host: &str, expected: bool| assert_eq!(hosts.cover(host), expected, "{host}");
        check("gw.example", true);
        check("x.gw.example", false);
        check("example", false);
        check("a.apps.example", true);
        check("apps.example", false);
        check(".apps.example", false);
        check("a.b.apps.example", false);
        check("*.apps.example", true);
        check("192.0.2.1", true);
        check("192.0.2.2", false);
        check("[2001:db8::1]", true);
        check("[::ffff:192.0.2.1]", true);
        check("", false);
        assert!(!HostNames::default().cover("gw.example"));
    }

    #[test]
    fn another_connection_is_the_right_one_only_if_its_certificate_is() {
        let of = |name: &str| HostNames::new(&[name.into()], Vec::new());
        let all: Arc<[HostNames]> = [of("a.example"), of("*.b.example")].into();
        let check = |chosen: usize, host: &str, expected: bool| {
            let shown = Shown::new(Arc::clone(&all), chosen);
            assert_eq!(shown.misdirects(host), expected, "{chosen} {host}");
        };
        check(0, "a.example", false);
        check(0, "x.b.example", true);
        check(1, "a.example", true);
        check(1, "x.b.example", false);
        // Nobody would serve it better.
        check(0, "c.example", false);
        check(1, "127.0.0.1", false);
        assert!(!Shown::default().misdirects("a.example"));
    }

    #[test]
    fn networks_have_what_lies_in_them() {
        // In no order, one within another, two that make one.
        let listed = [
            "2001:db8::/32",
            "192.0.2.128/25",
            "10.1.0.0/16",
            "fd00::7/128",
            "10.0.0.0/8",
            "192.0.2.0/25",
            "2001:db8:7::/48",
            "203.0.113.7/32",
        ];
        let parsed = listed.map(|text| text.parse().unwrap());
        let networks = Networks::new(parsed.to_vec());
        let check = |address: &str, expected: bool| {
            assert_eq!(
                networks.have(address.parse().unwrap()),
                expected,
                "{address}"
            );
        };
        check("10.0.0.0", true);
        check("10.255.0.1", true);
        check("10.255.255.255", true);
        check("9.255.255.255", false);
        check("11.0.0.1", false);
        check("192.0.1.255", false);
        check("192.0.2.0", true);
        check("192.0.2.255", true);
        check("192.0.3.0", false);
        check("203.0.113.6", false);
        check("203.0.113.7", true);
        check("203.0.113.8", false);
        check("255.255.255.255", false);
        check("0.0.0.0", false);
        check("::", false);
        check("::a00:1", false);
        check("fd00::7", true);
        check("fd00::8", false);
        check("2001:db7:ffff::", false);
        check("2001:db8:8::", true);
        check("::ffff:10.0.0.9", true);
        check("2001:db8::7", true);
        check("2001:db9::7", false);
        assert!(!Networks::default().have([10, 0, 0, 1].into()));
    }
}
