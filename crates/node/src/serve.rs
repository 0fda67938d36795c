//! `start` and `stop`: options in, a listener out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use neon::prelude::*;
use wsbroker_engine::{ListenAddress, Listener, StopOptions, StopSummary};

use crate::worker::call_ignoring_exceptions;
use crate::{broker, convert, keep_alive, listen_options};

/// The listeners that run, by the number that JavaScript knows them by. They belong to the process: the thread that
/// started one may end before it.
#[derive(Default)]
struct Listeners {
    by_number: HashMap<u32, Listener>,
    last_number: u32,
}

/// Protects the table alone. Starting and stopping happen outside of it.
static LISTENERS: Mutex<Option<Listeners>> = Mutex::new(None);

fn with_listeners<R>(change: impl FnOnce(&mut Listeners) -> R) -> R {
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    change(listeners.get_or_insert_default())
}

/// `(options) → { server, host, port } | { server, path } | { code, message }`
pub(crate) fn start(mut cx: FunctionContext) -> JsResult<JsObject> {
    let options = cx.argument::<JsObject>(0)?;
    let answer = cx.empty_object();
    match listen_options::parse(&mut cx, options)?.and_then(|parsed| broker().listen(parsed)) {
        Ok(listener) => {
            let address = listener.address().clone();
            let number = with_listeners(|listeners| {
                listeners.last_number += 1;
                listeners.by_number.insert(listeners.last_number, listener);
                listeners.last_number
            });
            keep_alive::server_started();
            // The other threads are told through their event loops. This one might be about to end.
            keep_alive::apply(&mut cx);

            let mut answer = answer.prop(&mut cx, "server");
            answer.set(number)?;
            match address {
                ListenAddress::Inet(address) => {
                    answer.prop("host").set(address.ip().to_string())?;
                    answer.prop("port").set(f64::from(address.port()))?;
                }
                ListenAddress::Unix(path) => {
                    answer.prop("path").set(path.to_string_lossy().as_ref())?;
                }
            }
        }
        Err(error) => {
            let mut answer = answer.prop(&mut cx, "code");
            answer.set(error.code())?;
            answer.prop("message").set(error.to_string())?;
        }
    }
    Ok(answer)
}

/// `(server, timeout, spread, code, reason, onStopped) → boolean`: false when this server was stopped before.
/// `onStopped(closed, forced)` is called once, and this thread's event loop does not end before.
pub(crate) fn stop(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let number = convert::number(&mut cx, 0)? as u32;
    let options = StopOptions {
        timeout: convert::milliseconds(convert::number(&mut cx, 1)?),
        spread: convert::milliseconds(convert::number(&mut cx, 2)?),
        code: convert::number(&mut cx, 3)? as u16,
        reason: convert::text(&mut cx, 4)?,
    };
    let on_stopped = cx.argument::<JsFunction>(5)?.root(&mut cx);
    let Some(listener) = with_listeners(|listeners| listeners.by_number.remove(&number)) else {
        return Ok(cx.boolean(false));
    };
    // This one is referenced, which keeps the event loop alive until it is dropped after the call.
    let channel = cx.channel();
    let done = move |summary: StopSummary| {
        keep_alive::server_stopped();
        // Fails when the thread has ended meanwhile; then nobody waits for the answer.
        let _ = channel.try_send(move |mut cx| {
            let on_stopped = on_stopped.into_inner(&mut cx);
            let closed = cx.number(summary.closed as f64);
            let forced = cx.number(summary.forced as f64);
            call_ignoring_exceptions(&mut cx, on_stopped, &[closed, forced]);
            Ok(())
        });
    };
    listener.stop(options, Box::new(done));
    Ok(cx.boolean(true))
}
