//! What a worker answers.

use std::fmt;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;

use crate::name::ChannelName;
use crate::route::NativeRoute;

/// An answer to an HTTP request.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names and values. `content-length` and `transfer-encoding` follow from the body and are left out; on an answer
    /// to `HEAD` a `content-length` is kept.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The whole body.
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
    /// A short text answer.
    pub(crate) fn plain(status: StatusCode, text: &'static str) -> Self {
        let content_type = (
            Bytes::from_static(b"content-type"),
            Bytes::from_static(b"text/plain; charset=utf-8"),
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
        let mut pieces = packed
            .split(|byte| *byte == b'\n')
            .map(|piece| packed.slice_ref(piece));
        let mut headers = Vec::new();
        while let (Some(name), Some(value)) = (pieces.next(), pieces.next()) {
            headers.push((name, value));
        }
        headers
    }

    /// `bytes` begins with so many of packed headers, and the rest is the body.
    pub(crate) fn copied(status: u16, bytes: &[u8], headers: usize) -> Self {
        let mut headers_and_body = Bytes::copy_from_slice(bytes);
        let headers = headers_and_body.split_to(headers);
        Self {
            status,
            headers: Self::unpack_headers(&headers),
            body: headers_and_body,
        }
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
        self.status_code()?;
        parse_headers(&self.headers)?;
        Ok(())
    }

    fn status_code(&self) -> Result<StatusCode, ResponseError> {
        match StatusCode::from_u16(self.status) {
            Ok(status) if (200..600).contains(&self.status) => Ok(status),
            _ => Err(ResponseError::Status(self.status)),
        }
    }

    /// As hyper sends it; an answer that cannot be sent becomes a 500.
    pub(crate) fn into_http(self, method: &Method) -> http::Response<Full<Bytes>> {
        match self.try_into_http(method) {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "a response could not be sent");
                let mut response = http::Response::new(Full::from("Internal Server Error"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
    }

    fn try_into_http(self, method: &Method) -> Result<http::Response<Full<Bytes>>, ResponseError> {
        let status = self.status_code()?;
        let mut headers = parse_headers(&self.headers)?;
        headers.remove(TRANSFER_ENCODING);
        if method != Method::HEAD {
            headers.remove(CONTENT_LENGTH);
        }
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        let body = if bodiless { Bytes::new() } else { self.body };
        let mut response = http::Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Checks names and values as it builds the map.
pub(crate) fn parse_headers(headers: &[(Bytes, Bytes)]) -> Result<HeaderMap, ResponseError> {
    let too_many = |_| ResponseError::TooManyHeaders(headers.len());
    let mut map = HeaderMap::try_with_capacity(headers.len()).map_err(too_many)?;
    for (name, value) in headers {
        let readable = || String::from_utf8_lossy(name).into_owned();
        let parsed =
            HeaderName::from_bytes(name).map_err(|_| ResponseError::HeaderName(readable()))?;
        let value = HeaderValue::from_maybe_shared(value.clone())
            .map_err(|_| ResponseError::HeaderValue(readable()))?;
        map.try_append(parsed, value).map_err(too_many)?;
    }
    Ok(map)
}

/// After this answer the connection ends: what the client still sends is not worth reading.
pub(crate) fn closing(response: &mut http::Response<Full<Bytes>>) {
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
        let response = Response::copied(200, &bytes, packed.len());
        assert_eq!(response.headers, headers);
        assert_eq!(response.body, "a\nbody");
    }

    #[test]
    fn without_headers_everything_is_the_body() {
        assert_eq!(Response::unpack_headers(&Bytes::new()), []);
        let response = Response::copied(204, b"", 0);
        assert!(response.headers.is_empty() && response.body.is_empty());
        assert_eq!(Response::copied(200, b"body", 0).body, "body");
    }
}
