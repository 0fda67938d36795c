//! Echo in an open loop: messages are due at fixed times, whatever has come back, and a latency counts from when its
//! message was due. So a server that stands still is charged for all that should have happened meanwhile.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Checker, Context, LAST_ARRIVALS, TURN};
use crate::arguments::Message;
use crate::ledger::{Expectation, Faults};
use crate::meter::Meter;
use crate::payload::{Kind, Stamp};
use crate::pool::Pool;
use crate::report::{Latency, times};
use crate::stream::Item;
use crate::websocket::{Template, WebSocket};

/// Messages are sent when they are due, within this; waking more often costs CPU time that is not the server's.
const PRECISION: Duration = Duration::from_micros(100);

pub(super) struct Paced {
    template: Template,
    checker: Checker,
    interval: Duration,
    /// Their indexes in the pool, in the order in which they take turns.
    sockets: Vec<usize>,
    /// By socket, in the same order.
    expectations: Vec<Expectation>,
    /// Index in the pool → place in `sockets`.
    places: Vec<Option<usize>>,
    faults: Faults,
    /// How much later than due messages were sent.
    lateness: Histogram<u64>,
}

impl Paced {
    pub(super) fn new(context: Context, message: Message, rate: u32, sockets: &[usize]) -> Self {
        let mut places = vec![None; sockets.iter().max().map_or(0, |most| most + 1)];
        for (place, index) in sockets.iter().enumerate() {
            places[*index] = Some(place);
        }
        Self {
            template: context.template(Kind::Echo, message),
            checker: Checker::new(Kind::Echo, message.size),
            interval: Duration::from_secs(1) / rate,
            sockets: sockets.to_vec(),
            expectations: vec![Expectation::default(); sockets.len()],
            places,
            faults: Faults::default(),
            lateness: times(),
        }
    }

    /// Sends until the meter's window is over, and waits for the last echoes. Messages of other sockets go to `other`,
    /// which is also asked once a turn, without one.
    pub(super) fn run(
        &mut self,
        pool: &mut Pool<WebSocket>,
        meter: &mut Meter,
        mut other: impl FnMut(&mut Pool<WebSocket>, Option<usize>) -> Result<(), String>,
    ) -> Result<(), String> {
        pool.wake_every(self.interval.max(PRECISION))?;
        self.expectations.fill(Expectation::default());
        let began = Instant::now();
        let (mut sent, mut done) = (0_u64, 0_u64);
        let mut sending = true;
        let mut last_arrivals = began;
        let mut others = Vec::new();
        while sending || (done < sent && Instant::now() < last_arrivals) {
            if sending {
                sent = self.send_due(pool, began, sent);
            }
            let count = self.sockets.len() as u64;
            pool.turn(TURN, |_, index, item, now| match item {
                Item::Message(message) => {
                    let Some(place) = self.places.get(index).copied().flatten() else {
                        return others.push(index);
                    };
                    match self.checker.stamp(message) {
                        Some(stamp) if stamp.sender as usize == place => {
                            if self.expectations[place].note(stamp.sequence, &mut self.faults) {
                                done += 1;
                                let number = stamp.sequence * count + place as u64;
                                meter.latency(
                                    now.saturating_duration_since(self.due(began, number)),
                                );
                            }
                        }
                        _ => self.faults.damaged += 1,
                    }
                }
                Item::Open => {}
                Item::End => self.faults.broken += 1,
            })?;
            for index in others.drain(..) {
                other(pool, Some(index))?;
            }
            other(pool, None)?;
            if sending {
                sending = !meter.tick(done)?;
                last_arrivals = Instant::now() + LAST_ARRIVALS;
            }
        }
        let count = self.sockets.len() as u64;
        for (place, expectation) in self.expectations.iter().enumerate() {
            let of_this = (sent + count - 1 - place as u64) / count;
            expectation.settle(of_this, &mut self.faults);
        }
        Ok(())
    }

    fn due(&self, began: Instant, number: u64) -> Instant {
        began + Duration::from_nanos(self.interval.as_nanos() as u64 * number)
    }

    fn send_due(&mut self, pool: &mut Pool<WebSocket>, began: Instant, mut sent: u64) -> u64 {
        let count = self.sockets.len() as u64;
        let now = Instant::now();
        loop {
            let due = self.due(began, sent);
            if due > now {
                return sent;
            }
            let place = (sent % count) as usize;
            let stamp = Stamp {
                channel: 0,
                sender: place as u32,
                sequence: sent / count,
            };
            let index = self.sockets[place];
            self.template.write(stamp, pool.outgoing(index));
            pool.flush(index);
            self.lateness
                .saturating_record((now - due).as_nanos() as u64);
            sent += 1;
        }
    }

    pub(super) fn faults(&self) -> Faults {
        self.faults
    }

    /// By how much this process, not the server, was late. It is part of the latencies.
    pub(super) fn lateness(&self) -> Option<Latency> {
        Latency::of(&self.lateness)
    }
}
