//! Much at once for a client that reads, and for one that does not: which of them is slow, and how to give a client time.

mod support;

use std::sync::mpsc;
use std::thread;

use support::{Client, DEADLINE, ManualWorker, SOCKETS, Seen, Server, at_once, options, stop};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Broker, BrokerOptions, ListenOptions, OutboundMessage, SlowConsumer, SocketId,
};

const LIMIT: usize = 256 * 1024;
/// What is sent at once may be so many times the limit.
const BURST: usize = 16;
const SIZE: usize = 10 * 1024;

fn limited(slow_consumer: SlowConsumer) -> ListenOptions {
    let mut options = options();
    options.max_backpressure = LIMIT;
    options.slow_consumer = slow_consumer;
    options
}

fn numbered(n: usize) -> Vec<u8> {
    let mut message = vec![0; SIZE];
    message[..8].copy_from_slice(&(n as u64).to_be_bytes());
    message
}

fn number_of(payload: &[u8]) -> usize {
    let (first, _) = payload.split_first_chunk::<8>().expect("a number");
    u64::from_be_bytes(*first) as usize
}

fn send(broker: &Broker, to: SocketId, n: usize) -> bool {
    broker.send(to, &OutboundMessage::binary(&numbered(n)))
}

/// Sends in one task until it is refused or `most` have been sent; how many were queued.
fn send_at_once(broker: &Broker, to: SocketId, first: usize, most: usize) -> usize {
    wsbroker_engine::cork();
    let queued = (0..most)
        .take_while(|n| send(broker, to, first + n))
        .count();
    wsbroker_engine::uncork();
    queued
}

/// A socket, with a receive buffer that is full soon.
fn open(server: &Server) -> (Client, SocketId) {
    let (client, id) = server.open();
    let _ = socket2::SockRef::from(client.tcp()).set_recv_buffer_size(16 * 1024);
    (client, id)
}

/// A page of history, ten times what may wait for a slow client, sent by one loop.
#[test]
fn a_client_that_reads_gets_more_at_once_than_may_wait_for_a_slow_one() {
    let server = Server::quiet(limited(SlowConsumer::Close));
    let (mut client, id) = open(&server);
    let count = 10 * LIMIT / SIZE;
    assert_eq!(send_at_once(&server.broker, id, 0, count), count);
    for n in 0..count {
        assert_eq!(number_of(&client.message()), n);
    }
    // The next task, while the client is at it.
    assert_eq!(send_at_once(&server.broker, id, 0, count), count);
    assert_eq!(send_at_once(&server.broker, id, count, 2), 2);
    for n in 0..count + 2 {
        assert_eq!(number_of(&client.message()), n);
    }
    assert_eq!(server.broker.stats().dropped.slow_consumer, 0);
    server.finish();
}

/// What a channel gets is a burst for each of its members.
#[test]
fn a_channel_gets_more_at_once_than_may_wait_for_a_slow_member() {
    let server = Server::quiet(limited(SlowConsumer::Close));
    let channel = support::channel("history");
    let mut members: Vec<_> = (0..4).map(|_| open(&server)).collect();
    for (_, id) in &members {
        assert_eq!(server.broker.subscribe(*id, &channel), Ok(true));
    }
    let count = 4 * LIMIT / SIZE;
    wsbroker_engine::cork();
    for n in 0..count {
        let message = numbered(n);
        let message = OutboundMessage::binary(&message);
        assert_eq!(server.broker.send_to_channel(&channel, &message, None), 4);
    }
    wsbroker_engine::uncork();
    for (client, _) in &mut members {
        for n in 0..count {
            assert_eq!(number_of(&client.message()), n);
        }
    }
    server.finish();
}

/// A burst is forgiven, and what comes behind it while the client takes nothing is not.
#[test]
fn a_client_that_takes_nothing_is_slow_by_what_comes_after_a_burst() {
    let broker = Broker::new(BrokerOptions {
        io_threads: Some(1),
    });
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = support::listen(&broker, limited(SlowConsumer::Close));
    let mut client = Client::open(address);
    let _other = Client::open(address);
    let ids = worker.wait_opened(2);
    // The kernel takes some MiB of it.
    let burst = BURST * LIMIT / SIZE - 1;
    assert_eq!(send_at_once(&broker, ids[0], 0, burst), burst);
    assert!(drained(&broker, ids[1]), "the other one's turn is behind");
    assert!(broker.buffered_amount(ids[0]) > 0);
    let late = (0..)
        .take_while(|n| send(&broker, ids[0], burst + n))
        .count();
    assert_eq!(late, LIMIT / (SIZE + 4), "to the message");
    for n in 0..burst + late {
        assert_eq!(number_of(&client.message()), n);
    }
    assert_eq!(client.close_frame(), (1013, "slow consumer".to_owned()));
    assert_eq!(broker.stats().dropped.slow_consumer, 1);
    stop(&listener, at_once());
}

