//! Messages that go their way without a worker: back to their sender, or on to a channel (see [`NativeRoute`]).
//!
//! The messages of one read go out together, as *runs*: frames one behind the other, for which a receiver's room is taken
//! once and which enter its outbox as one piece. A receiver that needs them one by one, because it gets some of them
//! compressed or has no room for all, gets them like any other message.

use std::sync::Arc;

use bytes::Bytes;

use super::inbox::Command;
use super::turn::{Shard, find};
use crate::broker::Publication;
use crate::channel::Snapshot;
use crate::codec::{self, MAX_HEADER, Opcode, TextBytes};
use crate::id::SocketId;
use crate::large_text::LargeText;
use crate::message::Frames;
use crate::options::SlowConsumer;
use crate::outbox::{COPY_UP_TO, RUN_BYTES};
use crate::registry::{IdMap, SocketEntry};
use crate::route::NativeRoute;

/// The messages of the read that is under way, if they take a native route.
#[derive(Default)]
pub(super) struct Routed {
    /// Frames of small messages, until they are a run.
    frames: Vec<u8>,
    messages: u64,
    longest: usize,
    runs: Vec<Run>,
}

/// Messages in the order they came: one, or some of which none is larger than [`COPY_UP_TO`].
#[derive(Clone, Debug)]
struct Run {
    frames: Bytes,
    messages: u64,
    /// Bytes of the longest payload.
    longest: usize,
}

/// A run on its way to the members of one shard.
pub(crate) struct Relay {
    run: Run,
    members: Snapshot,
    /// Members that do not get it, or get it one by one, in the order of `members`: no room was taken for them.
    skipped: Vec<SocketId>,
}

impl Routed {
    pub(super) fn text(&mut self, text: TextBytes<'_>) {
        if is_small(&text) {
            return self.small(Opcode::Text, &text);
        }
        let longest = text.len();
        self.large(LargeText::received(text).frame().clone(), longest);
    }

    pub(super) fn binary(&mut self, bytes: &[u8]) {
        if is_small(bytes) {
            return self.small(Opcode::Binary, bytes);
        }
        self.large(codec::encode_frame(Opcode::Binary, bytes), bytes.len());
    }

    fn small(&mut self, opcode: Opcode, payload: &[u8]) {
        let (header, size) = codec::header(opcode, payload.len());
        self.frames.extend_from_slice(&header[..size]);
        self.frames.extend_from_slice(payload);
        self.messages += 1;
        self.longest = self.longest.max(payload.len());
        if self.frames.len() >= RUN_BYTES {
            self.end_run();
        }
    }

    fn large(&mut self, frame: Bytes, longest: usize) {
        self.end_run();
        self.runs.push(Run {
            frames: frame,
            messages: 1,
            longest,
        });
    }

    fn end_run(&mut self) {
        if self.messages == 0 {
            return;
        }
        self.runs.push(Run {
            frames: Bytes::copy_from_slice(&self.frames),
            messages: std::mem::take(&mut self.messages),
            longest: std::mem::take(&mut self.longest),
        });
        self.frames.clear();
    }

    fn take(&mut self) -> Vec<Run> {
        self.end_run();
        std::mem::take(&mut self.runs)
    }
}

/// Whether its frame is copied together with others.
fn is_small(payload: &[u8]) -> bool {
    payload.len() <= COPY_UP_TO - MAX_HEADER
}

impl Run {
    /// Takes a socket's room for all of it, if the socket gets it as it is and has room for all.
    fn takes_room_of(&self, entry: &SocketEntry) -> bool {
        entry.takes_plain(self.longest) && entry.reserve_together(self.frames.len())
    }

    /// Its frames, none of which keeps the memory of the others.
    fn each(&self) -> impl Iterator<Item = Bytes> {
        let mut rest = self.frames.clone();
        (0..self.messages).map(move |_| {
            let frame = rest.split_to(codec::frame_len(&rest));
            if frame.len() == self.frames.len() {
                frame
            } else {
                Bytes::copy_from_slice(&frame)
            }
        })
    }
}

/// Members who do not get the messages of a read: the sender, if it is to be left out, and whoever was closed for one of
/// them. Those behind it are not for that socket any more: there is to be no gap in what it got.
#[derive(Default)]
struct LeftOut(IdMap<SocketId, ()>);

impl LeftOut {
    fn add(&mut self, socket: SocketId) {
        self.0.insert(socket, ());
    }

    fn has(&self, entry: &SocketEntry) -> bool {
        self.0.contains_key(&entry.id)
    }
}

impl Shard {
    /// Sends the messages that have been read of a socket on their way.
    pub(super) fn route_messages(&mut self, key: u32, route: &NativeRoute) {
        let mut runs = self.routed.take();
        if !runs.is_empty() {
            let sender = Arc::clone(&self.sockets[key as usize].entry);
            match route {
                // Its close is on its way: after what has led to it nothing more may come, or there would be a gap.
                _ if !sender.is_open() => {
                    let messages = runs.iter().map(|run| run.messages).sum();
                    self.handle.counters.socket_closed.add(messages);
                }
                NativeRoute::Echo => self.echo(&sender, &runs),
                NativeRoute::Relay { channel, echo } => {
                    match self.core.channels.joined(&sender, channel) {
                        Some(channel) => {
                            let mut left_out = LeftOut::default();
                            if !echo {
                                left_out.add(sender.id);
                            }
                            self.relay(&channel.snapshot(), left_out, &runs);
                        }
                        None => {
                            let messages = runs.iter().map(|run| run.messages).sum();
                            self.handle.counters.not_subscribed.add(messages);
                        }
                    }
                }
            }
        }
        runs.clear();
        self.routed.runs = runs; // it keeps its memory for the next read
    }

