//! The breaker: work waits while the store or the registry is ill, instead of giving records up one by one.
//!
//! What always holds:
//!
//! - Only calls that were not answered count. A refusal, a fence, an unknown id are answers; what is wrong with a record
//!   never comes here.
//! - A read that fails is its user's own trouble only if other keys can be read at the same time, and only while the
//!   breaker is closed. [`GuardedStore::load`] asks for them before it says so, so that the first reads of an outage park
//!   nobody, however few they are.
//! - Nothing here polls. Whoever waits, waits in a lane or at the committer; the log keeps its place in the group.
//! - Every wait ends with the epoch, and no task of its own runs behind anybody's back: callers probe with their own work.
//!
//! [`circuit`] is the state machine as values, [`Breaker`] shares one, [`GuardedStore`] and [`GuardedSchemas`] are the two
//! dependencies behind theirs. It is no cache and no retry of transactions: those rewind.

pub mod circuit;
mod handle;
mod schemas;
mod store;

pub use circuit::Limits;
pub(super) use handle::unless_ended;
pub use handle::{Breaker, Permit};
pub use schemas::{GuardedSchemas, NoSchema};
pub use store::{ClockReading, GuardedStore, Loaded};

#[cfg(test)]
mod tests;
