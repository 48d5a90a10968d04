//! librdkafka's mock cluster. It stores no transactional offsets and shows uncommitted records, so the stories on it
//! prove order, outcomes and poison handling, and nothing about exactly-once.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::kafka::Kafka;

/// A broker in this process; it lives as long as the value.
pub struct MockKafka {
    /// How to reach it.
    pub kafka: Kafka,
    _cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockKafka {
    /// Starts a broker with these topics and partition counts.
    pub fn start(topics: &[(&str, i32)]) -> MockKafka {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).expect("the mock cluster creates a topic");
        }
        MockKafka { kafka: Kafka::at(&cluster.bootstrap_servers()), _cluster: cluster }
    }
}
