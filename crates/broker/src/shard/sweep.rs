//! Deadlines without timers: a shard looks through its sockets a slice at a time.

use std::time::Duration;

use super::socket::Phase;
use super::turn::{INBOXES, Shard};
use crate::backpressure::Reservation;
use crate::codec::{PING, close};
use crate::memory;
use crate::options::Heartbeat;
use crate::outbox::Runs;
use bytes::Bytes;

/// A pass over all sockets takes this long, or a quarter of the shortest deadline: deadlines are kept to within it.
const LONGEST_PASS: u32 = 1000;
const SHORTEST_PASS: u32 = 20;

/// Slices of a pass, so that many sockets are not looked at in one turn.
const SLICES: u32 = 8;

/// A sweep that is so many milliseconds late was kept from running; a busy machine's scheduler takes less.
const LATE: u32 = 200;

/// Where the sweep is.
#[derive(Default)]
pub(super) struct Sweep {
    /// When the next slice is due; `None` while there is nothing to sweep.
    next: Option<u32>,
    cursor: usize,
}

impl Shard {
    /// Looks through the next slice if it is time; when the one after is due, in the shard's clock.
    pub(super) fn sweep_if_due(&mut self) -> Option<u64> {
        if self.sockets.is_empty() && self.requests.is_empty() {
            if self.sweep.next.take().is_some() {
                self.runs = Runs::default(); // nobody is left who would need them
                self.shrinks = INBOXES;
                if self.core.registry.len() == 0 {
                    memory::rest();
                }
                self.give_memory_back();
            }
            return None;
        }
        let slice_time = self.slice_time();
        let wait = match self.sweep.next {
            None => slice_time,
            Some(next) if (self.now.wrapping_sub(next) as i32) < 0 => {
                // A listener with shorter deadlines may have come since.
                next.wrapping_sub(self.now).min(slice_time)
            }
            Some(next) => {
                self.forgive(self.now.wrapping_sub(next));
                self.sweep_slice();
                self.sweep_requests();
                slice_time
            }
        };
        self.sweep.next = Some(self.now.wrapping_add(wait));
        Some(self.clock + u64::from(wait))
    }

    /// The sweep comes `late` milliseconds after its time: for so long this thread did not run, and nobody could be
    /// heard. Machines are suspended and processes stopped; their clients are not to blame for it.
    fn forgive(&mut self, late: u32) {
        if late < LATE {
            return;
        }
        for (_, socket) in &mut self.sockets {
            let silence = self.now.wrapping_sub(socket.heard);
            socket.heard = self.now.wrapping_sub(silence.saturating_sub(late));
        }
    }

    fn slice_time(&self) -> u32 {
        let shortest = self.core.shortest_deadline().as_millis();
        let pass = u32::try_from(shortest / 4).unwrap_or(LONGEST_PASS);
        pass.clamp(SHORTEST_PASS, LONGEST_PASS) / SLICES
    }

    fn sweep_slice(&mut self) {
        let capacity = self.sockets.capacity();
        let from = self.sweep.cursor;
        let to = (from + capacity.div_ceil(SLICES as usize)).min(capacity);
        self.sweep.cursor = if to == capacity { 0 } else { to };
        if self.sweep.cursor == 0 {
            self.runs.halve();
            self.shrinks = INBOXES;
            memory::age();
            self.give_memory_back();
        }
        for key in from..to {
            self.sweep_socket(key as u32);
        }
    }

    fn sweep_socket(&mut self, key: u32) {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return;
        };
        if socket.wire.is_none() {
            return; // its request has a deadline of its own
        }
        let options = &socket.entry.listener.options;
        match socket.phase {
            Phase::Open if socket.is_unread() => self.sweep_unread(key),
            Phase::Open => {
                let Some(heartbeat) = options.heartbeat else {
                    return;
                };
                if let Some(wire) = &mut socket.wire {
                    wire.expect_acknowledgement(None);
                }
                let silence = since(self.now, socket.heard);
                if silence >= heartbeat.timeout {
                    self.cut_silent(key);
                } else if silence >= heartbeat.interval && !socket.pinged {
                    socket.pinged = true;
                    self.ping(key);
                }
            }
            // A busy worker may hold up the end of a socket for so long and no longer.
            Phase::Parting { since: began, .. } => {
                if since(self.now, began) >= options.close_timeout {
                    self.finish_parting(key);
                }
            }
            Phase::Closing { since: began, .. } | Phase::Finishing { since: began, .. } => {
                if since(self.now, began) >= options.close_timeout {
                    self.give_up(key);
                }
            }
        }
    }

    /// It is us who do not listen to this socket: its silence says nothing, and what ends it is told by the system alone. A
    /// peer that has gone is cut, with what of it has not been read, when a silent one would be: until then it may be read.
    fn sweep_unread(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        let (Some(wire), options) = (&mut socket.wire, &socket.entry.listener.options) else {
            return;
        };
        let Heartbeat { interval, timeout } = options.heartbeat.unwrap_or_default();
        let silence = since(self.now, socket.heard);
        if wire.has_been_ended() {
            // A ping would draw a reset, and with the next one what it said last would be lost.
            if silence >= timeout && !socket.is_paced() {
                self.cut_silent(key);
            }
        } else if wire.is_broken() {
            self.lost(key);
        } else if silence >= interval {
            socket.heard = self.now;
            if options.heartbeat.is_some() {
                // Proxies on the way want to see something, and a peer that has vanished does not confirm it. One that reads
                // nothing does not take it either, and may be there: what waits for it already is a sign of that.
                let within = timeout.saturating_sub(interval);
                wire.expect_acknowledgement(socket.outbox.is_empty().then_some(within));
                self.ping(key);
            }
        }
    }

    fn cut_silent(&mut self, key: u32) {
        let socket = &self.sockets[key as usize];
        tracing::debug!(socket = %socket.entry.id, "a peer fell silent, or has left unread");
        self.handle.counters.heartbeat_timeouts.add(1);
        self.cut(key, close::ABNORMAL, "");
    }

    fn ping(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        // A socket with a full outbox needs no ping to show that it is stuck.
        if socket.entry.reserve(PING.len()) == Reservation::Queued {
            socket
                .outbox
                .push(&Bytes::from_static(PING), &mut self.runs);
            self.mark_dirty(key);
        }
    }

    fn sweep_requests(&mut self) {
        let now = self.now;
        let late: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, pending)| {
                since(now, pending.since) >= pending.listener().options.request_timeout
            })
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.timed_out(id);
        }
    }
}

fn since(now: u32, then: u32) -> Duration {
    Duration::from_millis(now.wrapping_sub(then).into())
}
