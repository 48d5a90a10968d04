//! A lane: a sequential worker that decodes, loads what it lacks, and decides its users' events in order.
//!
//! A user always maps to the same lane of a process, so a state has one reader and one writer here. A lane publishes
//! nothing and writes nothing: it answers with cells and output records.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::apply::{Applier, Standing};
use super::backoff::Backoff;
use super::cache::StateCache;
use super::decided::Slice;
use super::decoded::{Abandoned, Decoded, Decoder};
use super::failure::{BadRecord, Failure, Infrastructure, Reaction, policy};
use super::log::Record;
use super::ownership::Ownership;
use super::settings::Settings;
use crate::campaign::set::CampaignSet;
use crate::schema::{OutputCodec, SchemaSource};
use crate::store::{Cell, StateStore, StoreError};
use crate::telemetry::metrics::{Metrics, StoreOperation};
use crate::user::UserState;
use crate::user::codec::{self, CodecError};

/// A slice of a batch.
#[derive(Debug)]
pub struct LaneWork {
    /// Number of the batch.
    pub batch: u64,
    /// Ends with the epoch.
    pub epoch: CancellationToken,
    /// The lane's records, in offset order within a partition.
    pub records: Vec<Record>,
    /// The campaigns that the whole batch is decided with.
    pub campaigns: Arc<CampaignSet>,
    /// Time of the decisions, ms since the Unix epoch.
    pub now_ms: i64,
    /// Last batch known to have committed.
    pub committed_batch: u64,
    /// Next offset to read per partition as committed; entries of a loaded outbox below it are published.
    pub committed_offsets: Arc<BTreeMap<i32, i64>>,
    /// Fences and incarnation.
    pub ownership: Arc<Ownership>,
}

/// Why a lane has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The epoch ended.
    #[error("the epoch has ended")]
    Abandoned,
    /// It cannot go on until an operator acts.
    #[error(transparent)]
    Stopped(StoreError),
    /// A user's outbox would grow over its bound: the batch is to be read again with fewer of his records.
    #[error("a user's outbox is full")]
    OutboxFull,
    /// The lane is gone.
    #[error("a lane has ended")]
    Gone,
}

impl From<Abandoned> for LaneError {
    fn from(_: Abandoned) -> LaneError {
        LaneError::Abandoned
    }
}

enum Command {
    Work(LaneWork, oneshot::Sender<Result<Slice, LaneError>>),
    Reset(oneshot::Sender<()>),
}

/// What all lanes share.
#[derive(Clone)]
pub struct LaneParts {
    /// Where states come from.
    pub store: Arc<dyn StateStore>,
    /// Where schemas come from.
    pub schemas: Arc<dyn SchemaSource>,
    /// How outputs are encoded.
    pub codec: OutputCodec,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Metrics.
    pub metrics: Metrics,
}

/// The lanes of a process.
pub struct Lanes {
    lanes: Vec<mpsc::Sender<Command>>,
}

