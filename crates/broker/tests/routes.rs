//! Messages that go their way without a worker: echoed, or relayed to a channel.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{
    BOTH, Client, ManualWorker, Peer, SOCKETS, Seen, Server, assert_nothing_left, at_once, broker,
    channel, eventually, handshake, listen, masked, options, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{
    Acceptance, Broker, Compression, CompressionMemory, ListenOptions, NativeRoute, OnExceed,
    OutboundMessage, Rate, SlowConsumer, SocketId, SocketRate, UpgradeDecision,
};

/// So many events make a worker full, and some more.
const TOO_MANY: usize = 2100;

fn relay(name: &str) -> Option<NativeRoute> {
    Some(NativeRoute::Relay {
        channel: channel(name),
        echo: false,
    })
}

fn relay_and_echo(name: &str) -> Option<NativeRoute> {
    Some(NativeRoute::Relay {
        channel: channel(name),
        echo: true,
    })
}

/// So many sockets in a channel, which relay to it; they are dealt to both shards.
fn room(server: &Server, name: &str, count: usize) -> Vec<(Client, SocketId)> {
    let members: Vec<_> = (0..count).map(|_| server.open()).collect();
    for (_, id) in &members {
        assert_eq!(server.broker.subscribe(*id, &channel(name)), Ok(true));
        assert!(server.broker.set_message_route(*id, relay(name)));
    }
    members
}

fn numbered(range: std::ops::Range<u32>) -> Vec<u8> {
    range
        .flat_map(|n| masked(Opcode::Text, n.to_string().as_bytes()))
        .collect()
}

fn assert_numbers(client: &mut Client, range: std::ops::Range<u32>) {
    for n in range {
        assert_eq!(client.text(), n.to_string());
    }
}

fn messages_of(server: &Server, id: SocketId) -> usize {
    server.journal.messages_of(id, 0).len()
}

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

/// A worker of which nothing is taken, and which is full: its sockets and one that filled it.
struct Blocked {
    broker: Broker,
    worker: ManualWorker,
    listener: wsbroker_engine::Listener,
    /// In "room"; the first one has filled the worker.
    members: Vec<(Client, SocketId)>,
}

impl Blocked {
    fn start(count: usize) -> Self {
        let broker = broker();
        let mut worker = ManualWorker::register(&broker, SOCKETS);
        let (listener, address) = listen(&broker, options());
        let clients: Vec<_> = (0..count).map(|_| Client::open(address)).collect();
        let ids = worker.wait_opened(count);
        let mut members = Vec::new();
        for client in clients {
            // Which of them it is.
            let mut client = client;
            client.send_text("who");
            let id = worker.wait("who said it", |seen| {
                let said = |id: &&SocketId| seen.iter().any(|event| event.said(**id).is_some());
                let known = |id: &&SocketId| members.iter().any(|(_, other)| other == *id);
                ids.iter().filter(|id| !known(id)).find(said).copied()
            });
            members.push((client, id));
        }
        for (_, id) in &members {
            assert_eq!(broker.subscribe(*id, &channel("room")), Ok(true));
        }
        let mut at = Self {
            broker,
            worker,
            listener,
            members,
        };
        at.members[0].0.send(numbered(0..TOO_MANY as u32));
        eventually("the worker is full", || at.is_full());
        at
    }

    fn is_full(&self) -> bool {
        self.broker.stats().workers[0].full
    }

    fn finish(self) {
        drop(self.members);
        stop(&self.listener, at_once());
        assert_nothing_left(&self.broker);
    }
}

#[test]
fn a_relay_goes_on_while_its_worker_is_full() {
    let mut at = Blocked::start(6);
    for (_, id) in &at.members[1..] {
        assert!(at.broker.set_message_route(*id, relay("room")));
    }
    // Somebody who speaks to a handler waits for it.
    at.members[0].0.send_text("I wait");
    let queued = at.worker.waiting(&at.broker);
    for round in 0..20_u32 {
        at.members[1]
            .0
            .send(numbered(round * 100..(round + 1) * 100));
        for n in (0..at.members.len()).filter(|n| *n != 1) {
            assert_numbers(&mut at.members[n].0, round * 100..(round + 1) * 100);
        }
    }
    assert!(at.is_full());
    assert_eq!(
        at.worker.waiting(&at.broker),
        queued,
        "nothing more waits for it"
    );
    let first = at.members[0].1;
    let said = at.worker.wait_messages(first, TOO_MANY + 2);
    assert_eq!(said.last().map(Vec::as_slice), Some(&b"I wait"[..]));
    at.finish();
}

