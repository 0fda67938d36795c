//! A token bucket in whole numbers: exact to the token, whatever the rate.
//!
//! It has no clock. Time comes as milliseconds of a clock that the caller keeps.

use std::time::Duration;

/// How much may come at once, and how fast that grows back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    capacity: u32,
    interval: u32,
}

impl Rate {
    /// The largest capacity, and the longest interval in milliseconds: a debt of one token takes `interval` units, so
    /// that all products fit 63 bits.
    pub const MAX: u32 = i32::MAX as u32;

    /// A bucket of `capacity` tokens that, once empty, is full again after `interval`. `None` unless both are from 1
    /// to [`MAX`](Self::MAX), the interval in milliseconds.
    #[must_use]
    pub fn new(capacity: u32, interval: Duration) -> Option<Self> {
        let interval = u32::try_from(interval.as_millis()).ok()?;
        let allowed = 1..=Self::MAX;
        (allowed.contains(&capacity) && allowed.contains(&interval))
            .then_some(Self { capacity, interval })
    }

    /// The most tokens.
    #[must_use]
    pub fn capacity(self) -> u32 {
        self.capacity
    }

    /// From empty to full, in milliseconds.
    #[must_use]
    pub fn interval(self) -> u32 {
        self.interval
    }

    fn full_debt(self) -> u64 {
        u64::from(self.capacity) * u64::from(self.interval)
    }
}

/// What one peer has left of a [`Rate`]. A new bucket is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// What is missing, in parts of a token: one token is as many as the interval has milliseconds, and in each
    /// millisecond as many come back as the capacity has tokens.
    debt: u64,
    /// When `debt` was right.
    at: u64,
}

impl Bucket {
    /// Takes `tokens` if they are all there.
    ///
    /// # Errors
    /// The milliseconds until they are; nothing is taken. More than the capacity are never there: then the time until
    /// the bucket is full.
    pub fn take(&mut self, rate: Rate, tokens: u32, now: u64) -> Result<(), u32> {
        self.refill(rate, now);
        let asked = u64::from(tokens.min(rate.capacity)) * u64::from(rate.interval);
        let over = self
            .debt
            .saturating_add(asked)
            .saturating_sub(rate.full_debt());
        if over == 0 && tokens <= rate.capacity {
            self.debt += asked;
            return Ok(());
        }
        Err(wait_for(rate, over.max(1)))
    }

    /// Takes `tokens` whether or not they are there: of something that has happened already.
    ///
    /// The answer is 0 if they were, else the milliseconds until what was owed has come back and the bucket has no
    /// debt beyond being empty.
    pub fn charge(&mut self, rate: Rate, tokens: u32, now: u64) -> u32 {
        self.refill(rate, now);
        let asked = u64::from(tokens) * u64::from(rate.interval);
        self.debt = self.debt.saturating_add(asked);
        self.owed(rate)
    }

    /// The milliseconds until a bucket that was charged beyond its capacity is merely empty; 0 when it is not in debt.
    pub fn wait(&mut self, rate: Rate, now: u64) -> u32 {
        self.refill(rate, now);
        self.owed(rate)
    }

