//! Fan-out: publishers, channels, subscribers. Counted are the copies that arrive.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Checker, Context, LAST_ARRIVALS, TURN, join, settings};
use crate::arguments::Fanout;
use crate::ledger::{Expectation, Faults};
use crate::meter::Meter;
use crate::payload::{CHANNELS, Kind, Stamp};
use crate::report::Report;
use crate::stream::Item;

pub(super) fn run(context: Context, options: Fanout) -> Result<Report, String> {
    let plan = Plan::new(options)?;
    let mut pool = context.pool()?;
    // The subscribers come first: their indexes are their numbers.
    let subscribers = options.subscribers as usize;
    let (sockets, first_publisher) = if options.members {
        (subscribers, 0)
    } else {
        (subscribers + options.publishers as usize, subscribers)
    };
    pool.open(sockets, || context.client())?;
    join(context, &mut pool, plan.memberships(options.quiet_channels))?;

    let template = context.template(Kind::Publish, options.message);
    let checker = Checker::new(Kind::Publish, options.message.size);
    let mut meter = Meter::new(context.window, context.server);
    let mut faults = Faults::default();
    let ranks = plan.publishers_per_channel() as usize;
    let mut expectations = vec![Expectation::default(); subscribers * ranks];
    let mut publishers: Vec<_> = (0..options.publishers)
        .map(|_| Publisher::default())
        .collect();
    let mut ready: Vec<u32> = (0..options.publishers)
        .flat_map(|publisher| vec![publisher; options.in_flight as usize])
        .collect();

    let mut delivered = 0;
    let mut sending = true;
    let mut last_arrivals = Instant::now();
    loop {
        if sending {
            for publisher in &ready {
                let stamp = publishers[*publisher as usize].publish(&plan, *publisher);
                template.write(stamp, pool.outgoing(first_publisher + *publisher as usize));
            }
            for publisher in &ready {
                pool.flush(first_publisher + *publisher as usize);
            }
        }
        ready.clear();
        pool.turn(TURN, |_, index, item, now| match item {
            Item::Message(message) => {
                let stamp = checker.stamp(message);
                let Some((stamp, publisher)) = stamp.and_then(|stamp| {
                    let mine =
                        index < subscribers && stamp.channel == plan.channel_of(index as u32);
                    let publisher = plan.publisher(stamp)?;
                    mine.then_some((stamp, publisher))
                }) else {
                    faults.damaged += 1;
                    return;
                };
                let expectation = &mut expectations[index * ranks + stamp.sender as usize];
                if !expectation.note(stamp.sequence, &mut faults) {
                    return;
                }
                delivered += 1;
                let number = plan.number(publisher, stamp);
                publishers[publisher as usize].arrived(number, now, |latency| {
                    meter.latency(latency);
                    ready.push(publisher);
                });
            }
            Item::Open => {}
            Item::End => faults.broken += 1,
        })?;
        if sending {
            sending = !meter.tick(delivered)?;
            last_arrivals = Instant::now() + LAST_ARRIVALS;
        } else if publishers
            .iter()
            .all(|publisher| publisher.under_way.is_empty())
            || Instant::now() > last_arrivals
        {
            break;
        }
    }
    // A copy that comes twice comes at once.
    pool.turn(Duration::from_millis(50), |_, _, item, _| {
        faults.duplicated += u64::from(matches!(item, Item::Message(_)));
    })?;
    for (at, expectation) in expectations.iter().enumerate() {
        let channel = plan.channel_of((at / ranks) as u32);
        let rank = (at % ranks) as u32;
        let sent = plan.publisher_of(channel, rank).map_or(0, |publisher| {
            plan.published(publisher, channel, publishers[publisher as usize].published)
        });
        expectation.settle(sent, &mut faults);
    }
    Ok(Report {
        work: "fanout",
        unit: "delivery",
        settings: settings(&options),
        measured: Some(meter.measured()?),
        details: serde_json::Value::Null,
        faults,
    })
}

/// One publisher's messages of which copies are under way.
#[derive(Default)]
struct Publisher {
    published: u64,
    /// From the oldest on, those in between that have arrived included: the copies that lack, and when it was sent.
    under_way: VecDeque<(u32, Instant)>,
}

impl Publisher {
    fn publish(&mut self, plan: &Plan, publisher: u32) -> Stamp {
        let stamp = plan.stamp(publisher, self.published);
        let copies = plan.subscribers_of(stamp.channel);
        self.under_way.push_back((copies, Instant::now()));
        self.published += 1;
        stamp
    }

    /// One copy of a message arrived. `complete` is told of each message that has no copy under way any more, with the
    /// time it took, in the order they were sent.
    fn arrived(&mut self, number: u64, now: Instant, mut complete: impl FnMut(Duration)) {
        let oldest = self.published - self.under_way.len() as u64;
        let Some(at) = number.checked_sub(oldest) else {
            return;
        };
        if let Some((copies, _)) = self.under_way.get_mut(at as usize) {
            *copies = copies.saturating_sub(1);
        }
        while let Some((0, sent)) = self.under_way.front() {
            complete(now.saturating_duration_since(*sent));
            self.under_way.pop_front();
        }
    }
}

/// Who is in which channel and who publishes where.
///
/// With more channels than publishers each channel has one publisher, who goes through its channels in turn; with more
/// publishers each has one channel, and its rank among those who share it.
struct Plan {
    subscribers: u32,
    publishers: u32,
    channels: u32,
}

