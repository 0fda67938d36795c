//! Waking shards once for many calls.
//!
//! A call puts its command in a shard's inbox at once, so that commands of all threads keep the order of their calls.
//! Only the wake-up, which costs a system call, may wait: a corked thread remembers which shards it owes one.

use std::cell::RefCell;
use std::sync::Arc;

use super::ShardHandle;
use crate::sync::thread_local;

thread_local! {
    static CORK: RefCell<Cork> = const { RefCell::new(Cork { corked: false, owed: Vec::new() }) };
}

struct Cork {
    corked: bool,
    owed: Vec<Arc<ShardHandle>>,
}

/// How many calls may wait behind a cork. A thread that publishes in a long loop keeps the shards busy meanwhile.
const CALLS: usize = 256;

/// From here on the calling thread's calls wake no shard, until [`uncork`] or many of them later. A shard that is
/// awake anyway takes them before that.
pub fn cork() {
    CORK.with_borrow_mut(|cork| cork.corked = true);
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
