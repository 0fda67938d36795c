//! Everything at once, at random, with a seed that is printed: what must hold whatever happens.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{
    Client, Journal, ManualWorker, Random, SOCKETS, Seen, ThreadWorker, assert_nothing_left,
    at_once, broker, channel, eventually, listen, options, seed, stop,
};
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::{Broker, OutboundMessage, SocketId};

const STEADY: usize = 24;
const CHANNELS: usize = 12;
const PUBLISHERS: usize = 3;
const CHURNING_THREADS: usize = 3;
const RUNS_FOR: Duration = Duration::from_secs(3);

/// A message that says who published it, to which of their audiences, and its number there.
fn stamped(publisher: usize, audience: usize, number: u32) -> String {
    format!("{publisher} {audience} {number}")
}

fn stamp(payload: &[u8]) -> ((usize, usize), u32) {
    let text = std::str::from_utf8(payload).expect("a stamp");
    let mut words = text
        .split(' ')
        .map(|word| word.parse::<u32>().expect("a number"));
    let mut word = || words.next().expect("three words");
    let (publisher, audience) = (word() as usize, word() as usize);
    ((publisher, audience), word())
}

/// Audiences beside the random channels: a channel that all steady sockets are in all the time, and everybody.
const ALL_STEADY: usize = CHANNELS;
const EVERYBODY: usize = CHANNELS + 1;

/// How many a publisher sent to each audience.
type Published = BTreeMap<usize, u32>;

struct Chaos {
    broker: Broker,
    address: SocketAddr,
    over: Arc<AtomicBool>,
    journal: Journal,
    steady: Vec<SocketId>,
}

fn spawn<T: Send + 'static>(
    chaos: &Arc<Chaos>,
    seed: u64,
    run: impl FnOnce(&Chaos, Random) -> T + Send + 'static,
) -> JoinHandle<T> {
    let chaos = Arc::clone(chaos);
    std::thread::spawn(move || run(&chaos, Random::new(seed)))
}

impl Chaos {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn publish(&self, publisher: usize, mut random: Random) -> Published {
        let mut published = Published::new();
        while !self.is_over() {
            wsbroker_engine::cork();
            for _ in 0..random.below(20) {
                let audience = random.below(CHANNELS + 2);
                let number = published.entry(audience).or_default();
                let text = stamped(publisher, audience, *number);
                let message = OutboundMessage::text(&text);
                *number += 1;
                let receivers = match audience {
                    EVERYBODY => self.broker.broadcast(&message),
                    audience => self.broker.send_to_channel(&room(audience), &message, None),
                };
                if audience >= ALL_STEADY {
                    assert!(receivers >= STEADY, "{receivers} receivers");
                }
            }
            wsbroker_engine::uncork();
            std::thread::sleep(Duration::from_millis(1));
        }
        published
    }

    /// Moves steady sockets in and out of the random channels.
    fn move_about(&self, mut random: Random) {
        while !self.is_over() {
            let id = self.steady[random.below(STEADY)];
            let room = room(random.below(CHANNELS));
            match random.below(3) {
                0 => drop(self.broker.subscribe(id, &room)),
                1 => drop(self.broker.unsubscribe(id, &room)),
                _ => drop(self.broker.copy_subscriptions(&room, &channel("copies"))),
            }
            std::thread::yield_now();
        }
    }

    /// Connects, joins, and leaves in every way there is.
    fn churn(&self, mut random: Random) {
        while !self.is_over() {
            let mut client = Client::connect(self.address);
            client.send(support::handshake("/", ""));
            // No worker may be there at this moment.
            if client.head().status != 101 {
                continue;
            }
            for id in self.broker.connections() {
                if !self.steady.contains(&id) && random.below(2) == 0 {
                    let _ = self.broker.subscribe(id, &room(random.below(CHANNELS)));
                }
            }
            match random.below(5) {
                // Another thread may have had it closed meanwhile.
                0 => drop(client.try_send(support::masked(Opcode::Close, &[0x03, 0xE8]))),
                1 => client.reset(),
                2 => drop(client.try_send([0xFF, 0xFF])),
                3 => {
                    for id in self.broker.connections() {
                        if !self.steady.contains(&id) {
                            self.broker.close(id, 4000, "out");
                        }
                    }
                }
                _ => drop(client),
            }
        }
    }

    /// Workers come and go, in order or in the middle of a batch. Messages that went down with one.
    fn replace_workers(&self, mut random: Random) {
        let mut workers = Vec::new();
        while !self.is_over() {
            while workers.len() < random.below(4) {
                workers.push(self.worker());
            }
            if !workers.is_empty() {
                let at = random.below(workers.len());
                workers.swap_remove(at).end();
            }
            if random.below(3) == 0 {
                // Takes a batch and is never heard of again.
                let doomed = ManualWorker::register(&self.broker, SOCKETS);
                let began = Instant::now();
                while doomed.worker.take().is_none() && began.elapsed().as_millis() < 20 {
                    std::thread::yield_now();
                }
                doomed.worker.end(None);
            }
            std::thread::sleep(Duration::from_millis(random.below(15) as u64));
        }
        for worker in workers {
            worker.end();
        }
    }

