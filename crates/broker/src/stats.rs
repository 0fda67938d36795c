//! The broker in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A moment's numbers. Sizes are bytes; totals count since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open sockets.
    pub connections: u64,
    /// Channels with at least one subscriber.
    pub channels: u64,
    /// Pairs of socket and channel.
    pub subscriptions: u64,
    /// HTTP requests and upgrades that wait for an answer.
    pub pending_requests: u64,
    /// Sockets that are not read at the moment because they are over a rate (`onExceed: 'pause'`).
    pub paused_sockets: u64,
    /// Listeners that are not stopped.
    pub listeners: u64,
    /// I/O threads.
    pub io_threads: u64,
    /// Times that a connection could not be accepted, for want of descriptors or memory. It waits in the kernel meanwhile.
    pub accept_errors: u64,
    /// Sockets opened.
    pub opened: u64,
    /// Sockets closed.
    pub closed: u64,
    /// HTTP requests taken, without upgrades.
    pub requests: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Bytes received on sockets, frame headers included.
    pub bytes_in: u64,
    /// Messages put in the outbox of a socket.
    pub messages_out: u64,
    /// Bytes handed to the kernel for sockets, frame headers included.
    pub bytes_out: u64,
    /// What was not delivered, by reason.
    pub dropped: Drops,
    /// Who was turned away, by reason.
    pub limited: Limited,
    /// The registered workers.
    pub workers: Vec<WorkerStats>,
}

/// What was not delivered, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Messages left out because too much waited for the socket (`slowConsumer: 'drop'`), or refused as it was
    /// closed for that (`'close'`).
    pub slow_consumer: u64,
    /// Messages left out because too much had been sent to their socket at once.
    pub queue_full: u64,
    /// Messages queued for a socket that closed before they could be put in its outbox.
    pub socket_closed: u64,
    /// Messages of sockets that relay to a channel ([`NativeRoute::Relay`](crate::NativeRoute::Relay)) and were not in it.
    pub not_subscribed: u64,
    /// Messages given to a worker that ended before it had finished them.
    pub worker_ended: u64,
    /// Open and drain events given to a worker that ended before it had finished them.
    pub worker_ended_events: u64,
    /// Messages and pings left out because their socket was over a rate (`onExceed: 'drop'`).
    pub over_rate: u64,
    /// Sockets closed because they were over a rate (`onExceed: 'close'`).
    pub over_rate_closes: u64,
    /// Subscriptions refused because their socket was in as many channels as it may.
    pub channel_limit: u64,
    /// Handlers that did not come to an end within `handlerTimeout`.
    pub handler_timeouts: u64,
    /// Messages that had waited behind such a handler and were handled by nobody.
    pub handler_timeout_messages: u64,
    /// Answers to requests that nobody waited for any more.
    pub late_responses: u64,
    /// Requests answered 503 because their worker ended, or no worker could take them.
    pub unanswered_requests: u64,
    /// Requests answered 504.
    pub timed_out_requests: u64,
    /// Sockets closed because their peer broke the protocol or a limit.
    pub violations: u64,
    /// Sockets cut because their peer fell silent.
    pub heartbeat_timeouts: u64,
    /// Requests whose head or body came too slowly.
    pub slow_requests: u64,
    /// Connections cut because their peer did not read its answer.
    pub unread_responses: u64,
}

/// Who was turned away, by reason. The first five are named after their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// Connections beyond those of the whole broker.
    pub connections: u64,
    /// Connections, or sockets behind a trusted proxy, beyond those of one client.
    pub connections_per_ip: u64,
    /// Upgrade requests beyond the rate of one client.
    pub upgrades_per_ip: u64,
    /// Other requests beyond the rate of one client.
    pub requests_per_ip: u64,
    /// Upgrades beyond those that may be under way.
    pub handshakes: u64,
    /// Upgrades from pages of an origin that may not connect.
    pub origins: u64,
    /// Requests of which two headers of trusted proxies name different clients.
    pub contradictions: u64,
    /// Connections and requests of banned clients. Those that a ban closed are not counted here.
    pub banned: u64,
    /// Connections closed for want of a sound PROXY header, or from a peer whose header is not believed.
    pub proxy_protocol: u64,
}

/// The queue of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// The worker.
    pub id: u32,
    /// Events that wait to be taken.
    pub queued_events: u64,
    /// Their size.
    pub queued_bytes: u64,
    /// Events of the batch it is handling.
    pub in_hand_events: u64,
    /// Events it has been given since it registered.
    pub events: u64,
    /// Its sockets are not read at the moment because too much waits.
    pub full: bool,
}

/// Counted by the one thread that owns it and read by any: no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
pub(crate) struct ShardCounters {
    pub(crate) pending_requests: Counter,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) requests: Counter,
    pub(crate) messages_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) messages_out: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) slow_pongs: Counter,
    pub(crate) socket_closed: Counter,
    pub(crate) not_subscribed: Counter,
    pub(crate) late_responses: Counter,
    pub(crate) unanswered_requests: Counter,
    pub(crate) timed_out_requests: Counter,
    pub(crate) violations: Counter,
    pub(crate) heartbeat_timeouts: Counter,
    pub(crate) paused_sockets: Counter,
    pub(crate) over_rate: Counter,
    pub(crate) over_rate_closes: Counter,
    pub(crate) slow_requests: Counter,
    pub(crate) unread_responses: Counter,
}

impl ShardCounters {
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.pending_requests += self.pending_requests.get();
        stats.opened += self.opened.get();
        stats.closed += self.closed.get();
        stats.requests += self.requests.get();
        stats.messages_in += self.messages_in.get();
        stats.bytes_in += self.bytes_in.get();
        stats.messages_out += self.messages_out.get();
        stats.bytes_out += self.bytes_out.get();
        stats.dropped.slow_consumer += self.slow_pongs.get();
        stats.dropped.socket_closed += self.socket_closed.get();
        stats.dropped.not_subscribed += self.not_subscribed.get();
        stats.dropped.late_responses += self.late_responses.get();
        stats.dropped.unanswered_requests += self.unanswered_requests.get();
        stats.dropped.timed_out_requests += self.timed_out_requests.get();
        stats.dropped.violations += self.violations.get();
        stats.dropped.heartbeat_timeouts += self.heartbeat_timeouts.get();
        stats.paused_sockets += self.paused_sockets.get();
        stats.dropped.over_rate += self.over_rate.get();
        stats.dropped.over_rate_closes += self.over_rate_closes.get();
        stats.dropped.slow_requests += self.slow_requests.get();
        stats.dropped.unread_responses += self.unread_responses.get();
    }
}

/// What the calling threads count together.
#[derive(Debug, Default)]
pub(crate) struct CallCounters {
    pub(crate) slow_consumer: AtomicU64,
    pub(crate) queue_full: AtomicU64,
    pub(crate) socket_closed: AtomicU64,
    pub(crate) messages_lost: AtomicU64,
    pub(crate) others_lost: AtomicU64,
    pub(crate) listeners: AtomicU64,
    pub(crate) channel_limit: AtomicU64,
    pub(crate) handler_timeouts: AtomicU64,
    pub(crate) handler_timeout_messages: AtomicU64,
}
