//! Who is in which channel.
//!
//! A channel keeps its members by shard, in chunks that are shared with the publishes under way. A publish takes the
//! list by counting one reference; a subscribe that meets it copies one chunk and the list of chunks, never the
//! members. So joining a channel of 100 000 while it is published to costs what joining an empty one costs.

use std::collections::HashMap;
use std::collections::hash_map::{self, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::vec;

use crate::id::SocketId;
use crate::name::ChannelName;
use crate::registry::{IdMap, SocketEntry};
use crate::shrink;
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Members per chunk. Larger chunks cost a subscribe more when it meets a publish, smaller ones lengthen the list.
pub(crate) const CHUNK: usize = 256;

/// Up to this many members are searched one by one; beyond it an index tells a member's place.
const INDEX_FROM: usize = 32;

/// A socket is in as many channels as its listener lets it; the number of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelLimit(pub u32);

impl std::fmt::Display for ChannelLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(most) = self;
        write!(
            f,
            "the socket is in {most} channels already, which is its limit"
        )
    }
}

impl std::error::Error for ChannelLimit {}

/// Members of one channel in one shard, as a publish sees them.
pub(crate) type Snapshot = Arc<Vec<Chunk>>;

/// Some of them.
pub(crate) type Chunk = Arc<Vec<Arc<SocketEntry>>>;

/// A channel that has, or a moment ago had, subscribers.
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    /// Last in the lock order.
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// One list per shard that has members here.
    shards: Vec<ShardMembers>,
    count: usize,
    /// Where each member is, once there are many.
    index: Option<IdMap<SocketId, Place>>,
    /// No longer in the map: whoever holds this channel has to look it up again.
    retired: bool,
}

struct ShardMembers {
    shard: u16,
    chunks: Snapshot,
    len: usize,
}

#[derive(Clone, Copy)]
struct Place {
    /// Position in `Members::shards`.
    list: usize,
    /// Position in that shard's members.
    at: usize,
}

impl Channel {
    /// The members at this moment, shard by shard.
    pub(crate) fn snapshot(&self) -> Vec<(u16, Snapshot)> {
        let members = self.members.lock();
        members
            .shards
            .iter()
            .filter(|list| list.len > 0)
            .map(|list| (list.shard, Arc::clone(&list.chunks)))
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.lock().count
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let members = self.members.lock();
        members.index.as_ref().map_or(0, |index| index.capacity())
    }
}

impl Members {
    fn place(&self, id: SocketId) -> Option<Place> {
        if let Some(index) = &self.index {
            return index.get(&id).copied();
        }
        self.shards.iter().enumerate().find_map(|(list, members)| {
            let at = members.iter().position(|entry| entry.id == id)?;
            Some(Place { list, at })
        })
    }

    fn add(&mut self, entry: &Arc<SocketEntry>) {
        let shard = entry.home.index;
        let list = match self.shards.iter().position(|list| list.shard == shard) {
            Some(list) => list,
            None => {
                self.shards.push(ShardMembers {
                    shard,
                    chunks: Snapshot::default(),
                    len: 0,
                });
                self.shards.len() - 1
            }
        };
        let at = self.shards[list].push(Arc::clone(entry));
        self.count += 1;
        match &mut self.index {
            Some(index) => {
                index.insert(entry.id, Place { list, at });
            }
            None if self.count > INDEX_FROM => self.build_index(),
            None => {}
        }
    }

    fn build_index(&mut self) {
        let mut index = IdMap::default();
        for (list, members) in self.shards.iter().enumerate() {
            for (at, entry) in members.iter().enumerate() {
                index.insert(entry.id, Place { list, at });
            }
        }
        self.index = Some(index);
    }

    fn remove(&mut self, id: SocketId) -> bool {
        let Some(place) = self.place(id) else {
            return false;
        };
        let moved = self.shards[place.list].swap_remove(place.at);
        self.count -= 1;
        if let Some(index) = &mut self.index {
            index.remove(&id);
            if let Some(moved) = moved {
                index.insert(moved, place);
            }
            shrink::map(index);
        }
        // Half the threshold, so that a channel at the edge does not build its index again and again.
        if self.count < INDEX_FROM / 2 {
            self.index = None;
        }
        true
    }
}

