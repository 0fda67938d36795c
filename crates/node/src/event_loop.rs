//! Wakes the event loop of a JavaScript thread, straight by libuv.
//!
//! Node's thread-safe functions, which are what a Neon `Channel` is made of, hold a mutex while they write to the
//! descriptor that wakes the loop, and the woken thread wants that mutex first: on one core it wakes, meets it and
//! sleeps again. They also take memory for each call. An async handle of libuv does neither. Node-API gives the loop.
//!
//! **No handle is sent to after it was closed, and none is open when its environment ends**: libuv forbids the one, and
//! Node ends the process for the other. A cleanup hook closes what is still open, and Node waits for it.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use neon::prelude::*;
use neon::sys::bindings as node_api;

use crate::host::host_functions;

/// What runs on the thread of the event loop, with the number that was given for it. `process.nextTick` and promises
/// that it leaves are seen to behind it. It must not panic: nobody is above it, and the process would end.
pub(crate) type OnSignal = fn(&mut Cx, u32);

/// Wakes one event loop, which it does not keep alive. Whoever makes one calls [`close`](Self::close), or leaves that
/// to the end of the environment.
pub(crate) struct LoopSignal {
    host: &'static HostFunctions,
    /// `None`: closed. Senders share this lock, and what closes takes it alone: so it waits for senders that have seen
    /// the handle. **The woken thread takes it for nothing else**, or it would wait for the thread that wakes it.
    handle: RwLock<Option<AsyncHandle>>,
}

/// An open `uv_async_t`, which may be sent to.
#[derive(Clone, Copy)]
struct AsyncHandle(*mut c_void);

// SAFETY: the pointer is used from other threads for `uv_async_send` alone, which libuv allows from any thread. For all
// else it is used in calls and callbacks on the thread of its loop.
unsafe impl Send for AsyncHandle {}
// SAFETY: as above.
unsafe impl Sync for AsyncHandle {}

/// What a handle's data points to, made and freed with the handle, and used on the thread of its loop alone.
struct Attachment {
    signal: Arc<LoopSignal>,
    env: node_api::Env,
    async_context: NodeAsyncContext,
    cleanup_hook: NodeCleanupHook,
    on_signal: OnSignal,
    argument: u32,
}

impl LoopSignal {
    /// A signal for the event loop of this thread; `None` where there is no libuv, or it refuses. The function is called with
    /// `resource` as the resource that `node:async_hooks` tells of; the caller keeps that alive.
    ///
    /// **The event loop has to be libuv's**, which is for the caller to know: other runtimes have functions of these
    /// names that end the process.
    pub(crate) fn new(
        cx: &mut Cx,
        resource: Handle<'_, JsObject>,
        on_signal: OnSignal,
        argument: u32,
    ) -> Option<Arc<Self>> {
        let host = HostFunctions::get()?;
        let env = cx.to_raw();
        let resource = resource.to_raw();
        let name = cx.string("wsbroker").to_raw();
        let signal = Arc::new(Self {
            host,
            handle: RwLock::new(None),
        });
        let mut event_loop = ptr::null_mut();
        let mut async_context = ptr::null_mut();
        // SAFETY: `env` is the environment of this thread, in the middle of a call from JavaScript, and `name` and
        // `resource` are values of it. Results go to locals and are used only if their call succeeded. The handle's
        // memory is as large as libuv says and aligned for everything; it is given to libuv by an `init` that succeeded and freed in
        // `on_closed`, or here when `init` has refused it. Between `init` and the hook nothing is called that can run
        // JavaScript or the loop, so the attachment is whole before any callback looks at it.
        unsafe {
            let found = (host.napi_get_uv_event_loop)(env, &raw mut event_loop);
            if found != OK || event_loop.is_null() {
                return None;
            }
            if (host.napi_async_init)(env, resource, name, &raw mut async_context) != OK {
                return None;
            }
            let handle = host.allocate_handle();
            if (host.uv_async_init)(event_loop, handle, on_async) != OK {
                host.free_handle(handle);
                (host.napi_async_destroy)(env, async_context);
                return None;
            }
            let attachment = Box::into_raw(Box::new(Attachment {
                signal: Arc::clone(&signal),
                env,
                async_context,
                cleanup_hook: ptr::null_mut(),
                on_signal,
                argument,
            }));
            (host.uv_handle_set_data)(handle, attachment.cast());
            (host.uv_unref)(handle);
            *signal.write() = Some(AsyncHandle(handle));
            let hook = &raw mut (*attachment).cleanup_hook;
            if (host.napi_add_async_cleanup_hook)(env, on_cleanup, attachment.cast(), hook) != OK {
                // Nothing would close it in time.
                signal.close();
                return None;
            }
        }
        Some(signal)
    }

    /// Calls the function on its thread, soon and at least once from now on: what was written before is seen by it.
    /// Before it is called libuv makes one call of all sends. From any thread; does nothing once it is closed.
    pub(crate) fn send(&self) {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(AsyncHandle(handle)) = *handle {
            // SAFETY: what closes the handle takes it out under the lock that is held here, so it is open.
            unsafe { (self.host.uv_async_send)(handle) };
        }
    }

