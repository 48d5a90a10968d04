//! The simulated log: partitions with control markers and a last stable offset, and the consumer side of the pipeline's trait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use campaignd::pipeline::clock::Clock;
use campaignd::pipeline::log::{
    EventLog, EventOutput, Fetched, GroupToken, Header, Input, InputTopic, LogError, LogIdentity,
    OutputTopic, PartitionStand, Record, Signal, StandReader, Start, Want,
};
use campaignd::pipeline::parking::due;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::faults::{Hop, Plan};
use crate::group::{self, Group, Membership};
use crate::instance::{Control, Fate, Side, Trip};
use crate::mutants::{Adapter, adapter};
use crate::transactions::{Coordinator, ProducerId, SimOutput};
use crate::witness::of_events;
use crate::world::{World, lock};

/// Cluster id of the world.
pub const CLUSTER: &str = "simulated";
/// How long a broker call for offsets is repeated before it is given up.
const STANDS_PATIENCE: Duration = Duration::from_secs(4);
/// How long the reader of what waits stands a transaction that does not end (rule O2).
const HANGING: Duration = Duration::from_secs(8);

/// A topic of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Events,
    Retry(u8),
    Decisions,
    Activity,
    DeadLetters,
}

impl From<OutputTopic> for Topic {
    fn from(topic: OutputTopic) -> Topic {
        match topic {
            OutputTopic::Decisions => Topic::Decisions,
            OutputTopic::Activity => Topic::Activity,
            OutputTopic::DeadLetters => Topic::DeadLetters,
            OutputTopic::Retry(tier) => Topic::Retry(tier),
        }
    }
}

impl From<InputTopic> for Topic {
    fn from(topic: InputTopic) -> Topic {
        match topic {
            InputTopic::Events => Topic::Events,
            InputTopic::Retry(tier) => Topic::Retry(tier),
        }
    }
}

/// A record as it lies in a partition.
#[derive(Clone, Debug)]
pub struct Data {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    pub timestamp_ms: i64,
}

impl Data {
    /// The one value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|h| h.name == name);
        let first = found.next()?;
        assert!(found.next().is_none(), "{name} is there twice");
        std::str::from_utf8(first.value.as_deref()?).ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Debug)]
struct Entry {
    /// `None` for a control marker, which takes an offset too.
    data: Option<Data>,
    producer: Option<ProducerId>,
    state: State,
}

/// One partition.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    entries: Vec<Entry>,
    /// First offset that was not deleted.
    pub start: i64,
    /// First offset of each open transaction.
    open: BTreeMap<ProducerId, i64>,
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).expect("offsets are not negative")
}

impl Partition {
    fn append(&mut self, data: Option<Data>, producer: Option<ProducerId>, state: State) -> i64 {
        let offset = self.end();
        self.entries.push(Entry { data, producer, state });
        offset
    }

    /// A record outside of transactions.
    pub fn append_plain(&mut self, data: Data) -> i64 {
        self.append(Some(data), None, State::Committed)
    }

    /// A record of an open transaction.
    pub fn append_open(&mut self, data: Data, producer: ProducerId) {
        let offset = self.append(Some(data), Some(producer), State::Open);
        self.open.entry(producer).or_insert(offset);
    }

    /// The marker of a transaction's end.
    pub fn end_transaction(&mut self, producer: ProducerId, commit: bool) {
        if let Some(first) = self.open.remove(&producer) {
            let state = if commit { State::Committed } else { State::Aborted };
            for entry in &mut self.entries[index(first)..] {
                if entry.producer == Some(producer) && entry.state == State::Open {
                    entry.state = state;
                }
            }
        }
        self.append(None, Some(producer), State::Committed);
    }

    /// The high watermark.
    pub fn end(&self) -> i64 {
        i64::try_from(self.entries.len()).expect("short")
    }

