//! Clients that end their own side and go on reading, as `nc -N` and some health checks do.

mod support;

#[cfg(unix)]
use std::io::{Read, Write};
#[cfg(unix)]
use std::net::Shutdown;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::{
    Answer, BOTH, Client, Context, DEADLINE, HTTP, ManualWorker, SOCKETS, Seen, Server,
    assert_nothing_left, at_once, broker, eventually, handshake, listen, options, response, stop,
    tell_address,
};
use wsbroker_engine::{ListenOptions, RequestId};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Answers with what was asked, but for `/hold`.
fn web(context: &Context, event: &Seen) {
    if let Seen::Request(id, head) = event
        && head.url != "/hold"
    {
        let said = [head.url.as_bytes(), b" ", &head.body].concat();
        context.broker.respond(*id, response(200, &[], &said));
    }
}

fn serve(options: ListenOptions) -> Server {
    Server::start(options, HTTP, web)
}

/// Says this and nothing more.
fn last_words(server: &Server, request: &str) -> Client {
    let mut client = server.connect();
    client.send(request);
    client.shutdown();
    client
}

/// The request that is held behind so many others.
fn held(server: &Server, others: usize) -> RequestId {
    server.journal.wait("the request", |events| {
        let mut held = events.iter().filter_map(|event| match event {
            Seen::Request(id, head) | Seen::Upgrade(id, head) if head.url == "/hold" => Some(*id),
            _ => None,
        });
        held.nth(others)
    })
}

fn aborts_of(server: &Server, id: RequestId) -> usize {
    let events = server.journal.lock();
    events.iter().filter(|e| **e == Seen::Abort(id)).count()
}

fn aborted(server: &Server, id: RequestId) {
    eventually("its worker is told", || aborts_of(server, id) > 0);
}

#[test]
fn a_request_that_is_its_client_s_last_word_is_answered() {
    let server = serve(options());
    let post = "POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody";
    let chunks = "POST /c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    for (request, expected) in [
        (get("/g").as_str(), "/g "),
        ("GET /old HTTP/1.0\r\n\r\n", "/old "),
        (post, "/p body"),
        (chunks, "/c body"),
    ] {
        let mut client = last_words(&server, request);
        assert_eq!(client.answer().text(), expected);
        client.end();
    }
    assert_eq!(server.broker.stats().dropped.late_responses, 0);
    server.finish();
}

#[test]
fn all_that_was_pipelined_before_the_end_is_answered() {
    let server = serve(options());
    let requests: String = (0..20).map(|n| get(&format!("/{n}"))).collect();
    let mut client = last_words(&server, &requests);
    for n in 0..20 {
        assert_eq!(client.answer().text(), format!("/{n} "));
    }
    client.end();
    server.finish();
}

#[test]
fn an_answer_that_takes_its_time_comes_after_the_end_and_its_worker_knows() {
    let server = serve(options());
    for (others, ends_later) in [false, true].into_iter().enumerate() {
        let mut client = server.connect();
        client.send(get("/hold"));
        if ends_later {
            eventually("it waits", || server.broker.stats().pending_requests == 1);
        }
        client.shutdown();
        eventually("it waits", || server.broker.stats().pending_requests == 1);
        let id = held(&server, others);
        aborted(&server, id);
        assert!(client.is_silent_for(Duration::from_millis(50)));
        let large = vec![b'x'; 3_000_000];
        server.broker.respond(id, response(200, &[], &large));
        assert_eq!(client.answer().body.len(), large.len());
        client.end();
        assert_eq!(aborts_of(&server, id), 1);
    }
    assert_eq!(server.broker.stats().dropped.late_responses, 0);
    server.finish();
}

/// To end one's side and to close send the same; what is written afterwards tells.
#[test]
fn nothing_but_a_reset_tells_a_client_that_left_from_one_that_still_reads() {
    let server = serve(options());
    let mut client = server.connect();
    client.send(get("/hold"));
    let id = held(&server, 0);
    drop(client);
    aborted(&server, id);
    assert_eq!(server.broker.stats().pending_requests, 1, "it may read");
    server.broker.respond(id, response(200, &[], b"to nobody"));
    eventually("nothing waits", || {
        server.broker.stats().pending_requests == 0
    });
    assert_eq!(server.broker.stats().dropped.late_responses, 0);
    server.finish();
}

#[test]
fn a_client_that_ends_its_side_and_is_gone_then_is_not_waited_for() {
    let server = serve(options());
    let mut client = server.connect();
    client.send(get("/hold"));
    let id = held(&server, 0);
    client.shutdown();
    aborted(&server, id);
    client.reset();
    eventually("nothing waits", || {
        server.broker.stats().pending_requests == 0
    });
    assert_eq!(aborts_of(&server, id), 1, "it is told once");
    server.finish();
}

#[test]
fn whoever_is_never_answered_gets_504_and_its_worker_is_told_once() {
    let mut hasty = options();
    hasty.request_timeout = Duration::from_millis(100);
    let server = serve(hasty);
    let mut client = last_words(&server, &get("/hold"));
    let id = held(&server, 0);
    assert_eq!(client.answer().status, 504);
    client.end();
    aborted(&server, id);
    assert_eq!(aborts_of(&server, id), 1);
    server.finish();
}