    /// The whole tokens that are there.
    pub fn left(&mut self, rate: Rate, now: u64) -> u32 {
        self.refill(rate, now);
        let left = rate.full_debt().saturating_sub(self.debt) / u64::from(rate.interval);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Nothing is missing: a bucket that is forgotten now and made anew later is the same.
    pub fn is_full(&mut self, rate: Rate, now: u64) -> bool {
        self.refill(rate, now);
        self.debt == 0
    }

    /// The milliseconds until nothing is missing; 0 when nothing is.
    pub fn time_to_full(mut self, rate: Rate, now: u64) -> u32 {
        self.refill(rate, now);
        wait_for(rate, self.debt)
    }

    fn owed(&self, rate: Rate) -> u32 {
        wait_for(rate, self.debt.saturating_sub(rate.full_debt()))
    }

    fn refill(&mut self, rate: Rate, now: u64) {
        // A clock read on another thread may be a little behind: that brings nothing, and takes nothing away.
        let elapsed = now.saturating_sub(self.at);
        let back = elapsed.saturating_mul(u64::from(rate.capacity));
        self.debt = self.debt.saturating_sub(back);
        self.at = self.at.max(now);
    }
}

/// How long `units` take to come back, rounded up to whole milliseconds.
fn wait_for(rate: Rate, units: u64) -> u32 {
    u32::try_from(units.div_ceil(u64::from(rate.capacity))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(capacity: u32, interval: u64) -> Rate {
        Rate::new(capacity, Duration::from_millis(interval)).expect("a sensible rate")
    }

    #[test]
    fn a_bucket_gives_its_capacity_at_once_and_then_one_token_at_a_time() {
        let rate = rate(100, 60_000);
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            assert_eq!(bucket.take(rate, 1, 5), Ok(()));
        }
        assert_eq!(bucket.take(rate, 1, 5), Err(600));
        assert_eq!(bucket.take(rate, 1, 604), Err(1));
        assert_eq!(bucket.take(rate, 1, 605), Ok(()));
        assert_eq!(bucket.take(rate, 1, 605), Err(600));
    }

    #[test]
    fn a_rate_that_does_not_divide_is_exact_over_any_time() {
        // 7 tokens in 10 s, asked for every millisecond: never a token more or less than that.
        let rate = rate(7, 10_000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 7, 0), Ok(()));
        let mut taken = 0;
        for now in 0..1_000_000 {
            taken += u64::from(bucket.take(rate, 1, now).is_ok());
            assert_eq!(taken, now * 7 / 10_000, "at {now}");
        }
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let rate = rate(10, 1000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 8, 0), Ok(()));
        assert_eq!(bucket.take(rate, 3, 0), Err(100));
        assert_eq!(bucket.take(rate, 2, 0), Ok(()));
        assert_eq!(bucket.take(rate, 11, 1000), Err(1));
        assert!(bucket.is_full(rate, 1000));
    }

    #[test]
    fn a_charge_beyond_the_capacity_is_paid_back() {
        let rate = rate(1000, 1000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.charge(rate, 1000, 0), 0);
        assert_eq!(bucket.charge(rate, 1500, 0), 1500);
        assert_eq!(bucket.wait(rate, 1499), 1);
        assert_eq!(bucket.wait(rate, 1500), 0);
        assert_eq!(bucket.take(rate, 1, 1500), Err(1));
        assert!(!bucket.is_full(rate, 2499));
        assert_eq!(bucket.time_to_full(rate, 2499), 1);
        assert!(bucket.is_full(rate, 2500));
        assert_eq!(bucket.time_to_full(rate, 2500), 0);
    }

    #[test]
    fn a_debt_that_64_bits_do_not_hold_gives_nothing_away() {
        let rate = rate(Rate::MAX, Rate::MAX.into());
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert!(bucket.charge(rate, u32::MAX, 0) > 0);
        }
        assert_eq!(bucket.take(rate, 1, 0), Err(u32::MAX));
        assert_eq!(bucket.left(rate, 0), 0);
    }

    #[test]
    fn only_whole_tokens_are_left() {
        let rate = rate(10, 1000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.left(rate, 0), 10);
        bucket.charge(rate, 10, 0);
        assert_eq!(bucket.left(rate, 99), 0);
        assert_eq!(bucket.left(rate, 100), 1);
        bucket.charge(rate, 10, 100);
        assert_eq!(bucket.left(rate, 100), 0);
    }

    #[test]
    fn the_clock_may_step_back() {
        let rate = rate(2, 1000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.charge(rate, 2, 100), 0);
        assert_eq!(bucket.take(rate, 1, 50), Err(500));
        assert_eq!(bucket.take(rate, 1, 599), Err(1));
        assert_eq!(bucket.take(rate, 1, 600), Ok(()));
    }

    #[test]
    fn only_sensible_rates_exist() {
        let second = Duration::from_secs(1);
        assert_eq!(Rate::new(0, second), None);
        assert_eq!(Rate::new(1, Duration::ZERO), None);
        assert_eq!(Rate::new(Rate::MAX + 1, second), None);
        assert_eq!(Rate::new(1, Duration::from_secs(1 << 40)), None);
        let largest = Rate::new(Rate::MAX, Duration::from_millis(Rate::MAX.into()))
            .expect("the largest rate");
        assert_eq!(Bucket::default().take(largest, Rate::MAX, 0), Ok(()));
    }
}
