//! Many connections on one thread.

use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::stream::{Connection, Item, Outgoing, Protocol};
use crate::target::Target;

/// One read takes so much at most; a message of 1 MiB then takes four.
const READ_BUFFER: usize = 256 * 1024;

/// Connections that are opened at the same time; below the 511 that Node lets wait to be accepted.
const OPENING: usize = 128;

/// Opening connections, however many, that does not get on for so long has failed.
const OPENING_STALLED: Duration = Duration::from_secs(20);

const TIMER: Token = Token(usize::MAX);

/// Connections that speak `P`.
pub(crate) struct Pool<P> {
    target: Target,
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    connections: Vec<Connection<P>>,
    /// How many were begun, the ones that have ended included.
    begun: usize,
    timer: Option<TimerFd>,
}

impl<P: Protocol> Pool<P> {
    pub(crate) fn new(target: Target) -> io::Result<Self> {
        Ok(Self {
            target,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            scratch: vec![0; READ_BUFFER],
            connections: Vec::new(),
            begun: 0,
            timer: None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Begins one more connection; its index is the number of those before.
    pub(crate) fn begin(&mut self, protocol: P) -> io::Result<()> {
        let connection = self.connect(protocol, self.connections.len())?;
        self.connections.push(connection);
        Ok(())
    }

    /// Begins a connection in the place of one that has ended.
    pub(crate) fn begin_again(&mut self, index: usize, protocol: P) -> io::Result<()> {
        self.connections[index] = self.connect(protocol, index)?;
        Ok(())
    }

    fn connect(&mut self, protocol: P, index: usize) -> io::Result<Connection<P>> {
        let mut stream = self.target.connect(self.begun)?;
        self.begun += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(index), interest)?;
        Ok(Connection::new(stream, protocol))
    }

    /// Opens `count` more connections and waits until all of them are open.
    pub(crate) fn open(
        &mut self,
        count: usize,
        mut protocol: impl FnMut() -> P,
    ) -> Result<(), String> {
        let all = self.len() + count;
        let mut open = self.len();
        let mut progress = (Instant::now(), open);
        while open < all {
            while self.len() < all && self.len() - open < OPENING {
                self.begin(protocol()).map_err(words)?;
            }
            let mut ended = 0;
            self.turn(Duration::from_millis(100), |_, _, item, _| match item {
                Item::Open => open += 1,
                Item::Message(_) => {}
                Item::End => ended += 1,
            })?;
            if ended > 0 {
                return Err(format!(
                    "the server closed {ended} of {all} connections while they were opened"
                ));
            }
            if open > progress.1 {
                progress = (Instant::now(), open);
            } else if progress.0.elapsed() > OPENING_STALLED {
                return Err(format!("only {open} of {all} connections have opened"));
            }
        }
        Ok(())
    }

    /// Waits for something to happen, for at most `timeout`, and gives it to `sink` with the index of the connection
    /// and the time. What `sink` puts into the connection's outgoing bytes is written once, after it.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut sink: impl FnMut(&mut Outgoing, usize, Item<'_>, Instant),
    ) -> Result<(), String> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(words)?,
        }
        for event in &self.events {
            if event.token() == TIMER {
                if let Some(timer) = &self.timer {
                    // Only so that it goes on: who waits for it looks at the time.
                    let _ = timer.wait();
                }
                continue;
            }
            let index = event.token().0;
            let now = Instant::now();
            let connection = &mut self.connections[index];
            if connection.connecting {
                if !event.is_writable() {
                    continue;
                }
                let open = connection
                    .begin()
                    .map_err(|error| format!("no connection: {error}"))?;
                if open {
                    sink(&mut connection.outgoing, index, Item::Open, now);
                }
            }
            if event.is_readable() || event.is_read_closed() {
                let mut sink =
                    |outgoing: &mut Outgoing, item: Item<'_>| sink(outgoing, index, item, now);
                connection.read(&mut self.scratch, event.is_read_closed(), &mut sink)?;
            }
            connection.flush();
        }
        Ok(())
    }

    /// What is put into the outgoing bytes is written by [`flush`](Self::flush).
    pub(crate) fn outgoing(&mut self, index: usize) -> &mut Outgoing {
        &mut self.connections[index].outgoing
    }

    pub(crate) fn flush(&mut self, index: usize) {
        self.connections[index].flush();
    }

    /// Ends a [`turn`](Self::turn)'s waiting every `period`.
    pub(crate) fn wake_every(&mut self, period: Duration) -> Result<(), String> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).map_err(words)?;
        timer
            .set(
                Expiration::Interval(TimeSpec::from_duration(period)),
                TimerSetTimeFlags::empty(),
            )
            .map_err(words)?;
        let fd = timer.as_fd().as_raw_fd();
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), TIMER, Interest::READABLE)
            .map_err(words)?;
        self.timer = Some(timer);
        Ok(())
    }

    /// From now on the kernel notes when bytes arrive for this connection, and [`Pool::turn`] is told of none: to note it
    /// for that, the server's cores would take one lock in turn for all connections.
    pub(crate) fn note_arrivals(&mut self, index: usize) -> Result<(), String> {
        let Some(stream) = &mut self.connections[index].stream else {
            return Err("a connection has ended".to_owned());
        };
        setsockopt(stream, sockopt::ReceiveTimestampns, &true).map_err(words)?;
        self.poll.registry().deregister(stream).map_err(words)
    }

    /// Reads once, without waiting. `Some` when there was something: when the last of it arrived, by the system's clock,
    /// if the kernel noted it. It begins to some time after it was told.
    pub(crate) fn read_arrived(
        &mut self,
        index: usize,
        mut sink: impl FnMut(Item<'_>),
    ) -> Result<Option<Option<Duration>>, String> {
        let connection = &mut self.connections[index];
        let Some(stream) = &connection.stream else {
            return Err("a connection has ended".to_owned());
        };
        let mut control = nix::cmsg_space!(nix::libc::timespec);
        let mut slices = [IoSliceMut::new(&mut self.scratch)];
        let received = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let (count, arrived) = match received {
            Ok(received) => {
                let arrived = received
                    .cmsgs()
                    .map_err(words)?
                    .find_map(|message| match message {
                        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                        _ => None,
                    });
                (received.bytes, arrived)
            }
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(words(error)),
        };
        if count == 0 {
            return Err("the server closed a connection".to_owned());
        }
        connection.feed(&self.scratch[..count], &mut |_, item| sink(item))?;
        Ok(Some(arrived))
    }
}

/// The system's clock, which is the one of arrival times.
pub(crate) fn system_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

pub(crate) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
