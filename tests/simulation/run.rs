//! One seed from its beginning to its judgement.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use campaignd::partitioner::Partitioner;
use campaignd::pipeline::Settings;
use campaignd::pipeline::breaker::Limits;
use campaignd::pipeline::parking::Tiers;
use campaignd::pipeline::settings::RetrySettings;
use campaignd::telemetry::metrics::Metrics;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::campaigns::Timeline;
use crate::faults::Plan;
use crate::group::{self, DRAIN_TIMEOUT};
use crate::instance::{self, Control, End, Process, SESSION_TIMEOUT};
use crate::oracle;
use crate::registry::{GOOD, Registry};
use crate::report::Books;
use crate::store::WRITE_TIMEOUT;
use crate::workload::{FIRST_NEW_SCHEMA, MAX_FUTURE_SKEW, NEW_SCHEMAS, Workload, produce};
use crate::world::{World, lock};

/// After so long without faults everything must have come to its end.
const LONGEST_QUIET: Duration = Duration::from_secs(1_800);
/// How long an orderly end may take: the drain, the settling, the group.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(30);

/// What a seed came to.
pub struct Outcome {
    pub books: Books,
    pub fingerprint: u64,
}

/// Runs one seed.
pub fn simulate(seed: u64, verbose: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let plan = Plan::of(seed);
    if verbose {
        println!("{plan:#?}");
    }
    let random = &mut ChaCha8Rng::seed_from_u64(seed ^ 0x0b5e_55ed);
    let timeline = Timeline::of(&plan, random);
    let registry = registry(&plan, random);
    let workload = Workload::of(&plan, random);
    let outcome = runtime.block_on(async move {
        let world = World::new(plan, timeline, registry, verbose);
        live(&world, workload).await;
        let mut books = std::mem::take(&mut *world.books());
        books.figures.virtual_ms = u64::try_from(world.elapsed().as_millis()).expect("short");
        Outcome { books, fingerprint: world.fingerprint() }
    });
    drop(runtime);
    outcome
}

fn registry(plan: &Plan, random: &mut ChaCha8Rng) -> Registry {
    let mut known_from = [(GOOD, Duration::ZERO)].into();
    for id in FIRST_NEW_SCHEMA..FIRST_NEW_SCHEMA + NEW_SCHEMAS {
        let at = random.random_range(0.0..plan.quiet.as_secs_f64());
        std::collections::BTreeMap::insert(&mut known_from, id, Duration::from_secs_f64(at));
    }
    Registry { known_from }
}

/// What the processor is told.
fn settings(plan: &Plan) -> Settings {
    let delays: Vec<Duration> = plan.tiers_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
    Settings {
        events_topic: "events".into(),
        lanes: plan.lanes,
        cache_max_bytes: plan.cache_max_bytes,
        max_future_skew: MAX_FUTURE_SKEW,
        max_record_bytes: 10_000,
        max_decision_bytes: 10_000,
        max_decisions_per_event: 50,
        max_outbox_bytes: plan.max_outbox_bytes,
        events_partitioner: Partitioner::Murmur2,
        drain_timeout: DRAIN_TIMEOUT,
        session_timeout: SESSION_TIMEOUT,
        store_write_timeout: WRITE_TIMEOUT,
        breaker: Limits::default(),
        retry: RetrySettings {
            topic: "events.retry".into(),
            tiers: Tiers::new(&delays),
            max_attempts: plan.max_attempts,
            max_pending: plan.max_pending,
            max_pending_per_user: plan.max_pending_per_user,
        },
    }
}

/// The processes that run now, by slot.
type Roster = Arc<Mutex<Vec<Option<(Arc<Control>, CancellationToken)>>>>;

async fn live(world: &Arc<World>, workload: Workload) {
    let over = CancellationToken::new();
    let roster: Roster = Arc::new(Mutex::new(vec![None; world.plan.instances]));
    tokio::spawn(group::watch_sessions(Arc::clone(world)));
    let producing = tokio::spawn(produce(Arc::clone(world), workload));
    tokio::spawn(storms(Arc::clone(world)));
    tokio::spawn(restarts(Arc::clone(world), Arc::clone(&roster)));
    tokio::spawn(new_tiers(Arc::clone(world)));
    tokio::spawn(watch_bounds(Arc::clone(world)));
    let slots: Vec<_> = (0..world.plan.instances)
        .map(|slot| tokio::spawn(supervise(Arc::clone(world), slot, over.clone(), Arc::clone(&roster))))
        .collect();
    if producing.await.is_err() {
        world.violation("the producers have failed");
    }
    tokio::time::sleep(world.plan.quiet.saturating_sub(world.elapsed())).await;
    let ended = drained(world).await;
    over.cancel();
    for slot in slots {
        if slot.await.is_err() {
            world.violation("a supervisor has failed");
        }
    }
    if ended {
        oracle::judge(world);
    } else {
        let broker = world.broker();
        let lag: Vec<_> = broker
            .inputs()
            .into_iter()
            .filter(|input| {
                broker.of_input(*input).has_unread(broker.committed.get(input).copied().unwrap_or(0))
            })
            .map(|input| {
                format!("{input} at {:?} of {}", broker.committed.get(&input), broker.of_input(input).end())
            })
            .collect();
        drop(broker);
        world.violation(format_args!("it does not end: {lag:?}"));
    }
}

