//! Clients that leave while their request is handled, whatever they had sent behind it.

mod support;

use std::io::{ErrorKind, Write};
#[cfg(unix)]
use std::net::Shutdown;
#[cfg(unix)]
use std::os::unix::net::UnixStream;

use support::{
    BOTH, Client, Seen, Server, assert_nothing_left, at_once, channel, eventually, handshake,
    masked, options, response, serve_addresses, stop, tell_address,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Acceptance, BindAddress, Broker, BrokerOptions, ListenOptions, RequestId, UpgradeDecision,
};

const REQUEST: &str = "GET /hold HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sends what goes without waiting for anybody who reads.
fn pour(client: &Client, length: usize) {
    let mut tcp = client.tcp();
    tcp.set_nonblocking(true).expect("an option");
    let zeros = vec![0; length];
    let mut rest = zeros.as_slice();
    while !rest.is_empty() {
        match tcp.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    tcp.set_nonblocking(false).expect("an option");
}

fn upgrade(event: &Seen) -> Option<RequestId> {
    match event {
        Seen::Upgrade(id, _) => Some(*id),
        _ => None,
    }
}

/// Waits until a request waits, and then, after its client has left, until it does not. One that is no upgrade, and whose
/// client has sent no reset, is answered first: that client may still read.
fn assert_noticed(server: &Server, what: &str, resets: bool, leave: impl FnOnce()) {
    let is_aborted = |id| move |events: &[Seen]| events.contains(&Seen::Abort(id)).then_some(());
    let (held, is_upgrade) = server.journal.wait("the worker has it", |events| {
        let is_held = |id, url: &str| url == "/hold" && !events.contains(&Seen::Abort(id));
        events.iter().find_map(|event| match event {
            Seen::Request(id, head) if is_held(*id, &head.url) => Some((*id, false)),
            Seen::Upgrade(id, head) if is_held(*id, &head.url) => Some((*id, true)),
            _ => None,
        })
    });
    leave();
    server.journal.wait(what, is_aborted(held));
    if !is_upgrade && !resets {
        assert_eq!(server.broker.stats().pending_requests, 1, "{what}");
        assert!(
            server
                .broker
                .respond(held, response(200, &[], b"to nobody"))
        );
    }
    eventually("nothing waits", || {
        server.broker.stats().pending_requests == 0
    });
}

/// A client that is served, as the only one of its address that may be.
fn next_client(server: &Server) -> Client {
    let mut served = None;
    eventually("the place of the last one is free", || {
        let mut client = server.connect();
        let is_served = client.get("/").status == 200;
        served = is_served.then_some(client);
        is_served
    });
    served.expect("it was just served")
}

#[test]
fn whoever_leaves_is_noticed_whatever_came_behind_the_request() {
    let server = serve_addresses(|options| {
        options.limits.connections_per_ip = Some(1);
        options.limits.handshakes = Some(1);
    });
    let mut next = server.connect();
    for head in [handshake("/hold", ""), REQUEST.to_owned()] {
        for behind in [0, 1, 1000, 20_000, 3_000_000] {
            for resets in [false, true] {
                if behind > 20_000 && !resets {
                    continue; // its end is behind what its kernel could not send yet
                }
                for apart in [false, true] {
                    let mut client = next;
                    if apart {
                        client.send(&head);
                        eventually("it waits", || server.broker.stats().pending_requests == 1);
                        pour(&client, behind);
                    } else {
                        client.send([head.as_bytes(), &vec![0; behind.min(1000)]].concat());
                        pour(&client, behind.saturating_sub(1000));
                    }
                    let what = format!("{behind} bytes, apart: {apart}, a reset: {resets}");
                    assert_noticed(&server, &what, resets, || {
                        if resets {
                            client.reset();
                        } else {
                            drop(client);
                        }
                    });
                    next = next_client(&server);
                }
            }
        }
    }
    assert_eq!(server.broker.stats().dropped.late_responses, 0);
    server.finish();
}

#[test]
fn what_was_pipelined_is_served_and_its_last_request_noticed_when_its_client_leaves() {
    let server = serve_addresses(|_| {});
    let mut client = server.connect();
    let quick = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send([quick, quick, REQUEST, quick].concat());
    for _ in 0..2 {
        assert_eq!(client.answer().status, 200);
    }
    assert_noticed(&server, "the abort", false, || drop(client));
    server.finish();
}

#[test]
fn bytes_behind_an_upgrade_are_read_once_it_is_decided() {
    let server = Server::start(options(), BOTH, |_, _| {});
    let mut client = server.connect();
    client.send(handshake("/", ""));
    eventually("it waits", || server.broker.stats().pending_requests == 1);
    let messages = 2000;
    let texts = (0..messages).flat_map(|n| masked(Opcode::Text, format!("{n}").as_bytes()));
    client.send(texts.collect::<Vec<_>>());
    let id = server
        .journal
        .wait("the upgrade", |events| events.iter().find_map(upgrade));
    let acceptance = UpgradeDecision::Accept(Acceptance::default());
    server.broker.decide(id, acceptance);
    client.upgraded();
    server.journal.wait("the last message", |events| {
        let messages_seen = events.iter().filter(|e| matches!(e, Seen::Message { .. }));
        (messages_seen.count() == messages).then_some(())
    });
    client.send_close(1000, "");
    assert_eq!(client.close_frame().0, 1000);
    client.end();
    server.finish();
}

#[cfg(unix)]
#[test]
fn whoever_leaves_a_unix_socket_is_noticed_too() {
    let folder = std::env::temp_dir().join(format!("wsbroker-gone-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("socket");
    let (broker, journal) = (support::broker(), support::Journal::default());
    let worker = support::ThreadWorker::start(&broker, BOTH, &journal, tell_address);
    let bind: BindAddress = format!("unix:{}", path.display()).parse().expect("a path");
    let listener = broker
        .listen(ListenOptions::new(bind))
        .expect("a free path");
    for head in [handshake("/hold", ""), REQUEST.to_owned()] {
        for behind in [0, 1, 100_000] {
            let mut client = Client::connect_unix(&path);
            client.send([head.as_bytes(), &vec![0; behind]].concat());
            eventually("it waits", || broker.stats().pending_requests == 1);
            drop(client);
            eventually("it is noticed", || broker.stats().pending_requests == 0);
        }
    }
    stop(&listener, at_once());
    worker.end();
    assert_nothing_left(&broker);
    let _ = std::fs::remove_dir_all(folder);
}

#[cfg(unix)]
#[test]
fn a_socket_whose_101_cannot_be_written_does_not_wait_for_its_peer_to_go() {
    let folder = std::env::temp_dir().join(format!("wsbroker-deaf-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("socket");
    let broker = Broker::new(BrokerOptions {
        io_threads: Some(1),
    });
    let journal = support::Journal::default();
    let worker = support::ThreadWorker::start(&broker, BOTH, &journal, tell_address);
    let bind: BindAddress = format!("unix:{}", path.display()).parse().expect("a path");
    let listener = broker
        .listen(ListenOptions::new(bind))
        .expect("a free path");
    let mut deaf = UnixStream::connect(&path).expect("the server listens");
    let asked = handshake("/hold", "");
    deaf.write_all(asked.as_bytes()).expect("sent");
    let id = journal.wait("the upgrade", |events| events.iter().find_map(upgrade));
    // It hears nothing more, but it does not go.
    deaf.shutdown(Shutdown::Read).expect("shut");
    let acceptance = UpgradeDecision::Accept(Acceptance {
        channels: vec![channel("news")],
        ..Acceptance::default()
    });
    broker.decide(id, acceptance);
    // What the shard has been told before this request it has done when it answers.
    assert_eq!(Client::connect_unix(&path).get("/").status, 200);
    assert_eq!(broker.subscriber_count(&channel("news")), 0);
    let stats = broker.stats();
    assert_eq!((stats.connections, stats.opened), (0, 0));
    assert_eq!(stats.dropped.late_responses, 0, "it was accepted");
    drop(deaf);
    stop(&listener, at_once());
    worker.end();
    assert_nothing_left(&broker);
    let _ = std::fs::remove_dir_all(folder);
}
