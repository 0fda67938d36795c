//! What the server sends: whole, unmasked frames (RFC 6455 §5.1), each one contiguous piece of bytes that any
//! number of sockets can share.

use super::Opcode;
use super::close::{self, MAX_REASON};
use super::frame::{FIN, LENGTH_16, LENGTH_64, MAX_SHORT_LENGTH, RSV1};
use crate::memory;
use bytes::Bytes;

/// The most bytes [`header`] fills: two, and a length of eight.
pub const MAX_HEADER: usize = 10;

/// The most bytes a Ping, Pong or Close may carry (§5.5).
pub const MAX_CONTROL_PAYLOAD: usize = MAX_SHORT_LENGTH;

/// A Ping without payload, for heartbeats.
pub const PING: &[u8] = &[FIN | Opcode::Ping as u8, 0];

/// The header of an unfragmented, unmasked frame with a payload of `len` bytes: the bytes, and how many of them
/// count.
///
/// For a caller that reserves [`MAX_HEADER`]` + len` bytes and writes the payload behind the header itself.
#[inline]
pub fn header(opcode: Opcode, len: usize) -> ([u8; MAX_HEADER], usize) {
    let mut bytes = [0; MAX_HEADER];
    let size = write_header(&mut bytes, FIN | opcode as u8, 0, len);
    (bytes, size)
}

/// Writes the first two bytes and the length; `mask_bit` joins the second byte. Returns how many bytes that took.
#[inline]
pub(super) fn write_header(
    bytes: &mut [u8; MAX_HEADER],
    first: u8,
    mask_bit: u8,
    len: usize,
) -> usize {
    bytes[0] = first;
    if len <= MAX_SHORT_LENGTH {
        bytes[1] = mask_bit | len as u8;
        2
    } else if let Ok(len) = u16::try_from(len) {
        bytes[1] = mask_bit | LENGTH_16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        bytes[1] = mask_bit | LENGTH_64;
        bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        10
    }
}

/// An unfragmented frame: header and payload in one piece.
///
/// For text the caller vouches for UTF-8. Control frames have functions of their own, which keep to their limit.
pub fn encode_frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let (header, size) = header(opcode, payload.len());
    let mut frame = memory::take(size + payload.len());
    frame.extend_from_slice(&header[..size]);
    frame.extend_from_slice(payload);
    memory::share(frame)
}

/// The same message compressed: `payload` replaces that of `frame`, a data frame that [`encode_frame`] made, and RSV1 says
/// so (RFC 7692 §6.1).
pub fn encode_compressed(frame: &[u8], payload: &[u8]) -> Bytes {
    let mut header = [0; MAX_HEADER];
    let first = frame.first().copied().unwrap_or_default() | RSV1;
    let size = write_header(&mut header, first, 0, payload.len());
    [&header[..size], payload].concat().into()
}

/// The payload of a frame that [`encode_frame`] made.
#[inline]
pub fn payload_of(frame: &[u8]) -> &[u8] {
    frame.get(header_len(frame)..).unwrap_or_default()
}

