//! The options of `start`, from JavaScript to the engine.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use neon::prelude::*;
use wsbroker_engine::{
    Cidr, Compression, CompressionMemory, Heartbeat, Limits, ListenOptions, OnExceed, Origin,
    Origins, Peers, ProxyProtocol, Rate, SlowConsumer, SocketLimits, SocketRate, StartError,
    Subprotocol, TrustProxy,
};

use crate::origins::OriginFunction;
use crate::{convert, environment};

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
    parsed.max_header_size = number("maxHeaderSize")? as usize;
    parsed.max_headers = number("maxHeaders")? as usize;
    parsed.max_backpressure = number("maxBackpressure")? as usize;
    parsed.header_timeout = convert::milliseconds(number("headerTimeout")?);
    parsed.body_timeout = convert::milliseconds(number("bodyTimeout")?);
    parsed.min_body_rate = NonZeroU32::new(number("minBodyRate")? as u32);
    parsed.request_timeout = convert::milliseconds(number("requestTimeout")?);
    parsed.write_timeout = convert::milliseconds(number("writeTimeout")?);
    parsed.keep_alive_timeout = convert::milliseconds(number("keepAliveTimeout")?);
    parsed.heartbeat = match number("heartbeatInterval")? {
        0.0 => None,
        interval => Some(Heartbeat {
            interval: convert::milliseconds(interval),
            timeout: convert::milliseconds(number("heartbeatTimeout")?),
        }),
    };
    parsed.handler_timeout = match number("handlerTimeout")? {
        0.0 => None,
        timeout => Some(convert::milliseconds(timeout)),
    };
    parsed.close_timeout = convert::milliseconds(number("closeTimeout")?);
    parsed.io_threads = match number("ioThreads")? {
        0.0 => None,
        count => Some(count as usize),
    };
    let protocols = options.prop(cx, "protocols").get()?;
    parsed.protocols = match list::<Subprotocol>(cx, protocols, "protocols")? {
        Ok(protocols) => protocols,
        Err(error) => return Ok(Err(error)),
    };
    parsed.origins = match origins(cx, options)? {
        Ok(origins) => origins,
        Err(error) => return Ok(Err(error)),
    };
    parsed.compression = compression(cx, options)?;
    let drops: bool = options.prop(cx, "dropsForSlowConsumers").get()?;
    parsed.slow_consumer = if drops {
        SlowConsumer::Drop
    } else {
        SlowConsumer::Close
    };
    parsed.limits = limits(cx, options)?;
    parsed.trust_proxy = trust_proxy(cx, options)?;
    parsed.proxy_protocol = proxy_protocol(cx, options)?;
    Ok(Ok(parsed))
}

/// A list of origins; or a function, which belongs to this thread; or neither of them, which lets everybody in.
fn origins<'cx>(
    cx: &mut Cx<'cx>,
    options: Handle<'cx, JsObject>,
) -> NeonResult<Result<Origins, StartError>> {
    if let Some(judge) = options.prop(cx, "judgeOrigin").get()? {
        let function = OriginFunction::new(cx, judge);
        let is_main_thread: bool = options.prop(cx, "isMainThread").get()?;
        let mut environment = environment::get_or_create(cx, is_main_thread)?;
        environment.add_origin_function(function.clone());
        return Ok(Ok(Origins::Ask(Arc::new(function))));
    }
    let Some(origins) = options.prop(cx, "origins").get()? else {
        return Ok(Ok(Origins::Any));
    };
    Ok(list::<Origin>(cx, origins, "origins")?.map(|list| Origins::List(list.into())))
}

/// Strings, each of which the engine can parse.
fn list<'cx, T: FromStr>(
    cx: &mut Cx<'cx>,
    strings: Handle<'cx, JsArray>,
    name: &'static str,
) -> NeonResult<Result<Vec<T>, StartError>> {
    let mut parsed = Vec::new();
    for value in convert::array_values(cx, strings)? {
        let text = value.downcast_or_throw::<JsString, _>(cx)?.value(cx);
        match text.parse() {
            Ok(value) => parsed.push(value),
            Err(_) => {
                let expected = format!("other {name} than '{text}'");
                return Ok(Err(StartError::InvalidArgument { name, expected }));
            }
        }
    }
    Ok(Ok(parsed))
}

