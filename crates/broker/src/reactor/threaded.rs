//! The shard's reactor where no other can watch it: a thread waits for the news and wakes the shard.

use std::io;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;

use mio::Events;
use mio::event::Event;
use parking_lot::Mutex;

use super::{EVENTS, Readiness, Sources, fail};

/// Fetches the news of one shard.
pub(crate) struct Reactor {
    fetched: Arc<Mutex<Fetched>>,
    sources: Arc<Sources>,
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
        let fetched = Arc::new(Mutex::new(Fetched::default()));
        let shared = Arc::clone(&fetched);
        thread::Builder::new()
            .name("wsbroker-reactor".to_owned())
            .spawn(move || fetch(poll, &shared))?;
        Ok(Self { fetched, sources })
    }

    pub(crate) fn sources(&self) -> &Arc<Sources> {
        &self.sources
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

fn fetch(mut poll: mio::Poll, fetched: &Mutex<Fetched>) {
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.unwrap_or_else(|error| fail(&error)),
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
