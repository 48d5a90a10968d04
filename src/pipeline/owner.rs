//! Becoming, and staying, the owner of partitions: settle, check, fence, catch up, know where to read on.
//!
//! One path serves an assignment, a rewind and the hourly renewal; they differ in whether the fence is taken. Nothing
//! here reads records. Rules O2, O3, F1, F2 and W1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backoff::Backoff;
use super::campaigns::CampaignSource;
use super::clock::Clock;
use super::decoded::Abandoned;
use super::failure::{Failure, Infrastructure, Reaction, policy};
use super::log::{
    CommitError, EventOutput, GroupToken, LogError, LogIdentity, PartitionStand, StandReader, Transaction,
};
use super::ownership::{OwnedPartition, Ownership};
use crate::store::{FenceRow, StateStore, StoreError};
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// A fence rises by at least this much over the one before (rule F1), so that batch numbers fit under the next one.
const FENCE_STEP_US: i64 = 1_000_000;
/// How often a fence that somebody else took first is tried again; each loss means that the group gave the partition
/// to another member, whose end we learn of by polling.
const FENCE_ATTEMPTS: u32 = 10;

/// Why partitions could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The epoch ended.
    #[error("the epoch has ended")]
    Abandoned,
    /// An operator must act; the text says how.
    #[error("{0}")]
    Refused(String),
    /// Another owner holds the partition: we are the zombie.
    #[error("another instance owns {0}")]
    Zombie(String),
    /// The commit of the offsets did not get through.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<Abandoned> for TakeError {
    fn from(_: Abandoned) -> TakeError {
        TakeError::Abandoned
    }
}

/// Partitions ready to be read.
#[derive(Debug)]
pub struct Taken {
    /// Fences and counts.
    pub ownership: Arc<Ownership>,
    /// Next offset to read per partition.
    pub next_offsets: BTreeMap<i32, i64>,
}

/// Everything that taking needs.
pub struct Owner {
    /// Name of the events topic, which fences are kept under.
    pub topic: String,
    /// Fence rows.
    pub store: Arc<dyn StateStore>,
    /// Offsets and watermarks.
    pub stands: Arc<dyn StandReader>,
    /// The transactional producer.
    pub output: Arc<dyn EventOutput>,
    /// The campaigns reader.
    pub campaigns: Arc<dyn CampaignSource>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
}

impl Owner {
    /// A new assignment: takes every fence and commits every offset (rule O3).
    pub async fn take(
        &self,
        partitions: Vec<i32>,
        group: GroupToken,
        batch: u64,
        epoch: CancellationToken,
    ) -> Result<Taken, TakeError> {
        self.settle(&epoch).await?;
        let identity = self.identity(&epoch).await?;
        let stands = self.stands(&partitions, &epoch).await?;
        for (partition, stand) in &stands {
            if let Some(row) = self.read_row(*partition, &epoch).await? {
                self.check_identity(*partition, &row, &identity)?;
                self.check(*partition, &row, *stand)?;
            }
        }
        // Committed before any fence is moved: it proves that the group still counts us in, so that a member that wakes up
        // late takes no fence from the owner after it.
        let next_offsets = next_offsets(&stands);
        self.commit_offsets(&next_offsets, group).await?;
        let mut owned = BTreeMap::new();
        for (partition, stand) in &stands {
            let row = self.fence(*partition, &identity, *stand, &epoch).await?;
            owned.insert(*partition, OwnedPartition { row, since_batch: batch });
        }
        let ownership = Ownership { partition_count: identity.partition_count, partitions: owned };
        self.catch_up(&epoch).await?;
        Ok(Taken { ownership: Arc::new(ownership), next_offsets })
    }

    /// A rewind after `delay`: the fences stay, the offsets come from the broker, not from what we believe (rule W1).
    pub async fn rewind(
        &self,
        ownership: Arc<Ownership>,
        delay: Duration,
        epoch: CancellationToken,
    ) -> Result<Taken, TakeError> {
        tokio::select! {
            biased;
            () = epoch.cancelled() => return Err(TakeError::Abandoned),
            () = tokio::time::sleep(delay) => {}
        }
        self.settle(&epoch).await?;
        let partitions: Vec<i32> = ownership.partitions.keys().copied().collect();
        let stands = self.stands(&partitions, &epoch).await?;
        for (partition, owned) in &ownership.partitions {
            if let Some(stand) = stands.get(partition) {
                self.check(*partition, &owned.row, *stand)?;
            }
        }
        self.catch_up(&epoch).await?;
        Ok(Taken { ownership, next_offsets: next_offsets(&stands) })
    }

