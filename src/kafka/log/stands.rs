//! Committed offsets, watermarks, what waits and what is deleted, beside the polling thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::Offset;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

use super::LogSettings;
use super::names::InputNames;
use super::rebalance::Rebalances;
use super::topics::KnownTopics;
use super::waiting::WaitingReader;
use crate::kafka::broker::is_mock;
use crate::pipeline::log::{Input, InputTopic, LogError, LogIdentity, PartitionStand, Record, StandReader};

/// One broker call; a pending transaction makes the broker answer "unstable" until it ends, so this is longer than a
/// round trip.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct KafkaStands {
    broker: Broker,
    waiting: Arc<WaitingReader>,
    admin: AdminClient<DefaultClientContext>,
    /// The mock broker has no admin requests, and would let one run into its time-out.
    deletes: bool,
}

/// The clients that answer blocking questions; clones share them.
#[derive(Clone)]
struct Broker {
    consumer: Arc<BaseConsumer<Rebalances>>,
    names: Arc<InputNames>,
    topics: Arc<KnownTopics>,
}

impl KafkaStands {
    /// Reads which topics there are. Blocks.
    pub fn open(
        settings: &LogSettings,
        consumer: &Arc<BaseConsumer<Rebalances>>,
        names: &Arc<InputNames>,
        topics: &Arc<KnownTopics>,
    ) -> Result<KafkaStands, LogError> {
        let broker =
            Broker { consumer: Arc::clone(consumer), names: Arc::clone(names), topics: Arc::clone(topics) };
        let deletes = !is_mock(&broker.identity()?.cluster_id);
        let admin = settings.client.create().map_err(|e| {
            LogError::Refused(format!(
                "the admin client cannot be created: {e}; see the kafka section of the configuration"
            ))
        })?;
        let waiting = Arc::new(WaitingReader::new(settings, Arc::clone(names))?);
        Ok(KafkaStands { broker, waiting, admin, deletes })
    }
}

impl Broker {
    /// The consumer is read_committed, so the broker answers with stable offsets only (rule O2).
    fn stands(&self, inputs: &[Input]) -> Result<BTreeMap<Input, PartitionStand>, KafkaError> {
        let committed = self.consumer.committed_offsets(self.names.list(inputs), CALL_TIMEOUT)?;
        let mut stands = BTreeMap::new();
        for element in committed.elements() {
            element.error()?;
            let Some(input) = self.names.input(element.topic(), element.partition()) else { continue };
            let (start, end) =
                self.consumer.fetch_watermarks(element.topic(), element.partition(), CALL_TIMEOUT)?;
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            stands.insert(input, PartitionStand { committed, start, end });
        }
        Ok(stands)
    }

    fn identity(&self) -> Result<LogIdentity, LogError> {
        let topics = self.topics.refresh(&self.consumer, &self.names, CALL_TIMEOUT)?;
        let cluster_id = self
            .consumer
            .client()
            .fetch_cluster_id(CALL_TIMEOUT)
            .ok_or_else(|| LogError::Unavailable("the broker did not tell its cluster id".into()))?;
        let partition_count = i32::try_from(topics.partitions).unwrap_or(i32::MAX);
        Ok(LogIdentity { cluster_id, partition_count, tiers: topics.tiers })
    }
}

/// What a failed call means to the pipeline.
pub(super) fn unavailable(error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
            LogError::Refused(format!("{error}: grant the principal access to the topic and the group"))
        }
        _ => LogError::Unavailable(error.to_string()),
    }
}

/// Runs a blocking call where it holds up nobody.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(call).await.map_err(|e| LogError::Unavailable(e.to_string()))?
}

#[async_trait]
impl StandReader for KafkaStands {
    async fn stands(&self, inputs: &[Input]) -> Result<BTreeMap<Input, PartitionStand>, LogError> {
        let (broker, inputs) = (self.broker.clone(), inputs.to_vec());
        blocking(move || broker.stands(&inputs).map_err(|e| unavailable(&e))).await
    }

    async fn waiting(&self, from: &BTreeMap<Input, i64>) -> Result<Vec<Record>, LogError> {
        let (reader, from) = (Arc::clone(&self.waiting), from.clone());
        // Whoever stops waiting for the answer stops the reading too.
        let stop = CancellationToken::new();
        let _stopped_with_this_call = stop.clone().drop_guard();
        blocking(move || reader.read(&from, &stop)).await
    }

    async fn delete_consumed(&self, below: &BTreeMap<Input, i64>) -> Result<(), LogError> {
        let of_retry = below.iter().filter(|(input, _)| input.topic != InputTopic::Events);
        let below: BTreeMap<Input, i64> = of_retry.map(|(input, offset)| (*input, *offset)).collect();
        if below.is_empty() || !self.deletes {
            return Ok(());
        }
        let deleting = {
            let list = self.broker.names.offsets(&below).map_err(|e| unavailable(&e))?;
            self.admin.delete_records(&list, &AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)))
        };
        let answered = deleting.await.map_err(|e| unavailable(&e))?;
        for element in answered.elements() {
            match element.error().map_err(|e| (e.rdkafka_error_code(), e)) {
                // Another owner has deleted further.
                Ok(()) | Err((Some(RDKafkaErrorCode::OffsetOutOfRange), _)) => {}
                Err((Some(RDKafkaErrorCode::TopicAuthorizationFailed), error)) => {
                    return Err(LogError::Refused(format!(
                        "{}: {error}: grant the principal DELETE on the retry topics, which have no retention and would \
                         grow for ever",
                        element.topic()
                    )));
                }
                Err((_, error)) => {
                    let (topic, partition) = (element.topic(), element.partition());
                    return Err(LogError::Unavailable(format!(
                        "the consumed records of {topic}[{partition}] are not deleted: {error}"
                    )));
                }
            }
        }
        Ok(())
    }

    async fn identity(&self) -> Result<LogIdentity, LogError> {
        let broker = self.broker.clone();
        blocking(move || broker.identity()).await
    }
}
