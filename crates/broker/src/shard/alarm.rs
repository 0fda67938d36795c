//! When a shard has to wake up although nothing has come: one timer for everything that waits for a time.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The shard's clock, and its one timer.
pub(super) struct Alarm {
    began: Instant,
    /// What the timer is set to, in milliseconds since `began`.
    at: Option<u64>,
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            at: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Milliseconds since the shard began.
    pub(super) fn clock(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).expect("500 million years")
    }

    /// Wakes the task at this time of the clock, at once if that has passed, or not at all.
    pub(super) fn set(&mut self, at: Option<u64>, cx: &mut Context<'_>) {
        let Some(milliseconds) = at else {
            self.at = None; // should the timer still fire, it costs an idle turn
            return;
        };
        if self.at != at {
            self.at = at;
            let when = self.began + Duration::from_millis(milliseconds);
            self.timer.as_mut().reset(when);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            self.at = None;
            cx.waker().wake_by_ref();
        }
    }
}
