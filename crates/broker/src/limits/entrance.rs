//! What all listeners of a broker share at their doors: who is banned, how many are in, who was turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::bans::Bans;
use crate::client::ClientAddress;
use crate::stats::Limited;

/// How many connections beyond the limit of all may wait for the answer that there are too many. More are closed
/// without one.
const REFUSED_AT_ONCE: u32 = 64;

/// The door of a broker.
pub(crate) struct Entrance {
    pub(crate) bans: Bans,
    pub(crate) refusals: Refusals,
    /// Connections that are open, sockets included, without those that are being refused.
    open: AtomicU32,
    /// Connections that wait for the answer that there are too many.
    refused: AtomicU32,
    began: Instant,
}

/// What was turned away, by reason.
#[derive(Default)]
pub(crate) struct Refusals {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_per_ip: AtomicU64,
    pub(crate) upgrades_per_ip: AtomicU64,
    pub(crate) requests_per_ip: AtomicU64,
    pub(crate) handshakes: AtomicU64,
    pub(crate) origins: AtomicU64,
    pub(crate) contradictions: AtomicU64,
    pub(crate) banned: AtomicU64,
    pub(crate) proxy_protocol: AtomicU64,
}

/// A connection too many, while this lives.
pub(crate) struct RefusedConnection(Arc<Entrance>);

impl Entrance {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            bans: Bans::default(),
            refusals: Refusals::default(),
            open: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            began: Instant::now(),
        })
    }

    /// The clock of everything that is limited per client: milliseconds since the broker began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_banned(&self, client: ClientAddress) -> bool {
        self.bans.cover(client, || self.now())
    }

    /// Counts a connection, unless as many as `limit` are open. Whoever was let in leaves once: the guard of a
    /// connection sees to both, for its own pointer here would be eight bytes more in every socket.
    pub(crate) fn enter(&self, limit: Option<u32>) -> bool {
        take_one(&self.open, limit.unwrap_or(u32::MAX))
    }

    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Room for one more connection to be told that there are too many.
    pub(crate) fn refuse(self: &Arc<Self>) -> Option<RefusedConnection> {
        take_one(&self.refused, REFUSED_AT_ONCE).then(|| RefusedConnection(Arc::clone(self)))
    }
}

/// Counts one up if that leads to no more than `limit`.
fn take_one(count: &AtomicU32, limit: u32) -> bool {
    let next = |before: u32| (before < limit).then(|| before + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .is_ok()
}

impl Drop for RefusedConnection {
    fn drop(&mut self) {
        self.0.refused.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refusals {
    pub(crate) fn stats(&self) -> Limited {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Limited {
            connections: read(&self.connections),
            connections_per_ip: read(&self.connections_per_ip),
            upgrades_per_ip: read(&self.upgrades_per_ip),
            requests_per_ip: read(&self.requests_per_ip),
            handshakes: read(&self.handshakes),
            origins: read(&self.origins),
            contradictions: read(&self.contradictions),
            banned: read(&self.banned),
            proxy_protocol: read(&self.proxy_protocol),
        }
    }
}

/// Counts one refusal.
pub(crate) fn count(refusals: &AtomicU64) {
    refusals.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_in_and_not_one_more() {
        let entrance = Entrance::new();
        let entered = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        entered.fetch_add(entrance.enter(Some(200)).into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(entered.into_inner(), 200);
        assert!(entrance.enter(None), "a listener without a limit goes on");
        for _ in 0..200 {
            entrance.leave();
        }
        assert!(
            !entrance.enter(Some(1)),
            "its connection counts all the same"
        );
        entrance.leave();
        assert!(entrance.enter(Some(1)));
    }

    #[test]
    fn only_some_wait_to_be_told() {
        let entrance = Entrance::new();
        let told: Vec<_> = (0..1000).filter_map(|_| entrance.refuse()).collect();
        assert_eq!(told.len(), 64);
        drop(told);
        assert!(entrance.refuse().is_some());
    }
}
