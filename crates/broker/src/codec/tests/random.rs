//! Small reproducible randomness.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// SplitMix64: ten lines, so that a printed seed means the same in ten years.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// The seed of this run: `WSBROKER_TEST_SEED`, or a new one.
pub(super) fn seed() -> u64 {
    match std::env::var("WSBROKER_TEST_SEED") {
        Ok(seed) => seed.parse().expect("WSBROKER_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    }
}
