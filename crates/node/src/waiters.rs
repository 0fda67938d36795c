//! What an application waits for of a socket: that nothing waits for it any more, or that it begins to close.

use neon::event::Channel;
use neon::handle::Root;
use neon::prelude::*;

use crate::worker::call_ignoring_exceptions;
use crate::{broker, convert};

/// `(socketId, onDrained)`: `onDrained(1)` is called once when nothing waits for the socket any more, `onDrained(0)` when it has
/// ended before. The event loop of this thread does not end before.
pub(crate) fn when_drained(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let on_drained = cx.argument::<JsFunction>(1)?.root(&mut cx);
    let channel = cx.channel();
    if let Some(socket) = socket {
        let then = move |is_drained: bool| call(&channel, on_drained, Some(is_drained));
        broker().when_drained(socket, Box::new(then));
    }
    Ok(cx.undefined())
}

/// `(socketId, onClosed) → boolean`: `onClosed()` is called once when the socket begins to close, and keeps no event loop alive.
/// False: the socket is gone, and nothing is called.
pub(crate) fn when_closed(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let on_closed = cx.argument::<JsFunction>(1)?.root(&mut cx);
    let mut channel = cx.channel();
    channel.unref(&mut cx);
    let is_open = socket.is_some_and(|socket| {
        let then = move || call(&channel, on_closed, None);
        broker().when_closed(socket, Box::new(then))
    });
    Ok(cx.boolean(is_open))
}

/// Has a thread call this. One that has ended waits for nothing.
fn call(channel: &Channel, function: Root<JsFunction>, answer: Option<bool>) {
    let _ = channel.try_send(move |mut cx| {
        let function = function.into_inner(&mut cx);
        let answer = answer.map(|answer| cx.number(u8::from(answer)));
        call_ignoring_exceptions(&mut cx, function, answer.as_slice());
        Ok(())
    });
}
