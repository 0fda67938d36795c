//! The engine's numbers as one plain object. What each means is told in `src/stats.cts`.

use neon::prelude::*;
use wsbroker_engine::stats::{Drops, Limited, WorkerStats};

use crate::broker;

pub(crate) fn stats(mut cx: FunctionContext) -> JsResult<JsObject> {
    let stats = broker().stats();
    let object = numbers(
        &mut cx,
        &[
            ("connections", stats.connections),
            ("channels", stats.channels),
            ("subscriptions", stats.subscriptions),
            ("pendingRequests", stats.pending_requests),
            ("pausedSockets", stats.paused_sockets),
            ("listeners", stats.listeners),
            ("ioThreads", stats.io_threads),
            ("acceptErrors", stats.accept_errors),
            ("opened", stats.opened),
            ("closed", stats.closed),
            ("requests", stats.requests),
            ("messagesIn", stats.messages_in),
            ("bytesIn", stats.bytes_in),
            ("messagesOut", stats.messages_out),
            ("bytesOut", stats.bytes_out),
        ],
    )?;
    let dropped = dropped(&mut cx, &stats.dropped)?;
    object.prop(&mut cx, "dropped").set(dropped)?;
    let limited = limited(&mut cx, &stats.limited)?;
    object.prop(&mut cx, "limited").set(limited)?;

    let workers = cx.empty_array();
    for (index, worker) in stats.workers.iter().enumerate() {
        let worker = worker_stats(&mut cx, worker)?;
        workers.prop(&mut cx, index as u32).set(worker)?;
    }
    object.prop(&mut cx, "workers").set(workers)?;
    Ok(object)
}

fn dropped<'cx>(cx: &mut Cx<'cx>, dropped: &Drops) -> JsResult<'cx, JsObject> {
    numbers(
        cx,
        &[
            ("slowConsumer", dropped.slow_consumer),
            ("queueFull", dropped.queue_full),
            ("socketClosed", dropped.socket_closed),
            ("notSubscribed", dropped.not_subscribed),
            ("workerEnded", dropped.worker_ended),
            ("workerEndedEvents", dropped.worker_ended_events),
            ("overRate", dropped.over_rate),
            ("overRateCloses", dropped.over_rate_closes),
            ("channelLimit", dropped.channel_limit),
            ("handlerTimeouts", dropped.handler_timeouts),
            ("handlerTimeoutMessages", dropped.handler_timeout_messages),
            ("lateResponses", dropped.late_responses),
            ("unansweredRequests", dropped.unanswered_requests),
            ("timedOutRequests", dropped.timed_out_requests),
            ("violations", dropped.violations),
            ("heartbeatTimeouts", dropped.heartbeat_timeouts),
            ("slowRequests", dropped.slow_requests),
            ("unreadResponses", dropped.unread_responses),
        ],
    )
}

fn limited<'cx>(cx: &mut Cx<'cx>, limited: &Limited) -> JsResult<'cx, JsObject> {
    numbers(
        cx,
        &[
            ("connections", limited.connections),
            ("connectionsPerIp", limited.connections_per_ip),
            ("upgradesPerIp", limited.upgrades_per_ip),
            ("requestsPerIp", limited.requests_per_ip),
            ("handshakes", limited.handshakes),
            ("origins", limited.origins),
            ("contradictions", limited.contradictions),
            ("banned", limited.banned),
            ("proxyProtocol", limited.proxy_protocol),
        ],
    )
}

fn worker_stats<'cx>(cx: &mut Cx<'cx>, worker: &WorkerStats) -> JsResult<'cx, JsObject> {
    let object = numbers(
        cx,
        &[
            ("id", u64::from(worker.id)),
            ("queuedEvents", worker.queued_events),
            ("queuedBytes", worker.queued_bytes),
            ("inHandEvents", worker.in_hand_events),
            ("events", worker.events),
        ],
    )?;
    object.prop(cx, "full").set(worker.full)?;
    Ok(object)
}

fn numbers<'cx>(cx: &mut Cx<'cx>, values: &[(&str, u64)]) -> JsResult<'cx, JsObject> {
    let object = cx.empty_object();
    for (name, value) in values {
        object.prop(cx, *name).set(*value as f64)?;
    }
    Ok(object)
}
