//! RFC 6455 on the wire: what a peer may do, and what it must not.

mod support;

use std::time::Duration;

use support::{Client, ManualWorker, SOCKETS, Server, eventually, masked, options};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{OutboundMessage, StopOptions};

fn fragment(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    encode_masked(opcode, fin, [9, 8, 7, 6], payload)
}

#[test]
fn every_breach_is_answered_with_its_close_code_which_can_be_read() {
    let mut small = options();
    small.max_message_size = 1000;
    let server = Server::echoing(small);
    let (mut bystander, _) = server.open();
    let unmasked = vec![0x81, 0x02, b'h', b'i'];
    let huge = |first: u8| [&[0x82, 0xFF, first][..], &[0; 7], &[1, 2, 3, 4]].concat();
    let bad = |first: u8| vec![first, 0x80, 1, 2, 3, 4];
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let breaches: Vec<(&str, u16, Vec<u8>)> = vec![
        ("unmasked", 1002, unmasked),
        ("reserved opcode 3", 1002, bad(0x83)),
        ("reserved opcode 15", 1002, bad(0x8F)),
        ("reserved bit 1", 1002, bad(0xC1)),
        ("reserved bit 2", 1002, bad(0xA1)),
        ("reserved bit 3", 1002, bad(0x91)),
        ("fragmented ping", 1002, bad(0x09)),
        ("fragmented close", 1002, bad(0x08)),
        ("ping of 126 bytes", 1002, masked(Opcode::Ping, &[0; 126])),
        ("length of 2^63", 1002, huge(0x80)),
        ("length of 2^62", 1009, huge(0x40)),
        (
            "length not minimal",
            1002,
            vec![0x82, 0xFE, 0, 5, 1, 2, 3, 4],
        ),
        (
            "stray continuation",
            1002,
            fragment(Opcode::Continuation, true, b"x"),
        ),
        (
            "message in a message",
            1002,
            two(
                fragment(Opcode::Text, false, b"x"),
                masked(Opcode::Text, b"y"),
            ),
        ),
        ("bad UTF-8", 1007, masked(Opcode::Text, b"\xC3\x28")),
        (
            "UTF-8 cut at the end",
            1007,
            masked(Opcode::Text, b"\xE2\x82"),
        ),
        ("surrogate", 1007, masked(Opcode::Text, b"\xED\xA0\x80")),
        (
            "bad UTF-8 in an unfinished text",
            1007,
            fragment(Opcode::Text, false, b"\xFF"),
        ),
        (
            "one byte over the limit",
            1009,
            masked(Opcode::Binary, &[0; 1001]),
        ),
        (
            "over the limit in fragments",
            1009,
            two(
                fragment(Opcode::Binary, false, &[0; 600]),
                fragment(Opcode::Continuation, true, &[0; 401]),
            ),
        ),
        ("close of one byte", 1002, masked(Opcode::Close, b"x")),
        (
            "close with 1005",
            1002,
            masked(Opcode::Close, &1005_u16.to_be_bytes()),
        ),
        (
            "close with 999",
            1002,
            masked(Opcode::Close, &999_u16.to_be_bytes()),
        ),
        (
            "close with 5000",
            1002,
            masked(Opcode::Close, &5000_u16.to_be_bytes()),
        ),
        (
            "close reason not UTF-8",
            1007,
            masked(Opcode::Close, b"\x03\xE8\xFF"),
        ),
    ];
    for (n, (name, code, bytes)) in breaches.iter().enumerate() {
        // What was sent before is still heard; what comes behind, however much, overtakes nothing.
        let trailing: &[u8] = if n % 2 == 0 { b"" } else { &[0x55; 300_000] };
        let (mut client, id) = server.open();
        let before = masked(Opcode::Text, b"before");
        client.send([&before, bytes.as_slice(), trailing].concat());
        let (sent, reason) = client.last_words();
        assert_eq!(sent, *code, "{name}: {reason}");
        assert!(!reason.is_empty(), "{name}");
        client.end();
        assert_eq!(server.journal.close_of(id), (*code, reason), "{name}");
        assert_eq!(server.journal.messages_of(id, 1), [b"before"], "{name}");
        drop(client);
        bystander.assert_echoes(name);
        assert_eq!(server.journal.closes_of(id), 1, "{name}");
        assert_eq!(server.broker.stats().dropped.violations, n as u64 + 1);
    }
    assert_eq!(server.broker.connection_count(), 1);
    server.finish();
}

/// A text frame whose third reserved bit is set.
const BREACH: [u8; 6] = [0x91, 0x80, 1, 2, 3, 4];

#[test]
fn messages_before_a_breach_are_answered_before_the_close_frame() {
    let server = Server::echoing(options());
    for _ in 0..20 {
        let (mut client, id) = server.open();
        let bytes: [&[u8]; 3] = [
            &masked(Opcode::Text, b"one"),
            &masked(Opcode::Text, b"two"),
            &BREACH,
        ];
        client.send(bytes.concat());
        assert_eq!((client.text(), client.text()), ("one".into(), "two".into()));
        assert_eq!(client.close_frame().0, 1002);
        client.end();
        assert_eq!(server.journal.close_of(id).0, 1002);
        assert!(!server.broker.send(id, &OutboundMessage::text("too late")));
    }
    server.finish();
}

