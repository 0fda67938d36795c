//! From the shards to the workers: what happened, packed; who handles it; how much may wait.

pub mod batch;
#[cfg(all(test, wsbroker_loom))]
mod models;
pub(crate) mod queue;
pub mod record;
pub mod request_block;
pub(crate) mod roster;
pub mod worker;
