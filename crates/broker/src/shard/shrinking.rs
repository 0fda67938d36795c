//! What a shard has had much of gives memory back when there is little of it: called now and then, between two turns' work.

use super::chores::Chore;
use super::turn::Shard;
use crate::shrink;

impl Shard {
    /// After each pass over the sockets, and when the last one has gone.
    pub(super) fn give_memory_back(&mut self) {
        shrink::slab(&mut self.sockets);
        shrink::map(&mut self.requests);
        shrink::map(&mut self.early);
        shrink::map(&mut self.goodbyes);
        self.waiters.shrink();
        shrink::map(&mut self.parked);
        shrink::list(&mut self.dirty);
        shrink::list(&mut self.departed);
        shrink::queue(&mut self.unparked);
        self.shrink_news();
        self.large.shrink();
        self.chores.shrink();
        let registry = &self.core.registry;
        let forgotten = registry.everybody.forget(registry.len() == 0);
        if !forgotten.is_empty() {
            self.begin(Chore::Forget(forgotten));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use crate::name::ChannelName;

    /// The memory of a peak, in places for sockets.
    const PEAK: usize = 20_000;

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory_behind() {
        let mut bench = Bench::new();
        let stays = bench.open();
        let crowd: Vec<_> = (0..PEAK).map(|_| bench.open()).collect();
        let everyone = ChannelName::new(b"everyone").expect("a name");
        for entry in &crowd {
            let own = ChannelName::new(entry.id.to_string().as_bytes()).expect("a name");
            for channel in [&everyone, &own] {
                assert_eq!(bench.broker.subscribe(entry.id, channel), Ok(true));
            }
            let shard = &mut bench.shard;
            shard.early.insert(entry.key, bytes::Bytes::new());
            shard.parked.entry(entry.key).or_default();
            shard.unparked.push_back(entry.key);
            shard.revisit(entry.key);
            shard.mark_dirty(entry.key);
        }
        let core = std::sync::Arc::clone(bench.broker.core());
        let everyone = core.channels.find(&everyone).expect("it has members");
        assert!(core.registry.room() >= PEAK && core.channels.room() >= PEAK);
        assert!(everyone.room() >= PEAK && bench.shard.room() >= 6 * PEAK);

        for entry in &crowd {
            assert!(bench.broker.close(entry.id, 1000, ""));
            bench.shard.sockets.remove(entry.key as usize);
        }
        let shard = &mut bench.shard;
        shard.early.clear();
        shard.parked.clear();
        shard.unparked.clear();
        shard.dirty.clear();
        shard.forget_again();
        shard.give_memory_back();
        for (what, room) in [
            ("sockets", core.registry.room()),
            ("channels", core.channels.room()),
            ("members", everyone.room()),
            ("shard", bench.shard.room()),
        ] {
            assert!(room < PEAK / 2, "{what}: {room}");
        }
        assert!(core.registry.find(stays.id).is_some());
    }
}
