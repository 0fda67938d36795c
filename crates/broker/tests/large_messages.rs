//! Compressed messages that are inflated piece by piece: nothing of a socket overtakes them, and nobody else waits.

mod support;

use support::{Client, Peer, Random, Server, eventually, first_frame, options};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{Compression, CompressionMemory, ListenOptions};

const KEY: [u8; 4] = [1, 2, 3, 4];

/// Compresses to about half.
fn noise(random: &mut Random, bytes: usize) -> String {
    let words = (0..bytes / 16).map(|_| format!("{:016x}", random.next()));
    words.collect()
}

fn compressing(memory: CompressionMemory) -> ListenOptions {
    let mut options = options();
    options.compression = Some(Compression {
        memory,
        ..Compression::default()
    });
    options
}

/// Blocks of nothing but a code table each (RFC 1951 section 3.2.7): a message of no byte at all, and the most work for
/// an inflater.
fn tables(count: usize) -> Vec<u8> {
    let mut bits = Vec::new();
    let put = |bits: &mut Vec<bool>, value: u32, count: u32| {
        bits.extend((0..count).map(|at| value >> at & 1 == 1));
    };
    for _ in 0..count {
        put(&mut bits, 0b100, 3); // not the last one, dynamic
        put(&mut bits, 0, 10); // 257 literals and lengths, 1 distance
        put(&mut bits, 14, 4); // the lengths of 18 codes follow
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
            let length = [(18, 1), (0, 2), (1, 2)];
            let length = length.iter().find(|(of, _)| *of == symbol);
            put(&mut bits, length.map_or(0, |(_, length)| *length), 3);
        }
        // Codes: 18 is 0, 0 is 10, 1 is 11, from the highest bit on. 256 times nothing, and one bit for the end of the
        // block and for the distance.
        for zeroes in [138, 118] {
            put(&mut bits, 0, 1);
            put(&mut bits, zeroes - 11, 7);
        }
        put(&mut bits, 0b11, 2);
        put(&mut bits, 0b11, 2);
        put(&mut bits, 0, 1); // the end of the block
    }
    put(&mut bits, 0, 3); // an empty stored block, of which the rest is left out
    let byte = |bits: &[bool]| {
        bits.iter()
            .rev()
            .fold(0, |byte, bit| byte << 1 | u8::from(*bit))
    };
    bits.chunks(8).map(byte).collect()
}

#[test]
fn everything_of_a_socket_keeps_its_order() {
    for memory in [CompressionMemory::Shared, CompressionMemory::Dedicated] {
        let mut random = Random::new(support::seed());
        let server = Server::quiet(compressing(memory));
        let (mut peer, id) = Peer::open_socket(&server, "permessage-deflate");
        let mut sent = Vec::new();
        let mut frames = Vec::new();
        for n in 0..40 {
            let text = match n % 4 {
                0 => noise(&mut random, 16),
                1 => noise(&mut random, 200_000),
                2 => "again and again ".repeat(10_000),
                _ => noise(&mut random, 20_000),
            };
            let compressed = peer.compress(text.as_bytes());
            let (first, rest) = compressed.split_at(compressed.len() / 3);
            frames.extend(first_frame(Opcode::Text, false, first));
            frames.extend(encode_masked(Opcode::Ping, true, KEY, &[n]));
            frames.extend(encode_masked(Opcode::Continuation, true, KEY, rest));
            let plain = format!("plain {n}");
            frames.extend(encode_masked(Opcode::Text, true, KEY, plain.as_bytes()));
            sent.extend([text, plain]);
        }
        frames.extend(encode_masked(Opcode::Close, true, KEY, &[0x03, 0xE8]));
        let bytes = frames.len() as u64;
        let before = server.broker.stats().bytes_in;
        peer.client.send(&frames);
        let got = server.journal.messages_of(id, sent.len());
        for (n, (got, sent)) in got.iter().zip(&sent).enumerate() {
            assert!(got == sent.as_bytes(), "message {n}");
        }
        assert_eq!(server.journal.close_of(id).0, 1000);
        assert_eq!(
            server.broker.stats().bytes_in - before,
            bytes,
            "each byte once"
        );
        for n in 0..40 {
            assert_eq!(peer.client.data(Opcode::Pong), [n]);
        }
        server.finish();
    }
}

#[test]
fn what_is_wrong_with_a_large_message_is_told_as_with_a_small_one() {
    let server = Server::quiet(compressing(CompressionMemory::Shared));
    let mut random = Random::new(support::seed());
    let mut text = noise(&mut random, 100_000).into_bytes();
    for (code, expected) in [(1007, 0xFF), (1009, b'a')] {
        let (mut peer, id) = Peer::open_socket(&server, "permessage-deflate");
        text[50_000] = expected;
        if code == 1009 {
            text = noise(&mut random, 2 << 20).into_bytes();
        }
        peer.send_compressed(Opcode::Text, &text);
        assert_eq!(peer.client.close_frame().0, code);
        assert_eq!(server.journal.close_of(id).0, code);
    }
    let mut client = Client::connect(server.address);
    client.upgrade("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let mut garbage = tables(1000);
    garbage.truncate(garbage.len() - 7);
    client.send(first_frame(Opcode::Binary, true, &garbage));
    assert_eq!(client.close_frame().0, 1007);
    server.finish();
}

/// Whoever sends a message that takes long may leave, be closed, or be one of many.
#[test]
fn sockets_may_end_while_their_messages_wait_for_their_turn() {
    let mut options = compressing(CompressionMemory::Shared);
    options.max_message_size = 4 << 20;
    let server = Server::quiet(options);
    let message = first_frame(Opcode::Binary, true, &tables(100_000));
    let mut clients: Vec<_> = (0..20)
        .map(|_| Peer::open_socket(&server, "permessage-deflate"))
        .collect();
    let (mut bystander, other) = Peer::open_socket(&server, "permessage-deflate");
    for (peer, _) in &mut clients {
        peer.client.send(&message);
    }
    bystander.send_compressed(Opcode::Text, b"and me?");
    assert_eq!(server.journal.messages_of(other, 1), [b"and me?"]);
    for (n, (peer, id)) in clients.into_iter().enumerate() {
        match n % 3 {
            0 => peer.client.reset(),
            1 => assert!(server.broker.close(id, 1000, "")),
            _ => assert_eq!(server.journal.messages_of(id, 1), [b""]),
        }
    }
    eventually("they are gone", || server.broker.connection_count() <= 7);
    let text = "large ".repeat(100_000);
    bystander.send_compressed(Opcode::Text, text.as_bytes());
    assert_eq!(server.journal.messages_of(other, 2)[1], text.as_bytes());
    server.finish();
}
