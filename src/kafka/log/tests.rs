//! The log as the pipeline uses it, on librdkafka's mock cluster, which has no markers; what needs those is told on real
//! Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;
use crate::pipeline::clock::{Clock, SystemClock};
use crate::pipeline::log::{Fetched, Input, InputTopic};
use crate::pipeline::outputs::header;

/// Longest wait for one signal; the mock broker waits 3 s before its first assignment.
const PATIENCE: Duration = Duration::from_secs(20);

struct Story {
    log: KafkaLog,
    settings: LogSettings,
    names: InputNames,
    producer: BaseProducer,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

fn now_ms() -> i64 {
    SystemClock.now_ms()
}

impl Story {
    /// A log of two partitions with so many retry topics.
    fn open(tiers: u8, batch: BatchLimits) -> Story {
        let cluster = MockCluster::new(1).unwrap();
        let retry: Vec<String> = (1..=4).map(|tier| format!("events.retry.{tier}")).collect();
        cluster.create_topic("events", 2, 1).unwrap();
        for topic in retry.iter().take(usize::from(tiers)) {
            cluster.create_topic(topic, 2, 1).unwrap();
        }
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", cluster.bootstrap_servers());
        // The mock broker lets an empty fetch wait its whole time-out even when a record arrives meanwhile.
        client.set("fetch.wait.max.ms", "10");
        let producer = client.create().unwrap();
        let settings = LogSettings {
            client,
            events: "events".into(),
            retry,
            longest_delay: Duration::from_secs(60),
            decisions: "decisions".into(),
            activity: "activity".into(),
            dead_letters: "events.dlq".into(),
            group_id: "campaignd".into(),
            instance_id: "a".into(),
            static_membership: false,
            is_sole_member: false,
            session_timeout: Duration::from_secs(6),
            transaction_timeout: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(2),
            batch,
            health: Health::new(),
        };
        let (log, names) = (KafkaLog::open(&settings).unwrap(), settings.inputs());
        Story { log, settings, names, producer, cluster }
    }

