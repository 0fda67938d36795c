//! A listener: bound at once, accepting on one shard, dealing to all, drained at its stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::unconstrained;

use crate::address::ListenAddress;
use crate::backpressure;
use crate::broker::Core;
use crate::error::StartError;
use crate::limits::clients::Clients;
use crate::limits::entrance::Entrance;
use crate::options::ListenOptions;
use crate::shard::ShardHandle;
use crate::shard::inbox::Command;

mod accept;
mod admission;
mod bind;
mod failures;
mod handshakes;

pub(crate) use accept::{Listening, accept};
pub(crate) use admission::{Admission, ConnectionGuard, ListenerGuard, TooManyConnections};
pub(crate) use bind::{Bound, bind};
pub(crate) use failures::AcceptFailures;
pub(crate) use handshakes::Handshake;

/// A running listener. Dropping it does not stop it.
pub struct Listener {
    address: ListenAddress,
    shared: Arc<ListenerShared>,
    core: Arc<Core>,
}

/// How to stop. A time may be as long as one likes; one without an end is no deadline at all.
#[derive(Clone, Debug)]
pub struct StopOptions {
    /// How long sockets and requests may take to end by themselves.
    pub timeout: Duration,
    /// From the first goodbye to the last: the sockets are closed evenly over it, and go on until it is their turn. At
    /// most `timeout`; leave the last ones some time to answer.
    pub spread: Duration,
    /// The close code each socket is sent.
    pub code: u16,
    /// The close reason, at most 123 bytes.
    pub reason: String,
}

impl Default for StopOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            spread: Duration::ZERO,
            code: crate::codec::close::GOING_AWAY,
            reason: String::new(),
        }
    }
}

/// What a stop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopSummary {
    /// Sockets that closed in time.
    pub closed: u64,
    /// Sockets that were cut, and requests whose connection was.
    pub forced: u64,
}

type Done = Box<dyn FnOnce(StopSummary) + Send>;

/// What the connections of a listener know of it.
pub(crate) struct ListenerShared {
    pub(crate) options: ListenOptions,
    /// What may wait for each socket.
    pub(crate) backpressure: backpressure::Limits,
    /// What is counted per client; `None` without such a limit.
    pub(crate) clients: Option<Arc<Clients>>,
    /// The door that all listeners share.
    pub(crate) entrance: Arc<Entrance>,
    core: std::sync::Weak<Core>,
    phase: watch::Sender<StopPhase>,
    /// The accept task, connections and sockets; at zero a stop is done.
    alive: AtomicUsize,
    /// Upgrades that are under way.
    handshakes: AtomicU32,
    /// Close events since the stop began.
    closed: AtomicU64,
    forced: AtomicU64,
    /// Of `forced`, sockets whose close event is counted in `closed` as well.
    forced_sockets: AtomicU64,
    stop: Mutex<Stop>,
}

#[derive(Default)]
struct Stop {
    waiting: Vec<Done>,
    summary: Option<StopSummary>,
}

/// How far a stop has come, as the connections see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum StopPhase {
    Serving,
    /// Nothing new is taken; what is under way may finish.
    Draining,
    /// The deadline is over.
    Cut,
}

/// Makes a bound socket a listener of this broker.
pub(crate) fn start(
    bound: Bound,
    address: ListenAddress,
    options: ListenOptions,
    shards: &[Arc<ShardHandle>],
    core: &Arc<Core>,
) -> Result<Listener, StartError> {
    let shard = &shards[core.number_listener() % shards.len()];
    let listening = Listening::new(bound, shard.sources()).map_err(|source| StartError::Io {
        action: format!("watch {address}"),
        source,
    })?;
    core.listener_started(options.shortest_deadline());
    let shared = ListenerShared::new(options, core);
    core.add_listener(&shared);
    let guard = ListenerGuard::new(&shared);
    shard.send(Command::Listen { listening, guard });
    Ok(Listener {
        address,
        shared,
        core: Arc::clone(core),
    })
}

