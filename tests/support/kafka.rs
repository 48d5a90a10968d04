//! Producing to a broker and reading what stands there, as any other client of it would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::poll::until;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A record to be produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Partition, or by murmur2 of the key, as Java's producer does.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A record that stands on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Stored {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// A broker by its address.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `bootstrap.servers`.
    pub brokers: String,
}

#[derive(Default)]
struct Delivered(Arc<Mutex<Vec<String>>>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("no holder panics").push(error.to_string());
        }
    }
}

impl Kafka {
    /// The broker at an address.
    pub fn at(brokers: &str) -> Kafka {
        Kafka { brokers: brokers.to_owned() }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Creates topics with partition count and `cleanup.policy`; a topic that is there already is a mistake of the test.
    pub fn create_topics(&self, topics: &[(&str, i32, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let wanted: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions, cleanup)| {
                NewTopic::new(name, *partitions, TopicReplication::Fixed(1)).set("cleanup.policy", cleanup)
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in runtime.block_on(admin.create_topics(&wanted, &options)).expect("the broker answers") {
            result.expect("the topic is created");
        }
        // The broker may not list yet what the controller has just created.
        until("the topics to be listed", || {
            let metadata = admin.inner().fetch_metadata(None, TIMEOUT).expect("the broker answers");
            let listed = |name: &str| {
                metadata.topics().iter().any(|topic| topic.name() == name && !topic.partitions().is_empty())
            };
            let missing: Vec<&str> =
                topics.iter().map(|(name, ..)| *name).filter(|name| !listed(name)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
        });
    }

    /// Produces in this order and returns when all are acknowledged; a user's records keep their order.
    pub fn produce(&self, topic: &str, records: &[Record]) {
        let failures = Delivered::default();
        let seen = Arc::clone(&failures.0);
        let producer: ThreadedProducer<Delivered> = self
            .client()
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.max.bytes", "10000000")
            .create_with_context(failures)
            .expect("a producer");
        for record in records {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
            let mut next = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
            next.partition = record.partition;
            next.key = record.key.as_deref();
            next.payload = record.value.as_deref();
            let deadline = Instant::now() + TIMEOUT;
            while let Err((error, back)) = producer.send(next) {
                let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                assert!(full && Instant::now() < deadline, "cannot produce to {topic}: {error}");
                next = back;
                producer.flush(Duration::from_millis(50)).ok();
            }
        }
        producer.flush(TIMEOUT).expect("all is delivered in time");
        let failures = seen.lock().expect("no holder panics");
        assert!(failures.is_empty(), "not delivered to {topic}: {failures:?}");
    }

    /// Partition numbers of a topic.
    fn partitions(&self, topic: &str) -> Vec<i32> {
        let client: BaseConsumer = self.client().create().expect("a consumer");
        let metadata = client.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
        let topic = metadata.topics().iter().find(|found| found.name() == topic).expect("the topic");
        topic.partitions().iter().map(|partition| partition.id()).collect()
    }

    /// The end of each partition: the offset that the next record will get.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let client: BaseConsumer =
            self.client().set("isolation.level", "read_uncommitted").create().expect("a consumer");
        let end = |partition| client.fetch_watermarks(topic, partition, TIMEOUT).expect("watermarks").1;
        self.partitions(topic).into_iter().map(|partition| (partition, end(partition))).collect()
    }

    /// The beginning of each partition: the first offset that is still there.
    pub fn starts(&self, topic: &str) -> BTreeMap<i32, i64> {
        let client: BaseConsumer = self.client().create().expect("a consumer");
        let start = |partition| client.fetch_watermarks(topic, partition, TIMEOUT).expect("watermarks").0;
        self.partitions(topic).into_iter().map(|partition| (partition, start(partition))).collect()
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        for result in super::blocking(admin.delete_topics(&[topic], &options)).expect("the broker answers") {
            result.expect("the topic is deleted");
        }
        until("the topic not to be listed", || {
            let metadata = admin.inner().fetch_metadata(None, TIMEOUT).expect("the broker answers");
            match metadata.topics().iter().any(|found| found.name() == topic) {
                true => Err("it is".to_owned()),
                false => Ok(()),
            }
        });
    }

    /// Raises the number of partitions of a topic.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let more = NewPartitions::new(topic, partitions);
        for result in super::blocking(admin.create_partitions([&more], &options)).expect("the broker answers")
        {
            result.expect("the partitions are created");
        }
        until("the partitions to be listed", || match self.partitions(topic).len() {
            found if found == partitions => Ok(()),
            found => Err(format!("{found}")),
        });
    }

    /// The committed offsets of a group; 0 where there is none.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let client: BaseConsumer = self.client().set("group.id", group).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in self.partitions(topic) {
            list.add_partition(topic, partition);
        }
        let committed = client.committed_offsets(list, TIMEOUT).expect("committed offsets");
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        committed.elements().iter().map(|e| (e.partition(), offset(e.offset()))).collect()
    }

    /// How many records a group has not committed yet, control records of transactions included.
    pub fn lag(&self, group: &str, topic: &str) -> i64 {
        let committed = self.committed(group, topic);
        self.ends(topic).iter().map(|(partition, end)| end - committed.get(partition).unwrap_or(&0)).sum()
    }

    /// All that a read_committed reader sees, partition by partition in their order. A transaction that a killed process
    /// left open hides what stands behind it, so this waits until the last one is settled.
    pub fn read_committed(&self, topic: &str) -> Vec<Stored> {
        let reader: BaseConsumer =
            self.client().set("isolation.level", "read_committed").create().expect("a consumer");
        until("open transactions to be settled", || {
            let open: Vec<_> = self
                .ends(topic)
                .into_iter()
                .filter(|(partition, end)| {
                    reader.fetch_watermarks(topic, *partition, TIMEOUT).expect("watermarks").1 < *end
                })
                .collect();
            if open.is_empty() { Ok(()) } else { Err(format!("open in {topic} before {open:?}")) }
        });
        self.read(topic, "read_committed")
    }

    /// All that stands on the topic, committed or not.
    pub fn read_uncommitted(&self, topic: &str) -> Vec<Stored> {
        self.read(topic, "read_uncommitted")
    }

    fn read(&self, topic: &str, isolation: &str) -> Vec<Stored> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation)
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        let mut open = self.partitions(topic);
        for partition in &open {
            list.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        let deadline = Instant::now() + 3 * TIMEOUT;
        let mut records = Vec::new();
        while !open.is_empty() {
            assert!(Instant::now() < deadline, "{topic} cannot be read to the end, {open:?} are left");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|left| *left != partition),
                Some(Err(error)) => panic!("{topic} cannot be read: {error}"),
                Some(Ok(message)) => records.push(Stored {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message
                        .headers()
                        .map(|headers| {
                            let bytes = |value: Option<&[u8]>| value.unwrap_or_default().to_vec();
                            headers.iter().map(|h| (h.key.to_owned(), bytes(h.value))).collect()
                        })
                        .unwrap_or_default(),
                }),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }
}
