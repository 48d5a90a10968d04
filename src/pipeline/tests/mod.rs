//! The processor over a broker and a store in memory, in virtual time.

mod fake;
mod outages;
mod parking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::fake::{
    CommitFate, FakeBroker, FakeCampaigns, FakeClock, FakeLog, FakeOutput, FakeSchemas, FakeStore,
};
use super::breaker::Limits;
use super::lane::LaneParts;
use super::log::{OutputRecord, OutputTopic};
use super::outputs::header;
use super::parking::Tiers;
use super::settings::RetrySettings;
use super::{Parts, PipelineError, Settings, run};
use crate::campaign::definition::{Action, ActionKind, Campaign, Limit};
use crate::campaign::set::{CampaignSet, LiveCampaign};
use crate::event::Event;
use crate::partitioner::Partitioner;
use crate::schema::{OutputCodec, encode_event, wire};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::{EventResult, Metrics};

const SCHEMA_ID: u32 = 7;
const CODEC: OutputCodec = OutputCodec { decision_schema_id: 8, activity_schema_id: 9 };
const NOON_MS: i64 = 1_768_478_400_000;

/// Settings that tests begin with.
pub(crate) fn settings(events_partitioner: Partitioner) -> Settings {
    Settings {
        events_topic: "events".into(),
        lanes: 3,
        cache_max_bytes: 1 << 20,
        max_future_skew: Duration::from_secs(300),
        max_record_bytes: 10_000,
        max_decision_bytes: 10_000,
        max_decisions_per_event: 8,
        max_outbox_bytes: 1 << 20,
        events_partitioner,
        drain_timeout: Duration::from_secs(5),
        session_timeout: Duration::from_secs(6),
        store_write_timeout: Duration::from_secs(2),
        breaker: Limits::default(),
        retry: RetrySettings {
            topic: "events.retry".into(),
            tiers: Tiers::new(&[1, 10].map(Duration::from_secs)),
            max_attempts: 3,
            max_pending: 6,
            max_pending_per_user: 4,
        },
    }
}

/// A world that outlives processes: broker, store, clock.
struct World {
    broker: FakeBroker,
    store: FakeStore,
    clock: FakeClock,
    schemas: FakeSchemas,
    campaigns: FakeCampaigns,
    metrics: Metrics,
    batch_records: usize,
    max_outbox_bytes: usize,
}

struct Process {
    task: JoinHandle<Result<(), PipelineError>>,
    shutdown: CancellationToken,
}

impl World {
    fn new(partitions: i32) -> World {
        let world = World {
            broker: FakeBroker::default(),
            store: FakeStore::default(),
            clock: FakeClock::default(),
            schemas: FakeSchemas::default(),
            campaigns: FakeCampaigns::new(campaigns()),
            metrics: Metrics::new().unwrap(),
            batch_records: 4,
            max_outbox_bytes: 1 << 20,
        };
        world.clock.set_ms(NOON_MS);
        world.broker.lock().tiers = 2;
        world.schemas.register(SCHEMA_ID);
        for partition in 0..partitions {
            world.broker.lock().events.insert(partition, Vec::new());
        }
        world
    }

    fn partitions(&self) -> i32 {
        i32::try_from(self.broker.lock().events.len()).unwrap()
    }

    fn append(&self, user: &str, event_id: &str, occurred_at_ms: i64) -> i64 {
        let event = Event {
            event_id: event_id.into(),
            user_id: user.into(),
            event_type: "purchase".into(),
            occurred_at_ms,
            properties: BTreeMap::new(),
            traits: BTreeMap::new(),
            trace_id: None,
        };
        let mut body = Vec::new();
        encode_event(&event, &mut body);
        self.append_raw(user.as_bytes(), wire::frame(SCHEMA_ID, &body))
    }

    fn append_raw(&self, key: &[u8], value: Vec<u8>) -> i64 {
        let partition = Partitioner::Murmur2.partition(key, self.partitions());
        self.broker.append(partition, key, value)
    }

    fn start(&self) -> Process {
        let (log, output) = self.broker.join(self.batch_records, self.clock.clone());
        self.start_with(log, output)
    }

