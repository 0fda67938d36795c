//! permessage-deflate (RFC 7692) on the wire: what is agreed on, and what is sent then.

mod support;

use support::{
    Client, ManualWorker, Peer, SOCKETS, Server, channel, eventually, first_frame, masked, options,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{
    Compression, CompressionMemory, ListenOptions, OutboundMessage, SlowConsumer,
};
use zlib_rs::{Deflate, DeflateFlush};

const DEDICATED: CompressionMemory = CompressionMemory::Dedicated;
const SHARED: CompressionMemory = CompressionMemory::Shared;

fn compressing(memory: CompressionMemory, threshold: usize) -> ListenOptions {
    let mut options = options();
    options.compression = Some(Compression {
        threshold,
        memory,
        ..Compression::default()
    });
    options
}

/// Compresses well, and better with a context.
fn message(n: usize) -> String {
    (0..200)
        .map(|k| format!("{{\"n\":{n},\"k\":{}}},", k * 7919))
        .collect()
}

#[test]
fn an_offer_is_answered_in_the_handshake_and_only_where_compression_is_on() {
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let shared = Server::echoing(compressing(SHARED, 0));
    let dedicated = Server::echoing(compressing(DEDICATED, 0));
    let off = Server::echoing(options());
    for (server, offer, answer) in [
        (&shared, "permessage-deflate", Some(both)),
        (&dedicated, "permessage-deflate", Some("permessage-deflate")),
        (
            &dedicated,
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9",
            Some("permessage-deflate; server_max_window_bits=9"),
        ),
        (
            &dedicated,
            "foo\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover",
            Some("permessage-deflate; client_no_context_takeover"),
        ),
        (
            &shared,
            "permessage-deflate; server_max_window_bits=8",
            None,
        ),
        (&shared, "permessage-deflate; mode=fast", None),
        (&shared, "x-webkit-deflate-frame", None),
        (&off, "permessage-deflate", None),
        // Without compression nobody reads the header.
        (&off, "permessage-deflate;;", None),
    ] {
        let mut peer = Peer::open(server, offer);
        assert_eq!(peer.answer.as_deref(), answer, "{offer}");
        peer.client.send_text("hello");
        assert_eq!(peer.message(), b"hello");
    }
    for server in [shared, dedicated, off] {
        server.finish();
    }
}

#[test]
fn a_header_that_is_no_list_of_extensions_is_refused_with_400() {
    let server = Server::echoing(compressing(SHARED, 0));
    for offer in [
        "permessage-deflate;;",
        "=",
        "permessage-deflate; x=\"",
        "\u{e9}",
    ] {
        let mut client = server.connect();
        let header = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        client.send(support::handshake("/", &header));
        assert_eq!(client.answer().status, 400, "{offer}");
    }
    assert_eq!(server.journal.opened(), []);
    server.finish();
}

#[test]
fn the_reserved_bit_is_for_the_beginning_of_a_message_of_a_socket_that_agreed() {
    let server = Server::echoing(compressing(SHARED, 0));
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let agreed = "permessage-deflate";
    let continuation = {
        let begin = first_frame(Opcode::Text, false, &hello[..3]);
        [begin, first_frame(Opcode::Continuation, true, &hello[3..])].concat()
    };
    let with_bits = |bits: u8| {
        let mut frame = masked(Opcode::Text, &hello);
        frame[0] |= bits;
        frame
    };
    for (offer, bytes) in [
        ("other", first_frame(Opcode::Text, true, &hello)),
        ("other", first_frame(Opcode::Ping, true, b"")),
        (agreed, first_frame(Opcode::Ping, true, b"")),
        (agreed, first_frame(Opcode::Close, true, &[3, 0xE8])),
        (agreed, continuation),
        (agreed, with_bits(0x20)),
        (agreed, with_bits(0x50)),
        (agreed, with_bits(0x70)),
    ] {
        let mut peer = Peer::open(&server, offer);
        peer.client.send(&bytes);
        let (code, reason) = peer.client.close_frame();
        let expected = "reserved bit is set without an extension";
        assert_eq!((code, &*reason), (1002, expected), "{bytes:x?}");
    }
    eventually("all of these are told", || {
        server.journal.closes().len() == 8
    });
    let (mut peer, id) = Peer::open_socket(&server, agreed);
    peer.client.send(first_frame(Opcode::Text, true, &hello));
    assert_eq!(server.journal.messages_of(id, 1), [b"Hello".to_vec()]);
    server.finish();
}

#[test]
fn fragments_of_a_compressed_message_may_have_control_frames_between() {
    for memory in [SHARED, DEDICATED] {
        let server = Server::echoing(compressing(memory, 0));
        let mut peer = Peer::open(&server, "permessage-deflate");
        for n in 0..3 {
            let text = message(n);
            let compressed = peer.compress(text.as_bytes());
            let pieces: Vec<&[u8]> = compressed.chunks(compressed.len() / 3 + 1).collect();
            let [first, second, third] = pieces[..] else {
                panic!("three pieces")
            };
            peer.client.send(first_frame(Opcode::Text, false, first));
            peer.client.send_frame(Opcode::Ping, b"1");
            let second = encode_masked(Opcode::Continuation, false, [1, 2, 3, 4], second);
            // In single bytes: whatever is kept between reads is needed.
            for byte in second {
                peer.client.send([byte]);
            }
            peer.client.send_frame(Opcode::Ping, b"2");
            peer.client.send_frame(Opcode::Continuation, third);
            assert_eq!(peer.client.data(Opcode::Pong), b"1");
            assert_eq!(peer.client.data(Opcode::Pong), b"2");
            assert_eq!(peer.compressed_message().0, text.as_bytes());
        }
        server.finish();
    }
}

#[test]
fn with_dedicated_memory_both_directions_refer_to_what_came_before() {
    let server = Server::echoing(compressing(DEDICATED, 0));
    let mut peer = Peer::open(&server, "permessage-deflate");
    assert_eq!(peer.answer.as_deref(), Some("permessage-deflate"));
    let mut sizes = Vec::new();
    for n in 0..50 {
        let text = message(n % 3);
        peer.send_compressed(Opcode::Text, text.as_bytes());
        let (received, size) = peer.compressed_message();
        assert_eq!(received, text.as_bytes(), "message {n}");
        sizes.push(size);
        // What is sent plain is no part of the context.
        peer.client.send_text("x");
        assert_eq!(peer.message(), b"x");
    }
    assert!(sizes[1..].iter().all(|size| *size < sizes[0]), "{sizes:?}");
    server.finish();
}

#[test]
fn each_direction_has_the_memory_that_was_agreed_on_for_it() {
    let server = Server::echoing(compressing(DEDICATED, 0));
    for (offer, server_takeover) in [
        ("permessage-deflate; server_no_context_takeover", false),
        ("permessage-deflate; client_no_context_takeover", true),
        (
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            false,
        ),
    ] {
        let mut peer = Peer::open(&server, offer);
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let text = message(1);
            peer.send_compressed(Opcode::Binary, text.as_bytes());
            let (received, size) = peer.compressed_message();
            assert_eq!(received, text.as_bytes());
            sizes.push(size);
        }
        assert_eq!(
            sizes[3] * 5 < sizes[0],
            server_takeover,
            "{offer}: {sizes:?}"
        );
    }
    server.finish();
}

