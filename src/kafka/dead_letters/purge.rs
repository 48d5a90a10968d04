//! Deleting the front of the topic.

use std::collections::BTreeMap;
use std::ops::Range;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::log::{Log, Next};
use super::{DeadLetterError, DeadLetterTopic, earlier, unreachable};
use crate::dead_letters::{By, Groups, Order, Replayed};

/// What would be deleted.
#[derive(Clone, Debug)]
pub struct Doomed {
    /// The offset of the first record that stays, by partition; only where something goes.
    pub before: BTreeMap<i32, i64>,
    /// Where each partition begins now.
    pub starts: BTreeMap<i32, i64>,
    /// What goes, by code.
    pub groups: Groups,
    /// Records that a replay was started for and has not reached, by the replay.
    pub unreached: Vec<(Replayed, u64)>,
    /// All replays.
    pub replays: Vec<Replayed>,
}

/// Reads what lies before these offsets. Blocks; `progress` is told how many offsets it has passed, and of how many.
pub fn doomed(
    at: &DeadLetterTopic,
    mut log: Log,
    before: &BTreeMap<i32, i64>,
    progress: &dyn Fn(u64, u64),
) -> Result<Doomed, DeadLetterError> {
    let partitions: Vec<i32> = log.bounds().keys().copied().collect();
    let replays = earlier(at, &partitions)?;
    let stretches: BTreeMap<i32, Range<i64>> = log
        .bounds()
        .iter()
        .filter_map(|(partition, bounds)| {
            let end = (*before.get(partition)?).min(bounds.end);
            (bounds.start < end).then_some((*partition, bounds.start..end))
        })
        .collect();
    let length = |parts: &BTreeMap<i32, Range<i64>>| -> u64 {
        parts.values().map(|part| u64::try_from(part.end - part.start).unwrap_or(0)).sum()
    };
    let total = length(&stretches);
    let before = stretches.iter().map(|(partition, stretch)| (*partition, stretch.end)).collect();
    let mut groups = Groups::new(&[By::Code]);
    let mut unreached = vec![0; replays.len()];
    log.read(stretches)?;
    loop {
        match log.poll()? {
            Next::End => break,
            Next::Nothing => {}
            Next::Letter(letter) => {
                groups.add(&letter);
                let is_replayed = replays.iter().any(|replay| replay.has_replayed(&letter));
                for (replay, count) in replays.iter().zip(&mut unreached) {
                    *count += u64::from(!is_replayed && replay.is_still_to_replay(&letter));
                }
            }
        }
        progress(total - length(log.open_parts()).min(total), total);
    }
    let starts = log.bounds().iter().map(|(partition, bounds)| (*partition, bounds.start)).collect();
    let unreached = replays.iter().cloned().zip(unreached).filter(|(_, count)| *count > 0).collect();
    Ok(Doomed { before, starts, groups, unreached, replays })
}

/// Deletes all records before these offsets; where each partition begins now.
pub async fn delete(
    at: &DeadLetterTopic,
    before: &BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, i64>, DeadLetterError> {
    let failed = |error: KafkaError| unreachable(&at.topic, &error);
    let mut list = TopicPartitionList::with_capacity(before.len());
    for (partition, offset) in before {
        list.add_partition_offset(&at.topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
    }
    let admin: AdminClient<DefaultClientContext> = at.client.create().map_err(failed)?;
    let options = AdminOptions::new()
        .request_timeout(Some(at.request_timeout))
        .operation_timeout(Some(at.request_timeout));
    let deleted = admin.delete_records(&list, &options).await.map_err(failed)?;
    let mut starts = BTreeMap::new();
    for element in deleted.elements() {
        let partition = element.partition();
        if let Err(error) = element.error() {
            let (topic, cause) = (at.topic.clone(), error.to_string());
            return Err(DeadLetterError::NotDeleted { topic, partition, cause });
        }
        if let Offset::Offset(start) = element.offset() {
            starts.insert(partition, start);
        }
    }
    Ok(starts)
}

/// Deletes the groups of replays of which nothing is left on the topic, whose partitions begin at these offsets. A group
/// that stays is no harm: the broker forgets it by itself some day.
pub async fn forget(at: &DeadLetterTopic, replays: &[Replayed], starts: &BTreeMap<i32, i64>) {
    let over: Vec<&str> = replays
        .iter()
        .filter(|replay| {
            replay.group_id.starts_with(&Order::group_prefix(&at.group_id)) && replay.is_over(starts)
        })
        .map(|replay| replay.group_id.as_str())
        .collect();
    if over.is_empty() {
        return;
    }
    let admin: Result<AdminClient<DefaultClientContext>, KafkaError> = at.client.create();
    let Ok(admin) = admin else { return };
    let options = AdminOptions::new().request_timeout(Some(at.request_timeout));
    match admin.delete_groups(&over, &options).await {
        Ok(results) => {
            for (group, code) in results.into_iter().filter_map(Result::err) {
                tracing::debug!(group, %code, "the group of a replay stays");
            }
        }
        Err(error) => tracing::debug!(%error, "the groups of replays stay"),
    }
}
