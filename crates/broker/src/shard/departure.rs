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

    fn reassign_sockets(&mut self, worker: &WorkerQueue) -> Heirs {
        let mut heirs = Heirs::default();
        let mut keys = Vec::new();
        for (_, socket) in &mut self.sockets {
            if socket.worker.id == worker.id {
                socket.worker = heir(&self.core.roster, worker, socket.entry.id);
                socket.held = false; // whoever held it has left
                if let Some(opening) = &mut socket.opening {
                    opening.place = socket.worker.place_anyway(opening.request.len());
                }
                heirs.insert(socket.entry.id, Arc::clone(&socket.worker));
                keys.push(socket.entry.key);
            }
        }
        for key in keys {
            self.revisit(key);
        }
        heirs
    }

    fn hand_on(&mut self, worker: &WorkerQueue, batch: &Batch, heirs: &mut Heirs) {
        for record in batch.records() {
            match record.kind() {
                kind::REQUEST | kind::UPGRADE => self.hand_on_request(record),
                // Nobody else has heard of the request that it ends.
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
        pending.worker = Some(Arc::clone(&next));
        self.staging.batch_of(&next).copy(record);
    }
}

/// Who gets the events of a socket from now on: the next worker, or, while the one that left is still busy with the
/// socket, nobody.
fn heir(roster: &Roster, left: &WorkerQueue, socket: SocketId) -> Arc<WorkerQueue> {
    left.holding_of(socket)
        .or_else(|| roster.for_socket())
        .unwrap_or_else(|| Arc::clone(&roster.limbo))
}
