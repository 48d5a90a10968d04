//! What the group's rebalances do: assign paused at once, and wait for the drain before giving partitions back.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_resp_err_t as ErrorCode;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::LogSettings;
use super::names::InputNames;
use super::topics::KnownTopics;
use crate::kafka::client_log;
use crate::pipeline::log::{InputTopic, LogError, Signal};

/// Consumer context of the polling thread; its callbacks run inside `poll`.
pub struct Rebalances {
    names: Arc<InputNames>,
    topics: Arc<KnownTopics>,
    signals: mpsc::Sender<Signal>,
    drain_timeout: Duration,
    is_sole_member: bool,
}

impl Rebalances {
    pub(super) fn new(
        settings: &LogSettings,
        names: Arc<InputNames>,
        topics: Arc<KnownTopics>,
        signals: mpsc::Sender<Signal>,
    ) -> Rebalances {
        Rebalances {
            names,
            topics,
            signals,
            drain_timeout: settings.drain_timeout,
            is_sole_member: settings.is_sole_member,
        }
    }

    /// Assigns the given partitions of `events`, and those of the same numbers of every retry topic that is known, each
    /// with an explicit offset, and pauses them. Without an explicit offset librdkafka fetches the committed one itself,
    /// and `auto.offset.reset=error` wedges a partition that has none (rule O1).
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        given: &TopicPartitionList,
    ) -> Result<Signal, KafkaError> {
        let mut partitions: Vec<i32> =
            given.elements_for_topic(self.names.events()).iter().map(|e| e.partition()).collect();
        partitions.sort_unstable();
        let known = self.topics.get();
        let mut list = TopicPartitionList::new();
        for topic in std::iter::once(InputTopic::Events).chain((1..=known.tiers).map(InputTopic::Retry)) {
            for partition in &partitions {
                list.add_partition_offset(self.names.of(topic), *partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&list)?;
        consumer.pause(&list)?;
        if self.is_sole_member && partitions.len() < known.partitions {
            return Ok(Signal::Fatal(LogError::Refused(super::alone::NOT_ALONE.into())));
        }
        Ok(Signal::Assigned { partitions, tiers: known.tiers })
    }

    /// Waits until the processor has committed or dropped everything of the epoch (rule O5), but not for ever.
    fn drain(&self, lost: bool) {
        // After the end nobody answers, and the last reference may be dropped where blocking is not allowed.
        if self.signals.is_closed() {
            return;
        }
        let (done, waiting) = oneshot::channel();
        if self.signals.blocking_send(Signal::Revoked { lost, done }).is_err() {
            return;
        }
        // The processor may take drain_timeout to drain and as long to settle; longer means it is gone, and the broker's
        // fencing of the old generation is what remains.
        let deadline = std::time::Instant::now() + self.drain_timeout * 3;
        let mut waiting = waiting;
        while std::time::Instant::now() < deadline {
            match waiting.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        tracing::error!("the processor did not drain in time; its batches are left to the broker's fencing");
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: ErrorCode, list: &mut TopicPartitionList) {
        let outcome = match code {
            ErrorCode::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list).map(Some),
            _ => {
                self.drain(consumer.assignment_lost());
                consumer.unassign().map(|()| None)
            }
        };
        let signal = match outcome {
            Ok(signal) => signal,
            Err(error) => Some(Signal::Fatal(LogError::Refused(format!(
                "the group's assignment could not be taken over: {error}; restart the instance"
            )))),
        };
        if let Some(signal) = signal
            && !self.signals.is_closed()
        {
            // A closed channel means that the processor has ended; polling ends with it.
            let _ = self.signals.blocking_send(signal);
        }
    }
}
