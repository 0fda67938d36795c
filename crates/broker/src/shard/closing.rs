//! The end of a socket: who says goodbye first, what its close event says, when its stream is let go.
//!
//! Whatever the way, a socket leaves the registries once, its close event is staged once, and its place is freed.

use std::sync::Arc;

use super::inbox::{CloseBy, Report};
use super::socket::{ENDS, Failure, Goodbye, Phase};
use super::turn::{Shard, find};
use crate::codec::{Violation, close, encode_close};
use crate::listener::Admission;
use crate::registry::SocketEntry;
use crate::transport::Wire;

impl Shard {
    /// A call closes a socket; it has left the registries already.
    pub(super) fn close_from_call(&mut self, entry: &Arc<SocketEntry>, by: CloseBy) {
        match find(&mut self.sockets, entry).map(|socket| socket.phase) {
            Some(Phase::Open) => {}
            Some(Phase::Parting { .. }) => return self.finish_parting(entry.key),
            _ => return, // it ended meanwhile, and its close event has gone
        }
        match by {
            CloseBy::Application { code, reason } => {
                self.begin_closing(entry.key, code, &reason, None);
            }
            CloseBy::Broker(report) => {
                self.begin_closing(entry.key, report.code(), report.text(), Some(report));
            }
        }
    }

    pub(super) fn begin_closing(
        &mut self,
        key: u32,
        code: u16,
        reason: &str,
        report: Option<Report>,
    ) {
        self.queue_close_frame(key, code, reason);
        self.forget_waits(key);
        let since = self.now;
        self.sockets[key as usize].phase = Phase::Closing { since, report };
        self.waiters.closing(key);
        self.revisit(key); // it may have been held or parked
    }

    /// The peer broke the protocol or a limit (RFC 6455 section 7.1.7).
    pub(super) fn violated(&mut self, key: u32, violation: Violation) {
        let socket = &self.sockets[key as usize];
        tracing::debug!(
            socket = %socket.entry.id,
            violation = violation.name(),
            code = violation.close_code(),
            "a peer broke the protocol"
        );
        self.handle.counters.violations.add(1);
        self.fail(key, Failure::Violation(violation));
    }

    /// Ends a socket because of what came: nothing more is taken from it.
    pub(super) fn fail(&mut self, key: u32, failure: Failure) {
        let (code, text) = (failure.code(), failure.text());
        if self.sockets[key as usize].phase != Phase::Open {
            return self.finish(key, code, text, true);
        }
        self.part(key, Goodbye::Failed(failure), code, text);
    }

    /// The peer's close frame: the answer to ours, or the first one (RFC 6455 section 5.5.1).
    pub(super) fn closed_by_peer(
        &mut self,
        key: u32,
        code: Option<u16>,
        reason: &str,
        drained: bool,
    ) {
        let code = code.unwrap_or(close::NO_STATUS);
        if self.sockets[key as usize].phase != Phase::Open {
            return self.finish(key, code, reason, !drained);
        }
        self.goodbyes.insert(key, (code, reason.into()));
        self.part(key, Goodbye::Closed { linger: !drained }, code, reason);
    }

    /// The peer has ended its side of the stream. It may still read: what it is owed goes out.
    pub(super) fn ended_by_peer(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        let is_broken = socket.wire.as_ref().is_none_or(Wire::is_broken);
        match &mut socket.phase {
            Phase::Open if !is_broken => {
                self.part(key, Goodbye::Ended, close::ABNORMAL, "");
            }
            Phase::Finishing { linger, .. } if !socket.outbox.is_empty() => {
                *linger = false;
                self.mark_dirty(key);
            }
            _ => self.lost(key),
        }
    }

    /// Nothing more comes of an open socket: its close event is staged, and our close frame follows what its worker sends until
    /// it comes to that event.
    fn part(&mut self, key: u32, goodbye: Goodbye, code: u16, reason: &str) {
        let socket = &self.sockets[key as usize];
        // Who does not say when it comes to a close event is not waited for, nor who has nothing to do with the messages.
        let waits = socket.worker.interest.confirms_closes && !socket.entry.is_routed();
        socket.entry.note_end();
        self.stage_close(key, code, reason);
        self.forget_waits(key);
        let since = self.now;
        self.sockets[key as usize].phase = Phase::Parting { since, goodbye };
        if !waits {
            self.finish_parting(key);
        }
    }

