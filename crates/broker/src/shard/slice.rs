//! How much of a socket is read at once: less where what comes takes long to handle, so that nobody keeps the shard for
//! long, whatever is in the bytes.
//!
//! A read of 64 KiB is one large message, or ten thousand small frames, or, compressed, what becomes sixty times as much.

use std::time::Duration;

/// A read that filled what it was given and took longer gets half of it the next time.
const LONG: Duration = Duration::from_micros(25);

/// One that took less gets twice as much. Far enough from half of [`LONG`], so that it does not change all the time.
const SHORT: Duration = Duration::from_micros(6);

/// Below this part a read's system call costs more than what it brings.
const SMALLEST: u8 = 6;

/// A part of the read buffer: a half for each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice(u8);

impl Slice {
    /// That part of so many bytes.
    pub(super) fn of(self, most: usize) -> usize {
        most >> self.0
    }

    /// A read of the whole slice has taken so long, with what came of it.
    pub(super) fn adapt(&mut self, took: Duration) {
        if took > LONG {
            self.0 = (self.0 + 1).min(SMALLEST);
        } else if took < SHORT {
            self.0 = self.0.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a read takes if a KiB takes so many microseconds.
    fn settle(slice: &mut Slice, per_kib: u64) -> usize {
        for _ in 0..20 {
            let kib = slice.of(65536) as u64 / 1024;
            slice.adapt(Duration::from_micros(kib * per_kib));
        }
        slice.of(65536)
    }

    #[test]
    fn the_slice_follows_what_comes() {
        let mut slice = Slice::default();
        assert_eq!(settle(&mut slice, 0), 65536, "cheap bytes");
        assert_eq!(settle(&mut slice, 3), 8192);
        assert_eq!(settle(&mut slice, 1_000), 1024, "not below the smallest");
        assert_eq!(settle(&mut slice, 3), 2048, "up until it is not short");
        assert_eq!(settle(&mut slice, 0), 65536);
    }

    #[test]
    fn it_keeps_what_it_has_found() {
        for per_kib in 1..200 {
            let mut slice = Slice::default();
            let settled = settle(&mut slice, per_kib);
            slice.adapt(Duration::from_micros(settled as u64 / 1024 * per_kib));
            assert_eq!(slice.of(65536), settled, "{per_kib} µs per KiB");
        }
    }
}
