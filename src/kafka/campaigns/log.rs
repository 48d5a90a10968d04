//! The topic as a log with one partition: from its beginning to an end that is known.
//!
//! Two clients: one reads under read_committed, so that records of aborted transactions are never seen; the other asks for
//! the high watermark under read_uncommitted, because the end that read_committed sees is the last stable offset and may
//! lie before records that were committed already. The end is reached when the POSITION is: the log may end in a
//! transaction marker, which is no record but moves the position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::{CampaignsError, CampaignsTopic};
use crate::campaign::live::{Change, LiveCampaigns, RejectedRecord};

/// The only partition.
pub(super) const PARTITION: i32 = 0;
/// How long one poll waits at most, and so how long a stop may take.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// The log, read from its beginning.
pub(super) struct TopicLog {
    consumer: BaseConsumer,
    watermarks: Watermarks,
}

/// Asks where the log begins and ends.
#[derive(Clone)]
pub(super) struct Watermarks {
    client: Arc<BaseConsumer>,
    topic: String,
    timeout: Duration,
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// First offset there is.
    pub(super) start: i64,
    /// The offset that the next record will get.
    pub(super) end: i64,
}

impl Watermarks {
    /// The bounds now. Blocks.
    pub(super) fn ask(&self) -> Result<Bounds, CampaignsError> {
        let (start, end) = self
            .client
            .fetch_watermarks(&self.topic, PARTITION, self.timeout)
            .map_err(|error| unreachable(&self.topic, &error))?;
        Ok(Bounds { start, end })
    }
}

impl TopicLog {
    /// Looks whether the topic is as it must be, and begins to read it. Blocks.
    pub(super) fn open(at: &CampaignsTopic) -> Result<TopicLog, CampaignsError> {
        let consumer = client(at, "read_committed").map_err(|error| unreachable(&at.topic, &error))?;
        check_topic(&consumer, at)?;
        let asking = client(at, "read_uncommitted").map_err(|error| unreachable(&at.topic, &error))?;
        let watermarks =
            Watermarks { client: Arc::new(asking), topic: at.topic.clone(), timeout: at.request_timeout };
        let log = TopicLog { consumer, watermarks };
        log.rewind().map_err(|error| unreachable(&at.topic, &error))?;
        Ok(log)
    }

    /// Reads from the beginning, again.
    pub(super) fn rewind(&self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.watermarks.topic, PARTITION, Offset::Beginning)?;
        self.consumer.assign(&list)
    }

    pub(super) fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    pub(super) fn poll(&self, timeout: Duration) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        self.consumer.poll(timeout)
    }

    /// The next offset to be read, markers counted; 0 before anything was.
    pub(super) fn position(&self) -> i64 {
        let position = self.consumer.position().ok();
        let offset = position.and_then(|list| {
            list.find_partition(&self.watermarks.topic, PARTITION).map(|element| element.offset())
        });
        match offset {
            Some(Offset::Offset(offset)) => offset,
            _ => 0,
        }
    }

    /// Hands over every record up to the end that the log has now. Blocks.
    pub(super) fn read_to_end(
        &self,
        timeout: Duration,
        mut take: impl FnMut(BorrowedMessage<'_>),
    ) -> Result<(), CampaignsError> {
        let begin = Instant::now();
        let bounds = self.watermarks.ask()?;
        let mut last_error = None;
        // A log whose records have all been deleted begins at its end.
        while self.position().max(bounds.start) < bounds.end {
            match self.poll(POLL) {
                Some(Ok(message)) => take(message),
                Some(Err(error)) => last_error = Some(error.to_string()),
                None => {}
            }
            if begin.elapsed() > timeout {
                return Err(not_caught_up(
                    &self.watermarks.topic,
                    self.position(),
                    bounds.end,
                    timeout,
                    last_error,
                ));
            }
        }
        Ok(())
    }
}

/// Folds a message of the topic.
pub(super) fn fold(
    live: &mut LiveCampaigns,
    message: &BorrowedMessage<'_>,
) -> Result<Change, RejectedRecord> {
    live.apply(message.key().unwrap_or_default(), message.payload(), message.offset())
}

pub(super) fn not_caught_up(
    topic: &str,
    position: i64,
    end: i64,
    timeout: Duration,
    last_error: Option<String>,
) -> CampaignsError {
    CampaignsError::NotCaughtUp {
        topic: topic.to_owned(),
        position,
        end,
        seconds: timeout.as_secs(),
        cause: last_error.map(|error| format!(" (last error: {error})")).unwrap_or_default(),
    }
}

pub(super) fn unreachable(topic: &str, error: &KafkaError) -> CampaignsError {
    CampaignsError::Unreachable { topic: topic.to_owned(), cause: error.to_string() }
}

fn client(at: &CampaignsTopic, isolation: &str) -> KafkaResult<BaseConsumer> {
    at.client
        .clone()
        // librdkafka wants a group even where nothing is committed; this one is never joined.
        .set("group.id", format!("campaigns-reader-{}", Uuid::new_v4()))
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        // Offsets that vanished lead back to the beginning; the reader notices and begins anew.
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "10")
        .create()
}

fn check_topic(consumer: &BaseConsumer, at: &CampaignsTopic) -> Result<(), CampaignsError> {
    let metadata = consumer
        .fetch_metadata(Some(&at.topic), at.request_timeout)
        .map_err(|error| unreachable(&at.topic, &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == at.topic) else {
        return Err(CampaignsError::MissingTopic(at.topic.clone()));
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Err(CampaignsError::MissingTopic(at.topic.clone()));
        }
        Some(code) => return Err(unreachable(&at.topic, &KafkaError::MetadataFetch(code))),
    }
    match found.partitions().len() {
        1 => Ok(()),
        partitions => Err(CampaignsError::PartitionCount { topic: at.topic.clone(), partitions }),
    }
}
