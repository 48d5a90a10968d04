//! A lane: a sequential worker that decodes, loads what it lacks, and decides its users' events in order.
//!
//! A user always maps to the same lane of a process, so a state has one reader and one writer here. A lane publishes
//! nothing and writes nothing: it answers with cells and output records.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::xxh3_64;

use super::apply::{Applier, Standing};
use super::breaker::{GuardedSchemas, GuardedStore};
use super::cache::StateCache;
use super::decided::{LaneWaiting, Slice};
use super::decoded::{Abandoned, Decoded, Decoder, Verdict};
use super::failure::{BadRecord, Failure, Reaction, policy};
use super::log::{Input, Record};
use super::outputs::{self, Why};
use super::parking::{Origin, Pending, Waiting};
use super::settings::Settings;
use super::turn::{Parking, Turn, Unreadable, turn};
use crate::mutant::{Mutant, is};
use crate::schema::{OutputCodec, SchemaSource};
use crate::store::{Cell, StateStore, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::user::UserState;
use crate::user::codec::{self, CodecError};

/// A slice of a batch.
#[derive(Debug)]
pub struct LaneWork {
    /// The lane's records, in offset order within a partition of a topic.
    pub records: Vec<Record>,
    /// What holds for all of them.
    pub standing: Standing,
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
    Rebuild(Vec<Waiting>, oneshot::Sender<LaneWaiting>),
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
    pub fn start(parts: &LaneParts, store: &GuardedStore, schemas: &GuardedSchemas) -> Lanes {
        let count = parts.settings.lanes.max(1);
        let cache_bytes = parts.settings.cache_max_bytes / count;
        let lanes = (0..count)
            .map(|_| {
                // One slice at work, one reset behind it.
                let (sender, commands) = mpsc::channel(2);
                tokio::spawn(Lane::new(parts, store, schemas, cache_bytes).run(commands));
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

    /// Tells each lane what waits of its users, after a reset (rule O2). Answers what each lane has then.
    pub async fn rebuild(&self, waiting: Vec<Waiting>) -> Result<BTreeMap<usize, LaneWaiting>, LaneError> {
        let waiting = if is(Mutant::O2Index) { Vec::new() } else { waiting };
        let mut shares: Vec<Vec<Waiting>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for one in waiting {
            if let Some(share) = shares.get_mut(lane_of(Some(one.user_id.as_bytes()), self.lanes.len())) {
                share.push(one);
            }
        }
        let mut answers = BTreeMap::new();
        for (index, (lane, share)) in self.lanes.iter().zip(shares).enumerate() {
            let (answer, answered) = oneshot::channel();
            lane.send(Command::Rebuild(share, answer)).await.map_err(|_| LaneError::Gone)?;
            answers.insert(index, answered.await.map_err(|_| LaneError::Gone)?);
        }
        Ok(answers)
    }

    /// Empties every cache and index once the lanes are done with what they hold. The epoch must have been cancelled.
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
    store: GuardedStore,
    decoder: Decoder,
    applier: Applier,
    settings: Arc<Settings>,
    cache: StateCache,
    pending: Pending,
    metrics: Metrics,
    reported: (i64, i64),
}

impl Lane {
    fn new(parts: &LaneParts, store: &GuardedStore, schemas: &GuardedSchemas, cache_bytes: usize) -> Lane {
        Lane {
            store: store.clone(),
            decoder: Decoder::new(schemas.clone(), Arc::clone(&parts.settings)),
            applier: Applier::new(parts.codec, Arc::clone(&parts.settings)),
            settings: Arc::clone(&parts.settings),
            cache: StateCache::new(cache_bytes),
            pending: Pending::default(),
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
                    if !is(Mutant::W1Cache) {
                        self.cache.clear();
                    }
                    if !is(Mutant::W1Index) {
                        self.pending.clear();
                    }
                    let _ = answer.send(());
                }
                Command::Rebuild(waiting, answer) => {
                    for Waiting { user_id, position, due_ms } in waiting {
                        self.pending.insert(&user_id, position, due_ms);
                    }
                    let _ = answer.send(self.waiting());
                }
            }
            self.report();
        }
        self.cache.clear();
        self.report();
    }

    async fn work(&mut self, work: LaneWork) -> Result<Slice, LaneError> {
        let LaneWork { records, standing } = work;
        let mut decoded = Vec::with_capacity(records.len());
        for record in records {
            decoded.push(self.decoder.decode(record, &standing).await?);
        }
        // A user's records in their original order, whichever topics they come from (rule P4).
        decoded.sort_by_key(|record| record.position().filter(|_| !is(Mutant::P4Order)));
        let mut slice = Slice::default();
        let unreadable = self.load(&decoded, &standing, &mut slice).await?;
        // Users in order of their ids, so that cells are written sorted by key.
        let mut changed: BTreeMap<String, i32> = BTreeMap::new();
        for record in decoded {
            match turn(&record, &self.pending, &unreadable, &standing, &self.settings.retry) {
                Turn::DeadLetter(verdict) => self.reject(&record, &verdict, &standing, &mut slice),
                Turn::Skip => {
                    if let (true, Some(user_id), Some(position)) =
                        (is(Mutant::K3), &record.user_id, record.position())
                    {
                        self.pending.remove(user_id, position);
                    }
                    slice.tally.skipped += 1;
                    slice.tally.ignored += 1;
                    slice.tally.timestamps_ms.extend(record.record.timestamp_ms);
                }
                Turn::Blocked(due_ms) => self.forward(record, due_ms, &standing, &mut slice),
                Turn::Park(parking) => self.park(record, parking, &standing, &mut slice),
                Turn::Apply => self.apply(record, &standing, &mut changed, &mut slice)?,
            }
        }
        self.encode(changed, &standing, &mut slice);
        self.cache.evict(if is(Mutant::S7) { u64::MAX } else { standing.committed_batch });
        slice.waiting = self.waiting();
        Ok(slice)
    }

    /// Handles a record with its user's state.
    fn apply(
        &mut self,
        decoded: Decoded,
        standing: &Standing,
        changed: &mut BTreeMap<String, i32>,
        slice: &mut Slice,
    ) -> Result<(), LaneError> {
        let Some(user_id) = decoded.user_id.clone() else { return Ok(()) };
        let Some(state) = self.cache.touch(&user_id, standing.batch) else {
            // What blocked it has gone with this very batch, too late to load the state: the next turn has it.
            self.forward(decoded, standing.now_ms, standing, slice);
            return Ok(());
        };
        // Only behind another record of the user in this batch: a batch of one record each always gets through.
        if changed.contains_key(&user_id) && self.applier.is_full(state) {
            return Err(LaneError::OutboxFull);
        }
        let (partition, is_retry, position) =
            (decoded.record.partition, decoded.is_retry(), decoded.position());
        if self.applier.apply(state, &decoded, standing, slice) {
            changed.insert(user_id.clone(), partition);
        }
        if let (true, Some(position)) = (is_retry, position) {
            self.pending.remove(&user_id, position);
            slice.tally.unparked += 1;
        }
        Ok(())
    }

    /// A dead letter that no cell records.
    fn reject(&mut self, decoded: &Decoded, verdict: &Verdict, standing: &Standing, slice: &mut Slice) {
        slice.tally.timestamps_ms.extend(decoded.timestamp_ms());
        self.applier.publish_dead_letter(decoded, verdict.bad.code(), &verdict.text, standing, slice);
        // The key as it stands: what is rejected has no user any more, but the index may have known one.
        let key = decoded.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        if let (true, Some(user_id), Some(position)) = (decoded.is_retry(), key, decoded.position()) {
            self.pending.remove(user_id, position);
            slice.tally.unparked += 1;
        }
    }

    /// Puts a record behind the one of its user that is due at `blocker_ms`; it uses up no attempt (rule P3).
    fn forward(&mut self, decoded: Decoded, blocker_ms: i64, standing: &Standing, slice: &mut Slice) {
        let tier = standing.tiers.of_blocked(blocker_ms.saturating_sub(standing.now_ms));
        slice.tally.blocked += 1;
        let Some(mut origin) = decoded.origin.clone() else { return };
        origin.attempt += u32::from(is(Mutant::P3));
        let text = "an earlier record of the user waits";
        let due_ms = standing.tiers.due_behind_ms(tier, standing.now_ms, blocker_ms);
        self.send_to_tier(&decoded, &origin, (tier, due_ms), text, standing, slice);
    }

    /// Parks a record that failed, and with it its user.
    fn park(&mut self, decoded: Decoded, parking: Parking, standing: &Standing, slice: &mut Slice) {
        let Some(origin) = &decoded.origin else { return };
        let Parking { code, text, tier, attempt, failures } = parking;
        *slice.tally.parked.entry(code).or_default() += 1;
        if code == BadRecord::StateCorrupt.code() {
            tracing::error!(position = %origin.position, "{text}");
        }
        let origin = Origin { attempt, failures, code: Some(code.to_owned()), ..origin.clone() };
        let due_ms = standing.tiers.due_ms(tier, standing.now_ms);
        self.send_to_tier(&decoded, &origin, (tier, due_ms), &text, standing, slice);
    }

    fn send_to_tier(
        &mut self,
        decoded: &Decoded,
        origin: &Origin,
        (tier, due_ms): (u8, i64),
        text: &str,
        standing: &Standing,
        slice: &mut Slice,
    ) {
        let Some(user_id) = &decoded.user_id else { return };
        if !is(Mutant::P1) {
            self.pending.insert(user_id, origin.position, due_ms);
        }
        let why =
            Why { code: origin.code.as_deref(), text, campaigns_position: standing.campaigns.position() };
        let record = outputs::retry(&decoded.record, origin, tier, due_ms, &self.settings, why);
        slice.outputs.push(record);
    }

    /// What waits now, for the processor to hold partitions back (rule P8).
    fn waiting(&self) -> LaneWaiting {
        LaneWaiting {
            counts: self.pending.counts().clone(),
            overfull: self.pending.overfull(self.settings.retry.max_pending_per_user),
        }
    }

    /// Loads every state that the slice needs and the cache lacks, in one go. Answers whose could not be had.
    async fn load(
        &mut self,
        decoded: &[Decoded],
        standing: &Standing,
        slice: &mut Slice,
    ) -> Result<BTreeMap<String, Unreadable>, LaneError> {
        let (mut missing, mut unreadable) = (BTreeMap::<&str, i32>::new(), BTreeMap::new());
        for record in decoded {
            let Some(user_id) = &record.user_id else { continue };
            let is_needed =
                turn(record, &self.pending, &unreadable, standing, &self.settings.retry) == Turn::Apply;
            if is_needed && !self.cache.contains(user_id) {
                missing.insert(user_id, record.record.partition);
            }
        }
        if missing.is_empty() {
            return Ok(unreadable);
        }
        let users: Vec<&str> = missing.keys().copied().collect();
        let cells = self.store.load(&users, &standing.epoch).await?;
        self.metrics.state_loads(u64::try_from(users.len()).unwrap_or(u64::MAX));
        for ((user_id, partition), cell) in missing.into_iter().zip(cells) {
            let state = match cell.map(|cell| cell.map(|bytes| codec::decode(&bytes))) {
                Ok(None) => UserState::new(),
                Ok(Some(Ok(mut state))) => {
                    slice.tally.outdated += self.prune(user_id, partition, &mut state, standing);
                    state
                }
                // Nothing is wrong with the cell: a release that reads it must run.
                Ok(Some(Err(error @ CodecError::Version { .. }))) => {
                    return Err(LaneError::Stopped(StoreError::Refused(error.to_string())));
                }
                Ok(Some(Err(error))) => {
                    unreadable.insert(user_id.to_owned(), Unreadable::Corrupt(error));
                    continue;
                }
                Err(error) if policy(&Failure::UnreadableState(&error)) == Reaction::Stop => {
                    return Err(LaneError::Stopped(error));
                }
                Err(error) => {
                    unreadable.insert(user_id.to_owned(), Unreadable::Unavailable(error));
                    continue;
                }
            };
            self.cache.insert(user_id.to_owned(), state, standing.batch);
        }
        self.begin_anew_where_erased(decoded, &unreadable, standing.batch);
        Ok(unreadable)
    }

    /// Drops the outbox entries of a state just loaded that have been published (rule S5b). Answers how many belonged to an
    /// older incarnation of the topic.
    fn prune(&self, user_id: &str, partition: i32, state: &mut UserState, standing: &Standing) -> u64 {
        let committed = standing.committed_offsets.get(&Input::events(partition)).copied().unwrap_or(0);
        let Some(at) = standing.ownership.position(partition, committed) else { return 0 };
        let is_pending = |position| self.pending.contains(user_id, position) && !is(Mutant::S5Forwarded);
        let older = state.outbox_mut().drop_behind(partition, at.incarnation, committed, is_pending);
        u64::try_from(older).unwrap_or(u64::MAX)
    }

    /// A user whose cell does not decode and who is erased in this slice begins with an empty state (rule P9).
    fn begin_anew_where_erased(
        &mut self,
        decoded: &[Decoded],
        unreadable: &BTreeMap<String, Unreadable>,
        batch: u64,
    ) {
        for record in decoded.iter().filter(|record| record.is_erasure()) {
            if let Some(user_id) = &record.user_id
                && matches!(unreadable.get(user_id), Some(Unreadable::Corrupt(_)))
            {
                self.cache.insert(user_id.clone(), UserState::new(), batch);
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

/// The lane of a key's user; records without a key go to the first.
pub fn lane_of(key: Option<&[u8]>, lanes: usize) -> usize {
    let hash = key.map_or(0, xxh3_64);
    usize::try_from(hash % u64::try_from(lanes.max(1)).unwrap_or(1)).unwrap_or(0)
}
