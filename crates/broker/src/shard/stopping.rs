//! A listener stops: its sockets are told goodbye, at once or spread over a time, and cut when the deadline is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::socket::Phase;
use super::turn::{Shard, find};
use crate::codec::close;
use crate::listener::ListenerShared;
use crate::registry::SocketEntry;

/// The goodbyes of one listener that are not said yet.
pub(super) struct Farewell {
    listener: Arc<ListenerShared>,
    code: u16,
    reason: Arc<str>,
    /// When it is whose turn, in the shard's clock, the earliest first.
    turns: VecDeque<(u64, Arc<SocketEntry>)>,
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

impl Shard {
    pub(super) fn stop_listener(
        &mut self,
        listener: Arc<ListenerShared>,
        code: u16,
        reason: Arc<str>,
        spread: Duration,
    ) {
        let keys = self.sockets_of(&listener);
        let schedule = Schedule {
            spread: u64::try_from(spread.as_millis()).unwrap_or(u64::MAX),
            sockets: keys.len() as u64,
            shard: u64::from(self.handle.index),
            shards: self.core.shards().len() as u64,
        };
        let turns = keys.into_iter().enumerate().map(|(n, key)| {
            let at = self.clock.saturating_add(schedule.offset(n as u64));
            (at, Arc::clone(&self.sockets[key as usize].entry))
        });
        self.farewells.push(Farewell {
            turns: turns.collect(),
            listener,
            code,
            reason,
        });
        self.say_farewells();
    }

    /// Begins to close the sockets whose turn it is.
    pub(super) fn say_farewells(&mut self) {
        if self.farewells.is_empty() {
            return;
        }
        let mut farewells = std::mem::take(&mut self.farewells);
        for farewell in &mut farewells {
            while let Some((at, entry)) = farewell.turns.front() {
                // Whoever is gone already has had its goodbye, and is nothing to wait for.
                let is_here = find(&mut self.sockets, entry).is_some();
                if is_here && *at > self.clock {
                    break;
                }
                if is_here && self.core.leave(entry) {
                    self.say_farewell(entry.key, farewell);
                }
                farewell.turns.pop_front();
            }
        }
        farewells.retain(|farewell| !farewell.turns.is_empty());
        self.farewells = farewells;
    }

    fn say_farewell(&mut self, key: u32, farewell: &Farewell) {
        match self.sockets[key as usize].phase {
            Phase::Parting { .. } => self.finish_parting(key),
            _ => self.begin_closing(key, farewell.code, &farewell.reason, None),
        }
    }

    /// When the next goodbye is due.
    pub(super) fn next_farewell(&self) -> Option<u64> {
        let turns = self.farewells.iter().filter_map(|f| f.turns.front());
        turns.map(|(at, _)| *at).min()
    }

    /// The deadline of the stop is over.
    pub(super) fn cut_listener(&mut self, listener: &Arc<ListenerShared>) {
        self.farewells
            .retain(|farewell| !Arc::ptr_eq(&farewell.listener, listener));
        for key in self.sockets_of(listener) {
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

    fn sockets_of(&self, listener: &Arc<ListenerShared>) -> Vec<u32> {
        self.sockets
            .iter()
            .filter(|(_, socket)| Arc::ptr_eq(&socket.entry.listener, listener))
            .map(|(key, _)| key as u32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
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
}