    fn worker(&self) -> ThreadWorker {
        ThreadWorker::start(&self.broker, SOCKETS, &self.journal, |_, _| {})
    }
}

fn room(number: usize) -> wsbroker_engine::ChannelName {
    channel(&format!("room {number}"))
}

/// The half of a client that stays which sends numbers until the end.
fn talk(client: &Client, over: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> JoinHandle<()> {
    let mut writer = Client::from_tcp(client.tcp().try_clone().expect("a descriptor"));
    std::thread::spawn(move || {
        for number in 0_u32.. {
            if over.load(Ordering::Acquire) {
                break;
            }
            writer.send_text(&number.to_string());
            sent.fetch_add(1, Ordering::AcqRel);
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

/// The other half, which notes what it gets until the socket is closed.
fn listen_on(mut client: Client) -> JoinHandle<Vec<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut received = Vec::new();
        loop {
            let frame = client.frame();
            match frame.opcode {
                1 => received.push(frame.payload),
                8 => break,
                other => panic!("opcode {other}"),
            }
        }
        client.send_frame(Opcode::Close, &[0x03, 0xE8]);
        received
    })
}

#[test]
fn whatever_happens_nothing_is_lost_doubled_or_left() {
    let seed = seed();
    let broker = broker();
    let journal = Journal::default();
    let first = ThreadWorker::start(&broker, SOCKETS, &journal, |_, _| {});
    let mut roomy = options();
    roomy.max_backpressure = 64 << 20;
    let (listener, address) = listen(&broker, roomy);
    let clients: Vec<_> = (0..STEADY).map(|_| Client::open(address)).collect();
    let steady = journal.wait("they are open", |events| {
        let ids: Vec<_> = events.iter().filter_map(Seen::opened).collect();
        (ids.len() == STEADY).then_some(ids)
    });
    for id in &steady {
        assert_eq!(broker.subscribe(*id, &room(ALL_STEADY)), Ok(true));
    }
    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let talkers: Vec<_> = clients
        .iter()
        .map(|client| talk(client, Arc::clone(&over), Arc::clone(&sent)))
        .collect();
    let clients: Vec<_> = clients.into_iter().map(listen_on).collect();
    let chaos = Arc::new(Chaos {
        broker: broker.clone(),
        address,
        over: Arc::clone(&over),
        journal: journal.clone(),
        steady: steady.clone(),
    });
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|n| {
            spawn(&chaos, seed + n as u64, move |chaos, random| {
                chaos.publish(n, random)
            })
        })
        .collect();
    let mut others = vec![
        spawn(&chaos, seed + 100, Chaos::move_about),
        spawn(&chaos, seed + 101, Chaos::replace_workers),
    ];
    for n in 0..CHURNING_THREADS {
        others.push(spawn(&chaos, seed + 200 + n as u64, |chaos, random| {
            chaos.churn(random)
        }));
    }
    std::thread::sleep(RUNS_FOR); // how long it runs, not a wait for anything
    over.store(true, Ordering::Release);
    let published: Vec<_> = join(publishers);
    join(others);
    first.end();

    // One last worker hears the rest; then everybody is sent home.
    let last = chaos.worker();
    join(talkers);
    eventually("all that was said is read", || {
        broker.stats().messages_in == sent.load(Ordering::Acquire)
    });
    for id in broker.connections() {
        assert!(broker.close(id, 1000, "") || !steady.contains(&id));
    }
    let received = join(clients);
    let opened = broker.stats().opened as usize;
    eventually("every close event", || journal.closes().len() >= opened);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
    last.end();

    assert_received(&received, &published);
    let lost = broker.stats().dropped.worker_ended;
    assert_said(&journal, &steady, sent.load(Ordering::Acquire), lost);
    let closed: Vec<_> = journal.closes().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(closed.len(), opened, "each socket closes once");
    assert_eq!(closed.iter().collect::<HashSet<_>>().len(), opened);
    assert_eq!(broker.stats().dropped.slow_consumer, 0);
}

fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let joined = threads
        .into_iter()
        .map(|t| t.join().expect("no thread panics"));
    joined.collect()
}

/// Each publisher's messages come in its order and at most once; those for audiences a socket never left, all of them.
fn assert_received(received: &[Vec<Vec<u8>>], published: &[Published]) {
    for messages in received {
        let mut next: HashMap<(usize, usize), u32> = HashMap::new();
        let mut counts: HashMap<(usize, usize), u32> = HashMap::new();
        for message in messages {
            let (from, number) = stamp(message);
            let next = next.entry(from).or_default();
            assert!(number >= *next, "{from:?}: {number} after {next}");
            *next = number + 1;
            *counts.entry(from).or_default() += 1;
        }
        for (publisher, published) in published.iter().enumerate() {
            for audience in [ALL_STEADY, EVERYBODY] {
                let all = published.get(&audience).copied().unwrap_or(0);
                let came = counts.get(&(publisher, audience)).copied().unwrap_or(0);
                assert_eq!(came, all, "publisher {publisher} to {audience}");
            }
        }
    }
}

