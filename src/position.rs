//! Where an event stands on `events`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The place of an event on the `events` topic.
///
/// Ordered by incarnation, then partition, then offset. Positions of one user are comparable within an
/// incarnation because a user lives in one partition; an incarnation is raised when the topic is made anew, and
/// offsets of different incarnations say nothing about each other.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
pub struct Position {
    /// Which life of the topic the offset belongs to, from 0.
    pub incarnation: u32,
    /// Partition of `events`.
    pub partition: i32,
    /// Offset within the partition.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "events[{}]@{}", self.partition, self.offset)?;
        if self.incarnation > 0 { write!(f, " (incarnation {})", self.incarnation) } else { Ok(()) }
    }
}
