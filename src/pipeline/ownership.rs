//! What this instance owns: fences, incarnation and the numbers that make write timestamps.

use std::collections::BTreeMap;

use crate::position::Position;
use crate::store::FenceRow;

/// Batches per fence before it is taken again: batch numbers are microseconds on top of the fence, and a fence rises by
/// at least one second (rules F1 and F2).
pub const BATCHES_PER_FENCE: u64 = 900_000;

/// One owned partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPartition {
    /// The row as we wrote it; the fence and our token.
    pub row: FenceRow,
    /// Batch number at which the fence was taken.
    pub since_batch: u64,
}

/// The partitions of one assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Partitions of `events` in the topic.
    pub partition_count: i32,
    /// The owned ones.
    pub partitions: BTreeMap<i32, OwnedPartition>,
}

impl Ownership {
    /// Timestamp of the cells that `batch` writes for users of `partition` (rule F2), microseconds.
    pub fn timestamp_us(&self, partition: i32, batch: u64) -> Option<i64> {
        let owned = self.partitions.get(&partition)?;
        let number = i64::try_from(batch.checked_sub(owned.since_batch)?).ok()?;
        owned.row.fence_us.checked_add(number)
    }

    /// Position of a record of an owned partition.
    pub fn position(&self, partition: i32, offset: i64) -> Option<Position> {
        let owned = self.partitions.get(&partition)?;
        Some(Position { incarnation: owned.row.incarnation, partition, offset })
    }

    /// Whether `batch` is so late that the fences must be taken again before it.
    pub fn is_used_up(&self, batch: u64) -> bool {
        self.partitions.values().any(|owned| batch.saturating_sub(owned.since_batch) >= BATCHES_PER_FENCE)
    }
}
