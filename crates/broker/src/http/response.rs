//! What a worker answers.

use std::fmt;

use bytes::{Buf, Bytes};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;

use crate::name::ChannelName;
use crate::route::NativeRoute;

/// What hyper sends.
pub(crate) type HttpResponse = http::Response<Full<Bytes>>;

/// What a text is called that its handler has given no other name.
const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// An answer to an HTTP request.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names and values. `content-length` and `transfer-encoding` follow from the body and are left out; on an answer
    /// to `HEAD` a `content-length` is kept, if it is a number.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The whole body; left out where the status has none: 204, 205, 304.
    pub body: Bytes,
}

/// Why a [`Response`] cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The status is not from 200 to 599.
    Status(u16),
    /// This is no header name.
    HeaderName(String),
    /// The value of this header holds a byte that no value may have: a line break or another control character.
    HeaderValue(String),
    /// So many headers fit no message.
    TooManyHeaders(usize),
}

/// A short [`Response`] in one piece: headers packed as `name\nvalue\n…`, and the body behind them.
#[derive(Clone, Debug)]
pub(crate) struct PackedResponse {
    status: u16,
    headers: usize,
    bytes: Bytes,
}

/// What a request is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Whole(Response),
    Packed(PackedResponse),
}

/// The answer to an upgrade request.
#[derive(Clone, Debug)]
pub enum UpgradeDecision {
    /// Open the socket.
    Accept(Acceptance),
    /// Answer this instead; the connection stays HTTP.
    Refuse(Response),
}

/// What an accepted socket starts with; all of it is in place before its first message.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    /// Its token.
    pub token: Option<Bytes>,
    /// The channels it is in.
    pub channels: Vec<ChannelName>,
    /// Where its messages go; `None`: to its worker.
    pub route: Option<NativeRoute>,
    /// The subprotocol; left out unless the client offered it.
    pub protocol: Option<String>,
    /// Further headers of the 101.
    pub headers: Vec<(Bytes, Bytes)>,
}

impl Response {
    /// The headers of a plain text, packed.
    #[doc(hidden)]
    pub const PACKED_TEXT_PLAIN: &'static [u8] = b"content-type\ntext/plain; charset=utf-8\n";

    /// A short text answer.
    pub(crate) fn plain(status: StatusCode, text: &'static str) -> Self {
        let content_type = (
            Bytes::from_static(CONTENT_TYPE.as_str().as_bytes()),
            Bytes::from_static(TEXT_PLAIN.as_bytes()),
        );
        Self {
            status: status.as_u16(),
            headers: vec![content_type],
            body: Bytes::from_static(text.as_bytes()),
        }
    }

    /// Headers packed as `name\nvalue\n…`; neither can hold a line feed.
    #[doc(hidden)]
    #[must_use]
    pub fn unpack_headers(packed: &Bytes) -> Vec<(Bytes, Bytes)> {
        unpacked(packed)
            .map(|(name, value)| (packed.slice_ref(name), packed.slice_ref(value)))
            .collect()
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((
            Bytes::from_static(name.as_bytes()),
            Bytes::from_static(value.as_bytes()),
        ));
        self
    }

    /// Whether this can be sent.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn validate(&self) -> Result<(), ResponseError> {
        status_code(self.status)?;
        parse_headers(&self.headers)?;
        Ok(())
    }

    /// As hyper sends it; an answer that cannot be sent becomes a 500.
    pub(crate) fn into_http(self, method: &Method) -> HttpResponse {
        Answer::Whole(self).into_http(method, HeaderMap::new())
    }
}

