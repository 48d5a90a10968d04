//! The polling thread: owns the consumer, gathers batches, never stops polling.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::demand::Demand;
use super::rebalance::Rebalances;
use super::{BatchLimits, LogSettings, group_token};
use crate::kafka::raw;
use crate::pipeline::log::{Fetched, Input, InputTopic, LogError, Record, Signal, Start, Want};
use crate::telemetry::health::Health;

/// A sign of life every so many turns: reading the clock at each would cost as much as a look-up per record.
const TURNS_PER_SIGN: u32 = 64;

/// What the processor tells the poller; only the last of those that wait counts.
#[derive(Debug)]
pub(super) enum Command {
    /// Position the partitions and let records flow.
    Start(Start),
    /// Let nothing flow.
    Halt,
    /// Leave the group and end.
    Close,
}

/// Poll time-out with nothing gathered; bounds how late a command is seen.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// Poll time-out with a part of a batch gathered that nobody wants yet.
const GATHERING_POLL: Duration = Duration::from_millis(1);
/// A full batch waits so long before the partitions are paused, because pausing throws prefetched records away.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// How often a seek that answers "Erroneous state" is repeated before the partitions are assigned anew (rule O1).
const SEEK_ATTEMPTS: u32 = 20;
/// Between two such attempts, and the time-out of one.
const SEEK_PAUSE: Duration = Duration::from_millis(50);
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the last revocation.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the consumer and subscribes it.
pub(super) fn connect(
    settings: &LogSettings,
    context: Rebalances,
) -> Result<BaseConsumer<Rebalances>, LogError> {
    let mut config = settings.client.clone();
    let session_ms = settings.session_timeout.as_millis();
    config
        .set("group.id", &settings.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 4).clamp(200, 3_000).to_string())
        // librdkafka bounds each partition's queue, by default at 64 MB.
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10");
    if settings.static_membership {
        config.set("group.instance.id", &settings.instance_id);
    }
    let consumer: BaseConsumer<Rebalances> =
        config.create_with_context(context).map_err(|e| refused("the consumer cannot be created", &e))?;
    consumer.subscribe(&[&settings.events]).map_err(|e| refused("the topic cannot be subscribed", &e))?;
    Ok(consumer)
}

fn refused(what: &str, error: &KafkaError) -> LogError {
    LogError::Refused(format!("{what}: {error}; see the kafka section of the configuration"))
}

/// Key hashes of a batch, counted with a fixed hasher.
type KeyCounts = HashMap<u64, usize, BuildHasherDefault<Xxh3>>;

/// A batch being gathered.
#[derive(Default)]
struct Gathering {
    records: Vec<Record>,
    next_offsets: BTreeMap<Input, i64>,
    bytes: usize,
    per_key: KeyCounts,
    full: bool,
    since: Option<Instant>,
}

impl Gathering {
    /// Records of the same key that are in it.
    fn records_of(&self, record: &Record) -> usize {
        self.per_key.get(&key_hash(record)).copied().unwrap_or(0)
    }

    fn push(&mut self, record: Record, limits: &BatchLimits) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += size(&record);
        *self.per_key.entry(key_hash(&record)).or_insert(0) += 1;
        self.full = self.bytes >= limits.max_bytes || self.records.len() + 1 >= limits.max_records;
        self.next_offsets.insert(record.input(), record.offset + 1);
        self.records.push(record);
    }
}

fn key_hash(record: &Record) -> u64 {
    record.key.as_deref().map_or(0, xxh3_64)
}

fn size(record: &Record) -> usize {
    let headers: usize =
        record.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
    record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len) + headers
}

pub(super) struct Poller {
    consumer: Arc<BaseConsumer<Rebalances>>,
    events: String,
    configured: BatchLimits,
    /// The same, smaller while batches fail.
    limits: BatchLimits,
    signals: mpsc::Sender<Signal>,
    commands: Receiver<Command>,
    demand: Arc<Demand>,
    /// Batches delivered.
    delivered: u64,
    /// Epoch of what is gathered; `None` while halted.
    epoch: Option<u64>,
    records_per_user: usize,
    /// Lowest offset per partition that belongs to the epoch; anything below was read ahead before a seek.
    expected: BTreeMap<Input, i64>,
    gathering: Gathering,
    /// A record that would be one too many of its user; it begins the next batch.
    held_over: Option<Record>,
    paused: bool,
    full_since: Option<Instant>,
    health: Health,
    turns: u32,
}