impl ShardMembers {
    fn iter(&self) -> impl Iterator<Item = &Arc<SocketEntry>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Every chunk but the last is full; the new member's position.
    fn push(&mut self, entry: Arc<SocketEntry>) -> usize {
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(entry),
            _ => chunks.push(Arc::new(vec![entry])),
        }
        self.len += 1;
        self.len - 1
    }

    /// Fills the hole with the last member; which one that was, if any.
    fn swap_remove(&mut self, at: usize) -> Option<SocketId> {
        let chunks = Arc::make_mut(&mut self.chunks);
        let last_chunk = Arc::make_mut(chunks.last_mut().expect("a member has a chunk"));
        let last = last_chunk.pop().expect("no chunk is empty");
        if last_chunk.is_empty() {
            chunks.pop();
        }
        self.len -= 1;
        if at == self.len {
            return None;
        }
        let moved = last.id;
        Arc::make_mut(&mut chunks[at / CHUNK])[at % CHUNK] = last;
        Some(moved)
    }
}

/// How many locks the channel names share.
const PARTITIONS: usize = 64;

type Partition = Mutex<HashMap<ChannelName, Arc<Channel>, RandomState>>;

/// The channels of the process by name. A channel without members is not in it.
pub(crate) struct Channels {
    partitions: Box<[Partition]>,
    hasher: RandomState,
    channels: AtomicUsize,
    subscriptions: AtomicUsize,
}

impl Channels {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            partitions: (0..PARTITIONS)
                .map(|_| Mutex::new(HashMap::with_hasher(hasher.clone())))
                .collect(),
            hasher,
            channels: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
        }
    }

    fn partition(&self, name: &ChannelName) -> &Partition {
        // The top bits: the tables use the low ones.
        let partition = self.hasher.hash_one(name) >> (64 - PARTITIONS.ilog2());
        &self.partitions[partition as usize]
    }

    pub(crate) fn find(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.partition(name).lock().get(name).cloned()
    }

    fn find_or_create(&self, name: &ChannelName) -> Arc<Channel> {
        let mut partition = self.partition(name).lock();
        if let Some(channel) = partition.get(name) {
            return Arc::clone(channel);
        }
        let channel = Arc::new(Channel {
            name: name.clone(),
            members: Mutex::default(),
        });
        partition.insert(name.clone(), Arc::clone(&channel));
        self.channels.fetch_add(1, Ordering::Relaxed);
        channel
    }

    /// `true` when added; `false` when it already was, or the socket has closed.
    pub(crate) fn subscribe(
        &self,
        entry: &Arc<SocketEntry>,
        name: &ChannelName,
    ) -> Result<bool, ChannelLimit> {
        let most = entry.listener.options.limits.socket.channels;
        entry
            .with_channels(|set| {
                if let Some(most) = most
                    && set.len() >= most as usize
                {
                    // Before a channel is created, for that would stay without a member.
                    let is_member = self
                        .find(name)
                        .is_some_and(|channel| set.contains(&channel));
                    return if is_member {
                        Ok(false)
                    } else {
                        Err(ChannelLimit(most))
                    };
                }
                loop {
                    let channel = self.find_or_create(name);
                    if set.contains(&channel) {
                        return Ok(false);
                    }
                    let mut members = channel.members.lock();
                    if members.retired {
                        continue;
                    }
                    members.add(entry);
                    drop(members);
                    set.insert(channel);
                    self.subscriptions.fetch_add(1, Ordering::Relaxed);
                    return Ok(true);
                }
            })
            .unwrap_or(Ok(false))
    }

    /// `true` when removed.
    pub(crate) fn unsubscribe(&self, entry: &SocketEntry, name: &ChannelName) -> bool {
        let left = entry.with_channels(|set| {
            let channel = self.find(name)?;
            set.remove(&channel).then(|| {
                self.leave(&channel, entry.id);
            })
        });
        matches!(left, Some(Some(())))
    }

    /// The channel of this name, if the socket is in it.
    pub(crate) fn joined(&self, entry: &SocketEntry, name: &ChannelName) -> Option<Arc<Channel>> {
        entry
            .with_channels(|set| match set {
                ChannelSet::Few(list) => list.iter().find(|channel| channel.name == *name).cloned(),
                ChannelSet::Many(_) => self.find(name).filter(|channel| set.contains(channel)),
            })
            .flatten()
    }

    /// Takes a member out, and the channel out of the map when it was the last.
    pub(crate) fn leave(&self, channel: &Arc<Channel>, id: SocketId) {
        let mut members = channel.members.lock();
        if !members.remove(id) {
            return;
        }
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        if members.count > 0 {
            return;
        }
        drop(members);
        let mut partition = self.partition(&channel.name).lock();
        let mut members = channel.members.lock();
        if members.count == 0 && !members.retired {
            members.retired = true;
            partition.remove(&channel.name);
            shrink::map(&mut partition);
            self.channels.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let partitions = self.partitions.iter();
        partitions.map(|part| part.lock().capacity()).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }
}

