//! Where to listen: `'0.0.0.0:3000'`, `'[::]:3000'`, `'localhost:3000'`, `':3000'`, `'unix:/run/app.sock'`.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::StartError;

/// A parsed bind address; names are resolved when the listener starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// A host (a name or an IP address) and a port. Port 0 picks a free one.
    Inet {
        /// `None` stands for every interface, IPv6 and IPv4.
        host: Option<String>,
        /// The TCP port.
        port: u16,
    },
    /// A Unix socket file. It is created by the bind and removed at the stop.
    Unix(PathBuf),
}

/// Where a listener really listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP, with the port the system chose if 0 was asked for.
    Inet(SocketAddr),
    /// A Unix socket file.
    Unix(PathBuf),
}

impl BindAddress {
    /// The addresses to try in turn.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, StartError> {
        let Self::Inet { host, port } = self else {
            return Ok(Vec::new());
        };
        let Some(host) = host else {
            return Ok(vec![
                (Ipv6Addr::UNSPECIFIED, *port).into(),
                ([0, 0, 0, 0], *port).into(),
            ]);
        };
        let resolved = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
            self.invalid(&format!("the host '{host}' does not resolve ({error})"))
        })?;
        let addresses: Vec<_> = resolved.collect();
        if addresses.is_empty() {
            return Err(self.invalid(&format!("the host '{host}' has no address")));
        }
        Ok(addresses)
    }

    fn invalid(&self, reason: &str) -> StartError {
        invalid(&self.to_string(), reason)
    }
}

impl FromStr for BindAddress {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(invalid(text, "the path after 'unix:' is empty"));
            }
            if path.contains('\0') {
                return Err(invalid(text, "the path holds a zero byte"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(invalid(text, "the port is missing"));
        };
        // `u16::from_str` takes a sign; a port has none.
        let port = match port.parse() {
            Ok(port) if port_is_digits(text) => port,
            _ => return Err(invalid(text, "the port is no number from 0 to 65535")),
        };
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => {
                if inner.parse::<Ipv6Addr>().is_err() {
                    return Err(invalid(text, "the brackets hold no IPv6 address"));
                }
                Some(inner.to_owned())
            }
            None if host.is_empty() => None,
            None if host.contains([':', '[', ']']) => {
                return Err(invalid(text, "an IPv6 address is written in brackets"));
            }
            None if host.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control()) => {
                return Err(invalid(text, "the host holds a character that no host has"));
            }
            None => Some(host.to_owned()),
        };
        Ok(Self::Inet { host, port })
    }
}

fn port_is_digits(text: &str) -> bool {
    text.rsplit(':')
        .next()
        .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

fn invalid(address: &str, reason: &str) -> StartError {
    StartError::InvalidAddress {
        address: address.to_owned(),
        reason: reason.to_owned(),
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host: None, port } => write!(f, ":{port}"),
            Self::Inet {
                host: Some(host),
                port,
            } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Inet {
                host: Some(host),
                port,
            } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_understood() {
        for text in [
            "0.0.0.0:3000",
            "[::]:3000",
            "localhost:3000",
            ":3000",
            "127.0.0.1:0",
            "unix:/run/app.sock",
        ] {
            let parsed: BindAddress = text.parse().expect(text);
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn malformed_addresses_say_what_is_wrong() {
        for (text, word) in [
            ("", "port is missing"),
            ("localhost", "port is missing"),
            ("localhost:", "0 to 65535"),
            ("localhost:+80", "0 to 65535"),
            ("localhost:65536", "0 to 65535"),
            ("localhost:-1", "0 to 65535"),
            ("::1:80", "brackets"),
            ("[::1:80", "brackets"),
            ("[hello]:80", "no IPv6"),
            ("ho st:80", "character"),
            ("http://localhost:80", "brackets"),
            ("unix:", "empty"),
        ] {
            let error = text.parse::<BindAddress>().expect_err(text);
            assert_eq!(error.code(), "WSB_INVALID_ADDRESS");
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
