//! Whom trusted proxies name as the client, in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy adds the address of its own peer on the right. So the list is read from the right: an address is believed
//! if everybody between it and us is trusted. Whatever stands further left may have been written by the client itself.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use super::{ClientAddress, TrustProxy};

/// More proxies than this are on nobody's way. A client may write thousands of trusted addresses into its list.
const MAX_HOPS: usize = 100;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The two headers name different clients. One of them was written by a proxy and the other one perhaps by the client;
/// which one cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction;

/// The client of a request that came from `peer`: the last address that can be believed.
///
/// An entry that names nobody (`unknown`, an obfuscated identifier, rubbish) ends the walk at the proxy that wrote it.
///
/// # Errors
/// [`Contradiction`]
pub fn client(
    peer: ClientAddress,
    headers: &HeaderMap,
    trust: &TrustProxy,
) -> Result<ClientAddress, Contradiction> {
    if !trust.trusts(peer, 0) {
        return Ok(peer);
    }
    let values = |name| {
        headers
            .get_all(name)
            .iter()
            .map(http::HeaderValue::as_bytes)
    };
    let has = |name| headers.contains_key(name);
    let x_forwarded_for = || last_believed(peer, x_forwarded_for(values(X_FORWARDED_FOR)), trust);
    let forwarded = || last_believed(peer, forwarded(values(FORWARDED)), trust);
    match (has(X_FORWARDED_FOR), has(FORWARDED)) {
        (false, false) => Ok(peer),
        (true, false) => Ok(x_forwarded_for()),
        (false, true) => Ok(forwarded()),
        (true, true) => {
            let (one, other) = (x_forwarded_for(), forwarded());
            (one == other).then_some(one).ok_or(Contradiction)
        }
    }
}

/// Walks from the peer towards the client. `entries` come from the right; `None` is one that names nobody.
fn last_believed(
    peer: ClientAddress,
    entries: impl Iterator<Item = Option<ClientAddress>>,
    trust: &TrustProxy,
) -> ClientAddress {
    let mut client = peer;
    for (hop, entry) in (0..).zip(entries.take(MAX_HOPS)) {
        if !trust.trusts(client, hop) {
            break;
        }
        let Some(next) = entry else { break };
        client = next;
    }
    client
}

/// The entries of `X-Forwarded-For` from the right.
pub fn x_forwarded_for<'a>(
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Option<ClientAddress>> {
    values
        .rev()
        .flat_map(|value| value.rsplit(|byte| *byte == b','))
        .map(|entry| {
            let text = unquoted(std::str::from_utf8(entry).ok()?.trim())?;
            // There is no standard; without brackets an IPv6 address has no port.
            let bare = text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
            known(bare.or_else(|| node(text))?)
        })
}

/// The `for` of each element of `Forwarded` from the right.
pub fn forwarded<'a>(
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Option<ClientAddress>> {
    values.rev().flat_map(Elements::of).map(|element| {
        let element = std::str::from_utf8(element).ok()?;
        // What an address is made of needs no quotes around a semicolon.
        let mut names = element.split(';').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("for")
                .then(|| value.trim())
        });
        let (Some(value), None) = (names.next(), names.next()) else {
            return None;
        };
        known(node(unquoted(value)?)?)
    })
}

/// The elements of a value from the right. A comma within quotes separates nothing.
///
/// Quotes are paired from the right as well: the last element was written by a trusted proxy, and no quote that the
/// client has left open before it may swallow it.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    fn of(value: &'a [u8]) -> Self {
        Self { rest: Some(value) }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            match byte {
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    self.rest = Some(&rest[..at]);
                    return Some(&rest[at + 1..]);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest)
    }
}

/// The text between two quotes, or a text without any. An address needs no escapes, so none are read.
fn unquoted(text: &str) -> Option<&str> {
    let inner = match text.strip_prefix('"') {
        Some(opened) => opened.strip_suffix('"')?,
        None => text,
    };
    (!inner.contains(['"', '\\'])).then_some(inner)
}

/// RFC 7239 section 6: an IPv4 address or a bracketed IPv6 one, each with or without a port.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(opened) = text.strip_prefix('[') {
        let (ip, port) = opened.split_once(']')?;
        let sound = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return ip.parse().ok().filter(|_| sound).map(IpAddr::V6);
    }
    let (ip, sound) = match text.split_once(':') {
        Some((ip, port)) => (ip, is_port(port)),
        None => (text, true),
    };
    ip.parse().ok().filter(|_| sound).map(IpAddr::V4)
}

