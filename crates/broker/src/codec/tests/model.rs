//! What the decoder must do, told in the simplest way: all bytes at hand, everything copied, everything
//! checked again from the start.

use super::*;

/// The items of `bytes` and the violation that ends them.
pub(super) fn decode(bytes: &[u8], max_message: usize) -> (Vec<Got>, Option<Violation>) {
    let mut items = Vec::new();
    let violation = run(bytes, max_message, &mut items).err();
    (items, violation)
}

fn run(bytes: &[u8], max_message: usize, items: &mut Vec<Got>) -> Result<(), Violation> {
    let mut at = 0;
    let mut message: Option<(bool, Vec<u8>)> = None;
    while let Some(first) = bytes.get(at).copied() {
        let (fin, opcode) = (first >= 0x80, first % 16);
        if first % 0x80 / 0x10 != 0 {
            return Err(Violation::ReservedBit);
        }
        if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
            return Err(Violation::ReservedOpcode);
        }
        if opcode >= 8 && !fin {
            return Err(Violation::FragmentedControl);
        }
        let Some(second) = bytes.get(at + 1).copied() else {
            return Ok(());
        };
        if second < 0x80 {
            return Err(Violation::UnmaskedFrame);
        }
        if opcode >= 8 && second > 0x80 + 125 {
            return Err(Violation::OversizedControl);
        }
        let extended = match second {
            0xFE => 2,
            0xFF => 8,
            _ => 0,
        };
        let Some(field) = bytes.get(at + 2..at + 2 + extended) else {
            return Ok(());
        };
        let declared = field
            .iter()
            .fold(0u128, |sum, byte| sum * 256 + u128::from(*byte));
        let len = match second {
            0xFE if declared < 126 => return Err(Violation::NonMinimalLength),
            0xFF if declared < 65536 => return Err(Violation::NonMinimalLength),
            0xFF if declared >= 1 << 63 => return Err(Violation::LengthTooLarge),
            0xFE | 0xFF => declared,
            short => u128::from(short - 0x80),
        };
        at += 2 + extended;
        let Some(key) = bytes.get(at..at + 4) else {
            return Ok(());
        };
        at += 4;

        match (opcode, &message) {
            (0, None) => return Err(Violation::UnexpectedContinuation),
            (1 | 2, Some(_)) => return Err(Violation::ExpectedContinuation),
            (1 | 2, None) => message = Some((opcode == 1, Vec::new())),
            _ => {}
        }
        let before = message.as_ref().map_or(0, |(_, data)| data.len() as u128);
        if opcode < 8 && before + len > max_message as u128 {
            return Err(Violation::MessageTooBig);
        }
        let len = len as usize;
        let there: Vec<u8> = bytes[at..]
            .iter()
            .take(len)
            .enumerate()
            .map(|(i, byte)| byte ^ key[i % 4])
            .collect();
        let complete = there.len() == len;
        at += there.len();

        if opcode >= 8 {
            if complete {
                items.push(control(opcode, there)?);
                if opcode == 8 {
                    return Ok(());
                }
            }
            continue;
        }
        let (is_text, mut data) = message.take().expect("begun above");
        data.extend(there);
        let over = complete && fin;
        if is_text && let Err(error) = std::str::from_utf8(&data) {
            // An end inside a code point is wrong only at the end of the message.
            if over || error.error_len().is_some() {
                return Err(Violation::InvalidUtf8);
            }
        }
        match (over, is_text) {
            (true, true) => items.push(text(std::str::from_utf8(&data).expect("checked above"))),
            (true, false) => items.push(Got::Binary(data)),
            (false, _) => message = Some((is_text, data)),
        }
    }
    Ok(())
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Got, Violation> {
    match (opcode, payload.len()) {
        (9, _) => return Ok(Got::Ping(payload)),
        (10, _) => return Ok(Got::Pong(payload)),
        (_, 0) => return Ok(Got::Close(None, String::new())),
        (_, 1) => return Err(Violation::InvalidCloseLength),
        _ => {}
    }
    let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
    match code {
        0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => return Err(Violation::InvalidCloseCode),
        _ => {}
    }
    let reason = String::from_utf8(payload[2..].to_vec());
    let reason = reason.map_err(|_| Violation::InvalidCloseReason)?;
    Ok(Got::Close(Some(code), reason))
}
