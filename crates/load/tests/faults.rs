//! Servers that do what none may do: the load generator finds it, counts it, and says so by its exit code.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;
use wsbroker_engine::codec::{Decoder, Item, Opcode, accept_key, encode_frame};

/// What a server answers to the message with this number, from 0 on.
type Answer = fn(number: u64, message: &[u8]) -> Vec<Vec<u8>>;

const EXIT_FAULTS: i32 = 3;

/// With this message servers go wrong. The warm-up alone brings more.
const WRONG: u64 = 50;

#[test]
fn a_server_that_echoes_has_no_faults() {
    let (code, report) = load(echo(|_, message| vec![message.to_vec()]));
    assert_eq!(code, Some(0), "{report}");
    assert!(report["measured"]["done"].as_u64() > Some(0), "{report}");
    for fault in ["missing", "duplicated", "disordered", "damaged", "broken"] {
        assert_eq!(report["faults"][fault], 0, "{report}");
    }
}

#[test]
fn a_message_that_comes_twice_is_counted() {
    let (code, report) = load(echo(|number, message| match number {
        WRONG => vec![message.to_vec(), message.to_vec()],
        _ => vec![message.to_vec()],
    }));
    assert_eq!(code, Some(EXIT_FAULTS), "{report}");
    assert_eq!(report["faults"]["duplicated"], 1, "{report}");
    assert_eq!(report["faults"]["missing"], 0, "{report}");
}

#[test]
fn a_message_with_another_byte_is_counted() {
    let (code, report) = load(echo(|number, message| {
        let mut answer = message.to_vec();
        if number == WRONG {
            *answer.last_mut().expect("no message is empty") ^= 1;
        }
        vec![answer]
    }));
    assert_eq!(code, Some(EXIT_FAULTS), "{report}");
    assert_eq!(report["faults"]["damaged"], 1, "{report}");
}

#[test]
fn messages_in_another_order_are_counted() {
    // The second of two is answered before the first.
    thread_local!(static KEPT: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });
    let (code, report) = load(echo(|number, message| match number {
        WRONG => {
            KEPT.set(message.to_vec());
            Vec::new()
        }
        number if number == WRONG + 1 => vec![message.to_vec(), KEPT.take()],
        _ => vec![message.to_vec()],
    }));
    assert_eq!(code, Some(EXIT_FAULTS), "{report}");
    assert_eq!(report["faults"]["disordered"], 1, "{report}");
    assert_eq!(report["faults"]["missing"], 0, "{report}");
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let output = run("192.0.2.1:80");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("loopback"), "{errors}");
}

fn load(address: SocketAddr) -> (Option<i32>, Value) {
    let output = run(&address.to_string());
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    (output.status.code(), report)
}

fn run(address: &str) -> Output {
    let window = [
        "--warm-up",
        "0.1",
        "--warm-up-count",
        "100",
        "--seconds",
        "0.1",
    ];
    Command::new(env!("CARGO_BIN_EXE_wsbroker-load"))
        .args([
            "echo",
            "--sockets",
            "1",
            "--in-flight",
            "4",
            "--address",
            address,
        ])
        .args(window)
        .output()
        .expect("the load generator starts")
}

/// Serves one connection after the other on a thread of its own.
fn echo(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Who has heard enough closes.
            let _ = serve(stream.expect("a connection"), answer);
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let head = String::from_utf8(head).expect("a head in ASCII");
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .expect("a key");
    let accept = accept_key(key);
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(response.as_bytes())?;
    let mut decoder = Decoder::new();
    let mut number = 0;
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        let decoded = decoder.decode(&mut buffer[..count], 1 << 20, None, |item| {
            if let Item::Text { bytes, .. } = item {
                for message in answer(number, &bytes) {
                    out.extend_from_slice(&encode_frame(Opcode::Text, &message));
                }
                number += 1;
            }
            ControlFlow::Continue(())
        });
        decoded.expect("valid frames");
        stream.write_all(&out)?;
    }
}
