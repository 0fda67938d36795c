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
    /// Since there was news, or a look of our own.
    vain_looks: u32,
}

/// tokio's reactor is looked at after so many tasks, and the turns of a shard may be long. After so many of them without news
/// the shard's own is asked, whatever tokio's knows: a quiet socket waits for no more turns than that.
pub(super) const MOST_VAIN_LOOKS: u32 = 8;

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
            vain_looks: 0,
        })
    }

    pub(crate) fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Wakes the tasks that there is news for, and puts down what there is of sockets. When there is more the task of
    /// `cx` is woken.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>, news: &mut Vec<(u32, Readiness)>) {
        self.vain_looks += 1;
        while let Poll::Ready(guard) = self.poll.poll_read_ready_mut(cx) {
            self.vain_looks = 0;
            let mut guard = guard.unwrap_or_else(|error| fail(&error));
            if fetch(guard.get_inner_mut(), &mut self.events, &self.sources, news) < EVENTS {
                guard.clear_ready();
            }
        }
        if self.vain_looks == MOST_VAIN_LOOKS {
            self.vain_looks = 0;
            fetch(self.poll.get_mut(), &mut self.events, &self.sources, news);
        }
    }
}

/// How many there were; as many as fit: there may be more.
fn fetch(
    poll: &mut mio::Poll,
    events: &mut Events,
    sources: &Sources,
    news: &mut Vec<(u32, Readiness)>,
) -> usize {
    while let Err(error) = poll.poll(events, Some(Duration::ZERO)) {
        if error.kind() != io::ErrorKind::Interrupted {
            fail(&error);
        }
    }
    let mut count = 0;
    sources.tell(events.iter().inspect(|_| count += 1), news);
    count
}