#[test]
fn the_end_of_a_worker_is_answered_after_the_end_of_a_client() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::connect(address);
    client.send(get("/"));
    client.shutdown();
    let (id, _) = worker.wait_request();
    worker.wait("the abort", |seen| {
        seen.contains(&Seen::Abort(id)).then_some(())
    });
    worker.worker.end(None);
    assert_eq!(client.answer().status, 503);
    client.end();
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

/// What is left of a request that ends in the middle: the answer, if there is one.
fn rest_of(server: &Server, half: &str) -> Option<Answer> {
    let mut client = last_words(server, half);
    let rest = client.drained();
    if rest.is_empty() {
        return None;
    }
    let text = String::from_utf8(rest).expect("a head is text");
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|t| t[..3].parse().ok());
    Some(Answer {
        status: status.expect("a status"),
        headers: Vec::new(),
        body: Vec::new(),
    })
}

/// Every timeout is far longer than the test waits.
#[test]
fn what_ends_in_the_middle_ends_at_once() {
    let mut patient = options();
    for timeout in [
        &mut patient.header_timeout,
        &mut patient.body_timeout,
        &mut patient.keep_alive_timeout,
        &mut patient.request_timeout,
    ] {
        *timeout = Duration::from_secs(3600);
    }
    patient.min_body_rate = None;
    let server = serve(patient);
    for half in [
        "",
        "\r\n",
        "G",
        "GET / HTTP/1.1\r\nHost: te",
        "GET / HTTP/1.1\r\nHost: test\r\n",
    ] {
        assert!(rest_of(&server, half).is_none(), "{half:?}");
    }
    let post = "POST / HTTP/1.1\r\nHost: test\r\n";
    for rest in [
        "Content-Length: 10\r\n\r\n",
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nha",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        let answer = rest_of(&server, &[post, rest].concat());
        assert_eq!(answer.expect("an answer").status, 400, "{rest:?}");
    }
    let mut client = last_words(
        &server,
        &[get("/whole"), get("/ha")[..20].to_owned()].concat(),
    );
    assert_eq!(client.answer().text(), "/whole ");
    client.end();
    assert_eq!(
        server.broker.stats().requests,
        1,
        "what is not whole is nobody's"
    );
    server.finish();
}

/// A socket needs both sides.
#[test]
fn an_upgrade_is_not_decided_for_a_client_that_says_nothing_more() {
    let mut one = options();
    one.limits.handshakes = Some(1);
    let server = Server::start(one, BOTH, tell_address);
    for (others, ends_later) in [false, true].into_iter().enumerate() {
        let mut client = server.connect();
        client.send(handshake("/hold", ""));
        if ends_later {
            eventually("it waits", || server.broker.stats().pending_requests == 1);
        }
        client.shutdown();
        client.end();
        let id = held(&server, others);
        aborted(&server, id);
        eventually("nothing waits", || {
            server.broker.stats().pending_requests == 0
        });
        assert_eq!(aborts_of(&server, id), 1);
    }
    assert_eq!(server.connect().get("/").status, 200);
    server.open();
    server.finish();
}

/// An upgrade that is decided at once may be so before its client's end is seen; its socket ends then.
#[test]
fn a_socket_that_opens_for_a_client_that_says_nothing_more_closes() {
    let server = Server::start(options(), SOCKETS, |_, _| {});
    for _ in 0..50 {
        last_words(&server, &handshake("/", "")).drained();
    }
    eventually("none is open", || {
        let stats = server.broker.stats();
        stats.connections == 0 && stats.opened == stats.closed
    });
    server.finish();
}

#[test]
fn a_connection_that_waits_for_its_next_request_ends_with_its_client() {
    let server = serve(options());
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.shutdown();
    client.end();
    server.finish();
}

/// Here the end of one side and that of both are told apart; the latter is tested with those who leave.
#[cfg(unix)]
#[test]
fn whoever_ends_its_side_of_a_unix_socket_is_answered_too() {
    let path = std::env::temp_dir().join(format!("wsbroker-half-{}.sock", std::process::id()));
    let server = serve(options());
    let bind = format!("unix:{}", path.display());
    let bind = bind.parse().expect("an address");
    let listener = server
        .broker
        .listen(ListenOptions::new(bind))
        .expect("a free path");
    let mut stream = UnixStream::connect(&path).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.write_all(get("/hold").as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut");
    let id = held(&server, 0);
    aborted(&server, id);
    eventually("it waits", || server.broker.stats().pending_requests == 1);
    server.broker.respond(id, response(200, &[], b"late"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("\r\n\r\nlate"), "{answer}");
    stop(&listener, at_once());
    server.finish();
}

/// The worker that was to be told leaves before it takes anything: whoever gets the request is told with it.
#[test]
fn the_next_worker_of_a_request_is_told_that_its_client_has_ended() {
    let broker = broker();
    let leaving = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::connect(address);
    client.send(get("/"));
    eventually("it waits", || leaving.waiting(&broker) == 1);
    client.shutdown();
    eventually("so does its end", || leaving.waiting(&broker) == 2);
    let mut next = ManualWorker::register(&broker, HTTP);
    leaving.worker.end(None);
    let (id, _) = next.wait_request();
    next.wait("the abort", |seen| {
        seen.contains(&Seen::Abort(id)).then_some(())
    });
    broker.respond(id, response(200, &[], b"all the same"));
    assert_eq!(client.answer().text(), "all the same");
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}
