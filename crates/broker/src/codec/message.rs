//! A message that arrives in pieces: fragments (RFC 6455 §5.4), or one frame over several reads.

use super::utf8::Utf8Stream;
use super::{MAX_HEADER, Opcode, Violation};
use crate::memory::{self, Advance};
use std::ops::Deref;

/// A message of so many bytes comes in several reads, which is what memory is taken ahead for.
const LARGE: usize = 64 * 1024;

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
    /// Its memory was taken for more than has come.
    advance: Option<Advance>,
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
            advance: None,
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

    /// Takes the next unmasked piece of a message that will get `announced` bytes with what is left of this frame, and not
    /// longer than `most`.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        announced: usize,
        most: usize,
    ) -> Result<(), Violation> {
        if let Content::Text(text) = &mut self.content {
            text.push(piece)?;
        }
        if piece.is_empty() {
            return Ok(()); // a header alone takes no memory
        }
        let room = self.room();
        let needed = room + self.len() + piece.len();
        if needed > self.bytes.capacity() {
            self.make_room(needed, room + announced, room + most);
        }
        if self.bytes.is_empty() {
            self.bytes.resize(room, 0);
        }
        self.bytes.extend_from_slice(piece);
        if let Some(advance) = &mut self.advance {
            advance.received(piece.len());
        }
        Ok(())
    }

    /// Takes memory for all that is announced, if that is worth it and allowed: a large message is not moved from one memory to
    /// the next then. Else memory follows what has arrived, as in [`extend`].
    fn make_room(&mut self, needed: usize, announced: usize, most: usize) {
        if announced > 2 * needed
            && announced >= LARGE
            && self.advance.is_none()
            && let Some((memory, advance)) = memory::take_ahead(announced)
        {
            self.advance = Some(advance);
            memory::move_to(memory, &mut self.bytes);
        } else {
            memory::grow(&mut self.bytes, needed, most);
        }
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
/// It doubles, so that any number of pieces costs linear time, but stops at `most`.
pub(super) fn extend(buffer: &mut Vec<u8>, piece: &[u8], most: usize) {
    let needed = buffer.len() + piece.len();
    if needed > buffer.capacity() {
        let doubled = buffer.capacity().saturating_mul(2);
        let capacity = doubled.min(most).max(needed);
        buffer.reserve_exact(capacity - buffer.len());
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
            [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_000]
        );
    }

    #[test]
    fn a_buffer_takes_what_it_is_given_even_over_the_most() {
        let mut buffer = vec![1, 2, 3];
        extend(&mut buffer, &[4, 5], 2);
        assert_eq!(buffer, [1, 2, 3, 4, 5]);
    }
}
