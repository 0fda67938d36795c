//! What protects the memory that threads share: the locks and atomics of the protocols between them, and what each thread has
//! for itself. With `--cfg wsbroker_loom` they are loom's, which runs a model of a protocol once for each order in which its
//! threads may come (`models.rs`); otherwise these are other names of the same things.

/// For a static, which none of loom's can be.
pub(crate) use std::sync::atomic::{AtomicU32 as StaticU32, AtomicU64 as StaticU64};

#[cfg(not(wsbroker_loom))]
mod items {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    pub(crate) use std::thread_local;

    pub(crate) use parking_lot::Mutex;
}

#[cfg(wsbroker_loom)]
mod items {
    use std::cell::RefCell;

    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    use loom::thread::LocalKey;

    /// One without poison, as `parking_lot` has it.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model that panics has failed")
        }
    }

    /// What `std` has of a `RefCell` for each thread; its own would be one for all threads of a model.
    pub(crate) struct Local<T: 'static>(pub(crate) &'static LocalKey<RefCell<T>>);

    impl<T> Local<T> {
        pub(crate) fn with_borrow<R>(&self, with: impl FnOnce(&T) -> R) -> R {
            self.0.with(|cell| with(&cell.borrow()))
        }

        pub(crate) fn with_borrow_mut<R>(&self, with: impl FnOnce(&mut T) -> R) -> R {
            self.0.with(|cell| with(&mut cell.borrow_mut()))
        }

        pub(crate) fn set(&self, value: T) {
            self.0.with(|cell| *cell.borrow_mut() = value);
        }

        pub(crate) fn take(&self) -> T
        where
            T: Default,
        {
            self.0.with(RefCell::take)
        }
    }

    macro_rules! local {
        (static $name:ident: RefCell<$type:ty> = const { $value:expr };) => {
            static $name: crate::sync::Local<$type> = {
                loom::thread_local! { static OF_THREAD: RefCell<$type> = $value; }
                crate::sync::Local(&OF_THREAD)
            };
        };
    }
    pub(crate) use local as thread_local;
}

pub(crate) use items::*;
