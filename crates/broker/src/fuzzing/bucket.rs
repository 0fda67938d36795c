//! The token bucket: any calls at any times are answered as by one of exact fractions, every wait is the shortest that is
//! long enough, and no more is given out than came in.

use std::time::Duration;

use super::Choices;
use crate::limits::bucket::{Bucket, Rate};

const MAX_STEPS: usize = 2000;

/// A capacity and an interval, then steps: a kind, and the time and the tokens that it asks for.
pub fn bucket(data: &[u8]) {
    let mut choices = Choices(data);
    let (capacity, interval) = (choices.sized(), choices.sized());
    let rate = Rate::new(capacity, Duration::from_millis(interval.into()));
    let allowed = 1..=0x7FFF_FFFF;
    let is_sensible = allowed.contains(&capacity) && allowed.contains(&interval);
    assert_eq!(rate.is_some(), is_sensible);
    let Some(rate) = rate else { return };

    let mut pair = Pair {
        rate,
        bucket: Bucket::default(),
        model: Model {
            capacity: capacity.into(),
            interval: interval.into(),
            debt: 0,
            at: 0,
        },
        now: choices.sized().into(),
        wait: 0,
    };
    let mut given = 0;
    let mut first = None;
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        given += u128::from(pair.step(&mut choices));
        let model = &pair.model;
        let elapsed = model.at - *first.get_or_insert(model.at);
        let came = model.full() + u128::from(elapsed) * model.capacity;
        assert!(given * model.interval <= came, "more than came in");
    }
}

/// A bucket in numbers that hold every product.
struct Model {
    capacity: u128,
    interval: u128,
    /// In parts of a token, as many as the interval has milliseconds.
    debt: u128,
    at: u64,
}

impl Model {
    fn full(&self) -> u128 {
        self.capacity * self.interval
    }

    fn parts(&self, tokens: u32) -> u128 {
        u128::from(tokens) * self.interval
    }

    fn advance(&mut self, now: u64) {
        let elapsed = u128::from(now.saturating_sub(self.at));
        self.debt = self.debt.saturating_sub(elapsed * self.capacity);
        self.at = self.at.max(now);
    }

    /// Whether so many parts are there after a time.
    fn has(&self, parts: u128, milliseconds: u32) -> bool {
        let back = u128::from(milliseconds) * self.capacity;
        self.debt.saturating_sub(back) + parts <= self.full()
    }

    /// No longer wait than this can be told.
    fn check_wait(&self, parts: u128, wait: u32) {
        assert!(wait == u32::MAX || self.has(parts, wait), "too short");
        assert!(wait == 0 || !self.has(parts, wait - 1), "too long");
    }
}

/// The bucket and the model of it.
struct Pair {
    rate: Rate,
    bucket: Bucket,
    model: Model,
    now: u64,
    /// What was last said.
    wait: u32,
}

impl Pair {
    /// The tokens that were taken for being there.
    fn step(&mut self, choices: &mut Choices<'_>) -> u32 {
        let kind = choices.byte();
        self.now = match kind >> 5 {
            0 | 1 => self.now,
            2 => self.now.saturating_sub(choices.sized().into()), // the clock of another thread
            3 => u64::MAX - self.now,
            4 | 5 => self.now.saturating_add(choices.sized().into()),
            6 => self.now.saturating_add(self.wait.into()),
            _ => self.now.saturating_add(self.wait.saturating_sub(1).into()),
        };
        self.model.advance(self.now);
        match kind % 4 {
            0 => self.charge(choices.sized()),
            1 => self.check_what_is_left(),
            _ => {
                let tokens = choices.sized();
                return if self.take(tokens) { tokens } else { 0 };
            }
        }
        0
    }

    fn take(&mut self, tokens: u32) -> bool {
        let parts = self.model.parts(tokens);
        let is_there = self.model.has(parts, 0);
        match self.bucket.take(self.rate, tokens, self.now) {
            Ok(()) => {
                assert!(is_there, "{tokens} were not there");
                self.model.debt += parts;
            }
            Err(wait) => {
                assert!(!is_there, "{tokens} were there");
                assert!(wait > 0);
                self.wait = wait;
                let reachable = parts.min(self.model.full());
                if !self.model.has(reachable, 0) {
                    self.model.check_wait(reachable, wait);
                }
            }
        }
        is_there
    }

    fn charge(&mut self, tokens: u32) {
        // A debt that 64 bits do not hold is as good as any.
        let debt = self.model.debt + self.model.parts(tokens);
        self.model.debt = debt.min(u64::MAX.into());
        self.wait = self.bucket.charge(self.rate, tokens, self.now);
        self.model.check_wait(0, self.wait);
    }

    fn check_what_is_left(&mut self) {
        let (rate, now, model) = (self.rate, self.now, &self.model);
        model.check_wait(0, self.bucket.wait(rate, now));
        model.check_wait(model.full(), self.bucket.time_to_full(rate, now));
        assert_eq!(self.bucket.is_full(rate, now), model.debt == 0);
        let left = self.bucket.left(rate, now);
        assert!(left == 0 || model.has(model.parts(left), 0));
        assert!(!model.has(model.parts(left) + model.interval, 0));
    }
}
