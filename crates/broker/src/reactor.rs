//! What a shard watches, and what there is news of.
//!
//! An open socket needs nobody woken when there is news of it, for its shard visits it: all that has to be known is its
//! place. tokio's reactor would keep some 400 bytes for it, which is a third of an idle socket. So a shard has a reactor
//! of its own, and tokio's watches that one. What a task waits for is watched the same way, with what it takes to wake it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use mio::event::{Event, Source};
use mio::{Interest, Registry, Token};
use parking_lot::Mutex;
use slab::Slab;
use tokio::task::coop;

use crate::shrink;

#[cfg(unix)]
mod nested;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(any(test, not(unix)))]
mod threaded;

#[cfg(unix)]
pub(crate) use nested::Reactor;
#[cfg(not(unix))]
pub(crate) use threaded::Reactor;

/// The system keeps a slot and its generation for us, in one word.
const _: () = assert!(usize::BITS >= 64);

/// How much news is fetched at once.
const EVENTS: usize = 256;

/// Whether a read that leaves room has taken all there was, and the system tells of what comes later. Windows tells only
/// those who have found nothing.
const SHORT_READ_TAKES_ALL: bool = cfg!(not(windows));

/// What may be done with a source without waiting, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other end says nothing more. What it has said may still have to be read.
    pub(crate) ended: bool,
    pub(crate) broken: bool,
}

impl Readiness {
    /// Of a source that has just come. What can be read is told; to write may be tried.
    const NEW: Self = Self {
        readable: false,
        writable: true,
        ended: false,
        broken: false,
    };

    fn told_by(event: &Event) -> Self {
        let broken = event.is_error();
        let ended = event.is_read_closed();
        Self {
            readable: event.is_readable() || ended || broken,
            writable: event.is_writable() || event.is_write_closed() || broken,
            ended,
            broken,
        }
    }

    /// There is news.
    pub(crate) fn add(&mut self, news: Self) {
        self.readable |= news.readable;
        self.writable |= news.writable;
        self.ended |= news.ended;
        self.broken |= news.broken;
    }

    /// What came of a read into `room` bytes.
    pub(crate) fn note_read(&mut self, result: &io::Result<usize>, room: usize) {
        let took_all = match result {
            // The end itself, and what broke it, come with one more read.
            Ok(length) => *length < room && SHORT_READ_TAKES_ALL && !self.ended && !self.broken,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        self.readable &= !took_all;
    }

    /// What came of a write.
    pub(crate) fn note_write(&mut self, result: &io::Result<usize>) {
        if matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.writable = false;
        }
    }
}

/// How the other end leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It says nothing more. Whether it still reads TCP does not tell: to close a socket and to end its own side alone send
    /// the same.
    Ended,
    /// It does not read any more either.
    Gone,
}

/// Everything that one shard watches.
pub(crate) struct Sources {
    registry: Registry,
    /// Held for one look. Tasks are woken meanwhile: a tokio task that is woken on its own thread is only queued.
    targets: Mutex<Targets>,
}

#[derive(Default)]
struct Targets {
    slots: Slab<Slot>,
    /// How many there have been, modulo 2^32.
    last: u32,
}

struct Slot {
    /// News of a source that had this slot before is for nobody.
    generation: u32,
    target: Target,
}

/// Who hears of a source.
enum Target {
    Task(Arc<Waiting>),
    /// The socket at this place of the shard.
    Socket(u32),
}

/// A source that a task waits for. The task and who tells it run on the shard's thread, one after the other: this takes no
/// lock, and is atomic for the compiler alone.
struct Waiting {
    readable: AtomicBool,
    writable: AtomicBool,
    ended: AtomicBool,
    broken: AtomicBool,
    /// Nobody reads what is written: it is broken, or both sides of it have been ended.
    gone: AtomicBool,
    /// What is waited for: to read, to write, an end alone.
    reader: AtomicBool,
    writer: AtomicBool,
    looker: AtomicBool,
    /// Of the task, from its first wait on.
    waker: OnceLock<Waker>,
}

impl Waiting {
    fn new(readiness: Readiness) -> Self {
        Self {
            readable: readiness.readable.into(),
            writable: readiness.writable.into(),
            ended: readiness.ended.into(),
            broken: readiness.broken.into(),
            gone: false.into(),
            reader: false.into(),
            writer: false.into(),
            looker: false.into(),
            waker: OnceLock::new(),
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            readable: self.readable.load(Ordering::Relaxed),
            writable: self.writable.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
        }
    }

    fn note(&self, readiness: Readiness) {
        self.readable.store(readiness.readable, Ordering::Relaxed);
        self.writable.store(readiness.writable, Ordering::Relaxed);
        self.ended.store(readiness.ended, Ordering::Relaxed);
        self.broken.store(readiness.broken, Ordering::Relaxed);
    }

    /// Has the task woken once when there is what it waits for.
    fn wait(&self, what: &AtomicBool, cx: &Context<'_>) {
        let known = self.waker.get_or_init(|| cx.waker().clone());
        debug_assert!(known.will_wake(cx.waker()), "a task keeps its waker");
        what.store(true, Ordering::Relaxed);
    }

    fn tell(&self, news: Readiness, is_gone: bool) {
        let mut readiness = self.readiness();
        readiness.add(news);
        self.note(readiness);
        if is_gone {
            self.gone.store(true, Ordering::Relaxed);
        }
        let is_waited_for = |what: &AtomicBool, is_there: bool| {
            let is_it = is_there && what.load(Ordering::Relaxed);
            if is_it {
                what.store(false, Ordering::Relaxed);
            }
            is_it
        };
        let to_read = is_waited_for(&self.reader, news.readable);
        let to_write = is_waited_for(&self.writer, news.writable);
        let the_end = is_waited_for(&self.looker, news.ended || is_gone);
        if (to_read || to_write || the_end)
            && let Some(waker) = self.waker.get()
        {
            waker.wake_by_ref();
        }
    }
}

