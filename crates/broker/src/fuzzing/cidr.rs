//! Networks: a text is one exactly if a naive reader takes it, what is printed reads as the same, and an address is in it
//! exactly if it shares the first bits, counted one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Choices, shared_bits};
use crate::client::Cidr;

/// The first line is a network's text; the rest are addresses.
pub fn cidr(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else {
        return;
    };
    let parsed = text.parse::<Cidr>().ok();
    let expected = naive(text);
    assert_eq!(
        parsed.map(|cidr| (cidr.network(), cidr.prefix())),
        expected.map(|network| network.canonical()),
        "{text}"
    );
    let (Some(cidr), Some(network)) = (parsed, expected) else {
        return;
    };
    check_form(cidr);

    let mut choices = Choices(parts.next().unwrap_or_default());
    while !choices.is_empty() {
        let ip = choices.ip();
        assert_eq!(cidr.contains(ip), network.contains(ip), "{ip} in {text}");
        let alone = Cidr::from(ip);
        check_form(alone);
        assert!(alone.contains(ip));
    }
    // Every bit of the prefix counts, and none behind it.
    for bit in 0..128 {
        let mut octets = network.octets;
        octets[bit / 8] ^= 0x80 >> (bit % 8);
        let ip = IpAddr::from(octets);
        assert_eq!(cidr.contains(ip), network.contains(ip), "{ip} in {text}");
    }
}

/// Printed and read, taken apart and put together, it is the same.
fn check_form(cidr: Cidr) {
    assert_eq!(cidr.to_string().parse(), Ok(cidr));
    assert_eq!(Cidr::new(cidr.network(), cidr.prefix()), Some(cidr));
    assert!(cidr.contains(cidr.network()));
}

/// A network among the IPv6 addresses, where those of IPv4 are `::ffff:0:0/96`.
#[derive(Clone, Copy)]
struct Network {
    octets: [u8; 16],
    prefix: usize,
}

/// 96 bits, all of them equal to those of the mapped addresses.
const MAPPED: [u8; 16] = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets();

impl Network {
    fn is_v4(self) -> bool {
        self.prefix >= 96 && shared_bits(&self.octets, &MAPPED) >= 96
    }

    fn contains(self, ip: IpAddr) -> bool {
        let octets = octets(ip);
        let ip_is_v4 = shared_bits(&octets, &MAPPED) >= 96;
        ip_is_v4 == self.is_v4() && shared_bits(&octets, &self.octets) >= self.prefix
    }

    fn canonical(self) -> (IpAddr, u8) {
        let mut first = self.octets;
        for bit in self.prefix..128 {
            first[bit / 8] &= !(0x80 >> (bit % 8));
        }
        let prefix = u8::try_from(self.prefix).expect("at most 128");
        match self.is_v4() {
            true => {
                let [.., a, b, c, d] = first;
                (Ipv4Addr::new(a, b, c, d).into(), prefix - 96)
            }
            false => (Ipv6Addr::from(first).into(), prefix),
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn naive(text: &str) -> Option<Network> {
    let before_slash: String = text.chars().take_while(|c| *c != '/').collect();
    let ip: IpAddr = before_slash.parse().ok()?;
    let (bits, shift) = if ip.is_ipv4() { (32, 96) } else { (128, 0) };
    let prefix = match text.len() == before_slash.len() {
        true => bits,
        false => (0..=bits).find(|bits| format!("{before_slash}/{bits}") == text)?,
    };
    Some(Network {
        octets: octets(ip),
        prefix: prefix + shift,
    })
}