#[test]
fn a_parked_socket_goes_on_when_it_gets_a_route_and_is_parked_again_without() {
    let mut at = Blocked::start(2);
    let (mut other, other_id) = at.members.pop().expect("two");
    let (mut talker, id) = at.members.pop().expect("one");
    talker.send(numbered(0..10)); // parked: nobody reads it
    for round in 0..20 {
        assert!(at.broker.set_message_route(id, Some(NativeRoute::Echo)));
        if round == 0 {
            assert_numbers(&mut talker, 0..10);
        }
        talker.assert_echoes("echo");
        assert!(at.broker.set_message_route(id, None));
        talker.send_text("for the handler");
        // What is for the handler stays where it is, for its worker is full.
        let before = at.worker.waiting(&at.broker);
        let echo = Some(NativeRoute::Echo);
        assert!(at.broker.set_message_route(other_id, echo));
        other.assert_echoes("meanwhile");
        assert_eq!(at.worker.waiting(&at.broker), before);
        assert!(at.broker.set_message_route(id, Some(NativeRoute::Echo)));
        assert_eq!(talker.text(), "for the handler", "what is read later");
        assert!(at.broker.set_message_route(id, None));
    }
    talker.send_text("the end");
    let said = at.worker.wait_messages(id, TOO_MANY + 2);
    assert_eq!(said.len(), TOO_MANY + 2, "who, the flood and the end");
    assert_eq!(said.last().map(Vec::as_slice), Some(&b"the end"[..]));
    at.members.push((talker, id));
    at.members.push((other, other_id));
    at.finish();
}

#[test]
fn a_socket_that_is_held_for_its_handler_is_read_when_it_has_a_route() {
    let server = Server::quiet(options());
    let (mut client, id) = server.open();
    assert!(server.broker.pause(id));
    // Its shard has taken the pause when this arrives.
    assert!(server.broker.send(id, &OutboundMessage::text("paused")));
    assert_eq!(client.text(), "paused");
    client.send_text("waits");
    assert!(client.is_silent_for(Duration::from_millis(10)));
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    assert_eq!(client.text(), "waits");
    client.assert_echoes("echo");
    assert!(server.broker.set_message_route(id, None));
    client.send_text("for the handler");
    assert!(client.is_silent_for(Duration::from_millis(10)));
    assert_eq!(messages_of(&server, id), 0);
    assert!(server.broker.resume(id));
    assert_eq!(server.journal.messages_of(id, 1), [b"for the handler"]);
    server.finish();
}

#[test]
fn a_relay_needs_no_worker_at_all() {
    let server = Server::quiet(options());
    let mut members = room(&server, "room", 4);
    server.worker.end();
    assert_eq!(server.broker.stats().workers, []);
    members[0].0.send(numbered(0..1000));
    for (member, _) in &mut members[1..] {
        assert_numbers(member, 0..1000);
    }
    drop(members);
    // One that comes hears of the closes.
    let mut next = ManualWorker::register(&server.broker, SOCKETS);
    let closes = |seen: &[Seen]| seen.iter().filter_map(Seen::closed).count();
    next.wait("the close events", |seen| (closes(seen) == 4).then_some(()));
    assert_eq!(server.broker.stats().dropped.worker_ended, 0);
    stop(&server.listener, at_once());
    assert_nothing_left(&server.broker);
}

fn limited(max_backpressure: usize, slow_consumer: SlowConsumer) -> ListenOptions {
    let mut options = options();
    options.max_backpressure = max_backpressure;
    options.slow_consumer = slow_consumer;
    options
}

/// Bytes whose first four tell their number.
fn large(n: u32, size: usize) -> Vec<u8> {
    n.to_be_bytes().repeat(size / 4)
}

fn number_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().expect("a number"))
}

#[test]
fn what_a_slow_member_misses_is_counted_and_the_others_get_everything() {
    const LIMIT: usize = 300_000;
    // Small ones come in runs, large ones one by one.
    for (size, count) in [(1000, 20_000_u32), (16 * 1024, 1500)] {
        let server = Server::quiet(limited(LIMIT, SlowConsumer::Drop));
        let mut members = room(&server, "room", 4);
        let (mut slow, slow_id) = members.pop().expect("four");
        // Not more at once than those who read may keep waiting.
        let at_once = (LIMIT / size / 3) as u32;
        for n in 0..count {
            members[0].0.send_frame(Opcode::Binary, &large(n, size));
            if (n + 1).is_multiple_of(at_once) {
                for (member, _) in &mut members[1..] {
                    for expected in n + 1 - at_once..=n {
                        assert_eq!(number_of(&member.data(Opcode::Binary)), expected);
                    }
                }
            }
            assert!(server.broker.buffered_amount(slow_id) <= LIMIT);
        }
        let missed = || server.broker.stats().dropped.slow_consumer;
        eventually("each is queued or counted", || {
            server.broker.stats().messages_out + missed() == u64::from(3 * count)
        });
        let missed = missed();
        assert!(missed > 0, "it is slow");
        let mut last = None;
        for _ in 0..u64::from(count) - missed {
            let number = number_of(&slow.data(Opcode::Binary));
            assert!(last < Some(number), "{number} after {last:?}");
            last = Some(number);
        }
        server.journal.wait("its drain event", |events| {
            events
                .contains(&Seen::Drain { socket: slow_id })
                .then_some(())
        });
        members[0].0.send_frame(Opcode::Binary, &large(count, 8));
        assert_eq!(number_of(&slow.data(Opcode::Binary)), count);
        server.finish();
    }
}

