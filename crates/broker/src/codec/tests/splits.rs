//! However a client's bytes are cut into reads, the same comes out, and it is what the model says.
//!
//! `WSBROKER_TEST_SEED` repeats a run; a failure prints its seed.

use super::random::{Random, seed};
use super::*;

/// Streams per test: one or two seconds without optimisation.
const STREAMS: usize = 3000;

/// Text of about `len` bytes from code points of one to four bytes, mostly.
fn random_text(random: &mut Random, len: usize) -> Vec<u8> {
    let ascii_only = random.one_in(2);
    let mut text = String::new();
    while text.len() < len {
        text.push(match ascii_only {
            true => random.pick(&['a', ' ', '0', '\u{7F}']),
            false => random.pick(&[
                'a',
                '\0',
                '\u{80}',
                'é',
                '\u{7FF}',
                '\u{800}',
                '€',
                '\u{D7FF}',
                '\u{FFFF}',
                '🦀',
                '\u{10FFFF}',
            ]),
        });
    }
    let mut bytes = text.into_bytes();
    if random.one_in(20) && !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8;
    }
    bytes
}

fn random_control(random: &mut Random) -> Vec<u8> {
    let opcode = random.pick(&[
        Opcode::Ping,
        Opcode::Pong,
        Opcode::Ping,
        Opcode::Pong,
        Opcode::Close,
    ]);
    let len = random.pick(&[0, 0, 1, 2, 5, 124, 125]);
    let mut payload = random_text(random, len);
    payload.truncate(125);
    if opcode == Opcode::Close && payload.len() >= 2 {
        let code: u16 = random.pick(&[1000, 1001, 1005, 1014, 3000, 4999, 5000]);
        payload[..2].copy_from_slice(&code.to_be_bytes());
    }
    frame(random, opcode, true, &payload)
}

fn frame(random: &mut Random, opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let key = (random.next() as u32).to_ne_bytes();
    encode_masked(opcode, fin, key, payload)
}

/// One message in one to five frames, with control frames between some.
fn random_message(random: &mut Random, stream: &mut Vec<u8>) {
    let len = match random.below(200) {
        0 => random.pick(&[65_535, 65_536]),
        1..=20 => random.pick(&[125, 126, 127, 300]),
        _ => random.below(20),
    };
    let (mut opcode, payload) = match random.one_in(3) {
        true => (Opcode::Binary, random.bytes(len)),
        false => (Opcode::Text, random_text(random, len)),
    };
    let mut rest = &payload[..];
    for _ in 0..random.pick(&[0, 0, 0, 1, 2, 4]) {
        let (fragment, after) = rest.split_at(random.below(rest.len() + 1));
        stream.extend(frame(random, opcode, false, fragment));
        if random.one_in(3) {
            stream.extend(random_control(random));
        }
        opcode = Opcode::Continuation;
        rest = after;
    }
    stream.extend(frame(random, opcode, true, rest));
}

/// What a client might send: mostly right; sometimes with one bit wrong, or cut off.
fn random_stream(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..=random.below(5) {
        match random.below(4) {
            0 => stream.extend(random_control(random)),
            _ => random_message(random, &mut stream),
        }
    }
    match random.below(6) {
        0 => stream.truncate(random.below(stream.len())),
        1 | 2 => {
            let at = random.below(stream.len());
            stream[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
    stream
}

/// Reads of random lengths, some of them empty.
fn random_reads<'a>(random: &mut Random, mut stream: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = random.pick(&[2, 10, 100, 10_000]);
    let mut reads = Vec::new();
    while !stream.is_empty() {
        let (read, rest) = stream.split_at(random.below(longest + 1).min(stream.len()));
        reads.push(read);
        stream = rest;
    }
    reads
}

#[test]
fn any_split_of_any_stream_gives_what_the_model_gives() {
    let seed = seed();
    let mut random = Random(seed);
    for n in 0..STREAMS {
        let stream = random_stream(&mut random);
        let max_message = random.pick(&[10, 200, ROOMY, ROOMY, ROOMY]);
        let expected = model::decode(&stream, max_message);
        let story = || format!("WSBROKER_TEST_SEED={seed}, stream {n}, limit {max_message}");

        let whole = decode([&stream[..]], max_message);
        assert!(
            whole == expected,
            "whole: {}\n{whole:?}\nnot\n{expected:?}",
            story()
        );
        let reads = random_reads(&mut random, &stream);
        let split = decode(reads, max_message);
        assert!(
            split == expected,
            "in reads: {}\n{split:?}\nnot\n{expected:?}",
            story()
        );
        let bytes = decode(stream.chunks(1), max_message);
        assert!(
            bytes == expected,
            "byte by byte: {}\n{bytes:?}\nnot\n{expected:?}",
            story()
        );
    }
}

#[test]
fn noise_gives_what_the_model_gives() {
    let seed = seed();
    let mut random = Random(seed);
    for n in 0..STREAMS {
        let len = random.below(60);
        let mut noise = random.bytes(len);
        // Without this, half of all noise ends at the mask bit and most of the rest at a reserved one.
        for (at, byte) in noise.iter_mut().take(40).enumerate() {
            match at % 2 {
                0 => *byte &= 0x8B,
                _ => *byte |= 0x80,
            }
        }
        let expected = model::decode(&noise, 100);
        assert_eq!(
            decode([&noise[..]], 100),
            expected,
            "WSBROKER_TEST_SEED={seed}, noise {n}"
        );
        assert_eq!(
            decode(noise.chunks(1), 100),
            expected,
            "WSBROKER_TEST_SEED={seed}, noise {n}, byte by byte"
        );
    }
}

#[test]
fn every_single_cut_of_a_stream_with_everything_in_it_gives_the_same() {
    let stream = [
        last(Opcode::Text, "größer".as_bytes()),
        more(Opcode::Text, "€".as_bytes()[..1].as_ref()),
        last(Opcode::Ping, b"between"),
        more(Opcode::Continuation, b""),
        last(Opcode::Continuation, "€".as_bytes()[1..].as_ref()),
        last(Opcode::Binary, &[0xA5; 300]),
        last(Opcode::Pong, b""),
        last(Opcode::Close, b"\x03\xE8done"),
    ]
    .concat();
    let expected = model::decode(&stream, ROOMY);
    assert_eq!((expected.0.len(), expected.1), (6, None));
    for first in 0..=stream.len() {
        for second in [first, (first + 3).min(stream.len())] {
            let reads = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(
                decode(reads, ROOMY),
                expected,
                "cut at {first} and {second}"
            );
        }
    }
}
