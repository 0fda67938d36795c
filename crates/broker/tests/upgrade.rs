//! The opening handshake: what is checked, what a worker may decide, and that nothing is lost around the 101.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{
    BOTH, Client, HTTP, ManualWorker, Seen, Server, assert_nothing_left, at_once, broker, channel,
    eventually, handshake, listen, masked, options, response, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{
    Acceptance, Broker, Compression, CompressionMemory, ListenOptions, Listener, OutboundMessage,
    SocketId, UpgradeDecision,
};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const ASKS: &str = "Host: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

fn serve() -> Server {
    Server::start(options(), HTTP, |context, event| {
        if let Seen::Request(id, head) = event {
            let answer = response(200, &[], head.url.as_bytes());
            context.broker.respond(*id, answer);
        }
    })
}

#[test]
fn a_handshake_that_is_unsound_is_refused_and_the_connection_stays_http() {
    let server = serve();
    let get = "GET / HTTP/1.1\r\n";
    for (status, request) in [
        (400, format!("{get}{ASKS}{VERSION}\r\n")),
        (
            400,
            format!("{get}{ASKS}{VERSION}Sec-WebSocket-Key: c2hvcnQ=\r\n\r\n"),
        ),
        (
            400,
            format!("{get}{ASKS}{VERSION}Sec-WebSocket-Key: \r\n\r\n"),
        ),
        (400, format!("{get}{ASKS}{VERSION}{KEY}{KEY}\r\n")),
        (
            400,
            format!("{get}{ASKS}{VERSION}{KEY}Content-Length: 3\r\n\r\nabc"),
        ),
        (426, format!("{get}{ASKS}{KEY}\r\n")),
        (
            426,
            format!("{get}{ASKS}{KEY}Sec-WebSocket-Version: 8\r\n\r\n"),
        ),
        (
            426,
            format!("{get}{ASKS}{KEY}Sec-WebSocket-Version: 13, 8\r\n\r\n"),
        ),
        (405, format!("POST / HTTP/1.1\r\n{ASKS}{VERSION}{KEY}\r\n")),
    ] {
        let mut client = server.connect();
        let answer = client.request(&request);
        assert_eq!(answer.status, status, "{request}");
        match status {
            426 => assert_eq!(answer.header("sec-websocket-version"), Some("13")),
            405 => assert_eq!(answer.header("allow"), Some("GET")),
            _ => {}
        }
        assert_eq!(client.get("/after").text(), "/after", "{request}");
        client.upgrade("/", "");
    }
    let mut client = server.connect();
    let old = client.request(&format!("GET / HTTP/1.0\r\n{ASKS}{VERSION}{KEY}\r\n"));
    assert_eq!(old.status, 400);
    server.finish();
}

#[test]
fn tokens_are_compared_without_case_and_found_in_lists() {
    let server = serve();
    for asks in [
        "connection: keep-alive, upGRADE\r\nupgrade: WebSocket\r\n",
        "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
    ] {
        let mut client = server.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: test\r\n{asks}{VERSION}{KEY}\r\n"
        ));
        let answer = client.upgraded();
        assert_eq!(answer.header("connection"), Some("Upgrade"));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("sec-websocket-protocol"), None);
    }
    server.finish();
}

#[test]
fn what_asks_for_no_websocket_is_an_ordinary_request() {
    let server = serve();
    for asks in [
        "Upgrade: websocket\r\n",
        "Connection: keep-alive\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\n",
    ] {
        let request = format!("GET /plain HTTP/1.1\r\nHost: test\r\n{asks}{VERSION}{KEY}\r\n");
        assert_eq!(
            server.connect().request(&request).text(),
            "/plain",
            "{asks}"
        );
    }
    assert_eq!(server.broker.stats().opened, 0);
    server.finish();
}

/// A broker whose worker decides by hand.
struct Deciding {
    broker: Broker,
    worker: ManualWorker,
    listener: Listener,
    client: Client,
    address: std::net::SocketAddr,
}

