//! The kinds of load.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::{Arguments, Dialect, Message, Window, Work};
use crate::payload::{self, HEAD, Kind, Stamp};
use crate::pool::{Pool, words};
use crate::process::Process;
use crate::report::Report;
use crate::stream::Item;
use crate::target::Target;
use crate::websocket::{Template, WebSocket};

mod blocked;
mod burst;
mod connect;
mod distance;
mod echo;
mod fanout;
mod http;
mod idle;
mod paced;

/// How long a turn waits at most: the ends of the window are noticed with this precision while nothing comes.
const TURN: Duration = Duration::from_millis(10);

/// After the window, what is under way has so long to arrive before it counts as missing.
const LAST_ARRIVALS: Duration = Duration::from_secs(10);

/// An answer to a question has so long.
const ANSWER: Duration = Duration::from_secs(20);

/// Runs the load that was asked for.
///
/// # Errors
///
/// What kept it from being run, in words.
pub(crate) fn run(arguments: &Arguments) -> Result<Report, String> {
    let context = Context {
        target: Target::parse(&arguments.address, arguments.any_address).map_err(words)?,
        server: arguments.pid.map(Process::new).transpose()?,
        dialect: arguments.dialect,
        window: arguments.window,
    };
    // Each socket is a descriptor.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(words)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(words)?;
    match &arguments.work {
        Work::Echo(echo) => echo::run(context, *echo),
        Work::Fanout(fanout) => fanout::run(context, *fanout),
        Work::Connect(connect) => connect::run(context, *connect),
        Work::Idle(idle) => idle::run(context, *idle),
        Work::Http(http) => http::run(context, *http),
        Work::Burst(burst) => burst::run(context, *burst),
        Work::Blocked(blocked) => blocked::run(context, *blocked),
        Work::Distance(distance) => distance::run(*distance),
    }
}

/// What all works need.
#[derive(Clone, Copy)]
struct Context {
    target: Target,
    server: Option<Process>,
    dialect: Dialect,
    window: Window,
}

impl Context {
    fn pool<P: crate::stream::Protocol>(self) -> Result<Pool<P>, String> {
        Pool::new(self.target).map_err(words)
    }

    fn client(self) -> WebSocket {
        WebSocket::new(self.target.host(), self.dialect)
    }

    fn template(self, kind: Kind, message: Message) -> Template {
        Template::new(kind, message, self.dialect)
    }
}

fn settings(options: &impl Serialize) -> Value {
    serde_json::to_value(options).expect("options are plain data")
}

/// Tells whether a message is one that was built here, with all of its bytes.
struct Checker {
    kind: u8,
    filling: Vec<u8>,
}

impl Checker {
    fn new(kind: Kind, size: usize) -> Self {
        let mut payload = payload::build(kind, size, Stamp::default());
        let filling = payload.split_off(HEAD);
        let kind = payload[0];
        Self { kind, filling }
    }

    #[inline]
    fn stamp(&self, message: &[u8]) -> Option<Stamp> {
        let stamp = payload::read(message)?;
        (message[0] == self.kind && message[HEAD..] == self.filling).then_some(stamp)
    }
}

/// Asks each of these sockets something, a few at a time, and gives each answer to `sink`.
fn ask(
    pool: &mut Pool<WebSocket>,
    template: &Template,
    questions: impl IntoIterator<Item = (usize, Stamp)>,
    mut sink: impl FnMut(usize, &[u8]),
) -> Result<(), String> {
    const AT_ONCE: usize = 256;
    let mut questions = questions.into_iter().fuse();
    let mut open = 0;
    let mut progress = Instant::now();
    loop {
        for (index, stamp) in questions.by_ref().take(AT_ONCE - open) {
            template.write(stamp, pool.outgoing(index));
            pool.flush(index);
            open += 1;
        }
        if open == 0 {
            return Ok(());
        }
        let mut ended = false;
        pool.turn(TURN, |_, index, item, now| match item {
            Item::Open => {}
            Item::Message(message) => {
                open -= 1;
                progress = now;
                sink(index, message);
            }
            Item::End => ended = true,
        })?;
        if ended {
            return Err("the server closed a connection".to_owned());
        }
        if progress.elapsed() > ANSWER {
            return Err(format!("the server owes {open} answers"));
        }
    }
}

/// Subscribes sockets to channels.
fn join(
    context: Context,
    pool: &mut Pool<WebSocket>,
    memberships: impl IntoIterator<Item = (usize, u32)>,
) -> Result<(), String> {
    let message = Message {
        size: HEAD,
        binary: false,
    };
    let template = context.template(Kind::Join, message);
    let questions = memberships.into_iter().map(|(index, channel)| {
        let stamp = Stamp {
            channel,
            ..Stamp::default()
        };
        (index, stamp)
    });
    ask(pool, &template, questions, |_, _| {})
}
