//! Backpressure, both ways: peers that read too slowly, and workers that do.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use support::{
    Client, Journal, ManualWorker, SOCKETS, Seen, Server, ThreadWorker, assert_nothing_left,
    at_once, broker, channel, eventually, listen, options, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::{
    Broker, Event, Heartbeat, ListenOptions, OutboundMessage, SlowConsumer, SocketId,
};

fn limited(max_backpressure: usize, slow_consumer: SlowConsumer) -> ListenOptions {
    let mut options = options();
    options.max_backpressure = max_backpressure;
    options.slow_consumer = slow_consumer;
    options
}

/// A message that can be told from the others and fills the kernel's buffers soon.
fn numbered(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(8 * 1024)
}

fn number_of(payload: &[u8]) -> u32 {
    let (first, _) = payload.split_first_chunk::<4>().expect("a number");
    u32::from_be_bytes(*first)
}

/// Sends until `refusals` messages were refused; the numbers that were queued. No message is sent before the one before is in
/// the outbox: what is sent at once is no reason to find a client slow.
fn flood(broker: &Broker, socket: SocketId, refusals: usize) -> Vec<u32> {
    let mut refused = 0;
    let mut queued = Vec::new();
    for n in 0.. {
        if broker.send(socket, &OutboundMessage::binary(&numbered(n))) {
            queued.push(n);
            eventually("it is taken over", || {
                broker.stats().messages_out >= queued.len() as u64
            });
        } else {
            refused += 1;
        }
        if refused == refusals {
            break;
        }
    }
    queued
}

#[test]
fn a_slow_consumer_gets_what_was_queued_and_then_1013() {
    let server = Server::quiet(limited(200_000, SlowConsumer::Close));
    let (mut client, id) = server.open();
    let queued = flood(&server.broker, id, 1);
    assert_eq!(server.broker.connection_count(), 0);
    assert!(
        !server
            .broker
            .send(id, &OutboundMessage::binary(&numbered(0))),
        "it is gone"
    );
    for n in queued {
        assert_eq!(number_of(&client.message()), n);
    }
    assert_eq!(client.close_frame(), (1013, "slow consumer".to_owned()));
    client.send_close(1013, "");
    client.end();
    assert_eq!(server.journal.close_of(id).0, 1013);
    assert_eq!(server.broker.stats().dropped.slow_consumer, 1);
    server.finish();
}

#[test]
fn a_slow_consumer_that_never_reads_is_cut_and_reported_as_1013() {
    let mut hasty = limited(200_000, SlowConsumer::Close);
    hasty.close_timeout = Duration::from_millis(100);
    let server = Server::quiet(hasty);
    let (client, id) = server.open();
    flood(&server.broker, id, 1);
    let expected = (1013, "slow consumer".to_owned());
    assert_eq!(server.journal.close_of(id), expected);
    drop(client);
    server.finish();
}

#[test]
fn what_is_dropped_is_counted_and_the_rest_arrives_in_order_before_a_drain_event() {
    let server = Server::quiet(limited(200_000, SlowConsumer::Drop));
    let (mut client, id) = server.open();
    let queued = flood(&server.broker, id, 50);
    assert_eq!(server.broker.stats().dropped.slow_consumer, 50);
    for n in queued {
        assert_eq!(number_of(&client.message()), n);
    }
    server.journal.wait("the drain event", |events| {
        events.contains(&Seen::Drain { socket: id }).then_some(())
    });
    assert!(
        server
            .broker
            .send(id, &OutboundMessage::binary(&numbered(7)))
    );
    assert_eq!(number_of(&client.message()), 7);
    assert_eq!(server.broker.connection_count(), 1);
    server.finish();
}

#[test]
fn a_message_larger_than_the_limit_passes_when_nothing_waits() {
    let server = Server::quiet(limited(1000, SlowConsumer::Drop));
    let (mut client, id) = server.open();
    for n in 0..5 {
        eventually("nothing waits", || server.broker.buffered_amount(id) == 0);
        let bytes = vec![n; 3_000_000];
        let large = OutboundMessage::binary(&bytes);
        assert!(server.broker.send(id, &large));
        assert!(client.message() == vec![n; 3_000_000]);
    }
    assert_eq!(server.broker.stats().dropped.slow_consumer, 0);
    server.finish();
}

