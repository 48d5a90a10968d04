//! Retries that keep a user's order, the skipping of what nobody cares for, and erasure.

use super::fake::Broker;
use super::*;
use crate::campaign::release::Release;
use crate::pipeline::log::Input;
use crate::pipeline::parking::Origin;

/// A schema that nobody has registered yet.
const LATER: u32 = 99;

impl World {
    /// An event under a schema id, at noon.
    pub(super) fn append_under(&self, schema_id: u32, user: &str, event_id: &str, event_type: &str) -> i64 {
        let event = Event {
            event_id: event_id.into(),
            user_id: user.into(),
            event_type: event_type.into(),
            occurred_at_ms: NOON_MS,
            properties: BTreeMap::new(),
            traits: BTreeMap::new(),
            trace_id: None,
        };
        let mut body = Vec::new();
        encode_event(&event, &mut body);
        self.append_raw(user.as_bytes(), wire::frame(schema_id, &body))
    }
}

/// How often each retry topic was written to.
fn retries(broker: &Broker) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for record in &broker.published {
        if let OutputTopic::Retry(tier) = record.topic {
            *counts.entry(tier).or_default() += 1;
        }
    }
    counts
}

/// Rules P1, P2, P5: an unknown schema parks its user; what comes behind it waits, others do not.
#[tokio::test(start_paused = true)]
async fn a_parked_user_keeps_his_order_and_nobody_else_waits() {
    let world = World::new(1);
    world.append("ada", "a0", NOON_MS);
    world.append_under(LATER, "ada", "a1", "purchase");
    world.append("ada", "a2", NOON_MS);
    world.append("bob", "b0", NOON_MS);
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&4)).await;
    assert_eq!(world.decided("each"), ["a0:allow", "b0:allow"]);
    world.append("ada", "a3", NOON_MS);
    world.append("bob", "b1", NOON_MS);
    world.schemas.register(LATER);
    world.broker.until_all_committed().await;
    process.stop().await;
    let of = |user: char| world.decided("each").into_iter().filter(move |id| id.starts_with(user));
    assert_eq!(of('a').collect::<Vec<_>>(), ["a0:allow", "a1:allow", "a2:allow", "a3:allow"]);
    assert_eq!(of('b').collect::<Vec<_>>(), ["b0:allow", "b1:allow"]);
    assert!(world.dead_letters().is_empty());
    assert_eq!(world.metrics.snapshot().events(EventResult::Decided), 6);
}

/// Rule P5: attempts by the record's own fault run out, those that only wait use none up.
#[tokio::test(start_paused = true)]
async fn attempts_run_out_and_what_waited_goes_on() {
    let world = World::new(1);
    world.append_under(LATER, "ada", "a0", "purchase");
    world.append("ada", "a1", NOON_MS);
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&2)).await;
    world.broker.until_all_committed().await;
    process.stop().await;
    let dead = world.dead_letters();
    assert_eq!(dead.iter().map(|(code, _)| code.as_str()).collect::<Vec<_>>(), ["unknown_schema"]);
    assert_eq!(world.decided("each"), ["a1:allow"]);
    // Tier 1, tier 2, then dead.
    let broker = world.broker.lock();
    let attempts: Vec<u32> = broker
        .retries
        .values()
        .flatten()
        .filter(|record| record.value.as_ref().is_some_and(|value| wire::split(value).unwrap().0 == LATER))
        .map(|record| Origin::of_retry(record, "events").unwrap().attempt)
        .collect();
    assert_eq!(attempts, [1, 2]);
}

/// Rule O2: the index is rebuilt from the retry topics, so a crash changes no order.
#[tokio::test(start_paused = true)]
async fn a_crash_forgets_nobody_who_waits() {
    let world = World::new(1);
    world.append_under(LATER, "ada", "a0", "purchase");
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&1)).await;
    process.crash().await;
    world.append("ada", "a1", NOON_MS);
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&2)).await;
    assert!(world.decided("each").is_empty(), "a1 waits behind a0");
    world.schemas.register(LATER);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["a0:allow", "a1:allow"]);
}

