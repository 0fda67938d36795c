//! The shard's state and its turn.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::vec::Drain;

use bytes::Bytes;
use slab::Slab;

use super::ShardHandle;
use super::alarm::Alarm;
use super::chores::{Chore, Chores};
use super::cork;
use super::inbox::{Command, Inbox, next_frame};
use super::large::LargeMessages;
use super::pacing::Paused;
use super::requests::Pending;
use super::routing::Routed;
use super::socket::Socket;
use super::staging::Staging;
use super::stopping::Farewell;
use super::waiters::Waiters;
use crate::broker::Core;
use crate::codec::Inflater;
use crate::http::connection;
use crate::http::response::PackedResponse;
use crate::id::RequestId;
use crate::listener::{self, Admission};
use crate::outbox::Runs;
use crate::reactor::{Reactor, Readiness};
use crate::registry::IdMap;
use crate::shrink;
use crate::transport::Transport;

/// The shard's one read buffer. An idle socket has none; 64 KiB is what a socket receives at once at most on loopback
/// with default kernel settings, and fits the second-level cache beside the rest.
pub(super) const READ_BUFFER: usize = 64 * 1024;

/// For so long a turn goes on with sockets that had more than one read, behind those of which there is news: what a
/// client that says little waits for those that say much. Fewer system calls for the latter do not pay for a longer one.
pub(super) const TIME_FOR_MORE: Duration = Duration::from_micros(20);

/// The one that the threads fill, and the spare one.
pub(super) const INBOXES: u8 = 2;

/// Everything an I/O thread owns. No lock is needed for any of it.
pub(super) struct Shard {
    pub(super) handle: Arc<ShardHandle>,
    pub(super) core: Arc<Core>,
    pub(super) sockets: Slab<Socket>,
    pub(super) requests: IdMap<RequestId, Pending>,
    pub(super) read_buffer: Vec<u8>,
    /// Empty: what the threads fill while the shard empties the other one.
    spare_inbox: Inbox,
    /// So many of the next inboxes give memory back that a burst has left.
    pub(super) shrinks: u8,
    /// What clients sent behind their handshake, until it is read: in the pieces and under the conditions in which a
    /// stream is read, for many such clients are no less than one that floods.
    pub(super) early: HashMap<u32, Bytes>,
    /// What the close frames of parting sockets said, by the key of their socket: they are answered with the same.
    pub(super) goodbyes: HashMap<u32, (u16, Box<str>)>,
    /// Inflates for every socket; made for the first one that has agreed on permessage-deflate.
    pub(super) inflater: Option<Inflater>,
    pub(super) large: LargeMessages,
    /// Memory for what waits in outboxes.
    pub(super) runs: Runs,
    /// What a read has brought that takes a native route.
    pub(super) routed: Routed,
    /// Events gathered in this turn.
    pub(super) staging: Staging,
    /// Sockets with something to write.
    pub(super) dirty: Vec<u32>,
    reactor: Reactor,
    /// Sockets of which the reactor has news, and what.
    news: Vec<(u32, Readiness)>,
    /// Sockets to visit in the next turn although the reactor has nothing new: they had more than one buffer.
    again: VecDeque<u32>,
    /// Sockets that are not read because their worker is full, by worker.
    pub(super) parked: HashMap<u32, Parked>,
    /// The socket whose events wait in a queue of its own, by that queue: a worker that has left is busy with it.
    pub(super) held_back: HashMap<u32, u32>,
    /// Sockets whose worker has room again, and of which there was news before.
    pub(super) unparked: VecDeque<u32>,
    /// What keeps stops waiting of the sockets that have gone; released when their last events are handed over.
    pub(super) departed: Vec<Admission>,
    /// The time of this turn, in milliseconds since the shard began; wraps after 49 days.
    pub(super) now: u32,
    /// The same time, which does not wrap.
    pub(super) clock: u64,
    pub(super) sweep: super::sweep::Sweep,
    /// Sockets that are over a rate and not read for that.
    pub(super) paused: Paused,
    /// What is done in pieces.
    pub(super) chores: Chores,
    /// Goodbyes of listeners that are being stopped.
    pub(super) farewells: Vec<Farewell>,
    pub(super) waiters: Waiters,
    alarm: Alarm,
}

