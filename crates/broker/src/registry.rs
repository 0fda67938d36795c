//! Which sockets exist. One entry per socket, shared by its shard and every thread that calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use crate::backpressure::{Backpressure, Reservation};
use crate::channel::{ChannelSet, Snapshot};
use crate::client::ClientAddress;
use crate::codec::PerMessageDeflate;
use crate::dispatch::batch::Origin;
use crate::everybody::{Everybody, Moment};
use crate::id::SocketId;
use crate::listener::ListenerShared;
use crate::route::NativeRoute;
use crate::shard::ShardHandle;
use crate::shard::inbox::Terms;
use crate::shrink;
use crate::sync::{AtomicU8, AtomicU64, AtomicUsize, Mutex, Ordering, StaticU64, thread_local};

/// What every thread may know of a socket. The socket itself belongs to its shard.
pub(crate) struct SocketEntry {
    pub(crate) id: SocketId,
    /// The socket's place in its shard.
    pub(crate) key: u32,
    /// The shard that owns it.
    pub(crate) home: Arc<ShardHandle>,
    /// The listener it came through, for its options.
    pub(crate) listener: Arc<ListenerShared>,
    /// What was agreed on with a client that takes compressed messages.
    pub(crate) deflate: Option<PerMessageDeflate>,
    /// Whom a ban may mean.
    pub(crate) client: ClientAddress,
    pub(crate) backpressure: Backpressure,
    /// What of `shared` there is, [`HAS_TOKEN`] and others: what has neither a token nor a route takes no lock for its messages. Changed
    /// under the lock.
    has: AtomicU8,
    /// First in the lock order: shared → channel map → members.
    shared: Mutex<Shared>,
}

const HAS_TOKEN: u8 = 1;
const HAS_ROUTE: u8 = 2;
/// Its peer has ended it, though it stays open for the answers to what it said.
const HAS_ENDED: u8 = 4;

struct Shared {
    token: Option<Bytes>,
    /// Where its messages go instead of to its worker.
    route: Option<Arc<NativeRoute>>,
    /// `None` once the socket has closed.
    channels: Option<ChannelSet>,
}

