//! Inflating one message (RFC 7692 §7.2.2) into as much memory as it really needs, and not a byte beyond the limit.

use super::decoder::whole;
use super::deflate::Contexts;
use super::{Item, Opcode, PerMessageDeflate, Violation};
use std::fmt;
use zlib_rs::{Inflate, InflateFlush, Status};

/// Put behind each message: the end of its stream (§7.2.2), and an empty last block. If that is what it is read as, the
/// message ended where a block did; inside one it would be read as data.
const END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// The output grows by this much at first.
const PIECE: usize = 4 * 1024;

/// What the output keeps for the next message.
const KEPT: usize = 64 * 1024;

/// How often a message may end its stream and begin another (§7.2.3.4), apart from once per [`BYTES_PER_STREAM`].
const STREAMS: usize = 16;

/// Each beginning costs about a microsecond, and an empty stream is two bytes: without a limit, a message of 1 MiB costs
/// half a second.
const BYTES_PER_STREAM: usize = 1024;

/// The most bytes that a message of `size` bytes may have compressed. Stored blocks make it larger: by 5 bytes for every
/// 65 535, or up to an eighth by a compressor with little memory (zlib's `deflateBound`).
pub(super) fn most_compressed(size: usize) -> usize {
    size.saturating_add(size / 8).saturating_add(64)
}

/// Inflates messages of any connections, one after the other.
pub struct Inflater {
    stream: Inflate,
    out: Vec<u8>,
}

/// What a decoder needs for a connection with permessage-deflate.
#[derive(Debug)]
pub struct Inflation<'a> {
    /// Shared with other connections.
    pub inflater: &'a mut Inflater,
    /// What was agreed on.
    pub deflate: PerMessageDeflate,
    /// What this connection remembers.
    pub contexts: &'a mut Contexts,
    /// Nobody wants compressed messages any more, now and later: they are neither inflated nor given on.
    pub discard: bool,
    /// A message of more compressed bytes than this is not inflated by the decoder, but left in `postponed`.
    pub at_once: usize,
    /// Where such a message is left. Decoding has stopped behind it; nothing more may be decoded of this connection
    /// until it is inflated, for what follows may refer to it.
    pub postponed: &'a mut Option<Postponed>,
}

/// A compressed message that has arrived and is to be inflated by [`LargeMessage`].
#[derive(Debug)]
pub struct Postponed {
    /// Text or binary.
    pub(super) opcode: Opcode,
    /// As it came, at most an eighth longer than the limit of messages.
    pub(super) payload: Vec<u8>,
    /// How many bytes at the end of the input have not been decoded.
    pub(super) rest: usize,
}

impl Postponed {
    /// How many bytes are to be inflated.
    pub fn compressed_len(&self) -> usize {
        self.payload.len()
    }

    /// How many bytes at the end of the input have not been decoded.
    pub fn rest(&self) -> usize {
        self.rest
    }
}

/// A message that is inflated piece by piece, by an inflater that does nothing else meanwhile.
#[derive(Debug)]
pub struct LargeMessage {
    opcode: Opcode,
    payload: Vec<u8>,
    progress: Progress,
}

impl LargeMessage {
    /// Nothing of it is inflated yet.
    pub fn new(postponed: Postponed) -> Self {
        Self {
            progress: Progress::new(postponed.payload.len()),
            opcode: postponed.opcode,
            payload: postponed.payload,
        }
    }

    /// Inflates `most` more compressed bytes; the message, if these were the last ones.
    ///
    /// # Errors
    ///
    /// What the decoder would have found: bytes that are no DEFLATE, a message over the limit, text that is no UTF-8.
    pub fn advance<'a>(
        &mut self,
        inflation: &'a mut Inflation<'_>,
        max: usize,
        most: usize,
    ) -> Result<Option<Item<'a>>, Violation> {
        let history = inflation.contexts.received();
        let progress = &mut self.progress;
        if !inflation
            .inflater
            .advance(progress, &self.payload, max, history, most)?
        {
            return Ok(None);
        }
        let message = &inflation.inflater.out;
        inflation
            .contexts
            .remember_received(inflation.deflate, message);
        whole(self.opcode, message).map(Some)
    }
}

impl Inflation<'_> {
    /// The message that `payload` was compressed from.
    pub(super) fn inflate(&mut self, payload: &[u8], max: usize) -> Result<&[u8], Violation> {
        let history = self.contexts.received();
        self.inflater.inflate(payload, max, history)?;
        let message = &self.inflater.out;
        self.contexts.remember_received(self.deflate, message);
        Ok(message)
    }

    /// The message has been given on: what a large one took is given back.
    pub(super) fn done(&mut self) {
        self.inflater.done();
    }
}

impl Inflater {
    /// About 40 KiB.
    pub fn new() -> Self {
        Self {
            stream: Inflate::new(false, super::MAX_WINDOW_BITS),
            out: Vec::new(),
        }
    }

