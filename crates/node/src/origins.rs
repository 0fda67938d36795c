//! The application's function that judges origins: questions from the I/O threads to the JavaScript thread that started
//! the server, and its answers back.
//!
//! Like the events of a worker, questions wait in a queue, and one wake-up at most is under way for all of them.

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use neon::event::Channel;
use neon::prelude::*;
use neon::sys::bindings as node_api;
use wsbroker_engine::{OriginAnswer, OriginCheck, OriginVerdict};

/// How many questions may wait, each of an origin of at most 1 KiB. A thread that lets more of them wait is stuck, and
/// further upgrades are told so at once.
const MAX_WAITING: usize = 16_384;

/// What the TypeScript answers.
const REFUSED: f64 = 0.0;
const ALLOWED: f64 = 1.0;

/// A function of one thread. Clones are the same function.
#[derive(Clone)]
pub(crate) struct OriginFunction(Arc<Inner>);

struct Inner {
    channel: Channel,
    /// `(origin?) → number`, which lets no exception out.
    judge: Root<JsFunction>,
    /// Held for one step at a time, and never while an answer is given or dropped.
    questions: Mutex<Questions>,
}

#[derive(Default)]
struct Questions {
    waiting: Vec<Question>,
    /// A closure waits in the queue of the event loop.
    is_queued: bool,
    /// The thread has ended.
    is_over: bool,
}

struct Question {
    origin: Option<String>,
    answer: OriginAnswer,
}

impl OriginFunction {
    pub(crate) fn new<'cx>(cx: &mut Cx<'cx>, judge: Handle<'cx, JsFunction>) -> Self {
        let mut channel = cx.channel();
        channel.unref(cx);
        Self(Arc::new(Inner {
            channel,
            judge: judge.root(cx),
            questions: Mutex::default(),
        }))
    }

    /// The thread has ended: whoever asks, or has asked, is told that there is nobody.
    pub(crate) fn end(&self) {
        let mut questions = self.questions();
        questions.is_over = true;
        let unanswered = std::mem::take(&mut questions.waiting);
        drop(questions);
        drop(unanswered);
    }

    /// No server uses it any more.
    pub(crate) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        let questions = &self.0.questions;
        questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thread has to be called. A question that cannot wait is dropped, and with that answered.
    fn queue(&self, question: Question) -> bool {
        let mut questions = self.questions();
        if questions.waiting.len() >= MAX_WAITING {
            questions.waiting.retain(|one| one.answer.is_awaited());
        }
        if questions.is_over || questions.waiting.len() >= MAX_WAITING {
            drop(questions);
            drop(question);
            return false;
        }
        questions.waiting.push(question);
        !std::mem::replace(&mut questions.is_queued, true)
    }

    fn judge_all(&self, cx: &mut Cx) {
        let mut questions = self.questions();
        questions.is_queued = false;
        let waiting = std::mem::take(&mut questions.waiting);
        drop(questions);
        // Each I/O thread is woken once for all of its answers.
        wsbroker_engine::cork();
        for Question { origin, answer } in waiting {
            if answer.is_awaited() {
                answer.give(self.judge(cx, origin.as_deref()));
            }
        }
        wsbroker_engine::uncork();
    }

    fn judge(&self, cx: &mut Cx, origin: Option<&str>) -> OriginVerdict {
        let answer = cx.execute_scoped(|mut cx| {
            let judge = self.0.judge.to_inner(&mut cx);
            let origin = match origin {
                Some(origin) => cx.string(origin).upcast::<JsValue>(),
                None => cx.undefined().upcast(),
            };
            call(&mut cx, judge, origin)
        });
        match answer {
            Some(ALLOWED) => OriginVerdict::Allowed,
            Some(REFUSED) => OriginVerdict::Refused,
            Some(_) => OriginVerdict::Failed,
            None => OriginVerdict::Unavailable,
        }
    }
}

impl OriginCheck for OriginFunction {
    fn ask(&self, origin: Option<&str>, answer: OriginAnswer) {
        let origin = origin.map(str::to_owned);
        if !self.queue(Question { origin, answer }) {
            return;
        }
        let this = self.clone();
        let sent = self.0.channel.try_send(move |mut cx| {
            this.judge_all(&mut cx);
            Ok(())
        });
        if sent.is_err() {
            self.end();
        }
    }
}

/// The number that a function answers; `None` when the thread is being terminated, see
/// [`call_ignoring_exceptions`](crate::worker::call_ignoring_exceptions).
fn call<'cx>(
    cx: &mut Cx<'cx>,
    function: Handle<'cx, JsFunction>,
    argument: Handle<'cx, JsValue>,
) -> Option<f64> {
    let this = cx.undefined();
    let env = cx.to_raw();
    let arguments = [argument.to_raw()];
    let mut result: node_api::Value = ptr::null_mut();
    let mut number = 0.0;
    // SAFETY: all values are alive in the handle scope of `cx`, and the results go to locals. All calls answer with a
    // status in every state of the environment, pending exceptions and termination included; `result` is read only
    // after a call that has set it.
    unsafe {
        let called = node_api::call_function(
            env,
            this.to_raw(),
            function.to_raw(),
            arguments.len(),
            arguments.as_ptr(),
            &raw mut result,
        );
        if called.is_err() {
            let _ = node_api::get_and_clear_last_exception(env, &raw mut result);
            return None;
        }
        node_api::get_value_double(env, result, &raw mut number)
            .is_ok()
            .then_some(number)
    }
}
