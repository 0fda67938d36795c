//! The calls that are made for each message and each request, as plain callbacks of Node-API: what Neon puts around a
//! function takes as long as the call itself.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use neon::prelude::*;
use neon::sys::bindings as node_api;
use wsbroker_engine::{OutboundMessage, RequestId, Response, SocketId};

use crate::convert::Body;
use crate::value::RawValue;
use crate::{broker, convert};

/// A function for JavaScript with `N` arguments.
trait Direct<const N: usize> {
    const NAME: &'static str;

    fn call(arguments: [RawValue<'_>; N]) -> Answer;
}

/// What is thrown after a panic, which is a fault of this library.
const PANICKED: &str = "internal error in Rust, which stderr tells more of; please report it";

enum Answer {
    Boolean(bool),
    Count(usize),
}

/// `(socketId, data) → boolean`
struct Send;

impl Direct<2> for Send {
    const NAME: &'static str = "send";

    fn call([socket, data]: [RawValue<'_>; 2]) -> Answer {
        let socket = id(socket);
        let queued = convert::with_message_of(data, |message| {
            socket.is_some_and(|socket| broker().send(socket, message))
        });
        Answer::Boolean(queued == Some(true))
    }
}

/// `(channel, data, except) → number`. The last is the socket to leave out; 0, which is no id, leaves out none.
struct SendToChannel;

impl Direct<3> for SendToChannel {
    const NAME: &'static str = "sendToChannel";

    fn call([channel, data, except]: [RawValue<'_>; 3]) -> Answer {
        let channel = convert::channel_name_of(channel);
        let except = id(except);
        let receivers = convert::with_message_of(data, |message: &OutboundMessage<'_>| {
            channel.map_or(0, |channel| {
                broker().send_to_channel(&channel, message, except)
            })
        });
        Answer::Count(receivers.unwrap_or(0))
    }
}

/// `(requestId, status, packed headers, body) → boolean`. A number stands for the headers of a plain text, which most
/// answers have and no others.
struct Respond;

impl Direct<4> for Respond {
    const NAME: &'static str = "respond";

    fn call([request, status, headers, body]: [RawValue<'_>; 4]) -> Answer {
        let request = request.number().map(|id| id as u64);
        let Some(request) = request.and_then(RequestId::new) else {
            return Answer::Boolean(false);
        };
        let status = status.number().unwrap_or_default() as u16;
        let answered = body.with_data(|body| {
            let body = body.into();
            if headers.number().is_some() {
                let headers = Response::PACKED_TEXT_PLAIN.into();
                return Some(respond(request, status, headers, body));
            }
            headers.with_data(|headers| {
                respond(request, status, convert::latin1(headers.as_bytes()), body)
            })
        });
        Answer::Boolean(answered.flatten() == Some(true))
    }
}

fn respond(request: RequestId, status: u16, headers: Cow<'_, [u8]>, body: Body<'_>) -> bool {
    match body {
        Body::Short(body) if headers.len() <= convert::SHORT => {
            broker().respond_copied(request, status, &headers, body)
        }
        body => {
            let response = Response {
                status,
                headers: Response::unpack_headers(&headers.into_owned().into()),
                body: body.into_bytes(),
            };
            broker().respond(request, response)
        }
    }
}

/// `as` saturates and turns NaN into 0, which is no id.
fn id(value: RawValue<'_>) -> Option<SocketId> {
    SocketId::new(value.number()? as u64)
}

pub(crate) fn export(cx: &mut ModuleContext) -> NeonResult<()> {
    export_one::<Send, 2>(cx)?;
    export_one::<SendToChannel, 3>(cx)?;
    export_one::<Respond, 4>(cx)
}

fn export_one<C: Direct<N>, const N: usize>(cx: &mut ModuleContext) -> NeonResult<()> {
    let mut function = ptr::null_mut();
    // SAFETY: the name is so many bytes of UTF-8, the callback is a function of the library, which stays in memory, and
    // needs no data.
    let status = unsafe {
        node_api::create_function(
            cx.to_raw(),
            C::NAME.as_ptr().cast(),
            C::NAME.len(),
            Some(callback::<C, N>),
            ptr::null_mut(),
            &raw mut function,
        )
    };
    if status.is_err() {
        return cx.throw_error("a function of the addon cannot be made");
    }
    // SAFETY: it is a function, just made in the handle scope of `cx`.
    let function = unsafe { JsFunction::from_raw(cx, function) };
    cx.export_value(C::NAME, function)
}

/// Node-API's side of a call.
unsafe extern "C" fn callback<C: Direct<N>, const N: usize>(
    env: node_api::Env,
    info: node_api::CallbackInfo,
) -> node_api::Value {
    let mut values = [ptr::null_mut(); N];
    let mut count = N;
    let mut answer = ptr::null_mut();
    // SAFETY: `env` and `info` are those of the call that Node-API makes here. It writes as many values as `count` says, with
    // `undefined` for those that were not given.
    let status = unsafe {
        let (this, data) = (ptr::null_mut(), ptr::null_mut());
        node_api::get_cb_info(env, info, &raw mut count, values.as_mut_ptr(), this, data)
    };
    if status.is_err() {
        return answer;
    }
    // SAFETY: arguments are alive until the callback returns, and `call` can keep nothing for longer.
    let arguments = values.map(|value| unsafe { RawValue::new(env, value) });
    // A panic must not unwind into Node. The engine's locks are released by one, and its state is what it is for callers
    // in Rust; the panic hook has told of it, and the caller learns of it by an exception.
    let called = catch_unwind(AssertUnwindSafe(|| C::call(arguments)));
    // SAFETY: results go to a local, which stays null if a call is refused.
    let _ = unsafe {
        match called {
            Ok(Answer::Boolean(value)) => node_api::get_boolean(env, value, &raw mut answer),
            Ok(Answer::Count(count)) => node_api::create_double(env, count as f64, &raw mut answer),
            Err(_) => throw(env, PANICKED),
        }
    };
    answer
}

/// # Safety
/// `env` is the environment of the call from JavaScript that is under way.
unsafe fn throw(env: node_api::Env, text: &str) -> Result<(), node_api::Status> {
    let (mut message, mut error) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `env` is what the caller says, the text is so many bytes of UTF-8, and results go to locals.
    unsafe {
        let start = text.as_ptr().cast();
        node_api::create_string_utf8(env, start, text.len(), &raw mut message)?;
        node_api::create_error(env, ptr::null_mut(), message, &raw mut error)?;
        node_api::throw(env, error)
    }
}
