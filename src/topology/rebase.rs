//! Telling the states that the topic of events has been made anew: a higher incarnation for every partition.
//!
//! Positions are compared by incarnation first. After a rebase every record of the new topic lies beyond what was applied
//! of the old one, whatever its offset; outbox entries of the old one are dropped and counted. It is for a topic that was
//! deleted and created again, and for a move to another cluster; not for adding partitions to a live topic.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::store::FenceRow;

/// New fences lie this far above every one that stands, so that no write of an old owner wins.
const FENCE_STEP_US: i64 = 1_000_000;

/// What a rebase writes for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebased {
    /// Partition of `events`.
    pub partition: i32,
    /// The row that stands.
    pub old: Option<FenceRow>,
    /// The row that takes its place.
    pub new: FenceRow,
}

/// The rows for a topic of `partition_count` partitions on `cluster_id`, given those that stand. Empty when none stands:
/// there are no states yet. Users may come to other partitions, so all rows get the same incarnation and the same fence,
/// above every one that stands.
pub fn rebase(
    standing: &BTreeMap<i32, FenceRow>,
    cluster_id: &str,
    partition_count: i32,
    now_us: i64,
) -> Vec<Rebased> {
    let Some(incarnation) = standing.values().map(|row| row.incarnation).max() else { return Vec::new() };
    let highest_us = standing.values().map(|row| row.fence_us).max().unwrap_or(0);
    let new = |_| FenceRow {
        fence_us: now_us.max(highest_us.saturating_add(FENCE_STEP_US)),
        token: Uuid::new_v4(),
        cluster_id: cluster_id.to_owned(),
        partition_count,
        incarnation: incarnation.saturating_add(1),
        committed_offset: None,
        retry_offsets: BTreeMap::new(),
    };
    (0..partition_count)
        .map(|partition| Rebased { partition, old: standing.get(&partition).cloned(), new: new(partition) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fence_us: i64, incarnation: u32) -> FenceRow {
        FenceRow {
            fence_us,
            token: Uuid::nil(),
            cluster_id: "old".to_owned(),
            partition_count: 2,
            incarnation,
            committed_offset: Some(9),
            retry_offsets: [(1, 4)].into(),
        }
    }

    #[test]
    fn every_partition_of_the_new_topic_gets_the_same_higher_incarnation_and_fence() {
        let standing = [(0, row(500, 3)), (1, row(9_000_000, 2))].into();
        let rows = rebase(&standing, "new", 3, 7);
        let new: Vec<_> = rows.iter().map(|row| (row.new.incarnation, row.new.fence_us)).collect();
        assert_eq!(new, [(4, 10_000_000); 3]);
        assert_eq!(rows[2].old, None);
        assert!(rows.iter().all(|row| row.new.cluster_id == "new" && row.new.partition_count == 3));
        assert!(
            rows.iter().all(|row| row.new.committed_offset.is_none() && row.new.retry_offsets.is_empty())
        );
    }

    #[test]
    fn the_clock_counts_when_it_is_beyond_all_fences_and_nothing_stands_is_nothing_to_do() {
        let rows = rebase(&[(0, row(500, 0))].into(), "new", 1, 99_000_000);
        assert_eq!(rows[0].new.fence_us, 99_000_000);
        assert_eq!(rebase(&BTreeMap::new(), "new", 4, 7), []);
    }
}
