//! What has peaked gives its memory back when little of it is left.
//!
//! Room for several times what is there stays, so that what comes and goes finds it, and a collection that gets smaller is
//! moved a few times and no more.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

use slab::Slab;

/// Nobody misses the memory for so many.
const KEPT: usize = 64;

/// With room for more than four times what is there a collection is too large.
fn most(len: usize) -> usize {
    len.saturating_mul(4).max(KEPT)
}

/// Costs a look at two numbers, or, once for half of what is taken out, a move of what is left.
pub(crate) fn map<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    // Its capacity tells nothing: places that were freed in a full table are not counted. This looks at the table itself.
    map.shrink_to(most(map.len()));
}

pub(crate) fn list<T>(list: &mut Vec<T>) {
    if list.capacity() > most(list.len()) {
        list.shrink_to(most(list.len()) / 2);
    }
}

pub(crate) fn queue<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > most(queue.len()) {
        queue.shrink_to(most(queue.len()) / 2);
    }
}

/// What stays keeps its key, so the memory in front of the last one stays as well.
pub(crate) fn slab<T>(slab: &mut Slab<T>) {
    if slab.capacity() > most(slab.len()) {
        slab.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 20_000;

    #[test]
    fn what_has_peaked_has_room_for_some_times_what_is_left() {
        for left in [0, 1, 100, 1000] {
            let most = 2 * most(left); // a map has a power of two
            let mut numbers: HashMap<_, _> = (0..MANY).map(|n| (n, n)).collect();
            let mut waiting: VecDeque<_> = (0..MANY).collect();
            let mut items: Vec<_> = (0..MANY).collect();
            let mut places: Slab<usize> = (0..MANY).map(|n| (n, n)).collect();
            for n in left..MANY {
                numbers.remove(&n);
                places.remove(n);
            }
            waiting.truncate(left);
            items.truncate(left);
            map(&mut numbers);
            queue(&mut waiting);
            list(&mut items);
            slab(&mut places);
            for (what, capacity) in [
                ("map", numbers.capacity()),
                ("queue", waiting.capacity()),
                ("list", items.capacity()),
                ("slab", places.capacity()),
            ] {
                assert!(capacity <= most, "{what}: {capacity} for {left}");
            }
            assert!((0..left).all(|n| numbers[&n] == n && places[n] == n));
        }
    }

    #[test]
    fn a_map_that_empties_is_moved_a_few_times() {
        let mut numbers: HashMap<_, _> = (0..MANY).map(|n| (n, ())).collect();
        let mut moves = 0;
        for n in 0..MANY {
            numbers.remove(&n);
            let before = numbers.capacity();
            map(&mut numbers);
            moves += usize::from(numbers.capacity() > before);
        }
        assert!(moves <= MANY.ilog2() as usize, "{moves}");
        assert!(numbers.capacity() <= 4 * KEPT);
    }
}
