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
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::options::ListenOptions;

/// For so long a body may come as slowly as it wants: TCP starts slowly, and a radio may have to wake up first.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// What is being waited for on one connection, as those see it who serve it. All of them are its task, so that this takes no
/// lock, and is atomic for the compiler alone.
#[derive(Debug)]
pub(super) struct Progress {
    /// A [`Stage`].
    stage: AtomicU8,
    /// How many there have been.
    stages: AtomicU64,
    /// How much of the body has come, in bytes.
    body: AtomicU64,
    /// How often the peer has begun to take nothing of what is written, and has taken something again: odd while it
    /// takes nothing.
    blocked: AtomicU64,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// The first byte of another request.
    Idle,
    /// The first request, of which not even a byte has come.
    FirstHead,
    /// The end of a head.
    Head,
    /// The end of a body.
    Body,
    /// The same, and it is overdue.
    LateBody,
    /// An answer of ours.
    Handler,
    /// The same; something behind the request has come meanwhile.
    HandlerAhead,
}

impl Stage {
    const ALL: [Self; 7] = [
        Self::Idle,
        Self::FirstHead,
        Self::Head,
        Self::Body,
        Self::LateBody,
        Self::Handler,
        Self::HandlerAhead,
    ];
}

/// [`Progress`] keeps a stage as its place in the list.
const _: () = {
    let mut place = 0;
    while place < Stage::ALL.len() {
        assert!(Stage::ALL[place] as usize == place);
        place += 1;
    }
};

impl Progress {
    /// Of a connection that was accepted just now: the time of its first head is running.
    pub(super) fn new() -> Self {
        Self {
            stage: AtomicU8::new(Stage::FirstHead as u8),
            stages: AtomicU64::new(0),
            body: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
        }
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        match self.stage() {
            Stage::Idle => self.enter(Stage::Head),
            Stage::FirstHead => self.go_on_as(Stage::Head),
            Stage::Handler => self.go_on_as(Stage::HandlerAhead),
            Stage::Head | Stage::Body | Stage::LateBody | Stage::HandlerAhead => {}
        }
    }

    /// The head is complete.
    pub(super) fn head_ended(&self) {
        self.body.store(0, Ordering::Relaxed);
        self.enter(Stage::Handler);
    }

    /// There is a body, and its end has not come.
    pub(super) fn body_began(&self) {
        self.enter(Stage::Body);
    }

    /// So much more of the body has come.
    pub(super) fn body_received(&self, more: usize) {
        let bytes = self.body.load(Ordering::Relaxed);
        self.body.store(bytes + more as u64, Ordering::Relaxed);
    }

    pub(super) fn body_ended(&self) {
        self.enter(Stage::Handler);
    }

    /// Whether the body has been found [overdue](Self::overdue).
    pub(super) fn body_is_late(&self) -> bool {
        self.stage() == Stage::LateBody
    }

    /// There is an answer. What is left of it to write has the deadline of [`blocked`](Self::blocked).
    pub(super) fn answered(&self) {
        self.enter(match self.stage() {
            // Half of the next head has come with this request, or while it was handled.
            Stage::HandlerAhead => Stage::Head,
            _ => Stage::Idle,
        });
    }

    /// The kernel takes no more, because the peer does not.
    pub(super) fn blocked(&self) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        self.blocked.store(blocked | 1, Ordering::Relaxed);
    }

    /// The kernel has taken something.
    pub(super) fn written(&self) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        self.blocked
            .store(blocked + (blocked & 1), Ordering::Relaxed);
    }

    /// This has been found overdue. A body is so once.
    pub(super) fn overdue(&self, what: Overdue) {
        if what == Overdue::Body {
            self.go_on_as(Stage::LateBody);
        }
    }

    /// How much of the body has come, of the request whose head was read last.
    pub(super) fn body(&self) -> u64 {
        self.body.load(Ordering::Relaxed)
    }

    /// Whether what comes next is a head, or more of one.
    pub(super) fn expects_head(&self) -> bool {
        matches!(self.stage(), Stage::Idle | Stage::FirstHead | Stage::Head)
    }

    /// Whether a request has been read and has no answer yet.
    pub(super) fn is_handling(&self) -> bool {
        matches!(self.stage(), Stage::Handler | Stage::HandlerAhead)
    }

    /// Whether anything has a deadline at the moment, and so whether it is worth looking at the clock.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_blocked() || !(self.is_handling() || self.body_is_late())
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) & 1 == 1
    }

    fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Relaxed))]
    }

    /// Another stage, which has a time of its own.
    fn enter(&self, stage: Stage) {
        let before = self.stages.load(Ordering::Relaxed);
        self.stages.store(before + 1, Ordering::Relaxed);
        self.go_on_as(stage);
    }

    /// More is known of the stage.
    fn go_on_as(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Another request, of which nothing has come, and nobody promised one.
    Idle,
    /// A head of which something has come.
    Head,
    /// A body: the exchange that collects it will find it [late](Progress::body_is_late).
    Body,
    /// The peer does not read its answer.
    Unread,
}

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    header_timeout: Duration,
    keep_alive_timeout: Duration,
    body_timeout: Duration,
    write_timeout: Duration,
    min_body_rate: Option<NonZeroU32>,
    stage: Since,
    blocked: Since,
}

