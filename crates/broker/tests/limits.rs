//! Limits per client over real sockets: connections, rates, and what each refusal looks like on the wire.

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use support::{
    BOTH, Client, Context, DEADLINE, HTTP, Seen, Server, at_once, eventually, handshake, listen,
    options, response, stop,
};
use wsbroker_engine::stats::Limited;
use wsbroker_engine::{Acceptance, ListenOptions, Peers, Rate, TrustProxy, UpgradeDecision};

fn rate(capacity: u32) -> Option<Rate> {
    // Nothing comes back while a test runs.
    Rate::new(capacity, Duration::from_secs(2_000_000))
}

fn answering(context: &Context, event: &Seen) {
    match event {
        Seen::Request(id, head) if head.url != "/hold" => {
            let answer = response(200, &[], head.remote_address.as_bytes());
            context.broker.respond(*id, answer);
        }
        Seen::Upgrade(id, head) if head.url == "/refused" => {
            let refusal = UpgradeDecision::Refuse(response(403, &[], b"no"));
            context.broker.decide(*id, refusal);
        }
        Seen::Upgrade(id, head) if head.url != "/hold" => {
            let acceptance = UpgradeDecision::Accept(Acceptance::default());
            context.broker.decide(*id, acceptance);
        }
        _ => {}
    }
}

fn serve(change: impl FnOnce(&mut ListenOptions)) -> Server {
    let mut options = options();
    change(&mut options);
    Server::start(options, BOTH, answering)
}

fn trusting_loopback() -> TrustProxy {
    TrustProxy::Peers(Peers {
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        unix: false,
    })
}

