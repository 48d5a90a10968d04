//! The broker inside the demo and the embedded tests: librdkafka's mock cluster.
//!
//! It is good for a look and for tests of our own logic, and it can prove nothing about exactly-once: it stores no
//! transactional offsets, shows uncommitted records, never fences, has no admin API, and silently drops what goes
//! beyond about 5 MiB a partition.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// A broker on a free loopback port; it ends when this is dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts a broker with the given topics and partition counts.
    ///
    /// # Errors
    ///
    /// What librdkafka says when it cannot.
    pub fn start<'a>(topics: impl IntoIterator<Item = (&'a str, i32)>) -> Result<EmbeddedBroker, KafkaError> {
        let cluster = MockCluster::new(1)?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(EmbeddedBroker { cluster })
    }

    /// The address that clients, kcat among them, can use.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

/// How the id of a mock cluster begins.
const CLUSTER_ID: &str = "mockCluster";

/// Whether a cluster of this id is a mock, which has no admin requests and would let one run into its time-out.
pub fn is_mock(cluster_id: &str) -> bool {
    cluster_id.starts_with(CLUSTER_ID)
}
