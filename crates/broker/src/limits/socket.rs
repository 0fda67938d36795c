//! What one socket may do: messages and bytes in a time, and channels.
//!
//! The decision is made here, without sockets or clocks; a shard carries it out.

use super::bucket::{Bucket, Rate};
use crate::codec::close;

/// What happens to a socket that is over its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExceed {
    /// Close it with 1008. Who is far above what the application's own client does is not that client.
    #[default]
    Close,
    /// Leave the message out, and count it.
    Drop,
    /// Deliver it, and read nothing more until the bucket has paid: TCP slows the peer down, and nothing is lost.
    Pause,
}

/// A rate, and what follows beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRate {
    /// How much may come.
    pub rate: Rate,
    /// What happens beyond that.
    pub on_exceed: OnExceed,
}

/// The limits of each socket of a listener; `None`: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLimits {
    /// Messages from the peer. A ping counts as one, for it is answered.
    pub messages: Option<SocketRate>,
    /// Bytes from the peer, frame headers included.
    pub bytes: Option<SocketRate>,
    /// Channels that it may be in at once, at least 1.
    pub channels: Option<u32>,
}

/// Which limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Messages,
    Bytes,
}

impl Exceeded {
    /// RFC 6455 section 7.4.1: a message violates a policy.
    pub(crate) const CLOSE_CODE: u16 = close::POLICY_VIOLATION;

    /// One line for a human, which fits a close frame.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Messages => "limit of messagesPerSocket exceeded",
            Self::Bytes => "limit of bytesPerSocket exceeded",
        }
    }
}

/// What becomes of something that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Drop,
    Close(Exceeded),
}

/// What has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Message,
    Ping,
    /// Costs bytes alone: it may be the answer to a ping of ours, and is nothing that anybody has to handle.
    Pong,
}

/// What one socket has left of its listener's rates.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    /// Of the read that is under way, the bytes that belong to something whole.
    whole: u32,
    /// Bytes that were charged when they came, before what they are part of was whole.
    advance: u32,
    /// The socket is not read before this time.
    pub(crate) paused_until: Option<u64>,
}

impl Meter {
    /// A meter for a socket with rates.
    pub(crate) fn new(limits: &SocketLimits) -> Option<Box<Self>> {
        (limits.messages.is_some() || limits.bytes.is_some()).then(Box::default)
    }

    /// Something whole has arrived, whose payload has `length` bytes.
    pub(crate) fn arrived(
        &mut self,
        limits: &SocketLimits,
        what: Arrival,
        length: usize,
        now: u64,
    ) -> Verdict {
        let size = wire_size(length);
        let bytes = size.saturating_sub(self.advance);
        self.advance = self.advance.saturating_sub(size);
        self.whole = self.whole.saturating_add(bytes);
        let messages = u32::from(what != Arrival::Pong);
        // What is left out costs neither of the two.
        let before = (self.messages, self.bytes);
        let refusal = match take(limits.messages, &mut self.messages, messages, now) {
            Err(policy) => Some((policy, Exceeded::Messages)),
            Ok(()) => take(limits.bytes, &mut self.bytes, bytes, now)
                .err()
                .map(|policy| (policy, Exceeded::Bytes)),
        };
        let Some((policy, exceeded)) = refusal else {
            return Verdict::Pass;
        };
        (self.messages, self.bytes) = before;
        // It has arrived all the same: a bucket that pauses is for what arrives.
        charge_if_pausing(limits.messages, &mut self.messages, messages, now);
        charge_if_pausing(limits.bytes, &mut self.bytes, bytes, now);
        match policy {
            OnExceed::Close => Verdict::Close(exceeded),
            OnExceed::Drop | OnExceed::Pause => Verdict::Drop,
        }
    }

