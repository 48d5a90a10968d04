//! Becoming, and staying, the owner of partitions: settle, check, fence, catch up, know where to read on.
//!
//! One path serves an assignment, a rewind and the hourly renewal; they differ in whether the fence is taken. Nothing
//! here reads records. Rules O2, O3, F1, F2 and W1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::breaker::{GuardedStore, unless_ended};
use super::campaigns::CampaignSource;
use super::clock::Clock;
use super::decoded::Abandoned;
use super::log::{
    CommitError, EventOutput, GroupToken, Input, InputTopic, LogError, LogIdentity, PartitionStand,
    StandReader, Transaction,
};
use super::ownership::{Assigned, OwnedPartition, Ownership};
use super::parking::Waiting;
use crate::backoff::Backoff;
use crate::mutant::{Mutant, is};
use crate::store::{FenceRow, StoreError};
use crate::telemetry::metrics::Metrics;

/// A fence rises by at least this much over the one before (rule F1), so that batch numbers fit under the next one.
const FENCE_STEP_US: i64 = 1_000_000;

/// Fence rows read or replaced at a time.
const ROWS_AT_ONCE: usize = 16;
/// Largest difference between our clock and the database's, ms: fences are times, and one in the future would have to
/// be outlived by the next owner's (rule F3).
const MAX_CLOCK_DIFFERENCE_MS: i64 = 5_000;

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
    /// A retry topic is there that was not when the partitions were assigned (rule O8).
    #[error("a retry topic is new")]
    NewTier,
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
    /// Next offset to read per input partition.
    pub next_offsets: BTreeMap<Input, i64>,
    /// What waits in the retry topics.
    pub waiting: Vec<Waiting>,
    /// End of each partition of `events`, taken after our transaction was settled (rule K2).
    pub ends: BTreeMap<i32, i64>,
    /// Whether the fences have just been taken from another owner.
    pub fenced: bool,
}

