//! What is told: one JSON object.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use crate::ledger::Faults;
use crate::process::Usage;

/// A load whose own thread was busy for a larger part of the window than this may have been the limit.
const BUSY: f64 = 0.95;

/// The whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) work: &'static str,
    /// What `done` counts.
    pub(crate) unit: &'static str,
    /// The options of the load.
    pub(crate) settings: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measured: Option<Measured>,
    /// What only this work has to tell.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) details: Value,
    pub(crate) faults: Faults,
}

impl Report {
    pub(crate) fn is_sound(&self) -> bool {
        self.faults.is_none()
    }
}

/// What happened in the window.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) done: u64,
    seconds: f64,
    /// A second.
    rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Usage>,
    /// The server's CPU time per unit, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_per_unit: Option<f64>,
    load: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<Latency>,
}

/// What this process used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    cpu_seconds: f64,
    /// Its part of the window, at most 1.
    busy: f64,
    /// It may have been the limit: the rate says little, the server's CPU time per unit still much.
    limited: bool,
}

impl Measured {
    pub(crate) fn new(
        done: u64,
        time: Duration,
        server: Option<Usage>,
        own: Duration,
        latency: Option<Latency>,
    ) -> Self {
        let seconds = time.as_secs_f64();
        let busy = own.as_secs_f64() / seconds;
        Self {
            done,
            seconds,
            rate: done as f64 / seconds,
            cpu_per_unit: server
                .as_ref()
                .filter(|_| done > 0)
                .map(|server| server.cpu_seconds * 1e6 / done as f64),
            server,
            load: Load {
                cpu_seconds: own.as_secs_f64(),
                busy,
                limited: busy > BUSY,
            },
            latency,
        }
    }
}

/// Times above this count as this.
const LONGEST: Duration = Duration::from_secs(60);

/// For times in ns, three digits of each.
pub(crate) fn times() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST.as_nanos() as u64, 3).expect("three digits of a minute")
}

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Latency {
    pub(crate) fn of(latencies: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        (!latencies.is_empty()).then(|| Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: latencies.max() as f64 / 1e3,
        })
    }
}
