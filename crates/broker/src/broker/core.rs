//! What the threads of a broker share, and what its calls have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use parking_lot::Mutex;

use super::{BrokerOptions, IO_THREADS_VARIABLE};
use crate::backpressure::Reservation;
use crate::channel::{ChannelLimit, Channels, Snapshot};
use crate::dispatch::queue::WorkerQueue;
use crate::dispatch::roster::Roster;
use crate::error::StartError;
use crate::id::{RequestId, SocketId};
use crate::limits::entrance::Entrance;
use crate::listener::{AcceptFailures, ListenerShared};
use crate::message::Frames;
use crate::name::ChannelName;
use crate::options::SlowConsumer;
use crate::registry::{Registry, SocketEntry};
use crate::shard::chores::Leaving;
use crate::shard::inbox::{CloseBy, Command, Report};
use crate::shard::{self, ShardHandle};
use crate::stats::{CallCounters, Stats};

/// So many channels a socket leaves in the moment in which it closes, which is all that most are in: nobody counts it for one of
/// them afterwards. To leave one takes some microseconds while somebody publishes to it.
pub(crate) const LEFT_AT_ONCE: usize = 64;

/// What the threads of a broker share.
pub(crate) struct Core {
    options: BrokerOptions,
    pub(crate) registry: Registry,
    pub(crate) channels: Channels,
    pub(crate) roster: Roster,
    pub(crate) counters: CallCounters,
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) accept_failures: AcceptFailures,
    /// The listeners that have been started, until one is found to be gone. Held to go through them; nothing is locked
    /// under it but what wakes their connections.
    listeners: Mutex<Vec<Weak<ListenerShared>>>,
    /// The first shard has been asked to wake the listeners' connections.
    is_alert: AtomicBool,
    shards: OnceLock<Vec<Arc<ShardHandle>>>,
    /// Held while the shards are started: two first listeners at once start one set.
    starting: Mutex<()>,
    /// The shortest deadline of any listener so far, in milliseconds: how often the shards have to sweep.
    shortest_deadline: AtomicU64,
    listeners_started: AtomicUsize,
}

impl Core {
    pub(crate) fn new(options: BrokerOptions) -> Self {
        Self {
            options,
            registry: Registry::new(),
            channels: Channels::new(),
            roster: Roster::new(),
            counters: CallCounters::default(),
            entrance: Entrance::new(),
            accept_failures: AcceptFailures::default(),
            listeners: Mutex::default(),
            is_alert: AtomicBool::new(false),
            shards: OnceLock::new(),
            starting: Mutex::new(()),
            shortest_deadline: AtomicU64::new(u64::MAX),
            listeners_started: AtomicUsize::new(0),
        }
    }

