//! Connections that could not be accepted, for want of descriptors or memory: counted, and told without filling the log.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A kind of failure that has not come for so long is over, and told again should it come again.
const OVER: Duration = Duration::from_secs(60);

/// What all listeners of a broker have met.
#[derive(Default)]
pub(crate) struct AcceptFailures {
    count: AtomicU64,
    /// When each kind came last. There are a handful.
    last: Mutex<Vec<(Kind, Instant)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind(Option<i32>, io::ErrorKind);

impl AcceptFailures {
    /// Counts a failure. The first of its kind is told at level `error`, the others at `debug`.
    pub(crate) fn note(&self, error: &io::Error) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.is_new(error, Instant::now()) {
            tracing::error!(
                %error,
                "connections cannot be accepted and wait in the kernel; stats count this as acceptErrors; \
                 of too many open files `ulimit -n` allows more"
            );
        } else {
            tracing::debug!(%error, "a connection cannot be accepted");
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether none of its kind came shortly before `now`.
    fn is_new(&self, error: &io::Error, now: Instant) -> bool {
        let kind = Kind(error.raw_os_error(), error.kind());
        let mut last = self.last.lock();
        last.retain(|(_, at)| now.saturating_duration_since(*at) < OVER);
        match last.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, at)) => {
                *at = now;
                false
            }
            None => {
                last.push((kind, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_until_it_is_over() {
        let failures = AcceptFailures::default();
        let start = Instant::now();
        let is_told = |code, seconds| {
            let error = io::Error::from_raw_os_error(code);
            failures.is_new(&error, start + Duration::from_secs(seconds))
        };
        assert!(is_told(24, 0));
        assert!(is_told(12, 0), "another kind");
        for seconds in 0..200 {
            assert!(!is_told(24, seconds));
        }
        assert!(is_told(12, 200));
        assert!(!is_told(24, 258));
        assert!(is_told(24, 318));
    }
}
