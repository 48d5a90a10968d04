//! On librdkafka's mock cluster, which has no markers and no compaction; what needs those is told on real Kafka.

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::publish::{Record, differences};
use super::*;
use crate::campaign::catalog::Catalog;
use crate::campaign::definition::{Campaign, Status};
use crate::campaign::live::campaign_key;
use crate::campaign::yaml::parse_campaign;
use crate::telemetry::metrics::Metrics;

struct Broker {
    topic: CampaignsTopic,
    producer: BaseProducer,
    _cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    fn start() -> Broker {
        Broker::with_partitions(1)
    }

    fn with_partitions(partitions: i32) -> Broker {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("campaigns", partitions, 1).unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer = client.create().unwrap();
        Broker { topic: CampaignsTopic::new(client, "campaigns"), producer, _cluster: cluster }
    }

    fn put(&self, key: &str, value: Option<&str>) {
        self.send(key, value);
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }

    fn send(&self, key: &str, value: Option<&str>) {
        let mut record = BaseRecord::<str, str>::to("campaigns").key(key).partition(0);
        record.payload = value;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn publish(&self, desired: &Desired) -> Published {
        publish(&self.topic, "campaignd-campaigns", desired, "alice", "2026-01-15T10:30:00Z").unwrap()
    }
}

fn campaign(id: &str, rest: &str) -> Campaign {
    parse_campaign("a.yaml", &format!("id: {id}\ntrigger: purchase\naction: {{ type: alert }}\n{rest}\n"))
        .unwrap()
}

fn json(id: &str, priority: i32) -> String {
    campaign(id, &format!("priority: {priority}")).to_canonical_json()
}

fn changes(published: &Published) -> Vec<(&str, Kind)> {
    published.changes.iter().map(|change| (change.key.as_str(), change.kind)).collect()
}

#[tokio::test]
async fn the_set_follows_the_topic() {
    let broker = Broker::start();
    let metrics = Metrics::new().unwrap();
    let reader = CampaignsReader::start(broker.topic.clone(), metrics.clone()).await.unwrap();
    reader.caught_up().await.unwrap();
    assert_eq!(reader.current().position(), -1);

    broker.put(&campaign_key("a"), Some(&json("a", 1)));
    broker.put(&campaign_key("b"), Some(&json("b", 2)));
    reader.caught_up().await.unwrap();
    let before = reader.current();
    let ids = |set: &crate::campaign::set::CampaignSet| -> Vec<(String, i64)> {
        set.candidates("purchase").iter().map(|live| (live.campaign.id.clone(), live.version)).collect()
    };
    assert_eq!(ids(&before), [("b".to_owned(), 1), ("a".to_owned(), 0)]);

    broker.put(&campaign_key("a"), Some("nonsense"));
    broker.put(&campaign_key("b"), None);
    broker.put("catalog", Some(r#"{"allowed_lateness":"2h"}"#));
    reader.caught_up().await.unwrap();
    let after = reader.current();
    assert_eq!(ids(&after), [("a".to_owned(), 0)]);
    assert_eq!((after.position(), after.catalog().allowed_lateness_ms), (4, 7_200_000));
    assert_eq!(ids(&before).len(), 2, "a set that was handed out does not change");
    assert_eq!(metrics.snapshot().campaign_records_rejected, 1);
    assert_eq!(metrics.snapshot().campaigns_active, 1);
    reader.stop().await;
}

#[tokio::test]
async fn a_reader_that_starts_later_sees_the_same() {
    let broker = Broker::start();
    for id in 0..300 {
        broker.send(&campaign_key(&format!("c{id}")), Some(&json(&format!("c{id}"), id)));
    }
    broker.producer.flush(Duration::from_secs(10)).unwrap();
    let reader = CampaignsReader::start(broker.topic.clone(), Metrics::new().unwrap()).await.unwrap();
    reader.caught_up().await.unwrap();
    assert_eq!(reader.current().candidates("purchase").len(), 300);
    assert_eq!(reader.current().position(), 299);
    assert_eq!(broker.topic.read().unwrap().snapshot(), *reader.current());
    reader.stop().await;
}

#[tokio::test]
async fn the_topic_must_have_one_partition() {
    let broker = Broker::with_partitions(3);
    let error = CampaignsReader::start(broker.topic.clone(), Metrics::new().unwrap()).await.err().unwrap();
    assert_eq!(error, CampaignsError::PartitionCount { topic: "campaigns".into(), partitions: 3 });
}

#[tokio::test]
async fn an_unreachable_broker_is_an_error_in_time() {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", "127.0.0.1:1");
    let mut topic = CampaignsTopic::new(client, "campaigns");
    topic.request_timeout = Duration::from_millis(300);
    let error = CampaignsReader::start(topic, Metrics::new().unwrap()).await.err().unwrap();
    assert!(matches!(error, CampaignsError::Unreachable { .. }), "{error}");
}

#[test]
fn publishing_writes_only_what_differs() {
    let broker = Broker::start();
    let mut desired = Desired {
        catalog: Some(Catalog::default()),
        campaigns: vec![campaign("b", ""), campaign("a", "")],
        ..Desired::default()
    };
    let first = broker.publish(&desired);
    assert_eq!(
        changes(&first),
        [("catalog", Kind::Added), ("campaign:a", Kind::Added), ("campaign:b", Kind::Added)]
    );
    assert_eq!(first.unchanged, 0);
    let live = broker.topic.read().unwrap();
    for change in &first.changes[1..] {
        let id = change.key.strip_prefix("campaign:").unwrap();
        assert_eq!(live.campaign(id).unwrap().version, change.version);
    }

    let again = broker.publish(&desired);
    assert_eq!((changes(&again), again.unchanged), (vec![], 3));

    desired.campaigns[0].priority = 7;
    let third = broker.publish(&desired);
    assert_eq!((changes(&third), third.unchanged), (vec![("campaign:b", Kind::Changed)], 2));
    let live = broker.topic.read().unwrap();
    assert_eq!(live.campaign("b").unwrap().campaign.priority, 7);
    assert_eq!(live.snapshot().campaigns().len(), 2);
}

#[test]
fn an_absent_status_keeps_the_live_one() {
    let mut live = LiveCampaigns::default();
    let paused = campaign("a", "status: paused");
    live.apply(b"campaign:a", Some(paused.to_canonical_json().as_bytes()), 0).unwrap();
    let status = |records: &[Record]| -> Vec<Option<Status>> {
        records
            .iter()
            .map(|record| {
                Campaign::from_canonical_json(record.value.as_ref().unwrap().as_bytes()).unwrap().status
            })
            .collect()
    };

    let desired = |campaign| Desired { catalog: None, campaigns: vec![campaign], ..Desired::default() };
    assert_eq!(differences(&live, &desired(campaign("a", ""))), (vec![], 1));
    let (records, _) = differences(&live, &desired(campaign("a", "priority: 3")));
    assert_eq!(status(&records), [Some(Status::Paused)]);
    let (records, _) = differences(&live, &desired(campaign("a", "status: active")));
    assert_eq!(status(&records), [Some(Status::Active)]);
    let (records, _) = differences(&live, &desired(campaign("new", "")));
    assert_eq!(status(&records), [Some(Status::Active)]);
}

#[test]
fn an_unusable_record_is_written_over_even_when_the_last_good_one_fits() {
    let mut live = LiveCampaigns::default();
    let good = campaign("a", "status: active");
    live.apply(b"campaign:a", Some(good.to_canonical_json().as_bytes()), 0).unwrap();
    live.apply(b"campaign:a", Some(b"nonsense"), 1).unwrap_err();
    let (records, unchanged) =
        differences(&live, &Desired { catalog: None, campaigns: vec![good], ..Desired::default() });
    assert_eq!((records.len(), unchanged), (1, 0));
}

#[test]
fn a_control_record_is_written_and_deleted_by_its_key() {
    let mut live = LiveCampaigns::default();
    let desired = |value: Option<&str>| Desired {
        controls: [("control:release:ada".to_owned(), value.map(str::to_owned))].into(),
        ..Desired::default()
    };
    let value = r#"{"until_ms":7}"#;
    let (records, _) = differences(&live, &desired(Some(value)));
    assert_eq!(records.iter().map(|record| record.kind).collect::<Vec<_>>(), [Kind::Added]);
    live.apply(b"control:release:ada", Some(value.as_bytes()), 0).unwrap();
    assert!(live.snapshot().is_released("ada", Some(7)) && !live.snapshot().is_released("ada", Some(8)));
    assert_eq!(differences(&live, &desired(Some(value))), (vec![], 1));
    let (records, _) = differences(&live, &desired(None));
    assert_eq!(
        records.iter().map(|record| (record.kind, record.value.clone())).collect::<Vec<_>>(),
        [(Kind::Removed, None)]
    );
}
