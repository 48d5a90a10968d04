//! The services are what the other stories take them for: the parts answer, with the settings the stories need.

use crate::suite::{Services, Suite};
use crate::support::unique;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

pub fn stories(suite: &mut Suite) {
    suite.story("parts::kafka_commits_transactions_with_short_timeouts", kafka_commits_transactions);
    suite.story("parts::cassandra_knows_lightweight_transactions", cassandra_knows_lightweight_transactions);
    suite.story("parts::registry_refuses_incompatible_schemas", registry_refuses_incompatible_schemas);
}

async fn kafka_commits_transactions(services: Services) {
    let topic = unique("parts");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &services.kafka).create().unwrap();
    let created = admin
        .create_topics(&[NewTopic::new(&topic, 1, TopicReplication::Fixed(1))], &AdminOptions::new())
        .await
        .unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");

    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &services.kafka)
        .set("transactional.id", unique("writer"))
        .set("transaction.timeout.ms", "10000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    for (value, commit) in [("aborted", false), ("committed", true)] {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<str, str>::to(&topic).key("user").payload(value)).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.flush(PATIENCE).unwrap();
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &services.kafka)
        .set("group.id", unique("readers"))
        .set("session.timeout.ms", "6000")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        assert!(Instant::now() < deadline, "nothing read from {topic}");
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            break record.unwrap().detach();
        }
    };
    assert_eq!(first.payload(), Some(b"committed".as_slice()));
}

async fn cassandra_knows_lightweight_transactions(services: Services) {
    let keyspace = unique("parts");
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_node(&services.cassandra)
        .connection_timeout(PATIENCE)
        .build()
        .await
        .unwrap();
    for statement in [
        format!(
            "CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': 1}}"
        ),
        format!("CREATE TABLE {keyspace}.fence (id int PRIMARY KEY, owner text)"),
    ] {
        session.query_unpaged(statement, &[]).await.unwrap();
    }
    let mut applied = Vec::new();
    for owner in ["first", "second"] {
        let statement =
            format!("INSERT INTO {keyspace}.fence (id, owner) VALUES (1, '{owner}') IF NOT EXISTS");
        let rows = session.query_unpaged(statement, &[]).await.unwrap().into_rows_result().unwrap();
        // A lightweight transaction that applies answers one column, one that does not answers the row too.
        applied.push(rows.column_specs().len() == 1);
    }
    session.query_unpaged(format!("DROP KEYSPACE {keyspace}"), &[]).await.unwrap();
    assert_eq!(applied, [true, false]);
}

async fn registry_refuses_incompatible_schemas(services: Services) {
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let subject = format!("{}-value", unique("parts"));
    let address = format!("{}/subjects/{subject}/versions", services.registry);
    let mut answers = Vec::new();
    for schema in [
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":"long","default":0}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"c","type":"long"}]}"#,
    ] {
        let body = serde_json::json!({ "schema": schema });
        answers.push(client.post(&address).json(&body).send().await.unwrap().status().as_u16());
    }
    assert_eq!(answers, [200, 200, 409]);
}
