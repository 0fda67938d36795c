//! How many upgrades of a listener are under way: read, and neither open nor refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::ListenerShared;

/// One upgrade under way. It counts until it is dropped, with the opening of the socket or the answer that refuses it,
/// or with the connection.
pub(crate) struct Handshake(Arc<ListenerShared>);

impl Handshake {
    /// `None`: there are as many as the listener allows.
    pub(crate) fn begin(listener: &Arc<ListenerShared>) -> Option<Self> {
        let limit = listener.options.limits.handshakes.unwrap_or(u32::MAX);
        let counter: &AtomicU32 = &listener.handshakes;
        // In one step: one that is refused must not for a moment take the place of another.
        let one_more = |count: u32| (count < limit).then_some(count + 1);
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Self(Arc::clone(listener)))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}
