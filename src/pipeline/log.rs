//! The event log as the pipeline sees it: signals in, transactions out.
//!
//! Two traits, because two threads of control stand behind them: [`EventLog`] is the side that owns the consumer and
//! always polls, [`EventOutput`] the side that owns the transactional producer. Nothing here is Kafka: the simulation
//! implements both over a log of its own.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

/// A header of a record; names and values are the producer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name; a name that is not UTF-8 is kept with replacement characters.
    pub name: String,
    /// Value, absent when the producer wrote null.
    pub value: Option<Bytes>,
}

/// A topic that the owner of a partition reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputTopic {
    /// `events`.
    Events,
    /// `events.retry.<tier>`; tiers count from 1.
    Retry(u8),
}

/// A partition of one of the input topics. Whoever owns `events[p]` owns every `events.retry.*[p]` (rule O1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input {
    /// The topic.
    pub topic: InputTopic,
    /// Partition number, the same for all topics of an owner.
    pub partition: i32,
}

impl Input {
    /// A partition of `events`.
    pub fn events(partition: i32) -> Input {
        Input { topic: InputTopic::Events, partition }
    }

    /// A partition of a retry topic.
    pub fn retry(tier: u8, partition: i32) -> Input {
        Input { topic: InputTopic::Retry(tier), partition }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.topic {
            InputTopic::Events => write!(f, "events[{}]", self.partition),
            InputTopic::Retry(tier) => write!(f, "events.retry.{tier}[{}]", self.partition),
        }
    }
}

/// A record of an input topic as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Topic it was read from.
    pub topic: InputTopic,
    /// Partition of the topic; for a retry record also the partition of `events` that it came from.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Record timestamp, ms since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Key as written.
    pub key: Option<Bytes>,
    /// Value as written.
    pub value: Option<Bytes>,
    /// Headers as written.
    pub headers: Vec<Header>,
}

/// Group metadata captured on the polling thread when a batch closed (rule O4). Opaque: only the output that belongs
/// to the log can read it.
#[derive(Clone)]
pub struct GroupToken(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for GroupToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupToken")
    }
}

impl Record {
    /// Where it was read.
    pub fn input(&self) -> Input {
        Input { topic: self.topic, partition: self.partition }
    }
}

/// First hop: a contiguous range of offsets per assigned partition, and the group metadata it may commit with.
#[derive(Debug)]
pub struct Fetched {
    /// Epoch the records were read in; a batch of an older epoch is dropped.
    pub epoch: u64,
    /// Records, in offset order within a partition. Of a retry partition only records that are due
    /// ([`super::parking::due`]); the first one that is not ends the range.
    pub records: Vec<Record>,
    /// Next offset to read per partition of the batch: what the batch commits.
    pub next_offsets: BTreeMap<Input, i64>,
    /// What the batch commits with, never anything newer.
    pub group: GroupToken,
    /// Whether the batch closed because it was full, not because the processor was idle.
    pub full: bool,
}

/// What the processor is ready to take. The log keeps polling in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// No batch.
    Nothing,
    /// A batch only if it is full: the committer is still busy with the one before.
    Full,
    /// Whatever has arrived.
    Any,
}

/// What the log has to say.
#[derive(Debug)]
pub enum Signal {
    /// The group gave us these partitions, and no others. They are paused until [`EventLog::start`].
    Assigned {
        /// Partitions of `events`, ascending.
        partitions: Vec<i32>,
        /// Tiers whose partitions of the same numbers are assigned with them, from 1 to this; 0 without retry topics.
        tiers: u8,
    },
    /// The partitions are being taken away; the group waits for `done`.
    Revoked {
        /// True when they are gone already and nothing can be committed any more.
        lost: bool,
        /// Dropped or sent to when every batch of the epoch has been committed or dropped (rule O5).
        done: oneshot::Sender<()>,
    },
    /// A batch.
    Batch(Fetched),
    /// Reading cannot go on from where it stands; rewinding may mend it.
    Stumbled(String),
    /// Nothing mends it but an operator.
    Fatal(LogError),
}

/// Where a partition stands, as the broker tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStand {
    /// Stable committed offset of the group, `None` when there is none.
    pub committed: Option<i64>,
    /// First offset the log still holds.
    pub start: i64,
    /// Offset after the last record.
    pub end: i64,
}

/// What the log is: identity that must not change under the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Cluster id of the broker.
    pub cluster_id: String,
    /// Number of partitions of `events`.
    pub partition_count: i32,
    /// Retry topics that exist now, from fresh metadata: tiers 1 to this, each with as many partitions as `events`.
    pub tiers: u8,
}

