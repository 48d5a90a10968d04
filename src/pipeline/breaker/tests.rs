//! The handle and the two dependencies behind it, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pipeline::decoded::Abandoned;
use crate::schema::{EVENT_SCHEMA, SchemaError, SchemaSource, WriterSchema};
use crate::store::{Cell, FenceRow, StateStore, StoreError};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::{Dependency, Metrics};

/// How long a call of the store takes.
const CALL: Duration = Duration::from_millis(3);

#[derive(Default)]
struct Ward {
    /// Nothing is answered.
    dead: bool,
    /// No write is answered.
    dead_writes: bool,
    /// Users whose cells cannot be read.
    ill: BTreeSet<String>,
    cells: BTreeMap<String, Bytes>,
    loads: Vec<Vec<String>>,
    writes: Vec<Vec<Cell>>,
}

/// A store that falls ill and recovers on demand.
#[derive(Clone, Default)]
struct Patient {
    ward: Arc<Mutex<Ward>>,
    under_way: Arc<AtomicUsize>,
    most_under_way: Arc<AtomicUsize>,
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("told to".into())
}

impl Patient {
    fn lock(&self) -> MutexGuard<'_, Ward> {
        self.ward.lock().unwrap()
    }

    async fn call(&self) {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(CALL).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl StateStore for Patient {
    async fn load(&self, user_ids: &[&str]) -> Vec<Result<Option<Bytes>, StoreError>> {
        self.lock().loads.push(user_ids.iter().map(|user| (*user).to_owned()).collect());
        self.call().await;
        let ward = self.lock();
        let read = |user: &&str| match ward.dead || ward.ill.contains(*user) {
            true => Err(unavailable()),
            false => Ok(ward.cells.get(*user).cloned()),
        };
        user_ids.iter().map(read).collect()
    }

    async fn write(&self, cells: &[Cell]) -> Result<(), StoreError> {
        self.lock().writes.push(cells.to_vec());
        self.call().await;
        let ward = self.lock();
        if ward.dead || ward.dead_writes { Err(unavailable()) } else { Ok(()) }
    }

    async fn read_fence(&self, _: &str, _: i32) -> Result<Option<FenceRow>, StoreError> {
        if self.lock().dead { Err(unavailable()) } else { Ok(None) }
    }

    async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        _: Option<&FenceRow>,
        _: &FenceRow,
    ) -> Result<(), StoreError> {
        Err(StoreError::Fenced { topic: topic.to_owned(), partition })
    }

    async fn clock_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }
}

struct Scene {
    patient: Patient,
    store: GuardedStore,
    metrics: Metrics,
    health: Health,
    epoch: CancellationToken,
}

fn scene() -> Scene {
    let (patient, metrics, health) = (Patient::default(), Metrics::new().unwrap(), Health::new());
    let store = GuardedStore::new(Arc::new(patient.clone()), Limits::default(), &metrics, &health);
    Scene { patient, store, metrics, health, epoch: CancellationToken::new() }
}

impl Scene {
    /// Whose reads came back with an error.
    async fn unread(&self, users: &[&str]) -> Vec<String> {
        let found = self.store.load(users, &self.epoch).await.unwrap();
        assert_eq!(found.len(), users.len());
        users
            .iter()
            .zip(found)
            .filter(|(_, read)| read.is_err())
            .map(|(user, _)| (*user).to_owned())
            .collect()
    }

    /// The store recovers after that time.
    fn recover_after(&self, time: Duration) {
        let patient = self.patient.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let mut ward = patient.lock();
            (ward.dead, ward.dead_writes) = (false, false);
        });
    }

    fn is_noted(&self) -> bool {
        !self.health.report()["notes"]["store"].is_null()
    }
}

fn cell() -> Cell {
    Cell { user_id: "u".into(), bytes: Bytes::from_static(b"state"), timestamp_us: 7 }
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_alone_cannot_be_read_is_its_users_own_trouble() {
    let scene = scene();
    scene.patient.lock().ill.insert("b".into());
    scene.patient.lock().cells.insert("a".into(), Bytes::from_static(b"x"));
    assert_eq!(scene.unread(&["a", "b", "c"]).await, ["b"]);
    let found = scene.store.load(&["a"], &scene.epoch).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().as_deref(), Some(b"x".as_slice()));
    assert!(!scene.store.breaker().is_open());
}

#[tokio::test(start_paused = true)]
async fn ill_users_alone_open_nothing_however_many_and_however_often() {
    let scene = scene();
    let users: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    scene.patient.lock().ill.extend(users.iter().map(|user| (*user).to_owned()));
    for count in [1, 20, 1, 3, 20, 20, 1, 1, 1, 1, 1, 1, 1] {
        assert_eq!(scene.unread(&users[..count]).await.len(), count);
    }
    assert_eq!(scene.metrics.snapshot().breaker_opens, 0);
    assert!(!scene.metrics.snapshot().paused);
}

