//! The other end of a connection: its address, for whom it may speak, what TLS has proved of it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::caller::certificate::Certificate;
use super::request::Field;

/// What all requests of one connection have in common.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the connection comes from, or from where a balancer's PROXY header says it does.
    pub address: IpAddr,
    /// Whose word is believed about where a request comes from; nobody's where it is empty.
    pub trusted_proxies: Arc<Networks>,
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
    /// to the site.
    pub fn client(&self, _fields: &[Field<'_>]) -> IpAddr {
        self.address
    }
}

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// A list of these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether it is a list of none.
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
        self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_what_lies_in_them() {
        let parsed = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let networks = Networks::new(parsed.to_vec());
        let check = |address: &str, expected: bool| {
            assert_eq!(
                networks.have(address.parse().unwrap()),
                expected,
                "{address}"
            );
        };
        check("10.255.0.1", true);
        check("11.0.0.1", false);
        check("::ffff:10.0.0.9", true);
        check("2001:db8::7", true);
        check("2001:db9::7", false);
        assert!(!Networks::default().have([10, 0, 0, 1].into()));
    }
}
