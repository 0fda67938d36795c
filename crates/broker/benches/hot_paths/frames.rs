//! What clients send.

use wsbroker_engine::bench::READ;
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;

/// Decoding unmasks where the bytes stand. With this key the next time masks them again and leaves text that is as valid
/// and as long, so that the same bytes can be decoded for ever, and copying them is not measured.
const KEY: [u8; 4] = [1; 4];

#[derive(Clone, Copy)]
pub(crate) enum Content {
    Ascii,
    /// Letters of two bytes.
    Greek,
    Binary,
}

/// Messages of `size` bytes, as they come in reads: as many as one takes, or one that takes several.
pub(crate) struct Reads {
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) messages: usize,
}

impl Reads {
    pub(crate) fn new(content: Content, size: usize) -> Self {
        let (opcode, payload) = match content {
            Content::Ascii => (Opcode::Text, "abcdefgh".repeat(size / 8)),
            Content::Greek => (Opcode::Text, "αβγδ".repeat(size / 8)),
            Content::Binary => (Opcode::Binary, "abcdefgh".repeat(size / 8)),
        };
        let frame = encode_masked(opcode, true, KEY, payload.as_bytes());
        let messages = (READ / frame.len()).max(1);
        Self {
            chunks: frame.repeat(messages).chunks(READ).map(Vec::from).collect(),
            messages,
        }
    }
}
