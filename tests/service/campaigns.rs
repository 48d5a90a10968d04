//! The campaigns topic on a broker that has transactions: what the reader may see, and what two writers may do.

use std::time::Duration;

use campaignd::campaign::definition::Campaign;
use campaignd::campaign::live::campaign_key;
use campaignd::campaign::yaml::parse_campaign;
use campaignd::kafka::campaigns::{
    CampaignsError, CampaignsReader, CampaignsTopic, Desired, Published, publish,
};
use campaignd::telemetry::metrics::Metrics;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::suite::{Services, Suite};
use crate::support::kafka::Kafka;
use crate::support::unique;

const PATIENCE: Duration = Duration::from_secs(30);
const TIME: &str = "2026-01-15T10:30:00Z";

pub fn stories(suite: &mut Suite) {
    suite.story("campaigns::a_missing_topic_says_how_to_create_it", a_missing_topic_says_how_to_create_it);
    suite.story("campaigns::only_committed_records_are_live", only_committed_records_are_live);
    suite.story("campaigns::a_hanging_transaction_is_reported", a_hanging_transaction_is_reported);
    suite.story("campaigns::an_overtaken_writer_writes_nothing", an_overtaken_writer_writes_nothing);
    suite.story("campaigns::writers_at_once_lose_nothing_unseen", writers_at_once_lose_nothing_unseen);
}

/// A topic of this story alone.
async fn topic(services: &Services) -> CampaignsTopic {
    let name = unique("campaigns");
    let (kafka, created) = (Kafka::at(&services.kafka), name.clone());
    blocking(move || kafka.create_topics(&[(&created, 1, "compact")])).await;
    CampaignsTopic::new(client(services), name)
}

fn client(services: &Services) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &services.kafka);
    client
}

fn campaign(id: &str, priority: i32) -> Campaign {
    let text = format!("id: {id}\ntrigger: purchase\npriority: {priority}\naction: {{ type: alert }}\n");
    parse_campaign("a.yaml", &text).unwrap()
}

fn apply(topic: &CampaignsTopic, campaigns: Vec<Campaign>) -> Result<Published, CampaignsError> {
    publish(
        topic,
        &format!("{}-writers", topic.topic),
        &Desired { campaigns, ..Desired::default() },
        "alice",
        TIME,
    )
}

/// A writer that has begun a transaction and put a record into it.
fn begun(topic: &CampaignsTopic, transactional_id: &str, campaign: &Campaign) -> BaseProducer {
    let producer: BaseProducer = topic
        .client
        .clone()
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let (key, value) = (campaign_key(&campaign.id), campaign.to_canonical_json());
    producer
        .send(BaseRecord::to(&topic.topic).key(&key).payload(&value))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    producer
}

fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    let task = tokio::task::spawn_blocking(call);
    async move { task.await.unwrap() }
}

async fn a_missing_topic_says_how_to_create_it(services: Services) {
    let missing = CampaignsTopic::new(client(&services), unique("nothing"));
    let error = CampaignsReader::start(missing.clone(), Metrics::new().unwrap()).await.err().unwrap();
    assert_eq!(error, CampaignsError::MissingTopic(missing.topic.clone()));
    assert!(error.to_string().contains("campaignd topology apply"), "{error}");
    let error = blocking(move || apply(&missing, vec![campaign("a", 1)])).await.unwrap_err();
    assert!(matches!(error, CampaignsError::MissingTopic(_)), "{error}");
}

async fn only_committed_records_are_live(services: Services) {
    let topic = topic(&services).await;
    let reader = CampaignsReader::start(topic.clone(), Metrics::new().unwrap()).await.unwrap();
    reader.caught_up().await.unwrap();
    assert_eq!(reader.current().position(), -1);

    let first = topic.clone();
    let published = blocking(move || apply(&first, vec![campaign("a", 1), campaign("b", 2)])).await.unwrap();
    assert_eq!(published.changes.len(), 2);
    // The log ends in a marker now; the end is reached all the same.
    reader.caught_up().await.unwrap();
    assert_eq!(reader.current().campaigns().len(), 2);
    for change in &published.changes {
        let id = change.key.strip_prefix("campaign:").unwrap();
        assert_eq!(reader.current().campaign(id).unwrap().version, change.version);
    }

    let aborted = topic.clone();
    blocking(move || {
        let producer = begun(&aborted, &unique("aborter"), &campaign("a", 99));
        producer.abort_transaction(PATIENCE).unwrap();
    })
    .await;
    reader.caught_up().await.unwrap();
    assert_eq!(reader.current().campaign("a").unwrap().campaign.priority, 1);
    let late = CampaignsReader::start(topic.clone(), Metrics::new().unwrap()).await.unwrap();
    late.caught_up().await.unwrap();
    assert_eq!(*late.current(), *reader.current());

    // Nothing to write: no transaction, so not even a marker.
    let ends = Kafka::at(&services.kafka).ends(&topic.topic);
    let again = topic.clone();
    let published = blocking(move || apply(&again, vec![campaign("a", 1), campaign("b", 2)])).await.unwrap();
    assert_eq!((published.changes.len(), published.unchanged), (0, 2));
    assert_eq!(Kafka::at(&services.kafka).ends(&topic.topic), ends);
    let record = &Kafka::at(&services.kafka).read_committed(&topic.topic)[0];
    assert_eq!((record.header("author"), record.header("time")), (Some("alice".into()), Some(TIME.into())));
    late.stop().await;
    reader.stop().await;
}

