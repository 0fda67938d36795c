//! An I/O shard: one thread that owns its sockets alone.
//!
//! Everything it does happens in *turns* (see `turn`): take the inbox, visit the sockets that are ready, write to
//! those that have something waiting, hand the gathered events to the workers.

use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread;

use crate::broker::Core;
use crate::channel::Snapshot;
use crate::dispatch::request_block::Unpacked;
use crate::error::StartError;
use crate::http::answer::Reply;
use crate::id::{RequestId, SocketId};
use crate::message::SmallFrame;
use crate::reactor::Reactor;
use crate::registry::SocketEntry;
use crate::stats::{Counter, ShardCounters};
use crate::sync::{AtomicBool, Mutex, Ordering};

mod alarm;
#[cfg(feature = "bench")]
pub mod bench;
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
mod slice;
mod socket;
mod staging;
mod stopping;
mod sweep;
mod transmit;
mod turn;

use inbox::{Command, Inbox};
pub(crate) use requests::origin_refused;
use turn::Shard;

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
            requests: Counter::default(),
        })
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

/// How many tasks run before tokio's reactor is looked at again, which takes a system call. A connection that does HTTP is a
/// task; a poll of it reads and writes little, and 32 instead of 8 spare two thirds of these calls (`docs/performance.md`). A
/// turn is a task too, and may be long: the shard's reactor sees to it that not too many go by without a look.
const TASKS_PER_POLL: u32 = 32;

/// Starts the I/O threads.
pub(crate) fn start(count: usize, core: &Arc<Core>) -> Result<Vec<Arc<ShardHandle>>, StartError> {
    let handles: Vec<_> = (0..count).map(|n| ShardHandle::new(n as u16)).collect();
    for handle in &handles {
        let io_error = |source| StartError::Io {
            action: "start an I/O thread".to_owned(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(TASKS_PER_POLL)
            .build()
            .map_err(io_error)?;
        let entered = runtime.enter();
        let reactor = Reactor::new().map_err(io_error)?;
        drop(entered);
        let handle = Arc::clone(handle);
        let core = Arc::clone(core);
        thread::Builder::new()
            .name(format!("wsbroker-io-{}", handle.index))
            .spawn(move || {
                runtime.block_on(async {
                    // A task of its own: woken on this thread it is only queued, without a system call. And without
                    // tokio's budget, which would end a turn after 128 reads.
                    let shard = tokio::task::unconstrained(Shard::new(handle, core, reactor).run());
                    if tokio::spawn(shard).await.is_err() {
                        // Its sockets are gone and every stop would wait for ever: better that somebody restarts us.
                        tracing::error!("an I/O thread panicked");
                        std::process::abort();
                    }
                });
            })
            .map_err(io_error)?;
    }
    Ok(handles)
}