/// A state that cannot be read parks its user and never ends in a dead letter, however long it takes.
#[tokio::test(start_paused = true)]
async fn a_user_whose_state_cannot_be_read_waits_as_long_as_it_takes() {
    let world = World::new(1);
    world.store.lock().unreadable.insert("ada".into());
    world.append("ada", "a0", NOON_MS);
    world.append("bob", "b0", NOON_MS);
    let process = world.start();
    world.broker.until(|broker| retries(broker).get(&2).is_some_and(|count| *count > 3)).await;
    assert_eq!(world.decided("each"), ["b0:allow"]);
    world.store.lock().unreadable.clear();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["b0:allow", "a0:allow"]);
    assert!(world.dead_letters().is_empty());
}

/// Rule S5b: an entry whose record was forwarded after a crash is still published when its turn comes.
#[tokio::test(start_paused = true)]
async fn an_entry_survives_that_its_record_is_parked_after_the_crash() {
    let world = World::new(1);
    world.append("ada", "a0", NOON_MS);
    world.append("bob", "b0", NOON_MS);
    world.broker.lock().fates.push_back(CommitFate::Hangs);
    let process = world.start();
    world.broker.until(|_| !world.store.lock().cells.is_empty()).await;
    process.crash().await;
    world.store.lock().unreadable.insert("ada".into());
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&2)).await;
    world.store.lock().unreadable.clear();
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["b0:allow", "a0:allow"]);
    assert_eq!(world.decided("first"), ["b0:allow", "a0:allow"], "decided once, before the crash");
}

/// Rule P8: too many that wait hold back `events`, not the retry topics.
#[tokio::test(start_paused = true)]
async fn a_full_index_holds_the_partition_back_until_it_drains() {
    let world = World::new(1);
    for number in 0..30 {
        world.append_under(LATER, &format!("user{number}"), &format!("e{number}"), "purchase");
    }
    let process = world.start();
    world.broker.until(|broker| broker.held.contains(&0)).await;
    world.schemas.register(LATER);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert!(world.broker.lock().held.is_empty());
    assert_eq!(world.decided("each").len(), 30);
    assert!(world.dead_letters().is_empty());
}

/// Rule P8: an operator lets go what waits of a user, in order; what is written later waits again.
#[tokio::test(start_paused = true)]
async fn what_an_operator_lets_go_is_dead_lettered_in_order() {
    let world = World::new(1);
    world.store.lock().cells.insert("ada".into(), (1, b"\x01no cell".as_slice().into()));
    for number in 0..3 {
        world.append("ada", &format!("a{number}"), NOON_MS);
    }
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&3)).await;
    let release = Release { until_ms: 0 };
    world.campaigns.set(campaigns().with_releases([("ada".to_owned(), release)].into()));
    world.broker.until_all_committed().await;
    let dead = world.dead_letters();
    assert!(dead.iter().all(|(code, _)| code == "released"), "{dead:?}");
    let offsets: Vec<_> = dead
        .iter()
        .map(|(_, record)| {
            record.headers.iter().find(|h| h.name == header::ORIGINAL_OFFSET).unwrap().value.clone()
        })
        .collect();
    assert_eq!(offsets, ["0", "1", "2"].map(|offset| Some(offset.into())));
    process.stop().await;
}

/// Rule P10: what stands on a retry topic without our headers was not written by us.
#[tokio::test(start_paused = true)]
async fn a_forged_retry_record_is_a_dead_letter() {
    let world = World::new(1);
    world.broker.append_retry(Input::retry(1, 0), b"ada", b"whatever");
    world.append("ada", "a0", NOON_MS);
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    let dead = world.dead_letters();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].0.as_str(), dead[0].1.value.as_deref()),
        ("bad_retry_record", Some(&b"whatever"[..]))
    );
    assert_eq!(world.decided("each"), ["a0:allow"]);
}

/// Rule P7.
#[tokio::test(start_paused = true)]
async fn what_was_consumed_of_a_retry_topic_is_deleted() {
    let world = World::new(1);
    world.append_under(LATER, "ada", "a0", "purchase");
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&1)).await;
    world.schemas.register(LATER);
    world.broker.until(|broker| broker.deleted.get(&Input::retry(1, 0)) == Some(&1)).await;
    process.stop().await;
}

