//! The server's side of the opening handshake (RFC 6455 section 4.2).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Version, request};

use super::response::{Acceptance, Response, ResponseError, parse_headers};
use super::subprotocol::{self, Subprotocol};
use crate::codec::{self, AcceptedOffer};
use crate::compression::Compression;

/// Whether a request asks for a WebSocket at all. Another protocol in `Upgrade`, or an `Upgrade` that `Connection`
/// does not name, makes it an ordinary request (RFC 9110 section 7.8).
pub(crate) fn is_asked(request: &request::Parts) -> bool {
    has_token(&request.headers, &UPGRADE, "websocket")
        && has_token(&request.headers, &CONNECTION, "upgrade")
}

/// The key of a request that keeps to the handshake, or the answer to one that does not.
pub(crate) fn check(request: &request::Parts) -> Result<String, Response> {
    let bad = |text| Err(Response::plain(StatusCode::BAD_REQUEST, text));
    if request.method != Method::GET {
        let refusal = "a WebSocket upgrade is a GET request\n";
        return Err(Response::plain(StatusCode::METHOD_NOT_ALLOWED, refusal).with("allow", "GET"));
    }
    if request.version != Version::HTTP_11 {
        return bad("a WebSocket upgrade needs HTTP/1.1\n");
    }
    let has_body = request.headers.contains_key(TRANSFER_ENCODING)
        || request
            .headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|length| length != "0");
    if has_body {
        return bad("a WebSocket upgrade has no body\n");
    }
    match single(&request.headers, &SEC_WEBSOCKET_VERSION) {
        Some("13") => {}
        _ => {
            let refusal = "this server speaks version 13 of the WebSocket protocol\n";
            return Err(Response::plain(StatusCode::UPGRADE_REQUIRED, refusal)
                .with("sec-websocket-version", "13"));
        }
    }
    match single(&request.headers, &SEC_WEBSOCKET_KEY) {
        Some(key) if codec::is_valid_key(key) => Ok(key.to_owned()),
        _ => bad("Sec-WebSocket-Key must be 16 bytes in base64\n"),
    }
}

/// Chooses among the extensions that a client offers, or gives the answer to one that offers nonsense.
pub(super) fn negotiate(
    request: &request::Parts,
    compression: Option<&Compression>,
) -> Result<Option<AcceptedOffer>, Response> {
    let Some(compression) = compression else {
        return Ok(None);
    };
    let values = request.headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let offers: Result<Vec<_>, _> = values.map(HeaderValue::to_str).collect();
    let accepted = offers.map(|offers| codec::negotiate(offers, compression.policy()));
    accepted.ok().and_then(Result::ok).ok_or_else(|| {
        let refusal = "Sec-WebSocket-Extensions must be a list of extensions\n";
        Response::plain(StatusCode::BAD_REQUEST, refusal)
    })
}

/// The headers of the 101. The acceptance's subprotocol is one that the client offered.
pub(crate) fn accept_headers(
    key: &str,
    acceptance: &Acceptance,
    extensions: Option<&str>,
) -> Result<HeaderMap, ResponseError> {
    let mut headers = parse_headers(&acceptance.headers)?;
    for ours in [
        &CONNECTION,
        &UPGRADE,
        &SEC_WEBSOCKET_ACCEPT,
        &SEC_WEBSOCKET_PROTOCOL,
        // Only what we do ourselves can be agreed on.
        &SEC_WEBSOCKET_EXTENSIONS,
        &CONTENT_LENGTH,
        &TRANSFER_ENCODING,
    ] {
        headers.remove(ours);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(codec::accept_key(key)).expect("base64 is a header value");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(extensions) = extensions {
        let value = HeaderValue::try_from(extensions).expect("names and numbers");
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
    }
    if let Some(protocol) = &acceptance.protocol
        && let Ok(value) = HeaderValue::try_from(protocol.as_str())
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(headers)
}

/// The subprotocol that a listener chooses by itself.
pub(crate) fn choose_protocol<'a>(
    spoken: &'a [Subprotocol],
    headers: &HeaderMap,
) -> Option<&'a str> {
    if spoken.is_empty() {
        return None;
    }
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<_> = subprotocol::offered(values.map(HeaderValue::as_bytes)).collect();
    subprotocol::choose(spoken, &offered)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The value of a header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}