#[test]
fn a_channel_of_all_kinds_of_sockets_gets_every_message_in_its_form() {
    let server = Server::quiet(compressing(SHARED, 500));
    let mut strong = compressing(SHARED, 0);
    strong.compression.as_mut().expect("on").level = 9;
    let (strong, strong_at) = support::listen(&server.broker, strong);
    let (dedicated, dedicated_at) = support::listen(&server.broker, compressing(DEDICATED, 500));
    let news = channel("news");
    let mut peers = Vec::new();
    for address in [server.address, strong_at, dedicated_at] {
        for offer in [
            "none",
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover",
        ] {
            let (peer, id) = Peer::open_socket_at(&server, address, offer);
            assert_eq!(server.broker.subscribe(id, &news), Ok(true));
            peers.push((peer, id));
        }
    }
    let before = server.broker.stats();
    for n in 0..20 {
        for text in [message(n), format!("short {n}")] {
            let queued = server
                .broker
                .send_to_channel(&news, &OutboundMessage::text(&text), None);
            assert_eq!(queued, peers.len());
        }
    }
    for (peer, _) in &mut peers {
        for n in 0..20 {
            let frame = peer.client.frame();
            assert_eq!(frame.compressed, peer.answer.is_some(), "{:?}", peer.answer);
            let received = match frame.compressed {
                true => peer.inflated(&frame.payload),
                false => frame.payload,
            };
            assert_eq!(received, message(n).into_bytes(), "{:?}", peer.answer);
            assert_eq!(peer.message(), format!("short {n}").into_bytes());
        }
    }
    for (_, id) in &peers {
        eventually("everything has gone out", || {
            server.broker.buffered_amount(*id) == 0
        });
    }
    let after = server.broker.stats();
    assert_eq!(after.messages_out - before.messages_out, 40 * 12);
    assert_eq!(after.dropped, before.dropped);
    drop(peers);
    support::stop(&strong, support::at_once());
    support::stop(&dedicated, support::at_once());
    server.finish();
}

