//! `events` and its retry topics on Kafka: the polling thread and the committing thread behind the pipeline's two traits.
//!
//! The poller owns the consumer and always polls, through pauses, assignments and outages; the committer owns the
//! transactional producer, whose calls block (rule O6). They share nothing but channels.

mod ahead;
mod alone;
mod committer;
mod demand;
mod gathering;
mod intake;
mod names;
mod orders;
mod poller;
mod rebalance;
mod stands;
mod topics;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use alone::wait_until_alone;
pub use committer::KafkaOutput;
use demand::Demand;
use names::InputNames;
use orders::Command;
use poller::{Poller, PollerParts};
use rebalance::Rebalances;
use stands::KafkaStands;
use topics::KnownTopics;

use crate::kafka::raw::GroupMetadata;
use crate::pipeline::log::{EventLog, GroupToken, Input, LogError, Record, Signal, StandReader, Start, Want};
use crate::telemetry::health::Health;

/// What the log needs to know beside how to reach the broker.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Brokers, security, pass-through.
    pub client: ClientConfig,
    /// Topic of events.
    pub events: String,
    /// Retry topics of tier 1 and those behind it, whether they exist or not.
    pub retry: Vec<String>,
    /// Delay of the last tier.
    pub longest_delay: Duration,
    /// Topic of decisions.
    pub decisions: String,
    /// Topic of activity.
    pub activity: String,
    /// Dead letter topic.
    pub dead_letters: String,
    /// Consumer group.
    pub group_id: String,
    /// Instance id; with the group id it makes the transactional id, so it must be stable and unique.
    pub instance_id: String,
    /// Join as a static member: a restart within the session time-out moves no partition.
    pub static_membership: bool,
    /// No other member may be in the group, because the store is this process's own.
    pub is_sole_member: bool,
    /// Session time-out of the group.
    pub session_timeout: Duration,
    /// Transaction time-out.
    pub transaction_timeout: Duration,
    /// How long a revocation waits for what is in flight.
    pub drain_timeout: Duration,
    /// Bounds of a batch.
    pub batch: BatchLimits,
    /// Where the poller shows that it comes round.
    pub health: Health,
}

/// Reads what waits in the retry topics, outside the group: every committed record from the given offsets to the ends
/// as of now, without its value. Blocks.
pub fn read_waiting(settings: &LogSettings, from: &BTreeMap<Input, i64>) -> Result<Vec<Record>, LogError> {
    let reader = waiting::WaitingReader::new(settings, Arc::new(settings.inputs()))?;
    reader.read(from, &CancellationToken::new())
}

impl LogSettings {
    fn inputs(&self) -> InputNames {
        InputNames::new(&self.events, &self.retry)
    }
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// How long records may wait for more when the processor is idle.
    pub max_wait: Duration,
    /// Records of a batch.
    pub max_records: usize,
    /// Bytes of keys, values and headers of a batch.
    pub max_bytes: usize,
    /// Records of one key in a batch; bounds what one user's cell can gather (rule S9).
    pub max_records_per_user: usize,
}

/// `events` of a Kafka cluster and its retry topics, read as a member of the group.
pub struct KafkaLog {
    consumer: Arc<BaseConsumer<Rebalances>>,
    stands: Arc<KafkaStands>,
    signals: mpsc::Receiver<Signal>,
    commands: std::sync::mpsc::SyncSender<Command>,
    demand: Arc<Demand>,
    /// Batches received.
    received: u64,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Signals that may wait for the processor: an assignment, a revocation, a batch, an error and some room.
const SIGNALS_WAITING: usize = 16;
/// A retry record waits twice its delay at most (rule P4), by the clock of the instance that wrote it.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// Commands that may wait for the poller; the processor sends a handful per rebalance.
const COMMANDS_WAITING: usize = 64;

impl KafkaLog {
    /// Connects, joins the group and starts polling.
    ///
    /// # Errors
    ///
    /// [`LogError::Refused`] when the client refuses its configuration or a retry topic cannot be used,
    /// [`LogError::Unavailable`] when the broker does not answer or does not know the topic.
    pub fn open(settings: &LogSettings) -> Result<KafkaLog, LogError> {
        let (signal_tx, signals) = mpsc::channel(SIGNALS_WAITING);
        let (commands, command_rx) = std::sync::mpsc::sync_channel(COMMANDS_WAITING);
        let demand = Arc::new(Demand::default());
        let (names, topics) = (Arc::new(settings.inputs()), Arc::new(KnownTopics::default()));
        let context = Rebalances::new(settings, Arc::clone(&names), Arc::clone(&topics), signal_tx.clone());
        let consumer = Arc::new(poller::connect(settings, context)?);
        let stands = KafkaStands::open(settings, &consumer, &names, &topics)?;
        let poller = Poller::new(PollerParts {
            consumer: Arc::clone(&consumer),
            names,
            topics,
            limits: settings.batch,
            longest_wait: settings.longest_delay * 2 + CLOCK_SLACK,
            signals: signal_tx,
            commands: command_rx,
            demand: Arc::clone(&demand),
            health: settings.health.clone(),
        });
        let thread = std::thread::Builder::new()
            .name("poller".into())
            .spawn(move || poller.run())
            .map_err(|e| LogError::Refused(format!("the polling thread cannot be started: {e}")))?;
        Ok(KafkaLog {
            consumer,
            stands: Arc::new(stands),
            signals,
            commands,
            demand,
            received: 0,
            thread: Some(thread),
        })
    }

    fn send(&self, command: Command) {
        // Full or closed means that the poller is gone or hopelessly behind; it reports that itself as a signal.
        let _ = self.commands.try_send(command);
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn next(&mut self, want: Want) -> Signal {
        self.demand.say(want, self.received);
        match self.signals.recv().await {
            Some(Signal::Batch(batch)) => {
                self.received += 1;
                self.demand.say(Want::Nothing, self.received);
                Signal::Batch(batch)
            }
            Some(signal) => signal,
            None => Signal::Fatal(LogError::Refused("the polling thread has ended".into())),
        }
    }

    fn stands(&self) -> Arc<dyn StandReader> {
        Arc::clone(&self.stands) as Arc<dyn StandReader>
    }

    fn start(&mut self, start: Start) {
        self.send(Command::Start(start));
    }

    fn halt(&mut self) {
        self.demand.say(Want::Nothing, self.received);
        self.send(Command::Halt);
    }

    fn hold(&mut self, partitions: BTreeSet<i32>) {
        self.send(Command::Hold(partitions));
    }

    fn rejoin(&mut self) {
        self.send(Command::Rejoin);
    }

    fn group(&self) -> Result<GroupToken, LogError> {
        group_token(&self.consumer)
            .ok_or_else(|| LogError::Unavailable("the member is rejoining its group".into()))
    }

    async fn close(&mut self) {
        self.send(Command::Close);
        // The callback of the last revocation waits for an answer: dropping the receiver's signals gives it.
        self.signals.close();
        while self.signals.recv().await.is_some() {}
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// The metadata to commit with, or `None` while the member has no valid generation (rule O4).
fn group_token(consumer: &BaseConsumer<Rebalances>) -> Option<GroupToken> {
    let metadata = GroupMetadata::capture(consumer)?;
    (metadata.generation() >= 0).then(|| GroupToken(Arc::new(metadata)))
}
