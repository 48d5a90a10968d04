//! Dead letters, looked at and replayed: what can be said and decided of them without Kafka.
//!
//! - [`DeadLetter`] is a record of the dead letter topic with what our headers say of it.
//! - A [`Filter`] says which of them are meant, [`Groups`] counts them.
//! - An [`Order`] is what a replay is told; its verdict on a letter is a function of the two. A [`Replayed`] is what an
//!   earlier replay has left behind, so that none of its records goes out again and none is deleted before it has.
//!
//! What always holds: nothing here grows with the topic; headers are read as hostile, because whoever may write to the
//! topic can have put anything there. What it is not: a reader or a writer, which [`crate::kafka::dead_letters`] is.

mod filter;
mod group;
mod letter;
mod order;
mod place;
mod replayed;
mod tally;

#[cfg(test)]
pub(crate) mod testing;

pub use filter::{Filter, FilterError, check_code};
pub use group::{By, Cell, Group, Groups, MAX_GROUPS};
pub use letter::{DeadLetter, Origin};
pub use order::{Left, Order, Verdict, headers};
pub use place::Place;
pub use replayed::{MAX_TOO_LARGE, Mark, Replayed, Stand};
pub use tally::Tally;
