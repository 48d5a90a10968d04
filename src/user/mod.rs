//! What is remembered of a user: one value, one writer at a time. Pure.
//!
//! [`UserState`] is everything that deciding needs besides the event and the campaigns, and everything that
//! exactly-once needs besides Kafka: the applied position, the dedup window and the outbox stand in the same cell as
//! the knowledge, so that one write moves all of it (rule S1).
//!
//! What always holds: the state is a function of the user's events in order and of the decisions made for them; every
//! part of it is bounded by itself, but for the outbox, which the pipeline bounds; nothing here reads a clock, and no
//! event can make it panic. It is not a cache and knows no store: [`codec`] turns it into bytes and back.

pub mod allows;
pub mod codec;
pub mod dedup;
pub mod history;
pub mod outbox;
mod state;
pub mod traits;

pub use codec::{CodecError, decode, encode};
pub use outbox::{Outbox, OutboxEntry, Output};
pub use state::UserState;
