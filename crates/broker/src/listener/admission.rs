//! Who is let in: bans first, then how many are in already.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ListenerShared;
use crate::client::ClientAddress;
use crate::limits::clients::{ClientConnection, RefusedClient, TooMany};
use crate::limits::entrance::{RefusedConnection, count};

/// Keeps a stop of the listener waiting while it lives.
pub(crate) struct ListenerGuard(Arc<ListenerShared>);

/// A connection that is served, and the socket it may become: counts wherever it is to be counted while it lives.
pub(crate) struct ConnectionGuard {
    client: Option<Box<ClientConnection>>,
    /// Last, so that a stop that is done finds everything counted down.
    listener: ListenerGuard,
}

/// A connection too many: its first request is answered with the reason.
pub(crate) struct RefusedGuard {
    reason: TooManyConnections,
    _place: Place,
    listener: ListenerGuard,
}

/// Of whom there are too many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooManyConnections {
    OfAll,
    OfClient,
}

/// Among those that may wait for their answer.
#[expect(dead_code, reason = "a place is held, not looked at")]
enum Place {
    OfAll(RefusedConnection),
    OfClient(RefusedClient),
}

/// A connection that got past the door.
pub(crate) enum Admission {
    Served(ConnectionGuard),
    Refused(RefusedGuard),
}

impl Admission {
    /// A connection has been accepted. `None`: close it at once.
    pub(crate) fn of(listener: &Arc<ListenerShared>, peer: ClientAddress) -> Option<Self> {
        if listener.turns_away(peer) {
            return None;
        }
        let protocol = &listener.options.proxy_protocol;
        if protocol.is_on() && !protocol.accepts(peer) {
            listener.refuses_proxy(peer, "its PROXY header would not be believed");
            return None;
        }
        let entrance = &listener.entrance;
        if !entrance.enter(listener.options.limits.connections) {
            count(&entrance.refusals.connections);
            let place = Place::OfAll(entrance.refuse()?);
            return Some(Self::Refused(RefusedGuard {
                listener: ListenerGuard::new(listener),
                reason: TooManyConnections::OfAll,
                _place: place,
            }));
        }
        let guard = ConnectionGuard {
            listener: ListenerGuard::new(listener),
            client: None,
        };
        if protocol.is_on() {
            return Some(Self::Served(guard)); // who the client is will be told
        }
        guard.count_for(peer)
    }

    /// A PROXY header has told who the client is. `None`: close the connection at once.
    pub(crate) fn of_client(self, client: ClientAddress) -> Option<Self> {
        if self.listener().turns_away(client) {
            return None;
        }
        match self {
            Self::Served(guard) => guard.count_for(client),
            refused @ Self::Refused(_) => Some(refused),
        }
    }

    pub(crate) fn listener(&self) -> &Arc<ListenerShared> {
        match self {
            Self::Served(guard) => guard.listener(),
            Self::Refused(guard) => guard.listener.listener(),
        }
    }

    /// Why its first request is refused.
    pub(crate) fn refusal(&self) -> Option<TooManyConnections> {
        match self {
            Self::Served(_) => None,
            Self::Refused(guard) => Some(guard.reason),
        }
    }
}

impl ConnectionGuard {
    /// Counts this connection for its client, unless the peer is a proxy: then it belongs to no client yet.
    fn count_for(mut self, client: ClientAddress) -> Option<Admission> {
        let listener = Arc::clone(self.listener());
        if listener.options.trust_proxy.trusts(client, 0) {
            return Some(Admission::Served(self));
        }
        match listener.connect(client) {
            Ok(connection) => {
                self.count(connection);
                Some(Admission::Served(self))
            }
            Err(TooMany::Answer(place)) => Some(Admission::Refused(RefusedGuard {
                listener: ListenerGuard::new(&listener),
                reason: TooManyConnections::OfClient,
                _place: Place::OfClient(place),
            })),
            Err(TooMany::Close) => None,
        }
    }

    /// From here on this counts as a connection of its client.
    pub(crate) fn count(&mut self, connection: Option<ClientConnection>) {
        self.client = connection.map(Box::new);
    }

    pub(crate) fn listener(&self) -> &Arc<ListenerShared> {
        self.listener.listener()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.listener().entrance.leave();
    }
}

impl ListenerGuard {
    pub(super) fn new(shared: &Arc<ListenerShared>) -> Self {
        shared.alive.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }

    /// Another one while there is any; afterwards a stop may be done, and is not taken back.
    pub(crate) fn while_alive(shared: &Arc<ListenerShared>) -> Option<Self> {
        let one_more = |alive: usize| (alive > 0).then(|| alive + 1);
        let alive = &shared.alive;
        alive
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Self(Arc::clone(shared)))
    }

    pub(crate) fn listener(&self) -> &Arc<ListenerShared> {
        &self.0
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        if self.0.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.finish();
        }
    }
}

impl ListenerShared {
    /// Whether this client is banned; counts it as turned away.
    pub(crate) fn turns_away(&self, client: ClientAddress) -> bool {
        let banned = self.entrance.is_banned(client);
        if banned {
            count(&self.entrance.refusals.banned);
            tracing::debug!(%client, "a banned client was turned away");
        }
        banned
    }

    /// A connection did not begin as the PROXY protocol demands.
    pub(crate) fn refuses_proxy(&self, peer: ClientAddress, reason: &'static str) {
        count(&self.entrance.refusals.proxy_protocol);
        tracing::debug!(%peer, reason, "a connection was closed by the PROXY protocol");
    }

    /// Counts a connection of this client. `None`: there is nothing to count.
    pub(crate) fn connect(
        &self,
        client: ClientAddress,
    ) -> Result<Option<ClientConnection>, TooMany> {
        let (Some(clients), Some(key)) = (&self.clients, client.key()) else {
            return Ok(None);
        };
        clients.connect(key, self.entrance.now()).inspect_err(|_| {
            count(&self.entrance.refusals.connections_per_ip);
            tracing::debug!(%client, "a client has too many connections");
        })
    }
}
