//! One connection, from accept until it is done or becomes a WebSocket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::admission::charge_unparsed;
use super::amend::Hidden;
use super::answer::AnswerSlot;
use super::deadlines::{Deadlines, Overdue, Progress};
use super::exchange::exchange;
use super::opening::proxy_header;
use super::timed::{Alarm, Departure, Timed};
use crate::client::ClientAddress;
use crate::id::RequestId;
use crate::limits::clients::ClientConnection;
use crate::listener::{Admission, Handshake, ListenerShared, StopPhase, TooManyConnections};
use crate::shard::ShardHandle;
use crate::shard::inbox::{Command, Reserved};
use crate::transport::Transport;

/// How much hyper reads ahead at most: of a body, or of what a client sends behind an upgrade that is not decided yet.
/// A head has to fit as well.
const READ_AHEAD: usize = 64 * 1024;

/// What half a head gets when its time is over.
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 25\r\n\r\nthe head came too slowly\n";

/// After our last byte the peer's remaining ones are read and thrown away for this long, because closing a socket
/// with unread bytes resets it, and the reset can overtake the answer (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What the exchanges of one connection share.
pub(super) struct Connection {
    pub(super) shard: Arc<ShardHandle>,
    pub(super) listener: Arc<ListenerShared>,
    /// The other end, or whom a PROXY header has named as such.
    pub(super) peer: ClientAddress,
    /// The same as text, which every request of it is told.
    pub(super) remote_address: String,
    /// It is one connection too many: nothing is served on it.
    pub(super) refusal: Option<TooManyConnections>,
    /// The request that a worker has and does not know to be its client's last word; 0: none.
    pub(super) unended: AtomicU64,
    /// It is an upgrade that is handled.
    pub(super) is_upgrade: AtomicBool,
    /// What hyper is not shown of a target.
    pub(super) hidden: Hidden,
    /// An answer went out before its request had been read to the end.
    pub(super) cut_short: AtomicBool,
    /// Filled by the exchange that answers 101.
    pub(super) upgraded: Mutex<Option<Upgraded>>,
    /// Of the request that a worker has.
    pub(super) answer: AnswerSlot,
    pub(super) progress: Progress,
}

/// A socket that is about to be.
pub(super) struct Upgraded {
    /// The place it has been given.
    pub(super) reserved: Reserved,
    pub(super) handshake: Handshake,
    /// What counts it for its client, where the connection does not.
    pub(super) connection: Option<ClientConnection>,
}

impl Connection {
    /// The client says nothing more behind the request that is handled. Whether that is of no use any more: a socket needs
    /// both sides.
    pub(super) fn has_ended(&self) -> bool {
        if let Some(id) = RequestId::new(self.unended.swap(0, Ordering::Relaxed)) {
            self.shard.send(Command::ClientEnded(id));
        }
        self.is_upgrade.load(Ordering::Relaxed)
    }
}

/// How a connection came to its end.
enum End {
    /// hyper is done with it, or it has become a WebSocket.
    Done(hyper::Result<()>),
    Overdue(Overdue),
    /// Its peer has gone while it waited for an answer, or has ended its side of what was to be a socket.
    Gone,
    /// Its peer has been banned.
    Banned,
    /// By the deadline of a stop.
    Cut,
}

/// Serves one connection to its end, in a task of its own.
pub(crate) fn spawn(
    transport: Transport,
    peer: ClientAddress,
    shard: Arc<ShardHandle>,
    admission: Admission,
) {
    // In a box, for tokio moves what it is given six times, and this takes up to 2 KiB.
    tokio::spawn(Box::pin(serve(transport, peer, shard, admission)));
}

/// The same for whoever has a task for it.
pub(crate) async fn serve(
    transport: Transport,
    peer: ClientAddress,
    shard: Arc<ShardHandle>,
    admission: Admission,
) {
    let listener = Arc::clone(admission.listener());
    let (peer, admission) = if listener.options.proxy_protocol.is_on() {
        let Some(client) = proxy_header(&mut &transport, peer, &listener).await else {
            return;
        };
        let Some(admission) = admission.of_client(client) else {
            return;
        };
        (client, admission)
    } else {
        (peer, admission)
    };
    if let Some(admission) = serve_http(transport, peer, &shard, admission).await {
        // Behind what its requests have told the shard: when a stop is done nothing is left of them.
        shard.send(Command::Disconnected(admission));
    }
}

