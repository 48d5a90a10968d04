//! The polling thread: owns the consumer, gathers batches, never stops polling.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::sync::mpsc;

use super::ahead::ReadAhead;
use super::demand::Demand;
use super::gathering::Gathering;
use super::intake::Intake;
use super::names::InputNames;
use super::orders::{Command, Flow, Orders};
use super::rebalance::Rebalances;
use super::topics::KnownTopics;
use super::{BatchLimits, LogSettings, group_token};
use crate::kafka::raw;
use crate::pipeline::clock::{Clock, SystemClock};
use crate::pipeline::log::{Fetched, InputTopic, LogError, Record, Signal, Start, Want};
use crate::telemetry::health::Health;

/// A sign of life every so many turns: reading the clock at each would cost as much as a look-up per record.
const TURNS_PER_SIGN: u32 = 64;

/// Poll time-out with nothing gathered; bounds how late a command is seen.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// Poll time-out with a part of a batch gathered that nobody wants yet.
const GATHERING_POLL: Duration = Duration::from_millis(1);
/// A full batch waits so long before the partitions are paused, because pausing throws prefetched records away.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the last revocation.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for metadata on this thread.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

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

pub(super) struct Poller {
    consumer: Arc<BaseConsumer<Rebalances>>,
    names: Arc<InputNames>,
    topics: Arc<KnownTopics>,
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
    intake: Intake,
    /// Records of retry partitions that were read and are not due yet.
    ahead: ReadAhead,
    gathering: Gathering,
    /// A record that would be one too many of its user; it begins the next batch.
    held_over: Option<Record>,
    /// Partitions of `events` that the processor holds back.
    held: BTreeSet<i32>,
    /// Set while a full batch is waited with, and nothing flows.
    stalled: bool,
    /// Set when it has changed which partitions are to flow.
    flow_changed: bool,
    full_since: Option<Instant>,
    health: Health,
    turns: u32,
}

/// What a poller is made of.
pub(super) struct PollerParts {
    pub consumer: Arc<BaseConsumer<Rebalances>>,
    pub names: Arc<InputNames>,
    pub topics: Arc<KnownTopics>,
    pub limits: BatchLimits,
    /// Longest time that a retry record may wait in its topic.
    pub longest_wait: Duration,
    pub signals: mpsc::Sender<Signal>,
    pub commands: Receiver<Command>,
    pub demand: Arc<Demand>,
    pub health: Health,
}