impl Lanes {
    /// Starts `settings.lanes` lanes as tasks; they end when this is dropped.
    pub fn start(parts: &LaneParts) -> Lanes {
        let count = parts.settings.lanes.max(1);
        let cache_bytes = parts.settings.cache_max_bytes / count;
        let lanes = (0..count)
            .map(|_| {
                // One slice at work, one reset behind it.
                let (sender, commands) = mpsc::channel(2);
                tokio::spawn(Lane::new(parts, cache_bytes).run(commands));
                sender
            })
            .collect();
        Lanes { lanes }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Hands a lane its slice and waits for the answer.
    pub async fn work(sender: LaneSender, work: LaneWork) -> Result<Slice, LaneError> {
        let (answer, waiting) = oneshot::channel();
        sender.0.send(Command::Work(work, answer)).await.map_err(|_| LaneError::Gone)?;
        waiting.await.map_err(|_| LaneError::Gone)?
    }

    /// The lane of that index.
    pub fn sender(&self, index: usize) -> Option<LaneSender> {
        self.lanes.get(index).cloned().map(LaneSender)
    }

    /// Empties every cache once the lanes are done with what they hold. The epoch must have been cancelled.
    pub async fn reset(&self) -> Result<(), LaneError> {
        for lane in &self.lanes {
            let (answer, waiting) = oneshot::channel();
            lane.send(Command::Reset(answer)).await.map_err(|_| LaneError::Gone)?;
            waiting.await.map_err(|_| LaneError::Gone)?;
        }
        Ok(())
    }
}

/// A way to a lane.
pub struct LaneSender(mpsc::Sender<Command>);

struct Lane {
    store: Arc<dyn StateStore>,
    decoder: Decoder,
    applier: Applier,
    cache: StateCache,
    metrics: Metrics,
    reported: (i64, i64),
}

impl Lane {
    fn new(parts: &LaneParts, cache_bytes: usize) -> Lane {
        Lane {
            store: Arc::clone(&parts.store),
            decoder: Decoder::new(
                Arc::clone(&parts.schemas),
                Arc::clone(&parts.settings),
                parts.metrics.clone(),
            ),
            applier: Applier::new(parts.codec, Arc::clone(&parts.settings)),
            cache: StateCache::new(cache_bytes),
            metrics: parts.metrics.clone(),
            reported: (0, 0),
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                // A receiver that is gone belongs to a batch that a rewind has dropped; a reset follows.
                Command::Work(work, answer) => {
                    let _ = answer.send(self.work(work).await);
                }
                Command::Reset(answer) => {
                    self.cache.clear();
                    let _ = answer.send(());
                }
            }
            self.report();
        }
        self.cache.clear();
        self.report();
    }

    async fn work(&mut self, work: LaneWork) -> Result<Slice, LaneError> {
        let (records, standing) = split(work);
        let mut decoded = Vec::with_capacity(records.len());
        for record in records {
            decoded.push(
                self.decoder.decode(record, standing.ownership.partition_count, &standing.epoch).await?,
            );
        }
        let corrupt = self.load(&decoded, &standing).await?;
        let mut slice = Slice::default();
        // Users in order of their ids, so that cells are written sorted by key.
        let mut changed: BTreeMap<String, i32> = BTreeMap::new();
        for record in decoded {
            let state = match &record.user_id {
                Some(user_id) if corrupt.contains_key(user_id) => None,
                Some(user_id) => self.cache.touch(user_id, standing.batch),
                None => None,
            };
            // Only behind another record of the user in this batch: a batch of one record each always gets through.
            let is_behind = record.user_id.as_ref().is_some_and(|user_id| changed.contains_key(user_id));
            if is_behind && state.as_ref().is_some_and(|state| self.applier.is_full(state)) {
                return Err(LaneError::OutboxFull);
            }
            let partition = record.record.partition;
            let (user_id, has_changed) = match state {
                Some(state) => self.applier.apply(state, record, &standing, &mut slice),
                None => (self.applier.reject(record, &corrupt, &standing, &mut slice), false),
            };
            if let (true, Some(user_id)) = (has_changed, user_id) {
                changed.insert(user_id, partition);
            }
        }
        self.encode(changed, &standing, &mut slice);
        self.cache.evict(standing.committed_batch);
        Ok(slice)
    }

