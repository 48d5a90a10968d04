//! A log, a store and a clock in memory: enough of a broker to lose a process and start another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::campaign::set::CampaignSet;
use crate::pipeline::campaigns::CampaignSource;
use crate::pipeline::clock::Clock;
use crate::pipeline::log::{
    CommitError, EventLog, EventOutput, Fetched, GroupToken, Input, InputTopic, LogError, LogIdentity,
    OutputRecord, OutputTopic, PartitionStand, Record, Signal, StandReader, Start, Transaction, Want,
};
use crate::pipeline::parking;
use crate::schema::{EVENT_SCHEMA, InMemorySchemas, SchemaError, SchemaSource, WriterSchema};
use crate::store::{Cell, FenceRow, StateStore, StoreError};

/// What a commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFate {
    /// Commits and says so.
    Commits,
    /// Fails; nothing is committed.
    Fails,
    /// Commits, but the answer is lost.
    CommitsUnknown,
    /// Never answers and never commits.
    Hangs,
}

impl Broker {
    /// The log of an input partition.
    pub fn log(&self, input: Input) -> &[Record] {
        match input.topic {
            InputTopic::Events => self.events.get(&input.partition).map_or(&[], Vec::as_slice),
            InputTopic::Retry(_) => self.retries.get(&input).map_or(&[], Vec::as_slice),
        }
    }

    fn end(&self, input: Input) -> i64 {
        i64::try_from(self.log(input).len()).unwrap()
    }

    /// Everything that was produced, in order; what goes to a retry topic can be read there.
    fn publish(&mut self, records: Vec<OutputRecord>) {
        for record in records {
            if let OutputTopic::Retry(tier) = record.topic {
                let input = Input::retry(tier, record.partition);
                let offset = self.end(input);
                self.retries.entry(input).or_default().push(Record {
                    topic: input.topic,
                    partition: record.partition,
                    offset,
                    timestamp_ms: Some(0),
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                });
            }
            self.published.push(record);
        }
    }
}

#[derive(Default)]
pub struct Broker {
    pub events: BTreeMap<i32, Vec<Record>>,
    /// Retry topics by tier; each has the partitions of `events`.
    pub retries: BTreeMap<Input, Vec<Record>>,
    pub tiers: u8,
    pub committed: BTreeMap<Input, i64>,
    /// Consumed prefixes that were deleted.
    pub deleted: BTreeMap<Input, i64>,
    /// What members were told to hold back.
    pub held: BTreeSet<i32>,
    pub published: Vec<OutputRecord>,
    pub fates: VecDeque<CommitFate>,
    pub generation: u64,
    pub batches: Vec<usize>,
    pub settled: u64,
    pub rejoined: u64,
    /// Commits of offsets without a record.
    pub empty_commits: u64,
    /// Another cluster than the one the states were made on.
    pub other_cluster: bool,
}

/// The broker that outlives processes.
#[derive(Clone, Default)]
pub struct FakeBroker {
    state: Arc<Mutex<Broker>>,
    changed: Arc<Notify>,
}

