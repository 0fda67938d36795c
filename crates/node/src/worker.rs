//! A JavaScript thread that handles events: its registration, its wake-up, its batches.
//!
//! The engine puts events in the worker's queue and calls the waker once. The waker wakes the event loop, which calls
//! the function that the TypeScript registered, and that takes batch after batch until none is left, which puts the
//! worker to sleep again.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use neon::event::Channel;
use neon::prelude::*;
use neon::sys::bindings as node_api;
use neon::types::buffer::TypedArray;
use wsbroker_engine::{Batch, Finished, Interest, Worker, WorkerWaker};

use crate::environment::Registered;
use crate::event_loop::LoopSignal;
use crate::{broker, convert, environment, in_hand, large_text};

pub(crate) struct RegisteredWorker {
    handle: u32,
    worker: Worker,
    waker: Arc<EventLoopWaker>,
    /// What a wake-up calls.
    on_events: Root<JsFunction>,
    finished: FinishedEvents,
    /// A batch that JavaScript had no memory for: the next one that it takes.
    refused: Option<Batch>,
    is_retired: bool,
}

impl RegisteredWorker {
    pub(crate) fn handle(&self) -> u32 {
        self.handle
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired
    }

    pub(crate) fn set_retired(&mut self) {
        self.is_retired = true;
    }

    fn next_batch(&mut self) -> Option<Batch> {
        self.refused.take().or_else(|| self.worker.take())
    }

    /// Tells the engine that this worker handles nothing any more.
    pub(crate) fn end(&self) {
        self.waker.close();
        self.worker.end(Some(self.finished.read()));
    }
}

/// How many events have been handled, modulo 2^32: messages in the first element of a `Uint32Array`, opens and drains in
/// the second. It costs JavaScript next to nothing to count there, and Rust reads it once, at the end of the worker.
struct FinishedEvents {
    /// The two elements in the array's backing store.
    elements: AtomicPtr<[u32; 2]>,
    /// Keeps the backing store.
    _array: Root<JsUint32Array>,
}

impl FinishedEvents {
    fn new<'cx>(cx: &mut Cx<'cx>, array: Handle<'cx, JsUint32Array>) -> Option<Self> {
        let elements: &[u32; 2] = array.as_slice(cx).first_chunk()?;
        Some(Self {
            elements: AtomicPtr::new(ptr::from_ref(elements).cast_mut()),
            _array: array.root(cx),
        })
    }

    fn read(&self) -> Finished {
        // SAFETY: the root keeps the array, JavaScript neither transfers nor resizes its buffer, and V8 does not move
        // backing stores. This runs on the thread of the environment: in a call from
        // JavaScript, or in the drop of the instance data, which Node makes in the environment's teardown, before it
        // disposes of the isolate that owns the memory. `test/workers.test.mjs` terminates threads and compares.
        let [messages, others] = unsafe { self.elements.load(Ordering::Relaxed).read_volatile() };
        Finished { messages, others }
    }
}

/// Wakes a JavaScript thread from a shard. There is never more than one wake-up under way.
enum EventLoopWaker {
    Signal(Arc<LoopSignal>),
    /// Where the event loop is not libuv's.
    Channel {
        channel: Channel,
        handle: u32,
        /// True while a closure waits in the queue of the event loop. Should the environment die it stays true, and
        /// there is nobody to wake.
        is_queued: Arc<AtomicBool>,
    },
}

impl EventLoopWaker {
    fn new(cx: &mut Cx, handle: u32, is_libuv: bool, resource: Handle<'_, JsObject>) -> Self {
        let signal = is_libuv.then(|| LoopSignal::new(cx, resource, call_on_events, handle));
        if let Some(signal) = signal.flatten() {
            return Self::Signal(signal);
        }
        let mut channel = cx.channel();
        channel.unref(cx);
        Self::Channel {
            channel,
            handle,
            is_queued: Arc::default(),
        }
    }

    /// No wake-up from here on.
    fn close(&self) {
        if let Self::Signal(signal) = self {
            signal.close();
        }
    }
}

impl WorkerWaker for EventLoopWaker {
    fn wake(&self) {
        match self {
            Self::Signal(signal) => signal.send(),
            Self::Channel {
                channel,
                handle,
                is_queued,
            } => {
                if is_queued.swap(true, Ordering::AcqRel) {
                    return;
                }
                let handle = *handle;
                let is_queued = Arc::clone(is_queued);
                // Fails once the environment is gone, and then there is nothing to do: its end gave the events to
                // others.
                let _ = channel.try_send(move |mut cx| {
                    is_queued.store(false, Ordering::Release);
                    call_on_events_elsewhere(&mut cx, handle);
                    Ok(())
                });
            }
        }
    }
}