impl PackedResponse {
    /// `bytes` begins with so many of packed headers, and the rest is the body.
    pub(crate) fn new(status: u16, bytes: &[u8], headers: usize) -> Self {
        Self {
            status,
            headers,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    /// The headers go to `map`, the body comes back.
    fn unpack(mut self, map: &mut HeaderMap, method: &Method) -> Result<Bytes, ResponseError> {
        let packed = &self.bytes[..self.headers];
        // It comes last, and as a constant it needs no share of the memory.
        let before = packed
            .strip_suffix(Response::PACKED_TEXT_PLAIN)
            .filter(|before| before.is_empty() || before.ends_with(b"\n"));
        for (name, value) in unpacked(before.unwrap_or(packed)) {
            add_sent(map, method, name, self.bytes.slice_ref(value))?;
        }
        if before.is_some() {
            add(map, CONTENT_TYPE, HeaderValue::from_static(TEXT_PLAIN))?;
        }
        self.bytes.advance(self.headers);
        Ok(self.bytes)
    }
}

impl From<PackedResponse> for Response {
    fn from(mut packed: PackedResponse) -> Self {
        let headers = packed.bytes.split_to(packed.headers);
        Self {
            status: packed.status,
            headers: Self::unpack_headers(&headers),
            body: packed.bytes,
        }
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Whole(response)
    }
}

impl From<PackedResponse> for Answer {
    fn from(packed: PackedResponse) -> Self {
        Self::Packed(packed)
    }
}

impl Answer {
    /// For where only the general form is taken.
    pub(crate) fn into_response(self) -> Response {
        match self {
            Self::Whole(response) => response,
            Self::Packed(packed) => packed.into(),
        }
    }

    /// As hyper sends it, with its headers in `map`, which is empty; an answer that cannot be sent becomes a 500.
    pub(crate) fn into_http(self, method: &Method, map: HeaderMap) -> HttpResponse {
        debug_assert!(map.is_empty(), "these would be sent");
        match self.try_into_http(method, map) {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "a response could not be sent");
                let mut response = HttpResponse::new(Full::from("Internal Server Error"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    fn try_into_http(
        self,
        method: &Method,
        mut map: HeaderMap,
    ) -> Result<HttpResponse, ResponseError> {
        let (status, body) = match self {
            Self::Whole(response) => {
                for (name, value) in response.headers {
                    add_sent(&mut map, method, &name, value)?;
                }
                (response.status, response.body)
            }
            Self::Packed(packed) => (packed.status, packed.unpack(&mut map, method)?),
        };
        let status = status_code(status)?;
        // hyper takes a length from a body that it has, and sends none of it in answer to `HEAD`.
        let keeps_length = *method == Method::HEAD && keeps_length(&mut map, status);
        let is_content = has_content(status) && !keeps_length;
        let body = if is_content { body } else { Bytes::new() };
        let mut response = HttpResponse::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = map;
        Ok(response)
    }
}

/// What has none has none whatever a handler gives (RFC 9110 section 15).
fn has_content(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

/// Whether an answer to `HEAD` says by its handler's header how long the content would be: once, as a number, and where
/// there may be such a header (RFC 9110 section 8.6). Otherwise the header goes.
fn keeps_length(map: &mut HeaderMap, status: StatusCode) -> bool {
    let mut lengths = map.get_all(CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| {
        !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
    };
    let is_sound = match (lengths.next(), lengths.next()) {
        (Some(length), None) => is_number(length),
        _ => false,
    };
    let may_say = has_content(status) || status == StatusCode::NOT_MODIFIED;
    if is_sound && may_say {
        return true;
    }
    map.remove(CONTENT_LENGTH);
    false
}

fn status_code(status: u16) -> Result<StatusCode, ResponseError> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => Ok(code),
        _ => Err(ResponseError::Status(status)),
    }
}

/// Names and values of packed headers.
fn unpacked(packed: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut pieces = packed.split(|byte| *byte == b'\n');
    std::iter::from_fn(move || Some((pieces.next()?, pieces.next()?)))
}

/// Checks names and values as it builds the map.
pub(crate) fn parse_headers(headers: &[(Bytes, Bytes)]) -> Result<HeaderMap, ResponseError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let (name, value) = parse_header(name, value.clone())?;
        add(&mut map, name, value)?;
    }
    Ok(map)
}

/// Adds a header of an answer, but for those that follow from its body.
fn add_sent(
    map: &mut HeaderMap,
    method: &Method,
    name: &[u8],
    value: Bytes,
) -> Result<(), ResponseError> {
    let (name, value) = parse_header(name, value)?;
    let follows = name == TRANSFER_ENCODING || (name == CONTENT_LENGTH && *method != Method::HEAD);
    if follows {
        return Ok(());
    }
    add(map, name, value)
}

fn parse_header(name: &[u8], value: Bytes) -> Result<(HeaderName, HeaderValue), ResponseError> {
    let readable = || String::from_utf8_lossy(name).into_owned();
    let parsed = HeaderName::from_bytes(name).map_err(|_| ResponseError::HeaderName(readable()))?;
    let value = HeaderValue::from_maybe_shared(value)
        .map_err(|_| ResponseError::HeaderValue(readable()))?;
    Ok((parsed, value))
}

fn add(map: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), ResponseError> {
    match map.try_append(name, value) {
        Ok(_) => Ok(()),
        Err(_) => Err(ResponseError::TooManyHeaders(map.len() + 1)),
    }
}

/// After this answer the connection ends: what the client still sends is not worth reading.
pub(crate) fn closing(response: &mut HttpResponse) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "a status is from 200 to 599, not {status}"),
            Self::TooManyHeaders(count) => write!(f, "{count} headers are more than fit a message"),
            Self::HeaderName(name) => write!(f, "'{}' is no header name", name.escape_debug()),
            Self::HeaderValue(name) => write!(
                f,
                "the value of the header '{name}' holds a line break or another control character"
            ),
        }
    }
}

