//! What waits for one worker.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Batch;
use super::record::{Record, kind};
use super::worker::{Finished, Interest, WorkerWaker};
use crate::id::{RequestId, SocketId};
use crate::registry::IdMap;
use crate::stats::WorkerStats;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// A worker whose waiting events hold more than this is full: its sockets are not read until half has gone.
/// A flood at a worker that sleeps stays within this much memory, plus one read per shard.
const QUEUE_BYTES: u64 = 16 << 20;

/// The same for the number of events: a worker is some ms behind at the most, whatever a flood consists of. Ten clients
/// that flooded with empty messages made everybody else of their worker wait 50 ms for 65,536 of them.
const QUEUE_EVENTS: u64 = 2 * 1024;

/// Open events of upgrades that a handler has decided may take so many times that room: to turn such a client away costs the
/// application a decision, so it happens later than for those of whom nobody has heard.
const DECIDED: u64 = 2;

/// How much one [`Worker::take`] gives at most, unless a single batch is larger. Joining batches costs a copy, which pays for
/// small ones.
const TAKE_BYTES: usize = 16 * 1024;

/// The queue of one worker.
pub(crate) struct WorkerQueue {
    pub(crate) id: u32,
    pub(crate) interest: Interest,
    waker: Option<Arc<dyn WorkerWaker>>,
    state: Mutex<QueueState>,
    /// The shards read no socket of this worker while it is set.
    full: AtomicBool,
    /// Set once batches are refused; a hint read without the lock.
    closed: AtomicBool,
    events_given: AtomicU64,
}

#[derive(Default)]
struct QueueState {
    /// Batches in the order they were handed over, with the shard each came from.
    batches: VecDeque<(u16, Batch)>,
    events: u64,
    bytes: u64,
    /// Open events of sockets whose 101 is under way, see [`OpenPlace`].
    expected_events: u64,
    expected_bytes: u64,
    /// What the last `take` gave; it counts as waiting until the next.
    in_hand_events: u64,
    in_hand_bytes: u64,
    /// `given` before the last `take`.
    settled: Finished,
    /// The worker has found its queue empty and waits for a wake-up.
    asleep: bool,
    life: Life,
    /// While it is retired: the sockets it is still busy with, and where the events of each wait.
    held_back: IdMap<SocketId, Arc<WorkerQueue>>,
    /// While it is retired: requests it is handling whose client has gone.
    aborts: Batch,
    /// Events given since registration.
    given: Finished,
    /// Close events given whose handler has not begun: they survive the worker.
    given_closes: IdMap<SocketId, (u16, Box<[u8]>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Working,
    /// Takes no more batches, finishes what it was given.
    Retired,
    Ended,
}

impl WorkerQueue {
    pub(crate) fn new(id: u32, interest: Interest, waker: Arc<dyn WorkerWaker>) -> Arc<Self> {
        Arc::new(Self::build(id, interest, Some(waker)))
    }

    /// The queue of nobody, where events wait for a worker: it is always full, so that no more is read.
    pub(crate) fn of_nobody(id: u32) -> Arc<Self> {
        let queue = Self::build(id, Interest::default(), None);
        queue.full.store(true, Ordering::Release);
        Arc::new(queue)
    }

    fn build(id: u32, interest: Interest, waker: Option<Arc<dyn WorkerWaker>>) -> Self {
        Self {
            id,
            interest,
            waker,
            state: Mutex::new(QueueState {
                asleep: true,
                ..QueueState::default()
            }),
            full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            events_given: AtomicU64::new(0),
        }
    }

