//! HTTP/1.1 by hyper, on the shard that owns the connection.
//!
//! A connection is one task until it is done or becomes a WebSocket. What it reads goes to its shard's inbox as a
//! command, like everything else that happens; the answer comes back to a slot of the connection, that to an upgrade by
//! a one-shot.

pub(crate) mod admission;
mod amend;
pub(crate) mod answer;
pub(crate) mod connection;
mod deadlines;
mod exchange;
mod opening;
pub(crate) mod origin;
pub(crate) mod response;
pub(crate) mod subprotocol;
mod target;
mod timed;
pub(crate) mod upgrade;