async fn a_hanging_transaction_is_reported(services: Services) {
    let mut topic = topic(&services).await;
    topic.catch_up_timeout = Duration::from_secs(2);
    let hanging = topic.clone();
    let producer = blocking(move || begun(&hanging, &unique("hanger"), &campaign("a", 1))).await;
    // Committed behind the open transaction: it may not be missed, and may not be seen before the other is settled.
    let behind = topic.clone();
    let record = campaign("b", 2);
    blocking(move || {
        let other = begun(&behind, &unique("other"), &record);
        other.commit_transaction(PATIENCE).unwrap();
    })
    .await;
    let reader = CampaignsReader::start(topic, Metrics::new().unwrap()).await.unwrap();
    let error = reader.caught_up().await.unwrap_err();
    assert!(matches!(error, CampaignsError::NotCaughtUp { position: 0, .. }), "{error}");
    assert_eq!(reader.current().campaigns().len(), 0);

    blocking(move || producer.commit_transaction(PATIENCE).unwrap()).await;
    reader.caught_up().await.unwrap();
    assert_eq!(reader.current().campaigns().len(), 2);
    reader.stop().await;
}

async fn an_overtaken_writer_writes_nothing(services: Services) {
    let topic = topic(&services).await;
    let early = topic.clone();
    let id = format!("{}-writers", topic.topic);
    let producer = blocking(move || begun(&early, &id, &campaign("a", 1))).await;
    let later = topic.clone();
    let published = blocking(move || apply(&later, vec![campaign("a", 2)])).await.unwrap();
    assert_eq!(published.changes.len(), 1);
    let refused = blocking(move || producer.commit_transaction(PATIENCE)).await;
    assert!(refused.is_err());
    let live = blocking(move || topic.read()).await.unwrap();
    assert_eq!(live.campaign("a").unwrap().campaign.priority, 2);
}

async fn writers_at_once_lose_nothing_unseen(services: Services) {
    let topic = topic(&services).await;
    let writers: Vec<_> = (1..=6)
        .map(|number| {
            let topic = topic.clone();
            // All change the same campaign, and each brings one of its own.
            let campaigns = vec![campaign("shared", number), campaign(&format!("own_{number}"), number)];
            tokio::task::spawn_blocking(move || (number, apply(&topic, campaigns)))
        })
        .collect();
    let mut done = Vec::new();
    for writer in writers {
        match writer.await.unwrap() {
            (number, Ok(published)) => done.push((number, published)),
            (_, Err(CampaignsError::Overtaken | CampaignsError::NotWritten { .. })) => {}
            (number, Err(error)) => panic!("writer {number}: {error}"),
        }
    }
    assert!(!done.is_empty(), "the last to begin is overtaken by nobody");
    // What a writer was told is what stands there, no more and no less.
    let stored = Kafka::at(&services.kafka).read_committed(&topic.topic);
    let told: usize = done.iter().map(|(_, published)| published.changes.len()).sum();
    assert_eq!(stored.len(), told);
    let live = topic.clone();
    let live = blocking(move || live.read()).await.unwrap();
    for (number, published) in &done {
        assert_eq!(live.campaign(&format!("own_{number}")).unwrap().version, published.changes[0].version);
    }
    let last = done.iter().max_by_key(|(_, published)| published.changes[1].version).unwrap();
    assert_eq!(live.campaign("shared").unwrap().campaign.priority, last.0);
    assert_eq!(live.snapshot().campaigns().len(), done.len() + 1);
}
