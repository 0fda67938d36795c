//! A large text that has come, as the frame that it would go on in: who passes it on need not copy it.

use bytes::Bytes;

use crate::codec::{self, MAX_HEADER, Opcode, TextBytes};
use crate::memory;

/// How much room a frame's header takes at the most, in bytes.
pub const HEADER_ROOM: usize = MAX_HEADER;

/// A text that stands where its frame is, so that it goes out without a copy.
#[derive(Clone, Debug)]
pub struct LargeText {
    frame: Bytes,
}

impl LargeText {
    /// `bytes` begins with [`HEADER_ROOM`] bytes of any content, and what follows is the text. The caller vouches for UTF-8.
    /// Memory that [`memory::take`] gave is kept for the next one.
    ///
    /// # Panics
    /// When `bytes` are fewer than these.
    #[must_use]
    pub fn behind_room(mut bytes: Vec<u8>) -> Self {
        let (header, size) = codec::header(Opcode::Text, bytes.len() - HEADER_ROOM);
        let start = HEADER_ROOM - size;
        bytes[start..HEADER_ROOM].copy_from_slice(&header[..size]);
        Self {
            frame: memory::share(bytes).slice(start..),
        }
    }

    /// One that a client has sent.
    pub(crate) fn received(text: TextBytes<'_>) -> Self {
        match text {
            // One that came in fragments may have twice the room that it needs, and counts without it.
            TextBytes::BehindRoom(bytes) if bytes.capacity() - bytes.len() <= bytes.len() / 4 => {
                Self::behind_room(bytes)
            }
            TextBytes::BehindRoom(bytes) => {
                let copy = Self::copied(&bytes[HEADER_ROOM..]);
                memory::give_back(bytes);
                copy
            }
            TextBytes::Borrowed(bytes) => Self::copied(bytes),
        }
    }

    fn copied(text: &[u8]) -> Self {
        let mut bytes = memory::take(HEADER_ROOM + text.len());
        bytes.resize(HEADER_ROOM, 0);
        bytes.extend_from_slice(text);
        Self::behind_room(bytes)
    }

    /// The text, valid UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        codec::payload_of(&self.frame)
    }

    /// Its frame: unfragmented and not compressed.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_payload_of_its_frame_wherever_it_came_from() {
        for length in [0, 125, 126, 65_535, 65_536, 100_000] {
            let text = "x".repeat(length);
            let frame = codec::encode_frame(Opcode::Text, text.as_bytes());
            let mut behind_room = vec![7; HEADER_ROOM];
            behind_room.extend_from_slice(text.as_bytes());
            let mut roomy = Vec::with_capacity(4 * behind_room.len());
            roomy.extend_from_slice(&behind_room);
            for large in [
                LargeText::behind_room(behind_room.clone()),
                LargeText::received(TextBytes::BehindRoom(behind_room)),
                LargeText::received(TextBytes::BehindRoom(roomy)),
                LargeText::received(TextBytes::Borrowed(text.as_bytes())),
            ] {
                assert_eq!(large.frame(), &frame);
                assert_eq!(large.as_bytes(), text.as_bytes());
            }
        }
    }

    #[test]
    fn one_that_came_in_one_piece_with_its_room_is_not_copied() {
        let mut bytes = memory::take(100_000);
        bytes.resize(100_000, b'a');
        let address = bytes[HEADER_ROOM..].as_ptr();
        let large = LargeText::received(TextBytes::BehindRoom(bytes));
        assert_eq!(large.as_bytes().as_ptr(), address);
    }
}
