//! Requests and upgrades that wait for a worker's answer.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::inbox::{Terms, UpgradeReply};
use super::turn::Shard;
use crate::dispatch::queue::WorkerQueue;
use crate::dispatch::roster::{NoAnswerer, UpgradeTurn};
use crate::http::answer::Reply;
use crate::http::origin::{OriginQuestion, OriginVerdict};
use crate::http::response::{Acceptance, Answer, Response, UpgradeDecision};
use crate::id::RequestId;
use crate::limits::entrance::count;
use crate::listener::ListenerShared;

/// A request that was, or is about to be, given to a worker.
pub(super) struct Pending {
    /// `None` while its origin is being judged.
    pub(super) worker: Option<Arc<WorkerQueue>>,
    /// When it was read, in the shard's milliseconds.
    pub(super) since: u32,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Request(Reply),
    /// An upgrade of which the application has to judge the origin.
    Origin {
        reply: oneshot::Sender<UpgradeReply>,
        block: Vec<u8>,
        terms: Terms,
        /// Lives as long as the judgement is wanted.
        _asks: Arc<()>,
    },
    Upgrade {
        reply: oneshot::Sender<UpgradeReply>,
        /// The packed request, which the open event needs again.
        block: Vec<u8>,
        terms: Terms,
        /// The worker that gets the socket.
        heir: Arc<WorkerQueue>,
    },
}

impl Pending {
    fn refuse(self, response: Response) {
        // The connection may have gone at this moment; then nobody needs the answer.
        match self.kind {
            Kind::Request(reply) => reply.send(response),
            Kind::Upgrade { reply, .. } | Kind::Origin { reply, .. } => {
                drop(reply.send(UpgradeReply::Refused(response)));
            }
        }
    }

    /// The one that it came through.
    pub(super) fn listener(&self) -> &ListenerShared {
        match &self.kind {
            Kind::Request(reply) => reply.listener(),
            Kind::Origin { terms, .. } | Kind::Upgrade { terms, .. } => &terms.listener,
        }
    }

    pub(super) fn is_held_by(&self, worker: &WorkerQueue) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|held_by| held_by.id == worker.id)
    }
}

impl Shard {
    pub(super) fn request(&mut self, id: RequestId, block: &[u8], reply: Reply) {
        self.handle.counters.requests.add(1);
        let worker = match self.core.roster.for_request() {
            Ok(worker) => worker,
            Err(NoAnswerer::Now) => {
                self.handle.counters.unanswered_requests.add(1);
                return reply.send(nobody());
            }
            Err(NoAnswerer::SocketsOnly) => return reply.send(upgrade_required()),
            Err(NoAnswerer::Nothing) => return reply.send(not_found()),
        };
        self.staging.batch_of(&worker).request(id, block);
        // A turn may bring thousands: the queue has to know before it is asked for the next one.
        self.staging.hand_over_large(self.handle.index);
        let pending = Pending {
            worker: Some(worker),
            since: self.now,
            kind: Kind::Request(reply),
        };
        self.requests.insert(id, pending);
    }

    /// Asks the application whether pages of this origin may connect.
    pub(super) fn ask_origin(
        &mut self,
        id: RequestId,
        block: Vec<u8>,
        terms: Terms,
        question: OriginQuestion,
        reply: oneshot::Sender<UpgradeReply>,
    ) {
        let asks = Arc::new(());
        question.ask(&self.handle, id, &asks);
        let pending = Pending {
            worker: None,
            since: self.now,
            kind: Kind::Origin {
                reply,
                block,
                terms,
                _asks: asks,
            },
        };
        self.requests.insert(id, pending);
    }