/// Up to this many channels of a socket are searched one by one.
const FEW: usize = 32;

/// The channels of one socket; nothing on the heap while it is in none.
pub(crate) enum ChannelSet {
    Few(Vec<Arc<Channel>>),
    /// By the address of the channel, which its `Arc` keeps in place. Boxed: a map in line would double the size of
    /// every socket's entry.
    #[expect(
        clippy::box_collection,
        reason = "keeps the entry of a socket in few channels small"
    )]
    Many(Box<HashMap<usize, Arc<Channel>>>),
}

impl Default for ChannelSet {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl ChannelSet {
    fn contains(&self, channel: &Arc<Channel>) -> bool {
        match self {
            Self::Few(list) => list.iter().any(|other| Arc::ptr_eq(other, channel)),
            Self::Many(map) => map.contains_key(&address(channel)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    fn insert(&mut self, channel: Arc<Channel>) {
        match self {
            Self::Few(list) if list.len() < FEW => {
                if list.is_empty() {
                    list.reserve_exact(1); // most sockets are in one channel or two
                }
                list.push(channel);
            }
            Self::Few(list) => {
                let mut map: HashMap<_, _> = list.drain(..).map(|c| (address(&c), c)).collect();
                map.insert(address(&channel), channel);
                *self = Self::Many(Box::new(map));
            }
            Self::Many(map) => {
                map.insert(address(&channel), channel);
            }
        }
    }

    fn remove(&mut self, channel: &Arc<Channel>) -> bool {
        match self {
            Self::Few(list) => match list.iter().position(|other| Arc::ptr_eq(other, channel)) {
                Some(at) => {
                    list.swap_remove(at);
                    true
                }
                None => false,
            },
            Self::Many(map) => {
                let was_there = map.remove(&address(channel)).is_some();
                shrink::map(map);
                was_there
            }
        }
    }

    pub(crate) fn names(&self) -> Vec<ChannelName> {
        match self {
            Self::Few(list) => list.iter().map(|channel| channel.name.clone()).collect(),
            Self::Many(map) => map.values().map(|channel| channel.name.clone()).collect(),
        }
    }
}

/// The channels that a socket has been in, one by one: to make one list of many would take as long as to leave some.
impl IntoIterator for ChannelSet {
    type Item = Arc<Channel>;
    type IntoIter = Left;

    fn into_iter(self) -> Left {
        match self {
            Self::Few(list) => Left::Few(list.into_iter()),
            Self::Many(map) => Left::Many(map.into_iter()),
        }
    }
}

pub(crate) enum Left {
    Few(vec::IntoIter<Arc<Channel>>),
    Many(hash_map::IntoIter<usize, Arc<Channel>>),
}

impl Iterator for Left {
    type Item = Arc<Channel>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(list) => list.next(),
            Self::Many(map) => map.next().map(|(_, channel)| channel),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(list) => list.size_hint(),
            Self::Many(map) => map.size_hint(),
        }
    }
}

impl ExactSizeIterator for Left {}

fn address(channel: &Arc<Channel>) -> usize {
    Arc::as_ptr(channel).addr()
}