/// Everything that taking needs.
pub struct Owner {
    /// Name of the events topic, which fences are kept under.
    pub topic: String,
    /// Fence rows.
    pub store: GuardedStore,
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
        assigned: Assigned,
        group: GroupToken,
        batch: u64,
        epoch: CancellationToken,
    ) -> Result<Taken, TakeError> {
        self.settle(&epoch).await?;
        let identity = self.identity(&epoch).await?;
        if identity.tiers > assigned.tiers {
            return Err(TakeError::NewTier);
        }
        if assigned.tiers == 0 {
            let text = "there is no retry topic, so nothing could wait; run `campaignd topology apply`";
            return Err(TakeError::Refused(text.to_owned()));
        }
        self.check_clock(&epoch).await?;
        // The rows before the offsets, which only grow: a process that sleeps between the two would else hold offsets of its
        // past against a row that the owner after it has written, and stop for a log that seems to end too early.
        let rows = self.rows(&assigned.partitions, &epoch).await?;
        let stands = self.stands(&assigned.inputs(), &epoch).await?;
        for (partition, row) in &rows {
            if let Some(row) = row {
                self.check_identity(*partition, row, &identity)?;
                self.check(*partition, row, &stands)?;
            }
        }
        // Committed before any fence is moved: it proves that the group still counts us in, so that a member that wakes up
        // late takes no fence from the owner after it.
        let next_offsets = next_offsets(&stands);
        self.commit_offsets(&next_offsets, group).await?;
        let fences = rows.into_iter().map(|(partition, row)| {
            let (identity, stands, epoch) = (&identity, &stands, &epoch);
            async move {
                let row = self.fence(partition, row, identity, stands, epoch).await?;
                Ok::<_, TakeError>((partition, row))
            }
        });
        let fenced: Vec<(i32, FenceRow)> = stream::iter(fences).buffered(ROWS_AT_ONCE).try_collect().await?;
        let partitions = fenced
            .into_iter()
            .map(|(partition, row)| (partition, OwnedPartition { row, since_batch: batch }));
        let ownership = Ownership {
            partition_count: identity.partition_count,
            tiers: assigned.tiers,
            partitions: partitions.collect(),
        };
        // Read after the fences: what another owner still parks is refused from here on, by its old generation.
        let waiting = self.waiting(&next_offsets, &epoch).await?;
        let ends = ends(&self.stands(&events_of(&ownership), &epoch).await?);
        self.catch_up(&epoch).await?;
        Ok(Taken { ownership: Arc::new(ownership), next_offsets, waiting, ends, fenced: true })
    }

    /// A rewind after `delay`: the fences stay, the offsets come from the broker, not from what we believe (rule W1).
    pub async fn rewind(
        &self,
        ownership: Arc<Ownership>,
        delay: Duration,
        epoch: CancellationToken,
    ) -> Result<Taken, TakeError> {
        unless_ended(&epoch, tokio::time::sleep(delay)).await?;
        self.settle(&epoch).await?;
        let stands = self.stands(&ownership.inputs(), &epoch).await?;
        for (partition, owned) in &ownership.partitions {
            self.check(*partition, &owned.row, &stands)?;
        }
        let next_offsets = next_offsets(&stands);
        let waiting = self.waiting(&next_offsets, &epoch).await?;
        self.catch_up(&epoch).await?;
        let ends = ends(&stands);
        Ok(Taken { ownership, next_offsets, waiting, ends, fenced: false })
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
        if self.identity(&epoch).await?.tiers > ownership.tiers {
            return Err(TakeError::NewTier);
        }
        let stands = self.stands(&ownership.inputs(), &epoch).await?;
        for (partition, owned) in &ownership.partitions {
            self.check(*partition, &owned.row, &stands)?;
        }
        let mut renewed = Ownership::clone(&ownership);
        for (partition, owned) in &mut renewed.partitions {
            let next = FenceRow {
                fence_us: self.fence_after(owned.row.fence_us),
                token: Uuid::new_v4(),
                ..noted(owned.row.clone(), *partition, &stands)
            };
            if !self.replace(*partition, Some(&owned.row), &next, &epoch).await? {
                return Err(TakeError::Zombie(format!("{}[{partition}]", self.topic)));
            }
            *owned = OwnedPartition { row: next, since_batch: batch };
        }
        let next_offsets = next_offsets(&stands);
        self.commit_offsets(&next_offsets, group).await?;
        let waiting = self.waiting(&next_offsets, &epoch).await?;
        let ends = ends(&stands);
        Ok(Taken { ownership: Arc::new(renewed), next_offsets, waiting, ends, fenced: false })
    }

    /// The ends of the partitions of `events` as of now.
    pub async fn ends(
        &self,
        ownership: Arc<Ownership>,
        epoch: CancellationToken,
    ) -> Result<BTreeMap<i32, i64>, TakeError> {
        Ok(ends(&self.stands(&events_of(&ownership), &epoch).await?))
    }

    /// Everything that waits in the retry partitions from these offsets on.
    async fn waiting(
        &self,
        next_offsets: &BTreeMap<Input, i64>,
        epoch: &CancellationToken,
    ) -> Result<Vec<Waiting>, TakeError> {
        let from: BTreeMap<Input, i64> = next_offsets
            .iter()
            .filter(|(input, _)| input.topic != InputTopic::Events)
            .map(|(input, offset)| (*input, *offset))
            .collect();
        if from.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.until_available(epoch, || self.stands.waiting(&from)).await?;
        Ok(records.iter().filter_map(|record| Waiting::of(record, &self.topic)).collect())
    }

    /// An instance whose clock is wrong would take fences that the next owner cannot pass (rule F3).
    async fn check_clock(&self, epoch: &CancellationToken) -> Result<(), TakeError> {
        let reading = self.store.read_clock(&*self.clock, epoch).await?.map_err(refused)?;
        let Some(theirs_ms) = reading.theirs_ms else { return Ok(()) };
        // Between the two readings of ours the database's clock was read.
        let apart_ms =
            reading.before_ms.saturating_sub(theirs_ms).max(theirs_ms.saturating_sub(reading.after_ms));
        if apart_ms <= MAX_CLOCK_DIFFERENCE_MS {
            return Ok(());
        }
        Err(TakeError::Refused(format!(
            "this machine's clock and the database's are {apart_ms} ms apart, allowed are {MAX_CLOCK_DIFFERENCE_MS}; \
             synchronize them (NTP) and start again"
        )))
    }

    /// The fence rows that stand.
    async fn rows(
        &self,
        partitions: &[i32],
        epoch: &CancellationToken,
    ) -> Result<Vec<(i32, Option<FenceRow>)>, TakeError> {
        let read =
            async |partition: i32| Ok::<_, TakeError>((partition, self.read_row(partition, epoch).await?));
        let reads: Vec<_> = partitions.iter().map(|partition| read(*partition)).collect();
        stream::iter(reads).buffered(ROWS_AT_ONCE).try_collect().await
    }

    async fn settle(&self, epoch: &CancellationToken) -> Result<(), TakeError> {
        self.until_available(epoch, || self.output.settle()).await
    }

    async fn identity(&self, epoch: &CancellationToken) -> Result<LogIdentity, TakeError> {
        self.until_available(epoch, || self.stands.identity()).await
    }

    async fn stands(
        &self,
        inputs: &[Input],
        epoch: &CancellationToken,
    ) -> Result<BTreeMap<Input, PartitionStand>, TakeError> {
        self.until_available(epoch, || self.stands.stands(inputs)).await
    }

    async fn catch_up(&self, epoch: &CancellationToken) -> Result<(), TakeError> {
        if is(Mutant::O2Campaigns) {
            return Ok(());
        }
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
        let (mut backoff, mut waiting) = (Backoff::default(), None);
        loop {
            match unless_ended(epoch, attempt()).await? {
                Ok(value) => return Ok(value),
                Err(LogError::Refused(text)) => return Err(TakeError::Refused(text)),
                Err(error @ LogError::Unavailable(_)) => {
                    waiting.get_or_insert_with(|| self.metrics.waiting());
                    unless_ended(epoch, tokio::time::sleep(backoff.after(&error))).await?;
                }
            }
        }
    }

    /// Replaces the row that stood when it was checked by ours. When another one stands there by now, nothing that was
    /// checked before holds any more: a process that slept between the check and the taking would compare the new owner's
    /// row with offsets of its own past. So everything is asked anew, the group first.
    async fn fence(
        &self,
        partition: i32,
        row: Option<FenceRow>,
        identity: &LogIdentity,
        stands: &BTreeMap<Input, PartitionStand>,
        epoch: &CancellationToken,
    ) -> Result<FenceRow, TakeError> {
        let ours = FenceRow {
            fence_us: self.fence_after(row.as_ref().map_or(0, |row| row.fence_us)),
            token: Uuid::new_v4(),
            cluster_id: identity.cluster_id.clone(),
            partition_count: identity.partition_count,
            incarnation: row.as_ref().map_or(0, |row| row.incarnation),
            committed_offset: row.as_ref().and_then(|row| row.committed_offset),
            retry_offsets: row.as_ref().map(|row| row.retry_offsets.clone()).unwrap_or_default(),
        };
        let ours = noted(ours, partition, stands);
        if self.replace(partition, row.as_ref(), &ours, epoch).await? {
            return Ok(ours);
        }
        Err(TakeError::Zombie(format!("{}[{partition}]", self.topic)))
    }

    fn fence_after(&self, old_us: i64) -> i64 {
        let old_us = if is(Mutant::F1Clock) { 0 } else { old_us };
        self.clock.now_ms().saturating_mul(1_000).max(old_us.saturating_add(FENCE_STEP_US))
    }

    async fn read_row(
        &self,
        partition: i32,
        epoch: &CancellationToken,
    ) -> Result<Option<FenceRow>, TakeError> {
        self.store.read_fence(&self.topic, partition, epoch).await?.map_err(refused)
    }

    /// True when our row stands now, false when somebody else's does.
    async fn replace(
        &self,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
        epoch: &CancellationToken,
    ) -> Result<bool, TakeError> {
        match self.store.replace_fence(&self.topic, partition, expected, next, epoch).await? {
            Ok(()) => Ok(true),
            Err(StoreError::Fenced { .. }) => {
                // An attempt before this one may have been applied although it failed: the token tells.
                let standing = self.read_row(partition, epoch).await?;
                let is_same_number = |row: &FenceRow| is(Mutant::F1Token) && row.fence_us == next.fence_us;
                Ok(standing.is_some_and(|row| row.token == next.token || is_same_number(&row)))
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn commit_offsets(
        &self,
        next_offsets: &BTreeMap<Input, i64>,
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
                 kafka.brokers at the cluster of the states, or, after a move to this cluster for good, stop all \
                 instances and run `campaignd topology rebase`",
                row.cluster_id, identity.cluster_id
            )));
        }
        if row.partition_count != identity.partition_count {
            return Err(TakeError::Refused(format!(
                "{topic} has {} partitions, the states were made with {}: adding partitions to a live topic is not supported \
                 yet; for a topic that was made anew, stop all instances and run `campaignd topology rebase`",
                identity.partition_count, row.partition_count
            )));
        }
        Ok(())
    }

    /// Of `events` and of each retry topic the committed offset must be there, and inside the log.
    fn check(
        &self,
        partition: i32,
        row: &FenceRow,
        stands: &BTreeMap<Input, PartitionStand>,
    ) -> Result<(), TakeError> {
        for (input, stand) in stands.iter().filter(|(input, _)| input.partition == partition) {
            let (known, topic) = match input.topic {
                InputTopic::Events => (row.committed_offset, self.topic.clone()),
                InputTopic::Retry(tier) => {
                    (row.retry_offsets.get(&tier).copied(), format!("retry topic {tier}"))
                }
            };
            if let Some(trouble) = trouble(known, *stand) {
                return Err(TakeError::Refused(format!("{topic}[{partition}]: {trouble}")));
            }
        }
        Ok(())
    }
}

