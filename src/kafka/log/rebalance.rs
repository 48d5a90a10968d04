//! What the group's rebalances do: assign paused at once, and wait for the drain before giving partitions back.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_resp_err_t as ErrorCode;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use crate::kafka::client_log;
use crate::pipeline::log::{LogError, Signal};

/// Consumer context of the polling thread; its callbacks run inside `poll`.
pub struct Rebalances {
    events: String,
    signals: mpsc::Sender<Signal>,
    drain_timeout: Duration,
}

impl Rebalances {
    pub(super) fn new(events: String, signals: mpsc::Sender<Signal>, drain_timeout: Duration) -> Rebalances {
        Rebalances { events, signals, drain_timeout }
    }

    /// Assigns every partition with an explicit offset and pauses it. Without an explicit offset librdkafka fetches
    /// the committed one itself, and `auto.offset.reset=error` wedges a partition that has none (rule O1).
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        given: &TopicPartitionList,
    ) -> Result<Vec<i32>, KafkaError> {
        let mut partitions: Vec<i32> =
            given.elements_for_topic(&self.events).iter().map(|e| e.partition()).collect();
        partitions.sort_unstable();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in &partitions {
            list.add_partition_offset(&self.events, *partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        consumer.pause(&list)?;
        Ok(partitions)
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
            ErrorCode::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(consumer, list).map(|partitions| Some(Signal::Assigned { partitions, tiers: 0 }))
            }
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
