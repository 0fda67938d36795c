//! Models of what the threads do together, for [loom](https://docs.rs/loom): `npm run models`. Those of the wake-ups are in
//! `shard/models.rs`, those of a worker's queue in `dispatch/models.rs`, those of the registries here.
//!
//! Loom runs each of them once for every order in which the locks and atomics of [`sync`](crate::sync) may be come to, and for
//! every value that a relaxed load may give. A wake-up that is lost shows as a deadlock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Wake;

use loom::sync::Notify;
use loom::thread;

use crate::backpressure::{BURST, Reservation};
use crate::broker::{Broker, BrokerOptions};
use crate::client::ClientAddress;
use crate::dispatch::worker::WorkerWaker;
use crate::listener::ListenerShared;
use crate::name::ChannelName;
use crate::options::ListenOptions;
use crate::registry::SocketEntry;
use crate::shard::ShardHandle;
use crate::shard::inbox::Terms;
use crate::sync::{AtomicBool, Ordering};

/// Runs a model with at most so many switches to another thread while the one that runs could go on; without a bound most
/// would take hours. Two are enough for nearly every fault that is known of such protocols.
pub(crate) fn model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(run);
}

/// A thread that sleeps until somebody wakes it.
pub(crate) struct Sleeper(Notify);

impl Sleeper {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Notify::new()))
    }

    /// Once for all wake-ups since the last time.
    pub(crate) fn sleep(&self) {
        self.0.wait();
    }
}

impl WorkerWaker for Sleeper {
    fn wake(&self) {
        self.0.notify();
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify();
    }
}

/// A broker without threads, whose sockets are in one shard.
struct World {
    broker: Broker,
    shard: Arc<ShardHandle>,
    listener: Arc<ListenerShared>,
}

impl World {
    fn new(max_backpressure: usize) -> Arc<Self> {
        let broker = Broker::new(BrokerOptions::default());
        let mut options = ListenOptions::new("127.0.0.1:0".parse().expect("an address"));
        options.max_backpressure = max_backpressure;
        Arc::new(Self {
            listener: ListenerShared::new(options, broker.core()),
            broker,
            shard: ShardHandle::new(0),
        })
    }

    fn open(&self) -> Arc<SocketEntry> {
        let terms = Terms {
            listener: Arc::clone(&self.listener),
            client: ClientAddress::UNIX,
            deflate: None,
        };
        let registry = &self.broker.core().registry;
        let home = Arc::clone(&self.shard);
        let entry = SocketEntry::new(registry.next_id(), 0, home, terms, None);
        registry.insert(Arc::clone(&entry));
        entry
    }

    fn subscribe(&self, entry: &Arc<SocketEntry>) -> bool {
        let added = self.broker.core().channels.subscribe(entry, &room());
        added.expect("there is no limit")
    }

    fn unsubscribe(&self, entry: &SocketEntry) -> bool {
        self.broker.core().channels.unsubscribe(entry, &room())
    }

    /// Whether this was the call that closed it.
    fn close(&self, entry: &SocketEntry) -> bool {
        let core = self.broker.core();
        let Some(channels) = core.registry.remove(entry) else {
            return false;
        };
        for channel in channels {
            core.channels.leave(&channel, entry.id);
        }
        true
    }

    /// The channel has these members and no others, and is there only if it has any.
    fn check_members(&self, members: &[&SocketEntry]) {
        let channels = &self.broker.core().channels;
        let found = channels.find(&room());
        let found = found.map_or_else(BTreeSet::new, |channel| {
            let lists = channel.snapshot();
            let entries = lists
                .iter()
                .flat_map(|(_, list)| list.iter().flat_map(|chunk| chunk.iter()));
            let ids: Vec<_> = entries.map(|entry| entry.id).collect();
            assert_eq!(ids.len(), channel.len());
            BTreeSet::from_iter(ids)
        });
        assert_eq!(found, members.iter().map(|entry| entry.id).collect());
        assert_eq!(channels.len(), usize::from(!members.is_empty()));
        assert_eq!(channels.subscriptions(), members.len());
    }
}

fn room() -> ChannelName {
    ChannelName::new(b"room").expect("a name")
}

#[test]
fn a_channel_that_loses_its_last_member_and_gets_a_new_one_has_the_new_one() {
    model(3, || {
        let world = World::new(usize::MAX);
        let (last, new) = (world.open(), world.open());
        assert!(world.subscribe(&last));
        let leaving = {
            let (world, last) = (Arc::clone(&world), Arc::clone(&last));
            thread::spawn(move || assert!(world.unsubscribe(&last)))
        };
        assert!(world.subscribe(&new));
        leaving.join().expect("it has left");
        world.check_members(&[&new]);
        assert!(world.unsubscribe(&new));
        world.check_members(&[]);
    });
}

