//! The committing thread: owns the transactional producer, whose calls block.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;

use super::LogSettings;
use super::names::InputNames;
use crate::kafka::client_log;
use crate::kafka::raw::{self, GroupMetadata};
use crate::pause::{PausePoint, pause_at};
use crate::pipeline::log::{
    CommitError, EventOutput, InputTopic, LogError, OutputRecord, OutputTopic, Transaction,
};

/// One wait for deliveries; the thread wakes earlier when the last message is delivered.
const FLUSH_SLICE_MS: i32 = 50;
/// Largest record the producer sends; the brokers' and topics' own limits are what decides.
const MESSAGE_MAX_BYTES: &str = "16777216";

enum Command {
    Commit(Transaction, oneshot::Sender<Result<(), CommitError>>),
    Settle(oneshot::Sender<Result<(), LogError>>),
}

/// The transactional producer of this instance, on a thread of its own.
pub struct KafkaOutput {
    commands: SyncSender<Command>,
}

impl KafkaOutput {
    /// Creates the producer and takes the transactional id over from whoever held it. Blocks until the broker has
    /// settled a predecessor's transaction.
    ///
    /// # Errors
    ///
    /// [`LogError::Unavailable`] when the coordinator does not answer, [`LogError::Refused`] for the rest.
    pub fn open(settings: &LogSettings) -> Result<KafkaOutput, LogError> {
        let mut committer = Committer::new(settings);
        committer.renew()?;
        // One transaction at a time, and a settle behind it.
        let (commands, waiting) = sync_channel(4);
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run(&waiting))
            .map_err(|e| LogError::Refused(format!("the committing thread cannot be started: {e}")))?;
        Ok(KafkaOutput { commands })
    }
}

#[async_trait]
impl EventOutput for KafkaOutput {
    async fn commit(&self, transaction: Transaction) -> Result<(), CommitError> {
        let (answer, waiting) = oneshot::channel();
        let gone = || CommitError::Failed("the committing thread has ended".into());
        self.commands.try_send(Command::Commit(transaction, answer)).map_err(|_| gone())?;
        waiting.await.map_err(|_| gone())?
    }

    async fn settle(&self) -> Result<(), LogError> {
        let (answer, waiting) = oneshot::channel();
        let ended = || LogError::Refused("the committing thread has ended; restart the instance".into());
        self.commands.try_send(Command::Settle(answer)).map_err(|error| match error {
            TrySendError::Full(_) => LogError::Unavailable("the committing thread is busy".into()),
            TrySendError::Disconnected(_) => ended(),
        })?;
        waiting.await.map_err(|_| ended())?
    }
}

/// Only failures are reported; they also put the transaction into an error state, which is what acts on them.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            tracing::warn!(%error, "an output record was not delivered; its transaction will be aborted");
        }
    }
}

/// What the thread remembers between transactions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// No transaction is open.
    Clean,
    /// A transaction is open and can be aborted.
    Open,
    /// The producer can do nothing any more, or its transaction's outcome is unknown.
    Broken,
}

struct Committer {
    config: ClientConfig,
    inputs: InputNames,
    decisions: String,
    activity: String,
    dead_letters: String,
    timeout: Duration,
    producer: Option<BaseProducer<Deliveries>>,
    standing: Standing,
}

impl Committer {
    fn new(settings: &LogSettings) -> Committer {
        let mut config = settings.client.clone();
        config
            .set("transactional.id", format!("{}-{}", settings.group_id, settings.instance_id))
            .set("enable.idempotence", "true")
            .set("transaction.timeout.ms", settings.transaction_timeout.as_millis().to_string())
            .set("delivery.report.only.error", "true")
            .set("compression.type", "lz4")
            .set("batch.size", "1000000")
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        Committer {
            config,
            inputs: settings.inputs(),
            decisions: settings.decisions.clone(),
            activity: settings.activity.clone(),
            dead_letters: settings.dead_letters.clone(),
            timeout: settings.transaction_timeout,
            producer: None,
            standing: Standing::Broken,
        }
    }

    fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            // A receiver that is gone has been dropped by a rewind; it settles next.
            match command {
                Command::Commit(transaction, answer) => {
                    let _ = answer.send(self.commit(&transaction));
                }
                Command::Settle(answer) => {
                    let _ = answer.send(self.settle());
                }
            }
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), CommitError> {
        let Some(producer) = self.producer.take() else {
            return Err(CommitError::Failed("the producer is gone".into()));
        };
        self.standing = Standing::Open;
        let result = self.transact(&producer, transaction);
        self.standing = match &result {
            Ok(()) => Standing::Clean,
            Err(CommitError::Failed(_)) => Standing::Open,
            Err(CommitError::Fenced(_) | CommitError::Unknown(_)) => Standing::Broken,
        };
        self.producer = Some(producer);
        result
    }

    fn transact(
        &self,
        producer: &BaseProducer<Deliveries>,
        transaction: &Transaction,
    ) -> Result<(), CommitError> {
        let deadline = Instant::now() + self.timeout;
        producer.begin_transaction().map_err(|e| classify(&e))?;
        for record in &transaction.records {
            self.send(producer, record, deadline)?;
        }
        while !raw::flush(producer, FLUSH_SLICE_MS) {
            producer.poll(Duration::ZERO);
            if Instant::now() > deadline {
                return Err(CommitError::Failed("the output records were not delivered in time".into()));
            }
        }
        producer.poll(Duration::ZERO);
        pause_at(PausePoint::BeforeSendOffsets);
        self.send_offsets(producer, transaction, deadline)?;
        pause_at(PausePoint::BeforeCommit);
        self.end(producer)?;
        pause_at(PausePoint::AfterCommit);
        Ok(())
    }

    fn send(
        &self,
        producer: &BaseProducer<Deliveries>,
        record: &OutputRecord,
        deadline: Instant,
    ) -> Result<(), CommitError> {
        let topic = match record.topic {
            OutputTopic::Decisions => &self.decisions,
            OutputTopic::Activity => &self.activity,
            OutputTopic::DeadLetters => &self.dead_letters,
            OutputTopic::Retry(tier) => self.inputs.of(InputTopic::Retry(tier)),
        };
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message.headers = Some(record.headers.iter().fold(headers, |headers, header| {
                headers.insert(Header { key: &header.name, value: header.value.as_deref() })
            }));
        }
        loop {
            match producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    producer.poll(Duration::from_millis(1));
                    message = back;
                }
                Err((error, _)) => {
                    return Err(CommitError::Failed(format!("a record for {topic} cannot be sent: {error}")));
                }
            }
        }
    }

    fn send_offsets(
        &self,
        producer: &BaseProducer<Deliveries>,
        transaction: &Transaction,
        deadline: Instant,
    ) -> Result<(), CommitError> {
        let Some(group) = transaction.group.0.downcast_ref::<GroupMetadata>() else {
            return Err(CommitError::Failed("the group metadata is of another log".into()));
        };
        let offsets =
            self.inputs.offsets(&transaction.next_offsets).map_err(|e| CommitError::Failed(e.to_string()))?;
        loop {
            match raw::send_offsets(producer, &offsets, group, millis(self.timeout)) {
                Ok(()) => return Ok(()),
                Err(error) if error.retriable && Instant::now() < deadline => {}
                Err(error) if error.fatal => return Err(CommitError::Fenced(error.text)),
                Err(error) => return Err(CommitError::Failed(error.text)),
            }
        }
    }

    /// Commits; a retriable error leaves the outcome unknown, and the same call on the same producer finds it out.
    fn end(&self, producer: &BaseProducer<Deliveries>) -> Result<(), CommitError> {
        let deadline = Instant::now() + self.timeout * 2;
        loop {
            match producer.commit_transaction(self.timeout) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(classify(&error)),
            }
        }
    }

    fn settle(&mut self) -> Result<(), LogError> {
        if self.standing == Standing::Open
            && let Some(producer) = &self.producer
            && producer.abort_transaction(self.timeout).is_ok()
        {
            self.standing = Standing::Clean;
        }
        if self.standing == Standing::Clean { Ok(()) } else { self.renew() }
    }

    /// A new producer under the same transactional id: the broker aborts or completes what the old one left.
    fn renew(&mut self) -> Result<(), LogError> {
        self.producer = None;
        let producer: BaseProducer<Deliveries> =
            self.config.create_with_context(Deliveries).map_err(|e| {
                LogError::Refused(format!(
                    "the producer cannot be created: {e}; see the kafka section of the configuration"
                ))
            })?;
        producer.init_transactions(self.timeout).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => LogError::Refused(format!(
                "{error}: grant the principal WRITE on the transactional id of this instance"
            )),
            _ => LogError::Unavailable(error.to_string()),
        })?;
        self.producer = Some(producer);
        self.standing = Standing::Clean;
        Ok(())
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn classify(error: &KafkaError) -> CommitError {
    match error {
        KafkaError::Transaction(e) if e.is_fatal() => CommitError::Fenced(e.to_string()),
        KafkaError::Transaction(e) if e.txn_requires_abort() => CommitError::Failed(e.to_string()),
        other => CommitError::Unknown(other.to_string()),
    }
}
