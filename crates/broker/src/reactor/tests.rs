//! Both kinds of reactor, whatever this system uses.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::*;

trait Look {
    fn start() -> Self;
    fn sources(&self) -> &Arc<Sources>;
    fn look(&mut self, cx: &mut Context<'_>, news: &mut Vec<(u32, Readiness)>);

    /// Waits until what has come of sockets is enough.
    async fn until(
        &mut self,
        is_enough: impl Fn(&[(u32, Readiness)]) -> bool,
    ) -> Vec<(u32, Readiness)> {
        let mut news = Vec::new();
        poll_fn(|cx| {
            self.look(cx, &mut news);
            if is_enough(&news) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        news
    }
}

macro_rules! looks {
    ($reactor:ty) => {
        impl Look for $reactor {
            fn start() -> Self {
                Self::new().expect("a descriptor")
            }
            fn sources(&self) -> &Arc<Sources> {
                self.sources()
            }
            fn look(&mut self, cx: &mut Context<'_>, news: &mut Vec<(u32, Readiness)>) {
                self.look(cx, news);
            }
        }
    };
}

#[cfg(unix)]
looks!(Reactor);
looks!(threaded::Reactor);

macro_rules! with_each_reactor {
    ($test:ident) => {
        mod $test {
            #[cfg(unix)]
            #[tokio::test]
            async fn nested() {
                super::$test::<super::nested::Reactor>().await;
            }

            #[tokio::test]
            async fn threaded() {
                super::$test::<super::threaded::Reactor>().await;
            }
        }
    };
}

/// Both ends of a connection, ours first.
pub(crate) fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = std::net::TcpStream::connect(listener.local_addr().expect("an address"));
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_nonblocking(true).expect("an option");
    (TcpStream::from_std(stream), peer.expect("it listens"))
}

fn readable(news: &[(u32, Readiness)]) -> BTreeSet<u32> {
    news.iter()
        .filter(|(_, news)| news.readable)
        .map(|(key, _)| *key)
        .collect()
}

with_each_reactor!(a_task_is_woken_and_a_socket_is_named);
async fn a_task_is_woken_and_a_socket_is_named<R: Look>() {
    let mut reactor = R::start();
    let (stream, mut peer) = pair();
    let watched = reactor.sources().watch(stream).expect("a slot");
    for _ in 0..3 {
        let mut space = [0; 16];
        let read = |cx: &mut Context<'_>| {
            watched.poll_read(cx, space.len(), |mut stream| stream.read(&mut space))
        };
        let mut read = pin!(poll_fn(read));
        let is_early = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_ready())).await;
        assert!(!is_early, "nothing has come");
        peer.write_all(b"hello").expect("sent");
        let result = poll_fn(|cx| {
            reactor.look(cx, &mut Vec::new());
            read.as_mut().poll(cx)
        });
        assert_eq!(result.await.ok(), Some(5));
    }
    // Where the system tells only those who have found nothing.
    let nothing = |mut stream: &TcpStream| stream.read(&mut [0; 16]);
    let is_empty = poll_fn(|cx| Poll::Ready(watched.poll_read(cx, 16, nothing).is_pending()));
    assert!(is_empty.await);
    let (stream, _watch, _) = watched.become_socket(42);
    peer.write_all(b"more").expect("sent");
    reactor.until(|news| readable(news) == [42].into()).await;
    drop(stream);
}

with_each_reactor!(more_news_than_is_fetched_at_once_is_told_of_each);
async fn more_news_than_is_fetched_at_once_is_told_of_each<R: Look>() {
    let mut reactor = R::start();
    let count = EVENTS as u32 + 40;
    let mut sockets = Vec::new();
    for key in 0..count {
        let (stream, mut peer) = pair();
        let watched = reactor.sources().watch(stream).expect("a slot");
        peer.write_all(b"x").expect("sent");
        sockets.push((watched.become_socket(key), peer));
    }
    let news = reactor
        .until(|news| readable(news).len() == count as usize)
        .await;
    assert_eq!(readable(&news), (0..count).collect());
}

