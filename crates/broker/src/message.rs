//! An outbound message: its frame, encoded once for however many receive it, and compressed once for those who share
//! the parameters of permessage-deflate.

use std::cell::OnceCell;

use bytes::Bytes;

use crate::codec::{self, MAX_HEADER, Opcode};
use crate::compression::Compression;
use crate::large_text::LargeText;
use crate::outbox::COPY_UP_TO;
use crate::registry::SocketEntry;

/// A message to send: what it says, and its frame once it is shared.
#[derive(Clone, Debug)]
pub struct OutboundMessage<'a> {
    opcode: Opcode,
    /// Empty where the frame was there from the beginning.
    payload: &'a [u8],
    /// Encoded for the first receiver that is not given a copy; all others share it.
    frame: OnceCell<Bytes>,
}

impl<'a> OutboundMessage<'a> {
    /// A text message.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self::new(Opcode::Text, text.as_bytes())
    }

    /// A text message, of bytes that the caller vouches for to be UTF-8.
    #[must_use]
    pub fn utf8(text: &'a [u8]) -> Self {
        Self::new(Opcode::Text, text)
    }

    /// A binary message.
    #[must_use]
    pub fn binary(bytes: &'a [u8]) -> Self {
        Self::new(Opcode::Binary, bytes)
    }

    /// A text message that is not copied any more.
    #[must_use]
    pub fn large_text(text: &LargeText) -> Self {
        Self {
            opcode: Opcode::Text,
            payload: &[],
            frame: text.frame().clone().into(),
        }
    }

    fn new(opcode: Opcode, payload: &'a [u8]) -> Self {
        Self {
            opcode,
            payload,
            frame: OnceCell::new(),
        }
    }

    /// Its frame in two parts, if a copy of it is what is best for this receiver: a small one is copied on its way out
    /// anyway, and so takes no memory of its own.
    #[inline]
    pub(crate) fn copied_for(&self, entry: &SocketEntry) -> Option<SmallFrame<'a>> {
        let is_large = self.payload.len() > COPY_UP_TO - MAX_HEADER;
        if is_large || entry.deflate.is_some() || self.frame.get().is_some() {
            return None;
        }
        let (header, size) = codec::header(self.opcode, self.payload.len());
        Some(SmallFrame {
            header,
            size,
            payload: self.payload,
        })
    }

    /// The frame for one receiver.
    pub(crate) fn frame_for(&self, entry: &SocketEntry) -> Bytes {
        let frame = self.frame();
        let compressed = Wanted::by(entry, frame).and_then(|wanted| wanted.deflate(frame));
        compressed.unwrap_or_else(|| frame.clone())
    }

    /// Its frames for the receivers of one call.
    pub(crate) fn frames(&self) -> Frames {
        let is_small = self.payload.len() <= COPY_UP_TO - MAX_HEADER;
        Frames::new(match self.frame.get() {
            // It will be copied, and nobody share it.
            None if is_small => codec::encode_frame(self.opcode, self.payload),
            _ => self.frame().clone(),
        })
    }

    fn frame(&self) -> &Bytes {
        self.frame
            .get_or_init(|| codec::encode_frame(self.opcode, self.payload))
    }
}

/// A frame of at most [`COPY_UP_TO`] bytes that is not in one piece yet.
pub(crate) struct SmallFrame<'a> {
    header: [u8; MAX_HEADER],
    size: usize,
    payload: &'a [u8],
}

impl SmallFrame<'_> {
    pub(crate) fn len(&self) -> usize {
        self.size + self.payload.len()
    }

    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.header[..self.size]);
        bytes.extend_from_slice(self.payload);
    }
}

/// The frames of one message: one for every kind of receiver that one call has met.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    plain: Bytes,
    /// As long as there is none it takes no memory.
    variants: Vec<Variant>,
}

#[derive(Clone, Debug)]
struct Variant {
    level: u8,
    window_bits: u8,
    /// The plain frame, where compressing has not made it smaller.
    frame: Bytes,
}

impl Frames {
    /// Of a plain data frame.
    pub(crate) fn new(plain: Bytes) -> Self {
        Self {
            plain,
            variants: Vec::new(),
        }
    }

