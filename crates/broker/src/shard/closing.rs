//! The end of a socket: who says goodbye first, what its close event says, when its stream is let go.
//!
//! Whatever the way, a socket leaves the registries once, its close event is staged once, and its place is freed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::io::AsyncWrite;

use super::inbox::CloseBy;
use super::socket::Phase;
use super::turn::{Shard, find};
use crate::codec::{Violation, close, encode_close};
use crate::listener::{Admission, ListenerShared};
use crate::registry::SocketEntry;

/// A close in the broker's name: what the peer is told, and what the close event says whether it answers or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) code: u16,
    pub(crate) text: &'static str,
}

pub(crate) const SLOW_CONSUMER: Report = Report {
    code: close::TRY_AGAIN_LATER,
    text: "slow consumer",
};

pub(crate) const BANNED: Report = Report {
    code: close::POLICY_VIOLATION,
    text: "banned",
};

impl Shard {
    /// A call closes a socket; it has left the registries already.
    pub(super) fn close_from_call(
        &mut self,
        entry: &Arc<SocketEntry>,
        code: u16,
        reason: &str,
        by: CloseBy,
    ) {
        if find(&mut self.sockets, entry).is_none_or(|socket| socket.phase != Phase::Open) {
            return; // it ended meanwhile, and its close event has gone
        }
        let report = match by {
            CloseBy::Application => None,
            CloseBy::Broker(report) => Some(report),
        };
        self.begin_closing(entry.key, code, reason, report);
    }

    fn begin_closing(&mut self, key: u32, code: u16, reason: &str, report: Option<Report>) {
        self.queue_close_frame(key, code, reason);
        let since = self.now;
        self.sockets[key as usize].phase = Phase::Closing { since, report };
        self.again.push(key); // it may have been held or parked
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
        let (code, text) = (violation.close_code(), violation.text());
        if socket.phase == Phase::Open {
            self.queue_close_frame(key, code, text);
        }
        self.finish(key, code, text, true);
    }

    /// The peer's close frame: the answer to ours, or the first one (RFC 6455 section 5.5.1).
    pub(super) fn closed_by_peer(
        &mut self,
        key: u32,
        code: Option<u16>,
        reason: &str,
        drained: bool,
    ) {
        let reported = code.unwrap_or(close::NO_STATUS);
        if self.sockets[key as usize].phase == Phase::Open {
            self.queue_close_frame(key, reported, reason);
        }
        self.finish(key, reported, reason, !drained);
    }

    fn queue_close_frame(&mut self, key: u32, code: u16, reason: &str) {
        let socket = &mut self.sockets[key as usize];
        let frame = encode_close(code, reason);
        socket.entry.reserve_unconditionally(frame.len());
        socket.outbox.push(frame);
        self.mark_dirty(key);
    }

    /// The socket is over: tells its worker, then writes out what waits.
    fn finish(&mut self, key: u32, code: u16, reason: &str, linger: bool) {
        self.report_close(key, code, reason);
        self.sockets[key as usize].phase = Phase::Finishing {
            since: self.now,
            linger,
            shut: false,
        };
        self.mark_dirty(key);
        self.again.push(key); // it may have been held or parked
    }

    /// Ends a socket at once, whatever waits for it.
    pub(super) fn cut(&mut self, key: u32, code: u16, reason: &str) {
        let report = match self.sockets[key as usize].phase {
            Phase::Closing { report, .. } => report,
            Phase::Open | Phase::Finishing { .. } => None,
        };
        match report {
            Some(report) => self.report_close(key, report.code, report.text),
            None => self.report_close(key, code, reason),
        }
        self.free(key);
    }

    /// Takes the socket out of the registries and stages its close event, unless both happened before.
    fn report_close(&mut self, key: u32, code: u16, reason: &str) {
        let socket = &mut self.sockets[key as usize];
        self.core.leave(&socket.entry);
        if !socket.is_live() {
            return;
        }
        let batch = self.staging.batch_of(&socket.worker);
        batch.close(socket.entry.id, socket.entry.token().as_ref(), code, reason);
        socket.entry.listener.count_closed();
        self.handle.counters.closed.add(1);
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
            && let Some(transport) = &mut socket.transport
        {
            let waker = Waker::from(Arc::clone(&socket.entry));
            // Shutting a plain stream is one system call and never waits.
            let _ = Pin::new(transport).poll_shutdown(&mut Context::from_waker(&waker));
        }
    }

    fn free(&mut self, key: u32) {
        let socket = self.sockets.remove(key as usize);
        self.departed.extend(socket.guard.map(Admission::Served));
    }

    /// The listener stops: every socket of it is told goodbye.
    pub(super) fn stop_listener(
        &mut self,
        listener: &Arc<ListenerShared>,
        code: u16,
        reason: &str,
    ) {
        for key in self.sockets_of(listener) {
            let entry = Arc::clone(&self.sockets[key as usize].entry);
            if self.core.leave(&entry) {
                self.begin_closing(key, code, reason, None);
            }
        }
    }

    /// The deadline of the stop is over.
    pub(super) fn cut_listener(&mut self, listener: &Arc<ListenerShared>) {
        for key in self.sockets_of(listener) {
            self.give_up(key);
        }
    }

    /// Cuts a socket whose peer has had its time.
    pub(super) fn give_up(&mut self, key: u32) {
        let socket = &self.sockets[key as usize];
        if socket.is_live() {
            socket.entry.listener.count_forced();
        }
        self.cut(key, close::ABNORMAL, "");
    }

    fn sockets_of(&self, listener: &Arc<ListenerShared>) -> Vec<u32> {
        self.sockets
            .iter()
            .filter(|(_, socket)| Arc::ptr_eq(&socket.entry.listener, listener))
            .map(|(key, _)| key as u32)
            .collect()
    }
}
