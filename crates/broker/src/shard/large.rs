//! Compressed messages that may take long to inflate: one at a time, some pieces in each turn, while the others wait
//! unread.
//!
//! A message of 1 MiB on the wire can be 12,000 blocks with a code table each, which takes an inflater up to 100 ms: no
//! limit of sizes tells such a message from an honest one. In pieces it takes as long, but nobody waits for more than a
//! piece. One at a time, because what is inflated takes memory: up to the limit of messages.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::Instant;

use super::socket::Socket;
use super::turn::{Shard, TIME_FOR_MORE};
use crate::codec::{Inflater, LargeMessage, Postponed};
use crate::shrink;

/// A message of so many compressed bytes is inflated at once.
pub(super) const INFLATED_AT_ONCE: usize = 2 * 1024;

/// So many bytes of a larger one at a time: up to 25 µs if they are nothing but code tables, less than one otherwise.
pub(super) const PIECE: usize = 256;

/// A message comes behind those that have arrived less than this many milliseconds later for each KiB that they are
/// shorter. So long ones wait for short ones, but not for ever.
const WAIT_PER_KIB: u64 = 10;

/// The large messages of a shard.
#[derive(Default)]
pub(super) struct LargeMessages {
    /// By socket, which is not read until its message is inflated; when its turn is.
    waiting: HashMap<u32, (u64, Postponed)>,
    /// Whose turn is next.
    turns: BTreeSet<(u64, u32)>,
    /// The one that is being inflated.
    current: Option<(u32, LargeMessage)>,
    /// Apart from the one for small messages, for it is in the middle of something.
    inflater: Option<Box<Inflater>>,
}

impl LargeMessages {
    fn insert(&mut self, key: u32, now: u64, message: Postponed) {
        let turn = now + WAIT_PER_KIB * (message.compressed_len() as u64 / 1024);
        self.turns.insert((turn, key));
        self.waiting.insert(key, (turn, message));
    }

    pub(super) fn shrink(&mut self) {
        shrink::map(&mut self.waiting);
    }

    fn is_empty(&self) -> bool {
        self.current.is_none() && self.turns.is_empty()
    }

    fn remove(&mut self, key: u32) {
        if let Some((turn, _)) = self.waiting.remove(&key) {
            self.turns.remove(&(turn, key));
        }
        self.current.take_if(|(current, _)| *current == key);
    }

    /// The first one for which `is_wanted` is true.
    fn begin(&mut self, is_wanted: impl Fn(u32) -> bool) -> Option<(u32, LargeMessage)> {
        let (turn, key) = self
            .turns
            .iter()
            .copied()
            .find(|(_, key)| is_wanted(*key))?;
        self.turns.remove(&(turn, key));
        let (_, message) = self.waiting.remove(&key)?;
        Some((key, LargeMessage::new(message)))
    }
}

impl Shard {
    /// A socket has sent a message that is to be inflated piece by piece, and behind it what stands at `rest` in the read
    /// buffer.
    pub(super) fn postpone(&mut self, key: u32, message: Postponed, rest: Range<usize>) {
        let rest = &self.read_buffer[rest];
        if !rest.is_empty() {
            let behind = self.early.remove(&key).unwrap_or_default();
            self.early.insert(key, [rest, &behind].concat().into());
        }
        self.sockets[key as usize].inflating = true;
        self.large.insert(key, self.clock, message);
    }

    /// Inflates for a while; whether there is more to do.
    pub(super) fn inflate_large(&mut self) -> bool {
        if self.large.is_empty() {
            return false;
        }
        let began = Instant::now();
        while self.inflate_piece() {
            if began.elapsed() > TIME_FOR_MORE {
                return true;
            }
        }
        false
    }

    /// Inflates a piece of the message whose turn it is; whether there was one.
    fn inflate_piece(&mut self) -> bool {
        let current = self.large.current.take().or_else(|| {
            self.large.begin(|key| {
                let socket = self.sockets.get(key as usize);
                socket.is_some_and(Socket::has_room)
            })
        });
        let Some((key, mut message)) = current else {
            return false;
        };
        let mut inflater = self.large.inflater.take().unwrap_or_default();
        if self.inflated(key, &mut message, &mut inflater) {
            inflater.done();
            self.staging.hand_over_large(self.handle.index);
            self.forget_large(key);
            self.revisit(key);
        } else {
            self.large.current = Some((key, message));
        }
        self.large.inflater = Some(inflater);
        true
    }

    /// The message has been inflated, or nobody wants it any more.
    pub(super) fn forget_large(&mut self, key: u32) {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return;
        };
        if std::mem::replace(&mut socket.inflating, false) {
            socket.heard = self.now; // while it was not read nothing could be heard
            self.large.remove(key);
        }
    }
}