/// What steady sockets said was handled once and in order, but for what went down with a worker, which was counted.
fn assert_said(journal: &Journal, steady: &[SocketId], sent: u64, lost: u64) {
    let mut next: HashMap<SocketId, u32> = HashMap::new();
    let mut handled = 0;
    for event in journal.lock().iter() {
        let Seen::Message {
            socket, payload, ..
        } = event
        else {
            continue;
        };
        assert!(steady.contains(socket));
        let text = std::str::from_utf8(payload).expect("a number");
        let number: u32 = text.parse().expect("a number");
        let next = next.entry(*socket).or_default();
        assert!(number >= *next, "{socket}: {number} after {next}");
        *next = number + 1;
        handled += 1;
    }
    assert_eq!(handled + lost, sent, "{lost} went down with their workers");
}

/// What a thread believes of the sockets that only it moves.
type Model = HashSet<(SocketId, usize)>;

#[test]
fn the_channels_agree_with_a_model_while_thousands_are_moved_and_published_to() {
    const SOCKETS_OPEN: usize = 2400;
    const MOVERS: usize = 3;
    const ROOMS: usize = 4;
    const MOVES: usize = 20_000;
    let seed = seed();
    let broker = broker();
    let mut worker = ManualWorker::register(&broker, SOCKETS);
    let (listener, address) = listen(&broker, options());
    let mut clients: Vec<_> = (0..SOCKETS_OPEN)
        .map(|_| {
            while worker.take() {} // who is full gets no more sockets
            Client::open(address)
        })
        .collect();
    let ids = worker.wait_opened(SOCKETS_OPEN);
    // A third is in every room all the time; the others are moved, each by one thread.
    let (stays, moved) = ids.split_at(SOCKETS_OPEN / 3);
    for id in stays {
        for n in 0..ROOMS {
            assert_eq!(broker.subscribe(*id, &room(n)), Ok(true));
        }
    }
    let models: Arc<Mutex<Model>> = Arc::default();
    let movers: Vec<_> = moved
        .chunks(moved.len() / MOVERS)
        .enumerate()
        .map(|(n, mine)| {
            let (broker, mine, models) = (broker.clone(), mine.to_vec(), Arc::clone(&models));
            std::thread::spawn(move || {
                let model =
                    move_and_check(&broker, &mine, Random::new(seed + n as u64), ROOMS, MOVES);
                models.lock().expect("no panic").extend(model);
            })
        })
        .collect();
    let mut published = [0_u32; ROOMS];
    while movers.iter().any(|mover| !mover.is_finished()) && published[0] < 500 {
        for (n, number) in published.iter_mut().enumerate() {
            let text = stamped(0, n, *number);
            let message = OutboundMessage::text(&text);
            let receivers = broker.send_to_channel(&room(n), &message, None);
            assert!((stays.len()..=SOCKETS_OPEN).contains(&receivers));
            *number += 1;
        }
    }
    join(movers);
    let model = models.lock().expect("no panic");
    for n in 0..ROOMS {
        let mut expected: Vec<_> = stays.to_vec();
        expected.extend(model.iter().filter(|(_, r)| *r == n).map(|(id, _)| *id));
        expected.sort();
        let mut members = broker.subscribers(&room(n));
        members.sort();
        assert_eq!(members, expected, "room {n}");
        assert_eq!(broker.subscriber_count(&room(n)), expected.len());
    }
    let all = model.len() + stays.len() * ROOMS;
    assert_eq!(broker.stats().subscriptions, all as u64);

    // Which client is which socket: each is told its id behind everything published.
    for id in &ids {
        assert!(broker.send(*id, &OutboundMessage::binary(&id.get().to_be_bytes())));
    }
    for client in &mut clients {
        let mut next = [0; ROOMS];
        let mut count = [0; ROOMS];
        let id = loop {
            let frame = client.frame();
            if frame.opcode == Opcode::Binary as u8 {
                let bytes = frame.payload.try_into().expect("eight bytes");
                break SocketId::new(u64::from_be_bytes(bytes)).expect("an id");
            }
            let ((_, room), number) = stamp(&frame.payload);
            assert!(number >= next[room], "room {room}: {number} after {next:?}");
            next[room] = number + 1;
            count[room] += 1;
        };
        if stays.contains(&id) {
            assert_eq!(count, published, "who stays misses nothing");
        }
    }
    drop(clients);
    stop(&listener, at_once());
    assert_nothing_left(&broker);
}

/// Random joins and leaves, each answer checked against what this thread knows.
fn move_and_check(
    broker: &Broker,
    mine: &[SocketId],
    mut random: Random,
    rooms: usize,
    moves: usize,
) -> Model {
    let mut model = Model::new();
    for _ in 0..moves {
        let (id, n) = (mine[random.below(mine.len())], random.below(rooms));
        if random.below(2) == 0 {
            let is_new = model.insert((id, n));
            assert_eq!(broker.subscribe(id, &room(n)), Ok(is_new));
        } else {
            let was_there = model.remove(&(id, n));
            assert_eq!(broker.unsubscribe(id, &room(n)), was_there);
        }
    }
    model
}
