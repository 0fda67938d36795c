//! A listener stops: its sockets are told goodbye, at once or spread over a time, and cut when the deadline is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::socket::Phase;
use super::turn::{Shard, find};
use crate::codec::close;
use crate::listener::ListenerShared;
use crate::registry::SocketEntry;

/// So many places of sockets are looked at in one turn, for those of a listener that is stopped.
const LOOKED_AT_ONCE: usize = 1024;

/// So many goodbyes are said in one turn: each is a write, and some channels to leave.
const SAID_AT_ONCE: usize = 16;

/// The goodbyes of one listener that are not said yet.
pub(super) struct Farewell {
    listener: Arc<ListenerShared>,
    code: u16,
    reason: Arc<str>,
    /// When the stop began, in the shard's clock.
    began: u64,
    schedule: Schedule,
    /// The place that is looked at next, until all sockets are found.
    next: Option<usize>,
    /// Those that have been found and were not told, in the order of their turns.
    sockets: VecDeque<Arc<SocketEntry>>,
    /// How many turns there have been.
    turns: u64,
}

/// Where the turns of a shard lie in the spread, so that those of all shards together are even.
#[derive(Clone, Copy)]
struct Schedule {
    spread: u64,
    sockets: u64,
    shard: u64,
    shards: u64,
}

impl Schedule {
    /// How long after the beginning the turn of socket `n` is: less than the spread.
    fn offset(self, n: u64) -> u64 {
        let place = u128::from(n * self.shards + self.shard);
        let places = u128::from((self.sockets * self.shards).max(1));
        (u128::from(self.spread) * place / places) as u64
    }
}

impl Farewell {
    /// When the next one has something to do.
    fn due(&self) -> Option<u64> {
        if self.next.is_some() {
            return Some(self.began);
        }
        let offset = self.schedule.offset(self.turns);
        (!self.sockets.is_empty()).then(|| self.began.saturating_add(offset))
    }
}

impl Shard {
    pub(super) fn stop_listener(
        &mut self,
        listener: Arc<ListenerShared>,
        code: u16,
        reason: Arc<str>,
        spread: Duration,
    ) {
        self.farewells.push(Farewell {
            listener,
            code,
            reason,
            began: self.clock,
            schedule: Schedule {
                spread: u64::try_from(spread.as_millis()).unwrap_or(u64::MAX),
                sockets: 0,
                shard: u64::from(self.handle.index),
                shards: self.core.shards().len() as u64,
            },
            next: Some(0),
            sockets: VecDeque::new(),
            turns: 0,
        });
    }

    /// Begins to close the sockets whose turn it is, or some of them.
    pub(super) fn say_farewells(&mut self) {
        if self.farewells.is_empty() {
            return;
        }
        let mut farewells = std::mem::take(&mut self.farewells);
        for farewell in &mut farewells {
            self.find_sockets(farewell);
            for _ in 0..SAID_AT_ONCE {
                if !self.say_next(farewell) {
                    break;
                }
            }
        }
        farewells.retain(|farewell| farewell.due().is_some());
        self.farewells = farewells;
    }

    /// Looks for more of the sockets that are to be told. How their turns lie is known when there are no more.
    fn find_sockets(&self, farewell: &mut Farewell) {
        let Some(from) = farewell.next else {
            return;
        };
        let to = (from + LOOKED_AT_ONCE).min(self.sockets.capacity());
        for key in from..to {
            if self.is_socket_of(key, &farewell.listener) {
                let entry = &self.sockets[key].entry;
                farewell.sockets.push_back(Arc::clone(entry));
            }
        }
        farewell.schedule.sockets = farewell.sockets.len() as u64;
        farewell.next = (to < self.sockets.capacity()).then_some(to);
    }

    /// `false` when nobody is due.
    fn say_next(&mut self, farewell: &mut Farewell) -> bool {
        let Some(entry) = farewell.sockets.front().filter(|_| farewell.next.is_none()) else {
            return false;
        };
        // Whoever is gone already has had its goodbye, and is nothing to wait for.
        let is_here = find(&mut self.sockets, entry).is_some();
        if is_here && farewell.due().is_some_and(|due| due > self.clock) {
            return false;
        }
        if is_here && self.core.leave(entry) {
            self.say_farewell(entry.key, farewell);
        }
        farewell.sockets.pop_front();
        farewell.turns += 1;
        true
    }

    fn say_farewell(&mut self, key: u32, farewell: &Farewell) {
        match self.sockets[key as usize].phase {
            Phase::Parting { .. } => self.finish_parting(key),
            _ => self.begin_closing(key, farewell.code, &farewell.reason, None),
        }
    }

    /// When the next goodbye is due.
    pub(super) fn next_farewell(&self) -> Option<u64> {
        if self.farewells.is_empty() {
            return None; // as in nearly every turn
        }
        self.farewells.iter().filter_map(Farewell::due).min()
    }

