//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::payload::{CHANNELS, HEAD};

/// Loads a server and prints one JSON object: what it did in the measured window, whose CPU time that took, latencies,
/// and what was missing, duplicated, disordered or damaged. Exit code 3: something was.
#[derive(Debug, Parser)]
#[command(name = "wsbroker-load", version)]
pub(crate) struct Arguments {
    /// The server, for example 127.0.0.1:3000.
    #[arg(long, global = true, default_value = "127.0.0.1:3000")]
    pub(crate) address: String,
    /// Allow an address that is not loopback.
    #[arg(long, global = true)]
    pub(crate) any_address: bool,
    /// The server's process, for its CPU time and memory.
    #[arg(long, global = true)]
    pub(crate) pid: Option<i32>,
    /// What the server's messages are wrapped in.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) dialect: Dialect,
    #[command(flatten)]
    pub(crate) window: Window,
    #[command(subcommand)]
    pub(crate) work: Work,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    /// A message is a WebSocket message.
    #[default]
    Plain,
    /// A message is an event named `m` of Socket.IO over its WebSocket transport.
    SocketIo,
}

/// When is measured.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Window {
    /// Seconds before the window.
    #[arg(long, global = true, default_value = "1", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// So much must have been done before the window too, unless ten times the warm-up's seconds pass.
    #[arg(long, global = true, default_value_t = 2000)]
    pub(crate) warm_up_count: u64,
    /// Seconds of the window.
    #[arg(long, global = true, default_value = "3", value_parser = seconds)]
    pub(crate) seconds: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Work {
    /// Every socket sends messages and gets them back.
    Echo(Echo),
    /// Publishers send to channels; counted are the copies that arrive.
    Fanout(Fanout),
    /// Open, upgrade, one message and its echo, close.
    Connect(Connect),
    /// Sockets that have said one message and are silent: resident memory.
    Idle(Idle),
    /// HTTP requests on connections that stay.
    Http(Http),
    /// One publish to many sockets of this process, which sleeps meanwhile: from the publish to the last arrival.
    Burst(Burst),
    /// Echo on sockets of one worker, while another worker's thread is blocked again and again.
    Blocked(Blocked),
    /// How far two cores of this machine are from each other; without a server.
    Distance(Distance),
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    /// Bytes of a message.
    #[arg(long, default_value_t = 64, value_parser = size)]
    pub(crate) size: usize,
    /// Binary messages; otherwise text.
    #[arg(long)]
    pub(crate) binary: bool,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Echo {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sockets: u32,
    /// Messages of one socket that are under way.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Open loop: so many messages a second over all sockets, whatever comes back; latencies are from the time at
    /// which a message was due.
    #[arg(long, conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fanout {
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) publishers: u32,
    /// The first subscribers are the publishers, each in its own channel, and get their messages too; otherwise publishers
    /// are sockets that are in no channel.
    #[arg(long)]
    pub(crate) members: bool,
    /// Subscribers are dealt to the channels in turn, publishers go through theirs in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..i64::from(CHANNELS)))]
    pub(crate) channels: u32,
    /// Further channels, which the subscribers are in and nobody publishes to.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..i64::from(CHANNELS)))]
    pub(crate) quiet_channels: u32,
    /// Messages of one publisher that are under way: one is when any of its copies is. This bounds what waits for a
    /// socket: publishers × in-flight messages.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connect {
    /// Cycles that are under way.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sockets: u32,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Idle {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sockets: u32,

    /// Sockets that are opened and used before the first measurement, so that code, its compilation, threads and first
    /// buffers are not counted. They stay open: memory that they left behind would be taken again and not be seen
    #[arg(long, default_value_t = 1000)]
    pub(crate) warm_up_sockets: u32,
    /// When all are open, print `{"open":…}` and hold them until a line, or the end, comes on standard input.
    #[arg(long)]
    pub(crate) hold: bool,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Beside `GET /`, in turn: `POST /` of 100 bytes and of 10,000, which come back.
    #[arg(long)]
    pub(crate) mixed: bool,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Burst {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// How often.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) bursts: u32,
    /// Milliseconds of sleep after each publish; longer than the server needs.
    #[arg(long, default_value_t = 200)]
    pub(crate) sleep: u32,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blocked {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) sockets: u32,
    /// Messages a second over all sockets of the worker that is not blocked.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,
    /// Milliseconds for which the other worker is blocked at a time; as long again it is left alone.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..i64::from(CHANNELS)))]
    pub(crate) block: u32,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Distance {
    /// The number of a core.
    pub(crate) from: usize,
    /// The number of another.
    pub(crate) to: usize,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (HEAD..=1 << 30).contains(&size) => Ok(size),
        _ => Err(format!("expected a number of bytes from {HEAD} to 2^30")),
    }
}