fn compression<'cx>(
    cx: &mut Cx<'cx>,
    options: Handle<'cx, JsObject>,
) -> NeonResult<Option<Compression>> {
    let Some(compression) = options
        .prop(cx, "compression")
        .get::<Option<Handle<JsObject>>>()?
    else {
        return Ok(None);
    };
    let memory: String = compression.prop(cx, "memory").get()?;
    let mut number = |name: &str| compression.prop(cx, name).get::<f64>();
    Ok(Some(Compression {
        threshold: number("threshold")? as usize,
        level: number("level")? as u8,
        window_bits: number("windowBits")? as u8,
        memory: match memory.as_str() {
            "dedicated" => CompressionMemory::Dedicated,
            _ => CompressionMemory::Shared,
        },
    }))
}

/// 0 is no limit.
fn limits<'cx>(cx: &mut Cx<'cx>, options: Handle<'cx, JsObject>) -> NeonResult<Limits> {
    let given: Handle<'cx, JsObject> = options.prop(cx, "limits").get()?;
    Ok(Limits {
        connections_per_ip: count(cx, given, "connectionsPerIp")?,
        upgrades_per_ip: rate(cx, given, "upgradesPerIp")?,
        requests_per_ip: rate(cx, given, "requestsPerIp")?,
        connections: count(cx, given, "connections")?,
        handshakes: count(cx, given, "handshakes")?,
        socket: SocketLimits {
            messages: socket_rate(cx, given, "messagesPerSocket")?,
            bytes: socket_rate(cx, given, "bytesPerSocket")?,
            channels: count(cx, given, "channelsPerSocket")?,
        },
    })
}

fn count<'cx>(
    cx: &mut Cx<'cx>,
    given: Handle<'cx, JsObject>,
    name: &str,
) -> NeonResult<Option<u32>> {
    let count: f64 = given.prop(cx, name).get()?;
    Ok((count > 0.0).then_some(count as u32))
}

/// A capacity of 0, which no rate has, is no limit.
fn rate<'cx>(
    cx: &mut Cx<'cx>,
    given: Handle<'cx, JsObject>,
    name: &str,
) -> NeonResult<Option<Rate>> {
    let rate: Handle<JsObject> = given.prop(cx, name).get()?;
    let capacity: f64 = rate.prop(cx, "capacity").get()?;
    let interval: f64 = rate.prop(cx, "interval").get()?;
    Ok(Rate::new(capacity as u32, convert::milliseconds(interval)))
}

fn socket_rate<'cx>(
    cx: &mut Cx<'cx>,
    limits: Handle<'cx, JsObject>,
    name: &str,
) -> NeonResult<Option<SocketRate>> {
    let limit: Handle<'cx, JsObject> = limits.prop(cx, name).get()?;
    let policy: f64 = limit.prop(cx, "onExceed").get()?;
    let on_exceed = match policy as u8 {
        1 => OnExceed::Drop,
        2 => OnExceed::Pause,
        _ => OnExceed::Close,
    };
    let rate = rate(cx, limits, name)?;
    Ok(rate.map(|rate| SocketRate { rate, on_exceed }))
}

/// A number of hops, or the addresses of the proxies.
fn trust_proxy<'cx>(cx: &mut Cx<'cx>, options: Handle<'cx, JsObject>) -> NeonResult<TrustProxy> {
    let value: Handle<JsValue> = options.prop(cx, "trustProxy").get()?;
    if let Ok(hops) = value.downcast::<JsNumber, _>(cx) {
        return Ok(match hops.value(cx) as u32 {
            0 => TrustProxy::Nobody,
            hops => TrustProxy::Hops(hops),
        });
    }
    Ok(TrustProxy::Peers(peers(cx, value)?))
}

/// For everybody, for nobody, or the addresses of those for whom it is on.
fn proxy_protocol<'cx>(
    cx: &mut Cx<'cx>,
    options: Handle<'cx, JsObject>,
) -> NeonResult<ProxyProtocol> {
    let value: Handle<JsValue> = options.prop(cx, "proxyProtocol").get()?;
    if let Ok(on) = value.downcast::<JsBoolean, _>(cx) {
        return Ok(if on.value(cx) {
            ProxyProtocol::Everybody
        } else {
            ProxyProtocol::Off
        });
    }
    Ok(ProxyProtocol::Peers(peers(cx, value)?))
}

/// Networks, and `unix` for those on a Unix socket. What is neither trusts nobody.
fn peers<'cx>(cx: &mut Cx<'cx>, value: Handle<'cx, JsValue>) -> NeonResult<Peers> {
    let mut peers = Peers::default();
    let names = value.downcast_or_throw::<JsArray, _>(cx)?;
    for name in convert::array_values(cx, names)? {
        let name = name.downcast_or_throw::<JsString, _>(cx)?.value(cx);
        if name == "unix" {
            peers.unix = true;
        }
        peers.networks.extend(name.parse::<Cidr>());
    }
    Ok(peers)
}
