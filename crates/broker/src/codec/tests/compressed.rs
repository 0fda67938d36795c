//! Compressed messages (RFC 7692): a client that deflates, or sends what no compressor makes.

use super::deflating::{Peer, Server, compressed, inflated, no_takeover, takeover};
use super::random::{Random, seed};
use super::*;
use zlib_rs::DeflateFlush;

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
