//! The commands that feed events and show decisions, as processes against a mock broker and the embedded registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use campaignd::decision::{ActionKind, DecidedAction, Decision, Outcome, Reason, ReasonCode};
use campaignd::event::Event;
use campaignd::generate::{GenerateOptions, GeneratedRecord, Generator};
use campaignd::partitioner::Partitioner;
use campaignd::schema::embedded::EmbeddedRegistry;
use campaignd::schema::registration::{SchemaIds, Subjects, look_up_all};
use campaignd::schema::registry::{RegistryClient, RegistrySettings};
use campaignd::schema::{EVENT_SCHEMA, WriterSchema, decode_event, wire};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker and a registry.
struct Parts {
    broker: MockCluster<'static, DefaultProducerContext>,
    registry: EmbeddedRegistry,
}

impl Parts {
    async fn start() -> Parts {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("events", PARTITIONS, 1).unwrap();
        broker.create_topic("decisions", PARTITIONS, 1).unwrap();
        Parts { broker, registry: EmbeddedRegistry::start().await.unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_campaignd"))
            .args(arguments)
            .env("CAMPAIGND_KAFKA__BROKERS", self.broker.bootstrap_servers())
            .env("CAMPAIGND_REGISTRY__URL", self.registry.url())
            .output()
            .unwrap()
    }

    fn run_well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    async fn register(&self) -> SchemaIds {
        self.run_well(&["schemas", "register"]);
        let client = RegistryClient::new(RegistrySettings::at(&self.registry.url())).unwrap();
        look_up_all(&client, &Subjects::of_topics("events", "decisions", "activity")).await.unwrap()
    }

    /// Everything on the events topic, a partition after the other.
    fn events(&self) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap_servers())
            .set("group.id", "feeding")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut all = TopicPartitionList::new();
        (0..PARTITIONS).for_each(|p| all.add_partition_offset("events", p, Offset::Beginning).unwrap());
        consumer.assign(&all).unwrap();
        let (mut records, mut at_end) = (Vec::new(), BTreeSet::new());
        let deadline = Instant::now() + PATIENCE;
        while at_end.len() < PARTITIONS as usize {
            assert!(Instant::now() < deadline, "the events topic could not be read");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(record)) => records.push(record.detach()),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(at_end.insert(partition)),
                Some(Err(error)) => panic!("{error}"),
            }
        }
        records
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_writes_what_the_generator_yields() {
    let parts = Parts::start().await;
    let ids = parts.register().await;
    let arguments =
        "generate --events 600 --users 20 --seed 3 --duplicates 0.1 --poison 0.2 --late 0.1 --output json";
    let counts = parts.run_well(&arguments.split(' ').collect::<Vec<_>>());
    let options = GenerateOptions {
        events: 600,
        users: 20,
        seed: 3,
        duplicates: 0.1,
        poison: 0.2,
        late: 0.1,
        schema_id: ids.event,
        wrong_partitions: true,
        ..GenerateOptions::default()
    };
    let mut generator = Generator::new(options).unwrap();
    type Record = (Option<Vec<u8>>, Vec<u8>);
    let (mut expected, mut by_user) = (Vec::<Record>::new(), BTreeMap::<Vec<u8>, Vec<String>>::new());
    let mut misplaced = BTreeSet::new();
    for generated in generator.by_ref() {
        let record = (generated.key().map(<[u8]>::to_vec), generated.value(ids.event));
        if generated.wants_wrong_partition() {
            misplaced.insert(record.clone());
        }
        if let GeneratedRecord::Event(event) | GeneratedRecord::Duplicate(event) = &generated.record {
            by_user.entry(event.user_id.clone().into()).or_default().push(event.event_id.clone());
        }
        expected.push(record);
    }
    let totals: serde_json::Value = serde_json::from_str(&counts).unwrap();
    assert_eq!(totals["totals"], serde_json::to_value(generator.truth()).unwrap());
    assert!(!misplaced.is_empty());

    let schema = WriterSchema::parse(ids.event, EVENT_SCHEMA).unwrap();
    let (mut found, mut found_by_user) = (Vec::<Record>::new(), BTreeMap::<Vec<u8>, Vec<String>>::new());
    for message in parts.events() {
        let record = (message.key().map(<[u8]>::to_vec), message.payload().unwrap_or_default().to_vec());
        if let (Some(key), _) = &record {
            let right = Partitioner::Murmur2.partition(key, PARTITIONS) == message.partition();
            assert_eq!(right, !misplaced.contains(&record));
        }
        let event = wire::split(&record.1).ok().and_then(|(_, body)| decode_event(&schema, body).ok());
        if let Some(event) = event
            && record.0.as_deref() == Some(event.user_id.as_bytes())
            && !misplaced.contains(&record)
        {
            found_by_user.entry(event.user_id.into()).or_default().push(event.event_id);
        }
        found.push(record);
    }
    assert_eq!(found_by_user, by_user, "each user's events in order");
    found.sort();
    expected.sort();
    assert!(found == expected, "{} records found, {} expected", found.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn produce_checks_every_line_before_it_sends_one() {
    let parts = Parts::start().await;
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"event_id":"1","user_id":"u1","type":"purchase","occurred_at":"2026-01-15T10:30:00Z","properties":{"amount":29.99}}"#;
    let write = |name: &str, lines: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, lines).unwrap();
        path
    };
    let produce = |path: &Path| parts.run(&["produce", "--file", path.to_str().unwrap()]);

    let path = write("good.ndjson", &format!("{good}\n\n{}\n", good.replace("u1", "ü2")));
    let unregistered = produce(&path);
    assert_eq!(unregistered.status.code(), Some(1));
    assert!(
        text(&unregistered.stderr).contains("campaignd schemas register"),
        "{}",
        text(&unregistered.stderr)
    );
    let ids = parts.register().await;

    let bad = write("bad.ndjson", &format!("{good}\n{}\n\n{{\n", good.replace("\"type\"", "\"kind\"")));
    let output = produce(&bad);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("bad.ndjson:2: not an event: unknown field `kind`"), "{said}");
    assert!(said.contains("bad.ndjson:4: not an event: EOF"), "{said}");
    assert!(said.contains("Nothing was sent"), "{said}");
    assert_eq!(parts.events().len(), 0);

    let output = produce(&path);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "2 events to events, 0 not delivered\n");
    let records = parts.events();
    let schema = WriterSchema::parse(ids.event, EVENT_SCHEMA).unwrap();
    let mut users = BTreeSet::new();
    for record in &records {
        let (id, body) = wire::split(record.payload().unwrap()).unwrap();
        assert_eq!(id, ids.event);
        let event = decode_event(&schema, body).unwrap();
        let line = good.replace("u1", &event.user_id);
        assert_eq!(event, Event::from_json(&line).unwrap());
        assert_eq!(record.key().unwrap(), event.user_id.as_bytes());
        users.insert(event.user_id);
    }
    assert_eq!((records.len(), users.len()), (2, 2));

    let missing = parts.run(&["produce", "--file", "no-such-file.ndjson"]);
    assert_eq!(missing.status.code(), Some(64), "{}", text(&missing.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_not_created() {
    let parts = Parts::start().await;
    parts.run_well(&["schemas", "register"]);
    let output = Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(["generate", "--events", "1"])
        .env("CAMPAIGND_KAFKA__BROKERS", parts.broker.bootstrap_servers())
        .env("CAMPAIGND_REGISTRY__URL", parts.registry.url())
        .env("CAMPAIGND_TOPICS__EVENTS", "nowhere")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    // The schema is looked up under the topic's name, so that comes first.
    assert!(said.contains("nowhere"), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(["decisions", "tail", "--no-follow"])
        .env("CAMPAIGND_KAFKA__BROKERS", parts.broker.bootstrap_servers())
        .env("CAMPAIGND_REGISTRY__URL", parts.registry.url())
        .env("CAMPAIGND_TOPICS__DECISIONS", "nowhere")
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("campaignd topology apply"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_the_decisions_asked_for() {
    let parts = Parts::start().await;
    let codec = parts.register().await.output_codec();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", parts.broker.bootstrap_servers()).create().unwrap();
    let decisions: Vec<Decision> =
        [("u1", Outcome::Allow), ("u2", Outcome::Suppress), ("u1", Outcome::Suppress)]
            .into_iter()
            .enumerate()
            .map(|(number, (user, outcome))| decision(number, user, outcome))
            .collect();
    for decision in &decisions {
        let outcome = if decision.outcome == Outcome::Allow { "allow" } else { "suppress" };
        let value = codec.encode_decision(decision);
        let header = OwnedHeaders::new().insert(Header { key: "outcome", value: Some(outcome) });
        let record =
            BaseRecord::to("decisions").key(&decision.user_id).payload(&value).headers(header).partition(1);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.send(BaseRecord::<str, str>::to("decisions").payload("no decision").partition(1)).unwrap();
    producer.flush(PATIENCE).unwrap();
    let tail = |more: &[&str]| {
        let arguments = [&["decisions", "tail", "--from-beginning", "--output", "json"], more].concat();
        let lines = parts.run_well(&arguments);
        lines.lines().map(|line| Decision::from_json(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tail(&["--no-follow"]), decisions);
    assert_eq!(tail(&["--limit", "2"]), decisions[..2]);
    assert_eq!(tail(&["--no-follow", "--user", "u2"]), decisions[1..2]);
    assert_eq!(tail(&["--no-follow", "--outcome", "suppress"]), decisions[1..]);
    let sentences = parts.run_well(&["decisions", "tail", "--from-beginning", "--limit", "1"]);
    assert!(sentences.starts_with("u1 gets email HELLO"), "{sentences}");
    assert_eq!(
        parts.run_well(&["decisions", "tail", "--no-follow"]),
        "",
        "only new ones without --from-beginning"
    );
}

fn decision(number: usize, user: &str, outcome: Outcome) -> Decision {
    let code = if outcome == Outcome::Allow { ReasonCode::Allowed } else { ReasonCode::OnceEver };
    Decision {
        decision_id: Uuid::from_u128(number as u128),
        event_id: number.to_string(),
        user_id: user.into(),
        campaign_id: "hello".into(),
        campaign_version: 4,
        event_type: "signup".into(),
        occurred_at_ms: 1_768_473_000_000,
        decided_at_ms: 1_768_473_000_123,
        outcome,
        reason: Reason { code, limit: None, outranked_by: None },
        action: DecidedAction {
            kind: ActionKind::Send,
            channel: Some("email".into()),
            template: Some("HELLO".into()),
            variant: None,
            recipient: None,
            params: Vec::new(),
        },
        trace_id: None,
    }
}

#[test]
fn generate_into_a_file_is_the_same_each_time_and_has_no_poison() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_campaignd")).arg("generate").args(arguments).output().unwrap()
    };
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["a", "b"] {
        let output = run(&[
            "--events",
            "300",
            "--users",
            "9",
            "--duplicates",
            "0.2",
            "--seed",
            "5",
            "--out",
            &file(name),
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("300 records to "), "{}", text(&output.stdout));
    }
    let lines = std::fs::read_to_string(file("a")).unwrap();
    assert_eq!(lines, std::fs::read_to_string(file("b")).unwrap());
    let events: Vec<Event> = lines.lines().map(|line| Event::from_json(line).unwrap()).collect();
    let ids: BTreeSet<_> = events.iter().map(|event| &event.event_id).collect();
    assert_eq!(events.len(), 300);
    assert!((200..280).contains(&ids.len()), "{}", ids.len());
    let refused = run(&["--poison", "0.1", "--out", &file("c")]);
    assert_eq!(refused.status.code(), Some(64));
    let refused = run(&["--users", "0", "--out", &file("c")]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("users is 0"), "{}", text(&refused.stderr));
}
