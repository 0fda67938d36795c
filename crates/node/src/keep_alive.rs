//! When a thread's event loop must not end.
//!
//! A main thread stays while it is registered as a worker and a server runs. A thread of `worker_threads` usually
//! registers before the main thread starts the server, so it also stays from its registration to the moment the last
//! server has stopped. Servers belong to the process and may be started by any thread, so all are told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use neon::event::Channel;
use neon::prelude::*;

use crate::environment;

/// Tells one environment from another. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnvironmentId(u64);

struct Servers {
    running: usize,
    /// How to reach each thread that registered. The channels are unreferenced.
    environments: Vec<(EnvironmentId, Channel)>,
    next_environment: u64,
}

/// Protects the count of servers and the list of threads. Under it closures are queued, and nothing else happens.
static SERVERS: Mutex<Servers> = Mutex::new(Servers {
    running: 0,
    environments: Vec::new(),
    next_environment: 0,
});

fn servers() -> MutexGuard<'static, Servers> {
    // Every change under the lock is a single step, so what a panic leaves behind is whole.
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn a_server_runs() -> bool {
    servers().running > 0
}

pub(crate) fn server_started() {
    let mut servers = servers();
    servers.running += 1;
    if servers.running == 1 {
        servers.tell_environments();
    }
}

/// May be called from any thread.
pub(crate) fn server_stopped() {
    let mut servers = servers();
    servers.running -= 1;
    if servers.running == 0 {
        servers.tell_environments();
    }
}

impl Servers {
    fn tell_environments(&self) {
        for (_, channel) in &self.environments {
            // An environment that is gone needs no event loop.
            let _ = channel.try_send(|mut cx| {
                apply(&mut cx);
                Ok(())
            });
        }
    }
}

/// Brings the event loop of this thread in line with the servers that run now.
pub(crate) fn apply(cx: &mut Cx) {
    if let Some(mut environment) = environment::get(cx) {
        environment.servers_changed();
        environment.update_keep_alive(cx);
    }
}

pub(crate) fn add_environment(channel: Channel) -> EnvironmentId {
    let mut servers = servers();
    let id = EnvironmentId(servers.next_environment);
    servers.next_environment += 1;
    servers.environments.push((id, channel));
    id
}

pub(crate) fn remove_environment(id: EnvironmentId) {
    servers().environments.retain(|(other, _)| *other != id);
}