    /// The last stable offset.
    pub fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or_else(|| self.end())
    }

    /// What a read_committed reader sees from an offset on.
    pub fn committed_from(&self, offset: i64) -> impl Iterator<Item = (i64, &Data)> {
        let from = offset.max(self.start);
        let until = self.stable_end().max(from);
        (from..until).zip(&self.entries[index(from)..index(until)]).filter_map(|(offset, entry)| {
            let is_committed = entry.state == State::Committed;
            entry.data.as_ref().filter(|_| is_committed).map(|data| (offset, data))
        })
    }

    /// Whether a record is still to be read from this offset on.
    pub fn has_unread(&self, offset: i64) -> bool {
        !self.open.is_empty() || self.committed_from(offset).next().is_some()
    }

    /// Everything that was ever committed, deleted or not.
    pub fn all_committed(&self) -> impl Iterator<Item = (i64, &Data)> {
        (0..).zip(&self.entries).filter_map(|(offset, entry)| {
            let is_committed = entry.state == State::Committed;
            entry.data.as_ref().filter(|_| is_committed).map(|data| (offset, data))
        })
    }
}

/// Partitions, group and transactions.
pub struct Broker {
    pub partition_count: i32,
    /// Retry topics that exist.
    pub tiers: u8,
    partitions: BTreeMap<(Topic, i32), Partition>,
    pub group: Group,
    pub coordinator: Coordinator,
    /// Committed offsets of the group.
    pub committed: BTreeMap<Input, i64>,
    /// Every commit of offsets, with its time.
    commits: BTreeMap<Input, Vec<(i64, Duration)>>,
    /// Offsets inside transactions that have not ended.
    pub pending: BTreeMap<ProducerId, BTreeMap<Input, i64>>,
}

