//! Everybody, as a broadcast sees them: lists like those of a channel, which are made when one is wanted and shared until
//! somebody comes or goes. Who never broadcasts has none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::channel::{CHUNK, Chunk, Snapshot};
use crate::registry::SocketEntry;

/// Lists that nobody has asked for in so long are let go: they keep entries of sockets that have closed.
const KEPT: Duration = Duration::from_secs(1);

/// A state of the registry. Who comes changes one number, who goes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) arrivals: u64,
    pub(crate) departures: u64,
}

/// The lists that were made last.
#[derive(Default)]
pub(crate) struct Everybody(Mutex<Option<Made>>);

struct Made {
    at: Moment,
    used: Instant,
    shards: Vec<(u16, Snapshot)>,
}

impl Everybody {
    /// The lists by shard. `now` was before `sockets` are looked up, who all were there then, or came or went since.
    pub(crate) fn at(
        &self,
        now: Moment,
        sockets: impl FnOnce() -> Vec<Arc<SocketEntry>>,
    ) -> Vec<(u16, Snapshot)> {
        if let Some(made) = self.0.lock().as_mut().filter(|made| made.at == now) {
            made.used = Instant::now();
            return made.shards.clone();
        }
        let shards = by_shard(sockets());
        let made = Made {
            at: now,
            used: Instant::now(),
            shards: shards.clone(),
        };
        let old = self.0.lock().replace(made);
        drop(old); // without the lock
        shards
    }

    /// What nobody has asked for in some time, to be dropped piece by piece; or, if `all`, whatever there is.
    pub(crate) fn forget(&self, all: bool) -> Vec<Chunk> {
        let is_old = |made: &mut Made| all || made.used.elapsed() >= KEPT;
        let Some(made) = self.0.lock().take_if(is_old) else {
            return Vec::new();
        };
        let lists = made.shards.into_iter();
        // One that is on its way goes with the last message.
        lists
            .filter_map(|(_, list)| Arc::try_unwrap(list).ok())
            .flatten()
            .collect()
    }
}

fn by_shard(sockets: Vec<Arc<SocketEntry>>) -> Vec<(u16, Snapshot)> {
    let mut shards: Vec<Vec<Vec<Arc<SocketEntry>>>> = Vec::new();
    for entry in sockets {
        let shard = usize::from(entry.home.index);
        if shards.len() <= shard {
            shards.resize_with(shard + 1, Vec::new);
        }
        match shards[shard].last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(entry),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(entry);
                shards[shard].push(chunk);
            }
        }
    }
    let chunked = shards.into_iter().enumerate();
    chunked
        .filter(|(_, chunks)| !chunks.is_empty())
        .map(|(shard, chunks)| {
            let chunks = chunks.into_iter().map(Arc::new).collect();
            (shard as u16, Snapshot::new(chunks))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::broker::{Broker, BrokerOptions};
    use crate::client::ClientAddress;
    use crate::listener::ListenerShared;
    use crate::message::OutboundMessage;
    use crate::options::ListenOptions;
    use crate::shard::ShardHandle;
    use crate::shard::inbox::{Command, Terms};

    struct Crowd {
        broker: Broker,
        shards: Vec<Arc<ShardHandle>>,
        listener: Arc<ListenerShared>,
    }

    impl Crowd {
        fn new() -> Self {
            let broker = Broker::new(BrokerOptions::default());
            let shards: Vec<_> = (0..2).map(ShardHandle::new).collect();
            broker.core().use_shards(shards.clone());
            let options = ListenOptions::new("127.0.0.1:0".parse().expect("an address"));
            let listener = ListenerShared::new(options, broker.core());
            Self {
                broker,
                shards,
                listener,
            }
        }

        fn open(&self, shard: usize) -> Arc<SocketEntry> {
            let terms = Terms {
                listener: Arc::clone(&self.listener),
                client: ClientAddress::UNIX,
                deflate: None,
            };
            let registry = &self.broker.core().registry;
            let home = Arc::clone(&self.shards[shard]);
            let entry = SocketEntry::new(registry.next_id(), 0, home, terms, None);
            registry.insert(Arc::clone(&entry));
            entry
        }

        /// Broadcasts that often, and checks who gets it; how many lists that took.
        fn broadcast(&self, times: usize, expected: &HashSet<u64>) -> usize {
            for _ in 0..times {
                let hello = OutboundMessage::text("hello");
                assert_eq!(self.broker.broadcast(&hello), expected.len());
            }
            let mut lists = HashSet::new();
            let mut got = HashSet::new();
            for shard in &self.shards {
                for command in shard.take_commands() {
                    let Command::PublishCopied(publication) = command else {
                        continue;
                    };
                    let members = &publication.members;
                    let members_of = members.iter().flat_map(|chunk| chunk.iter());
                    for entry in members_of {
                        assert_eq!(entry.home.index, shard.index);
                        got.insert(entry.id.get());
                        entry.backpressure.release(entry.backpressure.waiting());
                    }
                    lists.insert(Arc::as_ptr(members).addr());
                    std::mem::forget(publication); // or its place is taken by the next list
                }
            }
            assert_eq!(got, *expected);
            lists.len()
        }
    }

    #[test]
    fn broadcasts_share_a_list_until_somebody_comes_or_goes() {
        const EACH: usize = 3 * CHUNK;
        let crowd = Crowd::new();
        let mut open: Vec<_> = (0..2 * EACH).map(|n| crowd.open(n % 2)).collect();
        let ids = |open: &[Arc<SocketEntry>]| open.iter().map(|entry| entry.id.get()).collect();
        assert_eq!(crowd.broadcast(200, &ids(&open)), 2, "one for each shard");
        open.push(crowd.open(1));
        assert_eq!(crowd.broadcast(200, &ids(&open)), 2);
        let left = open.swap_remove(10);
        assert!(crowd.broker.close(left.id, 1000, ""));
        assert_eq!(crowd.broadcast(200, &ids(&open)), 2);
        for entry in open.drain(..) {
            assert!(crowd.broker.close(entry.id, 1000, ""));
        }
        assert_eq!(crowd.broadcast(3, &HashSet::new()), 0);
    }

    #[test]
    fn what_nobody_broadcasts_to_is_not_kept() {
        let crowd = Crowd::new();
        let everybody = &crowd.broker.core().registry.everybody;
        let entry = crowd.open(0);
        crowd.broker.broadcast(&OutboundMessage::text("hello"));
        drop(crowd.shards[0].take_commands());
        assert!(everybody.forget(false).is_empty(), "it was just used");
        let counted = Arc::strong_count(&entry);
        let chunks = everybody.forget(true);
        assert_eq!(chunks.len(), 1);
        drop(chunks);
        assert_eq!(Arc::strong_count(&entry), counted - 1);
        assert!(everybody.forget(true).is_empty());
    }
}
