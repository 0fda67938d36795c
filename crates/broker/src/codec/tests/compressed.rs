//! Compressed messages (RFC 7692): a client that deflates, or sends what no compressor makes.

use super::random::{Random, seed};
use super::reference;
use super::*;
use crate::codec::{Compressor, Contexts, Direction, Inflater, Inflation, PerMessageDeflate};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};

fn agreed(window_bits: u8, takeover: bool) -> PerMessageDeflate {
    PerMessageDeflate {
        server: Direction::new(window_bits, takeover),
        client: Direction::new(window_bits, takeover),
    }
}

fn takeover() -> PerMessageDeflate {
    agreed(15, true)
}

fn no_takeover() -> PerMessageDeflate {
    agreed(15, false)
}

/// A server's end of a connection with permessage-deflate, and what came out of it.
struct Server {
    decoder: Decoder,
    inflater: Inflater,
    contexts: Contexts,
    deflate: PerMessageDeflate,
    discard: bool,
    items: Vec<Got>,
}

impl Server {
    fn new(deflate: PerMessageDeflate) -> Self {
        Self {
            decoder: Decoder::new(),
            inflater: Inflater::new(),
            contexts: Contexts::default(),
            deflate,
            discard: false,
            items: Vec::new(),
        }
    }

    fn read(&mut self, bytes: &[u8], max_message: usize) -> Result<(), Violation> {
        let Self {
            decoder,
            inflater,
            contexts,
            deflate,
            discard,
            items,
        } = self;
        let inflation = Inflation {
            inflater,
            deflate: *deflate,
            contexts,
            discard: *discard,
        };
        let mut bytes = bytes.to_vec();
        decoder.decode(&mut bytes, max_message, Some(inflation), |item| {
            items.push(item.into());
            ControlFlow::Continue(())
        })
    }
}

/// The first frame of a compressed message.
fn compressed(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = encode_masked(opcode, fin, KEY, payload);
    frame[0] |= 0x40;
    frame
}

/// What comes of one frame with this compressed payload.
fn inflated(payload: &[u8]) -> Result<Vec<Got>, Violation> {
    let mut server = Server::new(takeover());
    server.read(&compressed(Opcode::Text, true, payload), ROOMY)?;
    Ok(server.items)
}

/// DEFLATE that goes on over messages, as other implementations do it: one stream that is flushed.
struct Peer(Deflate);

impl Peer {
    fn new(level: i32, window_bits: i32, mem_level: i32) -> Self {
        Self(Deflate::new_with_config(DeflateConfig {
            level,
            window_bits: -window_bits,
            mem_level,
            ..DeflateConfig::default()
        }))
    }

    fn run(&mut self, payload: &[u8], flush: DeflateFlush) -> Vec<u8> {
        let mut out = vec![0; payload.len() * 2 + 1024];
        let before = self.0.total_out();
        self.0.compress(payload, &mut out, flush).expect("deflated");
        out.truncate((self.0.total_out() - before) as usize);
        out
    }

    fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = self.run(payload, DeflateFlush::SyncFlush);
        if out.is_empty() {
            return vec![0]; // §7.2.3.6: a second flush without anything between
        }
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xFF, 0xFF]);
        out
    }
}

#[test]
fn the_examples_of_the_rfc() {
    // §7.2.3.1, §7.2.3.3 to §7.2.3.5: one block, no compression, BFINAL set, two blocks.
    for payload in [
        &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..],
        &[
            0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00,
        ],
        &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
        &[
            0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00,
        ],
    ] {
        assert_eq!(inflated(payload), Ok(vec![text("Hello")]), "{payload:x?}");
    }
    // §7.2.3.6: an empty message.
    assert_eq!(inflated(&[0x00]), Ok(vec![text("")]));
}

#[test]
fn the_fragments_and_the_context_of_the_rfc() {
    // §7.2.3.1 in two fragments.
    let mut server = Server::new(takeover());
    server
        .read(&compressed(Opcode::Text, false, &[0xF2, 0x48, 0xCD]), ROOMY)
        .expect("a fragment");
    server
        .read(&last(Opcode::Ping, b"between"), ROOMY)
        .expect("a ping");
    let rest = [0xC9, 0xC9, 0x07, 0x00];
    server
        .read(&last(Opcode::Continuation, &rest), ROOMY)
        .expect("the last fragment");
    // §7.2.3.2: the same message again refers to the first.
    let again = compressed(Opcode::Text, true, &[0xF2, 0x00, 0x11, 0x00, 0x00]);
    server.read(&again, ROOMY).expect("the second message");
    assert_eq!(
        server.items,
        [text("Hello"), text("Hello")].into_iter().fold(
            vec![Got::Ping(b"between".to_vec())],
            |mut items, item| {
                items.push(item);
                items
            }
        )
    );
    // Without a context there is nothing to refer to.
    let mut server = Server::new(no_takeover());
    let first = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    server
        .read(&compressed(Opcode::Text, true, &first), ROOMY)
        .expect("a message");
    assert_eq!(server.read(&again, ROOMY), Err(Violation::InvalidDeflate));
}