    /// Events wait here for a worker.
    pub(crate) fn is_of_nobody(&self) -> bool {
        self.waker.is_none()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes room for the open event of an upgrade that nobody has to decide; `None`: there is none, or no worker.
    pub(super) fn place(self: &Arc<Self>, bytes: usize) -> Option<OpenPlace> {
        self.place_within(bytes, 1)
    }

    /// Takes room for the open event of an upgrade that has been decided.
    pub(super) fn place_decided(self: &Arc<Self>, bytes: usize) -> Option<OpenPlace> {
        self.place_within(bytes, DECIDED)
    }

    fn place_within(self: &Arc<Self>, bytes: usize, times: u64) -> Option<OpenPlace> {
        let mut state = self.state.lock();
        let is_full = state.waiting_bytes() + state.expected_bytes > times * QUEUE_BYTES
            || state.waiting_events() + state.expected_events > times * QUEUE_EVENTS;
        if is_full || state.life != Life::Working {
            return None;
        }
        Some(self.expect_open(&mut state, bytes))
    }

    /// Takes room for the open event of a socket that has lost its worker on the way, whatever there is.
    pub(crate) fn place_anyway(self: &Arc<Self>, bytes: usize) -> OpenPlace {
        self.expect_open(&mut self.state.lock(), bytes)
    }

    fn expect_open(self: &Arc<Self>, state: &mut QueueState, bytes: usize) -> OpenPlace {
        let (events, bytes) = if self.interest.ignores_opens {
            (0, 0) // it gets none
        } else {
            (1, bytes as u64)
        };
        state.expected_events += events;
        state.expected_bytes += bytes;
        OpenPlace {
            queue: Arc::clone(self),
            events,
            bytes,
        }
    }

    /// Hands a batch over and wakes the worker if it sleeps. A worker that has left refuses: the batch comes back.
    pub(crate) fn push(&self, shard: u16, batch: Batch) -> Result<(), Batch> {
        let mut state = self.state.lock();
        if state.life != Life::Working {
            return Err(batch);
        }
        state.events += u64::from(batch.events);
        state.bytes += batch.len() as u64;
        state.batches.push_back((shard, batch));
        if state.waiting_bytes() > QUEUE_BYTES || state.waiting_events() > QUEUE_EVENTS {
            self.full.store(true, Ordering::Release);
        }
        let wake = std::mem::replace(&mut state.asleep, false);
        drop(state);
        if let (true, Some(waker)) = (wake, &self.waker) {
            waker.wake();
        }
        Ok(())
    }

    /// The next batch, and whether the queue has just ceased to be full.
    pub(super) fn take(&self) -> (Option<Batch>, bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.in_hand_events = 0;
        state.in_hand_bytes = 0;
        state.settled = state.given;
        if !self.interest.confirms_closes {
            state.given_closes.clear();
        }
        if state.life != Life::Working {
            let aborts = std::mem::take(&mut state.aborts);
            state.asleep = aborts.len() == 0;
            return ((aborts.len() > 0).then_some(aborts), false);
        }
        let mut taken: Option<Batch> = None;
        while let Some((_, next)) = state.batches.front() {
            if taken
                .as_ref()
                .is_some_and(|t| t.len() + next.len() > TAKE_BYTES)
            {
                break;
            }
            let (shard, batch) = state.batches.pop_front().expect("just seen");
            state.note_given(shard, &batch);
            match &mut taken {
                None => taken = Some(batch),
                Some(taken) => taken.append(batch),
            }
        }
        self.events_given
            .fetch_add(state.in_hand_events, Ordering::Relaxed);
        state.asleep = taken.is_none();
        let relieved =
            state.waiting_bytes() <= QUEUE_BYTES / 2 && state.waiting_events() <= QUEUE_EVENTS / 2;
        let drained = relieved && self.waker.is_some() && self.full.swap(false, Ordering::AcqRel);
        (taken, drained)
    }

    /// `false` when the worker was given no such close event.
    pub(super) fn begin_close(&self, socket: SocketId) -> bool {
        self.state.lock().given_closes.remove(&socket).is_some()
    }

    /// `None` when it has ended before; otherwise what it took with it.
    pub(super) fn end(&self, finished: Option<Finished>) -> Option<Finished> {
        let mut state = self.state.lock();
        if state.life == Life::Ended {
            return None;
        }
        state.life = Life::Ended;
        self.closed.store(true, Ordering::Release);
        let finished = finished.unwrap_or(state.settled);
        Some(Finished {
            messages: state.given.messages.wrapping_sub(finished.messages),
            others: state.given.others.wrapping_sub(finished.others),
        })
    }

    pub(super) fn retire(&self, held_back: IdMap<SocketId, Arc<Self>>) -> bool {
        let mut state = self.state.lock();
        if state.life != Life::Working {
            return false;
        }
        state.life = Life::Retired;
        state.held_back = held_back;
        self.closed.store(true, Ordering::Release);
        true
    }

    /// The worker that had this request has left; if it is still handling it, it is told that nobody waits.
    pub(crate) fn abort(&self, request: RequestId) {
        let mut state = self.state.lock();
        if state.life != Life::Retired {
            return;
        }
        state.aborts.abort(request);
        let wake = std::mem::replace(&mut state.asleep, false);
        drop(state);
        if let (true, Some(waker)) = (wake, &self.waker) {
            waker.wake();
        }
    }

    pub(super) fn take_held_back(&self) -> IdMap<SocketId, Arc<Self>> {
        std::mem::take(&mut self.state.lock().held_back)
    }

    pub(super) fn release(&self, socket: SocketId) -> Option<Arc<Self>> {
        self.state.lock().held_back.remove(&socket)
    }

    /// Who gets the events of a socket while this worker, which has left, is still busy with it.
    pub(crate) fn holding_of(&self, socket: SocketId) -> Option<Arc<Self>> {
        self.state.lock().held_back.get(&socket).cloned()
    }

    /// What a departed worker leaves to others in one shard, which alone may ask for it: only that shard adds to its
    /// part, so nothing can slip in behind. `ended`: also the close events whose handler never began.
    pub(crate) fn leftovers_of(&self, shard: u16, ended: bool) -> Vec<Batch> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut leftovers = Vec::new();
        if ended {
            let closes = state.given_closes.extract_if(|_, (from, _)| *from == shard);
            for (_, (_, record)) in closes {
                let mut batch = Batch::default();
                batch.copy(Record::kept(&record));
                leftovers.push(batch);
            }
        }
        let (theirs, others) = std::mem::take(&mut state.batches)
            .into_iter()
            .partition(|(from, _)| *from == shard);
        state.batches = others;
        for (_, batch) in Vec::from(theirs) {
            state.events -= u64::from(batch.events);
            state.bytes -= batch.len() as u64;
            leftovers.push(batch);
        }
        leftovers
    }

