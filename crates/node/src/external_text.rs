//! Strings of which the characters stay in the engine's memory.

use std::ffi::{c_char, c_void};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use bytes::Bytes;
use neon::prelude::*;
use neon::sys::bindings as node_api;

use crate::host;

/// So large a string is worth being made without a copy, in bytes: V8 gives it pages of its own, which the kernel has to
/// fill with zeros first. Smaller ones cost more this way, for each has to be given back by a call (`docs/performance.md`).
const SHORTEST: usize = 128 * 1024;

/// V8 refuses strings of 512 MiB and more, and what it refuses nobody would free.
const LONGEST: usize = 256 * 1024 * 1024;

type Finalize = unsafe extern "C" fn(node_api::Env, *mut c_void, *mut c_void);

/// [`node_api_create_external_string_latin1`](https://nodejs.org/api/n-api.html#node_api_create_external_string_latin1),
/// in Node 18.18, 20.4 and later: environment, characters, their number, what frees them and with what, the string,
/// whether they were copied.
type Create = unsafe extern "C" fn(
    node_api::Env,
    *mut c_char,
    usize,
    Option<Finalize>,
    *mut c_void,
    *mut node_api::Value,
    *mut bool,
) -> i32;

/// [`napi_adjust_external_memory`](https://nodejs.org/api/n-api.html#napi_adjust_external_memory): environment, bytes more
/// or less, bytes then.
type Adjust = unsafe extern "C" fn(node_api::Env, i64, *mut i64) -> i32;

/// Of Node-API and unknown to Neon.
struct Functions {
    create: Create,
    adjust: Adjust,
}

impl Functions {
    fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let create = host::find(c"node_api_create_external_string_latin1")?;
            let adjust = host::find(c"napi_adjust_external_memory")?;
            // SAFETY: functions of these names have these types, by the documentation of Node-API, which is stable.
            Some(unsafe {
                Self {
                    create: mem::transmute::<NonNull<c_void>, Create>(create),
                    adjust: mem::transmute::<NonNull<c_void>, Adjust>(adjust),
                }
            })
        });
        found.as_ref()
    }

    /// Tells V8 of memory that only it keeps from being freed. It collects the strings when there is much of it; of a
    /// string that stays where it is it would not know.
    ///
    /// # Safety
    /// `env` is an environment of this thread.
    unsafe fn tell(&self, env: node_api::Env, change: i64) {
        let mut total = 0;
        // SAFETY: `env` is what the caller says, and the result goes to a local.
        let _ = unsafe { (self.adjust)(env, change, &raw mut total) };
    }
}

/// A large string of ASCII that is not copied. `None` for one that is not large, and where the runtime has none such.
pub(crate) fn external_text<'cx>(cx: &mut Cx<'cx>, ascii: &Bytes) -> Option<Handle<'cx, JsString>> {
    if !(SHORTEST..=LONGEST).contains(&ascii.len()) {
        return None;
    }
    let functions = Functions::find()?;
    let env = cx.to_raw();
    let kept = Box::into_raw(Box::new(ascii.clone()));
    let mut value: node_api::Value = ptr::null_mut();
    // SAFETY: `env` is the environment that `cx` stands for. The characters stay where they are and as they are until
    // `free` is called, which is once: when V8 has collected the string, at the end of the environment, or at once if the
    // runtime has copied them. V8 does not write to them.
    let status = unsafe {
        functions.tell(env, ascii.len() as i64);
        (functions.create)(
            env,
            (*kept).as_ptr().cast_mut().cast(),
            ascii.len(),
            Some(free),
            kept.cast(),
            &raw mut value,
            ptr::null_mut(),
        )
    };
    // It is refused in a thread that is being terminated. Whether it was freed then is not told, so it stays.
    if status != 0 {
        return None;
    }
    // SAFETY: it is a string of the environment that `cx` stands for, and of its handle scope.
    Some(unsafe { JsString::from_raw(cx, value) })
}

unsafe extern "C" fn free(env: node_api::Env, _: *mut c_void, kept: *mut c_void) {
    // SAFETY: `kept` comes from `Box::into_raw`, and this is called once.
    let kept = unsafe { Box::from_raw(kept.cast::<Bytes>()) };
    // At the end of the environment there may be none any more, and nobody who wants to know.
    if let Some(functions) = Functions::find()
        && !env.is_null()
    {
        // SAFETY: Node-API calls this on the thread of the environment, and allows it to be told of memory meanwhile.
        unsafe { functions.tell(env, -(kept.len() as i64)) };
    }
}