    /// All of a read of `length` bytes has been looked at. What was not whole in it, headers of fragments and the
    /// beginning of what is yet to come, is charged now: a peer that never ends its message pays for it too. Where
    /// messages are left out it takes nothing until it is whole, and only then is known to be let through.
    ///
    /// # Errors
    /// The socket is to be closed for it.
    pub(crate) fn read(
        &mut self,
        limits: &SocketLimits,
        length: usize,
        now: u64,
    ) -> Result<(), Exceeded> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let rest = length.saturating_sub(std::mem::take(&mut self.whole));
        match limits.bytes {
            Some(limit) if limit.on_exceed != OnExceed::Drop => {
                self.advance = self.advance.saturating_add(rest);
                take(limits.bytes, &mut self.bytes, rest, now).map_err(|_| Exceeded::Bytes)
            }
            _ => Ok(()),
        }
    }

    /// How many milliseconds the socket is not to be read.
    pub(crate) fn wait(&mut self, limits: &SocketLimits, now: u64) -> u32 {
        let wait = |limit: Option<SocketRate>, bucket: &mut Bucket| match limit {
            Some(limit) if limit.on_exceed == OnExceed::Pause => bucket.wait(limit.rate, now),
            _ => 0,
        };
        wait(limits.messages, &mut self.messages).max(wait(limits.bytes, &mut self.bytes))
    }

    /// How much to read at once: what is decoded is delivered, so that a full buffer of empty messages would be a debt of
    /// ten thousand. This way it is of 170 at the most.
    pub(crate) fn read_limit(&mut self, limits: &SocketLimits, now: u64) -> usize {
        const SHORTEST: usize = 1024;
        let left = |limit: Option<SocketRate>, bucket: &mut Bucket, of_each: usize| match limit {
            Some(limit) if limit.on_exceed == OnExceed::Pause => {
                let left = bucket.left(limit.rate, now) as usize;
                left.saturating_mul(of_each)
            }
            _ => usize::MAX,
        };
        left(limits.messages, &mut self.messages, SMALLEST_FRAME)
            .min(left(limits.bytes, &mut self.bytes, 1))
            .max(SHORTEST)
    }
}

fn take(limit: Option<SocketRate>, bucket: &mut Bucket, n: u32, now: u64) -> Result<(), OnExceed> {
    let Some(SocketRate { rate, on_exceed }) = limit else {
        return Ok(());
    };
    if on_exceed == OnExceed::Pause {
        bucket.charge(rate, n, now);
        return Ok(());
    }
    bucket.take(rate, n, now).map_err(|_| on_exceed)
}

fn charge_if_pausing(limit: Option<SocketRate>, bucket: &mut Bucket, n: u32, now: u64) {
    if let Some(limit) = limit
        && limit.on_exceed == OnExceed::Pause
    {
        bucket.charge(limit.rate, n, now);
    }
}

/// A masked frame without a payload (RFC 6455 section 5.2).
const SMALLEST_FRAME: usize = 6;

