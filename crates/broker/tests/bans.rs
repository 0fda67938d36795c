//! Bans: who is kept out, and what becomes of what is open.

mod support;

use std::time::Duration;

use support::{Client, Seen, Server, eventually, handshake, serve_addresses};
use wsbroker_engine::{Acceptance, Cidr, ProxyProtocol, TrustProxy, UpgradeDecision};

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a network")
}

fn open_for(server: &Server, client: &str) -> Client {
    let mut socket = server.connect();
    socket.upgrade("/", &format!("X-Forwarded-For: {client}\r\n"));
    socket
}

#[test]
fn a_banned_client_is_closed_at_accept_until_it_is_not() {
    let server = serve_addresses(|_| {});
    assert_eq!(server.broker.ban(cidr("127.0.0.0/8"), None), 0);
    for _ in 0..3 {
        let mut client = server.connect();
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.drained(), b"");
    }
    eventually("they are counted", || {
        server.broker.stats().limited.banned == 3
    });
    assert!(!server.broker.unban(cidr("127.0.0.1")), "another ban");
    assert!(server.broker.unban(cidr("127.0.0.1/8")));
    assert!(!server.broker.unban(cidr("127.0.0.0/8")));
    assert_eq!(server.connect().get("/").status, 200);
    server.finish();
}

#[test]
fn a_ban_for_a_time_ends_by_itself() {
    let server = serve_addresses(|_| {});
    server
        .broker
        .ban(cidr("127.0.0.1"), Some(Duration::from_millis(100)));
    let listed = server.broker.bans();
    assert!(
        listed.is_empty() || (listed[0].network == cidr("127.0.0.1") && listed[0].ends.is_some())
    );
    eventually("the ban is over", || server.broker.bans().is_empty());
    assert_eq!(server.connect().get("/").status, 200);
    server.finish();
}

#[test]
fn a_ban_may_last_longer_than_any_clock() {
    let server = serve_addresses(|_| {});
    for _ in 0..2 {
        server.broker.ban(cidr("127.0.0.1"), Some(Duration::MAX));
        assert_eq!(server.broker.bans().len(), 1);
    }
    let mut client = server.connect();
    let _ = client.try_send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.drained(), b"");
    assert!(server.broker.unban(cidr("127.0.0.1")));
    server.finish();
}

#[test]
fn open_sockets_are_told_and_http_connections_cut() {
    let server = serve_addresses(|_| {});
    let (mut socket, id) = server.open();
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut waiting = server.connect();
    waiting.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut fresh = server.connect();
    let mut undecided = server.connect();
    undecided.send(handshake("/hold", ""));
    eventually("both wait", || server.broker.stats().pending_requests == 2);

    assert_eq!(server.broker.ban(cidr("127.0.0.1"), None), 1);
    assert_eq!(socket.close_frame(), (1008, "banned".to_owned()));
    for client in [&mut idle, &mut waiting, &mut fresh, &mut undecided] {
        assert_eq!(client.drained(), b"");
    }
    // The peer does not answer, and the close event tells the reason all the same.
    socket.reset();
    assert_eq!(server.journal.close_of(id), (1008, "banned".to_owned()));
    assert_eq!(
        server.broker.ban(cidr("127.0.0.1"), None),
        0,
        "nothing is open any more"
    );
    server.finish();
}

#[test]
fn a_peer_that_answers_the_close_is_told_as_banned_once() {
    let server = serve_addresses(|_| {});
    let (mut socket, id) = server.open();
    assert_eq!(server.broker.ban(cidr("127.0.0.1/32"), None), 1);
    assert_eq!(socket.close_frame(), (1008, "banned".to_owned()));
    socket.send_close(1008, "banned");
    socket.end();
    assert_eq!(server.journal.close_of(id), (1008, "banned".to_owned()));
    server.finish();
}

