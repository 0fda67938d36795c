//! Memory of large messages, and of the batches that cross to workers, which goes from one to the next.
//!
//! A large message is put together by one thread and let go by another, and its frame goes the other way; so does a batch.
//! Allocators give such memory back to the kernel, and to get it again, page by page, takes longer than to send what stands in it
//! (`docs/performance.md`). So it is kept here for a while, and what nobody has needed for a second goes back.

use std::array;
use std::mem;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller memory is the allocator's business, in bytes.
const SHORTEST: usize = 8 * 1024;

/// Larger memory too: messages of this size are too rare to wait for each other.
const LONGEST: usize = 4 * 1024 * 1024;

/// The most that is kept in one piece, in bytes.
const MOST_KEPT: usize = LONGEST + EXTRA;

/// Sizes from one power of two to the next: at most a quarter more than what is asked for.
const STEPS: usize = 4;

/// So much more each size has, for a frame's header and the like: applications like powers of two.
const EXTRA: usize = 64;

const SIZES: usize = (LONGEST / SHORTEST).ilog2() as usize * STEPS + 1;

/// So much is kept at the most, in bytes. A sanitizer sees a late look only into memory that has been freed.
const MOST_FREE: usize = if cfg!(wsbroker_sanitize) {
    0
} else {
    64 * 1024 * 1024
};

/// What nobody has needed for so long goes back to the allocator.
const AGE: Duration = Duration::from_secs(1);

/// So much may be taken for what has been announced and has not come, by all messages together, in bytes.
const MOST_AHEAD: usize = 16 * 1024 * 1024;

static POOL: LazyLock<Pool> = LazyLock::new(Pool::default);

static ALLOWANCE: Allowance = Allowance(AtomicUsize::new(MOST_AHEAD));

/// Empty memory for at least `capacity` bytes, and for at most a quarter more.
#[must_use]
#[inline]
pub fn take(capacity: usize) -> Vec<u8> {
    if capacity < SHORTEST {
        return Vec::with_capacity(capacity);
    }
    POOL.take(capacity)
}

/// The most that [`take`] can be asked for without giving more than `capacity` bytes.
fn size_within(capacity: usize) -> usize {
    match Size::of(capacity) {
        Some(size) if size.bytes > capacity => size.smaller(),
        _ => capacity,
    }
}

/// Makes room for `needed` bytes in a buffer that will not get longer than `most`. Its memory doubles, so that any number of
/// pieces costs linear time, and goes to the next one that needs it when a larger one takes its place.
pub(crate) fn grow(buffer: &mut Vec<u8>, needed: usize, most: usize) {
    let doubled = buffer.capacity().saturating_mul(2);
    let capacity = if doubled >= most {
        most.max(needed)
    } else {
        size_within(doubled).max(needed)
    };
    if capacity > MOST_KEPT {
        buffer.reserve_exact(capacity - buffer.len()); // for which pages need not be copied
    } else {
        move_to(take(capacity), buffer);
    }
}

/// Has a buffer go on in other memory, which is empty and has room for it.
pub(crate) fn move_to(mut memory: Vec<u8>, buffer: &mut Vec<u8>) {
    memory.extend_from_slice(buffer);
    give_back(mem::replace(buffer, memory));
}

/// Keeps the memory for the next one, if [`take`] gave it.
#[inline]
pub fn give_back(memory: Vec<u8>) {
    if memory.capacity() >= SHORTEST {
        POOL.give_back(memory);
    }
}

/// Bytes whose memory [`take`] gave, which is kept for the next one when nobody has them any more.
#[must_use]
#[inline]
pub fn share(bytes: Vec<u8>) -> Bytes {
    if Size::of(bytes.capacity()).is_none() {
        return bytes.into();
    }
    Bytes::from_owner(Shared(bytes))
}

/// Memory for all of a message that has been announced, if that is not too large and not too much is announced altogether.
/// The advance is to be told of what comes, and kept until the message is there.
pub(crate) fn take_ahead(capacity: usize) -> Option<(Vec<u8>, Advance)> {
    if capacity > MOST_KEPT {
        return None;
    }
    let advance = ALLOWANCE.advance(capacity)?;
    Some((take(capacity), advance))
}

/// What is left of [`MOST_AHEAD`].
struct Allowance(AtomicUsize);

/// So many bytes have been taken ahead, and have not come.
#[derive(Debug)]
pub(crate) struct Advance {
    left: &'static AtomicUsize,
    bytes: usize,
}

impl Allowance {
    fn advance(&'static self, bytes: usize) -> Option<Advance> {
        let left = &self.0;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(bytes)
        })
        .ok()?;
        Some(Advance { left, bytes })
    }
}