impl FakeBroker {
    pub fn lock(&self) -> MutexGuard<'_, Broker> {
        self.state.lock().unwrap()
    }

    pub fn append(&self, partition: i32, key: &[u8], value: Vec<u8>) -> i64 {
        let mut broker = self.lock();
        let log = broker.events.entry(partition).or_default();
        let offset = i64::try_from(log.len()).unwrap();
        log.push(Record {
            topic: InputTopic::Events,
            partition,
            offset,
            timestamp_ms: Some(0),
            key: Some(Bytes::copy_from_slice(key)),
            value: Some(Bytes::from(value)),
            headers: Vec::new(),
        });
        drop(broker);
        self.changed.notify_waiters();
        offset
    }

    /// Puts a record on a retry topic that no pipeline has written.
    pub fn append_retry(&self, input: Input, key: &[u8], value: &[u8]) {
        let mut broker = self.lock();
        let record = Record {
            topic: input.topic,
            partition: input.partition,
            offset: broker.end(input),
            timestamp_ms: Some(0),
            key: Some(Bytes::copy_from_slice(key)),
            value: Some(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
        };
        broker.retries.entry(input).or_default().push(record);
    }

    /// A new member that owns everything; older generations are fenced.
    pub fn join(&self, batch_records: usize, clock: FakeClock) -> (FakeLog, Arc<FakeOutput>) {
        let mut broker = self.lock();
        broker.generation += 1;
        let generation = broker.generation;
        let partitions = broker.events.keys().copied().collect();
        let tiers = broker.tiers;
        drop(broker);
        let log = FakeLog {
            broker: self.clone(),
            generation,
            batch_records,
            clock,
            held: BTreeSet::new(),
            signals: VecDeque::from([Signal::Assigned { partitions, tiers }]),
            reading: None,
            per_user: None,
        };
        (log, Arc::new(FakeOutput { broker: self.clone(), generation }))
    }

    /// Waits until `predicate` holds; virtual time runs meanwhile.
    pub async fn until(&self, predicate: impl Fn(&Broker) -> bool) {
        for _ in 0..100_000 {
            if predicate(&self.lock()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let broker = self.lock();
        let topics: Vec<_> = broker.published.iter().map(|record| record.topic).collect();
        panic!(
            "the broker never came to the expected state: committed {:?}, published {topics:?}",
            broker.committed
        );
    }

    pub async fn until_all_committed(&self) {
        self.until(|broker| {
            let events = broker.events.keys().map(|partition| Input::events(*partition));
            let mut inputs = events.chain(broker.retries.keys().copied());
            inputs.all(|input| broker.committed.get(&input).copied().unwrap_or(0) == broker.end(input))
        })
        .await;
    }
}

pub struct FakeLog {
    broker: FakeBroker,
    generation: u64,
    batch_records: usize,
    clock: FakeClock,
    held: BTreeSet<i32>,
    signals: VecDeque<Signal>,
    reading: Option<(u64, BTreeMap<Input, i64>)>,
    per_user: Option<usize>,
}

impl FakeLog {
    /// The partitions are taken away behind what has been signalled so far.
    pub fn revoke(&mut self) -> oneshot::Receiver<()> {
        let (done, waiting) = oneshot::channel();
        self.signals.push_back(Signal::Revoked { lost: false, done });
        waiting
    }

    /// The assignment that waits knows of no retry topic yet.
    pub fn forget_tiers(&mut self) {
        for signal in &mut self.signals {
            if let Signal::Assigned { tiers, .. } = signal {
                *tiers = 0;
            }
        }
    }

    fn batch(&mut self) -> Option<Fetched> {
        let (epoch, offsets) = self.reading.as_mut()?;
        let mut broker = self.broker.lock();
        let mut records = Vec::new();
        let now_ms = self.clock.now_ms();
        for (input, next) in offsets.iter_mut() {
            if input.topic == InputTopic::Events && self.held.contains(&input.partition) {
                continue;
            }
            let log = broker.log(*input);
            let from = usize::try_from(*next).unwrap();
            let records_at_most = self.batch_records.min(self.per_user.unwrap_or(usize::MAX));
            let is_due = |record: &&Record| parking::due(record).is_none_or(|due_ms| due_ms <= now_ms);
            let ready = log[from..].iter().take(records_at_most).take_while(is_due);
            let before = records.len();
            records.extend(ready.cloned());
            *next += i64::try_from(records.len() - before).unwrap();
        }
        if records.is_empty() {
            return None;
        }
        broker.batches.push(records.len());
        let mut next_offsets = BTreeMap::new();
        for record in &records {
            next_offsets.insert(record.input(), record.offset + 1);
        }
        Some(Fetched {
            epoch: *epoch,
            records,
            next_offsets,
            group: GroupToken(Arc::new(self.generation)),
            full: false,
        })
    }
}

#[async_trait]
impl EventLog for FakeLog {
    async fn next(&mut self, want: Want) -> Signal {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return signal;
            }
            let changed = Arc::clone(&self.broker.changed);
            let notified = changed.notified();
            if want != Want::Nothing
                && let Some(batch) = self.batch()
            {
                return Signal::Batch(batch);
            }
            // Virtual time passes, so that what is due is seen though nothing is appended.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(5), notified).await;
        }
    }

    fn stands(&self) -> Arc<dyn StandReader> {
        Arc::new(FakeStands(self.broker.clone()))
    }

    fn start(&mut self, start: Start) {
        self.per_user = start.max_records_per_user.into_iter().chain(start.max_records).min();
        self.held.clear();
        self.reading = Some((start.epoch, start.next_offsets));
    }

    fn halt(&mut self) {
        self.reading = None;
    }

    fn hold(&mut self, partitions: BTreeSet<i32>) {
        self.broker.lock().held.clone_from(&partitions);
        self.held = partitions;
    }

    /// The group gives everything again, the new retry topics included.
    fn rejoin(&mut self) {
        let mut broker = self.broker.lock();
        broker.rejoined += 1;
        let partitions = broker.events.keys().copied().collect();
        self.signals.push_back(Signal::Assigned { partitions, tiers: broker.tiers });
    }

    fn group(&self) -> Result<GroupToken, LogError> {
        Ok(GroupToken(Arc::new(self.generation)))
    }

    async fn close(&mut self) {}
}

