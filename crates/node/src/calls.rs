//! The calls on sockets, channels and requests. Each converts its arguments, makes one call of the engine and
//! converts the answer. Their types as JavaScript sees them are in `src/native.cts`. Those that are made for each message
//! are in [`direct`](crate::direct).

use std::time::{Duration, UNIX_EPOCH};

use neon::prelude::*;
use wsbroker_engine::{Acceptance, ChannelLimit, Cidr, NativeRoute, SocketId, UpgradeDecision};

use crate::{broker, convert};

pub(crate) fn broadcast(mut cx: FunctionContext) -> JsResult<JsNumber> {
    let receivers = convert::with_message(&mut cx, 0, |message| broker().broadcast(message))?;
    count(&mut cx, receivers)
}

pub(crate) fn close(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let code = convert::number(&mut cx, 1)? as u16;
    let reason = convert::text(&mut cx, 2)?;
    let was_open = socket.is_some_and(|socket| broker().close(socket, code, &reason));
    Ok(cx.boolean(was_open))
}

/// `(socketId, lostMessages)`
pub(crate) fn handler_timed_out(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let lost = convert::number(&mut cx, 1)? as u64;
    if let Some(socket) = socket {
        broker().handler_timed_out(socket, lost);
    }
    Ok(cx.undefined())
}

pub(crate) fn give_up_messages(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let count = convert::number(&mut cx, 0)? as u64;
    broker().messages_given_up(count);
    Ok(cx.undefined())
}

pub(crate) fn pause(cx: FunctionContext) -> JsResult<JsBoolean> {
    of_socket(cx, |socket| broker().pause(socket))
}

pub(crate) fn resume(cx: FunctionContext) -> JsResult<JsBoolean> {
    of_socket(cx, |socket| broker().resume(socket))
}

fn of_socket(mut cx: FunctionContext, call: impl FnOnce(SocketId) -> bool) -> JsResult<JsBoolean> {
    let answer = convert::socket_id(&mut cx, 0)?.is_some_and(call);
    Ok(cx.boolean(answer))
}

/// A boolean, or the number of channels that the socket is in when it may be in no more.
pub(crate) fn subscribe(mut cx: FunctionContext) -> JsResult<JsValue> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let channel = convert::channel_name(&mut cx, 1)?;
    let subscribed = match socket.zip(channel) {
        Some((socket, channel)) => broker().subscribe(socket, &channel),
        None => Ok(false),
    };
    Ok(match subscribed {
        Ok(added) => cx.boolean(added).upcast(),
        Err(ChannelLimit(most)) => cx.number(most).upcast(),
    })
}

pub(crate) fn unsubscribe(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let channel = convert::channel_name(&mut cx, 1)?;
    let removed = socket
        .zip(channel)
        .is_some_and(|(socket, channel)| broker().unsubscribe(socket, &channel));
    Ok(cx.boolean(removed))
}

pub(crate) fn copy_subscriptions(mut cx: FunctionContext) -> JsResult<JsNumber> {
    let from = convert::channel_name(&mut cx, 0)?;
    let to = convert::channel_name(&mut cx, 1)?;
    let added = from
        .zip(to)
        .map_or(0, |(from, to)| broker().copy_subscriptions(&from, &to));
    count(&mut cx, added)
}

pub(crate) fn set_token(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let token = convert::optional_bytes(&mut cx, 1)?;
    let set = socket.is_some_and(|socket| broker().set_token(socket, token));
    Ok(cx.boolean(set))
}

pub(crate) fn token(mut cx: FunctionContext) -> JsResult<JsValue> {
    match convert::socket_id(&mut cx, 0)?.and_then(|socket| broker().token(socket)) {
        Some(token) => Ok(convert::buffer(&mut cx, &token)?.upcast()),
        None => Ok(cx.undefined().upcast()),
    }
}

/// `(socketId, kind, channel)`
pub(crate) fn set_message_route(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let socket = convert::socket_id(&mut cx, 0)?;
    let route = route(&mut cx, 1)?;
    let set = socket.is_some_and(|socket| broker().set_message_route(socket, route));
    Ok(cx.boolean(set))
}

/// Two arguments from `index` on: the number that `src/route.cts` has for it, and a channel.
fn route(cx: &mut FunctionContext, index: usize) -> NeonResult<Option<NativeRoute>> {
    let kind = convert::number(cx, index)? as u8;
    let channel = convert::channel_name(cx, index + 1)?;
    Ok(match (kind, channel) {
        (1, _) => Some(NativeRoute::Echo),
        (2 | 3, Some(channel)) => Some(NativeRoute::Relay {
            channel,
            echo: kind == 3,
        }),
        _ => None,
    })
}

