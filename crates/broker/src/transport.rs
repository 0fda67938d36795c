//! The byte stream under a connection. TLS will be one more variant here.

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// A connected stream, registered with the reactor of the shard that owns it.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A connected stream on its way to the shard it was dealt to.
pub(crate) enum Unregistered {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

macro_rules! of {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($stream) => $call,
            #[cfg(unix)]
            Transport::Unix($stream) => $call,
        }
    };
}

impl Transport {
    /// Lets go of this shard's reactor, so that another shard can take the stream.
    pub(crate) fn unregister(self) -> io::Result<Unregistered> {
        Ok(match self {
            Self::Tcp(stream) => Unregistered::Tcp(stream.into_std()?),
            #[cfg(unix)]
            Self::Unix(stream) => Unregistered::Unix(stream.into_std()?),
        })
    }
}

impl Transport {
    /// Ends the connection with a reset. What the kernel still held for a peer that does not read goes with it.
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            let _ = stream.set_zero_linger(); // a peer that has gone already needs no reset
        }
    }
}

impl Transport {
    /// Whether the peer has ended its side in good order, as far as the reactor has been told. What it said before may
    /// still have to be read.
    pub(crate) fn has_been_ended(&self) -> bool {
        let any = Interest::READABLE | Interest::ERROR;
        let mut readiness = pin!(async { of!(self, stream => stream.ready(any).await) });
        match readiness
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(ready)) => ready.is_read_closed() && !ready.is_error(),
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }

    /// Waits until the peer has ended its side, or the connection is broken, whatever is still to be read before that.
    pub(crate) async fn ended(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // What tokio reports to those who wait for urgent data alone: that we do not ask the system for, and the
            // end comes with it.
            let _ = of!(self, stream => stream.ready(Interest::PRIORITY).await);
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        self.ended_by_looking().await;
    }

    /// The same where the reactor tells of the end only somebody who also wants to be told of bytes: while there are
    /// some, it is looked at every now and then.
    #[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
    async fn ended_by_looking(&self) {
        loop {
            let readiness = of!(self, stream => stream.ready(Interest::READABLE).await);
            if !readiness.is_ok_and(|ready| !ready.is_read_closed()) {
                return;
            }
            // On Windows a reset is told to those who read, and what was read is only known to be gone once asked for.
            if let Self::Tcp(stream) = self
                && !matches!(stream.peek(&mut [0]).await, Ok(length) if length > 0)
            {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Pieces of so many bytes together are copied and written as one: most answers are smaller, and the system takes longer
/// to look at a list of pieces than a copy takes.
const JOINED: usize = 2048;

/// How soon an end is noticed at the latest where it has to be looked for.
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

impl Unregistered {
    pub(crate) fn register(self) -> io::Result<Transport> {
        Ok(match self {
            Self::Tcp(stream) => Transport::Tcp(TcpStream::from_std(stream)?),
            #[cfg(unix)]
            Self::Unix(stream) => Transport::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// For as long as somebody else waits for its [end](Transport::ended). It is never shut this way.
impl AsyncRead for &Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        of!(*self.get_mut(), stream => loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buffer) {
                Ok(length) => {
                    if 0 < length && length < room {
                        // Nothing is left to read, and to ask the system for it again would be to ask in vain. No news
                        // can come between the two calls: it is this thread that fetches them.
                        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                        let _ = stream.try_io(Interest::READABLE, nothing);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        })
    }
}

impl AsyncWrite for &Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of!(*self.get_mut(), stream => loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().map(|slice| slice.len()).sum::<usize>() <= JOINED {
            let mut space = [const { MaybeUninit::uninit() }; JOINED];
            let mut joined = ReadBuf::uninit(&mut space);
            for slice in slices {
                joined.put_slice(slice);
            }
            return self.poll_write(cx, joined.filled());
        }
        of!(*self.get_mut(), stream => loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection, ours first; five bytes have come.
    async fn pair() -> (Transport, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut peer = std::net::TcpStream::connect(address).expect("it listens");
        peer.write_all(b"hello").expect("sent");
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.readable().await.expect("something has come");
        (Transport::Tcp(stream), peer)
    }

    async fn is_pending(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut future = future;
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn an_end_is_noticed_behind_bytes_that_nobody_reads() {
        for resets in [false, true] {
            for looking in [false, true] {
                let (transport, peer) = pair().await;
                let mut told = pin!(transport.ended());
                let mut looked = pin!(transport.ended_by_looking());
                assert!(is_pending(told.as_mut()).await);
                assert!(is_pending(looked.as_mut()).await);
                if resets {
                    let linger = Some(Duration::ZERO);
                    let socket = socket2::SockRef::from(&peer);
                    socket.set_linger(linger).expect("an option");
                }
                assert!(!transport.has_been_ended());
                drop(peer);
                if looking {
                    looked.await
                } else {
                    told.await
                }
                assert_eq!(transport.has_been_ended(), !resets);
            }
        }
    }

    #[tokio::test]
    async fn what_is_read_while_somebody_waits_for_the_end_is_whole() {
        let (transport, mut peer) = pair().await;
        let mut ended = pin!(transport.ended());
        let mut stream = &transport;
        for _ in 0..100 {
            assert!(is_pending(ended.as_mut()).await);
            let mut read = Vec::new();
            // The last of these leaves room, or is asked for when there is nothing more.
            while read.len() < 5 {
                let mut piece = [0; 3];
                let length = stream.read(&mut piece).await.expect("bytes");
                read.extend_from_slice(&piece[..length]);
            }
            assert_eq!(read, b"hello");
            let mut piece = [0; 3];
            let mut next = pin!(stream.read(&mut piece));
            assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
            peer.write_all(b"x").expect("sent");
            assert_eq!(next.await.expect("a byte"), 1);
            peer.write_all(b"hello").expect("sent");
        }
    }
}
