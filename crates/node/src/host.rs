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

/// Makes a struct of functions of the host, looked up together, with a `get` that gives it: `None` where one of them is
/// missing. **Names and signatures have to be those of the host's headers**, which Node-API promises for ever and libuv for
/// all of its versions 1.
macro_rules! host_functions {
    (
        $(#[$attribute:meta])*
        struct $functions:ident;
        $(fn $name:ident($($argument:ty),+) $(-> $result:ty)?;)+
    ) => {
        $(#[$attribute])*
        struct $functions {
            $($name: unsafe extern "C" fn($($argument),+) $(-> $result)?,)+
        }

        impl $functions {
            fn get() -> Option<&'static Self> {
                static FOUND: std::sync::OnceLock<Option<$functions>> = std::sync::OnceLock::new();
                FOUND.get_or_init(Self::find).as_ref()
            }

            fn find() -> Option<Self> {
                $(
                    let name = std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes());
                    let $name = $crate::host::find(name.ok()?)?;
                )+
                // SAFETY: a function of such a name has that signature, and what was found is not null.
                unsafe {
                    Some(Self {
                        $($name: std::mem::transmute::<
                            std::ptr::NonNull<std::ffi::c_void>,
                            unsafe extern "C" fn($($argument),+) $(-> $result)?,
                        >($name),)+
                    })
                }
            }
        }
    };
}

pub(crate) use host_functions;

#[cfg(test)]
mod tests {
    use super::find;

    host_functions! {
        /// One that there is.
        struct Found;
        fn strlen(*const std::ffi::c_char) -> usize;
    }

    host_functions! {
        /// One of them is missing.
        #[expect(dead_code, reason = "nothing of it is found")]
        struct Missing;
        fn strlen(*const std::ffi::c_char) -> usize;
        fn wsbroker_has_no_such_function(*const std::ffi::c_char) -> usize;
    }

    #[test]
    #[cfg(unix)]
    fn functions_are_found_by_name_all_or_none() {
        assert!(find(c"wsbroker_has_no_such_function").is_none());
        let Some(found) = Found::get() else {
            panic!("every program has strlen");
        };
        // SAFETY: this is its signature in C, and what it gets is a C string.
        assert_eq!(unsafe { (found.strlen)(c"four".as_ptr()) }, 4);
        assert!(Missing::get().is_none());
    }
}
