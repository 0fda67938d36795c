//! The shard's reactor where no other can watch it: a thread waits for the news and wakes the shard.

use std::io;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};

use mio::event::Event;
use mio::{Events, Token};
use parking_lot::Mutex;

use super::{EVENTS, Readiness, Sources, fail};

/// Told when the reactor is dropped. No source has it, for there are fewer than 2^32.
const THE_END: Token = Token(usize::MAX);

/// Fetches the news of one shard.
pub(crate) struct Reactor {
    fetched: Arc<Mutex<Fetched>>,
    sources: Arc<Sources>,
    /// Ends the thread.
    end: mio::Waker,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Fetched {
    events: Vec<Event>,
    /// Who is told of more.
    waker: Option<Waker>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let sources = Sources::new(&poll)?;
        let end = mio::Waker::new(poll.registry(), THE_END)?;
        let fetched = Arc::new(Mutex::new(Fetched::default()));
        let shared = Arc::clone(&fetched);
        let thread = thread::Builder::new()
            .name("wsbroker-reactor".to_owned())
            .spawn(move || fetch(poll, &shared))?;
        Ok(Self {
            fetched,
            sources,
            end,
            thread: Some(thread),
        })
    }

    pub(crate) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    #[cfg(test)]
    pub(super) fn fetched(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.fetched)
    }

    /// Wakes the tasks that there is news for, and puts down what there is of sockets. When there is more the task of
    /// `cx` is woken.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>, news: &mut Vec<(u32, Readiness)>) {
        let mut fetched = self.fetched.lock();
        match &mut fetched.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => fetched.waker = Some(cx.waker().clone()),
        }
        let events = std::mem::take(&mut fetched.events);
        drop(fetched);
        self.sources.tell(&events, news);
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        if self.end.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn fetch(mut poll: mio::Poll, fetched: &Mutex<Fetched>) {
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.unwrap_or_else(|error| fail(&error)),
        }
        if events.iter().any(|event| event.token() == THE_END) {
            return;
        }
        let mut fetched = fetched.lock();
        fetched.events.extend(events.iter().cloned());
        let waker = fetched.waker.take();
        drop(fetched);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
