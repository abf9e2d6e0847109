//! The other end of a connection: its address, for whom it may speak, what TLS has proved of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::caller::certificate::Certificate;
use super::forwarded::TrustedProxies;
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
#[derive(Clone, Debug)]
pub struct Secured {
    /// The certificate the caller presented, and holds the key of.
    pub certificate: Option<Arc<Certificate>>,
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
