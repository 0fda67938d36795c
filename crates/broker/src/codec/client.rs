//! A client's frames, for the programs that speak to a server in raw bytes: the engine's own tests, which need
//! frames that no honest library would send, and load generators.

use super::encoder::{MAX_HEADER, write_header};
use super::frame::{FIN, MASK, MAX_MASKED_HEADER};
use super::{Opcode, mask};

/// One masked frame (RFC 6455 §5.2): `fin` ends the message, `key` is the masking key. Nothing is checked, so that a test
/// can build what the server must refuse.
pub fn encode_masked(opcode: Opcode, fin: bool, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let first = opcode as u8 | if fin { FIN } else { 0 };
    let mut header = [0; MAX_HEADER];
    let size = write_header(&mut header, first, MASK, payload.len());
    let mut frame = Vec::with_capacity(MAX_MASKED_HEADER + payload.len());
    frame.extend_from_slice(&header[..size]);
    frame.extend_from_slice(&key);
    let payload_at = frame.len();
    frame.extend_from_slice(payload);
    mask::apply(&mut frame[payload_at..], key);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_frame_is_that_of_the_rfc() {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        let frame = encode_masked(Opcode::Text, true, key, b"Hello");
        assert_eq!(frame, b"\x81\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58");
    }

    #[test]
    fn the_last_fragment_is_the_one_with_fin() {
        assert_eq!(encode_masked(Opcode::Text, false, [0; 4], b"")[0], 0x01);
        assert_eq!(
            encode_masked(Opcode::Continuation, true, [0; 4], b"")[0],
            0x80
        );
    }
}