impl Listener {
    /// Where it listens, with the port the system chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Stops accepting, says goodbye to every socket, at once or over [`StopOptions::spread`], lets requests finish, and
    /// cuts what is left after the timeout. Then `done` is called, on an I/O thread; the address is free by then. A
    /// second stop changes nothing and reports the same.
    pub fn stop(&self, options: StopOptions, done: Done) {
        let mut stop = self.shared.stop.lock();
        if let Some(summary) = stop.summary {
            drop(stop);
            return done(summary);
        }
        stop.waiting.push(done);
        drop(stop);
        let begun = self.shared.phase.send_if_modified(|phase| {
            let begins = *phase == StopPhase::Serving;
            if begins {
                *phase = StopPhase::Draining;
            }
            begins
        });
        if !begun {
            return;
        }
        let reason: Arc<str> = options.reason.into();
        self.core.tell_shards(|| Command::StopListener {
            listener: Arc::clone(&self.shared),
            code: options.code,
            reason: Arc::clone(&reason),
            spread: options.spread,
        });
        let (shared, core) = (Arc::clone(&self.shared), Arc::clone(&self.core));
        let deadline = async move {
            let finished = async {
                // The sender lives in `shared`, so this ends with the timeout at the latest.
                let mut phase = shared.phase();
                StopPhase::cut(&mut phase).await;
            };
            if tokio::time::timeout(options.timeout, finished)
                .await
                .is_err()
            {
                shared.cut(&core);
            }
        };
        self.core.shards()[0].send(Command::Spawn(Box::pin(deadline)));
    }
}

impl ListenerShared {
    pub(crate) fn new(options: ListenOptions, core: &Arc<Core>) -> Arc<Self> {
        let limits = options.limits;
        Arc::new(Self {
            backpressure: backpressure::Limits::new(options.max_backpressure),
            options,
            clients: limits.are_per_client().then(|| Clients::new(limits)),
            entrance: Arc::clone(&core.entrance),
            core: Arc::downgrade(core),
            phase: watch::Sender::new(StopPhase::Serving),
            alive: AtomicUsize::new(0),
            handshakes: AtomicU32::new(0),
            closed: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            forced_sockets: AtomicU64::new(0),
            stop: Mutex::default(),
        })
    }

    pub(crate) fn phase(&self) -> watch::Receiver<StopPhase> {
        self.phase.subscribe()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.phase.borrow() != StopPhase::Serving
    }

    /// Makes every HTTP connection look again at what may end it.
    pub(crate) fn alert(&self) {
        self.phase.send_modify(|_| {});
    }

    /// A connection that is no socket is cut at the deadline.
    pub(crate) fn count_forced_connection(&self) {
        self.forced.fetch_add(1, Ordering::Relaxed);
    }