#[test]
fn a_busy_worker_holds_up_the_close_frame_of_a_breach_for_the_close_timeout_at_most() {
    let mut hasty = options();
    hasty.close_timeout = Duration::from_millis(100);
    let broker = support::broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = support::listen(&broker, hasty);
    let mut client = Client::open(address);
    client.send(BREACH);
    assert_eq!(client.close_frame().0, 1002);
    client.end();
    assert_eq!(broker.connection_count(), 0);
    let id = worker.wait_opened(1)[0];
    assert_eq!(worker.wait_close(id).0, 1002);
    support::stop(&listener, support::at_once());
    support::assert_nothing_left(&broker);
}

#[test]
fn a_call_that_closes_a_socket_whose_peer_broke_the_protocol_does_not_wait_for_its_worker() {
    let broker = support::broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = support::listen(&broker, options());
    for n in 1..=2 {
        let mut client = Client::open(address);
        client.send(BREACH);
        eventually("the breach is noticed", || {
            broker.stats().dropped.violations == n
        });
        let id = broker.connections()[0];
        assert!(broker.send(id, &OutboundMessage::text("still open")));
        if n == 1 {
            assert!(broker.close(id, 4000, "bye"));
        } else {
            listener.stop(StopOptions::default(), Box::new(|_| {}));
        }
        assert_eq!(client.text(), "still open");
        assert_eq!(client.close_frame().0, 1002, "the breach came first");
        client.end();
        assert_eq!(worker.wait_close(id).0, 1002);
        assert!(!broker.close(id, 4000, "again"));
    }
    support::assert_nothing_left(&broker);
}

#[test]
fn a_message_of_exactly_the_limit_is_taken() {
    let mut small = options();
    small.max_message_size = 1000;
    let server = Server::echoing(small);
    let (mut client, _) = server.open();
    client.send_frame(Opcode::Binary, &[7; 1000]);
    assert_eq!(client.data(Opcode::Binary), [7; 1000]);
    client.send(fragment(Opcode::Binary, false, &[8; 999]));
    client.send(fragment(Opcode::Continuation, true, &[8; 1]));
    assert_eq!(client.data(Opcode::Binary), [8; 1000]);
    server.finish();
}

#[test]
fn messages_of_all_header_sizes_come_back_as_they_were() {
    let server = Server::echoing(options());
    let (mut client, _) = server.open();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
        client.send_frame(Opcode::Binary, &payload);
        assert!(client.data(Opcode::Binary) == payload, "{size} bytes");
    }
    client.assert_echoes("grüße €");
    client.assert_echoes("");
    server.finish();
}

#[test]
fn control_frames_between_fragments_are_answered_and_the_message_is_whole() {
    let server = Server::echoing(options());
    let (mut client, id) = server.open();
    // The euro sign is cut across two fragments.
    client.send(fragment(Opcode::Text, false, b"a\xE2"));
    client.send_frame(Opcode::Ping, b"in between");
    assert_eq!(client.data(Opcode::Pong), b"in between");
    client.send_frame(Opcode::Pong, b"nobody asked");
    client.send(fragment(Opcode::Continuation, false, b""));
    client.send(fragment(Opcode::Continuation, true, b"\x82\xACb"));
    assert_eq!(client.text(), "a€b");
    assert_eq!(server.journal.messages_of(id, 1).len(), 1);
    server.finish();
}

#[test]
fn frames_may_be_cut_anywhere() {
    let server = Server::echoing(options());
    let (mut client, id) = server.open();
    let mut bytes = masked(Opcode::Text, b"one");
    bytes.extend(masked(Opcode::Ping, b"two"));
    bytes.extend(fragment(Opcode::Binary, false, &[3; 200]));
    bytes.extend(fragment(Opcode::Continuation, true, &[4; 100]));
    for byte in bytes {
        client.send([byte]);
    }
    // Pongs and answers go different ways; only each has an order.
    let mut frames = [client.frame(), client.frame(), client.frame()];
    frames.sort_by_key(|frame| frame.opcode);
    let opcodes: Vec<u8> = frames.iter().map(|frame| frame.opcode).collect();
    assert_eq!(opcodes, [1, 2, 10]);
    assert_eq!(frames[2].payload, b"two");
    let messages = server.journal.messages_of(id, 2);
    assert_eq!(
        messages,
        [b"one".to_vec(), [[3; 100], [3; 100], [4; 100]].concat()]
    );
    server.finish();
}

#[test]
fn pings_are_answered_with_their_payload_and_in_order() {
    let server = Server::echoing(options());
    let (mut client, _) = server.open();
    for length in [0, 1, 125] {
        client.send_frame(Opcode::Ping, &vec![length as u8; length]);
    }
    for length in [0, 1, 125] {
        assert_eq!(client.data(Opcode::Pong), vec![length as u8; length]);
    }
    server.finish();
}

#[test]
fn what_goes_in_and_out_is_counted() {
    let server = Server::echoing(options());
    let (mut client, _) = server.open();
    client.assert_echoes("12345");
    client.assert_echoes("678");
    let sent = 2 + 5 + 2 + 3;
    eventually("the counts are in", || {
        server.broker.stats().bytes_out == sent
    });
    let stats = server.broker.stats();
    assert_eq!((stats.messages_in, stats.bytes_in), (2, 6 + 5 + 6 + 3));
    assert_eq!((stats.messages_out, stats.bytes_out), (2, sent));
    assert_eq!((stats.opened, stats.closed), (1, 0));
    server.finish();
}