/// Waits until everything has been handled and stays so.
async fn drained(world: &Arc<World>) -> bool {
    let deadline = Instant::now() + LONGEST_QUIET;
    let mut calm = 0;
    while Instant::now() < deadline {
        let is_calm = {
            let broker = world.broker();
            broker.is_drained() && broker.coordinator.is_idle()
        };
        let is_calm = is_calm && world.tables().under_way == 0;
        calm = if is_calm { calm + 1 } else { 0 };
        if calm >= 4 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    false
}

/// Keeps a process running in a slot.
async fn supervise(world: Arc<World>, slot: usize, over: CancellationToken, roster: Roster) {
    // They do not all begin at once.
    tokio::time::sleep(world.draw_ms(0..3_000)).await;
    for turn in 0.. {
        let process = 100 * slot as u64 + turn;
        let Process { control, shutdown, metrics, mut end } =
            instance::start(&world, slot, process, settings(&world.plan));
        lock(&roster)[slot] = Some((Arc::clone(&control), shutdown.clone()));
        let ended = tokio::select! {
            biased;
            ended = &mut end => Some(ended),
            () = control.replaced.notified() => None,
            () = over.cancelled() => {
                shutdown.cancel();
                match tokio::time::timeout(LONGEST_SHUTDOWN, &mut end).await {
                    Ok(Ok(End::Returned(Ok(())))) => {}
                    other => world.violation(format_args!("{control} does not end in order: {other:?}")),
                }
                tell(&world, &metrics);
                control.kill();
                return;
            }
        };
        tell(&world, &metrics);
        let has_ended = ended.is_some();
        match ended {
            Some(Ok(End::Crashed)) => {}
            Some(Ok(End::Returned(Ok(())))) if shutdown.is_cancelled() => world.count("orderly restarts"),
            Some(Ok(End::Returned(Err(error))))
                if world.plan.wrong_clock.is_some_and(|(wrong, _)| wrong == slot)
                    && error.to_string().contains("clock") =>
            {
                world.count("processes refused for their clock");
            }
            Some(other) => world.violation(format_args!("{control} has ended: {other:?}")),
            // It goes on beside its replacement and may end as it likes.
            None => {
                tokio::spawn(end);
            }
        }
        if has_ended {
            control.kill();
        }
        let pause = if world.is_quiet() { Duration::from_millis(200) } else { world.draw_ms(50..8_000) };
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Counts what a process has counted itself.
fn tell(world: &World, metrics: &Metrics) {
    let counted = metrics.snapshot();
    let mut books = world.books();
    books.count("rewinds", counted.rewinds);
    books.count("replayed records", counted.replayed_records);
    books.count("states loaded", counted.state_loads);
    books.count("states written", counted.state_writes);
}

/// Rebalances without a reason.
async fn storms(world: Arc<World>) {
    let Some(seconds) = world.plan.storm else { return };
    while !world.is_quiet() {
        let most = u64::try_from(Duration::from_secs_f64(seconds * 2.0).as_millis()).expect("short");
        tokio::time::sleep(world.draw_ms(100..most)).await;
        world.count("rebalances for no reason");
        group::shake(&world);
    }
}

/// Ends a process in order, now and then.
async fn restarts(world: Arc<World>, roster: Roster) {
    let Some(seconds) = world.plan.restarts else { return };
    loop {
        let most = u64::try_from(Duration::from_secs_f64(seconds * 2.0).as_millis()).expect("short");
        tokio::time::sleep(world.draw_ms(100..most)).await;
        if world.is_quiet() {
            return;
        }
        let slot = usize::try_from(world.draw(0..world.plan.instances as u64)).expect("few");
        if let Some((_, shutdown)) = &lock(&roster)[slot] {
            shutdown.cancel();
        }
    }
}

/// Creates the retry topics that were not there at first.
async fn new_tiers(world: Arc<World>) {
    let missing = world.plan.tiers_ms.len() - world.plan.tiers_at_first;
    for _ in 0..missing {
        let wait = world.draw_ms(100..u64::try_from(world.plan.quiet.as_millis()).expect("short"));
        tokio::time::sleep(wait).await;
        world.broker().tiers += 1;
        world.count("retry topics created in between");
    }
}

async fn watch_bounds(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        oracle::check_bounds(&world);
    }
}
