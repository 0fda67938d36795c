//! The stream under hyper, which sees bytes come and go, the one timer of a connection, and who looks for its end while
//! hyper does not.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::amend::Heads;
use super::connection::Connection;
use super::deadlines::{Deadlines, Overdue, Progress};
use crate::transport::{Leave, Look, Transport};

/// Notes for the connection's deadlines what the peer does, and amends its heads.
pub(super) struct Timed<'a> {
    transport: &'a Transport,
    connection: &'a Connection,
    heads: Heads,
    /// The last write was refused.
    is_blocked: bool,
}

impl<'a> Timed<'a> {
    pub(super) fn new(transport: &'a Transport, connection: &'a Connection) -> Self {
        Self {
            transport,
            connection,
            heads: Heads::new(),
            is_blocked: false,
        }
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let is_blocked = result.is_pending();
        if is_blocked {
            self.connection.progress.blocked();
        } else if self.is_blocked {
            self.connection.progress.written();
        }
        self.is_blocked = is_blocked;
        result
    }
}

impl AsyncRead for Timed<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.transport).poll_read(cx, buffer));
        let bytes = &mut buffer.filled_mut()[before..];
        if !bytes.is_empty() {
            let Connection {
                progress, hidden, ..
            } = self.connection;
            let expects_head = progress.expects_head();
            self.heads
                .read(bytes, expects_head, progress.body(), hidden);
            progress.received();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Timed<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, slices);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// Wakes a connection for its next deadline. There is a timer from the first moment that something is waited for, and
/// it is set again only when a deadline comes before it; one that goes off too early is set to what is next then. So
/// a connection that is served request after request touches it every few seconds, and not with each of them.
pub(super) struct Alarm {
    deadlines: Deadlines,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub(super) fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            timer: None,
        }
    }

    /// To be polled last, when all that has come is known.
    pub(super) fn poll_overdue(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
    ) -> Poll<Overdue> {
        loop {
            if !progress.is_waiting() {
                return Poll::Pending;
            }
            let now = Instant::now();
            let Some((deadline, overdue)) = self.deadlines.next(progress, now) else {
                return Poll::Pending;
            };
            if deadline <= now {
                progress.overdue(overdue);
                return Poll::Ready(overdue);
            }
            match &mut self.timer {
                Some(timer) if !timer.is_elapsed() && timer.deadline() <= deadline => {
                    return Poll::Pending; // it knows this task's waker from the last time
                }
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(sleep_until(deadline))),
            }
            if let Some(timer) = &mut self.timer {
                // Without tokio's budget, at whose end it would know no waker, and the next look would not poll it.
                ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
            }
        }
    }
}

/// Notices that the peer leaves while its request waits for an answer. hyper reads nothing more then.
pub(super) struct Departure<'a> {
    transport: &'a Transport,
    look: Look,
    has_ended: bool,
}

impl<'a> Departure<'a> {
    pub(super) fn new(transport: &'a Transport) -> Self {
        Self {
            transport,
            look: Look::default(),
            has_ended: false,
        }
    }

    /// Ready when there is nobody to answer. A peer that has only ended its side is: its worker is told, and what it
    /// answers goes out. To be polled behind hyper, and no more once it is ready.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        if !connection.progress.is_handling() {
            return Poll::Pending;
        }
        if !self.has_ended {
            let look = &mut self.look;
            ready!(self.transport.poll_left(cx, Leave::Ended, look));
            self.has_ended = true;
        }
        if connection.has_ended() {
            return Poll::Ready(());
        }
        self.transport.poll_left(cx, Leave::Gone, &mut self.look)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::task::coop;

    use super::*;
    use crate::address::BindAddress;
    use crate::options::ListenOptions;

    /// Heads have 10 s, and kept connections 60 s.
    fn alarm() -> Alarm {
        let mut options = ListenOptions::new(BindAddress::Inet {
            host: None,
            port: 0,
        });
        options.header_timeout = Duration::from_secs(10);
        options.keep_alive_timeout = Duration::from_secs(60);
        Alarm::new(Deadlines::new(&options))
    }

    /// What is overdue next, and how many seconds from now.
    async fn next(alarm: &mut Alarm, progress: &Progress) -> (Overdue, u64) {
        let began = Instant::now();
        let overdue = poll_fn(|cx| alarm.poll_overdue(cx, progress)).await;
        (overdue, (Instant::now() - began).as_secs())
    }

    async fn nothing(alarm: &mut Alarm, progress: &Progress) {
        let now = poll_fn(|cx| Poll::Ready(alarm.poll_overdue(cx, progress))).await;
        assert!(now.is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_deadline() {
        let (progress, mut alarm) = (Progress::new(), alarm());
        assert_eq!(next(&mut alarm, &progress).await, (Overdue::Idle, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_back_is_kept_by_the_timer_that_was_set_before() {
        let (progress, mut alarm) = (Progress::new(), alarm());
        nothing(&mut alarm, &progress).await;
        tokio::time::advance(Duration::from_secs(4)).await;
        progress.head_ended();
        nothing(&mut alarm, &progress).await;
        progress.answered();
        assert_eq!(next(&mut alarm, &progress).await, (Overdue::Idle, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_comes_earlier_is_not_slept_through() {
        let (progress, mut alarm) = (Progress::new(), alarm());
        progress.head_ended();
        nothing(&mut alarm, &progress).await;
        progress.answered();
        nothing(&mut alarm, &progress).await;
        tokio::time::advance(Duration::from_secs(20)).await;
        progress.received();
        assert_eq!(next(&mut alarm, &progress).await, (Overdue::Head, 10));
    }

    /// A client that keeps its connection busy uses the budget up, and then falls silent.
    #[tokio::test(start_paused = true)]
    async fn it_goes_off_also_if_it_was_set_when_the_budget_was_used_up() {
        let waiting = tokio::spawn(async {
            let (progress, mut alarm) = (Progress::new(), alarm());
            let mut has_begun = false;
            poll_fn(|cx| {
                while !has_begun && coop::has_budget_remaining() {
                    ready!(pin!(coop::consume_budget()).poll(cx));
                }
                has_begun = true;
                alarm.poll_overdue(cx, &progress)
            })
            .await
        });
        let limit = Duration::from_secs(60);
        let told = tokio::time::timeout(limit, waiting).await;
        assert_eq!(told.expect("in time").ok(), Some(Overdue::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_is_waited_for_there_is_no_timer() {
        let (progress, mut alarm) = (Progress::new(), alarm());
        progress.head_ended();
        nothing(&mut alarm, &progress).await;
        assert!(alarm.timer.is_none());
    }
}
