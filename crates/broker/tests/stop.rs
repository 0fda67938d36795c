//! The end of a listener: who is told what, what may finish, what is cut, and that nothing is left.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{
    BOTH, Client, DEADLINE, HTTP, ManualWorker, SOCKETS, Seen, Server, assert_nothing_left,
    at_once, broker, eventually, handshake, listen, options, response, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Acceptance, Broker, ListenOptions, Listener, OutboundMessage, StopOptions, StopSummary,
    UpgradeDecision,
};

fn within(timeout: Duration) -> StopOptions {
    StopOptions {
        timeout,
        spread: Duration::ZERO,
        code: 4010,
        reason: "maintenance".to_owned(),
    }
}

/// Begins a stop; its summary comes by the channel.
fn begin(listener: &Listener, options: StopOptions) -> mpsc::Receiver<StopSummary> {
    let (done, summary) = mpsc::channel();
    listener.stop(options, Box::new(move |s| done.send(s).expect("we wait")));
    summary
}

fn ended(summary: &mpsc::Receiver<StopSummary>) -> StopSummary {
    summary.recv_timeout(DEADLINE).expect("a stop ends")
}

fn assert_port_is_free(broker: &Broker, address: SocketAddr) {
    let again = ListenOptions::new(address.to_string().parse().expect("an address"));
    let (listener, same) = listen(broker, again);
    assert_eq!(same, address);
    let mut client = Client::open(address);
    stop(&listener, at_once());
    assert_eq!(client.close_frame().0, 1001);
}

#[test]
fn sockets_are_told_goodbye_and_the_port_is_free_afterwards() {
    let server = Server::quiet(options());
    let mut clients: Vec<_> = (0..10).map(|_| server.open()).collect();
    let summary = begin(&server.listener, within(DEADLINE));
    for (client, _) in &mut clients {
        assert_eq!(client.close_frame(), (4010, "maintenance".to_owned()));
        client.send_close(4010, "");
        client.end();
    }
    let expected = StopSummary {
        closed: 10,
        forced: 0,
    };
    assert_eq!(ended(&summary), expected);
    for (_, id) in &clients {
        assert_eq!(server.journal.close_of(*id).0, 4010);
    }
    assert_eq!(server.broker.stats().listeners, 0);
    assert!(TcpStream::connect(server.address).is_err());
    assert_nothing_left(&server.broker);
    assert_port_is_free(&server.broker, server.address);
    server.finish();
}

#[test]
fn the_deadline_cuts_those_who_do_not_answer() {
    let server = Server::quiet(options());
    let mut clients: Vec<_> = (0..5).map(|_| server.open()).collect();
    let summary = begin(&server.listener, within(Duration::from_millis(300)));
    for (n, (client, _)) in clients.iter_mut().enumerate() {
        assert_eq!(client.close_frame().0, 4010);
        if n < 3 {
            client.send_close(4010, "");
        }
    }
    let expected = StopSummary {
        closed: 3,
        forced: 2,
    };
    assert_eq!(ended(&summary), expected);
    for (n, (client, id)) in clients.iter_mut().enumerate() {
        client.drained();
        let code = if n < 3 { 4010 } else { 1006 };
        assert_eq!(server.journal.close_of(*id).0, code);
    }
    server.finish();
}

#[test]
fn a_request_in_flight_may_finish() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let (id, _) = worker.wait_request();
    let summary = begin(&listener, within(DEADLINE));
    eventually("nobody is accepted any more", || {
        TcpStream::connect(address).is_err()
    });
    assert!(summary.try_recv().is_err(), "a request is in flight");
    broker.respond(id, response(200, &[], b"just in time"));
    let answer = client.answer();
    assert_eq!(answer.text(), "just in time");
    assert_eq!(answer.header("connection"), Some("close"));
    client.end();
    assert_eq!(ended(&summary), StopSummary::default());
    assert_nothing_left(&broker);
}

#[test]
fn a_request_beyond_the_deadline_is_cut_and_aborted() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let (id, _) = worker.wait_request();
    let summary = stop(&listener, within(Duration::from_millis(50)));
    assert_eq!((summary.closed, summary.forced), (0, 1));
    assert_eq!(client.drained(), b"");
    worker.wait("the abort event", |seen| {
        seen.contains(&Seen::Abort(id)).then_some(())
    });
    assert_nothing_left(&broker);
}