/// What is wrong with where a partition stands, given what the group had committed when it was last noted.
fn trouble(known: Option<i64>, stand: PartitionStand) -> Option<String> {
    match (known, stand.committed) {
        (Some(known), None) => Some(format!(
            "the group has no committed offset but had committed {known}: the offsets have expired, or the group was \
             deleted: reset the group's offset to {known}; or the topic was made anew: stop all instances and run \
             `campaignd topology rebase`"
        )),
        (_, Some(committed)) if stand.end < committed => Some(format!(
            "the log ends at {} but the group had committed {committed}: the topic was made anew or truncated; if that is \
             meant, stop all instances and run `campaignd topology rebase`",
            stand.end
        )),
        (Some(known), _) if stand.end < known => Some(format!(
            "the log ends at {} but the group had committed {known}: the topic was made anew or truncated; if that is \
             meant, stop all instances and run `campaignd topology rebase`",
            stand.end
        )),
        (_, Some(committed)) if committed < stand.start => Some(format!(
            "the committed offset {committed} is no longer in the log, which begins at {}: records were deleted before \
             they were handled; reset the group's offset to {} to accept the loss, and lengthen retention",
            stand.start, stand.start
        )),
        _ => None,
    }
}

/// What the store has answered that no waiting mends.
fn refused(error: StoreError) -> TakeError {
    TakeError::Refused(error.to_string())
}

