//! What a message carries, so that whoever gets it can tell whether it is the right one.
//!
//! ```text
//! byte 0        what the server is to do: `j` join, `p` publish, `g` collect garbage, `i` say which worker you are,
//!               `x` block your thread; any other byte is sent back
//! bytes 1..7    the channel, decimal; for `x` the milliseconds
//! byte 7        a space, which ends the channel's name
//! bytes 8..16   the sender, hexadecimal
//! bytes 16..32  the sequence number, hexadecimal
//! then          filling, always the same
//! ```
//!
//! It is ASCII throughout, so that the same bytes are a text message and a binary one.

/// The smallest message.
pub(crate) const HEAD: usize = 32;

const SENDER: usize = 8;
const SEQUENCE: usize = 16;

/// The largest number of a channel, plus one: six digits.
pub(crate) const CHANNELS: u32 = 1_000_000;

/// What the server does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Echo,
    Join,
    Publish,
    CollectGarbage,
    Identify,
    Block,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Echo => b'e',
            Self::Join => b'j',
            Self::Publish => b'p',
            Self::CollectGarbage => b'g',
            Self::Identify => b'i',
            Self::Block => b'x',
        }
    }
}

/// Who sent a message, where to, and as which of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) channel: u32,
    pub(crate) sender: u32,
    pub(crate) sequence: u64,
}

/// A payload of `size` bytes, at least [`HEAD`].
pub(crate) fn build(kind: Kind, size: usize, stamp: Stamp) -> Vec<u8> {
    let mut payload = vec![0; size.max(HEAD)];
    payload[0] = kind.byte();
    write_decimal(&mut payload[1..7], stamp.channel);
    payload[7] = b' ';
    write_hex(&mut payload[SENDER..SEQUENCE], u64::from(stamp.sender));
    write_hex(&mut payload[SEQUENCE..HEAD], stamp.sequence);
    for (at, byte) in payload[HEAD..].iter_mut().enumerate() {
        *byte = b'a' + (at % 26) as u8;
    }
    payload
}

/// The bytes between the kind and the filling, as they go into a template.
pub(crate) fn variable_part(stamp: Stamp) -> [u8; HEAD - 1] {
    let mut head = [b' '; HEAD - 1];
    write_decimal(&mut head[..6], stamp.channel);
    write_hex(&mut head[SENDER - 1..SEQUENCE - 1], u64::from(stamp.sender));
    write_hex(&mut head[SEQUENCE - 1..], stamp.sequence);
    head
}

/// Reads the stamp of a payload that was built here; `None` when its head is not one.
pub(crate) fn read(payload: &[u8]) -> Option<Stamp> {
    let head = payload.get(..HEAD)?;
    Some(Stamp {
        channel: read_decimal(&head[1..7])?,
        sender: u32::try_from(read_hex(&head[SENDER..SEQUENCE])?).ok()?,
        sequence: read_hex(&head[SEQUENCE..])?,
    })
}

fn write_decimal(digits: &mut [u8], mut value: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn read_decimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u32::from(digit))
    })
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        channel: 901,
        sender: 0xBEEF,
        sequence: 0x12_3456_789A,
    };

    #[test]
    fn a_stamp_is_read_back() {
        for size in [0, HEAD, 64, 1000] {
            let payload = build(Kind::Publish, size, STAMP);
            assert_eq!(payload.len(), size.max(HEAD));
            assert_eq!(&payload[..8], b"p000901 ");
            assert_eq!(read(&payload), Some(STAMP));
        }
    }

    #[test]
    fn what_goes_into_a_template_is_what_is_built() {
        let payload = build(Kind::Echo, 64, STAMP);
        assert_eq!(payload[1..HEAD], variable_part(STAMP));
    }

    #[test]
    fn a_damaged_head_is_none() {
        let payload = build(Kind::Echo, 64, STAMP);
        for at in (1..7).chain(SENDER..HEAD) {
            let mut damaged = payload.clone();
            damaged[at] = b'~';
            assert_eq!(read(&damaged), None, "byte {at}");
        }
        assert_eq!(read(&payload[..HEAD - 1]), None);
    }
}