    /// Refuses a number of I/O threads that cannot be had, before anything is begun.
    pub(super) fn check_io_threads(&self, wanted: Option<usize>) -> Result<(), StartError> {
        let Some(shards) = self.shards.get() else {
            return self.io_threads(wanted).map(drop);
        };
        match wanted {
            Some(wanted) if wanted != shards.len() => Err(StartError::InvalidArgument {
                name: "ioThreads",
                expected: format!("{}, which the first listener decided", shards.len()),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn start_shards(
        self: &Arc<Self>,
        wanted: Option<usize>,
    ) -> Result<&[Arc<ShardHandle>], StartError> {
        if let Some(shards) = self.shards.get() {
            return Ok(shards);
        }
        let _one_at_a_time = self.starting.lock();
        if self.shards.get().is_none() {
            let started = shard::start(self.io_threads(wanted)?, self)?;
            let _ = self.shards.set(started);
        }
        Ok(self.shards())
    }

    /// Shards without threads: their commands stay in their inboxes.
    #[cfg(any(test, feature = "bench", feature = "fuzzing"))]
    pub(crate) fn use_shards(&self, shards: Vec<Arc<ShardHandle>>) {
        assert!(self.shards.set(shards).is_ok(), "the shards are started");
    }

    fn io_threads(&self, wanted: Option<usize>) -> Result<usize, StartError> {
        let allowed = 1..=RequestId::MAX_SHARDS;
        let invalid = |name| StartError::InvalidArgument {
            name,
            expected: format!("a whole number from 1 to {}", RequestId::MAX_SHARDS),
        };
        if let Some(count) = wanted.or(self.options.io_threads) {
            let refused = || invalid("ioThreads");
            return allowed
                .contains(&count)
                .then_some(count)
                .ok_or_else(refused);
        }
        if let Ok(text) = std::env::var(IO_THREADS_VARIABLE) {
            let count = text.parse().ok().filter(|count| allowed.contains(count));
            return count.ok_or_else(|| invalid(IO_THREADS_VARIABLE));
        }
        let cores = available_parallelism().map_or(1, |cores| cores.get());
        Ok((cores / 2).clamp(1, RequestId::MAX_SHARDS))
    }

    /// How many listeners there were before this one, which may still fail.
    pub(crate) fn number_listener(&self) -> usize {
        self.listeners_started.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a new listener.
    pub(crate) fn listener_started(&self, shortest_deadline: Duration) {
        let deadline = u64::try_from(shortest_deadline.as_millis()).unwrap_or(u64::MAX);
        self.shortest_deadline
            .fetch_min(deadline, Ordering::Relaxed);
        self.counters.listeners.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn listener_stopped(&self) {
        self.counters.listeners.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn shortest_deadline(&self) -> Duration {
        Duration::from_millis(self.shortest_deadline.load(Ordering::Relaxed))
    }

    pub(crate) fn shards(&self) -> &[Arc<ShardHandle>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn tell_shards(&self, mut command: impl FnMut() -> Command) {
        for shard in self.shards() {
            shard.send(command());
        }
    }

    pub(super) fn tell_shard_of(&self, request: RequestId, command: Command) -> bool {
        match self.shards().get(request.shard()) {
            Some(shard) => {
                shard.send(command);
                true
            }
            None => false,
        }
    }

    /// A worker takes no more: every shard hands its part to the others.
    pub(crate) fn worker_left(&self, worker: &Arc<WorkerQueue>, ended: bool) {
        self.roster.remove(worker.id);
        self.tell_shards(|| Command::WorkerLeft {
            worker: Arc::clone(worker),
            ended,
        });
    }

    /// A worker that has left is no longer busy with a socket, whose events wait in `holding`.
    pub(crate) fn release(&self, socket: SocketId, holding: Arc<WorkerQueue>) {
        match self.registry.find(socket) {
            Some(entry) => entry.home.send(Command::Released(holding)),
            // It has closed, and its last events are with the shard that had it.
            None => self.tell_shards(|| Command::Released(Arc::clone(&holding))),
        }
    }

    /// Takes room for a frame; what does not fit is counted, and the listener's policy is carried out.
    #[inline]
    pub(crate) fn reserve(&self, entry: &Arc<SocketEntry>, bytes: usize) -> bool {
        match entry.reserve(bytes) {
            Reservation::Queued => true,
            refused => self.turn_away(entry, refused),
        }
    }

    /// A message has found no room.
    #[cold]
    fn turn_away(&self, entry: &Arc<SocketEntry>, reservation: Reservation) -> bool {
        let (counter, report) = match reservation {
            Reservation::Queued => return true,
            // It has not left all of its channels yet.
            _ if !entry.is_open() => {
                self.counters.socket_closed.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Reservation::Slow => (&self.counters.slow_consumer, Report::SlowConsumer),
            Reservation::Full => (&self.counters.queue_full, Report::QueueFull),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.refuse(entry, report);
        false
    }

    /// There is no room for a message: closes the socket, unless its listener has such messages left out.
    pub(crate) fn refuse(&self, entry: &Arc<SocketEntry>, report: Report) {
        if entry.listener.options.slow_consumer == SlowConsumer::Close {
            self.close(entry, CloseBy::Broker(report));
        }
    }

    /// Notes whose connections bans have to reach.
    pub(crate) fn add_listener(&self, listener: &Arc<ListenerShared>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Has the HTTP connections of all listeners look at the bans again. They are woken once for as many bans as come
    /// before they are.
    pub(super) fn alert_connections(&self) {
        // Without threads there is no connection.
        if let Some(shard) = self.shards.get().and_then(|shards| shards.first())
            && !self.is_alert.swap(true, Ordering::AcqRel)
        {
            shard.send(Command::Alert);
        }
    }

    /// Wakes them: whoever has banned somebody before this need not do so again.
    pub(crate) fn wake_connections(&self) {
        self.is_alert.swap(false, Ordering::AcqRel);
        self.listeners.lock().retain(|listener| {
            let listener = listener.upgrade();
            listener.as_deref().map(ListenerShared::alert).is_some()
        });
    }

    /// Queues a message for members of one shard; how many.
    pub(super) fn publish(
        &self,
        shard: u16,
        members: Snapshot,
        frames: &mut Frames,
        except: Option<SocketId>,
    ) -> usize {
        let mut queued = 0;
        let mut skipped = Vec::new();
        for entry in members.iter().flat_map(|chunk| chunk.iter()) {
            if Some(entry.id) == except {
                continue;
            }
            if self.reserve(entry, frames.prepare(entry).len()) {
                queued += 1;
            } else {
                skipped.push(entry.id);
            }
        }
        if queued > 0 {
            let shard = &self.shards()[usize::from(shard)];
            match frames.small() {
                Some(frame) if skipped.is_empty() => shard.publish_copied(members, except, frame),
                _ => shard.send(Command::Publish(Box::new(Publication {
                    frames: frames.clone(),
                    members,
                    except,
                    skipped,
                }))),
            }
        }
        queued
    }

    pub(super) fn close(&self, entry: &Arc<SocketEntry>, by: CloseBy) -> bool {
        if !self.leave(entry) {
            return false;
        }
        entry.home.send(Command::Close {
            entry: Arc::clone(entry),
            by,
        });
        true
    }

    /// Takes a socket out of the registries; `true` for the one caller who did it. Who is in many channels leaves most of them a
    /// little later: neither the caller nor those who share the socket's thread wait for it.
    pub(crate) fn leave(&self, entry: &SocketEntry) -> bool {
        let Some(channels) = self.registry.remove(entry) else {
            return false;
        };
        let mut channels = channels.into_iter();
        for channel in channels.by_ref().take(LEFT_AT_ONCE) {
            self.channels.leave(&channel, entry.id);
        }
        if channels.len() > 0 {
            let leaving = Leaving::new(entry, channels);
            entry.home.send(Command::Leave(Box::new(leaving)));
        }
        true
    }

    /// Adds a socket to a channel; what its limit refuses is counted.
    pub(crate) fn subscribe(
        &self,
        entry: &Arc<SocketEntry>,
        name: &ChannelName,
    ) -> Result<bool, ChannelLimit> {
        let subscribed = self.channels.subscribe(entry, name);
        if subscribed.is_err() {
            self.counters.channel_limit.fetch_add(1, Ordering::Relaxed);
        }
        subscribed
    }

    pub(super) fn members(&self, name: &ChannelName) -> Vec<Arc<SocketEntry>> {
        let Some(channel) = self.channels.find(name) else {
            return Vec::new();
        };
        let snapshot = channel.snapshot();
        let chunks = snapshot.iter().flat_map(|(_, members)| members.iter());
        chunks.flat_map(|chunk| chunk.iter().cloned()).collect()
    }

    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats {
            connections: self.registry.len() as u64,
            channels: self.channels.len() as u64,
            subscriptions: self.channels.subscriptions() as u64,
            listeners: self.counters.listeners.load(Ordering::Relaxed),
            io_threads: self.shards().len() as u64,
            accept_errors: self.accept_failures.count(),
            workers: self.roster.stats(),
            ..Stats::default()
        };
        stats.limited = self.entrance.refusals.stats();
        stats.dropped.slow_consumer = self.counters.slow_consumer.load(Ordering::Relaxed);
        stats.dropped.queue_full = self.counters.queue_full.load(Ordering::Relaxed);
        stats.dropped.socket_closed = self.counters.socket_closed.load(Ordering::Relaxed);
        stats.dropped.worker_ended = self.counters.messages_lost.load(Ordering::Relaxed);
        stats.dropped.worker_ended_events = self.counters.others_lost.load(Ordering::Relaxed);
        let calls = &self.counters;
        stats.dropped.channel_limit = calls.channel_limit.load(Ordering::Relaxed);
        stats.dropped.handler_timeouts = calls.handler_timeouts.load(Ordering::Relaxed);
        stats.dropped.handler_timeout_messages =
            calls.handler_timeout_messages.load(Ordering::Relaxed);
        for shard in self.shards() {
            shard.counters.add_to(&mut stats);
        }
        stats
    }
}

/// A message on its way to the members of one shard.
pub(crate) struct Publication {
    pub(crate) frames: Frames,
    pub(crate) members: Snapshot,
    pub(crate) except: Option<SocketId>,
    /// Members for whom too much waited, in the order of `members`: no room was taken for them.
    pub(crate) skipped: Vec<SocketId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_woken_once_for_the_bans_before_and_again_for_those_after() {
        let core = Core::new(BrokerOptions::default());
        core.alert_connections(); // there is nobody yet
        let shard = ShardHandle::new(0);
        core.use_shards(vec![Arc::clone(&shard)]);
        for _ in 0..2 {
            for _ in 0..3 {
                core.alert_connections();
            }
            let commands = shard.take_commands();
            assert!(matches!(commands.as_slice(), [Command::Alert]));
            core.wake_connections();
        }
    }
}
