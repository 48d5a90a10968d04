//! The topics of a real cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::plan::{Actual, Planned};
use super::{Role, violations};
use crate::config::{Config, Topics};

/// Why the topics could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// No broker answered.
    #[error("kafka at {brokers} cannot {what}: {source}; check kafka.brokers and the security settings")]
    Kafka {
        /// Where it was tried.
        brokers: String,
        /// What was asked.
        what: &'static str,
        /// What the client says.
        source: KafkaError,
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
        let admin = config.client_config().create().map_err(|source| TopologyError::Kafka {
            brokers: brokers.clone(),
            what: "be set up",
            source,
        })?;
        Ok(Self { admin: Arc::new(admin), brokers, timeout: Duration::from_millis(config.kafka.timeout_ms) })
    }

    /// Those of our topics that are there.
    pub async fn actual(&self, names: &Topics) -> Result<BTreeMap<Role, Actual>, TopologyError> {
        let counts = self.partition_counts().await?;
        let present: Vec<(Role, &str, i32)> = Role::ALL
            .into_iter()
            .filter_map(|role| {
                let name = role.name(names);
                Some((role, name, *counts.get(name)?))
            })
            .collect();
        if present.is_empty() {
            return Ok(BTreeMap::new());
        }
        let specifiers: Vec<ResourceSpecifier<'_>> =
            present.iter().map(|(_, name, _)| ResourceSpecifier::Topic(name)).collect();
        let described = self
            .admin
            .describe_configs(&specifiers, &self.options())
            .await
            .map_err(|source| self.failed("describe the topics", source))?;
        let mut configs = BTreeMap::new();
        for resource in described {
            let resource = resource.map_err(|code| TopologyError::Topic {
                what: "to describe a",
                topic: String::new(),
                code,
            })?;
            if let OwnedResourceSpecifier::Topic(name) = &resource.specifier {
                configs.insert(name.clone(), settings(&resource));
            }
        }
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
            .map_err(|source| self.failed("create a topic", source))?;
        match results.into_iter().next() {
            Some(Err((topic, code))) => Err(TopologyError::Topic { what: "to create", topic, code }),
            _ => Ok(()),
        }
    }

    /// Refuses topics that the processor cannot work with; their partition counts when they are good.
    pub async fn check(&self, names: &Topics) -> Result<BTreeMap<Role, i32>, TopologyError> {
        let actual = self.actual(names).await?;
        let wrong: Vec<String> = violations(names, &actual).iter().map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(TopologyError::Unfit(wrong.join("\n  ")));
        }
        Ok(actual.into_iter().map(|(role, topic)| (role, topic.partitions)).collect())
    }

    /// Asks for all topics at once: asking for one by name would create it where brokers do so by themselves.
    async fn partition_counts(&self) -> Result<BTreeMap<String, i32>, TopologyError> {
        let (admin, timeout) = (self.admin.clone(), self.timeout);
        let metadata =
            tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, timeout)).await?;
        let metadata = metadata.map_err(|source| self.failed("list the topics", source))?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| {
                (topic.name().to_string(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
            })
            .collect())
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout))
    }

    fn failed(&self, what: &'static str, source: KafkaError) -> TopologyError {
        TopologyError::Kafka { brokers: self.brokers.clone(), what, source }
    }
}

fn settings(resource: &ConfigResource) -> BTreeMap<String, String> {
    resource.entries.iter().filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect()
}
