//! A log, a store and a clock in memory: enough of a broker to lose a process and start another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::campaign::set::CampaignSet;
use crate::pipeline::campaigns::CampaignSource;
use crate::pipeline::clock::Clock;
use crate::pipeline::log::{
    CommitError, EventLog, EventOutput, Fetched, GroupToken, LogError, LogIdentity, OutputRecord,
    PartitionStand, Record, Signal, StandReader, Start, Transaction, Want,
};
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

#[derive(Default)]
pub struct Broker {
    pub events: BTreeMap<i32, Vec<Record>>,
    pub committed: BTreeMap<i32, i64>,
    pub published: Vec<OutputRecord>,
    pub fates: VecDeque<CommitFate>,
    pub generation: u64,
    pub batches: Vec<usize>,
    pub settled: u64,
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

    /// A new member that owns everything; older generations are fenced.
    pub fn join(&self, batch_records: usize) -> (FakeLog, Arc<FakeOutput>) {
        let mut broker = self.lock();
        broker.generation += 1;
        let generation = broker.generation;
        let partitions = broker.events.keys().copied().collect();
        drop(broker);
        let log = FakeLog {
            broker: self.clone(),
            generation,
            batch_records,
            signals: VecDeque::from([Signal::Assigned { partitions }]),
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
        panic!("the broker never came to the expected state");
    }

    pub async fn until_all_committed(&self) {
        self.until(|broker| {
            broker.events.iter().all(|(p, log)| {
                broker.committed.get(p).copied().unwrap_or(0) == i64::try_from(log.len()).unwrap()
            })
        })
        .await;
    }
}

pub struct FakeLog {
    broker: FakeBroker,
    generation: u64,
    batch_records: usize,
    signals: VecDeque<Signal>,
    reading: Option<(u64, BTreeMap<i32, i64>)>,
    per_user: Option<usize>,
}

impl FakeLog {
    /// The partitions are taken away behind what has been signalled so far.
    pub fn revoke(&mut self) -> oneshot::Receiver<()> {
        let (done, waiting) = oneshot::channel();
        self.signals.push_back(Signal::Revoked { lost: false, done });
        waiting
    }

    fn batch(&mut self) -> Option<Fetched> {
        let (epoch, offsets) = self.reading.as_mut()?;
        let mut broker = self.broker.lock();
        let mut records = Vec::new();
        for (partition, next) in offsets.iter_mut() {
            let log = broker.events.get(partition)?;
            let from = usize::try_from(*next).unwrap();
            let records_at_most = self.batch_records.min(self.per_user.unwrap_or(usize::MAX));
            let slice = &log[from..log.len().min(from + records_at_most)];
            records.extend_from_slice(slice);
            *next += i64::try_from(slice.len()).unwrap();
        }
        if records.is_empty() {
            return None;
        }
        broker.batches.push(records.len());
        let mut next_offsets = BTreeMap::new();
        for record in &records {
            next_offsets.insert(record.partition, record.offset + 1);
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
            notified.await;
        }
    }

    fn stands(&self) -> Arc<dyn StandReader> {
        Arc::new(FakeStands(self.broker.clone()))
    }

    fn start(&mut self, start: Start) {
        self.per_user = start.max_records_per_user;
        self.reading = Some((start.epoch, start.next_offsets));
    }

    fn halt(&mut self) {
        self.reading = None;
    }

    fn group(&self) -> Result<GroupToken, LogError> {
        Ok(GroupToken(Arc::new(self.generation)))
    }

    async fn close(&mut self) {}
}

struct FakeStands(FakeBroker);

#[async_trait]
impl StandReader for FakeStands {
    async fn stands(&self, partitions: &[i32]) -> Result<BTreeMap<i32, PartitionStand>, LogError> {
        let broker = self.0.lock();
        Ok(partitions
            .iter()
            .map(|p| {
                let end = broker.events.get(p).map_or(0, |log| i64::try_from(log.len()).unwrap());
                (*p, PartitionStand { committed: broker.committed.get(p).copied(), start: 0, end })
            })
            .collect())
    }

    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let count = i32::try_from(self.0.lock().events.len()).unwrap();
        Ok(LogIdentity { cluster_id: "fake".into(), partition_count: count })
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
        broker.published.extend(transaction.records);
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
    pub writes: Vec<Vec<Cell>>,
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
    async fn load(&self, user_ids: &[&str]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut tables = self.lock();
        if tables.failing_loads > 0 {
            tables.failing_loads -= 1;
            return Err(StoreError::Unavailable("told to".into()));
        }
        Ok(user_ids.iter().map(|user| tables.cells.get(*user).map(|(_, bytes)| bytes.clone())).collect())
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
        Ok(())
    }

    async fn read_fence(&self, _topic: &str, partition: i32) -> Result<Option<FenceRow>, StoreError> {
        Ok(self.lock().fences.get(&partition).cloned())
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
        Ok(())
    }
}

/// A clock that stands where it is put.
#[derive(Clone, Default)]
pub struct FakeClock(Arc<AtomicI64>);

impl FakeClock {
    pub fn set_ms(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Campaigns that never change.
pub struct FakeCampaigns(pub Arc<CampaignSet>);

#[async_trait]
impl CampaignSource for FakeCampaigns {
    fn current(&self) -> Arc<CampaignSet> {
        Arc::clone(&self.0)
    }

    async fn caught_up(&self) -> Result<(), LogError> {
        Ok(())
    }
}
