//! Many messages for the same members at once, which leave together: still each receiver gets what is its own, in order.

mod support;

use std::collections::BTreeMap;

use support::{Client, Peer, Random, Server, channel, eventually, options, seed};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{Compression, CompressionMemory, OutboundMessage, SlowConsumer, SocketId};

/// Fewer than wake a shard behind a cork: all of them are in its inbox when it comes to it.
const CALLS: usize = 200;
const ROUNDS: usize = 40;
const MEMBERS: usize = 6;

/// Mostly small enough to be copied together.
fn length(random: &mut Random) -> usize {
    match random.below(30) {
        0 => 5000,
        1 => 40_000,
        2..5 => random.below(3000),
        _ => random.below(100),
    }
}

/// Plain sockets and such as have agreed on compression, each of its kind.
fn members(server: &Server, offer: &str) -> Vec<(Peer, SocketId)> {
    (0..MEMBERS)
        .map(|n| Peer::open_socket(server, if n % 3 == 2 { offer } else { "" }))
        .collect()
}

fn deliver_at_random(memory: CompressionMemory) {
    let mut random = Random::new(seed());
    let mut options = options();
    options.max_backpressure = 64 * 1024 * 1024;
    options.compression = Some(Compression {
        memory,
        ..Compression::default()
    });
    let server = Server::quiet(options);
    let broker = &server.broker;
    let mut members = members(&server, "permessage-deflate");
    let rooms = [channel("all"), channel("few")];
    for (n, (_, id)) in members.iter().enumerate() {
        assert_eq!(broker.subscribe(*id, &rooms[0]), Ok(true));
        if n % 2 == 0 {
            assert_eq!(broker.subscribe(*id, &rooms[1]), Ok(true));
        }
    }
    for round in 0..ROUNDS {
        let mut expected: BTreeMap<SocketId, Vec<String>> = BTreeMap::new();
        let mut room = 0;
        wsbroker_engine::cork();
        for call in 0..CALLS {
            let text = format!("{round} {call} {}", "x".repeat(length(&mut random)));
            let message = OutboundMessage::text(&text);
            let chosen = members[random.below(MEMBERS)].1;
            match random.below(20) {
                0 => {
                    assert!(broker.send(chosen, &message));
                    expected.entry(chosen).or_default().push(text);
                    continue;
                }
                1 => room = 1 - room,
                _ => {}
            }
            let except = (random.below(3) == 0).then_some(chosen);
            let mut queued = 0;
            for (n, (_, id)) in members.iter().enumerate() {
                if (room == 0 || n % 2 == 0) && Some(*id) != except {
                    expected.entry(*id).or_default().push(text.clone());
                    queued += 1;
                }
            }
            assert_eq!(
                broker.send_to_channel(&rooms[room], &message, except),
                queued
            );
        }
        wsbroker_engine::uncork();
        for (peer, id) in &mut members {
            for text in expected.remove(id).unwrap_or_default() {
                let received = String::from_utf8(peer.message()).expect("text");
                assert!(received == text, "{:.20} instead of {text:.20}", received);
            }
        }
    }
    for (_, id) in &members {
        eventually("nothing waits", || broker.buffered_amount(*id) == 0);
    }
    server.finish();
}

#[test]
fn each_member_gets_its_messages_in_order() {
    deliver_at_random(CompressionMemory::Shared);
}

#[test]
fn contexts_of_compression_see_each_message() {
    deliver_at_random(CompressionMemory::Dedicated);
}

#[test]
fn what_is_joined_is_still_compressed_for_those_who_agreed_on_it() {
    let mut options = options();
    options.compression = Some(Compression {
        memory: CompressionMemory::Dedicated,
        threshold: 500,
        ..Compression::default()
    });
    let server = Server::quiet(options);
    let mut members: Vec<_> = (0..4)
        .map(|_| Peer::open_socket(&server, "permessage-deflate"))
        .collect();
    let room = channel("room");
    for (_, id) in &members {
        assert_eq!(server.broker.subscribe(*id, &room), Ok(true));
    }
    let text = "many times ".repeat(100);
    let message = OutboundMessage::text(&text);
    wsbroker_engine::cork();
    for (_, id) in &members {
        for (except, queued) in [(None, 4), (Some(*id), 3)] {
            let publish = || server.broker.send_to_channel(&room, &message, except);
            assert_eq!(publish(), queued);
        }
    }
    wsbroker_engine::uncork();
    for (peer, _) in &mut members {
        for _ in 0..7 {
            assert_eq!(peer.compressed_message().0, text.as_bytes());
        }
    }
    server.finish();
}

/// Two sockets of one shard: they are dealt to two in turn.
fn neighbours(server: &Server) -> [(Client, SocketId); 2] {
    let first = server.open();
    drop(server.open());
    [first, server.open()]
}

#[test]
fn a_close_comes_behind_what_was_published_before() {
    let server = Server::quiet(options());
    let [(mut stays, staying), (mut goes, going)] = neighbours(&server);
    let room = channel("room");
    for id in [staying, going] {
        assert_eq!(server.broker.subscribe(id, &room), Ok(true));
    }
    let message = OutboundMessage::text("hello");
    let publish = || server.broker.send_to_channel(&room, &message, None);
    wsbroker_engine::cork();
    for _ in 0..10 {
        assert_eq!(publish(), 2);
    }
    assert!(server.broker.close(going, 4000, "out"));
    for _ in 0..10 {
        assert_eq!(publish(), 1);
    }
    wsbroker_engine::uncork();
    for _ in 0..20 {
        assert_eq!(stays.data(Opcode::Text), b"hello");
    }
    for _ in 0..10 {
        assert_eq!(goes.data(Opcode::Text), b"hello");
    }
    assert_eq!(goes.close_frame(), (4000, "out".to_owned()));
    let counted = || server.broker.stats().messages_out == 30;
    eventually("each message is counted", counted);
    server.finish();
}

#[test]
fn a_slow_member_loses_single_messages_and_keeps_the_order() {
    let mut options = options();
    // More than two batches: what has arrived may still be counted.
    options.max_backpressure = 200_000;
    options.slow_consumer = SlowConsumer::Drop;
    let server = Server::quiet(options);
    let [(mut reads, reading), (mut late, slow)] = neighbours(&server);
    let room = channel("room");
    for id in [reading, slow] {
        assert_eq!(server.broker.subscribe(id, &room), Ok(true));
    }
    let text = |n: usize| format!("{n:0>1000}");
    let mut expected = Vec::new();
    let mut sent = 0;
    // Until its kernel buffers are full and its own as well.
    while server.broker.stats().dropped.slow_consumer < 100 {
        wsbroker_engine::cork();
        let batch = sent..sent + 50;
        for n in batch.clone() {
            let queued =
                server
                    .broker
                    .send_to_channel(&room, &OutboundMessage::text(&text(n)), None);
            assert!(queued >= 1, "who reads gets all");
            if queued == 2 {
                expected.push(n);
            }
        }
        wsbroker_engine::uncork();
        for n in batch.clone() {
            assert_eq!(reads.text(), text(n));
        }
        sent = batch.end;
    }
    for n in expected {
        assert_eq!(late.text(), text(n));
    }
    server.finish();
}
