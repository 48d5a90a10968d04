//! What this instance owns: fences, incarnation and the numbers that make write timestamps.

use std::collections::BTreeMap;

use super::log::Input;
use crate::mutant::{Mutant, is};
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

/// What the group gave us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Partitions of `events`.
    pub partitions: Vec<i32>,
    /// Retry topics whose partitions of the same numbers come with them, from 1 to this.
    pub tiers: u8,
}

impl Assigned {
    /// All input partitions.
    pub fn inputs(&self) -> Vec<Input> {
        self.partitions.iter().flat_map(|partition| inputs_of(*partition, self.tiers)).collect()
    }
}

/// A partition of `events` and those of the retry topics that belong to it.
fn inputs_of(partition: i32, tiers: u8) -> impl Iterator<Item = Input> {
    std::iter::once(Input::events(partition))
        .chain((1..=tiers).map(move |tier| Input::retry(tier, partition)))
}

/// The partitions of one assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Partitions of `events` in the topic.
    pub partition_count: i32,
    /// Retry topics that are assigned with them, from 1 to this.
    pub tiers: u8,
    /// The owned ones.
    pub partitions: BTreeMap<i32, OwnedPartition>,
}

impl Ownership {
    /// Timestamp of the cells that `batch` writes for users of `partition` (rule F2), microseconds.
    pub fn timestamp_us(&self, partition: i32, batch: u64) -> Option<i64> {
        let owned = self.partitions.get(&partition)?;
        let number = i64::try_from(batch.checked_sub(owned.since_batch)?).ok()?;
        owned.row.fence_us.checked_add(if is(Mutant::F2) { 0 } else { number })
    }

    /// All input partitions.
    pub fn inputs(&self) -> Vec<Input> {
        self.partitions.keys().flat_map(|partition| inputs_of(*partition, self.tiers)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(since_batch: u64) -> Ownership {
        let row = FenceRow {
            fence_us: 5_000_000,
            token: uuid::Uuid::nil(),
            cluster_id: "c".into(),
            partition_count: 2,
            incarnation: 3,
            committed_offset: None,
            retry_offsets: BTreeMap::new(),
        };
        let partitions = [(1, OwnedPartition { row, since_batch })].into();
        Ownership { partition_count: 2, tiers: 0, partitions }
    }

    #[test]
    fn timestamps_count_from_the_taking_of_the_fence() {
        let ownership = owned(100);
        assert_eq!(ownership.timestamp_us(1, 101), Some(5_000_001));
        assert_eq!(ownership.timestamp_us(1, 99), None);
        assert_eq!(ownership.timestamp_us(0, 101), None, "not owned");
        let position = ownership.position(1, 9).unwrap();
        assert_eq!((position.incarnation, position.partition, position.offset), (3, 1, 9));
    }

    /// A fence rises by a second at least, so the numbers under it must stay below a million.
    #[test]
    fn a_fence_is_used_up_before_its_numbers_reach_the_next_one() {
        let ownership = owned(100);
        assert!(!ownership.is_used_up(100 + BATCHES_PER_FENCE - 1));
        assert!(ownership.is_used_up(100 + BATCHES_PER_FENCE));
        let last = ownership.timestamp_us(1, 100 + BATCHES_PER_FENCE).unwrap();
        assert!(last < 5_000_000 + 1_000_000);
    }
}