#[test]
fn the_buffered_amount_is_what_waits_and_counts_down_to_nothing() {
    let server = Server::quiet(limited(64 << 20, SlowConsumer::Close));
    let (mut client, id) = server.open();
    for n in 0..1000 {
        assert!(
            server
                .broker
                .send(id, &OutboundMessage::binary(&numbered(n)))
        );
    }
    // The kernel takes some MB at most of these 32.
    assert!(server.broker.buffered_amount(id) > 10_000_000);
    let mut before = usize::MAX;
    for n in 0..1000 {
        assert_eq!(number_of(&client.message()), n);
        let now = server.broker.buffered_amount(id);
        assert!(now <= before);
        before = now;
    }
    eventually("nothing waits", || server.broker.buffered_amount(id) == 0);
    server.broker.close(id, 1000, "");
    assert_eq!(
        server.broker.buffered_amount(id),
        0,
        "a closed socket has none"
    );
    server.finish();
}

#[test]
fn one_stalled_reader_among_two_hundred_changes_nothing_for_the_others() {
    let server = Server::quiet(limited(300_000, SlowConsumer::Drop));
    let room = channel("room");
    let (_stalled, stalled_id) = server.open();
    assert_eq!(server.broker.subscribe(stalled_id, &room), Ok(true));
    flood(&server.broker, stalled_id, 100);
    let mut others = Vec::new();
    for _ in 0..199 {
        let (client, id) = server.open();
        assert_eq!(server.broker.subscribe(id, &room), Ok(true));
        others.push(client);
    }
    let dropped_before = server.broker.stats().dropped.slow_consumer;
    let mut queued = 0;
    for n in 0..40_u32 {
        let bytes = n.to_be_bytes().repeat(100);
        let message = OutboundMessage::binary(&bytes);
        let receivers = server.broker.send_to_channel(&room, &message, None);
        assert!((199..=200).contains(&receivers));
        queued += receivers;
        for client in &mut others {
            assert_eq!(number_of(&client.message()), n);
        }
    }
    let dropped = server.broker.stats().dropped.slow_consumer - dropped_before;
    assert_eq!(
        dropped as usize + queued,
        40 * 200,
        "each is queued or counted"
    );
    server.finish();
}

#[test]
fn a_ping_flood_of_a_peer_that_reads_nothing_is_a_slow_consumer() {
    let server = Server::quiet(limited(10_000, SlowConsumer::Close));
    let (mut client, id) = server.open();
    let pings: Vec<u8> = (0..2000)
        .flat_map(|_| support::masked(Opcode::Ping, &[1; 125]))
        .collect();
    // It ends in the middle: the socket closes and what is still sent is thrown away.
    while server.journal.closes().is_empty() && server.broker.connection_count() == 1 {
        if client.try_send(&pings).is_err() {
            break;
        }
    }
    assert!(server.broker.stats().dropped.slow_consumer > 0);
    drop(client);
    server.journal.close_of(id);
    server.finish();
}

/// A frame with a number in front, masked with zeros so that it can be written without encoding.
fn numbered_frame(n: u32) -> Vec<u8> {
    let mut payload = vec![0xAB; 16 * 1024];
    payload[..4].copy_from_slice(&n.to_be_bytes());
    encode_masked(Opcode::Binary, true, [0; 4], &payload)
}

fn flood_worker(clients: Vec<Client>, frames: u32) -> Vec<std::thread::JoinHandle<Client>> {
    let threads = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            for n in 0..frames {
                client.send(numbered_frame(n));
            }
            client
        })
    });
    threads.collect()
}

/// Takes everything; each socket's numbers come in order from 0. How many per socket.
fn take_numbered(worker: &ManualWorker, sockets: usize, frames: u32) -> HashMap<SocketId, u32> {
    let mut next: HashMap<SocketId, u32> = HashMap::new();
    let began = Instant::now();
    while next.len() < sockets || next.values().any(|count| *count < frames) {
        assert!(began.elapsed() < support::DEADLINE, "{next:?}");
        let Some(batch) = worker.worker.take() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        for event in batch.events() {
            if let Event::Message {
                socket, payload, ..
            } = event
            {
                let expected = next.entry(socket).or_default();
                assert_eq!(number_of(payload), *expected, "{socket}");
                *expected += 1;
            }
        }
    }
    next
}