    /// Loads every state that the slice needs and the cache lacks, in one go. Cells that do not decode are returned.
    async fn load(
        &mut self,
        decoded: &[Decoded],
        standing: &Standing,
    ) -> Result<BTreeMap<String, String>, LaneError> {
        let mut missing: BTreeMap<&str, i32> = BTreeMap::new();
        for record in decoded {
            // A verdict that is not recorded needs no state.
            let needs_state = record.content.as_ref().map_or_else(|verdict| verdict.recorded(), |_| true);
            if let (true, Some(user_id)) = (needs_state, &record.user_id)
                && !self.cache.contains(user_id)
            {
                missing.insert(user_id, record.record.partition);
            }
        }
        let mut corrupt = BTreeMap::new();
        if missing.is_empty() {
            return Ok(corrupt);
        }
        let users: Vec<&str> = missing.keys().copied().collect();
        let cells = self.load_cells(&users, &standing.epoch).await?;
        self.metrics.state_loads(u64::try_from(users.len()).unwrap_or(u64::MAX));
        for ((user_id, partition), cell) in missing.into_iter().zip(cells) {
            let state = match cell.map(|bytes| codec::decode(&bytes)) {
                None => UserState::new(),
                Some(Ok(mut state)) => {
                    let committed = standing.committed_offsets.get(&partition).copied().unwrap_or(0);
                    if let Some(at) = standing.ownership.position(partition, committed) {
                        state.outbox_mut().drop_behind(partition, at.incarnation, committed);
                    }
                    state
                }
                // Nothing is wrong with the cell: a release that reads it must run.
                Some(Err(error @ CodecError::Version { .. })) => {
                    return Err(LaneError::Stopped(StoreError::Refused(error.to_string())));
                }
                Some(Err(error)) => {
                    corrupt.insert(user_id.to_owned(), error.to_string());
                    continue;
                }
            };
            self.cache.insert(user_id.to_owned(), state, standing.batch);
        }
        Ok(corrupt)
    }

    async fn load_cells(
        &self,
        users: &[&str],
        epoch: &CancellationToken,
    ) -> Result<Vec<Option<bytes::Bytes>>, LaneError> {
        let mut backoff = Backoff::default();
        loop {
            let trouble = tokio::select! {
                biased;
                () = epoch.cancelled() => return Err(LaneError::Abandoned),
                answer = self.store.load(users) => match answer {
                    Ok(cells) => return Ok(cells),
                    Err(error) => Infrastructure::Store(error),
                },
            };
            match (policy(&Failure::Infrastructure(&trouble)), trouble) {
                (Reaction::Stop, Infrastructure::Store(error)) => return Err(LaneError::Stopped(error)),
                (_, trouble) => {
                    self.metrics.store_retry(StoreOperation::Load);
                    backoff.wait(epoch, &trouble).await?;
                }
            }
        }
    }

    /// Encodes each changed state once, whatever the number of its events in the slice.
    fn encode(&mut self, changed: BTreeMap<String, i32>, standing: &Standing, slice: &mut Slice) {
        slice.cells.reserve(changed.len());
        for (user_id, partition) in changed {
            let Some(timestamp_us) = standing.ownership.timestamp_us(partition, standing.batch) else {
                continue;
            };
            let Some(state) = self.cache.touch(&user_id, standing.batch) else { continue };
            let mut bytes = Vec::new();
            codec::encode(state, &mut bytes);
            self.cache.resize(&user_id);
            slice.cells.push(Cell { user_id, bytes: bytes.into(), timestamp_us });
        }
    }

    /// Tells the gauges what has changed since the last time.
    fn report(&mut self) {
        let now = (
            i64::try_from(self.cache.users()).unwrap_or(i64::MAX),
            i64::try_from(self.cache.bytes()).unwrap_or(i64::MAX),
        );
        self.metrics.add_cache(now.0 - self.reported.0, now.1 - self.reported.1);
        self.reported = now;
    }
}

fn split(work: LaneWork) -> (Vec<Record>, Standing) {
    let standing = Standing {
        batch: work.batch,
        epoch: work.epoch,
        campaigns: work.campaigns,
        now_ms: work.now_ms,
        committed_batch: work.committed_batch,
        committed_offsets: work.committed_offsets,
        ownership: work.ownership,
    };
    (work.records, standing)
}

/// The verdict on a record whose user's cell does not decode.
pub fn corrupt_cell(error: &str) -> super::decoded::Verdict {
    super::decoded::Verdict::new(BadRecord::StateCorrupt, format!("the user's cell does not decode: {error}"))
}