impl Deciding {
    fn start(options: ListenOptions) -> Self {
        let broker = broker();
        let worker = ManualWorker::register(&broker, BOTH);
        let (listener, address) = listen(&broker, options);
        Self {
            broker,
            worker,
            listener,
            client: Client::connect(address),
            address,
        }
    }

    /// Asks for an upgrade and accepts it so.
    fn accept(&mut self, extra: &str, acceptance: Acceptance) {
        self.client.send(handshake("/chat?a=b", extra));
        let (id, head) = self.worker.wait_request();
        assert_eq!(head.url, "/chat?a=b");
        let decision = UpgradeDecision::Accept(acceptance);
        assert!(self.broker.decide(id, decision));
    }

    fn opened(&mut self) -> SocketId {
        self.worker.wait_opened(1)[0]
    }

    fn finish(mut self) {
        stop(&self.listener, at_once());
        let opened = self.broker.stats().opened as usize;
        self.worker.wait("all close events", |seen| {
            (seen.iter().filter_map(Seen::closed).count() == opened).then_some(())
        });
        assert_nothing_left(&self.broker);
    }
}

fn pair(name: &'static str, value: &'static str) -> (Bytes, Bytes) {
    (name.into(), value.into())
}

#[test]
fn a_refusal_is_answered_as_decided_and_the_connection_may_ask_again() {
    let mut at = Deciding::start(options());
    at.client.send(handshake("/", ""));
    let (id, head) = at.worker.wait_request();
    assert_eq!(head.all("sec-websocket-version"), ["13"]);
    let refusal = response(401, &[("www-authenticate", "Bearer")], b"who are you?");
    at.broker.decide(id, UpgradeDecision::Refuse(refusal));
    let answer = at.client.answer();
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (401, "who are you?")
    );
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));

    at.client.send("GET /page HTTP/1.1\r\nHost: test\r\n\r\n");
    let (id, _) = at.worker.wait_request();
    at.broker.respond(id, response(200, &[], b"page"));
    assert_eq!(at.client.answer().text(), "page");

    at.accept("", Acceptance::default());
    at.client.upgraded();
    at.opened();
    at.finish();
}

#[test]
fn an_acceptance_is_in_place_before_the_first_message() {
    let mut at = Deciding::start(options());
    let acceptance = Acceptance {
        token: Some(Bytes::from_static(b"alice")),
        channels: vec![channel("a"), channel("b"), channel("a")],
        protocol: Some("chat.v2".into()),
        headers: vec![
            pair("x-served-by", "test"),
            pair("set-cookie", "a=1"),
            pair("set-cookie", "b=2"),
            // Those are not the application's to say.
            pair("connection", "close"),
            pair("sec-websocket-accept", "nonsense"),
            pair("sec-websocket-protocol", "other"),
        ],
        ..Acceptance::default()
    };
    at.accept("Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n", acceptance);
    let answer = at.client.upgraded();
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat.v2"));
    assert_eq!(answer.header("x-served-by"), Some("test"));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    let cookies = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    assert_eq!(cookies.count(), 2);

    let id = at.opened();
    let mut channels = at.broker.channels(id);
    channels.sort();
    assert_eq!(channels, [channel("a"), channel("b")]);
    assert_eq!(at.broker.subscribers(&channel("b")), [id]);
    assert_eq!(at.broker.token(id), Some(Bytes::from_static(b"alice")));
    at.client.send_text("hello");
    at.worker.wait_messages(id, 1);
    assert!(at.broker.set_token(id, None));
    at.client.send_text("again");
    at.worker.wait_messages(id, 2);
    let tokens = at.worker.seen.iter().filter_map(|event| match event {
        Seen::Open { token, .. } | Seen::Message { token, .. } => Some(token.as_deref()),
        _ => None,
    });
    let alice: Option<&[u8]> = Some(b"alice");
    assert_eq!(tokens.collect::<Vec<_>>(), [alice, alice, None]);
    at.finish();
}

