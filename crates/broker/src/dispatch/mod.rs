//! From the shards to the workers: what happened, packed; who handles it; how much may wait.

pub mod batch;
pub(crate) mod roster;
pub mod worker;
