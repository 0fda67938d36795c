//! The calls an application makes, from any thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::bans::Ban;
use crate::channel::ChannelLimit;
use crate::client::Cidr;
use crate::dispatch::worker::{Interest, Worker, WorkerWaker};
use crate::error::StartError;
use crate::http::response::{Response, UpgradeDecision};
use crate::id::{RequestId, SocketId};
use crate::listener::{self, Listener};
use crate::message::OutboundMessage;
use crate::name::ChannelName;
use crate::options::ListenOptions;
use crate::registry::SocketEntry;
use crate::route::NativeRoute;
use crate::shard::inbox::{CloseBy, Command, Report};
use crate::shard::{WhenClosed, WhenDrained};
use crate::stats::Stats;

mod core;

#[cfg(test)]
pub(crate) use self::core::LEFT_AT_ONCE;
pub(crate) use self::core::{Core, Publication};

/// The environment variable that sets the number of I/O threads where the application does not.
pub const IO_THREADS_VARIABLE: &str = "WSBROKER_IO_THREADS";

/// What a broker is told when it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerOptions {
    /// How many I/O threads, 1 to 256. `None`: `WSBROKER_IO_THREADS`, or else half of the machine's cores (the other
    /// half is for the workers), at least one.
    pub io_threads: Option<usize>,
}

/// One set of sockets and channels. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
}

impl Broker {
    /// A broker without sockets. Its I/O threads start with the first listener.
    #[must_use]
    pub fn new(options: BrokerOptions) -> Self {
        let core = Core::new(options);
        Self {
            core: Arc::new(core),
        }
    }

    /// Binds and begins to accept. The port is open when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left half-started.
    pub fn listen(&self, options: ListenOptions) -> Result<Listener, StartError> {
        options.validate()?;
        if self.core.roster.is_empty() {
            return Err(StartError::NoWorker);
        }
        self.core.check_io_threads(options.io_threads)?;
        let bound = listener::bind(&options.bind)?;
        let address = bound.address()?;
        let shards = self.core.start_shards(options.io_threads)?;
        listener::start(bound, address, options, shards, &self.core)
    }

    #[cfg(any(test, feature = "bench", feature = "fuzzing"))]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Registers a worker: from now on it gets its share of sockets and requests.
    pub fn register_worker(&self, interest: Interest, waker: Arc<dyn WorkerWaker>) -> Worker {
        let queue = self.core.roster.add(interest, waker);
        // Sockets that lost their last worker have waited for this one.
        let limbo = &self.core.roster.limbo;
        self.core.tell_shards(|| Command::WorkerLeft {
            worker: Arc::clone(limbo),
            ended: false,
        });
        Worker::new(queue, Arc::clone(&self.core))
    }

    /// `true` when queued; `false` when the socket is gone or too much waits for it.
    pub fn send(&self, socket: SocketId, message: &OutboundMessage<'_>) -> bool {
        let sent = self.core.registry.with(socket, |entry| {
            if let Some(frame) = message.copied_for(entry) {
                let queued = self.core.reserve(entry, frame.len());
                if queued {
                    entry.home.send_copied(entry, &frame);
                }
                return queued;
            }
            let frame = message.frame_for(entry);
            let queued = self.core.reserve(entry, frame.len());
            if queued {
                let entry = Arc::clone(entry);
                let home = Arc::clone(&entry.home);
                home.send(Command::Deliver { entry, frame });
            }
            queued
        });
        sent == Some(true)
    }

    /// Queues a message for every subscriber of this moment but `except`; how many that were.
    pub fn send_to_channel(
        &self,
        name: &ChannelName,
        message: &OutboundMessage<'_>,
        except: Option<SocketId>,
    ) -> usize {
        let Some(channel) = self.core.channels.find(name) else {
            return 0;
        };
        let mut frames = message.frames();
        channel
            .snapshot()
            .into_iter()
            .map(|(shard, members)| self.core.publish(shard, members, &mut frames, except))
            .sum()
    }

    /// Queues a message for every open socket; how many that were.
    pub fn broadcast(&self, message: &OutboundMessage<'_>) -> usize {
        let mut frames = message.frames();
        self.core
            .registry
            .everybody()
            .into_iter()
            .map(|(shard, members)| self.core.publish(shard, members, &mut frames, None))
            .sum()
    }