/// How long a masked frame with this payload is. What came compressed counts with what it holds.
fn wire_size(length: usize) -> u32 {
    let extended = match length {
        0..126 => 0,
        126..0x1_0000 => 2,
        _ => 8,
    };
    u32::try_from(length + extended + SMALLEST_FRAME).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(capacity: u32, interval: u64, on_exceed: OnExceed) -> Option<SocketRate> {
        let rate = Rate::new(capacity, Duration::from_millis(interval)).expect("a rate");
        Some(SocketRate { rate, on_exceed })
    }

    fn of_messages(capacity: u32, interval: u64, on_exceed: OnExceed) -> SocketLimits {
        SocketLimits {
            messages: limit(capacity, interval, on_exceed),
            ..SocketLimits::default()
        }
    }

    fn of_bytes(capacity: u32, interval: u64, on_exceed: OnExceed) -> SocketLimits {
        SocketLimits {
            bytes: limit(capacity, interval, on_exceed),
            ..SocketLimits::default()
        }
    }

    fn meter(limits: &SocketLimits) -> Box<Meter> {
        Meter::new(limits).expect("there are rates")
    }

    #[test]
    fn only_sockets_with_rates_have_a_meter() {
        let channels = SocketLimits {
            channels: Some(1),
            ..SocketLimits::default()
        };
        assert!(Meter::new(&SocketLimits::default()).is_none());
        assert!(Meter::new(&channels).is_none());
        assert!(Meter::new(&of_bytes(1, 1, OnExceed::Pause)).is_some());
    }

    #[test]
    fn messages_pass_to_the_token_and_come_back_to_the_millisecond() {
        for (policy, over) in [
            (OnExceed::Close, Verdict::Close(Exceeded::Messages)),
            (OnExceed::Drop, Verdict::Drop),
        ] {
            let limits = of_messages(10, 1000, policy);
            let mut meter = meter(&limits);
            let mut at = |now| meter.arrived(&limits, Arrival::Message, 5, now);
            for _ in 0..10 {
                assert_eq!(at(0), Verdict::Pass);
            }
            // What is left out takes nothing: the next token is there in time whatever was tried before.
            for now in 0..100 {
                assert_eq!(at(now), over);
            }
            assert_eq!(at(100), Verdict::Pass);
            assert_eq!(at(100), over);
            assert_eq!(at(199), over);
            assert_eq!(at(200), Verdict::Pass);
        }
    }

    #[test]
    fn pings_count_as_messages_and_pongs_do_not() {
        let limits = of_messages(2, 1000, OnExceed::Close);
        let mut meter = meter(&limits);
        for _ in 0..100 {
            assert_eq!(meter.arrived(&limits, Arrival::Pong, 0, 0), Verdict::Pass);
        }
        assert_eq!(meter.arrived(&limits, Arrival::Ping, 0, 0), Verdict::Pass);
        assert_eq!(meter.arrived(&limits, Arrival::Ping, 0, 0), Verdict::Pass);
        assert_eq!(
            meter.arrived(&limits, Arrival::Ping, 0, 0),
            Verdict::Close(Exceeded::Messages)
        );
    }

    #[test]
    fn who_is_paused_pays_for_what_came_and_not_a_millisecond_longer() {
        let limits = of_messages(10, 1000, OnExceed::Pause);
        let mut meter = meter(&limits);
        for n in 1..=35 {
            assert_eq!(
                meter.arrived(&limits, Arrival::Message, 0, 0),
                Verdict::Pass
            );
            let owed: u32 = n;
            assert_eq!(meter.wait(&limits, 0), owed.saturating_sub(10) * 100);
        }
        assert_eq!(meter.wait(&limits, 2499), 1);
        assert_eq!(meter.wait(&limits, 2500), 0);
    }

    #[test]
    fn over_any_time_a_flood_gets_its_rate_and_its_burst_through() {
        // 7 in 1.3 s does not divide. A peer that always has more, read as soon as it may be.
        let limits = of_messages(7, 1300, OnExceed::Pause);
        let mut meter = meter(&limits);
        let mut through = 0;
        for now in 0..100_000 {
            while meter.wait(&limits, now) == 0 {
                meter.arrived(&limits, Arrival::Message, 1, now);
                through += 1;
            }
            // One is in debt: it made the bucket stop.
            assert_eq!(through, now * 7 / 1300 + 7 + 1, "at {now}");
        }
    }

    #[test]
    fn each_byte_costs_a_token_however_the_reads_are_cut() {
        // 300 messages of 100 bytes: 106 each on the wire.
        const SIZE: usize = 106;
        let limits = of_bytes(100 * 106, 1000, OnExceed::Close);
        for cut in [1, 7, 106, 1000, 5000] {
            let mut meter = meter(&limits);
            let mut passed = 0;
            let mut arrived = 0;
            let over = 'flood: loop {
                let before = arrived / SIZE;
                arrived += cut;
                for _ in before..arrived / SIZE {
                    match meter.arrived(&limits, Arrival::Message, 100, 0) {
                        Verdict::Pass => passed += 1,
                        verdict => break 'flood verdict,
                    }
                }
                if let Err(exceeded) = meter.read(&limits, cut, 0) {
                    break Verdict::Close(exceeded);
                }
            };
            assert_eq!(over, Verdict::Close(Exceeded::Bytes));
            assert_eq!(passed, 100, "in reads of {cut}");
        }
    }

    #[test]
    fn a_message_without_end_is_charged_while_it_comes() {
        // Empty continuation frames: never a message.
        let limits = of_bytes(6000, 1000, OnExceed::Close);
        let mut meter = meter(&limits);
        for _ in 0..10 {
            assert_eq!(meter.read(&limits, 600, 0), Ok(()));
        }
        assert_eq!(meter.read(&limits, 1, 0), Err(Exceeded::Bytes));
        let limits = of_bytes(6000, 1000, OnExceed::Pause);
        let mut meter = Meter::default();
        assert_eq!(meter.read(&limits, 9000, 0), Ok(()));
        assert_eq!(meter.wait(&limits, 0), 500);
        // When it ends after all, what was charged is not charged again.
        let passed = meter.arrived(&limits, Arrival::Message, 8992, 0);
        assert_eq!(passed, Verdict::Pass);
        assert_eq!(meter.read(&limits, 0, 0), Ok(()));
        assert_eq!(meter.wait(&limits, 0), 500);
    }

    #[test]
    fn a_control_frame_within_a_message_makes_nothing_cost_twice() {
        let limits = of_bytes(10_000, 1000, OnExceed::Close);
        let mut meter = meter(&limits);
        assert_eq!(meter.read(&limits, 5000, 0), Ok(()));
        assert_eq!(meter.arrived(&limits, Arrival::Ping, 4, 0), Verdict::Pass);
        assert_eq!(meter.read(&limits, 10, 0), Ok(()));
        // 5008 of its bytes are to come: with the ping, 8 + 10 000 + 10 of 10 000.
        assert_eq!(
            meter.arrived(&limits, Arrival::Message, 10_000, 0),
            Verdict::Close(Exceeded::Bytes)
        );
        let mut meter = Meter::default();
        assert_eq!(meter.read(&limits, 5000, 0), Ok(()));
        assert_eq!(meter.arrived(&limits, Arrival::Ping, 4, 0), Verdict::Pass);
        assert_eq!(meter.read(&limits, 10, 0), Ok(()));
        let last = meter.arrived(&limits, Arrival::Message, 9982, 0);
        assert_eq!(last, Verdict::Pass, "9990 and 10");
        assert_eq!(meter.read(&limits, 4990, 0), Ok(()));
        assert_eq!(meter.read(&limits, 1, 0), Err(Exceeded::Bytes));
    }

    #[test]
    fn what_one_limit_leaves_out_costs_the_other_nothing() {
        let limits = SocketLimits {
            messages: limit(10, 1000, OnExceed::Drop),
            bytes: limit(100, 1000, OnExceed::Drop),
            channels: None,
        };
        let mut meter = meter(&limits);
        let mut send = |length| meter.arrived(&limits, Arrival::Message, length, 0);
        for _ in 0..20 {
            assert_eq!(send(100), Verdict::Drop, "it has 106 bytes");
        }
        for _ in 0..10 {
            assert_eq!(
                send(4),
                Verdict::Pass,
                "all messages and all bytes are left"
            );
        }
        assert_eq!(send(0), Verdict::Drop);
    }

    #[test]
    fn a_bucket_that_pauses_is_charged_for_what_another_leaves_out() {
        let limits = SocketLimits {
            messages: limit(1, 1000, OnExceed::Drop),
            bytes: limit(60, 600, OnExceed::Pause),
            channels: None,
        };
        let mut meter = meter(&limits);
        let mut verdicts = (0..20).map(|_| meter.arrived(&limits, Arrival::Message, 0, 0));
        assert_eq!(verdicts.next(), Some(Verdict::Pass));
        assert!(verdicts.all(|verdict| verdict == Verdict::Drop));
        assert_eq!(meter.wait(&limits, 0), 600);
    }

    #[test]
    fn little_is_read_at_once_when_little_is_left() {
        let limits = of_messages(10_000, 1000, OnExceed::Pause);
        let mut meter = meter(&limits);
        assert_eq!(meter.read_limit(&limits, 0), 60_000);
        for _ in 0..9990 {
            meter.arrived(&limits, Arrival::Message, 0, 0);
        }
        assert_eq!(meter.read_limit(&limits, 0), 1024);
        let limits = of_bytes(5000, 1000, OnExceed::Pause);
        assert_eq!(Meter::default().read_limit(&limits, 0), 5000);
        let limits = of_bytes(5000, 1000, OnExceed::Close);
        assert_eq!(Meter::default().read_limit(&limits, 0), usize::MAX);
    }

    #[test]
    fn the_texts_fit_a_close_frame() {
        for exceeded in [Exceeded::Messages, Exceeded::Bytes] {
            assert!(exceeded.text().len() <= close::MAX_REASON);
        }
        assert!(close::is_valid_to_send(Exceeded::CLOSE_CODE));
    }
}
