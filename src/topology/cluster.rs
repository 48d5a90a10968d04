//! The topics of a real cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::plan::{Actual, Planned};
use super::{Names, Role, names, violations};
use crate::config::Config;
use crate::kafka::broker::is_mock;

/// Why the topics could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// No broker answered.
    #[error("kafka at {brokers} cannot {what}: {answer}; check kafka.brokers and the security settings")]
    Kafka {
        /// Where it was tried.
        brokers: String,
        /// What was asked.
        what: &'static str,
        /// What the client says.
        answer: KafkaError,
    },
    /// The cluster refused one topic.
    #[error("kafka refuses {what} topic {topic}: {code}")]
    Topic {
        /// What was asked.
        what: &'static str,
        /// The topic.
        topic: String,
        /// Its answer.
        code: RDKafkaErrorCode,
    },
    /// The processor cannot work with the topics as they are.
    #[error("the topics are not as they must be:\n  {0}")]
    Unfit(String),
    /// A blocking call was cut off.
    #[error("the request was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// How often a topic that was just created is looked for, and the pause between: five seconds in all. It exists either
/// way.
const LISTED_LOOKS: u32 = 100;
const LISTED_PAUSE: Duration = Duration::from_millis(50);

struct Listed {
    counts: BTreeMap<String, i32>,
    tells_settings: bool,
}

/// The administrative side of a cluster.
pub struct Cluster {
    admin: Arc<AdminClient<DefaultClientContext>>,
    brokers: String,
    timeout: Duration,
}

impl Cluster {
    /// A client for the brokers of the configuration; nothing is contacted yet.
    pub fn new(config: &Config) -> Result<Self, TopologyError> {
        let brokers = config.kafka.brokers.clone();
        let admin = config.client_config().create().map_err(|answer| TopologyError::Kafka {
            brokers: brokers.clone(),
            what: "be set up",
            answer,
        })?;
        Ok(Self { admin: Arc::new(admin), brokers, timeout: Duration::from_millis(config.kafka.timeout_ms) })
    }

    /// Those of our topics that are there.
    pub async fn actual(&self, names: &Names) -> Result<BTreeMap<Role, Actual>, TopologyError> {
        let Listed { counts, tells_settings } = self.list().await?;
        let present: Vec<(Role, &str, i32)> = names
            .iter()
            .filter_map(|(role, name)| Some((*role, name.as_str(), *counts.get(name)?)))
            .collect();
        if present.is_empty() {
            return Ok(BTreeMap::new());
        }
        let specifiers: Vec<ResourceSpecifier<'_>> =
            present.iter().map(|(_, name, _)| ResourceSpecifier::Topic(name)).collect();
        let mut configs = if tells_settings { self.settings(&specifiers).await? } else { BTreeMap::new() };
        Ok(present
            .into_iter()
            .map(|(role, name, partitions)| {
                (role, Actual { partitions, config: configs.remove(name).unwrap_or_default() })
            })
            .collect())
    }

    /// Creates one planned topic and waits until the cluster has it.
    pub async fn create(&self, planned: &Planned, replicas: Option<i32>) -> Result<(), TopologyError> {
        // -1 is the cluster's default.
        let replicas = replicas.or(planned.topic.replicas).unwrap_or(-1);
        let mut topic =
            NewTopic::new(&planned.name, planned.topic.partitions, TopicReplication::Fixed(replicas));
        for (setting, value) in &planned.topic.config {
            topic = topic.set(setting, value);
        }
        let results = self
            .admin
            .create_topics([&topic], &self.options().operation_timeout(Some(self.timeout)))
            .await
            .map_err(|answer| self.failed("create a topic", answer))?;
        match results.into_iter().next() {
            Some(Err((topic, code))) => Err(TopologyError::Topic { what: "to create", topic, code }),
            _ => self.until_listed(&planned.name).await,
        }
    }

    /// A broker may not know a topic yet that the controller has just created; whoever asks next would be told that it
    /// does not exist.
    async fn until_listed(&self, name: &str) -> Result<(), TopologyError> {
        for _ in 0..LISTED_LOOKS {
            if self.list().await?.counts.get(name).is_some_and(|partitions| *partitions > 0) {
                break;
            }
            tokio::time::sleep(LISTED_PAUSE).await;
        }
        Ok(())
    }

