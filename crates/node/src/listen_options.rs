//! The options of `start`, from JavaScript to the engine.

use neon::prelude::*;
use wsbroker_engine::{Heartbeat, ListenOptions, SlowConsumer, StartError};

use crate::convert;

/// Every option is there and has been checked; what the engine still refuses is the answer.
pub(crate) fn parse<'cx>(
    cx: &mut Cx<'cx>,
    options: Handle<'cx, JsObject>,
) -> NeonResult<Result<ListenOptions, StartError>> {
    let bind: String = options.prop(cx, "bind").get()?;
    let bind = match bind.parse() {
        Ok(bind) => bind,
        Err(error) => return Ok(Err(error)),
    };
    let mut number = |name: &str| options.prop(cx, name).get::<f64>();
    let mut parsed = ListenOptions::new(bind);
    parsed.max_message_size = number("maxMessageSize")? as usize;
    parsed.max_body_size = number("maxBodySize")? as usize;
    parsed.max_backpressure = number("maxBackpressure")? as usize;
    parsed.request_timeout = convert::milliseconds(number("requestTimeout")?);
    parsed.close_timeout = convert::milliseconds(number("closeTimeout")?);
    parsed.header_timeout = convert::milliseconds(number("headerTimeout")?);
    parsed.body_timeout = convert::milliseconds(number("bodyTimeout")?);
    parsed.io_threads = match number("ioThreads")? {
        0.0 => None,
        count => Some(count as usize),
    };
    parsed.heartbeat = match number("heartbeatInterval")? {
        0.0 => None,
        interval => Some(Heartbeat {
            interval: convert::milliseconds(interval),
            timeout: convert::milliseconds(number("heartbeatTimeout")?),
        }),
    };
    let drops: bool = options.prop(cx, "dropsForSlowConsumers").get()?;
    parsed.slow_consumer = if drops {
        SlowConsumer::Drop
    } else {
        SlowConsumer::Close
    };
    Ok(Ok(parsed))
}
