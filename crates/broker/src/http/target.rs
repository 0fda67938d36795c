//! What a request is for: its target (RFC 9112 section 3.2) and its `Host`, settled before anything else looks at them.
//! Servers that disagree about either can be played against each other.

use std::mem;
use std::net::Ipv6Addr;

use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version, request};

use super::response::Response;

/// What a handler may be given: afterwards the target is a path with its query, or `*` of an `OPTIONS`, and `Host` is the
/// only thing that names the host. Otherwise the answer, with which the connection has to end: what the client sends
/// behind such a request may not be what it looks like.
pub(super) fn settle(head: &mut request::Parts) -> Result<(), Response> {
    if head.method == Method::CONNECT {
        // No 405: which methods there are in its place (RFC 9110 section 15.5.6) only the application knows.
        let text = "this server opens no tunnels\n";
        return Err(Response::plain(StatusCode::NOT_IMPLEMENTED, text));
    }
    check_headers(head)?;
    if head.uri.authority().is_some() {
        return reduce(head);
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(bad("* is a target of OPTIONS alone\n"));
    }
    Ok(())
}

/// Each request names its host once, and its body is coded in no other way than in chunks.
fn check_headers(head: &request::Parts) -> Result<(), Response> {
    let mut host = None;
    let mut is_coded = false;
    // A walk through all of them takes less than to look one up.
    for (name, value) in &head.headers {
        if *name == HOST {
            if host.replace(value).is_some() {
                return Err(not_one_host());
            }
        } else if *name == TRANSFER_ENCODING {
            let is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            if mem::replace(&mut is_coded, true) || !is_chunked {
                let text = "the only transfer coding that this server knows is chunked\n";
                return Err(Response::plain(StatusCode::NOT_IMPLEMENTED, text));
            }
        }
    }
    match host {
        None if head.version < Version::HTTP_11 => Ok(()),
        None => Err(not_one_host()),
        // Clients whose URL has no host say so by nothing (RFC 9110 section 7.2).
        Some(host) if host.is_empty() || is_authority(host.as_bytes()) => Ok(()),
        Some(_) => Err(bad("Host must be a host, with a port or without\n")),
    }
}

/// Makes a path of a whole URL, whose host replaces what `Host` says (RFC 9112 section 3.2.2).
fn reduce(head: &mut request::Parts) -> Result<(), Response> {
    let target = mem::take(&mut head.uri).into_parts();
    let (Some(scheme), Some(authority)) = (target.scheme, target.authority) else {
        return Err(no_target()); // a host alone, which is what a tunnel is asked for with
    };
    let is_served = |ours: &&str| scheme.as_str().eq_ignore_ascii_case(ours);
    if !["http", "https", "ws", "wss"].iter().any(is_served) {
        return Err(no_target());
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| no_target())?;
    if !is_authority(host.as_bytes()) {
        return Err(no_target());
    }
    head.headers.insert(HOST, host);
    head.uri = match target.path_and_query {
        None => Uri::default(),
        Some(path) if path.as_str().starts_with('/') => path.into(),
        // Behind a host a query may stand alone.
        Some(query) => PathAndQuery::try_from(format!("/{}", query.as_str()))
            .map_err(|_| no_target())?
            .into(),
    };
    Ok(())
}

fn bad(text: &'static str) -> Response {
    Response::plain(StatusCode::BAD_REQUEST, text)
}

fn no_target() -> Response {
    bad("a target is a path or a whole http URL\n")
}

fn not_one_host() -> Response {
    bad("exactly one Host header is needed\n")
}

/// A host and, if there is one, a port (RFC 3986 section 3.2), and so neither a user nor a path.
fn is_authority(text: &[u8]) -> bool {
    let (is_host, behind) = match text.strip_prefix(b"[") {
        Some(literal) => match literal.iter().position(|byte| *byte == b']') {
            Some(end) => (is_ip_literal(&literal[..end]), &literal[end + 1..]),
            None => return false,
        },
        None => {
            let end = text.iter().position(|byte| *byte == b':');
            let (name, behind) = text.split_at(end.unwrap_or(text.len()));
            (is_name(name), behind)
        }
    };
    is_host && (behind.is_empty() || behind.strip_prefix(b":").is_some_and(is_port))
}

/// A name, or an IPv4 address, which looks like one.
fn is_name(text: &[u8]) -> bool {
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let is_escape = *byte == b'%' && {
            let is_hex = |digit: Option<&u8>| digit.is_some_and(u8::is_ascii_hexdigit);
            is_hex(rest.next()) && is_hex(rest.next())
        };
        if !is_escape && !is_plain(*byte) {
            return false;
        }
    }
    !text.is_empty()
}

fn is_ip_literal(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let Some(future) = text.strip_prefix(['v', 'V']) else {
        return text.parse::<Ipv6Addr>().is_ok();
    };
    let is_address = |byte: u8| is_plain(byte) || byte == b':';
    future.split_once('.').is_some_and(|(version, address)| {
        !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(is_address)
    })
}

/// What stands for itself in a host: `unreserved` and `sub-delims`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

/// Digits, or nothing, which is the scheme's.
fn is_port(text: &[u8]) -> bool {
    let is_number = || str::from_utf8(text).is_ok_and(|text| text.parse::<u16>().is_ok());
    text.iter().all(u8::is_ascii_digit) && (text.is_empty() || is_number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_may_have_a_port() {
        for host in [
            "a",
            "Example.com",
            "example.com.",
            "a_b-c~d.example",
            "192.0.2.1",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::192.0.2.1]:65535",
            "[v1.fe80:a+en1]",
            "a%C3%A9:8080",
            "a,b;c='(*)'",
            "a:",
            "a:0080",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for none in [
            "",
            ":80",
            "a b",
            "a\tb",
            "a@b",
            "u:p@b:80",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "a: 80",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[a]",
            "[::1]x",
            "[::1]80",
            "[::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "[v1a]",
            "a%",
            "a%2",
            "a%2g",
            "\"a\"",
            "<a>",
            "a|b",
            "a^b",
            "{a}",
            "é",
            "http://a",
        ] {
            assert!(!is_authority(none.as_bytes()), "{none}");
        }
    }
}