#[test]
fn a_subprotocol_that_was_not_offered_is_left_out() {
    for offer in ["", "Sec-WebSocket-Protocol: CHAT, chatter\r\n"] {
        let mut at = Deciding::start(options());
        let acceptance = Acceptance {
            protocol: Some("chat".into()),
            ..Acceptance::default()
        };
        at.accept(offer, acceptance);
        assert_eq!(at.client.upgraded().header("sec-websocket-protocol"), None);
        at.opened();
        at.finish();
    }
}

#[test]
fn headers_that_cannot_be_sent_make_a_500_and_leave_no_socket() {
    let mut at = Deciding::start(options());
    let acceptance = Acceptance {
        channels: vec![channel("a")],
        headers: vec![pair("x", "line\nbreak")],
        ..Acceptance::default()
    };
    at.accept("", acceptance);
    assert_eq!(at.client.answer().status, 500);
    eventually("its place and its channels are given back", || {
        at.broker.connection_count() == 0 && at.broker.channel_count() == 0
    });
    at.finish();
}

#[test]
fn frames_right_behind_the_handshake_arrive_after_the_open_event_and_in_order() {
    let mut at = Deciding::start(options());
    let mut bytes = handshake("/", "").into_bytes();
    for n in 0..2000_u32 {
        bytes.extend(masked(Opcode::Binary, &n.to_be_bytes().repeat(25)));
    }
    let mut stream = at.client.tcp().try_clone().expect("a descriptor");
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stream, &bytes));
    let (id, _) = at.worker.wait_request();
    let decision = UpgradeDecision::Accept(Acceptance::default());
    at.broker.decide(id, decision);
    at.client.upgraded();
    let id = at.opened();
    let messages = at.worker.wait_messages(id, 2000);
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message, &(n as u32).to_be_bytes().repeat(25));
    }
    assert_eq!(messages.len(), 2000);
    assert!(matches!(at.worker.seen[1], Seen::Open { .. }));
    writer.join().expect("no panic").expect("all is taken");
    at.finish();
}

#[test]
fn a_close_frame_right_behind_the_handshake_opens_and_closes() {
    let server = serve();
    let mut client = server.connect();
    let mut bytes = handshake("/", "").into_bytes();
    bytes.extend(masked(Opcode::Text, b"hello"));
    bytes.extend(masked(Opcode::Close, &[0x0F, 0xA0]));
    client.send(bytes);
    client.upgraded();
    assert_eq!(client.close_frame(), (4000, String::new()));
    client.end();
    let id = server
        .journal
        .wait("the open event", |e| e.iter().find_map(Seen::opened));
    assert_eq!(server.journal.close_of(id), (4000, String::new()));
    assert_eq!(server.journal.messages_of(id, 1), [b"hello"]);
    server.finish();
}

#[test]
fn what_is_published_between_the_decision_and_the_101_arrives_behind_it() {
    for _ in 0..20 {
        let mut at = Deciding::start(options());
        let acceptance = Acceptance {
            channels: vec![channel("news")],
            ..Acceptance::default()
        };
        at.accept("", acceptance);
        let news = channel("news");
        eventually("the place is taken", || {
            at.broker.subscriber_count(&news) == 1
        });
        let message = OutboundMessage::text("first");
        assert_eq!(at.broker.send_to_channel(&news, &message, None), 1);
        let id = at.broker.subscribers(&news)[0];
        assert!(at.broker.send(id, &OutboundMessage::text("second")));
        at.client.upgraded();
        assert_eq!(
            (at.client.text(), at.client.text()),
            ("first".into(), "second".into())
        );
        at.finish();
    }
}

