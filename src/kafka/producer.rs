//! Writing events to Kafka: what `produce`, `generate` and the demo share.
//!
//! What always holds: the producer is idempotent, waits for all replicas, places keys as `pipeline.events_partitioner`
//! says, and holds a bounded number of records; a record that could not be delivered is reported with the number that
//! its sender gave it. Nothing here is transactional: the processor has a producer of its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::client_log;
use crate::partitioner::Partitioner;

/// Failed records kept with their reason; more are counted only.
const MAX_FAILURES: usize = 20;
/// How long a record may wait for its acknowledgement, retries included.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the broker at the start.
const METADATA_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a call waits for acknowledgements before it looks again at what it waits for.
const POLL: Duration = Duration::from_millis(20);

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// The sender's number for it, such as a line; failures name it.
    pub number: u64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: &'a [u8],
    /// Write it to the partition after its key's; for tests of poison.
    pub wrong_partition: bool,
}

/// A record that was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRecord {
    /// The sender's number.
    pub number: u64,
    /// Why.
    pub reason: String,
}

/// What became of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Acknowledged by all replicas.
    pub delivered: u64,
    /// Not delivered.
    pub failed: u64,
    /// The first of those that failed.
    pub failures: Vec<FailedRecord>,
}

/// Why records cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The client's settings are not accepted, or the broker does not answer.
    #[error("cannot reach Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The topic does not exist.
    #[error("the topic {topic} does not exist; create it with `campaignd topology apply`")]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// Records failed; more would too.
    #[error("{failed} records were not delivered, the first (number {}): {}", first.number, first.reason)]
    Failed {
        /// How many.
        failed: u64,
        /// The first of them.
        first: FailedRecord,
    },
}

/// Writes records to one topic. Its calls block.
pub struct EventProducer {
    producer: BaseProducer<Reports>,
    topic: String,
    partitioner: Partitioner,
    partition_count: i32,
}

impl EventProducer {
    /// Connects and looks the topic up.
    pub fn connect(
        mut client: ClientConfig,
        topic: &str,
        partitioner: Partitioner,
    ) -> Result<EventProducer, ProduceError> {
        let librdkafka_name = match partitioner {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
        };
        client
            .set("enable.idempotence", "true")
            .set("partitioner", librdkafka_name)
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536");
        let producer: BaseProducer<Reports> = client.create_with_context(Reports::default())?;
        // Asking for all topics, because asking for one may create it.
        let metadata = producer.client().fetch_metadata(None, METADATA_TIMEOUT)?;
        let found = metadata.topics().iter().find(|known| known.name() == topic);
        let partition_count = found.map_or(0, |found| found.partitions().len());
        match i32::try_from(partition_count) {
            Ok(partition_count) if partition_count > 0 => {
                Ok(EventProducer { producer, topic: topic.to_owned(), partitioner, partition_count })
            }
            _ => Err(ProduceError::NoTopic { topic: topic.to_owned() }),
        }
    }

    /// Partitions of the topic.
    pub fn partition_count(&self) -> i32 {
        self.partition_count
    }

    /// Queues a record; waits while the queue is full. Fails when an earlier record failed: a batch has a hole then.
    pub fn send(&self, record: NewRecord<'_>) -> Result<(), ProduceError> {
        let number = usize::try_from(record.number).unwrap_or(usize::MAX);
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, number);
        message.key = record.key;
        message.payload = Some(record.value);
        if record.wrong_partition {
            let right = self.partitioner.partition(record.key.unwrap_or_default(), self.partition_count);
            message.partition = Some((right + 1) % self.partition_count);
        }
        loop {
            self.wait(Duration::ZERO);
            self.check()?;
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.wait(POLL);
                    message = again;
                }
                Err((error, _)) => {
                    let first = FailedRecord { number: record.number, reason: error.to_string() };
                    return Err(ProduceError::Failed { failed: 1, first });
                }
            }
        }
    }

    /// Waits for acknowledgements, no longer than the time-out.
    pub fn wait(&self, timeout: Duration) {
        self.producer.poll(timeout);
    }

    /// What became of the records so far.
    pub fn deliveries(&self) -> Deliveries {
        self.producer.context().lock().clone()
    }

    /// Waits until every queued record is delivered or has failed.
    pub fn finish(self) -> Deliveries {
        // Every record ends within its own time-out; the deadline is for a client that does not keep it.
        let deadline = Instant::now() + DELIVERY_TIMEOUT + METADATA_TIMEOUT;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            // A flush lets go of what lingers; polling in between keeps its wait short (it waits in slices of 100 ms).
            let _ = self.producer.flush(Duration::ZERO);
            self.wait(POLL);
        }
        let mut deliveries = self.deliveries();
        let lost = u64::try_from(self.producer.in_flight_count()).unwrap_or(0);
        deliveries.failed += lost;
        deliveries
    }

    fn check(&self) -> Result<(), ProduceError> {
        let deliveries = self.producer.context().lock();
        match deliveries.failures.first() {
            None => Ok(()),
            Some(first) => Err(ProduceError::Failed { failed: deliveries.failed, first: first.clone() }),
        }
    }
}

/// Counts what was delivered.
#[derive(Default)]
struct Reports {
    deliveries: Mutex<Deliveries>,
}

impl Reports {
    fn lock(&self) -> std::sync::MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut deliveries = self.lock();
        match result {
            Ok(_) => deliveries.delivered += 1,
            Err((error, _)) => {
                deliveries.failed += 1;
                if deliveries.failures.len() < MAX_FAILURES {
                    let number = u64::try_from(number).unwrap_or(u64::MAX);
                    deliveries.failures.push(FailedRecord { number, reason: error.to_string() });
                }
            }
        }
    }
}
