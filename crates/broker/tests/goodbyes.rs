//! What handlers send in answer to the last messages of a client goes out before the goodbye, however the client ends: by a
//! close frame, by the end of its stream, by a breach of the protocol.

mod support;

use std::time::{Duration, Instant};

use support::{
    Client, ManualWorker, SOCKETS, Seen, Server, assert_nothing_left, at_once, broker, eventually,
    listen, masked, options, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{NativeRoute, OutboundMessage};

/// How a client ends what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Close,
    End,
    Breach,
}

const ALL: [Ends; 3] = [Ends::Close, Ends::End, Ends::Breach];

impl Ends {
    /// The last bytes of the client; the answer and the close event.
    fn codes(self) -> (u16, u16) {
        match self {
            Self::Close => (4001, 4001),
            Self::End => (1005, 1006),
            Self::Breach => (1002, 1002),
        }
    }

    /// Sends `messages` and the end in one piece, as they come from a pipe.
    fn say(self, client: &mut Client, messages: &[&str]) {
        let mut bytes: Vec<u8> = Vec::new();
        for message in messages {
            bytes.extend(masked(Opcode::Text, message.as_bytes()));
        }
        match self {
            Self::Close => bytes.extend(masked(Opcode::Close, b"\x0f\xa1bye")),
            Self::End => {}
            Self::Breach => bytes.extend([0xff; 6]),
        }
        client.send(bytes);
        if self == Self::End {
            client.shutdown();
        }
    }
}

#[test]
fn answers_to_the_last_messages_come_before_the_goodbye() {
    let server = Server::echoing(options());
    for ends in ALL {
        for _ in 0..20 {
            let (mut client, id) = server.open();
            ends.say(&mut client, &["first", "last"]);
            assert_eq!(client.text(), "first", "{ends:?}");
            assert_eq!(client.text(), "last", "{ends:?}");
            assert_eq!(client.close_frame().0, ends.codes().0, "{ends:?}");
            if ends != Ends::End {
                client.shutdown();
            }
            client.end();
            assert_eq!(server.journal.close_of(id).0, ends.codes().1, "{ends:?}");
        }
    }
    server.finish();
}

#[test]
fn many_answers_come_before_the_goodbye() {
    let server = Server::echoing(options());
    for ends in ALL {
        let (mut client, _) = server.open();
        let messages: Vec<_> = (0..2000).map(|n| n.to_string()).collect();
        let messages: Vec<_> = messages.iter().map(String::as_str).collect();
        ends.say(&mut client, &messages);
        for message in messages {
            assert_eq!(client.text(), message, "{ends:?}");
        }
        assert_eq!(client.close_frame().0, ends.codes().0, "{ends:?}");
    }
    server.finish();
}

/// A worker that never comes to the close event holds the goodbye up for `close_timeout`, and no longer.
#[test]
fn a_worker_that_hangs_holds_a_goodbye_up_for_a_time() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let mut quick = options();
    quick.close_timeout = Duration::from_millis(300);
    let (listener, address) = listen(&broker, quick);
    for ends in ALL {
        let mut client = Client::open(address);
        let id = *worker.wait_opened(1).last().expect("one");
        worker.seen.clear();
        let began = Instant::now();
        ends.say(&mut client, &["question"]);
        assert_eq!(client.close_frame().0, ends.codes().0, "{ends:?}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{ends:?}");
        eventually("it is gone", || broker.connection_count() == 0);
        assert!(!broker.send(id, &OutboundMessage::text("too late")));
        assert_eq!(worker.wait_close(id).0, ends.codes().1);
    }
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

/// No handler has to do with messages that take a native route: nobody waits for one.
#[test]
fn an_echo_client_waits_for_no_worker() {
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = listen(&broker, options());
    for ends in ALL {
        let mut client = Client::open(address);
        let id = *worker.wait_opened(1).last().expect("one");
        worker.seen.clear();
        assert!(broker.set_message_route(id, Some(NativeRoute::Echo)));
        ends.say(&mut client, &["echo"]);
        assert_eq!(client.text(), "echo", "{ends:?}");
        assert_eq!(client.close_frame().0, ends.codes().0, "{ends:?}");
        eventually("it is gone", || broker.connection_count() == 0);
        worker.wait_close(id);
    }
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

/// Who has ended its stream because it has gone cannot be answered; nothing of it stays.
#[test]
fn a_client_that_has_gone_is_let_go_when_it_is_answered() {
    let server = Server::echoing(options());
    for _ in 0..50 {
        let (mut client, id) = server.open();
        client.send_text("anybody there?");
        drop(client);
        assert_eq!(server.journal.close_of(id).0, 1006);
    }
    server.finish();
}

/// A socket is not read while the worker that left is busy with it, and so its goodbye waits.
#[test]
fn a_worker_that_leaves_still_answers_before_the_goodbye() {
    let broker = broker();
    let mut leaving = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = listen(&broker, options());
    let mut client = Client::open(address);
    let id = leaving.wait_opened(1)[0];
    client.send_text("question");
    leaving.wait_messages(id, 1);
    let mut next = ManualWorker::register(&broker, SOCKETS);
    leaving.worker.retire(&[id]);
    client.send_close(1000, "");
    assert!(broker.send(id, &OutboundMessage::text("answer")));
    leaving.worker.release(id);
    leaving.worker.end(None);
    assert_eq!(next.wait_close(id), (1000, String::new()));
    assert_eq!(client.text(), "answer");
    assert_eq!(client.close_frame().0, 1000);
    let closes = next.seen.iter().filter(|event| event.closed().is_some());
    assert_eq!(closes.count(), 1);
    assert!(
        !next
            .seen
            .iter()
            .any(|seen| matches!(seen, Seen::Message { .. }))
    );
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}