#[test]
fn a_stream_that_ends_with_each_message_is_taken_with_and_without_the_byte_behind_it() {
    let mut server = Server::new(takeover());
    for end in [&[][..], &[0x00]] {
        for n in 0..3 {
            let message = format!("message {n}");
            let mut payload = Peer::new(6, 15, 8).run(message.as_bytes(), DeflateFlush::Finish);
            payload.extend_from_slice(end);
            let frame = compressed(Opcode::Binary, true, &payload);
            assert_eq!(server.read(&frame, ROOMY), Ok(()));
            assert_eq!(server.items.pop(), Some(Got::Binary(message.into_bytes())));
        }
    }
}

#[test]
fn a_block_behind_the_last_one_may_refer_to_what_came_before() {
    // Literals "Hello" in a block with BFINAL; then a match of five bytes, five back, as in §7.2.3.2.
    let mut server = Server::new(takeover());
    let payload = [
        0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0xF2, 0x00, 0x11, 0x00, 0x00,
    ];
    assert_eq!(
        server.read(&compressed(Opcode::Text, true, &payload), ROOMY),
        Ok(())
    );
    assert_eq!(server.items, [text("HelloHello")]);
}

#[test]
fn plain_and_compressed_messages_may_alternate() {
    let mut server = Server::new(takeover());
    let mut peer = Peer::new(6, 15, 8);
    for n in 0..10 {
        let message = format!("the same and a number: {n}");
        let frame = match n % 2 {
            0 => compressed(Opcode::Text, true, &peer.message(message.as_bytes())),
            _ => last(Opcode::Text, message.as_bytes()),
        };
        assert_eq!(server.read(&frame, ROOMY), Ok(()));
        assert_eq!(server.items.pop(), Some(text(&message)));
    }
}

#[test]
fn a_message_must_be_deflate_and_end_with_a_block() {
    let whole = Peer::new(6, 15, 8).message(&b"abc".repeat(1000));
    for payload in [
        &[0xFF][..],                           // a block of the reserved type
        &[0x00, 0x05, 0x00, 0, 0],             // a length and not its complement
        &[0xF2, 0x00, 0x11, 0x00],             // refers to what was never sent
        &whole[..whole.len() - 3],             // cut inside a block
        &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48], // cut inside a stored block
        &[0x03, 0x00, 0xFF],                   // rubbish behind the last block
    ] {
        assert_eq!(
            inflated(payload),
            Err(Violation::InvalidDeflate),
            "{payload:x?}"
        );
    }
    assert_eq!(Violation::InvalidDeflate.close_code(), 1007);
}

#[test]
fn what_nobody_wants_is_not_inflated() {
    let mut server = Server::new(takeover());
    server.discard = true;
    let rubbish = compressed(Opcode::Text, true, &[0xFF]);
    let fragments = [
        compressed(Opcode::Text, false, &[0xFF]),
        last(Opcode::Continuation, &[0xFF]),
    ]
    .concat();
    for frames in [rubbish, fragments] {
        assert_eq!(server.read(&frames, ROOMY), Ok(()));
    }
    assert_eq!(server.inflater.output_capacity(), 0);
    let close = last(Opcode::Close, &[3, 0xE8]);
    assert_eq!(server.read(&close, ROOMY), Ok(()));
    assert_eq!(server.items, [Got::Close(Some(1000), String::new())]);
}

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
fn text_is_checked_after_inflating() {
    let mut peer = Peer::new(6, 15, 8);
    let mut server = Server::new(takeover());
    let good = compressed(Opcode::Text, true, &peer.message("grüße".as_bytes()));
    assert_eq!(server.read(&good, ROOMY), Ok(()));
    let bytes = compressed(Opcode::Binary, true, &peer.message(b"\xFF\xFE"));
    assert_eq!(server.read(&bytes, ROOMY), Ok(()));
    let bad = compressed(Opcode::Text, true, &peer.message(b"\xFF\xFE"));
    assert_eq!(server.read(&bad, ROOMY), Err(Violation::InvalidUtf8));
}

#[test]
fn the_reserved_bit_has_its_meaning_on_the_first_frame_of_a_message_alone() {
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    for opcode in [Opcode::Ping, Opcode::Pong, Opcode::Close] {
        let mut server = Server::new(takeover());
        let frame = compressed(opcode, true, &[]);
        assert_eq!(server.read(&frame, ROOMY), Err(Violation::ReservedBit));
    }
    for begins_compressed in [true, false] {
        let mut server = Server::new(takeover());
        let begin = match begins_compressed {
            true => compressed(Opcode::Text, false, &hello[..3]),
            false => more(Opcode::Text, &hello[..1]),
        };
        assert_eq!(server.read(&begin, ROOMY), Ok(()));
        let goes_on = compressed(Opcode::Continuation, true, &hello[3..]);
        assert_eq!(server.read(&goes_on, ROOMY), Err(Violation::ReservedBit));
    }
    for bits in [0x20, 0x10, 0x60, 0x50, 0x70] {
        let mut frame = last(Opcode::Text, &hello);
        frame[0] |= bits;
        let mut server = Server::new(takeover());
        assert_eq!(server.read(&frame, ROOMY), Err(Violation::ReservedBit));
    }
    let (items, violation) = decode([&compressed(Opcode::Text, true, &hello)[..]], ROOMY);
    assert_eq!((items, violation), (vec![], Some(Violation::ReservedBit)));
}