with_each_reactor!(what_has_gone_is_told_nothing_nor_who_comes_after_it);
async fn what_has_gone_is_told_nothing_nor_who_comes_after_it<R: Look>() {
    let mut reactor = R::start();
    for key in 0..100 {
        let (stream, peer) = pair();
        let old = reactor
            .sources()
            .watch(stream)
            .expect("a slot")
            .become_socket(2 * key);
        drop(peer); // there is news
        let old_slot = old.1.slot;
        drop(old);
        let (stream, mut peer) = pair();
        let watched = reactor.sources().watch(stream).expect("a slot");
        assert_eq!(watched.watch.slot, old_slot, "or this shows nothing");
        let _new = watched.become_socket(2 * key + 1);
        peer.write_all(b"x").expect("sent");
        let news = reactor
            .until(|news| readable(news).contains(&(2 * key + 1)))
            .await;
        for (key_of_news, readiness) in news {
            // The old one may have been told of before it went, by its own name.
            assert!(
                !readiness.ended || key_of_news == 2 * key,
                "{key_of_news} of {key}"
            );
        }
    }
}

/// A shard that is woken again and again must hear of its sockets, however long tokio's reactor is not looked at.
#[cfg(unix)]
#[tokio::test]
async fn news_comes_after_some_looks_whatever_tokio_does() {
    let mut reactor = Reactor::new().expect("a descriptor");
    let mut sockets = Vec::new();
    for key in 0..3 {
        let (stream, mut peer) = pair();
        peer.write_all(b"x").expect("sent");
        let sent = Instant::now();
        while stream.peek(&mut [0]).is_err() {
            assert!(
                sent.elapsed() < Duration::from_secs(10),
                "it does not arrive"
            );
            std::thread::yield_now();
        }
        let watched = reactor.sources().watch(stream).expect("a slot");
        sockets.push((watched.become_socket(key), peer));
        let news = poll_fn(|cx| {
            // Within one poll, and so without a look of tokio's.
            let mut news = Vec::new();
            for _ in 0..nested::MOST_VAIN_LOOKS {
                reactor.look(cx, &mut news);
            }
            Poll::Ready(news)
        });
        assert!(readable(&news.await).contains(&key), "{key}");
    }
}

#[test]
fn a_short_read_has_taken_all_but_the_end() {
    let mut readiness = Readiness {
        readable: true,
        ..Readiness::NEW
    };
    readiness.note_read(&Ok(16), 16);
    assert!(readiness.readable, "there may be more");
    readiness.note_read(&Ok(15), 16);
    assert_eq!(readiness.readable, !SHORT_READ_TAKES_ALL);
    readiness.add(Readiness {
        readable: true,
        ended: true,
        ..Readiness::default()
    });
    readiness.note_read(&Ok(15), 16);
    assert!(readiness.readable, "the end has to be read");
    readiness.note_read(&Err(io::ErrorKind::WouldBlock.into()), 16);
    assert!(!readiness.readable);
    readiness.note_write(&Ok(1));
    assert!(readiness.writable, "what it takes next is found by trying");
    readiness.note_write(&Err(io::ErrorKind::WouldBlock.into()));
    assert!(!readiness.writable);
}

#[test]
fn the_thread_of_a_reactor_ends_with_it() {
    let reactor = threaded::Reactor::new().expect("a descriptor");
    let fetched = reactor.fetched();
    assert_eq!(fetched.strong_count(), 2, "the thread has it too");
    drop(reactor);
    assert_eq!(fetched.strong_count(), 0);
}

#[test]
fn slots_of_a_crowd_that_has_gone_give_their_memory_back() {
    const MANY: usize = 20_000;
    let sources = Sources::new(&mio::Poll::new().expect("a descriptor")).expect("a descriptor");
    let crowd = |count| -> Vec<_> {
        let slots = &mut sources.targets.lock().slots;
        let slot = || Slot {
            generation: 0,
            target: Target::Socket(0),
        };
        let taken = (0..count).map(|_| slots.insert(slot()) as u32);
        let watch = |slot| Watch {
            sources: Arc::clone(&sources),
            slot,
        };
        taken.map(watch).collect()
    };
    let room = || sources.targets.lock().slots.capacity();
    let stays = crowd(1);
    drop(crowd(MANY));
    assert!(room() >= MANY);
    sources.shrink();
    assert!(room() < 100);
    drop((stays, crowd(MANY)));
    assert!(room() < 100, "nobody is left, and nothing sweeps");
}