impl std::error::Error for ResponseError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (Bytes::from(name), Bytes::from(value))
    }

    #[test]
    fn headers_come_out_as_they_were_packed() {
        let packed = "content-type\ntext/html\nset-cookie\na=1\nset-cookie\nb=2\nx-empty\n\n";
        let headers = vec![
            pair("content-type", "text/html"),
            pair("set-cookie", "a=1"),
            pair("set-cookie", "b=2"),
            pair("x-empty", ""),
        ];
        assert_eq!(Response::unpack_headers(&packed.into()), headers);
        let bytes = [packed.as_bytes(), b"a\nbody"].concat();
        let response = Response::from(PackedResponse::new(200, &bytes, packed.len()));
        assert_eq!(response.headers, headers);
        assert_eq!(response.body, "a\nbody");
    }

    #[test]
    fn without_headers_everything_is_the_body() {
        assert_eq!(Response::unpack_headers(&Bytes::new()), []);
        let response = Response::from(PackedResponse::new(204, b"", 0));
        assert!(response.headers.is_empty() && response.body.is_empty());
        let response = Response::from(PackedResponse::new(200, b"body", 0));
        assert_eq!(response.body, "body");
    }

    /// Whatever form it has, the same goes out.
    #[test]
    fn what_is_packed_is_sent_as_what_is_not() {
        for packed in [
            "",
            "content-type\ntext/plain; charset=utf-8\n",
            "x-content-type\ntext/plain; charset=utf-8\n",
            "x-a\n1\ncontent-type\ntext/plain; charset=utf-8\n",
            "content-type\ntext/plain; charset=utf-8\nx-a\n1\n",
            "set-cookie\na=1\nset-cookie\nb=2\n",
            "content-length\n7\ntransfer-encoding\nchunked\n",
            "not a name\n1\n",
            "x-a\n\u{1}\n",
            "x-latin1\nJos\u{e9}\n",
        ] {
            for method in [Method::GET, Method::HEAD] {
                for status in [200, 204, 205, 304, 600] {
                    let bytes = [packed.as_bytes(), b"body"].concat();
                    let packed = PackedResponse::new(status, &bytes, packed.len());
                    let whole = Response::from(packed.clone());
                    let sent = |answer: Answer| {
                        let (head, body) = answer.into_http(&method, HeaderMap::new()).into_parts();
                        (head.status, head.headers, format!("{body:?}"))
                    };
                    let one = sent(Answer::Packed(packed));
                    assert_eq!(one, sent(Answer::Whole(whole)));
                    assert!(!one.1.contains_key(TRANSFER_ENCODING));
                    let keeps_length =
                        method == Method::HEAD && bytes.starts_with(b"content-length");
                    let may_say = [200, 304].contains(&one.0.as_u16());
                    assert_eq!(one.1.contains_key(CONTENT_LENGTH), keeps_length && may_say);
                }
            }
        }
    }
}
