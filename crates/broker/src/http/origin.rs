//! Which pages may open sockets: the check of `Origin` (RFC 6455 section 10.2), before anything else sees the request.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Weak};

use http::HeaderMap;
use http::header::ORIGIN;

use crate::id::RequestId;
use crate::shard::ShardHandle;
use crate::shard::inbox::Command;

/// Longer than any origin that a browser sends: a scheme, a host name of at most 253 bytes and a port.
const MAX_ORIGIN: usize = 1024;

/// Which origins may connect.
#[derive(Clone, Default)]
pub enum Origins {
    /// Every page.
    #[default]
    Any,
    /// These, and clients that send no `Origin`. Others get 403.
    List(Arc<[Origin]>),
    /// Whom this allows.
    Ask(Arc<dyn OriginCheck>),
}

/// The origin of a page as browsers send it, normalised: lower case, and without the port that is its scheme's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Box<str>);

/// This is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrigin;

/// A function of the application that decides about origins.
pub trait OriginCheck: Send + Sync + 'static {
    /// Called on an I/O thread: it must not block or panic. `None`: the client sent no `Origin`. The answer may be given
    /// at any time and from any thread; the request waits for it within its listener's `request_timeout`.
    fn ask(&self, origin: Option<&str>, answer: OriginAnswer);
}

/// The place of an [`OriginCheck`]'s answer. Dropped without one, the request is answered 503.
pub struct OriginAnswer {
    shard: Arc<ShardHandle>,
    request: RequestId,
    /// Gone when the request is.
    awaited: Weak<()>,
}

/// What became of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginVerdict {
    /// The upgrade goes on.
    Allowed,
    /// 403.
    Refused,
    /// The function failed: 500.
    Failed,
    /// There is nobody to ask: 503.
    Unavailable,
}

/// What the headers of a request say before the application is asked.
pub(crate) enum OriginCheckup {
    Allowed,
    Refused,
    Asked(Box<OriginQuestion>),
}

/// A question that is still to be asked.
pub(crate) struct OriginQuestion {
    check: Arc<dyn OriginCheck>,
    origin: Option<String>,
}

impl Origins {
    pub(crate) fn check(&self, headers: &HeaderMap) -> OriginCheckup {
        if matches!(self, Self::Any) {
            return OriginCheckup::Allowed;
        }
        let mut values = headers.get_all(ORIGIN).iter();
        let origin = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) if value.len() <= MAX_ORIGIN => match value.to_str() {
                Ok(origin) => Some(origin),
                Err(_) => return OriginCheckup::Refused,
            },
            // Two origins are none: whoever reads the other one decides differently.
            _ => return OriginCheckup::Refused,
        };
        match (self, origin) {
            // No browser: those send it with every handshake, and only their users can be tricked into one. A program
            // that wants to lie about its origin sends whichever it likes.
            (Self::Any, _) | (Self::List(_), None) => OriginCheckup::Allowed,
            (Self::List(list), Some(origin)) => match origin.parse::<Origin>() {
                Ok(origin) if list.contains(&origin) => OriginCheckup::Allowed,
                _ => OriginCheckup::Refused,
            },
            (Self::Ask(check), origin) => OriginCheckup::Asked(Box::new(OriginQuestion {
                check: Arc::clone(check),
                origin: origin.map(str::to_owned),
            })),
        }
    }
}

impl OriginQuestion {
    /// `asks` lives as long as the answer is wanted.
    pub(crate) fn ask(self, shard: &Arc<ShardHandle>, request: RequestId, asks: &Arc<()>) {
        let answer = OriginAnswer {
            shard: Arc::clone(shard),
            request,
            awaited: Arc::downgrade(asks),
        };
        self.check.ask(self.origin.as_deref(), answer);
    }
}

impl OriginAnswer {
    /// Whether somebody still waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.awaited.strong_count() > 0
    }

    /// Decides. A request that does not wait any more is no error.
    pub fn give(mut self, verdict: OriginVerdict) {
        self.tell(verdict);
    }

    fn tell(&mut self, verdict: OriginVerdict) {
        let awaited = std::mem::take(&mut self.awaited);
        if awaited.strong_count() > 0 {
            let request = self.request;
            self.shard.send(Command::JudgeOrigin { request, verdict });
        }
    }
}

