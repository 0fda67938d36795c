//! RFC 6455 on the wire: what a peer may do, what it must not, and how every connection ends.

mod support;

use std::time::Duration;

use support::{Client, ManualWorker, SOCKETS, Seen, Server, eventually, masked, options};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{Heartbeat, ListenOptions, OutboundMessage, SocketId, StopOptions};

/// Sends every message back as it came.
fn echo(options: ListenOptions) -> Server {
    Server::start(options, SOCKETS, |context, event| {
        if let Seen::Message {
            socket,
            payload,
            text,
            ..
        } = event
        {
            let message = match std::str::from_utf8(payload) {
                Ok(payload) if *text => OutboundMessage::text(payload),
                _ => OutboundMessage::binary(payload),
            };
            context.broker.send(*socket, &message);
        }
    })
}

fn fragment(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    encode_masked(opcode, fin, [9, 8, 7, 6], payload)
}

fn assert_echoes(client: &mut Client, text: &str) {
    client.send_text(text);
    assert_eq!(client.text(), text);
}

fn closes_of(server: &Server, id: SocketId) -> usize {
    let closes = server.journal.closes();
    closes.iter().filter(|(socket, ..)| *socket == id).count()
}

#[test]
fn every_breach_is_answered_with_its_close_code_which_can_be_read() {
    let mut small = options();
    small.max_message_size = 1000;
    let server = echo(small);
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
        assert_echoes(&mut bystander, name);
        assert_eq!(closes_of(&server, id), 1, "{name}");
        assert_eq!(server.broker.stats().dropped.violations, n as u64 + 1);
    }
    assert_eq!(server.broker.connection_count(), 1);
    server.finish();
}

/// A text frame whose third reserved bit is set.
const BREACH: [u8; 6] = [0x91, 0x80, 1, 2, 3, 4];

#[test]
fn messages_before_a_breach_are_answered_before_the_close_frame() {
    let server = echo(options());
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
    let server = echo(small);
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
    let server = echo(options());
    let (mut client, _) = server.open();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
        client.send_frame(Opcode::Binary, &payload);
        assert!(client.data(Opcode::Binary) == payload, "{size} bytes");
    }
    assert_echoes(&mut client, "grüße €");
    assert_echoes(&mut client, "");
    server.finish();
}

