//! Native routes where somebody does not keep up: workers that are full, held or gone, receivers that are slow, senders that
//! are over a rate.

mod support;

use std::time::Duration;

use support::{
    Client, ManualWorker, SOCKETS, Seen, Server, assert_nothing_left, assert_numbers, at_once,
    broker, channel, eventually, listen, masked, messages_of, numbered, options, relay, room, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Broker, ListenOptions, Listener, NativeRoute, OnExceed, OutboundMessage, Rate, SlowConsumer,
    SocketId, SocketRate,
};

/// So many events make a worker full, and some more.
const TOO_MANY: usize = 2100;

/// A worker of which nothing is taken, and which is full: its sockets and one that filled it.
struct Blocked {
    broker: Broker,
    worker: ManualWorker,
    listener: Listener,
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
            // What was on its way when the kernel took no more for it comes to what may wait.
            assert!(
                server.broker.buffered_amount(slow_id) <= LIMIT + at_once as usize * (size + 4)
            );
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
    // Some rounds of what is sent below: what a member has read may still be counted when the next round comes.
    let server = Server::quiet(limited(400_000, SlowConsumer::Close));
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
fn an_echo_client_that_is_closed_as_slow_sees_no_gap() {
    const LIMIT: usize = 200_000;
    let server = Server::quiet(limited(LIMIT, SlowConsumer::Close));
    let (mut client, id) = server.open();
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    let mut sent = 0;
    // Until what comes next does not fit, and what is much smaller would.
    while server.broker.buffered_amount(id) < LIMIT - 8000 {
        client.send(masked(Opcode::Binary, &large(sent, 4000)));
        sent += 1;
        eventually("it is read", || {
            server.broker.stats().messages_in == u64::from(sent)
        });
    }
    // More than one read takes.
    let burst = (0..2000).map(|n| large(sent + n, if n == 0 { 9000 } else { 100 }));
    let burst: Vec<u8> = burst.flat_map(|m| masked(Opcode::Binary, &m)).collect();
    client.send(burst);
    eventually("it is closed", || server.broker.connection_count() == 0);
    for expected in 0..sent {
        assert_eq!(number_of(&client.data(Opcode::Binary)), expected);
    }
    let frame = client.frame();
    assert_eq!(frame.opcode, Opcode::Close as u8, "nothing behind the gap");
    assert_eq!(server.broker.stats().dropped.slow_consumer, 1);
    drop(client);
    assert_eq!(server.journal.close_of(id).0, 1013);
    server.finish();
}

#[test]
fn drains_that_clients_cause_by_themselves_do_not_gather() {
    let server = Server::quiet(limited(60_000, SlowConsumer::Close));
    let (mut client, id) = server.open();
    assert!(server.broker.set_message_route(id, Some(NativeRoute::Echo)));
    server.worker.end();
    for n in 0..300 {
        client.send(masked(Opcode::Binary, &large(n, 40_000))); // over half of what may wait, and then nothing
        assert_eq!(number_of(&client.data(Opcode::Binary)), n);
    }
    let mut next = ManualWorker::register(&server.broker, SOCKETS);
    let drain = Seen::Drain { socket: id };
    next.wait("a drain event", |seen| seen.contains(&drain).then_some(()));
    drop(client);
    next.wait("the close event", |seen| {
        seen.iter()
            .any(|event| event.closed().is_some())
            .then_some(())
    });
    let drains = next.seen.iter().filter(|event| **event == drain).count();
    assert!(drains <= 2, "{drains} drain events");
    stop(&server.listener, at_once());
    assert_nothing_left(&server.broker);
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