impl Advance {
    /// So many more have come.
    pub(crate) fn received(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Advance {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// To be called now and then while there is a client: memory is kept from then on, and what was not needed of late goes
/// back to the allocator.
pub(crate) fn age() {
    POOL.age(Instant::now());
}

/// The last client has left, and nobody calls [`age`] any more: gives everything back, and keeps nothing.
pub(crate) fn rest() {
    POOL.rest();
}

struct Shared(Vec<u8>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        give_back(mem::take(&mut self.0));
    }
}

/// A size of memory that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    index: usize,
    bytes: usize,
}

impl Size {
    /// The smallest for `capacity` bytes; `None` for what is not kept.
    #[inline]
    fn of(capacity: usize) -> Option<Self> {
        if !(SHORTEST..=MOST_KEPT).contains(&capacity) {
            return None;
        }
        let capacity = (capacity - EXTRA).max(SHORTEST);
        // The last power of two below, and how many steps of a quarter of it lead to the capacity: 5 to 8.
        let exponent = (capacity - 1).ilog2();
        let step = (1 << exponent) / STEPS;
        let steps = capacity.div_ceil(step);
        let octave = (exponent + 1 - SHORTEST.ilog2()) as usize;
        Some(Self {
            index: (octave + 1) * STEPS + steps - 3 * STEPS,
            bytes: steps * step + EXTRA,
        })
    }

    /// The bytes of the next smaller size; below the first one no size is kept.
    fn smaller(self) -> usize {
        let bytes = self.bytes - EXTRA;
        if bytes == SHORTEST {
            return SHORTEST - 1;
        }
        let step = (1 << (bytes - 1).ilog2()) / STEPS;
        bytes - step + EXTRA
    }
}

#[derive(Debug)]
struct Pool {
    sizes: [Mutex<Free>; SIZES],
    /// What all of them keep, in bytes.
    free: AtomicUsize,
    /// Nothing is kept.
    resting: AtomicBool,
    aged: Mutex<Instant>,
}

/// Memory of one size. What came last goes first: a cache may still have it.
#[derive(Debug, Default)]
struct Free {
    memory: Vec<Vec<u8>>,
    /// The fewest there have been since the last look: so many were not needed.
    fewest: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            sizes: array::from_fn(|_| Mutex::default()),
            free: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            aged: Mutex::new(Instant::now()),
        }
    }
}

impl Pool {
    fn take(&self, capacity: usize) -> Vec<u8> {
        let Some(size) = Size::of(capacity) else {
            return Vec::with_capacity(capacity);
        };
        let mut free = self.sizes[size.index].lock();
        match free.memory.pop() {
            Some(memory) => {
                free.fewest = free.fewest.min(free.memory.len());
                drop(free);
                self.free.fetch_sub(size.bytes, Ordering::Relaxed);
                memory
            }
            None => {
                drop(free);
                Vec::with_capacity(size.bytes)
            }
        }
    }

    fn give_back(&self, mut memory: Vec<u8>) {
        let Some(size) = Size::of(memory.capacity()).filter(|s| s.bytes == memory.capacity())
        else {
            return;
        };
        let mut free = self.sizes[size.index].lock();
        // Under the lock, which whoever lets the pool rest takes behind this.
        if self.resting.load(Ordering::Acquire) {
            return;
        }
        if self.free.fetch_add(size.bytes, Ordering::Relaxed) + size.bytes > MOST_FREE {
            self.free.fetch_sub(size.bytes, Ordering::Relaxed);
            return;
        }
        memory.clear();
        free.memory.push(memory);
    }

    fn age(&self, now: Instant) {
        self.resting.store(false, Ordering::Release);
        {
            let Some(mut aged) = self.aged.try_lock() else {
                return; // another thread is at it
            };
            if now.saturating_duration_since(*aged) < AGE {
                return;
            }
            *aged = now;
        }
        self.release(|free| free.fewest);
    }

    fn rest(&self) {
        self.resting.store(true, Ordering::Release);
        self.release(|free| free.memory.len());
    }