/// How many bytes the first of some frames has, which follow each other and which [`encode_frame`] or [`header`] began.
pub fn frame_len(frames: &[u8]) -> usize {
    let header = header_len(frames);
    // The length follows the first byte, in one byte or behind a marker.
    let length = match header {
        2 => frames.get(1..2),
        _ => frames.get(2..header),
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    header + length.map_or(0, number)
}

fn header_len(frame: &[u8]) -> usize {
    match frame.get(1).copied() {
        Some(LENGTH_64) => 10,
        Some(LENGTH_16) => 4,
        _ => 2,
    }
}

/// A Ping (§5.5.2) with at most [`MAX_CONTROL_PAYLOAD`] bytes; more are cut off.
pub fn encode_ping(payload: &[u8]) -> Bytes {
    encode_control(Opcode::Ping, payload)
}

/// A Pong (§5.5.3) with at most [`MAX_CONTROL_PAYLOAD`] bytes; more are cut off. The answer to a Ping carries the
/// Ping's payload.
pub fn encode_pong(payload: &[u8]) -> Bytes {
    encode_control(Opcode::Pong, payload)
}

/// A Close frame (§5.5.1). A reason of more than 123 bytes is cut at the end of a character.
///
/// The codes that only describe an end (1005, 1006, 1015) must not be sent (§7.4.1): with them the frame has an
/// empty body, which the peer sees as 1005.
pub fn encode_close(code: u16, reason: &str) -> Bytes {
    if matches!(
        code,
        close::NO_STATUS | close::ABNORMAL | close::TLS_HANDSHAKE
    ) {
        return encode_control(Opcode::Close, &[]);
    }
    let reason = shorten(reason, MAX_REASON);
    let mut body = [0; MAX_CONTROL_PAYLOAD];
    body[..2].copy_from_slice(&code.to_be_bytes());
    body[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    encode_control(Opcode::Close, &body[..2 + reason.len()])
}

/// The longest beginning of `text` that has at most `most` bytes and ends with a whole character.
fn shorten(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn encode_control(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode_frame(opcode, &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_rfc() {
        // §5.7, the unmasked examples.
        assert_eq!(encode_frame(Opcode::Text, b"Hello")[..], *b"\x81\x05Hello");
        assert_eq!(encode_ping(b"Hello")[..], *b"\x89\x05Hello");
        assert_eq!(encode_pong(b"Hello")[..], *b"\x8A\x05Hello");
        let binary = encode_frame(Opcode::Binary, &[7; 256]);
        assert_eq!(binary[..4], *b"\x82\x7E\x01\x00");
        assert_eq!(binary[4..], [7; 256]);
        let binary = encode_frame(Opcode::Binary, &[7; 65536]);
        assert_eq!(binary[..10], *b"\x82\x7F\0\0\0\0\0\x01\0\0");
        assert_eq!(binary[10..], [7; 65536]);
    }

    #[test]
    fn a_length_takes_the_fewest_bytes() {
        for (len, expected) in [
            (0, &b"\x82\x00"[..]),
            (125, b"\x82\x7D"),
            (126, b"\x82\x7E\x00\x7E"),
            (65535, b"\x82\x7E\xFF\xFF"),
            (65536, b"\x82\x7F\0\0\0\0\0\x01\0\0"),
        ] {
            let (bytes, size) = header(Opcode::Binary, len);
            assert_eq!(bytes[..size], *expected, "{len}");
        }
    }

    #[test]
    fn a_compressed_frame_has_the_opcode_and_the_last_bit_of_the_plain_one() {
        for size in [0, 125, 126, 65535, 65536] {
            for opcode in [Opcode::Text, Opcode::Binary] {
                let payload = vec![b'x'; size];
                let plain = encode_frame(opcode, &payload);
                assert_eq!(payload_of(&plain), payload);
                let compressed = encode_compressed(&plain, b"short");
                assert_eq!(compressed[..2], [0xC0 | opcode as u8, 5]);
                assert_eq!(payload_of(&compressed), b"short");
            }
        }
    }

    #[test]
    fn the_heartbeat_is_a_ping_without_payload() {
        assert_eq!(encode_ping(b"")[..], *PING);
    }

    #[test]
    fn a_control_payload_is_cut_at_its_limit() {
        for encode in [encode_ping, encode_pong] {
            assert_eq!(encode(&[1; 125])[1..], [&[125][..], &[1; 125]].concat());
            assert_eq!(encode(&[1; 126]), encode(&[1; 125]));
        }
    }

    #[test]
    fn a_close_frame_has_a_code_and_a_reason() {
        assert_eq!(encode_close(1000, "")[..], *b"\x88\x02\x03\xE8");
        assert_eq!(encode_close(4000, "bye")[..], *b"\x88\x05\x0F\xA0bye");
    }

    #[test]
    fn codes_that_only_describe_an_end_are_not_sent() {
        for code in [1005, 1006, 1015] {
            assert_eq!(encode_close(code, "reason")[..], *b"\x88\x00", "{code}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_the_end_of_a_character() {
        for (reason, kept) in [
            ("x".repeat(123), 123),
            ("x".repeat(124), 123),
            ("é".repeat(62), 122),
            ("€".repeat(41), 123),
            ("🦀".repeat(31), 120),
        ] {
            let frame = encode_close(1000, &reason);
            assert_eq!(usize::from(frame[1]), 2 + kept, "{reason}");
            assert_eq!(frame[4..], reason.as_bytes()[..kept], "{reason}");
        }
    }
}
