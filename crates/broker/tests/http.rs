//! HTTP/1.1 on raw bytes: framing, order, limits, and what becomes of a request that nobody answers.

mod support;

use std::time::Duration;

use support::{
    Answer, Client, Context, HTTP, Journal, ManualWorker, SOCKETS, Seen, Server, ThreadWorker,
    assert_nothing_left, at_once, broker, eventually, listen, options, response, stop,
};
use wsbroker_engine::{Finished, Interest, ListenAddress, ListenOptions, RequestId};

/// Answers what was asked, but for `/hold`.
fn web(context: &Context, event: &Seen) {
    let Seen::Request(id, head) = event else {
        return;
    };
    if head.url == "/hold" {
        return;
    }
    let said = format!("{} {} ", head.method, head.url);
    let said = [said.as_bytes(), &head.body].concat();
    let twice = [("x-twice", "1"), ("x-twice", "2")];
    assert!(context.broker.respond(*id, response(200, &twice, &said)));
}

fn serve(options: ListenOptions) -> Server {
    Server::start(options, HTTP, web)
}

/// The connection still serves, and the answers before it were framed right.
fn assert_usable(client: &mut Client) {
    let answer = client.get("/after");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "GET /after ")
    );
}

fn aborts(journal: &Journal) -> Vec<RequestId> {
    let events = journal.lock();
    let aborts = events.iter().filter_map(|event| match event {
        Seen::Abort(id) => Some(*id),
        _ => None,
    });
    aborts.collect()
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn one_connection_serves_request_after_request() {
    let server = serve(options());
    let mut client = server.connect();
    for n in 0..20 {
        let answer = client.request(&post(&format!("/{n}?q"), &"b".repeat(n)));
        assert_eq!(answer.text(), format!("POST /{n}?q {}", "b".repeat(n)));
    }
    assert_eq!(server.broker.stats().requests, 20);
    server.finish();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = serve(options());
    let mut client = server.connect();
    let all: String = (0..50).map(|n| post(&format!("/{n}"), "body")).collect();
    client.send(all);
    for n in 0..50 {
        assert_eq!(client.answer().text(), format!("POST /{n} body"));
    }
    server.finish();
}

#[test]
fn a_worker_is_given_the_request_as_it_came() {
    let server = serve(options());
    let mut client = server.connect();
    let answer = client.request(
        "PUT /a/b?c=d&e HTTP/1.1\r\nHost: test\r\nX-Many: 1\r\nx-many:  2 \r\nContent-Length: 3\r\n\r\nxyz",
    );
    let twice: Vec<_> = answer.headers.iter().filter(|h| h.0 == "x-twice").collect();
    assert_eq!(twice.len(), 2, "a repeated header of an answer is kept");
    let events = server.journal.lock();
    let [Seen::Request(_, head)] = events.as_slice() else {
        panic!("one request: {events:?}")
    };
    assert_eq!(
        (head.method.as_str(), head.url.as_str()),
        ("PUT", "/a/b?c=d&e")
    );
    assert_eq!(head.remote_address, "127.0.0.1");
    assert_eq!(head.all("x-many"), ["1", "2"]);
    assert_eq!(head.body, b"xyz");
    drop(events);
    server.finish();
}

/// Short ones take another way than long ones, and all of one turn stand behind each other.
#[test]
fn requests_of_all_sizes_are_told_apart() {
    let server = serve(options());
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let lengths = [0, 1, 100, 3_900, 3_999, 4_000, 4_050, 4_096, 4_097, 20_000];
    let body = |client: usize, n: usize| {
        let letter = char::from(b'a' + ((client * 7 + n) % 26) as u8);
        letter
            .to_string()
            .repeat(lengths[(client + n) % lengths.len()])
    };
    for (client, connection) in clients.iter_mut().enumerate() {
        let all: String = (0..lengths.len())
            .map(|n| post(&format!("/{n}"), &body(client, n)))
            .collect();
        connection.send(all);
    }
    for (client, connection) in clients.iter_mut().enumerate() {
        for n in 0..lengths.len() {
            let expected = format!("POST /{n} {}", body(client, n));
            assert_eq!(connection.answer().text(), expected);
        }
    }
    server.finish();
}

#[test]
fn a_chunked_body_is_put_together_and_its_end_is_found() {
    let server = serve(options());
    let mut client = server.connect();
    client.send("POST /c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\nde");
    client.send("fg\r\n0\r\nTrailer: t\r\n\r\n");
    assert_eq!(client.answer().text(), "POST /c abcdefg");
    assert_usable(&mut client);
    server.finish();
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let server = serve(options());
    let mut client = server.connect();
    client.send(
        "POST /e HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(client.head().status, 100);
    client.send("body");
    assert_eq!(client.answer().text(), "POST /e body");
    server.finish();
}

#[test]
fn a_client_that_waits_for_100_with_too_much_is_refused_before_it_sends() {
    let server = serve(options());
    let mut client = server.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
    );
    assert_eq!(client.answer().status, 413);
    client.end();
    server.finish();
}

#[test]
fn too_large_a_body_gets_413_which_can_be_read_in_the_middle_of_the_upload() {
    let mut small = options();
    small.max_body_size = 1000;
    let server = serve(small);
    for head in ["Content-Length: 4000000", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n"));
        let chunk = format!("186a0\r\n{}\r\n", "x".repeat(100_000));
        for _ in 0..40 {
            client
                .try_send(&chunk)
                .expect("the server reads the upload away");
        }
        let answer = client.answer();
        assert_eq!(answer.status, 413, "{head}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(server.broker.stats().requests, 0);
    server.finish();
}

#[test]
fn a_body_of_exactly_the_limit_is_taken() {
    let mut small = options();
    small.max_body_size = 1000;
    let server = serve(small);
    let body = "x".repeat(1000);
    let answer = server.connect().request(&post("/l", &body));
    assert_eq!(answer.text(), format!("POST /l {body}"));
    let chunked = format!(
        "POST /l HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n0\r\n\r\n"
    );
    assert_eq!(server.connect().request(&chunked).status, 200);
    assert_eq!(
        server
            .connect()
            .request(&post("/l", &format!("{body}x")))
            .status,
        413
    );
    server.finish();
}

#[test]
fn requests_that_a_worker_holds_when_it_ends_get_503() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::connect(address);
    client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
    let (id, _) = worker.wait_request();
    worker.worker.end(None);
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(broker.stats().dropped.unanswered_requests, 1);
    // Its answer comes after all, and harms nobody.
    broker.respond(id, response(200, &[], b"late"));
    eventually("the late answer is counted", || {
        broker.stats().dropped.late_responses == 1
    });
    assert_eq!(client.get("/b").status, 503, "no worker at all");
    assert_eq!(broker.stats().dropped.unanswered_requests, 2);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn requests_are_told_to_upgrade_while_the_workers_are_there_for_sockets_alone() {
    let server = Server::start(options(), SOCKETS, web);
    let mut client = server.connect();
    let answer = client.get("/");
    assert_eq!(
        (answer.status, answer.header("upgrade")),
        (426, Some("websocket"))
    );
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(answer.header("retry-after"), None, "nothing will change");
    let other = ThreadWorker::start(&server.broker, HTTP, &server.journal, web);
    assert_usable(&mut client);
    other.end();
    assert_eq!(server.broker.stats().dropped.unanswered_requests, 0);
    server.finish();
}

#[test]
fn requests_find_nothing_while_the_workers_ignore_sockets_too() {
    let ignores_sockets = Interest {
        ignores_sockets: true,
        ..SOCKETS
    };
    let server = Server::start(options(), ignores_sockets, web);
    let mut client = server.connect();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.header("upgrade")), (404, None));
    let sockets = ThreadWorker::start(&server.broker, SOCKETS, &server.journal, web);
    assert_eq!(client.get("/").status, 426, "one of them takes sockets");
    sockets.end();
    assert_eq!(server.broker.stats().dropped.unanswered_requests, 0);
    server.finish();
}

#[test]
fn a_late_worker_makes_a_504_and_its_answer_is_counted() {
    let mut hasty = options();
    hasty.request_timeout = Duration::from_millis(100);
    let server = serve(hasty);
    let mut client = server.connect();
    assert_eq!(client.get("/hold").status, 504);
    let id = server.journal.wait("the abort event", |events| {
        events.iter().find_map(|event| match event {
            Seen::Abort(id) => Some(*id),
            _ => None,
        })
    });
    assert_eq!(server.broker.stats().dropped.timed_out_requests, 1);
    server.broker.respond(id, response(200, &[], b"late"));
    eventually("the late answer is counted", || {
        server.broker.stats().dropped.late_responses == 1
    });
    assert_usable(&mut client);
    server.finish();
}

#[test]
fn a_client_that_goes_away_aborts_its_request() {
    let server = serve(options());
    for reset in [false, true] {
        let mut client = server.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
        let held = if reset { 2 } else { 1 };
        server.journal.wait("the request", |events| {
            let requests = events.iter().filter(|e| matches!(e, Seen::Request(..)));
            (requests.count() == held).then_some(())
        });
        match reset {
            true => client.reset(),
            false => drop(client),
        }
        eventually("the abort event", || aborts(&server.journal).len() == held);
        if !reset {
            // It may have ended its side alone, and read on.
            let id = aborts(&server.journal)[held - 1];
            assert!(
                server
                    .broker
                    .respond(id, response(200, &[], b"all the same"))
            );
        }
        eventually("none waits", || server.broker.stats().pending_requests == 0);
    }
    assert_eq!(server.broker.stats().dropped.late_responses, 0);
    server.finish();
}

#[test]
fn a_retired_worker_may_still_answer_and_leaves_nothing_when_its_client_goes() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, options());
    let (mut stays, mut goes) = (Client::connect(address), Client::connect(address));
    stays.send("GET /stays HTTP/1.1\r\nHost: test\r\n\r\n");
    let (id, _) = worker.wait_request();
    goes.send("GET /goes HTTP/1.1\r\nHost: test\r\n\r\n");
    worker.wait_request();
    worker.worker.retire(&[]);
    goes.reset();
    eventually("only one waits", || broker.stats().pending_requests == 1);
    broker.respond(id, response(200, &[], b"finished"));
    assert_eq!(stays.answer().text(), "finished");
    worker.worker.end(Some(Finished::default()));
    assert_eq!(broker.stats().dropped.unanswered_requests, 0);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

