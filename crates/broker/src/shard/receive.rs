//! The way in: bytes of a ready socket, its messages, the batch of its worker.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;

use super::inbox::Report;
use super::large::{INFLATED_AT_ONCE, PIECE};
use super::routing::Routed;
use super::socket::{Phase, Socket};
use super::staging::Staging;
use super::turn::{READ_BUFFER, Reason, Shard, find};
use crate::backpressure::Reservation;
use crate::codec::{
    Contexts, Decoder, Inflater, Inflation, Item, LargeMessage, Postponed, TextBytes, Violation,
    close, encode_pong,
};
use crate::dispatch::batch::{Batch, Origin};
use crate::limits::socket::{Arrival, Exceeded, Meter, Verdict};
use crate::outbox::{Outbox, Runs};
use crate::registry::SocketEntry;

/// Takes what comes of one socket, and notes what it asks for beyond messages.
struct Intake<'a> {
    entry: &'a SocketEntry,
    origin: Origin<'a>,
    batch: &'a mut Batch,
    /// Where its messages go if they take a native route.
    routed: Option<&'a mut Routed>,
    outbox: &'a mut Outbox,
    runs: &'a mut Runs,
    /// Not there once we have said goodbye: what comes after costs nothing.
    meter: Option<&'a mut Meter>,
    clock: u64,
    is_open: bool,
    outcome: Outcome,
}

#[derive(Default)]
struct Outcome {
    /// The peer's close frame.
    closed: Option<(Option<u16>, String)>,
    /// Pongs that did not fit: the peer sends pings and reads nothing.
    slow_pongs: u64,
    ponged: bool,
    messages: u64,
    /// Left out because the socket is over a rate.
    dropped: u64,
    /// The socket is over a rate, and that closes it.
    exceeded: Option<Exceeded>,
}

impl<'a> Intake<'a> {
    /// Of `socket`, with its token. Its messages go where `routed` gathers them if it has a native route.
    fn new(
        socket: &'a mut Socket,
        token: Option<&'a Bytes>,
        is_routed: bool,
        staging: &'a mut Staging,
        routed: &'a mut Routed,
        runs: &'a mut Runs,
        clock: u64,
    ) -> (Self, &'a mut Decoder, &'a mut Contexts) {
        let is_open = socket.phase == Phase::Open;
        let intake = Self {
            origin: socket.entry.origin(token),
            entry: &socket.entry,
            batch: staging.batch_of(&socket.worker),
            routed: is_routed.then_some(routed),
            outbox: &mut socket.outbox,
            runs,
            meter: socket.meter.as_deref_mut().filter(|_| is_open),
            clock,
            is_open,
            outcome: Outcome::default(),
        };
        (intake, &mut socket.decoder, &mut socket.contexts)
    }

