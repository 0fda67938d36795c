//! The options of `start`, from JavaScript to the engine.

use neon::prelude::*;
use wsbroker_engine::{
    Cidr, Heartbeat, Limits, ListenOptions, Peers, ProxyProtocol, Rate, SlowConsumer, StartError,
    TrustProxy,
};

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
    let given: Handle<JsObject> = options.prop(cx, "limits").get()?;
    parsed.limits = limits(cx, given)?;
    parsed.trust_proxy = trust_proxy(cx, options)?;
    parsed.proxy_protocol = proxy_protocol(cx, options)?;
    Ok(Ok(parsed))
}

/// 0 is no limit.
fn limits<'cx>(cx: &mut Cx<'cx>, given: Handle<'cx, JsObject>) -> NeonResult<Limits> {
    let connections_per_ip = count(cx, given, "connectionsPerIp")?;
    let connections = count(cx, given, "connections")?;
    Ok(Limits {
        connections_per_ip,
        upgrades_per_ip: rate(cx, given, "upgradesPerIp")?,
        requests_per_ip: rate(cx, given, "requestsPerIp")?,
        connections,
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
    for name in value.downcast_or_throw::<JsArray, _>(cx)?.to_vec(cx)? {
        let name = name.downcast_or_throw::<JsString, _>(cx)?.value(cx);
        if name == "unix" {
            peers.unix = true;
        }
        peers.networks.extend(name.parse::<Cidr>());
    }
    Ok(peers)
}
