//! Keeps this library in memory for the rest of the process.
//!
//! Node unloads an addon when the last environment that loaded it ends, which is soon when only `worker_threads`
//! load it. The engine's I/O threads run code of this library, so it has to stay.

/// Takes one more reference to this library and never gives it back.
///
/// A refusal of the loader is ignored. It costs nothing where libraries with thread-locals stay by themselves (macOS)
/// or where closing unloads nothing (musl), and elsewhere a loader finds a library that it has just loaded.
#[cfg(unix)]
pub(crate) fn keep_loaded() {
    use std::mem::MaybeUninit;

    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `dladdr` only compares the address with the loaded images and writes to `found`. When it succeeds,
    // `dli_fname` is the name that the loader itself holds for this image. `RTLD_NOLOAD` runs no initialisers: it finds
    // the image that is there, or fails.
    unsafe {
        if libc::dladdr(address().cast(), found.as_mut_ptr()) != 0 {
            let name = found.assume_init().dli_fname;
            libc::dlopen(
                name,
                libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
            );
        }
    }
}

/// Takes one more reference to this library and never gives it back.
#[cfg(windows)]
pub(crate) fn keep_loaded() {
    use windows_sys::Win32::Foundation::HMODULE;
    use windows_sys::Win32::System::LibraryLoader::{
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN, GetModuleHandleExW,
    };

    let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN;
    let mut module: HMODULE = std::ptr::null_mut();
    // SAFETY: with `FROM_ADDRESS` the second argument is not read as a string, it is any address in the module; the
    // call writes to `module` alone.
    unsafe {
        GetModuleHandleExW(flags, address().cast(), &raw mut module);
    }
}

/// Any address inside this library.
fn address() -> *const u8 {
    keep_loaded as fn() as *const u8
}