    fn echo(&mut self, sender: &Arc<SocketEntry>, runs: &[Run]) {
        let mut left_out = LeftOut::default();
        for run in runs {
            if left_out.has(sender) {
                return;
            }
            if run.takes_room_of(sender) {
                self.deliver_joined(sender, &run.frames, run.messages);
            } else {
                let own = self.handle.index;
                self.give_singly(own, vec![Arc::clone(sender)], run, &mut left_out);
            }
        }
    }

    fn relay(&mut self, members: &[(u16, Snapshot)], mut left_out: LeftOut, runs: &[Run]) {
        for run in runs {
            for (shard, members) in members {
                if *shard == self.handle.index {
                    self.relay_here(members, run, &mut left_out);
                } else {
                    self.relay_there(*shard, members, run, &mut left_out);
                }
            }
        }
    }

    fn relay_here(&mut self, members: &Snapshot, run: &Run, left_out: &mut LeftOut) {
        let mut others = Vec::new();
        for entry in members.iter().flat_map(|chunk| chunk.iter()) {
            if left_out.has(entry) {
                continue;
            }
            if run.takes_room_of(entry) {
                self.deliver_joined(entry, &run.frames, run.messages);
            } else {
                others.push(Arc::clone(entry));
            }
        }
        self.give_singly(self.handle.index, others, run, left_out);
    }

    fn relay_there(&mut self, shard: u16, members: &Snapshot, run: &Run, left_out: &mut LeftOut) {
        let mut taken = false;
        let (mut others, mut skipped) = (Vec::new(), Vec::new());
        for entry in members.iter().flat_map(|chunk| chunk.iter()) {
            if left_out.has(entry) {
                skipped.push(entry.id);
            } else if run.takes_room_of(entry) {
                taken = true;
            } else {
                skipped.push(entry.id);
                others.push(Arc::clone(entry));
            }
        }
        if taken {
            let relay = Relay {
                run: run.clone(),
                members: Arc::clone(members),
                skipped,
            };
            self.tell(shard, Command::Relay(Box::new(relay)));
        }
        self.give_singly(shard, others, run, left_out);
    }

    /// Messages for sockets of one shard, each with its own room and in its own form.
    fn give_singly(
        &mut self,
        shard: u16,
        mut receivers: Vec<Arc<SocketEntry>>,
        run: &Run,
        left_out: &mut LeftOut,
    ) {
        if receivers.is_empty() {
            return;
        }
        for frame in run.each() {
            let mut frames = Frames::new(frame);
            let mut queued = Vec::with_capacity(receivers.len());
            receivers.retain(|entry| {
                if self.core.reserve(entry, frames.prepare(entry).len()) {
                    queued.push(Arc::clone(entry));
                    return true;
                }
                let stays = entry.listener.options.slow_consumer == SlowConsumer::Drop;
                if !stays {
                    left_out.add(entry.id);
                }
                stays
            });
            if shard == self.handle.index {
                for entry in &queued {
                    self.deliver(entry, frames.of(entry));
                }
            } else if !queued.is_empty() {
                let publication = Publication {
                    frames,
                    members: Snapshot::new(vec![Arc::new(queued)]),
                    except: None,
                    skipped: Vec::new(),
                };
                self.tell(shard, Command::Publish(Box::new(publication)));
            }
        }
    }

    fn tell(&self, shard: u16, command: Command) {
        self.core.shards()[usize::from(shard)].send(command);
    }

    /// A run that a socket of another shard has read.
    pub(super) fn relayed(&mut self, relay: &Relay) {
        // In the order of the members.
        let mut skipped = relay.skipped.iter().peekable();
        for entry in relay.members.iter().flat_map(|chunk| chunk.iter()) {
            if skipped.next_if_eq(&&entry.id).is_none() {
                self.deliver_joined(entry, &relay.run.frames, relay.run.messages);
            }
        }
    }

    /// The messages of a socket wait for its worker no longer.
    pub(super) fn rerouted(&mut self, entry: &Arc<SocketEntry>) {
        let Some(socket) = find(&mut self.sockets, entry) else {
            return;
        };
        if socket.held || socket.parked {
            socket.heard = self.now; // while it was not read nothing could be heard
        }
        self.revisit(entry.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_of_their_runs_as_they_went_in() {
        let small = COPY_UP_TO - MAX_HEADER;
        let sizes = [0, 1, 125, 126, 127, small, small + 1, 65_536, 3, 3, 70_000];
        let frames = (0..500_usize).map(|n| {
            let payload = vec![n as u8; sizes[n % sizes.len()]];
            (
                payload.clone(),
                codec::encode_frame(Opcode::Binary, &payload),
            )
        });
        let mut routed = Routed::default();
        let mut expected = Vec::new();
        for (payload, frame) in frames {
            routed.binary(&payload);
            expected.push(frame);
        }
        let runs = routed.take();
        assert!(routed.take().is_empty());
        let out: Vec<_> = runs.iter().flat_map(Run::each).collect();
        assert!(out == expected);
        for run in &runs {
            let longest = run
                .each()
                .map(|frame| codec::payload_of(&frame).len())
                .max();
            assert_eq!(longest, Some(run.longest));
            let bound = RUN_BYTES + COPY_UP_TO;
            assert!(run.messages == 1 || run.frames.len() <= bound && run.longest <= small);
        }
    }
}