#[test]
fn a_slow_member_is_closed_without_a_gap_in_what_it_got() {
    let server = Server::quiet(limited(100_000, SlowConsumer::Close));
    let mut members = room(&server, "room", 3);
    let (mut slow, slow_id) = members.pop().expect("three");
    let mut n = 0;
    // Of different sizes, so that some would still fit when one did not.
    let size = |n: u32| if n.is_multiple_of(7) { 9000 } else { 100 };
    while server.broker.connection_count() == 3 {
        let bytes: Vec<u8> = (n..n + 50)
            .flat_map(|n| masked(Opcode::Binary, &large(n, size(n))))
            .collect();
        members[0].0.send(bytes);
        for expected in n..n + 50 {
            assert_eq!(number_of(&members[1].0.data(Opcode::Binary)), expected);
        }
        n += 50;
    }
    let mut expected = 0;
    loop {
        let frame = slow.frame();
        if frame.opcode == Opcode::Close as u8 {
            assert_eq!(&frame.payload[..2], 1013_u16.to_be_bytes());
            break;
        }
        assert_eq!(number_of(&frame.payload), expected, "no gap");
        expected += 1;
    }
    assert!(expected < n);
    assert_eq!(server.broker.stats().dropped.slow_consumer, 1);
    drop(slow);
    assert_eq!(server.journal.close_of(slow_id).0, 1013);
    server.finish();
}

#[test]
fn an_echo_client_that_reads_nothing_is_a_slow_consumer() {
    const LIMIT: usize = 200_000;
    let server = Server::quiet(limited(LIMIT, SlowConsumer::Close));
    let (mut client, id) = server.open();
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    let flood = masked(Opcode::Binary, &[0; 10_000]);
    while server.broker.connection_count() == 1 {
        assert!(server.broker.buffered_amount(id) <= LIMIT);
        if client.try_send(&flood).is_err() {
            break;
        }
    }
    eventually("it is closed", || server.broker.connection_count() == 0);
    drop(client);
    assert_eq!(server.journal.close_of(id), (1013, "slow consumer".into()));
    server.finish();
}

#[test]
fn echoes_that_do_not_fit_are_left_out_and_counted() {
    let server = Server::quiet(limited(50_000, SlowConsumer::Drop));
    let (mut client, id) = server.open();
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    let mut sent = 0;
    while server.broker.stats().dropped.slow_consumer < 100 {
        client.send_frame(Opcode::Binary, &large(sent, 1000));
        sent += 1;
    }
    eventually("all are read", || {
        server.broker.stats().messages_in == u64::from(sent)
    });
    let stats = server.broker.stats();
    let dropped = stats.dropped.slow_consumer;
    assert_eq!(stats.messages_out + dropped, u64::from(sent));
    let mut last = None;
    for _ in 0..stats.messages_out {
        let number = number_of(&client.data(Opcode::Binary));
        assert!(last < Some(number));
        last = Some(number);
    }
    client.assert_echoes("there is room again");
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
    let mut random = support::Random::new(7);
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
fn rates_and_limits_hold_for_who_relays() {
    let never = Duration::from_millis(i32::MAX as u64);
    let mut with_limits = options();
    with_limits.limits.socket.messages = Some(SocketRate {
        rate: Rate::new(100, never).expect("a rate"),
        on_exceed: OnExceed::Drop,
    });
    with_limits.max_message_size = 1000;
    let server = Server::quiet(with_limits);
    let mut members = room(&server, "room", 2);
    members[0].0.send(numbered(0..250));
    assert_numbers(&mut members[1].0, 0..100);
    eventually("the rest is counted", || {
        server.broker.stats().dropped.over_rate == 150
    });
    assert_eq!(server.broker.stats().messages_in, 100);
    members[1].0.send_text("before");
    members[1].0.send_frame(Opcode::Binary, &[0; 1001]);
    assert_eq!(members[0].0.text(), "before");
    assert_eq!(members[1].0.close_frame().0, 1009);
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
    assert!(server.broker.set_token(members[0].1, token.clone()));
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