#[test]
fn a_worker_that_sleeps_stops_its_peers_and_only_them_and_loses_nothing() {
    const FRAMES: u32 = 1024; // of 16 KiB, from four sockets: 64 MiB
    let mut with_heartbeat = options();
    with_heartbeat.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(300),
        timeout: Duration::from_millis(1000),
    });
    let broker = broker();
    let mut sleeper = ManualWorker::register(&broker, SOCKETS);
    let journal = Journal::default();
    let awake = ThreadWorker::start(&broker, SOCKETS, &journal, |context, event| {
        if let Seen::Message {
            socket, payload, ..
        } = event
        {
            let message = OutboundMessage::binary(payload);
            context.broker.send(*socket, &message);
        }
    });
    let (listener, address) = listen(&broker, with_heartbeat);
    let (mut flooding, mut echoing) = (Vec::new(), Vec::new());
    for n in 0..4 {
        flooding.push(Client::open(address));
        sleeper.wait_opened(n + 1);
        echoing.push(Client::open(address));
        eventually("the other worker's turn", || {
            journal.opened().len() == n + 1
        });
    }
    let threads = flood_worker(flooding, FRAMES);

    let stats = || {
        let stats = broker.stats();
        let mine = stats
            .workers
            .into_iter()
            .find(|w| w.id == sleeper.worker.id());
        mine.expect("it is registered")
    };
    eventually("it is full", || stats().full);
    let full_at = Instant::now();
    let mut rounds = 0_u32;
    // Longer than a heartbeat allows silence: it is us who do not listen.
    while full_at.elapsed() < Duration::from_millis(1400) {
        for client in &mut echoing {
            client.send_frame(Opcode::Binary, &rounds.to_be_bytes());
            assert_eq!(number_of(&client.message()), rounds);
        }
        rounds += 1;
        let now = stats();
        assert!(now.full);
        assert!(
            now.queued_bytes <= 18 << 20,
            "{} bytes wait",
            now.queued_bytes
        );
    }
    assert_eq!(broker.connection_count(), 8);
    assert_eq!(broker.stats().dropped.heartbeat_timeouts, 0);

    let counts = take_numbered(&sleeper, 4, FRAMES);
    assert!(counts.values().all(|count| *count == FRAMES));
    let clients: Vec<_> = threads
        .into_iter()
        .map(|t| t.join().expect("all is taken"))
        .collect();
    assert!(!stats().full);
    drop(clients);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
    awake.end();
}

#[test]
fn when_a_full_worker_ends_the_next_one_gets_everything_in_order() {
    const FRAMES: u32 = 1024; // of 16 KiB, from two sockets: 32 MiB
    let broker = broker();
    let mut first = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = listen(&broker, options());
    let clients = vec![Client::open(address), Client::open(address)];
    first.wait_opened(2);
    let threads = flood_worker(clients, FRAMES);
    eventually("it is full", || broker.stats().workers[0].full);
    first.worker.end(None);
    assert_eq!(broker.stats().workers, []);
    let second = ManualWorker::register(&broker, SOCKETS);
    take_numbered(&second, 2, FRAMES);
    assert_eq!(broker.stats().dropped.worker_ended, 0);
    let clients: Vec<_> = threads
        .into_iter()
        .map(|t| t.join().expect("all is taken"))
        .collect();
    drop(clients);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn a_paused_socket_is_not_read_until_it_is_resumed() {
    let server = Server::quiet(options());
    let (mut client, id) = server.open();
    let (mut other, other_id) = server.open();
    for _ in 0..10 {
        let known = server.journal.messages_of(id, 0).len();
        assert!(server.broker.pause(id));
        // Its shard has taken the pause when this arrives.
        server
            .broker
            .send(id, &OutboundMessage::binary(&numbered(0)));
        client.message();
        for n in 0..50 {
            client.send_text(&n.to_string());
        }
        let others = server.journal.messages_of(other_id, 0).len();
        other.send_text("meanwhile");
        server.journal.messages_of(other_id, others + 1);
        assert_eq!(server.journal.messages_of(id, 0).len(), known);
        assert!(server.broker.resume(id));
        let messages = server.journal.messages_of(id, known + 50);
        let expected: Vec<_> = (0..50).map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(messages[known..], expected);
    }
    // Whoever is paused can be closed all the same.
    assert!(server.broker.pause(id));
    assert!(server.broker.close(id, 4000, ""));
    assert_eq!(client.close_frame().0, 4000);
    client.send_close(4000, "");
    client.end();
    assert_eq!(server.journal.close_of(id).0, 4000);
    assert!(!server.broker.pause(id));
    assert!(!server.broker.resume(id));
    server.finish();
}
