//! Strings of large texts.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use neon::prelude::*;
use neon::sys::bindings as node_api;
use wsbroker_engine::LargeText;

use crate::host::host_functions;

/// So large a string is worth being made without a copy, in bytes: V8 gives it pages of its own, which the kernel has to
/// fill with zeros first. Smaller ones cost more this way, for each has to be given back by a call (`docs/performance.md`).
const SHORTEST_EXTERNAL: usize = 128 * 1024;

/// V8 refuses strings of 512 MiB and more, and what it refuses nobody would free.
const LONGEST_EXTERNAL: usize = 256 * 1024 * 1024;

type Finalize = unsafe extern "C" fn(node_api::Env, *mut c_void, *mut c_void);

host_functions! {
    /// [Of Node-API](https://nodejs.org/api/n-api.html), and unknown to Neon. External strings are in Node 18.18, 20.4 and
    /// later.
    struct Functions;
    fn napi_create_string_latin1(node_api::Env, *const c_char, usize, *mut node_api::Value) -> c_int;
    fn node_api_create_external_string_latin1(node_api::Env, *mut c_char, usize, Option<Finalize>, *mut c_void, *mut node_api::Value, *mut bool) -> c_int;
    fn napi_adjust_external_memory(node_api::Env, i64, *mut i64) -> c_int;
}

const OK: c_int = 0;

/// The string of a text, of which the engine has told whether it is ASCII.
pub(crate) fn string<'cx>(
    cx: &mut Cx<'cx>,
    text: &LargeText,
    is_ascii: bool,
) -> JsResult<'cx, JsString> {
    if is_ascii && let Some(string) = of_ascii(cx, text) {
        return Ok(string);
    }
    debug_assert!(str::from_utf8(text.as_bytes()).is_ok());
    // SAFETY: the decoder lets no text through that is no UTF-8, and a walk through a large one would be felt.
    let text = unsafe { str::from_utf8_unchecked(text.as_bytes()) };
    cx.try_string(text).or_throw(cx)
}

/// A string of ASCII, for which V8 need not look at the characters; a very large one is not copied either. `None` where the
/// runtime has none such, or refuses.
fn of_ascii<'cx>(cx: &mut Cx<'cx>, text: &LargeText) -> Option<Handle<'cx, JsString>> {
    let ascii = text.as_bytes();
    debug_assert!(ascii.is_ascii());
    let functions = Functions::get()?;
    let mut value: node_api::Value = ptr::null_mut();
    let status = if (SHORTEST_EXTERNAL..=LONGEST_EXTERNAL).contains(&ascii.len()) {
        // SAFETY: `cx` stands for its environment.
        unsafe { functions.create_external(cx.to_raw(), text, &mut value) }
    } else {
        let start = ascii.as_ptr().cast();
        // SAFETY: `cx` stands for its environment, and the characters are so many bytes, which are copied.
        unsafe {
            (functions.napi_create_string_latin1)(cx.to_raw(), start, ascii.len(), &raw mut value)
        }
    };
    if status != OK {
        return None;
    }
    // SAFETY: it is a string of the environment that `cx` stands for, and of its handle scope.
    Some(unsafe { JsString::from_raw(cx, value) })
}

impl Functions {
    /// It is refused in a thread that is being terminated. Whether the characters were freed then is not told, so they stay.
    ///
    /// # Safety
    /// `env` is an environment of this thread.
    unsafe fn create_external(
        &self,
        env: node_api::Env,
        text: &LargeText,
        value: &mut node_api::Value,
    ) -> c_int {
        let kept = Box::into_raw(Box::new(text.clone()));
        let ascii = text.as_bytes();
        // SAFETY: `env` is what the caller says. The characters stay where they are and as they are until `free` is
        // called, which is once: when V8 has collected the string, at the end of the environment, or at once if the runtime
        // has copied them. V8 does not write to them.
        unsafe {
            self.tell(env, ascii.len() as i64);
            (self.node_api_create_external_string_latin1)(
                env,
                ascii.as_ptr().cast_mut().cast(),
                ascii.len(),
                Some(free),
                kept.cast(),
                value,
                ptr::null_mut(),
            )
        }
    }

    /// Tells V8 of memory that only it keeps from being freed. It collects the strings when there is much of it; of a
    /// string that stays where it is it would not know.
    ///
    /// # Safety
    /// `env` is an environment of this thread.
    unsafe fn tell(&self, env: node_api::Env, change: i64) {
        let mut total = 0;
        // SAFETY: `env` is what the caller says, and the result goes to a local.
        let _ = unsafe { (self.napi_adjust_external_memory)(env, change, &raw mut total) };
    }
}

unsafe extern "C" fn free(env: node_api::Env, _: *mut c_void, kept: *mut c_void) {
    // SAFETY: `kept` comes from `Box::into_raw`, and this is called once.
    let kept = unsafe { Box::from_raw(kept.cast::<LargeText>()) };
    // At the end of the environment there may be none any more, and nobody who wants to know.
    if let Some(functions) = Functions::get()
        && !env.is_null()
    {
        // SAFETY: Node-API calls this on the thread of the environment, and allows it to be told of memory meanwhile.
        unsafe { functions.tell(env, -(kept.as_bytes().len() as i64)) };
    }
}
