//! Who the client of a connection is: its address, and what proxies on the way say about it.

mod address;
mod cidr;
pub mod forwarded;
pub mod proxy_protocol;
mod trust;

pub use address::ClientAddress;
pub(crate) use address::ClientKey;
pub use cidr::{Cidr, InvalidCidr};
pub use trust::{Peers, ProxyProtocol, TrustProxy};
