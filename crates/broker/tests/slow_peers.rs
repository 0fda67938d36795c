//! Peers that take their time with HTTP, and heads that are too large. When exactly a deadline comes is shown by the unit
//! tests of `http/deadlines.rs`; here, that it has its effect, and on nobody else.

mod support;

use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use support::{
    Client, Context, DEADLINE, HTTP, ManualWorker, Seen, Server, assert_nothing_left, at_once,
    broker, eventually, listen, options, response, stop,
};
use wsbroker_engine::ListenOptions;

const SOON: Duration = Duration::from_millis(200);

/// More than the kernel's buffers of a connection hold.
const LARGE: usize = 64 << 20;

fn web(context: &Context, event: &Seen) {
    if let Seen::Request(id, head) = event {
        let body = match head.url.as_str() {
            "/large" => vec![b'x'; LARGE],
            "/some" => vec![b'x'; 1 << 20],
            _ => head.body.clone(),
        };
        context.broker.respond(*id, response(200, &[], &body));
    }
}

fn serve(options: ListenOptions) -> Server {
    Server::start(options, HTTP, web)
}

#[test]
fn half_a_head_gets_408_and_silence_nothing() {
    let mut hasty = options();
    hasty.header_timeout = SOON;
    let server = serve(hasty);
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.send("GET / HTTP/1.1\r\nHost: te");
    let answer = slow.answer();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (408, Some("close"))
    );
    assert_eq!(answer.text(), "the head came too slowly\n");
    slow.end();
    silent.end();
    assert_eq!(server.broker.stats().dropped.slow_requests, 1);
    server.finish();
}

#[test]
fn a_byte_now_and_then_is_no_more_time_for_a_head() {
    let mut hasty = options();
    hasty.header_timeout = SOON;
    let server = serve(hasty);
    let mut client = server.connect();
    let began = Instant::now();
    let mut line = "GET / HTTP/1.1\r\nHost: test\r\nX: "
        .bytes()
        .chain([b'x'].repeat(1 << 20));
    while client.is_silent_for(Duration::from_millis(10)) {
        assert!(began.elapsed() < DEADLINE, "still not cut");
        if let Some(byte) = line.next() {
            let _ = client.try_send([byte]);
        }
    }
    assert_eq!(client.answer().status, 408);
    server.finish();
}

#[test]
fn a_head_that_has_begun_has_less_time_than_a_connection_that_is_kept() {
    let mut patient = options();
    patient.header_timeout = SOON;
    patient.keep_alive_timeout = Duration::from_secs(3600);
    let server = serve(patient);
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    // The time of a first head is long over; this is how one knows.
    server.connect().end();
    assert_eq!(client.get("/").status, 200);
    client.send("GET /");
    assert_eq!(client.answer().status, 408);
    client.end();
    server.finish();
}

#[test]
fn a_handler_may_take_longer_than_any_client() {
    let mut hasty = options();
    hasty.header_timeout = SOON;
    hasty.keep_alive_timeout = SOON;
    hasty.body_timeout = SOON;
    hasty.write_timeout = SOON;
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, HTTP);
    let (listener, address) = listen(&broker, hasty);
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody");
    let (id, _) = worker.wait_request();
    for _ in 0..2 {
        Client::connect(address).end(); // so long it takes
    }
    broker.respond(id, response(200, &[], b"at last"));
    assert_eq!(client.answer().text(), "at last");
    client.end();
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn a_body_below_the_least_rate_gets_408_long_before_its_time_is_over() {
    let mut patient = options();
    patient.body_timeout = Duration::from_secs(3600);
    patient.min_body_rate = NonZeroU32::new(1000);
    let server = serve(patient);
    let mut chunked = server.connect();
    chunked.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nhalf");
    for client in [&mut client, &mut chunked] {
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (408, Some("close"))
        );
        client.end();
    }
    let stats = server.broker.stats();
    assert_eq!((stats.requests, stats.dropped.slow_requests), (0, 2));
    server.finish();
}

/// Reads what still comes; the connection must end by a reset, for the peer did not get all of it.
fn assert_reset(client: &mut Client) {
    let mut tcp = client.tcp();
    let mut piece = vec![0; 1 << 20];
    let error = loop {
        match std::io::Read::read(&mut tcp, &mut piece) {
            Ok(0) => panic!("an end in order of an answer that was not sent to its end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_answer_that_is_not_read_is_cut_and_counted() {
    let mut hasty = options();
    hasty.write_timeout = SOON;
    let server = serve(hasty);
    let mut unread = server.connect();
    unread.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut pipelining = server.connect();
    pipelining.send("GET /some HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100));
    eventually("both are cut", || {
        server.broker.stats().dropped.unread_responses == 2
    });
    for client in [&mut unread, &mut pipelining] {
        assert_reset(client);
    }
    assert_eq!(server.broker.stats().dropped.slow_requests, 0);
    server.finish();
}

#[test]
fn an_answer_that_is_read_arrives_whole_however_large_it_is() {
    let server = serve(options());
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.answer().body.len(), LARGE);
    assert_eq!(client.get("/").status, 200);
    server.finish();
}

/// A request whose head has this many bytes.
fn head_of(size: usize) -> String {
    let (start, end) = ("GET / HTTP/1.1\r\nHost: test\r\nX: ", "\r\n\r\n");
    format!("{start}{}{end}", "x".repeat(size - start.len() - end.len()))
}

#[test]
fn a_head_may_have_exactly_the_largest_size() {
    for limit in [256, 1000, 32 << 10, 100 << 10] {
        let mut small = options();
        small.max_header_size = limit;
        let server = serve(small);
        let mut client = server.connect();
        for _ in 0..2 {
            assert_eq!(client.request(&head_of(limit)).status, 200, "{limit}");
        }
        // With the next one right behind it, and in two pieces.
        client.send(head_of(limit).repeat(2));
        assert_eq!([client.answer().status, client.answer().status], [200, 200]);
        let head = head_of(limit);
        client.send(&head[..limit - 1]);
        assert!(client.is_silent_for(Duration::from_millis(20)));
        client.send(&head[limit - 1..]);
        assert_eq!(client.answer().status, 200);

        let requests = server.broker.stats().requests;
        let mut client = server.connect();
        let _ = client.try_send(head_of(limit + 1));
        assert_eq!(client.head().status, 431, "{limit}");
        client.drained();
        assert_eq!(server.broker.stats().requests, requests);
        server.finish();
    }
}

#[test]
fn a_head_may_have_exactly_the_most_headers() {
    for limit in [2, 100, 150] {
        let mut few = options();
        few.max_headers = limit;
        let server = serve(few);
        let with = |count: usize| {
            let more: String = (1..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
            format!("GET / HTTP/1.1\r\nHost: test\r\n{more}\r\n")
        };
        let mut client = server.connect();
        assert_eq!(client.request(&with(limit)).status, 200, "{limit}");
        client.send(with(limit + 1));
        assert_eq!(client.head().status, 431, "{limit}");
        client.drained();
        server.finish();
    }
}
