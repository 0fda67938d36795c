//! How an answer comes back to the connection that waits for it, which answers one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::connection::Connection;
use super::exchange::unanswered;
use super::response::Answer;
use crate::listener::ListenerShared;

/// Where a connection finds the answer.
pub(super) struct AnswerSlot {
    answer: Mutex<Option<Answer>>,
    /// Spares the connection a lock for each look.
    is_there: AtomicBool,
    /// The worker that has the request has been told that its client leaves.
    is_aborted: AtomicBool,
    /// Of the connection's task.
    waker: Waker,
}

impl AnswerSlot {
    /// For the task that this waker wakes.
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            answer: Mutex::new(None),
            is_there: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            waker,
        }
    }

    fn put(&self, answer: Answer) {
        *self.answer.lock() = Some(answer);
        self.is_there.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }

    /// Takes the answer, if there is one. The task of the waker is the one that polls.
    pub(super) fn poll_take(&self, cx: &Context<'_>) -> Poll<Answer> {
        debug_assert!(self.waker.will_wake(cx.waker()), "a task keeps its waker");
        if !self.is_there.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.is_there.store(false, Ordering::Relaxed);
        match self.answer.lock().take() {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        }
    }
}

/// Who waits for the answer to a request. It gets one in any case.
pub(crate) struct Reply(Option<Arc<Connection>>);

impl Reply {
    pub(super) fn new(to: &Arc<Connection>) -> Self {
        to.answer.is_aborted.store(false, Ordering::Relaxed);
        Self(Some(Arc::clone(to)))
    }

    pub(crate) fn listener(&self) -> &ListenerShared {
        &self.connection().listener
    }

    /// Whether the worker that has the request is still to be told that its client leaves. It is told by whoever asks.
    pub(crate) fn abort(&self) -> bool {
        let is_aborted = &self.connection().answer.is_aborted;
        !is_aborted.swap(true, Ordering::Relaxed)
    }

    /// Whether a worker has been told so.
    pub(crate) fn is_aborted(&self) -> bool {
        self.connection().answer.is_aborted.load(Ordering::Relaxed)
    }

    fn connection(&self) -> &Connection {
        let connection = self.0.as_ref();
        connection.expect("taken by `send` and `drop`, which end it")
    }

    /// Nobody needs it where the connection has gone at this moment.
    pub(crate) fn send(mut self, answer: impl Into<Answer>) {
        if let Some(connection) = self.0.take() {
            connection.answer.put(answer.into());
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.answer.put(unanswered().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::task::Poll;
    use std::time::Duration;

    use crate::broker::{Broker, BrokerOptions};
    use crate::client::ClientAddress;
    use crate::http::connection::serve;
    use crate::listener::{Admission, ListenerShared};
    use crate::options::ListenOptions;
    use crate::reactor::Reactor;
    use crate::reactor::tests::pair;
    use crate::shard::ShardHandle;
    use crate::transport::{Stream, Transport};

    #[tokio::test]
    async fn a_request_that_nobody_takes_care_of_is_answered_all_the_same() {
        let broker = Broker::new(BrokerOptions::default());
        let options = ListenOptions::new("127.0.0.1:0".parse().expect("an address"));
        let listener = ListenerShared::new(options, broker.core());
        let admission = Admission::of(&listener, ClientAddress::UNIX).expect("room");
        let shard = ShardHandle::new(0);
        let mut reactor = Reactor::new().expect("a descriptor");

        let (stream, mut peer) = pair();
        let transport = Transport::new(Stream::Tcp(stream), reactor.sources()).expect("a slot");
        peer.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .expect("sent");

        let served = tokio::spawn(serve(
            transport,
            ClientAddress::UNIX,
            shard.clone(),
            admission,
        ));
        let ended = async {
            while !served.is_finished() {
                poll_fn(|cx| {
                    reactor.look(cx, &mut Vec::new());
                    Poll::Ready(())
                })
                .await;
                drop(shard.take_commands());
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, ended).await.expect("an end");
        served.await.expect("no panic");
        let mut answer = String::new();
        peer.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}
