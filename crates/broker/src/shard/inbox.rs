//! What other threads, and the connections of the shard itself, ask of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::ShardHandle;
use super::chores::Leaving;
use super::routing::Relay;
use super::waiters::{WhenClosed, WhenDrained};
use crate::broker::Publication;
use crate::channel::Snapshot;
use crate::client::ClientAddress;
use crate::codec::{PerMessageDeflate, close};
use crate::dispatch::queue::WorkerQueue;
use crate::dispatch::request_block::Unpacked;
use crate::http::answer::Reply;
use crate::http::origin::{OriginQuestion, OriginVerdict};
use crate::http::response::{Acceptance, Response, UpgradeDecision};
use crate::id::{RequestId, SocketId};
use crate::listener::{
    Admission, ConnectionGuard, Handshake, ListenerGuard, ListenerShared, Listening,
};
use crate::message::SmallFrame;
use crate::registry::SocketEntry;
use crate::transport::{Stream, Transport};

/// One thing to do, in the order it was asked for.
pub(crate) enum Command {
    /// Accept connections of this listener, and deal them to the shards.
    Listen {
        listening: Listening,
        guard: ListenerGuard,
    },
    /// Serve this connection.
    Connect {
        stream: Stream,
        peer: ClientAddress,
        admission: Admission,
    },
    /// An HTTP request has been read.
    Request {
        id: RequestId,
        block: Vec<u8>,
        reply: Reply,
    },
    /// The same of a request whose block, of so many bytes, stands in the inbox.
    RequestCopied {
        id: RequestId,
        length: u32,
        reply: Reply,
    },
    /// A WebSocket handshake has been read and is sound.
    Upgrade {
        id: RequestId,
        block: Vec<u8>,
        terms: Terms,
        /// What has to be asked about its origin before.
        question: Option<Box<OriginQuestion>>,
        reply: oneshot::Sender<UpgradeReply>,
    },
    /// The application has judged the origin of an upgrade.
    JudgeOrigin {
        request: RequestId,
        verdict: OriginVerdict,
    },
    /// The client of a request says nothing more; it may still read.
    ClientEnded(RequestId),
    /// The client of a request is gone.
    ClientGone(RequestId),
    /// A connection has ended; what it told before comes first.
    Disconnected(Admission),
    /// A worker answers a request.
    Respond {
        id: RequestId,
        response: Box<Response>,
    },
    /// A worker answers a request with what stands in the inbox: packed headers, then the body.
    RespondCopied {
        id: RequestId,
        status: u16,
        /// Of the headers alone, and of both.
        headers: u32,
        length: u32,
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
        /// Ends with this.
        handshake: Handshake,
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
    /// Send a small frame that stands in the inbox to members of a channel; room was taken for them.
    PublishCopied(CopiedPublication),
    /// Send messages that a socket of another shard has read to members of a channel; room was taken for them.
    Relay(Box<Relay>),
    /// Queue so many frames that stand in the inbox, each for one socket.
    DeliverCopied { frames: u32 },
    /// Begin the closing handshake of a socket that has left the registries.
    Close {
        entry: Arc<SocketEntry>,
        by: CloseBy,
    },
    /// Take a socket that has closed out of the rest of its channels.
    Leave(Box<Leaving>),
    /// A worker has come to the close event of a parting socket, which has left the registries.
    CloseBegun(Arc<SocketEntry>),
    /// Tell when nothing waits for a socket any more, or that it has ended before.
    WhenDrained {
        entry: Arc<SocketEntry>,
        then: WhenDrained,
    },
    /// Tell when a socket begins to close.
    WhenClosed {
        entry: Arc<SocketEntry>,
        then: WhenClosed,
    },
    /// Stop or go on reading a socket.
    Hold { entry: Arc<SocketEntry>, held: bool },
    /// The messages of a socket take a native route from now on.
    Rerouted(Arc<SocketEntry>),
    /// A full worker has room again.
    WorkerDrained(u32),
    /// A worker takes no more.
    WorkerLeft {
        worker: Arc<WorkerQueue>,
        ended: bool,
    },
    /// The socket whose events wait here gets a worker again.
    Released(Arc<WorkerQueue>),
    /// Close all sockets of a listener that is being stopped.
    StopListener {
        listener: Arc<ListenerShared>,
        code: u16,
        reason: Arc<str>,
        /// From the first goodbye to the last.
        spread: Duration,
    },
    /// The deadline of a stop is over: cut what is left.
    CutListener(Arc<ListenerShared>),
    /// Wake the HTTP connections of all shards: somebody has been banned.
    Alert,
    /// Run a task on the shard's runtime.
    Spawn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// A small message on its way to the members of one shard, the same for all of them.
pub(crate) struct CopiedPublication {
    pub(crate) members: Snapshot,
    pub(crate) except: Option<SocketId>,
    /// Of the frame, in bytes.
    pub(crate) length: u32,
}

/// What waits for a shard, in the order of the calls.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) commands: Vec<Command>,
    /// The frames of [`Command::DeliverCopied`], each with a head that tells whose it is, those of
    /// [`Command::PublishCopied`], the requests of [`Command::RequestCopied`] and the answers of
    /// [`Command::RespondCopied`], one behind the other.
    pub(super) bytes: Vec<u8>,
    /// How many calls that were.
    pub(super) calls: usize,
}

/// Before a frame: the socket's id, its place in the shard, the frame's length.
const FRAME_HEAD: usize = 16;

/// An inbox keeps so much memory for the next turn: what a busy one takes in, not what a burst has left.
const KEPT_COMMANDS: usize = 1024;
const KEPT_BYTES: usize = 256 * 1024;

impl Inbox {
    pub(super) fn push(&mut self, command: Command) {
        self.commands.push(command);
        self.calls += 1;
    }