    /// What comes after we have said goodbye is not for the application any more.
    #[inline]
    fn take(&mut self, item: Item<'_>) -> ControlFlow<()> {
        if self.is_over_rate(&item)? {
            return ControlFlow::Continue(());
        }
        match item {
            Item::Text { .. } | Item::Binary(_) | Item::Ping(_) if !self.is_open => {}
            Item::Text { bytes, ascii } => self.text(bytes, ascii),
            Item::Binary(bytes) => self.binary(bytes),
            Item::Ping(payload) => self.pong(payload),
            Item::Pong(_) => {}
            Item::Close { code, reason } => {
                self.outcome.closed = Some((code, reason.to_owned()));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn text(&mut self, text: TextBytes<'_>, ascii: bool) {
        self.outcome.messages += 1;
        match &mut self.routed {
            None => self.batch.text(self.origin, text, ascii),
            Some(routed) => routed.text(text),
        }
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.outcome.messages += 1;
        match &mut self.routed {
            None => self.batch.binary(self.origin, bytes),
            Some(routed) => routed.binary(bytes),
        }
    }

    fn pong(&mut self, payload: &[u8]) {
        let pong = encode_pong(payload);
        if self.entry.reserve(pong.len()) == Reservation::Queued {
            self.outbox.push(&pong, self.runs);
            self.outcome.ponged = true;
        } else {
            self.outcome.slow_pongs += 1;
        }
    }

    /// Whether this is left out; breaks off where it closes the socket.
    #[inline]
    fn is_over_rate(&mut self, item: &Item<'_>) -> ControlFlow<(), bool> {
        let Some(meter) = &mut self.meter else {
            return ControlFlow::Continue(false);
        };
        let Some((what, size)) = arrival(item) else {
            return ControlFlow::Continue(false);
        };
        let limits = &self.entry.listener.options.limits.socket;
        match meter.arrived(limits, what, size, self.clock) {
            Verdict::Pass => ControlFlow::Continue(false),
            Verdict::Drop => {
                self.outcome.dropped += 1;
                ControlFlow::Continue(true)
            }
            Verdict::Close(exceeded) => {
                self.outcome.exceeded = Some(exceeded);
                ControlFlow::Break(())
            }
        }
    }

    /// `length` bytes have been read.
    fn charge(&mut self, length: usize) {
        let limits = &self.entry.listener.options.limits.socket;
        if let (None, Some(meter)) = (self.outcome.exceeded, &mut self.meter) {
            self.outcome.exceeded = meter.read(limits, length, self.clock).err();
        }
    }
}

impl Shard {
    /// Reads a socket once; one that had a whole buffer comes again in the next turn, behind the others.
    pub(super) fn receive(&mut self, key: u32, reason: Reason) {
        loop {
            if !self.has_news(key) || !self.may_read(key, reason) {
                return;
            }
            let socket = &mut self.sockets[key as usize];
            let limit = read_limit(socket, self.clock);
            let Some(wire) = &mut socket.wire else {
                return;
            };
            if let Some(length) = take_early(&mut self.early, key, &mut self.read_buffer[..limit]) {
                self.received(key, length);
                self.staging.hand_over_large(self.handle.index);
                self.revisit(key);
                return;
            }
            let length = match wire.read(&mut self.read_buffer[..limit]) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return self.ended_by_peer(key),
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(socket = %socket.entry.id, %error, "a socket broke");
                    return self.lost(key);
                }
            };
            if length == limit {
                let began = Instant::now();
                self.received(key, length);
                self.staging.hand_over_large(self.handle.index);
                if let Some(socket) = self.sockets.get_mut(key as usize) {
                    socket.slice.adapt(began.elapsed());
                }
                self.revisit(key);
                return;
            }
            self.received(key, length);
            self.staging.hand_over_large(self.handle.index);
            // Once more: usually nothing is left to read, which is known by now, or only the end.
        }
    }

    /// Whether something may have come of this socket. One that has nothing to say waits for no worker.
    fn has_news(&self, key: u32) -> bool {
        let socket = self.sockets.get(key as usize);
        let wire = socket.and_then(|socket| socket.wire.as_ref());
        wire.is_some_and(|wire| wire.is_readable() || self.early.contains_key(&key))
    }

    /// Whether this socket may be read now; if it has to wait for its full worker it is parked until that has room.
    fn may_read(&mut self, key: u32, reason: Reason) -> bool {
        let socket = &mut self.sockets[key as usize];
        match socket.phase {
            Phase::Open => {}
            Phase::Parting { .. } => return false,
            // Only its end is of interest, and that needs no worker.
            Phase::Closing { .. } | Phase::Finishing { .. } => return true,
        }
        if socket.is_unread() {
            return false;
        }
        if !socket.has_room() {
            socket.parked = true;
            let parked = self.parked.entry(socket.worker.id).or_default();
            match reason {
                Reason::News => parked.with_news.push(key),
                Reason::More => parked.with_more.push(key),
            }
            return false;
        }
        true
    }

    /// Handles `length` bytes that have been read into the read buffer.
    pub(super) fn received(&mut self, key: u32, length: usize) {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return;
        };
        socket.heard = self.now;
        socket.pinged = false;
        if matches!(socket.phase, Phase::Finishing { .. }) {
            self.handle.counters.bytes_in.add(length as u64);
            return; // the peer has not yet noticed that this is over
        }
        let drained = length < read_limit(socket, self.clock);
        let token = socket.entry.token();
        let route = socket.entry.route();
        let (mut intake, decoder, contexts) = Intake::new(
            socket,
            token.as_ref(),
            route.is_some(),
            &mut self.staging,
            &mut self.routed,
            &mut self.runs,
            self.clock,
        );
        let entry = intake.entry;
        let mut postponed = None;
        let inflation = entry.deflate.map(|deflate| Inflation {
            inflater: self.inflater.get_or_insert_default(),
            deflate,
            contexts,
            discard: !intake.is_open,
            at_once: INFLATED_AT_ONCE,
            postponed: &mut postponed,
        });
        let input = &mut self.read_buffer[..length];
        let max_message = entry.listener.options.max_message_size;
        let result = decoder.decode(input, max_message, inflation, |item| intake.take(item));
        let taken = length - postponed.as_ref().map_or(0, Postponed::rest);
        intake.charge(taken);
        let outcome = intake.outcome;
        self.handle.counters.bytes_in.add(taken as u64);
        if let Some(route) = route {
            self.route_messages(key, &route);
        }
        if let Some(postponed) = postponed {
            self.postpone(key, postponed, taken..length);
        }
        self.conclude(key, result, outcome, drained);
    }

    /// Does what has come of a socket asks for beyond messages.
    fn conclude(
        &mut self,
        key: u32,
        result: Result<(), Violation>,
        outcome: Outcome,
        drained: bool,
    ) {
        let counters = &self.handle.counters;
        counters.messages_in.add(outcome.messages);
        counters.over_rate.add(outcome.dropped);
        counters.slow_pongs.add(outcome.slow_pongs);
        if outcome.ponged {
            self.mark_dirty(key);
        }
        if let Err(violation) = result {
            return self.violated(key, violation);
        }
        if let Some((code, reason)) = outcome.closed {
            return self.closed_by_peer(key, code, &reason, drained);
        }
        if let Some(exceeded) = outcome.exceeded {
            return self.exceeded(key, exceeded);
        }
        self.pause_if_in_debt(key);
        if outcome.slow_pongs > 0 {
            let entry = Arc::clone(&self.sockets[key as usize].entry);
            self.core.refuse(&entry, Report::SlowConsumer);
        }
    }

