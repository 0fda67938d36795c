//! Relays at random over several shards, with a seed that is printed: who is in a room, what route a sender has and which
//! worker there is change all the time, and still each message is accounted for.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::{
    Client, Journal, Random, SOCKETS, Seen, ThreadWorker, assert_nothing_left, at_once, channel,
    eventually, listen, options, seed, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{Broker, BrokerOptions, ChannelName, NativeRoute, SocketId};

const SHARDS: usize = 3;
const ROOMS: usize = 3;
/// Each relays to one room, when it does.
const SENDERS: usize = 12;
/// Of each room: they stay in it and in no other, and say nothing. They are dealt to all shards.
const WITNESSES: usize = 3;
const OUTSIDERS: usize = 3;
const RUNS_FOR: Duration = Duration::from_secs(2);

/// A socket that stays, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sender(usize),
    /// In this room.
    Witness(usize),
    /// In no room; what it says comes back to it.
    Outsider,
}

fn room(number: usize) -> ChannelName {
    channel(&format!("room {number}"))
}

fn roles() -> Vec<Role> {
    let witnesses = (0..ROOMS * WITNESSES).map(|n| Role::Witness(n % ROOMS));
    let outsiders = (0..OUTSIDERS).map(|_| Role::Outsider);
    let senders = (0..SENDERS).map(Role::Sender);
    senders.chain(witnesses).chain(outsiders).collect()
}

struct Chaos {
    broker: Broker,
    address: SocketAddr,
    over: Arc<AtomicBool>,
    journal: Journal,
    senders: Vec<SocketId>,
}

