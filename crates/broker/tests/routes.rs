//! Messages that go their way without a worker: echoed, or relayed to a channel.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{
    BOTH, Client, Peer, Random, Seen, Server, assert_numbers, channel, eventually, handshake,
    masked, messages_of, numbered, options, relay, relay_and_echo, room,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{
    Acceptance, Compression, CompressionMemory, NativeRoute, OutboundMessage, UpgradeDecision,
};

#[test]
fn what_is_echoed_comes_back_as_it_was_and_no_worker_hears_of_it() {
    let server = Server::quiet(options());
    let (mut client, id) = server.open();
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    let mut sent = 0;
    for size in [0, 1, 125, 126, 4080, 4096, 4097, 65_535, 65_536, 1 << 20] {
        for opcode in [Opcode::Text, Opcode::Binary] {
            let payload = vec![b'x'; size];
            client.send_frame(opcode, &payload);
            assert!(client.data(opcode) == payload, "{size} bytes");
            sent += 1;
        }
    }
    client.send(encode_masked(Opcode::Text, false, [1; 4], b"in "));
    client.send(encode_masked(
        Opcode::Continuation,
        true,
        [2; 4],
        "zwei Stücken".as_bytes(),
    ));
    assert_eq!(client.text(), "in zwei Stücken");
    let stats = server.broker.stats();
    assert_eq!(
        (stats.messages_in, stats.messages_out),
        (sent + 1, sent + 1)
    );
    assert_eq!(messages_of(&server, id), 0);
    server.finish();
}

#[test]
fn messages_of_all_sizes_that_come_together_stay_in_order() {
    let server = Server::quiet(options());
    let (mut client, id) = server.open();
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    let sizes = [10, 5000, 0, 4086, 4087, 70_000, 3, 3, 60_000, 1];
    let payloads: Vec<_> = (0..200_u8)
        .map(|n| vec![n; sizes[usize::from(n) % sizes.len()]])
        .collect();
    let all = payloads.iter().map(|p| masked(Opcode::Binary, p));
    let all: Vec<u8> = all.flatten().collect();
    let mut writer = Client::from_tcp(client.tcp().try_clone().expect("a descriptor"));
    let writing = std::thread::spawn(move || writer.send(all));
    for payload in payloads {
        assert!(client.data(Opcode::Binary) == payload);
    }
    writing.join().expect("sent");
    server.finish();
}

#[test]
fn members_of_a_channel_get_each_others_messages_in_order_over_all_shards() {
    const EACH: u32 = 1000;
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 6);
    let (mut outsider, _) = server.open();
    for n in 0..members.len() {
        // In many writes and in one: a read brings several.
        let bytes = numbered(0..EACH);
        for part in bytes.chunks(if n % 2 == 0 { 13 } else { 1 << 20 }) {
            members[n].0.send(part);
        }
        for at in (0..members.len()).filter(|at| *at != n) {
            assert_numbers(&mut members[at].0, 0..EACH);
        }
    }
    let stats = server.broker.stats();
    assert_eq!(stats.messages_in, u64::from(6 * EACH));
    assert_eq!(stats.messages_out, u64::from(6 * 5 * EACH));
    for (member, id) in &mut members {
        // Behind whatever had come back.
        assert!(server.broker.send(*id, &OutboundMessage::text("last")));
        assert_eq!(member.text(), "last");
        assert_eq!(messages_of(&server, *id), 0);
    }
    assert!(outsider.is_silent_for(Duration::from_millis(10)));
    server.finish();
}

#[test]
fn a_relay_with_echo_comes_back_to_its_sender_too() {
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 3);
    assert!(
        server
            .broker
            .set_message_route(members[0].1, relay_and_echo("room"))
    );
    members[0].0.send(numbered(0..100));
    members[0].0.send_frame(Opcode::Binary, b"\x00\xFF");
    for (member, _) in &mut members {
        assert_numbers(member, 0..100);
        assert_eq!(member.data(Opcode::Binary), b"\x00\xFF");
    }
    server.finish();
}

