//! A topic read by a command: all of it or a part, committed records only, without joining a group.
//!
//! What always holds: nothing is committed, and no topic is created by asking for it. What it is not: the processor's
//! reader, which shares partitions with other instances (`kafka::log`).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, config::RDKafkaLogLevel};

use super::client_log;

/// A consumer whose log goes to ours.
pub type QuietConsumer = BaseConsumer<Quiet>;

/// A consumer that tells the end of each partition. A group id is needed to assign partitions and to ask for its
/// offsets; the group is never joined.
pub fn consumer(mut client: ClientConfig, group_id: &str) -> KafkaResult<QuietConsumer> {
    client
        .set("group.id", group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.queue.backoff.ms", "10");
    client.create_with_context(Quiet)
}

/// The partitions of a topic, ascending; none when it does not exist.
pub fn partitions(consumer: &QuietConsumer, topic: &str, timeout: Duration) -> KafkaResult<Vec<i32>> {
    // Asking for all topics, because asking for one may create it.
    let metadata = consumer.fetch_metadata(None, timeout)?;
    let found = metadata.topics().iter().find(|known| known.name() == topic);
    let mut partitions: Vec<i32> =
        found.into_iter().flat_map(|found| found.partitions()).map(|p| p.id()).collect();
    partitions.sort_unstable();
    Ok(partitions)
}

/// Sends the client's log to ours.
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is asked for, and comes as a result of polling too.
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            client_log::error(&error, reason);
        }
    }
}

impl ConsumerContext for Quiet {}
