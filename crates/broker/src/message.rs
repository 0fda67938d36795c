//! An outbound message: its frame, encoded once for however many receive it, and compressed once for those who share
//! the parameters of permessage-deflate.

use bytes::Bytes;

use crate::codec::{self, Opcode};
use crate::compression::Compression;
use crate::registry::SocketEntry;

/// A message to send. Cheap to clone; every receiver shares the same bytes.
#[derive(Clone, Debug)]
pub struct OutboundMessage {
    frame: Bytes,
}

impl OutboundMessage {
    /// A text message.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self {
            frame: codec::encode_frame(Opcode::Text, text.as_bytes()),
        }
    }

    /// A binary message.
    #[must_use]
    pub fn binary(bytes: &[u8]) -> Self {
        Self {
            frame: codec::encode_frame(Opcode::Binary, bytes),
        }
    }

    /// Its frames for the receivers of one call.
    pub(crate) fn frames(&self) -> Frames {
        Frames {
            plain: self.frame.clone(),
            variants: Vec::new(),
        }
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
            let Wanted {
                compression,
                window_bits,
            } = wanted;
            let compressed = compression.deflate(&self.plain, window_bits, &[]);
            self.variants.push(Variant {
                level: compression.level,
                window_bits,
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
        // Before the variants: listeners with the same level may differ in this.
        let long_enough = codec::payload_of(plain).len() >= compression.threshold;
        long_enough.then_some(Self {
            compression,
            window_bits: deflate.server.window_bits(),
        })
    }
}