impl Chaos {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn change_routes(&self, mut random: Random) {
        while !self.is_over() {
            let n = random.below(SENDERS);
            let route = match random.below(6) {
                0 => None,
                1 => Some(NativeRoute::Echo),
                echo => Some(NativeRoute::Relay {
                    channel: room(n % ROOMS),
                    echo: echo == 2,
                }),
            };
            assert!(self.broker.set_message_route(self.senders[n], route));
            if random.below(10) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Moves senders in and out of their rooms.
    fn move_about(&self, mut random: Random) {
        while !self.is_over() {
            let n = random.below(SENDERS);
            let (id, room) = (self.senders[n], room(n % ROOMS));
            // More often in than out.
            match random.below(3) {
                0 => drop(self.broker.unsubscribe(id, &room)),
                _ => drop(self.broker.subscribe(id, &room)),
            }
            std::thread::yield_now();
        }
    }

    /// Sockets that join a room and leave in every way there is.
    fn churn(&self, mut random: Random) {
        while !self.is_over() {
            let before: BTreeSet<_> = self.broker.connections().into_iter().collect();
            let mut client = Client::connect(self.address);
            client.send(support::handshake("/", ""));
            if client.head().status != 101 {
                continue; // no worker is there at this moment
            }
            // Its own, or that of another thread that does the same.
            for id in self.broker.connections() {
                if !before.contains(&id) {
                    let _ = self.broker.subscribe(id, &room(random.below(ROOMS)));
                }
            }
            match random.below(3) {
                0 => client.reset(),
                1 => drop(client.try_send(support::masked(Opcode::Close, &[0x03, 0xE8]))),
                _ => {
                    for id in self.broker.connections() {
                        if !before.contains(&id) {
                            self.broker.close(id, 4000, "out");
                        }
                    }
                }
            }
        }
    }

    /// Workers come and go. What they were given they finish.
    fn replace_workers(&self, mut random: Random) {
        let mut workers = Vec::new();
        while !self.is_over() {
            while workers.len() < random.below(3) {
                workers.push(ThreadWorker::start(
                    &self.broker,
                    SOCKETS,
                    &self.journal,
                    |_, _| {},
                ));
            }
            if !workers.is_empty() {
                let at = random.below(workers.len());
                workers.swap_remove(at).end();
            }
            std::thread::sleep(Duration::from_millis(random.below(10) as u64));
        }
        workers.into_iter().for_each(ThreadWorker::end);
    }
}

fn spawn(
    chaos: &Arc<Chaos>,
    seed: u64,
    run: impl FnOnce(&Chaos, Random) + Send + 'static,
) -> JoinHandle<()> {
    let chaos = Arc::clone(chaos);
    std::thread::spawn(move || run(&chaos, Random::new(seed)))
}

/// Sends `speaker number` until the end, several at once; how many.
fn talk(
    client: &Client,
    speaker: usize,
    mut random: Random,
    over: &Arc<AtomicBool>,
    sent: &Arc<AtomicU64>,
) -> JoinHandle<u32> {
    let mut writer = Client::from_tcp(client.tcp().try_clone().expect("a descriptor"));
    let (over, sent) = (Arc::clone(over), Arc::clone(sent));
    std::thread::spawn(move || {
        let mut number = 0;
        while !over.load(Ordering::Acquire) {
            let mut bytes = Vec::new();
            for _ in 0..random.below(20) {
                let mut text = format!("{speaker} {number} ");
                // Sometimes one that travels by itself.
                text.push_str(&"x".repeat(if random.below(20) == 0 { 5000 } else { 10 }));
                bytes.extend(support::masked(Opcode::Text, text.as_bytes()));
                number += 1;
            }
            writer.send(bytes);
            std::thread::sleep(Duration::from_millis(1));
        }
        sent.fetch_add(u64::from(number), Ordering::AcqRel);
        number
    })
}

/// By speaker, the numbers of what one socket got.
type Heard = BTreeMap<usize, BTreeSet<u32>>;

fn hear(mut client: Client) -> JoinHandle<Heard> {
    std::thread::spawn(move || {
        let mut heard = Heard::new();
        loop {
            let frame = client.frame();
            if frame.opcode == Opcode::Close as u8 {
                break;
            }
            assert_eq!(frame.opcode, Opcode::Text as u8);
            let (speaker, number) = parse(&frame.payload);
            let of_speaker = heard.entry(speaker).or_default();
            // In order, and so none twice.
            let last = of_speaker.last().copied();
            assert!(last < Some(number), "{speaker}: {number} after {last:?}");
            of_speaker.insert(number);
        }
        client.send_frame(Opcode::Close, &[0x03, 0xE8]);
        heard
    })
}

fn parse(payload: &[u8]) -> (usize, u32) {
    let text = std::str::from_utf8(payload).expect("text");
    let mut words = text.split(' ').map(|word| word.parse::<u32>());
    let mut word = || words.next().expect("a word").expect("a number");
    (word() as usize, word())
}

#[test]
fn whatever_changes_meanwhile_each_message_is_relayed_echoed_handled_or_counted_once() {
    let seed = seed();
    let broker = Broker::new(BrokerOptions {
        io_threads: Some(SHARDS),
    });
    let journal = Journal::default();
    let first = ThreadWorker::start(&broker, SOCKETS, &journal, |_, _| {});
    let mut roomy = options();
    roomy.max_backpressure = 64 << 20;
    let (listener, address) = listen(&broker, roomy);
    let mut clients = Vec::new();
    for n in 0..roles().len() {
        clients.push(Client::open(address));
        journal.wait("it is open", |events| {
            (events.iter().filter_map(Seen::opened).count() > n).then_some(())
        });
    }
    let ids = journal.opened();
    for (role, id) in roles().into_iter().zip(&ids) {
        match role {
            Role::Sender(_) => {}
            Role::Witness(n) => assert_eq!(broker.subscribe(*id, &room(n)), Ok(true)),
            Role::Outsider => {
                assert!(broker.set_message_route(*id, Some(NativeRoute::Echo)));
            }
        }
    }
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let talkers: Vec<_> = roles()
        .into_iter()
        .enumerate()
        .filter(|(_, role)| !matches!(role, Role::Witness(_)))
        .map(|(n, _)| talk(&clients[n], n, Random::new(seed + n as u64), &over, &sent))
        .collect();
    let hearers: Vec<_> = clients.into_iter().map(hear).collect();
    let chaos = Arc::new(Chaos {
        broker: broker.clone(),
        address,
        over: Arc::clone(&over),
        journal: journal.clone(),
        senders: ids[..SENDERS].to_vec(),
    });
    let others = [
        spawn(&chaos, seed + 100, Chaos::change_routes),
        spawn(&chaos, seed + 101, Chaos::move_about),
        spawn(&chaos, seed + 102, Chaos::replace_workers),
        spawn(&chaos, seed + 103, Chaos::churn),
        spawn(&chaos, seed + 104, Chaos::churn),
    ];
    std::thread::sleep(RUNS_FOR); // how long it runs, not a wait for anything
    over.store(true, Ordering::Release);
    let said = join(talkers);
    join(others);
    eventually("all that was said is read", || {
        broker.stats().messages_in == sent.load(Ordering::Acquire)
    });
    for id in &ids {
        assert!(broker.close(*id, 1000, ""));
    }
    let heard = join(hearers);
    let opened = broker.stats().opened as usize;
    eventually("every close event", || journal.closes().len() >= opened);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
    first.end();
    journal.assert_lives_are_whole();

    let dropped = broker.stats().dropped;
    assert_eq!((dropped.slow_consumer, dropped.worker_ended), (0, 0));
    assert_accounted(&journal, &ids, &said, &heard, dropped.not_subscribed);
}

fn assert_accounted(
    journal: &Journal,
    ids: &[SocketId],
    said: &[u32],
    heard: &[Heard],
    not_subscribed: u64,
) {
    let mut handled = Heard::new();
    for event in journal.lock().iter() {
        if let Seen::Message {
            socket, payload, ..
        } = event
        {
            let (speaker, number) = parse(payload);
            assert_eq!(*socket, ids[speaker]);
            let of_speaker = handled.entry(speaker).or_default();
            assert!(of_speaker.last() < Some(&number), "handled in order");
            of_speaker.insert(number);
        }
    }
    let nothing = BTreeSet::new();
    let by = |heard: &Heard, speaker| heard.get(&speaker).unwrap_or(&nothing).clone();
    let roles = roles();
    let mut missing = 0;
    for speaker in 0..SENDERS {
        let mut witnesses =
            (0..roles.len()).filter(|n| roles[*n] == Role::Witness(speaker % ROOMS));
        let relayed = by(&heard[witnesses.next().expect("a witness")], speaker);
        assert!(!relayed.is_empty(), "{speaker} relays at times");
        for other in witnesses {
            assert_eq!(
                by(&heard[other], speaker),
                relayed,
                "all witnesses hear the same of {speaker}"
            );
        }
        let handled = by(&handled, speaker);
        assert!(handled.is_disjoint(&relayed), "one way for each message");
        let own = by(&heard[speaker], speaker);
        assert!(handled.is_disjoint(&own));
        let known: BTreeSet<_> = handled.iter().chain(&relayed).chain(&own).collect();
        missing += u64::from(said[speaker]) - known.len() as u64;
    }
    assert_eq!(missing, not_subscribed, "what was left out is counted");
    for (n, role) in roles.iter().enumerate() {
        match role {
            Role::Witness(room) => {
                let speakers = heard[n].keys();
                assert!(
                    speakers
                        .into_iter()
                        .all(|speaker| *speaker < SENDERS && speaker % ROOMS == *room)
                );
            }
            Role::Outsider => {
                let all: BTreeSet<_> = (0..said[n - ROOMS * WITNESSES]).collect();
                assert_eq!(
                    heard[n],
                    Heard::from([(n, all)]),
                    "its own words and nothing else"
                );
            }
            // Who moves in and out of a room hears a part of what is said there.
            Role::Sender(own) => {
                assert!(
                    heard[n]
                        .keys()
                        .all(|speaker| *speaker < SENDERS && speaker % ROOMS == own % ROOMS)
                );
            }
        }
    }
}

fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    let joined = threads
        .into_iter()
        .map(|t| t.join().expect("no thread panics"));
    joined.collect()
}