#[test]
fn behind_a_trusted_proxy_the_named_client_is_banned_and_nobody_else() {
    let server = serve_addresses(|o| o.trust_proxy = TrustProxy::Hops(1));
    let mut bad = open_for(&server, "192.0.2.1");
    let mut neighbour = open_for(&server, "192.0.3.1");
    let mut six = open_for(&server, "2001:db8::1");
    assert_eq!(server.broker.ban(cidr("192.0.2.0/24"), None), 1);
    assert_eq!(bad.close_frame().0, 1008);
    assert_eq!(
        server.broker.ban(cidr("2001:db8::2"), None),
        0,
        "another address"
    );
    assert_eq!(server.broker.ban(cidr("2001:db8::/64"), None), 1);
    assert_eq!(six.close_frame().0, 1008);

    let mut proxy = server.connect();
    let mut ask = |list: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {list}\r\n\r\n");
        proxy.request(&head).status
    };
    assert_eq!(ask("192.0.2.77"), 403);
    assert_eq!(
        ask("8.8.8.8, 192.0.2.77"),
        403,
        "whatever it says of itself"
    );
    assert_eq!(
        ask("192.0.2.77, 192.0.3.1"),
        200,
        "nobody is banned by another's word"
    );
    assert_eq!(ask("2001:db8::99"), 403);
    let extra = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(proxy.request(&handshake("/", extra)).status, 403);
    assert_eq!(proxy.get("/").status, 200, "the proxy's connection goes on");
    assert_eq!(server.broker.stats().limited.banned, 4);
    neighbour.send_close(1000, "");
    assert_eq!(neighbour.close_frame().0, 1000);
    server.finish();
}

#[test]
fn an_upgrade_that_is_decided_after_the_ban_opens_nothing() {
    let server = serve_addresses(|o| o.trust_proxy = TrustProxy::Hops(1));
    let mut client = server.connect();
    client.send(handshake("/hold", "X-Forwarded-For: 192.0.2.1\r\n"));
    let id = server.journal.wait("the upgrade is read", |events| {
        events.iter().find_map(|event| match event {
            Seen::Upgrade(id, _) => Some(*id),
            _ => None,
        })
    });
    assert_eq!(server.broker.ban(cidr("192.0.2.1"), None), 0);
    server
        .broker
        .decide(id, UpgradeDecision::Accept(Acceptance::default()));
    assert_eq!(client.answer().status, 403);
    assert_eq!(
        (
            server.broker.stats().opened,
            server.broker.connection_count()
        ),
        (0, 0)
    );
    server.finish();
}

#[test]
fn a_client_that_a_proxy_header_names_is_closed_without_an_answer() {
    let server = serve_addresses(|o| o.proxy_protocol = ProxyProtocol::Everybody);
    let connect = |client: &str| {
        let mut connection = server.connect();
        connection.send(format!("PROXY TCP4 {client} 10.0.0.1 1 2\r\n"));
        connection
    };
    let mut open = connect("192.0.2.1");
    assert_eq!(open.get("/").status, 200);
    server.broker.ban(cidr("192.0.2.1"), None);
    assert_eq!(open.drained(), b"");
    assert_eq!(connect("192.0.2.1").drained(), b"");
    assert_eq!(connect("192.0.2.2").get("/").status, 200);
    server.finish();
}

#[test]
fn who_comes_while_bans_come_and_go_is_never_left_open() {
    // Sockets open in one thread while bans begin and end in another: after a ban nobody may be open.
    let server = serve_addresses(|_| {});
    let address = server.address;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let opening: Vec<_> = (0..3)
        .map(|_| {
            let done = std::sync::Arc::clone(&done);
            std::thread::spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    let _ = client.try_send(handshake("/", ""));
                    let mut peeked = [0; 1];
                    let _ = client.tcp().peek(&mut peeked);
                }
            })
        })
        .collect();
    for _ in 0..200 {
        server.broker.ban(cidr("127.0.0.1"), None);
        // One that is registered at this very moment finds the ban by itself.
        eventually("nobody is in behind a ban", || {
            server.broker.connection_count() == 0
        });
        server.broker.unban(cidr("127.0.0.1"));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in opening {
        thread.join().expect("it ends");
    }
    server.finish();
}
