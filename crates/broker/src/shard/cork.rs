//! Waking shards once for many calls.
//!
//! A call puts its command in a shard's inbox at once, so that commands of all threads keep the order of their calls.
//! Only the wake-up, which costs a system call, may wait: a corked thread remembers which shards it owes one.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::ShardHandle;
use crate::sync::{Ordering, StaticU32, thread_local};

thread_local! {
    static CORK: RefCell<Cork> = const {
        RefCell::new(Cork { corked: false, began: 0, owed: Vec::new() })
    };
}

struct Cork {
    corked: bool,
    /// The moment at which the calling thread was corked.
    began: u32,
    owed: Vec<Arc<ShardHandle>>,
}

/// Tells whether a task began before the kernel refused to take more for a socket; wraps. Only sockets that have been refused
/// something for 2^31 such moments are taken for ones that just have.
static MOMENT: StaticU32 = StaticU32::new(0);

/// A moment behind everything that has begun; never 0.
pub(crate) fn next_moment() -> NonZeroU32 {
    loop {
        let moment = MOMENT.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if let Some(moment) = NonZeroU32::new(moment) {
            return moment;
        }
    }
}

/// Whether the task of the calling thread, which is what it does under one cork, began at this moment or behind it. Without a
/// cork each call is a task.
pub(crate) fn task_began_after(moment: u32) -> bool {
    CORK.with_borrow(|cork| !cork.corked || cork.began.wrapping_sub(moment) as i32 >= 0)
}

/// How many calls may wait behind a cork. A thread that publishes in a long loop keeps the shards busy meanwhile.
const CALLS: usize = 256;

/// From here on the calling thread's calls wake no shard, until [`uncork`] or many of them later. A shard that is
/// awake anyway takes them before that.
pub fn cork() {
    CORK.with_borrow_mut(|cork| {
        cork.corked = true;
        cork.began = MOMENT.load(Ordering::Acquire);
    });
}

/// Wakes each shard that got something since [`cork`], once. Without a cork it does nothing.
pub fn uncork() {
    let owed = CORK.with_borrow_mut(|cork| {
        cork.corked = false;
        std::mem::take(&mut cork.owed)
    });
    for shard in owed {
        shard.wake();
    }
}

/// Wakes the shard, or remembers to.
pub(super) fn wake(shard: &Arc<ShardHandle>, waiting_calls: usize) {
    if shard.is_woken() {
        return;
    }
    let later = waiting_calls < CALLS
        && CORK.with_borrow_mut(|cork| {
            if cork.corked && !cork.owed.iter().any(|other| Arc::ptr_eq(other, shard)) {
                cork.owed.push(Arc::clone(shard));
            }
            cork.corked
        });
    if !later {
        shard.wake();
    }
}