/// Sends what may be cut off by the answer, and reads that.
fn refused(server: &Server, request: &str) -> Answer {
    let mut client = server.connect();
    let _ = client.try_send(request);
    let answer = client.head();
    client.drained();
    answer
}

#[test]
fn a_request_line_of_a_megabyte_is_refused() {
    let server = serve(options());
    let line = format!(
        "GET /{} HTTP/1.1\r\nHost: test\r\n\r\n",
        "a".repeat(1 << 20)
    );
    assert!([414, 431].contains(&refused(&server, &line).status));
    assert_usable(&mut server.connect());
    server.finish();
}

#[test]
fn ten_thousand_headers_are_refused() {
    let server = serve(options());
    let headers: String = (0..10_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    assert_eq!(refused(&server, &request).status, 431);
    assert_eq!(server.broker.stats().requests, 0);
    server.finish();
}

#[test]
fn a_head_that_is_none_gets_400() {
    let server = serve(options());
    for request in [
        "what is this\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nx: \0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        assert_eq!(refused(&server, request).status, 400, "{request:?}");
    }
    assert_eq!(server.broker.stats().requests, 0);
    assert_usable(&mut server.connect());
    server.finish();
}

#[test]
fn a_body_with_broken_chunks_never_reaches_a_worker() {
    let server = serve(options());
    let request = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(refused(&server, request).status, 400);
    assert_eq!(server.broker.stats().requests, 0);
    server.finish();
}

#[test]
fn half_a_head_and_then_nothing_ends_the_connection() {
    let mut hasty = options();
    hasty.header_timeout = Duration::from_millis(200);
    let server = serve(hasty);
    for half in ["", "GET / HTTP/1.1\r\nHost: te"] {
        let mut client = server.connect();
        client.send(half);
        client.drained();
    }
    server.finish();
}

#[test]
fn a_connection_is_not_kept_for_good_between_two_requests() {
    let mut hasty = options();
    hasty.keep_alive_timeout = Duration::from_millis(200);
    let server = serve(hasty);
    let mut client = server.connect();
    assert_usable(&mut client);
    client.end();
    server.finish();
}

#[test]
fn a_body_that_comes_too_slowly_gets_408() {
    let mut hasty = options();
    hasty.body_timeout = Duration::from_millis(200);
    let server = serve(hasty);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.answer().status, 408);
    client.end();
    assert_eq!(server.broker.stats().requests, 0);
    server.finish();
}

