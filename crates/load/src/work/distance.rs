//! How far two cores are from each other: the time in which one answers the other through a cache line.

use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

use super::settings;
use crate::arguments::Distance;
use crate::ledger::Faults;
use crate::report::Report;

/// The shortest of some counts: whatever takes a core away for a while only lengthens one.
const SERIES: u32 = 5;
const ROUND_TRIPS: u32 = 2000;

pub(super) fn run(options: Distance) -> Result<Report, String> {
    if options.from == options.to {
        return Err("two different cores are needed".to_owned());
    }
    let round_trip = round_trip(options)?;
    Ok(Report {
        work: "distance",
        unit: "round trip",
        settings: settings(&options),
        measured: None,
        details: json!({ "nanoseconds": round_trip.as_secs_f64() * 1e9 }),
        faults: Faults::default(),
    })
}

fn round_trip(Distance { from, to }: Distance) -> Result<Duration, String> {
    pin(from)?;
    // Odd numbers are questions, and the next number is the answer.
    let line = AtomicU32::new(0);
    let (tell, is_pinned) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let pinned = pin(to);
            let answered = if pinned.is_ok() { questions() } else { 0..0 };
            let _ = tell.send(pinned);
            for question in answered.map(number_of) {
                wait_for(&line, question);
                line.store(question + 1, Ordering::Release);
            }
        });
        is_pinned.recv().map_err(|error| error.to_string())??;
        let mut shortest = Duration::MAX;
        let mut questions = questions().map(number_of);
        for _ in 0..SERIES {
            let began = Instant::now();
            for question in questions.by_ref().take(ROUND_TRIPS as usize) {
                line.store(question, Ordering::Release);
                wait_for(&line, question + 1);
            }
            shortest = shortest.min(began.elapsed());
        }
        Ok(shortest / ROUND_TRIPS)
    })
}

fn questions() -> Range<u32> {
    0..SERIES * ROUND_TRIPS
}

fn number_of(question: u32) -> u32 {
    2 * question + 1
}

fn wait_for(line: &AtomicU32, value: u32) {
    while line.load(Ordering::Acquire) != value {
        spin_loop();
    }
}

/// Keeps the calling thread on one core.
fn pin(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores))
        .map_err(|error| format!("core {core} cannot be used: {error}"))
}