    /// Refuses topics that the processor cannot work with; their partition counts when they are good.
    pub async fn check(&self, config: &Config) -> Result<BTreeMap<Role, i32>, TopologyError> {
        let names = names(config);
        let actual = self.actual(&names).await?;
        let wrong: Vec<String> = violations(&names, &actual).iter().map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(TopologyError::Unfit(wrong.join("\n  ")));
        }
        Ok(actual.into_iter().map(|(role, topic)| (role, topic.partitions)).collect())
    }

    /// Settings by topic.
    async fn settings(
        &self,
        specifiers: &[ResourceSpecifier<'_>],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, TopologyError> {
        let described = self.admin.describe_configs(specifiers, &self.options()).await;
        let described = described.map_err(|answer| self.failed("describe the topics", answer))?;
        let mut configs = BTreeMap::new();
        for resource in described {
            let resource =
                resource.map_err(|code| self.failed("describe a topic", KafkaError::AdminOp(code)))?;
            if let OwnedResourceSpecifier::Topic(name) = &resource.specifier {
                let entries = resource.entries.iter();
                let known = entries.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?)));
                configs.insert(name.clone(), known.collect());
            }
        }
        Ok(configs)
    }

    /// Asks for all topics at once: asking for one by name would create it where brokers do so by themselves.
    async fn list(&self) -> Result<Listed, TopologyError> {
        let (admin, timeout) = (self.admin.clone(), self.timeout);
        let listed = tokio::task::spawn_blocking(move || {
            let client = admin.inner();
            let metadata = client.fetch_metadata(None, timeout)?;
            let topics = metadata.topics().iter();
            let count = |partitions: usize| i32::try_from(partitions).unwrap_or(i32::MAX);
            let counts = topics.map(|topic| (topic.name().to_string(), count(topic.partitions().len())));
            let cluster_id = client.fetch_cluster_id(timeout).unwrap_or_default();
            Ok(Listed { counts: counts.collect(), tells_settings: !is_mock(&cluster_id) })
        });
        listed.await?.map_err(|answer| self.failed("list the topics", answer))
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout))
    }

    fn failed(&self, what: &'static str, answer: KafkaError) -> TopologyError {
        TopologyError::Kafka { brokers: self.brokers.clone(), what, answer }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;

    fn mock(topics: &[(&str, i32)]) -> (MockCluster<'static, DefaultProducerContext>, Config) {
        let broker = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            broker.create_topic(topic, *partitions, 1).unwrap();
        }
        let mut config = Config::default();
        config.kafka.brokers = broker.bootstrap_servers();
        (broker, config)
    }

    #[tokio::test]
    async fn good_topics_pass_even_where_the_broker_tells_no_settings() {
        let all = [("events", 4), ("campaigns", 1), ("decisions", 4), ("activity", 8), ("events.dlq", 4)];
        let retry = [("events.retry.1", 4), ("events.retry.2", 5)];
        let (_broker, mut config) = mock(&[&all[..], &retry[..]].concat());
        config.retry.delays_ms.truncate(2);
        let counts = Cluster::new(&config).unwrap().check(&config).await.unwrap();
        assert_eq!(counts[&Role::Events], 4);
        assert_eq!(counts[&Role::Activity], 8);
        assert_eq!(counts[&Role::Retry(2)], 5);
    }

    #[tokio::test]
    async fn too_few_partitions_and_missing_topics_are_refused_together() {
        let topics =
            [("events", 4), ("campaigns", 1), ("decisions", 2), ("activity", 4), ("events.retry.1", 3)];
        let (_broker, config) = mock(&topics);
        let error = Cluster::new(&config).unwrap().check(&config).await.unwrap_err().to_string();
        assert!(error.contains("topic decisions has 2 partitions; it must have at least 4"), "{error}");
        assert!(error.contains("topic events.dlq does not exist"), "{error}");
        assert!(error.contains("topic events.retry.1 has 3 partitions; it must have at least 4"), "{error}");
        assert!(error.contains("topic events.retry.4 does not exist"), "{error}");
    }
}