/// A loop without an end is told from a slow client: by its reason, and in the counters.
#[test]
fn too_much_at_once_is_no_slowness() {
    for policy in [SlowConsumer::Close, SlowConsumer::Drop] {
        let broker = support::broker();
        let mut worker = ManualWorker::register(&broker, SOCKETS);
        let (listener, address) = support::listen(&broker, limited(policy));
        let mut client = Client::connect(address);
        client.upgrade("/", "");
        let id = worker.wait_opened(1)[0];
        // Nothing of it is offered to the kernel before the loop is over: the I/O thread is kept busy, by us.
        let queued = {
            let (held, let_go) = hold_io_thread(&broker, id);
            let queued = send_at_once(&broker, id, 0, usize::MAX);
            held.send(()).expect("it waits");
            let_go.recv_timeout(DEADLINE).expect("it goes on");
            queued
        };
        assert_eq!(queued, BURST * LIMIT / (SIZE + 4), "to the message");
        for n in 0..queued {
            assert_eq!(number_of(&client.message()), n);
        }
        let dropped = broker.stats().dropped;
        assert_eq!((dropped.queue_full, dropped.slow_consumer), (1, 0));
        match policy {
            SlowConsumer::Close => {
                assert_eq!(client.close_frame(), (1013, "send queue full".to_owned()));
                client.send_close(1013, "");
                assert_eq!(worker.wait_close(id).0, 1013);
            }
            SlowConsumer::Drop => {
                assert!(send(&broker, id, 7), "there is room again");
                assert_eq!(number_of(&client.message()), 7);
            }
        }
        stop(&listener, at_once());
    }
}

/// Keeps the I/O thread of a socket from running until something is sent; told when it runs again.
fn hold_io_thread(broker: &Broker, id: SocketId) -> (mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (begin, begun) = mpsc::channel();
    let (go_on, held) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel();
    broker.when_drained(
        id,
        Box::new(move |_| {
            let _ = begin.send(());
            let _ = held.recv();
            let _ = end.send(());
        }),
    );
    begun.recv_timeout(DEADLINE).expect("the I/O thread comes");
    (go_on, ended)
}

/// A replay of any length, given to the client as fast as it reads.
#[test]
fn who_waits_for_the_drain_is_never_refused() {
    const PIECES: usize = 40;
    let server = Server::quiet(limited(SlowConsumer::Close));
    let (mut client, id) = open(&server);
    let broker = server.broker.clone();
    let per_piece = LIMIT / SIZE;
    let sender = thread::spawn(move || {
        for piece in 0..PIECES {
            let queued = send_at_once(&broker, id, piece * per_piece, per_piece);
            assert_eq!(queued, per_piece, "piece {piece}");
            assert!(drained(&broker, id));
            assert_eq!(broker.buffered_amount(id), 0);
        }
    });
    for n in 0..PIECES * per_piece {
        assert_eq!(number_of(&client.message()), n);
    }
    sender.join().expect("nothing was refused");
    server.finish();
}

fn drained(broker: &Broker, id: SocketId) -> bool {
    let (tell, told) = mpsc::channel();
    broker.when_drained(id, Box::new(move |is| tell.send(is).expect("we wait")));
    told.recv_timeout(DEADLINE).expect("an answer")
}

#[test]
fn who_waits_for_a_drain_is_told_when_the_socket_ends() {
    let server = Server::quiet(limited(SlowConsumer::Close));
    let (client, id) = open(&server);
    assert!(drained(&server.broker, id), "nothing waits");
    let most = BURST * LIMIT / SIZE - 1;
    send_at_once(&server.broker, id, 0, most);
    let (tell, told) = mpsc::channel();
    let on_drain = Box::new(move |is| tell.send(is).expect("we wait"));
    server.broker.when_drained(id, on_drain);
    assert!(told.try_recv().is_err(), "much waits");
    client.reset();
    assert_eq!(told.recv_timeout(DEADLINE), Ok(false));
    assert!(!drained(&server.broker, id), "it is gone");
    server.finish();
}

/// However a socket ends, and though its worker hangs.
#[test]
fn who_waits_for_the_end_of_a_socket_is_told_when_it_begins_to_close() {
    let broker = support::broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = support::listen(&broker, options());
    type End = fn(&Broker, SocketId, Client) -> Option<Client>;
    let ends: [End; 6] = [
        |_, _, mut client| {
            client.send_close(1000, "");
            Some(client)
        },
        |_, _, client| {
            client.shutdown();
            Some(client)
        },
        |_, _, client| {
            client.reset();
            None
        },
        |_, _, mut client| {
            client.send([0xff; 6]);
            Some(client)
        },
        |broker, id, client| {
            broker.close(id, 4000, "");
            Some(client)
        },
        |broker, _, client| {
            broker.ban("127.0.0.1".parse().expect("a network"), None);
            broker.unban("127.0.0.1".parse().expect("a network"));
            Some(client)
        },
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let mut client = Client::connect(address);
        client.upgrade("/", "");
        client.send_frame(Opcode::Ping, b"");
        let id = worker.wait_opened(n + 1)[n];
        let (tell, told) = mpsc::channel();
        let on_close = Box::new(move || tell.send(()).expect("we wait"));
        assert!(broker.when_closed(id, on_close));
        assert!(told.try_recv().is_err());
        let client = end(&broker, id, client);
        told.recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("end {n} is told"));
        assert!(!broker.when_closed(id, Box::new(|| {})), "it is over");
        drop(client);
        worker.wait_close(id);
        assert!(!broker.when_closed(id, Box::new(|| {})), "it is gone");
    }
    let closes = worker
        .seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Close { .. }));
    assert_eq!(closes.count(), ends.len());
    stop(&listener, at_once());
}