    /// Records of the key `u`, each due then.
    fn produce(&self, input: Input, due: impl IntoIterator<Item = i64>) {
        for due_ms in due {
            let due = due_ms.to_string();
            let headers = OwnedHeaders::new().insert(Header { key: header::DUE, value: Some(&due) });
            let record = BaseRecord::<str, str>::to(self.names.of(input.topic)).headers(headers);
            self.producer.send(record.partition(input.partition).key("u").payload("value")).unwrap();
            self.producer.poll(Duration::ZERO);
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    async fn signal(&mut self, want: Want) -> Signal {
        tokio::time::timeout(PATIENCE, self.log.next(want)).await.expect("the log has something to say")
    }

    async fn assigned(&mut self) -> (Vec<i32>, u8) {
        loop {
            match self.signal(Want::Nothing).await {
                Signal::Assigned { partitions, tiers } if !partitions.is_empty() => {
                    return (partitions, tiers);
                }
                Signal::Assigned { .. } | Signal::Revoked { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn until(&self, ms: i64) {
        tokio::time::sleep(Duration::from_millis(u64::try_from(ms - now_ms()).unwrap_or(0))).await;
    }

    /// Reads every assigned partition from its beginning.
    async fn begin(&mut self, epoch: u64) {
        let (partitions, tiers) = self.assigned().await;
        let topics = std::iter::once(InputTopic::Events).chain((1..=tiers).map(InputTopic::Retry));
        let input = |topic| partitions.iter().map(move |partition| Input { topic, partition: *partition });
        let next_offsets = topics.flat_map(input).map(|input| (input, 0)).collect();
        self.log.start(Start { epoch, next_offsets, max_records_per_user: None, max_records: None });
    }

    async fn batch(&mut self) -> Fetched {
        match self.signal(Want::Any).await {
            Signal::Batch(batch) => batch,
            other => panic!("{other:?}"),
        }
    }

    /// Offsets by partition, in the order in which they came, until so many records are there.
    async fn read(&mut self, count: usize) -> BTreeMap<Input, Vec<i64>> {
        let mut found: BTreeMap<Input, Vec<i64>> = BTreeMap::new();
        while found.values().map(Vec::len).sum::<usize>() < count {
            for record in self.batch().await.records {
                found.entry(record.input()).or_default().push(record.offset);
            }
        }
        found
    }
}

fn limits(max_records: usize) -> BatchLimits {
    BatchLimits {
        max_wait: Duration::from_millis(5),
        max_records,
        max_bytes: 8 * 1024 * 1024,
        max_records_per_user: 100_000,
    }
}

/// Rules O1 and P6.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_record_comes_when_it_is_due_and_events_do_not_wait_for_it() {
    let mut story = Story::open(2, limits(100));
    let due_ms = now_ms() + 5_000;
    story.produce(Input::retry(2, 1), [due_ms]);
    story.produce(Input::retry(1, 0), [0]);
    story.produce(Input::events(0), [i64::MAX]);
    story.begin(1).await;
    let first = story.read(2).await;
    assert!(now_ms() < due_ms, "the test was too slow to tell");
    assert_eq!(first, [(Input::events(0), vec![0]), (Input::retry(1, 0), vec![0])].into());
    let batch = story.batch().await;
    assert!(now_ms() >= due_ms, "{} ms too early", due_ms - now_ms());
    assert_eq!(batch.next_offsets, [(Input::retry(2, 1), 1)].into());
    assert_eq!((batch.epoch, batch.records.len()), (1, 1));
    story.log.close().await;
}

/// More than may be read ahead waits in a partition: it is paused and goes on where it stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_retry_partition_rests_and_comes_whole_and_in_order() {
    let mut story = Story::open(1, limits(300));
    let due_ms = now_ms() + 6_000;
    story.produce(Input::retry(1, 0), (0..3_500).map(|n| due_ms + n / 10));
    story.begin(1).await;
    story.produce(Input::events(1), [0; 50]);
    assert_eq!(story.read(50).await, [(Input::events(1), (0..50).collect())].into());
    assert!(now_ms() < due_ms, "the test was too slow to tell");
    story.produce(Input::events(0), [0; 1_000]);
    let found = story.read(4_500).await;
    assert_eq!(found[&Input::retry(1, 0)], (0..3_500).collect::<Vec<i64>>());
    assert_eq!(found[&Input::events(0)], (0..1_000).collect::<Vec<i64>>());
    story.log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_retry_records_share_every_batch() {
    for max_records in [10, 1] {
        let mut story = Story::open(1, limits(max_records));
        let due_ms = now_ms() + 7_000;
        story.produce(Input::retry(1, 0), [due_ms; 200]);
        story.begin(1).await;
        // Until the records are due they are read ahead, and nobody sees it: of events more than enough come late.
        story.until(due_ms - 500).await;
        story.produce(Input::events(0), [0; 200]);
        assert!(now_ms() < due_ms, "the test was too slow to tell");
        story.until(due_ms).await;
        let mut found = (0, 0);
        while found.0 + found.1 < 100 {
            for record in story.batch().await.records {
                match record.topic {
                    InputTopic::Events => found.0 += 1,
                    InputTopic::Retry(_) => found.1 += 1,
                }
            }
        }
        assert!(
            found.0 >= 40 && found.1 >= 40,
            "of 100 records in batches of {max_records} events and retry records had {found:?}"
        );
        story.log.close().await;
    }
}

/// Rule P8.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_held_back_rests_alone_and_loses_nothing() {
    let mut story = Story::open(1, limits(10));
    story.begin(1).await;
    story.produce(Input::events(0), [0; 5]);
    story.read(5).await;
    story.log.hold(BTreeSet::from([0]));
    // What is behind the order in the poller's queue tells that the order was read.
    story.produce(Input::events(1), [0; 5]);
    story.read(5).await;
    story.produce(Input::events(0), [0; 200]);
    story.produce(Input::retry(1, 0), [0; 5]);
    story.produce(Input::events(1), [0; 20]);
    let found = story.read(25).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&Input::events(1), &Input::retry(1, 0)]);
    story.log.hold(BTreeSet::new());
    assert_eq!(story.read(200).await, [(Input::events(0), (5..205).collect())].into());
    story.log.close().await;
}

/// Rule O8.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_retry_topic_is_assigned_when_the_group_is_joined_again() {
    let mut story = Story::open(1, limits(10));
    assert_eq!(story.assigned().await, (vec![0, 1], 1));
    story.cluster.create_topic("events.retry.2", 2, 1).unwrap();
    assert_eq!(story.log.stands().identity().await.unwrap().tiers, 2);
    story.log.rejoin();
    assert_eq!(story.assigned().await, (vec![0, 1], 2));
    story.cluster.create_topic("events.retry.3", 1, 1).unwrap();
    let refused = story.log.stands().identity().await.unwrap_err();
    assert!(matches!(refused, LogError::Refused(_)), "{refused}");
    story.log.close().await;
}

/// The mock broker tells no members; the assignment is what remains.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_tell_the_members_holds_nobody_up() {
    let mut story = Story::open(1, limits(10));
    let begin = std::time::Instant::now();
    wait_until_alone(&story.settings).await.unwrap();
    println!("asked in vain for {:?}", begin.elapsed());
    assert!(begin.elapsed() < story.settings.session_timeout);
    story.log.close().await;
}

/// Rule O2.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_without_values_and_where_nobody_committed_it_begins_at_the_start() {
    let mut story = Story::open(2, limits(10));
    story.produce(Input::retry(1, 0), [7, 8, 9]);
    story.produce(Input::retry(2, 1), [11]);
    let stands = story.log.stands();
    let inputs = [Input::events(0), Input::retry(1, 0), Input::retry(2, 1)];
    let found = stands.stands(&inputs).await.unwrap();
    let ends: Vec<(Option<i64>, i64, i64)> = found.values().map(|s| (s.committed, s.start, s.end)).collect();
    assert_eq!(ends, [(None, 0, 0), (None, 0, 3), (None, 0, 1)]);
    let from = [(Input::retry(1, 0), 1), (Input::retry(1, 1), 0), (Input::retry(2, 1), 0)].into();
    let waiting = stands.waiting(&from).await.unwrap();
    let places: Vec<(Input, i64, Option<i64>)> =
        waiting.iter().map(|r| (r.input(), r.offset, crate::pipeline::parking::due(r))).collect();
    let (first, second) = (Input::retry(1, 0), Input::retry(2, 1));
    assert_eq!(places, [(first, 1, Some(8)), (first, 2, Some(9)), (second, 0, Some(11))]);
    assert!(waiting.iter().all(|record| record.value.is_none() && record.key.is_some()));
    assert!(stands.waiting(&[(Input::retry(1, 0), 3)].into()).await.unwrap().is_empty());
    stands.delete_consumed(&from).await.expect("the mock broker deletes nothing, and that is no failure");
    story.log.close().await;
}
