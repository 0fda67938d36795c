//! The opening handshake (RFC 6455 section 4.2): it is accepted only if every condition holds, told a second time in the
//! simplest way.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Version, request};
use sha1::{Digest, Sha1};

use crate::http::response::Acceptance;
use crate::http::subprotocol::Subprotocol;
use crate::http::upgrade::{accept_headers, check, choose_protocol, is_asked};

/// The head of a request, lines ended by LF or CRLF, and behind an empty line the subprotocols that the server speaks,
/// with commas, and the headers that the application adds.
pub fn handshake(data: &[u8]) {
    let mut lines = data
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let Some(first) = lines.next() else {
        return;
    };
    let fields: Vec<_> = lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .filter_map(field)
        .collect();
    let Some(head) = head(first, &fields) else {
        return;
    };

    let asked = is_asked(&head);
    let key = match check(&head) {
        Ok(key) => key,
        Err(refusal) => {
            assert!((400..500).contains(&refusal.status));
            assert!(naive_key(&head).is_none(), "a sound handshake is refused");
            return;
        }
    };
    assert_eq!(Some(key.as_str()), naive_key(&head), "accepted");
    assert_eq!(asked, naive_asked(&head), "asked");

    let names = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let spoken: Vec<Subprotocol> = names.split(',').filter_map(|n| n.parse().ok()).collect();
    let protocol = choose_protocol(&spoken, &head.headers).map(str::to_owned);
    assert_eq!(protocol.as_deref(), naive_protocol(&spoken, &head));
    let acceptance = Acceptance {
        protocol,
        headers: lines
            .filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b':')?;
                let bytes = Bytes::copy_from_slice;
                Some((bytes(&line[..at]), bytes(&line[at + 1..])))
            })
            .collect(),
        ..Acceptance::default()
    };
    check_answer(&key, &acceptance);
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let at = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..at]).ok()?;
    let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

fn head(line: &[u8], fields: &[(HeaderName, HeaderValue)]) -> Option<request::Parts> {
    let mut words = line.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = words.next()?;
    let version = match words.next()? {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/2" => Version::HTTP_2,
        _ => return None,
    };
    let request = Request::builder()
        .method(method)
        .uri(target)
        .version(version);
    let (mut head, ()) = request.body(()).ok()?.into_parts();
    for (name, value) in fields {
        head.headers.try_append(name, value.clone()).ok()?;
    }
    Some(head)
}

/// All values of a header; one that is not visible ASCII says nothing.
fn values<'a>(head: &'a request::Parts, name: &'a str) -> Vec<Option<&'a str>> {
    let values = head.headers.get_all(name).iter();
    values.map(|value| value.to_str().ok()).collect()
}

fn lists(head: &request::Parts, name: &str, wanted: &str) -> bool {
    values(head, name).into_iter().flatten().any(|value| {
        let mut parts = value.split(',');
        parts.any(|part| part.trim().to_ascii_lowercase() == wanted)
    })
}

fn naive_asked(head: &request::Parts) -> bool {
    lists(head, "upgrade", "websocket") && lists(head, "connection", "upgrade")
}

/// The key, if nothing is wrong beyond `Upgrade` and `Connection`.
fn naive_key(head: &request::Parts) -> Option<&str> {
    let only = |name| match values(head, name).as_slice() {
        [Some(value)] => Some(value.trim()),
        _ => None,
    };
    let lengths = values(head, "content-length");
    let has_no_body = values(head, "transfer-encoding").is_empty()
        && lengths.iter().all(|length| *length == Some("0"));
    let is_sound = head.method == Method::GET
        && head.version == Version::HTTP_11
        && has_no_body
        && only("sec-websocket-version") == Some("13");
    let key = only("sec-websocket-key")?;
    // As lenient as the codec: the last character's unused bits may be anything.
    let lenient = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let bytes = GeneralPurpose::new(&STANDARD, lenient).decode(key).ok()?;
    (is_sound && bytes.len() == 16).then_some(key)
}

/// The first of the server's among the first 100 of the client's.
fn naive_protocol<'a>(spoken: &'a [Subprotocol], head: &request::Parts) -> Option<&'a str> {
    let mut offered = Vec::new();
    for value in head.headers.get_all("sec-websocket-protocol") {
        if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
            offered.extend(value.split(',').map(str::trim));
        }
    }
    offered.truncate(100);
    let mut names = spoken.iter().map(Subprotocol::as_str);
    names.find(|name| offered.contains(name))
}

/// The 101 names what the RFC wants named, once each, whatever the application adds.
fn check_answer(key: &str, acceptance: &Acceptance) {
    let Ok(headers) = accept_headers(key, acceptance, None) else {
        return; // a name or value that is none
    };
    let all = |name: &str| {
        let values = headers.get_all(name).iter();
        let bytes: Vec<_> = values.map(|value| value.as_bytes().to_vec()).collect();
        bytes
    };
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    assert_eq!(all("sec-websocket-accept"), [accept.into_bytes()]);
    assert_eq!(all("upgrade"), [b"websocket"]);
    assert_eq!(all("connection"), [b"Upgrade"]);
    assert!(all("content-length").is_empty() && all("transfer-encoding").is_empty());
    let protocol = acceptance
        .protocol
        .as_ref()
        .map(|name| name.as_bytes().to_vec());
    assert_eq!(all("sec-websocket-protocol"), Vec::from_iter(protocol));
}