#[test]
fn control_frames_between_fragments_are_answered_and_the_message_is_whole() {
    let server = echo(options());
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
    let server = echo(options());
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
    let server = echo(options());
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
fn a_close_of_the_peer_is_echoed_and_reported() {
    let server = echo(options());
    for (code, reason) in [
        (1000, ""),
        (1001, "leaving"),
        (1013, "é"),
        (3000, ""),
        (4999, "own"),
    ] {
        let (mut client, id) = server.open();
        client.send_text("last");
        client.send_close(code, reason);
        assert_eq!(client.last_words(), (code, reason.to_owned()));
        client.end();
        assert_eq!(server.journal.close_of(id), (code, reason.to_owned()));
        assert_eq!(server.journal.messages_of(id, 1), [b"last"]);
        assert!(!server.broker.send(id, &OutboundMessage::text("too late")));
    }
    server.finish();
}

#[test]
fn a_close_without_a_code_is_reported_as_1005() {
    let server = echo(options());
    let (mut client, id) = server.open();
    client.send_frame(Opcode::Close, b"");
    assert_eq!(client.close_frame(), (1005, String::new()));
    client.end();
    assert_eq!(server.journal.close_of(id), (1005, String::new()));
    server.finish();
}

#[test]
fn what_comes_behind_a_close_frame_is_ignored() {
    let server = echo(options());
    let (mut client, id) = server.open();
    let bytes = [
        masked(Opcode::Close, &[0x03, 0xE8]),
        masked(Opcode::Text, b"ghost"),
        vec![0xFF; 9],
    ];
    client.send(bytes.concat());
    assert_eq!(client.close_frame().0, 1000);
    client.end();
    assert_eq!(server.journal.close_of(id).0, 1000);
    let ghost = server
        .journal
        .lock()
        .iter()
        .any(|event| event.said(id).is_some());
    assert!(!ghost);
    assert_eq!(server.broker.stats().dropped.violations, 0);
    server.finish();
}

#[test]
fn a_close_by_a_call_sends_what_was_queued_first_and_waits_for_the_answer() {
    let server = echo(options());
    let (mut client, id) = server.open();
    for n in 0..100 {
        assert!(
            server
                .broker
                .send(id, &OutboundMessage::text(&n.to_string()))
        );
    }
    assert!(server.broker.close(id, 4000, "bye"));
    assert!(!server.broker.close(id, 4001, "twice"));
    assert_eq!(server.broker.connection_count(), 0, "at once");
    for n in 0..100 {
        assert_eq!(client.text(), n.to_string());
    }
    assert_eq!(client.close_frame(), (4000, "bye".to_owned()));
    // Neither a message nor a ping is worth an answer now.
    client.send_text("late");
    client.send_frame(Opcode::Ping, b"late");
    assert_eq!(
        closes_of(&server, id),
        0,
        "not before the peer has answered"
    );
    client.send_close(4000, "yes");
    client.end();
    assert_eq!(server.journal.close_of(id), (4000, "yes".to_owned()));
    let late = server
        .journal
        .lock()
        .iter()
        .any(|event| event.said(id).is_some());
    assert!(!late);
    server.finish();
}

#[test]
fn both_may_say_goodbye_at_once() {
    let server = echo(options());
    for _ in 0..20 {
        let (mut client, id) = server.open();
        server.broker.close(id, 4000, "server");
        client.send_close(4001, "client");
        let (code, _) = client.close_frame();
        client.end();
        assert!([4000, 4001].contains(&code));
        assert_eq!(server.journal.close_of(id), (4001, "client".to_owned()));
        assert_eq!(closes_of(&server, id), 1);
    }
    server.finish();
}

#[test]
fn a_reason_that_is_too_long_is_cut_at_a_character() {
    let server = echo(options());
    let (mut client, id) = server.open();
    server.broker.close(id, 4000, &"é".repeat(100));
    assert_eq!(client.close_frame(), (4000, "é".repeat(61)));
    client.send_close(4000, "");
    client.end();
    server.finish();
}

#[test]
fn a_peer_that_ignores_our_close_is_cut() {
    let mut hasty = options();
    hasty.close_timeout = Duration::from_millis(100);
    let server = echo(hasty);
    let (mut client, id) = server.open();
    server.broker.close(id, 4000, "bye");
    assert_eq!(client.close_frame().0, 4000);
    client.end();
    assert_eq!(server.journal.close_of(id), (1006, String::new()));
    server.finish();
}

#[test]
fn a_stream_that_ends_without_a_close_frame_is_reported_as_1006() {
    let server = echo(options());
    for n in 0..3 {
        let (mut client, id) = server.open();
        assert_echoes(&mut client, "hello");
        match n {
            0 => drop(client),
            1 => {
                client.shutdown();
                client.end();
            }
            _ => client.reset(),
        }
        assert_eq!(server.journal.close_of(id), (1006, String::new()));
    }
    server.finish();
}

#[test]
fn a_peer_that_falls_silent_is_pinged_and_then_cut() {
    let mut quick = options();
    quick.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(400),
    });
    let server = echo(quick);
    let (mut silent, silent_id) = server.open();
    let (mut half, half_id) = server.open();
    half.send(&masked(Opcode::Text, b"never finished")[..9]);
    for client in [&mut silent, &mut half] {
        assert_eq!(client.data(Opcode::Ping), b"");
        client.drained();
    }
    for id in [silent_id, half_id] {
        assert_eq!(server.journal.close_of(id), (1006, String::new()));
    }
    assert_eq!(server.broker.stats().dropped.heartbeat_timeouts, 2);
    server.finish();
}

#[test]
fn a_peer_that_answers_pings_stays() {
    let mut quick = options();
    quick.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(40),
        timeout: Duration::from_secs(20),
    });
    let server = echo(quick);
    let (mut client, _) = server.open();
    for _ in 0..8 {
        assert_eq!(client.data(Opcode::Ping), b"");
        client.send_frame(Opcode::Pong, b"");
    }
    assert_eq!(server.broker.connection_count(), 1);
    assert_eq!(server.broker.stats().dropped.heartbeat_timeouts, 0);
    server.finish();
}

#[test]
fn what_goes_in_and_out_is_counted() {
    let server = echo(options());
    let (mut client, _) = server.open();
    assert_echoes(&mut client, "12345");
    assert_echoes(&mut client, "678");
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
