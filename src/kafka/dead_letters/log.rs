//! The dead letter topic as it stands at one moment, or a part of it, record by record.
//!
//! What always holds: reading ends at the last stable offset of the moment it was opened, so a replay does not run after
//! what it has caused itself; within a partition records come in order of their offsets; a part is in memory that does not
//! grow with the topic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{DeadLetterError, DeadLetterTopic, unreachable};
use crate::dead_letters::{DeadLetter, Filter, Place};
use crate::kafka::raw::{self, GroupMetadata};
use crate::kafka::reader::{self, QuietConsumer};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A reader of the topic.
pub struct Log {
    consumer: QuietConsumer,
    topic: String,
    timeout: Duration,
    bounds: BTreeMap<i32, Range<i64>>,
    /// What is still to be read, by partition.
    open: BTreeMap<i32, Range<i64>>,
    last_record: Instant,
    last_error: Option<KafkaError>,
}

/// What came.
#[derive(Debug)]
pub enum Next {
    /// A record.
    Letter(Box<DeadLetter>),
    /// Nothing for a moment.
    Nothing,
    /// There is no more.
    End,
}

impl Log {
    /// Looks where the partitions begin and end, as a member of a group that is never joined. Blocks.
    pub fn open(at: &DeadLetterTopic, group_id: &str) -> Result<Log, DeadLetterError> {
        let failed = |error: KafkaError| unreachable(&at.topic, &error);
        let consumer = reader::consumer(at.client.clone(), group_id).map_err(failed)?;
        let partitions = reader::partitions(&consumer, &at.topic, at.request_timeout).map_err(failed)?;
        if partitions.is_empty() {
            return Err(DeadLetterError::NoTopic(at.topic.clone()));
        }
        let mut bounds = BTreeMap::new();
        for partition in partitions {
            // The consumer is read_committed, so the end is the last stable offset.
            let watermarks = consumer.fetch_watermarks(&at.topic, partition, at.request_timeout);
            let (start, end) = watermarks.map_err(failed)?;
            bounds.insert(partition, start..end);
        }
        Ok(Log {
            consumer,
            topic: at.topic.clone(),
            timeout: at.request_timeout,
            bounds,
            open: BTreeMap::new(),
            last_record: Instant::now(),
            last_error: None,
        })
    }

    /// Where each partition begins and ends.
    pub fn bounds(&self) -> &BTreeMap<i32, Range<i64>> {
        &self.bounds
    }

    /// Refuses a partition that is not there.
    pub fn check_partition(&self, partition: i32) -> Result<(), DeadLetterError> {
        if self.bounds.contains_key(&partition) {
            return Ok(());
        }
        let last = self.bounds.keys().next_back().copied().unwrap_or_default();
        Err(DeadLetterError::NoPartition { topic: self.topic.clone(), partition, last })
    }

    /// The parts of the log that can hold what the filter means. Blocks when the filter has a beginning in time.
    pub fn stretches(&self, filter: &Filter) -> Result<BTreeMap<i32, Range<i64>>, DeadLetterError> {
        if let Some(partition) = filter.partition {
            self.check_partition(partition)?;
        }
        let begin = filter.since_ms.map(|since_ms| self.offsets_at(since_ms)).transpose()?;
        let stretch = |(partition, bounds): (&i32, &Range<i64>)| {
            let begin = begin.as_ref().and_then(|begin| begin.get(partition)).copied();
            let log = begin.unwrap_or(bounds.start)..bounds.end;
            Some((*partition, filter.stretch(*partition, log)?))
        };
        Ok(self.bounds.iter().filter_map(stretch).collect())
    }

