//! Limits per client over real sockets: connections, rates, and what each refusal looks like on the wire.

mod support;

use std::io::ErrorKind;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use support::{
    Client, DEADLINE, Seen, Server, at_once, connect_from, eventually, handshake, listen, once,
    options, serve_addresses, stop,
};
use wsbroker_engine::StopOptions;
use wsbroker_engine::stats::Limited;

fn limited(server: &Server) -> Limited {
    server.broker.stats().limited
}

fn requests_seen(server: &Server) -> usize {
    let events = server.journal.lock();
    let asked = events
        .iter()
        .filter(|event| matches!(event, Seen::Request(..) | Seen::Upgrade(..)));
    asked.count()
}

/// Until it answers 200, for the end of a connection is noticed a moment later.
fn eventually_served(what: &str, mut connect: impl FnMut() -> Client) -> Client {
    let mut served = None;
    eventually(what, || {
        let mut client = connect();
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut peeked = [0; 12];
        // A connection that was closed at accept has nothing to say.
        let said = matches!(client.tcp().peek(&mut peeked), Ok(length) if length > 0);
        if said && client.answer().status == 200 {
            served = Some(client);
        }
        served.is_some()
    });
    served.expect("it was served")
}

#[test]
fn one_connection_too_many_is_told_so_and_closed() {
    let server = serve_addresses(|o| o.limits.connections_per_ip = Some(2));
    let mut first = server.connect();
    let second = server.open().0;
    assert_eq!(first.get("/").status, 200);

    let mut third = server.connect();
    let answer = third.get("/");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (429, Some("close"))
    );
    third.end();
    let mut fourth = server.connect();
    fourth.send(handshake("/", ""));
    assert_eq!(fourth.answer().status, 429);
    fourth.end();
    assert_eq!(first.get("/").status, 200, "those within the limit go on");
    assert_eq!(
        connect_from(9, server.address).get("/").status,
        200,
        "others too"
    );

    assert_eq!(limited(&server).connections_per_ip, 2);
    assert_eq!(
        requests_seen(&server),
        4,
        "nothing refused reached a worker"
    );
    drop(second);
    let again = eventually_served("the end of a socket makes room", || server.connect());
    drop(again);
    server.finish();
}

#[test]
fn of_many_connections_too_many_some_are_told_and_the_others_closed() {
    let server = serve_addresses(|o| o.limits.connections_per_ip = Some(1));
    let mut first = server.connect();
    assert_eq!(first.get("/").status, 200);
    let mut silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
    eventually("all are counted", || {
        limited(&server).connections_per_ip == 20
    });
    let told = silent.iter_mut().filter_map(|client| {
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut peeked = [0; 1];
        matches!(client.tcp().peek(&mut peeked), Ok(1)).then(|| client.answer().status)
    });
    assert_eq!(told.collect::<Vec<_>>(), [429; 4]);
    server.finish();
}

#[test]
fn a_connection_that_ends_in_any_way_counts_down_once() {
    let server = serve_addresses(|o| {
        o.limits.connections_per_ip = Some(3);
        o.limits.connections = Some(3);
    });
    for _ in 0..5 {
        server.connect().reset(); // before a byte
        let mut broken = server.connect();
        broken.send("rubbish\r\n\r\n");
        broken.drained();
        let mut refused = eventually_served("there is room", || server.connect());
        refused.send(handshake("/refused", ""));
        assert_eq!(refused.answer().status, 403);
        drop(refused);
        let mut undecided = eventually_served("there is room", || server.connect());
        undecided.send(handshake("/hold", ""));
        server.journal.wait("the upgrade is read", |events| {
            let held =
                |event: &&Seen| matches!(event, Seen::Upgrade(_, head) if head.url == "/hold");
            (events.iter().filter(held).count() > 0).then_some(())
        });
        undecided.reset();
        let mut socket = eventually_served("there is room", || server.connect());
        socket.upgrade("/", "");
        socket.send_close(1000, "");
        assert_eq!(socket.close_frame().0, 1000);
        let mut cut = eventually_served("there is room", || server.connect());
        cut.upgrade("/", "");
        cut.reset();
    }
    // All three places are free, and no more than three.
    let mut three = Vec::new();
    for _ in 0..3 {
        three.push(eventually_served("there is room", || server.connect()));
    }
    assert_ne!(status_of(server.connect()), 200);
    drop(three);
    server.finish();
}

#[test]
fn a_connection_that_is_too_slow_counts_down_too() {
    let server = serve_addresses(|o| {
        o.limits.connections_per_ip = Some(1);
        o.header_timeout = Duration::from_millis(50);
    });
    for part in ["", "GET / HT"] {
        let mut slow = server.connect();
        slow.send(part);
        slow.drained();
        drop(eventually_served("there is room", || server.connect()));
    }
    server.finish();
}