    pub(crate) fn stats(&self) -> WorkerStats {
        let state = self.state.lock();
        WorkerStats {
            id: self.id,
            queued_events: state.events,
            queued_bytes: state.bytes,
            in_hand_events: state.in_hand_events,
            events: self.events_given.load(Ordering::Relaxed),
            full: self.is_full(),
        }
    }
}

/// Room for an open event in the queue of a worker, until the event is on its way there or will not come.
pub(crate) struct OpenPlace {
    queue: Arc<WorkerQueue>,
    events: u64,
    bytes: u64,
}

impl OpenPlace {
    /// Whose it is.
    pub(crate) fn queue(&self) -> &Arc<WorkerQueue> {
        &self.queue
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        if self.events > 0 {
            let mut state = self.queue.state.lock();
            state.expected_events -= self.events;
            state.expected_bytes -= self.bytes;
        }
    }
}

impl QueueState {
    fn waiting_bytes(&self) -> u64 {
        self.bytes + self.in_hand_bytes
    }

    fn waiting_events(&self) -> u64 {
        self.events + self.in_hand_events
    }

    fn note_given(&mut self, shard: u16, batch: &Batch) {
        self.events -= u64::from(batch.events);
        self.bytes -= batch.len() as u64;
        self.in_hand_events += u64::from(batch.events);
        self.in_hand_bytes += batch.len() as u64;
        let others = batch.events - batch.messages - batch.closes - batch.requests;
        self.given.messages = self.given.messages.wrapping_add(batch.messages);
        self.given.others = self.given.others.wrapping_add(others);
        if batch.closes == 0 {
            return;
        }
        for record in batch.records().filter(|r| r.kind() == kind::CLOSE) {
            let kept = (shard, record.bytes().into());
            self.given_closes.insert(record.socket(), kept);
        }
    }
}