#[test]
fn who_is_not_subscribed_is_not_heard_and_that_is_counted() {
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 2);
    let (mut outsider, id) = server.open();
    let room = channel("room");
    assert!(server.broker.set_message_route(id, relay_and_echo("room")));
    let refused = |outsider: &mut Client, total: u64| {
        outsider.send(numbered(0..10));
        eventually("they are counted", || {
            server.broker.stats().dropped.not_subscribed == total
        });
    };
    refused(&mut outsider, 10);
    assert_eq!(server.broker.subscribe(id, &room), Ok(true));
    outsider.send_text("in");
    assert_eq!(outsider.text(), "in");
    assert!(server.broker.unsubscribe(id, &room));
    refused(&mut outsider, 20);
    // In many other channels, which are looked up another way.
    for n in 0..40 {
        let other = channel(&n.to_string());
        assert_eq!(server.broker.subscribe(id, &other), Ok(true));
    }
    refused(&mut outsider, 30);
    assert_eq!(server.broker.subscribe(id, &room), Ok(true));
    outsider.send_text("again");
    assert_eq!(outsider.text(), "again");
    for (member, _) in &mut members {
        assert_eq!(member.text(), "in");
        assert_eq!(member.text(), "again");
    }
    assert_eq!(server.broker.stats().messages_in, 32);
    server.finish();
}

#[test]
fn a_channel_that_was_empty_in_between_is_another_one_and_found() {
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 2);
    for n in 0..20 {
        let text = n.to_string();
        members[0].0.send_text(&text);
        assert_eq!(members[1].0.text(), text);
        for (_, id) in &members {
            assert!(server.broker.unsubscribe(*id, &channel("room")));
        }
        assert_eq!(server.broker.channel_count(), 0);
        for (_, id) in &members {
            assert_eq!(server.broker.subscribe(*id, &channel("room")), Ok(true));
        }
    }
    server.finish();
}

#[test]
fn the_route_of_an_acceptance_holds_for_what_comes_behind_the_handshake() {
    let server = Server::start(options(), BOTH, |context, event| {
        if let Seen::Upgrade(id, _) = event {
            let acceptance = Acceptance {
                channels: vec![channel("room")],
                route: relay_and_echo("room"),
                ..Acceptance::default()
            };
            context
                .broker
                .decide(*id, UpgradeDecision::Accept(acceptance));
        }
    });
    let mut client = server.connect();
    let mut early = handshake("/", "").into_bytes();
    early.extend(numbered(0..100));
    client.send(early);
    client.upgraded();
    assert_numbers(&mut client, 0..100);
    let id = server.journal.wait("the socket opens", |events| {
        events.iter().find_map(Seen::opened)
    });
    assert_eq!(messages_of(&server, id), 0);
    server.finish();
}

