//! A message that arrives in pieces: fragments (RFC 6455 §5.4), or one frame over several reads.

use super::utf8::Utf8Stream;
use super::{MAX_HEADER, Opcode, Violation};
use crate::memory;
use std::mem;
use std::ops::Deref;

/// The bytes of a text message: valid UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextBytes<'a> {
    /// As they came, unmasked.
    Borrowed(&'a [u8]),
    /// Put together behind [`MAX_HEADER`] bytes of any content, where the header of a frame that goes on with them has room.
    BehindRoom(Vec<u8>),
}

impl Deref for TextBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::BehindRoom(bytes) => bytes.get(MAX_HEADER..).unwrap_or_default(),
        }
    }
}

/// What has arrived of a data message so far, unmasked and in order.
#[derive(Debug)]
pub(super) struct Message {
    /// Of a text behind room for a header.
    bytes: Vec<u8>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Checked as it arrives.
    Text(Utf8Stream),
    Binary,
    /// Of this opcode once it is inflated, which needs the whole of it.
    Compressed(Opcode),
}

/// What an assembled message turned out to be.
pub(super) enum Kind {
    Text { ascii: bool },
    Binary,
    Compressed(Opcode),
}

impl Message {
    pub(super) const fn new(opcode: Opcode, compressed: bool) -> Self {
        let content = match opcode {
            _ if compressed => Content::Compressed(opcode),
            Opcode::Text => Content::Text(Utf8Stream::new()),
            _ => Content::Binary,
        };
        Self {
            bytes: Vec::new(),
            content,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.room())
    }

    fn room(&self) -> usize {
        match self.content {
            Content::Text(_) => MAX_HEADER,
            Content::Binary | Content::Compressed(_) => 0,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.content, Content::Compressed(_))
    }

    /// Takes the next unmasked piece of a message that will not get longer than `most` bytes.
    pub(super) fn push(&mut self, piece: &[u8], most: usize) -> Result<(), Violation> {
        if let Content::Text(text) = &mut self.content {
            text.push(piece)?;
            if self.bytes.is_empty() {
                self.bytes = memory::take(MAX_HEADER + piece.len());
                self.bytes.resize(MAX_HEADER, 0);
            }
        }
        let most = self.room() + most;
        extend(&mut self.bytes, piece, most);
        Ok(())
    }

    /// Ends the message: its bytes, a text's behind room for a header, and what they are.
    pub(super) fn finish(self) -> Result<(Vec<u8>, Kind), Violation> {
        let kind = match self.content {
            Content::Text(text) => Kind::Text {
                ascii: text.finish()?,
            },
            Content::Binary => Kind::Binary,
            Content::Compressed(opcode) => Kind::Compressed(opcode),
        };
        Ok((self.bytes, kind))
    }
}

/// Appends `piece` to a buffer that will not get longer than `most` bytes.
///
/// Memory follows what has arrived, not what was declared, or every socket could claim the limit with one header.
/// It doubles, so that any number of pieces costs linear time, but stops at `most`, or the next larger
/// [size](memory::take).
pub(super) fn extend(buffer: &mut Vec<u8>, piece: &[u8], most: usize) {
    let needed = buffer.len() + piece.len();
    if needed > buffer.capacity() {
        let doubled = buffer.capacity().saturating_mul(2);
        let mut larger = memory::take(doubled.min(most).max(needed));
        larger.extend_from_slice(buffer);
        memory::give_back(mem::replace(buffer, larger));
    }
    buffer.extend_from_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_doubles_with_what_arrived_and_stops_at_the_most() {
        let mut buffer = Vec::new();
        let mut capacities = Vec::new();
        for _ in 0..1000 {
            extend(&mut buffer, &[0; 10], 10_000);
            assert!(buffer.capacity() <= 2 * buffer.len());
            if capacities.last() != Some(&buffer.capacity()) {
                capacities.push(buffer.capacity());
            }
        }
        assert_eq!(
            capacities,
            [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10 * 1024]
        );
    }

    #[test]
    fn a_buffer_takes_what_it_is_given_even_over_the_most() {
        let mut buffer = vec![1, 2, 3];
        extend(&mut buffer, &[4, 5], 2);
        assert_eq!(buffer, [1, 2, 3, 4, 5]);
    }
}