/// A failure of the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// It may work later.
    #[error("kafka is unavailable: {0}")]
    Unavailable(String),
    /// It will not work until an operator acts; the text says how.
    #[error("{0}")]
    Refused(String),
}

/// The consumer side.
#[async_trait]
pub trait EventLog: Send + 'static {
    /// The next signal; with [`Want::Nothing`] never a batch. Cancel safe.
    async fn next(&mut self, want: Want) -> Signal;

    /// The reader of offsets and watermarks, usable while polling goes on.
    fn stands(&self) -> Arc<dyn StandReader>;

    /// Throws away what was read ahead, positions every partition and lets records flow. A failure arrives as
    /// [`Signal::Stumbled`]. Returns at once.
    fn start(&mut self, start: Start);

    /// Stops the flow of records until the next [`EventLog::start`]; polling goes on. Returns at once.
    fn halt(&mut self);

    /// Holds back the records of these partitions of `events`, and of no others; retry partitions flow on (rule P8).
    /// Counts until it is said again or the next [`EventLog::start`]. Returns at once.
    fn hold(&mut self, partitions: BTreeSet<i32>);

    /// Leaves the group and joins it again, so that a retry topic that is new to this member is assigned (rule O8).
    /// Returns at once; a revocation and an assignment follow.
    fn rejoin(&mut self);

    /// The group metadata as of now, for a commit of offsets without records.
    fn group(&self) -> Result<GroupToken, LogError>;

    /// Leaves the group and ends polling.
    async fn close(&mut self);
}

/// Reads where partitions stand.
#[async_trait]
pub trait StandReader: Send + Sync {
    /// Stable committed offsets and watermarks of the partitions.
    async fn stands(&self, inputs: &[Input]) -> Result<BTreeMap<Input, PartitionStand>, LogError>;

    /// What waits in retry partitions: every committed record from the given offset to the high watermark as of now, in
    /// offset order, without its value and the producer's headers. Read under read_committed until the POSITION reaches the watermark taken with
    /// read_uncommitted (rule O2); [`LogError::Unavailable`] names the partition where a transaction hangs.
    async fn waiting(&self, from: &BTreeMap<Input, i64>) -> Result<Vec<Record>, LogError>;

    /// Deletes what was consumed: the records of retry partitions below the given offsets (rule P7).
    async fn delete_consumed(&self, below: &BTreeMap<Input, i64>) -> Result<(), LogError>;

    /// Identity of the log.
    async fn identity(&self) -> Result<LogIdentity, LogError>;
}

/// Where and how reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Tag of the batches to come.
    pub epoch: u64,
    /// Next offset to read per partition.
    pub next_offsets: BTreeMap<Input, i64>,
    /// A smaller bound of records per user and batch than the configured one (rule S9).
    pub max_records_per_user: Option<usize>,
    /// A smaller bound of records per batch than the configured one, while batches fail (rule S9).
    pub max_records: Option<usize>,
}

/// Which topic an output record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputTopic {
    /// `decisions`.
    Decisions,
    /// `activity`.
    Activity,
    /// `events.dlq`.
    DeadLetters,
    /// `events.retry.<tier>`.
    Retry(u8),
}

/// A record to be written in the batch's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// Where to.
    pub topic: OutputTopic,
    /// Explicit partition number: that of the record it comes from (rules J5, P10).
    pub partition: i32,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Vec<Header>,
}

/// What one transaction holds.
#[derive(Debug)]
pub struct Transaction {
    /// Records, in the order they must appear within a partition.
    pub records: Vec<OutputRecord>,
    /// Next offset to read per input partition.
    pub next_offsets: BTreeMap<Input, i64>,
    /// Metadata to commit with.
    pub group: GroupToken,
}

/// Why a transaction did not commit, or may not have. Every case ends in a rewind.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The group generation has moved on, or a newer producer holds the transactional id.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The transaction failed and is to be aborted.
    #[error("the transaction failed: {0}")]
    Failed(String),
    /// The outcome stayed unknown after retries on the same producer.
    #[error("the outcome of the transaction is unknown: {0}")]
    Unknown(String),
}

/// The producer side.
#[async_trait]
pub trait EventOutput: Send + Sync + 'static {
    /// Writes and commits one transaction. An unknown outcome is retried on the same producer first.
    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError>;

    /// Settles whatever transaction may still be open, so that nothing given to [`EventOutput::commit`] before can
    /// commit afterwards: abort, or a new producer under the same transactional id (rule W1).
    async fn settle(&self) -> Result<(), LogError>;
}
