//! Compressed messages: whatever a client calls one is inflated within its bounds, and what is compressed here is what it
//! was when it is inflated.

use super::Choices;
use super::codec::{Got, Rules, check_splits};
use crate::codec::client::encode_masked;
use crate::codec::{Compressor, Contexts, Opcode, Violation};

/// RSV1 of a frame's first byte: the message is compressed.
const COMPRESSED: u8 = 0x40;

/// Messages per run.
const MAX_MESSAGES: usize = 20;

/// A few choices, then messages, each behind its length: what a client claims to be compressed, in one frame or in two.
pub fn inflate(data: &[u8]) {
    let mut choices = Choices(data);
    let mut rules = Rules::choose(&mut choices);
    if rules.deflate.is_none() {
        rules.deflate = Rules::choose(&mut Choices(&[8])).deflate;
    }
    let (first, second) = (choices.byte(), choices.byte());
    let mut stream = Vec::new();
    for _ in 0..MAX_MESSAGES {
        if choices.is_empty() {
            break;
        }
        let kind = choices.byte();
        let opcode = if kind & 1 == 0 {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        let payload = choices.piece();
        let at = stream.len();
        if kind & 2 == 0 {
            stream.extend(encode_masked(opcode, true, [kind; 4], payload));
        } else {
            let (one, two) = payload.split_at(payload.len() / 2);
            stream.extend(encode_masked(opcode, false, [kind; 4], one));
            stream.extend(encode_masked(Opcode::Continuation, true, [1, 2, 3, 4], two));
        }
        if kind & 4 == 0 {
            stream[at] |= COMPRESSED;
        }
    }
    check_splits(&stream, rules, first, second);
}

/// A few choices, then the messages that are compressed.
pub fn deflate(data: &[u8]) {
    let mut choices = Choices(data);
    let mut rules = Rules::choose(&mut choices);
    let all = Rules::choose(&mut Choices(&[0xFF]));
    rules.limit = all.limit;
    let agreed = *rules
        .deflate
        .get_or_insert(all.deflate.expect("bit 3 is set"));
    let (first, second) = (choices.byte(), choices.byte());
    let mut compressor = Compressor::new(choices.byte() % 10, agreed.server.window_bits());

    let mut contexts = Contexts::default();
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..MAX_MESSAGES {
        if choices.is_empty() {
            break;
        }
        let repeat = usize::from(choices.byte() % 8 + 1);
        let message = choices.piece().repeat(repeat);
        expected.push(Got::Binary(message.clone()));
        // Both directions agreed on the same, so what is sent here can be read as if a client had sent it.
        match compressor.compress(&message, contexts.sent()) {
            Some(compressed) => {
                assert!(compressed.len() < message.len());
                contexts.remember_sent(agreed, &message);
                let at = stream.len();
                stream.extend(encode_masked(Opcode::Binary, true, [0; 4], &compressed));
                stream[at] |= COMPRESSED;
            }
            None => stream.extend(encode_masked(Opcode::Binary, true, [0; 4], &message)),
        }
    }
    let no_violation: Option<Violation> = None;
    let decoded = check_splits(&stream, rules, first, second);
    assert!(decoded == (expected, no_violation), "{decoded:?}");
}
