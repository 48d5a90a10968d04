//! On a real broker the audit trail holds what was committed and nothing else, and members share the work.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use campaignd::decision::{ActionKind, DecidedAction, Decision, Outcome, Reason, ReasonCode};
use campaignd::projection::{self, Progress, ProjectionError, Settings};
use campaignd::schema::{DECISION_SCHEMA, InMemorySchemas, OutputCodec};
use campaignd::store::embedded::EmbeddedStore;
use campaignd::store::{AuditQuery, AuditStore};
use campaignd::telemetry::metrics::Metrics;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::suite::{Services, Suite};
use crate::support::unique;

const CODEC: OutputCodec = OutputCodec { decision_schema_id: 7, activity_schema_id: 8 };
const PATIENCE: Duration = Duration::from_secs(60);
const USER: &str = "user";

pub fn stories(suite: &mut Suite) {
    suite.story("projection::only_committed_decisions_become_rows", only_committed_decisions_become_rows);
    suite.story(
        "projection::a_member_takes_over_what_another_leaves",
        a_member_takes_over_what_another_leaves,
    );
}

fn decision(number: u32) -> Decision {
    Decision {
        decision_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes()),
        event_id: format!("event-{number}"),
        user_id: USER.to_owned(),
        campaign_id: "welcome".to_owned(),
        campaign_version: 1,
        event_type: "purchase".to_owned(),
        occurred_at_ms: 1_768_472_000_000 + i64::from(number),
        decided_at_ms: 1_768_472_000_500,
        outcome: Outcome::Allow,
        reason: Reason { code: ReasonCode::Allowed, limit: None, outranked_by: None },
        action: DecidedAction {
            kind: ActionKind::Send,
            channel: None,
            template: None,
            variant: None,
            recipient: None,
            params: Vec::new(),
        },
        trace_id: None,
    }
}

/// A topic of decisions with a transactional writer, and a store for the rows.
struct Stage {
    topic: String,
    client: ClientConfig,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    store: EmbeddedStore,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

struct Running {
    progress: Progress,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ProjectionError>>,
}

impl Running {
    async fn reached(&self, partition: i32, offset: i64) {
        let reached = tokio::time::timeout(PATIENCE, self.progress.reached(partition, offset)).await;
        assert!(reached.is_ok(), "waited for {offset} of {partition}, at {:?}", self.progress.next_offsets());
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends when asked to").unwrap().unwrap();
    }
}

impl Stage {
    async fn new(services: &Services, partitions: i32) -> Self {
        let topic = unique("decisions");
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &services.kafka);
        let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
        let wanted = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let created = admin.create_topics(&[wanted], &AdminOptions::new()).await.unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        let mut transactional = client.clone();
        transactional.set("transactional.id", unique("writer")).set("transaction.timeout.ms", "10000");
        let producer: ThreadedProducer<_> = transactional.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).unwrap();
        Self { topic, client, producer, store, metrics: Metrics::new().unwrap(), _folder: folder }
    }

    /// Publishes the decisions in one transaction, to every partition in turn.
    fn publish(&self, numbers: Range<u32>, partitions: u32, commit: bool) {
        self.producer.begin_transaction().unwrap();
        for number in numbers {
            let value = CODEC.encode_decision(&decision(number));
            let partition = (number % partitions) as i32;
            let record =
                BaseRecord::<str, [u8]>::to(&self.topic).key(USER).partition(partition).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
        if commit {
            self.producer.commit_transaction(PATIENCE).unwrap();
        } else {
            self.producer.abort_transaction(PATIENCE).unwrap();
        }
    }

    fn start(&self) -> Running {
        let settings = Settings {
            client: self.client.clone(),
            topic: self.topic.clone(),
            group_id: format!("{}-audit", self.topic),
            session_timeout: Duration::from_secs(6),
            batch_max_records: 16,
            retry_wait: Duration::from_millis(5),
        };
        let schemas = InMemorySchemas::new().with(CODEC.decision_schema_id, DECISION_SCHEMA).unwrap();
        let (progress, shutdown) = (Progress::new(), CancellationToken::new());
        let run = projection::run(
            settings,
            Arc::new(schemas),
            Arc::new(self.store.clone()),
            self.metrics.clone(),
            progress.clone(),
            shutdown.clone(),
        );
        Running { progress, shutdown, task: tokio::spawn(run) }
    }

    async fn stored(&self) -> Vec<Decision> {
        let query = AuditQuery { user_id: USER.to_owned(), limit: 10_000, ..AuditQuery::default() };
        let rows = self.store.read_audit(&query).await.unwrap();
        rows.into_iter().rev().map(|row| row.decision).collect()
    }
}

async fn only_committed_decisions_become_rows(services: Services) {
    let stage = Stage::new(&services, 1).await;
    stage.publish(0..20, 1, true);
    stage.publish(20..30, 1, false);
    stage.publish(30..40, 1, true);
    let running = stage.start();
    // 40 records and the markers of the first two transactions.
    running.reached(0, 42).await;
    stage.publish(40..45, 1, false);
    stage.publish(45..50, 1, true);
    running.reached(0, 54).await;
    running.stop().await;
    let committed: Vec<Decision> = (0..20).chain(30..40).chain(45..50).map(decision).collect();
    assert_eq!(stage.stored().await, committed);
    assert_eq!(stage.metrics.snapshot().projected_rows, 35);
}

async fn a_member_takes_over_what_another_leaves(services: Services) {
    let stage = Stage::new(&services, 2).await;
    stage.publish(0..40, 2, true);
    let first = stage.start();
    first.reached(0, 20).await;
    first.reached(1, 20).await;
    let second = stage.start();
    first.stop().await;
    stage.publish(40..60, 2, true);
    // One marker stands between the two transactions.
    second.reached(0, 31).await;
    second.reached(1, 31).await;
    second.stop().await;
    assert_eq!(stage.stored().await, (0..60).map(decision).collect::<Vec<_>>());
    assert_eq!(stage.metrics.snapshot().projected_rows, 60, "nothing was read twice");
}
