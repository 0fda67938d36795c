//! What the fuzzers in `fuzz/` run, and the tests below with the seeds that are kept there: functions of any bytes
//! that panic when something does not hold.
//!
//! Each is a property that has a second, naive way to tell what is right. They are here because they reach for the
//! engine's private parts, and are no part of its API.

mod bucket;
mod channels;
mod cidr;
mod codec;
mod deflate;
mod extensions;
mod forwarded;
mod handshake;
mod origins;
mod proxy_protocol;

use std::net::{IpAddr, Ipv4Addr};

pub use bucket::bucket;
pub use channels::channels;
pub use cidr::cidr;
pub use codec::codec_splits;
pub use deflate::{deflate, inflate};
pub use extensions::extensions;
pub use forwarded::forwarded;
pub use handshake::handshake;
pub use origins::origins;
pub use proxy_protocol::proxy_protocol;

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

    /// Mostly a small number, for which one byte is enough; also the largest ones.
    fn sized(&mut self) -> u32 {
        match self.byte() {
            0xFC => self.number().into(),
            0xFD => u32::from(self.number()) << 16 | u32::from(self.number()),
            0xFE => u32::MAX >> 1,
            0xFF => u32::MAX,
            small => small.into(),
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// An address of either family, and those of IPv4 in both forms.
    fn ip(&mut self) -> IpAddr {
        match self.byte() % 3 {
            0 => self.bytes::<4>().into(),
            1 => self.bytes::<16>().into(),
            _ => Ipv4Addr::from(self.bytes::<4>()).to_ipv6_mapped().into(),
        }
    }
}

/// How many bits are the same before the first that is not.
fn shared_bits(one: &[u8; 16], other: &[u8; 16]) -> usize {
    let bit = |octets: &[u8; 16], at: usize| octets[at / 8] >> (7 - at % 8) & 1;
    (0..128)
        .take_while(|at| bit(one, *at) == bit(other, *at))
        .count()
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

    /// A target that is nowhere run, or of which nobody knows.
    #[test]
    fn every_target_has_seeds_and_is_told_of() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a readable file");
        let (manual, weekly) = (read("fuzz/README.md"), read(".github/workflows/fuzz.yml"));
        let (programs, here) = (read("fuzz/Cargo.toml"), include_str!("mod.rs"));
        for file in std::fs::read_dir(root.join("fuzz/fuzz_targets")).expect("a folder") {
            let path = file.expect("a readable folder").path();
            let target = path.file_stem().expect("a name").to_string_lossy();
            assert!(manual.contains(&format!("`{target}`")), "{target}");
            let item = format!("- {target}");
            assert!(weekly.lines().any(|line| line.trim() == item), "{target}");
            let program = format!("path = \"fuzz_targets/{target}.rs\"");
            assert!(programs.contains(&program), "{target}");
            let run = format!("run_seeds(\"{target}\", super::{target})");
            assert!(here.contains(&run), "{target}");
        }
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

    #[test]
    fn the_seeds_of_proxy_protocol_hold() {
        run_seeds("proxy_protocol", super::proxy_protocol);
    }

    #[test]
    fn the_seeds_of_forwarded_hold() {
        run_seeds("forwarded", super::forwarded);
    }

    #[test]
    fn the_seeds_of_cidr_hold() {
        run_seeds("cidr", super::cidr);
    }

    #[test]
    fn the_seeds_of_bucket_hold() {
        run_seeds("bucket", super::bucket);
    }

    #[test]
    fn the_seeds_of_origins_hold() {
        run_seeds("origins", super::origins);
    }
}
