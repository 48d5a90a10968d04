//! Earlier replays, from the offsets of their groups.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{DeadLetterError, DeadLetterTopic};
use crate::dead_letters::{Order, Replayed};
use crate::kafka::reader;

/// Replays looked at. Each costs a client for a moment, and each record is held against each of them.
const MAX_REPLAYS: usize = 200;

/// All replays whose positions the broker still has, those under way included. Blocks.
///
/// By the names of their groups. Positions are stable ones: while a replay's transaction is open, this waits.
pub fn earlier(at: &DeadLetterTopic, partitions: &[i32]) -> Result<Vec<Replayed>, DeadLetterError> {
    let failed = |error: KafkaError| DeadLetterError::Positions(error.to_string());
    let prefix = Order::group_prefix(&at.group_id);
    let asking = reader::consumer(at.client.clone(), &prefix).map_err(failed)?;
    let groups = asking.fetch_group_list(None, at.request_timeout).map_err(failed)?;
    let mut names: Vec<&str> =
        groups.groups().iter().map(|group| group.name()).filter(|name| name.starts_with(&prefix)).collect();
    names.sort_unstable();
    if names.len() > MAX_REPLAYS {
        return Err(DeadLetterError::TooManyReplays { found: names.len(), prefix, bound: MAX_REPLAYS });
    }
    // Longer than a transaction may stay open, because an open one hides the positions.
    let timeout = at.request_timeout.max(at.transaction_timeout + Duration::from_secs(5));
    names.into_iter().map(|name| offsets(at, name, partitions, timeout)).collect()
}

fn offsets(
    at: &DeadLetterTopic,
    group_id: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<Replayed, DeadLetterError> {
    let failed = |error: KafkaError| DeadLetterError::Positions(error.to_string());
    let consumer = reader::consumer(at.client.clone(), group_id).map_err(failed)?;
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&at.topic, *partition);
    }
    let committed = consumer.committed_offsets(list, timeout).map_err(failed)?;
    let mut offsets = Vec::new();
    for element in committed.elements() {
        element.error().map_err(failed)?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.push((element.partition(), offset, element.metadata().to_owned()));
        }
    }
    Ok(Replayed::of(group_id.to_owned(), offsets))
}
