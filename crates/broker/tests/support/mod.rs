//! What the integration tests share: a broker on loopback, workers, and a client that speaks raw bytes.

#![allow(dead_code, reason = "every test crate uses its own part of it")]
#![allow(unused_imports, reason = "every test crate uses its own part of it")]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wsbroker_engine::{
    Acceptance, Broker, BrokerOptions, ChannelName, Interest, ListenAddress, ListenOptions,
    Listener, OutboundMessage, Peers, Rate, Response, SocketId, StopOptions, StopSummary,
    UpgradeDecision,
};

mod client;
mod deflating;
mod random;
mod routes;
mod worker;

pub(crate) use client::{Answer, Client, Frame, handshake, masked};
pub(crate) use deflating::{Peer, first_frame};
pub(crate) use random::{Random, seed};
pub(crate) use routes::{assert_numbers, messages_of, numbered, relay, relay_and_echo, room};
pub(crate) use worker::{Context, Journal, ManualWorker, Seen, ThreadWorker};

/// How long a test waits for what has to happen; far more than it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const BOTH: Interest = Interest {
    http: true,
    upgrade: true,
    confirms_closes: true,
    ignores_opens: false,
    ignores_sockets: false,
};
pub(crate) const HTTP: Interest = Interest {
    http: true,
    upgrade: false,
    confirms_closes: true,
    ignores_opens: false,
    ignores_sockets: false,
};
pub(crate) const SOCKETS: Interest = Interest {
    http: false,
    upgrade: false,
    confirms_closes: true,
    ignores_opens: false,
    ignores_sockets: false,
};

/// A broker of two shards: enough to cross from one to another.
pub(crate) fn broker() -> Broker {
    Broker::new(BrokerOptions {
        io_threads: Some(2),
    })
}

/// The defaults, on a free port.
pub(crate) fn options() -> ListenOptions {
    ListenOptions::new("127.0.0.1:0".parse().expect("an address"))
}

pub(crate) fn listen(broker: &Broker, options: ListenOptions) -> (Listener, SocketAddr) {
    let listener = broker.listen(options).expect("a free port");
    let ListenAddress::Inet(address) = *listener.address() else {
        panic!("a TCP listener")
    };
    (listener, address)
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops a listener and waits for its summary.
pub(crate) fn stop(listener: &Listener, options: StopOptions) -> StopSummary {
    let (done, summary) = mpsc::channel();
    listener.stop(options, Box::new(move |s| done.send(s).expect("we wait")));
    summary.recv_timeout(DEADLINE).expect("a stop ends")
}

/// Cuts whatever is left.
pub(crate) fn at_once() -> StopOptions {
    StopOptions {
        timeout: Duration::ZERO,
        ..StopOptions::default()
    }
}

/// Nothing is left in any registry.
pub(crate) fn assert_nothing_left(broker: &Broker) {
    eventually("no request waits", || broker.stats().pending_requests == 0);
    let stats = broker.stats();
    assert_eq!(
        (stats.connections, stats.channels, stats.subscriptions),
        (0, 0, 0)
    );
    assert_eq!((broker.connection_count(), broker.channel_count()), (0, 0));
    assert_eq!(broker.connections(), []);
    assert_eq!(stats.opened, stats.closed, "each open socket has closed");
}

pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::new(name.as_bytes()).expect("a valid name")
}

pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Response {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
        body: Bytes::copy_from_slice(body),
    }
}

/// A broker with one listener and one worker in a thread of its own.
pub(crate) struct Server {
    pub(crate) broker: Broker,
    pub(crate) worker: ThreadWorker,
    pub(crate) journal: Journal,
    pub(crate) listener: Listener,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(
        options: ListenOptions,
        interest: Interest,
        handler: impl FnMut(&Context, &Seen) + Send + 'static,
    ) -> Self {
        let broker = broker();
        let journal = Journal::default();
        let worker = ThreadWorker::start(&broker, interest, &journal, handler);
        let (listener, address) = listen(&broker, options);
        Self {
            broker,
            worker,
            journal,
            listener,
            address,
        }
    }

    /// A server that only takes down what happens.
    pub(crate) fn quiet(options: ListenOptions) -> Self {
        Self::start(options, SOCKETS, |_, _| {})
    }

    /// A server that sends every message back as it came.
    pub(crate) fn echoing(options: ListenOptions) -> Self {
        Self::start(options, SOCKETS, |context, event| {
            if let Seen::Message {
                socket,
                payload,
                text,
                ..
            } = event
            {
                let message = match std::str::from_utf8(payload) {
                    Ok(payload) if *text => OutboundMessage::text(payload),
                    _ => OutboundMessage::binary(payload),
                };
                context.broker.send(*socket, &message);
            }
        })
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// An open socket, and its id.
    pub(crate) fn open(&self) -> (Client, SocketId) {
        let known = self.journal.opened().len();
        let client = Client::open(self.address);
        let id = self.journal.wait("the socket opens", |events| {
            let mut opened = events.iter().filter_map(Seen::opened);
            opened.nth(known)
        });
        (client, id)
    }

    /// Cuts what is left, and checks that every socket opened first, closed once and last, and left nothing.
    pub(crate) fn finish(self) {
        stop(&self.listener, at_once());
        let opened = self.broker.stats().opened as usize;
        eventually("the last close event", || {
            self.journal.closes().len() >= opened
        });
        assert_nothing_left(&self.broker);
        self.worker.end();
        self.journal.assert_lives_are_whole();
    }
}

/// Answers requests with the client's address and accepts upgrades, but for `/refused`; leaves `/hold` undecided.
pub(crate) fn tell_address(context: &Context, event: &Seen) {
    match event {
        Seen::Request(id, head) if head.url != "/hold" => {
            let answer = response(200, &[], head.remote_address.as_bytes());
            context.broker.respond(*id, answer);
        }
        Seen::Upgrade(id, head) if head.url == "/refused" => {
            let refusal = UpgradeDecision::Refuse(response(403, &[], b"no"));
            context.broker.decide(*id, refusal);
        }
        Seen::Upgrade(id, head) if head.url != "/hold" => {
            let acceptance = UpgradeDecision::Accept(Acceptance::default());
            context.broker.decide(*id, acceptance);
        }
        _ => {}
    }
}

/// A server of these options that tells its clients their addresses.
pub(crate) fn serve_addresses(change: impl FnOnce(&mut ListenOptions)) -> Server {
    let mut options = options();
    change(&mut options);
    Server::start(options, BOTH, tell_address)
}

/// So many tokens, of which none comes back while a test runs.
pub(crate) fn once(capacity: u32) -> Option<Rate> {
    Rate::new(capacity, Duration::from_secs(2_000_000))
}

/// Peers of these networks.
pub(crate) fn peers(networks: &[&str]) -> Peers {
    let parsed = networks.iter().map(|network| network.parse());
    Peers {
        networks: parsed.collect::<Result<_, _>>().expect("networks"),
        unix: false,
    }
}

/// A connection from this address of the loopback network.
pub(crate) fn connect_from(host: u8, address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
    socket.bind(&from.into()).expect("loopback is a /8");
    socket.connect(&address.into()).expect("the server listens");
    Client::from_tcp(TcpStream::from(socket))
}