    fn start_with(&self, log: FakeLog, output: Arc<FakeOutput>) -> Process {
        let settings = Settings { max_outbox_bytes: self.max_outbox_bytes, ..settings(Partitioner::Murmur2) };
        let parts = Parts {
            log,
            output,
            campaigns: Arc::new(self.campaigns.clone()),
            lanes: LaneParts {
                store: Arc::new(self.store.clone()),
                schemas: Arc::new(self.schemas.clone()),
                codec: CODEC,
                settings: Arc::new(settings),
                metrics: self.metrics.clone(),
            },
            clock: Arc::new(self.clock.clone()),
            health: Health::new(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(parts, shutdown.clone()));
        Process { task, shutdown }
    }

    /// Event ids of the published decisions of a campaign, in order.
    fn decided(&self, campaign: &str) -> Vec<String> {
        let broker = self.broker.lock();
        broker
            .published
            .iter()
            .filter(|record| record.topic == OutputTopic::Decisions)
            .map(|record| CODEC.decode_decision(record.value.as_deref().unwrap()).unwrap())
            .filter(|decision| decision.campaign_id == campaign)
            .map(|decision| format!("{}:{:?}", decision.event_id, decision.outcome).to_lowercase())
            .collect()
    }

    fn dead_letters(&self) -> Vec<(String, OutputRecord)> {
        let broker = self.broker.lock();
        broker
            .published
            .iter()
            .filter(|record| record.topic == OutputTopic::DeadLetters)
            .map(|record| {
                let codes: Vec<_> = record.headers.iter().filter(|h| h.name == header::ERROR_CODE).collect();
                assert_eq!(codes.len(), 1, "our headers are written once");
                let code = String::from_utf8(codes[0].value.clone().unwrap().to_vec()).unwrap();
                (code, record.clone())
            })
            .collect()
    }
}

impl Process {
    /// The process dies where it stands.
    async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// `each` decides on every purchase, `first` on the first one only.
fn campaigns() -> CampaignSet {
    let campaign = |id: &str, limits: Vec<Limit>| {
        Arc::new(LiveCampaign {
            campaign: Campaign {
                id: id.into(),
                description: None,
                status: None,
                schedule: None,
                trigger: vec!["purchase".into()],
                when: None,
                priority: 0,
                group: None,
                tags: Vec::new(),
                limits,
                action: Action {
                    kind: ActionKind::Alert,
                    channel: None,
                    template: None,
                    params: BTreeMap::new(),
                },
            },
            version: 3,
        })
    };
    CampaignSet::new(
        [campaign("each", Vec::new()), campaign("first", vec![Limit::OncePerEver])],
        Arc::default(),
        3,
    )
}

#[tokio::test(start_paused = true)]
async fn events_become_decisions_once_and_in_order() {
    let world = World::new(2);
    for number in 0..20 {
        world.append("ada", &format!("e{number}"), NOON_MS + number);
    }
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    let expected: Vec<String> = (0..20).map(|number| format!("e{number}:allow")).collect();
    assert_eq!(world.decided("each"), expected);
    assert_eq!(world.decided("first")[..2], ["e0:allow", "e1:suppress"]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_event_id_gives_one_decision() {
    let world = World::new(1);
    for event_id in ["a", "b", "a", "a", "c", "b"] {
        world.append("ada", event_id, NOON_MS);
    }
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["a:allow", "b:allow", "c:allow"]);
    let snapshot = world.metrics.snapshot();
    assert_eq!(snapshot.events(EventResult::Duplicate), 3);
    assert_eq!(snapshot.events(EventResult::Decided), 3);
}

/// Rules S2 to S4: cells are written, the transaction is not, the process dies; the next one publishes from the outbox.
#[tokio::test(start_paused = true)]
async fn a_crash_between_cells_and_commit_loses_and_doubles_nothing() {
    let world = World::new(1);
    for number in 0..4 {
        world.append("ada", &format!("e{number}"), NOON_MS + number);
    }
    world.broker.lock().fates.push_back(CommitFate::Hangs);
    let process = world.start();
    world.broker.until(|broker| broker.fates.is_empty()).await;
    assert!(
        world.store.lock().cells.contains_key("ada"),
        "the cell is written before the transaction begins"
    );
    process.crash().await;
    assert!(world.decided("each").is_empty());

    let second = world.start();
    world.broker.until_all_committed().await;
    second.stop().await;
    assert_eq!(world.decided("each"), ["e0:allow", "e1:allow", "e2:allow", "e3:allow"]);
    assert_eq!(world.decided("first"), ["e0:allow", "e1:suppress", "e2:suppress", "e3:suppress"]);
    assert_eq!(world.metrics.snapshot().unexplained_replays, 0);
}

/// A dead letter that no cell records stands before an event of the same user whose cell was written: found by the crash
/// story on real services, which missed it on the dead letter topic.
#[tokio::test(start_paused = true)]
async fn a_crash_loses_no_dead_letter_that_no_cell_records() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    world.append_raw(b"ada", b"not framed".to_vec());
    world.append("ada", "e1", NOON_MS + 1);
    world.broker.lock().fates.push_back(CommitFate::Hangs);
    let process = world.start();
    world.broker.until(|broker| broker.fates.is_empty()).await;
    process.crash().await;
    let second = world.start();
    world.broker.until_all_committed().await;
    second.stop().await;
    assert_eq!(world.decided("each"), ["e0:allow", "e1:allow"]);
    let codes: Vec<String> = world.dead_letters().into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["bad_framing"]);
}

/// Crashes twice in the same place: an entry is published only by the batch that holds its own record.
#[tokio::test(start_paused = true)]
async fn repeated_crashes_publish_each_entry_with_its_own_record() {
    let world = World { batch_records: 2, ..World::new(1) };
    for number in 0..8 {
        world.append("ada", &format!("e{number}"), NOON_MS + number);
    }
    for _ in 0..3 {
        world.broker.lock().fates = [CommitFate::Commits, CommitFate::Hangs].into();
        let process = world.start();
        world.broker.until(|broker| broker.fates.is_empty()).await;
        process.crash().await;
    }
    let last = world.start();
    world.broker.until_all_committed().await;
    last.stop().await;
    let expected: Vec<String> = (0..8).map(|number| format!("e{number}:allow")).collect();
    assert_eq!(world.decided("each"), expected);
}

/// Rule S9: what one event can add to a cell is bounded too.
#[tokio::test(start_paused = true)]
async fn decisions_that_no_outbox_holds_are_a_dead_letter() {
    let world = World { max_outbox_bytes: 100, ..World::new(1) };
    world.append("ada", "e0", NOON_MS);
    world.start_and_finish().await;
    assert!(world.decided("each").is_empty());
    assert_eq!(world.dead_letters()[0].0, "too_many_decisions");
}

/// Rule S9: a batch that would fill a user's outbox is read again in smaller pieces.
#[tokio::test(start_paused = true)]
async fn a_full_outbox_makes_batches_smaller() {
    let world = World { batch_records: 100, max_outbox_bytes: 2_000, ..World::new(1) };
    for number in 0..100 {
        world.append("ada", &format!("e{number}"), NOON_MS + number);
    }
    world.start_and_finish().await;
    let expected: Vec<String> = (0..100).map(|number| format!("e{number}:allow")).collect();
    assert_eq!(world.decided("each"), expected);
    let largest = world.store.lock().writes.iter().flatten().map(|cell| cell.bytes.len()).max().unwrap();
    assert!(largest < 20_000, "{largest} bytes in a cell");
    assert!(world.metrics.snapshot().rewinds > 0);
}

#[tokio::test(start_paused = true)]
async fn failed_and_unknown_commits_are_rewound() {
    for fate in [CommitFate::Fails, CommitFate::CommitsUnknown] {
        let world = World::new(1);
        for number in 0..10 {
            world.append("ada", &format!("e{number}"), NOON_MS + number);
        }
        world.broker.lock().fates = [CommitFate::Commits, fate, fate].into();
        let process = world.start();
        world.broker.until_all_committed().await;
        process.stop().await;
        let expected: Vec<String> = (0..10).map(|number| format!("e{number}:allow")).collect();
        assert_eq!(world.decided("each"), expected, "{fate:?}");
    }
}

/// Rule W2: the failed write may have been applied, so it is repeated with the same bytes and timestamp.
#[tokio::test(start_paused = true)]
async fn a_failing_store_pauses_and_repeats_the_same_write() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    world.store.lock().failing_writes = 5;
    world.store.lock().failing_loads = 3;
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["e0:allow"]);
    assert!(world.dead_letters().is_empty());
    let tables = world.store.lock();
    assert_eq!(tables.writes.len(), 6);
    assert!(tables.writes.iter().all(|write| *write == tables.writes[0]));
}

