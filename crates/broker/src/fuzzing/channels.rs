//! Sockets, channels and who is in which: any sequence of calls does what it does to a map of sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Choices;
use crate::broker::{Broker, BrokerOptions};
use crate::channel::Snapshot;
use crate::client::ClientAddress;
use crate::id::SocketId;
use crate::listener::ListenerShared;
use crate::message::OutboundMessage;
use crate::name::ChannelName;
use crate::options::ListenOptions;
use crate::registry::SocketEntry;
use crate::shard::ShardHandle;
use crate::shard::inbox::Terms;

const SHARDS: u16 = 3;

/// Enough for two full chunks of members and some more.
const MAX_SOCKETS: usize = 600;

/// Enough for a socket's channels to become a map.
const CHANNELS: usize = 48;

/// Steps per run; some concern hundreds of sockets.
const MAX_STEPS: usize = 400;

/// A sequence of calls, a few bytes each.
pub fn channels(data: &[u8]) {
    let mut world = World::new();
    let mut choices = Choices(data);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(&mut choices);
        world.check_counts();
    }
    world.check_everything();
    world.close_all();
}

/// The members of a channel by shard, and what they were.
type Held = (Vec<(u16, Snapshot)>, BTreeSet<SocketId>);

/// The broker and the model of it.
struct World {
    broker: Broker,
    listener: Arc<ListenerShared>,
    shards: Vec<Arc<ShardHandle>>,
    /// Every socket there ever was; the model knows which are open.
    sockets: Vec<SocketId>,
    open: BTreeSet<SocketId>,
    members: BTreeMap<usize, BTreeSet<SocketId>>,
    /// Lists that publishes still hold, and what they must go on to say.
    held: Vec<Held>,
}

