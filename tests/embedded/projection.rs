//! The projection turns published decisions into audit rows: all of them, once, whatever fails in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use campaignd::decision::{ActionKind, DecidedAction, Decision, Outcome, Reason, ReasonCode};
use campaignd::projection::{self, Progress, ProjectionError, Settings};
use campaignd::schema::{
    DECISION_SCHEMA, InMemorySchemas, OutputCodec, SchemaError, SchemaSource, WriterSchema,
};
use campaignd::store::embedded::EmbeddedStore;
use campaignd::store::{AuditQuery, AuditRow, AuditStore, StoreError};
use campaignd::telemetry::metrics::Metrics;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TOPIC: &str = "decisions";
const PARTITIONS: i32 = 2;
const CODEC: OutputCodec = OutputCodec { decision_schema_id: 7, activity_schema_id: 8 };
const PATIENCE: Duration = Duration::from_secs(60);

fn decision(number: u32) -> Decision {
    Decision {
        decision_id: Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes()),
        event_id: format!("event-{number}"),
        user_id: format!("user-{}", number % 10),
        campaign_id: "welcome".to_owned(),
        campaign_version: 1,
        event_type: "purchase".to_owned(),
        occurred_at_ms: 1_768_472_000_000 + i64::from(number),
        decided_at_ms: 1_768_472_000_500,
        outcome: Outcome::Allow,
        reason: Reason { code: ReasonCode::Allowed, limit: None, outranked_by: None },
        action: DecidedAction {
            kind: ActionKind::Send,
            channel: Some("email".to_owned()),
            template: None,
            variant: None,
            recipient: None,
            params: Vec::new(),
        },
        trace_id: None,
    }
}

/// A broker in this process, a store in a folder, and the schemas of the decisions.
struct Stage {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    store: EmbeddedStore,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

/// A running projection.
struct Running {
    progress: Progress,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ProjectionError>>,
}

impl Running {
    async fn reached(&self, ends: [i64; 2]) {
        for (partition, end) in (0..).zip(ends) {
            if end > 0 {
                tokio::time::timeout(PATIENCE, self.progress.reached(partition, end)).await.unwrap_or_else(
                    |_| {
                        panic!(
                            "waited for {end} of partition {partition}, at {:?}",
                            self.progress.next_offsets()
                        )
                    },
                );
            }
        }
    }