pub(crate) fn subscriber_count(mut cx: FunctionContext) -> JsResult<JsNumber> {
    let subscribers =
        convert::channel_name(&mut cx, 0)?.map_or(0, |channel| broker().subscriber_count(&channel));
    count(&mut cx, subscribers)
}

pub(crate) fn subscribers(mut cx: FunctionContext) -> JsResult<JsFloat64Array> {
    let subscribers =
        convert::channel_name(&mut cx, 0)?.map(|channel| broker().subscribers(&channel));
    convert::id_array(&mut cx, &subscribers.unwrap_or_default())
}

pub(crate) fn channels(mut cx: FunctionContext) -> JsResult<JsArray> {
    let names = convert::socket_id(&mut cx, 0)?.map(|socket| broker().channels(socket));
    let array = cx.empty_array();
    for (index, name) in names.unwrap_or_default().iter().enumerate() {
        let name = convert::buffer(&mut cx, name.as_bytes())?;
        array.prop(&mut cx, index as u32).set(name)?;
    }
    Ok(array)
}

pub(crate) fn channel_count(mut cx: FunctionContext) -> JsResult<JsNumber> {
    count(&mut cx, broker().channel_count())
}

pub(crate) fn connection_count(mut cx: FunctionContext) -> JsResult<JsNumber> {
    count(&mut cx, broker().connection_count())
}

pub(crate) fn connections(mut cx: FunctionContext) -> JsResult<JsFloat64Array> {
    convert::id_array(&mut cx, &broker().connections())
}

pub(crate) fn buffered_amount(mut cx: FunctionContext) -> JsResult<JsNumber> {
    let bytes =
        convert::socket_id(&mut cx, 0)?.map_or(0, |socket| broker().buffered_amount(socket));
    count(&mut cx, bytes)
}

/// `(requestId, token?, channels, protocol?, packed headers, kind of route, its channel)`
pub(crate) fn accept(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let request = convert::request_id(&mut cx, 0)?;
    let acceptance = Acceptance {
        token: convert::optional_bytes(&mut cx, 1)?,
        channels: convert::channel_names(&mut cx, 2)?,
        protocol: convert::optional_text(&mut cx, 3)?,
        headers: convert::headers(&mut cx, 4)?,
        route: route(&mut cx, 5)?,
    };
    let decided = request
        .is_some_and(|request| broker().decide(request, UpgradeDecision::Accept(acceptance)));
    Ok(cx.boolean(decided))
}

/// `(requestId, status, packed headers, body)`
pub(crate) fn refuse(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let request = convert::request_id(&mut cx, 0)?;
    let response = convert::response(&mut cx, 1)?;
    let decided =
        request.is_some_and(|request| broker().decide(request, UpgradeDecision::Refuse(response)));
    Ok(cx.boolean(decided))
}

/// `(network, milliseconds)`: 0 is until further notice. How many sockets it closed.
pub(crate) fn ban(mut cx: FunctionContext) -> JsResult<JsNumber> {
    let network = network(&mut cx)?;
    let duration = match convert::number(&mut cx, 1)? {
        0.0 => None,
        milliseconds => Some(Duration::from_millis(milliseconds as u64)),
    };
    let closed = network.map_or(0, |network| broker().ban(network, duration));
    count(&mut cx, closed)
}

pub(crate) fn unban(mut cx: FunctionContext) -> JsResult<JsBoolean> {
    let was_banned = network(&mut cx)?.is_some_and(|network| broker().unban(network));
    Ok(cx.boolean(was_banned))
}

/// `{ address, expires }` each; `expires` as `Date.now()` counts, undefined for none.
pub(crate) fn bans(mut cx: FunctionContext) -> JsResult<JsArray> {
    let array = cx.empty_array();
    for (index, ban) in broker().bans().iter().enumerate() {
        let expires = ban
            .ends
            .and_then(|ends| ends.duration_since(UNIX_EPOCH).ok());
        let object = cx.empty_object();
        let mut object_props = object.prop(&mut cx, "address");
        object_props.set(ban.network.to_string())?;
        object_props
            .prop("expires")
            .set(expires.map(|expires| expires.as_millis() as f64))?;
        array.prop(&mut cx, index as u32).set(object)?;
    }
    Ok(array)
}

fn network(cx: &mut FunctionContext) -> NeonResult<Option<Cidr>> {
    Ok(convert::text(cx, 0)?.parse().ok())
}

/// A count of things in memory, which a double holds exactly.
fn count<'cx>(cx: &mut Cx<'cx>, value: usize) -> JsResult<'cx, JsNumber> {
    Ok(cx.number(value as f64))
}
