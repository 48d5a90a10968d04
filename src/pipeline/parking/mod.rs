//! Retries that keep a user's order: where a record waits, how long, and who must not be tried before it.
//!
//! Always holds: everything here is a function of values; time is an argument. A record of a user is tried only if no
//! smaller position of the same user waits (rule P2), so a user's records are handled in their original order while other
//! users go on. What waits is known by the retry topics alone; [`pending::Pending`] is their image in memory.
//!
//! It is not: the policy of what parks ([`super::failure`]), nor the reading of topics.

pub mod due;
pub mod origin;
pub mod pending;
pub mod tiers;
pub mod waiting;

pub use due::{DueQueue, due};
pub use origin::Origin;
pub use pending::Pending;
pub use tiers::Tiers;
pub use waiting::Waiting;