/// When something was first seen, and which of its kind it was. The clock is looked at once for all that happens in one
/// poll, and a request that comes and is answered at once needs none.
#[derive(Debug, Default)]
struct Since(Option<(u64, Instant)>);

impl Since {
    /// When this one was first seen, which may be now.
    fn of(&mut self, which: u64, now: Instant) -> Instant {
        match self.0 {
            Some((seen, since)) if seen == which => since,
            _ => {
                self.0 = Some((which, now));
                now
            }
        }
    }
}

impl Deadlines {
    pub(super) fn new(options: &ListenOptions) -> Self {
        Self {
            header_timeout: options.header_timeout,
            keep_alive_timeout: options.keep_alive_timeout,
            body_timeout: options.body_timeout,
            write_timeout: options.write_timeout,
            min_body_rate: options.min_body_rate,
            stage: Since::default(),
            blocked: Since::default(),
        }
    }

    /// The next deadline, and what is overdue then.
    pub(super) fn next(&mut self, of: &Progress, now: Instant) -> Option<(Instant, Overdue)> {
        let unread = of.is_blocked().then(|| {
            let which = of.blocked.load(Ordering::Relaxed);
            let began = self.blocked.of(which, now);
            (began + self.write_timeout, Overdue::Unread)
        });
        let stage = self.next_of_stage(of, now);
        match (unread, stage) {
            (Some(unread), Some(stage)) => Some(if unread.0 <= stage.0 { unread } else { stage }),
            (unread, stage) => unread.or(stage),
        }
    }

    fn next_of_stage(&mut self, of: &Progress, now: Instant) -> Option<(Instant, Overdue)> {
        let (time, overdue) = match of.stage() {
            // Nobody reads the next request before the answer to the last one is out.
            Stage::Idle | Stage::FirstHead | Stage::Head if of.is_blocked() => return None,
            Stage::Idle => (self.keep_alive_timeout, Overdue::Idle),
            Stage::FirstHead => (self.header_timeout, Overdue::Idle),
            Stage::Head => (self.header_timeout, Overdue::Head),
            Stage::Body => (self.time_for_body(of), Overdue::Body),
            Stage::LateBody | Stage::Handler | Stage::HandlerAhead => return None,
        };
        let which = of.stages.load(Ordering::Relaxed);
        Some((self.stage.of(which, now) + time, overdue))
    }

    fn time_for_body(&self, of: &Progress) -> Duration {
        let bytes = of.body();
        match self.min_body_rate {
            Some(rate) => self.body_timeout.min(time_of(bytes, rate).max(BODY_GRACE)),
            None => self.body_timeout,
        }
    }
}

/// How long so many bytes may take at this rate, which is bytes per second.
fn time_of(bytes: u64, rate: NonZeroU32) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / u64::from(rate.get()))
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;

    use super::*;
    use crate::address::BindAddress;

    /// The defaults, but with a time of its own for each thing.
    fn deadlines() -> Peer {
        let mut options = ListenOptions::new(BindAddress::Inet {
            host: None,
            port: 0,
        });
        options.header_timeout = Duration::from_secs(10);
        options.keep_alive_timeout = Duration::from_secs(60);
        options.body_timeout = Duration::from_secs(30);
        options.write_timeout = Duration::from_secs(20);
        options.min_body_rate = NonZeroU32::new(100);
        Peer {
            progress: Progress::new(),
            deadlines: Deadlines::new(&options),
        }
    }

    struct Peer {
        progress: Progress,
        deadlines: Deadlines,
    }

    impl Peer {
        fn next(&mut self, now: Instant) -> Option<(Instant, Overdue)> {
            self.deadlines.next(&self.progress, now)
        }

        fn overdue(&mut self, now: Instant) -> Option<Overdue> {
            let (_, overdue) = self.next(now).filter(|(deadline, _)| *deadline <= now)?;
            self.progress.overdue(overdue);
            Some(overdue)
        }
    }

    impl Deref for Peer {
        type Target = Progress;

        fn deref(&self) -> &Progress {
            &self.progress
        }
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
    fn each_idleness_has_its_own_time() {
        let start = Instant::now();
        let mut kept = deadlines();
        kept.head_ended();
        kept.answered();
        assert_eq!(kept.next(start), Some((start + second(60), Overdue::Idle)));
        // A whole request between two looks.
        kept.received();
        kept.head_ended();
        kept.answered();
        let later = start + second(50);
        assert_eq!(kept.next(later), Some((later + second(60), Overdue::Idle)));
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
        slow.deadlines.min_body_rate = None;
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
