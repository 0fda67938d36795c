//! What the fuzzers in `fuzz/` run, and the tests below with the seeds that are kept there: functions of any bytes
//! that panic when something does not hold.
//!
//! Each is a property that has a second, naive way to tell what is right. They are here because they reach for the
//! engine's private parts, and are no part of its API.

mod channels;
mod codec;
mod deflate;
mod extensions;
mod handshake;

pub use channels::channels;
pub use codec::codec_splits;
pub use deflate::{deflate, inflate};
pub use extensions::extensions;
pub use handshake::handshake;

/// Takes decisions from the fuzzer's bytes; when they have run out, every decision is 0.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// As many bytes as the next one says, or what is left of them.
    fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte());
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.number()) % bound
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Runs everything that is kept for this target: what was written by hand, what the fuzzer found worth keeping,
    /// and what once was a finding.
    fn run_seeds(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let seeds = std::fs::read_dir(folder.join(target)).expect("a folder for each target");
        let mut count = 0;
        for seed in seeds {
            let file = seed.expect("a readable folder").path();
            let bytes = std::fs::read(&file).expect("a readable file");
            eprintln!("{}", file.display()); // shown when it panics
            run(&bytes);
            count += 1;
        }
        assert!(count > 0, "no seeds for {target}");
    }

    #[test]
    fn the_seeds_of_codec_splits_hold() {
        run_seeds("codec_splits", super::codec_splits);
    }

    #[test]
    fn the_seeds_of_handshake_hold() {
        run_seeds("handshake", super::handshake);
    }

    #[test]
    fn the_seeds_of_channels_hold() {
        run_seeds("channels", super::channels);
    }

    #[test]
    fn the_seeds_of_deflate_hold() {
        run_seeds("deflate", super::deflate);
    }

    #[test]
    fn the_seeds_of_inflate_hold() {
        run_seeds("inflate", super::inflate);
    }

    #[test]
    fn the_seeds_of_extensions_hold() {
        run_seeds("extensions", super::extensions);
    }
}
