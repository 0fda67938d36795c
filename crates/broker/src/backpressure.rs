//! How much waits for a socket, and whether there is room for more.

use crate::shard::cork;
use crate::sync::{AtomicU32, AtomicUsize, Ordering};

/// What became of an attempt to queue bytes for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    Queued,
    /// The client takes nothing, and too much has come since.
    Slow,
    /// Too much has been sent at once.
    Full,
}

/// What may wait for each socket of a listener, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Behind a burst, while the client takes nothing.
    late: usize,
    /// In all while the kernel takes what it is given.
    burst: usize,
}

/// What is sent in one task, or is waiting to be offered to the kernel, may be so many times the backpressure limit: nobody
/// knows yet how fast the client reads. A page of history fits, and a loop without an end is noticed.
pub(crate) const BURST: usize = 16;

impl Limits {
    pub(crate) fn new(max_backpressure: usize) -> Self {
        Self {
            late: max_backpressure,
            // So that no socket has so much waiting that it is taken for stalled.
            burst: max_backpressure.saturating_mul(BURST).min(STALLED / 2),
        }
    }
}

/// The kernel takes no more for this socket: a bit of how much waits for it, so that whoever is about to send sees it without
/// a look of its own.
const STALLED: usize = 1 << (usize::BITS - 1);

/// What waits for one socket. Any thread takes room; what goes is for the socket's shard alone to tell.
pub(crate) struct Backpressure {
    /// Bytes queued and not yet handed to the kernel: in the shard's inbox or in the outbox; and [`STALLED`].
    waiting: AtomicUsize,
    /// Of these, what counts against the client while it is stalled; 4 GiB at the most.
    late: AtomicU32,
    /// The moment from which on it is stalled.
    stalled_at: AtomicU32,
}

impl Backpressure {
    pub(crate) fn new() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            late: AtomicU32::new(0),
            stalled_at: AtomicU32::new(0),
        }
    }

    /// Takes room for a message. A socket for which nothing waits takes one of any size, so that a message the limit of
    /// messages allows is never refused out of hand.
    #[inline]
    pub(crate) fn reserve(&self, bytes: usize, limits: &Limits) -> Reservation {
        if self.take_room(bytes, |before, after| before == 0 || after <= limits.burst) {
            return Reservation::Queued;
        }
        self.reserve_at_limit(bytes, limits, true)
    }

    /// Takes room for several messages, if there is room for all of them; `bytes` is what they have together.
    pub(crate) fn reserve_together(&self, bytes: usize, limits: &Limits) -> bool {
        self.take_room(bytes, |_, after| after <= limits.burst)
            || self.reserve_at_limit(bytes, limits, false) == Reservation::Queued
    }

    /// `fits` gets how much waits before and after, which is beyond every limit while the socket is [`STALLED`].
    #[inline]
    fn take_room(&self, bytes: usize, fits: impl Fn(usize, usize) -> bool) -> bool {
        // Never added to and taken back: the shard would see bytes that do not come, and keep its drain event.
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                let after = before.saturating_add(bytes);
                fits(before, after).then_some(after)
            })
            .is_ok()
    }

    /// The socket is stalled, or too much waits for it. A client is slow by what is sent after the kernel has refused to take
    /// more for it, in tasks that began later. What was sent before is a burst.
    #[cold]
    fn reserve_at_limit(&self, bytes: usize, limits: &Limits, passes_alone: bool) -> Reservation {
        let mut seen = self.waiting.load(Ordering::Acquire);
        // It may begin or cease to be stalled at any moment.
        loop {
            let waits = seen & !STALLED;
            let passes = passes_alone && waits == 0;
            let is_stalled = seen & STALLED != 0;
            if is_stalled && cork::task_began_after(self.stalled_at.load(Ordering::Relaxed)) {
                return self.reserve_late(bytes, limits, passes);
            }
            if !passes && waits.saturating_add(bytes) > limits.burst {
                return Reservation::Full;
            }
            let after = seen.saturating_add(bytes);
            match self.waiting.compare_exchange_weak(
                seen,
                after,
                Ordering::Relaxed,
                Ordering::Acquire,
            ) {
                Ok(_) => return Reservation::Queued,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes room behind a burst, whatever of that still waits.
    fn reserve_late(&self, bytes: usize, limits: &Limits, passes: bool) -> Reservation {
        let most = saturated(limits.late).min(u32::MAX - 1); // or nothing would be more
        let counted = self
            .late
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |late| {
                let after = late.saturating_add(saturated(bytes));
                (passes || after <= most).then_some(after)
            });
        if counted.is_err() {
            return Reservation::Slow;
        }
        self.reserve_unconditionally(bytes);
        Reservation::Queued
    }

    /// Counts bytes that are queued whatever already waits: a close frame has to go out.
    pub(crate) fn reserve_unconditionally(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` do not wait any more.
    pub(crate) fn release(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed) & !STALLED
    }

    /// Whether more than half of what may wait for a slow client does.
    #[inline]
    pub(crate) fn is_over_half(&self, limits: &Limits) -> bool {
        self.waiting.load(Ordering::Relaxed) << 1 > limits.late // without the topmost bit
    }

    /// The kernel takes no more for now.
    pub(crate) fn stalls(&self) {
        if self.waiting.load(Ordering::Relaxed) & STALLED == 0 {
            self.late.store(0, Ordering::Relaxed);
            let moment = cork::next_moment().get();
            self.stalled_at.store(moment, Ordering::Relaxed);
            self.waiting.fetch_or(STALLED, Ordering::Release);
            return;
        }
        // What was there first has gone first.
        let waits = saturated(self.waiting());
        let still_late = |late: u32| Some(late.min(waits));
        let _ = self
            .late
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, still_late);
    }

    /// The kernel has taken everything.
    pub(crate) fn flows(&self) {
        self.waiting.fetch_and(!STALLED, Ordering::Relaxed);
    }
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