impl Poller {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Rebalances>>,
        events: String,
        limits: BatchLimits,
        signals: mpsc::Sender<Signal>,
        commands: Receiver<Command>,
        demand: Arc<Demand>,
        health: Health,
    ) -> Poller {
        Poller {
            consumer,
            events,
            configured: limits,
            limits,
            signals,
            commands,
            demand,
            delivered: 0,
            epoch: None,
            records_per_user: limits.max_records_per_user,
            expected: BTreeMap::new(),
            gathering: Gathering::default(),
            held_over: None,
            paused: false,
            full_since: None,
            health,
            turns: 0,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.turns = self.turns.wrapping_add(1);
            if self.turns.is_multiple_of(TURNS_PER_SIGN) {
                self.health.polled();
            }
            match self.last_command() {
                Some(Command::Start(start)) => self.start(start),
                Some(Command::Halt) => self.halt(),
                Some(Command::Close) => break,
                None => {}
            }
            if self.gathering.full && !self.deliver(Want::Full) {
                if self.wait_for_room() {
                    break;
                }
                continue;
            }
            if !self.poll() {
                break;
            }
        }
        self.close();
    }

    /// The last command that waits; a sender that is gone means close.
    fn last_command(&self) -> Option<Command> {
        let mut last = None;
        loop {
            match self.commands.try_recv() {
                Ok(command) => last = Some(command),
                Err(std::sync::mpsc::TryRecvError::Empty) => return last,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Some(Command::Close),
            }
        }
    }

    /// One poll. False when the processor is gone.
    fn poll(&mut self) -> bool {
        let gathered = !self.gathering.records.is_empty();
        let wanted = self.demand.of(self.delivered) == Want::Any;
        let overdue = self.gathering.since.is_some_and(|since| since.elapsed() >= self.limits.max_wait);
        if gathered && wanted && overdue && self.deliver(Want::Any) {
            return !self.signals.is_closed();
        }
        let timeout = match (gathered, wanted) {
            (false, _) => IDLE_POLL,
            (true, true) => Duration::ZERO,
            (true, false) => GATHERING_POLL,
        };
        let consumer = Arc::clone(&self.consumer);
        match consumer.poll(timeout) {
            Some(Ok(message)) => self.take(&message),
            Some(Err(error)) => self.stumble(&error),
            // Nothing more has arrived: an idle processor gets what there is, without waiting for max_wait.
            // The member is rejoining if it cannot be handed over; its revocation has to be served first.
            None if gathered && wanted && !self.deliver(Want::Any) => std::thread::sleep(GATHERING_POLL),
            None => {}
        }
        !self.signals.is_closed()
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let current = self.epoch.is_some()
            && self.expected.get(&Input::events(partition)).is_some_and(|next| offset >= *next);
        if !current {
            return;
        }
        self.expected.insert(Input::events(partition), offset + 1);
        let record = Record {
            topic: InputTopic::Events,
            partition,
            offset,
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: raw::headers(message),
        };
        if self.gathering.records_of(&record) >= self.records_per_user {
            self.gathering.full = true;
            self.held_over = Some(record);
        } else {
            self.gathering.push(record, &self.limits);
        }
    }

    /// Hands over what is gathered if it is wanted, with the group metadata of this moment (rule O4).
    fn deliver(&mut self, at_least: Want) -> bool {
        let wanted = match self.demand.of(self.delivered) {
            Want::Any => true,
            Want::Full => at_least == Want::Full,
            Want::Nothing => false,
        };
        let (true, Some(epoch)) = (wanted, self.epoch) else { return false };
        // No metadata to commit with: the member is rejoining, its revocation is about to arrive.
        let Some(group) = group_token(&self.consumer) else { return false };
        self.delivered += 1;
        let gathered = std::mem::take(&mut self.gathering);
        if let Some(record) = self.held_over.take() {
            self.gathering.push(record, &self.limits);
        }
        self.full_since = None;
        let batch = Fetched {
            epoch,
            records: gathered.records,
            next_offsets: gathered.next_offsets,
            group,
            full: gathered.full,
        };
        self.resume_if_paused();
        self.signals.blocking_send(Signal::Batch(batch)).is_ok()
    }

    /// A full batch nobody wants yet: wait, and after a while poll on with the partitions paused, so that the group
    /// and its callbacks are served. True when the processor is gone.
    fn wait_for_room(&mut self) -> bool {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if self.paused {
            if let Some(Err(error)) = Arc::clone(&self.consumer).poll(IDLE_POLL) {
                self.stumble(&error);
            }
        } else if since.elapsed() > FULL_PATIENCE {
            self.pause();
        } else {
            std::thread::sleep(GATHERING_POLL);
        }
        self.signals.is_closed()
    }

    fn pause(&mut self) {
        if let Ok(list) = self.consumer.assignment()
            && self.consumer.pause(&list).is_ok()
        {
            self.paused = true;
        }
    }

    /// A paused partition has lost what it had prefetched, so it is positioned behind what was gathered.
    fn resume_if_paused(&mut self) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        let expected = self.expected.clone();
        if let Err(reason) = self.position(&expected) {
            let _ = self.signals.blocking_send(Signal::Stumbled(reason));
        }
    }

    fn halt(&mut self) {
        self.epoch = None;
        self.gathering = Gathering::default();
        self.held_over = None;
        self.full_since = None;
        // Else a wait for the store or the coordinator would read the whole log and throw it away.
        self.pause();
    }

    fn start(&mut self, start: Start) {
        self.halt();
        self.paused = false;
        self.records_per_user =
            start.max_records_per_user.unwrap_or(usize::MAX).min(self.configured.max_records_per_user);
        self.limits.max_records = start.max_records.unwrap_or(usize::MAX).min(self.configured.max_records);
        match self.position(&start.next_offsets) {
            Ok(()) => {
                self.expected = start.next_offsets;
                self.epoch = Some(start.epoch);
            }
            Err(reason) => {
                let _ = self.signals.blocking_send(Signal::Stumbled(reason));
            }
        }
    }

    /// Seeks every partition, checks each one's own result, and resumes.
    fn position(&self, offsets: &BTreeMap<Input, i64>) -> Result<(), String> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (input, offset) in offsets {
            list.add_partition_offset(&self.events, input.partition, Offset::Offset(*offset))
                .map_err(|e| e.to_string())?;
        }
        for _ in 0..SEEK_ATTEMPTS {
            match self.seek(&list) {
                Ok(()) => {
                    return self.consumer.resume(&list).map_err(|e| format!("partitions do not resume: {e}"));
                }
                Err(_) => std::thread::sleep(SEEK_PAUSE),
            }
        }
        let assigned = self.consumer.assignment().map_err(|e| e.to_string())?;
        if offsets.keys().any(|input| assigned.find_partition(&self.events, input.partition).is_none()) {
            return Err("a partition is not assigned any more".into());
        }
        self.consumer
            .assign(&list)
            .and_then(|()| self.consumer.resume(&list))
            .map_err(|e| format!("partitions cannot be positioned: {e}"))
    }

    /// `seek_partitions` answers Ok with the errors of single partitions inside.
    fn seek(&self, list: &TopicPartitionList) -> Result<(), KafkaError> {
        let answered = self.consumer.seek_partitions(list.clone(), SEEK_TIMEOUT)?;
        answered.elements().iter().try_for_each(|element| element.error())
    }

    fn stumble(&self, error: &KafkaError) {
        let signal = match error {
            KafkaError::MessageConsumptionFatal(code) => Signal::Fatal(LogError::Refused(fatal_text(*code))),
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset) => {
                Signal::Stumbled(format!("an offset is not in the log any more: {error}"))
            }
            KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed),
            ) => Signal::Fatal(LogError::Refused(format!(
                "{code}: grant the principal READ on the topic {} and on the group",
                self.events
            ))),
            other => {
                // librdkafka retries by itself; the line says why nothing arrives meanwhile.
                tracing::warn!(error = %other, "polling");
                return;
            }
        };
        let _ = self.signals.blocking_send(signal);
    }

    /// Leaves the group; the callback of the last revocation runs here. A static member that merely closed would keep
    /// its partitions from others until the session time-out; one that unsubscribes leaves.
    fn close(&self) {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        self.consumer.unsubscribe();
        while self.consumer.assignment().is_ok_and(|list| list.count() > 0) && Instant::now() < deadline {
            let _ = self.consumer.poll(Duration::from_millis(10));
        }
    }
}

fn fatal_text(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::FencedInstanceId => {
            "another process joined the group with this group.instance_id; give every instance its own".into()
        }
        other => format!("the consumer cannot go on: {other}; restart the instance"),
    }
}
