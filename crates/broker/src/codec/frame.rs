//! A frame's header (RFC 6455 §5.2): what the first 2 to 14 bytes of a frame say.

use super::Violation;

/// First byte: this is the last fragment of its message.
pub(super) const FIN: u8 = 0x80;
/// First byte: RSV1, RSV2 and RSV3.
const RSV: u8 = 0x70;
/// First byte: the message is compressed (RFC 7692 §6); stands on its first frame only.
pub(super) const RSV1: u8 = 0x40;
/// Second byte: a masking key follows the length.
pub(super) const MASK: u8 = 0x80;
/// Second byte, low bits: the length is in the next two bytes.
pub(super) const LENGTH_16: u8 = 126;
/// Second byte, low bits: the length is in the next eight bytes.
pub(super) const LENGTH_64: u8 = 127;
/// The largest length that the second byte holds itself; also the limit of a control frame (§5.5).
pub(super) const MAX_SHORT_LENGTH: usize = 125;
/// The longest header of a masked frame: 2 bytes, a length of 8, a key of 4.
pub(super) const MAX_MASKED_HEADER: usize = 14;

/// What a frame is (§5.2, §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that has begun.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The closing handshake (§5.5.1).
    Close = 0x8,
    /// Asks for a Pong with the same payload (§5.5.2).
    Ping = 0x9,
    /// The answer to a Ping, or a heartbeat nobody asked for (§5.5.3).
    Pong = 0xA,
}

impl Opcode {
    /// Control frames come whole, are short, and may stand between the fragments of a message (§5.5).
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }
}

/// A client's frame header, checked as far as it can be without knowing what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub fin: bool,
    /// RSV1: the message that begins here is compressed.
    pub compressed: bool,
    pub opcode: Opcode,
    pub mask: [u8; 4],
    /// Bytes of the payload, as declared.
    pub payload_len: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

impl FrameHeader {
    /// Reads the header at the start of `bytes`; `None` while it is not all there. `deflate`: compressed messages were
    /// agreed on.
    ///
    /// Checks run from the first byte to the last, so a longer prefix of the same frame never gives a different
    /// violation: how the bytes were cut into reads does not show.
    #[inline]
    pub(super) fn parse(bytes: &[u8], deflate: bool) -> Result<Option<Self>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let compressed = first & RSV != 0;
        if compressed && !(deflate && begins_compressed(first)) {
            return Err(Violation::ReservedBit);
        }
        let fin = first & FIN != 0;
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
        if opcode.is_control() && !fin {
            return Err(Violation::FragmentedControl);
        }

        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & MASK == 0 {
            return Err(Violation::UnmaskedFrame);
        }
        let length = second & !MASK;
        if opcode.is_control() && usize::from(length) > MAX_SHORT_LENGTH {
            return Err(Violation::OversizedControl);
        }
        let Some((payload_len, mask_at)) = parse_length(length, &bytes[2..])? else {
            return Ok(None);
        };

        let Some(mask) = bytes[mask_at..].first_chunk::<4>() else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            compressed,
            opcode,
            mask: *mask,
            payload_len,
            size: mask_at + mask.len(),
        }))
    }

    /// A control frame, or a message in one frame: it depends on no other frame.
    #[inline]
    pub(super) fn is_unfragmented(&self) -> bool {
        self.fin && self.opcode != Opcode::Continuation
    }
}

/// Whether the first byte of a frame sets RSV1 alone, where permessage-deflate gives it a meaning: at the beginning of a
/// data message (RFC 7692 §6.1).
fn begins_compressed(first: u8) -> bool {
    let opcode = Opcode::from_bits(first & 0x0F);
    first & RSV == RSV1 && matches!(opcode, Some(Opcode::Text | Opcode::Binary))
}

/// The payload's length and where in the frame the masking key begins, from the second byte's `length` and what
/// follows that byte; `None` while the length is not all there.
// Given through memory, a load would have to wait for both of its stores: `docs/performance.md`.
#[inline(always)]
fn parse_length(length: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    match length {
        LENGTH_16 => {
            let Some(bytes) = rest.first_chunk::<2>() else {
                return Ok(None);
            };
            let extended = u16::from_be_bytes(*bytes);
            if usize::from(extended) <= MAX_SHORT_LENGTH {
                return Err(Violation::NonMinimalLength);
            }
            Ok(Some((extended.into(), 2 + bytes.len())))
        }
        LENGTH_64 => {
            let Some(bytes) = rest.first_chunk::<8>() else {
                return Ok(None);
            };
            let extended = u64::from_be_bytes(*bytes);
            if extended > i64::MAX.cast_unsigned() {
                return Err(Violation::LengthTooLarge);
            }
            if extended <= u16::MAX.into() {
                return Err(Violation::NonMinimalLength);
            }
            Ok(Some((extended, 2 + bytes.len())))
        }
        short => Ok(Some((short.into(), 2))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_survive_the_way_through_their_bits() {
        let known: Vec<Opcode> = (0..16).filter_map(Opcode::from_bits).collect();
        use Opcode::*;
        assert_eq!(known, [Continuation, Text, Binary, Close, Ping, Pong]);
        for opcode in known {
            assert_eq!(Opcode::from_bits(opcode as u8), Some(opcode));
            assert_eq!(opcode.is_control(), matches!(opcode, Close | Ping | Pong));
        }
    }

    #[test]
    fn a_header_is_complete_with_its_last_byte_and_not_before() {
        for (bytes, payload_len) in [
            (&[0x81, 0x85, 1, 2, 3, 4][..], 5),
            (&[0x81, 0x80 | 126, 0, 126, 1, 2, 3, 4], 126),
            (
                &[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4],
                0x1_0000,
            ),
            (
                &[
                    0x81,
                    0x80 | 127,
                    0x7F,
                    255,
                    255,
                    255,
                    255,
                    255,
                    255,
                    255,
                    1,
                    2,
                    3,
                    4,
                ],
                i64::MAX.cast_unsigned(),
            ),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(
                    FrameHeader::parse(&bytes[..cut], false),
                    Ok(None),
                    "{cut} of {bytes:?}"
                );
            }
            let header = FrameHeader {
                fin: true,
                compressed: false,
                opcode: Opcode::Text,
                mask: [1, 2, 3, 4],
                payload_len,
                size: bytes.len(),
            };
            assert_eq!(FrameHeader::parse(bytes, false), Ok(Some(header)));
        }
    }
}
