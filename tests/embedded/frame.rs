//! The helpers of the suites do what the stories rely on.

use std::collections::BTreeMap;

use crate::support::kafka::{Kafka, Record};
use crate::support::mock::MockKafka;
use crate::support::poison::murmur2;
use crate::support::process::{Folder, must_succeed};
use crate::support::settings::{Settings, Store};
use crate::support::unique;

#[test]
fn unique_names_differ_and_suit_topics_and_keyspaces() {
    let names = [unique("orders"), unique("orders"), unique("sixteen_bytes_ab")];
    assert_ne!(names[0], names[1]);
    for name in &names {
        assert!(name.len() <= 48, "too long for a keyspace: {name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
    }
}

#[test]
fn records_come_back_as_they_were_produced() {
    let mock = MockKafka::start(&[("there", 5)]);
    let records: Vec<Record> = (0..2_000)
        .map(|n| Record {
            partition: None,
            key: Some(format!("user-{}", n % 37).into_bytes()),
            value: (n % 10 != 0).then(|| format!("value {n}").into_bytes()),
            headers: vec![("n".to_owned(), n.to_string().into_bytes()), ("raw".to_owned(), vec![0xff, 0])],
        })
        .collect();
    mock.kafka.produce("there", &records);
    let stored = mock.kafka.read_committed("there");
    assert_eq!(stored.len(), records.len());
    assert_eq!(mock.kafka.ends("there").values().sum::<i64>(), records.len() as i64);
    let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for found in &stored {
        let number: usize = found.header("n").unwrap().parse().unwrap();
        let record = &records[number];
        assert_eq!((&found.key, &found.value, &found.headers), (&record.key, &record.value, &record.headers));
        let key = found.key.clone().unwrap();
        assert_eq!(found.partition, murmur2(&key) % 5, "by Java's partitioner");
        assert!(last.insert(key, number).is_none_or(|before| before < number), "a key keeps its order");
    }
}

#[test]
fn the_configuration_of_the_stories_is_accepted() {
    let folder = Folder::new();
    let kafka = Kafka::at("127.0.0.1:1");
    for store in [
        Store::Embedded(folder.path().join("store")),
        Store::Scylla { node: "127.0.0.1:1".into(), keyspace: "k".into(), datacenter: "datacenter1".into() },
    ] {
        let config = Settings::new(&kafka, "http://127.0.0.1:1", store, "story.").write(folder.path());
        must_succeed(&["config", "--config", &config.display().to_string()], folder.path());
    }
}
