//! All that a story needs around the process under test: topics, registry, store, configuration, and eyes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use campaignd::schema::registration::{Subjects, register_all};
use campaignd::schema::registry::{RegistryClient, RegistrySettings};
use campaignd::schema::{DECISION_SCHEMA, WriterSchema, decode_decision, wire};
use serde_json::Value;

use super::compare::as_expected;
use super::kafka::{Kafka, Record, Stored};
use super::mock::MockKafka;
use super::model::{Expected, Model};
use super::poll::{until, until_within};
use super::process::{Campaignd, Folder, Pause, campaignd, must_succeed};
use super::settings::{Settings, Store};
use super::shop::Item;
use super::{blocking, registry, unique};

/// The stage of one story; its names are no other story's.
pub struct Stage {
    /// Configuration of the first instance.
    pub settings: Settings,
    /// The broker.
    pub kafka: Kafka,
    /// Schema id of events.
    pub schema_id: u32,
    /// Where the files are.
    pub folder: Folder,
    _mock: Option<MockKafka>,
}

impl Stage {
    /// On the mock broker, the embedded registry and the embedded store.
    pub fn embedded(label: &str, partitions: i32) -> Stage {
        let prefix = format!("{}.", unique(label));
        let folder = Folder::new();
        let store = Store::Embedded(folder.path().join("store"));
        let mock = MockKafka::start(&[]);
        let kafka = mock.kafka.clone();
        let settings = Settings::new(&kafka, &registry::start(), store, &prefix);
        mock.create_topic(&settings.topic("campaigns"), 1);
        for name in ["events", "decisions", "activity", "events.dlq"] {
            mock.create_topic(&settings.topic(name), partitions);
        }
        settings.retry_topics().iter().for_each(|topic| mock.create_topic(topic, partitions));
        Stage::finish(settings, kafka, folder, Some(mock))
    }

    /// On real services; `datacenter1` is Cassandra's own name for its only one.
    pub fn service(kafka: &str, cassandra: &str, registry: &str, label: &str, partitions: i32) -> Stage {
        let name = unique(label);
        let prefix = format!("{name}.");
        let kafka = Kafka::at(kafka);
        let store = Store::Scylla {
            node: cassandra.to_owned(),
            keyspace: name,
            datacenter: "datacenter1".to_owned(),
        };
        let folder = Folder::new();
        let settings = Settings::new(&kafka, registry, store, &prefix);
        let stage = Stage::finish(settings, kafka, folder, None);
        let (config, count) = (stage.config(), partitions.to_string());
        must_succeed(
            &["topology", "apply", "--config", &config, "--partitions", &count],
            stage.folder.path(),
        );
        must_succeed(&["store", "migrate", "--config", &config], stage.folder.path());
        stage
    }

    fn finish(settings: Settings, kafka: Kafka, folder: Folder, mock: Option<MockKafka>) -> Stage {
        let topic = |name: &str| settings.topic(name);
        let subjects = Subjects::of_topics(&topic("events"), &topic("decisions"), &topic("activity"));
        let client = RegistryClient::new(RegistrySettings::at(&settings.registry)).expect("a URL");
        let registered = blocking(register_all(&client, &subjects)).expect("the schemas are registered");
        Stage { settings, kafka, schema_id: registered.ids.event, folder, _mock: mock }
    }

    /// Path of the first instance's configuration file, written anew.
    pub fn config(&self) -> String {
        self.settings.write(self.folder.path()).display().to_string()
    }