    /// A socket's close event has been staged.
    pub(crate) fn count_closed(&self) {
        if self.is_stopping() {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A socket is about to be cut because its time is over.
    pub(crate) fn count_forced(&self) {
        if self.is_stopping() {
            self.forced.fetch_add(1, Ordering::Relaxed);
            self.forced_sockets.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn cut(self: &Arc<Self>, core: &Core) {
        if self.stop.lock().summary.is_some() {
            return;
        }
        self.phase.send_replace(StopPhase::Cut);
        core.tell_shards(|| Command::CutListener(Arc::clone(self)));
    }

    /// The last connection has ended after the stop.
    fn finish(&self) {
        let mut stop = self.stop.lock();
        let closed = self.closed.load(Ordering::Relaxed);
        let summary = StopSummary {
            closed: closed.saturating_sub(self.forced_sockets.load(Ordering::Relaxed)),
            forced: self.forced.load(Ordering::Relaxed),
        };
        stop.summary = Some(summary);
        let waiting = std::mem::take(&mut stop.waiting);
        drop(stop);
        // Ends the wait for the deadline as well.
        self.phase.send_replace(StopPhase::Cut);
        if let Some(core) = self.core.upgrade() {
            core.listener_stopped();
        }
        tracing::debug!(summary.closed, summary.forced, "a listener has stopped");
        for done in waiting {
            done(summary);
        }
    }
}

impl StopPhase {
    /// Waits for the next phase or [alert](ListenerShared::alert). Each poll asks the channel itself, though a look at its
    /// version would often do: who has been told of a version may be woken for it once more, and is registered nowhere then
    /// until it asks again.
    pub(crate) async fn changed(phase: &mut watch::Receiver<Self>) -> Self {
        // Without tokio's budget, at whose end it would not begin to wait.
        match unconstrained(phase.changed()).await {
            Ok(()) => *phase.borrow_and_update(),
            Err(_) => Self::Cut, // the listener is gone altogether
        }
    }

    /// Waits until the deadline is over.
    pub(crate) async fn cut(phase: &mut watch::Receiver<Self>) {
        let _ = phase.wait_for(|phase| *phase == Self::Cut).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Instant;

    use tokio::task::coop;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// What has come when the waiting task is polled once, as its own wakings would have it.
    async fn polled(waiting: &mut (impl Future<Output = StopPhase> + Unpin)) -> Poll<StopPhase> {
        poll_fn(|cx: &mut Context<'_>| Poll::Ready(pin!(&mut *waiting).poll(cx))).await
    }

    #[tokio::test]
    async fn every_phase_and_every_alert_is_told_however_often_it_is_asked_for() {
        let sender = watch::Sender::new(StopPhase::Serving);
        let mut phase = sender.subscribe();
        for next in [StopPhase::Serving, StopPhase::Draining, StopPhase::Cut] {
            let mut waiting = Box::pin(StopPhase::changed(&mut phase));
            for _ in 0..3 {
                assert!(polled(&mut waiting).await.is_pending());
            }
            sender.send_replace(next);
            assert_eq!(polled(&mut waiting).await, Poll::Ready(next));
        }
        let mut waiting = Box::pin(StopPhase::changed(&mut phase));
        assert!(polled(&mut waiting).await.is_pending());
        drop(sender);
        assert_eq!(polled(&mut waiting).await, Poll::Ready(StopPhase::Cut));
    }

    #[tokio::test]
    async fn who_waits_is_woken_also_if_it_had_used_up_its_budget() {
        let sender = watch::Sender::new(StopPhase::Serving);
        let mut phase = sender.subscribe();
        let waiting = tokio::spawn(async move {
            while coop::has_budget_remaining() {
                coop::consume_budget().await;
            }
            StopPhase::changed(&mut phase).await
        });
        for _ in 0..3 {
            tokio::task::yield_now().await; // it waits
        }
        sender.send_replace(StopPhase::Draining);
        let told = tokio::time::timeout(LIMIT, waiting).await;
        assert_eq!(told.expect("in time").ok(), Some(StopPhase::Draining));
    }

    /// Who sees a phase between its change and the call that wakes for it is woken once more when it waits for the next one.
    #[test]
    fn who_was_woken_in_vain_is_still_told_of_the_next_phase() {
        const ROUNDS: usize = 2000;
        for round in 0..ROUNDS {
            let sender = watch::Sender::new(StopPhase::Serving);
            let mut phase = sender.subscribe();
            let draining = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    sender.send_replace(StopPhase::Draining);
                    while !draining.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                    sender.send_replace(StopPhase::Cut);
                });
                let woken = Arc::new(Woken::default());
                let waker = Waker::from(Arc::clone(&woken));
                let mut cx = Context::from_waker(&waker);
                // As a connection whose peer keeps it busy.
                while pin!(StopPhase::changed(&mut phase))
                    .poll(&mut cx)
                    .is_pending()
                {}
                let mut waiting = pin!(StopPhase::changed(&mut phase));
                let mut told = waiting.as_mut().poll(&mut cx);
                draining.store(true, Ordering::Release);
                let began = Instant::now();
                while told.is_pending() {
                    assert!(began.elapsed() < LIMIT, "round {round}: nobody woke it");
                    if woken.0.swap(false, Ordering::AcqRel) {
                        told = waiting.as_mut().poll(&mut cx);
                    }
                }
            });
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }
}
