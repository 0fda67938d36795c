//! What each client has taken of a listener: its open connections and its buckets, exact over all threads.
//!
//! A client is remembered while it has a connection or a bucket that is not full; forgetting a full one changes
//! nothing. Time comes as milliseconds of a clock that the caller keeps.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Limits;
use super::bucket::{Bucket, Rate};
use crate::client::ClientKey;

/// How many locks the clients share. Each protects its part for one look-up, or one look at all of them.
const PARTITIONS: usize = 64;

/// How many clients a partition remembers, which makes 917,504 for a listener. A place of a table takes 57 bytes, and a
/// table in which clients come and go has at most 2^15 places: about 120 MB for all.
///
/// Beyond it the client that has taken least is forgotten. One with an open connection never is, and these are bounded
/// by the process's file descriptors.
const LARGEST_PARTITION: usize = (1 << 14) / 8 * 7;

/// Among so many candidates the one that has taken least is looked for.
const CANDIDATES: usize = 8;

/// How many connections of one client may wait for the answer that it has too many. More are closed without one.
const REFUSED_AT_ONCE: u8 = 4;

/// The clients of one listener.
pub(crate) struct Clients {
    limits: Limits,
    /// Random, as that of the maps: who can choose addresses must not choose the partition or the place in it.
    hasher: RandomState,
    partitions: Box<[Mutex<Partition>]>,
}

type Partition = HashMap<ClientKey, Client>;

#[derive(Default, PartialEq, Eq)]
struct Client {
    upgrades: Bucket,
    requests: Bucket,
    connections: u32,
    /// Connections beyond the limit that wait for their answer.
    refused: u8,
}

/// What a bucket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Upgrade,
    Request,
}

/// One connection of a client. It counts while this lives.
pub(crate) struct ClientConnection {
    clients: Arc<Clients>,
    key: ClientKey,
}

/// One connection of a client that has too many. While this lives it may wait for its answer.
pub(crate) struct RefusedClient {
    clients: Arc<Clients>,
    key: ClientKey,
}

/// A client has as many connections as it may.
pub(crate) enum TooMany {
    /// There is room to say so.
    Answer(RefusedClient),
    /// Enough of its connections wait to be told.
    Close,
}

