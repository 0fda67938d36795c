//! What would keep a shard for long: it is done in pieces, some in each turn, while the sockets go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::inbox::{Reserved, UpgradeReply};
use super::turn::{Shard, TIME_FOR_MORE};
use crate::broker::Core;
use crate::channel::{Chunk, Left};
use crate::http::response::Acceptance;
use crate::id::SocketId;
use crate::listener::{ListenerGuard, ListenerShared};
use crate::registry::SocketEntry;
use crate::shrink;

/// The most that a turn takes for chores, however long the others take. A fraction of what a client would notice.
const LONGEST: Duration = Duration::from_micros(500);

/// So many channels are joined or left before there is a look at the clock.
const CHANNELS: usize = 4;

/// So many channels a socket joins without waiting for a turn.
const JOINED_AT_ONCE: usize = 16;

/// So many places of sockets are looked at before that.
const PLACES: usize = 256;

/// So many sockets are cut before that.
const CUTS: usize = 2;

/// Something that takes long.
pub(super) enum Chore {
    Leave(Box<Leaving>),
    Join(Box<Joining>),
    Cut(Cutting),
    /// Lists that nobody needs any more are dropped.
    Forget(Vec<Chunk>),
}

/// A socket that has closed leaves its channels.
pub(crate) struct Leaving {
    id: SocketId,
    channels: Left,
    /// A stop that is done finds nothing left of its sockets.
    _listener: Option<ListenerGuard>,
}

/// A socket whose upgrade is accepted joins its channels; then the 101 goes out.
pub(super) struct Joining {
    pub(super) reserved: Reserved,
    pub(super) acceptance: Box<Acceptance>,
    pub(super) reply: oneshot::Sender<UpgradeReply>,
}

/// The deadline of a stop is over for these sockets.
pub(super) struct Cutting {
    listener: Arc<ListenerShared>,
    /// What those are told whose turn would have come long ago: they were too many for the time that there was.
    goodbye: Option<(u16, Arc<str>)>,
    /// The place that is looked at next.
    next: usize,
}

#[derive(Default)]
pub(super) struct Chores {
    /// Each gets a piece in turn.
    list: VecDeque<Chore>,
    /// When the last piece was done.
    rested: Option<Instant>,
}

impl Chores {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn shrink(&mut self) {
        shrink::queue(&mut self.list);
    }

    /// For how long the next pieces may be done: as long as everything else took since the last ones. So what comes does not
    /// outrun what goes, and nobody waits for more than twice as long.
    fn allowance(&self, now: Instant) -> Duration {
        let others = self.rested.map_or(Duration::ZERO, |rested| now - rested);
        others.clamp(TIME_FOR_MORE, LONGEST)
    }
}

impl Leaving {
    pub(crate) fn new(entry: &SocketEntry, channels: Left) -> Self {
        Self {
            id: entry.id,
            channels,
            _listener: ListenerGuard::while_alive(&entry.listener),
        }
    }

    /// `true` when it has left all.
    fn go_on(&mut self, core: &Core) -> bool {
        for channel in self.channels.by_ref().take(CHANNELS) {
            core.channels.leave(&channel, self.id);
        }
        self.channels.len() == 0
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn finish(mut self, core: &Core) {
        while !self.go_on(core) {}
    }
}

impl Joining {
    /// `true` when it has joined all, or its client has gone.
    fn go_on(&mut self, core: &Core) -> bool {
        for _ in 0..CHANNELS {
            if let Some(channel) = self.acceptance.channels.pop() {
                // Its limit has been checked, for all of them together.
                let _ = core.subscribe(self.reserved.entry(), &channel);
            }
        }
        self.acceptance.channels.is_empty() || self.reply.is_closed()
    }

    fn finish(self) {
        // An exchange that is gone drops the reservation, which comes back as `abandon`.
        let accepted = UpgradeReply::Accepted(self.reserved, self.acceptance);
        let _ = self.reply.send(accepted);
    }
}

impl Shard {
    pub(super) fn begin(&mut self, chore: Chore) {
        self.chores.list.push_back(chore);
    }

    /// Has an accepted socket join its channels: the first of them at once.
    pub(super) fn join(&mut self, mut joining: Joining) {
        for _ in 0..JOINED_AT_ONCE / CHANNELS {
            if joining.go_on(&self.core) {
                return joining.finish();
            }
        }
        self.begin(Chore::Join(Box::new(joining)));
    }

    pub(super) fn cut_sockets(
        &mut self,
        listener: &Arc<ListenerShared>,
        goodbye: Option<(u16, Arc<str>)>,
    ) {
        self.begin(Chore::Cut(Cutting {
            listener: Arc::clone(listener),
            goodbye,
            next: 0,
        }));
    }

    /// Does some pieces of what takes long.
    pub(super) fn do_chores(&mut self) {
        if self.chores.is_empty() {
            return;
        }
        let began = Instant::now();
        let end = began + self.chores.allowance(began);
        while let Some(mut chore) = self.chores.list.pop_front() {
            loop {
                if self.do_piece(&mut chore) {
                    self.finish_chore(chore);
                    break;
                }
                if Instant::now() >= end {
                    self.chores.list.push_back(chore);
                    break;
                }
            }
            let now = Instant::now();
            if now >= end {
                self.chores.rested = Some(now);
                return;
            }
        }
        self.chores = Chores::default();
    }

    /// `true` when that was the last one.
    fn do_piece(&mut self, chore: &mut Chore) -> bool {
        match chore {
            Chore::Leave(leaving) => leaving.go_on(&self.core),
            Chore::Join(joining) => joining.go_on(&self.core),
            Chore::Cut(cutting) => self.cut_some(cutting),
            Chore::Forget(chunks) => chunks.pop().is_none(),
        }
    }