impl Drop for OriginAnswer {
    fn drop(&mut self) {
        self.tell(OriginVerdict::Unavailable);
    }
}

impl fmt::Debug for OriginAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginAnswer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::List(list) => f.debug_tuple("List").field(list).finish(),
            Self::Ask(_) => f.write_str("Ask"),
        }
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    /// `null`, or `scheme://host` with a port or without: what RFC 6454 section 6.2 makes of an origin. `file://`, which
    /// some embedded browsers send, is one as well.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let text = text.to_ascii_lowercase();
        if text == "null" || text == "file://" {
            return Ok(Self(text.into()));
        }
        let (scheme, authority) = text.split_once("://").ok_or(InvalidOrigin)?;
        let (host, port) = split_port(authority)?;
        if !is_scheme(scheme) || !is_host(host) {
            return Err(InvalidOrigin);
        }
        let default = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let normalised = match port {
            Some(port) if Some(port) != default => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        };
        Ok(Self(normalised.into()))
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidOrigin> {
    // The colons of an IPv6 address are inside of its brackets.
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(after_brackets + colon);
    let port = &port[1..];
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let number: u16 = port.parse().map_err(|_| InvalidOrigin)?;
    if is_number && number > 0 {
        Ok((host, Some(number)))
    } else {
        Err(InvalidOrigin)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A name in ASCII (of one in other letters browsers send the Punycode), an IPv4 address, or an IPv6 one in brackets.
fn is_host(text: &str) -> bool {
    match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an origin is a scheme and a host, as in https://example.com, or null")
    }
}

impl std::error::Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().expect("an origin")
    }

    #[test]
    fn origins_are_compared_without_case_and_without_default_ports() {
        for (one, other) in [
            ("https://Example.COM", "HTTPS://example.com:443"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:80", "http://[::1]"),
            ("null", "NULL"),
        ] {
            assert_eq!(origin(one), origin(other));
        }
        for (one, other) in [
            ("https://example.com", "http://example.com"),
            ("https://example.com", "https://example.com:80"),
            ("https://example.com", "https://example.com.evil.example"),
            ("https://example.com", "https://www.example.com"),
            ("chrome-extension://abc", "moz-extension://abc"),
        ] {
            assert_ne!(origin(one), origin(other));
        }
        assert_eq!(
            origin("https://EXAMPLE.com:8443").to_string(),
            "https://example.com:8443"
        );
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_none() {
        for text in [
            "",
            "*",
            "example.com",
            "//example.com",
            "https:",
            "https://",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?query",
            "https://example.com#fragment",
            "https://user@example.com",
            "https://*.example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:+80",
            "https://example.com:8x",
            "https://[::1",
            "https://[::g]",
            "https://[::1]x:80",
            "https://example.com https://evil.example",
            "https://exämple.com",
            "1https://example.com",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
    }

    fn allows(origins: &Origins, values: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ORIGIN, HeaderValue::from_bytes(value).expect("a value"));
        }
        matches!(origins.check(&headers), OriginCheckup::Allowed)
    }

    #[test]
    fn a_list_lets_its_own_in_and_whoever_is_no_browser() {
        let list = ["https://example.com", "http://localhost:3000"].map(origin);
        let list = Origins::List(Arc::new(list));
        assert!(allows(&list, &[]));
        assert!(allows(&list, &[b"https://example.com"]));
        assert!(allows(&list, &[b"https://EXAMPLE.com:443"]));
        for foreign in [
            &b"https://evil.example"[..],
            b"null",
            b"",
            b"https://example.com/",
            b"https://example.com\xFF",
            &[b'a'; MAX_ORIGIN + 1],
        ] {
            assert!(!allows(&list, &[foreign]), "{foreign:?}");
        }
        assert!(!allows(
            &list,
            &[b"https://example.com", b"https://example.com"]
        ));
        assert!(allows(
            &Origins::Any,
            &[b"https://evil.example", b"nonsense"]
        ));
    }
}
