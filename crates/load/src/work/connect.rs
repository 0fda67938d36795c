//! Connect storm: open, upgrade, one message and its echo, close with a close frame.

use std::time::Instant;

use super::{Checker, Context, LAST_ARRIVALS, TURN, settings};
use crate::arguments::Connect;
use crate::ledger::Faults;
use crate::meter::Meter;
use crate::payload::{Kind, Stamp};
use crate::pool::words;
use crate::report::Report;
use crate::stream::Item;
use crate::websocket::close_frame;

/// One connection of the storm; another takes its place when it has ended.
struct Cycle {
    number: u64,
    began: Instant,
    echoed: bool,
    ended: bool,
}

pub(super) fn run(context: Context, options: Connect) -> Result<Report, String> {
    let mut pool = context.pool()?;
    let template = context.template(Kind::Echo, options.message);
    let checker = Checker::new(Kind::Echo, options.message.size);
    let close = close_frame();
    let mut meter = Meter::new(context.window, context.server);
    let mut faults = Faults::default();
    let (mut begun, mut done) = (0, 0);
    let mut cycles: Vec<Cycle> = Vec::new();
    let mut next = || {
        begun += 1;
        Cycle {
            number: begun,
            began: Instant::now(),
            echoed: false,
            ended: false,
        }
    };
    for _ in 0..options.sockets {
        cycles.push(next());
        pool.begin(context.client()).map_err(words)?;
    }

    let mut ended = Vec::new();
    let mut beginning = true;
    let mut last_arrivals = Instant::now();
    loop {
        pool.turn(TURN, |outgoing, index, item, now| {
            let cycle = &mut cycles[index];
            match item {
                Item::Open => {
                    let stamp = Stamp {
                        channel: 0,
                        sender: index as u32,
                        sequence: cycle.number,
                    };
                    template.write(stamp, outgoing);
                }
                Item::Message(message) => {
                    let right = checker.stamp(message).is_some_and(|stamp| {
                        stamp.sender as usize == index && stamp.sequence == cycle.number
                    });
                    match (right, cycle.echoed) {
                        (false, _) => faults.damaged += 1,
                        (true, true) => faults.duplicated += 1,
                        (true, false) => outgoing.push(&close),
                    }
                    cycle.echoed = true;
                }
                Item::End => {
                    cycle.ended = true;
                    if cycle.echoed {
                        done += 1;
                        meter.latency(now - cycle.began);
                    } else {
                        faults.broken += 1;
                    }
                    ended.push(index);
                }
            }
        })?;
        if beginning {
            for index in ended.drain(..) {
                cycles[index] = next();
                pool.begin_again(index, context.client()).map_err(words)?;
            }
            beginning = !meter.tick(done)?;
            last_arrivals = Instant::now() + LAST_ARRIVALS;
        } else if cycles.iter().all(|cycle| cycle.ended) || Instant::now() > last_arrivals {
            break;
        }
    }
    faults.missing += cycles.iter().filter(|cycle| !cycle.ended).count() as u64;
    Ok(Report {
        work: "connect",
        unit: "cycle",
        settings: settings(&options),
        measured: Some(meter.measured()?),
        details: serde_json::Value::Null,
        faults,
    })
}
