//! Where user state, fences and the audit trail are kept.
//!
//! [`StateStore`] is what the pipeline needs, [`AuditStore`] what the projection and the commands need. Two
//! implementations serve both traits: ScyllaDB ([`scylla`], which runs on Cassandra too) and the embedded one
//! ([`embedded`]); one contract suite, `tests/support/store_contract.rs`, runs against both.
//!
//! A user id has 1 to [`MAX_USER_ID_BYTES`] bytes; another one is [`StoreError::Refused`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use crate::decision::{Decision, Outcome};

mod audit_row;
pub mod embedded;
pub mod migrate;
mod open;
pub mod scylla;

pub(crate) use audit_row::name;
pub use open::open;

/// Longest user id: either store's keys hold 65,535 bytes, the embedded one's with a few bytes of their own.
pub const MAX_USER_ID_BYTES: usize = 65_000;

/// One user's cell to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// User id.
    pub user_id: String,
    /// The encoded state.
    pub bytes: Bytes,
    /// Write timestamp in microseconds: fence plus batch number. Of two writes the higher timestamp wins, in
    /// whatever order they arrive.
    pub timestamp_us: i64,
}

/// Why a store call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer or answered that it cannot now; the write may or may not have been applied. The same
    /// call with the same arguments may be repeated.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The fence is held by a newer owner: this process is the zombie and must stop writing for the partition.
    #[error("the fence of {topic}[{partition}] is held by a newer owner")]
    Fenced {
        /// Topic of the fence.
        topic: String,
        /// Partition of the fence.
        partition: i32,
    },
    /// It will not work until an operator does something; the text says what.
    #[error("{0}")]
    Refused(String),
}

/// A row of `partition_fence`: who may write the states of a partition, and how far it has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceRow {
    /// Base of the write timestamps, microseconds since the Unix epoch.
    pub fence_us: i64,
    /// Random token of the owner.
    pub token: uuid::Uuid,
    /// Kafka cluster id the positions belong to.
    pub cluster_id: String,
    /// Partition count of the topic when the fence was taken.
    pub partition_count: i32,
    /// Incarnation of the topic.
    pub incarnation: u32,
    /// Committed position of the partition when last recorded: the next offset to read.
    pub committed_offset: Option<i64>,
    /// The same of each retry partition, by tier (rule O3).
    pub retry_offsets: BTreeMap<u8, i64>,
}

impl FenceRow {
    /// Whether the other row is of the same owner at the same fence, whatever else it says. The token decides: two
    /// owners can compute the same fence.
    pub fn same_owner(&self, other: &Self) -> bool {
        self.token == other.token && self.fence_us == other.fence_us
    }
}

/// What the pipeline needs of a store.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// Cells of the users, one answer a user in the order asked, `None` where there is no cell. A read that failed says
    /// nothing about the others.
    async fn load(&self, user_ids: &[&str]) -> Vec<Result<Option<Bytes>, StoreError>>;

    /// Writes all cells at their timestamps and returns when every one is acknowledged. On an error any of them may
    /// have been applied; repeating the call with the same bytes and timestamps is safe.
    async fn write(&self, cells: &[Cell]) -> Result<(), StoreError>;

    /// The fence row of a partition.
    async fn read_fence(&self, topic: &str, partition: i32) -> Result<Option<FenceRow>, StoreError>;

    /// Replaces the row by `next` in one lightweight transaction if it still equals `expected` in fence and token
    /// (`None`: no row yet). A time-out is resolved inside by reading back with SERIAL and comparing the TOKEN (rule
    /// F1). `Ok` when `next` stands there, also when an earlier call put it there, so the same call may be repeated
    /// after [`StoreError::Unavailable`]. [`StoreError::Fenced`] when somebody else's row stands there;
    /// [`StoreError::Refused`] when its owner works in another local datacenter (rule F4).
    async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
    ) -> Result<(), StoreError>;

    /// The store's wall clock, ms since the Unix epoch; `None` when it is this machine's own (rule F3).
    async fn clock_ms(&self) -> Result<Option<i64>, StoreError>;
}

/// A row of the audit trail: a published decision.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// The decision as published.
    pub decision: Decision,
}

/// Which audit rows to read; newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// User id.
    pub user_id: String,
    /// Only decisions of events at or after, ms since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only decisions of events before, ms since the Unix epoch.
    pub until_ms: Option<i64>,
    /// Only this campaign.
    pub campaign_id: Option<String>,
    /// Only this outcome.
    pub outcome: Option<Outcome>,
    /// At most so many rows.
    pub limit: usize,
}

/// What the projection writes and the commands read.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Inserts rows keyed by decision id; the same row again changes nothing.
    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError>;

    /// Rows of one user, newest event first.
    async fn read_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError>;
}

/// Refuses a user id that cannot be a key.
pub(crate) fn check_user_id(user_id: &str) -> Result<(), StoreError> {
    if (1..=MAX_USER_ID_BYTES).contains(&user_id.len()) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "a user id of {} bytes cannot be stored; it must have 1 to {MAX_USER_ID_BYTES}",
        user_id.len()
    )))
}
