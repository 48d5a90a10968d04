//! librdkafka's mock cluster. It stores no transactional offsets and shows uncommitted records, so the stories on it
//! prove order, outcomes and poison handling, and nothing about exactly-once.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::kafka::Kafka;

/// A broker in this process; it lives as long as the value.
pub struct MockKafka {
    /// How to reach it.
    pub kafka: Kafka,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockKafka {
    /// Starts a broker with these topics and partition counts.
    pub fn start(topics: &[(&str, i32)]) -> MockKafka {
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        let mock = MockKafka { kafka: Kafka::at(&cluster.bootstrap_servers()), cluster };
        topics.iter().for_each(|(topic, partitions)| mock.create_topic(topic, *partitions));
        mock
    }

    /// Creates a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        self.cluster.create_topic(topic, partitions, 1).expect("the mock cluster creates a topic");
    }
}