    async fn stop(self) -> Result<(), ProjectionError> {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends when asked to").unwrap()
    }
}

impl Stage {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
        let producer = client(&cluster).create().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).unwrap();
        Self { cluster, producer, store, metrics: Metrics::new().unwrap(), _folder: folder }
    }

    /// Publishes the decisions to the partition of their number.
    fn publish(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let decision = decision(number);
            self.send((number % 2) as i32, Some(&CODEC.encode_decision(&decision)));
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn send(&self, partition: i32, value: Option<&[u8]>) {
        let mut record = BaseRecord::<str, [u8]>::to(TOPIC).key("user").partition(partition);
        record.payload = value;
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn start(&self, store: Arc<dyn AuditStore>, schemas: Arc<dyn SchemaSource>) -> Running {
        let settings = Settings {
            client: client(&self.cluster),
            topic: TOPIC.to_owned(),
            group_id: "campaignd-audit".to_owned(),
            session_timeout: Duration::from_secs(6),
            batch_max_records: 16,
            retry_wait: Duration::from_millis(5),
        };
        let (progress, shutdown) = (Progress::new(), CancellationToken::new());
        let run = projection::run(
            settings,
            schemas,
            store,
            self.metrics.clone(),
            progress.clone(),
            shutdown.clone(),
        );
        Running { progress, shutdown, task: tokio::spawn(run) }
    }

    async fn stored(&self) -> Vec<Decision> {
        let mut rows = Vec::new();
        for user in 0..10 {
            let query =
                AuditQuery { user_id: format!("user-{user}"), limit: 10_000, ..AuditQuery::default() };
            rows.extend(self.store.read_audit(&query).await.unwrap().into_iter().map(|row| row.decision));
        }
        rows.sort_by_key(|decision| decision.occurred_at_ms);
        rows
    }
}

fn client(cluster: &MockCluster<'static, DefaultProducerContext>) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers());
    client
}

fn schemas() -> Arc<InMemorySchemas> {
    Arc::new(InMemorySchemas::new().with(CODEC.decision_schema_id, DECISION_SCHEMA).unwrap())
}

fn decisions(numbers: std::ops::Range<u32>) -> Vec<Decision> {
    numbers.map(decision).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_published_decision_becomes_a_row_and_a_restart_goes_on_behind_it() {
    let stage = Stage::new();
    stage.publish(0..100);
    let first = stage.start(Arc::new(stage.store.clone()), schemas());
    first.reached([50, 50]).await;
    first.stop().await.unwrap();
    assert_eq!(stage.stored().await, decisions(0..100));

    stage.publish(100..110);
    let second = stage.start(Arc::new(stage.store.clone()), schemas());
    second.reached([55, 55]).await;
    second.stop().await.unwrap();
    assert_eq!(stage.stored().await, decisions(0..110));
    assert_eq!(stage.metrics.snapshot().projected_rows, 110, "the second run read nothing again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_nobody_can_read_is_counted_and_passed_over() {
    let stage = Stage::new();
    let good = CODEC.encode_decision(&decision(0));
    let other_schema = OutputCodec { decision_schema_id: 99, ..CODEC }.encode_decision(&decision(1));
    let bad: [Option<&[u8]>; 5] =
        [None, Some(b""), Some(b"not framed"), Some(&good[..good.len() - 1]), Some(&other_schema)];
    for value in bad {
        stage.send(0, value);
    }
    stage.publish(0..2);
    let running = stage.start(Arc::new(stage.store.clone()), schemas());
    running.reached([6, 1]).await;
    running.stop().await.unwrap();
    assert_eq!(stage.stored().await, decisions(0..2));
    assert_eq!(stage.metrics.snapshot().projection_skipped, bad.len() as u64);
}

/// A store that is away for the first calls.
struct Away {
    store: EmbeddedStore,
    calls_left: AtomicU32,
    refuses: bool,
}

#[async_trait]
impl AuditStore for Away {
    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        let left = |left: u32| left.checked_sub(1);
        if self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            return self.store.insert_audit(rows).await;
        }
        // Half of the rows arrive: an unavailable store may have applied any of them.
        self.store.insert_audit(&rows[..rows.len() / 2]).await?;
        Err(match self.refuses {
            true => StoreError::Refused("the disk is full".to_owned()),
            false => StoreError::Unavailable("away".to_owned()),
        })
    }

    async fn read_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        self.store.read_audit(query).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_delays_rows_and_loses_none() {
    let stage = Stage::new();
    stage.publish(0..100);
    let away = Away { store: stage.store.clone(), calls_left: AtomicU32::new(8), refuses: false };
    let running = stage.start(Arc::new(away), schemas());
    running.reached([50, 50]).await;
    stage.publish(100..110);
    running.reached([55, 55]).await;
    running.stop().await.unwrap();
    assert_eq!(stage.stored().await, decisions(0..110));
    let seen = stage.metrics.snapshot();
    assert_eq!((seen.projected_rows, seen.store_retries), (110, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_ends_the_projection_with_nothing_committed() {
    let stage = Stage::new();
    stage.publish(0..10);
    let full = Away { store: stage.store.clone(), calls_left: AtomicU32::new(1), refuses: true };
    let refused = stage.start(Arc::new(full), schemas());
    let ended = tokio::time::timeout(PATIENCE, refused.task).await.expect("it ends by itself").unwrap();
    assert!(ended.unwrap_err().to_string().contains("the disk is full"));

    let after = stage.start(Arc::new(stage.store.clone()), schemas());
    after.reached([5, 5]).await;
    after.stop().await.unwrap();
    assert_eq!(stage.stored().await, decisions(0..10));
}

/// A registry that does not answer the first calls.
struct Deaf {
    schemas: Arc<InMemorySchemas>,
    calls_left: AtomicU32,
}

#[async_trait]
impl SchemaSource for Deaf {
    async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        let left = |left: u32| left.checked_sub(1);
        match self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            Ok(_) => Err(SchemaError::Unavailable { reason: "deaf".to_owned() }),
            Err(_) => self.schemas.schema(id).await,
        }
    }

    fn cached(&self, _id: u32) -> Option<Arc<WriterSchema>> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_does_not_answer_delays_rows_and_loses_none() {
    let stage = Stage::new();
    stage.publish(0..20);
    let deaf = Deaf { schemas: schemas(), calls_left: AtomicU32::new(5) };
    let running = stage.start(Arc::new(stage.store.clone()), Arc::new(deaf));
    running.reached([10, 10]).await;
    running.stop().await.unwrap();
    assert_eq!(stage.stored().await, decisions(0..20));
    assert_eq!(stage.metrics.snapshot().projection_skipped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_asked_to_even_while_the_store_is_away() {
    let stage = Stage::new();
    stage.publish(0..10);
    let away = Away { store: stage.store.clone(), calls_left: AtomicU32::new(u32::MAX), refuses: false };
    let running = stage.start(Arc::new(away), schemas());
    tokio::time::timeout(PATIENCE, async {
        while stage.metrics.snapshot().store_retries == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it asks the store");
    let progress = running.progress.clone();
    running.stop().await.unwrap();
    assert!(progress.next_offsets().is_empty(), "nothing was stored as a whole");
}
