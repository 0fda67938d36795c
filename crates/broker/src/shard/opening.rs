//! From an accepted upgrade to an open socket.
//!
//! The socket's place, its token and its channels are in place before the 101 goes out, so that nothing published
//! after the client has seen the 101 misses it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::inbox::{Reserved, UpgradeReply};
use super::socket::Socket;
use super::turn::{Shard, find};
use crate::client::ClientAddress;
use crate::dispatch::queue::WorkerQueue;
use crate::http::admission::banned;
use crate::http::response::{Acceptance, Response};
use crate::listener::{ConnectionGuard, ListenerShared};
use crate::registry::SocketEntry;
use crate::transport::Transport;

impl Shard {
    /// Gives an accepted socket its place.
    pub(super) fn reserve(
        &mut self,
        listener: Arc<ListenerShared>,
        client: ClientAddress,
        worker: Arc<WorkerQueue>,
        request: Vec<u8>,
        acceptance: Acceptance,
        reply: oneshot::Sender<UpgradeReply>,
    ) {
        if listener.is_stopping() {
            let text = "the server is stopping\n";
            let refusal = Response::plain(StatusCode::SERVICE_UNAVAILABLE, text);
            let _ = reply.send(UpgradeReply::Refused(refusal));
            return;
        }
        let place = self.sockets.vacant_entry();
        let entry = SocketEntry::new(
            self.core.registry.next_id(),
            u32::try_from(place.key()).expect("fewer file descriptors than 2^32"),
            Arc::clone(&self.handle),
            listener,
            client,
            acceptance.token.clone(),
        );
        place.insert(Socket::new(Arc::clone(&entry), worker, request, self.now));
        self.core.registry.insert(Arc::clone(&entry));
        // Behind the registration: a ban either sees this socket, or is seen here.
        if entry.listener.turns_away(client) {
            self.abandon(&entry);
            let _ = reply.send(UpgradeReply::Refused(banned()));
            return;
        }
        for channel in &acceptance.channels {
            self.core.channels.subscribe(&entry, channel);
        }
        // An exchange that is gone drops the reservation, which comes back as `abandon`.
        let accepted = UpgradeReply::Accepted(Reserved::new(entry), Box::new(acceptance));
        let _ = reply.send(accepted);
    }

    /// The 101 did not go out: the socket has never been opened.
    pub(super) fn abandon(&mut self, entry: &Arc<SocketEntry>) {
        self.core.leave(entry);
        if find(&mut self.sockets, entry).is_some() {
            self.sockets.remove(entry.key as usize);
        }
    }

    /// The 101 is out: the socket is open.
    pub(super) fn adopt(
        &mut self,
        reserved: Reserved,
        transport: Transport,
        early: &Bytes,
        guard: ConnectionGuard,
    ) {
        let entry = reserved.into_entry();
        let key = entry.key;
        let Some(socket) = find(&mut self.sockets, &entry) else {
            return;
        };
        socket.transport = Some(transport);
        socket.guard = Some(guard);
        socket.heard = self.now;
        let request = socket.request.take().unwrap_or_default();
        let batch = self.staging.batch_of(&socket.worker);
        batch.open(entry.id, entry.token().as_ref(), &request);
        self.handle.counters.opened.add(1);
        if !socket.outbox.is_empty() {
            self.mark_dirty(key);
        }
        for part in early.chunks(self.read_buffer.len()) {
            self.read_buffer[..part.len()].copy_from_slice(part);
            self.received(key, part.len());
        }
        self.again.push(key);
    }
}
