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
/// in Node 18.18, 20.4 and later. Neon does not know it.
type CreateExternalString = unsafe extern "C" fn(
    env: node_api::Env,
    characters: *mut c_char,
    length: usize,
    finalize: Option<Finalize>,
    hint: *mut c_void,
    result: *mut node_api::Value,
    copied: *mut bool,
) -> i32;

fn create_external_string() -> Option<CreateExternalString> {
    static FOUND: OnceLock<Option<CreateExternalString>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let function = host::find(c"node_api_create_external_string_latin1")?;
        // SAFETY: a function of this name has this type, by the documentation of Node-API, which is stable.
        Some(unsafe { mem::transmute::<NonNull<c_void>, CreateExternalString>(function) })
    })
}

/// A large string of ASCII that is not copied. `None` for one that is not large, and where the runtime has none such.
pub(crate) fn external_text<'cx>(cx: &mut Cx<'cx>, ascii: &Bytes) -> Option<Handle<'cx, JsString>> {
    if !(SHORTEST..=LONGEST).contains(&ascii.len()) {
        return None;
    }
    let create = create_external_string()?;
    let kept = Box::into_raw(Box::new(ascii.clone()));
    let mut value: node_api::Value = ptr::null_mut();
    // SAFETY: the characters stay where they are and as they are until `free` is called, which is once: when V8 has
    // collected the string, at the end of the environment, or at once if the runtime has copied them. V8 does not write
    // to them.
    let status = unsafe {
        create(
            cx.to_raw(),
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

unsafe extern "C" fn free(_: node_api::Env, _: *mut c_void, kept: *mut c_void) {
    // SAFETY: `kept` comes from `Box::into_raw`, and this is called once.
    drop(unsafe { Box::from_raw(kept.cast::<Bytes>()) });
}
