//! Batches that JavaScript reads where the engine has packed them. Handlers keep views of them: a copy of each would be faulted
//! in anew, page by page, for as long as the garbage collector has not freed those before.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use neon::prelude::*;
use neon::sys::bindings as node_api;
use wsbroker_engine::{Batch, memory};

use crate::host::host_functions;

/// Smaller ones are copied, in bytes: a copy costs less than a call that gives memory back, and takes no more of it than it needs.
const SHORTEST: usize = 8 * 1024;

type Finalize = unsafe extern "C" fn(node_api::Env, *mut c_void, *mut c_void);

host_functions! {
    /// [Of Node-API](https://nodejs.org/api/n-api.html). Neon's ends the process where the runtime refuses.
    struct Functions;
    fn napi_create_external_arraybuffer(node_api::Env, *mut c_void, usize, Option<Finalize>, *mut c_void, *mut node_api::Value) -> c_int;
}

const OK: c_int = 0;

/// The runtime keeps all that JavaScript can reach in a memory of its own.
const NO_EXTERNAL_BUFFERS_ALLOWED: c_int = 22;

/// It has answered so.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// The packed records of a batch. JavaScript can write there, so nothing holds that the engine has made sure of.
pub(crate) struct Lent {
    start: *mut u8,
    length: usize,
    capacity: usize,
}

// SAFETY: it is memory like that of a `Vec`, and who reads it has to be on the thread that it was lent to. The runtime may let
// go of it on any thread.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    fn new(bytes: Vec<u8>) -> Self {
        let mut bytes = ManuallyDrop::new(bytes);
        Self {
            start: bytes.as_mut_ptr(),
            length: bytes.len(),
            capacity: bytes.capacity(),
        }
    }

    /// To be called on the thread that it was lent to, by what runs no JavaScript.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: these are initialised bytes of a `Vec` that is freed by `drop`. What writes to them is JavaScript, which does
        // not run meanwhile: the runtime moves no such memory to another thread (Node), or the views of it are empty from then on
        // and TypeScript asks for none of it.
        read(unsafe { slice::from_raw_parts(self.start, self.length) })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: these are the parts of a `Vec`, which nobody else has.
        memory::give_back(unsafe { Vec::from_raw_parts(self.start, self.length, self.capacity) });
    }
}

/// Lends the records of a batch to JavaScript. They come back as they are if they are few or the runtime refuses.
pub(crate) fn lend<'cx>(
    cx: &mut Cx<'cx>,
    mut batch: Batch,
) -> Result<(Handle<'cx, JsArrayBuffer>, Arc<Lent>), Batch> {
    let Some(functions) = Functions::get() else {
        return Err(batch);
    };
    if !is_worth_it(&batch) || IS_REFUSED.load(Ordering::Relaxed) {
        return Err(batch);
    }
    let lent = Arc::new(Lent::new(batch.take_packed()));
    let kept = Arc::into_raw(Arc::clone(&lent));
    let mut value: node_api::Value = std::ptr::null_mut();
    // SAFETY: `cx` stands for its environment. The bytes stay where they are until `give_up` is called, which is once: when the
    // last view of them has gone or the environment ends. The result goes to a local.
    let status = unsafe {
        (functions.napi_create_external_arraybuffer)(
            cx.to_raw(),
            lent.start.cast(),
            lent.length,
            Some(give_up),
            kept.cast_mut().cast(),
            &raw mut value,
        )
    };
    if status == OK {
        // SAFETY: it is an `ArrayBuffer` of the environment that `cx` stands for, and of its handle scope.
        return Ok((unsafe { JsArrayBuffer::from_raw(cx, value) }, lent));
    }
    if status == NO_EXTERNAL_BUFFERS_ALLOWED {
        IS_REFUSED.store(true, Ordering::Relaxed);
        // SAFETY: it comes from `Arc::into_raw`, and the runtime has not taken it.
        drop(unsafe { Arc::from_raw(kept) });
    }
    // Else the thread is being terminated. Whether `give_up` was or will be called is not told, so they stay.
    lent.with(|bytes| batch.put_packed(bytes.to_vec()));
    Err(batch)
}

/// A view of a batch keeps all of its memory, so that half of that has to be in use.
fn is_worth_it(batch: &Batch) -> bool {
    (SHORTEST.max(batch.capacity() / 2)..).contains(&batch.packed().len())
}

unsafe extern "C" fn give_up(_: node_api::Env, _: *mut c_void, kept: *mut c_void) {
    // SAFETY: `kept` comes from `Arc::into_raw`, and this is called once.
    drop(unsafe { Arc::from_raw(kept.cast_const().cast::<Lent>()) });
}
