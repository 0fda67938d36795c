//! Idle sockets: what one costs in resident memory after one message.

use std::io::{BufRead, Write};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Checker, Context, ask, settings};
use crate::arguments::{Idle, Message};
use crate::ledger::Faults;
use crate::payload::{HEAD, Kind, Stamp};
use crate::pool::{Pool, words};
use crate::report::Report;
use crate::stream::Item;
use crate::websocket::{Template, WebSocket};

/// Measurements that differ by less are the same.
const STILL: u64 = 256 << 10;

/// Memory that does not come to rest counts after so many looks.
const LOOKS: usize = 50;

pub(super) fn run(context: Context, options: Idle) -> Result<Report, String> {
    let template = context.template(Kind::Echo, options.message);
    let checker = Checker::new(Kind::Echo, options.message.size);
    let mut faults = Faults::default();

    let mut control = context.pool()?;
    control.open(1, || context.client())?;
    let mut warm = context.pool()?;
    warm.open(options.warm_up_sockets as usize, || context.client())?;
    say_one_message(&mut warm, &template, &checker, &mut faults)?;
    let before = settled(context, &mut control)?;

    let mut pool = context.pool()?;
    pool.open(options.sockets as usize, || context.client())?;
    say_one_message(&mut pool, &template, &checker, &mut faults)?;
    let after = settled(context, &mut control)?;

    if options.hold {
        println(&json!({ "open": options.sockets }))?;
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    }
    // Whatever came meanwhile was not asked for.
    pool.turn(Duration::ZERO, |_, _, item, _| match item {
        Item::Open => {}
        Item::Message(_) => faults.duplicated += 1,
        Item::End => faults.broken += 1,
    })?;
    let details = match (before, after) {
        (Some(before), Some(after)) => json!({
            "residentBefore": before,
            "residentAfter": after,
            "bytesPerSocket": (after as f64 - before as f64) / f64::from(options.sockets),
        }),
        _ => Value::Null,
    };
    Ok(Report {
        work: "idle",
        unit: "socket",
        settings: settings(&options),
        measured: None,
        details,
        faults,
    })
}

fn say_one_message(
    pool: &mut Pool<WebSocket>,
    template: &Template,
    checker: &Checker,
    faults: &mut Faults,
) -> Result<(), String> {
    let stamp = |index| Stamp {
        channel: 0,
        sender: index as u32,
        sequence: 1,
    };
    let questions = (0..pool.len()).map(|index| (index, stamp(index)));
    ask(pool, template, questions, |index, message| {
        faults.damaged += u64::from(checker.stamp(message) != Some(stamp(index)));
    })
}

/// The server's resident bytes once it has collected its garbage and they are the same three times in a row.
fn settled(context: Context, control: &mut Pool<WebSocket>) -> Result<Option<u64>, String> {
    let Some(server) = context.server else {
        return Ok(None);
    };
    let mut seen = Vec::new();
    while seen.len() < LOOKS && !is_still(&seen) {
        collect_garbage(context, control)?;
        sleep(Duration::from_millis(100));
        seen.push(server.resident()?);
    }
    Ok(seen.last().copied())
}

fn collect_garbage(context: Context, control: &mut Pool<WebSocket>) -> Result<(), String> {
    let message = Message {
        size: HEAD,
        binary: false,
    };
    let template = context.template(Kind::CollectGarbage, message);
    ask(control, &template, [(0, Stamp::default())], |_, _| {})
}

fn is_still(seen: &[u64]) -> bool {
    let [.., a, b, c] = seen else {
        return false;
    };
    let (least, most) = (a.min(b).min(c), a.max(b).max(c));
    most - least < STILL
}

fn println(value: &Value) -> Result<(), String> {
    writeln!(std::io::stdout(), "{value}").map_err(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_still_when_three_looks_agree() {
        let mib = 1 << 20;
        assert!(!is_still(&[mib, mib]));
        assert!(!is_still(&[mib, 2 * mib, mib]));
        assert!(is_still(&[9 * mib, mib, mib + 4096, mib]));
    }
}
