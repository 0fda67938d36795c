//! Who is kept out, for a time or until further notice.
//!
//! Time comes as milliseconds of a clock that the caller keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::client::{Cidr, ClientAddress};

/// A ban, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom it keeps out.
    pub network: Cidr,
    /// When it ends by itself, by the clock of the wall at the moment of the call.
    pub ends: Option<SystemTime>,
}

/// So many bans that have ended are dropped by one call at the most: some 10 µs. A call adds one, so that they become fewer.
const DROPPED_AT_ONCE: usize = 32;

/// So many are listed before the others get a turn at the table.
const LISTED_AT_ONCE: usize = 256;

/// The bans of a broker. Each costs some 100 bytes; how many there are is up to the application.
#[derive(Default)]
pub(crate) struct Bans {
    /// How many are in the table. A look-up without any reads this and takes no lock.
    count: AtomicUsize,
    /// Held for a few look-ups in a map, and to drop some of the bans that have ended.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Trees: a map of many would grow, and give memory back, in one long step.
    until: BTreeMap<Cidr, Option<u64>>,
    /// Those that end by themselves, the next one first.
    ends: BTreeSet<(u64, Cidr)>,
    /// How many bans there are of each length of prefix: only these have to be looked up.
    v4: Prefixes,
    v6: Prefixes,
}

/// Lengths of prefix in use, and how often each is.
#[derive(Default)]
struct Prefixes(Vec<(u8, usize)>);

impl Bans {
    /// Bans this network until then, or until further notice. The end of an earlier ban of it is replaced.
    pub(crate) fn add(&self, network: Cidr, until: Option<u64>, now: u64) {
        let mut table = self.table.lock();
        table.drop_ended(now);
        table.remove(&network);
        table.insert(network, until);
        self.note(&table);
    }

    /// Whether there was such a ban.
    pub(crate) fn remove(&self, network: &Cidr, now: u64) -> bool {
        let mut table = self.table.lock();
        table.drop_ended(now);
        let was_there = table.is_in_force(network, now);
        table.remove(network);
        self.note(&table);
        was_there
    }

    /// All bans, in the order of their networks. `time` is what the clock on the wall shows at `now`.
    pub(crate) fn list(&self, now: u64, time: SystemTime) -> Vec<Ban> {
        let mut bans = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let mut table = self.table.lock();
            table.drop_ended(now);
            self.note(&table);
            let rest = table.until.range((from, Bound::Unbounded));
            let mut last = None;
            for (network, until) in rest.take(LISTED_AT_ONCE) {
                last = Some(*network);
                if is_over(*until, now) {
                    continue;
                }
                bans.push(Ban {
                    network: *network,
                    // None for a time that no clock can show.
                    ends: until
                        .and_then(|until| time.checked_add(Duration::from_millis(until - now))),
                });
            }
            match last {
                Some(last) => from = Bound::Excluded(last),
                None => return bans,
            }
        }
    }

    /// Whether this client is kept out. `now` is asked only if there is any ban.
    pub(crate) fn cover(&self, client: ClientAddress, now: impl FnOnce() -> u64) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(ip) = client.ip() else { return false };
        let now = now();
        let mut table = self.table.lock();
        table.drop_ended(now);
        self.note(&table);
        table.cover(ip, now)
    }

    fn note(&self, table: &Table) {
        self.count.store(table.until.len(), Ordering::Relaxed);
    }
}

impl Table {
    fn prefixes(&mut self, network: &Cidr) -> &mut Prefixes {
        match network.network() {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }

    fn insert(&mut self, network: Cidr, until: Option<u64>) {
        self.until.insert(network, until);
        self.ends.extend(until.map(|until| (until, network)));
        self.prefixes(&network).add(network.prefix());
    }

    fn remove(&mut self, network: &Cidr) -> bool {
        let Some(until) = self.until.remove(network) else {
            return false;
        };
        if let Some(until) = until {
            self.ends.remove(&(until, *network));
        }
        self.prefixes(network).remove(network.prefix());
        true
    }

    /// Drops what has ended, or some of it.
    fn drop_ended(&mut self, now: u64) {
        for _ in 0..DROPPED_AT_ONCE {
            match self.ends.first().copied() {
                Some((until, network)) if is_over(Some(until), now) => {
                    debug_assert_eq!(self.until.get(&network), Some(&Some(until)));
                    self.remove(&network);
                }
                _ => return,
            }
        }
    }

    /// There is a ban of exactly this network, and it has not ended.
    fn is_in_force(&self, network: &Cidr, now: u64) -> bool {
        let until = self.until.get(network);
        until.is_some_and(|until| !is_over(*until, now))
    }

    fn cover(&self, ip: IpAddr, now: u64) -> bool {
        let prefixes = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        let mut lengths = prefixes.0.iter();
        lengths.any(|(length, _)| self.is_in_force(&Cidr::masked(ip, *length), now))
    }
}

/// What ends at this moment is over.
fn is_over(until: Option<u64>, now: u64) -> bool {
    until.is_some_and(|until| until <= now)
}

impl Prefixes {
    fn add(&mut self, length: u8) {
        match self.0.iter_mut().find(|(other, _)| *other == length) {
            Some((_, count)) => *count += 1,
            None => self.0.push((length, 1)),
        }
    }

