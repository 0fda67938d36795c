//! From an accepted upgrade to an open socket.
//!
//! The socket's place, its token and its channels are in place before the 101 goes out, so that nothing published
//! after the client has seen the 101 misses it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::chores::Joining;
use super::inbox::{Reserved, Terms, UpgradeReply};
use super::socket::{Opening, Socket};
use super::turn::{Shard, find};
use crate::dispatch::queue::OpenPlace;
use crate::dispatch::request_block::{RequestBlock, set_protocol};
use crate::http::admission::banned;
use crate::http::response::{Acceptance, Response};
use crate::http::subprotocol;
use crate::listener::ConnectionGuard;
use crate::name::ChannelName;
use crate::registry::SocketEntry;
use crate::transport::Transport;

impl Shard {
    /// Gives an accepted socket its place.
    pub(super) fn reserve(
        &mut self,
        terms: Terms,
        place: OpenPlace,
        mut request: Vec<u8>,
        mut acceptance: Acceptance,
        reply: oneshot::Sender<UpgradeReply>,
    ) {
        if reply.is_closed() {
            // Its client has gone. The place would only be given back, and perhaps after the last word of its connection.
            return;
        }
        if terms.listener.is_stopping() {
            let text = "the server is stopping\n";
            let refusal = Response::plain(StatusCode::SERVICE_UNAVAILABLE, text);
            let _ = reply.send(UpgradeReply::Refused(refusal));
            return;
        }
        if let Some(most) = terms.listener.options.limits.socket.channels
            && has_more_than(most as usize, &acceptance.channels)
        {
            // To let it in without some of its channels would be to lose messages that nobody misses.
            tracing::warn!(
                limit = most,
                "an upgrade was accepted with more channels than a socket may be in"
            );
            self.core
                .counters
                .channel_limit
                .fetch_add(1, Ordering::Relaxed);
            let text = "Internal Server Error\n";
            let refusal = Response::plain(StatusCode::INTERNAL_SERVER_ERROR, text);
            let _ = reply.send(UpgradeReply::Refused(refusal));
            return;
        }
        settle_protocol(&mut request, &mut acceptance);
        let vacant = self.sockets.vacant_entry();
        let entry = SocketEntry::new(
            self.core.registry.next_id(),
            u32::try_from(vacant.key()).expect("fewer file descriptors than 2^32"),
            Arc::clone(&self.handle),
            terms,
            acceptance.token.clone(),
        );
        entry.set_route(acceptance.route.take());
        let opening = Opening { request, place };
        vacant.insert(Socket::new(Arc::clone(&entry), opening, self.now));
        self.core.registry.insert(Arc::clone(&entry));
        // Behind the registration: a ban either sees this socket, or is seen here.
        if entry.listener.turns_away(entry.client) {
            self.abandon(&entry);
            let _ = reply.send(UpgradeReply::Refused(banned()));
            return;
        }
        self.join(Joining {
            reserved: Reserved::new(entry),
            acceptance: Box::new(acceptance),
            reply,
        });
    }

    /// The 101 did not go out: the socket has never been opened.
    pub(super) fn abandon(&mut self, entry: &Arc<SocketEntry>) {
        self.core.leave(entry);
        if find(&mut self.sockets, entry).is_some() {
            self.sockets.remove(entry.key as usize);
            self.waiters.gone(entry.key);
        }
    }

    /// The 101 is out: the socket is open.
    pub(super) fn adopt(
        &mut self,
        reserved: Reserved,
        transport: Transport,
        early: Bytes,
        guard: ConnectionGuard,
    ) {
        let entry = reserved.into_entry();
        let key = entry.key;
        let Some(socket) = find(&mut self.sockets, &entry) else {
            return;
        };
        socket.wire = Some(transport.into_wire(key));
        socket.guard = Some(guard);
        socket.heard = self.now;
        // Whoever is told of it: without its request it is live, and ends with a close event.
        let opening = socket.opening.take();
        if let Some(opening) = opening
            && !socket.worker.interest.ignores_opens
        {
            let batch = self.staging.batch_of(&socket.worker);
            let token = entry.token();
            batch.open(entry.origin(token.as_ref()), &opening.request);
        }
        self.handle.counters.opened.add(1);
        if !socket.outbox.is_empty() || self.waiters.has_drain(key) {
            self.mark_dirty(key);
        }
        if !early.is_empty() {
            self.early.insert(key, early);
        }
        self.revisit(key);
        // A turn may bring thousands: the queue has to know before it is asked for the next one.
        self.staging.hand_over_large(self.handle.index);
    }
}

/// Whether these are more different channels.
fn has_more_than(most: usize, channels: &[ChannelName]) -> bool {
    let mut distinct = HashSet::new();
    channels.len() > most
        && channels.iter().any(|channel| {
            distinct.insert(channel);
            distinct.len() > most
        })
}

/// Makes the subprotocol of the request and of the acceptance the same: the one that the worker named, if the client
/// offers it, or else the one that the listener chose when the request was read.
fn settle_protocol(request: &mut Vec<u8>, acceptance: &mut Acceptance) {
    if let Some(named) = acceptance.protocol.take() {
        let is_offered = offers(RequestBlock(request), &named);
        set_protocol(request, is_offered.then_some(&named));
    }
    let chosen = RequestBlock(request).protocol();
    acceptance.protocol = chosen.map(|name| String::from_utf8_lossy(name).into_owned());
}

fn offers(request: RequestBlock<'_>, protocol: &str) -> bool {
    let offer = request
        .headers()
        .filter(|(name, _)| *name == b"sec-websocket-protocol")
        .map(|(_, value)| value);
    subprotocol::offered(offer).any(|name| name == protocol)
}