/// A connection from this address of the loopback network.
fn connect_from(host: u8, address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&from.into()).expect("loopback is a /8");
    socket.connect(&address.into()).expect("the server listens");
    Client::from_tcp(TcpStream::from(socket))
}

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
    let server = serve(|o| o.limits.connections_per_ip = Some(2));
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
    let server = serve(|o| o.limits.connections_per_ip = Some(1));
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
    let server = serve(|o| {
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
    let server = serve(|o| {
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
    let server = serve(|o| o.limits.connections = Some(3));
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
    let server = serve(|o| o.limits.requests_per_ip = rate(3));
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
    let server = serve(|o| o.limits.upgrades_per_ip = rate(3));
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
    let server = serve(|o| o.limits.requests_per_ip = rate(100));
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
fn behind_a_trusted_proxy_the_named_client_is_limited() {
    let server = serve(|o| {
        o.trust_proxy = trusting_loopback();
        o.limits.requests_per_ip = rate(2);
        o.limits.connections_per_ip = Some(1);
    });
    let mut proxy = server.connect();
    let mut ask = |client: &str, spoofed: &str| {
        proxy.request(&format!(
            "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {spoofed}{client}\r\n\r\n"
        ))
    };
    assert_eq!(ask("192.0.2.1", "").text(), "192.0.2.1");
    assert_eq!(ask("192.0.2.1", "9.9.9.9, ").text(), "192.0.2.1");
    assert_eq!(
        ask("192.0.2.1", "8.8.8.8, ").status,
        429,
        "whatever it says of itself"
    );
    assert_eq!(ask("192.0.2.2", "").status, 200);
    for host in 1..=2 {
        assert_eq!(ask(&format!("2001:db8:0:1::{host}"), "").status, 200);
    }
    assert_eq!(
        ask("2001:db8:0:1:ffff::1", "").status,
        429,
        "one network of 64 bits"
    );
    assert_eq!(ask("2001:db8:0:2::1", "").status, 200);
    assert_eq!(ask("unknown", "7.7.7.7, ").text(), "127.0.0.1");
    // The proxy's connections belong to nobody.
    let others: Vec<_> = (0..5).map(|_| server.connect()).collect();
    assert_eq!(limited(&server).connections_per_ip, 0);
    drop(others);
    server.finish();
}

#[test]
fn behind_a_trusted_proxy_sockets_are_counted_from_the_upgrade_to_their_end() {
    let server = serve(|o| {
        o.trust_proxy = TrustProxy::Hops(1);
        o.limits.connections_per_ip = Some(2);
    });
    let named = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let open = |path: &str, client: &str| {
        let mut proxied = server.connect();
        proxied.send(handshake(path, &named(client)));
        proxied
    };
    let mut first = open("/", "192.0.2.1");
    first.upgraded();
    // An upgrade counts while it is decided on, and no longer when it was refused.
    let mut undecided = open("/hold", "192.0.2.1");
    let id = server.journal.wait("the upgrade is read", |events| {
        events.iter().find_map(|event| match event {
            Seen::Upgrade(id, head) if head.url == "/hold" => Some(*id),
            _ => None,
        })
    });
    let mut third = open("/", "192.0.2.1");
    assert_eq!(third.answer().status, 429);
    assert_eq!(third.get("/").status, 200, "the proxy's connection goes on");
    server
        .broker
        .decide(id, UpgradeDecision::Refuse(response(403, &[], b"")));
    assert_eq!(undecided.answer().status, 403);
    let mut second = open("/", "192.0.2.1");
    second.upgraded();
    let mut other = open("/", "192.0.2.2");
    other.upgraded();
    assert_eq!(open("/", "192.0.2.1").answer().status, 429);
    first.send_close(1000, "");
    assert_eq!(first.close_frame().0, 1000);
    eventually("the end of a socket makes room", || {
        let mut again = open("/", "192.0.2.1");
        again.head().status == 101
    });
    server.finish();
}

#[test]
fn headers_that_contradict_each_other_are_refused() {
    let server = serve(|o| o.trust_proxy = TrustProxy::Hops(1));
    let mut proxy = server.connect();
    let mut ask = |headers: &str| {
        proxy.request(&format!(
            "GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n\r\n"
        ))
    };
    let answer = ask("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=6.6.6.6");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("Forwarded"), "{}", answer.text());
    let answer = ask("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1");
    assert_eq!(answer.text(), "192.0.2.1");
    assert_eq!(
        ask("Forwarded: for=\"[2001:db8::1]:4711\";proto=https").text(),
        "2001:db8::1"
    );
    server.finish();
}

#[test]
fn who_is_not_trusted_is_not_believed() {
    let server = serve(|o| {
        o.trust_proxy = TrustProxy::Peers(Peers {
            networks: vec!["127.0.0.9".parse().expect("an address")],
            unix: false,
        });
        o.limits.connections_per_ip = Some(1);
    });
    let ask = |client: &mut Client| {
        let answer = client.request(
            "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=5.6.7.8\r\n\r\n",
        );
        (answer.status, answer.text())
    };
    let mut direct = server.connect();
    assert_eq!(ask(&mut direct), (200, "127.0.0.1".to_owned()));
    assert_eq!(ask(&mut server.connect()).0, 429, "it is counted at accept");
    let mut proxy = connect_from(9, server.address);
    assert_eq!(ask(&mut proxy).0, 400, "but the proxy is");
    server.finish();
}

#[cfg(unix)]
#[test]
fn a_peer_on_a_unix_socket_has_no_limit_unless_it_is_a_trusted_proxy() {
    let folder = std::env::temp_dir().join(format!("wsbroker-limits-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, unix) in [("untrusted", false), ("trusted", true)] {
        let path = folder.join(name);
        let broker = support::broker();
        let journal = support::Journal::default();
        let worker = support::ThreadWorker::start(&broker, HTTP, &journal, answering);
        let bind = format!("unix:{}", path.display())
            .parse()
            .expect("an address");
        let mut options = ListenOptions::new(bind);
        options.limits.requests_per_ip = rate(1);
        options.limits.connections_per_ip = Some(1);
        options.trust_proxy = TrustProxy::Peers(Peers {
            networks: Vec::new(),
            unix,
        });
        let listener = broker.listen(options).expect("a free path");
        let mut clients = [Client::connect_unix(&path), Client::connect_unix(&path)];
        let expected = if unix {
            ["192.0.2.1", "Too Many Requests\n"]
        } else {
            ["unix", "unix"]
        };
        for (client, expected) in clients.iter_mut().zip(expected) {
            let answer = client
                .request("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
            assert_eq!(answer.text(), expected);
        }
        stop(&listener, at_once());
        worker.end();
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_refused_connection_keeps_no_stop_waiting() {
    let server = serve(|o| o.limits.connections_per_ip = Some(1));
    let mut first = server.connect();
    assert_eq!(first.get("/").status, 200);
    let mut refused = server.connect();
    eventually("it is refused", || limited(&server).connections_per_ip == 1);
    let summary = stop(&server.listener, support_stop());
    assert_eq!(summary.forced, 0);
    refused.drained();
    server.worker.end();
}

fn support_stop() -> wsbroker_engine::StopOptions {
    wsbroker_engine::StopOptions {
        timeout: DEADLINE,
        ..wsbroker_engine::StopOptions::default()
    }
}

#[test]
fn connections_are_exact_while_many_come_and_go() {
    let server = serve(|o| o.limits.connections_per_ip = Some(10));
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

#[test]
fn an_address_is_told_without_its_port() {
    let server = serve(|_| {});
    let answer = connect_from(7, server.address).get("/");
    let ip: IpAddr = answer.text().parse().expect("an address");
    assert_eq!(ip, IpAddr::from([127, 0, 0, 7]));
    server.finish();
}