/// Half bodies and silent handlers, on both shards: a connection that the deadline missed would keep the stop waiting for its
/// client. Optimised code missed some in a third of the rounds.
#[test]
fn the_deadline_misses_no_connection() {
    for _ in 0..40 {
        let broker = broker();
        let _worker = ManualWorker::register(&broker, HTTP);
        let (listener, address) = listen(&broker, options());
        let clients: Vec<_> = (0..8)
            .map(|n| {
                let mut client = Client::connect(address);
                client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n");
                client.send("Expect: 100-continue\r\n\r\n");
                assert_eq!(client.head().status, 100, "the body is waited for");
                client.send(if n % 2 == 0 { "half" } else { "halves" });
                client
            })
            .collect();
        eventually("four handlers are silent", || {
            broker.stats().pending_requests == 4
        });
        let summary = stop(&listener, within(Duration::from_millis(20)));
        assert_eq!((summary.closed, summary.forced), (0, 8));
        for mut client in clients {
            client.drained();
        }
        assert_nothing_left(&broker);
    }
}

#[test]
fn an_upgrade_decided_during_the_stop_is_turned_away() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, BOTH);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::connect(address);
    client.send(handshake("/", ""));
    let (id, _) = worker.wait_request();
    let summary = begin(&listener, within(DEADLINE));
    broker.decide(id, UpgradeDecision::Accept(Acceptance::default()));
    assert_eq!(client.answer().status, 503);
    client.end();
    assert_eq!(ended(&summary), StopSummary::default());
    assert_eq!(broker.stats().opened, 0);
    assert_nothing_left(&broker);
}

#[test]
fn idle_http_connections_do_not_hold_a_stop_up() {
    let server = Server::start(options(), HTTP, |context, event| {
        if let Seen::Request(id, _) = event {
            context.broker.respond(*id, response(200, &[], b""));
        }
    });
    let mut used = server.connect();
    used.get("/");
    // Accepted, for a later one is served; and nothing sent.
    let _unused = server.connect();
    server.connect().get("/");
    let began = Instant::now();
    let summary = stop(&server.listener, within(DEADLINE));
    assert_eq!(summary, StopSummary::default());
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "no deadline was waited for"
    );
    used.end();
    server.finish();
}

#[test]
fn every_stop_of_a_listener_reports_the_same() {
    let server = Server::quiet(options());
    let (mut client, _) = server.open();
    let first = begin(&server.listener, within(DEADLINE));
    let second = begin(&server.listener, at_once());
    assert_eq!(client.close_frame().0, 4010, "the first one decides");
    client.send_close(4010, "");
    let summary = ended(&first);
    assert_eq!((summary.closed, summary.forced), (1, 0));
    assert_eq!(ended(&second), summary);
    assert_eq!(stop(&server.listener, within(DEADLINE)), summary);
    server.finish();
}

#[test]
fn the_sockets_of_another_listener_notice_nothing() {
    let server = Server::quiet(options());
    let (other, address) = listen(&server.broker, options());
    let mut stays = Client::open(address);
    let (mut goes, _) = server.open();
    stop(&server.listener, at_once());
    goes.drained();
    assert_eq!(server.broker.connection_count(), 1);
    assert_eq!(
        server
            .broker
            .broadcast(&OutboundMessage::text("still here")),
        1
    );
    assert_eq!(stays.text(), "still here");
    assert_eq!(server.broker.stats().listeners, 1);
    Client::open(address);
    stop(&other, at_once());
    server.finish();
}

fn spread_over(spread: Duration, timeout: Duration) -> StopOptions {
    StopOptions {
        spread,
        ..within(timeout)
    }
}

#[test]
fn a_stop_can_be_spread_and_until_its_turn_a_socket_goes_on() {
    const SOCKETS: usize = 20;
    const SPREAD: Duration = Duration::from_millis(1000);
    let server = Server::start(options(), support::SOCKETS, |context, event| {
        if let Seen::Message {
            socket, payload, ..
        } = event
        {
            let room = support::channel("late");
            let _ = context.broker.subscribe(*socket, &room);
            context
                .broker
                .send_to_channel(&room, &OutboundMessage::binary(payload), None);
        }
    });
    let clients: Vec<_> = (0..SOCKETS).map(|_| server.open()).collect();
    let began = Instant::now();
    let summary = begin(&server.listener, spread_over(SPREAD, DEADLINE));
    let threads: Vec<_> = clients
        .into_iter()
        .map(|(mut client, _)| {
            std::thread::spawn(move || {
                // Talks until its turn comes; how often it was heard, and when it was told goodbye.
                let mut heard = 0;
                loop {
                    if client
                        .try_send(support::masked(Opcode::Binary, b"?"))
                        .is_err()
                    {
                        break;
                    }
                    let frame = client.frame();
                    if frame.opcode == Opcode::Close as u8 {
                        break;
                    }
                    heard += 1;
                }
                let told = began.elapsed();
                let _ = client.try_send(support::masked(Opcode::Close, &4010_u16.to_be_bytes()));
                (told, heard)
            })
        })
        .collect();
    eventually("nobody is accepted any more", || {
        TcpStream::connect(server.address).is_err()
    });
    let mut told: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    let summary = ended(&summary);
    assert_eq!((summary.closed, summary.forced), (SOCKETS as u64, 0));
    told.sort_unstable();
    for (n, (told, _)) in told.iter().enumerate() {
        // Never early, but for the fraction of a millisecond that the shard's clock leaves out. How late is the
        // machine's business.
        let turn = SPREAD * n as u32 / SOCKETS as u32;
        let told = *told + Duration::from_millis(1);
        assert!(told >= turn, "goodbye {n} after {told:?}");
    }
    let (_, heard) = told[SOCKETS - 1];
    assert!(heard > 0, "the last one had time to talk");
    server.finish();
}