    pub(super) fn judge_origin(&mut self, id: RequestId, verdict: OriginVerdict) {
        let Some(Pending {
            since,
            kind:
                Kind::Origin {
                    reply,
                    block,
                    terms,
                    ..
                },
            ..
        }) = self.requests.remove(&id)
        else {
            return; // its client has gone, or its time is over
        };
        let refusal = match verdict {
            // The time that this took is part of what there is for the whole decision.
            OriginVerdict::Allowed => {
                return self.upgrade(id, block, terms, reply, since);
            }
            OriginVerdict::Refused => origin_refused(&terms.listener),
            OriginVerdict::Failed => {
                let text = "Internal Server Error\n";
                Response::plain(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            OriginVerdict::Unavailable => {
                self.handle.counters.unanswered_requests.add(1);
                nobody()
            }
        };
        let _ = reply.send(UpgradeReply::Refused(refusal));
    }

    /// Offers an upgrade, which was read at `since`, to a worker that decides, or accepts it.
    pub(super) fn upgrade(
        &mut self,
        id: RequestId,
        block: Vec<u8>,
        terms: Terms,
        reply: oneshot::Sender<UpgradeReply>,
        since: u32,
    ) {
        match self.core.roster.for_upgrade(block.len()) {
            None => self.turn_upgrade_away(reply),
            Some(UpgradeTurn::Accepted(place)) => {
                self.reserve(terms, place, block, Acceptance::default(), reply);
            }
            Some(UpgradeTurn::Asked { decider, heir }) => {
                self.staging.batch_of(&decider).upgrade(id, &block);
                self.staging.hand_over_large(self.handle.index);
                let pending = Pending {
                    worker: Some(decider),
                    since,
                    kind: Kind::Upgrade {
                        reply,
                        block,
                        terms,
                        heir,
                    },
                };
                self.requests.insert(id, pending);
            }
        }
    }

    /// No worker can take the socket at the moment.
    fn turn_upgrade_away(&self, reply: oneshot::Sender<UpgradeReply>) {
        self.handle.counters.unanswered_requests.add(1);
        let _ = reply.send(UpgradeReply::Refused(nobody()));
    }

    pub(super) fn respond(&mut self, id: RequestId, answer: Answer) {
        match self.take_given(id) {
            Some(Pending {
                kind: Kind::Request(reply),
                ..
            }) => reply.send(answer),
            // An upgrade is decided, not answered; refusing with this answer is what was meant.
            Some(pending) => pending.refuse(answer.into_response()),
            None => self.handle.counters.late_responses.add(1),
        }
    }

    pub(super) fn decide(&mut self, id: RequestId, decision: UpgradeDecision) {
        let Some(pending) = self.take_given(id) else {
            self.handle.counters.late_responses.add(1);
            return;
        };
        match (pending.kind, decision) {
            (
                Kind::Upgrade {
                    reply,
                    block,
                    terms,
                    heir,
                },
                UpgradeDecision::Accept(acceptance),
            ) => {
                let bytes = block.len() + acceptance.token.as_ref().map_or(0, Bytes::len);
                match self.core.roster.for_decided(&heir, bytes) {
                    Some(place) => self.reserve(terms, place, block, acceptance, reply),
                    None => self.turn_upgrade_away(reply),
                }
            }
            (Kind::Upgrade { reply, .. }, UpgradeDecision::Refuse(response)) => {
                let _ = reply.send(UpgradeReply::Refused(response));
            }
            (Kind::Request(reply), UpgradeDecision::Refuse(response)) => reply.send(response),
            (Kind::Request(reply), UpgradeDecision::Accept(_)) => {
                let text = "Internal Server Error\n";
                reply.send(Response::plain(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
            (Kind::Origin { .. }, _) => unreachable!("no worker was given it"),
        }
    }

    /// A request that a worker was given and may answer.
    fn take_given(&mut self, id: RequestId) -> Option<Pending> {
        match self.requests.entry(id) {
            Entry::Occupied(pending) if pending.get().worker.is_some() => Some(pending.remove()),
            _ => None,
        }
    }

    /// Whether the client waits for the answer nobody knows. Its worker is told, and may answer all the same.
    pub(super) fn client_ended(&mut self, id: RequestId) {
        if let Some(pending) = self.requests.remove(&id) {
            self.tell_abort(&pending, id);
            self.requests.insert(id, pending);
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

    /// Nobody waits for the answer any more, as far as one can tell, which the worker is told once. One that has left takes
    /// no more batches, but it may still be handling the request.
    fn tell_abort(&mut self, pending: &Pending, id: RequestId) {
        if matches!(&pending.kind, Kind::Request(reply) if !reply.abort()) {
            return;
        }
        let Some(worker) = &pending.worker else {
            return; // no worker has heard of it
        };
        if worker.is_closed() {
            worker.abort(id);
        } else {
            self.staging.batch_of(worker).abort(id);
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

/// Pages of that origin may not connect.
pub(crate) fn origin_refused(listener: &ListenerShared) -> Response {
    count(&listener.entrance.refusals.origins);
    let text = "this origin may not connect\n";
    Response::plain(StatusCode::FORBIDDEN, text)
}

/// No worker can take this at the moment.
fn nobody() -> Response {
    let text = "Service Unavailable\n";
    Response::plain(StatusCode::SERVICE_UNAVAILABLE, text).with("retry-after", "1")
}

/// What is here takes an upgrade (RFC 9110, sections 15.5.22 and 7.8).
fn upgrade_required() -> Response {
    let text = "Upgrade Required\n";
    Response::plain(StatusCode::UPGRADE_REQUIRED, text)
        .with("upgrade", "websocket")
        .with("connection", "upgrade")
}

fn not_found() -> Response {
    Response::plain(StatusCode::NOT_FOUND, "Not Found\n")
}
