//! The way out: frames into outboxes, outboxes into the kernel.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::socket::{AWAITED, OVER_HALF, Phase, REFUSED, Socket};
use super::turn::{Shard, find};
use crate::codec::{Contexts, PerMessageDeflate, close};
use crate::outbox::MAX_SLICES;
use crate::registry::SocketEntry;

impl Shard {
    /// Puts a frame in one outbox; room for it was taken by the caller.
    pub(super) fn deliver(&mut self, entry: &Arc<SocketEntry>, frame: &Bytes) {
        let Some(socket) = find(&mut self.sockets, entry).filter(|s| s.takes_messages()) else {
            entry.backpressure.release(frame.len());
            self.handle.counters.socket_closed.add(1);
            return;
        };
        match entry.deflate {
            Some(deflate) if deflate.server.takeover() => {
                let frame = in_context(entry, deflate, &mut socket.contexts, frame.clone());
                socket.outbox.push(&frame, &mut self.runs);
            }
            _ => socket.outbox.push(frame, &mut self.runs),
        }
        note_delivery(socket, &mut self.dirty);
        self.handle.counters.messages_out.add(1);
    }

    /// The same for a small frame that is copied.
    pub(super) fn deliver_small(&mut self, entry: &Arc<SocketEntry>, frame: &[u8]) {
        match entry.deflate {
            Some(deflate) if deflate.server.takeover() => {
                self.deliver(entry, &Bytes::copy_from_slice(frame));
            }
            _ => self.deliver_copied(entry.key, entry.id.get(), frame),
        }
    }

    /// The same for a small frame of a socket that is told by its place.
    pub(super) fn deliver_copied(&mut self, key: u32, id: u64, frame: &[u8]) {
        let socket = self.sockets.get_mut(key as usize);
        match socket.filter(|socket| socket.entry.id.get() == id) {
            Some(socket) if socket.takes_messages() => {
                socket.outbox.push_copied(frame, &mut self.runs);
                note_delivery(socket, &mut self.dirty);
                self.handle.counters.messages_out.add(1);
            }
            gone => {
                if let Some(socket) = gone {
                    socket.entry.backpressure.release(frame.len());
                }
                self.handle.counters.socket_closed.add(1);
            }
        }
    }

    /// Puts frames that go to this socket as they are in its outbox, of so many messages; room for them was taken.
    pub(super) fn deliver_joined(
        &mut self,
        entry: &Arc<SocketEntry>,
        frames: &Bytes,
        messages: u64,
    ) {
        let Some(socket) = find(&mut self.sockets, entry).filter(|s| s.takes_messages()) else {
            entry.backpressure.release(frames.len());
            self.handle.counters.socket_closed.add(messages);
            return;
        };
        socket.outbox.push(frames, &mut self.runs);
        note_delivery(socket, &mut self.dirty);
        self.handle.counters.messages_out.add(messages);
    }

    /// Writes every socket that got something, once.
    pub(super) fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(socket) = self.sockets.get_mut(key as usize) {
                socket.dirty = false;
                self.write(key);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// The loop over all that got something is the one that calls it, and has it inlined.
    fn write(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        let Some(wire) = &mut socket.wire else {
            return; // its outbox waits for the 101
        };
        while !socket.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = socket.outbox.slices(&mut slices);
            match wire.write(&slices[..count]) {
                // The kernel takes no more; the reactor says when it does.
                Poll::Pending => return stall(socket),
                Poll::Ready(Ok(written)) => {
                    socket.outbox.advance(written, &mut self.runs);
                    socket.entry.backpressure.release(written);
                    self.handle.counters.bytes_out.add(written as u64);
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(socket = %socket.entry.id, %error, "a socket broke");
                    return self.cut(key, close::ABNORMAL, "");
                }
            }
        }
        self.written_out(key);
    }

    /// Nothing waits for this socket any more.
    fn written_out(&mut self, key: u32) {
        if self.sockets[key as usize].when_empty != 0 {
            self.emptied(key);
        }
    }

    /// Does what was due when nothing waits for this socket.
    #[cold]
    fn emptied(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        if socket.when_empty & REFUSED != 0 {
            socket.when_empty &= !REFUSED;
            socket.entry.backpressure.flows();
        }
        let is_drained = socket.phase == Phase::Open && socket.entry.backpressure.waiting() == 0;
        if socket.when_empty & OVER_HALF != 0 && is_drained {
            if !socket.worker.is_full() {
                socket.when_empty &= !OVER_HALF;
                let batch = self.staging.batch_of(&socket.worker);
                batch.drain(socket.entry.origin(socket.entry.token().as_ref()));
            } else if !std::mem::replace(&mut socket.drain_waits, true) {
                // What peers relay to each other must not fill the queue of a worker that takes nothing.
                let parked = self.parked.entry(socket.worker.id).or_default();
                parked.drained.push(key);
            }
        }
        if socket.when_empty & AWAITED != 0 {
            socket.when_empty &= !AWAITED;
            self.waiters.drained(key);
        }
        self.end_stream(key);
    }
}

/// The kernel takes no more for this socket for now.
#[cold]
fn stall(socket: &mut Socket) {
    socket.when_empty |= REFUSED;
    socket.entry.backpressure.stalls();
}

/// Something has been put in this socket's outbox.
fn note_delivery(socket: &mut Socket, dirty: &mut Vec<u32>) {
    let entry = &socket.entry;
    if entry.is_over_half() {
        socket.when_empty |= OVER_HALF;
    }
    if !std::mem::replace(&mut socket.dirty, true) {
        dirty.push(entry.key);
    }
}

/// The frame that goes out on a socket with context takeover. Room was taken for the plain one; what compressing saves is
/// given back.
fn in_context(
    entry: &SocketEntry,
    deflate: PerMessageDeflate,
    contexts: &mut Contexts,
    plain: Bytes,
) -> Bytes {
    let Some(compression) = &entry.listener.options.compression else {
        return plain;
    };
    match compression.deflate_in_context(&plain, deflate, contexts) {
        Some(compressed) => {
            entry.backpressure.release(plain.len() - compressed.len());
            compressed
        }
        None => plain,
    }
}