    /// Takes the fences again under our own token, notes the committed offsets in the rows and commits them again:
    /// hourly, and when the batch numbers of a fence run out (rules O3 and F2). Nothing may be in flight.
    pub async fn renew(
        &self,
        ownership: Arc<Ownership>,
        group: GroupToken,
        batch: u64,
        epoch: CancellationToken,
    ) -> Result<Taken, TakeError> {
        let partitions: Vec<i32> = ownership.partitions.keys().copied().collect();
        let stands = self.stands(&partitions, &epoch).await?;
        let mut renewed = Ownership::clone(&ownership);
        for (partition, owned) in &mut renewed.partitions {
            let committed = stands.get(partition).and_then(|stand| stand.committed);
            let next = FenceRow {
                fence_us: self.fence_after(owned.row.fence_us),
                token: Uuid::new_v4(),
                committed_offset: committed.or(owned.row.committed_offset),
                ..owned.row.clone()
            };
            if !self.replace(*partition, Some(&owned.row), &next, &epoch).await? {
                return Err(TakeError::Zombie(format!("{}[{partition}]", self.topic)));
            }
            *owned = OwnedPartition { row: next, since_batch: batch };
        }
        let next_offsets = next_offsets(&stands);
        self.commit_offsets(&next_offsets, group).await?;
        Ok(Taken { ownership: Arc::new(renewed), next_offsets })
    }

    async fn settle(&self, epoch: &CancellationToken) -> Result<(), TakeError> {
        self.until_available(epoch, || self.output.settle()).await
    }

    async fn identity(&self, epoch: &CancellationToken) -> Result<LogIdentity, TakeError> {
        self.until_available(epoch, || self.stands.identity()).await
    }

    async fn stands(
        &self,
        partitions: &[i32],
        epoch: &CancellationToken,
    ) -> Result<BTreeMap<i32, PartitionStand>, TakeError> {
        self.until_available(epoch, || self.stands.stands(partitions)).await
    }

    async fn catch_up(&self, epoch: &CancellationToken) -> Result<(), TakeError> {
        self.until_available(epoch, || self.campaigns.caught_up()).await
    }

