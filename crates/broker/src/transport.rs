//! The byte stream under a connection, for its task and then for its shard. TLS will be one more variant of [`Stream`].

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use crate::reactor::Leave;
use crate::reactor::{Readiness, Sources, Watch, Watched};

/// A connected stream, known to no reactor.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

macro_rules! of {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            #[cfg(unix)]
            Stream::Unix($inner) => $call,
        }
    };
}

impl Stream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        again_if_interrupted(|| of!(self, stream => receive(stream, buffer)))
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        again_if_interrupted(|| {
            of!(self, stream => {
                let mut stream = stream;
                match slices {
                    [slice] => send(stream, slice),
                    slices => stream.write_vectored(slices),
                }
            })
        })
    }

    fn shut(&self) -> io::Result<()> {
        of!(self, stream => stream.shutdown(Shutdown::Write))
    }
}

/// By nothing but the system call. The C library makes each a point where its thread may be cancelled, which takes two
/// atomic operations (`docs/performance.md`).
#[cfg(target_os = "linux")]
fn receive(stream: impl std::os::fd::AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(stream, buffer, rustix::net::RecvFlags::empty())?;
    Ok(length)
}

/// The same.
#[cfg(target_os = "linux")]
fn send(stream: impl std::os::fd::AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(
        stream,
        bytes,
        rustix::net::SendFlags::NOSIGNAL,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn receive(mut stream: impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    stream.read(buffer)
}

#[cfg(not(target_os = "linux"))]
fn send(mut stream: impl io::Write, bytes: &[u8]) -> io::Result<usize> {
    stream.write(bytes)
}

fn again_if_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, to: Interest) -> io::Result<()> {
        of!(self, stream => stream.register(registry, token, to))
    }

    fn reregister(&mut self, registry: &Registry, token: Token, to: Interest) -> io::Result<()> {
        of!(self, stream => stream.reregister(registry, token, to))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        of!(self, stream => stream.deregister(registry))
    }
}

/// The stream of an open socket, which its shard reads and writes when there is news of it.
pub(crate) struct Wire {
    stream: Stream,
    /// Known to the reactor for as long as this lives.
    _watch: Watch,
    readiness: Readiness,
    /// See [`expect_acknowledgement`](Self::expect_acknowledgement).
    #[cfg(target_os = "linux")]
    is_expecting: bool,
}

impl Wire {
    /// The reactor has news.
    pub(crate) fn add(&mut self, news: Readiness) {
        self.readiness.add(news);
    }

    /// Whether a read is worth trying.
    pub(crate) fn is_readable(&self) -> bool {
        self.readiness.readable
    }

    /// What is there to be read; `Pending` until there is news.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.readiness.readable {
            return Poll::Pending;
        }
        let result = self.stream.read(buffer);
        self.readiness.note_read(&result, buffer.len());
        or_pending(result)
    }

    /// How much the system has taken; `Pending` until there is news.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.readiness.writable {
            return Poll::Pending;
        }
        let result = self.stream.write(slices);
        self.readiness.note_write(&result);
        or_pending(result)
    }

    /// Ends our side.
    pub(crate) fn shut(&self) {
        let _ = self.stream.shut(); // a peer that has gone already needs no end
    }

    /// Whether the peer has ended its side in good order, as far as the reactor has been told. What it said before may
    /// still have to be read.
    pub(crate) fn has_been_ended(&self) -> bool {
        self.readiness.ended && !self.is_broken()
    }

    /// Whether the stream is broken, as far as the reactor has been told.
    pub(crate) fn is_broken(&self) -> bool {
        self.readiness.broken
    }

    /// Has the system break the stream when its peer's does not confirm within this time what is written, or takes nothing of
    /// it; `None`: in the system's own time, which is some minutes, and elsewhere than on Linux always is.
    pub(crate) fn expect_acknowledgement(&mut self, within: Option<Duration>) {
        #[cfg(target_os = "linux")]
        if let Stream::Tcp(stream) = &self.stream
            && std::mem::replace(&mut self.is_expecting, within.is_some()) != within.is_some()
        {
            const OF_THE_SYSTEM: u32 = 0;
            let milliseconds = within.map_or(OF_THE_SYSTEM, |within| {
                u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1)
            });
            let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = within;
    }
}

