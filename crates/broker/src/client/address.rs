//! A client's address, small enough to keep with every socket, and what it counts as.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A client's IP address, or that it has none: a peer on a Unix socket.
///
/// It is kept as the 16 bytes of an IPv6 address. An IPv4-mapped address is its IPv4 address, and the unspecified
/// address, from which nothing can come, stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress([u8; 16]);

/// Whose limits count: an IPv4 address, or the network of 64 bits of an IPv6 one. A single customer gets no less than
/// that (RFC 6177), and may have an address for every connection in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey([u8; 16]);

impl ClientAddress {
    /// A peer without an IP address.
    pub const UNIX: Self = Self([0; 16]);

    /// The address; `None` for a peer on a Unix socket.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        (self != Self::UNIX).then(|| Ipv6Addr::from(self.0).to_canonical())
    }

    pub(crate) fn key(self) -> Option<ClientKey> {
        let mut key = self.0;
        match self.ip()? {
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => key[8..].fill(0),
        }
        Some(ClientKey(key))
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

/// The address without a port; `unix` for none.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(IpAddr::V4(v4)) => write_dotted(v4, f),
            Some(IpAddr::V6(v6)) => v6.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// What `Ipv4Addr` writes of itself, in one piece and a third of the instructions: every connection's address is written.
fn write_dotted(address: Ipv4Addr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; "255.255.255.255".len()];
    let mut length = 0;
    let mut push = |byte| {
        text[length] = byte;
        length += 1;
    };
    for (n, octet) in address.octets().into_iter().enumerate() {
        if n > 0 {
            push(b'.');
        }
        for place in [100, 10, 1] {
            if octet >= place || place == 1 {
                push(b'0' + octet / place % 10);
            }
        }
    }
    f.write_str(str::from_utf8(&text[..length]).expect("digits and dots"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::from(text.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn an_address_reads_as_it_came_and_a_mapped_one_as_ipv4() {
        for text in ["127.0.0.1", "0.0.0.0", "::1", "2001:db8::7"] {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_eq!(address("::ffff:192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(ClientAddress::UNIX.to_string(), "unix");
        assert_eq!(ClientAddress::UNIX.ip(), None);
    }

    #[test]
    fn every_octet_is_written_as_the_standard_library_writes_it() {
        for octet in 0..=255 {
            let ip = Ipv4Addr::new(octet, 255 - octet, octet / 10, octet % 10);
            assert_eq!(
                ClientAddress::from(IpAddr::V4(ip)).to_string(),
                ip.to_string()
            );
        }
    }

    #[test]
    fn ipv6_counts_by_64_bits_and_ipv4_by_all() {
        let key = |text| address(text).key().expect("it has an address");
        assert_eq!(
            key("2001:db8:1:2::1"),
            key("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        // What is left of ::1 is its network, and no IPv4 address shares it.
        assert_ne!(key("::1"), key("0.0.0.0"));
        assert_eq!(ClientAddress::UNIX.key(), None);
    }
}
