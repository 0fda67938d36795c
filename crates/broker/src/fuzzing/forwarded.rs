//! `X-Forwarded-For` and `Forwarded`: the client is whom a naive reader of the lists finds, who counts quotes and tries
//! every place for a port's colon; and what stands on the left of a list hides nothing on its right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderValue};

use super::Choices;
use crate::client::forwarded::{self, Contradiction, client};
use crate::client::{Cidr, ClientAddress, Peers, TrustProxy};

/// Whom the fuzzer may trust by address.
const TRUSTED: [(&str, [u8; 16], usize); 2] = [
    ("10.0.0.0/8", mapped([10, 0, 0, 0]), 96 + 8),
    (
        "fd00::/8",
        [0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        8,
    ),
];

/// The first byte decides about trust, the second about the peer; the rest are lines, each the value of a header:
/// `Forwarded` behind an `f`, `X-Forwarded-For` behind anything else.
pub fn forwarded(data: &[u8]) {
    let mut choices = Choices(data);
    let (trust, peer) = (choices.byte(), choices.byte());
    let trust = match trust % 4 {
        0 => TrustProxy::Nobody,
        1 => TrustProxy::Hops(u32::from(trust / 4) * 3), // also beyond the longest walk
        unix => TrustProxy::Peers(Peers {
            networks: TRUSTED.map(|(text, ..)| cidr(text)).to_vec(),
            unix: unix == 3,
        }),
    };
    let peer = match peer % 3 {
        0 => ClientAddress::UNIX,
        1 => ip("10.0.0.1"),
        _ => ip("192.0.2.1"),
    };

    let mut headers = HeaderMap::new();
    let (mut xff, mut fwd) = (Vec::new(), Vec::new());
    for line in choices.0.split(|byte| *byte == b'\n') {
        let Some((kind, text)) = line.split_first() else {
            continue;
        };
        let Ok(value) = HeaderValue::from_bytes(text) else {
            continue;
        };
        let (name, lines) = match kind {
            b'f' => ("forwarded", &mut fwd),
            _ => ("x-forwarded-for", &mut xff),
        };
        headers.append(name, value);
        lines.push(text);
    }
    let found = client(peer, &headers, &trust);
    assert_eq!(found, naive(peer, &xff, &fwd, &trust));

    check_list(
        &xff,
        &forwarded::x_forwarded_for(xff.iter().copied()).collect::<Vec<_>>(),
    );
    check_list(
        &fwd,
        &forwarded::forwarded(fwd.iter().copied()).collect::<Vec<_>>(),
    );
    check_left(&fwd);
}

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a network")
}

fn ip(text: &str) -> ClientAddress {
    text.parse::<IpAddr>().expect("an address").into()
}

const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, a, b, c, d]
}

fn naive(
    peer: ClientAddress,
    xff: &[&[u8]],
    fwd: &[&[u8]],
    trust: &TrustProxy,
) -> Result<ClientAddress, Contradiction> {
    let by_xff = walk(peer, &naive_x_forwarded_for(xff), trust);
    let by_fwd = walk(peer, &naive_forwarded(fwd), trust);
    match (xff.is_empty(), fwd.is_empty()) {
        (true, true) => Ok(peer),
        (false, true) => Ok(by_xff),
        (true, false) => Ok(by_fwd),
        (false, false) if by_xff == by_fwd => Ok(by_xff),
        (false, false) => Err(Contradiction),
    }
}

/// The list as it is written, from the left: the last of the first entries that are reached through trusted ones.
fn walk(peer: ClientAddress, list: &[Option<ClientAddress>], trust: &TrustProxy) -> ClientAddress {
    let mut way = vec![peer];
    for entry in list.iter().rev().take(100) {
        let last = way[way.len() - 1];
        match entry {
            Some(next) if is_trusted(last, way.len() - 1, trust) => way.push(*next),
            _ => break,
        }
    }
    way[way.len() - 1]
}

