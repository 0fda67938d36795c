//! [Models](crate::models) of how a shard is woken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;

use loom::thread;

use super::inbox::Command;
use super::{ShardHandle, cork};
use crate::id::RequestId;
use crate::models::{Sleeper, model};

fn request(number: u64) -> RequestId {
    RequestId::new(number).expect("a number from 1 on")
}

/// Takes the turns of a shard until so many commands have come; whose they are, in their order.
fn serve(shard: &ShardHandle, count: usize) -> Vec<u64> {
    let sleeper = Sleeper::new();
    let waker = Waker::from(Arc::clone(&sleeper));
    let mut come = Vec::new();
    loop {
        shard.answer_wake(&waker);
        come.extend(
            shard
                .take_commands()
                .into_iter()
                .map(|command| match command {
                    Command::ClientGone(id) => id.get(),
                    _ => unreachable!("nobody sends anything else"),
                }),
        );
        if come.len() == count {
            return come;
        }
        sleeper.sleep();
    }
}

#[test]
fn a_shard_hears_of_every_command() {
    model(3, || {
        let shard = ShardHandle::new(0);
        let senders: Vec<_> = [1, 2]
            .map(|number| {
                let shard = Arc::clone(&shard);
                thread::spawn(move || shard.send(Command::ClientGone(request(number))))
            })
            .into();
        let come = serve(&shard, 2);
        assert_eq!(BTreeSet::from_iter(come), BTreeSet::from([1, 2]));
        for sender in senders {
            sender.join().expect("it has sent");
        }
    });
}

#[test]
fn a_shard_hears_of_the_commands_of_a_thread_that_is_corked() {
    model(3, || {
        let shard = ShardHandle::new(0);
        let corked = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                cork::cork();
                shard.send(Command::ClientGone(request(1)));
                shard.send(Command::ClientGone(request(2)));
                cork::uncork();
            })
        };
        let other = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || shard.send(Command::ClientGone(request(3))))
        };
        let come = serve(&shard, 3);
        let corked_ones: Vec<_> = come.iter().filter(|number| **number != 3).collect();
        assert_eq!(corked_ones, [&1, &2], "in the order of the calls");
        corked.join().expect("it has sent");
        other.join().expect("it has sent");
    });
}