/// Rule S6: a verdict that depends on the time is an output like any other.
#[tokio::test(start_paused = true)]
async fn a_future_event_stays_a_dead_letter_after_a_crash() {
    let world = World::new(1);
    world.append("ada", "early", NOON_MS + 600_000);
    world.broker.lock().fates.push_back(CommitFate::Hangs);
    let process = world.start();
    world.broker.until(|broker| broker.fates.is_empty()).await;
    process.crash().await;
    world.clock.set_ms(NOON_MS + 600_000);
    let second = world.start();
    world.broker.until_all_committed().await;
    second.stop().await;
    assert!(world.decided("each").is_empty());
    let dead = world.dead_letters();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].0, "future_event");
}

#[tokio::test(start_paused = true)]
async fn poison_is_dead_lettered_byte_for_byte_and_the_rest_goes_on() {
    let world = World::new(1);
    let poison: [(&[u8], Vec<u8>, &str); 5] = [
        (b"ada", b"not framed".to_vec(), "bad_framing"),
        (b"ada", wire::frame(SCHEMA_ID, b"\xff\xff\xff"), "bad_avro"),
        (b"ada", wire::frame(99, b"x"), "unknown_schema"),
        (b"ada", vec![0; 10_001], "too_large"),
        (b"\xff\xfe", b"x".to_vec(), "bad_key"),
    ];
    for (number, (key, value, _)) in poison.iter().enumerate() {
        world.append_raw(key, value.clone());
        world.append("ada", &format!("e{number}"), NOON_MS);
    }
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each").len(), 5);
    let dead = world.dead_letters();
    assert_eq!(dead.len(), poison.len());
    for (key, value, expected) in &poison {
        let (_, record) = dead.iter().find(|(code, _)| code == expected).unwrap();
        assert_eq!(record.key.as_deref(), Some(*key));
        assert_eq!(record.value.as_deref(), Some(value.as_slice()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_on_a_foreign_partition_is_poison() {
    let world = World::new(2);
    let home = Partitioner::Murmur2.partition(b"ada", 2);
    world.broker.append(1 - home, b"ada", b"anything".to_vec());
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.dead_letters()[0].0, "wrong_partition");
    assert!(world.store.lock().cells.is_empty(), "the user's cell has its writer elsewhere");
}

/// Rule O5: what is in flight commits before the group is answered.
#[tokio::test(start_paused = true)]
async fn a_revocation_drains_first() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    let (mut log, output) = world.broker.join(4, world.clock.clone());
    let done = log.revoke();
    world.store.lock().failing_loads = 2;
    let process = world.start_with(log, output);
    tokio::time::timeout(Duration::from_secs(60), done).await.unwrap().unwrap();
    process.stop().await;
    assert!(world.broker.lock().settled > 0);
}

/// Rule O5: what cannot be drained is dropped, and never committed afterwards.
#[tokio::test(start_paused = true)]
async fn a_zombie_publishes_nothing_after_another_has_joined() {
    let world = World::new(1);
    for number in 0..8 {
        world.append("ada", &format!("e{number}"), NOON_MS + number);
    }
    world.broker.lock().fates = [CommitFate::Commits, CommitFate::Hangs].into();
    let zombie = world.start();
    world.broker.until(|broker| broker.fates.is_empty()).await;
    let owner = world.start();
    world.broker.until_all_committed().await;
    let expected: Vec<String> = (0..8).map(|number| format!("e{number}:allow")).collect();
    assert_eq!(world.decided("each"), expected);
    owner.stop().await;
    zombie.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_ends_below_what_was_committed_is_refused() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    world.start_and_finish().await;
    world.note_committed_offset().await;
    world.broker.lock().events.insert(0, Vec::new());
    let error = world.start().task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("the log ends at 0 but the group had committed 1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn offsets_that_vanished_are_refused() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    world.start_and_finish().await;
    world.note_committed_offset().await;
    world.broker.lock().committed.clear();
    let error = world.start().task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("no committed offset but had committed 1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_partition_count_is_refused() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    world.start_and_finish().await;
    world.broker.lock().events.insert(1, Vec::new());
    let error = world.start().task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("has 2 partitions, the states were made with 1"), "{error}");
}

impl World {
    /// An owner that finds the offset committed notes it in its fence row.
    async fn note_committed_offset(&self) {
        let process = self.start();
        self.broker
            .until(|_| self.store.lock().fences.get(&0).is_some_and(|row| row.committed_offset == Some(1)))
            .await;
        process.stop().await;
    }

    async fn start_and_finish(&self) {
        let process = self.start();
        self.broker.until_all_committed().await;
        process.stop().await;
    }
}

/// Rules O3 and F2: an idle owner commits its offsets every hour and takes its fences again; its timestamps go on rising.
#[tokio::test(start_paused = true)]
async fn an_owner_renews_its_offsets_and_fences_every_hour() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    let process = world.start();
    world.broker.until_all_committed().await;
    let fence = |world: &World| world.store.lock().fences[&0].clone();
    let timestamp = |world: &World| world.store.lock().cells["ada"].0;
    let (first, written) = (fence(&world), timestamp(&world));
    assert_eq!((world.broker.lock().empty_commits, first.committed_offset), (1, Some(0)));
    for hour in 2..4 {
        tokio::time::sleep(Duration::from_secs(3_700)).await;
        assert_eq!(world.broker.lock().empty_commits, hour);
    }
    assert!(fence(&world).fence_us > first.fence_us && fence(&world).token != first.token);
    assert_eq!(fence(&world).committed_offset, Some(1));
    world.append("ada", "e1", NOON_MS);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert!(timestamp(&world) > written && timestamp(&world) > fence(&world).fence_us);
    assert_eq!(world.decided("each"), ["e0:allow", "e1:allow"]);
}

/// Rule F2: a fence that somebody else has taken meanwhile is not renewed; what the group says then decides.
#[tokio::test(start_paused = true)]
async fn a_fence_taken_by_another_is_not_renewed_over() {
    let world = World::new(1);
    let process = world.start();
    world.broker.until(|broker| broker.empty_commits == 1).await;
    let theirs = {
        let mut tables = world.store.lock();
        let row = tables.fences.get_mut(&0).unwrap();
        (row.token, row.fence_us) = (uuid::Uuid::from_u128(7), row.fence_us + 5_000_000);
        row.clone()
    };
    // The group still counts us in, so the partitions are taken again, above the other's fence.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    world.broker.until(|_| world.store.lock().fences[&0].fence_us > theirs.fence_us).await;
    world.append("ada", "e0", NOON_MS);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert!(world.store.lock().cells["ada"].0 > theirs.fence_us);
}

/// Rule O3.
#[tokio::test(start_paused = true)]
async fn another_cluster_is_refused() {
    let world = World::new(1);
    let process = world.start();
    world.broker.until(|broker| broker.empty_commits == 1).await;
    process.stop().await;
    world.broker.lock().other_cluster = true;
    let error = world.start().task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("cluster fake") && error.contains("topology rebase"), "{error}");
}

/// Rule S9: a transaction that fails again and again is tried with half as many records, down to one.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_keeps_failing_gets_smaller() {
    let world = World { batch_records: 32_768, ..World::new(1) };
    for number in 0..40 {
        world.append("ada", &format!("e{number}"), NOON_MS);
    }
    // Sixteen failures take the bound down to one record.
    world.broker.lock().fates.extend([CommitFate::Fails; 16]);
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    let batches = world.broker.lock().batches.clone();
    assert_eq!(batches[0], 40);
    assert!([16, 8, 4, 2, 1].iter().all(|size| batches.contains(size)), "{batches:?}");
    assert!(batches.last() > Some(&1), "the bound is lifted when transactions commit again: {batches:?}");
    assert_eq!(world.decided("each").len(), 40);
}

/// Rule S8: what nobody knows of a record that counts as applied is counted, not passed over in silence.
#[tokio::test(start_paused = true)]
async fn an_applied_record_that_nobody_knows_is_counted() {
    let world = World::new(1);
    world.append("ada", "e0", NOON_MS);
    let process = world.start();
    world.broker.until_all_committed().await;
    world.append("ada", "e1", NOON_MS);
    world.broker.until_all_committed().await;
    process.stop().await;
    // Somebody has put another event where the first one stood, and the group back before it.
    world.append("ada", "another", NOON_MS);
    {
        let mut broker = world.broker.lock();
        let events = broker.events.get_mut(&0).unwrap();
        let another = events.pop().unwrap();
        events[0].value = another.value;
        broker.committed.insert(super::log::Input::events(0), 0);
    }
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.metrics.snapshot().unexplained_replays, 1);
}