impl SocketEntry {
    pub(crate) fn new(
        id: SocketId,
        key: u32,
        home: Arc<ShardHandle>,
        terms: Terms,
        token: Option<Bytes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            key,
            home,
            listener: terms.listener,
            deflate: terms.deflate,
            client: terms.client,
            backpressure: Backpressure::new(),
            has: AtomicU8::new(if token.is_some() { HAS_TOKEN } else { 0 }),
            shared: Mutex::new(Shared {
                token,
                route: None,
                channels: Some(ChannelSet::default()),
            }),
        })
    }

    /// Whether messages of at most so many bytes go to this socket as they are: it has not agreed on compression, or they are
    /// below the threshold.
    pub(crate) fn takes_plain(&self, longest: usize) -> bool {
        let compression = &self.listener.options.compression;
        self.deflate.is_none()
            || compression
                .as_ref()
                .is_none_or(|how| longest < how.threshold)
    }

    /// Takes room for a message in the socket's backpressure budget.
    #[inline]
    pub(crate) fn reserve(&self, bytes: usize) -> Reservation {
        self.backpressure
            .reserve(bytes, &self.listener.backpressure)
    }

    /// Takes room for several messages, if there is room for all of them; `bytes` is what they have together.
    pub(crate) fn reserve_together(&self, bytes: usize) -> bool {
        self.backpressure
            .reserve_together(bytes, &self.listener.backpressure)
    }

    /// Whether more than half of what may wait for a slow client does.
    #[inline]
    pub(crate) fn is_over_half(&self) -> bool {
        self.backpressure.is_over_half(&self.listener.backpressure)
    }

    /// Whether no close has begun.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.lock().channels.is_some()
    }

    pub(crate) fn token(&self) -> Option<Bytes> {
        if !self.has(HAS_TOKEN) {
            return None;
        }
        self.shared.lock().token.clone()
    }

    /// Whose event a record is.
    pub(crate) fn origin<'a>(&self, token: Option<&'a Bytes>) -> Origin<'a> {
        let handler_timeout = self.listener.options.handler_milliseconds();
        Origin::socket(self.id, token, handler_timeout)
    }

    /// The token's length in bytes, 0 without one.
    pub(crate) fn token_length(&self) -> usize {
        self.token().map_or(0, |token| token.len())
    }

    /// `false` when the socket is no longer open.
    pub(crate) fn set_token(&self, token: Option<Bytes>) -> bool {
        let mut shared = self.shared.lock();
        if shared.channels.is_none() {
            return false;
        }
        self.note(HAS_TOKEN, token.is_some());
        let old = std::mem::replace(&mut shared.token, token);
        drop(shared);
        drop(old);
        true
    }

    /// Whether its messages go elsewhere than to its worker.
    pub(crate) fn is_routed(&self) -> bool {
        self.has(HAS_ROUTE)
    }

    /// Its peer has ended it.
    pub(crate) fn note_end(&self) {
        let _shared = self.shared.lock();
        self.note(HAS_ENDED, true);
    }

    /// Whether its peer has ended it, though it may still be open.
    pub(crate) fn has_ended(&self) -> bool {
        self.has(HAS_ENDED)
    }

    /// Where they go, if not to its worker.
    pub(crate) fn route(&self) -> Option<Arc<NativeRoute>> {
        if !self.is_routed() {
            return None;
        }
        self.shared.lock().route.clone()
    }

    /// `false` when the socket is no longer open.
    pub(crate) fn set_route(&self, route: Option<NativeRoute>) -> bool {
        let mut shared = self.shared.lock();
        if shared.channels.is_none() {
            return false;
        }
        self.note(HAS_ROUTE, route.is_some());
        shared.route = route.map(Arc::new);
        true
    }

    fn has(&self, what: u8) -> bool {
        self.has.load(Ordering::Acquire) & what != 0
    }

    /// Must be called under the lock of `shared`.
    fn note(&self, what: u8, is_there: bool) {
        let others = self.has.load(Ordering::Relaxed) & !what;
        let has = if is_there { others | what } else { others };
        self.has.store(has, Ordering::Release);
    }

    /// Runs `change` on the socket's channels, unless it has closed.
    pub(crate) fn with_channels<R>(&self, change: impl FnOnce(&mut ChannelSet) -> R) -> Option<R> {
        self.shared.lock().channels.as_mut().map(change)
    }

    /// The one transition from open to closed: the channels to leave for the one caller who made it.
    fn close(&self) -> Option<ChannelSet> {
        self.shared.lock().channels.take()
    }
}

/// Ids are given in sequence, so their low bits spread evenly and need no further hashing.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing: the table reads the top bits as well as the low ones.
        self.0 = value.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// How many locks the sockets share; calls from some tens of threads rarely meet at one.
const PARTITIONS: usize = 64;

type Partition = Mutex<IdMap<SocketId, Arc<SocketEntry>>>;

/// The open sockets of the process by id.
pub(crate) struct Registry {
    partitions: Box<[Partition]>,
    open: AtomicUsize,
    /// How many have been put in, of which each can be found.
    arrivals: AtomicU64,
    last_id: AtomicU64,
    /// Changes when a socket is taken out, and no other registry has or had the same: what was found before is to be looked up
    /// again.
    version: AtomicU64,
    pub(crate) everybody: Everybody,
}

/// What a thread has found last: most threads send several messages to one socket before they send to another.
struct Found {
    version: u64,
    entry: Arc<SocketEntry>,
}

thread_local! {
    static FOUND: RefCell<Option<Found>> = const { RefCell::new(None) };
}

