//! An outbound message: its frame, encoded once for however many receive it.

use bytes::Bytes;

use crate::codec::{self, Opcode};

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

    /// The frame as it goes out.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }
}
