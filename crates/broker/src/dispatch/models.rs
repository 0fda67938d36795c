//! [Models](crate::models) of a worker's queue.

use std::sync::Arc;

use loom::thread;

use super::batch::{Batch, Origin};
use super::queue::WorkerQueue;
use super::record::Event;
use super::worker::{Interest, WorkerWaker};
use crate::id::SocketId;
use crate::models::{Sleeper, model};

fn socket(number: u64) -> SocketId {
    SocketId::new(number).expect("a number from 1 on")
}

/// A batch with one message of this socket, and so many events by its own account.
fn batch(number: u64, events: u32) -> Batch {
    let mut batch = Batch::default();
    batch.binary(Origin::socket(socket(number), None, 0), b"x");
    batch.events = events;
    batch.messages = events;
    batch
}

fn sockets_of(batch: &Batch) -> Vec<u64> {
    let sockets = batch.events().map(|event| match event {
        Event::Message { socket, .. } => socket.get(),
        _ => unreachable!("there are only messages"),
    });
    sockets.collect()
}

#[test]
fn a_worker_hears_of_every_batch() {
    model(3, || {
        let sleeper = Sleeper::new();
        let queue = WorkerQueue::new(1, Interest::default(), Arc::clone(&sleeper) as _);
        let shards: Vec<_> = [1_u16, 2]
            .map(|shard| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for number in 0..2 {
                        let batch = batch(u64::from(shard) * 10 + number, 1);
                        assert!(queue.push(shard, batch).is_ok());
                    }
                })
            })
            .into();
        let mut come = Vec::new();
        while come.len() < 4 {
            match queue.take().0 {
                Some(batch) => come.extend(sockets_of(&batch)),
                None => sleeper.sleep(),
            }
        }
        for shard in [1, 2] {
            let theirs: Vec<_> = come.iter().filter(|n| **n / 10 == shard).collect();
            assert_eq!(theirs, [&(shard * 10), &(shard * 10 + 1)]);
        }
        for shard in shards {
            shard.join().expect("it has pushed");
        }
    });
}

/// Of so many events a worker is full.
const MANY: u32 = 5000;

#[test]
fn a_shard_that_has_found_a_worker_full_hears_when_it_has_room() {
    model(3, || {
        let sleeper = Sleeper::new();
        let queue = WorkerQueue::new(1, Interest::default(), Arc::clone(&sleeper) as _);
        let drained = Sleeper::new();
        let shard = {
            let (queue, drained) = (Arc::clone(&queue), Arc::clone(&drained));
            thread::spawn(move || {
                for number in [1, 2] {
                    // Its sockets are not read while the worker is full.
                    while queue.is_full() {
                        drained.sleep();
                    }
                    assert!(queue.push(0, batch(number, MANY)).is_ok());
                }
            })
        };
        let mut come = Vec::new();
        while come.len() < 2 {
            let (batch, has_room) = queue.take();
            if has_room {
                drained.wake();
            }
            match batch {
                Some(batch) => come.extend(sockets_of(&batch)),
                None => sleeper.sleep(),
            }
        }
        assert_eq!(come, [1, 2]);
        shard.join().expect("it has pushed");
    });
}

#[test]
fn what_a_worker_that_ends_was_not_given_is_left_to_others() {
    model(3, || {
        let queue = WorkerQueue::new(1, Interest::default(), Sleeper::new() as _);
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let given = queue.take().0;
                assert!(queue.end(None).is_some());
                given.map_or_else(Vec::new, |batch| sockets_of(&batch))
            })
        };
        // The shard, which alone touches its part of the queue, and has been told of the end when it sees it.
        let mut others = Vec::new();
        let mut has_left = false;
        for number in [1, 2] {
            if queue.is_closed() {
                others.extend(queue.leftovers_of(0, true).iter().flat_map(sockets_of));
                has_left = true;
            }
            if let Err(batch) = queue.push(0, batch(number, 1)) {
                // It cannot be told before.
                others.extend(queue.leftovers_of(0, true).iter().flat_map(sockets_of));
                others.extend(sockets_of(&batch));
            } else {
                assert!(!has_left, "nobody would look into the queue any more");
            }
        }
        let mut all = worker.join().expect("it has ended");
        others.extend(queue.leftovers_of(0, true).iter().flat_map(sockets_of));
        all.append(&mut others);
        assert_eq!(all, [1, 2], "each once, and in this order");
    });
}
