//! What a request is for, on raw bytes: targets, `Host`, codings and lengths that servers could disagree about.

mod support;

use support::{
    Answer, BOTH, Client, Context, Random, Seen, Server, handshake, options, response, seed,
    serve_addresses,
};
use wsbroker_engine::{Acceptance, ListenOptions, UpgradeDecision};

/// Answers with the host and the target that it was given.
fn told(context: &Context, event: &Seen) {
    match event {
        Seen::Request(id, head) => {
            let said = format!("{} {:?} {}", head.method, head.all("host"), head.url);
            context
                .broker
                .respond(*id, response(200, &[], said.as_bytes()));
        }
        Seen::Upgrade(id, _) => {
            let acceptance = UpgradeDecision::Accept(Acceptance::default());
            context.broker.decide(*id, acceptance);
        }
        _ => {}
    }
}

fn serve(options: ListenOptions) -> Server {
    Server::start(options, BOTH, told)
}

/// What a handler is told of a request on a connection of its own.
fn seen(server: &Server, request: &str) -> String {
    let answer = server.connect().request(request);
    assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
    answer.text()
}

/// The answer to a request that no handler gets, and nothing of what came behind it.
fn refused(server: &Server, request: &str) -> Answer {
    let before = server.broker.stats().requests;
    let mut client = server.connect();
    client.send([request, "GET /behind HTTP/1.1\r\nHost: test\r\n\r\n"].concat());
    let answer = client.answer();
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "{request:?}: {answer:?}"
    );
    client.end();
    assert_eq!(server.broker.stats().requests, before, "{request:?}");
    answer
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

