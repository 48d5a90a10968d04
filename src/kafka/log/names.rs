//! Names of the input topics, and whose a name is.

use std::collections::BTreeMap;

use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use crate::pipeline::log::{Input, InputTopic};

/// The topics that an owner reads.
#[derive(Clone, Debug)]
pub(super) struct InputNames {
    events: String,
    /// Of tier 1 and those behind it.
    retry: Vec<String>,
}

impl InputNames {
    pub fn new(events: &str, retry: &[String]) -> InputNames {
        InputNames { events: events.to_owned(), retry: retry.to_vec() }
    }

    /// Name of `events`.
    pub fn events(&self) -> &str {
        &self.events
    }

    /// Each tier and the name of its topic, whether it exists or not.
    pub fn tiers(&self) -> impl Iterator<Item = (u8, &str)> {
        (1..=u8::MAX).zip(self.retry.iter().map(String::as_str))
    }

    /// Name of a topic. A tier that has none gets an empty name, which every client refuses.
    pub fn of(&self, topic: InputTopic) -> &str {
        match topic {
            InputTopic::Events => &self.events,
            InputTopic::Retry(tier) => {
                self.tiers().find(|(known, _)| *known == tier).map_or("", |(_, name)| name)
            }
        }
    }

    /// The topic of a name.
    pub fn topic(&self, name: &str) -> Option<InputTopic> {
        if name == self.events {
            return Some(InputTopic::Events);
        }
        self.tiers().find(|(_, known)| *known == name).map(|(tier, _)| InputTopic::Retry(tier))
    }

    /// The partition of an element of one of librdkafka's lists.
    pub fn input(&self, topic: &str, partition: i32) -> Option<Input> {
        Some(Input { topic: self.topic(topic)?, partition })
    }

    /// Partitions without offsets.
    pub fn list<'a>(&self, inputs: impl IntoIterator<Item = &'a Input>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for input in inputs {
            list.add_partition(self.of(input.topic), input.partition);
        }
        list
    }

    /// Partitions with offsets.
    pub fn offsets(&self, offsets: &BTreeMap<Input, i64>) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (input, offset) in offsets {
            list.add_partition_offset(self.of(input.topic), input.partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_topics_lead_to_each_other() {
        let retry: Vec<String> = (1..=3).map(|tier| format!("again.{tier}")).collect();
        let names = InputNames::new("in", &retry);
        for topic in [InputTopic::Events, InputTopic::Retry(1), InputTopic::Retry(3)] {
            assert_eq!(names.topic(names.of(topic)), Some(topic));
        }
        assert_eq!(names.of(InputTopic::Retry(2)), "again.2");
        assert_eq!((names.of(InputTopic::Retry(0)), names.of(InputTopic::Retry(4))), ("", ""));
        assert_eq!((names.topic("again.4"), names.topic("")), (None, None));
    }
}