#[test]
fn a_route_holds_for_what_is_read_after_it_was_set() {
    let server = Server::echoing(options());
    let (mut client, id) = server.open();
    for n in 0..50_usize {
        client.assert_echoes("by a handler");
        assert_eq!(messages_of(&server, id), n + 1);
        assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
        client.assert_echoes("by nobody");
        assert_eq!(messages_of(&server, id), n + 1);
        assert!(server.broker.set_message_route(id, None));
    }
    assert!(server.broker.close(id, 1000, ""));
    assert!(!server.broker.set_message_route(id, None), "it is gone");
    assert!(!server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    server.finish();
}

#[test]
fn each_receiver_gets_what_it_has_agreed_on() {
    for memory in [CompressionMemory::Shared, CompressionMemory::Dedicated] {
        let mut compressing = options();
        compressing.compression = Some(Compression {
            threshold: 100,
            memory,
            ..Compression::default()
        });
        let server = Server::quiet(compressing);
        let mut plain = room(&server, "room", 3);
        let mut peers: Vec<_> = (0..4)
            .map(|_| Peer::open_socket(&server, "permessage-deflate"))
            .collect();
        for (_, id) in &peers {
            assert_eq!(server.broker.subscribe(*id, &channel("room")), Ok(true));
            assert!(server.broker.set_message_route(*id, relay_and_echo("room")));
        }
        let text = |n: usize, size: usize| format!("{n} ").repeat(size);
        // Below and above the threshold, together and alone, compressed on their way in and not.
        let all: Vec<_> = (0..60)
            .map(|n| text(n, [3, 10, 500, 5, 4000, 30][n % 6]))
            .collect();
        let bytes: Vec<u8> = all
            .iter()
            .flat_map(|text| masked(Opcode::Text, text.as_bytes()))
            .collect();
        plain[0].0.send(bytes);
        for text in &all {
            peers[0].0.send_compressed(Opcode::Text, text.as_bytes());
        }
        let (sender, receivers) = plain.split_first_mut().expect("three");
        let total = all.len();
        let assert_both = |texts: &mut dyn FnMut() -> String, senders: usize| {
            let mut next = vec![0; senders];
            for _ in 0..senders * total {
                let text = texts();
                let from =
                    (0..senders).find(|from| next[*from] < total && all[next[*from]] == text);
                let from = from.unwrap_or_else(|| panic!("{next:?}: {text:.20}"));
                next[from] += 1;
            }
        };
        assert_both(&mut || sender.0.text(), 1);
        for (receiver, _) in receivers {
            assert_both(&mut || receiver.text(), 2);
        }
        for (peer, _) in &mut peers {
            assert_both(&mut || String::from_utf8(peer.message()).expect("text"), 2);
        }
        let stats = server.broker.stats();
        assert_eq!(stats.messages_in, 2 * total as u64);
        assert_eq!(stats.messages_out, (total * (2 * 7 - 1)) as u64);
        assert_eq!(stats.dropped.slow_consumer, 0);
        for (_, id) in &peers {
            eventually("no room is kept", || {
                server.broker.buffered_amount(*id) == 0
            });
        }
        server.finish();
    }
}

#[test]
fn a_large_compressed_message_is_relayed_when_it_is_inflated() {
    let mut compressing = options();
    compressing.compression = Some(Compression::default());
    let server = Server::quiet(compressing);
    let mut members = room(&server, "room", 2);
    let (mut peer, id) = Peer::open_socket(&server, "permessage-deflate");
    assert_eq!(server.broker.subscribe(id, &channel("room")), Ok(true));
    assert!(server.broker.set_message_route(id, relay("room")));
    let mut random = Random::new(7);
    let noise: String = (0..50_000)
        .map(|_| format!("{:x}", random.next()))
        .collect();
    peer.client.send_text("before");
    peer.send_compressed(Opcode::Text, noise.as_bytes());
    peer.client.send_text("after");
    for (member, _) in &mut members {
        assert_eq!(member.text(), "before");
        assert!(member.text() == noise);
        assert_eq!(member.text(), "after");
    }
    server.finish();
}

#[test]
fn nothing_is_relayed_once_a_close_has_begun() {
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 3);
    let (mut leaving, id) = members.pop().expect("three");
    assert!(server.broker.close(id, 4000, ""));
    assert_eq!(leaving.close_frame().0, 4000);
    leaving.send(numbered(0..100));
    leaving.send_close(4000, "");
    leaving.end();
    server.journal.close_of(id);
    let stats = server.broker.stats();
    assert_eq!((stats.messages_in, stats.messages_out), (0, 0));
    // What came behind a goodbye of the client is nothing either.
    let (mut leaving, _) = members.pop().expect("two");
    let mut bytes = numbered(0..2);
    bytes.extend(masked(Opcode::Close, &1000_u16.to_be_bytes()));
    bytes.extend(numbered(2..10));
    leaving.send(bytes);
    assert_eq!(leaving.close_frame().0, 1000);
    assert_numbers(&mut members[0].0, 0..2);
    assert!(
        server
            .broker
            .send(members[0].1, &OutboundMessage::text("last"))
    );
    assert_eq!(members[0].0.text(), "last");
    server.finish();
}

#[test]
fn pings_are_answered_and_handlers_send_as_ever() {
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 2);
    members[0].0.send_frame(Opcode::Ping, b"there?");
    assert_eq!(members[0].0.data(Opcode::Pong), b"there?");
    let token = Some(Bytes::from_static(b"token"));
    assert!(server.broker.set_token(members[0].1, token));
    let both = OutboundMessage::text("to both");
    let receivers = server.broker.send_to_channel(&channel("room"), &both, None);
    assert_eq!(receivers, 2);
    for (member, _) in &mut members {
        assert_eq!(member.text(), "to both");
    }
    members[0].0.send_close(1000, "");
    assert_eq!(members[0].0.close_frame().0, 1000);
    server.journal.wait("its close event has its token", |events| {
        let is_it = |event: &Seen| matches!(event, Seen::Close { token: Some(token), .. } if token == b"token");
        events.iter().any(is_it).then_some(())
    });
    server.finish();
}