impl Broker {
    pub fn new(plan: &Plan) -> Broker {
        let tiers = u8::try_from(plan.tiers_ms.len()).expect("few tiers");
        let topics = [Topic::Events, Topic::Decisions, Topic::Activity, Topic::DeadLetters]
            .into_iter()
            .chain((1..=tiers).map(Topic::Retry));
        let partitions = topics
            .flat_map(|topic| (0..plan.partitions).map(move |p| ((topic, p), Partition::default())))
            .collect();
        Broker {
            partition_count: plan.partitions,
            tiers: u8::try_from(plan.tiers_at_first).expect("few tiers"),
            partitions,
            group: Group::default(),
            coordinator: Coordinator::default(),
            committed: BTreeMap::new(),
            commits: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    pub fn partition(&self, topic: Topic, partition: i32) -> &Partition {
        &self.partitions[&(topic, partition)]
    }

    pub fn partition_mut(&mut self, topic: Topic, partition: i32) -> &mut Partition {
        self.partitions.get_mut(&(topic, partition)).expect("a partition that exists")
    }

    pub fn partitions_of(&self, topic: Topic) -> impl Iterator<Item = (i32, &Partition)> {
        self.partitions.iter().filter(move |((t, _), _)| *t == topic).map(|((_, p), log)| (*p, log))
    }

    /// All inputs with the records that wait for the group.
    pub fn inputs(&self) -> Vec<Input> {
        let tiers = (1..=self.tiers).map(InputTopic::Retry);
        let topics = std::iter::once(InputTopic::Events).chain(tiers);
        topics
            .flat_map(|topic| (0..self.partition_count).map(move |partition| Input { topic, partition }))
            .collect()
    }

    pub fn of_input(&self, input: Input) -> &Partition {
        self.partition(input.topic.into(), input.partition)
    }

    /// A transaction with offsets has committed. Answers the inputs that went back.
    pub fn commit(&mut self, offsets: BTreeMap<Input, i64>, at: Duration) -> Vec<Input> {
        let mut back = Vec::new();
        for (input, next) in offsets {
            if self.committed.insert(input, next).is_some_and(|before| next < before) {
                back.push(input);
            }
            self.commits.entry(input).or_default().push((next, at));
        }
        back
    }

    /// When the record at an offset was committed as handled.
    pub fn consumed_at(&self, input: Input, offset: i64) -> Option<Duration> {
        let commits = self.commits.get(&input)?;
        commits.iter().find(|(next, _)| *next > offset).map(|(_, at)| *at)
    }

    /// Whether an offset of the input is inside a transaction that has not ended.
    fn is_unstable(&self, input: Input) -> bool {
        self.pending.values().any(|offsets| offsets.contains_key(&input))
    }

    fn stand(&self, input: Input) -> Option<PartitionStand> {
        let log = self.of_input(input);
        // A read_committed client is told the last stable offset as the end.
        let stand = PartitionStand {
            committed: self.committed.get(&input).copied(),
            start: log.start,
            end: log.stable_end(),
        };
        (!self.is_unstable(input) || adapter(Adapter::ReadsUnstableOffsets)).then_some(stand)
    }

    /// Whether the group has handled everything that stands on its inputs.
    pub fn is_drained(&self) -> bool {
        self.pending.is_empty()
            && self.inputs().into_iter().all(|input| {
                let next = self.committed.get(&input).copied().unwrap_or(0);
                !self.of_input(input).has_unread(next)
            })
    }
}

/// What the consumer's threads and the processor share.
pub struct Shared {
    pub signals: Mutex<VecDeque<Signal>>,
    pub arrived: Notify,
    /// Who we are in the group, as the client knows it; `None` while rejoining (rule O4).
    pub membership: Mutex<Option<Membership>>,
}

impl Shared {
    pub fn send(&self, signal: Signal) {
        lock(&self.signals).push_back(signal);
        self.arrived.notify_one();
    }

    fn token(&self) -> Option<GroupToken> {
        lock(&self.membership).clone().map(|membership| GroupToken(Arc::new(membership)))
    }
}

struct Reading {
    epoch: u64,
    next_offsets: BTreeMap<Input, i64>,
    max_records: usize,
    max_records_per_user: usize,
    held: BTreeSet<i32>,
    /// When what has arrived is handed out although more could come.
    ready_at: Option<Instant>,
}

/// The consumer side of one process.
pub struct SimLog {
    control: Arc<Control>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<group::Command>,
    reading: Option<Reading>,
}

/// Opens both sides of the log for a process.
pub fn open(control: &Arc<Control>) -> (SimLog, Arc<dyn EventOutput>) {
    let shared =
        Arc::new(Shared { signals: Mutex::default(), arrived: Notify::new(), membership: Mutex::default() });
    let (commands, received) = mpsc::channel(8);
    control.thread(group::member(Arc::clone(control), Arc::clone(&shared), received));
    let output = SimOutput::open(control);
    (SimLog { control: Arc::clone(control), shared, commands, reading: None }, output)
}

/// What gathering came to.
enum Gathered {
    Batch(Fetched),
    Stumbled(String),
    /// Nothing yet; a retry record is due then.
    Nothing(Option<Duration>),
}

impl SimLog {
    fn world(&self) -> &Arc<World> {
        &self.control.world
    }

    /// Takes what is there: a contiguous range per partition, the partitions in a random order.
    fn gather(&mut self, want: Want) -> Gathered {
        let world = Arc::clone(self.world());
        let Some(reading) = &mut self.reading else { return Gathered::Nothing(None) };
        // No metadata to commit with: the member is rejoining, its revocation is about to arrive.
        let Some(group) = self.shared.token() else { return Gathered::Nothing(None) };
        let broker = world.broker();
        let now_ms = self.control.now_ms();
        let mut inputs: Vec<Input> = reading.next_offsets.keys().copied().collect();
        let first = index(i64::try_from(world.draw(0..inputs.len().max(1) as u64)).expect("few"));
        inputs.rotate_left(first);
        let mut records: Vec<Record> = Vec::new();
        let mut next_offsets = BTreeMap::new();
        let mut per_user: BTreeMap<Option<Bytes>, usize> = BTreeMap::new();
        let mut next_due: Option<i64> = None;
        let mut full = false;
        'inputs: for input in inputs {
            let next = reading.next_offsets[&input];
            let log = broker.of_input(input);
            if next < log.start {
                return Gathered::Stumbled(format!("offset {next} of {input} is not in the log any more"));
            }
            if input.topic == InputTopic::Events && reading.held.contains(&input.partition) {
                continue;
            }
            for (offset, data) in log.committed_from(next) {
                if records.len() >= reading.max_records {
                    full = true;
                    break 'inputs;
                }
                let record = Record {
                    topic: input.topic,
                    partition: input.partition,
                    offset,
                    timestamp_ms: Some(data.timestamp_ms),
                    key: data.key.clone(),
                    value: data.value.clone(),
                    headers: data.headers.clone(),
                };
                if input.topic != InputTopic::Events
                    && let Some(due_ms) = due(&record)
                    && due_ms > now_ms
                {
                    next_due = Some(next_due.map_or(due_ms, |next| next.min(due_ms)));
                    break;
                }
                let of_user = per_user.entry(record.key.clone()).or_default();
                if *of_user >= reading.max_records_per_user {
                    full = true;
                    break 'inputs;
                }
                *of_user += 1;
                next_offsets.insert(input, offset + 1);
                records.push(record);
            }
        }
        drop(broker);
        let wait = next_due.map(|due_ms| Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0)));
        full |= records.len() >= reading.max_records;
        if records.is_empty() || (want == Want::Full && !full) {
            return Gathered::Nothing(wait);
        }
        let now = Instant::now();
        let ready_at = *reading.ready_at.get_or_insert_with(|| now + world.draw_ms(0..15));
        if !full && now < ready_at {
            let wait = wait.map_or(ready_at - now, |wait| wait.min(ready_at - now));
            return Gathered::Nothing(Some(wait));
        }
        reading.ready_at = None;
        let of_events = records.iter().filter_map(|record| of_events(record.input(), record.offset));
        lock(&self.control.witness).reads(&next_offsets, of_events.collect());
        reading.next_offsets.extend(next_offsets.iter().map(|(input, next)| (*input, *next)));
        world.mark(records.len() as u64);
        world.say(format_args!("{} batch {:?} full {full}", self.control, next_offsets));
        Gathered::Batch(Fetched { epoch: reading.epoch, records, next_offsets, group, full })
    }
}