    /// No call from here on. To be called on the thread of the event loop; it may be called again.
    pub(crate) fn close(&self) {
        let handle = self.write().take();
        if let Some(AsyncHandle(handle)) = handle {
            // SAFETY: this is the thread of the loop, and nobody else gets this handle out of the lock: it is open,
            // it is closed once, and no sender has it any more.
            unsafe { (self.host.uv_close)(handle, on_closed) };
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<AsyncHandle>> {
        self.handle.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event loop was woken. Nothing is above this but libuv and Node's loop, so what Node-API sets up for a callback is
/// set up here: values of its own, and what runs behind every callback.
unsafe extern "C" fn on_async(handle: *mut c_void) {
    let Some(host) = HostFunctions::get() else {
        return;
    };
    // SAFETY: libuv calls this for an open handle on the thread of its loop, where Node has entered the context. The
    // attachment lives until `on_closed`, and is not looked at once JavaScript has run, which may close the handle and
    // run the loop. Scopes are closed in reverse order, and what fails has opened none. All calls answer with a status
    // in every state of the environment, termination included. An exception behind the callback, such as one of
    // `process.nextTick`, is told by Node itself as one that was not caught; those of the callback are up to it.
    unsafe {
        let attachment: *const Attachment = (host.uv_handle_get_data)(handle).cast();
        let Attachment {
            env,
            async_context,
            on_signal,
            argument,
            ..
        } = *attachment;
        let mut values: node_api::HandleScope = ptr::null_mut();
        if node_api::open_handle_scope(env, &raw mut values).is_err() {
            return;
        }
        let mut callback = ptr::null_mut();
        let unused = ptr::null_mut();
        if (host.napi_open_callback_scope)(env, unused, async_context, &raw mut callback) == OK {
            on_signal(&mut Cx::from_raw(env), argument);
            (host.napi_close_callback_scope)(env, callback);
        }
        let _ = node_api::close_handle_scope(env, values);
    }
}

/// The environment ends. Its loop runs until `on_closed` has removed the hook.
unsafe extern "C" fn on_cleanup(_hook: NodeCleanupHook, attachment: *mut c_void) {
    // SAFETY: Node calls this once, on the thread of the loop, and not after the hook was removed, which is when the
    // attachment is freed.
    unsafe { (*attachment.cast::<Attachment>()).signal.close() };
}

/// libuv is done with the handle.
unsafe extern "C" fn on_closed(handle: *mut c_void) {
    let Some(host) = HostFunctions::get() else {
        return;
    };
    // SAFETY: libuv calls this once, on the thread of the loop, and uses the handle no more. The attachment was boxed
    // by `new`, and this is the one place where it is freed: `on_async` is not called for a closed handle, and
    // `on_cleanup` not for a removed hook. The environment lives while the hook is there, so the hook comes last.
    unsafe {
        let attachment: Box<Attachment> = Box::from_raw((host.uv_handle_get_data)(handle).cast());
        host.free_handle(handle);
        (host.napi_async_destroy)(attachment.env, attachment.async_context);
        if !attachment.cleanup_hook.is_null() {
            (host.napi_remove_async_cleanup_hook)(attachment.cleanup_hook);
        }
    }
}

/// The answer of both libraries to what they have done.
const OK: c_int = 0;

/// `UV_ASYNC` of `uv_handle_type`.
const ASYNC_HANDLE: c_int = 1;

/// Memory of a handle is taken in these: aligned as what `malloc` gives.
type Block = u128;

/// `napi_async_context`
type NodeAsyncContext = *mut c_void;
/// `napi_callback_scope`
type NodeCallbackScope = *mut c_void;
/// `napi_async_cleanup_hook_handle`
type NodeCleanupHook = *mut c_void;
type OnCleanup = unsafe extern "C" fn(NodeCleanupHook, *mut c_void);
type OnHandle = unsafe extern "C" fn(*mut c_void);

host_functions! {
    /// By the names and signatures of `node_api.h` and `uv.h`.
    struct HostFunctions;
    fn napi_get_uv_event_loop(node_api::Env, *mut *mut c_void) -> c_int;
    fn napi_async_init(node_api::Env, node_api::Value, node_api::Value, *mut NodeAsyncContext) -> c_int;
    fn napi_async_destroy(node_api::Env, NodeAsyncContext) -> c_int;
    fn napi_open_callback_scope(node_api::Env, node_api::Value, NodeAsyncContext, *mut NodeCallbackScope) -> c_int;
    fn napi_close_callback_scope(node_api::Env, NodeCallbackScope) -> c_int;
    fn napi_add_async_cleanup_hook(node_api::Env, OnCleanup, *mut c_void, *mut NodeCleanupHook) -> c_int;
    fn napi_remove_async_cleanup_hook(NodeCleanupHook) -> c_int;
    fn uv_handle_size(c_int) -> usize;
    fn uv_handle_get_data(*const c_void) -> *mut c_void;
    fn uv_handle_set_data(*mut c_void, *mut c_void);
    fn uv_async_init(*mut c_void, *mut c_void, OnHandle) -> c_int;
    fn uv_async_send(*mut c_void) -> c_int;
    fn uv_unref(*mut c_void);
    fn uv_close(*mut c_void, OnHandle);
}

impl HostFunctions {
    /// Memory for a `uv_async_t`.
    fn allocate_handle(&self) -> *mut c_void {
        Box::into_raw(vec![Block::MIN; self.blocks_of_handle()].into_boxed_slice()).cast()
    }

    /// # Safety
    ///
    /// It comes from `allocate_handle`, and nobody uses it any more.
    unsafe fn free_handle(&self, handle: *mut c_void) {
        let blocks = ptr::slice_from_raw_parts_mut(handle.cast::<Block>(), self.blocks_of_handle());
        // SAFETY: a box of so many blocks became this pointer, and it is the last one.
        drop(unsafe { Box::from_raw(blocks) });
    }

    fn blocks_of_handle(&self) -> usize {
        // SAFETY: it reads a constant.
        let size = unsafe { (self.uv_handle_size)(ASYNC_HANDLE) };
        size.div_ceil(size_of::<Block>())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// A handle of a libuv that checks what it allows.
    #[derive(Default)]
    struct Handle {
        sends: AtomicUsize,
        /// What closes writes this without a lock, so that a sanitizer sees a send beside it.
        is_closed: bool,
        closes: usize,
    }

    unsafe extern "C" fn send_to(handle: *mut c_void) -> c_int {
        // SAFETY: the test's handle outlives it, and whoever sends to it says that it is open.
        let handle = unsafe { &*handle.cast::<Handle>() };
        assert!(
            !handle.is_closed,
            "no handle is sent to after it was closed"
        );
        handle.sends.fetch_add(1, Ordering::Relaxed);
        OK
    }

    unsafe extern "C" fn close(handle: *mut c_void, _: OnHandle) {
        // SAFETY: as above, and nobody sends to it any more.
        let handle = unsafe { &mut *handle.cast::<Handle>() };
        handle.is_closed = true;
        handle.closes += 1;
    }

    unsafe extern "C" fn size(_: c_int) -> usize {
        100 // no multiple of a block
    }

    /// Only what the tests come to does anything.
    fn host() -> &'static HostFunctions {
        unsafe extern "C" fn four<A, B, C>(_: node_api::Env, _: A, _: B, _: C) -> c_int {
            OK
        }
        unsafe extern "C" fn two<A, B>(_: A, _: B) -> c_int {
            OK
        }
        unsafe extern "C" fn one<A>(_: A) -> c_int {
            OK
        }
        unsafe extern "C" fn data(_: *const c_void) -> *mut c_void {
            ptr::null_mut()
        }
        unsafe extern "C" fn nothing_of_two(_: *mut c_void, _: *mut c_void) {}
        unsafe extern "C" fn nothing(_: *mut c_void) {}
        unsafe extern "C" fn init(_: *mut c_void, _: *mut c_void, _: OnHandle) -> c_int {
            OK
        }
        Box::leak(Box::new(HostFunctions {
            napi_get_uv_event_loop: two,
            napi_async_init: four,
            napi_async_destroy: two,
            napi_open_callback_scope: four,
            napi_close_callback_scope: two,
            napi_add_async_cleanup_hook: four,
            napi_remove_async_cleanup_hook: one,
            uv_handle_size: size,
            uv_handle_get_data: data,
            uv_handle_set_data: nothing_of_two,
            uv_async_init: init,
            uv_async_send: send_to,
            uv_unref: nothing,
            uv_close: close,
        }))
    }

    #[test]
    fn a_handle_is_closed_once_and_not_sent_to_afterwards() {
        for _ in 0..200 {
            let handle = Box::into_raw(Box::<Handle>::default());
            let signal = LoopSignal {
                host: host(),
                handle: RwLock::new(Some(AsyncHandle(handle.cast()))),
            };
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..100).for_each(|_| signal.send()));
                }
                signal.send();
                signal.close();
                signal.close();
            });
            // SAFETY: it came from a box, and all threads that had it are gone.
            let handle = unsafe { Box::from_raw(handle) };
            assert!(handle.is_closed && handle.closes == 1);
            assert!(handle.sends.into_inner() >= 1);
        }
    }

    #[test]
    fn memory_of_a_handle_is_enough_aligned_and_given_back_whole() {
        let host = host();
        let handle = host.allocate_handle();
        assert!(handle.cast::<Block>().is_aligned());
        assert!(host.blocks_of_handle() * size_of::<Block>() >= 100);
        // SAFETY: so many bytes were taken; it comes from `allocate_handle` and is freed here alone.
        unsafe {
            handle.cast::<u8>().write_bytes(0xff, 100);
            host.free_handle(handle);
        }
    }
}