    async fn until_available<T, F>(
        &self,
        epoch: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> Result<T, TakeError>
    where
        F: Future<Output = Result<T, LogError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let answer = tokio::select! {
                biased;
                () = epoch.cancelled() => return Err(TakeError::Abandoned),
                answer = attempt() => answer,
            };
            match answer {
                Ok(value) => return Ok(value),
                Err(LogError::Refused(text)) => return Err(TakeError::Refused(text)),
                Err(error @ LogError::Unavailable(_)) => backoff.wait(epoch, &error).await?,
            }
        }
    }

    /// Checks the row that stands and replaces it by ours.
    async fn fence(
        &self,
        partition: i32,
        identity: &LogIdentity,
        stand: PartitionStand,
        epoch: &CancellationToken,
    ) -> Result<FenceRow, TakeError> {
        for _ in 0..FENCE_ATTEMPTS {
            let row = self.read_row(partition, epoch).await?;
            if let Some(row) = &row {
                self.check_identity(partition, row, identity)?;
                self.check(partition, row, stand)?;
            }
            let next = FenceRow {
                fence_us: self.fence_after(row.as_ref().map_or(0, |row| row.fence_us)),
                token: Uuid::new_v4(),
                cluster_id: identity.cluster_id.clone(),
                partition_count: identity.partition_count,
                incarnation: row.as_ref().map_or(0, |row| row.incarnation),
                committed_offset: stand.committed.or(row.as_ref().and_then(|row| row.committed_offset)),
            };
            if self.replace(partition, row.as_ref(), &next, epoch).await? {
                return Ok(next);
            }
        }
        Err(TakeError::Zombie(format!("{}[{partition}]", self.topic)))
    }

    fn fence_after(&self, old_us: i64) -> i64 {
        self.clock.now_ms().saturating_mul(1_000).max(old_us.saturating_add(FENCE_STEP_US))
    }

    async fn read_row(
        &self,
        partition: i32,
        epoch: &CancellationToken,
    ) -> Result<Option<FenceRow>, TakeError> {
        let mut backoff = Backoff::default();
        loop {
            match self.store.read_fence(&self.topic, partition).await {
                Ok(row) => return Ok(row),
                Err(error) => self.wait_for_store(error, &mut backoff, epoch).await?,
            }
        }
    }

    /// True when our row stands now, false when somebody else's does.
    async fn replace(
        &self,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
        epoch: &CancellationToken,
    ) -> Result<bool, TakeError> {
        let mut backoff = Backoff::default();
        loop {
            match self.store.replace_fence(&self.topic, partition, expected, next).await {
                Ok(()) => return Ok(true),
                Err(StoreError::Fenced { .. }) => {
                    // An attempt before this one may have been applied although it failed: the token tells.
                    let standing = self.read_row(partition, epoch).await?;
                    return Ok(standing.is_some_and(|row| row.token == next.token));
                }
                Err(error) => self.wait_for_store(error, &mut backoff, epoch).await?,
            }
        }
    }

    async fn wait_for_store(
        &self,
        error: StoreError,
        backoff: &mut Backoff,
        epoch: &CancellationToken,
    ) -> Result<(), TakeError> {
        let trouble = Infrastructure::Store(error);
        match policy(&Failure::Infrastructure(&trouble)) {
            Reaction::Stop => Err(TakeError::Refused(trouble.to_string())),
            _ => {
                self.metrics.store_retry(StoreOperation::Fence);
                Ok(backoff.wait(epoch, &trouble).await?)
            }
        }
    }

    async fn commit_offsets(
        &self,
        next_offsets: &BTreeMap<i32, i64>,
        group: GroupToken,
    ) -> Result<(), TakeError> {
        let transaction = Transaction { records: Vec::new(), next_offsets: next_offsets.clone(), group };
        Ok(self.output.commit(transaction).await?)
    }

    /// The log must be the one that the states were made from.
    fn check_identity(
        &self,
        partition: i32,
        row: &FenceRow,
        identity: &LogIdentity,
    ) -> Result<(), TakeError> {
        let topic = &self.topic;
        if row.cluster_id != identity.cluster_id {
            return Err(TakeError::Refused(format!(
                "{topic}[{partition}]: the states in the store belong to Kafka cluster {}, this is cluster {}; point \
                 kafka.brokers at the cluster of the states, or use another store.scylla.keyspace",
                row.cluster_id, identity.cluster_id
            )));
        }
        if row.partition_count != identity.partition_count {
            return Err(TakeError::Refused(format!(
                "{topic} has {} partitions, the states were made with {}; changing the count moves users between \
                 partitions and is not supported yet: recreate the topic with {} partitions",
                identity.partition_count, row.partition_count, row.partition_count
            )));
        }
        Ok(())
    }

    /// The committed offset must be there, and inside the log.
    fn check(&self, partition: i32, row: &FenceRow, stand: PartitionStand) -> Result<(), TakeError> {
        let topic = &self.topic;
        let trouble = match (row.committed_offset, stand.committed) {
            (Some(known), None) => format!(
                "the group has no committed offset but had committed {known}: the offsets have expired or the group \
                 was deleted; reset the group's offset to {known}"
            ),
            (_, Some(committed)) if stand.end < committed => format!(
                "the log ends at {} but the group had committed {committed}: the topic was recreated or truncated; \
                 restore it, or begin with an empty keyspace",
                stand.end
            ),
            (Some(known), _) if stand.end < known => format!(
                "the log ends at {} but the group had committed {known}: the topic was recreated or truncated; \
                 restore it, or begin with an empty keyspace",
                stand.end
            ),
            (_, Some(committed)) if committed < stand.start => format!(
                "the committed offset {committed} is no longer in the log, which begins at {}: events were deleted \
                 before they were handled; reset the group's offset to {} to accept the loss, and lengthen retention",
                stand.start, stand.start
            ),
            _ => return Ok(()),
        };
        Err(TakeError::Refused(format!("{topic}[{partition}]: {trouble}")))
    }
}

/// Where to read on: the committed offset, or the start of the log for a group that never committed.
fn next_offsets(stands: &BTreeMap<i32, PartitionStand>) -> BTreeMap<i32, i64> {
    stands.iter().map(|(partition, stand)| (*partition, stand.committed.unwrap_or(stand.start))).collect()
}
