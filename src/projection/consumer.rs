//! The thread that polls, stores and commits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::records::{Batch, Complaints, Record};
use super::{Progress, ProjectionError, Settings};
use crate::backoff::Backoff;
use crate::schema::SchemaSource;
use crate::store::{AuditStore, StoreError};
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// How long a poll waits for the first record; also how soon a shutdown is seen.
const POLL: Duration = Duration::from_millis(100);
/// How long a batch that has its first record waits for more.
const GATHER: Duration = Duration::from_millis(20);
/// The longest wait between attempts, in first waits.
const LONGEST_RETRY_WAIT: u32 = 100;

/// Runs until `shutdown` or an error that does not mend.
pub(super) fn run(
    settings: &Settings,
    schemas: Arc<dyn SchemaSource>,
    store: Arc<dyn AuditStore>,
    metrics: Metrics,
    progress: Progress,
    shutdown: &CancellationToken,
    runtime: &Handle,
) -> Result<(), ProjectionError> {
    let kafka = |cause| ProjectionError::Kafka { topic: settings.topic.clone(), cause };
    let consumer = connect(settings).map_err(kafka)?;
    let mut projector = Projector {
        settings,
        consumer,
        schemas,
        store,
        metrics,
        progress,
        shutdown,
        runtime,
        complaints: Complaints::default(),
        poll_errors: BTreeSet::new(),
    };
    while !shutdown.is_cancelled() {
        let mut batch = projector.gather()?;
        if !batch.is_empty() && projector.store(&mut batch)? {
            projector.commit(&batch);
        }
    }
    // Dropping the consumer leaves the group.
    Ok(())
}

fn connect(settings: &Settings) -> Result<BaseConsumer, KafkaError> {
    let mut client = settings.client.clone();
    client
        .set("group.id", &settings.group_id)
        .set("session.timeout.ms", settings.session_timeout.as_millis().to_string())
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.wait.max.ms", "100")
        // Bounds what is fetched ahead, which would otherwise be 64 MiB for each partition.
        .set("queued.max.messages.kbytes", "4096");
    let consumer: BaseConsumer = client.create()?;
    consumer.subscribe(&[&settings.topic])?;
    Ok(consumer)
}

struct Projector<'a> {
    settings: &'a Settings,
    consumer: BaseConsumer,
    schemas: Arc<dyn SchemaSource>,
    store: Arc<dyn AuditStore>,
    metrics: Metrics,
    progress: Progress,
    shutdown: &'a CancellationToken,
    runtime: &'a Handle,
    complaints: Complaints,
    /// Errors of polling that are logged and have not gone away since.
    poll_errors: BTreeSet<String>,
}

/// Why a batch is not stored yet.
#[derive(Debug, thiserror::Error)]
enum Delay {
    #[error("audit rows wait for the store: {0}")]
    Store(String),
    #[error("audit rows wait for the registry: {0}")]
    Registry(String),
}

impl Projector<'_> {
    /// The records of one round, none when there are none.
    fn gather(&mut self) -> Result<Batch, ProjectionError> {
        let mut batch = Batch::default();
        let Some(first) = self.poll(POLL)? else { return Ok(batch) };
        batch.push(first);
        let deadline = Instant::now() + GATHER;
        while batch.len() < self.settings.batch_max_records {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.poll(left)? {
                Some(record) => batch.push(record),
                None => break,
            }
        }
        Ok(batch)
    }

    fn poll(&mut self, wait: Duration) -> Result<Option<Record>, ProjectionError> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => {
                self.poll_errors.clear();
                Ok(Some(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    value: message.payload().map(<[u8]>::to_vec),
                }))
            }
            Some(Err(cause)) => {
                if self.consumer.client().fatal_error().is_some() {
                    return Err(ProjectionError::Kafka { topic: self.settings.topic.clone(), cause });
                }
                // librdkafka goes on trying; what it says is worth a line, not a line a second.
                if self.poll_errors.insert(cause.to_string()) {
                    tracing::warn!(topic = %self.settings.topic, "the audit projection waits for its topic: {cause}");
                }
                Ok(None)
            }
        }
    }

    /// Stores the batch, however long that takes; `false` when the process ends first.
    fn store(&mut self, batch: &mut Batch) -> Result<bool, ProjectionError> {
        let first = self.settings.retry_wait;
        let mut backoff = Backoff::new(first, first * LONGEST_RETRY_WAIT);
        let mut waiting = false;
        let stored = loop {
            let Some(delay) = self.attempt(batch)? else { break true };
            waiting = true;
            if matches!(delay, Delay::Store(_)) {
                self.metrics.store_retry(StoreOperation::Audit);
            }
            if !self.idle(batch, backoff.after(&delay))? {
                break false;
            }
        };
        if waiting {
            self.each_assigned("resumed", |consumer, assigned| consumer.resume(assigned));
            if stored {
                tracing::info!("audit rows are stored again");
            }
        }
        Ok(stored)
    }

    fn attempt(&mut self, batch: &mut Batch) -> Result<Option<Delay>, ProjectionError> {
        let decode = batch.decode(self.schemas.as_ref(), &self.metrics, &mut self.complaints);
        if let Err(error) = self.runtime.block_on(decode) {
            return Ok(Some(Delay::Registry(error.to_string())));
        }
        match self.runtime.block_on(self.store.insert_audit(batch.rows())) {
            Ok(()) => {
                self.metrics.projected_rows(batch.rows().len() as u64);
                Ok(None)
            }
            Err(StoreError::Unavailable(what)) => Ok(Some(Delay::Store(what))),
            Err(other) => Err(ProjectionError::Store(other)),
        }
    }

    /// Lets time pass with the partitions paused, polling all the while so that the group keeps us; `false` when the
    /// process ends first. A partition that is assigned meanwhile comes unpaused: what it delivers joins the batch.
    fn idle(&mut self, batch: &mut Batch, wait: Duration) -> Result<bool, ProjectionError> {
        let deadline = Instant::now() + wait;
        self.each_assigned("paused", |consumer, assigned| consumer.pause(assigned));
        loop {
            if self.shutdown.is_cancelled() {
                return Ok(false);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(record) = self.poll(left.min(POLL))? {
                batch.push(record);
                self.each_assigned("paused", |consumer, assigned| consumer.pause(assigned));
            }
            if left.is_zero() {
                return Ok(true);
            }
        }
    }

    fn each_assigned(
        &self,
        what: &str,
        change: impl Fn(&BaseConsumer, &TopicPartitionList) -> Result<(), KafkaError>,
    ) {
        let result = self.consumer.assignment().and_then(|assigned| change(&self.consumer, &assigned));
        if let Err(error) = result {
            tracing::warn!("partitions of the audit projection could not be {what}: {error}");
        }
    }

    /// Commits behind the batch. A commit that fails costs nothing: the next one covers it, or the rows are written
    /// again by whoever reads them again.
    fn commit(&self, batch: &Batch) {
        let committed = self.consumer.assignment().and_then(|assigned| {
            let mut offsets = TopicPartitionList::new();
            for (partition, next) in batch.next() {
                // Another member may have taken the partition over and be further.
                if assigned.find_partition(&self.settings.topic, *partition).is_some() {
                    offsets.add_partition_offset(&self.settings.topic, *partition, Offset::Offset(*next))?;
                }
            }
            if offsets.count() == 0 { Ok(()) } else { self.consumer.commit(&offsets, CommitMode::Sync) }
        });
        if let Err(error) = committed {
            tracing::warn!(
                "the audit projection could not commit its offsets and will try with the next rows: {error}"
            );
        }
        self.progress.raise(batch.next());
    }
}
