//! Echo: closed loop, where each echo brings the next message; the open loop is [`paced`](super::paced).

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Checker, Context, LAST_ARRIVALS, TURN, paced, settings};
use crate::arguments::Echo;
use crate::ledger::{Expectation, Faults};
use crate::meter::Meter;
use crate::payload::{Kind, Stamp};
use crate::report::Report;
use crate::stream::{Item, Outgoing};
use crate::websocket::Template;

pub(super) fn run(context: Context, options: Echo) -> Result<Report, String> {
    let (measured, faults, details) = match options.rate {
        None => {
            let (measured, faults) = closed_loop(context, options)?;
            (measured, faults, Value::Null)
        }
        Some(rate) => {
            let mut pool = context.pool()?;
            pool.open(options.sockets as usize, || context.client())?;
            let sockets: Vec<_> = (0..pool.len()).collect();
            let mut meter = Meter::new(context.window, context.server);
            let mut paced = paced::Paced::new(context, options.message, rate, &sockets);
            paced.run(&mut pool, &mut meter, |_, _| Ok(()))?;
            let details = serde_json::json!({ "sentLate": paced.lateness() });
            (meter.measured()?, paced.faults(), details)
        }
    };
    Ok(Report {
        work: "echo",
        unit: "message",
        settings: settings(&options),
        measured: Some(measured),
        details,
        faults,
    })
}

/// One socket of the closed loop.
struct Socket {
    sent: u64,
    expectation: Expectation,
    /// When the message with a number was sent, at the number modulo the length.
    sent_at: Vec<Instant>,
}

impl Socket {
    fn send(&mut self, index: usize, template: &Template, outgoing: &mut Outgoing, now: Instant) {
        let slot = self.sent as usize % self.sent_at.len();
        self.sent_at[slot] = now;
        let stamp = Stamp {
            channel: 0,
            sender: index as u32,
            sequence: self.sent,
        };
        template.write(stamp, outgoing);
        self.sent += 1;
    }
}

fn closed_loop(
    context: Context,
    options: Echo,
) -> Result<(crate::report::Measured, Faults), String> {
    let mut pool = context.pool()?;
    pool.open(options.sockets as usize, || context.client())?;
    let template = context.template(Kind::Echo, options.message);
    let checker = Checker::new(Kind::Echo, options.message.size);
    let mut meter = Meter::new(context.window, context.server);
    let mut faults = Faults::default();
    let mut done = 0;
    let now = Instant::now();
    let mut sockets: Vec<_> = (0..pool.len())
        .map(|_| Socket {
            sent: 0,
            expectation: Expectation::default(),
            sent_at: vec![now; options.in_flight as usize],
        })
        .collect();
    for (index, socket) in sockets.iter_mut().enumerate() {
        for _ in 0..options.in_flight {
            socket.send(index, &template, pool.outgoing(index), Instant::now());
        }
        pool.flush(index);
    }

    let mut sending = true;
    let mut last_arrivals = Instant::now();
    loop {
        pool.turn(TURN, |outgoing, index, item, now| match item {
            Item::Message(message) => {
                let socket = &mut sockets[index];
                match checker.stamp(message) {
                    Some(stamp)
                        if stamp.sender as usize == index && stamp.sequence < socket.sent =>
                    {
                        if socket.expectation.note(stamp.sequence, &mut faults) {
                            done += 1;
                            let slot = stamp.sequence as usize % socket.sent_at.len();
                            meter.latency(now - socket.sent_at[slot]);
                        }
                    }
                    _ => faults.damaged += 1,
                }
                if sending {
                    socket.send(index, &template, outgoing, now);
                }
            }
            Item::Open => {}
            Item::End => faults.broken += 1,
        })?;
        if sending {
            sending = !meter.tick(done)?;
            last_arrivals = Instant::now() + LAST_ARRIVALS;
        } else if done + faults.damaged >= sockets.iter().map(|socket| socket.sent).sum()
            || Instant::now() > last_arrivals
        {
            break;
        }
    }
    // A message that comes twice comes at once.
    pool.turn(Duration::from_millis(50), |_, _, item, _| {
        faults.duplicated += u64::from(matches!(item, Item::Message(_)));
    })?;
    for socket in &sockets {
        socket.expectation.settle(socket.sent, &mut faults);
    }
    Ok((meter.measured()?, faults))
}