    fn remove(&mut self, length: u8) {
        self.0.retain_mut(|(other, count)| {
            if *other == length {
                *count -= 1;
            }
            *count > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a network")
    }

    fn covered(bans: &Bans, ip: &str, now: u64) -> bool {
        let ip: IpAddr = ip.parse().expect("an address");
        bans.cover(ip.into(), || now)
    }

    fn listed(bans: &Bans, now: u64) -> Vec<(String, Option<u64>)> {
        // As if the clock on the wall had begun with ours.
        let began = SystemTime::UNIX_EPOCH;
        let all = bans
            .list(now, began + Duration::from_millis(now))
            .into_iter();
        all.map(|ban| {
            let ends = ban
                .ends
                .map(|ends| ends.duration_since(began).expect("later").as_millis() as u64);
            (ban.network.to_string(), ends)
        })
        .collect()
    }

    #[test]
    fn a_ban_covers_its_network_until_it_is_lifted() {
        let bans = Bans::default();
        assert!(!covered(&bans, "192.0.2.1", 0));
        bans.add(cidr("192.0.2.0/24"), None, 0);
        bans.add(cidr("2001:db8::1"), None, 0);
        assert!(covered(&bans, "192.0.2.1", u64::MAX));
        assert!(covered(&bans, "::ffff:192.0.2.1", 0));
        assert!(!covered(&bans, "192.0.3.1", 0));
        assert!(covered(&bans, "2001:db8::1", 0));
        assert!(
            !covered(&bans, "2001:db8::2", 0),
            "an address is that address"
        );
        assert!(!bans.cover(ClientAddress::UNIX, || 0));
        assert!(!bans.remove(&cidr("192.0.2.1"), 0), "there is no such ban");
        assert!(bans.remove(&cidr("192.0.2.77/24"), 0));
        assert!(!bans.remove(&cidr("192.0.2.0/24"), 0));
        assert!(!covered(&bans, "192.0.2.1", 0));
        assert_eq!(listed(&bans, 0), [("2001:db8::1".to_owned(), None)]);
    }

    #[test]
    fn a_ban_ends_at_its_time_to_the_millisecond_and_leaves_nothing() {
        let bans = Bans::default();
        bans.add(cidr("10.0.0.0/8"), Some(1000), 0);
        assert!(covered(&bans, "10.1.1.1", 999));
        assert_eq!(listed(&bans, 999), [("10.0.0.0/8".to_owned(), Some(1000))]);
        assert!(!covered(&bans, "10.1.1.1", 1000));
        assert_eq!(bans.count.load(Ordering::Relaxed), 0);
        let table = bans.table.lock();
        assert!(table.until.is_empty() && table.ends.is_empty() && table.v4.0.is_empty());
    }

    #[test]
    fn a_second_ban_replaces_the_end_of_the_first() {
        let bans = Bans::default();
        let network = cidr("10.0.0.0/8");
        bans.add(network, Some(1000), 0);
        bans.add(network, Some(5000), 10);
        assert!(covered(&bans, "10.1.1.1", 4999));
        bans.add(network, Some(4000), 20);
        assert!(!covered(&bans, "10.1.1.1", 4000));
        bans.add(network, Some(6000), 5000);
        bans.add(network, None, 5000);
        assert_eq!(listed(&bans, 1 << 40), [("10.0.0.0/8".to_owned(), None)]);
        assert!(bans.remove(&network, 1 << 40));
        assert!(bans.table.lock().v4.0.is_empty());
    }

    #[test]
    fn bans_of_any_length_overlap_and_end_alone() {
        let bans = Bans::default();
        for length in 0..=32_u8 {
            bans.add(
                cidr(&format!("10.1.2.3/{length}")),
                Some(1000 + u64::from(length)),
                0,
            );
        }
        bans.add(cidr("10.9.9.9/8"), None, 0);
        assert_eq!(listed(&bans, 0).len(), 33, "10.9.9.9/8 is 10.1.2.3/8");
        assert!(covered(&bans, "203.0.113.1", 999), "by the one of all");
        assert!(!covered(&bans, "203.0.113.1", 1000));
        assert!(covered(&bans, "10.1.2.3", 1031));
        assert_eq!(listed(&bans, 1032), [("10.0.0.0/8".to_owned(), None)]);
        assert!(!covered(&bans, "::1", 1032));
    }

    #[test]
    fn many_that_end_together_are_over_at_once_and_dropped_a_few_at_a_time() {
        const MANY: u32 = 10_000;
        let bans = Bans::default();
        let network = |n: u32| Cidr::masked(IpAddr::from((0x0A00_0000 + n).to_be_bytes()), 32);
        for n in 0..MANY {
            bans.add(network(n), Some(1000), 0);
        }
        bans.add(cidr("192.0.2.0/24"), None, 0);
        assert_eq!(listed(&bans, 999).len(), MANY as usize + 1);

        let mut left = bans.table.lock().until.len();
        let mut dropped = || {
            let before = left;
            left = bans.table.lock().until.len();
            before - left
        };
        for n in 0..50 {
            assert!(!covered(&bans, &format!("10.0.39.{n}"), 1000));
            assert_eq!(dropped(), DROPPED_AT_ONCE);
            assert!(covered(&bans, "192.0.2.1", 1000));
            assert_eq!(dropped(), DROPPED_AT_ONCE);
        }
        assert!(!bans.remove(&network(MANY - 1), 1000), "it is over");
        assert_eq!(dropped(), DROPPED_AT_ONCE + 1);
        bans.add(network(MANY - 2), Some(2000), 1000);
        assert_eq!(dropped(), DROPPED_AT_ONCE);
        let last = [
            ("10.0.39.14".to_owned(), Some(2000)),
            ("192.0.2.0/24".to_owned(), None),
        ];
        assert_eq!(listed(&bans, 1000), last);
        while dropped() > 0 {
            assert!(!covered(&bans, "10.0.39.15", 1000));
        }
        let table = bans.table.lock();
        assert_eq!((table.until.len(), table.ends.len()), (2, 1));
    }
}
