//! Limits per socket: messages, bytes and channels.

mod support;

use std::time::{Duration, Instant};

use support::{
    BOTH, Client, ManualWorker, Seen, Server, assert_nothing_left, at_once, broker, channel,
    eventually, handshake, listen, masked, options, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Acceptance, ChannelLimit, Heartbeat, ListenOptions, OnExceed, OutboundMessage, Rate,
    SocketLimits, SocketRate, UpgradeDecision,
};

/// So long that no token comes back while a test runs: 100 of them are some days.
const NEVER: Duration = Duration::from_millis(i32::MAX as u64);

fn rate(capacity: u32, interval: Duration, on_exceed: OnExceed) -> Option<SocketRate> {
    let rate = Rate::new(capacity, interval).expect("a rate");
    Some(SocketRate { rate, on_exceed })
}

fn messages(capacity: u32, interval: Duration, on_exceed: OnExceed) -> ListenOptions {
    let mut options = options();
    options.limits.socket.messages = rate(capacity, interval, on_exceed);
    options
}

fn bytes(capacity: u32, interval: Duration, on_exceed: OnExceed) -> ListenOptions {
    let mut options = options();
    options.limits.socket.bytes = rate(capacity, interval, on_exceed);
    options
}

fn numbered(range: std::ops::Range<u32>) -> Vec<u8> {
    range
        .flat_map(|n| masked(Opcode::Text, n.to_string().as_bytes()))
        .collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|n| n.to_string().into_bytes()).collect()
}

#[test]
fn one_message_too_many_closes_with_1008_and_those_before_are_delivered() {
    let server = Server::quiet(messages(100, NEVER, OnExceed::Close));
    // In one write and in many: a limit does not depend on how the bytes are cut.
    for cut in [7, 100_000] {
        let (mut client, id) = server.open();
        for part in numbered(0..101).chunks(cut) {
            client.send(part);
        }
        let expected = (1008, "limit of messagesPerSocket exceeded".to_owned());
        assert_eq!(client.close_frame(), expected);
        client.send_close(1008, "");
        client.end();
        assert_eq!(server.journal.close_of(id), expected);
        assert_eq!(server.journal.messages_of(id, 100), numbers(0..100));
    }
    let dropped = server.broker.stats().dropped;
    assert_eq!((dropped.over_rate_closes, dropped.over_rate), (2, 0));
    assert_eq!(dropped.violations, 0);
    server.finish();
}

#[test]
fn a_socket_within_its_rate_notices_nothing() {
    let server = Server::quiet(messages(100, NEVER, OnExceed::Close));
    let (mut client, id) = server.open();
    client.send(numbered(0..100));
    assert_eq!(server.journal.messages_of(id, 100).len(), 100);
    // A goodbye and an answer to a ping cost nothing.
    client.send_frame(Opcode::Pong, b"");
    client.send_close(1000, "done");
    assert_eq!(client.close_frame(), (1000, "done".to_owned()));
    server.finish();
}

#[test]
fn what_is_over_the_rate_is_left_out_and_counted() {
    let server = Server::quiet(messages(100, NEVER, OnExceed::Drop));
    let (mut client, id) = server.open();
    client.send(numbered(0..1000));
    client.send_frame(Opcode::Ping, b"not answered");
    eventually("all are looked at", || {
        server.broker.stats().dropped.over_rate == 901
    });
    assert_eq!(server.journal.messages_of(id, 100), numbers(0..100));
    assert_eq!(server.broker.stats().messages_in, 100);
    // It is as good as any other socket.
    assert!(server.broker.send(id, &OutboundMessage::text("still here")));
    assert_eq!(client.text(), "still here");
    client.send_close(1000, "");
    assert_eq!(client.close_frame().0, 1000);
    server.finish();
}

#[test]
fn a_ping_flood_is_a_message_flood() {
    let server = Server::quiet(messages(50, NEVER, OnExceed::Close));
    let (mut client, id) = server.open();
    for _ in 0..51 {
        client.send_frame(Opcode::Ping, b"");
    }
    for _ in 0..50 {
        assert_eq!(client.frame().opcode, Opcode::Pong as u8);
    }
    assert_eq!(client.close_frame().0, 1008);
    assert_eq!(server.journal.close_of(id).0, 1008);
    server.finish();
}

