//! Fourth and fifth hop: cells acknowledged by the store, then one transaction.
//!
//! The transaction begins only after every cell of the batch is acknowledged (rule S2): otherwise a crash could leave a
//! published decision without its state, or the transaction would expire while the store is slow.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::breaker::GuardedStore;
use super::decided::{Decided, Tally};
use super::decoded::Abandoned;
use super::failure::{Failure, Infrastructure, Reaction, policy};
use super::log::{CommitError, EventOutput, GroupToken, Input, OutputRecord, Transaction};
use crate::mutant::{Mutant, is};
use crate::pause::{PausePoint, pause_at};
use crate::store::StoreError;
use crate::telemetry::metrics::Metrics;

/// Why a batch did not get through.
#[derive(Debug, thiserror::Error)]
pub enum CommitTrouble {
    /// The epoch ended.
    #[error("the epoch has ended")]
    Abandoned,
    /// The store cannot go on until an operator acts.
    #[error(transparent)]
    Stopped(StoreError),
    /// The transaction did not commit, or may not have.
    #[error(transparent)]
    Transaction(#[from] CommitError),
}

impl From<Abandoned> for CommitTrouble {
    fn from(_: Abandoned) -> CommitTrouble {
        CommitTrouble::Abandoned
    }
}

/// A batch whose cells are in the store.
#[derive(Debug)]
pub struct Stored {
    batch: u64,
    outputs: Vec<OutputRecord>,
    next_offsets: BTreeMap<Input, i64>,
    group: GroupToken,
    tally: Tally,
    started: tokio::time::Instant,
}

/// A batch that is done.
#[derive(Debug)]
pub struct Committed {
    /// Its number.
    pub batch: u64,
    /// What it committed.
    pub next_offsets: BTreeMap<Input, i64>,
    /// Its counts.
    pub tally: Tally,
    /// When it was handed to the lanes.
    pub started: tokio::time::Instant,
    /// When its transaction began.
    pub stored: tokio::time::Instant,
}

impl Decided {
    /// Writes every cell. A failed write is repeated with the same bytes and timestamps for as long as it takes: it may
    /// have been applied, so nothing else may follow it (rule W2).
    pub async fn store(
        self,
        store: &GuardedStore,
        epoch: &CancellationToken,
        metrics: &Metrics,
    ) -> Result<Stored, CommitTrouble> {
        pause_at(PausePoint::BeforeStoreWrite);
        if !self.cells.is_empty() {
            store.write(&self.cells, epoch).await?.map_err(|error| {
                match policy(&Failure::Infrastructure(Infrastructure::Store(&error))) {
                    Reaction::Stop => CommitTrouble::Stopped(error),
                    _ => CommitTrouble::Abandoned,
                }
            })?;
        }
        metrics.state_writes(u64::try_from(self.cells.len()).unwrap_or(u64::MAX));
        pause_at(PausePoint::AfterStoreWrite);
        Ok(Stored {
            batch: self.batch,
            outputs: self.outputs,
            next_offsets: self.next_offsets,
            group: self.group,
            tally: self.tally,
            started: self.started,
        })
    }
}

impl Stored {
    /// Publishes the outputs and the offsets in one transaction.
    pub async fn commit(self, output: &dyn EventOutput) -> Result<Committed, CommitTrouble> {
        let stored = tokio::time::Instant::now();
        let transaction =
            Transaction { records: self.outputs, next_offsets: self.next_offsets.clone(), group: self.group };
        output.commit(transaction).await?;
        Ok(Committed {
            batch: self.batch,
            next_offsets: self.next_offsets,
            tally: self.tally,
            started: self.started,
            stored,
        })
    }
}

/// Both hops of one batch.
pub async fn store_and_commit(
    decided: Decided,
    store: GuardedStore,
    output: Arc<dyn EventOutput>,
    epoch: CancellationToken,
    metrics: Metrics,
) -> Result<Committed, CommitTrouble> {
    let mut decided = decided;
    let late = if is(Mutant::S2) { std::mem::take(&mut decided.cells) } else { Vec::new() };
    if is(Mutant::S2) {
        let committed = decided.store(&store, &epoch, &metrics).await?.commit(&*output).await;
        let _ = store.write(&late, &epoch).await?;
        return committed;
    }
    decided.store(&store, &epoch, &metrics).await?.commit(&*output).await
}
