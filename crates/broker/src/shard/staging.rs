//! Events gathered during a turn, by worker.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dispatch::batch::Batch;
use crate::dispatch::queue::WorkerQueue;
use crate::shrink;

/// A batch this large is handed over before the turn ends, so that a turn over busy sockets stays bounded.
const HAND_OVER_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Staging {
    /// A handful of workers at most times: a search costs less than a map.
    workers: Vec<(Arc<WorkerQueue>, Batch)>,
    /// The queues in which events wait for a worker, by their id: there may be one for each socket.
    of_nobody: HashMap<u32, (Arc<WorkerQueue>, Batch)>,
}

impl Staging {
    pub(super) fn batch_of(&mut self, worker: &Arc<WorkerQueue>) -> &mut Batch {
        let at = match self
            .workers
            .iter()
            .position(|(other, _)| other.id == worker.id)
        {
            Some(at) => at,
            None if worker.is_of_nobody() => {
                let entry = self.of_nobody.entry(worker.id);
                let added = entry.or_insert_with(|| (Arc::clone(worker), Batch::default()));
                return &mut added.1;
            }
            None => {
                self.workers.push((Arc::clone(worker), Batch::default()));
                self.workers.len() - 1
            }
        };
        &mut self.workers[at].1
    }

    /// Hands over what has grown large.
    pub(super) fn hand_over_large(&mut self, shard: u16) {
        self.hand_over_above(shard, HAND_OVER_BYTES);
    }

    /// Hands every worker its batch, waking it at most once.
    pub(super) fn hand_over(&mut self, shard: u16) {
        self.hand_over_above(shard, 0);
        if !self.of_nobody.is_empty() {
            self.of_nobody.retain(|_, (queue, batch)| {
                match queue.push(shard, std::mem::take(batch)) {
                    Ok(()) => false,
                    Err(refused) => {
                        *batch = refused;
                        true
                    }
                }
            });
            shrink::map(&mut self.of_nobody);
        }
    }

    /// A worker that has left refuses its batch; it stays here until the shard is told of the departure.
    fn hand_over_above(&mut self, shard: u16, bytes: usize) {
        for (worker, batch) in &mut self.workers {
            if batch.len() <= bytes {
                continue;
            }
            let next = batch.next_one();
            if let Err(refused) = worker.push(shard, std::mem::replace(batch, next)) {
                *batch = refused;
            }
        }
    }

    /// What was gathered for a worker that has left.
    pub(super) fn take_from(&mut self, worker: &WorkerQueue) -> Batch {
        if let Some((_, batch)) = self.of_nobody.remove(&worker.id) {
            return batch;
        }
        match self
            .workers
            .iter()
            .position(|(other, _)| other.id == worker.id)
        {
            Some(at) => self.workers.swap_remove(at).1,
            None => Batch::default(),
        }
    }
}