/// Never twice the same.
fn next_version() -> u64 {
    static LAST: StaticU64 = StaticU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            open: AtomicUsize::new(0),
            arrivals: AtomicU64::new(0),
            last_id: AtomicU64::new(0),
            version: AtomicU64::new(next_version()),
            everybody: Everybody::default(),
        }
    }

    pub(crate) fn next_id(&self) -> SocketId {
        SocketId::new(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
            .expect("2^53 sockets take longer than the machine lives")
    }

    fn partition(&self, id: SocketId) -> &Partition {
        &self.partitions[id.get() as usize % PARTITIONS]
    }

    pub(crate) fn insert(&self, entry: Arc<SocketEntry>) {
        // First: once it can be found it can be removed, and the count must not fall below zero.
        self.open.fetch_add(1, Ordering::Relaxed);
        self.partition(entry.id).lock().insert(entry.id, entry);
        self.arrivals.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn find(&self, id: SocketId) -> Option<Arc<SocketEntry>> {
        self.partition(id).lock().get(&id).cloned()
    }

    /// Runs `with` on the socket of this id, if there is one, without a lock if this thread did so before.
    pub(crate) fn with<R>(
        &self,
        id: SocketId,
        with: impl FnOnce(&Arc<SocketEntry>) -> R,
    ) -> Option<R> {
        let version = self.version.load(Ordering::Acquire);
        let found = FOUND.take();
        let found = match found.filter(|found| found.version == version && found.entry.id == id) {
            Some(found) => found,
            None => Found {
                version,
                entry: self.find(id)?,
            },
        };
        let result = with(&found.entry);
        FOUND.set(Some(found));
        Some(result)
    }

    /// Takes a socket out: afterwards no call finds it. The channels it has to leave, for the one caller who
    /// closed it; `None` for everybody later.
    pub(crate) fn remove(&self, entry: &SocketEntry) -> Option<ChannelSet> {
        let channels = entry.close()?;
        let mut partition = self.partition(entry.id).lock();
        let removed = partition.remove(&entry.id);
        shrink::map(&mut partition);
        drop(partition);
        self.version.store(next_version(), Ordering::Release);
        self.open.fetch_sub(1, Ordering::Relaxed);
        drop(removed);
        Some(channels)
    }

    /// Lets go of what this thread has found, if somebody has closed since: it may be the last that keeps that socket, and
    /// with it a listener that has stopped.
    pub(crate) fn forget_found(&self) {
        let version = self.version.load(Ordering::Acquire);
        let found = FOUND.take();
        FOUND.set(found.filter(|found| found.version == version));
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let partitions = self.partitions.iter();
        partitions.map(|part| part.lock().capacity()).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn ids(&self) -> Vec<SocketId> {
        let mut ids = Vec::with_capacity(self.len());
        for partition in &self.partitions {
            ids.extend(partition.lock().keys().copied());
        }
        ids
    }

    /// All sockets by shard.
    pub(crate) fn everybody(&self) -> Vec<(u16, Snapshot)> {
        let now = Moment {
            arrivals: self.arrivals.load(Ordering::Acquire),
            departures: self.version.load(Ordering::Acquire),
        };
        self.everybody.at(now, || self.select(|_| true))
    }

    /// The sockets that are meant. Asked under a lock, one after the other.
    pub(crate) fn select(&self, is_meant: impl Fn(&SocketEntry) -> bool) -> Vec<Arc<SocketEntry>> {
        let mut selected = Vec::new();
        for partition in &self.partitions {
            let partition = partition.lock();
            let meant = partition.values().filter(|entry| is_meant(entry));
            selected.extend(meant.cloned());
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, BrokerOptions};
    use crate::dispatch::worker::{Interest, ThreadWaker};
    use crate::message::OutboundMessage;
    use crate::options::ListenOptions;

    #[test]
    fn a_thread_that_has_nothing_to_do_keeps_no_socket_that_has_closed() {
        let broker = Broker::new(BrokerOptions::default());
        let waker = Arc::new(ThreadWaker::current());
        let worker = broker.register_worker(Interest::default(), waker);
        let shard = ShardHandle::new(0);
        broker.core().use_shards(vec![Arc::clone(&shard)]);
        let options = ListenOptions::new("127.0.0.1:0".parse().expect("an address"));
        let listener = ListenerShared::new(options, broker.core());
        let of_listener = Arc::downgrade(&listener);
        let terms = Terms {
            listener,
            client: ClientAddress::UNIX,
            deflate: None,
        };
        let registry = &broker.core().registry;
        let entry = SocketEntry::new(registry.next_id(), 0, Arc::clone(&shard), terms, None);
        let id = entry.id;
        registry.insert(entry);
        assert!(broker.send(id, &OutboundMessage::text("hello")));
        assert!(worker.take().is_none());
        let is_found = || FOUND.with_borrow(|found| found.is_some());
        assert!(is_found(), "it is still open");
        assert!(broker.close(id, 1000, ""));
        drop(shard.take_commands());
        assert!(worker.take().is_none());
        assert!(!is_found());
        assert_eq!(of_listener.strong_count(), 0);
    }
}