#[test]
fn bytes_are_counted_to_the_byte_with_their_frame_headers() {
    let server = Server::quiet(bytes(10 * 206 + 3 * 8, NEVER, OnExceed::Close));
    let (mut client, id) = server.open();
    // 6 + 2 bytes of header before 198 of payload, and 4 pings of 2 bytes.
    let message = masked(Opcode::Binary, &[7; 198]);
    assert_eq!(message.len(), 206);
    for _ in 0..10 {
        client.send(&message);
    }
    for _ in 0..3 {
        client.send_frame(Opcode::Ping, b"12");
        assert_eq!(client.data(Opcode::Pong), b"12");
    }
    assert_eq!(server.journal.messages_of(id, 10).len(), 10);
    client.send(&message[..1]);
    let expected = (1008, "limit of bytesPerSocket exceeded".to_owned());
    assert_eq!(client.close_frame(), expected);
    assert_eq!(server.journal.close_of(id), expected);
    server.finish();
}

#[test]
fn fragments_without_end_are_bounded_by_the_bytes() {
    let server = Server::quiet(bytes(60_000, NEVER, OnExceed::Close));
    let (mut client, id) = server.open();
    let header = |first| [first, 0x80, 1, 2, 3, 4];
    client.send(header(0x01));
    let many = header(0x00).repeat(1000);
    for _ in 0..11 {
        if client.try_send(&many).is_err() {
            break;
        }
    }
    assert_eq!(client.last_words().0, 1008);
    assert_eq!(server.journal.close_of(id).0, 1008);
    assert_eq!(server.journal.messages_of(id, 0), numbers(0..0));
    server.finish();
}

#[test]
fn messages_over_the_rate_of_bytes_are_left_out_whole() {
    let server = Server::quiet(bytes(1000, NEVER, OnExceed::Drop));
    let (mut client, id) = server.open();
    // The large one never fits, in however many reads it comes; what fits behind it passes.
    let large = masked(Opcode::Binary, &[1; 5000]);
    for part in large.chunks(700) {
        client.send(part);
    }
    let small = masked(Opcode::Text, &[b'x'; 94]);
    client.send(small.repeat(11));
    eventually("two are left out", || {
        server.broker.stats().dropped.over_rate == 2
    });
    assert_eq!(server.journal.messages_of(id, 10), vec![vec![b'x'; 94]; 10]);
    server.finish();
}

#[test]
fn what_came_with_the_handshake_counts() {
    let server = Server::quiet(messages(10, NEVER, OnExceed::Close));
    let mut client = server.connect();
    let mut all = handshake("/", "").into_bytes();
    all.extend(numbered(0..11));
    client.send(all);
    client.upgraded();
    assert_eq!(client.close_frame().0, 1008);
    let id = server
        .journal
        .wait("it opens", |events| events.iter().find_map(Seen::opened));
    assert_eq!(server.journal.close_of(id).0, 1008);
    assert_eq!(server.journal.messages_of(id, 10).len(), 10);
    server.finish();
}

#[test]
fn a_paused_socket_is_slowed_to_its_rate_and_loses_nothing() {
    // 50 at once, then one every 10 ms: 150 more are 1.5 s.
    let server = Server::quiet(messages(50, Duration::from_millis(500), OnExceed::Pause));
    let (mut client, id) = server.open();
    let (mut other, other_id) = server.open();
    let began = Instant::now();
    client.send(numbered(0..200));
    client.send_frame(Opcode::Ping, b"behind them");
    eventually("it is paused", || server.broker.stats().paused_sockets == 1);
    // The other one goes on, and the paused one can be sent to.
    other.send_text("meanwhile");
    server.journal.messages_of(other_id, 1);
    assert!(server.broker.send(id, &OutboundMessage::text("hello")));
    assert_eq!(client.text(), "hello");
    assert_eq!(client.data(Opcode::Pong), b"behind them");
    // Up to a read of 170 messages is delivered into debt; what came behind it has waited for that.
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(100), "{waited:?}");
    assert_eq!(server.journal.messages_of(id, 200), numbers(0..200));
    let dropped = server.broker.stats().dropped;
    assert_eq!((dropped.over_rate, dropped.over_rate_closes), (0, 0));
    server.finish();
}

