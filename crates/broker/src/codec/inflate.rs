//! Inflating one message (RFC 7692 §7.2.2) into as much memory as it really needs, and not a byte beyond the limit.

use super::deflate::Contexts;
use super::{PerMessageDeflate, Violation};
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
        if self.inflater.out.capacity() > KEPT {
            self.inflater.out = Vec::new();
        }
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

    fn inflate(&mut self, payload: &[u8], max: usize, history: &[u8]) -> Result<(), Violation> {
        self.out.clear();
        if payload.is_empty() {
            return Ok(()); // some compressors flush nothing to nothing; §7.2.3.6 wants one byte
        }
        let mut run = Run {
            inflater: self,
            max,
            history,
            streams: STREAMS + payload.len() / BYTES_PER_STREAM,
        };
        run.begin()?;
        if run.feed(payload)? {
            return Ok(()); // a compressor that ends its stream with each message may leave out what would follow
        }
        let length = run.inflater.out.len();
        match run.feed(&END)? && run.inflater.out.len() == length {
            true => Ok(()),
            false => Err(Violation::InvalidDeflate),
        }
    }
}

/// One message on its way through the inflater.
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