#[test]
fn who_leaves_before_its_turn_is_counted_once_and_a_spread_ends_with_its_last_socket() {
    let server = Server::quiet(options());
    let clients: Vec<_> = (0..10).map(|_| server.open()).collect();
    let summary = begin(&server.listener, spread_over(DEADLINE, DEADLINE));
    let began = Instant::now();
    for (mut client, _) in clients {
        client.send_close(1000, "");
        let (code, _) = client.last_words();
        assert!([1000, 4010].contains(&code));
    }
    let expected = StopSummary {
        closed: 10,
        forced: 0,
    };
    assert_eq!(ended(&summary), expected);
    assert!(began.elapsed() < DEADLINE, "nobody is left to wait for");
    server.finish();
}

#[test]
fn the_deadline_of_a_spread_stop_cuts_those_whose_turn_has_not_come() {
    let server = Server::quiet(options());
    let clients: Vec<_> = (0..10).map(|_| server.open()).collect();
    // A spread beyond the timeout: what applications may not ask for, and what a stalled machine makes of a spread.
    let options = spread_over(DEADLINE, Duration::from_millis(200));
    let summary = begin(&server.listener, options);
    let expected = StopSummary {
        closed: 0,
        forced: 10,
    };
    assert_eq!(ended(&summary), expected);
    for (mut client, id) in clients {
        client.drained();
        assert_eq!(server.journal.close_of(id).0, 1006);
    }
    server.finish();
}

#[test]
fn a_stop_sends_what_was_queued_before() {
    let server = Server::quiet(options());
    let (mut client, id) = server.open();
    for n in 0..200 {
        assert!(
            server
                .broker
                .send(id, &OutboundMessage::text(&n.to_string()))
        );
    }
    let summary = begin(&server.listener, within(DEADLINE));
    for n in 0..200 {
        assert_eq!(client.text(), n.to_string());
    }
    assert_eq!(client.close_frame().0, 4010);
    client.send_close(4010, "");
    assert_eq!(ended(&summary).closed, 1);
    server.finish();
}

#[test]
fn a_stop_in_the_middle_of_a_rush_leaves_nothing() {
    for _ in 0..5 {
        let server = Server::quiet(options());
        let address = server.address;
        let rush: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut clients = Vec::new();
                    while let Ok(stream) = TcpStream::connect(address) {
                        let mut client = Client::from_tcp(stream);
                        if client.try_send(handshake("/", "")).is_err() {
                            break;
                        }
                        clients.push(client);
                    }
                    clients
                })
            })
            .collect();
        eventually("the rush is on", || server.journal.opened().len() >= 40);
        stop(&server.listener, within(Duration::from_millis(200)));
        assert_nothing_left(&server.broker);
        let clients: Vec<_> = rush
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect();
        drop(clients);
        assert_port_is_free(&server.broker, address);
        server.finish();
    }
}

#[cfg(unix)]
#[test]
fn the_file_of_a_unix_socket_is_removed_and_can_be_bound_again() {
    let broker = broker();
    let _worker = ManualWorker::register(&broker, SOCKETS);
    let path = std::env::temp_dir().join(format!("wsbroker-stop-{}.sock", std::process::id()));
    // Left behind by a process that did not end in order.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
    for _ in 0..2 {
        let bind: wsbroker_engine::BindAddress = format!("unix:{}", path.display())
            .parse()
            .expect("an address");
        let listener = broker
            .listen(ListenOptions::new(bind.clone()))
            .expect("free");
        let taken = broker.listen(ListenOptions::new(bind)).map(|_| ());
        assert_eq!(taken.map_err(|e| e.code()), Err("WSB_ADDRESS_IN_USE"));
        Client::connect_unix(&path).upgrade("/", "");
        stop(&listener, at_once());
        assert!(!path.exists());
    }
}

#[test]
fn a_stop_may_have_all_the_time_there_is() {
    let server = Server::quiet(options());
    let mut clients = [server.open().0, server.open().0];
    let forever = spread_over(Duration::MAX, Duration::MAX);
    let summary = begin(&server.listener, forever);
    // They do not wait for their turn.
    for client in &mut clients {
        client.send_close(1000, "");
        client.close_frame();
        client.end();
    }
    assert_eq!(ended(&summary).closed, 2);
    server.finish();
}