#[test]
fn pausing_is_exact_over_time() {
    // 10 at once and one every 20 ms, in frames so large that each is a read of its own.
    const SIZE: usize = 1100;
    let server = Server::quiet(messages(10, Duration::from_millis(200), OnExceed::Pause));
    let (mut client, id) = server.open();
    let frame = masked(Opcode::Binary, &[1; SIZE]);
    let began = Instant::now();
    client.send(frame.repeat(60));
    server.journal.messages_of(id, 60);
    // The one that makes the debt is delivered, and the next when it is paid: 60 need 50 tokens, less that one. The
    // clock of a shard counts whole milliseconds, of which one had begun before.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(49 * 20 - 1), "{took:?}");
    server.finish();
}

#[test]
fn a_flood_at_a_paused_socket_waits_in_the_kernel_and_at_its_peer() {
    const FRAMES: u32 = 1000; // of 16 KiB: more than the kernel's buffers hold
    let server = Server::quiet(bytes(1 << 20, NEVER, OnExceed::Pause));
    let (client, id) = server.open();
    let tcp = client.tcp().try_clone().expect("a descriptor");
    let flood = std::thread::spawn(move || {
        let mut client = client;
        let frame = masked(Opcode::Binary, &[3; 16 * 1024]);
        (0..FRAMES).all(|_| client.try_send(&frame).is_ok())
    });
    eventually("it is paused", || server.broker.stats().paused_sockets == 1);
    let paused_at = server.broker.stats().bytes_in;
    assert!(paused_at <= (1 << 20) + 64 * 1024, "{paused_at}");
    // A paused socket can be closed by us, and leaves nothing.
    assert!(server.broker.close(id, 4000, ""));
    tcp.shutdown(std::net::Shutdown::Both).expect("shut");
    assert!(!flood.join().expect("no panic"), "the peer was stopped");
    server.journal.close_of(id);
    eventually("it is forgotten", || {
        server.broker.stats().paused_sockets == 0
    });
    server.finish();
}

#[test]
fn a_paused_socket_is_pinged_and_not_cut_for_its_silence() {
    let mut options = messages(1, NEVER, OnExceed::Pause);
    options.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(300),
    });
    let server = Server::quiet(options);
    let (mut client, id) = server.open();
    client.send(numbered(0..5));
    eventually("it is paused", || server.broker.stats().paused_sockets == 1);
    let began = Instant::now();
    let mut pings = 0;
    while began.elapsed() < Duration::from_millis(900) {
        assert_eq!(client.frame().opcode, Opcode::Ping as u8);
        pings += 1;
    }
    assert!(pings >= 3);
    assert_eq!(server.broker.stats().dropped.heartbeat_timeouts, 0);
    // Its peer goes away without a word: noticed when a ping cannot be sent.
    client.reset();
    assert_eq!(server.journal.close_of(id).0, 1006);
    server.finish();
}

#[test]
fn a_paused_client_that_leaves_in_good_order_has_said_everything_it_sent() {
    // A read of some 146 messages is waited for for about a second, in which the heartbeat is due many times.
    let mut options = messages(100, Duration::from_secs(1), OnExceed::Pause);
    options.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(150),
    });
    let server = Server::quiet(options);
    let (mut client, id) = server.open();
    client.send(numbered(0..400));
    eventually("it is paused", || server.broker.stats().paused_sockets == 1);
    drop(client);
    assert_eq!(server.journal.close_of(id).0, 1006);
    assert_eq!(server.journal.messages_of(id, 400), numbers(0..400));
    server.finish();
}

#[test]
fn the_socket_of_a_client_that_has_gone_does_not_wait_for_a_handler_that_hangs() {
    let mut options = options();
    options.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(150),
    });
    let server = Server::quiet(options);
    let (mut client, id) = server.open();
    server.broker.pause(id);
    client.send(numbered(0..1));
    drop(client);
    assert_eq!(server.journal.close_of(id).0, 1006);
    server.finish();
}

