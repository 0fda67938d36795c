//! permessage-deflate as a listener offers it, and the compressors of the threads.

use std::cell::RefCell;

use bytes::Bytes;

use crate::codec::{self, Compressor, Contexts, DeflatePolicy, PerMessageDeflate};

/// How messages are compressed, for the clients that offer it (RFC 7692).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Messages of fewer bytes go out plain.
    pub threshold: usize,
    /// 1 is the fastest, 9 the strongest.
    pub level: u8,
    /// What a socket keeps from one message to the next.
    pub memory: CompressionMemory,
    /// The window as a power of two, 9 to 15: how far back in what was sent a repetition is found.
    pub window_bits: u8,
}

/// What a socket keeps from one message to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionMemory {
    /// Nothing: each message is compressed for itself, and so once for all who receive it.
    #[default]
    Shared,
    /// What was last sent and received, a window each (context takeover): short messages that resemble each other become
    /// much smaller, but each is compressed for each socket, by its I/O thread.
    Dedicated,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            threshold: 1024, // a shorter message fits one TCP segment either way
            level: 2, // 3 to 9 need two to five times as long to make JSON smaller by a tenth
            memory: CompressionMemory::default(),
            window_bits: codec::MAX_WINDOW_BITS,
        }
    }
}

impl Compression {
    pub(crate) fn policy(&self) -> DeflatePolicy {
        DeflatePolicy {
            window_bits: self.window_bits,
            takeover: self.memory == CompressionMemory::Dedicated,
        }
    }

    /// Whether a plain data frame is long enough to be compressed.
    #[inline]
    pub(crate) fn concerns(&self, frame: &Bytes) -> bool {
        codec::payload_of(frame).len() >= self.threshold
    }

    /// The compressed form of a plain data frame; `None` where it would not become smaller.
    pub(crate) fn deflate(&self, frame: &Bytes, window_bits: u8, history: &[u8]) -> Option<Bytes> {
        let payload = codec::payload_of(frame);
        let compressed = with_compressor(self.level, window_bits, |compressor| {
            compressor.compress(payload, history)
        })?;
        Some(codec::encode_compressed(frame, &compressed))
    }

    /// The form in which a frame goes out on a socket with context takeover, unless that is the plain one. Must be called
    /// in the order in which the frames go out.
    pub(crate) fn deflate_in_context(
        &self,
        frame: &Bytes,
        deflate: PerMessageDeflate,
        contexts: &mut Contexts,
    ) -> Option<Bytes> {
        if !self.concerns(frame) {
            return None;
        }
        let compressed = self.deflate(frame, deflate.server.window_bits(), contexts.sent())?;
        contexts.remember_sent(deflate, codec::payload_of(frame));
        Some(compressed)
    }
}

thread_local! {
    /// One for each level and window that this thread has met: peers can ask for seven windows, 250 to 370 KiB each.
    static COMPRESSORS: RefCell<Vec<((u8, u8), Compressor)>> = const { RefCell::new(Vec::new()) };
}

fn with_compressor<R>(level: u8, window_bits: u8, work: impl FnOnce(&mut Compressor) -> R) -> R {
    COMPRESSORS.with_borrow_mut(|compressors| {
        let key = (level, window_bits);
        let at = compressors.iter().position(|(other, _)| *other == key);
        let at = at.unwrap_or_else(|| {
            compressors.push((key, Compressor::new(level, window_bits)));
            compressors.len() - 1
        });
        work(&mut compressors[at].1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Direction, Opcode};

    fn frame(size: usize) -> Bytes {
        codec::encode_frame(Opcode::Text, &vec![b'x'; size])
    }

    #[test]
    fn a_message_is_compressed_from_the_threshold_on() {
        let compression = Compression::default();
        assert!(!compression.concerns(&frame(1023)));
        assert!(compression.concerns(&frame(1024)));
        let compressed = compression.deflate(&frame(1024), 15, &[]).expect("smaller");
        assert!(compressed.len() < 30, "{}", compressed.len());
    }

    #[test]
    fn a_message_that_does_not_become_smaller_stays_plain_and_leaves_the_context_alone() {
        let compression = Compression {
            threshold: 0,
            ..Compression::default()
        };
        let deflate = PerMessageDeflate {
            server: Direction::new(15, true),
            client: Direction::new(15, true),
        };
        let mut contexts = Contexts::default();
        for size in [0, 1, 2] {
            let frame = frame(size);
            assert_eq!(compression.deflate(&frame, 9, &[]), None, "{size}");
            let compressed = compression.deflate_in_context(&frame, deflate, &mut contexts);
            assert_eq!(compressed, None, "{size}");
        }
        assert_eq!(contexts.sent(), b"");
        let compressed = compression.deflate_in_context(&frame(100), deflate, &mut contexts);
        assert!(compressed.is_some());
        assert_eq!(contexts.sent(), [b'x'; 100]);
    }
}
