//! What the benchmarks in `benches/` run of a shard: its turns by hand, without a thread, news or the kernel, so that
//! what is measured is the engine's own work. No part of the API.

use std::io::IoSlice;
use std::sync::Arc;

use tokio::runtime::{self, Runtime};

use super::ShardHandle;
use super::inbox::Terms;
use super::socket::{Opening, Socket};
use super::turn::{READ_BUFFER, Shard};
use crate::broker::{Broker, BrokerOptions};
use crate::client::ClientAddress;
use crate::dispatch::record::Event;
use crate::dispatch::worker::{Interest, ThreadWaker, Worker};
use crate::listener::ListenerShared;
use crate::message::OutboundMessage;
use crate::name::ChannelName;
use crate::options::ListenOptions;
use crate::outbox::MAX_SLICES;
use crate::reactor::Reactor;
use crate::registry::SocketEntry;

/// So much a shard reads from a socket at once.
pub const READ: usize = READ_BUFFER;

/// One shard, one worker, and sockets without streams: what is sent to them comes as far as their outboxes.
pub(super) struct Bench {
    pub(super) broker: Broker,
    pub(super) listener: Arc<ListenerShared>,
    pub(super) shard: Shard,
    pub(super) worker: Worker,
    /// The shard's timer and reactor belong to it.
    _runtime: Runtime,
}

impl Bench {
    pub(super) fn new() -> Self {
        let broker = Broker::new(BrokerOptions::default());
        // Before the shard is known, which else would be told.
        let worker = broker.register_worker(Interest::default(), Arc::new(ThreadWaker::current()));
        let handle = ShardHandle::new(0);
        broker.core().use_shards(vec![Arc::clone(&handle)]);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a descriptor");
        let entered = runtime.enter();
        let reactor = Reactor::new().expect("a descriptor");
        let shard = Shard::new(handle, Arc::clone(broker.core()), reactor);
        drop(entered);
        let options = ListenOptions::new("127.0.0.1:0".parse().expect("an address"));
        Self {
            listener: ListenerShared::new(options, broker.core()),
            broker,
            shard,
            worker,
            _runtime: runtime,
        }
    }

    pub(super) fn open(&mut self) -> Arc<SocketEntry> {
        let core = self.broker.core();
        let slot = self.shard.sockets.vacant_entry();
        let terms = Terms {
            listener: Arc::clone(&self.listener),
            client: ClientAddress::UNIX,
            deflate: None,
        };
        let home = Arc::clone(&self.shard.handle);
        let id = core.registry.next_id();
        let entry = SocketEntry::new(id, slot.key() as u32, home, terms, None);
        core.registry.insert(Arc::clone(&entry));
        let queue = core.roster.for_socket().expect("a worker is registered");
        let opening = Opening {
            request: Vec::new(),
            place: queue.place_anyway(0),
        };
        slot.insert(Socket::new(Arc::clone(&entry), opening, 0));
        entry
    }

    /// What writing does, with a kernel that takes everything; how many sockets there was something for. A large publication has
    /// been written in pieces before, of which a socket without a stream takes no notice.
    fn empty_outboxes(&mut self) -> usize {
        self.shard.dirty.clear();
        let mut written_to = 0;
        for (_, socket) in &mut self.shard.sockets {
            socket.dirty = false;
            written_to += usize::from(!socket.outbox.is_empty());
            while !socket.outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = socket.outbox.slices(&mut slices);
                let written = slices[..count].iter().map(|slice| slice.len()).sum();
                socket.outbox.advance(written, &mut self.shard.runs);
                socket.entry.backpressure.release(written);
            }
        }
        written_to
    }
}

/// Publishes to the subscribers of one channel.
pub struct Publishing {
    bench: Bench,
    channel: ChannelName,
    subscribers: usize,
}

impl Publishing {
    /// A channel with so many subscribers.
    #[must_use]
    pub fn new(subscribers: usize) -> Self {
        let mut bench = Bench::new();
        let channel = ChannelName::new(b"channel").expect("a valid name");
        for _ in 0..subscribers {
            let entry = bench.open();
            let subscribed = bench.broker.subscribe(entry.id, &channel);
            assert_eq!(subscribed, Ok(true));
        }
        Self {
            bench,
            channel,
            subscribers,
        }
    }

    /// From the calls to what would be given to the kernel: `messages` are published, then the shard has its turn.
    ///
    /// # Panics
    /// If a subscriber did not get them.
    pub fn publish(&mut self, messages: &[&str]) {
        let Bench { broker, shard, .. } = &mut self.bench;
        for text in messages {
            let queued = broker.send_to_channel(&self.channel, &OutboundMessage::text(text), None);
            assert_eq!(queued, self.subscribers);
        }
        shard.take_inbox();
        assert_eq!(self.bench.empty_outboxes(), self.subscribers);
    }
}

/// Brings what was read from a socket to its worker.
pub struct Dispatching {
    bench: Bench,
    key: u32,
    length: usize,
}

impl Dispatching {
    /// `read` are frames of a client, at most [`READ`] bytes. They are unmasked where they stand, so masking what they carry
    /// once more must leave it valid.
    #[must_use]
    pub fn new(read: &[u8]) -> Self {
        let mut bench = Bench::new();
        let key = bench.open().key;
        bench.shard.read_buffer[..read.len()].copy_from_slice(read);
        Self {
            bench,
            key,
            length: read.len(),
        }
    }

    /// From the bytes to the last event that the worker reads; how many messages these were.
    pub fn dispatch(&mut self) -> usize {
        let Bench { shard, worker, .. } = &mut self.bench;
        shard.received(self.key, self.length);
        shard.staging.hand_over(shard.handle.index);
        let mut messages = 0;
        while let Some(batch) = worker.take() {
            let of_this = batch
                .events()
                .filter(|event| matches!(event, Event::Message { .. }));
            messages += of_this.count();
        }
        messages
    }
}
