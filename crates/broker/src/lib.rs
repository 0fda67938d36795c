//! The engine of wsbroker: it owns the sockets, the channels and the limits, on Rust threads, and hands what
//! happens to *workers* in batches. It knows no JavaScript; a worker is a queue and a wake-up.
//!
//! The modules, in the order a message meets them:
//!
//! | module | its subject |
//! |---|---|
//! | [`address`], [`options`] | what a listener is told, parsed once |
//! | [`listener`] | binding, accepting, dealing connections to the shards, draining |
//! | `transport` | the byte stream under a connection |
//! | `http` | HTTP/1.1 by hyper: requests, responses, the WebSocket handshake |
//! | `shard` | the I/O thread: its inbox, its turn, its sockets |
//! | [`client`] | who the client is: addresses, networks, what proxies say |
//! | [`limits`] | what one peer may take |
//! | `bans` | who is kept out |
//! | [`codec`] | RFC 6455 and RFC 7692, sans-IO: bytes in, messages out |
//! | [`compression`] | what a listener offers of permessage-deflate; the compressors of the threads |
//! | [`dispatch`] | batches of events, the workers' queues, who gets what |
//! | [`broker`] | the calls: send, publish, subscribe, close … |
//! | `registry`, `everybody`, `channel` | which sockets exist and who is in which channel |
//! | `route` | where messages go that no worker hears of |
//! | `outbox` | what waits for one socket, counted |
//! | [`memory`], `shrink` | memory of large messages and batches, which goes from one to the next; what gives memory back |
//! | [`stats`] | everything above in numbers |
//!
//! ```no_run
//! use std::sync::Arc;
//! use wsbroker_engine::{Broker, BrokerOptions, Event, Interest, ListenOptions, OutboundMessage, ThreadWaker};
//!
//! let broker = Broker::new(BrokerOptions::default());
//! let waker = Arc::new(ThreadWaker::current());
//! let worker = broker.register_worker(Interest::default(), waker);
//! let _listener = broker.listen(ListenOptions::new("127.0.0.1:3000".parse()?))?;
//! loop {
//!     while let Some(batch) = worker.take() {
//!         for event in batch.events() {
//!             if let Event::Message { socket, payload, .. } = event {
//!                 broker.send(socket, &OutboundMessage::binary(payload));
//!             }
//!         }
//!     }
//!     std::thread::park();
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), wsbroker_engine::StartError>(())
//! ```

#![forbid(unsafe_code)]

pub mod address;
mod backpressure;
mod bans;
pub mod broker;
mod channel;
pub mod client;
pub mod codec;
pub mod compression;
pub mod dispatch;
pub mod error;
mod everybody;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod id;
mod large_text;
pub mod limits;
pub mod listener;
pub mod memory;
mod message;
#[cfg(all(test, wsbroker_loom))]
mod models;
pub mod name;
pub mod options;
mod outbox;
mod reactor;
mod registry;
mod route;
mod shard;
mod shrink;
pub mod stats;
mod sync;
mod transport;

pub use address::{BindAddress, ListenAddress};
pub use bans::Ban;
pub use broker::{Broker, BrokerOptions};
pub use channel::ChannelLimit;
pub use client::{Cidr, ClientAddress, InvalidCidr, Peers, ProxyProtocol, TrustProxy};
pub use compression::{Compression, CompressionMemory};
pub use dispatch::batch::Batch;
pub use dispatch::record::{Event, PackedMessage};
pub use dispatch::request_block::RequestBlock;
pub use dispatch::worker::{Finished, Interest, ThreadWaker, Worker, WorkerWaker};
pub use error::StartError;
pub use http::origin::{InvalidOrigin, Origin, OriginAnswer, OriginCheck, OriginVerdict, Origins};
pub use http::response::{Acceptance, Response, ResponseError, UpgradeDecision};
pub use http::subprotocol::{InvalidSubprotocol, Subprotocol};
pub use id::{RequestId, SocketId};
pub use large_text::{HEADER_ROOM, LargeText};
pub use limits::Limits;
pub use limits::bucket::Rate;
pub use limits::socket::{OnExceed, SocketLimits, SocketRate};
pub use listener::{Listener, StopOptions, StopSummary};
pub use message::OutboundMessage;
pub use name::{ChannelName, InvalidName};
pub use options::{Heartbeat, ListenOptions, SlowConsumer};
pub use route::NativeRoute;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use shard::bench;
pub use shard::cork::{cork, uncork};
pub use shard::{WhenClosed, WhenDrained};
pub use stats::Stats;
