//! Workers that come and go: who gets what, and what becomes of the rest.

mod support;

use support::{
    BOTH, Client, HTTP, ManualWorker, SOCKETS, Seen, assert_nothing_left, at_once, broker, channel,
    eventually, handshake, listen, options, response, stop,
};
use wsbroker_engine::{
    Acceptance, Broker, Finished, Interest, Listener, OutboundMessage, SocketId, StartError,
    UpgradeDecision,
};

fn serve(interest: Interest) -> (Broker, ManualWorker, Listener, std::net::SocketAddr) {
    let broker = broker();
    let worker = ManualWorker::register(&broker, interest);
    let (listener, address) = listen(&broker, options());
    (broker, worker, listener, address)
}

fn closes_of(worker: &ManualWorker, socket: SocketId) -> usize {
    let closes = worker.seen.iter().filter_map(Seen::closed);
    closes.filter(|(id, ..)| *id == socket).count()
}

/// Sends numbers and waits until they are queued for this worker, not given.
fn say(client: &mut Client, worker: &ManualWorker, broker: &Broker, range: std::ops::Range<u64>) {
    let before = worker.waiting(broker);
    let count = range.end - range.start;
    for n in range {
        client.send_text(&n.to_string());
    }
    eventually("the messages wait", || {
        worker.waiting(broker) == before + count
    });
}

fn all_said(worker: &ManualWorker, by: SocketId) -> Vec<Vec<u8>> {
    let said = worker.seen.iter().filter_map(|event| event.said(by));
    said.map(<[u8]>::to_vec).collect()
}

fn assert_numbers(messages: &[Vec<u8>], range: std::ops::Range<u64>) {
    let expected: Vec<_> = range.map(|n| n.to_string().into_bytes()).collect();
    assert_eq!(messages, expected);
}

#[test]
fn without_a_worker_nothing_starts() {
    let broker = broker();
    let refused = broker.listen(options());
    assert!(matches!(refused, Err(StartError::NoWorker)));
    let worker = ManualWorker::register(&broker, SOCKETS);
    worker.worker.end(None);
    let refused = broker.listen(options());
    assert!(matches!(refused, Err(StartError::NoWorker)));
    assert_eq!(
        (broker.stats().io_threads, broker.stats().listeners),
        (0, 0)
    );
}

const IGNORES_OPENS: Interest = Interest {
    ignores_opens: true,
    ..SOCKETS
};

