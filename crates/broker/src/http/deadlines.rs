//! How long the peer of an HTTP connection may take, without clocks or timers: time comes as an argument.
//!
//! ```text
//! Head ──▶ Handler ──▶ Idle ──▶ Head …
//!   │         ▲
//!   └─▶ Body ─┘
//! ```
//!
//! Beside these, an answer of which the peer takes nothing has a time of its own.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::options::ListenOptions;

/// For so long a body may come as slowly as it wants: TCP starts slowly, and a radio may have to wake up first.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    header_timeout: Duration,
    keep_alive_timeout: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    min_body_rate: Option<NonZeroU32>,
    stage: Stage,
    /// The peer takes nothing of what is written, since then.
    blocked: Option<Since>,
}

/// A moment. It is filled in at the next look at the clock, so that one look serves all that happens in one poll, and
/// a request that comes and is answered at once needs none.
type Since = Option<Instant>;

/// What the connection waits for.
#[derive(Debug)]
enum Stage {
    /// The first byte of another request.
    Idle(Since),
    /// The end of a head. Of the first request of a connection it may be that not even a byte of it has come.
    Head { since: Since, has_begun: bool },
    /// The end of a body, of which this much has come.
    Body {
        since: Since,
        bytes: u64,
        is_late: bool,
    },
    /// An answer of ours. Something behind the request may have come meanwhile.
    Handler { is_ahead: bool },
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Another request, of which nothing has come, and nobody promised one.
    Idle,
    /// A head of which something has come.
    Head,
    /// A body: the exchange that collects it will find it [late](Deadlines::body_is_late).
    Body,
    /// The peer does not read its answer.
    Unread,
}

impl Deadlines {
    /// For a connection that was accepted just now: the time of its first head is running.
    pub(super) fn new(options: &ListenOptions) -> Self {
        Self {
            header_timeout: options.header_timeout,
            keep_alive_timeout: options.keep_alive_timeout,
            body_timeout: options.body_timeout,
            write_timeout: options.write_timeout,
            min_body_rate: options.min_body_rate,
            stage: Stage::Head {
                since: None,
                has_begun: false,
            },
            blocked: None,
        }
    }

    /// Bytes have come.
    pub(super) fn received(&mut self) {
        match &mut self.stage {
            Stage::Idle(_) => {
                self.stage = Stage::Head {
                    since: None,
                    has_begun: true,
                };
            }
            Stage::Head { has_begun, .. } => *has_begun = true,
            Stage::Handler { is_ahead } => *is_ahead = true,
            Stage::Body { .. } => {}
        }
    }

    /// The head is complete.
    pub(super) fn head_ended(&mut self) {
        self.stage = Stage::Handler { is_ahead: false };
    }

    /// There is a body, and its end has not come.
    pub(super) fn body_began(&mut self) {
        self.stage = Stage::Body {
            since: None,
            bytes: 0,
            is_late: false,
        };
    }

    /// So much more of the body has come.
    pub(super) fn body_received(&mut self, more: usize) {
        if let Stage::Body { bytes, .. } = &mut self.stage {
            *bytes += more as u64;
        }
    }

    pub(super) fn body_ended(&mut self) {
        self.stage = Stage::Handler { is_ahead: false };
    }

    /// Whether the body has been found [overdue](Overdue::Body).
    pub(super) fn body_is_late(&self) -> bool {
        matches!(self.stage, Stage::Body { is_late: true, .. })
    }

    /// There is an answer. What is left of it to write has the deadline of [`blocked`](Self::blocked).
    pub(super) fn answered(&mut self) {
        self.stage = match self.stage {
            // Half of the next head has come with this request, or while it was handled.
            Stage::Handler { is_ahead: true } => Stage::Head {
                since: None,
                has_begun: true,
            },
            _ => Stage::Idle(None),
        };
    }

    /// The kernel takes no more, because the peer does not.
    pub(super) fn blocked(&mut self) {
        self.blocked.get_or_insert(None);
    }

    /// The kernel has taken something.
    pub(super) fn written(&mut self) {
        self.blocked = None;
    }

    /// Whether a request has been read and has no answer yet.
    pub(super) fn is_handling(&self) -> bool {
        matches!(self.stage, Stage::Handler { .. })
    }

    /// Whether anything has a deadline at the moment, and so whether it is worth looking at the clock.
    pub(super) fn is_waiting(&self) -> bool {
        self.blocked.is_some()
            || !matches!(
                self.stage,
                Stage::Handler { .. } | Stage::Body { is_late: true, .. }
            )
    }

    /// The next deadline, and what is overdue then.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Instant, Overdue)> {
        let unread = self.blocked.as_mut().map(|since| {
            let began = *since.get_or_insert(now);
            (began + self.write_timeout, Overdue::Unread)
        });
        let stage = self.next_of_stage(now);
        match (unread, stage) {
            (Some(unread), Some(stage)) => Some(if unread.0 <= stage.0 { unread } else { stage }),
            (unread, stage) => unread.or(stage),
        }
    }

    fn next_of_stage(&mut self, now: Instant) -> Option<(Instant, Overdue)> {
        match &mut self.stage {
            // Nobody reads the next request before the answer to the last one is out.
            Stage::Idle(_) | Stage::Head { .. } if self.blocked.is_some() => None,
            Stage::Idle(since) => {
                let began = *since.get_or_insert(now);
                Some((began + self.keep_alive_timeout, Overdue::Idle))
            }
            Stage::Head { since, has_begun } => {
                let began = *since.get_or_insert(now);
                let overdue = if *has_begun {
                    Overdue::Head
                } else {
                    Overdue::Idle
                };
                Some((began + self.header_timeout, overdue))
            }
            Stage::Body {
                since,
                bytes,
                is_late: false,
            } => {
                let began = *since.get_or_insert(now);
                let allowed = match self.min_body_rate {
                    Some(rate) => self.body_timeout.min(time_of(*bytes, rate).max(BODY_GRACE)),
                    None => self.body_timeout,
                };
                Some((began + allowed, Overdue::Body))
            }
            Stage::Body { .. } | Stage::Handler { .. } => None,
        }
    }

    /// What is overdue by now. A body is so once.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Overdue> {
        let (_, overdue) = self.next(now).filter(|(deadline, _)| *deadline <= now)?;
        if let (Overdue::Body, Stage::Body { is_late, .. }) = (overdue, &mut self.stage) {
            *is_late = true;
        }
        Some(overdue)
    }
}