/// In the asynchronous context of the worker.
fn call_on_events(cx: &mut Cx, handle: u32) {
    if let Some(on_events) = on_events(cx, handle) {
        call_ignoring_exceptions(cx, on_events, &[]);
    }
}

/// In another asynchronous context, which a first argument says.
fn call_on_events_elsewhere(cx: &mut Cx, handle: u32) {
    if let Some(on_events) = on_events(cx, handle) {
        let is_elsewhere = cx.number(1);
        call_ignoring_exceptions(cx, on_events, &[is_elsewhere]);
    }
}

fn on_events<'cx>(cx: &mut Cx<'cx>, handle: u32) -> Option<Handle<'cx, JsFunction>> {
    let environment = environment::get(cx)?;
    Some(environment.worker(handle)?.on_events.to_inner(cx))
}

/// Calls a function of this package's TypeScript, which lets no exception out. What comes all the same is the end of
/// the thread: V8 reports `terminate()` as an exception that nothing can be done with, and Neon would abort the process
/// in the attempt to make an unhandled rejection of it.
pub(crate) fn call_ignoring_exceptions<'cx>(
    cx: &mut Cx<'cx>,
    function: Handle<'cx, JsFunction>,
    arguments: &[Handle<'cx, JsNumber>],
) {
    let this = cx.undefined();
    let arguments: Vec<node_api::Value> =
        arguments.iter().map(|argument| argument.to_raw()).collect();
    let env = cx.to_raw();
    let mut result: node_api::Value = ptr::null_mut();
    // SAFETY: all values are alive in the handle scope of `cx`, and the results go to locals. Both calls answer with a
    // status in every state of the environment, pending exceptions and termination included.
    unsafe {
        let status = node_api::call_function(
            env,
            this.to_raw(),
            function.to_raw(),
            arguments.len(),
            arguments.as_ptr(),
            &raw mut result,
        );
        if status.is_err() {
            let _ = node_api::get_and_clear_last_exception(env, &raw mut result);
        }
    }
}

/// `(http, upgrade, opens, sockets, onEvents, finishedEvents, isMainThread, isLibuv, asyncResource) → handle`, or 0 when this
/// thread is registered already, and -1 when it is by another instance of this library.
pub(crate) fn register(mut cx: FunctionContext) -> JsResult<JsNumber> {
    let interest = Interest {
        http: cx.argument::<JsBoolean>(0)?.value(&mut cx),
        upgrade: cx.argument::<JsBoolean>(1)?.value(&mut cx),
        confirms_closes: true,
        ignores_opens: !cx.argument::<JsBoolean>(2)?.value(&mut cx),
        ignores_sockets: !cx.argument::<JsBoolean>(3)?.value(&mut cx),
    };
    let on_events = cx.argument::<JsFunction>(4)?.root(&mut cx);
    let finished = cx.argument::<JsUint32Array>(5)?;
    let Some(finished) = FinishedEvents::new(&mut cx, finished) else {
        return Ok(cx.number(0));
    };
    let is_main_thread = cx.argument::<JsBoolean>(6)?.value(&mut cx);
    let is_libuv = cx.argument::<JsBoolean>(7)?.value(&mut cx);
    let resource = cx.argument::<JsObject>(8)?;

    let handle = environment::get_or_create(&mut cx, is_main_thread)?.next_handle();
    // Before the environment is locked: hooks of `node:async_hooks` are told of it.
    let waker = Arc::new(EventLoopWaker::new(&mut cx, handle, is_libuv, resource));
    let mut environment = environment::get_or_create(&mut cx, is_main_thread)?;
    let refusal = match environment.registered_in_this_thread() {
        Registered::Nobody => None,
        Registered::Here => Some(0),
        Registered::Elsewhere => Some(-1),
    };
    if let Some(refusal) = refusal {
        drop(environment);
        waker.close();
        return Ok(cx.number(refusal));
    }
    let worker = RegisteredWorker {
        handle,
        worker: broker().register_worker(interest, Arc::clone(&waker) as _),
        waker,
        on_events,
        finished,
        refused: None,
        is_retired: false,
    };
    environment.add_worker(worker);
    environment.update_keep_alive(&mut cx);
    Ok(cx.number(handle))
}

