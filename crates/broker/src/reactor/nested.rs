//! The shard's reactor where it is a descriptor itself, which tokio's reactor can watch.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::Events;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{EVENTS, Readiness, Sources, fail};

/// Fetches the news of one shard.
pub(crate) struct Reactor {
    poll: AsyncFd<mio::Poll>,
    events: Events,
    sources: Arc<Sources>,
}

impl Reactor {
    /// To be called in a tokio runtime, whose reactor tells of the news.
    #[expect(
        deprecated,
        reason = "what takes its place is unsafe, for types that change their descriptor; this one does not"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        Ok(Self {
            sources: Sources::new(&poll)?,
            poll: AsyncFd::with_interest(poll, Interest::READABLE)?,
            events: Events::with_capacity(EVENTS),
        })
    }

    pub(crate) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Wakes the tasks that there is news for, and puts down what there is of sockets. When there is more the task of
    /// `cx` is woken.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>, news: &mut Vec<(u32, Readiness)>) {
        while let Poll::Ready(guard) = self.poll.poll_read_ready_mut(cx) {
            let mut guard = guard.unwrap_or_else(|error| fail(&error));
            let poll = guard.get_inner_mut();
            match poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.unwrap_or_else(|error| fail(&error)),
            }
            let mut fetched = 0;
            let counted = self.events.iter().inspect(|_| fetched += 1);
            self.sources.tell(counted, news);
            if fetched < EVENTS {
                guard.clear_ready();
            }
        }
    }
}