/// Where to read on: the committed offset, or the start of the log for a group that never committed.
fn next_offsets(stands: &BTreeMap<Input, PartitionStand>) -> BTreeMap<Input, i64> {
    stands.iter().map(|(input, stand)| (*input, stand.committed.unwrap_or(stand.start))).collect()
}

/// The ends of the partitions of `events`.
fn ends(stands: &BTreeMap<Input, PartitionStand>) -> BTreeMap<i32, i64> {
    let events = stands.iter().filter(|(input, _)| input.topic == InputTopic::Events);
    events.map(|(input, stand)| (input.partition, stand.end)).collect()
}

fn events_of(ownership: &Ownership) -> Vec<Input> {
    ownership.partitions.keys().map(|partition| Input::events(*partition)).collect()
}

/// The row with where reading begins, which is committed with it (rule O3): a topic that is made anew has no committed
/// offset, and is refused though nothing was ever noted but its start.
fn noted(mut row: FenceRow, partition: i32, stands: &BTreeMap<Input, PartitionStand>) -> FenceRow {
    for (input, offset) in next_offsets(stands).into_iter().filter(|(input, _)| input.partition == partition)
    {
        match input.topic {
            InputTopic::Events => row.committed_offset = Some(offset),
            InputTopic::Retry(tier) => {
                row.retry_offsets.insert(tier, offset);
            }
        }
    }
    row
}