#[test]
fn an_old_client_is_served_and_let_go() {
    let server = serve(options());
    let mut client = server.connect();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().text(), "GET /old ");
    client.end();
    server.finish();
}

#[test]
fn several_listeners_share_one_broker() {
    let server = serve(options());
    let (second, address) = listen(&server.broker, options());
    assert_ne!(address, server.address);
    assert_usable(&mut Client::connect(address));
    assert_usable(&mut server.connect());
    let mut on_second = Client::open(address);
    let (mut on_first, _) = server.open();
    assert_eq!(server.broker.connection_count(), 2);
    let message = wsbroker_engine::OutboundMessage::text("to both");
    assert_eq!(server.broker.broadcast(&message), 2);
    assert_eq!(
        (on_first.text(), on_second.text()),
        ("to both".into(), "to both".into())
    );
    assert_eq!(server.broker.stats().listeners, 2);
    stop(&second, at_once());
    server.finish();
}

#[cfg(unix)]
#[test]
fn a_unix_socket_serves_and_its_file_goes_with_the_stop() {
    let path = std::env::temp_dir().join(format!("wsbroker-http-{}.sock", std::process::id()));
    let server = serve(options());
    let bind = format!("unix:{}", path.display())
        .parse()
        .expect("an address");
    let listener = server
        .broker
        .listen(ListenOptions::new(bind))
        .expect("free");
    assert_eq!(listener.address(), &ListenAddress::Unix(path.clone()));
    let mut client = Client::connect_unix(&path);
    assert_usable(&mut client);
    let remote = server.journal.lock().iter().find_map(|event| match event {
        Seen::Request(_, head) => Some(head.remote_address.clone()),
        _ => None,
    });
    assert_eq!(remote.as_deref(), Some("unix"));
    client.upgrade("/", "");
    stop(&listener, at_once());
    assert!(!path.exists());
    server.finish();
}