    pub(super) fn push_frame(&mut self, entry: &SocketEntry, frame: &SmallFrame<'_>) {
        match self.commands.last_mut() {
            Some(Command::DeliverCopied { frames }) => *frames += 1,
            _ => self.commands.push(Command::DeliverCopied { frames: 1 }),
        }
        self.calls += 1;
        let mut head = [0; FRAME_HEAD];
        head[..8].copy_from_slice(&entry.id.get().to_le_bytes());
        head[8..12].copy_from_slice(&entry.key.to_le_bytes());
        head[12..].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        self.bytes.reserve(FRAME_HEAD + frame.len());
        self.bytes.extend_from_slice(&head);
        frame.append_to(&mut self.bytes);
    }

    pub(super) fn push_publication(
        &mut self,
        members: Snapshot,
        except: Option<SocketId>,
        frame: &[u8],
    ) {
        self.push(Command::PublishCopied(CopiedPublication {
            members,
            except,
            length: frame.len() as u32,
        }));
        self.bytes.extend_from_slice(frame);
    }

    pub(super) fn push_request(&mut self, id: RequestId, reply: Reply, request: &Unpacked<'_>) {
        let length = request.len() as u32;
        self.push(Command::RequestCopied { id, length, reply });
        request.pack_to(&mut self.bytes);
    }

    pub(super) fn push_answer(&mut self, id: RequestId, status: u16, headers: &[u8], body: &[u8]) {
        self.push(Command::RespondCopied {
            id,
            status,
            headers: headers.len() as u32,
            length: (headers.len() + body.len()) as u32,
        });
        self.bytes.extend_from_slice(headers);
        self.bytes.extend_from_slice(body);
    }

    /// Everything has been taken out.
    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.calls = 0;
        self.bytes.clear();
    }

    /// Gives memory back that a burst has left: called now and then, for to do so each time would cost as much as the burst.
    pub(super) fn shrink(&mut self) {
        self.commands.shrink_to(KEPT_COMMANDS);
        self.bytes.shrink_to(KEPT_BYTES);
    }
}

/// The next frame that stands in an inbox: the id and the place of its socket, and the frame.
pub(super) fn next_frame<'a>(bytes: &mut &'a [u8]) -> Option<(u64, u32, &'a [u8])> {
    let head = bytes.split_off(..FRAME_HEAD)?;
    let (id, rest) = head.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    let frame = bytes.split_off(..u32::from_le_bytes(*length) as usize)?;
    Some((u64::from_le_bytes(*id), u32::from_le_bytes(*key), frame))
}

/// What has been found out about a client that asks for a socket.
pub(crate) struct Terms {
    /// The listener it came through, for its options.
    pub(crate) listener: Arc<ListenerShared>,
    /// Whom a ban may mean.
    pub(crate) client: ClientAddress,
    /// What was agreed on with a client that takes compressed messages.
    pub(crate) deflate: Option<PerMessageDeflate>,
}

/// Who began the closing handshake.
#[derive(Debug)]
pub(crate) enum CloseBy {
    /// The application: a peer that does not answer has closed with 1006.
    Application { code: u16, reason: Box<str> },
    /// The broker, for a reason that its close event tells even if the peer does not answer.
    Broker(Report),
}

/// A close the broker decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The client took nothing, and too much waited for it.
    SlowConsumer,
    /// Too much was sent to it at once.
    QueueFull,
    /// A handler of the socket did not come to an end within `handlerTimeout`.
    HandlerTimeout,
    /// Its client has been banned.
    Banned,
}

impl Report {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::SlowConsumer | Self::QueueFull => close::TRY_AGAIN_LATER,
            Self::HandlerTimeout => close::INTERNAL_ERROR,
            Self::Banned => close::POLICY_VIOLATION,
        }
    }

    /// One line, which fits a close frame.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow consumer",
            Self::QueueFull => "send queue full",
            Self::HandlerTimeout => "handler timed out",
            Self::Banned => "banned",
        }
    }
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

    pub(super) fn entry(&self) -> &Arc<SocketEntry> {
        self.0.as_ref().expect("only `into_entry` takes it")
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
