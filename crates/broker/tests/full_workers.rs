//! Workers that take nothing: who is turned away, who is noticed to have gone, and what all of it may take in memory.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::{
    BOTH, Client, ManualWorker, SOCKETS, Seen, assert_nothing_left, at_once, broker, eventually,
    handshake, listen, options, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Acceptance, Broker, Heartbeat, Interest, ListenOptions, RequestId, UpgradeDecision,
};

/// What is promised, and what one turn of each shard may have staged.
const MOST_BYTES: u64 = (16 << 20) + (1 << 20);
const MOST_EVENTS: u64 = 2048 + 512;

/// Of a handshake whose head is large.
fn large_handshake() -> String {
    handshake("/", &format!("X-Large: {}\r\n", "x".repeat(30_000)))
}

fn waiting(broker: &Broker) -> (u64, u64) {
    let stats = broker.stats();
    let worker = stats.workers.first().expect("a worker");
    (worker.queued_events, worker.queued_bytes)
}

/// A client that waits for its answer, and its status.
fn ask(address: SocketAddr, head: &str) -> (Client, u16) {
    let mut client = Client::connect(address);
    client.send(head);
    let answer = client.head();
    if answer.status == 503 {
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    (client, answer.status)
}

fn take_all(worker: &mut ManualWorker) {
    while worker.take() {}
}

/// Clients that connect with large heads and leave, while the worker hangs: each open event carries its head.
#[test]
fn connects_to_a_worker_that_hangs_take_a_bounded_room() {
    for interest in [
        SOCKETS,
        Interest {
            ignores_opens: true,
            ..SOCKETS
        },
    ] {
        let broker = broker();
        let mut worker = ManualWorker::register(&broker, interest);
        let (listener, address) = listen(&broker, options());
        let head = large_handshake();
        let mut refused = 0;
        for _ in 0..1500 {
            let (client, status) = ask(address, &head);
            refused += usize::from(status == 503);
            client.reset();
            let (events, bytes) = waiting(&broker);
            assert!(bytes <= MOST_BYTES, "{bytes}");
            assert!(events <= MOST_EVENTS, "{events}");
        }
        assert!(interest.ignores_opens || refused > 500, "{refused}");
        take_all(&mut worker);
        let (_client, status) = ask(address, &head);
        assert_eq!(status, 101, "there is room again");
        stop(&listener, at_once());
        take_all(&mut worker);
        assert_nothing_left(&broker);
    }
}

/// All of them at once: what is under way counts before its open event is there.
#[test]
fn a_rush_of_connects_takes_no_more_room_than_one_after_the_other() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = listen(&broker, options());
    let head = large_handshake();
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..400).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.send(&head[..head.len() - 2]);
        }
        for client in &mut clients {
            client.send(&head[head.len() - 2..]);
        }
        for client in &mut clients {
            client.head();
        }
        let (events, bytes) = waiting(&broker);
        assert!(bytes <= MOST_BYTES, "{bytes}");
        assert!(events <= MOST_EVENTS, "{events}");
    }
    stop(&listener, at_once());
    take_all(&mut worker);
    assert_nothing_left(&broker);
}

/// Those whose upgrade a handler has decided get twice that room, and not more.
#[test]
fn upgrades_that_are_decided_later_take_a_bounded_room() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, BOTH);
    let (listener, address) = listen(&broker, options());
    let head = large_handshake();
    let mut clients = Vec::new();
    let mut undecided: Vec<RequestId> = Vec::new();
    while undecided.len() < 1400 {
        let mut client = Client::connect(address);
        client.send(&head);
        clients.push(client);
        undecided.push(worker.wait_request().0);
    }
    for request in undecided {
        broker.decide(request, UpgradeDecision::Accept(Acceptance::default()));
    }
    let mut opened = 0;
    for client in &mut clients {
        opened += usize::from(client.head().status == 101);
    }
    let (_, bytes) = waiting(&broker);
    assert!(bytes <= 2 * MOST_BYTES, "{bytes}");
    assert!((1000..1300).contains(&opened), "{opened}");
    stop(&listener, at_once());
    take_all(&mut worker);
    assert_nothing_left(&broker);
}

