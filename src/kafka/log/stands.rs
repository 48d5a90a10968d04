//! Committed offsets, watermarks and identity, read beside the polling thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::rebalance::Rebalances;
use crate::pipeline::log::{Input, LogError, LogIdentity, PartitionStand, StandReader};

/// One broker call; a pending transaction makes the broker answer "unstable" until it ends, so this is longer than a
/// round trip.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct KafkaStands {
    consumer: Arc<BaseConsumer<Rebalances>>,
    events: String,
}

impl KafkaStands {
    pub(super) fn new(consumer: Arc<BaseConsumer<Rebalances>>, events: String) -> KafkaStands {
        KafkaStands { consumer, events }
    }
}

/// The consumer is read_committed, so the broker answers with stable offsets only (rule O2).
fn read(
    consumer: &BaseConsumer<Rebalances>,
    events: &str,
    partitions: &[i32],
) -> Result<BTreeMap<Input, PartitionStand>, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(events, *partition);
    }
    let committed = consumer.committed_offsets(list, CALL_TIMEOUT)?;
    let mut stands = BTreeMap::new();
    for element in committed.elements() {
        element.error()?;
        let (start, end) = consumer.fetch_watermarks(events, element.partition(), CALL_TIMEOUT)?;
        let committed = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        stands.insert(Input::events(element.partition()), PartitionStand { committed, start, end });
    }
    Ok(stands)
}

fn identity(consumer: &BaseConsumer<Rebalances>, events: &str) -> Result<LogIdentity, LogError> {
    let metadata = consumer.fetch_metadata(Some(events), CALL_TIMEOUT).map_err(|e| unavailable(&e))?;
    let count = metadata.topics().iter().find(|t| t.name() == events).map_or(0, |t| t.partitions().len());
    if count == 0 {
        // It was there at the start, so a broker that does not know it is more likely than a deletion.
        let text =
            format!("the broker knows no topic {events}; if it was deleted, run `campaignd topology apply`");
        return Err(LogError::Unavailable(text));
    }
    let cluster_id = consumer
        .client()
        .fetch_cluster_id(CALL_TIMEOUT)
        .ok_or_else(|| LogError::Unavailable("the broker did not tell its cluster id".into()))?;
    Ok(LogIdentity { cluster_id, partition_count: i32::try_from(count).unwrap_or(i32::MAX), tiers: 0 })
}

fn unavailable(error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
            LogError::Refused(format!("{error}: grant the principal access to the topic and the group"))
        }
        _ => LogError::Unavailable(error.to_string()),
    }
}

#[async_trait]
impl StandReader for KafkaStands {
    async fn stands(&self, inputs: &[Input]) -> Result<BTreeMap<Input, PartitionStand>, LogError> {
        let partitions: Vec<i32> = inputs.iter().map(|i| i.partition).collect();
        let (consumer, events, partitions) = (Arc::clone(&self.consumer), self.events.clone(), partitions);
        tokio::task::spawn_blocking(move || {
            read(&consumer, &events, &partitions).map_err(|e| unavailable(&e))
        })
        .await
        .map_err(|e| LogError::Unavailable(e.to_string()))?
    }

    async fn waiting(&self, _: &BTreeMap<Input, i64>) -> Result<Vec<crate::pipeline::log::Record>, LogError> {
        Ok(Vec::new())
    }

    async fn delete_consumed(&self, _: &BTreeMap<Input, i64>) -> Result<(), LogError> {
        Ok(())
    }

    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let (consumer, events) = (Arc::clone(&self.consumer), self.events.clone());
        tokio::task::spawn_blocking(move || identity(&consumer, &events))
            .await
            .map_err(|e| LogError::Unavailable(e.to_string()))?
    }
}