fn or_pending(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// The stream of a connection until it becomes a socket, for its task.
pub(crate) struct Transport(Watched<Stream>);

impl Transport {
    /// To be called on the shard that `sources` are of.
    pub(crate) fn new(stream: Stream, sources: &Arc<Sources>) -> io::Result<Self> {
        Ok(Self(sources.watch(stream)?))
    }

    /// The stream of the socket at this place of the shard.
    pub(crate) fn into_wire(self, key: u32) -> Wire {
        let (stream, watch, readiness) = self.0.become_socket(key);
        Wire {
            stream,
            _watch: watch,
            readiness,
            #[cfg(target_os = "linux")]
            is_expecting: false,
        }
    }

    /// Ends the connection with a reset. What the kernel still held for a peer that does not read goes with it.
    pub(crate) fn reset(self) {
        if let Stream::Tcp(stream) = &self.0.source {
            // A peer that has already gone needs no reset.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether the peer has left in this way, whatever is still to be read before that. `look` is kept from one call to the
    /// next.
    #[cfg_attr(unix, expect(unused_variables, reason = "the system tells"))]
    pub(crate) fn poll_left(&self, cx: &mut Context<'_>, how: Leave, look: &mut Look) -> Poll<()> {
        #[cfg(unix)]
        return self.0.poll_left(cx, how);
        #[cfg(not(unix))]
        return self.poll_left_by_looking(cx, how, look);
    }

    /// The same where the system tells of the end only those who have read all that came before: it is looked at every now
    /// and then.
    #[cfg(any(test, not(unix)))]
    fn poll_left_by_looking(&self, cx: &mut Context<'_>, how: Leave, look: &mut Look) -> Poll<()> {
        if self.0.poll_left(cx, how).is_ready() {
            return Poll::Ready(());
        }
        let timer = look
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
        loop {
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(tokio::time::Instant::now() + LOOK);
            // A reset is told to those who read, and what was read is only known to be gone once asked for.
            if let Stream::Tcp(stream) = &self.0.source {
                match stream.peek(&mut [0]) {
                    Ok(0) if how == Leave::Ended => return Poll::Ready(()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        return Poll::Ready(());
                    }
                    _ => {}
                }
            }
        }
    }

    fn poll_write_pieces(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |stream| stream.write(slices))
    }
}

/// Pieces of so many bytes together are copied and written as one: most answers are smaller, and the system takes longer
/// to look at a list of pieces than a copy takes.
const JOINED: usize = 2048;

/// When a connection was looked at last whose end has to be looked for.
#[derive(Default)]
pub(crate) struct Look(#[cfg(any(test, not(unix)))] Option<Pin<Box<tokio::time::Sleep>>>);

/// How soon an end is noticed at the latest where it has to be looked for.
#[cfg(any(test, not(unix)))]
const LOOK: Duration = Duration::from_secs(1);

/// So much of a connection is read at once.
const READ: usize = 64 * 1024;

thread_local! {
    /// What is read goes through here: buffers come without values, which would have to be written before each read.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Shared, for somebody else may wait for its [end](Transport::poll_left) meanwhile.
impl AsyncRead for &Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.0.poll_readable(cx)); // hyper asks more often than there is anything
        READ_BUFFER.with_borrow_mut(|space| {
            let space = &mut space[..buffer.remaining().min(READ)];
            let length = ready!(
                self.0
                    .poll_read(cx, space.len(), |stream| stream.read(space))
            )?;
            buffer.put_slice(&space[..length]);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for &Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_pieces(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().map(|slice| slice.len()).sum::<usize>() > JOINED {
            return self.poll_write_pieces(cx, slices);
        }
        let mut space = [const { MaybeUninit::uninit() }; JOINED];
        let mut joined = ReadBuf::uninit(&mut space);
        for slice in slices {
            joined.put_slice(slice);
        }
        self.poll_write(cx, joined.filled())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our side, which is one system call and never waits.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.source.shut())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::pin::pin;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::reactor::{self, Reactor};

    /// What comes of a future with a reactor beside it.
    async fn beside<T>(reactor: &mut Reactor, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            reactor.look(cx, &mut Vec::new());
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Both ends of a connection, ours first; five bytes have come.
    async fn pair(reactor: &mut Reactor) -> (Transport, std::net::TcpStream) {
        let (stream, mut peer) = reactor::tests::pair();
        peer.write_all(b"hello").expect("sent");
        let transport = Transport::new(Stream::Tcp(stream), reactor.sources()).expect("a slot");
        let something = poll_fn(|cx| transport.0.poll_accept(cx, |_| Ok(())));
        beside(reactor, something).await.expect("told of");
        (transport, peer)
    }

    async fn is_pending(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut future = future;
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn an_end_is_noticed_behind_bytes_that_nobody_reads() {
        for resets in [false, true] {
            for looking in [false, true] {
                let mut reactor = Reactor::new().expect("a descriptor");
                let (transport, peer) = pair(&mut reactor).await;
                let mut look = Look::default();
                let how = if resets { Leave::Gone } else { Leave::Ended };
                let mut told = pin!(poll_fn(|cx| transport.0.poll_left(cx, how)));
                let mut looked = pin!(poll_fn(
                    |cx| transport.poll_left_by_looking(cx, how, &mut look)
                ));
                assert!(is_pending(told.as_mut()).await);
                assert!(is_pending(looked.as_mut()).await);
                if resets {
                    let linger = Some(Duration::ZERO);
                    let socket = socket2::SockRef::from(&peer);
                    socket.set_linger(linger).expect("an option");
                }
                drop(peer);
                if looking {
                    beside(&mut reactor, looked).await;
                } else {
                    beside(&mut reactor, told).await;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_socket_knows_whether_its_peer_has_ended_in_good_order() {
        for resets in [false, true] {
            let mut reactor = Reactor::new().expect("a descriptor");
            let (transport, peer) = pair(&mut reactor).await;
            let mut wire = transport.into_wire(7);
            assert!(!wire.has_been_ended());
            if resets {
                let socket = socket2::SockRef::from(&peer);
                socket.set_linger(Some(Duration::ZERO)).expect("an option");
            }
            drop(peer);
            poll_fn(|cx| {
                let mut news = Vec::new();
                reactor.look(cx, &mut news);
                for (key, readiness) in news {
                    assert_eq!(key, 7);
                    wire.add(readiness);
                }
                if wire.readiness.ended {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            assert_eq!(wire.has_been_ended(), !resets);
            let mut piece = [0; 16];
            if !resets {
                assert!(matches!(wire.read(&mut piece), Poll::Ready(Ok(5))));
                assert!(matches!(wire.read(&mut piece), Poll::Ready(Ok(0))));
            }
        }
    }

    #[tokio::test]
    async fn what_is_read_while_somebody_waits_for_the_end_is_whole() {
        let mut reactor = Reactor::new().expect("a descriptor");
        let (transport, mut peer) = pair(&mut reactor).await;
        let mut look = Look::default();
        let mut ended = pin!(poll_fn(|cx| transport.poll_left(
            cx,
            Leave::Ended,
            &mut look
        )));
        let mut stream = &transport;
        for _ in 0..100 {
            assert!(is_pending(ended.as_mut()).await);
            let mut read = Vec::new();
            // The last of these leaves room, or is asked for when there is nothing more.
            while read.len() < 5 {
                let mut piece = [0; 3];
                let length = beside(&mut reactor, stream.read(&mut piece))
                    .await
                    .expect("bytes");
                read.extend_from_slice(&piece[..length]);
            }
            assert_eq!(read, b"hello");
            let mut piece = [0; 3];
            {
                let mut next = pin!(stream.read(&mut piece));
                assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
                peer.write_all(b"x").expect("sent");
                assert_eq!(beside(&mut reactor, next).await.expect("a byte"), 1);
            }
            peer.write_all(b"hello").expect("sent");
        }
    }
}