#[test]
fn inflating_stops_at_the_limit_and_memory_follows_what_was_inflated() {
    // 1 GiB of zeroes in about 1 MiB, made by repeating one flushed piece.
    let piece = {
        let mut peer = Peer::new(9, 15, 9);
        peer.run(&vec![0; 1 << 20], DeflateFlush::FullFlush);
        peer.run(&vec![0; 1 << 20], DeflateFlush::FullFlush)
    };
    let bomb = piece.repeat(1024);
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    for max in [1000, 65_536, 1 << 20, 2 << 20] {
        let mut server = Server::new(takeover());
        // As much of it as this server collects: it is read, and refused for what it inflates to.
        let sent = &bomb[..bomb.len().min(max)];
        let frame = compressed(Opcode::Binary, true, sent);
        for read in frame.chunks(65_536) {
            match server.read(read, max) {
                Ok(()) => continue,
                Err(violation) => assert_eq!(violation, Violation::MessageTooBig),
            }
        }
        assert_eq!(
            server.read(b"", max),
            Err(Violation::MessageTooBig),
            "{max}"
        );
        assert_eq!(server.items, []);
        let capacity = server.inflater.output_capacity();
        assert!(capacity <= max + 4097, "{capacity} for {max}");
    }
}

#[test]
fn the_limit_is_that_of_the_inflated_message_to_the_byte() {
    for max in [1, 1000, 4096, 65_535, 65_536, 100_000] {
        for (size, fits) in [(max - 1, true), (max, true), (max + 1, false)] {
            let message = vec![7; size];
            let payload = Peer::new(6, 15, 8).message(&message);
            let mut server = Server::new(no_takeover());
            let result = server.read(&compressed(Opcode::Binary, true, &payload), max);
            let expected = match fits {
                true => Ok(()),
                false => Err(Violation::MessageTooBig),
            };
            assert_eq!(result, expected, "{size} of {max}");
            assert_eq!(server.items.len(), usize::from(fits));
        }
    }
}

#[test]
fn a_message_of_the_limit_may_be_larger_compressed_but_not_by_much() {
    let mut random = Random(seed());
    let message = random.bytes(10_000);
    let payload = Peer::new(1, 9, 1).message(&message);
    assert!(payload.len() > message.len());
    let mut server = Server::new(no_takeover());
    let frame = compressed(Opcode::Binary, true, &payload);
    assert_eq!(server.read(&frame, message.len()), Ok(()));
    assert_eq!(server.items, [Got::Binary(message)]);

    // Empty blocks inflate to nothing, and are no way to send without end.
    let mut server = Server::new(no_takeover());
    let empty = compressed(Opcode::Binary, false, &[0, 0, 0, 0xFF, 0xFF].repeat(2300));
    assert_eq!(
        server.read(&empty, 10_000),
        Err(Violation::MessageTooBig),
        "when its length is declared"
    );
}

#[test]
fn a_message_of_empty_streams_is_given_up_on() {
    // Each of them is two bytes and makes the inflater begin anew.
    let payload = [0x03, 0x00].repeat(10_000);
    assert_eq!(inflated(&payload), Err(Violation::InvalidDeflate));
    let some = [0x03, 0x00].repeat(10);
    assert_eq!(inflated(&some), Ok(vec![text("")]));
}

#[test]
fn a_large_message_leaves_no_memory_behind() {
    let mut server = Server::new(no_takeover());
    for size in [100, 1 << 20, 100] {
        let payload = Peer::new(6, 15, 8).message(&vec![1; size]);
        let frame = compressed(Opcode::Binary, true, &payload);
        assert_eq!(server.read(&frame, 1 << 20), Ok(()));
        assert!(server.inflater.output_capacity() <= 64 * 1024, "{size}");
        assert_eq!(server.decoder.held_bytes(), 0);
        assert_eq!(server.contexts.held_bytes(), 0);
    }
}

/// JSON in several flavours, repetitions, noise: what compresses well, and what does not.
fn random_message(random: &mut Random) -> Vec<u8> {
    let size = random.pick(&[0, 1, 5, 100, 300, 1000, 4000, 20_000, 70_000]);
    let size = size + random.below(10);
    let mut message = Vec::new();
    let noise = random.bytes(64);
    while message.len() < size {
        match random.below(4) {
            0 => message.extend_from_slice(&noise[..random.below(64)]),
            1 => message.extend_from_slice(b"{\"user\":\"alice\",\"text\":\"hello\"},"),
            2 => message.extend_from_slice(&random.next().to_le_bytes()),
            _ => {
                let from = random.below(message.len() + 1);
                let piece = message[from..].to_vec();
                message.extend_from_slice(&piece[..piece.len().min(500)]);
            }
        }
    }
    message.truncate(size);
    message
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