    fn finish_chore(&mut self, chore: Chore) {
        if let Chore::Join(joining) = chore {
            joining.finish();
        }
    }

    fn cut_some(&mut self, cutting: &mut Cutting) -> bool {
        let to = (cutting.next + PLACES).min(self.sockets.capacity());
        let mut cut = 0;
        while cutting.next < to && cut < CUTS {
            if self.is_socket_of(cutting.next, &cutting.listener) {
                let key = cutting.next as u32;
                match &cutting.goodbye {
                    Some((code, reason)) => self.tell_and_give_up(key, *code, reason),
                    None => self.give_up(key),
                }
                cut += 1;
            }
            cutting.next += 1;
        }
        cutting.next >= self.sockets.capacity()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::bench::Bench;
    use super::super::inbox::Terms;
    use super::*;
    use crate::broker::LEFT_AT_ONCE;
    use crate::client::ClientAddress;
    use crate::message::OutboundMessage;
    use crate::name::ChannelName;

    /// More than a turn can leave or join, however fast the machine.
    const MANY: usize = 50_000;

    fn channels() -> impl Iterator<Item = ChannelName> {
        (0..MANY).map(|n| ChannelName::new(n.to_string().as_bytes()).expect("a name"))
    }

    fn subscriptions(bench: &Bench) -> (usize, usize) {
        let stats = bench.broker.stats();
        (stats.subscriptions as usize, stats.channels as usize)
    }

    /// Turns, as far as they matter here, until nothing is left to do; how many.
    fn do_all(bench: &mut Bench) -> usize {
        let mut turns = 0;
        // What is told in a turn is heard in the next one.
        for _ in 0..2 {
            bench.shard.take_inbox();
            while !bench.shard.chores.is_empty() {
                bench.shard.do_chores();
                turns += 1;
            }
        }
        turns
    }

    #[test]
    fn who_is_in_many_channels_leaves_them_in_pieces_and_gets_nothing_meanwhile() {
        let mut bench = Bench::new();
        let (entry, other) = (bench.open(), bench.open());
        for channel in channels() {
            assert_eq!(bench.broker.subscribe(entry.id, &channel), Ok(true));
        }
        let last: Vec<_> = channels().collect();
        bench
            .broker
            .subscribe(other.id, &last[0])
            .expect("no limit");

        assert!(bench.broker.close(entry.id, 1000, ""));
        let left = MANY + 1 - LEFT_AT_ONCE;
        assert_eq!(subscriptions(&bench).0, left, "the caller goes on");
        bench.shard.take_inbox();
        bench.shard.do_chores();
        let (now, _) = subscriptions(&bench);
        assert!(now < left, "something is done in each turn");
        assert!(now > left / 2, "and not all in one: {now}");

        let mut lost = 0;
        for channel in &last {
            if bench.broker.subscriber_count(channel) > usize::from(channel == &last[0]) {
                lost += 1;
                let hello = OutboundMessage::text("hello");
                assert!(bench.broker.send_to_channel(channel, &hello, None) > 0);
                assert!(!bench.broker.subscribers(channel).contains(&entry.id));
            }
        }
        let copy = ChannelName::new(b"copy").expect("a name");
        assert_eq!(bench.broker.copy_subscriptions(&last[0], &copy), 1);
        assert!(bench.broker.unsubscribe(other.id, &copy));
        bench.shard.take_inbox();
        assert_eq!(bench.broker.stats().dropped.socket_closed, lost);

        assert!(do_all(&mut bench) > 1);
        assert_eq!(subscriptions(&bench), (1, 1));
        assert_eq!(bench.broker.subscribers(&last[0]), [other.id]);
    }

    #[test]
    fn who_is_to_be_in_many_channels_joins_them_in_pieces_before_the_101() {
        let mut bench = Bench::new();
        let worker = bench.broker.core().roster.for_socket().expect("a worker");
        let reserve = |bench: &mut Bench, count| {
            let terms = Terms {
                listener: Arc::clone(&bench.listener),
                client: ClientAddress::UNIX,
                deflate: None,
            };
            let acceptance = Acceptance {
                channels: channels().take(count).collect(),
                token: Some(Bytes::from_static(b"token")),
                ..Acceptance::default()
            };
            let (reply, replied) = oneshot::channel();
            let worker = Arc::clone(&worker);
            bench.shard.reserve(
                terms,
                worker.place_anyway(64),
                vec![0; 64],
                acceptance,
                reply,
            );
            replied
        };
        let mut few = reserve(&mut bench, 3);
        assert!(few.try_recv().is_ok(), "without another turn");
        bench.shard.take_inbox();
        assert_eq!(subscriptions(&bench), (0, 0), "it was abandoned");

        let mut many = reserve(&mut bench, MANY);
        let joined = subscriptions(&bench).0;
        assert_eq!(joined, JOINED_AT_ONCE);
        bench.shard.do_chores();
        let (now, _) = subscriptions(&bench);
        assert!(joined < now && now < MANY / 2, "{now}");
        assert!(many.try_recv().is_err());
        do_all(&mut bench);
        let Ok(UpgradeReply::Accepted(reserved, _)) = many.try_recv() else {
            panic!("it is accepted now");
        };
        assert_eq!(subscriptions(&bench), (MANY, MANY));
        drop(reserved);
        do_all(&mut bench);
        assert_eq!(subscriptions(&bench), (0, 0));

        // A client that does not wait for the end of it.
        drop(reserve(&mut bench, MANY));
        bench.shard.do_chores();
        bench.shard.take_inbox();
        do_all(&mut bench);
        assert_eq!(subscriptions(&bench), (0, 0));
        assert_eq!(bench.broker.stats().connections, 0);
    }
}
