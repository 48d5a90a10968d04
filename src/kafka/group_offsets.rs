//! The group's offsets, set from outside while nobody is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Why they could not be set.
#[derive(Debug, thiserror::Error)]
pub enum GroupOffsetsError {
    /// Kafka did not do it.
    #[error("kafka cannot {what}: {answer}; check kafka.brokers and the security settings")]
    Kafka {
        /// What was asked.
        what: &'static str,
        /// What the client says.
        answer: KafkaError,
    },
    /// Instances are running.
    #[error("group {group} has {members} members; stop every instance of campaignd first")]
    Busy {
        /// The group.
        group: String,
        /// How many there are.
        members: usize,
    },
}

/// Where a partition's reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record that is there.
    Start,
    /// Behind the last one.
    End,
    /// Where the group stands, if that lies inside the log; else at the first record.
    Committed,
}

/// A client that acts for a group without joining it. Its calls block.
pub struct GroupOffsets {
    consumer: BaseConsumer,
    group: String,
    timeout: Duration,
}

impl GroupOffsets {
    /// A client for the group; nothing is contacted yet.
    pub fn new(client: &ClientConfig, group: &str, timeout: Duration) -> Result<Self, GroupOffsetsError> {
        let mut config = client.clone();
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer = config.create().map_err(|answer| failed("be set up", answer))?;
        Ok(Self { consumer, group: group.to_owned(), timeout })
    }

    /// Refuses a group that has members.
    pub fn check_empty(&self) -> Result<(), GroupOffsetsError> {
        let groups = self
            .consumer
            .fetch_group_list(Some(&self.group), self.timeout)
            .map_err(|answer| failed("describe the group", answer))?;
        let members =
            groups.groups().iter().find(|group| group.name() == self.group).map_or(0, |g| g.members().len());
        if members == 0 {
            Ok(())
        } else {
            Err(GroupOffsetsError::Busy { group: self.group.clone(), members })
        }
    }

    /// Cluster id, and the partition counts of the topics; 0 of one that is not there.
    pub fn identity(&self, topics: &[String]) -> Result<(String, BTreeMap<String, i32>), GroupOffsetsError> {
        let mut counts = BTreeMap::new();
        for topic in topics {
            let metadata = self
                .consumer
                .fetch_metadata(Some(topic), self.timeout)
                .map_err(|answer| failed("tell the partitions", answer))?;
            let found =
                metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
            counts.insert(topic.clone(), i32::try_from(found).unwrap_or(i32::MAX));
        }
        let id = self.consumer.client().fetch_cluster_id(self.timeout).unwrap_or_default();
        Ok((id, counts))
    }

    /// Where each partition of the topic would begin.
    pub fn positions(&self, topic: &str, partitions: i32, from: From) -> Result<Vec<i64>, GroupOffsetsError> {
        let mut list = TopicPartitionList::new();
        (0..partitions).for_each(|partition| {
            list.add_partition(topic, partition);
        });
        let committed = self
            .consumer
            .committed_offsets(list, self.timeout)
            .map_err(|answer| failed("tell the group's offsets", answer))?;
        let mut positions = Vec::new();
        for partition in 0..partitions {
            let (start, end) = self
                .consumer
                .fetch_watermarks(topic, partition, self.timeout)
                .map_err(|answer| failed("tell where a partition ends", answer))?;
            let standing = match committed.find_partition(topic, partition).map(|element| element.offset()) {
                Some(Offset::Offset(offset)) if (start..=end).contains(&offset) => Some(offset),
                _ => None,
            };
            positions.push(match from {
                From::Start => start,
                From::End => end,
                From::Committed => standing.unwrap_or(start),
            });
        }
        Ok(positions)
    }

    /// Sets the group's offsets of the topic.
    pub fn commit(&self, topic: &str, positions: &[i64]) -> Result<(), GroupOffsetsError> {
        let set = |answer| failed("set the group's offsets", answer);
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(positions) {
            list.add_partition_offset(topic, partition, Offset::Offset(*offset)).map_err(set)?;
        }
        self.consumer.commit(&list, CommitMode::Sync).map_err(set)
    }
}

fn failed(what: &'static str, answer: KafkaError) -> GroupOffsetsError {
    GroupOffsetsError::Kafka { what, answer }
}
