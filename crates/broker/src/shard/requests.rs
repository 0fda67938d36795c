//! Requests and upgrades that wait for a worker's answer.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;

use super::inbox::UpgradeReply;
use super::turn::Shard;
use crate::client::ClientAddress;
use crate::dispatch::queue::WorkerQueue;
use crate::dispatch::roster::UpgradeTurn;
use crate::http::response::{Acceptance, Response, UpgradeDecision};
use crate::id::RequestId;
use crate::listener::ListenerShared;

/// A request that was, or is about to be, given to a worker.
pub(super) struct Pending {
    pub(super) worker: Arc<WorkerQueue>,
    pub(super) listener: Arc<ListenerShared>,
    /// When it was read, in the shard's milliseconds.
    pub(super) since: u32,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Request(oneshot::Sender<Response>),
    Upgrade {
        reply: oneshot::Sender<UpgradeReply>,
        /// The packed request, which the open event needs again.
        block: Vec<u8>,
        client: ClientAddress,
        /// The worker that gets the socket.
        heir: Arc<WorkerQueue>,
    },
}

impl Pending {
    fn refuse(self, response: Response) {
        // The connection may have gone at this moment; then nobody needs the answer.
        match self.kind {
            Kind::Request(reply) => drop(reply.send(response)),
            Kind::Upgrade { reply, .. } => drop(reply.send(UpgradeReply::Refused(response))),
        }
    }
}

impl Shard {
    pub(super) fn request(
        &mut self,
        id: RequestId,
        block: &[u8],
        listener: Arc<ListenerShared>,
        reply: oneshot::Sender<Response>,
    ) {
        self.handle.counters.requests.add(1);
        let Some(worker) = self.core.roster.for_request() else {
            self.handle.counters.unanswered_requests.add(1);
            let _ = reply.send(nobody());
            return;
        };
        self.staging.batch_of(&worker).request(id, block);
        self.wait(id, worker, listener, Kind::Request(reply));
    }

    pub(super) fn upgrade(
        &mut self,
        id: RequestId,
        block: Vec<u8>,
        listener: Arc<ListenerShared>,
        client: ClientAddress,
        reply: oneshot::Sender<UpgradeReply>,
    ) {
        let Some(UpgradeTurn { decider, heir }) = self.core.roster.for_upgrade() else {
            self.handle.counters.unanswered_requests.add(1);
            let _ = reply.send(UpgradeReply::Refused(nobody()));
            return;
        };
        match decider {
            Some(decider) => {
                self.staging.batch_of(&decider).upgrade(id, &block);
                let kind = Kind::Upgrade {
                    reply,
                    block,
                    client,
                    heir,
                };
                self.wait(id, decider, listener, kind);
            }
            None => self.reserve(listener, client, heir, block, Acceptance::default(), reply),
        }
    }

    fn wait(
        &mut self,
        id: RequestId,
        worker: Arc<WorkerQueue>,
        listener: Arc<ListenerShared>,
        kind: Kind,
    ) {
        let since = self.now;
        self.requests.insert(
            id,
            Pending {
                worker,
                listener,
                since,
                kind,
            },
        );
    }

    pub(super) fn respond(&mut self, id: RequestId, response: Response) {
        match self.requests.remove(&id) {
            Some(Pending {
                kind: Kind::Request(reply),
                ..
            }) => drop(reply.send(response)),
            // An upgrade is decided, not answered; refusing with this answer is what was meant.
            Some(pending) => pending.refuse(response),
            None => self.handle.counters.late_responses.add(1),
        }
    }

    pub(super) fn decide(&mut self, id: RequestId, decision: UpgradeDecision) {
        let Some(pending) = self.requests.remove(&id) else {
            self.handle.counters.late_responses.add(1);
            return;
        };
        let Pending { listener, kind, .. } = pending;
        match (kind, decision) {
            (
                Kind::Upgrade {
                    reply,
                    block,
                    client,
                    heir,
                },
                UpgradeDecision::Accept(acceptance),
            ) => {
                // The worker that was to get the socket may have left meanwhile.
                let heir = if heir.is_closed() {
                    self.core.roster.for_socket()
                } else {
                    Some(heir)
                };
                match heir {
                    Some(heir) => self.reserve(listener, client, heir, block, acceptance, reply),
                    None => {
                        self.handle.counters.unanswered_requests.add(1);
                        let _ = reply.send(UpgradeReply::Refused(nobody()));
                    }
                }
            }
            (Kind::Upgrade { reply, .. }, UpgradeDecision::Refuse(response)) => {
                let _ = reply.send(UpgradeReply::Refused(response));
            }
            (Kind::Request(reply), UpgradeDecision::Refuse(response)) => {
                let _ = reply.send(response);
            }
            (Kind::Request(reply), UpgradeDecision::Accept(_)) => {
                let text = "Internal Server Error\n";
                let _ = reply.send(Response::plain(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        }
    }

    pub(super) fn client_gone(&mut self, id: RequestId) {
        if let Some(pending) = self.requests.remove(&id) {
            self.tell_abort(&pending, id);
        }
    }

    pub(super) fn timed_out(&mut self, id: RequestId) {
        let Some(pending) = self.requests.remove(&id) else {
            return;
        };
        self.handle.counters.timed_out_requests.add(1);
        self.tell_abort(&pending, id);
        let text = "Gateway Timeout\n";
        pending.refuse(Response::plain(StatusCode::GATEWAY_TIMEOUT, text));
    }

    /// Nobody waits for the answer any more. A worker that has left takes no more batches, but it may still be handling
    /// the request.
    fn tell_abort(&mut self, pending: &Pending, id: RequestId) {
        if pending.worker.is_closed() {
            pending.worker.abort(id);
        } else {
            self.staging.batch_of(&pending.worker).abort(id);
        }
    }

    /// The worker that held this request has gone.
    pub(super) fn give_back(&mut self, id: RequestId) {
        if let Some(pending) = self.requests.remove(&id) {
            self.handle.counters.unanswered_requests.add(1);
            pending.refuse(nobody());
        }
    }
}

/// No worker can take this at the moment.
fn nobody() -> Response {
    let text = "Service Unavailable\n";
    Response::plain(StatusCode::SERVICE_UNAVAILABLE, text).with("retry-after", "1")
}
