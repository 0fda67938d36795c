//! Names of things in flight. Both kinds fit JavaScript's safe integers and are never used twice.

use std::fmt;
use std::num::NonZeroU64;

/// The largest integer that a JavaScript number holds exactly: 2^53 - 1.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// `None` unless `1 <= value <= 2^53 - 1`.
            #[must_use]
            pub const fn new(value: u64) -> Option<Self> {
                match NonZeroU64::new(value) {
                    Some(value) if value.get() <= MAX_SAFE_INTEGER => Some(Self(value)),
                    _ => None,
                }
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id_type! {
    /// One WebSocket connection, from its upgrade to its close event.
    SocketId
}
id_type! {
    /// One HTTP request (or upgrade request) that waits for its answer.
    RequestId
}

impl RequestId {
    /// The low bits tell the shard that holds the request, so that an answer finds it without a search.
    const SHARD_BITS: u32 = 8;

    /// How many shards a request id can tell apart; the bound for the number of I/O threads.
    pub(crate) const MAX_SHARDS: usize = 1 << Self::SHARD_BITS;

    pub(crate) fn in_shard(shard: u16, sequence: u64) -> Self {
        Self::new((sequence << Self::SHARD_BITS) | u64::from(shard))
            .expect("2^45 requests of one shard take a century")
    }

    pub(crate) fn shard(self) -> usize {
        (self.get() & (Self::MAX_SHARDS as u64 - 1)) as usize
    }
}
