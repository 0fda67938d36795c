//! Networks in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP address or a network: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
///
/// It is kept in one form: bits behind the prefix are cleared, and a network within the IPv4-mapped addresses
/// (`::ffff:0:0/96`) is one of IPv4, as the addresses that are compared with it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A text that is no IP address and no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCidr;

/// How many bits of an IPv4-mapped address come before the IPv4 address.
const MAPPED: u8 = 96;

impl Cidr {
    /// The network of so many bits that this address is in. `None`: the prefix is longer than the address.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > bits(ip) {
            return None;
        }
        match ip {
            IpAddr::V6(v6) if prefix >= MAPPED => match v6.to_ipv4_mapped() {
                Some(v4) => Some(Self::masked(v4.into(), prefix - MAPPED)),
                None => Some(Self::masked(ip, prefix)),
            },
            _ => Some(Self::masked(ip, prefix)),
        }
    }

    /// `prefix` is at most the bits of `ip`, which is not IPv4-mapped.
    pub(crate) fn masked(ip: IpAddr, prefix: u8) -> Self {
        let network = match ip {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Self { network, prefix }
    }

    /// Whether the address is in this network. An IPv4-mapped address is its IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.network.is_ipv4() && Self::masked(ip, self.prefix) == *self
    }

    /// How many bits all its addresses share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl From<IpAddr> for Cidr {
    /// This address alone.
    fn from(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self::masked(ip, bits(ip))
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let Some((ip, prefix)) = text.split_once('/') else {
            return text
                .parse::<IpAddr>()
                .map(Self::from)
                .map_err(|_| InvalidCidr);
        };
        let ip = ip.parse().map_err(|_| InvalidCidr)?;
        // `parse` takes a sign, and leading zeros are read as octal elsewhere.
        let plain = prefix.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || (prefix.len() > 1 && prefix.starts_with('0')) {
            return Err(InvalidCidr);
        }
        let prefix = prefix.parse().map_err(|_| InvalidCidr)?;
        Self::new(ip, prefix).ok_or(InvalidCidr)
    }
}

/// A single address has no prefix.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)?;
        if self.prefix == bits(self.network) {
            return Ok(());
        }
        write!(f, "/{}", self.prefix)
    }
}

impl fmt::Display for InvalidCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an IP address nor a network such as 192.0.2.0/24 or 2001:db8::/32")
    }
}

impl std::error::Error for InvalidCidr {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap_or_else(|_| panic!("{text} is one"))
    }

    #[test]
    fn each_network_has_one_form() {
        for (text, canonical) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("192.0.2.255/31", "192.0.2.254/31"),
            ("192.0.2.7/0", "0.0.0.0/0"),
            ("2001:DB8::1", "2001:db8::1"),
            ("2001:db8::1/128", "2001:db8::1"),
            ("2001:db8:1:2:3::/64", "2001:db8:1:2::/64"),
            ("2001:db8::/0", "::/0"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(cidr(text).to_string(), canonical);
            assert_eq!(cidr(canonical), cidr(text));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/8/8",
            "10.0.0.0/8 ",
            " 10.0.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "2001:db8::/129",
            "2001:db8::/256",
            "[::1]",
            "::1%eth0",
            "localhost",
            "*",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(InvalidCidr), "{text}");
        }
    }

    #[test]
    fn an_address_is_in_its_networks_and_in_no_other() {
        let is_in = |ip: &str, network| cidr(network).contains(ip.parse().expect("an address"));
        assert!(is_in("10.1.2.3", "10.0.0.0/8"));
        assert!(is_in("::ffff:10.1.2.3", "10.0.0.0/8"));
        assert!(is_in("10.1.2.3", "::ffff:10.0.0.0/104"));
        assert!(is_in("10.1.2.3", "0.0.0.0/0"));
        assert!(!is_in("11.1.2.3", "10.0.0.0/8"));
        assert!(!is_in("10.1.2.3", "::/0"), "IPv4 is not IPv6");
        assert!(!is_in("::", "0.0.0.0/0"), "IPv6 is not IPv4");
        assert!(is_in("2001:db8::1", "2001:db8::/127"));
        assert!(!is_in("2001:db8::2", "2001:db8::/127"));
    }
}
