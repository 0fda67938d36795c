//! Who waits for something to become of a socket.

use std::collections::HashMap;
use std::sync::Arc;

use super::socket::AWAITED;
use super::turn::{Shard, find};
use crate::registry::SocketEntry;
use crate::shrink;

/// Called with `true` when nothing waits for the socket any more, with `false` when it has ended before. On an I/O thread: it must
/// not block or panic.
pub type WhenDrained = Box<dyn FnOnce(bool) + Send>;

/// Called when a socket begins to close. On an I/O thread: it must not block or panic.
pub type WhenClosed = Box<dyn FnOnce() + Send>;

/// By the key of their socket. As many as the application has asked for, and none once the socket is gone.
#[derive(Default)]
pub(super) struct Waiters {
    drained: HashMap<u32, Vec<WhenDrained>>,
    closed: HashMap<u32, Vec<WhenClosed>>,
}

impl Waiters {
    /// Nothing waits for this socket any more.
    pub(super) fn drained(&mut self, key: u32) {
        self.end_drains(key, true);
    }

    /// This socket begins to close.
    pub(super) fn closing(&mut self, key: u32) {
        if !self.closed.is_empty() {
            for then in self.closed.remove(&key).unwrap_or_default() {
                then();
            }
        }
    }

    /// This socket is gone.
    pub(super) fn gone(&mut self, key: u32) {
        self.closing(key);
        self.end_drains(key, false);
    }

    pub(super) fn has_drain(&self, key: u32) -> bool {
        self.drained.contains_key(&key)
    }

    pub(super) fn shrink(&mut self) {
        shrink::map(&mut self.drained);
        shrink::map(&mut self.closed);
    }

    fn end_drains(&mut self, key: u32, is_drained: bool) {
        for then in self.drained.remove(&key).unwrap_or_default() {
            then(is_drained);
        }
    }
}

impl Shard {
    pub(super) fn when_drained(&mut self, entry: &Arc<SocketEntry>, then: WhenDrained) {
        let Some(socket) = find(&mut self.sockets, entry) else {
            return then(false);
        };
        socket.when_empty |= AWAITED;
        let waiting = self.waiters.drained.entry(entry.key).or_default();
        waiting.push(then);
        self.mark_dirty(entry.key); // with nothing to write it is told at the end of this turn
    }

    pub(super) fn when_closed(&mut self, entry: &Arc<SocketEntry>, then: WhenClosed) {
        if find(&mut self.sockets, entry).is_none_or(|socket| !socket.is_lasting()) {
            return then();
        }
        let waiting = self.waiters.closed.entry(entry.key).or_default();
        waiting.push(then);
    }
}