struct FakeStands(FakeBroker);

#[async_trait]
impl StandReader for FakeStands {
    async fn stands(&self, inputs: &[Input]) -> Result<BTreeMap<Input, PartitionStand>, LogError> {
        let broker = self.0.lock();
        let stand = |input: &Input| PartitionStand {
            committed: broker.committed.get(input).copied(),
            start: broker.deleted.get(input).copied().unwrap_or(0),
            end: broker.end(*input),
        };
        Ok(inputs.iter().map(|input| (*input, stand(input))).collect())
    }

    async fn waiting(&self, from: &BTreeMap<Input, i64>) -> Result<Vec<Record>, LogError> {
        let broker = self.0.lock();
        let mut waiting = Vec::new();
        for (input, offset) in from {
            let log = &broker.log(*input)[usize::try_from(*offset).unwrap()..];
            waiting.extend(log.iter().map(|record| Record { value: None, ..record.clone() }));
        }
        Ok(waiting)
    }

    async fn delete_consumed(&self, below: &BTreeMap<Input, i64>) -> Result<(), LogError> {
        self.0.lock().deleted.extend(below);
        Ok(())
    }

    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let broker = self.0.lock();
        let (count, tiers) = (i32::try_from(broker.events.len()).unwrap(), broker.tiers);
        let cluster_id = if broker.other_cluster { "other" } else { "fake" };
        Ok(LogIdentity { cluster_id: cluster_id.into(), partition_count: count, tiers })
    }
}

pub struct FakeOutput {
    broker: FakeBroker,
    generation: u64,
}

#[async_trait]
impl EventOutput for FakeOutput {
    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError> {
        // An await as on a thread's answer, so that other work runs in between.
        tokio::task::yield_now().await;
        let is_stale = {
            let broker = self.broker.lock();
            let token = transaction.group.0.downcast_ref::<u64>().copied();
            broker.generation != self.generation || token != Some(broker.generation)
        };
        if is_stale {
            return Err(CommitError::Fenced("stale generation".into()));
        }
        // The commit of offsets at an assignment holds no records and always gets through.
        let fate = if transaction.records.is_empty() {
            self.broker.lock().empty_commits += 1;
            CommitFate::Commits
        } else {
            self.broker.lock().fates.pop_front().unwrap_or(CommitFate::Commits)
        };
        if fate == CommitFate::Hangs {
            std::future::pending::<()>().await;
        }
        if fate == CommitFate::Fails {
            return Err(CommitError::Failed("told to".into()));
        }
        let mut broker = self.broker.lock();
        broker.publish(transaction.records);
        broker.committed.extend(transaction.next_offsets);
        match fate {
            CommitFate::CommitsUnknown => Err(CommitError::Unknown("told to".into())),
            _ => Ok(()),
        }
    }

    async fn settle(&self) -> Result<(), LogError> {
        self.broker.lock().settled += 1;
        Ok(())
    }
}

/// Cells with timestamps, fences, and failures on demand.
#[derive(Default)]
pub struct Tables {
    pub cells: BTreeMap<String, (i64, Bytes)>,
    pub fences: BTreeMap<i32, FenceRow>,
    pub failing_writes: u32,
    pub failing_loads: u32,
    /// Nothing is answered. Writes are applied nevertheless.
    pub away: bool,
    /// Users whose cells cannot be read.
    pub unreadable: BTreeSet<String>,
    pub writes: Vec<Vec<Cell>>,
    /// The store's wall clock, when it is another than ours.
    pub clock_ms: Option<i64>,
}

impl Tables {
    fn answer<T>(&self, value: T) -> Result<T, StoreError> {
        if self.away { Err(StoreError::Unavailable("told to".into())) } else { Ok(value) }
    }
}

#[derive(Clone, Default)]
pub struct FakeStore(Arc<Mutex<Tables>>);