impl Clients {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            hasher: RandomState::new(),
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
        })
    }

    fn partition(&self, key: ClientKey) -> &Mutex<Partition> {
        &self.partitions[self.hasher.hash_one(key) as usize % PARTITIONS]
    }

    /// Counts a connection of this client, until what it answers is dropped. `None`: nothing is to be counted.
    pub(crate) fn connect(
        self: &Arc<Self>,
        key: ClientKey,
        now: u64,
    ) -> Result<Option<ClientConnection>, TooMany> {
        let Some(limit) = self.limits.connections_per_ip else {
            return Ok(None);
        };
        let mut partition = self.partition(key).lock();
        let client = self.find(&mut partition, key, now);
        if client.connections < limit {
            client.connections += 1;
            drop(partition);
            let clients = Arc::clone(self);
            return Ok(Some(ClientConnection { clients, key }));
        }
        if client.refused == REFUSED_AT_ONCE {
            return Err(TooMany::Close);
        }
        client.refused += 1;
        drop(partition);
        let clients = Arc::clone(self);
        Err(TooMany::Answer(RefusedClient { clients, key }))
    }

    /// Takes a token of this client's bucket.
    ///
    /// # Errors
    /// The milliseconds until there is one again.
    pub(crate) fn take(&self, key: ClientKey, act: Act, now: u64) -> Result<(), u32> {
        let Some(rate) = self.rate(act) else {
            return Ok(());
        };
        let mut partition = self.partition(key).lock();
        let client = self.find(&mut partition, key, now);
        match act {
            Act::Upgrade => client.upgrades.take(rate, 1, now),
            Act::Request => client.requests.take(rate, 1, now),
        }
    }

    fn rate(&self, act: Act) -> Option<Rate> {
        match act {
            Act::Upgrade => self.limits.upgrades_per_ip,
            Act::Request => self.limits.requests_per_ip,
        }
    }

    fn find<'a>(&self, partition: &'a mut Partition, key: ClientKey, now: u64) -> &'a mut Client {
        if partition.len() >= LARGEST_PARTITION && !partition.contains_key(&key) {
            self.make_room(partition, now);
        }
        partition.entry(key).or_default()
    }

    /// Forgets the one of a few clients that has taken least.
    fn make_room(&self, partition: &mut Partition, now: u64) {
        let candidates = partition
            .iter()
            .filter(|(_, client)| !client.is_connected());
        let least = candidates
            .take(CANDIDATES)
            .min_by_key(|(_, client)| self.time_to_full(client, now))
            .map(|(key, _)| *key);
        if let Some(key) = least {
            partition.remove(&key);
        }
    }

    /// How long until everything this client has taken is back, in milliseconds.
    fn time_to_full(&self, client: &Client, now: u64) -> u32 {
        let of = |bucket: Bucket, rate: Option<Rate>| {
            rate.map_or(0, |rate| bucket.time_to_full(rate, now))
        };
        of(client.upgrades, self.limits.upgrades_per_ip)
            .max(of(client.requests, self.limits.requests_per_ip))
    }

    /// Forgets the clients of one partition that have nothing open and everything back. `turn` counts the calls: in
    /// [`PARTITIONS`] of them every client is looked at once.
    pub(crate) fn forget(&self, turn: usize, now: u64) {
        let mut partition = self.partitions[turn % PARTITIONS].lock();
        partition.retain(|_, client| client.is_connected() || self.time_to_full(client, now) > 0);
        // Of nobody nothing is kept: there are many partitions, for each listener.
        let room = 4 * partition.len();
        partition.shrink_to(room);
    }

    /// Changes a client that is there, and forgets it if that was the last there was to know.
    fn leave(&self, key: ClientKey, change: impl FnOnce(&mut Client)) {
        let mut partition = self.partition(key).lock();
        if let Some(client) = partition.get_mut(&key) {
            change(client);
            if *client == Client::default() {
                partition.remove(&key);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.partitions.iter().map(|part| part.lock().len()).sum()
    }
}

impl Client {
    fn is_connected(&self) -> bool {
        self.connections > 0 || self.refused > 0
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.clients
            .leave(self.key, |client| client.connections -= 1);
    }
}

impl Drop for RefusedClient {
    fn drop(&mut self) {
        self.clients.leave(self.key, |client| client.refused -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::client::ClientAddress;

    fn v4(n: u32) -> ClientKey {
        let ip = Ipv4Addr::from_bits(0x0A00_0000 + n);
        ClientAddress::from(std::net::IpAddr::from(ip))
            .key()
            .expect("an address")
    }

    fn rate(capacity: u32, interval: u64) -> Option<Rate> {
        Rate::new(capacity, Duration::from_millis(interval))
    }

    fn of_requests(capacity: u32, interval: u64) -> Arc<Clients> {
        Clients::new(Limits {
            requests_per_ip: rate(capacity, interval),
            ..Limits::default()
        })
    }

    fn of_connections(limit: u32) -> Arc<Clients> {
        Clients::new(Limits {
            connections_per_ip: Some(limit),
            ..Limits::default()
        })
    }

    /// Looks at every client once.
    fn pass(clients: &Clients, now: u64) {
        for turn in 0..PARTITIONS {
            clients.forget(turn, now);
        }
    }

    #[test]
    fn threads_that_share_a_client_take_exactly_its_capacity() {
        let clients = of_requests(1000, 60_000);
        let taken = AtomicU32::new(0);
        let hammer = |now: u64| {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            if clients.take(v4(1), Act::Request, now).is_ok() {
                                taken.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            taken.swap(0, Ordering::Relaxed)
        };
        assert_eq!(hammer(0), 1000);
        assert_eq!(hammer(59), 0, "a token comes back in 60 ms");
        assert_eq!(hammer(60), 1);
        assert_eq!(hammer(6060), 100);
        assert_eq!(hammer(70_000), 1000);
    }

    #[test]
    fn each_client_has_buckets_of_its_own_and_one_for_each_act() {
        let clients = Clients::new(Limits {
            upgrades_per_ip: rate(1, 1000),
            requests_per_ip: rate(2, 1000),
            ..Limits::default()
        });
        for client in 0..100 {
            assert_eq!(clients.take(v4(client), Act::Upgrade, 0), Ok(()));
            assert_eq!(clients.take(v4(client), Act::Upgrade, 0), Err(1000));
            assert_eq!(clients.take(v4(client), Act::Request, 0), Ok(()));
            assert_eq!(clients.take(v4(client), Act::Request, 0), Ok(()));
            assert_eq!(clients.take(v4(client), Act::Request, 0), Err(500));
        }
    }

    #[test]
    fn what_is_not_limited_is_not_remembered() {
        let clients = of_requests(1, 1000);
        for n in 0..10 {
            assert!(matches!(clients.connect(v4(1), 0), Ok(None)), "{n}");
            assert_eq!(clients.take(v4(1), Act::Upgrade, 0), Ok(()));
        }
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn connections_count_while_they_live() {
        let clients = of_connections(3);
        let open = || clients.connect(v4(1), 0);
        let held: Vec<_> = (0..3).map(|_| open().ok().flatten()).collect();
        assert!(held.iter().all(Option::is_some));
        let refused: Vec<_> = (0..REFUSED_AT_ONCE).map(|_| open()).collect();
        assert!(refused.iter().all(|r| matches!(r, Err(TooMany::Answer(_)))));
        assert!(matches!(open(), Err(TooMany::Close)));
        assert!(
            matches!(clients.connect(v4(2), 0), Ok(Some(_))),
            "another client"
        );
        drop(refused);
        assert!(matches!(open(), Err(TooMany::Answer(_))));
        drop(held);
        let one = open();
        assert!(matches!(one, Ok(Some(_))));
        drop(one);
        assert_eq!(clients.len(), 0, "nothing is left to know");
    }

    #[test]
    fn threads_that_share_a_client_hold_exactly_its_connections() {
        let clients = of_connections(50);
        let held = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(Some(connection)) = clients.connect(v4(1), 0) {
                            held.lock().push(connection);
                        }
                        drop(clients.connect(v4(2), 0)); // counts up and down beside it
                    }
                });
            }
        });
        assert_eq!(held.lock().len(), 50);
        held.lock().clear();
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn a_full_bucket_is_forgotten_and_no_other() {
        let clients = of_requests(2, 1000);
        clients.take(v4(1), Act::Request, 0).expect("a token");
        clients.take(v4(2), Act::Request, 0).expect("a token");
        clients.take(v4(2), Act::Request, 0).expect("a token");
        pass(&clients, 499);
        assert_eq!(clients.len(), 2);
        pass(&clients, 500);
        assert_eq!(clients.len(), 1, "one has got its token back");
        assert_eq!(clients.take(v4(2), Act::Request, 500), Ok(()));
        assert_eq!(clients.take(v4(2), Act::Request, 500), Err(500));
        pass(&clients, 1500);
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn a_client_with_a_connection_is_not_forgotten() {
        let clients = of_connections(1);
        let open = clients.connect(v4(1), 0);
        assert!(matches!(open, Ok(Some(_))));
        pass(&clients, u64::from(u32::MAX));
        assert!(matches!(
            clients.connect(v4(1), 1 << 40),
            Err(TooMany::Answer(_))
        ));
    }

    #[test]
    fn a_million_clients_at_once_stay_within_the_bound_and_are_all_forgotten() {
        let clients = of_requests(2, 60_000);
        let greedy: Vec<_> = (0..20).map(|n| v4(2_000_000 + n)).collect();
        for key in &greedy {
            clients.take(*key, Act::Request, 0).expect("a token");
            clients.take(*key, Act::Request, 0).expect("a token");
        }
        for n in 0..1_000_000 {
            clients
                .take(v4(n), Act::Request, 0)
                .expect("its first token");
        }
        let bound = PARTITIONS * LARGEST_PARTITION;
        assert!(clients.len() <= bound, "{} > {bound}", clients.len());
        for partition in &clients.partitions {
            let room = partition.lock().capacity();
            assert!(room <= 2 * LARGEST_PARTITION, "{room}");
        }
        assert_eq!(size_of::<(ClientKey, Client)>(), 56);
        for key in &greedy {
            assert!(
                clients.take(*key, Act::Request, 0).is_err(),
                "the ones that took most are remembered"
            );
        }
        pass(&clients, 60_000);
        assert_eq!(clients.len(), 0);
        let room: usize = clients
            .partitions
            .iter()
            .map(|part| part.lock().capacity())
            .sum();
        assert!(room < 1000, "the memory is given back: {room}");
    }

    #[test]
    fn clients_that_come_one_after_the_other_are_forgotten_on_the_way() {
        // 20 new clients each ms, whose token is back after 10 ms; a partition is looked at every 100 ms.
        let clients = of_requests(100, 1000);
        let mut most = 0;
        let mut turn = 0;
        for now in 0..10_000_u64 {
            for n in 0..20 {
                let key = v4(now as u32 * 20 + n);
                clients.take(key, Act::Request, now).expect("a token");
            }
            if now % 100 == 0 {
                clients.forget(turn, now);
                turn += 1;
                most = most.max(clients.len());
            }
        }
        // Each partition was looked at at most 6.4 s ago.
        assert!(most <= 20 * (6400 + 10), "{most} of 200,000");
    }

    #[test]
    fn networks_of_64_bits_spread_over_all_partitions() {
        let clients = of_requests(1, 1000);
        for n in 0..10_000_u128 {
            let ip = Ipv6Addr::from_bits((0x2001_0db8 << 96) | (n << 64));
            let key = ClientAddress::from(std::net::IpAddr::from(ip))
                .key()
                .expect("an address");
            clients.take(key, Act::Request, 0).expect("a token");
        }
        let sizes: HashSet<_> = clients
            .partitions
            .iter()
            .map(|part| part.lock().len() / 100)
            .collect();
        assert!(
            sizes.iter().all(|hundreds| (0..3).contains(hundreds)),
            "{sizes:?}"
        );
    }
}