#[async_trait]
impl EventLog for SimLog {
    async fn next(&mut self, want: Want) -> Signal {
        loop {
            let (shared, world) = (Arc::clone(&self.shared), Arc::clone(self.world()));
            let (arrived, moved) = (shared.arrived.notified(), world.moved.notified());
            if let Some(signal) = lock(&shared.signals).pop_front() {
                return signal;
            }
            let mut wait = None;
            if want != Want::Nothing {
                if self.reading.is_some() && world.strikes(world.plan.rates.stumble) {
                    world.count("reads that stumbled");
                    return Signal::Stumbled("told to".into());
                }
                match self.gather(want) {
                    Gathered::Batch(batch) => return Signal::Batch(batch),
                    Gathered::Stumbled(reason) => {
                        world.count("reads of deleted offsets");
                        return Signal::Stumbled(reason);
                    }
                    Gathered::Nothing(again) => wait = again,
                }
            }
            let due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait.max(Duration::from_millis(1))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = arrived => {}
                () = moved, if want != Want::Nothing => {}
                () = due => {}
            }
        }
    }

    fn stands(&self) -> Arc<dyn StandReader> {
        Arc::new(SimStands(Arc::clone(&self.control)))
    }

    fn start(&mut self, start: Start) {
        let plan = &self.world().plan;
        let (records, per_user) = (plan.batch_records, plan.batch_records_per_user);
        self.world().say(format_args!("{} reads from {:?}", self.control, start.next_offsets));
        lock(&self.control.witness).begins();
        self.reading = Some(Reading {
            epoch: start.epoch,
            next_offsets: start.next_offsets,
            max_records: start.max_records.unwrap_or(usize::MAX).min(records),
            max_records_per_user: start.max_records_per_user.unwrap_or(usize::MAX).min(per_user),
            held: BTreeSet::new(),
            ready_at: None,
        });
    }

    fn halt(&mut self) {
        self.reading = None;
    }

    fn hold(&mut self, partitions: BTreeSet<i32>) {
        if let Some(reading) = &mut self.reading {
            if !partitions.is_empty() && reading.held != partitions {
                self.control.world.count("partitions held back");
            }
            reading.held = partitions;
        }
    }

    fn rejoin(&mut self) {
        self.world().count("rejoins for a new tier");
        let _ = self.commands.try_send(group::Command::Rejoin);
    }

    fn group(&self) -> Result<GroupToken, LogError> {
        self.shared.token().ok_or_else(|| LogError::Unavailable("the member is rejoining its group".into()))
    }

    async fn close(&mut self) {
        self.reading = None;
        let (done, left) = tokio::sync::oneshot::channel();
        let _ = self.commands.send(group::Command::Leave(done)).await;
        // The callback of the last revocation waits for an answer: dropping the signals gives it.
        tokio::select! {
            biased;
            _ = left => {}
            () = async {
                loop {
                    let arrived = self.shared.arrived.notified();
                    lock(&self.shared.signals).clear();
                    arrived.await;
                }
            } => {}
        }
    }
}

struct SimStands(Arc<Control>);

impl SimStands {
    fn unavailable(&self) -> LogError {
        self.0.world.count("broker calls that failed");
        LogError::Unavailable("told to".into())
    }

