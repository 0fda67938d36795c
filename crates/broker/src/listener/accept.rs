//! Accepting connections, on one shard for all.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;
#[cfg(unix)]
use mio::net::UnixListener;

use super::bind::Bound;
#[cfg(unix)]
use super::bind::SocketFile;
use super::{Admission, ListenerGuard, ListenerShared, StopPhase};
use crate::broker::Core;
use crate::client::ClientAddress;
use crate::http::connection;
use crate::reactor::{Sources, Watched};
use crate::shard::ShardHandle;
use crate::shard::inbox::Command;
use crate::transport::{Stream, Transport};

/// After an accept that failed for want of descriptors or memory: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a part of the clients is looked at, to forget those of whom there is nothing to know. There are 64 parts,
/// so each client is looked at every 6.4 s, and no look takes longer than one part.
const FORGET_INTERVAL: Duration = Duration::from_millis(100);

/// Accepts until the stop, dealing connections to the shards in turn; this runs `here`, which watches what it accepts from.
/// `guard` goes last: when the stop is done the address is free, and a socket file gone.
pub(crate) async fn accept(
    guard: ListenerGuard,
    listening: Listening,
    core: Arc<Core>,
    here: Arc<ShardHandle>,
) {
    let mut phase = guard.listener().phase();
    let mut turn = 0;
    let mut forgetting = pin!(forget_clients(guard.listener()));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != StopPhase::Serving) => break,
            () = &mut forgetting => continue,
            accepted = listening.accept() => accepted,
        };
        let dealt = accepted.and_then(|(stream, peer)| {
            let Some(admission) = Admission::of(guard.listener(), peer) else {
                return Ok(()); // dropping the stream closes it
            };
            let shards = core.shards();
            let shard = &shards[turn % shards.len()];
            turn += 1;
            if Arc::ptr_eq(shard, &here) {
                let transport = Transport::new(stream, here.sources())?;
                let here = Arc::clone(&here);
                connection::spawn(transport, peer, here, admission);
            } else {
                shard.send(Command::Connect {
                    stream,
                    peer,
                    admission,
                });
            }
            Ok(())
        });
        match dealt {
            Ok(()) => {}
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                core.accept_failures.note(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Runs for ever beside the accepting.
async fn forget_clients(listener: &ListenerShared) {
    let Some(clients) = &listener.clients else {
        return std::future::pending().await;
    };
    for turn in 0.. {
        tokio::time::sleep(FORGET_INTERVAL).await;
        clients.forget(turn, listener.entrance.now());
    }
}

/// The peer gave up before it was accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A listening socket that a shard watches.
pub(crate) enum Listening {
    Tcp(Watched<TcpListener>),
    #[cfg(unix)]
    Unix {
        listener: Watched<UnixListener>,
        /// Goes behind the listener.
        _file: SocketFile,
    },
}

impl Listening {
    pub(super) fn new(bound: Bound, sources: &Arc<Sources>) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(sources.watch(TcpListener::from_std(listener))?),
            #[cfg(unix)]
            Bound::Unix(listener, file) => Self::Unix {
                listener: sources.watch(UnixListener::from_std(listener))?,
                _file: file,
            },
        })
    }

    async fn accept(&self) -> io::Result<(Stream, ClientAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) =
                    poll_fn(|cx| listener.poll_accept(cx, TcpListener::accept)).await?;
                // On Linux it has this from its listener. Some systems refuse it to a peer that has left already; that
                // is found by the first read.
                #[cfg(not(any(target_os = "linux", target_os = "android")))]
                let _ = stream.set_nodelay(true);
                #[cfg(any(target_os = "linux", target_os = "android"))]
                debug_assert!(
                    stream.nodelay().unwrap_or(true),
                    "it has this from its listener"
                );
                Ok((Stream::Tcp(stream), peer.ip().into()))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => {
                let (stream, _) =
                    poll_fn(|cx| listener.poll_accept(cx, UnixListener::accept)).await?;
                Ok((Stream::Unix(stream), ClientAddress::UNIX))
            }
        }
    }
}
