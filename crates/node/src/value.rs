//! What Node-API tells of a JavaScript value without a question for its type before: a call of it less for each number
//! and each string that crosses.

use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::{ptr, slice};

use neon::prelude::*;
use neon::sys::bindings as node_api;
use wsbroker_engine::{HEADER_ROOM, memory};

/// Strings up to about this many bytes are decoded in one call and without an allocation. Most messages and nearly all
/// channel names are shorter.
pub(crate) const SCRATCH_BYTES: usize = 4096;

/// Node-API writes whole characters and a NUL. When that much room was left, nothing can have been cut off.
const LONGEST_CHARACTER_AND_NUL: usize = 5;

/// A value that is alive for `'cx`, the call that is under way.
#[derive(Clone, Copy)]
pub(crate) struct RawValue<'cx> {
    env: node_api::Env,
    value: node_api::Value,
    alive: PhantomData<&'cx ()>,
}

/// What a string or a `Uint8Array` holds.
pub(crate) enum Data<'a> {
    /// UTF-8: V8 has replaced what is no character.
    Text(&'a [u8]),
    /// UTF-8 behind [`HEADER_ROOM`] bytes.
    LongText(Vec<u8>),
    Bytes(&'a [u8]),
}

impl Data<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) | Self::Bytes(bytes) => bytes,
            Self::LongText(text) => &text[HEADER_ROOM..],
        }
    }
}

impl<'cx> RawValue<'cx> {
    /// # Safety
    /// `value` is a value of the environment `env`, on whose thread this is called, and alive for `'cx`.
    pub(crate) unsafe fn new(env: node_api::Env, value: node_api::Value) -> Self {
        Self {
            env,
            value,
            alive: PhantomData,
        }
    }

    pub(crate) fn of(cx: &Cx<'cx>, value: Handle<'cx, JsValue>) -> Self {
        // SAFETY: this is what a handle of `cx` stands for.
        unsafe { Self::new(cx.to_raw(), value.to_raw()) }
    }

    /// `None` for what is no number.
    pub(crate) fn number(self) -> Option<f64> {
        let mut number = 0.0;
        // SAFETY: `self` holds a value of this environment, and the result goes to a local.
        let status = unsafe { node_api::get_value_double(self.env, self.value, &raw mut number) };
        status.is_ok().then_some(number)
    }

    /// Runs `use_data` on the content of a string or a `Uint8Array`; `None` for everything else. No JavaScript may run
    /// meanwhile.
    pub(crate) fn with_data<R>(self, use_data: impl FnOnce(Data<'_>) -> R) -> Option<R> {
        let mut scratch = [const { MaybeUninit::<u8>::uninit() }; SCRATCH_BYTES];
        match self.write_utf8(&mut scratch) {
            Ok(text) if text.len() + LONGEST_CHARACTER_AND_NUL <= SCRATCH_BYTES => {
                Some(use_data(Data::Text(text)))
            }
            Ok(_) => Some(use_data(Data::LongText(self.long_text()))),
            Err(node_api::Status::StringExpected) => self.bytes().map(Data::Bytes).map(use_data),
            Err(_) => None,
        }
    }

    /// As much of a string as fits, in whole characters.
    fn write_utf8(self, buffer: &mut [MaybeUninit<u8>]) -> Result<&[u8], node_api::Status> {
        let mut written = 0;
        // SAFETY: `self` holds a value of this environment. Node-API writes at most `buffer.len()` bytes, NUL included, and
        // tells how many there are before the NUL; these are initialised then.
        unsafe {
            let start = buffer.as_mut_ptr().cast::<c_char>();
            let room = buffer.len();
            let (env, value) = (self.env, self.value);
            node_api::get_value_string_utf8(env, value, start, room, &raw mut written)?;
            Ok(slice::from_raw_parts(start.cast::<u8>(), written))
        }
    }

    /// Behind [`HEADER_ROOM`] bytes. V8 would have to walk through a string to tell how long it is in UTF-8; most long
    /// ones are ASCII, so that room for as many bytes as characters is tried first.
    fn long_text(self) -> Vec<u8> {
        let mut length = 0;
        // SAFETY: `self` holds a value of this environment, and without a buffer only its length is told.
        let _ = unsafe {
            let no_buffer = ptr::null_mut();
            node_api::get_value_string_utf16(self.env, self.value, no_buffer, 0, &raw mut length)
        };
        loop {
            let room = length + LONGEST_CHARACTER_AND_NUL;
            let mut text = memory::take(HEADER_ROOM + room);
            text.resize(HEADER_ROOM, 0);
            let written = self
                .write_utf8(&mut text.spare_capacity_mut()[..room])
                .map_or(0, <[u8]>::len);
            // SAFETY: so many bytes have just been written into what was reserved.
            unsafe { text.set_len(HEADER_ROOM + written) };
            if written + LONGEST_CHARACTER_AND_NUL <= room || written == 0 {
                return text;
            }
            memory::give_back(text);
            // SAFETY: as above.
            let _ = unsafe {
                let no_buffer = ptr::null_mut();
                node_api::get_value_string_utf8(self.env, self.value, no_buffer, 0, &raw mut length)
            };
        }
    }

    /// The bytes of a `Uint8Array`, which may pass for one and be another view.
    fn bytes(self) -> Option<&'cx [u8]> {
        const UINT8: u32 = node_api::TypedArrayType::U8 as u32;
        // Runtimes may know kinds that Neon does not.
        let mut kind = u32::MAX;
        let mut length = 0;
        let mut data = ptr::null_mut();
        // SAFETY: `self` holds a value of this environment, and results go to locals; a kind is a `u32`.
        let status = unsafe {
            node_api::get_typedarray_info(
                self.env,
                self.value,
                (&raw mut kind).cast(),
                &raw mut length,
                &raw mut data,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if status.is_err() || kind != UINT8 {
            (data, length) = self.view()?;
        }
        if length == 0 {
            return Some(&[]); // there may be no memory
        }
        // SAFETY: Node-API has told where these bytes are. The view keeps them as long as it is alive and JavaScript,
        // which alone could take them away or change them, does not run: TypeScript lets no shared memory through.
        Some(unsafe { slice::from_raw_parts(data.cast::<u8>(), length) })
    }

    /// Where any view's bytes are, and how many.
    fn view(self) -> Option<(*mut c_void, usize)> {
        let mut is_view = false;
        let mut length = 0;
        let mut data = ptr::null_mut();
        // SAFETY: `self` holds a value of this environment, and results go to locals. Only a view may be asked for its bytes.
        unsafe {
            node_api::is_buffer(self.env, self.value, &raw mut is_view).ok()?;
            if !is_view {
                return None;
            }
            node_api::get_buffer_info(self.env, self.value, &raw mut data, &raw mut length).ok()?;
        }
        Some((data, length))
    }
}