impl FakeStore {
    pub fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl StateStore for FakeStore {
    async fn load(&self, user_ids: &[&str]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let mut tables = self.lock();
        let is_away = tables.away || tables.failing_loads > 0;
        tables.failing_loads = tables.failing_loads.saturating_sub(1);
        let load = |user: &&str| {
            if is_away || tables.unreadable.contains(*user) {
                return Err(StoreError::Unavailable("told to".into()));
            }
            Ok(tables.cells.get(*user).map(|(_, bytes)| bytes.clone()))
        };
        user_ids.iter().map(load).collect()
    }

    async fn clock_ms(&self) -> Result<Option<i64>, StoreError> {
        let tables = self.lock();
        tables.answer(tables.clock_ms)
    }

    async fn write(&self, cells: &[Cell]) -> Result<(), StoreError> {
        let mut tables = self.lock();
        tables.writes.push(cells.to_vec());
        // A failed write may have been applied: this one has.
        for cell in cells {
            let older = tables.cells.get(&cell.user_id).is_none_or(|(at, _)| *at <= cell.timestamp_us);
            if older {
                tables.cells.insert(cell.user_id.clone(), (cell.timestamp_us, cell.bytes.clone()));
            }
        }
        if tables.failing_writes > 0 {
            tables.failing_writes -= 1;
            return Err(StoreError::Unavailable("told to".into()));
        }
        tables.answer(())
    }

    async fn read_fence(&self, _topic: &str, partition: i32) -> Result<Option<FenceRow>, StoreError> {
        let tables = self.lock();
        tables.answer(tables.fences.get(&partition).cloned())
    }

    async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
    ) -> Result<(), StoreError> {
        let mut tables = self.lock();
        let standing = tables.fences.get(&partition).map(|row| (row.fence_us, row.token));
        if standing != expected.map(|row| (row.fence_us, row.token)) {
            return Err(StoreError::Fenced { topic: topic.to_owned(), partition });
        }
        tables.fences.insert(partition, next.clone());
        tables.answer(())
    }
}

/// A clock that is put somewhere and goes on from there with tokio's time.
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<(i64, Instant)>>);

impl Default for FakeClock {
    fn default() -> FakeClock {
        FakeClock(Arc::new(Mutex::new((0, Instant::now()))))
    }
}

impl FakeClock {
    pub fn set_ms(&self, now_ms: i64) {
        *self.0.lock().unwrap() = (now_ms, Instant::now());
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        let (at_ms, since) = *self.0.lock().unwrap();
        at_ms + i64::try_from(since.elapsed().as_millis()).unwrap()
    }
}

/// Campaigns that change when they are told to.
#[derive(Clone)]
pub struct FakeCampaigns(Arc<Mutex<Arc<CampaignSet>>>);

impl FakeCampaigns {
    pub fn new(set: CampaignSet) -> FakeCampaigns {
        FakeCampaigns(Arc::new(Mutex::new(Arc::new(set))))
    }

    pub fn set(&self, set: CampaignSet) {
        *self.0.lock().unwrap() = Arc::new(set);
    }
}

#[async_trait]
impl CampaignSource for FakeCampaigns {
    fn current(&self) -> Arc<CampaignSet> {
        Arc::clone(&self.0.lock().unwrap())
    }

    async fn caught_up(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// A registry that learns.
#[derive(Clone, Default)]
pub struct FakeSchemas(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    schemas: InMemorySchemas,
    away: bool,
    /// What has been asked for, and is at hand from then on.
    asked: BTreeSet<u32>,
}

impl FakeSchemas {
    /// From now on the id is known as the schema of events.
    pub fn register(&self, id: u32) {
        let mut shelf = self.0.lock().unwrap();
        shelf.schemas = shelf.schemas.clone().with(id, EVENT_SCHEMA).unwrap();
    }

    /// Whether the registry answers, from now on.
    pub fn set_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }
}

#[async_trait]
impl SchemaSource for FakeSchemas {
    async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        let mut shelf = self.0.lock().unwrap();
        if shelf.away {
            return Err(SchemaError::Unavailable { reason: "told to".into() });
        }
        shelf.asked.insert(id);
        shelf.schemas.cached(id).ok_or(SchemaError::Unknown { id })
    }

    fn cached(&self, id: u32) -> Option<Arc<WriterSchema>> {
        let shelf = self.0.lock().unwrap();
        shelf.asked.contains(&id).then(|| shelf.schemas.cached(id)).flatten()
    }
}
