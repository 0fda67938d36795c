//! A worker has left: its sockets, the events it had not been given and the requests it held find a new home.
//!
//! A shard hands over only its own part of the worker's queue, and does so between two turns' batches: what had been
//! handed over goes first, what was refused meanwhile follows, what is read later goes to the new worker anyway.

use std::sync::Arc;

use super::requests::Kind;
use super::turn::Shard;
use crate::dispatch::batch::Batch;
use crate::dispatch::queue::WorkerQueue;
use crate::dispatch::record::{Record, kind};
use crate::dispatch::roster::{Roster, UpgradeTurn};
use crate::id::SocketId;
use crate::registry::IdMap;
use crate::shrink;

/// The new worker of each socket that has events to move.
type Heirs = IdMap<SocketId, Arc<WorkerQueue>>;

impl Shard {
    pub(super) fn worker_left(&mut self, worker: &Arc<WorkerQueue>, ended: bool) {
        let mut batches = worker.leftovers_of(self.handle.index, ended);
        batches.push(self.staging.take_from(worker));
        let held: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, pending)| pending.is_held_by(worker))
            .map(|(id, _)| *id)
            .collect();

        let mut heirs = self.reassign_sockets(worker);
        for batch in &batches {
            self.hand_on(worker, batch, &mut heirs);
        }
        self.unpark(worker.id);
        if ended {
            for id in held {
                // Those that had not been given have another worker by now.
                if self
                    .requests
                    .get(&id)
                    .is_some_and(|pending| pending.is_held_by(worker))
                {
                    self.give_back(id);
                }
            }
        }
    }

    /// A worker that has left is no longer busy with the socket whose events wait here. There may be as many such sockets as
    /// there are sockets: this touches no other.
    pub(super) fn released(&mut self, holding: &Arc<WorkerQueue>) {
        let mut batches = holding.leftovers_of(self.handle.index, false);
        batches.push(self.staging.take_from(holding));
        let mut heirs = Heirs::default();
        if let Some(key) = self.held_back.remove(&holding.id) {
            self.reassign(key, holding, &mut heirs);
            shrink::map(&mut self.held_back);
        }
        for batch in &batches {
            self.hand_on(holding, batch, &mut heirs);
        }
        self.unpark(holding.id);
    }

    fn reassign_sockets(&mut self, worker: &WorkerQueue) -> Heirs {
        let mut heirs = Heirs::default();
        for key in 0..self.sockets.capacity() {
            self.reassign(key as u32, worker, &mut heirs);
        }
        heirs
    }

    /// Gives the socket at this place another worker, if it is one of this worker.
    fn reassign(&mut self, key: u32, worker: &WorkerQueue, heirs: &mut Heirs) {
        let socket = self.sockets.get_mut(key as usize);
        let Some(socket) = socket.filter(|socket| socket.worker.id == worker.id) else {
            return;
        };
        let heir = heir(&self.core.roster, worker, socket.entry.id);
        if heir.is_of_nobody() && heir.id != self.core.roster.limbo.id {
            self.held_back.insert(heir.id, key);
        }
        heirs.insert(socket.entry.id, Arc::clone(&heir));
        socket.worker = heir;
        socket.held = false; // whoever held it has left
        if let Some(opening) = &mut socket.opening {
            opening.place = socket.worker.place_anyway(opening.request.len());
        }
        self.revisit(key);
    }

    fn hand_on(&mut self, worker: &WorkerQueue, batch: &Batch, heirs: &mut Heirs) {
        for record in batch.records() {
            match record.kind() {
                kind::REQUEST | kind::UPGRADE => self.hand_on_request(record),
                // Whoever gets the request is told with it.
                kind::ABORT => worker.abort(record.request()),
                _ => {
                    // A socket that has closed meanwhile still has its last events here.
                    let id = record.socket();
                    let heir = heirs
                        .entry(id)
                        .or_insert_with(|| heir(&self.core.roster, worker, id));
                    if record.kind() != kind::OPEN || !heir.interest.ignores_opens {
                        self.staging.batch_of(heir).copy(record);
                    }
                }
            }
        }
    }

    fn hand_on_request(&mut self, record: Record<'_>) {
        let id = record.request();
        let Some(pending) = self.requests.get_mut(&id) else {
            return; // its client has gone
        };
        let next = match &mut pending.kind {
            Kind::Request(_) => self.core.roster.for_request().ok(),
            Kind::Origin { .. } => return, // no worker was given it
            // Without anybody left who decides it is not accepted for that.
            Kind::Upgrade { heir, block, .. } => match self.core.roster.for_upgrade(block.len()) {
                Some(UpgradeTurn::Asked {
                    decider,
                    heir: next,
                }) => {
                    *heir = next;
                    Some(decider)
                }
                Some(UpgradeTurn::Accepted(_)) | None => None,
            },
        };
        let Some(next) = next else {
            return self.give_back(id);
        };
        let is_aborted = matches!(&pending.kind, Kind::Request(reply) if reply.is_aborted());
        pending.worker = Some(Arc::clone(&next));
        let batch = self.staging.batch_of(&next);
        batch.copy(record);
        if is_aborted {
            batch.abort(id); // it was told to the one that left
        }
    }
}

/// Who gets the events of a socket from now on: the next worker, or, while the one that left is still busy with the
/// socket, nobody.
fn heir(roster: &Roster, left: &WorkerQueue, socket: SocketId) -> Arc<WorkerQueue> {
    left.holding_of(socket)
        .or_else(|| roster.for_socket())
        .unwrap_or_else(|| Arc::clone(&roster.limbo))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::bench::Bench;
    use super::*;
    use crate::dispatch::worker::{Interest, ThreadWaker};

    /// How long it takes to release so many sockets, one by one.
    fn release_all(sockets: usize) -> Duration {
        let mut bench = Bench::new();
        let busy: Vec<_> = (0..sockets).map(|_| bench.open().id).collect();
        let waker = Arc::new(ThreadWaker::current());
        let next = bench.broker.register_worker(Interest::default(), waker);
        bench.worker.retire(&busy);
        bench.shard.take_inbox();
        assert_eq!(bench.shard.held_back.len(), sockets);
        for (_, socket) in &mut bench.shard.sockets {
            assert!(socket.worker.is_of_nobody());
            bench
                .shard
                .staging
                .batch_of(&socket.worker)
                .drain(socket.entry.origin(None));
        }
        bench.shard.staging.hand_over(0);
        let began = Instant::now();
        for socket in &busy {
            bench.worker.release(*socket);
            bench.shard.take_inbox();
        }
        let took = began.elapsed();
        assert!(bench.shard.held_back.is_empty());

        for (_, socket) in &bench.shard.sockets {
            assert_eq!(socket.worker.id, next.id());
        }
        bench.shard.staging.hand_over(0);
        let batches = std::iter::from_fn(|| next.take());
        let events: usize = batches.map(|batch| batch.events().count()).sum();
        assert_eq!(events, sockets);
        took
    }

    #[test]
    fn a_release_costs_the_same_however_many_sockets_there_are() {
        let mut least = u128::MAX;
        // Whatever else runs on this machine only adds to a time.
        for _ in 0..20 {
            let (few, many) = (release_all(500), release_all(8000));
            least = least.min(many.as_nanos() / few.as_nanos().max(1));
            if least < 64 {
                return;
            }
        }
        panic!("{least} times as long for 16 times as many");
    }
}
