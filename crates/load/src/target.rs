//! Which address, and from which addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections from one source address. The kernel has some 28,000 ports for each; the rest are those of connections
/// that have just ended.
const PER_SOURCE: usize = 4000;

/// How many source addresses there are: 127.0.1.1 to 127.0.1.250.
const SOURCES: usize = 250;

/// An address that a load may be run against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target(SocketAddr);

/// Why an address is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NoAddress(String),
    NotLoopback(SocketAddr),
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress(text) => {
                write!(f, "expected an address such as 127.0.0.1:3000, got {text}")
            }
            Self::NotLoopback(address) => write!(
                f,
                "{address} is no loopback address: a load is run against machines of one's own; --any-address allows it"
            ),
        }
    }
}

impl Target {
    /// # Errors
    ///
    /// Text that is no address, and an address that is not loopback unless `any`.
    pub(crate) fn parse(text: &str, any: bool) -> Result<Self, Refused> {
        let address =
            SocketAddr::from_str(text).map_err(|_| Refused::NoAddress(text.to_owned()))?;
        if any || address.ip().is_loopback() {
            Ok(Self(address))
        } else {
            Err(Refused::NotLoopback(address))
        }
    }

    pub(crate) fn host(self) -> String {
        self.0.to_string()
    }

    /// Begins the `n`th connection.
    pub(crate) fn connect(self, n: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(self.0),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = self.source(n) {
            // The port is then chosen at the connect, so that it need be free for this one peer only.
            nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::IpBindAddressNoPort,
                &true,
            )?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.0.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => {
                Err(error)
            }
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// All of 127.0.0.0/8 is this machine; other addresses have one source, which the kernel chooses.
    fn source(self, n: usize) -> Option<IpAddr> {
        let v4 = self.0.is_ipv4() && self.0.ip().is_loopback();
        let host = (n / PER_SOURCE % SOURCES) as u8 + 1;
        v4.then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 1, host)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_unless_told_otherwise() {
        for text in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80"] {
            assert!(Target::parse(text, false).is_ok(), "{text}");
        }
        for text in ["192.0.2.1:80", "0.0.0.0:80", "[2001:db8::1]:80"] {
            assert!(
                matches!(Target::parse(text, false), Err(Refused::NotLoopback(_))),
                "{text}"
            );
            assert!(Target::parse(text, true).is_ok(), "{text}");
        }
        assert!(matches!(
            Target::parse("localhost:80", true),
            Err(Refused::NoAddress(_))
        ));
    }

    #[test]
    fn many_connections_come_from_several_addresses() {
        let target = Target::parse("127.0.0.1:80", false).expect("loopback");
        let of = |n| target.source(n).expect("a source").to_string();
        assert_eq!(of(0), "127.0.1.1");
        assert_eq!(of(PER_SOURCE), "127.0.1.2");
        assert_eq!(of(PER_SOURCE * SOURCES), "127.0.1.1");
        let six = Target::parse("[::1]:80", false).expect("loopback");
        assert_eq!(six.source(0), None);
    }
}
