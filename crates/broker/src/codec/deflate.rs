//! Compressing one message (RFC 7692 §7.2.1), and what a connection remembers for the next.
//!
//! A compressor takes some hundred KiB, so none belongs to a connection. With context takeover a connection keeps only what
//! its messages may refer back to, the *window*, and whichever compressor is at hand starts with it as its dictionary: the
//! bytes that come out are those of a compressor that had never stopped.

use super::PerMessageDeflate;
use super::message::extend;
use std::fmt;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

/// The end of a flushed DEFLATE stream: an empty block without its first bits. It is left out of a message (§7.2.1) and put
/// back by the receiver.
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Compressed bytes are made in pieces of this size; most messages are one.
const PIECE: usize = 16 * 1024;

/// zlib's own default. Less makes a compressor smaller by at most a third, for there are 128 KiB it always has.
const MEMORY_LEVEL: i32 = 8;

/// Compresses messages of any connections, one after the other.
pub struct Compressor {
    stream: Deflate,
    piece: Box<[u8]>,
}

impl Compressor {
    /// `level`: 1 is the fastest and 9 the strongest. `window_bits`: the window as a power of two,
    /// [`MIN_WINDOW_BITS`](super::MIN_WINDOW_BITS) to [`MAX_WINDOW_BITS`](super::MAX_WINDOW_BITS). Other values become the
    /// nearest ones.
    pub fn new(level: u8, window_bits: u8) -> Self {
        let window_bits = window_bits.clamp(super::MIN_WINDOW_BITS, super::MAX_WINDOW_BITS);
        let config = DeflateConfig {
            level: level.clamp(1, 9).into(),
            // Negative for raw DEFLATE, without zlib's header.
            window_bits: -i32::from(window_bits),
            mem_level: MEMORY_LEVEL,
            ..DeflateConfig::default()
        };
        Self {
            stream: Deflate::new_with_config(config),
            piece: vec![0; PIECE].into(),
        }
    }

    /// The compressed payload of a message, as it stands in a frame; `None` when that would not be smaller than `payload`.
    ///
    /// `history` is what it may refer back to: the end of what the receiver has inflated before, or nothing.
    pub fn compress(&mut self, payload: &[u8], history: &[u8]) -> Option<Vec<u8>> {
        self.stream.reset();
        if !history.is_empty() {
            self.stream.set_dictionary(history).ok()?;
        }
        let mut out = Vec::new();
        let mut rest = payload;
        loop {
            let (taken_before, made_before) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .compress(rest, &mut self.piece, DeflateFlush::SyncFlush)
                .ok()?;
            rest = &rest[(self.stream.total_in() - taken_before) as usize..];
            let made = (self.stream.total_out() - made_before) as usize;
            out.extend_from_slice(&self.piece[..made]);
            if out.len() >= payload.len() + TAIL.len() {
                return None;
            }
            // A piece that was not filled is the last: everything has been flushed.
            if made < self.piece.len() {
                debug_assert!(rest.is_empty() && status != Status::StreamEnd);
                break;
            }
        }
        out.truncate(out.strip_suffix(&TAIL)?.len());
        Some(out)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// What a connection remembers of the messages of both directions, for those that come after (context takeover).
///
/// One pointer as long as nothing was compressed. Then memory follows what was, up to the windows that were agreed on.
#[derive(Debug, Default)]
pub struct Contexts(Option<Box<Windows>>);

#[derive(Debug, Default)]
struct Windows {
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl Contexts {
    /// The end of what was received compressed, inflated.
    pub fn received(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |windows| &windows.received)
    }

    /// The end of what was sent compressed, before it was.
    pub fn sent(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |windows| &windows.sent)
    }

    /// A message was received compressed; this is what it inflated to. Nothing is kept without a context.
    pub fn remember_received(&mut self, deflate: PerMessageDeflate, payload: &[u8]) {
        if deflate.client.takeover() {
            let window = &mut self.0.get_or_insert_default().received;
            remember(window, deflate.client.window(), payload);
        }
    }

    /// A message was sent compressed; this is what it was before. Nothing is kept without a context.
    pub fn remember_sent(&mut self, deflate: PerMessageDeflate, payload: &[u8]) {
        if deflate.server.takeover() {
            let window = &mut self.0.get_or_insert_default().sent;
            remember(window, deflate.server.window(), payload);
        }
    }

    /// Bytes on the heap.
    pub fn held_bytes(&self) -> usize {
        self.0.as_deref().map_or(0, |windows| {
            size_of::<Windows>() + windows.received.capacity() + windows.sent.capacity()
        })
    }
}

/// Appends `payload` and keeps the last `size` bytes.
fn remember(window: &mut Vec<u8>, size: usize, payload: &[u8]) {
    let payload = &payload[payload.len().saturating_sub(size)..];
    let too_many = (window.len() + payload.len()).saturating_sub(size);
    window.drain(..too_many);
    extend(window, payload, size);
}