impl Shard {
    pub(super) fn new(handle: Arc<ShardHandle>, core: Arc<Core>, reactor: Reactor) -> Self {
        Self {
            handle,
            core,
            sockets: Slab::new(),
            requests: IdMap::default(),
            read_buffer: vec![0; READ_BUFFER],
            spare_inbox: Inbox::default(),
            shrinks: 0,
            early: HashMap::new(),
            goodbyes: HashMap::new(),
            inflater: None,
            large: LargeMessages::default(),
            runs: Runs::default(),
            routed: Routed::default(),
            staging: Staging::default(),
            dirty: Vec::new(),
            reactor,
            news: Vec::new(),
            again: VecDeque::new(),
            parked: HashMap::new(),
            held_back: HashMap::new(),
            unparked: VecDeque::new(),
            departed: Vec::new(),
            now: 0,
            clock: 0,
            sweep: super::sweep::Sweep::default(),
            paused: Paused::default(),
            chores: Chores::default(),
            farewells: Vec::new(),
            waiters: Waiters::default(),
            alarm: Alarm::new(),
        }
    }

    pub(super) async fn run(mut self) {
        poll_fn(|cx| self.turn(cx)).await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.handle.answer_wake(cx.waker());
        self.clock = self.alarm.clock();
        self.now = self.clock as u32;
        self.take_inbox();
        self.say_farewells();
        self.resume_paused();
        // What sockets relay to other shards wakes each of these once.
        cork::cork();
        self.visit_ready(cx);
        let is_inflating = self.inflate_large();
        cork::uncork();
        self.do_chores();
        let next_sweep = self.sweep_if_due();
        self.write_dirty();
        self.staging.hand_over(self.handle.index);
        self.departed.clear();
        self.handle
            .counters
            .pending_requests
            .set(self.requests.len() as u64);
        self.handle
            .counters
            .paused_sockets
            .set(self.paused.len() as u64);
        let next = [next_sweep, self.paused.next(), self.next_farewell()];
        self.alarm.set(next.into_iter().flatten().min(), cx);
        let has_more = !self.again.is_empty() || !self.dirty.is_empty() || !self.chores.is_empty();
        if is_inflating || has_more || self.has_farewells() {
            // Behind a look at the reactor: a wake-up would only be behind the tasks that are ready.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    }

    pub(super) fn take_inbox(&mut self) {
        let mut inbox = std::mem::take(&mut self.spare_inbox);
        std::mem::swap(&mut inbox, &mut *self.handle.inbox.lock());
        let mut bytes = inbox.bytes.as_slice();
        let mut commands = inbox.commands.drain(..);
        while let Some(command) = commands.next() {
            self.obey(command, &mut commands, &mut bytes);
        }
        drop(commands);
        inbox.clear();
        if self.shrinks > 0 {
            self.shrinks -= 1;
            inbox.shrink();
        }
        self.spare_inbox = inbox;
    }

    /// `next` are those behind this command. `bytes` begins with what belongs to it, if it has something there.
    fn obey(&mut self, command: Command, next: &mut Drain<'_, Command>, bytes: &mut &[u8]) {
        match command {
            Command::Listen { listening, guard } => {
                let (core, here) = (Arc::clone(&self.core), Arc::clone(&self.handle));
                tokio::spawn(listener::accept(guard, listening, core, here));
            }
            Command::Connect {
                stream,
                peer,
                admission,
            } => match Transport::new(stream, self.reactor.sources()) {
                Ok(transport) => {
                    let handle = Arc::clone(&self.handle);
                    connection::spawn(transport, peer, handle, admission);
                }
                Err(error) => self.core.accept_failures.note(&error),
            },
            Command::Request { id, block, reply } => self.request(id, &block, reply),
            Command::RequestCopied { id, length, reply } => {
                let block = bytes.split_off(..length as usize);
                self.request(id, block.expect("put in with the command"), reply);
            }
            Command::Upgrade {
                id,
                block,
                terms,
                question,
                reply,
            } => match question {
                Some(question) => self.ask_origin(id, block, terms, *question, reply),
                None => self.upgrade(id, block, terms, reply, self.now),
            },
            Command::JudgeOrigin { request, verdict } => self.judge_origin(request, verdict),
            Command::ClientEnded(id) => self.client_ended(id),
            Command::ClientGone(id) => self.client_gone(id),
            Command::Disconnected(admission) => self.departed.push(admission),
            Command::Respond { id, response } => self.respond(id, (*response).into()),
            Command::RespondCopied {
                id,
                status,
                headers,
                length,
            } => {
                let answer = bytes.split_off(..length as usize);
                let answer = answer.expect("put in with the command");
                let packed = PackedResponse::new(status, answer, headers as usize);
                self.respond(id, packed.into());
            }
            Command::Decide { id, decision } => self.decide(id, *decision),
            Command::Adopt {
                reserved,
                transport,
                early,
                guard,
                handshake,
            } => {
                self.adopt(reserved, transport, early, guard);
                drop(handshake);
            }
            Command::Abandon(entry) => self.abandon(&entry),
            Command::Deliver { entry, frame } => self.deliver(&entry, &frame),
            Command::DeliverCopied { frames } => {
                for _ in 0..frames {
                    let (id, key, frame) = next_frame(bytes).expect("put in with the command");
                    self.deliver_copied(key, id, frame);
                }
            }
            Command::Publish(publication) => self.publish(&publication, next.len() == 0),
            Command::PublishCopied(first) => self.publish_copied(first, next, bytes),
            Command::Relay(relay) => self.relayed(&relay),
            Command::Close { entry, by } => self.close_from_call(&entry, by),
            Command::Leave(leaving) => self.begin(Chore::Leave(leaving)),
            Command::CloseBegun(entry) => self.close_begun(&entry),
            Command::WhenDrained { entry, then } => self.when_drained(&entry, then),
            Command::WhenClosed { entry, then } => self.when_closed(&entry, then),
            Command::Hold { entry, held } => self.hold(&entry, held),
            Command::Rerouted(entry) => self.rerouted(&entry),
            Command::WorkerDrained(worker) => self.unpark(worker),
            Command::WorkerLeft { worker, ended } => self.worker_left(&worker, ended),
            Command::Released(holding) => self.released(&holding),
            Command::StopListener {
                listener,
                code,
                reason,
                spread,
            } => {
                self.stop_listener(listener, code, reason, spread);
            }
            Command::CutListener(listener) => self.cut_listener(&listener),
            Command::Alert => self.core.wake_connections(),
            Command::Spawn(task) => {
                tokio::spawn(task);
            }
        }
    }

    /// First the sockets that have waited for their worker, then those of which the reactor has news, then, for a while,
    /// those that had more than one read.
    fn visit_ready(&mut self, cx: &mut Context<'_>) {
        for _ in 0..self.unparked.len() {
            if let Some(key) = self.unparked.pop_front() {
                self.visit(key, Reason::News);
            }
        }
        let mut news = std::mem::take(&mut self.news);
        self.reactor.look(cx, &mut news);
        for (key, readiness) in news.drain(..) {
            let socket = self.sockets.get_mut(key as usize);
            if let Some(wire) = socket.and_then(|socket| socket.wire.as_mut()) {
                wire.add(readiness);
                self.visit(key, Reason::News);
            }
        }
        self.news = news; // it keeps its memory for the next turn
        if self.again.is_empty() {
            return;
        }
        let began = Instant::now();
        for _ in 0..self.again.len() {
            let Some(key) = self.again.pop_front() else {
                return;
            };
            if let Some(socket) = self.sockets.get_mut(key as usize) {
                socket.revisited = false;
            }
            self.visit(key, Reason::More);
            if began.elapsed() > TIME_FOR_MORE {
                return;
            }
        }
    }

    /// Has a socket looked at without news from the reactor.
    pub(super) fn revisit(&mut self, key: u32) {
        if let Some(socket) = self.sockets.get_mut(key as usize)
            && !std::mem::replace(&mut socket.revisited, true)
        {
            self.again.push_back(key);
        }
    }

    /// The reactor, or the shard itself, has a reason to look at this socket.
    fn visit(&mut self, key: u32, reason: Reason) {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return;
        };
        let has_turn_coming = socket.revisited;
        if !socket.outbox.is_empty() {
            self.mark_dirty(key);
        }
        // That there is room to write again is news too, but no reason to read before the turn.
        if !has_turn_coming {
            self.receive(key, reason);
        }
    }

    /// Gives memory back of what there was much of.
    pub(super) fn shrink_news(&mut self) {
        shrink::list(&mut self.news);
        shrink::queue(&mut self.again);
        self.reactor.sources().shrink();
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        let maps = self.early.capacity() + self.parked.capacity();
        let lists = self.dirty.capacity() + self.unparked.capacity() + self.again.capacity();
        self.sockets.capacity() + maps + lists
    }

    #[cfg(test)]
    pub(super) fn forget_again(&mut self) {
        self.again.clear();
    }

    /// Puts a socket on the list of those to write at the end of the turn.
    pub(super) fn mark_dirty(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        if !std::mem::replace(&mut socket.dirty, true) {
            self.dirty.push(key);
        }
    }
}

/// Why a socket is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The reactor has told something.
    News,
    /// It had more than one read, or has become readable for a reason of our own.
    More,
}

/// Sockets that wait for one worker, in the order in which they will be read.
#[derive(Debug, Default)]
pub(super) struct Parked {
    pub(super) with_news: Vec<u32>,
    pub(super) with_more: Vec<u32>,
    /// Those whose drain event waits.
    pub(super) drained: Vec<u32>,
}

/// Finds the socket of an entry, if it still is the one at that key.
pub(super) fn find<'a>(
    sockets: &'a mut Slab<Socket>,
    entry: &Arc<crate::registry::SocketEntry>,
) -> Option<&'a mut Socket> {
    sockets
        .get_mut(entry.key as usize)
        .filter(|socket| Arc::ptr_eq(&socket.entry, entry))
}
