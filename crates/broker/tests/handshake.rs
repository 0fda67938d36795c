//! What a listener decides about handshakes before, beside and after its workers: subprotocols, origins, and how many
//! may be under way.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{
    BOTH, Client, HTTP, ManualWorker, SOCKETS, Seen, Server, assert_nothing_left, at_once, broker,
    eventually, handshake, listen, options, response, stop,
};
use wsbroker_engine::{
    Acceptance, Broker, ListenOptions, Listener, OriginAnswer, OriginCheck, OriginVerdict, Origins,
    StopOptions, UpgradeDecision,
};

fn speaking(protocols: &[&str]) -> ListenOptions {
    let mut options = options();
    let parsed = protocols.iter().map(|name| name.parse().expect("a token"));
    options.protocols = parsed.collect();
    options
}

/// A broker whose worker decides by hand.
struct Deciding {
    broker: Broker,
    worker: ManualWorker,
    listener: Listener,
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
            address,
        }
    }

    fn ask(&self, extra: &str) -> Client {
        let mut client = Client::connect(self.address);
        client.send(handshake("/", extra));
        client
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

#[test]
fn the_servers_first_subprotocol_that_the_client_offers_is_chosen_and_told() {
    let server = Server::start(speaking(&["v3", "v2", "v1"]), SOCKETS, |_, _| {});
    for (offer, expected) in [
        ("Sec-WebSocket-Protocol: v1, v2\r\n", Some("v2")),
        (
            "Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v3\r\n",
            Some("v3"),
        ),
        ("Sec-WebSocket-Protocol: V1, other\r\n", None),
        ("", None),
    ] {
        let known = server.journal.opened().len();
        let mut client = server.connect();
        let answer = client.upgrade("/", offer);
        assert_eq!(answer.header("sec-websocket-protocol"), expected, "{offer}");
        let told = server.journal.wait("the open event", |events| {
            let mut opens = events.iter().filter_map(|event| match event {
                Seen::Open { request, .. } => Some(request.protocol.clone()),
                _ => None,
            });
            opens.nth(known)
        });
        assert_eq!(told.as_deref(), expected, "{offer}");
    }
    server.finish();
}

#[test]
fn a_worker_sees_the_choice_and_may_make_another() {
    let mut at = Deciding::start(speaking(&["v2", "v1"]));
    for (named, expected) in [
        (None, Some("v2")),
        (Some("v1"), Some("v1")),
        (Some("x"), Some("x")), // the application may speak more than it lists
        (Some("v3"), None),
    ] {
        let mut client = at.ask("Sec-WebSocket-Protocol: v1, x, v2\r\n");
        let (id, head) = at.worker.wait_request();
        assert_eq!(head.protocol.as_deref(), Some("v2"));
        let acceptance = Acceptance {
            protocol: named.map(str::to_owned),
            ..Acceptance::default()
        };
        at.broker.decide(id, UpgradeDecision::Accept(acceptance));
        let answer = client.upgraded();
        assert_eq!(answer.header("sec-websocket-protocol"), expected);
        let told = at.worker.wait("the open event", |seen| {
            seen.iter().find_map(|event| match event {
                Seen::Open { request, .. } => Some(request.protocol.clone()),
                _ => None,
            })
        });
        assert_eq!(told.as_deref(), expected);
        at.worker
            .seen
            .retain(|event| !matches!(event, Seen::Open { .. }));
    }
    at.finish();
}

fn only(origins: &[&str]) -> ListenOptions {
    let mut options = options();
    let parsed = origins.iter().map(|origin| origin.parse().expect("one"));
    options.origins = Origins::List(parsed.collect());
    options
}

#[test]
fn an_origin_that_is_not_listed_gets_403_and_no_worker_hears_of_it() {
    let mut at = Deciding::start(only(&["https://example.com", "http://localhost:3000"]));
    let mut client = Client::connect(at.address);
    for foreign in ["https://evil.example", "null", "https://example.com:8443"] {
        client.send(handshake("/", &format!("Origin: {foreign}\r\n")));
        let answer = client.answer();
        assert_eq!(answer.status, 403, "{foreign}");
        assert_eq!(answer.text(), "this origin may not connect\n");
        let plain = Some("text/plain; charset=utf-8");
        assert_eq!(answer.header("content-type"), plain);
    }
    assert_eq!(at.broker.stats().limited.origins, 3);
    // It is a check of upgrades alone: whether pages may read answers, the application says with CORS.
    client.send("GET /page HTTP/1.1\r\nHost: test\r\nOrigin: https://evil.example\r\n\r\n");
    let (id, head) = at.worker.wait_request();
    assert_eq!(head.url, "/page", "the first that the worker hears of");
    at.broker.respond(id, response(200, &[], b""));
    assert_eq!(client.answer().status, 200);
    for own in ["Origin: HTTPS://Example.com:443\r\n", ""] {
        let mut client = at.ask(own);
        let (id, _) = at.worker.wait_request();
        let decision = UpgradeDecision::Accept(Acceptance::default());
        at.broker.decide(id, decision);
        client.upgraded();
    }
    at.finish();
}

/// Keeps what it is asked until the test answers.
#[derive(Default)]
struct Asked(Mutex<Vec<(Option<String>, OriginAnswer)>>);

impl OriginCheck for Asked {
    fn ask(&self, origin: Option<&str>, answer: OriginAnswer) {
        let question = (origin.map(str::to_owned), answer);
        self.0.lock().expect("no panic").push(question);
    }
}

impl Asked {
    fn next(&self) -> (Option<String>, OriginAnswer) {
        let mut next = None;
        eventually("a question", || {
            next = self.0.lock().expect("no panic").pop();
            next.is_some()
        });
        next.expect("just seen")
    }
}

fn asking() -> (Arc<Asked>, ListenOptions) {
    let asked = Arc::new(Asked::default());
    let mut options = options();
    options.origins = Origins::Ask(Arc::clone(&asked) as Arc<dyn OriginCheck>);
    (asked, options)
}

#[test]
fn whoever_judges_origins_decides_before_any_worker() {
    let (asked, options) = asking();
    let mut at = Deciding::start(options);
    for (verdict, status) in [
        (Some(OriginVerdict::Refused), 403),
        (Some(OriginVerdict::Failed), 500),
        (Some(OriginVerdict::Unavailable), 503),
        (None, 503),
    ] {
        let mut client = at.ask("Origin: https://evil.example\r\n");
        let (origin, answer) = asked.next();
        assert_eq!(origin.as_deref(), Some("https://evil.example"));
        // Asked in the turn at whose end it is counted.
        eventually("it is counted", || at.broker.stats().pending_requests == 1);
        match verdict {
            Some(verdict) => answer.give(verdict),
            None => drop(answer),
        }
        assert_eq!(client.answer().status, status);
    }
    let mut client = at.ask("");
    let (origin, answer) = asked.next();
    assert_eq!(origin, None, "no browser");
    assert!(
        !at.worker
            .seen
            .iter()
            .any(|e| matches!(e, Seen::Upgrade(..)))
    );
    answer.give(OriginVerdict::Allowed);
    let (id, _) = at.worker.wait_request();
    let decision = UpgradeDecision::Accept(Acceptance::default());
    at.broker.decide(id, decision);
    client.upgraded();
    at.worker.wait_opened(1);
    let stats = at.broker.stats();
    assert_eq!(
        (stats.limited.origins, stats.dropped.unanswered_requests),
        (1, 2)
    );
    at.finish();
}

#[test]
fn a_judgement_has_the_time_of_a_request_and_is_not_missed_later() {
    let (asked, mut options) = asking();
    options.request_timeout = Duration::from_millis(100);
    let at = Deciding::start(options);
    let mut client = at.ask("");
    let (_, late) = asked.next();
    assert_eq!(client.answer().status, 504);
    assert!(!late.is_awaited());
    late.give(OriginVerdict::Allowed);
    at.finish();

    // With time enough, so that it is the client's leaving, and then the stop, that end the waiting.
    let (asked, options) = asking();
    let at = Deciding::start(options);
    let gone = at.ask("");
    let (_, unwanted) = asked.next();
    assert!(unwanted.is_awaited());
    drop(gone);
    eventually("nobody waits", || !unwanted.is_awaited());
    unwanted.give(OriginVerdict::Allowed);

    let mut cut = at.ask("");
    let (_, pending) = asked.next();
    stop(&at.listener, at_once());
    cut.drained();
    drop(pending);
    assert_eq!(at.broker.stats().opened, 0);
    at.finish();
}

#[test]
fn an_allowed_origin_without_a_deciding_worker_opens() {
    let (asked, options) = asking();
    let server = Server::start(options, HTTP, |_, _| {});
    let mut client = server.connect();
    client.send(handshake("/", "Origin: https://example.com\r\n"));
    asked.next().1.give(OriginVerdict::Allowed);
    client.upgraded();
    server.finish();
}

#[test]
fn a_stop_lets_a_judgement_that_is_under_way_come() {
    let (asked, options) = asking();
    let at = Deciding::start(options);
    let mut client = at.ask("");
    let (_, answer) = asked.next();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| stop(&at.listener, StopOptions::default()));
        eventually("the port is closed", || {
            std::net::TcpStream::connect(at.address).is_err()
        });
        answer.give(OriginVerdict::Refused);
        assert_eq!(client.answer().status, 403);
        assert_eq!(stopping.join().expect("no panic").forced, 0);
    });
    at.finish();
}

