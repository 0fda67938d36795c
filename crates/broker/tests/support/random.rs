//! Small reproducible randomness (SplitMix64).

/// The seed of this run: `WSBROKER_TEST_SEED`, or the clock. Printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("WSBROKER_TEST_SEED") {
        Ok(text) => text.parse().expect("WSBROKER_TEST_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64 % 1_000_000_000),
    };
    eprintln!("WSBROKER_TEST_SEED={seed}");
    seed
}

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `bound - 1`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
