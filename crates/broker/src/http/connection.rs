//! One connection, from accept until it is done or becomes a WebSocket.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::admission::charge_unparsed;
use super::exchange::exchange;
use super::opening::proxy_header;
use crate::client::ClientAddress;
use crate::limits::clients::ClientConnection;
use crate::listener::{Admission, ListenerShared, StopPhase, TooManyConnections};
use crate::shard::ShardHandle;
use crate::shard::inbox::{Command, Reserved};
use crate::transport::Transport;

/// About the largest request head: hyper's buffer, which holds it whole and may take one more read. Beyond it the
/// answer is 431. Node takes 16 KiB; cookies of some frameworks come close to that.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most headers of one request; beyond it the answer is 431.
const MAX_HEADERS: usize = 128;

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
    /// An answer went out before its request had been read to the end.
    pub(super) cut_short: AtomicBool,
    /// Filled by the exchange that answers 101.
    pub(super) upgraded: Mutex<Option<Upgraded>>,
}

/// What becomes a socket when the 101 is out.
pub(super) struct Upgraded {
    /// Its place.
    pub(super) reserved: Reserved,
    /// What counts it for its client, where the connection does not.
    pub(super) connection: Option<ClientConnection>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    mut transport: Transport,
    peer: ClientAddress,
    shard: Arc<ShardHandle>,
    admission: Admission,
) {
    let listener = Arc::clone(admission.listener());
    let (peer, admission) = if listener.options.proxy_protocol.is_on() {
        let Some(client) = proxy_header(&mut transport, peer, &listener).await else {
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
    let connection = Arc::new(Connection {
        shard: Arc::clone(shard),
        peer,
        remote_address: peer.to_string(),
        refusal: admission.refusal(),
        cut_short: AtomicBool::new(false),
        upgraded: Mutex::new(None),
        listener: Arc::clone(&listener),
    });
    let service = service_fn({
        let connection = Arc::clone(&connection);
        // Pinned, for hyper is polled by hand below and that takes a service whose future may be moved.
        move |request| Box::pin(exchange(Arc::clone(&connection), request))
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(listener.options.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(transport), service);

    let mut draining = false;
    let result = loop {
        tokio::select! {
            biased;
            result = poll_fn(|cx| http.poll_without_shutdown(cx)) => break result,
            now = StopPhase::changed(&mut phase) => match now {
                _ if listener.entrance.is_banned(peer) => return Some(admission),
                StopPhase::Serving => {}
                StopPhase::Draining if !draining => {
                    draining = true;
                    std::pin::Pin::new(&mut http).graceful_shutdown();
                }
                StopPhase::Draining => {}
                StopPhase::Cut => {
                    listener.count_forced_connection();
                    return Some(admission);
                }
            },
        }
    };
    if let Err(error) = &result {
        tracing::debug!(%peer, %error, "an HTTP connection failed");
        if error.is_parse() {
            charge_unparsed(&listener, peer);
        }
    }

    let parts = http.into_parts();
    let transport = parts.io.into_inner();
    let adopted = connection.upgraded.lock().take();
    match (adopted, admission) {
        (Some(upgraded), Admission::Served(mut guard)) if result.is_ok() => {
            if upgraded.connection.is_some() {
                guard.count(upgraded.connection);
            }
            let reserved = upgraded.reserved;
            shard.send(Command::Adopt {
                reserved,
                transport,
                // The handshake's client may have sent frames right behind its request.
                early: parts.read_buf,
                guard,
            });
            None
        }
        (_, admission) => {
            let cut_short = result.is_err() || connection.cut_short.load(Ordering::Relaxed);
            tokio::select! {
                () = linger(transport, cut_short) => {}
                () = StopPhase::cut(&mut phase) => {}
            }
            Some(admission)
        }
    }
}

/// Ends our side. A peer that may still be sending is read, within bounds, until it ends its own.
async fn linger(mut transport: Transport, cut_short: bool) {
    if transport.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0; 4096];
    if !cut_short {
        // Between two requests: usually nothing is on its way, and nothing is gained by waiting.
        let mut read = std::pin::pin!(transport.read(&mut scrap));
        let now = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
        if !matches!(now, Poll::Ready(Ok(n)) if n > 0) {
            return;
        }
    }
    let _ = tokio::time::timeout(LINGER, async {
        while matches!(transport.read(&mut scrap).await, Ok(n) if n > 0) {}
    })
    .await;
}
