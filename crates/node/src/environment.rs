//! What belongs to one JavaScript thread: its registration as a worker and what keeps its event loop alive.
//!
//! Process state is elsewhere: the broker in the crate's root, the list of environments in [`keep_alive`]. An
//! environment may end at any moment (a thread that returns, `worker.terminate()`, `process.exit()`), and its [`Drop`]
//! is the one place that tells the engine.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use neon::event::Channel;
use neon::prelude::*;
use neon::thread::LocalKey;

use crate::keep_alive::{self, EnvironmentId};
use crate::origins::OriginFunction;
use crate::worker::RegisteredWorker;

/// Neon keeps one value per environment behind this key. Only the thread of the environment ever locks the mutex; it is
/// there because Neon hands out shared references, and it is never held while JavaScript runs.
static ENVIRONMENT: LocalKey<Mutex<Environment>> = LocalKey::new();

thread_local! {
    /// Whose worker this thread is. A thread has an environment for each time that it has loaded this library, which Node does
    /// again for whoever has emptied `require.cache`.
    static REGISTERED: Cell<Option<EnvironmentId>> = const { Cell::new(None) };
}

/// Whether a thread is a worker already.
pub(crate) enum Registered {
    Nobody,
    /// By this environment.
    Here,
    /// By another one of the thread.
    Elsewhere,
}

pub(crate) struct Environment {
    id: EnvironmentId,
    /// The main thread lives as long as a server needs it. Other threads also wait for the first server.
    is_main_thread: bool,
    /// A worker thread that registered while no server ran waits for one, see [`keep_alive`].
    awaits_server: bool,
    /// The event loop does not end while this is referenced.
    channel: Channel,
    /// At most one of these is not retired. The others still finish what they were given.
    workers: Vec<RegisteredWorker>,
    last_handle: u32,
    /// What judges the origins of servers that this thread has started.
    origin_functions: Vec<OriginFunction>,
}

impl Environment {
    fn new(cx: &mut Cx, is_main_thread: bool) -> Self {
        let mut channel = cx.channel();
        channel.unref(cx);
        Self {
            id: keep_alive::add_environment(channel.clone()),
            is_main_thread,
            awaits_server: false,
            channel,
            workers: Vec::new(),
            last_handle: 0,
            origin_functions: Vec::new(),
        }
    }

    /// A number for a new worker of this thread, never 0.
    pub(crate) fn next_handle(&mut self) -> u32 {
        self.last_handle += 1;
        self.last_handle
    }

    pub(crate) fn registered_in_this_thread(&self) -> Registered {
        match REGISTERED.get() {
            None => Registered::Nobody,
            Some(id) if id == self.id => Registered::Here,
            Some(_) => Registered::Elsewhere,
        }
    }

    fn has_active_worker(&self) -> bool {
        self.workers.iter().any(|worker| !worker.is_retired())
    }

    pub(crate) fn worker(&self, handle: u32) -> Option<&RegisteredWorker> {
        self.workers.iter().find(|worker| worker.handle() == handle)
    }

    pub(crate) fn worker_mut(&mut self, handle: u32) -> Option<&mut RegisteredWorker> {
        self.workers
            .iter_mut()
            .find(|worker| worker.handle() == handle)
    }

    pub(crate) fn add_worker(&mut self, worker: RegisteredWorker) {
        self.awaits_server = !self.is_main_thread;
        self.workers.push(worker);
        REGISTERED.set(Some(self.id));
    }

    /// From here on another worker may be registered in this thread.
    pub(crate) fn retire_worker(&mut self, handle: u32) -> Option<&RegisteredWorker> {
        let id = self.id;
        let worker = self.worker_mut(handle)?;
        worker.set_retired();
        forget_registration(id);
        Some(worker)
    }

    pub(crate) fn remove_worker(&mut self, handle: u32) -> Option<RegisteredWorker> {
        let position = self
            .workers
            .iter()
            .position(|worker| worker.handle() == handle)?;
        Some(self.workers.swap_remove(position))
    }

    pub(crate) fn add_origin_function(&mut self, function: OriginFunction) {
        // Those of servers that have stopped are not missed by anybody.
        self.origin_functions.retain(|one| !one.is_unused());
        self.origin_functions.push(function);
    }

    /// A server started or stopped since this thread registered.
    pub(crate) fn servers_changed(&mut self) {
        self.awaits_server = false;
    }

    /// Lets the event loop end, or not.
    pub(crate) fn update_keep_alive(&mut self, cx: &mut Cx) {
        let needed = self.awaits_server || keep_alive::a_server_runs();
        if needed && self.has_active_worker() {
            self.channel.reference(cx);
        } else {
            self.channel.unref(cx);
        }
    }
}

fn forget_registration(id: EnvironmentId) {
    if REGISTERED.get() == Some(id) {
        REGISTERED.set(None);
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        forget_registration(self.id);
        keep_alive::remove_environment(self.id);
        // A thread that is terminated in the middle of a batch has calls collected that no shard was woken for.
        wsbroker_engine::uncork();
        self.origin_functions.iter().for_each(OriginFunction::end);
        // The process ends with the main thread, and nobody is left to hand events to or to ask for the numbers.
        if !self.is_main_thread {
            self.workers.iter().for_each(RegisteredWorker::end);
        }
    }
}

/// The environment of this thread, made at its first use.
pub(crate) fn get_or_create<'cx>(
    cx: &mut Cx<'cx>,
    is_main_thread: bool,
) -> NeonResult<MutexGuard<'cx, Environment>> {
    ENVIRONMENT
        .get_or_try_init(cx, |cx| {
            Ok(Mutex::new(Environment::new(cx, is_main_thread)))
        })
        .map(lock)
}

/// The environment of this thread, if it ever registered as a worker.
pub(crate) fn get<'cx>(cx: &mut Cx<'cx>) -> Option<MutexGuard<'cx, Environment>> {
    ENVIRONMENT.get(cx).map(lock)
}

fn lock(environment: &Mutex<Environment>) -> MutexGuard<'_, Environment> {
    environment.lock().unwrap_or_else(PoisonError::into_inner)
}