impl Sources {
    fn new(poll: &mio::Poll) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            registry: poll.registry().try_clone()?,
            targets: Mutex::default(),
        }))
    }

    /// Watches a source for a task of the shard.
    pub(crate) fn watch<S: Source>(self: &Arc<Self>, mut source: S) -> io::Result<Watched<S>> {
        let waiting = Arc::new(Waiting::new(Readiness::NEW));
        let mut targets = self.targets.lock();
        targets.last = targets.last.wrapping_add(1);
        let generation = targets.last;
        let slot = targets.slots.insert(Slot {
            generation,
            target: Target::Task(Arc::clone(&waiting)),
        });
        drop(targets);
        let watch = Watch {
            sources: Arc::clone(self),
            slot: u32::try_from(slot).expect("fewer file descriptors than 2^32"),
        };
        let token = Token(slot | (generation as usize) << 32);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut source, token, both)?;
        Ok(Watched {
            source,
            watch,
            waiting,
        })
    }

    /// Gives memory back that a crowd has left.
    pub(crate) fn shrink(&self) {
        shrink::slab(&mut self.targets.lock().slots);
    }

    /// Wakes the tasks that there is news for, and puts down what there is of sockets.
    fn tell<'a>(
        &self,
        events: impl IntoIterator<Item = &'a Event>,
        news: &mut Vec<(u32, Readiness)>,
    ) {
        let targets = self.targets.lock();
        for event in events {
            let Token(token) = event.token();
            let Some(slot) = targets.slots.get(token & u32::MAX as usize) else {
                continue;
            };
            if slot.generation as usize != token >> 32 {
                continue;
            }
            let readiness = Readiness::told_by(event);
            match &slot.target {
                Target::Socket(key) => news.push((*key, readiness)),
                Target::Task(waiting) => {
                    waiting.tell(readiness, readiness.broken || event.is_write_closed());
                }
            }
        }
    }
}

/// A source is watched for as long as this lives; the source itself goes first.
pub(crate) struct Watch {
    sources: Arc<Sources>,
    slot: u32,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The system forgets what is closed.
        let mut targets = self.sources.targets.lock();
        let slot = targets.slots.try_remove(self.slot as usize);
        if targets.slots.is_empty() {
            shrink::slab(&mut targets.slots);
        }
        drop(targets);
        drop(slot); // without the lock
    }
}

/// A source that a task of the shard waits for, always the same one.
pub(crate) struct Watched<S> {
    pub(crate) source: S,
    watch: Watch,
    waiting: Arc<Waiting>,
}

impl<S> Watched<S> {
    /// From now on its news is that of the socket at this place of the shard. What is known of it comes back.
    pub(crate) fn become_socket(self, key: u32) -> (S, Watch, Readiness) {
        let slot = self.watch.slot as usize;
        self.watch.sources.targets.lock().slots[slot].target = Target::Socket(key);
        let readiness = self.waiting.readiness();
        (self.source, self.watch, readiness)
    }

    /// Tries a read of so many bytes at most, or has the task wait until one is worth it.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, Way::In, |source, readiness| {
            let result = read(source);
            readiness.note_read(&result, room);
            result
        })
    }

    /// Has the task wait until a read is worth a try.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.readiness().readable {
            return Poll::Ready(());
        }
        self.waiting.wait(&self.waiting.reader, cx);
        Poll::Pending
    }

    /// The same as [`poll_read`](Self::poll_read) for an accept.
    pub(crate) fn poll_accept<T>(
        &self,
        cx: &mut Context<'_>,
        accept: impl Fn(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.poll_try(cx, Way::In, |source, _| accept(source))
    }

    /// The same for a write.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, Way::Out, |source, _| write(source))
    }

    /// Whether the other end has left in this way. A task waits for one of them at a time.
    pub(crate) fn poll_left(&self, cx: &mut Context<'_>, how: Leave) -> Poll<()> {
        let is_gone = self.waiting.gone.load(Ordering::Relaxed);
        if is_gone || (how == Leave::Ended && self.waiting.readiness().ended) {
            return Poll::Ready(());
        }
        self.waiting.wait(&self.waiting.looker, cx);
        Poll::Pending
    }

    fn poll_try<T>(
        &self,
        cx: &mut Context<'_>,
        way: Way,
        mut attempt: impl FnMut(&S, &mut Readiness) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if *way.of(&mut self.waiting.readiness()) {
            // A peer that always has more must not keep the others of this thread waiting.
            let turn = ready!(coop::poll_proceed(cx));
            let mut readiness = self.waiting.readiness();
            let result = attempt(&self.source, &mut readiness);
            let is_vain =
                matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            *way.of(&mut readiness) &= !is_vain;
            self.waiting.note(readiness);
            if !is_vain {
                turn.made_progress();
                return Poll::Ready(result);
            }
        }
        self.waiting.wait(way.awaited(&self.waiting), cx);
        Poll::Pending
    }
}

/// Where bytes go.
#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

impl Way {
    /// Whether they may go there.
    fn of(self, readiness: &mut Readiness) -> &mut bool {
        match self {
            Self::In => &mut readiness.readable,
            Self::Out => &mut readiness.writable,
        }
    }

    /// Whether it is waited for that they may.
    fn awaited(self, waiting: &Waiting) -> &AtomicBool {
        match self {
            Self::In => &waiting.reader,
            Self::Out => &waiting.writer,
        }
    }
}

/// Nothing would be heard of any socket again: better that somebody restarts us.
fn fail(error: &io::Error) -> ! {
    tracing::error!(%error, "the system tells no more news");
    std::process::abort();
}