    /// Bytes that the output of messages takes at the moment.
    pub fn output_capacity(&self) -> usize {
        self.out.capacity()
    }

    /// The message has been given on: what a large one took is given back.
    pub fn done(&mut self) {
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
    }

    fn inflate(&mut self, payload: &[u8], max: usize, history: &[u8]) -> Result<(), Violation> {
        let mut progress = Progress::new(payload.len());
        let is_whole = self.advance(&mut progress, payload, max, history, usize::MAX)?;
        debug_assert!(is_whole);
        Ok(())
    }

    /// Inflates `most` more bytes of a message; whether it is whole now.
    fn advance(
        &mut self,
        progress: &mut Progress,
        payload: &[u8],
        max: usize,
        history: &[u8],
        most: usize,
    ) -> Result<bool, Violation> {
        let (from, to) = (
            progress.taken,
            payload.len().min(progress.taken.saturating_add(most)),
        );
        let mut run = Run {
            inflater: self,
            max,
            history,
            streams: progress.streams,
        };
        if from == 0 {
            run.inflater.out.clear();
            if payload.is_empty() {
                return Ok(true); // some compressors flush nothing to nothing; §7.2.3.6 wants one byte
            }
        }
        if progress.ended {
            run.begin()?;
        }
        progress.ended = run.feed(&payload[from..to])?;
        progress.taken = to;
        if to < payload.len() {
            progress.streams = run.streams;
            return Ok(false);
        }
        if progress.ended {
            return Ok(true); // a compressor that ends its stream with each message may leave out what would follow
        }
        let length = run.inflater.out.len();
        match run.feed(&END)? && run.inflater.out.len() == length {
            true => Ok(true),
            false => Err(Violation::InvalidDeflate),
        }
    }
}

/// How far a message has come.
#[derive(Debug)]
struct Progress {
    /// So many of its bytes have been inflated.
    taken: usize,
    /// A stream has ended with the last of them, or none has begun.
    ended: bool,
    /// How many more streams may begin.
    streams: usize,
}

impl Progress {
    fn new(length: usize) -> Self {
        Self {
            taken: 0,
            ended: true,
            streams: STREAMS + length / BYTES_PER_STREAM,
        }
    }
}

/// A message, or a piece of one, on its way through the inflater.
struct Run<'a> {
    inflater: &'a mut Inflater,
    max: usize,
    history: &'a [u8],
    /// How many more streams may begin.
    streams: usize,
}

impl Run<'_> {
    /// Begins a stream that may refer back to all that came before.
    fn begin(&mut self) -> Result<(), Violation> {
        let broken = |_| Violation::InvalidDeflate;
        self.streams = self
            .streams
            .checked_sub(1)
            .ok_or(Violation::InvalidDeflate)?;
        let Inflater { stream, out } = &mut *self.inflater;
        stream.reset(false);
        for past in [self.history, out] {
            if !past.is_empty() {
                stream.set_dictionary(past).map_err(broken)?;
            }
        }
        Ok(())
    }

    /// Inflates all of `input`; whether the stream ended with its last byte. A stream that ends earlier is followed by
    /// another.
    fn feed(&mut self, mut input: &[u8]) -> Result<bool, Violation> {
        loop {
            let step = self.step(input)?;
            input = &input[step.taken..];
            if self.inflater.out.len() > self.max {
                return Err(Violation::MessageTooBig);
            }
            match (step.ended, input.is_empty()) {
                (true, true) => return Ok(true),
                (true, false) => self.begin()?,
                (false, _) if step.filled => {} // there may be more of it
                (false, true) => return Ok(false),
                (false, false) => return Err(Violation::InvalidDeflate),
            }
        }
    }

    /// Inflates into one piece of output. It ends one byte behind the limit at the latest: that byte tells that there is
    /// more.
    fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let Inflater { stream, out } = &mut *self.inflater;
        let had = out.len();
        // Doubling costs linear time for any size; zeroing more than that, for a small message in a large buffer, does not.
        let room = had.max(PIECE).min(self.max.saturating_add(1) - had);
        out.reserve_exact(room);
        out.resize(had + room, 0);
        let (taken, made) = (stream.total_in(), stream.total_out());
        let result = stream.decompress(input, &mut out[had..], InflateFlush::NoFlush);
        let (taken, made) = (stream.total_in() - taken, stream.total_out() - made);
        out.truncate(had + made as usize);
        let status = result.map_err(|_| Violation::InvalidDeflate)?;
        Ok(Step {
            taken: taken as usize,
            filled: made as usize == room,
            ended: status == Status::StreamEnd,
        })
    }
}

/// What one call of the inflater did.
struct Step {
    /// Bytes of input.
    taken: usize,
    /// The output was used up.
    filled: bool,
    /// The last block of a stream was read.
    ended: bool,
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}