    /// `true` when added; `false` when it already was, or the socket is gone.
    ///
    /// # Errors
    /// The socket is in as many channels as its listener lets it.
    pub fn subscribe(&self, socket: SocketId, channel: &ChannelName) -> Result<bool, ChannelLimit> {
        match self.core.registry.find(socket) {
            Some(entry) => self.core.subscribe(&entry, channel),
            None => Ok(false),
        }
    }

    /// `true` when removed.
    pub fn unsubscribe(&self, socket: SocketId, channel: &ChannelName) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => self.core.channels.unsubscribe(&entry, channel),
            None => false,
        }
    }

    /// Adds the subscribers of `from` to `to`; how many were new there. Who is in as many channels as it may be is left
    /// out, and counted.
    pub fn copy_subscriptions(&self, from: &ChannelName, to: &ChannelName) -> usize {
        self.core
            .members(from)
            .iter()
            .filter(|entry| self.core.subscribe(entry, to) == Ok(true))
            .count()
    }

    /// Ties bytes to a socket, or takes them away; `false` when the socket is gone.
    pub fn set_token(&self, socket: SocketId, token: Option<Bytes>) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => entry.set_token(token),
            None => false,
        }
    }

    /// The bytes tied to a socket.
    #[must_use]
    pub fn token(&self, socket: SocketId) -> Option<Bytes> {
        self.core.registry.find(socket)?.token()
    }

    /// Where the messages of a socket go that are read from now on; `None`: to its worker. `false` when the socket is gone.
    ///
    /// What was read before goes where it would have gone: to a worker it may come after what is read later has gone
    /// another way.
    pub fn set_message_route(&self, socket: SocketId, route: Option<NativeRoute>) -> bool {
        let Some(entry) = self.core.registry.find(socket) else {
            return false;
        };
        let is_native = route.is_some();
        let is_set = entry.set_route(route);
        if is_set && is_native {
            // It may wait for its worker, which these messages need no more.
            let home = Arc::clone(&entry.home);
            home.send(Command::Rerouted(entry));
        }
        is_set
    }

    /// Begins the closing handshake; `true` when the socket was open. What was sent before goes out before.
    pub fn close(&self, socket: SocketId, code: u16, reason: &str) -> bool {
        match self.core.registry.find(socket) {
            Some(entry) => {
                let reason = reason.into();
                let by = CloseBy::Application { code, reason };
                self.core.close(&entry, by)
            }
            None => false,
        }
    }

    /// Tells when nothing waits for a socket any more of what was sent to it before, or that it has ended before that. Who has
    /// much to send waits for this between the pieces: a client is given time to read.
    pub fn when_drained(&self, socket: SocketId, then: WhenDrained) {
        match self.core.registry.find(socket) {
            Some(entry) => {
                let home = Arc::clone(&entry.home);
                home.send(Command::WhenDrained { entry, then });
            }
            None => then(false),
        }
    }

    /// Tells when a socket begins to close, whoever began and whatever its worker is doing; `false` when it is gone already, or
    /// its peer has ended it, and `then` is not called.
    pub fn when_closed(&self, socket: SocketId, then: WhenClosed) -> bool {
        let found = self.core.registry.find(socket);
        let Some(entry) = found.filter(|entry| !entry.has_ended()) else {
            return false;
        };
        let home = Arc::clone(&entry.home);
        home.send(Command::WhenClosed { entry, then });
        true
    }

    /// A handler of this socket did not come to an end within [`ListenOptions::handler_timeout`]: closes the socket with
    /// 1011, if it is still open, and counts the `lost` messages that had waited behind the handler.
    pub fn handler_timed_out(&self, socket: SocketId, lost: u64) {
        self.messages_given_up(lost);
        let timeouts = &self.core.counters.handler_timeouts;
        timeouts.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = self.core.registry.find(socket) {
            let by = CloseBy::Broker(Report::HandlerTimeout);
            self.core.close(&entry, by);
        }
    }

    /// Counts messages that came behind a handler that timed out, and that nobody handles.
    pub fn messages_given_up(&self, count: u64) {
        let messages = &self.core.counters.handler_timeout_messages;
        messages.fetch_add(count, Ordering::Relaxed);
    }

    /// Keeps a network out, for so long or until [`unban`](Self::unban). An earlier ban of it gets this end.
    ///
    /// New connections are closed at accept, requests through trusted proxies answered 403. Open HTTP connections are
    /// closed at once, sockets with 1008 and the reason `banned`; how many sockets that were.
    ///
    /// Each call looks at every open socket, and has the open HTTP connections look at the bans; the latter once for calls
    /// that follow each other closely.
    pub fn ban(&self, network: Cidr, duration: Option<Duration>) -> usize {
        let now = self.core.entrance.now();
        let until = duration.map(|duration| now.saturating_add(milliseconds(duration).max(1)));
        self.core.entrance.bans.add(network, until, now);
        self.core.alert_connections();
        let is_meant =
            |entry: &SocketEntry| entry.client.ip().is_some_and(|ip| network.contains(ip));
        let meant = self.core.registry.select(is_meant).into_iter();
        meant
            .filter(|entry| self.core.close(entry, CloseBy::Broker(Report::Banned)))
            .count()
    }

    /// Lifts a ban of exactly this network; whether there was one.
    pub fn unban(&self, network: Cidr) -> bool {
        let entrance = &self.core.entrance;
        entrance.bans.remove(&network, entrance.now())
    }

    /// The bans of this moment in the order of their networks, and when each ends by itself.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        let entrance = &self.core.entrance;
        let (now, time) = (entrance.now(), SystemTime::now());
        entrance.bans.list(now, time)
    }

    /// How many sockets are in a channel. One that has closed and was in many channels may be counted for some milliseconds.
    #[must_use]
    pub fn subscriber_count(&self, channel: &ChannelName) -> usize {
        self.core
            .channels
            .find(channel)
            .map_or(0, |found| found.len())
    }

    /// Which sockets are in a channel, in no order.
    #[must_use]
    pub fn subscribers(&self, channel: &ChannelName) -> Vec<SocketId> {
        self.core
            .members(channel)
            .iter()
            .filter(|entry| entry.is_open())
            .map(|entry| entry.id)
            .collect()
    }

    /// The channels a socket is in, in no order.
    #[must_use]
    pub fn channels(&self, socket: SocketId) -> Vec<ChannelName> {
        let entry = self.core.registry.find(socket);
        entry
            .and_then(|entry| entry.with_channels(|set| set.names()))
            .unwrap_or_default()
    }

    /// How many channels have subscribers.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.core.channels.len()
    }

    /// How many sockets are open.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.core.registry.len()
    }

    /// The open sockets, in no order.
    #[must_use]
    pub fn connections(&self) -> Vec<SocketId> {
        self.core.registry.ids()
    }

    /// Bytes queued for a socket and not yet handed to the kernel.
    #[must_use]
    pub fn buffered_amount(&self, socket: SocketId) -> usize {
        self.core
            .registry
            .find(socket)
            .map_or(0, |entry| entry.backpressure.waiting())
    }

    /// Everything in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Answers an HTTP request; `false` when the id was never given by a shard of this broker.
    pub fn respond(&self, request: RequestId, response: Response) -> bool {
        self.core.tell_shard_of(
            request,
            Command::Respond {
                id: request,
                response: Box::new(response),
            },
        )
    }

    /// The same for a short answer, whose headers are packed as `name\nvalue\n…`: it needs no memory of its own until
    /// its shard has it.
    #[doc(hidden)]
    pub fn respond_copied(
        &self,
        request: RequestId,
        status: u16,
        headers: &[u8],
        body: &[u8],
    ) -> bool {
        match self.core.shards().get(request.shard()) {
            Some(shard) => {
                shard.respond_copied(request, status, headers, body);
                true
            }
            None => false,
        }
    }

    /// Answers an upgrade request; `false` as with [`respond`](Self::respond).
    pub fn decide(&self, request: RequestId, decision: UpgradeDecision) -> bool {
        self.core.tell_shard_of(
            request,
            Command::Decide {
                id: request,
                decision: Box::new(decision),
            },
        )
    }

    /// Stops reading a socket: a handler is busy with it and enough waits behind. `false` when it is gone.
    pub fn pause(&self, socket: SocketId) -> bool {
        self.hold(socket, true)
    }

    /// Goes on reading a paused socket.
    pub fn resume(&self, socket: SocketId) -> bool {
        self.hold(socket, false)
    }

    fn hold(&self, socket: SocketId, held: bool) -> bool {
        let Some(entry) = self.core.registry.find(socket) else {
            return false;
        };
        let home = Arc::clone(&entry.home);
        home.send(Command::Hold { entry, held });
        true
    }
}

/// Rounded up.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
