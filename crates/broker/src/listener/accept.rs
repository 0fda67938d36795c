//! Accepting connections, on one shard for all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use super::bind::Bound;
#[cfg(unix)]
use super::bind::SocketFile;
use super::{ConnectionGuard, StopPhase};
use crate::broker::Core;
use crate::shard::inbox::Command;
use crate::transport::Transport;

/// After an accept that failed for want of descriptors or memory: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the stop, dealing connections to the shards in turn. `guard` goes last: when the stop is done the
/// address is free, and a socket file gone.
pub(crate) async fn accept(bound: Bound, guard: ConnectionGuard, core: Arc<Core>) {
    let mut phase = guard.listener().phase();
    // Declared behind the guard, which is a parameter, and so dropped before it.
    let mut source = match Source::register(bound) {
        Ok(source) => source,
        Err(error) => {
            tracing::error!(%error, "a listener could not be registered");
            return;
        }
    };
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != StopPhase::Serving) => break,
            accepted = source.accept() => accepted,
        };
        let dealt = accepted.and_then(Transport::unregister);
        match dealt {
            Ok(stream) => {
                let guard = ConnectionGuard::new(guard.listener());
                let shards = core.shards();
                shards[turn % shards.len()].send(Command::Connect { stream, guard });
                turn += 1;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
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

/// A listening socket in a shard's reactor.
enum Source {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        /// Goes with the listener.
        _file: SocketFile,
    },
}

impl Source {
    fn register(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            #[cfg(unix)]
            Bound::Unix(listener, file) => Self::Unix {
                listener: UnixListener::from_std(listener)?,
                _file: file,
            },
        })
    }

    async fn accept(&mut self) -> io::Result<Transport> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Events are small and wait for nobody. Some systems refuse it to a peer that has left already;
                // that is found by the first read.
                let _ = stream.set_nodelay(true);
                Ok(Transport::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => Ok(Transport::Unix(listener.accept().await?.0)),
        }
    }
}