    /// The one frame for all receivers so far, if it is small enough to be copied.
    pub(crate) fn small(&self) -> Option<&[u8]> {
        (self.variants.is_empty() && self.plain.len() <= COPY_UP_TO).then_some(&*self.plain)
    }

    /// The frame that goes to this socket, compressed now if no receiver before was like it.
    ///
    /// A socket with context takeover gets the plain one: what it becomes depends on what was sent before, which only its
    /// shard knows.
    #[inline]
    pub(crate) fn prepare(&mut self, entry: &SocketEntry) -> &Bytes {
        match Wanted::by(entry, &self.plain) {
            None => &self.plain,
            Some(wanted) => self.compressed(wanted),
        }
    }

    /// The frame that was prepared for this socket.
    #[inline]
    pub(crate) fn of(&self, entry: &SocketEntry) -> &Bytes {
        match Wanted::by(entry, &self.plain) {
            None => &self.plain,
            Some(wanted) => match self.find(&wanted) {
                Some(at) => &self.variants[at].frame,
                None => &self.plain,
            },
        }
    }

    fn compressed(&mut self, wanted: Wanted<'_>) -> &Bytes {
        let at = self.find(&wanted).unwrap_or_else(|| {
            let compressed = wanted.deflate(&self.plain);
            self.variants.push(Variant {
                level: wanted.compression.level,
                window_bits: wanted.window_bits,
                frame: compressed.unwrap_or_else(|| self.plain.clone()),
            });
            self.variants.len() - 1
        });
        &self.variants[at].frame
    }

    fn find(&self, wanted: &Wanted<'_>) -> Option<usize> {
        self.variants.iter().position(|variant| {
            variant.level == wanted.compression.level && variant.window_bits == wanted.window_bits
        })
    }
}

/// How a receiver wants a message compressed that all receivers like it share.
struct Wanted<'a> {
    compression: &'a Compression,
    window_bits: u8,
}

impl<'a> Wanted<'a> {
    #[inline]
    fn by(entry: &'a SocketEntry, plain: &Bytes) -> Option<Self> {
        let deflate = entry.deflate.filter(|deflate| !deflate.server.takeover())?;
        let compression = entry.listener.options.compression.as_ref()?;
        // Listeners with the same level, whose sockets share a variant, may differ in this.
        compression.concerns(plain).then_some(Self {
            compression,
            window_bits: deflate.server.window_bits(),
        })
    }

    fn deflate(&self, plain: &Bytes) -> Option<Bytes> {
        self.compression.deflate(plain, self.window_bits, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_that_share_parameters_share_one_compressed_frame() {
        let fast = Compression::default();
        let strong = Compression {
            level: 9,
            ..Compression::default()
        };
        let wanted = |compression, window_bits| Wanted {
            compression,
            window_bits,
        };
        let text = "many times ".repeat(1000);
        let message = OutboundMessage::text(&text);
        let mut frames = message.frames();
        let first = frames.compressed(wanted(&fast, 15)).clone();
        for _ in 0..3 {
            let again = frames.compressed(wanted(&fast, 15));
            assert_eq!(again.as_ptr(), first.as_ptr(), "not compressed again");
        }
        for other in [wanted(&fast, 9), wanted(&strong, 15)] {
            assert_ne!(frames.compressed(other).as_ptr(), first.as_ptr());
        }
        assert_eq!(frames.variants.len(), 3);
        // Those of the publication are the same.
        let sent = frames.clone();
        let at = sent.find(&wanted(&fast, 15)).expect("prepared");
        assert_eq!(sent.variants[at].frame.as_ptr(), first.as_ptr());
    }

    #[test]
    fn a_message_that_does_not_become_smaller_is_tried_once() {
        let message = OutboundMessage::text("");
        let mut frames = message.frames();
        let compression = Compression::default();
        let wanted = Wanted {
            compression: &compression,
            window_bits: 15,
        };
        assert_eq!(frames.compressed(wanted).as_ptr(), frames.plain.as_ptr());
        assert_eq!(frames.variants.len(), 1);
    }
}
