//! Workers: one that a test drives by hand, one that handles events in a thread of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wsbroker_engine::{
    Batch, Broker, Event, Interest, RequestBlock, RequestId, SocketId, ThreadWaker, Worker,
    WorkerWaker,
};

use super::DEADLINE;

/// An event that outlives its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Open {
        socket: SocketId,
        token: Option<Vec<u8>>,
        request: Head,
    },
    Message {
        socket: SocketId,
        token: Option<Vec<u8>>,
        payload: Vec<u8>,
        text: bool,
    },
    Drain {
        socket: SocketId,
    },
    Close {
        socket: SocketId,
        token: Option<Vec<u8>>,
        code: u16,
        reason: String,
    },
    Request(RequestId, Head),
    Upgrade(RequestId, Head),
    Abort(RequestId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) remote_address: String,
    pub(crate) protocol: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Head {
    fn new(block: RequestBlock<'_>) -> Self {
        Self {
            method: text(block.method()),
            url: text(block.url()),
            remote_address: text(block.remote_address()),
            protocol: block.protocol().map(text),
            headers: block.headers().map(|(n, v)| (text(n), text(v))).collect(),
            body: block.body().to_vec(),
        }
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(n, _)| n == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Seen {
    fn new(event: Event<'_>) -> Self {
        let own = |token: Option<&[u8]>| token.map(<[u8]>::to_vec);
        match event {
            Event::Open {
                socket,
                token,
                request,
            } => Self::Open {
                socket,
                token: own(token),
                request: Head::new(request),
            },
            Event::Message {
                socket,
                token,
                payload,
                text,
                ..
            } => Self::Message {
                socket,
                token: own(token),
                payload: payload.to_vec(),
                text,
            },
            Event::Drain { socket, .. } => Self::Drain { socket },
            Event::Close {
                socket,
                token,
                code,
                reason,
            } => Self::Close {
                socket,
                token: own(token),
                code,
                reason: text(reason),
            },
            Event::Request { request, block } => Self::Request(request, Head::new(block)),
            Event::Upgrade { request, block } => Self::Upgrade(request, Head::new(block)),
            Event::Abort { request } => Self::Abort(request),
            other => panic!("an event this test does not know: {other:?}"),
        }
    }

    pub(crate) fn opened(&self) -> Option<SocketId> {
        match self {
            Self::Open { socket, .. } => Some(*socket),
            _ => None,
        }
    }

    pub(crate) fn closed(&self) -> Option<(SocketId, u16, &str)> {
        match self {
            Self::Close {
                socket,
                code,
                reason,
                ..
            } => Some((*socket, *code, reason)),
            _ => None,
        }
    }

    /// The payload of a message of this socket.
    pub(crate) fn said(&self, by: SocketId) -> Option<&[u8]> {
        match self {
            Self::Message {
                socket, payload, ..
            } if *socket == by => Some(payload),
            _ => None,
        }
    }

    pub(crate) fn socket(&self) -> Option<SocketId> {
        match self {
            Self::Open { socket, .. }
            | Self::Message { socket, .. }
            | Self::Drain { socket }
            | Self::Close { socket, .. } => Some(*socket),
            Self::Request(..) | Self::Upgrade(..) | Self::Abort(_) => None,
        }
    }
}

/// Everything some workers were given, in order.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<(Mutex<Vec<Seen>>, Condvar)>);

impl Journal {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.0.lock().expect("no test panics with it")
    }

    pub(crate) fn note(&self, event: Seen) {
        self.lock().push(event);
        self.0.1.notify_all();
    }

    /// Waits until `find` finds something.
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&[Seen]) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut events = self.lock();
        loop {
            if let Some(found) = find(&events) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = events.len().saturating_sub(20);
                let tail = format!("{:?}", &events[last..]);
                drop(events);
                panic!("waited in vain: {what}; the last events: {tail:.3000}");
            }
            let waited = self.0.1.wait_timeout(events, left);
            events = waited.expect("no test panics with it").0;
        }
    }

    pub(crate) fn opened(&self) -> Vec<SocketId> {
        self.lock().iter().filter_map(Seen::opened).collect()
    }

    pub(crate) fn closes(&self) -> Vec<(SocketId, u16, String)> {
        let events = self.lock();
        let closes = events.iter().filter_map(Seen::closed);
        closes
            .map(|(id, code, r)| (id, code, r.to_owned()))
            .collect()
    }

    /// How many close events of this socket came so far.
    pub(crate) fn closes_of(&self, socket: SocketId) -> usize {
        let closes = self.closes();
        closes.iter().filter(|(id, ..)| *id == socket).count()
    }

    /// The close event of this socket.
    pub(crate) fn close_of(&self, socket: SocketId) -> (u16, String) {
        self.wait("the close event", |events| {
            let mut closes = events.iter().filter_map(Seen::closed);
            let (_, code, reason) = closes.find(|(id, ..)| *id == socket)?;
            Some((code, reason.to_owned()))
        })
    }

    /// Waits for this many messages of a socket.
    pub(crate) fn messages_of(&self, socket: SocketId, count: usize) -> Vec<Vec<u8>> {
        self.wait("the messages", |events| {
            let said = events.iter().filter_map(|event| event.said(socket));
            let said: Vec<_> = said.map(<[u8]>::to_vec).collect();
            (said.len() >= count).then_some(said)
        })
    }

    /// Every socket opens once and first, and closes once and last.
    pub(crate) fn assert_lives_are_whole(&self) {
        let mut over: HashMap<SocketId, bool> = HashMap::new();
        for event in self.lock().iter() {
            let Some(socket) = event.socket() else {
                continue;
            };
            match event {
                Seen::Open { .. } => {
                    assert_eq!(over.insert(socket, false), None, "{socket} opened twice");
                }
                Seen::Close { .. } => {
                    let was = over.insert(socket, true);
                    assert_eq!(was, Some(false), "{socket} closed twice or unopened");
                }
                _ => assert_eq!(over.get(&socket), Some(&false), "{socket}: {event:?}"),
            }
        }
        let open = over.iter().filter(|(_, over)| !**over).count();
        assert_eq!(open, 0, "sockets without a close event");
    }
}