#[test]
fn each_socket_has_a_bucket_of_its_own_whatever_its_shard() {
    const SOCKETS: usize = 16;
    let server = Server::quiet(messages(100, NEVER, OnExceed::Drop));
    let mut sockets: Vec<_> = (0..SOCKETS).map(|_| server.open()).collect();
    let threads: Vec<_> = sockets
        .drain(..)
        .map(|(mut client, id)| {
            std::thread::spawn(move || {
                for part in numbered(0..150).chunks(97) {
                    client.send(part);
                }
                (client, id)
            })
        })
        .collect();
    let sockets: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    eventually("all are looked at", || {
        server.broker.stats().dropped.over_rate == 50 * SOCKETS as u64
    });
    for (_, id) in &sockets {
        assert_eq!(server.journal.messages_of(*id, 100), numbers(0..100));
    }
    server.finish();
}

#[test]
fn the_limits_of_one_listener_are_not_those_of_another() {
    let server = Server::quiet(messages(1, NEVER, OnExceed::Close));
    let (unlimited, address) = listen(&server.broker, options());
    let known = server.journal.opened().len();
    let mut client = Client::open(address);
    client.send(numbered(0..500));
    let id = server.journal.wait("it opens", |events| {
        events.iter().filter_map(Seen::opened).nth(known)
    });
    assert_eq!(server.journal.messages_of(id, 500).len(), 500);
    stop(&unlimited, at_once());
    server.finish();
}

fn channels(most: u32) -> ListenOptions {
    let mut options = options();
    options.limits.socket = SocketLimits {
        channels: Some(most),
        ..SocketLimits::default()
    };
    options
}

#[test]
fn a_socket_is_in_no_more_channels_than_it_may() {
    let server = Server::quiet(channels(2));
    let broker = &server.broker;
    let (_client, id) = server.open();
    let [a, b, c] = ["a", "b", "c"].map(channel);
    assert_eq!(broker.subscribe(id, &a), Ok(true));
    assert_eq!(broker.subscribe(id, &b), Ok(true));
    assert_eq!(broker.subscribe(id, &c), Err(ChannelLimit(2)));
    assert_eq!(broker.subscribe(id, &a), Ok(false), "it is in it already");
    assert_eq!(broker.channel_count(), 2, "none is left without a member");
    assert_eq!(broker.subscriber_count(&c), 0);
    assert_eq!(broker.copy_subscriptions(&a, &c), 0);
    assert_eq!(broker.stats().dropped.channel_limit, 2);
    // What it leaves makes room.
    assert!(broker.unsubscribe(id, &b));
    assert_eq!(broker.copy_subscriptions(&a, &c), 1);
    assert_eq!(broker.subscribe(id, &b), Err(ChannelLimit(2)));
    server.finish();
}

#[test]
fn threads_that_subscribe_at_once_get_no_more_in_than_the_limit() {
    let server = Server::quiet(channels(100));
    let (_client, id) = server.open();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let broker = server.broker.clone();
            std::thread::spawn(move || {
                let names = (0..100).map(|n| channel(&format!("{thread}-{n}")));
                names
                    .filter(|name| broker.subscribe(id, name) == Ok(true))
                    .count()
            })
        })
        .collect();
    let added: usize = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .sum();
    assert_eq!(added, 100);
    assert_eq!(server.broker.channel_count(), 100);
    assert_eq!(server.broker.stats().dropped.channel_limit, 300);
    server.finish();
}

#[test]
fn an_upgrade_accepted_with_too_many_channels_is_answered_500() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, BOTH);
    let (listener, address) = listen(&broker, channels(2));
    for (names, status) in [
        (&["a", "b", "c"][..], 500),
        (&["a", "b", "a"], 101), // the same name twice is one channel
    ] {
        let mut client = Client::connect(address);
        client.send(handshake("/", ""));
        let (id, _) = worker.wait_request();
        let acceptance = Acceptance {
            channels: names.iter().map(|name| channel(name)).collect(),
            ..Acceptance::default()
        };
        broker.decide(id, UpgradeDecision::Accept(acceptance));
        assert_eq!(client.head().status, status);
    }
    assert_eq!(broker.stats().dropped.channel_limit, 1);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}
