//! The Node addon of wsbroker. It converts, calls and converts: what a value means is decided in the engine,
//! what an application may pass is checked in the TypeScript of the package.
//!
//! | module | its subject |
//! |---|---|
//! | [`pin`] | the library stays in memory as long as the process runs |
//! | [`environment`] | what belongs to one JavaScript thread, and its end |
//! | [`worker`] | a thread that handles events: registering, waking, handing over batches |
//! | [`event_loop`] | wakes the event loop of a thread |
//! | [`keep_alive`] | when a thread's event loop must not end |
//! | [`serve`] | `start` and `stop` |
//! | [`origins`] | the application's function that judges origins |
//! | [`listen_options`] | what `start` is told, as the engine takes it |
//! | [`calls`] | the calls on sockets, channels and requests |
//! | [`waiters`] | what an application waits for of a socket |
//! | [`direct`] | those of them that are made for each message |
//! | [`stats`] | the engine's numbers as an object |
//! | [`log`] | the engine's log lines on stderr |
//! | [`convert`] | JavaScript values to and from the engine's types |
//! | [`value`] | what Node-API tells of one value |
//! | [`in_hand`] | what of the batch that a thread works through does not cross with it |
//! | [`large_text`] | strings of large texts |
//! | [`host`] | functions of the runtime that Neon does not know |
//!
//! **No export throws**, unless this library has panicked. A refusal is a return value, which the TypeScript turns into its own error class: Node-API
//! cannot throw in a thread that is being terminated, and Neon answers that with an abort of the process.

mod calls;
mod convert;
mod direct;
mod environment;
mod event_loop;
mod host;
mod in_hand;
mod keep_alive;
mod large_text;
mod listen_options;
mod log;
mod origins;
mod pin;
mod serve;
mod stats;
mod value;
mod waiters;
mod worker;

use std::sync::OnceLock;

use neon::prelude::*;
use wsbroker_engine::{Broker, BrokerOptions};

/// The one broker of the process, shared by all threads that load the addon. It is never dropped: its I/O threads
/// outlive every JavaScript environment.
fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        log::start();
        Broker::new(BrokerOptions::default())
    })
}

#[neon::main]
fn main(mut cx: ModuleContext) -> NeonResult<()> {
    pin::keep_loaded();

    // Tells copies of this library apart: each that is loaded from a file of its own has a broker of its own.
    let place = cx.number(broker as fn() -> &'static Broker as usize as f64);
    cx.export_value("place", place)?;
    cx.export_function("register", worker::register)?;
    cx.export_function("retire", worker::retire)?;
    cx.export_function("release", worker::release)?;
    cx.export_function("end", worker::end)?;
    cx.export_function("take", worker::take)?;
    cx.export_function("takeAgain", worker::take_again)?;
    cx.export_function("takeLargeText", worker::take_large_text)?;
    cx.export_function("beginClose", worker::begin_close)?;
    cx.export_function("cork", worker::cork)?;
    cx.export_function("uncork", worker::uncork)?;

    cx.export_function("start", serve::start)?;
    cx.export_function("stop", serve::stop)?;

    direct::export(&mut cx)?;
    cx.export_function("broadcast", calls::broadcast)?;
    cx.export_function("close", calls::close)?;
    cx.export_function("handlerTimedOut", calls::handler_timed_out)?;
    cx.export_function("giveUpMessages", calls::give_up_messages)?;
    cx.export_function("pause", calls::pause)?;
    cx.export_function("resume", calls::resume)?;
    cx.export_function("subscribe", calls::subscribe)?;
    cx.export_function("unsubscribe", calls::unsubscribe)?;
    cx.export_function("copySubscriptions", calls::copy_subscriptions)?;
    cx.export_function("setToken", calls::set_token)?;
    cx.export_function("getToken", calls::token)?;
    cx.export_function("setMessageRoute", calls::set_message_route)?;
    cx.export_function("subscriberCount", calls::subscriber_count)?;
    cx.export_function("subscribers", calls::subscribers)?;
    cx.export_function("channels", calls::channels)?;
    cx.export_function("channelCount", calls::channel_count)?;
    cx.export_function("connectionCount", calls::connection_count)?;
    cx.export_function("connections", calls::connections)?;
    cx.export_function("bufferedAmount", calls::buffered_amount)?;
    cx.export_function("whenDrained", waiters::when_drained)?;
    cx.export_function("whenClosed", waiters::when_closed)?;
    cx.export_function("ban", calls::ban)?;
    cx.export_function("unban", calls::unban)?;
    cx.export_function("bans", calls::bans)?;
    cx.export_function("accept", calls::accept)?;
    cx.export_function("refuse", calls::refuse)?;

    cx.export_function("stats", stats::stats)?;
    Ok(())
}