    /// The worker has come to the close event of a parting socket.
    pub(super) fn close_begun(&mut self, entry: &Arc<SocketEntry>) {
        if find(&mut self.sockets, entry).is_some() {
            self.finish_parting(entry.key);
        }
    }

    /// Sends a parting socket its close frame. Whoever takes it out of the registries calls this.
    pub(super) fn finish_parting(&mut self, key: u32) {
        let socket = &self.sockets[key as usize];
        let Phase::Parting { goodbye, .. } = socket.phase else {
            return;
        };
        match goodbye {
            Goodbye::Closed { linger } => {
                // What came behind its close frame must not be reset together with ours.
                let linger = linger || socket.wire.as_ref().is_some_and(Wire::is_readable);
                let (code, reason) = self
                    .goodbyes
                    .remove(&key)
                    .unwrap_or((close::NO_STATUS, Box::default()));
                self.queue_close_frame(key, code, &reason);
                self.finish(key, code, &reason, linger);
            }
            Goodbye::Ended => {
                self.queue_close_frame(key, close::NO_STATUS, "");
                self.finish(key, close::ABNORMAL, "", false);
            }
            Goodbye::Failed(failure) => {
                let (code, text) = (failure.code(), failure.text());
                self.queue_close_frame(key, code, text);
                self.finish(key, code, text, true);
            }
        }
    }

    /// Whatever it was not read for, it waits for nothing any more.
    fn forget_waits(&mut self, key: u32) {
        self.forget_pause(key);
        self.forget_large(key);
    }

    fn queue_close_frame(&mut self, key: u32, code: u16, reason: &str) {
        let socket = &mut self.sockets[key as usize];
        let frame = encode_close(code, reason);
        socket
            .entry
            .backpressure
            .reserve_unconditionally(frame.len());
        socket.outbox.push(&frame, &mut self.runs);
        self.mark_dirty(key);
    }

    /// The socket is over: tells its worker, then writes out what waits.
    fn finish(&mut self, key: u32, code: u16, reason: &str, linger: bool) {
        self.report_close(key, code, reason);
        self.forget_waits(key);
        let socket = &mut self.sockets[key as usize];
        socket.when_empty |= ENDS;
        socket.phase = Phase::Finishing {
            since: self.now,
            linger,
            shut: false,
        };
        self.mark_dirty(key);
        self.revisit(key); // it may have been held or parked
    }

    /// Ends a socket at once, whatever waits for it.
    pub(super) fn cut(&mut self, key: u32, code: u16, reason: &str) {
        let report = match self.sockets[key as usize].phase {
            Phase::Closing { report, .. } => report,
            Phase::Open | Phase::Parting { .. } | Phase::Finishing { .. } => None,
        };
        match report {
            Some(report) => self.report_close(key, report.code(), report.text()),
            None => self.report_close(key, code, reason),
        }
        self.free(key);
    }

    /// Takes the socket out of the registries and stages its close event, unless both happened before.
    fn report_close(&mut self, key: u32, code: u16, reason: &str) {
        self.core.leave(&self.sockets[key as usize].entry);
        self.stage_close(key, code, reason);
    }

    /// Stages the close event, unless that happened before.
    fn stage_close(&mut self, key: u32, code: u16, reason: &str) {
        let socket = &self.sockets[key as usize];
        if !socket.is_live() {
            return;
        }
        let batch = self.staging.batch_of(&socket.worker);
        let token = socket.entry.token();
        batch.close(socket.entry.origin(token.as_ref()), code, reason);
        socket.entry.listener.count_closed();
        self.handle.counters.closed.add(1);
        self.waiters.closing(key);
    }

    /// Everything is written: lets go of the stream, or waits for the peer to let go.
    pub(super) fn end_stream(&mut self, key: u32) {
        let socket = &mut self.sockets[key as usize];
        let Phase::Finishing { linger, shut, .. } = &mut socket.phase else {
            return;
        };
        if !*linger {
            return self.free(key);
        }
        if !std::mem::replace(shut, true)
            && let Some(wire) = &socket.wire
        {
            wire.shut();
        }
    }

    fn free(&mut self, key: u32) {
        self.forget_waits(key);
        let socket = self.sockets.remove(key as usize);
        self.early.remove(&key);
        self.goodbyes.remove(&key);
        self.waiters.gone(key);
        self.departed.extend(socket.guard.map(Admission::Served));
    }
}
