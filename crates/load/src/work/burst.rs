//! One publish to many sockets of this process, which sleeps meanwhile, so that the load takes no core: the time from
//! the publish to the last arrival, by the times at which the kernel received.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Checker, Context, LAST_ARRIVALS, join, settings};
use crate::arguments::Burst;
use crate::ledger::{Expectation, Faults};
use crate::payload::{Kind, Stamp};
use crate::pool::{Pool, system_time};
use crate::process::own_cpu;
use crate::report::{self, Latency, Measured, Report};
use crate::stream::Item;
use crate::websocket::WebSocket;

/// Bursts before those that count.
const WARM_UP: u32 = 3;

pub(super) fn run(context: Context, options: Burst) -> Result<Report, String> {
    let mut pool = context.pool()?;
    let subscribers = options.subscribers as usize;
    pool.open(subscribers + 1, || context.client())?;
    join(context, &mut pool, (0..subscribers).map(|index| (index, 0)))?;
    for index in 0..subscribers {
        pool.note_arrivals(index)?;
    }
    let template = context.template(Kind::Publish, options.message);
    let mut arrivals = Arrivals {
        checker: Checker::new(Kind::Publish, options.message.size),
        expectations: vec![Expectation::default(); subscribers],
        faults: Faults::default(),
    };
    let mut times = report::times();
    let mut awake = 0;
    let mut window = None;
    for burst in 0..WARM_UP + options.bursts {
        if burst == WARM_UP {
            let used = context.server.map(|server| server.used()).transpose()?;
            window = Some((Instant::now(), used, own_cpu()?));
        }
        let stamp = Stamp {
            sequence: u64::from(burst),
            ..Stamp::default()
        };
        template.write(stamp, pool.outgoing(subscribers));
        let published = system_time();
        pool.flush(subscribers);
        sleep(Duration::from_millis(u64::from(options.sleep)));
        let woke = system_time();
        let last = arrivals.collect(&mut pool, u64::from(burst))?;
        if burst >= WARM_UP {
            let last = last.ok_or("the kernel tells no arrival times of TCP (SO_TIMESTAMPNS)")?;
            awake += u32::from(last > woke);
            let taken = last.saturating_sub(published);
            times.saturating_record(taken.as_nanos() as u64);
        }
    }
    let (since, used, own) = window.ok_or("no burst counted")?;
    let usage = match (context.server, used) {
        (Some(server), Some(used)) => Some(used.until(&server.used()?)),
        _ => None,
    };
    let copies = u64::from(options.bursts) * u64::from(options.subscribers);
    let own = own_cpu()?.saturating_sub(own);
    // All numbers had one sender, and each receiver was asked for each.
    for expectation in &arrivals.expectations {
        let sent = u64::from(WARM_UP + options.bursts);
        expectation.settle(sent, &mut arrivals.faults);
    }
    Ok(Report {
        work: "burst",
        unit: "delivery",
        settings: settings(&options),
        measured: Some(Measured::new(copies, since.elapsed(), usage, own, None)),
        details: json!({
            "publishToLast": Latency::of(&times),
            "shortest": times.min() as f64 / 1e3,
            // In these bursts the load woke before the last arrival, and took a core from the server.
            "awake": awake,
        }),
        faults: arrivals.faults,
    })
}

struct Arrivals {
    checker: Checker,
    expectations: Vec<Expectation>,
    faults: Faults,
}

impl Arrivals {
    /// Reads the burst's copy from every socket; when the last of them arrived, if the kernel noted it of each.
    fn collect(
        &mut self,
        pool: &mut Pool<WebSocket>,
        burst: u64,
    ) -> Result<Option<Duration>, String> {
        let deadline = Instant::now() + LAST_ARRIVALS;
        let mut last = Some(Duration::ZERO);
        let mut lacking: Vec<usize> = (0..self.expectations.len()).collect();
        while !lacking.is_empty() {
            let mut still_lacking = Vec::new();
            for index in lacking {
                match self.read(pool, index, burst)? {
                    Some(arrived) => {
                        last = last.zip(arrived).map(|(last, arrived)| last.max(arrived))
                    }
                    None => still_lacking.push(index),
                }
            }
            lacking = still_lacking;
            if lacking.is_empty() || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        Ok(last)
    }

    fn read(
        &mut self,
        pool: &mut Pool<WebSocket>,
        index: usize,
        burst: u64,
    ) -> Result<Option<Option<Duration>>, String> {
        let mut came = false;
        let arrived = pool.read_arrived(index, |item| {
            let Item::Message(message) = item else {
                return;
            };
            match self.checker.stamp(message) {
                Some(stamp) if stamp.channel == 0 && stamp.sequence <= burst => {
                    let first = self.expectations[index].note(stamp.sequence, &mut self.faults);
                    came |= first && stamp.sequence == burst;
                }
                _ => self.faults.damaged += 1,
            }
        })?;
        Ok(arrived.filter(|_| came))
    }
}
