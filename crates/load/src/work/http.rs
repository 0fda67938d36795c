//! HTTP on connections that stay: one request at a time on each.

use std::time::Instant;

use super::{Context, LAST_ARRIVALS, TURN, settings};
use crate::arguments::Http as Options;
use crate::http::Http;
use crate::ledger::Faults;
use crate::meter::Meter;
use crate::report::Report;
use crate::stream::Item;

/// What `GET /` is answered.
const GREETING: &[u8] = b"Hello, World!";

/// Bodies of the requests that bring one.
const BODIES: [usize; 2] = [100, 10_000];

/// A request, and the answer that it must get.
struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
}

struct Connection {
    sent: usize,
    sent_at: Instant,
    waiting: bool,
}

pub(super) fn run(context: Context, options: Options) -> Result<Report, String> {
    let exchanges = exchanges(&context.target.host(), options.mixed);
    let mut pool = context.pool()?;
    pool.open(options.connections as usize, || Http)?;
    let mut meter = Meter::new(context.window, context.server);
    let mut faults = Faults::default();
    let mut done = 0;
    let mut connections: Vec<_> = (0..pool.len())
        .map(|index| Connection {
            // Not all of them the same at the same time.
            sent: index,
            sent_at: Instant::now(),
            waiting: true,
        })
        .collect();
    for (index, connection) in connections.iter_mut().enumerate() {
        pool.outgoing(index)
            .push(&exchanges[connection.sent % exchanges.len()].request);
        pool.flush(index);
    }

    let mut sending = true;
    let mut last_arrivals = Instant::now();
    loop {
        pool.turn(TURN, |outgoing, index, item, now| match item {
            Item::Message(body) => {
                let connection = &mut connections[index];
                if !std::mem::replace(&mut connection.waiting, false) {
                    faults.duplicated += 1;
                    return;
                }
                let exchange = &exchanges[connection.sent % exchanges.len()];
                faults.damaged += u64::from(body != exchange.answer);
                done += 1;
                meter.latency(now - connection.sent_at);
                if sending {
                    connection.sent += 1;
                    connection.sent_at = now;
                    connection.waiting = true;
                    outgoing.push(&exchanges[connection.sent % exchanges.len()].request);
                }
            }
            Item::Open => {}
            Item::End => faults.broken += 1,
        })?;
        if sending {
            sending = !meter.tick(done)?;
            last_arrivals = Instant::now() + LAST_ARRIVALS;
        } else if connections.iter().all(|connection| !connection.waiting)
            || Instant::now() > last_arrivals
        {
            break;
        }
    }
    faults.missing += connections
        .iter()
        .filter(|connection| connection.waiting)
        .count() as u64;
    Ok(Report {
        work: "http",
        unit: "request",
        settings: settings(&options),
        measured: Some(meter.measured()?),
        details: serde_json::Value::Null,
        faults,
    })
}

fn exchanges(host: &str, mixed: bool) -> Vec<Exchange> {
    let mut exchanges = vec![Exchange {
        request: format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(),
        answer: GREETING.to_vec(),
    }];
    for size in BODIES.into_iter().filter(|_| mixed) {
        let body: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n"
        );
        exchanges.push(Exchange {
            request: [head.as_bytes(), &body].concat(),
            answer: body,
        });
    }
    exchanges
}