#[test]
fn what_waits_for_a_socket_is_counted_as_it_waits() {
    for memory in [SHARED, DEDICATED] {
        let mut options = compressing(memory, 0);
        options.slow_consumer = SlowConsumer::Drop;
        options.max_backpressure = 100_000;
        let server = Server::quiet(options);
        let (mut peer, id) = Peer::open_socket(&server, "permessage-deflate");
        // Noise in hexadecimal becomes about half, and is no part of what came before.
        let mut random = support::Random::new(support::seed());
        let mut sent = Vec::new();
        let mut refused = 0;
        while refused < 3 {
            let text: String = (0..1250)
                .map(|_| format!("{:016x}", random.next()))
                .collect();
            if server.broker.send(id, &OutboundMessage::text(&text)) {
                sent.push(text.clone());
            } else {
                refused += 1;
            }
            let frames_out = sent.len() as u64;
            eventually("the shard has taken it", || {
                server.broker.stats().messages_out == frames_out
            });
            // The message that the kernel refused first comes to what may wait.
            let waiting = server.broker.buffered_amount(id);
            assert!(waiting <= 100_000 + text.len(), "{waiting}");
        }
        // The kernel took the first ones, and what waits is compressed: more than five plain ones would be.
        let waiting = server.broker.buffered_amount(id);
        assert!(waiting > 80_000, "{waiting}");
        for text in &sent {
            assert_eq!(peer.message(), text.as_bytes());
        }
        eventually("nothing waits", || server.broker.buffered_amount(id) == 0);
        assert_eq!(server.broker.stats().dropped.slow_consumer, refused);
        server.finish();
    }
}

#[test]
fn a_bomb_is_stopped_at_the_limit_and_others_are_still_served() {
    for memory in [SHARED, DEDICATED] {
        let mut options = compressing(memory, 0);
        options.max_message_size = 1 << 20;
        let server = Server::echoing(options);
        let (mut bystander, _) = Peer::open_socket(&server, "permessage-deflate");
        let mut peer = Peer::open(&server, "permessage-deflate");
        let bomb = peer.compress(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        peer.client.send(first_frame(Opcode::Binary, true, &bomb));
        let (code, reason) = peer.client.close_frame();
        assert_eq!((code, &*reason), (1009, "message is larger than the limit"));
        bystander.send_compressed(Opcode::Text, b"still there?");
        assert_eq!(bystander.message(), b"still there?");
        server.finish();
    }
}

/// Bombs just below the limit of a message are messages: what waits for a worker must be bounded all the same.
#[test]
fn what_bombs_inflate_to_stays_within_the_bound_of_the_workers_queue() {
    let broker = support::broker();
    let worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = support::listen(&broker, compressing(SHARED, 0));
    let bomb = {
        let mut deflate = Deflate::new(9, false, 15);
        let mut out = vec![0; 10_000];
        let zeroes = vec![0; 1 << 20];
        deflate
            .compress(&zeroes, &mut out, DeflateFlush::SyncFlush)
            .expect("deflated");
        out.truncate(deflate.total_out() as usize - 4);
        first_frame(Opcode::Binary, true, &out)
    };
    let flood = bomb.repeat(100);
    // In two pieces, of which the second comes with the end of the handshake: all of them are let in before any is read.
    let header = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let head = support::handshake("/", header);
    let (first, last) = head.split_at(head.len() - 2);
    let mut clients: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = Client::connect(address);
            client.send(first);
            client
        })
        .collect();
    for client in &mut clients {
        client.send([last.as_bytes(), &flood].concat());
    }
    let opened = clients
        .iter_mut()
        .filter_map(|client| (client.head().status == 101).then_some(()))
        .count();
    eventually("the queue is full", || {
        broker.stats().workers.iter().any(|worker| worker.full)
    });
    // Those that were being read when it became full may each have added one read's worth, 16 MiB, per I/O thread.
    let bytes = broker.stats().workers[0].queued_bytes;
    let events = worker.waiting(&broker);
    assert!(bytes < (16 + 2 * 17) << 20, "{bytes} in {events} events");
    assert!(opened > 0 && broker.stats().opened == opened as u64);
    drop(clients);
    support::stop(&listener, support::at_once());
}

#[test]
fn rubbish_is_answered_with_1007() {
    let server = Server::echoing(compressing(SHARED, 0));
    for (payload, text) in [
        (
            &[0xFF; 10][..],
            "compressed message is not valid DEFLATE data",
        ),
        (
            &[0xF2, 0x48],
            "compressed message is not valid DEFLATE data",
        ),
    ] {
        let mut peer = Peer::open(&server, "permessage-deflate");
        peer.client.send(first_frame(Opcode::Text, true, payload));
        let (code, reason) = peer.client.close_frame();
        assert_eq!((code, &*reason), (1007, text));
    }
    let mut peer = Peer::open(&server, "permessage-deflate");
    peer.send_compressed(Opcode::Text, b"\xFF\xFF");
    let expected = "text message is not valid UTF-8".to_owned();
    assert_eq!(peer.client.close_frame(), (1007, expected));
    server.finish();
}
