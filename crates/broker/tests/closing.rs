//! How every WebSocket ends: by the peer, by a call, by both, by silence.

mod support;

use std::time::Duration;

use support::{BOTH, Seen, Server, channel, masked, options};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{Acceptance, Heartbeat, OutboundMessage, UpgradeDecision};

#[test]
fn a_close_of_the_peer_is_echoed_and_reported() {
    let server = Server::echoing(options());
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
    let server = Server::echoing(options());
    let (mut client, id) = server.open();
    client.send_frame(Opcode::Close, b"");
    assert_eq!(client.close_frame(), (1005, String::new()));
    client.end();
    assert_eq!(server.journal.close_of(id), (1005, String::new()));
    server.finish();
}

#[test]
fn what_comes_behind_a_close_frame_is_ignored() {
    let server = Server::echoing(options());
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
    let server = Server::echoing(options());
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
        server.journal.closes_of(id),
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
    let server = Server::echoing(options());
    for _ in 0..20 {
        let (mut client, id) = server.open();
        server.broker.close(id, 4000, "server");
        client.send_close(4001, "client");
        let (code, _) = client.close_frame();
        client.end();
        assert!([4000, 4001].contains(&code));
        assert_eq!(server.journal.close_of(id), (4001, "client".to_owned()));
        assert_eq!(server.journal.closes_of(id), 1);
    }
    server.finish();
}

#[test]
fn a_reason_that_is_too_long_is_cut_at_a_character() {
    let server = Server::echoing(options());
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
    let server = Server::echoing(hasty);
    let (mut client, id) = server.open();
    server.broker.close(id, 4000, "bye");
    assert_eq!(client.close_frame().0, 4000);
    client.end();
    assert_eq!(server.journal.close_of(id), (1006, String::new()));
    server.finish();
}

#[test]
fn a_stream_that_ends_without_a_close_frame_is_reported_as_1006() {
    let server = Server::echoing(options());
    for n in 0..3 {
        let (mut client, id) = server.open();
        client.assert_echoes("hello");
        match n {
            0 => drop(client),
            1 => {
                client.shutdown();
                assert_eq!(client.close_frame(), (1005, String::new()));
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
    let server = Server::echoing(quick);
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
    let server = Server::echoing(quick);
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
fn who_was_in_thousands_of_channels_has_left_them_all_when_the_stop_is_done() {
    const CHANNELS: usize = 20_000;
    let names = || (0..CHANNELS).map(|n| channel(&n.to_string()));
    let server = Server::start(options(), BOTH, move |context, event| {
        if let Seen::Upgrade(id, _) = event {
            let acceptance = UpgradeDecision::Accept(Acceptance {
                channels: names().collect(),
                ..Acceptance::default()
            });
            context.broker.decide(*id, acceptance);
        }
    });
    let mut clients = Vec::new();
    for open in 1..=3 {
        clients.push(server.open().0);
        // Each has joined them all before it hears that it is open.
        let joined = server.broker.stats().subscriptions;
        assert_eq!(joined, open * CHANNELS as u64);
    }
    clients.remove(1).reset();
    server.finish(); // asserts that nothing is left
}