#[test]
fn a_worker_that_ignores_opens_gets_everything_else() {
    let (broker, mut ignorant, listener, address) = serve(IGNORES_OPENS);
    let mut clients = [Client::open(address), Client::open(address)];
    for client in &mut clients {
        client.send_text("1");
    }
    let ids = ignorant.wait("two messages", |seen| {
        let ids: Vec<_> = seen.iter().filter_map(Seen::socket).collect();
        <[SocketId; 2]>::try_from(ids).ok()
    });
    let [mut first, second] = clients;
    drop(second);
    let closed = ignorant.wait("a close", |seen| {
        let mut closes = seen.iter().filter_map(Seen::closed);
        closes.next().map(|(id, ..)| id)
    });
    let kept = ids.into_iter().find(|id| *id != closed);
    let kept = kept.expect("the other socket");

    // The one that is left goes on elsewhere, where nobody is told that it opened.
    let mut told = ManualWorker::register(&broker, SOCKETS);
    ignorant.worker.end(None);
    first.send_text("2");
    assert_eq!(told.wait_messages(kept, 1), [b"2"]);
    drop(first);
    told.wait_close(kept);
    let _third = Client::open(address);
    let opened = told.wait_opened(1);
    assert!(!ids.contains(&opened[0]));
    assert_eq!(ignorant.seen.iter().filter_map(Seen::opened).count(), 0);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn open_events_that_were_not_given_end_with_a_worker_that_ignores_them() {
    for limbo in [false, true] {
        let (broker, first, listener, address) = serve(SOCKETS);
        let mut client = Client::open(address);
        client.send_text("1");
        eventually("the events wait", || first.waiting(&broker) == 2);
        // Those of a worker that leaves nobody behind wait for the next one.
        let mut second = if limbo {
            first.worker.end(None);
            // One for each shard, which has heard of the end then.
            for _ in 0..2 {
                let mut other = Client::connect(address);
                other.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
                assert_eq!(other.answer().status, 503);
            }
            ManualWorker::register(&broker, IGNORES_OPENS)
        } else {
            let second = ManualWorker::register(&broker, IGNORES_OPENS);
            first.worker.end(None);
            second
        };
        let id = second.wait("a message", |seen| seen.iter().find_map(Seen::socket));
        assert_eq!(second.wait_messages(id, 1), [b"1"]);
        client.send_close(4000, "done");
        assert_eq!(second.wait_close(id), (4000, "done".to_owned()));
        assert_eq!(second.seen.iter().filter_map(Seen::opened).count(), 0);
        stop(&listener, at_once());
        assert_nothing_left(&broker);
    }
}

#[test]
fn sockets_and_requests_go_round_each_with_a_turn_of_its_own() {
    let (broker, first, listener, address) = serve(HTTP);
    let mut workers = vec![
        first,
        ManualWorker::register(&broker, HTTP),
        ManualWorker::register(&broker, SOCKETS),
    ];
    let mut clients = Vec::new();
    for n in 0..9 {
        clients.push(Client::open(address));
        workers[n % 3].wait_opened(n / 3 + 1);
    }
    for n in 0..4 {
        let mut client = Client::connect(address);
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        eventually("the request is with a worker", || {
            broker.stats().pending_requests == n + 1
        });
        clients.push(client);
    }
    let requests: Vec<usize> = workers
        .iter_mut()
        .map(|worker| {
            while worker.take() {}
            let requests = worker
                .seen
                .iter()
                .filter(|e| matches!(e, Seen::Request(..)));
            requests.count()
        })
        .collect();
    assert_eq!(requests[2], 0, "it answers none");
    assert_eq!(requests[0] + requests[1], 4);
    for worker in &workers {
        assert_eq!(worker.seen.iter().filter_map(Seen::opened).count(), 3);
    }
    drop(clients);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn events_that_were_not_given_move_to_the_next_worker_in_order() {
    let (broker, mut first, listener, address) = serve(SOCKETS);
    let mut client = Client::open(address);
    let id = first.wait_opened(1)[0];
    let mut second = ManualWorker::register(&broker, SOCKETS);
    say(&mut client, &first, &broker, 0..100);
    first.worker.end(None);
    for n in 100..200 {
        client.send_text(&n.to_string());
    }
    client.send_close(4000, "done");
    assert_eq!(second.wait_close(id), (4000, "done".to_owned()));
    assert_numbers(&second.wait_messages(id, 200), 0..200);
    assert_eq!(closes_of(&second, id), 1);
    assert!(!first.take(), "who has ended is given nothing");
    first.worker.end(None);
    assert_eq!(broker.stats().dropped.worker_ended, 0);
    assert_eq!(broker.stats().workers.len(), 1);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn messages_given_and_not_finished_are_counted() {
    let finished = |messages| {
        Some(Finished {
            messages,
            others: 1,
        })
    };
    for (finished, lost) in [(finished(14), 6), (finished(20), 0), (None, 10)] {
        let (broker, mut first, listener, address) = serve(SOCKETS);
        let mut client = Client::open(address);
        let id = first.wait_opened(1)[0];
        for range in [0..10, 10..20] {
            let end = range.end as usize;
            say(&mut client, &first, &broker, range);
            assert!(first.take());
            first.wait_messages(id, end);
        }
        first.worker.end(finished);
        assert_eq!(broker.stats().dropped.worker_ended, lost, "{finished:?}");
        let mut second = ManualWorker::register(&broker, SOCKETS);
        client.send_text("20");
        assert_numbers(&second.wait_messages(id, 1), 20..21);
        stop(&listener, at_once());
        assert_nothing_left(&broker);
    }
}

#[test]
fn a_close_event_survives_the_worker_it_was_given_to_until_its_handler_begins() {
    for begun in [false, true] {
        let (broker, mut first, listener, address) = serve(SOCKETS);
        let mut client = Client::open(address);
        let id = first.wait_opened(1)[0];
        client.send_close(4000, "bye");
        eventually("the close event waits", || first.waiting(&broker) == 1);
        // Not by `ManualWorker::take`, which begins what it takes.
        first.worker.take().expect("the close event");
        if begun {
            first.worker.begin_close(id);
        }
        first.worker.end(None);
        let mut second = ManualWorker::register(&broker, SOCKETS);
        let mut marker = Client::open(address);
        second.wait_opened(1);
        if begun {
            // Everything there was for the second has come by the time of another socket's message.
            marker.send_text("marker");
            let other = second.wait_opened(1)[0];
            second.wait_messages(other, 1);
            assert_eq!(closes_of(&second, id), 0);
        } else {
            assert_eq!(second.wait_close(id), (4000, "bye".to_owned()));
            assert_eq!(closes_of(&second, id), 1);
        }
        stop(&listener, at_once());
        assert_nothing_left(&broker);
    }
}

#[test]
fn a_request_that_was_not_given_is_answered_by_the_next_worker() {
    let (broker, first, listener, address) = serve(HTTP);
    let mut client = Client::connect(address);
    client.send("GET /moved HTTP/1.1\r\nHost: test\r\n\r\n");
    eventually("the request waits", || first.waiting(&broker) == 1);
    let mut second = ManualWorker::register(&broker, HTTP);
    first.worker.end(None);
    let (id, head) = second.wait_request();
    assert_eq!(head.url, "/moved");
    broker.respond(id, response(200, &[], b"by the second"));
    assert_eq!(client.answer().text(), "by the second");
    assert_eq!(broker.stats().dropped.unanswered_requests, 0);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn an_upgrade_moves_to_another_decider_if_it_was_not_given_and_gets_503_otherwise() {
    for given in [false, true] {
        for interest in [BOTH, SOCKETS] {
            let (broker, mut first, listener, address) = serve(BOTH);
            let mut client = Client::connect(address);
            client.send(handshake("/", ""));
            eventually("the upgrade waits", || first.waiting(&broker) == 1);
            let mut second = ManualWorker::register(&broker, interest);
            if given {
                first.wait_request();
            }
            first.worker.end(None);
            // Nobody left who decides is no reason to accept what was to be decided.
            if given || !interest.upgrade {
                assert_eq!(client.answer().status, 503);
                client.send(handshake("/", ""));
            }
            if interest.upgrade {
                let (id, _) = second.wait_request();
                broker.decide(id, UpgradeDecision::Accept(Acceptance::default()));
            }
            client.upgraded();
            second.wait_opened(1);
            stop(&listener, at_once());
            assert_nothing_left(&broker);
        }
    }
}

#[test]
fn a_retired_worker_finishes_what_it_was_given_and_gets_no_more() {
    let (broker, mut first, listener, address) = serve(BOTH);
    let (mut http, mut upgrading) = (Client::connect(address), Client::connect(address));
    http.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let (request, _) = first.wait_request();
    upgrading.send(handshake("/", ""));
    let (upgrade, _) = first.wait_request();
    let mut second = ManualWorker::register(&broker, BOTH);
    first.worker.retire(&[]);
    broker.respond(request, response(200, &[], b"finished"));
    assert_eq!(http.answer().text(), "finished");
    broker.decide(upgrade, UpgradeDecision::Accept(Acceptance::default()));
    upgrading.upgraded();
    let id = second.wait_opened(1)[0];
    upgrading.send_text("0");
    assert_numbers(&second.wait_messages(id, 1), 0..1);
    assert!(!first.take());
    first.worker.end(Some(Finished::default()));
    assert_eq!(broker.stats().dropped, Default::default());
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn events_of_a_socket_that_a_retired_worker_is_busy_with_wait_until_it_is_done() {
    for by_release in [false, true] {
        let (broker, mut first, listener, address) = serve(SOCKETS);
        let (mut busy, mut free) = (Client::open(address), Client::open(address));
        first.wait_opened(2);
        busy.send_text("busy");
        let busy_id = first.wait("who is busy", |seen| {
            seen.iter().find_map(|event| match event {
                Seen::Message { socket, .. } => Some(*socket),
                _ => None,
            })
        });
        let mut second = ManualWorker::register(&broker, SOCKETS);
        say(&mut busy, &first, &broker, 0..10);
        first.worker.retire(&[busy_id]);
        for n in 10..20 {
            busy.send_text(&n.to_string());
        }
        free.send_text("free");
        let free_id = second.wait("the other socket", |seen| {
            seen.iter().find_map(Seen::socket)
        });
        assert_ne!(free_id, busy_id);
        let is_busy = |event: &Seen| event.socket() == Some(busy_id);
        assert!(!second.seen.iter().any(is_busy));
        let finished = Finished {
            messages: 1,
            others: 2,
        };
        if by_release {
            first.worker.release(busy_id);
        } else {
            first.worker.end(Some(finished));
        }
        assert_numbers(&second.wait_messages(busy_id, 20), 0..20);
        first.worker.end(Some(finished));
        assert_eq!(broker.stats().dropped, Default::default());
        stop(&listener, at_once());
        assert_nothing_left(&broker);
    }
}

#[test]
fn without_any_worker_sockets_wait_and_the_next_one_gets_everything_in_order() {
    let (broker, mut first, listener, address) = serve(SOCKETS);
    let news = channel("news");
    let (mut talks, mut leaves) = (Client::open(address), Client::open(address));
    let ids = first.wait_opened(2);
    let said = |worker: &mut ManualWorker, client: &mut Client| {
        client.send_text("who");
        let found = worker.wait("who it is", |seen| {
            ids.iter()
                .find(|id| seen.iter().any(|event| event.said(**id).is_some()))
                .copied()
        });
        worker.seen.clear();
        found
    };
    let talks_id = said(&mut first, &mut talks);
    let leaves_id = said(&mut first, &mut leaves);
    broker.subscribe(talks_id, &news).expect("no limit");
    say(&mut talks, &first, &broker, 0..10);
    first.worker.end(None);

    // Sending and closing needs no worker; new ones are turned away.
    assert_eq!(
        broker.send_to_channel(&news, &OutboundMessage::text("on air"), None),
        1
    );
    assert_eq!(talks.text(), "on air");
    assert_eq!(Client::connect(address).get("/").status, 503);
    let mut refused = Client::connect(address);
    refused.send(handshake("/", ""));
    assert_eq!(refused.answer().status, 503);
    for n in 10..50 {
        talks.send_text(&n.to_string());
    }
    assert!(broker.close(leaves_id, 4000, ""));
    assert_eq!(leaves.close_frame().0, 4000);
    leaves.send_close(4000, "");
    leaves.end();
    assert_eq!(broker.connection_count(), 1);

    let mut second = ManualWorker::register(&broker, SOCKETS);
    assert_numbers(&second.wait_messages(talks_id, 50), 0..50);
    assert_eq!(second.wait_close(leaves_id), (4000, String::new()));
    assert_eq!(closes_of(&second, leaves_id), 1);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

#[test]
fn a_socket_keeps_its_order_across_many_workers() {
    let (broker, mut worker, listener, address) = serve(SOCKETS);
    let mut client = Client::open(address);
    let id = worker.wait_opened(1)[0];
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for round in 0..40 {
        for n in 0..50 {
            client.send_text(&(round * 50 + n).to_string());
        }
        // The worker leaves in the middle: some were taken, some wait, some are on their way.
        worker.wait_messages(id, 1);
        messages.extend(all_said(&worker, id));
        worker.worker.retire(&[]);
        assert!(!worker.take());
        worker.worker.end(None);
        worker = ManualWorker::register(&broker, SOCKETS);
    }
    worker.wait_messages(id, 2000 - messages.len());
    messages.extend(all_said(&worker, id));
    assert_numbers(&messages, 0..2000);
    assert_eq!(broker.stats().dropped.worker_ended, 0);
    assert!(broker.send(id, &OutboundMessage::text("still here")));
    assert_eq!(client.text(), "still here");
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}