/// A number, or an obfuscated identifier.
fn is_port(text: &str) -> bool {
    let identifier = |rest: &str| {
        let mut bytes = rest.bytes();
        !rest.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let number = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    number || text.strip_prefix('_').is_some_and(identifier)
}

/// The unspecified addresses name nobody.
fn known(ip: IpAddr) -> Option<ClientAddress> {
    (!ip.to_canonical().is_unspecified()).then(|| ip.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::from(text.parse::<IpAddr>().expect("an address"))
    }

    fn trusted(networks: &[&str]) -> TrustProxy {
        TrustProxy::Peers(super::super::Peers {
            networks: networks.iter().map(|n| n.parse().expect("one")).collect(),
            unix: false,
        })
    }

    fn found(trust: &TrustProxy, lines: &[(&'static str, &str)]) -> Result<String, Contradiction> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(*name, value);
        }
        client(address("10.0.0.1"), &headers, trust).map(|client| client.to_string())
    }

    fn xff(trust: &TrustProxy, value: &str) -> String {
        found(trust, &[("x-forwarded-for", value)]).expect("one header")
    }

    fn fwd(trust: &TrustProxy, value: &str) -> String {
        found(trust, &[("forwarded", value)]).expect("one header")
    }

    #[test]
    fn nobody_is_believed_unless_trusted() {
        for trust in [
            TrustProxy::Nobody,
            TrustProxy::Hops(0),
            trusted(&["10.0.0.2"]),
        ] {
            assert_eq!(xff(&trust, "192.0.2.1"), "10.0.0.1");
            assert_eq!(fwd(&trust, "for=192.0.2.1"), "10.0.0.1");
        }
    }

    #[test]
    fn hops_are_counted_from_the_right_and_the_peer_is_the_first() {
        let list = "198.51.100.9, 192.0.2.1, 10.0.0.3, 10.0.0.2";
        for (hops, client) in [
            (1, "10.0.0.2"),
            (2, "10.0.0.3"),
            (3, "192.0.2.1"),
            (4, "198.51.100.9"),
            (9, "198.51.100.9"),
        ] {
            assert_eq!(xff(&TrustProxy::Hops(hops), list), client, "{hops}");
        }
        assert_eq!(found(&TrustProxy::Hops(1), &[]), Ok("10.0.0.1".to_owned()));
    }

    #[test]
    fn a_list_is_walked_while_its_addresses_are_trusted() {
        let trust = trusted(&["10.0.0.0/8", "2001:db8::/32"]);
        assert_eq!(xff(&trust, "1.1.1.1, 192.0.2.1, 10.9.9.9"), "192.0.2.1");
        assert_eq!(xff(&trust, "192.0.2.1, 2001:db8::5"), "192.0.2.1");
        assert_eq!(
            xff(&trust, "10.7.7.7, 10.9.9.9"),
            "10.7.7.7",
            "all are trusted"
        );
        assert_eq!(xff(&trust, "::ffff:10.1.1.1"), "10.1.1.1");
    }

    #[test]
    fn a_list_is_not_walked_for_ever() {
        let list = "10.9.9.9,".repeat(7000);
        assert_eq!(
            xff(
                &trusted(&["10.0.0.0/8"]),
                &format!("192.0.2.1,{list}10.8.8.8")
            ),
            "10.9.9.9"
        );
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6, 5.5.5.5"),
            ("x-forwarded-for", "192.0.2.1"),
        ];
        assert_eq!(
            found(&TrustProxy::Hops(1), &lines),
            Ok("192.0.2.1".to_owned())
        );
        assert_eq!(
            found(&TrustProxy::Hops(2), &lines),
            Ok("5.5.5.5".to_owned())
        );
        let lines = [
            ("forwarded", "for=6.6.6.6,for=5.5.5.5"),
            ("forwarded", "for=192.0.2.1"),
        ];
        assert_eq!(
            found(&TrustProxy::Hops(3), &lines),
            Ok("6.6.6.6".to_owned())
        );
    }

    #[test]
    fn every_usual_way_to_write_an_address() {
        let one = TrustProxy::Hops(1);
        for text in [
            "192.0.2.1",
            " 192.0.2.1 ",
            "192.0.2.1:80",
            "\"192.0.2.1:80\"",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(xff(&one, text), "192.0.2.1", "{text}");
        }
        for text in [
            "2001:db8::7",
            "[2001:db8::7]",
            "[2001:db8::7]:443",
            "\"[2001:DB8::7]:443\"",
        ] {
            assert_eq!(xff(&one, text), "2001:db8::7", "{text}");
        }
        for text in [
            "for=192.0.2.1",
            "For=192.0.2.1;proto=https;by=203.0.113.43",
            "proto=https; FOR = \"192.0.2.1:47011\"",
            "for=\"192.0.2.1:_port\"",
            "host=\"a,b\";for=192.0.2.1",
        ] {
            assert_eq!(fwd(&one, text), "192.0.2.1", "{text}");
        }
        for text in [
            "for=\"[2001:db8:cafe::17]:4711\"",
            "for=\"[2001:db8:cafe::17]\"",
        ] {
            assert_eq!(fwd(&one, text), "2001:db8:cafe::17", "{text}");
        }
    }

    #[test]
    fn who_is_not_named_is_the_proxy_that_does_not() {
        let two = TrustProxy::Hops(2);
        for nobody in [
            "",
            " ",
            "unknown",
            "_hidden",
            "-",
            "localhost",
            "0.0.0.0",
            "::",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:999999",
            "[::1",
            "[::1]x",
            "[1.2.3.4]",
            "\"1.2.3.4",
            "1.2.3.4\"",
            "1.2.3.4\\",
            "1.2.3.4 5.6.7.8",
            "\u{e9}",
            "1.2.3.4;",
            "for=1.2.3.4",
        ] {
            assert_eq!(
                xff(&two, &format!("6.6.6.6, {nobody}")),
                "10.0.0.1",
                "{nobody}"
            );
            assert_eq!(
                xff(&two, &format!("{nobody}, 10.0.0.2")),
                "10.0.0.2",
                "{nobody}"
            );
        }
        for nobody in [
            "",
            "for",
            "for=",
            "for=unknown",
            "for=_hidden",
            "for=\"_SEVKISEK\"",
            "for=2001:db8::1",
            "by=1.2.3.4",
            "1.2.3.4",
            "for=1.2.3.4;for=5.6.7.8",
            "for=\"1.2.3.4",
            "for=\"1.2.\\3.4\"",
            "xfor=1.2.3.4",
            "for==1.2.3.4",
        ] {
            assert_eq!(
                fwd(&two, &format!("for=6.6.6.6, {nobody}")),
                "10.0.0.1",
                "{nobody}"
            );
        }
    }

    #[test]
    fn what_a_client_writes_on_the_left_hides_nothing_on_the_right() {
        let one = TrustProxy::Hops(1);
        for left in [
            "\"",
            "for=\"",
            "for=\"\\",
            "\\\"",
            ",,,\"",
            "for=\"a, for=9.9.9.9",
            "\u{fc}\u{fc}",
        ] {
            assert_eq!(
                xff(&one, &format!("{left}, 192.0.2.1")),
                "192.0.2.1",
                "{left}"
            );
            assert_eq!(
                fwd(&one, &format!("{left}, for=192.0.2.1")),
                "192.0.2.1",
                "{left}"
            );
            let quoted = format!("{left}, for=\"[2001:db8::1]:80\";by=\"a,b\"");
            assert_eq!(fwd(&one, &quoted), "2001:db8::1", "{left}");
        }
    }

    #[test]
    fn two_headers_have_to_agree() {
        let one = TrustProxy::Hops(1);
        let both = |a, b| found(&one, &[("x-forwarded-for", a), ("forwarded", b)]);
        assert_eq!(
            both("6.6.6.6, 192.0.2.1", "for=192.0.2.1"),
            Ok("192.0.2.1".to_owned())
        );
        assert_eq!(both("192.0.2.1", "for=6.6.6.6"), Err(Contradiction));
        assert_eq!(both("192.0.2.1", ""), Err(Contradiction));
        assert_eq!(
            both("rubbish", "for=unknown"),
            Ok("10.0.0.1".to_owned()),
            "both name nobody"
        );
        let lines = [("x-forwarded-for", "a"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(
            found(&TrustProxy::Nobody, &lines),
            Ok("10.0.0.1".to_owned())
        );
    }
}