    /// Whether a goodbye is due that did not fit in this turn.
    pub(super) fn has_farewells(&self) -> bool {
        self.next_farewell().is_some_and(|due| due <= self.clock)
    }

    /// The deadline of the stop is over.
    pub(super) fn cut_listener(&mut self, listener: &Arc<ListenerShared>) {
        let is_its = |farewell: &mut Farewell| Arc::ptr_eq(&farewell.listener, listener);
        let left = self.farewells.extract_if(.., is_its).next();
        let goodbye = left
            .filter(|farewell| farewell.schedule.spread == 0)
            .map(|farewell| (farewell.code, farewell.reason));
        self.cut_sockets(listener, goodbye);
    }

    /// Cuts a socket whose goodbye is due with it, as far as the kernel takes it.
    pub(super) fn tell_and_give_up(&mut self, key: u32, code: u16, reason: &str) {
        let socket = &self.sockets[key as usize];
        if socket.phase == Phase::Open && self.core.leave(&socket.entry) {
            self.begin_closing(key, code, reason, None);
            self.write_dirty();
        }
        if self.sockets.contains(key as usize) {
            self.give_up(key);
        }
    }

    /// Cuts a socket whose peer has had its time.
    pub(super) fn give_up(&mut self, key: u32) {
        let socket = &self.sockets[key as usize];
        if socket.is_live() {
            socket.entry.listener.count_forced();
        }
        self.cut(key, close::ABNORMAL, "");
    }

    /// Whether there is a socket of this listener at this place.
    pub(super) fn is_socket_of(&self, key: usize, listener: &Arc<ListenerShared>) -> bool {
        let socket = self.sockets.get(key);
        socket.is_some_and(|socket| Arc::ptr_eq(&socket.entry.listener, listener))
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    #[test]
    fn turns_are_even_over_the_spread_and_over_the_shards() {
        let of_shard = |shard| Schedule {
            spread: 1000,
            sockets: 50,
            shard,
            shards: 2,
        };
        let mut turns: Vec<_> = (0..50)
            .flat_map(|n| [of_shard(0).offset(n), of_shard(1).offset(n)])
            .collect();
        turns.sort_unstable();
        assert_eq!(turns, (0..100).map(|n| 10 * n).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_spread_everybody_is_first() {
        let schedule = Schedule {
            spread: 0,
            sockets: 3,
            shard: 1,
            shards: 2,
        };
        assert!((0..3).all(|n| schedule.offset(n) == 0));
    }

    #[test]
    fn a_long_spread_of_many_sockets_does_not_overflow() {
        let schedule = Schedule {
            spread: u64::MAX,
            sockets: 1 << 32,
            shard: 255,
            shards: 256,
        };
        assert!(schedule.offset((1 << 32) - 1) < u64::MAX);
    }

    /// More sockets than are looked at, or told, in one turn.
    fn crowd() -> (Bench, usize) {
        let mut bench = Bench::new();
        let sockets = 2 * LOOKED_AT_ONCE + 100;
        for _ in 0..sockets {
            bench.open();
        }
        for (_, socket) in &mut bench.shard.sockets {
            socket.opening = None; // as if they had been adopted
        }
        (bench, sockets)
    }

    #[test]
    fn a_crowd_is_told_a_few_in_each_turn() {
        let (mut bench, sockets) = crowd();
        let left = |bench: &Bench| bench.broker.connection_count();
        let listener = Arc::clone(&bench.listener);
        let nothing = Duration::ZERO;
        bench
            .shard
            .stop_listener(listener, 1001, "bye".into(), nothing);
        let mut turns = 0;
        while bench.shard.has_farewells() {
            let before = left(&bench);
            bench.shard.say_farewells();
            assert!(before - left(&bench) <= SAID_AT_ONCE);
            turns += 1;
        }
        assert_eq!(left(&bench), 0);
        assert!(turns <= 3 + sockets.div_ceil(SAID_AT_ONCE), "{turns}");
        let all = &bench.shard.sockets;
        assert!(
            all.iter()
                .all(|(_, s)| matches!(s.phase, Phase::Closing { .. }))
        );
        assert_eq!(bench.shard.next_farewell(), None);
    }

    #[test]
    fn a_crowd_is_cut_a_few_at_a_time() {
        let (mut bench, sockets) = crowd();
        let listener = Arc::clone(&bench.listener);
        bench.shard.cut_listener(&listener);
        assert_eq!(bench.shard.sockets.len(), sockets, "not in the command");
        let mut turns = 0;
        while !bench.shard.chores.is_empty() {
            bench.shard.do_chores();
            turns += 1;
        }
        assert!(turns > 1, "not in one turn");
        assert!(bench.shard.sockets.is_empty());
        assert_eq!(bench.broker.connection_count(), 0);
        assert_eq!(bench.broker.stats().closed as usize, sockets);
    }
}
