//! Whom a listener believes when they say who the client is.

use super::{Cidr, ClientAddress};

/// Some peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Their addresses and networks.
    pub networks: Vec<Cidr>,
    /// Those on a Unix socket as well.
    pub unix: bool,
}

/// Which proxies are believed when they name the client in `X-Forwarded-For` or `Forwarded`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrustProxy {
    /// None: the client is the peer.
    #[default]
    Nobody,
    /// So many proxies are between the client and us, whatever their addresses. The peer is the first of them.
    Hops(u32),
    /// These.
    Peers(Peers),
}

/// Who has to begin a connection with a PROXY header, which names the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Nobody: what looks like one is a broken request.
    #[default]
    Off,
    /// Every peer.
    Everybody,
    /// These; the connections of others are closed.
    Peers(Peers),
}

impl Peers {
    /// Whether this address is one of them.
    #[must_use]
    pub fn contains(&self, address: ClientAddress) -> bool {
        match address.ip() {
            Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            None => self.unix,
        }
    }
}

impl TrustProxy {
    /// Whether the `hop`th address on the way from us to the client is a proxy that is believed; the peer is hop 0.
    #[must_use]
    pub fn trusts(&self, address: ClientAddress, hop: u32) -> bool {
        match self {
            Self::Nobody => false,
            Self::Hops(hops) => hop < *hops,
            Self::Peers(peers) => peers.contains(address),
        }
    }
}

impl ProxyProtocol {
    /// Whether connections of this listener begin with a PROXY header.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self != Self::Off
    }

    /// Whether this peer's header is believed.
    #[must_use]
    pub fn accepts(&self, peer: ClientAddress) -> bool {
        match self {
            Self::Off => false,
            Self::Everybody => true,
            Self::Peers(peers) => peers.contains(peer),
        }
    }
}
