//! An I/O shard: one thread that owns its sockets alone.
//!
//! Everything it does happens in *turns* (see `turn`): take the inbox, visit the sockets that are ready, write to
//! those that have something waiting, hand the gathered events to the workers.

use std::sync::{Arc, OnceLock};
use std::task::Waker;

use crate::channel::Snapshot;
use crate::dispatch::request_block::Unpacked;
use crate::http::answer::Reply;
use crate::id::{RequestId, SocketId};
use crate::message::SmallFrame;
use crate::reactor::Sources;
use crate::registry::SocketEntry;
use crate::stats::{Counter, ShardCounters};
use crate::sync::{AtomicBool, Mutex, Ordering};

mod alarm;
#[cfg(feature = "bench")]
pub mod bench;
pub(crate) mod chores;
mod closing;
pub(crate) mod cork;
mod departure;
pub(crate) mod inbox;
mod large;
#[cfg(all(test, wsbroker_loom))]
mod models;
mod opening;
mod pacing;
mod publishing;
mod receive;
mod requests;
mod routing;
mod shrinking;
mod slice;
mod socket;
mod staging;
mod starting;
mod stopping;
mod sweep;
mod transmit;
mod turn;
mod waiters;

use inbox::{Command, Inbox};
pub(crate) use requests::origin_refused;
pub(crate) use starting::start;
pub use waiters::{WhenClosed, WhenDrained};

/// A shard as the other threads see it.
pub(crate) struct ShardHandle {
    pub(crate) index: u16,
    pub(crate) counters: ShardCounters,
    /// Commands in the order of the calls. Held for one push, or one swap.
    inbox: Mutex<Inbox>,
    /// A wake-up is under way that the shard has not answered yet.
    woken: AtomicBool,
    /// The shard's task, from its first turn on.
    waker: OnceLock<Waker>,
    /// What the shard watches, once it has a thread.
    sources: OnceLock<Arc<Sources>>,
    requests: Counter,
}

impl ShardHandle {
    pub(crate) fn new(index: u16) -> Arc<Self> {
        Arc::new(Self {
            index,
            counters: ShardCounters::default(),
            inbox: Mutex::default(),
            woken: AtomicBool::new(false),
            waker: OnceLock::new(),
            sources: OnceLock::new(),
            requests: Counter::default(),
        })
    }

    /// Where a source is registered that the shard is to watch.
    pub(crate) fn sources(&self) -> &Arc<Sources> {
        self.sources.get().expect("a shard with a thread has them")
    }

    /// Puts a command in the inbox and wakes the shard, unless the calling thread is corked.
    pub(crate) fn send(self: &Arc<Self>, command: Command) {
        self.put(|inbox| inbox.push(command));
    }

    /// The same for a small frame, which needs no memory of its own this way. Room for it has been taken.
    pub(crate) fn send_copied(self: &Arc<Self>, entry: &SocketEntry, frame: &SmallFrame<'_>) {
        self.put(|inbox| inbox.push_frame(entry, frame));
    }

    /// The same for a small frame that all these members get, but one.
    pub(crate) fn publish_copied(
        self: &Arc<Self>,
        members: Snapshot,
        except: Option<SocketId>,
        frame: &[u8],
    ) {
        self.put(|inbox| inbox.push_publication(members, except, frame));
    }

    /// The same for a short request that has been read.
    pub(crate) fn request_copied(
        self: &Arc<Self>,
        id: RequestId,
        reply: Reply,
        request: &Unpacked<'_>,
    ) {
        self.put(|inbox| inbox.push_request(id, reply, request));
    }

    /// The same for an answer to a request: headers packed as `name\nvalue\n…`, and the body.
    pub(crate) fn respond_copied(
        self: &Arc<Self>,
        id: RequestId,
        status: u16,
        headers: &[u8],
        body: &[u8],
    ) {
        self.put(|inbox| inbox.push_answer(id, status, headers, body));
    }

    fn put(self: &Arc<Self>, push: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox.lock();
        push(&mut inbox);
        let waiting = inbox.calls;
        drop(inbox);
        cork::wake(self, waiting);
    }

    /// What waits for a shard that has no thread.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *self.inbox.lock()).commands
    }

    /// Does what it would do of sockets that have closed and were in many channels; the rest goes on waiting.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn finish_leavings(&self, core: &crate::broker::Core) {
        let is_leaving = |command: &mut Command| matches!(command, Command::Leave(_));
        let commands = &mut self.inbox.lock().commands;
        let leavings: Vec<_> = commands.extract_if(.., is_leaving).collect();
        for command in leavings {
            if let Command::Leave(leaving) = command {
                leaving.finish(core);
            }
        }
    }

    /// To be called on the shard's thread alone, which is where its connections are.
    pub(crate) fn next_request_id(&self) -> RequestId {
        self.requests.add(1);
        RequestId::in_shard(self.index, self.requests.get())
    }

    /// A wake-up is under way, which is enough for what the caller has put in: had a turn answered it and taken the inbox
    /// before that, the inbox's lock, which the caller has had since, would show it.
    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        // Before the first turn there is nothing to wake: that turn takes the inbox anyway.
        if !self.is_woken()
            && !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }

    /// The beginning of a turn: whatever is put in from here on wakes the shard again.
    fn answer_wake(&self, waker: &Waker) {
        let known = self.waker.get_or_init(|| waker.clone());
        debug_assert!(known.will_wake(waker), "a task keeps its waker");
        self.woken.store(false, Ordering::SeqCst);
    }
}