fn with_host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn the_host_of_a_whole_url_is_the_only_one_that_anybody_sees() {
    let server = serve(options());
    for (target, expected) in [
        ("http://a.example/x", r#"GET ["a.example"] /x"#),
        ("http://a.example:8080", r#"GET ["a.example:8080"] /"#),
        ("HTTPS://A.example/x?y#z", r#"GET ["A.example"] /x?y"#),
        ("http://a?b=c", r#"GET ["a"] /?b=c"#),
        ("ws://[::1]:80//x//", r#"GET ["[::1]:80"] //x//"#),
    ] {
        assert_eq!(seen(&server, &get(target)), expected);
    }
    let old = "GET http://a/x HTTP/1.0\r\n\r\n";
    assert_eq!(seen(&server, old), r#"GET ["a"] /x"#);
    let posted = "POST http://a/x HTTP/1.1\r\nhost: b\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(seen(&server, posted), r#"POST ["a"] /x"#);
    server.finish();
}

#[test]
fn the_host_of_an_upgrade_to_a_whole_url_is_that_url_s() {
    let server = serve(options());
    let mut client = server.connect();
    client.send(handshake("ws://a.example/chat", ""));
    client.upgraded();
    let head = server.journal.wait("the upgrade", |events| {
        events.iter().find_map(|event| match event {
            Seen::Upgrade(_, head) => Some(head.clone()),
            _ => None,
        })
    });
    assert_eq!(
        (head.url.as_str(), head.all("host")),
        ("/chat", vec!["a.example"])
    );
    drop(client);
    server.finish();
}

#[test]
fn what_is_neither_a_path_nor_a_whole_url_is_refused() {
    let server = serve(options());
    for target in [
        "admin",
        "admin:80",
        "*",
        "*x",
        "**",
        "?x",
        "admin/x",
        "http:///x",
        "http://:80/",
        "http://u@a/",
        "http://u:p@a/x",
        "http://a:x/",
        "http://a:80:80/",
        "http://a:65536/",
        "http://a|b/",
        "ftp://a/",
        "x://a/",
        "//",
        "http:/a",
        "a@b",
    ] {
        // `//` is a path, and all others are none.
        if target == "//" {
            assert_eq!(seen(&server, &get(target)), r#"GET ["test"] //"#);
        } else {
            assert_eq!(refused(&server, &get(target)).status, 400, "{target}");
        }
    }
    let whole = "OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(seen(&server, whole), r#"OPTIONS ["test"] *"#);
    server.finish();
}

#[test]
fn no_handler_is_asked_for_a_tunnel() {
    let server = serve(options());
    for target in ["a.example:443", "/", "http://a.example/", "*"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(refused(&server, &request).status, 501, "{target}");
    }
    let upgrade = handshake("/", "").replacen("GET", "CONNECT", 1);
    assert_eq!(refused(&server, &upgrade).status, 501);
    server.finish();
}

#[test]
fn a_host_that_is_none_is_refused() {
    let server = serve(options());
    for host in [
        "a b",
        "a@b",
        "u:p@a",
        "a/b",
        "http://a",
        "a:b",
        "a:80:80",
        "a:99999",
        ":80",
        "::1",
        "[::1",
        "[x]",
        "a\tb",
        "a\"b",
        "caf\u{e9}",
        "a%zz",
    ] {
        assert_eq!(refused(&server, &with_host(host)).status, 400, "{host:?}");
        // Whoever wants a path at another host has to say a sound one as well.
        let whole = with_host(host).replacen('/', "http://a/", 1);
        assert_eq!(refused(&server, &whole).status, 400, "{host:?}");
        let upgrade = handshake("/", "").replacen("test", host, 1);
        assert_eq!(refused(&server, &upgrade).status, 400, "{host:?}");
    }
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost:\r\n"] {
        let request = format!("GET http://a/ HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(refused(&server, &request).status, 400, "{hosts:?}");
    }
    for host in ["", "a", "a:", "[::1]:8080", "192.0.2.1", "a_b"] {
        let expected = format!("GET [{host:?}] /");
        assert_eq!(seen(&server, &with_host(host)), expected);
    }
    let twice = "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n";
    let answer = server.connect().request(twice);
    assert_eq!(answer.status, 400);
    server.finish();
}

#[test]
fn a_body_that_is_coded_in_another_way_than_in_chunks_never_reaches_a_handler() {
    let server = serve(options());
    let post = |codings: &str| {
        format!("POST / HTTP/1.1\r\nHost: test\r\n{codings}\r\n1\r\nx\r\n0\r\n\r\n")
    };
    for codings in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
    ] {
        assert_eq!(refused(&server, &post(codings)).status, 501, "{codings}");
    }
    // Where chunks are not the last coding nobody knows where the body ends (RFC 9112 section 6.3).
    for codings in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
    ] {
        assert_eq!(refused(&server, &post(codings)).status, 400, "{codings}");
    }
    assert_eq!(
        seen(&server, &post("Transfer-Encoding: Chunked\r\n")),
        r#"POST ["test"] /"#
    );
    server.finish();
}

/// Of two framings that disagree the chunks hold, and nothing behind them is believed (RFC 9112 section 6.1).
#[test]
fn a_length_beside_chunks_ends_the_connection() {
    let server = serve(options());
    for lengths in ["Content-Length: 3", "Content-Length: 99999"] {
        for chunked_first in [false, true] {
            let mut framings = [lengths, "Transfer-Encoding: chunked"];
            if chunked_first {
                framings.reverse();
            }
            let framings = framings.join("\r\n");
            let mut client = server.connect();
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: test\r\n{framings}\r\n\r\n0\r\n\r\n{}",
                get("/smuggled")
            ));
            let answer = client.answer();
            assert_eq!(answer.header("connection"), Some("close"), "{framings}");
            client.end();
        }
    }
    server.finish();
}

#[test]
fn a_length_beyond_the_limit_is_too_large_however_many_digits_it_has() {
    let server = serve(options());
    let lengths = ["99999999", "9999999999999999999", "18446744073709551613"];
    let huge = [
        "18446744073709551614",
        "18446744073709551615",
        "18446744073709551616",
    ];
    let endless = "9".repeat(5000);
    for length in lengths.iter().chain(&huge).chain([&endless.as_str()]) {
        for method in ["GET", "POST"] {
            let request =
                format!("{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(refused(&server, &request).status, 413, "{method} {length}");
        }
    }
    for length in [
        "-1",
        "+1",
        "1, 2",
        "0x10",
        "1e3",
        "",
        "99999999999999999999, 1",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(refused(&server, &request).status, 400, "{length:?}");
    }
    let zeros =
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 000000000000000000000001\r\n\r\nx";
    assert_eq!(seen(&server, zeros), r#"POST ["test"] /"#);
    server.finish();
}

/// Everything that Node's client sends as it is.
const PRINTABLE: &str = "!$%&'()*+,-./09:;<=>@AZ[\\]^_`az{|}~\"";

#[test]
fn a_path_and_a_query_are_told_as_they_came() {
    let server = serve(options());
    let mut client = server.connect();
    for target in [
        format!("/{PRINTABLE}?{PRINTABLE}?{PRINTABLE}"),
        r#"/?q={"a":["<b>`"]}"#.to_owned(),
        "/<\u{e9}>?\"\u{e9}\"".to_owned(),
        "/?\"".to_owned(),
        format!("/?{}", "<".repeat(20_000)),
    ] {
        let told = format!("GET [\"test\"] {target}");
        assert_eq!(client.request(&get(&target)).text(), told);
        // A body, however it is framed, does not hide where the next head begins.
        let length = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n<\"x";
        assert_eq!(client.request(length).status, 200);
        assert_eq!(client.request(&get(&target)).text(), told);
        let chunks = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\"<\r\n0\r\n\r\n";
        assert_eq!(client.request(chunks).status, 200);
        assert_eq!(client.request(&get(&target)).text(), told);
        let whole = get(&target);
        let (half, rest) = whole.split_at(8);
        client.send(half);
        client.send(rest);
        assert_eq!(client.answer().text(), told);
    }
    client.send(handshake("/?\"<`>\"", ""));
    client.upgraded();
    let url = server.journal.wait("the upgrade", |events| {
        events.iter().find_map(|event| match event {
            Seen::Upgrade(_, head) => Some(head.url.clone()),
            _ => None,
        })
    });
    assert_eq!(url, "/?\"<`>\"");
    drop(client);
    server.finish();
}

#[test]
fn a_body_is_handed_on_as_it_came_whatever_it_looks_like() {
    let server = Server::start(options(), BOTH, |context, event| {
        if let Seen::Request(id, head) = event {
            context.broker.respond(*id, response(200, &[], &head.body));
        }
    });
    let body = "GET /\"<`> HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n";
    let length = body.len();
    let mut client = server.connect();
    for head in [
        format!("Content-Length: {length}\r\n\r\n{body}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
    ] {
        for method in ["GET", "POST"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: test\r\n{head}");
            assert_eq!(client.request(&request).text(), body);
            for cut in [20, request.len() - length, request.len() - 20] {
                let (half, rest) = request.split_at(cut);
                client.send(half);
                client.send(rest);
                assert_eq!(client.answer().text(), body);
            }
        }
    }
    server.finish();
}

/// Bodies that look like heads, and heads that begin anywhere in what is read together.
#[test]
fn nothing_of_a_request_changes_however_its_bytes_are_cut() {
    let seed = seed();
    let mut random = Random::new(seed);
    let server = Server::start(options(), BOTH, |context, event| {
        if let Seen::Request(id, head) = event {
            let said = [head.url.as_bytes(), b" ", &head.body].concat();
            context.broker.respond(*id, response(200, &[], &said));
        }
    });
    let pieces = [
        "GET /\"<`> HTTP/1.1",
        "\r\n",
        "\n",
        "\r\n\r\n",
        "content-length: 99999999999999999999\r\n",
        "POST /",
        "x",
        "\"",
    ];
    for _ in 0..50 {
        let mut client = server.connect();
        let mut sent = String::new();
        let mut told = Vec::new();
        for n in 0..=random.below(10) {
            let body: String = (0..random.below(8))
                .map(|_| pieces[random.below(pieces.len())])
                .collect();
            let length = body.len();
            let method = ["GET", "POST"][random.below(2)];
            sent += &match random.below(3) {
                0 => format!("{method} /{n} HTTP/1.1\r\nhost: a\r\n"),
                1 => format!("{method} /{n} HTTP/1.1\nhost: a\n"),
                _ => format!("{method} /{n} HTTP/1.1\r\nx: \"<\"\r\nhost: a\r\n"),
            };
            sent += &match random.below(3) {
                0 if length > 0 => {
                    format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
                }
                _ => format!("content-length: {length}\r\n\r\n{body}"),
            };
            told.push(format!("/{n} {body}"));
        }
        let mut rest = sent.as_bytes();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.below(rest.len()) + 1);
            client.send(now);
            rest = later;
        }
        for expected in told {
            assert_eq!(client.answer().text(), expected, "seed {seed}: {sent:?}");
        }
    }
    server.finish();
}

/// What a client asks, what a handler answers to it, and the length that the client is told.
type Sent = (
    &'static str,
    u16,
    &'static [(&'static str, &'static str)],
    Option<&'static str>,
);

#[test]
fn what_has_no_content_is_sent_without_any() {
    let length = &[("content-length", "9")][..];
    let answers: [Sent; 12] = [
        ("GET", 205, &[], Some("0")),
        ("POST", 205, length, Some("0")),
        ("HEAD", 205, &[], None),
        ("HEAD", 205, length, None),
        ("GET", 204, length, None),
        ("HEAD", 204, length, None),
        ("GET", 304, length, None),
        ("HEAD", 304, length, Some("9")),
        ("HEAD", 200, length, Some("9")),
        ("HEAD", 200, &[], Some("4")),
        ("HEAD", 200, &[("content-length", "none")], Some("4")),
        (
            "HEAD",
            200,
            &[("content-length", "1"), ("content-length", "2")],
            Some("4"),
        ),
    ];
    let server = Server::start(options(), BOTH, move |context, event| {
        let Seen::Request(id, head) = event else {
            return;
        };
        let answer = match head.url[1..].parse::<usize>() {
            Ok(n) => response(answers[n].1, answers[n].2, b"four"),
            Err(_) => response(200, &[], b"next"),
        };
        context.broker.respond(*id, answer);
    });
    let mut client = server.connect();
    for (n, (method, status, _, length)) in answers.iter().enumerate() {
        client.send(format!("{method} /{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.status, *status, "{method} {status}");
        assert_eq!(head.header("content-length"), *length, "{method} {status}");
        // No byte of a body stands before the next answer.
        assert_eq!(client.get("/next").text(), "next", "{method} {status}");
    }
    server.finish();
}

#[test]
fn what_is_refused_for_its_target_costs_its_client_a_request() {
    let server = serve_addresses(|options| options.limits.requests_per_ip = support::once(2));
    for _ in 0..2 {
        assert_eq!(server.connect().get("admin").status, 400);
    }
    assert_eq!(Client::connect(server.address).get("/").status, 429);
    server.finish();
}