impl Poller {
    pub(super) fn new(parts: PollerParts) -> Poller {
        let PollerParts { consumer, names, topics, limits, longest_wait, signals, commands, demand, health } =
            parts;
        Poller {
            intake: Intake::new(Arc::clone(&consumer), Arc::clone(&names)),
            consumer,
            names,
            topics,
            configured: limits,
            limits,
            signals,
            commands,
            demand,
            delivered: 0,
            epoch: None,
            records_per_user: limits.max_records_per_user,
            ahead: ReadAhead::new(longest_wait),
            gathering: Gathering::default(),
            held_over: None,
            held: BTreeSet::new(),
            stalled: false,
            flow_changed: false,
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
            let orders = self.orders();
            if orders.close {
                break;
            }
            self.obey(orders);
            self.follow_flow();
            self.gather_due(Share::Half);
            if self.gathering.full {
                // The next batch begins above, with what is due: an event that is there would fill one of one record.
                if !self.deliver(Want::Full) && self.wait_for_room() {
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

    /// The orders that wait; a sender that is gone means close.
    fn orders(&self) -> Orders {
        let mut orders = Orders::default();
        loop {
            match self.commands.try_recv() {
                Ok(command) => orders.add(command),
                Err(TryRecvError::Empty) => return orders,
                Err(TryRecvError::Disconnected) => {
                    orders.close = true;
                    return orders;
                }
            }
        }
    }

    fn obey(&mut self, orders: Orders) {
        match orders.flow {
            Some(Flow::Start(start)) => self.start(start),
            Some(Flow::Halt) => self.halt(),
            None => {}
        }
        if let Some(partitions) = orders.hold {
            self.held = partitions;
            self.flow_changed = true;
        }
        if orders.rejoin {
            self.rejoin();
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
            (false, _) => self.until_due(IDLE_POLL),
            (true, true) => Duration::ZERO,
            (true, false) => GATHERING_POLL,
        };
        let consumer = Arc::clone(&self.consumer);
        match consumer.poll(timeout) {
            Some(Ok(message)) => self.take(&message),
            Some(Err(error)) => self.stumble(&error),
            None => self.idle(wanted),
        }
        !self.signals.is_closed()
    }

    /// The time-out, or less when the head of a retry partition is due earlier: nothing else may arrive to wake us.
    fn until_due(&self, timeout: Duration) -> Duration {
        let Some(due_ms) = self.ahead.next_due_ms() else { return timeout };
        let wait_ms = due_ms.saturating_sub(SystemClock.now_ms());
        timeout.min(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
    }

    /// Nothing more has arrived: retry records need leave no room, and an idle processor gets what there is, without
    /// waiting for max_wait.
    fn idle(&mut self, wanted: bool) {
        self.gather_due(Share::All);
        let gathered = !self.gathering.records.is_empty();
        if gathered && wanted && !self.deliver(Want::Any) {
            // The member is rejoining if it cannot be handed over; its revocation has to be served first.
            std::thread::sleep(GATHERING_POLL);
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let offset = message.offset();
        let Some(input) = self.names.input(message.topic(), message.partition()) else { return };
        if self.epoch.is_none() || !self.intake.accept(input, offset) {
            return;
        }
        let record = Record {
            topic: input.topic,
            partition: input.partition,
            offset,
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: raw::headers(message),
        };
        if input.topic != InputTopic::Events {
            self.flow_changed |= self.ahead.push(record);
        } else if self.gathering.records_of(&record) >= self.records_per_user {
            self.gathering.full = true;
            self.held_over = Some(record);
        } else {
            self.gathering.push(record, &self.limits);
        }
    }

    /// Moves retry records that are due into the batch.
    fn gather_due(&mut self, share: Share) {
        if self.ahead.next_due_ms().is_none() {
            return;
        }
        let now_ms = SystemClock.now_ms();
        let middle = self.delivered.is_multiple_of(2);
        while !self.gathering.full {
            if share == Share::Half && self.gathering.retry_has_its_half(&self.limits, middle) {
                break;
            }
            let Some(record) = self.ahead.take(now_ms) else { break };
            if self.gathering.records_of(&record) >= self.records_per_user {
                self.gathering.full = true;
                self.ahead.put_back(record);
                break;
            }
            self.gathering.push(record, &self.limits);
        }
        self.flow_changed |= self.ahead.release();
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
        self.flow_changed |= std::mem::take(&mut self.stalled);
        let batch = Fetched {
            epoch,
            records: gathered.records,
            next_offsets: gathered.next_offsets,
            group,
            full: gathered.full,
        };
        self.signals.blocking_send(Signal::Batch(batch)).is_ok()
    }

    /// A full batch nobody wants yet: wait, and after a while poll on with the partitions paused, so that the group
    /// and its callbacks are served. True when the processor is gone.
    fn wait_for_room(&mut self) -> bool {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if self.stalled {
            if let Some(Err(error)) = Arc::clone(&self.consumer).poll(IDLE_POLL) {
                self.stumble(&error);
            }
        } else if since.elapsed() > FULL_PATIENCE {
            self.stalled = true;
            self.flow_changed = true;
        } else {
            std::thread::sleep(GATHERING_POLL);
        }
        self.signals.is_closed()
    }

    /// Pauses and resumes partitions after a change. Not where the change is noticed: a callback may just have taken
    /// partitions away, and the order to halt is read first.
    fn follow_flow(&mut self) {
        if !std::mem::take(&mut self.flow_changed) || self.epoch.is_none() {
            return;
        }
        let (held, ahead, stalled) = (&self.held, &self.ahead, self.stalled);
        let flows = self.intake.let_flow(|input| match input.topic {
            InputTopic::Events => !stalled && !held.contains(&input.partition),
            InputTopic::Retry(_) => !stalled && !ahead.is_crammed(input),
        });
        if let Err(reason) = flows {
            let _ = self.signals.blocking_send(Signal::Stumbled(reason));
        }
    }

    fn halt(&mut self) {
        self.epoch = None;
        self.ahead.clear();
        self.gathering = Gathering::default();
        self.held_over = None;
        self.held.clear();
        self.stalled = false;
        self.flow_changed = false;
        self.full_since = None;
        self.intake.end();
    }

    fn start(&mut self, start: Start) {
        self.halt();
        self.records_per_user =
            start.max_records_per_user.unwrap_or(usize::MAX).min(self.configured.max_records_per_user);
        self.limits.max_records = start.max_records.unwrap_or(usize::MAX).min(self.configured.max_records);
        match self.intake.begin(start.next_offsets) {
            Ok(()) => self.epoch = Some(start.epoch),
            Err(reason) => {
                let _ = self.signals.blocking_send(Signal::Stumbled(reason));
            }
        }
    }

    /// Leaves the group and joins it again; the callback then assigns the retry topics that are known by now (rule O8).
    fn rejoin(&self) {
        if let Err(error) = self.topics.refresh(&self.consumer, &self.names, REFRESH_TIMEOUT) {
            tracing::warn!("joining the group again with the retry topics known so far: {error}");
        }
        self.consumer.unsubscribe();
        if let Err(error) = self.consumer.subscribe(&[self.names.events()]) {
            let error = refused("the topic cannot be subscribed again", &error);
            let _ = self.signals.blocking_send(Signal::Fatal(error));
        }
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
                "{code}: grant the principal READ on the topic {}, on its retry topics and on the group",
                self.names.events()
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

/// How much of a batch retry records may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// The rest is for events.
    Half,
    /// No event has arrived.
    All,
}

fn fatal_text(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::FencedInstanceId => {
            "another process joined the group with this group.instance_id; give every instance its own".into()
        }
        other => format!("the consumer cannot go on: {other}; restart the instance"),
    }
}
