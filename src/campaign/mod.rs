//! Campaigns: definition, condition, check, and the immutable set that events are matched against. Pure.

pub mod condition;
pub mod number;
