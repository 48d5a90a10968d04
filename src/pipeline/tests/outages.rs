//! Outages of the store and of the registry: work waits, nothing is parked, nothing is a dead letter.

use tokio::time::Instant;

use super::*;

/// How long an outage takes.
const OUTAGE: Duration = Duration::from_secs(20);
/// The longest time between two probes, and what a few calls take.
const SOON: Duration = Duration::from_secs(3);

impl World {
    fn is_paused(&self) -> bool {
        self.metrics.snapshot().paused
    }

    /// How many records went to a retry topic.
    fn parked(&self) -> usize {
        let is_retry = |record: &&OutputRecord| matches!(record.topic, OutputTopic::Retry(_));
        self.broker.lock().published.iter().filter(is_retry).count()
    }

    fn assert_all_decided(&self, events: usize) {
        assert_eq!(self.decided("each").len(), events);
        assert_eq!(self.parked(), 0, "an outage parks nobody");
        assert!(self.dead_letters().is_empty(), "an outage makes no dead letters");
        assert!(!self.is_paused());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_parks_nobody_however_small_the_first_batch() {
    for users in [1, 2, 3, 30] {
        let world = World::new(2);
        let process = world.start();
        world.append("warm", "warm", NOON_MS);
        world.broker.until_all_committed().await;
        world.store.lock().away = true;
        for user in 0..users {
            world.append(&format!("u{user}"), &format!("e{user}"), NOON_MS);
        }
        tokio::time::sleep(OUTAGE).await;
        assert!(world.is_paused() && world.decided("each").len() == 1, "{users}");
        world.store.lock().away = false;
        let recovered = Instant::now();
        world.broker.until_all_committed().await;
        assert!(recovered.elapsed() < SOON, "{:?}", recovered.elapsed());
        process.stop().await;
        world.assert_all_decided(users + 1);
        assert_eq!(world.metrics.snapshot().breaker_opens, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_an_assignment_is_waited_for() {
    let world = World::new(2);
    world.append("ada", "a0", NOON_MS);
    world.store.lock().away = true;
    let process = world.start();
    tokio::time::sleep(OUTAGE).await;
    assert!(world.is_paused());
    world.store.lock().away = false;
    world.broker.until_all_committed().await;
    process.stop().await;
    world.assert_all_decided(1);
}

#[tokio::test(start_paused = true)]
async fn outages_that_come_and_go_under_load_lose_double_and_park_nothing() {
    let world = World::new(3);
    let process = world.start();
    let mut events = 0;
    for round in 0..60_u64 {
        for user in 0..5 {
            world.append(&format!("u{user}"), &format!("e{round}-{user}"), NOON_MS);
            events += 1;
        }
        world.store.lock().away = round % 3 == 1;
        world.schemas.set_away(round % 4 == 2);
        // Moments that no rhythm of the code knows.
        tokio::time::sleep(Duration::from_millis((round * 7_919) % 1_700)).await;
    }
    world.store.lock().away = false;
    world.schemas.set_away(false);
    world.broker.until_all_committed().await;
    process.stop().await;
    world.assert_all_decided(events);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_makes_neither_poison_nor_parked_users_and_known_schemas_go_on() {
    const NEW: u32 = SCHEMA_ID + 1;
    let world = World::new(1);
    let process = world.start();
    world.append("ada", "a0", NOON_MS);
    world.broker.until_all_committed().await;
    world.schemas.set_away(true);
    world.schemas.register(NEW);
    world.append("ada", "a1", NOON_MS);
    world.broker.until_all_committed().await;
    assert!(!world.is_paused(), "the schema is known");
    world.append_under(NEW, "bob", "b0", "purchase");
    tokio::time::sleep(OUTAGE).await;
    assert!(world.is_paused());
    assert_eq!(world.decided("each"), ["a0:allow", "a1:allow"]);
    world.schemas.set_away(false);
    world.broker.until_all_committed().await;
    process.stop().await;
    world.assert_all_decided(3);
}

#[tokio::test(start_paused = true)]
async fn the_end_and_a_revocation_do_not_wait_for_an_outage() {
    let world = World::new(1);
    world.append("ada", "a0", NOON_MS);
    let (mut log, output) = world.broker.join(4, world.clock.clone());
    world.store.lock().away = true;
    let done = log.revoke();
    let process = world.start_with(log, output);
    tokio::time::timeout(Duration::from_secs(10), done).await.unwrap().unwrap();
    assert!(!world.is_paused(), "what waited is dropped");
    process.stop().await;

    let process = world.start();
    tokio::time::sleep(OUTAGE).await;
    assert!(world.is_paused());
    let end = Instant::now();
    process.stop().await;
    assert!(end.elapsed() < Duration::from_secs(10), "{:?}", end.elapsed());
    assert!(!world.is_paused());
    world.store.lock().away = false;
    let process = world.start();
    world.broker.until_all_committed().await;
    process.stop().await;
    world.assert_all_decided(1);
}
