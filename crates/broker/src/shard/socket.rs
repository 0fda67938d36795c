//! One socket, as its shard owns it.

use std::sync::Arc;

use super::inbox::Report;
use super::slice::Slice;
use crate::codec::{Contexts, Decoder, Violation};
use crate::dispatch::queue::{OpenPlace, WorkerQueue};
use crate::limits::socket::{Exceeded, Meter};
use crate::listener::ConnectionGuard;
use crate::outbox::Outbox;
use crate::registry::SocketEntry;
use crate::transport::Wire;

/// Everything a connection holds while it is silent; its size is most of what an idle socket costs.
pub(super) struct Socket {
    pub(super) entry: Arc<SocketEntry>,
    /// `None` until the 101 is out.
    pub(super) wire: Option<Wire>,
    /// Keeps the listener's stop waiting; comes with the wire.
    pub(super) guard: Option<ConnectionGuard>,
    /// Who gets its events.
    pub(super) worker: Arc<WorkerQueue>,
    pub(super) decoder: Decoder,
    pub(super) contexts: Contexts,
    pub(super) outbox: Outbox,
    /// What it has left of its listener's rates, where there are any.
    pub(super) meter: Option<Box<Meter>>,
    /// Until the socket is adopted.
    pub(super) opening: Option<Box<Opening>>,
    pub(super) phase: Phase,
    /// When something last came, in the shard's milliseconds.
    pub(super) heard: u32,
    /// A ping is out and nothing has come since.
    pub(super) pinged: bool,
    /// On the list of sockets to write.
    pub(super) dirty: bool,
    /// On the list of sockets to look at without news from the reactor.
    pub(super) revisited: bool,
    /// How much less than others it is read at once.
    pub(super) slice: Slice,
    /// What is due when nothing waits for it any more; 0: nothing.
    pub(super) when_empty: u8,
    /// Its drain event waits for its full worker.
    pub(super) drain_waits: bool,
    /// A handler is busy and enough waits behind it: not read for it until it is done.
    pub(super) held: bool,
    /// On the list of sockets that wait for their full worker.
    pub(super) parked: bool,
    /// A large message of it is being inflated, or waits for that.
    pub(super) inflating: bool,
}

/// More than half of the backpressure limit waited: a drain event is due.
pub(super) const OVER_HALF: u8 = 1;
/// The kernel took no more: its entry has to know that it does.
pub(super) const REFUSED: u8 = 2;
/// Somebody waits for it.
pub(super) const AWAITED: u8 = 4;
/// Its stream ends, see [`Phase::Finishing`].
pub(super) const ENDS: u8 = 8;

/// What the open event of a socket will need.
pub(super) struct Opening {
    /// The request that was upgraded, packed.
    pub(super) request: Vec<u8>,
    /// Room for the event.
    pub(super) place: OpenPlace,
}

/// Where a socket is on its way to the end. Times are the shard's milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Messages flow.
    Open,
    /// The peer has said goodbye, ended its side of the stream, or broken the protocol or a limit. The close event is staged, and
    /// nothing more is read; our close frame waits until the worker has come to that event, so that what it sends in answer to
    /// earlier messages goes out before.
    Parting { since: u32, goodbye: Goodbye },
    /// Our close frame is queued; the peer's is awaited.
    Closing {
        since: u32,
        /// What the close event says when the peer does not answer; `None`: 1006.
        report: Option<Report>,
    },
    /// The close event has gone; the outbox is written out and the connection ended.
    Finishing {
        since: u32,
        /// The peer may still be sending: read it away until it ends, so that no reset overtakes our close frame.
        linger: bool,
        /// Our side of the stream is shut.
        shut: bool,
    },
}

/// How a peer has ended its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// By a close frame. Ours, which tells the same, is kept in the shard's `goodbyes`.
    Closed {
        /// The peer may have sent more behind it.
        linger: bool,
    },
    /// By the end of its side of the stream.
    Ended,
    Failed(Failure),
}

/// What a peer did that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Violation(Violation),
    OverRate(Exceeded),
}

impl Failure {
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Violation(violation) => violation.close_code(),
            Self::OverRate(_) => Exceeded::CLOSE_CODE,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Violation(violation) => violation.text(),
            Self::OverRate(exceeded) => exceeded.text(),
        }
    }
}

impl Socket {
    pub(super) fn new(entry: Arc<SocketEntry>, opening: Opening, now: u32) -> Self {
        let meter = Meter::new(&entry.listener.options.limits.socket);
        Self {
            entry,
            wire: None,
            guard: None,
            worker: Arc::clone(opening.place.queue()),
            decoder: Decoder::new(),
            contexts: Contexts::default(),
            outbox: Outbox::default(),
            meter,
            opening: Some(Box::new(opening)),
            phase: Phase::Open,
            heard: now,
            pinged: false,
            dirty: false,
            revisited: false,
            slice: Slice::default(),
            when_empty: 0,
            drain_waits: false,
            held: false,
            parked: false,
            inflating: false,
        }
    }

    /// What is sent to it goes out.
    pub(super) fn takes_messages(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Parting { .. })
    }

    /// We do not read it, so its silence says nothing of its peer.
    pub(super) fn is_unread(&self) -> bool {
        let waits_for_worker = (self.held || self.parked) && !self.entry.is_routed();
        waits_for_worker || self.inflating || self.is_paced()
    }

    /// Its worker has room for what is read of it, or needs none.
    pub(super) fn has_room(&self) -> bool {
        !self.worker.is_full() || self.entry.is_routed()
    }

    /// It is over a rate, and what it has sent is delivered as its bucket pays for it.
    pub(super) fn is_paced(&self) -> bool {
        let meter = self.meter.as_ref();
        meter.is_some_and(|meter| meter.paused_until.is_some())
    }

    /// It has not begun to close.
    pub(super) fn is_lasting(&self) -> bool {
        self.phase == Phase::Open
    }

    /// It has been adopted, and no close event has been staged.
    pub(super) fn is_live(&self) -> bool {
        let reported = matches!(self.phase, Phase::Parting { .. } | Phase::Finishing { .. });
        self.opening.is_none() && !reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the slots of the registry and the reactor and the allocator's share that leaves an idle socket well below a
    /// KiB. Whoever makes these grow should know it.
    #[test]
    fn an_idle_socket_stays_small() {
        assert!(size_of::<Socket>() <= 192, "{}", size_of::<Socket>());
        assert!(
            size_of::<SocketEntry>() <= 136,
            "{}",
            size_of::<SocketEntry>()
        );
    }
}