#[test]
fn what_is_published_before_the_101_is_the_beginning_of_the_context() {
    let mut dedicated = options();
    dedicated.compression = Some(Compression {
        memory: CompressionMemory::Dedicated,
        ..Compression::default()
    });
    let mut at = Deciding::start(dedicated);
    let acceptance = Acceptance {
        channels: vec![channel("news")],
        ..Acceptance::default()
    };
    at.accept(
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        acceptance,
    );
    let news = channel("news");
    eventually("the place is taken", || {
        at.broker.subscriber_count(&news) == 1
    });
    let text: String = (0..1000).map(|n| format!("{},", n * 7919)).collect();
    let message = OutboundMessage::text(&text);
    let id = at.broker.subscribers(&news)[0];
    for _ in 0..2 {
        assert_eq!(at.broker.send_to_channel(&news, &message, None), 1);
    }
    let answer = at.client.upgraded();
    let agreed = answer.header("sec-websocket-extensions");
    assert_eq!(agreed, Some("permessage-deflate"));
    let (first, second) = (at.client.frame(), at.client.frame());
    assert!(first.compressed && second.compressed);
    assert!(second.payload.len() * 10 < first.payload.len());
    eventually("nothing waits", || at.broker.buffered_amount(id) == 0);
    at.finish();
}

#[test]
fn a_client_that_goes_before_the_decision_never_becomes_a_socket() {
    let mut at = Deciding::start(options());
    at.client.send(handshake("/", ""));
    let (id, _) = at.worker.wait_request();
    let gone = std::mem::replace(&mut at.client, Client::connect(at.address));
    drop(gone);
    at.worker.wait("the abort event", |seen| {
        seen.contains(&Seen::Abort(id)).then_some(())
    });
    at.broker
        .decide(id, UpgradeDecision::Accept(Acceptance::default()));
    eventually("the late decision is counted", || {
        at.broker.stats().dropped.late_responses == 1
    });
    assert_eq!(
        (at.broker.stats().opened, at.broker.connection_count()),
        (0, 0)
    );
    at.finish();
}

#[test]
fn a_client_that_goes_during_the_decision_leaves_nothing_whoever_is_first() {
    let mut at = Deciding::start(options());
    for n in 0..60 {
        let mut client = Client::connect(at.address);
        client.send(handshake("/", ""));
        let (id, _) = at.worker.wait_request();
        let goes = std::thread::spawn(move || {
            if n % 2 == 0 {
                client.reset()
            } else {
                drop(client)
            }
        });
        let acceptance = Acceptance {
            channels: vec![channel("a"), channel("b")],
            token: Some(Bytes::from_static(b"t")),
            ..Acceptance::default()
        };
        at.broker.decide(id, UpgradeDecision::Accept(acceptance));
        goes.join().expect("no panic");
    }
    eventually("every place is free again", || {
        at.broker.connection_count() == 0 && at.broker.channel_count() == 0
    });
    at.finish();
}

#[test]
fn an_upgrade_that_nobody_decides_gets_504() {
    let mut hasty = options();
    hasty.request_timeout = Duration::from_millis(100);
    let mut at = Deciding::start(hasty);
    at.client.send(handshake("/", ""));
    at.worker.wait_request();
    assert_eq!(at.client.answer().status, 504);
    at.accept("", Acceptance::default());
    at.client.upgraded();
    at.opened();
    at.finish();
}

#[test]
fn a_socket_closed_by_a_call_before_its_101_still_opens_and_closes_in_order() {
    for _ in 0..20 {
        let mut at = Deciding::start(options());
        let acceptance = Acceptance {
            channels: vec![channel("a")],
            ..Acceptance::default()
        };
        at.accept("", acceptance);
        let a = channel("a");
        eventually("the place is taken", || at.broker.subscriber_count(&a) == 1);
        let id = at.broker.subscribers(&a)[0];
        assert!(at.broker.close(id, 4001, "changed my mind"));
        at.client.upgraded();
        assert_eq!(
            at.client.close_frame(),
            (4001, "changed my mind".to_owned())
        );
        at.client.send_close(4001, "");
        assert_eq!(at.worker.wait_close(id), (4001, String::new()));
        assert_eq!(at.opened(), id);
        at.finish();
    }
}
