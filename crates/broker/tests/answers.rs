//! Answers on raw bytes: what of them goes out, whatever form a worker gave them.

mod support;

use support::{Client, Context, HTTP, Seen, Server, options, response};

/// Such a path is answered in one piece, as JavaScript's short answers are.
const PACKED: &str = "?packed";

/// Answers by path.
fn web(context: &Context, event: &Seen) {
    let Seen::Request(id, head) = event else {
        return;
    };
    let path = head.url.strip_suffix(PACKED);
    let answer = match path.unwrap_or(&head.url) {
        "/length" => response(200, &[("content-length", "1234")], b""),
        "/bad-status" => response(99, &[], b"x"),
        "/bad-value" => response(200, &[("x-bad", "a\r\nb: c")], b"x"),
        "/bad-name" => response(200, &[("x bad", "a")], b"x"),
        "/204" => response(204, &[("content-length", "5")], b"five!"),
        "/304" => response(304, &[("etag", "\"a\"")], b"five!"),
        "/text" => response(200, &[("content-type", "text/plain; charset=utf-8")], b"x"),
        _ => response(200, &[("x-twice", "1"), ("x-twice", "2")], b"x"),
    };
    if path.is_none() {
        assert!(context.broker.respond(*id, answer));
        return;
    }
    let mut packed = Vec::new();
    for (name, value) in &answer.headers {
        packed.extend([name, &b"\n"[..], value, b"\n"].concat());
    }
    let (status, body) = (answer.status, &answer.body);
    assert!(context.broker.respond_copied(*id, status, &packed, body));
}

fn serve() -> Server {
    Server::start(options(), HTTP, web)
}

/// The connection still serves, and the answers before it were framed right.
fn assert_usable(client: &mut Client) {
    let answer = client.get("/after");
    assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
}

#[test]
fn an_answer_in_one_piece_is_sent_like_any_other() {
    let server = serve();
    let mut client = server.connect();
    let mut ask = |method: &str, path: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(head);
        let is_bodiless = method == "HEAD" || path.starts_with("/204") || path.starts_with("/304");
        let mut answer = if is_bodiless {
            client.head()
        } else {
            client.answer()
        };
        answer.headers.retain(|(name, _)| name != "date");
        (answer.status, answer.headers, answer.body)
    };
    for path in [
        "/length",
        "/bad-status",
        "/bad-name",
        "/204",
        "/304",
        "/text",
    ] {
        for method in ["GET", "HEAD"] {
            let whole = ask(method, path);
            let packed = ask(method, &format!("{path}{PACKED}"));
            assert_eq!(whole, packed, "{method} {path}");
        }
    }
    server.finish();
}

#[test]
fn an_answer_has_its_own_headers_and_none_of_the_request() {
    let server = serve();
    let mut client = server.connect();
    let many: String = (0..80).map(|n| format!("X-{n}: {n}\r\n")).collect();
    for headers in ["Cookie: a=1\r\nX-Secret: 1\r\nX-Secret: 2\r\n", &many, ""] {
        for path in ["/", "/?packed"] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
            let answer = client.request(&head);
            let mut names: Vec<_> = answer.headers.iter().map(|h| h.0.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["content-length", "date", "x-twice", "x-twice"]);
        }
    }
    server.finish();
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    let server = serve();
    let mut client = server.connect();
    for (path, length) in [("/length", "1234"), ("/x", "1")] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let answer = client.head();
        assert_eq!(answer.header("content-length"), Some(length), "{answer:?}");
        assert_usable(&mut client);
    }
    server.finish();
}

#[test]
fn an_answer_without_content_has_no_body_and_no_length() {
    let server = serve();
    let mut client = server.connect();
    for status in [204, 304] {
        client.send(format!("GET /{status} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let answer = client.head();
        assert_eq!(answer.status, status);
        assert_ne!(answer.header("content-length"), Some("5"));
        assert_usable(&mut client);
    }
    server.finish();
}

#[test]
fn an_answer_that_cannot_be_sent_becomes_a_500() {
    let server = serve();
    let mut client = server.connect();
    for path in ["/bad-status", "/bad-value", "/bad-name"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 500, "{path}");
        assert_eq!(answer.header("b"), None);
        assert_usable(&mut client);
    }
    server.finish();
}
