//! What is compressed comes out as it went in: whatever the settings, and however it is cut into reads.
//!
//! `WSBROKER_TEST_SEED` repeats a run; a failure prints its seed.

use super::deflating::{Peer, Server, agreed, compressed, random_message, takeover};
use super::random::{Random, seed};
use super::reference;
use super::*;
use crate::codec::{Compressor, Contexts};

#[test]
fn rubbish_of_any_kind_is_refused_or_inflates_within_the_limit() {
    let seed = seed();
    let mut random = Random(seed);
    for _ in 0..3000 {
        let mut payload = match random.below(3) {
            0 => {
                let size = random.below(300);
                random.bytes(size)
            }
            _ => {
                let message = random_message(&mut random);
                Peer::new(6, 15, 8).message(&message[..message.len().min(5000)])
            }
        };
        for _ in 0..random.below(4) {
            let at = random.below(payload.len() + 1);
            match payload.get_mut(at) {
                Some(byte) => *byte = random.next() as u8,
                None => payload.push(0),
            }
        }
        let mut server = Server::new(takeover());
        let result = server.read(&compressed(Opcode::Binary, true, &payload), 3000);
        let inflated = match &server.items[..] {
            [] => None,
            [Got::Binary(message)] => Some(message.len()),
            items => panic!("seed {seed}: {items:?}"),
        };
        match result {
            Ok(()) => assert!(inflated.is_some_and(|size| size <= 3000), "seed {seed}"),
            Err(violation) => {
                let expected = [Violation::InvalidDeflate, Violation::MessageTooBig];
                assert!(expected.contains(&violation), "seed {seed}: {violation}");
                assert_eq!(inflated, None, "seed {seed}");
            }
        }
        assert!(server.inflater.output_capacity() <= 8192, "seed {seed}");
    }
}

#[test]
fn whatever_a_peer_compresses_however_and_however_it_is_cut_comes_out() {
    let seed = seed();
    let mut random = Random(seed);
    for round in 0..60 {
        let takeover = random.one_in(2);
        // zlib's own inflater takes any window up to what was agreed on.
        let bits = random.pick(&[9, 10, 12, 15]);
        let mut server = Server::new(agreed(bits, takeover));
        let mem_level = 1 + random.below(9) as i32;
        let level = random.below(10) as i32;
        let mut peer = Peer::new(level, bits.into(), mem_level);
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..random.below(8) {
            let message = random_message(&mut random);
            if !takeover {
                peer.0.reset();
            }
            let payload = peer.message(&message);
            let cut = random.below(payload.len() + 1);
            let fragmented = random.one_in(2);
            if fragmented {
                stream.extend(compressed(Opcode::Binary, false, &payload[..cut]));
                stream.extend(last(Opcode::Ping, b"p"));
                stream.extend(last(Opcode::Continuation, &payload[cut..]));
                expected.push(Got::Ping(b"p".to_vec()));
            } else {
                stream.extend(compressed(Opcode::Binary, true, &payload));
            }
            expected.push(Got::Binary(message));
        }
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let most = random.pick(&[1, 2, 10, 1000, 100_000]);
            let (read, after) = rest.split_at(rest.len().min(1 + random.below(most)));
            assert_eq!(
                server.read(read, ROOMY),
                Ok(()),
                "seed {seed} round {round}"
            );
            rest = after;
        }
        assert!(
            server.items == expected,
            "seed {seed} round {round}: level {level}, window {bits}, memory {mem_level}"
        );
        let window = if takeover { 1 << bits } else { 0 };
        assert!(server.contexts.received().len() <= window);
        assert!(server.contexts.held_bytes() <= window + 64);
    }
}

#[test]
fn what_we_compress_keeps_to_its_window_and_inflates_to_the_message() {
    let seed = seed();
    let mut random = Random(seed);
    for level in 1..=9 {
        for bits in 9..=15 {
            let takeover = random.one_in(2);
            let deflate = agreed(bits, takeover);
            let mut compressor = Compressor::new(level, bits);
            let mut contexts = Contexts::default();
            // What a client has inflated so far: this one forgets nothing and looks at every distance.
            let mut received = Vec::new();
            for n in 0..4 {
                let message = random_message(&mut random);
                let Some(payload) = compressor.compress(&message, contexts.sent()) else {
                    continue;
                };
                assert!(payload.len() < message.len());
                contexts.remember_sent(deflate, &message);
                if !takeover {
                    received.clear();
                }
                let had = received.len();
                let whole = [&payload[..], &[0, 0, 0xFF, 0xFF]].concat();
                reference::inflate(&whole, &mut received, 1 << bits);
                assert!(
                    received[had..] == message,
                    "seed {seed}, level {level}, window {bits}, message {n}"
                );
            }
            assert!(contexts.sent().len() <= if takeover { 1 << bits } else { 0 });
        }
    }
}

#[test]
fn a_context_makes_the_second_message_smaller() {
    let mut compressor = Compressor::new(6, 15);
    let mut contexts = Contexts::default();
    let message: Vec<u8> = (0..200)
        .flat_map(|n| format!("{n},").into_bytes())
        .collect();
    let first = compressor
        .compress(&message, contexts.sent())
        .expect("smaller");
    contexts.remember_sent(takeover(), &message);
    let second = compressor
        .compress(&message, contexts.sent())
        .expect("smaller");
    assert!(
        second.len() * 10 < first.len(),
        "{} {}",
        first.len(),
        second.len()
    );
    // The compressor itself remembers nothing.
    assert_eq!(compressor.compress(&message, &[]).expect("smaller"), first);
}