/// A cell that does not decode parks its user where only an operator gets him out; an erasure is one (rule P9).
#[tokio::test(start_paused = true)]
async fn an_erasure_overtakes_what_waits_and_mends_a_corrupt_cell() {
    let world = World::new(1);
    world.store.lock().cells.insert("ada".into(), (1, b"\x01no cell".as_slice().into()));
    world.append("ada", "a0", NOON_MS);
    world.append("ada", "a1", NOON_MS);
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&2)).await;
    assert_eq!(
        retries(&world.broker.lock()).keys().copied().collect::<Vec<_>>(),
        [2],
        "the last tier at once"
    );
    world.append_under(SCHEMA_ID, "ada", "erase", "user.erased");
    world.append("ada", "late", NOON_MS);
    world.append("ada", "a2", NOON_MS + 1);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["a2:allow"]);
    assert_eq!(world.metrics.snapshot().events(EventResult::Erased), 3);
    assert!(world.dead_letters().is_empty());
}

/// A producer sends an erasure twice, and between the two stands a record that waits: the second one is dropped and must not
/// carry the applied position over it. Found by the simulation.
#[tokio::test(start_paused = true)]
async fn an_erasure_that_is_dropped_passes_nothing_that_waits() {
    let world = World::new(1);
    world.append_under(SCHEMA_ID, "ada", "erase", "user.erased");
    let waits = Event {
        event_id: "a1".into(),
        user_id: "ada".into(),
        event_type: "purchase".into(),
        occurred_at_ms: NOON_MS + 1,
        properties: BTreeMap::new(),
        traits: BTreeMap::new(),
        trace_id: None,
    };
    let mut body = Vec::new();
    encode_event(&waits, &mut body);
    world.append_raw(b"ada", wire::frame(LATER, &body));
    world.append_under(SCHEMA_ID, "ada", "erase", "user.erased");
    let process = world.start();
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&3)).await;
    world.schemas.register(LATER);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["a1:allow"]);
}

/// Rules K1 and K2: what nobody cares for costs neither a read nor a write, but not before the watermark is taken.
#[tokio::test(start_paused = true)]
async fn what_nobody_cares_for_is_skipped_from_the_watermark_on() {
    let world = World::new(1);
    world.append_under(SCHEMA_ID, "ada", "v0", "view");
    let process = world.start();
    world.broker.until_all_committed().await;
    assert!(world.store.lock().cells.contains_key("ada"), "below the watermark the cell is looked at");
    // The session time-out and the write time-out of the settings.
    tokio::time::sleep(Duration::from_secs(9)).await;
    world.append_under(SCHEMA_ID, "bob", "v1", "view");
    world.append_under(SCHEMA_ID, "bob", "joined", "campaign.joined");
    world.append_under(SCHEMA_ID, "cyd", "v2", "view");
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.store.lock().cells.keys().map(String::as_str).collect::<Vec<_>>(), ["ada", "bob"]);
    assert_eq!(world.metrics.snapshot().events(EventResult::Ignored), 4);
}

/// Rule F3.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_far_from_the_stores_takes_no_fence() {
    let world = World::new(1);
    world.store.lock().clock_ms = Some(NOON_MS + 60_000);
    world.append("ada", "a0", NOON_MS);
    let process = world.start();
    let error = process.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("ms apart") && error.contains("NTP"), "{error}");
    assert!(world.store.lock().fences.is_empty());
}

/// Rule O8.
#[tokio::test(start_paused = true)]
async fn a_member_that_learns_of_a_new_tier_joins_again() {
    let world = World::new(1);
    let (mut log, output) = world.broker.join(4, world.clock.clone());
    log.forget_tiers();
    world.append_under(LATER, "ada", "a0", "purchase");
    let process = world.start_with(log, output);
    world.broker.until(|broker| broker.committed.get(&Input::events(0)) == Some(&1)).await;
    world.schemas.register(LATER);
    world.broker.until_all_committed().await;
    process.stop().await;
    assert_eq!(world.decided("each"), ["a0:allow"]);
    assert_eq!(world.broker.lock().rejoined, 1);
}
