//! The PROXY protocol, versions 1 and 2, as HAProxy's specification has it: a header before the first byte of a
//! connection by which a proxy names the client. Sans-IO: bytes in, a header out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ClientAddress;

/// What begins a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;

/// The longest rest of a version 2 header that is taken, in bytes. Addresses take at most 216; what follows them is
/// skipped, and a proxy that passes on a TLS client's names stays far below this.
const LONGEST_REST: usize = 4096;

/// The longest header of either version, in bytes.
pub const LONGEST: usize = FIXED + LONGEST_REST;

/// What begins a header of version 1.
const WORD: &[u8] = b"PROXY ";

/// The longest version 1 header, with its line break.
const LONGEST_LINE: usize = 107;

/// The shortest one: `PROXY UNKNOWN` and its line break.
const SHORTEST_LINE: usize = 15;

/// What the bytes of a connection so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole header.
    Header {
        /// Its size in bytes; what follows is the connection's own.
        length: usize,
        /// Whom it names.
        source: Source,
    },
    /// The beginning of a header.
    Incomplete {
        /// At least so many bytes more belong to it: who reads no more than these never reads beyond it.
        missing: usize,
    },
    /// No header.
    Invalid,
}

/// Whom a header names as the connection's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This client.
    Client(ClientAddress),
    /// Nobody but the peer itself: a health check of the proxy (`LOCAL`), or a protocol that it has no words for
    /// (`UNKNOWN`, `AF_UNSPEC`).
    Peer,
}

/// Reads a header at the beginning of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        return version_2(rest);
    }
    if SIGNATURE.starts_with(bytes) && !bytes.is_empty() {
        return Parsed::Incomplete {
            missing: FIXED - bytes.len(),
        };
    }
    let known = bytes.len().min(WORD.len());
    if bytes[..known] != WORD[..known] {
        return Parsed::Invalid;
    }
    version_1(bytes)
}

fn version_1(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        // Either a whole line break is missing, or its second half.
        let at_least = if line.ends_with(b"\r") { 1 } else { 2 };
        if line.len() + at_least > LONGEST_LINE {
            return Parsed::Invalid;
        }
        return Parsed::Incomplete {
            missing: at_least.max(SHORTEST_LINE.saturating_sub(line.len())),
        };
    };
    match source_of_line(&line[WORD.len().min(end)..end]) {
        Some(source) => Parsed::Header {
            length: end + 2,
            source,
        },
        None => Parsed::Invalid,
    }
}

/// `TCP4 <source> <destination> <source port> <destination port>`, the same with `TCP6`, or `UNKNOWN` and anything.
fn source_of_line(line: &[u8]) -> Option<Source> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Source::Peer);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| word.parse::<u16>().ok())?
    };
    let _ports = (port()?, port()?);
    words.next().is_none().then(|| named(source))
}

/// `rest` begins behind the signature.
fn version_2(rest: &[u8]) -> Parsed {
    let Some((&[command, family, high, low], addresses)) = rest.split_first_chunk::<4>() else {
        return Parsed::Incomplete {
            missing: FIXED - SIGNATURE.len() - rest.len(),
        };
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Parsed::Invalid;
    }
    let Some(addresses) = addresses.get(..length) else {
        return Parsed::Incomplete {
            missing: length - addresses.len(),
        };
    };
    let source = match command {
        0x20 => Some(Source::Peer),
        0x21 => source_of_addresses(family, addresses),
        _ => None,
    };
    match source {
        Some(source) => Parsed::Header {
            length: FIXED + length,
            source,
        },
        None => Parsed::Invalid,
    }
}

/// The source comes first; destination, ports and further fields follow. A proxy that took the client's bytes out of
/// datagrams (QUIC) says so, and the addresses are the same.
fn source_of_addresses(family: u8, addresses: &[u8]) -> Option<Source> {
    match family {
        0x00 => Some(Source::Peer),
        0x11 | 0x12 => {
            let (source, _) = addresses.first_chunk::<12>()?.split_first_chunk::<4>()?;
            Some(named(Ipv4Addr::from(*source).into()))
        }
        0x21 | 0x22 => {
            let (source, _) = addresses.first_chunk::<36>()?.split_first_chunk::<16>()?;
            Some(named(Ipv6Addr::from(*source).into()))
        }
        0x31 | 0x32 => {
            addresses.first_chunk::<216>()?;
            Some(Source::Client(ClientAddress::UNIX))
        }
        _ => None,
    }
}