fn is_trusted(address: ClientAddress, hop: usize, trust: &TrustProxy) -> bool {
    match trust {
        TrustProxy::Nobody => false,
        TrustProxy::Hops(hops) => (hop as u64) < u64::from(*hops),
        TrustProxy::Peers(peers) => match address.ip() {
            None => peers.unix,
            Some(ip) => {
                let octets = match ip {
                    IpAddr::V4(v4) => mapped(v4.octets()),
                    IpAddr::V6(v6) => v6.octets(),
                };
                TRUSTED
                    .iter()
                    .any(|(_, network, prefix)| super::shared_bits(network, &octets) >= *prefix)
            }
        },
    }
}

fn naive_x_forwarded_for(lines: &[&[u8]]) -> Vec<Option<ClientAddress>> {
    let list = lines.join(&b',');
    if lines.is_empty() {
        return Vec::new();
    }
    let entries = list.split(|byte| *byte == b',');
    entries
        .map(|entry| {
            let text = bare(std::str::from_utf8(entry).ok()?.trim())?;
            named(
                text.parse::<Ipv6Addr>()
                    .ok()
                    .map(IpAddr::V6)
                    .or_else(|| node(text))?,
            )
        })
        .collect()
}

/// A comma separates if the number of quotes between it and the end of its line is even.
fn naive_forwarded(lines: &[&[u8]]) -> Vec<Option<ClientAddress>> {
    let mut list = Vec::new();
    for line in lines {
        let mut from = 0;
        for to in 0..=line.len() {
            let quotes = line[to..].iter().filter(|byte| **byte == b'"').count();
            if to == line.len() || (line[to] == b',' && quotes % 2 == 0) {
                list.push(element(&line[from..to]));
                from = to + 1;
            }
        }
    }
    list
}

fn element(bytes: &[u8]) -> Option<ClientAddress> {
    let text = std::str::from_utf8(bytes).ok()?;
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let nodes: Vec<_> = pairs
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map(|(_, value)| value.trim())
        .collect();
    match nodes.as_slice() {
        [only] => named(node(bare(only)?)?),
        _ => None,
    }
}

fn bare(text: &str) -> Option<&str> {
    let is_quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    let inner = if is_quoted {
        &text[1..text.len() - 1]
    } else {
        text
    };
    (!inner.contains('"') && !inner.contains('\\')).then_some(inner)
}

/// An address before some colon, or before the end.
fn node(text: &str) -> Option<IpAddr> {
    let ends = text
        .match_indices(':')
        .map(|(at, _)| at)
        .chain([text.len()]);
    ends.into_iter().find_map(|end| {
        let (host, port) = text.split_at(end);
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let ip = match is_bracketed {
            true => IpAddr::V6(host[1..host.len() - 1].parse().ok()?),
            false => IpAddr::V4(host.parse::<Ipv4Addr>().ok()?),
        };
        (port.is_empty() || is_port(&port[1..])).then_some(ip)
    })
}

fn is_port(text: &str) -> bool {
    let is_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let is_number = digits == text.chars().count() && (1..6).contains(&digits);
    is_number || (text.starts_with('_') && text.len() > 1 && text.chars().all(is_one))
}

fn named(ip: IpAddr) -> Option<ClientAddress> {
    let is_nobody = ["0.0.0.0", "::", "::ffff:0.0.0.0"].contains(&ip.to_string().as_str());
    (!is_nobody).then(|| ip.into())
}

/// Every entry takes a comma or a line.
fn check_list(lines: &[&[u8]], list: &[Option<ClientAddress>]) {
    let commas = lines.concat().iter().filter(|b| **b == b',').count();
    assert!(list.len() <= commas + lines.len());
    assert!(list.len() >= lines.len());
}

/// The client wrote the first line and proxies appended the second to it, with sound quotes.
fn check_left(lines: &[&[u8]]) {
    let [left, right, ..] = lines else { return };
    if right.iter().filter(|byte| **byte == b'"').count() % 2 != 0 {
        return;
    }
    let joined = [left, right].map(|part| part.to_vec()).join(&b',');
    let all: Vec<_> = forwarded::forwarded([joined.as_slice()].into_iter()).collect();
    let own: Vec<_> = forwarded::forwarded([*right].into_iter()).collect();
    assert_eq!(all[..own.len()], own);
}