/// How an upgrade may come to its end.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Opened,
    Refused,
    Gone,
    Unsendable,
}

#[test]
fn only_so_many_handshakes_are_under_way_whatever_becomes_of_them() {
    let mut options = options();
    options.limits.handshakes = Some(2);
    let mut at = Deciding::start(options);
    let mut open = Vec::new();
    let fates = [Fate::Opened, Fate::Refused, Fate::Gone, Fate::Unsendable];
    for fate in fates.repeat(8) {
        let mut client = at.ask("");
        let (id, _) = at.worker.wait_request();
        let kept = at.ask("");
        let (kept_id, _) = at.worker.wait_request();
        // Two wait, and so a third one does not.
        let mut third = at.ask("");
        let answer = third.answer();
        let retry = answer.header("retry-after");
        assert_eq!((answer.status, retry), (503, Some("1")), "{fate:?}");
        assert_eq!(answer.text(), "too many handshakes at once\n");
        match fate {
            Fate::Opened => {
                let decision = UpgradeDecision::Accept(Acceptance::default());
                at.broker.decide(id, decision);
                client.upgraded();
                open.push(client);
                at.worker.wait_opened(open.len());
            }
            Fate::Refused => {
                let refusal = response(401, &[], b"");
                at.broker.decide(id, UpgradeDecision::Refuse(refusal));
                assert_eq!(client.answer().status, 401);
            }
            Fate::Gone => drop(client),
            Fate::Unsendable => {
                let acceptance = Acceptance {
                    headers: vec![("x".into(), "a\nb".into())],
                    ..Acceptance::default()
                };
                at.broker.decide(id, UpgradeDecision::Accept(acceptance));
                assert_eq!(client.answer().status, 500);
            }
        }
        drop(kept);
        at.worker.wait("the other one is over", |seen| {
            let goes = |id| seen.contains(&Seen::Abort(id));
            (goes(kept_id) && (goes(id) || !matches!(fate, Fate::Gone))).then_some(())
        });
    }
    assert_eq!(at.broker.stats().limited.handshakes, 32);
    at.finish();
}

