//! What keeps one peer from taking everything: token buckets, and who they belong to.

pub mod bucket;
pub mod socket;
