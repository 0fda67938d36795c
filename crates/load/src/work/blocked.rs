//! Echo on sockets of one worker, in an open loop, first while all are quiet and then while another worker's thread is
//! blocked again and again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::paced::Paced;
use super::{Context, ask, settings};
use crate::arguments::{Blocked, Message};
use crate::meter::Meter;
use crate::payload::{HEAD, Kind, Stamp};
use crate::pool::Pool;
use crate::report::Report;
use crate::websocket::WebSocket;

pub(super) fn run(context: Context, options: Blocked) -> Result<Report, String> {
    let mut pool = context.pool()?;
    pool.open(options.sockets as usize, || context.client())?;
    let workers = by_worker(context, &mut pool)?;
    let mut groups = workers.values();
    let (Some(quiet), Some(blocked)) = (groups.next(), groups.next()) else {
        return Err(format!(
            "the server has {} worker, two are needed",
            workers.len()
        ));
    };

    let mut calm = Meter::new(context.window, context.server);
    let mut paced = Paced::new(context, options.message, options.rate, quiet);
    paced.run(&mut pool, &mut calm, |_, _| Ok(()))?;

    let mut loud = Meter::new(context.window, context.server);
    let mut blocker = Blocker::new(context, blocked[0], options.block);
    paced.run(&mut pool, &mut loud, |pool, answered| {
        blocker.turn(pool, answered)
    })?;
    Ok(Report {
        work: "blocked",
        unit: "message",
        settings: settings(&options),
        details: json!({
            "quiet": calm.measured()?.latency,
            "timesBlocked": blocker.times,
            "sentLate": paced.lateness(),
        }),
        measured: Some(loud.measured()?),
        faults: paced.faults(),
    })
}

const SHORT: Message = Message {
    size: HEAD,
    binary: false,
};

/// The sockets by the worker that handles them.
fn by_worker(
    context: Context,
    pool: &mut Pool<WebSocket>,
) -> Result<BTreeMap<Vec<u8>, Vec<usize>>, String> {
    let template = context.template(Kind::Identify, SHORT);
    let mut workers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let questions: Vec<_> = (0..pool.len())
        .map(|index| (index, Stamp::default()))
        .collect();
    ask(pool, &template, questions, |index, name| {
        workers.entry(name.to_vec()).or_default().push(index);
    })?;
    Ok(workers)
}

/// Blocks a worker, waits for its answer, leaves it alone for as long, and begins again.
struct Blocker {
    template: crate::websocket::Template,
    socket: usize,
    milliseconds: u32,
    /// When to block next; `None` while the answer is awaited.
    next: Option<Instant>,
    times: u32,
}

impl Blocker {
    fn new(context: Context, socket: usize, milliseconds: u32) -> Self {
        Self {
            template: context.template(Kind::Block, SHORT),
            socket,
            milliseconds,
            next: Some(Instant::now()),
            times: 0,
        }
    }

    fn turn(&mut self, pool: &mut Pool<WebSocket>, answered: Option<usize>) -> Result<(), String> {
        let now = Instant::now();
        if answered == Some(self.socket) {
            self.times += 1;
            self.next = Some(now + Duration::from_millis(u64::from(self.milliseconds)));
        }
        if self.next.is_some_and(|next| next <= now) {
            self.next = None;
            // Where others have a channel this one has the time.
            let stamp = Stamp {
                channel: self.milliseconds,
                ..Stamp::default()
            };
            self.template.write(stamp, pool.outgoing(self.socket));
            pool.flush(self.socket);
        }
        Ok(())
    }
}