impl World {
    fn new() -> Self {
        let broker = Broker::new(BrokerOptions::default());
        let shards: Vec<_> = (0..SHARDS).map(ShardHandle::new).collect();
        broker.core().use_shards(shards.clone());
        let mut options = ListenOptions::new("127.0.0.1:0".parse().expect("an address"));
        options.max_backpressure = usize::MAX / 2; // nobody reads here
        Self {
            listener: ListenerShared::new(options, broker.core()),
            broker,
            shards,
            sockets: Vec::new(),
            open: BTreeSet::new(),
            members: BTreeMap::new(),
            held: Vec::new(),
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 12 {
            0 => self.open(1),
            1 => self.open(usize::from(choices.byte())),
            2 | 3 => {
                let (socket, channel) = (self.socket(choices), choices.below(CHANNELS));
                self.subscribe(socket, channel);
            }
            4 => {
                let (socket, channel) = (self.socket(choices), choices.below(CHANNELS));
                self.unsubscribe(socket, channel);
            }
            5 => {
                let socket = self.socket(choices);
                self.close(socket);
            }
            6 => {
                let channel = choices.below(CHANNELS);
                for socket in self.some(choices) {
                    self.subscribe(Some(socket), channel);
                }
            }
            7 => {
                let channel = choices.below(CHANNELS);
                for socket in self.some(choices) {
                    self.unsubscribe(Some(socket), channel);
                }
            }
            8 => {
                let socket = self.socket(choices);
                for channel in 0..choices.below(CHANNELS + 1) {
                    self.subscribe(socket, channel);
                }
            }
            9 => self.copy(choices.below(CHANNELS), choices.below(CHANNELS)),
            10 => {
                let (channel, except) = (choices.below(CHANNELS), self.socket(choices));
                self.publish(channel, except);
            }
            _ => self.hold(choices.below(CHANNELS)),
        }
    }

    /// Any socket, also one that has closed, or one that never was.
    fn socket(&self, choices: &mut Choices<'_>) -> Option<SocketId> {
        let at = choices.below(MAX_SOCKETS);
        self.sockets.get(at % self.sockets.len().max(1)).copied()
    }

    /// A range of sockets.
    fn some(&self, choices: &mut Choices<'_>) -> Vec<SocketId> {
        let from = choices.below(MAX_SOCKETS).min(self.sockets.len());
        let count = choices.below(MAX_SOCKETS);
        self.sockets[from..].iter().copied().take(count).collect()
    }

    fn open(&mut self, count: usize) {
        for _ in 0..count.min(MAX_SOCKETS - self.sockets.len()) {
            let id = self.broker.core().registry.next_id();
            let home = &self.shards[self.sockets.len() % self.shards.len()];
            let terms = Terms {
                listener: Arc::clone(&self.listener),
                client: ClientAddress::UNIX,
                deflate: None,
            };
            let entry = SocketEntry::new(id, 0, Arc::clone(home), terms, None);
            self.broker.core().registry.insert(entry);
            assert!(self.open.insert(id), "an id is used once");
            self.sockets.push(id);
        }
    }

    fn subscribe(&mut self, socket: Option<SocketId>, channel: usize) {
        let Some(id) = socket else { return };
        let expected =
            self.open.contains(&id) && self.members.entry(channel).or_default().insert(id);
        assert_eq!(self.broker.subscribe(id, &name(channel)), Ok(expected));
    }

    fn unsubscribe(&mut self, socket: Option<SocketId>, channel: usize) {
        let Some(id) = socket else { return };
        let members = self.members.entry(channel).or_default();
        assert_eq!(
            self.broker.unsubscribe(id, &name(channel)),
            members.remove(&id)
        );
    }

    fn close(&mut self, socket: Option<SocketId>) {
        let Some(id) = socket else { return };
        let message = OutboundMessage::text("");
        assert_eq!(self.broker.send(id, &message), self.open.contains(&id));
        assert_eq!(self.broker.close(id, 1000, ""), self.open.remove(&id));
        assert!(!self.broker.send(id, &message));
        for shard in &self.shards {
            shard.finish_leavings(self.broker.core());
        }
        for members in self.members.values_mut() {
            members.remove(&id);
        }
    }

    fn copy(&mut self, from: usize, to: usize) {
        let source = self.members.entry(from).or_default().clone();
        let target = self.members.entry(to).or_default();
        let before = target.len();
        target.extend(source);
        let copied = self.broker.copy_subscriptions(&name(from), &name(to));
        assert_eq!(copied, target.len() - before);
    }

    fn publish(&mut self, channel: usize, except: Option<SocketId>) {
        let members = self.members.entry(channel).or_default();
        let expected = members.iter().filter(|id| Some(**id) != except).count();
        let message = OutboundMessage::text("x");
        let sent = self
            .broker
            .send_to_channel(&name(channel), &message, except);
        assert_eq!(sent, expected);
    }

    fn hold(&mut self, channel: usize) {
        if let Some(found) = self.broker.core().channels.find(&name(channel)) {
            let members = self.members.entry(channel).or_default().clone();
            self.held.push((found.snapshot(), members));
        }
    }

    fn check_counts(&self) {
        let stats = self.broker.stats();
        let channels = self.members.values().filter(|m| !m.is_empty()).count();
        let subscriptions: usize = self.members.values().map(BTreeSet::len).sum();
        assert_eq!(stats.connections, self.open.len() as u64);
        assert_eq!(stats.channels, channels as u64);
        assert_eq!(stats.subscriptions, subscriptions as u64);
    }

    fn check_everything(&self) {
        assert_eq!(set(self.broker.connections()), self.open);
        for channel in 0..CHANNELS {
            let members = self.members.get(&channel).cloned().unwrap_or_default();
            let name = name(channel);
            assert_eq!(set(self.broker.subscribers(&name)), members);
            assert_eq!(self.broker.subscriber_count(&name), members.len());
        }
        for id in &self.sockets {
            let names = self.broker.channels(*id);
            let expected = self.members.iter().filter(|(_, m)| m.contains(id));
            let expected: BTreeSet<_> = expected.map(|(channel, _)| name(*channel)).collect();
            assert_eq!(names.len(), expected.len(), "no channel twice");
            assert!(names.iter().all(|name| expected.contains(name)));
        }
        for (snapshot, members) in &self.held {
            let mut listed = Vec::new();
            for (shard, chunks) in snapshot {
                for entry in chunks.iter().flat_map(|chunk| chunk.iter()) {
                    assert_eq!(entry.home.index, *shard);
                    listed.push(entry.id);
                }
            }
            assert_eq!(set(listed), *members, "a list that is held does not change");
        }
    }

    /// Nothing is left behind, and what waits in the shards lets go of them.
    fn close_all(mut self) {
        for id in self.sockets.clone() {
            self.close(Some(id));
        }
        self.check_counts();
        for shard in &self.shards {
            drop(shard.take_commands());
        }
    }
}

/// The ids, of which none came twice.
fn set(ids: Vec<SocketId>) -> BTreeSet<SocketId> {
    let count = ids.len();
    let set: BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(set.len(), count);
    set
}

fn name(channel: usize) -> ChannelName {
    ChannelName::new(format!("channel {channel}").as_bytes()).expect("a valid name")
}