    /// The offset in each partition before which all records are older than this. Blocks.
    pub fn offsets_at(&self, time_ms: i64) -> Result<BTreeMap<i32, i64>, DeadLetterError> {
        let failed = |error: KafkaError| unreachable(&self.topic, &error);
        let mut times = TopicPartitionList::with_capacity(self.bounds.len());
        for partition in self.bounds.keys() {
            let time = Offset::Offset(time_ms.max(0));
            times.add_partition_offset(&self.topic, *partition, time).map_err(failed)?;
        }
        let found = self.consumer.offsets_for_times(times, self.timeout).map_err(failed)?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(failed)?;
            let Some(bounds) = self.bounds.get(&element.partition()) else { continue };
            let offset = match element.offset() {
                Offset::Offset(offset) => offset.clamp(bounds.start, bounds.end),
                // No record is as young as that.
                _ => bounds.end,
            };
            offsets.insert(element.partition(), offset);
        }
        Ok(offsets)
    }

    /// Begins to read these parts.
    pub fn read(&mut self, stretches: BTreeMap<i32, Range<i64>>) -> Result<(), DeadLetterError> {
        let failed = |error: KafkaError| unreachable(&self.topic, &error);
        let mut list = TopicPartitionList::with_capacity(stretches.len());
        for (partition, stretch) in &stretches {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(stretch.start))
                .map_err(failed)?;
        }
        self.consumer.assign(&list).map_err(failed)?;
        self.open = stretches;
        self.open.retain(|_, stretch| !stretch.is_empty());
        self.last_record = Instant::now();
        Ok(())
    }

    /// The next record of any part. Blocks for a moment.
    pub fn poll(&mut self) -> Result<Next, DeadLetterError> {
        while !self.open.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    self.last_record = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(stretch) = self.open.get_mut(&partition) else { continue };
                    if offset < stretch.start {
                        continue;
                    }
                    let letter = (offset < stretch.end).then(|| Box::new(letter(&message)));
                    stretch.start = offset.saturating_add(1);
                    if stretch.is_empty() {
                        self.close(partition);
                    }
                    if let Some(letter) = letter {
                        return Ok(Next::Letter(letter));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.look(partition),
                Some(Err(error)) if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                    return Err(unreachable(&self.topic, &error));
                }
                // The client goes on by itself; a broker that is away for a while is no reason to end.
                Some(Err(error)) => self.last_error = Some(error),
                None => {
                    self.open.keys().copied().collect::<Vec<_>>().into_iter().for_each(|p| self.look(p));
                    if self.last_record.elapsed() > self.timeout {
                        return Err(self.stuck());
                    }
                    return Ok(if self.open.is_empty() { Next::End } else { Next::Nothing });
                }
            }
        }
        Ok(Next::End)
    }

    /// The parts that are still to be read.
    pub fn open_parts(&self) -> &BTreeMap<i32, Range<i64>> {
        &self.open
    }

    /// What a transaction commits offsets of this group with. The group has no members: what keeps two of its users apart
    /// is the transactional id.
    pub fn group(&self) -> Option<GroupMetadata> {
        GroupMetadata::capture(&self.consumer)
    }

    /// A part may end in markers of transactions, which are no records but move the position.
    fn look(&mut self, partition: i32) {
        let Ok(positions) = self.consumer.position() else { return };
        let position = positions.find_partition(&self.topic, partition).map(|element| element.offset());
        if let (Some(Offset::Offset(position)), Some(stretch)) = (position, self.open.get_mut(&partition)) {
            stretch.start = stretch.start.max(position);
            if stretch.is_empty() {
                self.close(partition);
            }
        }
    }

    fn close(&mut self, partition: i32) {
        self.open.remove(&partition);
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, partition);
        // Only saves fetching what nobody reads.
        let _: KafkaResult<()> = self.consumer.pause(&list);
    }

    fn stuck(&self) -> DeadLetterError {
        let at: Vec<String> =
            self.open.iter().map(|(partition, stretch)| format!("{partition}@{}", stretch.start)).collect();
        DeadLetterError::NotRead {
            topic: self.topic.clone(),
            seconds: self.timeout.as_secs(),
            at: at.join(", "),
            cause: self
                .last_error
                .as_ref()
                .map(|error| format!(" (last error: {error})"))
                .unwrap_or_default(),
        }
    }
}

fn letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    DeadLetter::of(
        Place { partition: message.partition(), offset: message.offset() },
        message.timestamp().to_millis(),
        message.key().map(Bytes::copy_from_slice),
        message.payload().map(Bytes::copy_from_slice),
        raw::headers(message),
    )
}