/// `(handle, busySockets)`: no new events for this worker. It finishes what it was given and then calls `end`. The
/// sockets it is busy with wait until it releases them.
pub(crate) fn retire(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let handle = convert::number(&mut cx, 0)? as u32;
    let busy = convert::socket_ids(&mut cx, 1)?;
    if let Some(mut environment) = environment::get(&mut cx) {
        if let Some(worker) = environment.retire_worker(handle) {
            worker.worker.retire(&busy);
        }
        environment.update_keep_alive(&mut cx);
    }
    Ok(cx.undefined())
}

/// `(handle, socketId)`: this worker, which has retired, is no longer busy with that socket.
pub(crate) fn release(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let handle = convert::number(&mut cx, 0)? as u32;
    let socket = convert::socket_id(&mut cx, 1)?;
    if let Some(environment) = environment::get(&mut cx)
        && let Some((worker, socket)) = environment.worker(handle).zip(socket)
    {
        worker.worker.release(socket);
    }
    Ok(cx.undefined())
}

/// `(handle)`: this worker has finished everything.
pub(crate) fn end(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let handle = convert::number(&mut cx, 0)? as u32;
    let worker =
        environment::get(&mut cx).and_then(|mut environment| environment.remove_worker(handle));
    if let Some(worker) = worker {
        worker.end();
    }
    Ok(cx.undefined())
}

/// `(handle, store) → Buffer | number | undefined`: the next batch: in `store`, of so many bytes, if it fits and nobody may
/// keep bytes of it; else in a buffer of its own. From a batch to the next `take` or `uncork` the calls of this thread are
/// collected, so that each shard is woken once for all of them. It throws when there is no memory for a buffer; the next call
/// gives the same batch.
pub(crate) fn take(mut cx: FunctionContext) -> JsResult<JsValue> {
    let handle = convert::number(&mut cx, 0)? as u32;
    wsbroker_engine::uncork();
    in_hand::leave();
    let batch = environment::get(&mut cx)
        .and_then(|mut environment| environment.worker_mut(handle)?.next_batch());
    let Some(batch) = batch else {
        return Ok(cx.undefined().upcast());
    };
    wsbroker_engine::cork();
    let mut store = cx.argument::<JsBuffer>(1)?;
    let packed = batch.packed();
    let (taken, copy) = match store.as_mut_slice(&mut cx).get_mut(..packed.len()) {
        Some(store) if !batch.has_bytes_to_keep() => {
            store.copy_from_slice(packed);
            (cx.number(packed.len() as u32).upcast(), None)
        }
        _ => match convert::batch_buffer(&mut cx, packed) {
            Ok((buffer, copy)) => (buffer.upcast(), Some(copy)),
            Err(no_memory) => {
                if let Some(mut environment) = environment::get(&mut cx)
                    && let Some(worker) = environment.worker_mut(handle)
                {
                    worker.refused = Some(batch);
                }
                return Err(no_memory);
            }
        },
    };
    in_hand::take(batch, copy);
    Ok(taken)
}

/// `() → Buffer`: the batch in hand once more.
pub(crate) fn take_again(mut cx: FunctionContext) -> JsResult<JsBuffer> {
    in_hand::copy_again(|packed| convert::batch_buffer(&mut cx, packed))
}

/// `(ascii) → string`: the next large text of the batch in hand.
pub(crate) fn take_large_text(mut cx: FunctionContext) -> JsResult<JsString> {
    let Some(text) = in_hand::next_large_text() else {
        return cx.throw_error("this batch has no more large texts");
    };
    let is_ascii = cx.argument::<JsBoolean>(0)?.value(&mut cx);
    large_text::string(&mut cx, &text, is_ascii)
}

/// `(handle, socketId)`: the close handler of this socket starts now.
pub(crate) fn begin_close(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    let handle = convert::number(&mut cx, 0)? as u32;
    let socket = convert::socket_id(&mut cx, 1)?;
    if let Some(environment) = environment::get(&mut cx)
        && let Some((worker, socket)) = environment.worker(handle).zip(socket)
    {
        worker.worker.begin_close(socket);
    }
    Ok(cx.undefined())
}

pub(crate) fn cork(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    wsbroker_engine::cork();
    Ok(cx.undefined())
}

pub(crate) fn uncork(mut cx: FunctionContext) -> JsResult<JsUndefined> {
    wsbroker_engine::uncork();
    Ok(cx.undefined())
}
