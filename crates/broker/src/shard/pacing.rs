//! Sockets that are over a rate: what becomes of them, and when those that pause are read again.

use std::collections::BTreeSet;

use super::socket::{Failure, Phase};
use super::turn::Shard;
use crate::limits::socket::Exceeded;

/// The sockets that are not read until their buckets have paid, by the time that they have, in the shard's clock. A
/// socket leaves with its end, so there are never more than sockets.
#[derive(Default)]
pub(super) struct Paused(BTreeSet<(u64, u32)>);

impl Paused {
    pub(super) fn insert(&mut self, until: u64, key: u32) {
        self.0.insert((until, key));
    }

    pub(super) fn remove(&mut self, until: u64, key: u32) {
        self.0.remove(&(until, key));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.first().map(|(until, _)| *until)
    }

    fn take_due(&mut self, clock: u64) -> Option<u32> {
        if self.next()? > clock {
            return None;
        }
        self.0.pop_first().map(|(_, key)| key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Shard {
    /// A socket is over a rate, and that closes it.
    pub(super) fn exceeded(&mut self, key: u32, exceeded: Exceeded) {
        let socket = &self.sockets[key as usize];
        tracing::debug!(socket = %socket.entry.id, reason = exceeded.text(), "a peer was over its rate");
        self.handle.counters.over_rate_closes.add(1);
        self.fail(key, Failure::OverRate(exceeded));
    }

    /// Stops reading a socket if it owes something for what has just been read.
    pub(super) fn pause_if_in_debt(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        let Some(meter) = socket
            .meter
            .as_mut()
            .filter(|_| socket.phase == Phase::Open)
        else {
            return;
        };
        let limits = &socket.entry.listener.options.limits.socket;
        let wait = meter.wait(limits, self.clock);
        if wait > 0 && meter.paused_until.is_none() {
            let until = self.clock + u64::from(wait);
            meter.paused_until = Some(until);
            self.paused.insert(until, key);
        }
    }

    /// The socket begins to close, or is gone: nobody waits for its time any more.
    pub(super) fn forget_pause(&mut self, key: u32) {
        if let Some(meter) = &mut self.sockets[key as usize].meter
            && let Some(until) = meter.paused_until.take()
        {
            self.paused.remove(until, key);
        }
    }

    /// Goes on reading the sockets whose time has come.
    pub(super) fn resume_paused(&mut self) {
        while let Some(key) = self.paused.take_due(self.clock) {
            let socket = &mut self.sockets[key as usize];
            if let Some(meter) = &mut socket.meter {
                meter.paused_until = None;
            }
            socket.heard = self.now; // while it was not read nothing could be heard
            self.revisit(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_due_in_the_order_of_their_times_and_not_before() {
        let mut paused = Paused::default();
        for (until, key) in [(30, 1), (10, 2), (20, 3), (20, 4)] {
            paused.insert(until, key);
        }
        paused.remove(20, 3);
        assert_eq!((paused.next(), paused.len()), (Some(10), 3));
        assert_eq!(paused.take_due(9), None);
        assert_eq!(paused.take_due(10), Some(2));
        assert_eq!(paused.take_due(19), None);
        assert_eq!(paused.take_due(100), Some(4));
        assert_eq!(paused.take_due(100), Some(1));
        assert_eq!((paused.next(), paused.take_due(u64::MAX)), (None, None));
    }
}