    /// Publishes campaign files with `campaignd campaigns apply`.
    pub fn apply(&self, files: &[(&str, &str)]) {
        let folder: PathBuf = self.folder.path().join("campaigns");
        std::fs::create_dir_all(&folder).expect("a folder for campaigns");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("a campaign file");
        }
        let folder = folder.display().to_string();
        must_succeed(&["campaigns", "apply", &folder, "--config", &self.config()], self.folder.path());
    }

    /// The campaigns that stand on the topic now, as JSON, for the model.
    pub fn published_campaigns(&self) -> Vec<Value> {
        self.published()
            .into_iter()
            .filter(|(key, _)| key.starts_with(b"campaign:"))
            .map(|(_, json)| json)
            .collect()
    }

    /// The model of what stands on the topic now: campaigns, and the types that the catalog remembers.
    pub fn model(&self) -> Model {
        let published = self.published();
        let catalog = published.get(b"catalog".as_slice());
        let remembered = catalog.and_then(|catalog| catalog["remember"].as_object());
        let types: Vec<&str> = remembered.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        Model::new(&self.published_campaigns()).remembering(&types)
    }

    fn published(&self) -> BTreeMap<Vec<u8>, Value> {
        let mut live: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for record in self.kafka.read_committed(&self.settings.topic("campaigns")) {
            live.insert(record.key.unwrap_or_default(), record.value);
        }
        let json = |value: Vec<u8>| serde_json::from_slice(&value).expect("what is published is JSON");
        live.into_iter().filter_map(|(key, value)| Some((key, json(value?)))).collect()
    }

    /// The offset of the last record of a campaign change.
    pub fn campaigns_position(&self) -> i64 {
        let records = self.kafka.read_committed(&self.settings.topic("campaigns"));
        records.last().map_or(-1, |record| record.offset)
    }

    /// Produces to `events`, in this order.
    pub fn produce(&self, items: &[Item]) {
        let records: Vec<Record> = items.iter().map(|item| item.record.clone()).collect();
        self.kafka.produce(&self.settings.topic("events"), &records);
    }

    /// Starts the first instance.
    pub fn start(&self) -> Campaignd {
        self.start_pausing(None)
    }

    /// Starts the first instance, which is to stop in its tracks somewhere.
    pub fn start_pausing(&self, pause: Option<&Pause<'_>>) -> Campaignd {
        let config = self.settings.write(self.folder.path());
        Campaignd::run(&config, self.settings.http_port, pause)
    }

    /// Starts a further instance of the same group.
    pub fn start_another(&self, settings: &Settings) -> Campaignd {
        let config = settings.write(self.folder.path());
        Campaignd::run(&config, settings.http_port, None)
    }

    /// Waits until so many records have been handled by this process, whatever became of them.
    pub fn await_handled(&self, process: &mut Campaignd, records: u64) -> Handled {
        until(&format!("{records} records to be handled"), || {
            let handled = Handled::of(process);
            if handled.total() >= records { Ok(handled) } else { Err(format!("{handled:?}")) }
        })
    }

    /// Waits until the group has committed the end of every partition of `events`, nothing waits in the retry topics, and
    /// the projection has passed the last decision of every partition; the end itself is the marker of a transaction,
    /// which nobody reads.
    pub fn await_drained(&self, process: &mut Campaignd, patience: Duration) {
        let (group, events) = (self.settings.group(), self.settings.topic("events"));
        until_within(patience, "all events to be committed", || {
            process.must_live();
            match self.kafka.lag(&group, &events) {
                0 => Ok(()),
                lag => Err(format!("lag {lag}")),
            }
        });
        until_within(patience, "nothing to wait in the retry topics", || {
            process.must_live();
            match self.waiting().len() {
                0 => Ok(()),
                waiting => Err(format!("{waiting} records")),
            }
        });
        let (group, decisions) = (self.settings.audit_group(), self.settings.topic("decisions"));
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for record in self.kafka.read_committed(&decisions) {
            last.insert(record.partition, record.offset);
        }
        until_within(patience, "all decisions to be projected", || {
            process.must_live();
            let committed = self.kafka.committed(&group, &decisions);
            let behind: Vec<_> =
                last.iter().filter(|(partition, last)| committed[partition] <= **last).collect();
            if behind.is_empty() {
                Ok(())
            } else {
                Err(format!("last decisions {last:?}, committed {committed:?}"))
            }
        });
    }

    /// The records of all retry topics that the group has not committed yet.
    pub fn waiting(&self) -> Vec<Stored> {
        let group = self.settings.group();
        let of = |topic: &String| {
            let committed = self.kafka.committed(&group, topic);
            let mut records = self.kafka.read_committed(topic);
            records.retain(|record| record.offset >= committed[&record.partition]);
            records
        };
        self.settings.retry_topics().iter().flat_map(of).collect()
    }

    /// Decisions as a read_committed reader sees them, partition by partition.
    pub fn decisions(&self) -> Vec<Expected> {
        let records = self.kafka.read_committed(&self.settings.topic("decisions"));
        records.iter().map(|record| self.decode(record)).collect()
    }

    fn decode(&self, record: &Stored) -> Expected {
        let value = record.value.as_deref().expect("a decision has a value");
        let schema = WriterSchema::parse(0, DECISION_SCHEMA).expect("the schema parses");
        let (_, body) = wire::split(value).expect("a decision is framed");
        let decision = as_expected(&decode_decision(&schema, body).expect("a decision decodes"));
        assert_eq!(record.key.as_deref(), Some(decision.user_id.as_bytes()), "the key is the user");
        assert_eq!(
            record.header("outcome").as_ref(),
            Some(&decision.outcome),
            "the header repeats the outcome"
        );
        decision
    }

    /// Dead letters as a read_committed reader sees them.
    pub fn dead_letters(&self) -> Vec<Stored> {
        self.kafka.read_committed(&self.settings.topic("events.dlq"))
    }

    /// The audit rows of a user, by `campaignd audit`, as JSON.
    pub fn audit(&self, user_id: &str) -> Vec<Value> {
        let output = campaignd(
            &["audit", user_id, "--output", "json", "--config", &self.config()],
            self.folder.path(),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
    }
}

/// What the process says has become of the records it has committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// Events with at least one decision.
    pub decided: u64,
    /// Events without.
    pub ignored: u64,
    /// Events that were there before.
    pub duplicates: u64,
    /// Records that went to the dead letter topic.
    pub dead: u64,
}

impl Handled {
    /// As `/metrics` has it.
    pub fn of(process: &mut Campaignd) -> Handled {
        let metrics = process.metrics();
        let count =
            |outcome: &str| metrics.sum("campaignd_events_total", &[&format!("result=\"{outcome}\"")]);
        Handled {
            decided: count("decided"),
            ignored: count("ignored"),
            duplicates: count("duplicate"),
            dead: count("dead_letter"),
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.decided + self.ignored + self.duplicates + self.dead
    }
}
