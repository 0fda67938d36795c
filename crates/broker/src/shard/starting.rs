//! The start of the I/O threads: all of them, or none and nothing of them left.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Runtime};

use super::ShardHandle;
use super::turn::Shard;
use crate::broker::Core;
use crate::error::StartError;
use crate::reactor::Reactor;

/// How many tasks run before tokio's reactor is looked at again, which takes a system call. A connection that does HTTP is a
/// task; a poll of it reads and writes little, and 32 instead of 8 spare two thirds of these calls (`docs/performance.md`). A
/// turn is a task too, and may be long: the shard's reactor sees to it that not too many go by without a look.
const TASKS_PER_POLL: u32 = 32;

/// Starts the I/O threads.
pub(crate) fn start(count: usize, core: &Arc<Core>) -> Result<Vec<Arc<ShardHandle>>, StartError> {
    start_with(count, core, |name, run| {
        thread::Builder::new().name(name).spawn(run)
    })
    .map_err(|source| StartError::Io {
        action: format!("start {count} I/O threads"),
        source,
    })
}

type Run = Box<dyn FnOnce() + Send>;

/// Takes everything that there may be too little of, and lets the threads go when all of it is there.
fn start_with(
    count: usize,
    core: &Arc<Core>,
    mut spawn: impl FnMut(String, Run) -> io::Result<JoinHandle<()>>,
) -> io::Result<Vec<Arc<ShardHandle>>> {
    let mut handles = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    for index in 0..count {
        let handle = ShardHandle::new(index as u16);
        threads.push(Thread::new(&handle, core)?);
        handles.push(handle);
    }
    let mut spawned: Vec<(mpsc::Sender<()>, JoinHandle<()>)> = Vec::with_capacity(count);
    for (thread, handle) in threads.into_iter().zip(&handles) {
        let (go, gone) = mpsc::channel();
        let run = Box::new(move || {
            if gone.recv().is_ok() {
                thread.run();
            }
        });
        match spawn(format!("wsbroker-io-{}", handle.index), run) {
            Ok(thread) => spawned.push((go, thread)),
            Err(error) => {
                for (go, thread) in spawned {
                    drop(go);
                    let _ = thread.join(); // its descriptors are closed
                }
                return Err(error);
            }
        }
    }
    for (go, _) in spawned {
        let _ = go.send(()); // it waits for nothing else
    }
    Ok(handles)
}

/// What an I/O thread needs of the system.
struct Thread {
    shard: Shard,
    runtime: Runtime,
}

impl Thread {
    fn new(handle: &Arc<ShardHandle>, core: &Arc<Core>) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(TASKS_PER_POLL)
            .build()?;
        let entered = runtime.enter();
        let reactor = Reactor::new()?;
        let _ = handle.sources.set(Arc::clone(reactor.sources()));
        let shard = Shard::new(Arc::clone(handle), Arc::clone(core), reactor);
        drop(entered);
        Ok(Self { shard, runtime })
    }

    fn run(self) {
        let Self { shard, runtime } = self;
        runtime.block_on(async {
            // A task of its own: woken on this thread it is only queued, without a system call. And without
            // tokio's budget, which would end a turn after 128 reads.
            let shard = tokio::task::unconstrained(shard.run());
            if tokio::spawn(shard).await.is_err() {
                // Its sockets are gone and every stop would wait for ever: better that somebody restarts us.
                tracing::error!("an I/O thread panicked");
                std::process::abort();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::broker::BrokerOptions;

    #[test]
    fn a_thread_that_cannot_be_had_ends_those_that_could() {
        let core = Arc::new(Core::new(BrokerOptions::default()));
        let mut alive: Vec<Weak<()>> = Vec::new();
        let started = start_with(5, &core, |name, run| {
            if alive.len() == 3 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let life = Arc::new(());
            alive.push(Arc::downgrade(&life));
            thread::Builder::new().name(name).spawn(move || {
                run();
                drop(life);
            })
        });
        assert_eq!(
            started.err().map(|error| error.kind()),
            Some(io::ErrorKind::WouldBlock)
        );
        assert_eq!(alive.len(), 3);
        for life in alive {
            assert_eq!(life.strong_count(), 0, "it has ended");
        }
        // Nor is anything kept that the threads would have had.
        assert_eq!(Arc::strong_count(&core), 1);
    }
}