    fn trip(&self) -> Trip {
        broker_trip(&self.0.world, self.0.world.plan.rates.stands_fail)
    }
}

/// The way to the broker and back; an outage makes requests wait for its end.
pub fn broker_trip(world: &World, failing: f64) -> Trip {
    let trip = Trip::usual(world);
    let outage = world.broker_back().saturating_duration_since(Instant::now());
    let fate = if world.strikes(failing) { Fate::Lost } else { Fate::Answered };
    let slow = world.strikes(world.plan.rates.slow_calls);
    let late = if slow { world.draw_ms(0..700) } else { Duration::ZERO };
    Trip { there: trip.there + outage + late, ..trip }.with(fate)
}

#[async_trait]
impl StandReader for SimStands {
    async fn stands(&self, inputs: &[Input]) -> Result<BTreeMap<Input, PartitionStand>, LogError> {
        let until = Instant::now() + STANDS_PATIENCE;
        loop {
            let asked = inputs.to_vec();
            let answer = self
                .0
                .call(Side::Processor, Hop::Stands, self.trip(), move |world| {
                    let broker = world.broker();
                    asked.into_iter().map(|input| Some((input, broker.stand(input)?))).collect::<Option<_>>()
                })
                .await
                .ok_or_else(|| self.unavailable())?;
            match answer {
                Some(stands) => return Ok(stands),
                // A transaction with offsets of the group has not ended yet.
                None if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
                None => return Err(self.unavailable()),
            }
        }
    }

    async fn waiting(&self, from: &BTreeMap<Input, i64>) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        for (input, offset) in from {
            let (input, offset) = (*input, *offset);
            let end = self
                .0
                .call(Side::Processor, Hop::Waiting, self.trip(), move |world| {
                    world.broker().of_input(input).end()
                })
                .await
                .ok_or_else(|| self.unavailable())?;
            let until = Instant::now() + HANGING;
            loop {
                let found = self
                    .0
                    .call(Side::Processor, Hop::Waiting, self.trip(), move |world| {
                        let broker = world.broker();
                        let log = broker.of_input(input);
                        let is_whole = log.stable_end() >= end || adapter(Adapter::ReadsToTheStableEnd);
                        let records = log.committed_from(offset).take_while(|(at, _)| *at < end);
                        is_whole.then(|| records.map(|(at, data)| (at, data.clone())).collect::<Vec<_>>())
                    })
                    .await
                    .ok_or_else(|| self.unavailable())?;
                if let Some(found) = found {
                    records.extend(found.into_iter().map(|(offset, data)| Record {
                        topic: input.topic,
                        partition: input.partition,
                        offset,
                        timestamp_ms: Some(data.timestamp_ms),
                        key: data.key,
                        value: None,
                        headers: data.headers,
                    }));
                    break;
                }
                self.0.world.count("waits for an open transaction");
                if Instant::now() >= until {
                    return Err(LogError::Unavailable(format!("a transaction hangs on {input}")));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(records)
    }

    async fn delete_consumed(&self, below: &BTreeMap<Input, i64>) -> Result<(), LogError> {
        let below = below.clone();
        self.0
            .call(Side::Processor, Hop::DeleteConsumed, self.trip(), move |world| {
                let mut broker = world.broker();
                let mut wrong = Vec::new();
                for (input, offset) in below {
                    // The end of the transaction is decided before its marker has arrived.
                    let pending = broker.pending.values().filter_map(|offsets| offsets.get(&input));
                    if pending.chain(broker.committed.get(&input)).all(|committed| *committed < offset) {
                        wrong.push(format!("P7: {input} is deleted below {offset}, which is not committed"));
                    }
                    let log = broker.partition_mut(input.topic.into(), input.partition);
                    log.start = log.start.max(offset);
                }
                drop(broker);
                wrong.iter().for_each(|wrong| world.violation(wrong));
                world.count("deletions of what was consumed");
            })
            .await
            .ok_or_else(|| self.unavailable())
    }

    async fn identity(&self) -> Result<LogIdentity, LogError> {
        self.0
            .call(Side::Processor, Hop::Identity, self.trip(), |world| {
                let broker = world.broker();
                LogIdentity {
                    cluster_id: CLUSTER.into(),
                    partition_count: broker.partition_count,
                    tiers: broker.tiers,
                }
            })
            .await
            .ok_or_else(|| self.unavailable())
    }
}