    /// A message that was inflated piece by piece, or what is wrong with it.
    pub(super) fn inflated(
        &mut self,
        key: u32,
        message: &mut LargeMessage,
        inflater: &mut Inflater,
    ) -> bool {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return true;
        };
        let Some(deflate) = socket.entry.deflate else {
            return true;
        };
        let max_message = socket.entry.listener.options.max_message_size;
        let token = socket.entry.token();
        let route = socket.entry.route();
        let (mut intake, _, contexts) = Intake::new(
            socket,
            token.as_ref(),
            route.is_some(),
            &mut self.staging,
            &mut self.routed,
            &mut self.runs,
            self.clock,
        );
        let mut inflation = Inflation {
            inflater,
            deflate,
            contexts,
            discard: false,
            at_once: usize::MAX,
            postponed: &mut None,
        };
        let result = match message.advance(&mut inflation, max_message, PIECE) {
            Ok(None) => return false,
            Ok(Some(item)) => {
                let _ = intake.take(item); // nothing comes behind it to break off
                Ok(())
            }
            Err(violation) => Err(violation),
        };
        let outcome = intake.outcome;
        if let Some(route) = route {
            self.route_messages(key, &route);
        }
        self.conclude(key, result, outcome, true);
        true
    }

    /// The stream is broken.
    pub(super) fn lost(&mut self, key: u32) {
        self.cut(key, close::ABNORMAL, "");
    }

    /// A handler asks to stop or go on reading.
    pub(super) fn hold(&mut self, entry: &Arc<SocketEntry>, held: bool) {
        let Some(socket) = find(&mut self.sockets, entry) else {
            return;
        };
        if std::mem::replace(&mut socket.held, held) && !held {
            socket.heard = self.now; // while it was not read nothing could be heard
            self.revisit(entry.key);
        }
    }

    /// A worker has room again. Of its sockets those go first that had something new when it had none, in their order:
    /// who waits the longest must not wait behind what the others say next.
    pub(super) fn unpark(&mut self, worker: u32) {
        let parked = self.parked.remove(&worker).unwrap_or_default();
        for key in parked.drained {
            if let Some(socket) = self.sockets.get_mut(key as usize) {
                socket.drain_waits = false;
                self.mark_dirty(key); // with nothing to write it comes to its drain event
            }
        }
        for (keys, reason) in [
            (parked.with_news, Reason::News),
            (parked.with_more, Reason::More),
        ] {
            for key in keys {
                let Some(socket) = self.sockets.get_mut(key as usize) else {
                    continue;
                };
                socket.parked = false;
                socket.heard = self.now;
                match reason {
                    Reason::News => self.unparked.push_back(key),
                    Reason::More => self.revisit(key),
                }
            }
        }
    }
}

/// The next piece of what a client sent behind its handshake; its length.
fn take_early(early: &mut HashMap<u32, Bytes>, key: u32, buffer: &mut [u8]) -> Option<usize> {
    let rest = early.get_mut(&key)?;
    let piece = rest.split_to(rest.len().min(buffer.len()));
    buffer[..piece.len()].copy_from_slice(&piece);
    if rest.is_empty() {
        early.remove(&key);
    }
    Some(piece.len())
}

/// What an item counts as, and the length of its payload. A goodbye costs nothing.
fn arrival(item: &Item<'_>) -> Option<(Arrival, usize)> {
    match item {
        Item::Text { bytes, .. } => Some((Arrival::Message, bytes.len())),
        Item::Binary(bytes) => Some((Arrival::Message, bytes.len())),
        Item::Ping(payload) => Some((Arrival::Ping, payload.len())),
        Item::Pong(payload) => Some((Arrival::Pong, payload.len())),
        Item::Close { .. } => None,
    }
}

/// How much of a socket is read at once, so that what comes of it is handled soon, stays within what a worker's queue
/// takes anyway, and within what its bucket has where it would be paused.
///
/// Each message carries the socket's token: with a long token a buffer full of empty messages would become many times as
/// much in the worker's queue; about 700 KB at the most this way. Compressed, a byte becomes up to 1032 (a match of 258
/// bytes in two bits): 16 MiB at the most.
fn read_limit(socket: &mut Socket, clock: u64) -> usize {
    const FREE: usize = 64;
    const SHORTEST: usize = 512;
    const COMPRESSED: usize = 16 * 1024;
    let entry = &socket.entry;
    let most = match entry.deflate {
        Some(_) => COMPRESSED,
        None => READ_BUFFER,
    };
    let most = socket.slice.of(most);
    let paced = match &mut socket.meter {
        Some(meter) => most.min(meter.read_limit(&entry.listener.options.limits.socket, clock)),
        None => most,
    };
    let token_length = entry.token_length();
    if token_length <= FREE {
        return paced;
    }
    (READ_BUFFER / token_length * FREE).max(SHORTEST).min(paced)
}