#[tokio::test(start_paused = true)]
async fn the_first_reads_of_an_outage_park_nobody_however_few_and_however_well_it_was_before() {
    for (before, count) in [(0, 1), (0, 2), (0, 50), (100_000, 1), (100_000, 2), (100_000, 50)] {
        let scene = scene();
        let users: Vec<String> = (0..count.max(1_000)).map(|n| format!("u{n}")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        for _ in 0..before / 1_000 {
            assert_eq!(scene.unread(&users[..1_000]).await.len(), 0);
        }
        scene.patient.lock().dead = true;
        scene.recover_after(Duration::from_secs(20));
        let start = Instant::now();
        assert_eq!(scene.unread(&users[..count]).await, Vec::<String>::new(), "{before} {count}");
        let took = start.elapsed();
        assert!(took > Duration::from_secs(20), "it waited: {took:?}");
        assert!(took < Duration::from_secs(23), "it saw the recovery soon: {took:?}");
        assert_eq!(scene.metrics.snapshot().breaker_opens, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ill_user_is_told_apart_once_an_outage_is_over() {
    let scene = scene();
    scene.patient.lock().dead = true;
    scene.patient.lock().ill.insert("b".into());
    scene.recover_after(Duration::from_secs(3));
    assert_eq!(scene.unread(&["a", "b", "c"]).await, ["b"]);
    assert!(!scene.store.breaker().is_open());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_seen_by_all_and_probed_by_one_at_a_time() {
    let scene = Arc::new(scene());
    scene.patient.lock().dead = true;
    scene.recover_after(Duration::from_secs(60));
    let lanes: Vec<_> = (0..8)
        .map(|lane| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.unread(&[&format!("u{lane}"), "x", "y"]).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.store.breaker().is_open() && scene.is_noted() && scene.metrics.snapshot().paused);
    let (_, text) = scene.metrics.render().unwrap();
    assert!(String::from_utf8(text).unwrap().contains("campaignd_breaker_open{dependency=\"store\"} 1"));
    scene.patient.most_under_way.store(0, Ordering::SeqCst);
    let asked = scene.patient.lock().loads.len();
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(scene.patient.most_under_way.load(Ordering::SeqCst), 1, "one probe at a time");
    let probes = scene.patient.lock().loads.split_off(asked);
    assert!((25..35).contains(&probes.len()), "every two seconds: {}", probes.len());
    assert!(probes.iter().flatten().all(|key| key.starts_with("campaignd:probe:")), "{probes:?}");
    let keys: BTreeSet<&String> = probes.iter().flatten().collect();
    assert_eq!(keys.len(), 3 * probes.len(), "other keys each time");
    for lane in lanes {
        assert_eq!(lane.await.unwrap(), Vec::<String>::new());
    }
    assert!(!scene.store.breaker().is_open() && !scene.is_noted() && !scene.metrics.snapshot().paused);
    assert_eq!(scene.metrics.snapshot().breaker_opens, 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_repeated_as_it_is_and_an_outage_is_seen_at_its_first_failure() {
    let scene = scene();
    scene.patient.lock().dead = true;
    let (store, epoch) = (scene.store.clone(), scene.epoch.clone());
    let writing = tokio::spawn(async move { store.write(&[cell()], &epoch).await });
    tokio::time::sleep(CALL * 3).await;
    assert!(scene.store.breaker().is_open() && scene.metrics.snapshot().paused);
    scene.recover_after(Duration::from_secs(10));
    assert!(matches!(writing.await.unwrap(), Ok(Ok(()))));
    assert!(!scene.store.breaker().is_open() && !scene.metrics.snapshot().paused);
    let ward = scene.patient.lock();
    assert!(ward.writes.len() > 5 && ward.writes.iter().all(|cells| *cells == [cell()]));
    assert_eq!(scene.metrics.snapshot().store_retries, ward.writes.len() as u64 - 1);
}

#[tokio::test(start_paused = true)]
async fn writes_that_fail_while_reads_get_through_hold_up_no_reads_for_long() {
    let scene = scene();
    scene.patient.lock().dead_writes = true;
    scene.patient.lock().ill.insert("b".into());
    let (store, epoch) = (scene.store.clone(), scene.epoch.clone());
    let writing = tokio::spawn(async move { store.write(&[cell()], &epoch).await });
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(scene.unread(&["a", "b"]).await, ["b"]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!writing.is_finished() && scene.metrics.snapshot().paused);
    scene.recover_after(Duration::ZERO);
    assert!(matches!(writing.await.unwrap(), Ok(Ok(()))));
}

#[tokio::test(start_paused = true)]
async fn writes_that_go_on_failing_open_it_by_themselves() {
    let scene = scene();
    scene.patient.lock().dead_writes = true;
    scene.recover_after(Duration::from_secs(30));
    assert!(matches!(scene.store.write(&[cell()], &scene.epoch).await, Ok(Ok(()))));
    let opens = scene.metrics.snapshot().breaker_opens;
    assert_eq!(opens, 1, "a write is its own probe, so that nothing closes it between");
}

#[tokio::test(start_paused = true)]
async fn fences_and_refusals_are_answers() {
    let scene = scene();
    let row = FenceRow {
        fence_us: 1,
        token: uuid::Uuid::nil(),
        cluster_id: String::new(),
        partition_count: 1,
        incarnation: 0,
        committed_offset: None,
        retry_offsets: BTreeMap::new(),
    };
    for _ in 0..100 {
        let answer = scene.store.replace_fence("events", 0, None, &row, &scene.epoch).await;
        assert!(matches!(answer, Ok(Err(StoreError::Fenced { .. }))));
    }
    assert!(!scene.store.breaker().is_open());
    scene.patient.lock().dead = true;
    scene.recover_after(Duration::from_secs(5));
    assert!(matches!(scene.store.read_fence("events", 0, &scene.epoch).await, Ok(Ok(None))));
    assert_eq!(scene.metrics.snapshot().breaker_opens, 1);
}

#[tokio::test(start_paused = true)]
async fn every_wait_ends_with_the_epoch_and_a_probe_that_is_dropped_is_made_by_another() {
    let scene = scene();
    scene.patient.lock().dead = true;
    let waits: Vec<_> = (0..40)
        .map(|n| {
            let (store, epoch) = (scene.store.clone(), scene.epoch.clone());
            tokio::spawn(async move {
                match n % 2 {
                    0 => store.load(&["a", "b"], &epoch).await.map(drop),
                    _ => store.write(&[cell()], &epoch).await.map(drop),
                }
            })
        })
        .collect();
    // In the middle of a probe.
    tokio::time::sleep(Duration::from_secs(2)).await;
    while scene.patient.under_way.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let end = Instant::now();
    scene.epoch.cancel();
    for wait in waits {
        assert_eq!(wait.await.unwrap(), Err(Abandoned));
    }
    assert_eq!(end.elapsed(), Duration::ZERO);
    assert!(!scene.metrics.snapshot().paused, "nobody waits any more");
    scene.recover_after(Duration::ZERO);
    let next = CancellationToken::new();
    assert!(scene.store.load(&["a"], &next).await.unwrap()[0].is_ok());
    assert!(end.elapsed() < Duration::from_secs(3), "{:?}", end.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_to_load_asks_nobody() {
    let scene = scene();
    scene.patient.lock().dead = true;
    assert_eq!(scene.unread(&[]).await, Vec::<String>::new());
    assert!(scene.patient.lock().loads.is_empty());
}

/// A registry that answers as told.
struct Sick(Mutex<Option<SchemaError>>, AtomicUsize);

#[async_trait]
impl SchemaSource for Sick {
    async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        match self.0.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => WriterSchema::parse(id, EVENT_SCHEMA).map(Arc::new),
        }
    }

    fn cached(&self, _: u32) -> Option<Arc<WriterSchema>> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_is_waited_for_and_what_it_says_is_an_answer() {
    let (metrics, health, epoch) = (Metrics::new().unwrap(), Health::new(), CancellationToken::new());
    let sick = Arc::new(Sick(Mutex::new(Some(SchemaError::Unknown { id: 1 })), AtomicUsize::new(0)));
    let schemas =
        GuardedSchemas::new(Arc::clone(&sick) as Arc<dyn SchemaSource>, Limits::default(), &metrics, &health);
    for _ in 0..100 {
        let answer = schemas.schema(1, &epoch).await.unwrap();
        assert_eq!(answer.unwrap_err(), NoSchema::Unknown);
    }
    let invalid = SchemaError::Invalid { id: 1, reason: "no".into() };
    *sick.0.lock().unwrap() = Some(invalid.clone());
    assert_eq!(
        schemas.schema(1, &epoch).await.unwrap().unwrap_err(),
        NoSchema::Unusable(invalid.to_string())
    );
    assert_eq!(metrics.snapshot().breaker_opens, 0);

    *sick.0.lock().unwrap() = Some(SchemaError::Unavailable { reason: "it answered HTTP 500".into() });
    let lanes: Vec<_> = (0..4)
        .map(|id| {
            let (schemas, epoch) = (schemas.clone(), epoch.clone());
            tokio::spawn(async move { schemas.schema(id, &epoch).await.unwrap().map(|schema| schema.id()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(metrics.snapshot().paused);
    let note = health.report()["notes"]["registry"].to_string();
    assert!(note.contains("HTTP 500"), "{note}");
    let asked = sick.1.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let probes = sick.1.load(Ordering::SeqCst) - asked;
    assert!((9..14).contains(&probes), "one probe every two seconds, not one a lane: {probes}");
    *sick.0.lock().unwrap() = None;
    for (id, lane) in lanes.into_iter().enumerate() {
        assert_eq!(lane.await.unwrap(), Ok(id as u32));
    }
    assert_eq!(metrics.snapshot().breaker_opens, 1);
    assert!(health.report()["notes"]["registry"].is_null() && !metrics.snapshot().paused);
    let (_, text) = metrics.render().unwrap();
    let probes = format!("campaignd_breaker_probes_total{{dependency=\"{}\"}}", Dependency::Registry);
    assert!(String::from_utf8(text).unwrap().contains(&probes));
}
