//! The PROXY header: it is read to its last byte and not beyond, whatever pieces it comes in, and names whom a second,
//! naive reader finds in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Choices;
use crate::client::ClientAddress;
use crate::client::proxy_protocol::{LONGEST, Parsed, Source, parse};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest version 1 header, and the longest of what follows the first 16 bytes of a version 2 one.
const LONGEST_LINE: usize = 107;
const LONGEST_REST: usize = 4096;

/// What a connection begins with; a first byte of 0 asks for a sound header that is made from the others.
pub fn proxy_protocol(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => made(&mut Choices(rest)),
        _ => read(data),
    }
}

fn read(bytes: &[u8]) {
    let expected = naive(bytes);
    match parse(bytes) {
        Parsed::Header { length, source } => {
            assert!(length <= bytes.len().min(LONGEST));
            assert_eq!(expected, Some((length, source)));
        }
        Parsed::Incomplete { .. } | Parsed::Invalid => assert_eq!(expected, None),
    }
    check_pieces(bytes, expected);
}

/// Every beginning of the bytes asks for more of the header and for nothing behind it, until it is whole. What is no
/// header does not become one.
fn check_pieces(bytes: &[u8], whole: Option<(usize, Source)>) {
    let mut is_invalid = false;
    let longest = match bytes.first() {
        Some(b'P') => LONGEST_LINE,
        _ => LONGEST,
    };
    for cut in 0..=bytes.len().min(LONGEST + 1) {
        let parsed = parse(&bytes[..cut]);
        assert!(!is_invalid || parsed == Parsed::Invalid);
        match (parsed, whole) {
            (Parsed::Header { length, source }, whole) => {
                assert_eq!(whole, Some((length, source)));
                assert!(cut >= length);
            }
            (Parsed::Incomplete { missing }, whole) => {
                assert!(missing > 0);
                assert!(cut + missing <= longest);
                assert!(whole.is_none_or(|(length, _)| cut + missing <= length));
            }
            (Parsed::Invalid, None) => is_invalid = true,
            (Parsed::Invalid, Some(_)) => panic!("a sound header is refused after {cut} bytes"),
        }
    }
}

/// The header that these bytes begin with, if it is there whole.
fn naive(bytes: &[u8]) -> Option<(usize, Source)> {
    if bytes.starts_with(SIGNATURE) {
        return naive_version_2(bytes);
    }
    let end = (0..LONGEST_LINE - 1).find(|at| bytes.get(*at..at + 2) == Some(b"\r\n"))?;
    let words: Vec<_> = bytes[..end].split(|byte| *byte == b' ').collect();
    let source = match words.as_slice() {
        [b"PROXY", b"UNKNOWN", ..] => {
            std::str::from_utf8(&bytes[..end]).ok()?;
            Source::Peer
        }
        [b"PROXY", family, source, destination, ports @ ..] => {
            let ip = |word: &[u8]| match *family {
                b"TCP4" => naive_v4(word).map(IpAddr::V4),
                b"TCP6" => naive_v6(word).map(IpAddr::V6),
                _ => None,
            };
            ip(destination)?;
            let are_ports = ports.len() == 2 && ports.iter().all(|port| is_port(port));
            are_ports.then_some(named(ip(source)?))?
        }
        _ => return None,
    };
    Some((end + 2, source))
}

fn naive_v4(word: &[u8]) -> Option<Ipv4Addr> {
    let numbers: Vec<_> = word.split(|byte| *byte == b'.').collect();
    let [a, b, c, d] = numbers.as_slice() else {
        return None;
    };
    let octet = |digits: &[u8]| (0..=255u8).find(|n| n.to_string().as_bytes() == digits);
    Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?))
}

fn naive_v6(word: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn is_port(word: &[u8]) -> bool {
    let is_number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let value = word.iter().fold(0u128, |sum, digit| {
        sum.saturating_mul(10).saturating_add((digit & 15).into())
    });
    is_number && value < 65536
}

fn naive_version_2(bytes: &[u8]) -> Option<(usize, Source)> {
    let at = |index: usize| bytes.get(index).copied();
    let rest = usize::from(at(14)?) * 256 + usize::from(at(15)?);
    let addresses = bytes.get(16..16 + rest)?;
    if rest > LONGEST_REST {
        return None;
    }
    let source = match (at(12)?, at(13)?) {
        (0x20, _) | (0x21, 0x00) => Source::Peer,
        (0x21, 0x11 | 0x12) if rest >= 12 => {
            let octets: [u8; 4] = addresses[..4].try_into().expect("four of them");
            named(octets.into())
        }
        (0x21, 0x21 | 0x22) if rest >= 36 => {
            let octets: [u8; 16] = addresses[..16].try_into().expect("sixteen of them");
            named(octets.into())
        }
        (0x21, 0x31 | 0x32) if rest >= 216 => Source::Client(ClientAddress::UNIX),
        _ => return None,
    };
    Some((16 + rest, source))
}

fn named(ip: IpAddr) -> Source {
    let nobody: [IpAddr; 3] = [
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into(),
    ];
    match nobody.contains(&ip) {
        true => Source::Peer,
        false => Source::Client(ip.into()),
    }
}

/// A sound header of any kind, and something behind it.
fn made(choices: &mut Choices<'_>) {
    let (source, destination) = (choices.ip(), choices.ip());
    let (one, other) = (choices.number(), choices.number());
    let is_text = choices.byte() & 1 == 0;
    let (header, expected) = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) if is_text => {
            let line = format!("PROXY TCP4 {source} {destination} {one} {other}\r\n");
            (line.into_bytes(), named(source))
        }
        (IpAddr::V6(_), IpAddr::V6(_)) if is_text => {
            let line = format!("PROXY TCP6 {source} {destination} {one} {other}\r\n");
            (line.into_bytes(), named(source))
        }
        _ if is_text => (
            format!("PROXY UNKNOWN {source} {destination}\r\n").into_bytes(),
            Source::Peer,
        ),
        _ => version_2(source, destination, choices.piece()),
    };
    let length = header.len();
    let bytes = [&header, choices.0].concat();
    assert_eq!(
        parse(&bytes),
        Parsed::Header {
            length,
            source: expected
        }
    );
    read(&bytes);
}

fn version_2(source: IpAddr, destination: IpAddr, fields: &[u8]) -> (Vec<u8>, Source) {
    let (family, mut rest, expected) = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (0x11, [from.octets(), to.octets()].concat(), named(source))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            (0x21, [from.octets(), to.octets()].concat(), named(source))
        }
        _ => (0x31, vec![b'/'; 212], Source::Client(ClientAddress::UNIX)),
    };
    rest.extend([1, 2, 3, 4]);
    rest.extend(fields);
    let length = u16::try_from(rest.len())
        .expect("at most 471")
        .to_be_bytes();
    let header = [SIGNATURE, &[0x21, family], &length, &rest].concat();
    (header, expected)
}
