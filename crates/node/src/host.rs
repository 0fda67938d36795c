//! Functions of the program that has loaded this library which Neon does not bind. They are looked up at run time, for
//! not every program has them.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

/// The function of this name, if the program has it.
#[cfg(unix)]
pub(crate) fn find(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is a C string, and looking up runs nothing.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

/// The function of this name, if the program has it.
#[cfg(windows)]
pub(crate) fn find(name: &CStr) -> Option<NonNull<c_void>> {
    use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};

    // SAFETY: without a name it is the program itself, which stays loaded; the name is a C string, and looking up runs
    // nothing.
    let found = unsafe { GetProcAddress(GetModuleHandleW(std::ptr::null()), name.as_ptr().cast()) };
    NonNull::new(found? as *mut c_void)
}