/// How long so many bytes may take at this rate, which is bytes per second.
fn time_of(bytes: u64, rate: NonZeroU32) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / u64::from(rate.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::BindAddress;

    /// The defaults, but with a time of its own for each thing.
    fn deadlines() -> Deadlines {
        let mut options = ListenOptions::new(BindAddress::Inet {
            host: None,
            port: 0,
        });
        options.header_timeout = Duration::from_secs(10);
        options.keep_alive_timeout = Duration::from_secs(60);
        options.body_timeout = Duration::from_secs(30);
        options.write_timeout = Duration::from_secs(20);
        options.min_body_rate = NonZeroU32::new(100);
        Deadlines::new(&options)
    }

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_first_head_has_its_time_from_the_accept_on() {
        let start = Instant::now();
        let mut silent = deadlines();
        assert_eq!(
            silent.next(start),
            Some((start + second(10), Overdue::Idle))
        );
        let mut slow = deadlines();
        slow.next(start);
        slow.received();
        let due = Some((start + second(10), Overdue::Head));
        assert_eq!(slow.next(start + second(9)), due);
        slow.received();
        assert_eq!(
            slow.next(start + second(9)),
            due,
            "a byte more is no more time"
        );
        assert_eq!(slow.overdue(start + second(10)), Some(Overdue::Head));
    }

    #[test]
    fn a_later_head_has_its_time_from_its_first_byte_on() {
        let start = Instant::now();
        let mut kept = deadlines();
        kept.received();
        kept.head_ended();
        assert!(!kept.is_waiting(), "a handler may take its time");
        assert_eq!(kept.next(start), None);
        kept.answered();
        assert_eq!(kept.next(start), Some((start + second(60), Overdue::Idle)));
        kept.received();
        let begun = start + second(59);
        assert_eq!(kept.next(begun), Some((begun + second(10), Overdue::Head)));
    }

    #[test]
    fn half_a_head_that_came_during_the_last_request_is_no_idleness() {
        let start = Instant::now();
        let mut ahead = deadlines();
        ahead.head_ended();
        ahead.received();
        ahead.answered();
        assert_eq!(ahead.next(start), Some((start + second(10), Overdue::Head)));
    }

    #[test]
    fn a_body_has_its_grace_and_then_its_rate_and_never_more_than_its_time() {
        let start = Instant::now();
        let mut slow = deadlines();
        slow.head_ended();
        slow.body_began();
        assert_eq!(slow.next(start), Some((start + second(5), Overdue::Body)));
        slow.body_received(499);
        assert_eq!(slow.next(start), Some((start + second(5), Overdue::Body)));
        slow.body_received(301);
        let at = start + second(8);
        assert_eq!(slow.next(start), Some((at, Overdue::Body)));
        assert_eq!(slow.overdue(at - Duration::from_millis(1)), None);
        assert_eq!(slow.overdue(at), Some(Overdue::Body));
        assert!(slow.body_is_late());
        assert_eq!(slow.overdue(at), None, "it is said once");
        assert!(!slow.is_waiting());

        let mut large = deadlines();
        large.body_began();
        large.next(start);
        large.body_received(1 << 40);
        assert_eq!(large.next(start), Some((start + second(30), Overdue::Body)));
        large.body_ended();
        assert_eq!(large.next(start + second(30)), None);
    }

    #[test]
    fn without_a_rate_a_body_has_its_whole_time() {
        let start = Instant::now();
        let mut slow = deadlines();
        slow.min_body_rate = None;
        slow.body_began();
        assert_eq!(slow.next(start), Some((start + second(30), Overdue::Body)));
    }

    #[test]
    fn an_answer_that_is_not_read_has_its_time_from_the_last_byte_taken() {
        let start = Instant::now();
        let mut unread = deadlines();
        unread.head_ended();
        unread.answered();
        unread.blocked();
        assert_eq!(
            unread.next(start),
            Some((start + second(20), Overdue::Unread))
        );
        unread.blocked();
        assert_eq!(
            unread.next(start + second(5)),
            Some((start + second(20), Overdue::Unread))
        );
        unread.written();
        unread.blocked();
        let later = start + second(15);
        assert_eq!(
            unread.next(later),
            Some((later + second(20), Overdue::Unread))
        );
        unread.written();
        let done = start + second(30);
        assert_eq!(unread.next(done), Some((done + second(60), Overdue::Idle)));
    }

    #[test]
    fn what_is_due_first_is_next() {
        let start = Instant::now();
        let mut both = deadlines();
        both.head_ended();
        both.body_began();
        both.blocked();
        assert_eq!(both.next(start), Some((start + second(5), Overdue::Body)));
        both.body_received(1 << 20);
        assert_eq!(
            both.next(start),
            Some((start + second(20), Overdue::Unread))
        );
    }
}
