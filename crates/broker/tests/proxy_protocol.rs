//! The PROXY protocol on a listener that demands it.

mod support;

use std::io::Write;
use std::time::Duration;

use support::{Client, Seen, Server, eventually, handshake, once, peers, serve_addresses};
use wsbroker_engine::{ListenOptions, ProxyProtocol, TrustProxy};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn v1(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    format!("PROXY {family} {client} {client} 51234 443\r\n").into_bytes()
}

/// Version 2 with a field behind the addresses.
fn v2(command: u8, client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 16]);
    header.extend(client);
    header.extend([10, 0, 0, 1, 0xC8, 0x22, 1, 0xBB, 0x04, 0, 1, 0]);
    header
}

fn refused(server: &Server) -> u64 {
    server.broker.stats().limited.proxy_protocol
}

/// Every connection has to begin with a header.
fn serve(change: impl FnOnce(&mut ListenOptions)) -> Server {
    serve_addresses(|options| {
        options.proxy_protocol = ProxyProtocol::Everybody;
        change(options);
    })
}

#[test]
fn the_named_client_is_the_peer() {
    let server = serve(|_| {});
    for (header, address) in [
        (v1("192.0.2.1"), "192.0.2.1"),
        (v1("2001:db8::7"), "2001:db8::7"),
        (v2(1, [192, 0, 2, 9]), "192.0.2.9"),
        (v2(0, [192, 0, 2, 9]), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut client = server.connect();
        client.send([header.as_slice(), GET, GET].concat());
        assert_eq!(client.answer().text(), address);
        assert_eq!(client.answer().text(), address, "for every request");
    }
    server.finish();
}

#[test]
fn a_header_may_come_in_any_pieces_and_a_handshake_with_frames_behind_it() {
    let server = serve(|_| {});
    for header in [v1("192.0.2.1"), v2(1, [192, 0, 2, 1])] {
        let mut client = server.connect();
        for byte in [header.as_slice(), GET].concat() {
            client.send([byte]);
        }
        assert_eq!(client.answer().text(), "192.0.2.1");

        let known = server.journal.opened().len();
        let mut socket = server.connect();
        let frame = support::masked(wsbroker_engine::codec::Opcode::Text, b"early");
        socket.send([header.as_slice(), handshake("/", "").as_bytes(), &frame].concat());
        socket.upgraded();
        let id = server.journal.wait("it opens", |events| {
            events.iter().filter_map(Seen::opened).nth(known)
        });
        assert_eq!(server.journal.messages_of(id, 1), [b"early".to_vec()]);
    }
    server.finish();
}

#[test]
fn without_a_sound_header_a_connection_is_closed_without_an_answer() {
    let server = serve(|o| o.header_timeout = Duration::from_millis(100));
    let too_long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    for (count, bytes) in (1..).zip([
        GET,
        b"PROXY TCP4 192.0.2.1 1.1.1.1 1\r\n",
        b"PROXY TCP4 192.0.2.1 1.1.1.1 ", // and then nothing: the time is over
        b"",
        &too_long,
        &v2(5, [1, 2, 3, 4]),
    ]) {
        let mut client = server.connect();
        let _ = client.try_send(bytes);
        assert_eq!(client.drained(), b"");
        eventually("it is counted", || refused(&server) == count);
    }
    assert_eq!(server.broker.stats().requests, 0);
    server.finish();
}

#[test]
fn only_peers_that_may_send_it_are_believed() {
    for (network, believed) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let server = serve(|o| {
            o.proxy_protocol = ProxyProtocol::Peers(peers(&[network]));
        });
        let mut client = server.connect();
        let _ = client.try_send([v1("192.0.2.1").as_slice(), GET].concat());
        if believed {
            assert_eq!(client.answer().text(), "192.0.2.1");
        } else {
            assert_eq!(client.drained(), b"");
            eventually("it is counted", || refused(&server) == 1);
        }
        server.finish();
    }
}

#[test]
fn without_the_option_a_header_is_a_broken_request() {
    let server = serve(|o| o.proxy_protocol = ProxyProtocol::Off);
    let mut client = server.connect();
    client.send([v1("192.0.2.1").as_slice(), GET].concat());
    assert_eq!(client.answer().status, 400);
    server.finish();
}

#[test]
fn limits_count_for_the_named_client() {
    let server = serve(|o| {
        o.limits.connections_per_ip = Some(1);
        o.limits.requests_per_ip = once(2);
    });
    let connect = |name: &str| {
        let mut client = server.connect();
        client.send(v1(name));
        client
    };
    let mut first = connect("192.0.2.1");
    assert_eq!(first.get("/").status, 200);
    assert_eq!(
        connect("192.0.2.1").get("/").status,
        429,
        "its second connection"
    );
    let mut other = connect("192.0.2.2");
    assert_eq!(other.get("/").status, 200);
    assert_eq!(first.get("/").status, 200);
    assert_eq!(first.get("/").status, 429, "its third request");
    let limited = server.broker.stats().limited;
    assert_eq!(
        (limited.connections_per_ip, limited.requests_per_ip),
        (1, 1)
    );
    server.finish();
}

#[test]
fn a_named_peer_may_be_a_trusted_proxy_itself() {
    let server = serve(|o| {
        o.trust_proxy = TrustProxy::Peers(peers(&["10.0.0.0/8"]));
    });
    let ask = |peer: &str| {
        let mut client: Client = server.connect();
        client.send(v1(peer));
        let request = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
        client.request(request).text()
    };
    assert_eq!(ask("10.0.0.5"), "192.0.2.1");
    assert_eq!(ask("127.0.0.1"), "127.0.0.1");
    server.finish();
}

#[test]
fn a_stop_does_not_wait_for_headers() {
    let server = serve(|_| {});
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send(b"PROXY TCP4 1");
    half.tcp().flush().expect("it is sent");
    let summary = support::stop(&server.listener, wsbroker_engine::StopOptions::default());
    assert_eq!((summary.closed, summary.forced), (0, 0));
    silent.drained();
    half.drained();
    server.worker.end();
}
