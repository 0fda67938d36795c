//! What a listener is told to limit.

use super::bucket::Rate;
use super::socket::SocketLimits;

/// What one client, one socket, and all of them together, may take. `None`: no limit, which is the default of each.
///
/// A client is an IPv4 address or an IPv6 network of 64 bits. A peer on a Unix socket is none, and has no limit of its
/// own unless a trusted proxy names a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections that one client may have open: 429 beyond. Behind a trusted proxy only sockets are counted.
    pub connections_per_ip: Option<u32>,
    /// Upgrade requests of one client: 429 with `Retry-After` beyond.
    pub upgrades_per_ip: Option<Rate>,
    /// Other requests of one client: 429 with `Retry-After` beyond.
    pub requests_per_ip: Option<Rate>,
    /// Connections of the whole broker at which this listener takes no more: 503 with `Retry-After` beyond.
    pub connections: Option<u32>,
    /// Upgrades of this listener that may be under way at one time, read and neither open nor refused: 503 with
    /// `Retry-After` beyond.
    pub handshakes: Option<u32>,
    /// What each socket may do.
    pub socket: SocketLimits,
}

impl Limits {
    /// Whether anything is counted by client.
    pub(crate) fn are_per_client(&self) -> bool {
        self.connections_per_ip.is_some()
            || self.upgrades_per_ip.is_some()
            || self.requests_per_ip.is_some()
    }
}