#[test]
fn a_handshake_that_is_being_judged_is_under_way_and_one_of_a_foreign_origin_is_not() {
    let (asked, mut options) = asking();
    options.limits.handshakes = Some(1);
    let at = Deciding::start(options);
    let mut client = at.ask("");
    let (_, answer) = asked.next();
    assert_eq!(at.ask("").answer().status, 503);
    answer.give(OriginVerdict::Refused);
    assert_eq!(client.answer().status, 403);
    client.send(handshake("/", ""));
    asked.next().1.give(OriginVerdict::Refused);
    assert_eq!(client.answer().status, 403);
    at.finish();
}

#[test]
fn what_a_client_sends_meanwhile_waits_in_buffers_of_a_fixed_size() {
    use std::io::Write;
    use wsbroker_engine::codec::Opcode;

    let mut at = Deciding::start(options());
    let mut client = at.ask("");
    let (id, _) = at.worker.wait_request();
    // 100 MB of numbered messages; the client gets rid of as much as the kernels' buffers take, and is stuck then.
    let messages: u32 = 1600;
    let mut tcp = client.tcp().try_clone().expect("a descriptor");
    tcp.set_write_timeout(Some(Duration::from_secs(120)))
        .expect("an option");
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let flood = std::thread::spawn(move || {
        for n in 0..messages {
            let frame = support::masked(Opcode::Binary, &n.to_be_bytes().repeat(16 << 10));
            for piece in frame.chunks(4096) {
                tcp.write_all(piece).expect("taken in the end");
                counter.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    let mut last = usize::MAX;
    eventually("the client is stuck", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = written.load(std::sync::atomic::Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now
    });
    // What the kernels buffer on loopback is several MB; whoever reads without bounds has all of it by now.
    assert!(last < 50 << 20, "{last} bytes were taken");
    let decision = UpgradeDecision::Accept(Acceptance::default());
    at.broker.decide(id, decision);
    client.upgraded();
    let socket = at.worker.wait_opened(1)[0];
    at.worker.wait("all messages", |seen| {
        let said = seen.iter().filter_map(|event| event.said(socket));
        (said.count() == messages as usize).then_some(())
    });
    let arrived = at.worker.seen.iter().filter_map(|event| event.said(socket));
    for (n, message) in arrived.enumerate() {
        assert_eq!(message, (n as u32).to_be_bytes().repeat(16 << 10));
    }
    flood.join().expect("no panic");
    at.finish();
}
