//! The measured window: when it is, and what was used in it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::arguments::Window;
use crate::process::{Process, Used, own_cpu};
use crate::report::{Latency, Measured, times};

/// A load that gets nothing done for so long has stalled.
const STALLED: Duration = Duration::from_secs(10);

/// The warm-up ends after so many times its seconds, even when too little was done.
const LONGEST_WARM_UP: u32 = 10;

/// Measures one window of a load.
pub(crate) struct Meter {
    window: Window,
    server: Option<Process>,
    phase: Phase,
    latencies: Histogram<u64>,
    progress: (Instant, u64),
}

enum Phase {
    WarmUp { since: Instant },
    Measuring { from: Moment },
    Over { from: Moment, to: Moment },
}

/// What was done and used at one moment.
struct Moment {
    time: Instant,
    done: u64,
    server: Option<Used>,
    own: Duration,
}

impl Meter {
    pub(crate) fn new(window: Window, server: Option<Process>) -> Self {
        let now = Instant::now();
        Self {
            window,
            server,
            phase: Phase::WarmUp { since: now },
            latencies: times(),
            progress: (now, 0),
        }
    }

    /// Notes that so much has been done by now; `true` once the window is over.
    pub(crate) fn tick(&mut self, done: u64) -> Result<bool, String> {
        let now = Instant::now();
        if done > self.progress.1 {
            self.progress = (now, done);
        } else if now - self.progress.0 > STALLED {
            return Err(format!("nothing came for {} s", STALLED.as_secs()));
        }
        match &self.phase {
            Phase::WarmUp { since } if self.is_warm(now - *since, done) => {
                self.phase = Phase::Measuring {
                    from: self.moment(done)?,
                };
            }
            // Of a window without anything done nothing can be said.
            Phase::Measuring { from }
                if now - from.time >= self.window.seconds && done > from.done =>
            {
                let to = self.moment(done)?;
                let before = std::mem::replace(&mut self.phase, Phase::WarmUp { since: now });
                if let Phase::Measuring { from } = before {
                    self.phase = Phase::Over { from, to };
                }
            }
            _ => {}
        }
        Ok(matches!(self.phase, Phase::Over { .. }))
    }

    fn is_warm(&self, passed: Duration, done: u64) -> bool {
        let Window {
            warm_up,
            warm_up_count,
            ..
        } = self.window;
        passed >= warm_up && (done >= warm_up_count || passed >= warm_up * LONGEST_WARM_UP)
    }

    fn moment(&self, done: u64) -> Result<Moment, String> {
        Ok(Moment {
            time: Instant::now(),
            done,
            server: self.server.map(Process::used).transpose()?,
            own: own_cpu()?,
        })
    }

    /// A latency, which counts when it ends inside the window.
    #[inline]
    pub(crate) fn latency(&mut self, latency: Duration) {
        if matches!(self.phase, Phase::Measuring { .. }) {
            self.latencies.saturating_record(latency.as_nanos() as u64);
        }
    }

    /// What was measured, once the window is over.
    pub(crate) fn measured(&self) -> Result<Measured, String> {
        let Phase::Over { from, to } = &self.phase else {
            return Err("the window is not over".to_owned());
        };
        let usage = match (&from.server, &to.server) {
            (Some(from), Some(to)) => Some(from.until(to)),
            _ => None,
        };
        Ok(Measured::new(
            to.done - from.done,
            to.time - from.time,
            usage,
            to.own.saturating_sub(from.own),
            Latency::of(&self.latencies),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_begins_when_it_is_warm_and_counts_only_itself() {
        let window = Window {
            warm_up: Duration::ZERO,
            warm_up_count: 10,
            seconds: Duration::ZERO,
        };
        let mut meter = Meter::new(window, None);
        // Ten times no time is none, so that the count alone decides only where there is a time.
        meter.window.warm_up = Duration::from_secs(3600);
        assert!(!meter.tick(100).expect("no stall"));
        meter.latency(Duration::from_secs(1));
        meter.window.warm_up = Duration::ZERO;
        assert!(!meter.tick(150).expect("no stall"));
        assert!(!meter.tick(150).expect("no stall"), "nothing was done");
        meter.latency(Duration::from_millis(5));
        assert!(meter.tick(170).expect("no stall"));
        let measured = meter.measured().expect("a window that is over");
        assert_eq!(measured.done, 20);
        let latency = measured.latency.expect("one latency");
        assert!((4.9..5.1).contains(&(latency.p50 / 1000.0)), "{latency:?}");
    }
}
