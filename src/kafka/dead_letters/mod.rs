//! The dead letter topic: reading it, replaying from it, deleting its front.
//!
//! What is meant by a filter, an order or an earlier replay stands in [`crate::dead_letters`]; here is what Kafka does for
//! it. What always holds: a record goes back to `events` in the transaction that moves the replay's position, so that no
//! crash loses or repeats it; all replays of a group share one transactional id, so that of two at once one ends.

mod earlier;
mod log;
mod purge;
mod replay;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

pub use earlier::earlier;
pub use log::{Log, Next};
pub use purge::{Doomed, delete, doomed, forget};
pub use replay::{Controls, Outcome, replay, would_replay};

use super::transactions::WriteError;
use crate::partitioner::Partitioner;

/// How to reach the topic, and what belongs to it.
#[derive(Clone, Debug)]
pub struct DeadLetterTopic {
    /// Brokers, TLS, SASL and pass-through properties; nothing about delivery.
    pub client: ClientConfig,
    /// Name of the topic.
    pub topic: String,
    /// The topic that dead letters come from and go back to.
    pub events: String,
    /// How its producers choose a key's partition.
    pub partitioner: Partitioner,
    /// The processor's group; groups and transactional id of replays are named after it.
    pub group_id: String,
    /// Longest wait for one answer of the broker.
    pub request_timeout: Duration,
    /// How long a transaction may stay open before the broker aborts it; while a killed one is open, the processor reads no
    /// further in the partitions that it wrote to.
    pub transaction_timeout: Duration,
}

impl DeadLetterTopic {
    /// The transactional id that all replays of a group share.
    pub fn transactional_id(&self) -> String {
        format!("{}-dlq-replay", self.group_id)
    }
}

/// Why dead letters cannot be read, replayed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// There is no such topic.
    #[error("the topic {0} does not exist; create it with `campaignd topology apply`")]
    NoTopic(String),
    /// The topic has no such partition.
    #[error("the topic {topic} has the partitions 0 to {last} and no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// Its last partition.
        last: i32,
    },
    /// The broker does not answer, or refuses.
    #[error("the topic {topic} cannot be reached: {cause}; check kafka.brokers and the credentials")]
    Unreachable {
        /// The topic.
        topic: String,
        /// What the client says.
        cause: String,
    },
    /// Reading stopped half way.
    #[error(
        "the topic {topic} was not read to its end: nothing came for {seconds} s, at {at}{cause}; try again"
    )]
    NotRead {
        /// The topic.
        topic: String,
        /// How long nothing came.
        seconds: u64,
        /// Where reading stands.
        at: String,
        /// The last error of the client, if there was one.
        cause: String,
    },
    /// The positions of earlier replays cannot be read.
    #[error(
        "the positions of earlier replays cannot be read: {0}; if a replay is running or was just killed, try again \
         when its transaction has ended"
    )]
    Positions(String),
    /// More replays than are looked at.
    #[error(
        "there are {found} groups named {prefix}…, one for each replay, and at most {bound} are looked at; delete dead \
         letters that are done with by `campaignd dlq purge`, which deletes their groups too"
    )]
    TooManyReplays {
        /// How many there are.
        found: usize,
        /// How their names begin.
        prefix: String,
        /// How many there may be.
        bound: usize,
    },
    /// A position of another topic of the same name.
    #[error(
        "the group {group} has come to offset {position} of {topic}[{partition}], which ends at {end}: the topic has been \
         created anew; delete the group with Kafka's tools, then replay again"
    )]
    OtherLog {
        /// The topic.
        topic: String,
        /// The group of the replay.
        group: String,
        /// The partition.
        partition: i32,
        /// The group's position.
        position: i64,
        /// Where the log ends.
        end: i64,
    },
    /// Another replay has begun.
    #[error(
        "another replay has begun, or a transaction of this one has timed out, and this one has ended; what it says it has \
         replayed is on the events topic; run it again when the other is through, and it goes on where it stopped"
    )]
    Overtaken,
    /// A transaction did not go through.
    #[error(
        "the last records were not replayed: {0}; run the same command again, and it goes on where this one stopped"
    )]
    NotWritten(String),
    /// It is not known whether a transaction went through.
    #[error(
        "it is not known whether the last records were replayed: {0}; run the same command again, which finds out and goes on"
    )]
    Unknown(String),
    /// Too many records that `events` does not take.
    #[error(
        "more than {bound} records of partition {partition} are too large for the events topic; raise its \
         max.message.bytes, or replay others with a filter"
    )]
    TooManyTooLarge {
        /// The partition.
        partition: i32,
        /// How many there may be.
        bound: usize,
    },
    /// The broker does not delete.
    #[error("partition {partition} of {topic} was not deleted from: {cause}")]
    NotDeleted {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What the broker says.
        cause: String,
    },
}

impl DeadLetterError {
    /// Whether it was asked for what there is not.
    pub fn is_refusal(&self) -> bool {
        matches!(self, DeadLetterError::NoPartition { .. })
    }
}

impl From<WriteError> for DeadLetterError {
    fn from(error: WriteError) -> DeadLetterError {
        match error {
            WriteError::Overtaken => DeadLetterError::Overtaken,
            WriteError::Unknown(cause) => DeadLetterError::Unknown(cause),
            WriteError::TooLarge => DeadLetterError::NotWritten(error.to_string()),
            WriteError::NotWritten(cause) => DeadLetterError::NotWritten(cause),
        }
    }
}

fn unreachable(topic: &str, error: &KafkaError) -> DeadLetterError {
    DeadLetterError::Unreachable { topic: topic.to_owned(), cause: error.to_string() }
}
