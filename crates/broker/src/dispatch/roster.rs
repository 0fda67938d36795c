//! The registered workers, in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::queue::{OpenPlace, WorkerQueue};
use super::worker::{Interest, WorkerWaker};
use crate::stats::WorkerStats;

/// Who handles what: sockets and requests go to the workers round-robin, each with a turn of its own.
pub(crate) struct Roster {
    workers: RwLock<Vec<Arc<WorkerQueue>>>,
    /// Events of sockets wait here while nobody is registered.
    pub(crate) limbo: Arc<WorkerQueue>,
    last_id: AtomicU32,
    next_socket: AtomicUsize,
    next_request: AtomicUsize,
}

/// Who has to do with an upgrade.
pub(crate) enum UpgradeTurn {
    /// No worker wants to decide: the one of this place gets the socket.
    Accepted(OpenPlace),
    Asked {
        /// The worker to ask.
        decider: Arc<WorkerQueue>,
        /// The worker that gets the socket: the decider where every worker is one.
        heir: Arc<WorkerQueue>,
    },
}

/// Why no worker gets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswerer {
    /// Nobody is there, or has room.
    Now,
    /// The workers are there for sockets alone.
    SocketsOnly,
    /// They have nothing to do with sockets either.
    Nothing,
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self {
            workers: RwLock::default(),
            limbo: WorkerQueue::of_nobody(0),
            last_id: AtomicU32::new(0),
            next_socket: AtomicUsize::new(0),
            next_request: AtomicUsize::new(0),
        }
    }

    pub(crate) fn add(&self, interest: Interest, waker: Arc<dyn WorkerWaker>) -> Arc<WorkerQueue> {
        let queue = WorkerQueue::new(self.next_id(), interest, waker);
        self.workers.write().push(Arc::clone(&queue));
        queue
    }

    /// A queue where events of a retired worker's busy sockets wait.
    pub(crate) fn holding(&self) -> Arc<WorkerQueue> {
        WorkerQueue::of_nobody(self.next_id())
    }

    fn next_id(&self) -> u32 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn remove(&self, id: u32) {
        self.workers.write().retain(|worker| worker.id != id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workers.read().is_empty()
    }

    /// The worker whose turn it is to get a socket; `None` without any.
    pub(crate) fn for_socket(&self) -> Option<Arc<WorkerQueue>> {
        let workers = self.workers.read();
        let turn = self.next_socket.fetch_add(1, Ordering::Relaxed);
        let at = turn.checked_rem(workers.len())?;
        Some(Arc::clone(&workers[at]))
    }

    /// Whose turn it is to get an upgraded socket, whose open event takes so many bytes, and who decides on the upgrade first.
    /// Who is full is left out; nobody at all: it cannot be taken now. While any worker wants to decide, no upgrade is accepted
    /// without one.
    pub(crate) fn for_upgrade(&self, bytes: usize) -> Option<UpgradeTurn> {
        let workers = self.workers.read();
        let turn = self.next_socket.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = in_turn(&workers, turn);
        if in_turn.clone().all(|worker| !worker.interest.upgrade) {
            return in_turn
                .find_map(|worker| worker.place(bytes))
                .map(UpgradeTurn::Accepted);
        }
        let has_room = |worker: &&Arc<WorkerQueue>| !worker.is_full();
        let mut deciders = in_turn.clone().filter(|worker| worker.interest.upgrade);
        let decider = deciders.find(has_room)?;
        let first = in_turn.clone().next()?;
        let heir = if first.interest.upgrade {
            decider
        } else {
            in_turn.find(has_room)?
        };
        Some(UpgradeTurn::Asked {
            decider: Arc::clone(decider),
            heir: Arc::clone(heir),
        })
    }

    /// Room for the open event, of so many bytes, of an upgrade that has been decided: with the worker that was to get the
    /// socket, or another one if that has left or is full.
    pub(crate) fn for_decided(&self, heir: &Arc<WorkerQueue>, bytes: usize) -> Option<OpenPlace> {
        heir.place_decided(bytes).or_else(|| {
            let workers = self.workers.read();
            let turn = self.next_socket.fetch_add(1, Ordering::Relaxed);
            in_turn(&workers, turn).find_map(|worker| worker.place_decided(bytes))
        })
    }

    /// The worker whose turn it is to get a request: the next one that answers requests and is not full.
    pub(crate) fn for_request(&self) -> Result<Arc<WorkerQueue>, NoAnswerer> {
        let workers = self.workers.read();
        let turn = self.next_request.fetch_add(1, Ordering::Relaxed);
        in_turn(&workers, turn)
            .find(|worker| worker.interest.http && !worker.is_full())
            .cloned()
            .ok_or_else(|| no_answerer(&workers))
    }

    pub(crate) fn stats(&self) -> Vec<WorkerStats> {
        self.workers
            .read()
            .iter()
            .map(|worker| worker.stats())
            .collect()
    }
}

/// All workers, beginning with the one whose turn it is.
fn in_turn(
    workers: &[Arc<WorkerQueue>],
    turn: usize,
) -> impl Iterator<Item = &Arc<WorkerQueue>> + Clone {
    (0..workers.len()).map(move |n| &workers[turn.wrapping_add(n) % workers.len()])
}

fn no_answerer(workers: &[Arc<WorkerQueue>]) -> NoAnswerer {
    if workers.is_empty() || workers.iter().any(|worker| worker.interest.http) {
        NoAnswerer::Now
    } else if workers.iter().all(|worker| worker.interest.ignores_sockets) {
        NoAnswerer::Nothing
    } else {
        NoAnswerer::SocketsOnly
    }
}
