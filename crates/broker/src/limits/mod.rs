//! What keeps one peer from taking everything: token buckets, and who they belong to.

pub mod bucket;
pub(crate) mod clients;
pub(crate) mod entrance;
mod options;
pub mod socket;

pub use options::Limits;
