//! Clients behind proxies: whom the headers name, and what is counted for them.

mod support;

use std::net::IpAddr;

use support::{
    Client, HTTP, Seen, at_once, connect_from, eventually, handshake, once, peers, response,
    serve_addresses, stop,
};
use wsbroker_engine::{ListenOptions, Peers, TrustProxy, UpgradeDecision};

#[test]
fn behind_a_trusted_proxy_the_named_client_is_limited() {
    let server = serve_addresses(|o| {
        o.trust_proxy = TrustProxy::Peers(peers(&["127.0.0.0/8"]));
        o.limits.requests_per_ip = once(2);
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
    assert_eq!(server.broker.stats().limited.connections_per_ip, 0);
    drop(others);
    server.finish();
}

#[test]
fn behind_a_trusted_proxy_sockets_are_counted_from_the_upgrade_to_their_end() {
    let server = serve_addresses(|o| {
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
    let server = serve_addresses(|o| o.trust_proxy = TrustProxy::Hops(1));
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
    assert_eq!(server.broker.stats().limited.contradictions, 1);
    server.finish();
}

/// Any client behind a proxy that sets one header can send the other.
#[test]
fn a_contradiction_costs_neither_whom_it_names_nor_the_proxy() {
    let server = serve_addresses(|options| {
        options.trust_proxy = TrustProxy::Hops(1);
        options.limits.requests_per_ip = once(1);
        options.limits.upgrades_per_ip = once(1);
    });
    let mut proxy = server.connect();
    let both = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.2\r\n";
    for _ in 0..3 {
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{both}\r\n");
        assert_eq!(proxy.request(&request).status, 400);
        assert_eq!(proxy.request(&handshake("/", both)).status, 400);
    }
    for header in [
        "",
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Forwarded: for=192.0.2.2\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n");
        assert_eq!(proxy.request(&request).status, 200, "{header}");
        assert_eq!(proxy.request(&request).status, 429, "{header}");
    }
    let limited = server.broker.stats().limited;
    assert_eq!((limited.contradictions, limited.requests_per_ip), (6, 3));
    assert_eq!(server.broker.stats().requests, 3);
    server.finish();
}

#[test]
fn who_is_not_trusted_is_not_believed() {
    let server = serve_addresses(|o| {
        o.trust_proxy = TrustProxy::Peers(peers(&["127.0.0.9"]));
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
        let worker = support::ThreadWorker::start(&broker, HTTP, &journal, support::tell_address);
        let bind = format!("unix:{}", path.display())
            .parse()
            .expect("an address");
        let mut options = ListenOptions::new(bind);
        options.limits.requests_per_ip = once(1);
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
fn an_address_is_told_without_its_port() {
    let server = serve_addresses(|_| {});
    let answer = connect_from(7, server.address).get("/");
    let ip: IpAddr = answer.text().parse().expect("an address");
    assert_eq!(ip, IpAddr::from([127, 0, 0, 7]));
    server.finish();
}