/// What let it in comes back unless the connection has become a WebSocket.
async fn serve_http(
    transport: Transport,
    peer: ClientAddress,
    shard: &Arc<ShardHandle>,
    admission: Admission,
) -> Option<Admission> {
    let listener = Arc::clone(admission.listener());
    let mut phase = listener.phase();
    // A stop or a ban may have come between the accept and this moment.
    phase.mark_changed();
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let connection = Arc::new(Connection {
        shard: Arc::clone(shard),
        peer,
        remote_address: peer.to_string(),
        refusal: admission.refusal(),
        unended: AtomicU64::new(0),
        is_upgrade: AtomicBool::new(false),
        hidden: Hidden::default(),
        cut_short: AtomicBool::new(false),
        upgraded: Mutex::new(None),
        answer: AnswerSlot::new(waker),
        progress: Progress::new(),
        listener: Arc::clone(&listener),
    });
    let service = service_fn(|request| exchange(&connection, request));
    let options = &listener.options;
    let mut http = http1::Builder::new()
        .header_read_timeout(None) // ours are the `Deadlines`
        .half_close(true) // whoever says nothing more may still read: see `Departure`
        .max_header_size(options.max_header_size)
        .max_headers(options.max_headers)
        .max_buf_size(READ_AHEAD.max(options.max_header_size))
        .serve_connection(TokioIo::new(Timed::new(&transport, &connection)), service);

    let end = drive(&mut http, &transport, &connection, &mut phase).await;
    // The handshake's client may have sent frames right behind its request.
    let early = http.into_parts().read_buf;
    let upgraded = connection.upgraded.lock().take();
    match (end, upgraded, admission) {
        (End::Done(Ok(())), Some(upgraded), Admission::Served(mut guard)) => {
            if upgraded.connection.is_some() {
                guard.count(upgraded.connection);
            }
            shard.send(Command::Adopt {
                reserved: upgraded.reserved,
                transport,
                early,
                guard,
                handshake: upgraded.handshake,
            });
            None
        }
        (End::Banned, _, admission) => Some(admission),
        (End::Cut, _, admission) => {
            listener.count_forced_connection();
            Some(admission)
        }
        (end, upgraded, admission) => {
            // Its 101 cannot be written. The place is free from now on, however long the peer takes to go.
            drop(upgraded);
            // Boxed, because it brings a buffer, and everything that this future may ever need it always takes.
            let parting = Box::pin(part(&connection, end, transport));
            tokio::select! {
                () = parting => {}
                () = StopPhase::cut(&mut phase) => {}
            }
            Some(admission)
        }
    }
}

/// Lets hyper work until it is done, its peer has gone or taken too long, or the deadline of a stop is over.
async fn drive<S>(
    http: &mut http1::Connection<TokioIo<Timed<'_>>, S>,
    transport: &Transport,
    connection: &Connection,
    phase: &mut watch::Receiver<StopPhase>,
) -> End
where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible, Future: Unpin> + Unpin,
{
    let mut draining = false;
    let mut alarm = Alarm::new(Deadlines::new(&connection.listener.options));
    let mut departure = Departure::new(transport);
    loop {
        tokio::select! {
            biased;
            // Before hyper: who has been banned is not served one request more.
            now = StopPhase::changed(phase) => match now {
                _ if connection.listener.entrance.is_banned(connection.peer) => return End::Banned,
                StopPhase::Serving => {}
                StopPhase::Draining if !draining => {
                    draining = true;
                    // A request that has come already is answered.
                    let served = at_once(poll_fn(|cx| http.poll_without_shutdown(cx))).await;
                    if let Some(result) = served {
                        return End::Done(result);
                    }
                    std::pin::Pin::new(&mut *http).graceful_shutdown();
                }
                StopPhase::Draining => {}
                StopPhase::Cut => return End::Cut,
            },
            result = poll_fn(|cx| http.poll_without_shutdown(cx)) => return End::Done(result),
            () = poll_fn(|cx| departure.poll_gone(cx, connection)) => return End::Gone,
            overdue = poll_fn(|cx| alarm.poll_overdue(cx, &connection.progress)) => match overdue {
                Overdue::Body => {} // its exchange sees it when hyper is polled again
                overdue => return End::Overdue(overdue),
            },
        }
    }
}

/// Ends a connection that has not become a WebSocket, and takes down why.
async fn part(connection: &Connection, end: End, transport: Transport) {
    let counters = &connection.shard.counters;
    let (listener, peer) = (&connection.listener, connection.peer);
    let cut_short = match end {
        End::Done(result) => {
            if let Err(error) = &result {
                tracing::debug!(%peer, %error, "an HTTP connection failed");
                if error.is_parse() {
                    charge_unparsed(listener, peer);
                }
            }
            result.is_err() || connection.cut_short.load(Ordering::Relaxed)
        }
        End::Overdue(Overdue::Head) => {
            counters.slow_requests.add(1);
            tracing::debug!(%peer, "the head of a request came too slowly");
            // Nothing else waits to be written, so it fits; where it does not, nobody reads it.
            let _ = at_once((&transport).write(HEAD_TOO_SLOW)).await;
            true
        }
        End::Overdue(Overdue::Unread) => {
            counters.unread_responses.add(1);
            tracing::debug!(%peer, "a peer does not read its answer");
            return transport.reset();
        }
        End::Gone => {
            tracing::debug!(%peer, "a peer left before its answer");
            true
        }
        // Of a request of which nothing came nothing is lost; a body is its exchange's.
        End::Overdue(Overdue::Idle | Overdue::Body) | End::Banned | End::Cut => false,
    };
    linger(transport, cut_short).await;
}

/// What comes of this without waiting.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}

/// Ends our side. A peer that may still be sending is read, within bounds, until it ends its own.
async fn linger(transport: Transport, cut_short: bool) {
    let mut transport = &transport;
    if transport.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0; 4096];
    if !cut_short {
        // Between two requests: usually nothing is on its way, and nothing is gained by waiting.
        let now = at_once(transport.read(&mut scrap)).await;
        if !matches!(now, Some(Ok(n)) if n > 0) {
            return;
        }
    }
    let _ = tokio::time::timeout(LINGER, async {
        while matches!(transport.read(&mut scrap).await, Ok(n) if n > 0) {}
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection takes as much from its accept on, and is moved as it is spawned.
    #[test]
    fn a_connection_stays_small() {
        let size = size_of_future(serve);
        assert!(size <= 2048, "{size}");
    }
}