impl Plan {
    fn new(options: Fanout) -> Result<Self, String> {
        if options.channels > options.subscribers {
            return Err("a channel that is published to needs a subscriber".to_owned());
        }
        if options.channels + options.quiet_channels > CHANNELS {
            return Err(format!("there are {CHANNELS} channels"));
        }
        if options.publishers > options.channels
            && !options.publishers.is_multiple_of(options.channels)
        {
            return Err("every channel needs the same number of publishers".to_owned());
        }
        if options.members
            && !(options.channels..=options.subscribers).contains(&options.publishers)
        {
            return Err("publishers that are members have one channel each".to_owned());
        }
        Ok(Self {
            subscribers: options.subscribers,
            publishers: options.publishers,
            channels: options.channels,
        })
    }

    fn channel_of(&self, subscriber: u32) -> u32 {
        subscriber % self.channels
    }

    fn subscribers_of(&self, channel: u32) -> u32 {
        (self.subscribers - channel).div_ceil(self.channels)
    }

    fn memberships(&self, quiet_channels: u32) -> impl Iterator<Item = (usize, u32)> {
        let own = (0..self.subscribers).map(|n| (n as usize, self.channel_of(n)));
        let quiet =
            (0..quiet_channels).map(|n| ((n % self.subscribers) as usize, self.channels + n));
        own.chain(quiet)
    }

    fn publishers_per_channel(&self) -> u32 {
        (self.publishers / self.channels).max(1)
    }

    /// How many channels a publisher goes through.
    fn channels_of_publisher(&self, publisher: u32) -> u32 {
        match self.publishers <= self.channels {
            true => (self.channels - publisher).div_ceil(self.publishers),
            false => 1,
        }
    }

    /// What a publisher's message with this number says of itself.
    fn stamp(&self, publisher: u32, number: u64) -> Stamp {
        let channels = u64::from(self.channels_of_publisher(publisher));
        let turn = (number % channels) as u32;
        let (channel, sender) = match self.publishers <= self.channels {
            true => (publisher + turn * self.publishers, 0),
            false => (publisher % self.channels, publisher / self.channels),
        };
        Stamp {
            channel,
            sender,
            sequence: number / channels,
        }
    }

    fn publisher(&self, stamp: Stamp) -> Option<u32> {
        self.publisher_of(stamp.channel, stamp.sender)
    }

    fn publisher_of(&self, channel: u32, rank: u32) -> Option<u32> {
        if channel >= self.channels || rank >= self.publishers_per_channel() {
            return None;
        }
        Some(match self.publishers <= self.channels {
            true => channel % self.publishers,
            false => rank * self.channels + channel,
        })
    }

    /// The number that the stamp was made from.
    fn number(&self, publisher: u32, stamp: Stamp) -> u64 {
        let turn = match self.publishers <= self.channels {
            true => stamp.channel / self.publishers,
            false => 0,
        };
        stamp.sequence * u64::from(self.channels_of_publisher(publisher)) + u64::from(turn)
    }

    /// How many of a publisher's first `count` messages were for this channel.
    fn published(&self, publisher: u32, channel: u32, count: u64) -> u64 {
        let channels = u64::from(self.channels_of_publisher(publisher));
        let turn = match self.publishers <= self.channels {
            true => u64::from(channel / self.publishers),
            false => 0,
        };
        (count + channels - 1 - turn) / channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(subscribers: u32, publishers: u32, channels: u32) -> Plan {
        Plan {
            subscribers,
            publishers,
            channels,
        }
    }

    #[test]
    fn a_message_is_traced_back_to_its_publisher_and_number() {
        for plan in [
            plan(100, 1, 1),
            plan(100, 60, 1),
            plan(90, 7, 30),
            plan(50, 20, 10),
        ] {
            let mut per_channel = vec![0_u64; plan.channels as usize];
            for publisher in 0..plan.publishers {
                for number in 0..100 {
                    let stamp = plan.stamp(publisher, number);
                    assert_eq!(plan.publisher(stamp), Some(publisher));
                    assert_eq!(plan.number(publisher, stamp), number);
                    per_channel[stamp.channel as usize] += 1;
                    let published = plan.published(publisher, stamp.channel, number + 1);
                    assert_eq!(published, stamp.sequence + 1);
                }
            }
            assert!(
                per_channel.iter().all(|count| *count > 0),
                "every channel has a publisher"
            );
        }
    }

    #[test]
    fn subscribers_are_counted_by_channel() {
        let plan = plan(103, 1, 10);
        let counted: u32 = (0..10).map(|channel| plan.subscribers_of(channel)).sum();
        assert_eq!(counted, 103);
        assert_eq!((plan.subscribers_of(0), plan.subscribers_of(9)), (11, 10));
        assert_eq!(plan.memberships(7).count(), 110);
    }

    #[test]
    fn a_message_is_complete_with_its_last_copy() {
        let plan = plan(2, 1, 1);
        let mut publisher = Publisher::default();
        publisher.publish(&plan, 0);
        publisher.publish(&plan, 0);
        let mut complete = 0;
        for (number, after) in [(0, 0), (1, 0), (0, 1), (1, 2), (1, 2)] {
            publisher.arrived(number, Instant::now(), |_| complete += 1);
            assert_eq!(complete, after);
        }
        assert!(publisher.under_way.is_empty());
    }
}