/// What a first request is answered, 0 for a closed connection.
fn status_of(mut client: Client) -> u16 {
    let _ = client.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut peeked = [0; 1];
    match client.tcp().peek(&mut peeked) {
        Ok(1) => client.answer().status,
        _ => 0,
    }
}

#[test]
fn the_connections_of_the_whole_process_are_counted_over_all_listeners() {
    let server = serve_addresses(|o| o.limits.connections = Some(3));
    let (other, other_address) = listen(&server.broker, options());
    let mut elsewhere = Client::connect(other_address);
    assert_eq!(elsewhere.get("/").status, 200);
    let mut here = server.connect();
    assert_eq!(here.get("/").status, 200);
    let (socket, _) = server.open();

    let mut refused = server.connect();
    let answer = refused.get("/");
    assert_eq!(
        (
            answer.status,
            answer.header("retry-after"),
            answer.header("connection")
        ),
        (503, Some("1"), Some("close"))
    );
    refused.end();
    assert_eq!(
        Client::connect(other_address).get("/").status,
        200,
        "no limit there"
    );
    assert_eq!(limited(&server).connections, 1);
    drop((elsewhere, socket));
    drop(eventually_served("there is room", || server.connect()));
    stop(&other, at_once());
    server.finish();
}

#[test]
fn requests_are_limited_to_the_token_with_a_time_to_retry() {
    let server = serve_addresses(|o| o.limits.requests_per_ip = once(3));
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    // What is no sound request costs one as well: hyper's answer, and ours.
    let mut broken = server.connect();
    assert_eq!(broken.request("rubbish\r\n\r\n").status, 400);
    broken.end();
    let mut hostless = server.connect();
    assert_eq!(hostless.request("GET / HTTP/1.1\r\n\r\n").status, 400);
    hostless.end();
    let answer = client.get("/");
    assert_eq!(answer.status, 429);
    let retry: u64 = answer
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!(
        (600_000..=666_667).contains(&retry),
        "{retry} s for a third of 2,000,000 s"
    );
    assert_eq!(client.get("/").status, 429, "the connection goes on");
    let refused = client.request("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(
        (refused.status, refused.header("connection")),
        (429, Some("close"))
    );

    // Another client, and upgrades, have their own.
    assert_eq!(connect_from(9, server.address).get("/").status, 200);
    let (mut socket, _) = server.open();
    socket.send_close(1000, "");
    assert_eq!(limited(&server).requests_per_ip, 3);
    assert_eq!(requests_seen(&server), 3);
    server.finish();
}

#[test]
fn upgrades_are_limited_apart_from_requests_and_unsound_ones_count() {
    let server = serve_addresses(|o| o.limits.upgrades_per_ip = once(3));
    let _socket = server.open();
    let mut client = server.connect();
    let unsound = handshake("/", "").replace("Version: 13", "Version: 8");
    assert_eq!(client.request(&unsound).status, 426);
    assert_eq!(client.request(&handshake("/refused", "")).status, 403);
    let answer = client.request(&handshake("/", ""));
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some());
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(limited(&server).upgrades_per_ip, 1);
    server.finish();
}

#[test]
fn a_rate_is_exact_over_all_threads_and_connections() {
    let server = serve_addresses(|o| o.limits.requests_per_ip = once(100));
    let address = server.address;
    let all_at_once = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let all_at_once = Arc::clone(&all_at_once);
            thread::spawn(move || {
                let mut client = Client::connect(address);
                all_at_once.wait();
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(50));
                (0..50).filter(|_| client.answer().status == 200).count()
            })
        })
        .collect();
    let served: usize = threads
        .into_iter()
        .map(|t| t.join().expect("it ends"))
        .sum();
    assert_eq!(served, 100);
    assert_eq!(limited(&server).requests_per_ip, 300);
    assert_eq!(requests_seen(&server), 100);
    server.finish();
}

#[test]
fn a_refused_connection_keeps_no_stop_waiting() {
    let server = serve_addresses(|o| o.limits.connections_per_ip = Some(1));
    let mut first = server.connect();
    assert_eq!(first.get("/").status, 200);
    let mut refused = server.connect();
    eventually("it is refused", || limited(&server).connections_per_ip == 1);
    let summary = stop(
        &server.listener,
        StopOptions {
            timeout: DEADLINE,
            ..StopOptions::default()
        },
    );
    assert_eq!(summary.forced, 0);
    refused.drained();
    server.worker.end();
}

#[test]
fn connections_are_exact_while_many_come_and_go() {
    let server = serve_addresses(|o| o.limits.connections_per_ip = Some(10));
    let address = server.address;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..50 {
                    let client = Client::connect(address);
                    match client.tcp().take_error() {
                        Ok(None) => drop(status_of(client)),
                        Ok(Some(error)) | Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("it ends");
    }
    // Exactly ten places are left.
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(eventually_served("there is room", || server.connect()));
    }
    assert_ne!(status_of(server.connect()), 200);
    drop(held);
    server.finish();
}
