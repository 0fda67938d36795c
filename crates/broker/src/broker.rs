//! The calls an application makes, from any thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::channel::{Channels, Snapshot};
use crate::codec;
use crate::dispatch::roster::Roster;
use crate::dispatch::worker::{Interest, Worker, WorkerQueue, WorkerWaker};
use crate::error::StartError;
use crate::http::response::{Response, UpgradeDecision};
use crate::id::{RequestId, SocketId};
use crate::listener::{self, Listener};
use crate::message::OutboundMessage;
use crate::name::ChannelName;
use crate::options::{ListenOptions, SlowConsumer};
use crate::registry::{Registry, Reservation, SocketEntry};
use crate::shard::inbox::{CloseBy, Command};
use crate::shard::{self, ShardHandle};
use crate::stats::{CallCounters, Stats};

/// The environment variable that sets the number of I/O threads where the application does not.
pub const IO_THREADS_VARIABLE: &str = "WSBROKER_IO_THREADS";

/// What a broker is told when it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerOptions {
    /// How many I/O threads, 1 to 256. `None`: `WSBROKER_IO_THREADS`, or else half of the machine's cores (the other
    /// half is for the workers), at least one.
    pub io_threads: Option<usize>,
}

/// One set of sockets and channels. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
}

/// What the threads of a broker share.
pub(crate) struct Core {
    options: BrokerOptions,
    pub(crate) registry: Registry,
    pub(crate) channels: Channels,
    pub(crate) roster: Roster,
    pub(crate) counters: CallCounters,
    shards: OnceLock<Vec<Arc<ShardHandle>>>,
    /// Held while the shards are started: two first listeners at once start one set.
    starting: Mutex<()>,
    /// The shortest deadline of any listener so far, in milliseconds: how often the shards have to sweep.
    shortest_deadline: AtomicU64,
    listeners_started: AtomicUsize,
}

impl Broker {
    /// A broker without sockets. Its I/O threads start with the first listener.
    #[must_use]
    pub fn new(options: BrokerOptions) -> Self {
        let core = Core {
            options,
            registry: Registry::new(),
            channels: Channels::new(),
            roster: Roster::new(),
            counters: CallCounters::default(),
            shards: OnceLock::new(),
            starting: Mutex::new(()),
            shortest_deadline: AtomicU64::new(u64::MAX),
            listeners_started: AtomicUsize::new(0),
        };
        Self {
            core: Arc::new(core),
        }
    }

    /// Binds and begins to accept. The port is open when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left half-started.
    pub fn listen(&self, options: ListenOptions) -> Result<Listener, StartError> {
        options.validate()?;
        if self.core.roster.is_empty() {
            return Err(StartError::NoWorker);
        }
        self.core.check_io_threads(options.io_threads)?;
        let bound = listener::bind(&options.bind)?;
        let shards = self.core.start_shards(options.io_threads)?;
        listener::start(bound, options, shards, &self.core)
    }

    /// Registers a worker: from now on it gets its share of sockets and requests.
    pub fn register_worker(&self, interest: Interest, waker: Arc<dyn WorkerWaker>) -> Worker {
        let queue = self.core.roster.add(interest, waker);
        // Sockets that lost their last worker have waited for this one.
        let limbo = &self.core.roster.limbo;
        self.core.tell_shards(|| Command::WorkerLeft {
            worker: Arc::clone(limbo),
            ended: false,
        });
        Worker::new(queue, Arc::clone(&self.core))
    }

    /// `true` when queued; `false` when the socket is gone or too much waits for it.
    pub fn send(&self, socket: SocketId, message: &OutboundMessage) -> bool {
        let Some(entry) = self.core.registry.find(socket) else {
            return false;
        };
        if !self.core.reserve(&entry, message.frame().len()) {
            return false;
        }
        let home = Arc::clone(&entry.home);
        home.send(Command::Deliver {
            entry,
            frame: message.frame().clone(),
        });
        true
    }

    /// Queues a message for every subscriber of this moment but `except`; how many that were.
    pub fn send_to_channel(
        &self,
        name: &ChannelName,
        message: &OutboundMessage,
        except: Option<SocketId>,
    ) -> usize {
        let Some(channel) = self.core.channels.find(name) else {
            return 0;
        };
        channel
            .snapshot()
            .into_iter()
            .map(|(shard, members)| self.core.publish(shard, members, message.frame(), except))
            .sum()
    }

