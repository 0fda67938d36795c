//! What other threads, and the connections of the shard itself, ask of it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::ShardHandle;
use super::closing::Report;
use crate::broker::Publication;
use crate::client::ClientAddress;
use crate::dispatch::queue::WorkerQueue;
use crate::http::response::{Acceptance, Response, UpgradeDecision};
use crate::id::RequestId;
use crate::listener::{Admission, Bound, ConnectionGuard, ListenerGuard, ListenerShared};
use crate::registry::SocketEntry;
use crate::transport::{Transport, Unregistered};

/// One thing to do, in the order it was asked for.
pub(crate) enum Command {
    /// Accept connections of this listener, and deal them to the shards.
    Listen { bound: Bound, guard: ListenerGuard },
    /// Serve this connection.
    Connect {
        stream: Unregistered,
        peer: ClientAddress,
        admission: Admission,
    },
    /// An HTTP request has been read.
    Request {
        id: RequestId,
        block: Vec<u8>,
        listener: Arc<ListenerShared>,
        reply: oneshot::Sender<Response>,
    },
    /// A WebSocket handshake has been read and is sound.
    Upgrade {
        id: RequestId,
        block: Vec<u8>,
        listener: Arc<ListenerShared>,
        client: ClientAddress,
        reply: oneshot::Sender<UpgradeReply>,
    },
    /// The client of a request is gone.
    ClientGone(RequestId),
    /// A connection has ended; what it told before comes first.
    Disconnected(Admission),
    /// A worker answers a request.
    Respond {
        id: RequestId,
        response: Box<Response>,
    },
    /// A worker decides on an upgrade.
    Decide {
        id: RequestId,
        decision: Box<UpgradeDecision>,
    },
    /// The 101 is out: here is the stream.
    Adopt {
        reserved: Reserved,
        transport: Transport,
        early: Bytes,
        guard: ConnectionGuard,
    },
    /// The 101 could not be sent.
    Abandon(Arc<SocketEntry>),
    /// Send this to one socket; room was taken for it.
    Deliver {
        entry: Arc<SocketEntry>,
        frame: Bytes,
    },
    /// Send this to members of a channel; room was taken for them.
    Publish(Box<Publication>),
    /// Begin the closing handshake of a socket that has left the registries.
    Close {
        entry: Arc<SocketEntry>,
        code: u16,
        reason: Box<str>,
        by: CloseBy,
    },
    /// Stop or go on reading a socket.
    Hold { entry: Arc<SocketEntry>, held: bool },
    /// A full worker has room again.
    WorkerDrained(u32),
    /// A worker takes no more.
    WorkerLeft {
        worker: Arc<WorkerQueue>,
        ended: bool,
    },
    /// Close all sockets of a listener that is being stopped.
    StopListener {
        listener: Arc<ListenerShared>,
        code: u16,
        reason: Arc<str>,
    },
    /// The deadline of a stop is over: cut what is left.
    CutListener(Arc<ListenerShared>),
    /// Run a task on the shard's runtime.
    Spawn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Who began the closing handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseBy {
    /// The application: a peer that does not answer has closed with 1006.
    Application,
    /// The broker, for a reason that its close event tells even if the peer does not answer.
    Broker(Report),
}

/// What became of an upgrade request.
pub(crate) enum UpgradeReply {
    Accepted(Reserved, Box<Acceptance>),
    Refused(Response),
}

/// The place of a socket whose 101 is not out yet. Dropped before [`Command::Adopt`] it gives the place back.
pub(crate) struct Reserved(Option<Arc<SocketEntry>>);

impl Reserved {
    pub(super) fn new(entry: Arc<SocketEntry>) -> Self {
        Self(Some(entry))
    }

    pub(super) fn into_entry(mut self) -> Arc<SocketEntry> {
        self.0.take().expect("only this takes it")
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(entry) = self.0.take() {
            let home: Arc<ShardHandle> = Arc::clone(&entry.home);
            home.send(Command::Abandon(entry));
        }
    }
}