/// Nothing comes from the unspecified addresses.
fn named(ip: IpAddr) -> Source {
    if ip.to_canonical().is_unspecified() {
        return Source::Peer;
    }
    Source::Client(ip.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Source {
        Source::Client(text.parse::<IpAddr>().expect("an address").into())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("it fits").to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    fn inet(extra: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0x1F, 0x90, 0, 80];
        v2(0x21, 0x11, &[&addresses, extra].concat())
    }

    fn inet6() -> Vec<u8> {
        let ip = "2001:db8::7"
            .parse::<Ipv6Addr>()
            .expect("an address")
            .octets();
        v2(0x21, 0x21, &[ip.as_slice(), &ip, &[1, 2, 3, 4]].concat())
    }

    /// Headers, and whom they name.
    fn sound() -> Vec<(Vec<u8>, Source)> {
        let line = |text: &str| format!("{text}\r\n").into_bytes();
        let ffff = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            (
                line("PROXY TCP4 192.0.2.1 198.51.100.2 8080 80"),
                client("192.0.2.1"),
            ),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 0 0"), client("1.1.1.1")),
            (
                line("PROXY TCP6 2001:db8::7 ::1 65535 443"),
                client("2001:db8::7"),
            ),
            (
                line("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2"),
                client("192.0.2.1"),
            ),
            (
                line(&format!("PROXY TCP6 {ffff} {ffff} 65535 65535")),
                client(ffff),
            ),
            (line("PROXY TCP4 0.0.0.0 0.0.0.0 1 1"), Source::Peer),
            (line("PROXY UNKNOWN"), Source::Peer),
            (
                line(&format!("PROXY UNKNOWN {ffff} {ffff} 65535 65535")),
                Source::Peer,
            ),
            (inet(b""), client("192.0.2.1")),
            (inet(&[0x03, 0, 4, 1, 2, 3, 4]), client("192.0.2.1")),
            (inet(&[0xFF; 4084]), client("192.0.2.1")),
            (inet6(), client("2001:db8::7")),
            (v2(0x20, 0x11, &[9; 12]), Source::Peer),
            (v2(0x20, 0x00, b""), Source::Peer),
            (v2(0x20, 0xFF, b"anything"), Source::Peer),
            (v2(0x21, 0x00, b"tlv"), Source::Peer),
            (v2(0x21, 0x12, &[7; 12]), client("7.7.7.7")),
            (
                v2(0x21, 0x31, &[1; 216]),
                Source::Client(ClientAddress::UNIX),
            ),
        ]
    }

    #[test]
    fn both_versions_name_the_client() {
        for (header, source) in sound() {
            let length = header.len();
            assert_eq!(parse(&header), Parsed::Header { length, source });
            let followed = [header.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&followed), Parsed::Header { length, source });
        }
    }

    #[test]
    fn who_reads_what_is_missing_reads_the_header_and_no_byte_more() {
        for (header, _) in sound() {
            let mut have = 0;
            while let Parsed::Incomplete { missing } = parse(&header[..have]) {
                assert!(missing > 0);
                have += missing;
                assert!(
                    have <= header.len(),
                    "{:?}",
                    String::from_utf8_lossy(&header)
                );
            }
            assert_eq!(have, header.len());
            // And whatever piece has come, more is asked for.
            for cut in 0..header.len() {
                match parse(&header[..cut]) {
                    Parsed::Incomplete { missing } => assert!(missing <= header.len() - cut),
                    other => panic!("{cut} of {header:?}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_as_soon_as_it_shows() {
        for bytes in [
            b"G".as_slice(),
            b"GET / HTTP/1.1\r\n",
            b"\r\n\r\n\0\r\nQUIX",
            b"\n",
            b"PROXX",
            b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
            b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
            b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
            b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
            b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
            b"PROXY TCP4 \xFF 1.1.1.1 1 1\r\n",
            b"PROXY \r\n1234567",
            &[WORD, &[b'a'; LONGEST_LINE]].concat(),
            &[WORD, &[b'a'; LONGEST_LINE - 1 - WORD.len()]].concat(),
            &v2(0x10, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x31, &[0; 215]),
            &v2(0x21, 0x13, &[0; 12]),
            &v2(0x21, 0x41, &[0; 12]),
            &v2(0x21, 0x11, &[0; LONGEST_REST + 1])[..FIXED],
        ] {
            assert_eq!(
                parse(bytes),
                Parsed::Invalid,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn no_bytes_are_the_beginning_of_either() {
        assert_eq!(
            parse(b""),
            Parsed::Incomplete {
                missing: SHORTEST_LINE
            }
        );
        assert_eq!(parse(b"\r"), Parsed::Incomplete { missing: FIXED - 1 });
    }
}