/// A worker that takes what waits when it is told to.
pub(crate) struct ManualWorker {
    pub(crate) worker: Worker,
    pub(crate) seen: Vec<Seen>,
}

struct NoWake;

impl WorkerWaker for NoWake {
    fn wake(&self) {}
}

impl ManualWorker {
    pub(crate) fn register(broker: &Broker, interest: Interest) -> Self {
        Self {
            worker: broker.register_worker(interest, Arc::new(NoWake)),
            seen: Vec::new(),
        }
    }

    /// Takes one batch; `false` when nothing waits.
    pub(crate) fn take(&mut self) -> bool {
        let Some(batch) = self.worker.take() else {
            return false;
        };
        let before = self.seen.len();
        self.seen.extend(batch.events().map(Seen::new));
        for event in &self.seen[before..] {
            if let Some((socket, ..)) = event.closed() {
                self.worker.begin_close(socket);
            }
        }
        true
    }

    /// Takes until `find` finds something in everything seen.
    pub(crate) fn wait<T>(&mut self, what: &str, find: impl Fn(&[Seen]) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = find(&self.seen) {
                return found;
            }
            if !self.take() {
                assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(crate) fn wait_opened(&mut self, count: usize) -> Vec<SocketId> {
        self.wait("sockets open", |seen| {
            let opened: Vec<_> = seen.iter().filter_map(Seen::opened).collect();
            (opened.len() >= count).then_some(opened)
        })
    }

    pub(crate) fn wait_messages(&mut self, socket: SocketId, count: usize) -> Vec<Vec<u8>> {
        self.wait("messages", |seen| {
            let said = seen.iter().filter_map(|event| event.said(socket));
            let said: Vec<_> = said.map(<[u8]>::to_vec).collect();
            (said.len() >= count).then_some(said)
        })
    }

    pub(crate) fn wait_close(&mut self, socket: SocketId) -> (u16, String) {
        self.wait("a close event", |seen| {
            let mut closes = seen.iter().filter_map(Seen::closed);
            let (_, code, reason) = closes.find(|(id, ..)| *id == socket)?;
            Some((code, reason.to_owned()))
        })
    }

    pub(crate) fn wait_request(&mut self) -> (RequestId, Head) {
        let known = self.seen.len();
        self.wait("a request", |seen| {
            seen[known..].iter().find_map(|event| match event {
                Seen::Request(id, head) | Seen::Upgrade(id, head) => Some((*id, head.clone())),
                _ => None,
            })
        })
    }

    /// How many events still wait, as the broker counts them.
    pub(crate) fn waiting(&self, broker: &Broker) -> u64 {
        let stats = broker.stats();
        let mine = stats.workers.iter().find(|w| w.id == self.worker.id());
        mine.map_or(0, |worker| worker.queued_events)
    }
}

/// What a handler acts with.
pub(crate) struct Context {
    pub(crate) broker: Broker,
    pub(crate) worker: Worker,
}

/// A worker in a thread of its own.
pub(crate) struct ThreadWorker {
    pub(crate) worker: Worker,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ThreadWorker {
    pub(crate) fn start(
        broker: &Broker,
        interest: Interest,
        journal: &Journal,
        mut handler: impl FnMut(&Context, &Seen) + Send + 'static,
    ) -> Self {
        let (tell, told) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let (broker, journal, is_over) = (broker.clone(), journal.clone(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let waker = Arc::new(ThreadWaker::current());
            let worker = broker.register_worker(interest, waker);
            tell.send(worker.clone()).expect("the test waits");
            let context = Context { broker, worker };
            while !is_over.load(Ordering::Acquire) {
                match context.worker.take() {
                    Some(batch) => run(&context, &batch, &journal, &mut handler),
                    None => std::thread::park(),
                }
            }
        });
        Self {
            worker: told.recv().expect("the worker has started"),
            over,
            thread,
        }
    }

    /// Ends the worker after its batch: it has handled all that it was given.
    pub(crate) fn end(self) {
        self.over.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().expect("no handler panics");
        // Its last batch is finished; the next take would say so.
        self.worker.retire(&[]);
        let _ = self.worker.take();
        self.worker.end(None);
    }
}

fn run(
    context: &Context,
    batch: &Batch,
    journal: &Journal,
    handler: &mut impl FnMut(&Context, &Seen),
) {
    wsbroker_engine::cork();
    for event in batch.events() {
        let event = Seen::new(event);
        if let Some((socket, ..)) = event.closed() {
            context.worker.begin_close(socket);
        }
        handler(context, &event);
        journal.note(event);
    }
    wsbroker_engine::uncork();
}