#[test]
fn two_who_leave_a_channel_while_a_third_comes_and_goes_leave_nothing() {
    model(2, || {
        let world = World::new(usize::MAX);
        let (first, second) = (world.open(), world.open());
        assert!(world.subscribe(&first));
        let leaving = {
            let (world, first) = (Arc::clone(&world), Arc::clone(&first));
            thread::spawn(move || assert!(world.unsubscribe(&first)))
        };
        let coming = {
            let (world, second) = (Arc::clone(&world), Arc::clone(&second));
            thread::spawn(move || {
                assert!(world.subscribe(&second));
                assert!(world.unsubscribe(&second));
            })
        };
        leaving.join().expect("it has left");
        coming.join().expect("it has left");
        world.check_members(&[]);
    });
}

#[test]
fn a_socket_that_closes_while_it_is_subscribed_is_in_no_channel() {
    model(3, || {
        let world = World::new(usize::MAX);
        let entry = world.open();
        let closing = {
            let (world, entry) = (Arc::clone(&world), Arc::clone(&entry));
            thread::spawn(move || world.close(&entry))
        };
        let _ = world.subscribe(&entry);
        let closed_here = world.close(&entry);
        assert!(
            closed_here != closing.join().expect("it has closed"),
            "it closes once"
        );
        world.check_members(&[]);
        assert_eq!(world.broker.core().registry.len(), 0);
    });
}

#[test]
fn a_socket_that_was_taken_out_is_found_by_no_call_that_comes_later() {
    model(3, || {
        let world = World::new(usize::MAX);
        let entry = world.open();
        let gone = Arc::new(AtomicBool::new(false));
        let closing = {
            let (world, entry, gone) = (Arc::clone(&world), Arc::clone(&entry), Arc::clone(&gone));
            thread::spawn(move || {
                assert!(world.close(&entry));
                gone.store(true, Ordering::Release);
            })
        };
        let registry = &world.broker.core().registry;
        for _ in 0..2 {
            let is_gone = gone.load(Ordering::Acquire);
            let found = registry.with(entry.id, |_| ()).is_some();
            assert!(!(is_gone && found));
        }
        closing.join().expect("it has closed");
        assert!(registry.with(entry.id, |_| ()).is_none());
    });
}

#[test]
fn no_more_waits_for_a_socket_than_may_and_room_that_is_given_back_is_there() {
    const MOST: usize = 10 * BURST;
    model(3, || {
        let world = World::new(10);
        let entry = world.open();
        let senders: Vec<_> = [6 * BURST, 7 * BURST]
            .map(|bytes| {
                let entry = Arc::clone(&entry);
                thread::spawn(move || {
                    let is_queued = entry.reserve(bytes) == Reservation::Queued;
                    assert!(entry.backpressure.waiting() <= MOST);
                    if is_queued {
                        entry.backpressure.release(bytes); // the shard has sent it
                    }
                    is_queued
                })
            })
            .into();
        let queued = senders
            .into_iter()
            .map(|sender| sender.join().expect("it has sent"));
        assert!(queued.collect::<Vec<_>>().contains(&true));
        assert_eq!(entry.backpressure.waiting(), 0);
        assert_eq!(
            entry.reserve(MOST + 1),
            Reservation::Queued,
            "one of any size has room"
        );
    });
}

#[test]
fn no_more_comes_behind_a_burst_than_may_wait_for_a_client_that_takes_nothing() {
    model(3, || {
        let world = World::new(10);
        let entry = world.open();
        assert_eq!(entry.reserve(100), Reservation::Queued);
        entry.backpressure.stalls();
        let senders: Vec<_> = [6, 7]
            .map(|bytes| {
                let entry = Arc::clone(&entry);
                thread::spawn(move || match entry.reserve(bytes) {
                    Reservation::Queued => bytes,
                    Reservation::Slow => 0,
                    Reservation::Full => panic!("it is no burst"),
                })
            })
            .into();
        entry.backpressure.release(90); // the kernel has taken some, and refused again
        entry.backpressure.stalls();
        let late: usize = senders
            .into_iter()
            .map(|sender| sender.join().expect("it has sent"))
            .sum();
        assert!(late == 6 || late == 7, "{late}");
        assert_eq!(entry.backpressure.waiting(), 10 + late);
        entry.backpressure.release(10 + late);
        entry.backpressure.flows();
        assert_eq!(
            entry.reserve(100),
            Reservation::Queued,
            "it is a burst again"
        );
    });
}

#[test]
fn who_sends_while_the_kernel_takes_everything_again_finds_room() {
    model(3, || {
        let world = World::new(10);
        let entry = world.open();
        assert_eq!(entry.reserve(8), Reservation::Queued);
        entry.backpressure.stalls();
        let sender = {
            let entry = Arc::clone(&entry);
            thread::spawn(move || assert_eq!(entry.reserve(9), Reservation::Queued))
        };
        entry.backpressure.release(8);
        entry.backpressure.flows();
        sender.join().expect("it has sent");
        assert_eq!(entry.backpressure.waiting(), 9);
    });
}