    /// Gives so many of each size back to the allocator, those first that came first.
    fn release(&self, count: impl Fn(&Free) -> usize) {
        for size in &self.sizes {
            let mut free = size.lock();
            let count = count(&free);
            let released: Vec<_> = free.memory.drain(..count).collect();
            free.fewest = free.memory.len();
            drop(free);
            let bytes = released.iter().map(Vec::capacity).sum();
            self.free.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: usize = SHORTEST + EXTRA;

    #[test]
    fn every_capacity_has_the_next_size() {
        let mut sizes = Vec::new();
        for capacity in SHORTEST..=MOST_KEPT {
            let size = Size::of(capacity).expect("a size that is kept");
            assert!(size.bytes >= capacity && size.bytes - capacity <= EXTRA + capacity / STEPS);
            assert_eq!(Size::of(size.bytes), Some(size));
            if sizes.last() != Some(&size) {
                assert_eq!(size.index, sizes.len());
                sizes.push(size);
            }
        }
        assert_eq!(sizes.len(), SIZES);
        for pair in sizes.windows(2) {
            assert_eq!(size_within(pair[1].bytes - 1), pair[0].bytes);
            assert_eq!(size_within(pair[1].bytes), pair[1].bytes);
        }
        assert_eq!(size_within(SHORTEST), SHORTEST - 1);
        assert_eq!(size_within(SHORTEST - 1), SHORTEST - 1);
        assert_eq!(Size::of(SHORTEST - 1), None);
        assert_eq!(Size::of(MOST_KEPT + 1), None);
    }

    #[test]
    fn memory_goes_from_one_to_the_next_and_comes_back_empty() {
        let pool = Pool::default();
        let mut first = pool.take(100_000);
        first.extend_from_slice(&[1; 100_000]);
        let address = first.as_ptr();
        pool.give_back(first);
        let again = pool.take(90_000);
        assert_ne!(again.as_ptr(), address, "another size");
        let again = pool.take(110_000);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn what_nobody_needs_goes_back_and_what_is_used_stays() {
        let pool = Pool::default();
        let began = Instant::now();
        let taken: Vec<_> = (0..10).map(|_| pool.take(SHORTEST)).collect();
        taken.into_iter().for_each(|memory| pool.give_back(memory));
        pool.age(began + AGE);
        assert_eq!(pool.free.load(Ordering::Relaxed), 10 * SMALLEST);
        // Three at a time.
        for _ in 0..5 {
            let taken: Vec<_> = (0..3).map(|_| pool.take(SHORTEST)).collect();
            taken.into_iter().for_each(|memory| pool.give_back(memory));
        }
        pool.age(began + AGE + AGE / 2);
        assert_eq!(pool.free.load(Ordering::Relaxed), 10 * SMALLEST, "too soon");
        pool.age(began + 2 * AGE);
        assert_eq!(pool.free.load(Ordering::Relaxed), 3 * SMALLEST);
        pool.age(began + 3 * AGE);
        assert_eq!(pool.free.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn it_keeps_no_more_than_the_most_and_nothing_while_it_rests() {
        let pool = Pool::default();
        let taken: Vec<_> = (0..20).map(|_| pool.take(LONGEST)).collect();
        taken.into_iter().for_each(|memory| pool.give_back(memory));
        let kept = pool.free.load(Ordering::Relaxed);
        assert!(kept <= MOST_FREE && kept + MOST_KEPT > MOST_FREE);
        pool.rest();
        assert_eq!(pool.free.load(Ordering::Relaxed), 0);
        let late = pool.take(LONGEST);
        pool.give_back(late);
        assert_eq!(pool.free.load(Ordering::Relaxed), 0);
        pool.age(Instant::now());
        let kept_again = pool.take(LONGEST);
        pool.give_back(kept_again);
        assert_eq!(pool.free.load(Ordering::Relaxed), LONGEST + EXTRA);
    }

    #[test]
    fn no_more_is_taken_ahead_than_is_allowed() {
        static ALLOWANCE: Allowance = Allowance(AtomicUsize::new(100));
        let first = ALLOWANCE.advance(60).expect("allowed");
        assert!(ALLOWANCE.advance(41).is_none());
        let second = ALLOWANCE.advance(40).expect("what is left");
        let mut first = first;
        first.received(10);
        assert!(ALLOWANCE.advance(11).is_none());
        drop(ALLOWANCE.advance(10).expect("has come"));
        drop(first);
        assert!(ALLOWANCE.advance(61).is_none());
        let third = ALLOWANCE.advance(60).expect("given back");
        drop((second, third));
        assert_eq!(ALLOWANCE.0.load(Ordering::Relaxed), 100);
        assert!(take_ahead(MOST_KEPT + 1).is_none());
    }

    #[test]
    fn memory_that_was_not_taken_here_is_not_kept() {
        let pool = Pool::default();
        for capacity in [1, SHORTEST - 1, SHORTEST, SHORTEST + 1, 2 * LONGEST] {
            pool.give_back(Vec::with_capacity(capacity));
        }
        assert_eq!(pool.free.load(Ordering::Relaxed), 0);
    }
}
