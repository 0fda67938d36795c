//! A worker, as the engine's users see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::Batch;
use super::queue::WorkerQueue;
use crate::broker::Core;
use crate::id::SocketId;
use crate::shard::inbox::Command;

/// Wakes a worker's thread. Called from the shards' threads.
pub trait WorkerWaker: Send + Sync + 'static {
    /// Something is in the queue of a worker that found it empty. Must not block or panic, and must do nothing
    /// when the worker's thread is gone.
    fn wake(&self);
}

/// Wakes a Rust thread that parks itself when its queue is empty.
#[derive(Clone, Debug)]
pub struct ThreadWaker(std::thread::Thread);

impl ThreadWaker {
    /// For the calling thread.
    #[must_use]
    pub fn current() -> Self {
        Self(std::thread::current())
    }
}

impl WorkerWaker for ThreadWaker {
    fn wake(&self) {
        self.0.unpark();
    }
}

/// What a worker takes part in. What it does not want to be asked is answered without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// It answers HTTP requests. While no worker does, they get 426, or 404 where all workers
    /// [ignore sockets](Self::ignores_sockets) too.
    pub http: bool,
    /// It decides on upgrades. While no worker does, they are accepted.
    pub upgrade: bool,
    /// It calls [`Worker::begin_close`] before it handles a close event. Until then the event goes to another worker should
    /// this one end, and a socket whose peer has ended it stays open for the answers to its messages. Otherwise a close event
    /// counts as handled with its batch, and such a socket closes at once.
    pub confirms_closes: bool,
    /// It does nothing when a socket opens, and gets no open events. That a socket opened meanwhile is told to nobody, also
    /// not to a worker that gets it later.
    pub ignores_opens: bool,
    /// It does nothing with sockets at all: nobody is told to upgrade for its sake. It gets sockets in its turn all the same.
    pub ignores_sockets: bool,
}

/// How many events a worker has handled since it was registered, both wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Messages.
    pub messages: u32,
    /// Open and drain events.
    pub others: u32,
}

/// A registered worker. Clones are the same worker; it stays until [`end`](Self::end) or [`retire`](Self::retire).
#[derive(Clone)]
pub struct Worker {
    queue: Arc<WorkerQueue>,
    core: Arc<Core>,
}

impl Worker {
    pub(crate) fn new(queue: Arc<WorkerQueue>, core: Arc<Core>) -> Self {
        Self { queue, core }
    }

    /// Tells the workers of a process apart; never used twice.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.queue.id
    }

    /// The next batch. What was given before counts as handled from now on, but
    /// for the close events of a worker that [confirms](Interest::confirms_closes) them.
    /// `None`: nothing waits, and the next event will call [`WorkerWaker::wake`].
    #[must_use]
    pub fn take(&self) -> Option<Batch> {
        let (batch, drained) = self.queue.take();
        if drained {
            let id = self.queue.id;
            self.core.tell_shards(|| Command::WorkerDrained(id));
        }
        if batch.is_none() {
            self.core.registry.forget_found();
        }
        batch
    }

    /// The close handler of this socket starts now: nobody else will be given its close event. A socket whose peer said
    /// goodbye, ended its stream or broke the protocol was open until now, for what this worker sent in answer to earlier messages.
    pub fn begin_close(&self, socket: SocketId) {
        if self.queue.begin_close(socket)
            && let Some(entry) = self.core.registry.find(socket)
            && self.core.leave(&entry)
        {
            let home = Arc::clone(&entry.home);
            home.send(Command::CloseBegun(entry));
        }
    }

    /// The worker is gone. Its sockets and the events it had not been given go to the others, HTTP requests it holds
    /// get 503, and the events given but not finished are counted as lost. Without `finished` these are the ones of the
    /// last batch.
    pub fn end(&self, finished: Option<Finished>) {
        let Some(lost) = self.queue.end(finished) else {
            return;
        };
        let counters = &self.core.counters;
        let lost_messages = u64::from(lost.messages);
        counters
            .messages_lost
            .fetch_add(lost_messages, Ordering::Relaxed);
        let lost_others = u64::from(lost.others);
        counters
            .others_lost
            .fetch_add(lost_others, Ordering::Relaxed);
        self.core.worker_left(&self.queue, true);
        for (socket, holding) in self.queue.take_held_back() {
            self.core.release(socket, holding);
        }
    }

    /// This worker, which has retired, is no longer busy with that socket.
    pub fn release(&self, socket: SocketId) {
        if let Some(holding) = self.queue.release(socket) {
            self.core.release(socket, holding);
        }
    }

    /// The worker wants no more: like [`end`](Self::end), but what it has been given it will finish, and call `end`
    /// then. `busy` are the sockets of which it is still handling something: their next events wait for
    /// [`release`](Self::release).
    pub fn retire(&self, busy: &[SocketId]) {
        let held_back = busy
            .iter()
            .map(|socket| (*socket, self.core.roster.holding()))
            .collect();
        if !self.queue.retire(held_back) {
            return;
        }
        self.core.worker_left(&self.queue, false);
    }
}
