//! Reads what waits in the retry topics, to the very end of each partition.
//!
//! The end is the high watermark taken with read_uncommitted: under read_committed the broker tells the last stable
//! offset, and a user who was just parked could be missed, because the markers of a transaction reach the partitions one
//! by one. And it is the reader's position that has to get there, not its last record: a log ends in a marker (rule O2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset};
use tokio_util::sync::CancellationToken;

use super::LogSettings;
use super::names::InputNames;
use super::stands::{CALL_TIMEOUT, unavailable};
use crate::kafka::raw;
use crate::pipeline::log::{Input, LogError, Record};
use crate::pipeline::outputs::header;

/// One wait for a record; also how soon it is seen that nobody wants the answer any more.
const POLL: Duration = Duration::from_millis(50);

/// Reads retry partitions with consumers of its own, outside the group.
pub(super) struct WaitingReader {
    config: ClientConfig,
    names: Arc<InputNames>,
    /// Asks for high watermarks.
    asking: BaseConsumer,
    /// Without progress for so long, a transaction hangs.
    patience: Duration,
}

/// A partition that is not read to its end yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    position: i64,
    end: i64,
}

impl WaitingReader {
    pub fn new(settings: &LogSettings, names: Arc<InputNames>) -> Result<WaitingReader, LogError> {
        let mut config = settings.client.clone();
        config
            // Never joined; it is here because a client that reads wants a group, and for ours there are permissions.
            .set("group.id", &settings.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // What was deleted since the question waits no more.
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.queue.backoff.ms", "10");
        let asking = config.clone().set("isolation.level", "read_uncommitted").create().map_err(|e| {
            LogError::Refused(format!(
                "the reader of the retry topics cannot be created: {e}; see the kafka section of the configuration"
            ))
        })?;
        config
            .set("isolation.level", "read_committed")
            // The end of a partition wakes the reader.
            .set("enable.partition.eof", "true");
        Ok(WaitingReader { config, names, asking, patience: settings.transaction_timeout * 2 })
    }

    /// Every committed record from the given offsets to the ends as of now, in the order of partitions and offsets,
    /// without its value and without headers that are not ours. Blocks.
    pub fn read(
        &self,
        from: &BTreeMap<Input, i64>,
        stop: &CancellationToken,
    ) -> Result<Vec<Record>, LogError> {
        let mut open = self.ends(from).map_err(|e| unavailable(&e))?;
        let mut records = Vec::new();
        if open.is_empty() {
            return Ok(records);
        }
        let consumer = self.assigned(&open).map_err(|e| unavailable(&e))?;
        let mut last_error = None;
        let mut progress = Instant::now();
        while !open.is_empty() && !stop.is_cancelled() {
            let mut look = true;
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let before = records.len();
                    look = self.take(&message, &open, &mut records);
                    if records.len() > before {
                        progress = Instant::now();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => last_error = Some(error),
            }
            if look && self.follow(&consumer, &mut open).map_err(|e| unavailable(&e))? {
                progress = Instant::now();
            }
            if progress.elapsed() > self.patience {
                return Err(self.stuck(&open, last_error));
            }
        }
        records.sort_by_key(|record| (record.input(), record.offset));
        Ok(records)
    }

    /// The partitions that hold anything between the offset and the end.
    fn ends(&self, from: &BTreeMap<Input, i64>) -> KafkaResult<BTreeMap<Input, Open>> {
        let mut open = BTreeMap::new();
        for (input, offset) in from {
            let name = self.names.of(input.topic);
            let (start, end) = self.asking.fetch_watermarks(name, input.partition, CALL_TIMEOUT)?;
            let position = start.max(*offset);
            if position < end {
                open.insert(*input, Open { position, end });
            }
        }
        Ok(open)
    }

    fn assigned(&self, open: &BTreeMap<Input, Open>) -> KafkaResult<BaseConsumer> {
        let offsets = open.iter().map(|(input, open)| (*input, open.position)).collect();
        let consumer: BaseConsumer = self.config.create()?;
        consumer.assign(&self.names.offsets(&offsets)?)?;
        Ok(consumer)
    }

    /// Keeps the record if it waits; true when it is the last one before the end.
    fn take(
        &self,
        message: &BorrowedMessage<'_>,
        open: &BTreeMap<Input, Open>,
        records: &mut Vec<Record>,
    ) -> bool {
        let Some(input) = self.names.input(message.topic(), message.partition()) else { return false };
        let Some(open) = open.get(&input).filter(|open| message.offset() < open.end) else { return true };
        let mut headers = raw::headers(message);
        // A producer's headers and our texts may be as large as values.
        headers.retain(|h| h.name.starts_with(header::PREFIX) && h.name != header::ERROR_TEXT);
        records.push(Record {
            topic: input.topic,
            partition: input.partition,
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(bytes::Bytes::copy_from_slice),
            value: None,
            headers,
        });
        message.offset() + 1 >= open.end
    }

    /// Notes the positions and lets go of the partitions that are read; true when one has moved.
    fn follow(&self, consumer: &BaseConsumer, open: &mut BTreeMap<Input, Open>) -> KafkaResult<bool> {
        let positions = consumer.position()?;
        let mut moved = false;
        for element in positions.elements() {
            let Some(input) = self.names.input(element.topic(), element.partition()) else { continue };
            if let (Offset::Offset(position), Some(open)) = (element.offset(), open.get_mut(&input)) {
                moved |= position > open.position;
                open.position = open.position.max(position);
            }
        }
        open.retain(|_, open| open.position < open.end);
        Ok(moved)
    }

    fn stuck(&self, open: &BTreeMap<Input, Open>, last_error: Option<KafkaError>) -> LogError {
        let at = |(input, open): (&Input, &Open)| {
            let name = self.names.of(input.topic);
            format!("{name}[{}] from offset {} to {}", input.partition, open.position, open.end)
        };
        let places: Vec<String> = open.iter().map(at).collect();
        let (places, seconds) = (places.join(", "), self.patience.as_secs());
        LogError::Unavailable(match last_error {
            Some(error) => format!("{places} could not be read within {seconds} s: {error}"),
            None => format!(
                "{places} could not be read within {seconds} s: a transaction that does not end hangs there; find it with \
                 `kafka-transactions.sh find-hanging` and abort it"
            ),
        })
    }
}