    /// Queues a message for every open socket; how many that were.
    pub fn broadcast(&self, message: &OutboundMessage) -> usize {
        let mut by_shard: Vec<Vec<Arc<SocketEntry>>> = Vec::new();
        for entry in self.core.registry.entries() {
            let shard = usize::from(entry.home.index);
            if by_shard.len() <= shard {
                by_shard.resize_with(shard + 1, Vec::new);
            }
            by_shard[shard].push(entry);
        }
        by_shard
            .into_iter()
            .enumerate()
            .filter(|(_, entries)| !entries.is_empty())
            .map(|(shard, entries)| {
                let everyone = Snapshot::new(vec![Arc::new(entries)]);
                self.core
                    .publish(shard as u16, everyone, message.frame(), None)
            })
            .sum()
    }

    /// `true` when added; `false` when it already was, or the socket is gone.
    pub fn subscribe(&self, socket: SocketId, channel: &ChannelName) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => self.core.channels.subscribe(&entry, channel),
            None => false,
        }
    }

    /// `true` when removed.
    pub fn unsubscribe(&self, socket: SocketId, channel: &ChannelName) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => self.core.channels.unsubscribe(&entry, channel),
            None => false,
        }
    }

    /// Adds the subscribers of `from` to `to`; how many were new there.
    pub fn copy_subscriptions(&self, from: &ChannelName, to: &ChannelName) -> usize {
        self.core
            .members(from)
            .iter()
            .filter(|entry| self.core.channels.subscribe(entry, to))
            .count()
    }

    /// Ties bytes to a socket, or takes them away; `false` when the socket is gone.
    pub fn set_token(&self, socket: SocketId, token: Option<Bytes>) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => entry.set_token(token),
            None => false,
        }
    }

    /// The bytes tied to a socket.
    #[must_use]
    pub fn token(&self, socket: SocketId) -> Option<Bytes> {
        self.core.registry.find(socket)?.token()
    }

    /// Begins the closing handshake; `true` when the socket was open. What was sent before goes out before.
    pub fn close(&self, socket: SocketId, code: u16, reason: &str) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => self.core.close(&entry, code, reason, CloseBy::Application),
            None => false,
        }
    }

    /// How many sockets are in a channel.
    #[must_use]
    pub fn subscriber_count(&self, channel: &ChannelName) -> usize {
        self.core
            .channels
            .find(channel)
            .map_or(0, |found| found.len())
    }

    /// Which sockets are in a channel, in no order.
    #[must_use]
    pub fn subscribers(&self, channel: &ChannelName) -> Vec<SocketId> {
        self.core
            .members(channel)
            .iter()
            .map(|entry| entry.id)
            .collect()
    }

    /// The channels a socket is in, in no order.
    #[must_use]
    pub fn channels(&self, socket: SocketId) -> Vec<ChannelName> {
        let entry = self.core.registry.find(socket);
        entry
            .and_then(|entry| entry.with_channels(|set| set.names()))
            .unwrap_or_default()
    }

    /// How many channels have subscribers.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.core.channels.len()
    }

    /// How many sockets are open.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.core.registry.len()
    }

    /// The open sockets, in no order.
    #[must_use]
    pub fn connections(&self) -> Vec<SocketId> {
        self.core.registry.ids()
    }

    /// Bytes queued for a socket and not yet handed to the kernel.
    #[must_use]
    pub fn buffered_amount(&self, socket: SocketId) -> usize {
        self.core
            .registry
            .find(socket)
            .map_or(0, |entry| entry.buffered())
    }

    /// Everything in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Answers an HTTP request; `false` when the id was never given by a shard of this broker.
    pub fn respond(&self, request: RequestId, response: Response) -> bool {
        self.core.tell_shard_of(
            request,
            Command::Respond {
                id: request,
                response: Box::new(response),
            },
        )
    }

    /// Answers an upgrade request; `false` as with [`respond`](Self::respond).
    pub fn decide(&self, request: RequestId, decision: UpgradeDecision) -> bool {
        self.core.tell_shard_of(
            request,
            Command::Decide {
                id: request,
                decision: Box::new(decision),
            },
        )
    }

    /// Stops reading a socket: a handler is busy with it and enough waits behind. `false` when it is gone.
    pub fn pause(&self, socket: SocketId) -> bool {
        self.hold(socket, true)
    }

    /// Goes on reading a paused socket.
    pub fn resume(&self, socket: SocketId) -> bool {
        self.hold(socket, false)
    }

    fn hold(&self, socket: SocketId, held: bool) -> bool {
        let Some(entry) = self.core.registry.find(socket) else {
            return false;
        };
        let home = Arc::clone(&entry.home);
        home.send(Command::Hold { entry, held });
        true
    }
}

