//! Lists of networks: addresses with the length of a prefix, or single ones.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::config::reference::References;
use crate::config::tree::{At, Fields};
use crate::policy::peer::Networks;

/// What stands for a list that is elsewhere.
const STAND_IN: &str = "192.0.2.1";

/// The networks listed at a key: a list, one text with commas, or references to such texts. `check`
/// says what is wrong with a network in this place.
pub(super) fn networks(
    fields: &Fields<'_>,
    key: &str,
    references: &References<'_>,
    check: impl Fn(IpNet) -> Result<(), String>,
) -> Networks {
    let listed = fields.one_or_each(key, |at| {
        let text = references.plain(&at, STAND_IN)?;
        let read = |text| read(text).and_then(|network| check(network).map(|()| network));
        let networks = text.split(',').map(|text| read(text.trim()));
        Some(noted(networks, &at))
    });
    Networks::new(listed.concat())
}

/// Those that can be used; what is wrong with the others becomes a problem each.
fn noted(networks: impl Iterator<Item = Result<IpNet, String>>, at: &At<'_>) -> Vec<IpNet> {
    let good = networks.filter_map(|network| match network {
        Ok(network) => Some(network),
        Err(fault) => {
            at.problem(fault);
            None
        }
    });
    good.collect()
}

/// A network, or what is wrong with its text.
fn read(text: &str) -> Result<IpNet, String> {
    let network = parsed(text).ok_or(FORM)?;
    // Addresses are compared as IPv4 where they can be, so this would match none.
    if let Some(same) = as_ipv4(network) {
        return Err(format!(
            "this is an IPv4 network written as IPv6; write {same}"
        ));
    }
    if network.trunc() != network {
        return Err(format!(
            "the address has bits set beyond its prefix; write {} for the whole network, or the address alone",
            network.trunc()
        ));
    }
    Ok(network)
}

/// std reads the address: ipnet takes `010.0.0.0` for `10.0.0.0`, and others for `8.0.0.0`.
fn parsed(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length.parse().ok().filter(|_| is_number)?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// The IPv4 network that an IPv6 one stands for (RFC 4291 section 2.5.5.2).
fn as_ipv4(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else {
        return None;
    };
    let address = v6.network().to_ipv4_mapped()?;
    let length = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(address, length).ok().map(IpNet::from)
}

const FORM: &str = "a network is an address and the length of its prefix, such as 10.0.0.0/8 or 2001:db8::/32, or a single address";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_networks() {
        let check = |text: &str, expected: &str| {
            let read = read(text).map(|network| network.to_string());
            match expected.strip_prefix("! ") {
                None => assert_eq!(read.as_deref(), Ok(expected), "{text}"),
                Some(cure) => {
                    let fault = read.expect_err(text);
                    assert!(fault.contains(cure), "{text}: {fault}");
                }
            }
        };
        check("10.0.0.0/8", "10.0.0.0/8");
        check("192.0.2.1", "192.0.2.1/32");
        check("192.0.2.1/32", "192.0.2.1/32");
        check("2001:db8::/32", "2001:db8::/32");
        check("2001:DB8::7", "2001:db8::7/128");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("10.1.2.3/8", "! write 10.0.0.0/8 for");
        check("192.0.2.129/25", "! write 192.0.2.128/25 for");
        check("2001:db8::1/32", "! write 2001:db8::/32 for");
        check("::ffff:10.0.0.0/104", "! write 10.0.0.0/8");
        check("::ffff:10.1.2.3/104", "! write 10.0.0.0/8");
        check("::ffff:192.0.2.1", "! write 192.0.2.1/32");
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "10.*",
            "010.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.1-10.0.0.9",
            "2001:db8::/129",
            "[2001:db8::]/32",
            "fe80::1%eth0",
            "localhost",
            "10.0.0.1:80",
            "10.0.0.0 /8",
        ] {
            check(text, "! such as 10.0.0.0/8");
        }
    }
}