/// The next worker in turn gets who would have come to one that is full.
#[test]
fn another_worker_takes_the_sockets_of_one_that_is_full() {
    let broker = broker();
    let mut full = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = listen(&broker, options());
    let mut talker = Client::open(address);
    fill(&broker, &mut talker);
    let mut idle = ManualWorker::register(&broker, SOCKETS);
    let clients: Vec<_> = (0..10).map(|_| Client::open(address)).collect();
    assert_eq!(idle.wait_opened(10).len(), 10);
    drop((talker, clients));
    stop(&listener, at_once());
    take_all(&mut full);
    take_all(&mut idle);
    assert_nothing_left(&broker);
}

/// How many messages fill a worker.
const FILLING: u64 = 3000;

/// Says so much that its worker is full.
fn fill(broker: &Broker, talker: &mut Client) {
    for _ in 0..FILLING {
        talker.send_frame(Opcode::Binary, b"");
    }
    eventually("the worker is full", || broker.stats().workers[0].full);
}

fn with_heartbeat(interval: u64, timeout: u64) -> ListenOptions {
    let mut options = options();
    options.heartbeat = Some(Heartbeat {
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(timeout),
    });
    options
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    End,
    Reset,
    InTheMiddle,
}

/// Whoever has gone holds no socket and no descriptor for longer than the heartbeat allows a silent one, though nobody reads
/// what it said; and those who stay lose nothing.
#[test]
fn clients_that_leave_while_their_worker_is_full_are_noticed() {
    for leaves in [Leaves::End, Leaves::Reset, Leaves::InTheMiddle] {
        let broker = broker();
        let mut worker = ManualWorker::register(&broker, SOCKETS);
        let (listener, address) = listen(&broker, with_heartbeat(50, 300));
        let mut clients: Vec<_> = (0..300).map(|_| Client::open(address)).collect();
        let opened = worker.wait_opened(clients.len());
        let mut stays = Client::open(address);
        fill(&broker, &mut stays);
        stays.send_text("still here");
        for client in &mut clients {
            client.send_text("something that nobody reads");
        }
        for client in clients.drain(..) {
            match leaves {
                Leaves::End => drop(client),
                Leaves::Reset => client.reset(),
                Leaves::InTheMiddle => {
                    let mut client = client;
                    client.send([0x81, 0xff]);
                }
            }
        }
        eventually("one is left", || broker.connection_count() == 1);
        let (events, bytes) = waiting(&broker);
        // What filled it, the last message, and a close event of each.
        assert!(events <= FILLING + 1 + 300, "{leaves:?}: {events}");
        assert!(bytes <= MOST_BYTES, "{leaves:?}: {bytes}");
        for id in opened {
            assert_eq!(worker.wait_close(id).0, 1006, "{leaves:?}");
        }
        let said = |seen: &[Seen]| {
            seen.iter().find_map(|event| match event {
                Seen::Message { payload, .. } if payload == b"still here" => Some(()),
                _ => None,
            })
        };
        worker.wait("the message of who stayed", said);
        drop(stays);
        stop(&listener, at_once());
        take_all(&mut worker);
        assert_nothing_left(&broker);
    }
}

/// The same for a socket that is held for its handler, and without a worker at all.
#[test]
fn clients_that_leave_while_nobody_reads_them_are_noticed() {
    for is_held in [true, false] {
        let broker = broker();
        let mut worker = ManualWorker::register(&broker, SOCKETS);
        let (listener, address) = listen(&broker, with_heartbeat(50, 300));
        let client = Client::open(address);
        let id = worker.wait_opened(1)[0];
        if is_held {
            broker.pause(id);
        } else {
            worker.worker.end(None);
        }
        drop(client);
        eventually("nobody is left", || broker.connection_count() == 0);
        if !is_held {
            worker = ManualWorker::register(&broker, SOCKETS);
        }
        assert_eq!(worker.wait_close(id).0, 1006);
        stop(&listener, at_once());
        take_all(&mut worker);
        assert_nothing_left(&broker);
    }
}