impl Core {
    /// Refuses a number of I/O threads that cannot be had, before anything is begun.
    fn check_io_threads(&self, wanted: Option<usize>) -> Result<(), StartError> {
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

    fn start_shards(
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

    /// Notes a new listener; how many there were before.
    pub(crate) fn listener_started(&self, shortest_deadline: Duration) -> usize {
        let deadline = u64::try_from(shortest_deadline.as_millis()).unwrap_or(u64::MAX);
        self.shortest_deadline
            .fetch_min(deadline, Ordering::Relaxed);
        self.counters.listeners.fetch_add(1, Ordering::Relaxed);
        self.listeners_started.fetch_add(1, Ordering::Relaxed)
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

    fn tell_shard_of(&self, request: RequestId, command: Command) -> bool {
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

    /// Takes room for a frame; what does not fit is counted, and the listener's policy is carried out.
    fn reserve(&self, entry: &Arc<SocketEntry>, bytes: usize) -> bool {
        match entry.reserve(bytes) {
            Reservation::Queued => true,
            Reservation::Slow(policy) => {
                self.counters.slow_consumer.fetch_add(1, Ordering::Relaxed);
                if policy == SlowConsumer::Close {
                    self.close_slow(entry);
                }
                false
            }
        }
    }

    pub(crate) fn close_slow(&self, entry: &Arc<SocketEntry>) {
        let code = codec::close::TRY_AGAIN_LATER;
        self.close(entry, code, "slow consumer", CloseBy::Broker);
    }

    /// Queues a frame for members of one shard; how many.
    fn publish(
        &self,
        shard: u16,
        members: Snapshot,
        frame: &Bytes,
        except: Option<SocketId>,
    ) -> usize {
        let mut queued = 0;
        let mut skipped = Vec::new();
        for entry in members.iter().flat_map(|chunk| chunk.iter()) {
            if Some(entry.id) == except {
                continue;
            }
            if self.reserve(entry, frame.len()) {
                queued += 1;
            } else {
                skipped.push(entry.id);
            }
        }
        if queued > 0 {
            self.shards()[usize::from(shard)].send(Command::Publish(Box::new(Publication {
                frame: frame.clone(),
                members,
                except,
                skipped,
            })));
        }
        queued
    }

    fn close(&self, entry: &Arc<SocketEntry>, code: u16, reason: &str, by: CloseBy) -> bool {
        if !self.leave(entry) {
            return false;
        }
        entry.home.send(Command::Close {
            entry: Arc::clone(entry),
            code,
            reason: reason.into(),
            by,
        });
        true
    }

    /// Takes a socket out of the registries; `true` for the one caller who did it.
    pub(crate) fn leave(&self, entry: &SocketEntry) -> bool {
        let Some(channels) = self.registry.remove(entry) else {
            return false;
        };
        for channel in channels {
            self.channels.leave(&channel, entry.id);
        }
        true
    }

    fn members(&self, name: &ChannelName) -> Vec<Arc<SocketEntry>> {
        let Some(channel) = self.channels.find(name) else {
            return Vec::new();
        };
        let snapshot = channel.snapshot();
        let chunks = snapshot.iter().flat_map(|(_, members)| members.iter());
        chunks.flat_map(|chunk| chunk.iter().cloned()).collect()
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            connections: self.registry.len() as u64,
            channels: self.channels.len() as u64,
            subscriptions: self.channels.subscriptions() as u64,
            listeners: self.counters.listeners.load(Ordering::Relaxed),
            io_threads: self.shards().len() as u64,
            workers: self.roster.stats(),
            ..Stats::default()
        };
        stats.dropped.slow_consumer = self.counters.slow_consumer.load(Ordering::Relaxed);
        stats.dropped.worker_ended = self.counters.messages_lost.load(Ordering::Relaxed);
        stats.dropped.worker_ended_events = self.counters.others_lost.load(Ordering::Relaxed);
        for shard in self.shards() {
            shard.counters.add_to(&mut stats);
        }
        stats
    }
}

/// A frame on its way to the members of one shard.
pub(crate) struct Publication {
    pub(crate) frame: Bytes,
    pub(crate) members: Snapshot,
    pub(crate) except: Option<SocketId>,
    /// Members for whom too much waited, in the order of `members`: no room was taken for them.
    pub(crate) skipped: Vec<SocketId>,
}
