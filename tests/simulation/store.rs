//! The simulated store: cells with timestamps, fence rows with conditions, requests that arrive late or unheard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use campaignd::store::{Cell, FenceRow, StateStore, StoreError};
use tokio::sync::oneshot;

use crate::faults::{Hop, Phase, Plan};
use crate::instance::{Control, Fate, Side, Trip};
use crate::log::CLUSTER;
use crate::world::{NOON_MS, World, lock};

/// Longest time a write can be under way; the processor is told the same.
pub const WRITE_TIMEOUT: Duration = Duration::from_millis(2_000);
/// How long the client waits for an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(600);
/// A fence rises by at least a second, so its batch numbers stay below.
const FENCE_STEP_US: i64 = 1_000_000;

/// What stands in the store.
#[derive(Default)]
pub struct Tables {
    pub cells: BTreeMap<String, Standing>,
    pub fences: BTreeMap<i32, FenceRow>,
    /// Fences that were ever taken.
    pub taken: Vec<Taking>,
    /// Requests to write that have not arrived yet.
    pub under_way: usize,
}

impl Tables {
    /// What stands at first.
    pub fn new(plan: &Plan) -> Tables {
        let mut tables = Tables::default();
        let Some(ahead) = plan.fences_ahead else { return tables };
        let ahead_ms = i64::try_from(ahead.as_millis()).expect("short");
        for partition in 0..plan.partitions {
            let row = FenceRow {
                fence_us: (NOON_MS + ahead_ms) * 1_000,
                token: uuid::Uuid::from_u128(1),
                cluster_id: CLUSTER.into(),
                partition_count: plan.partitions,
                incarnation: 0,
                committed_offset: None,
                retry_offsets: BTreeMap::new(),
            };
            tables.fences.insert(partition, row);
        }
        tables
    }
}

/// A fence that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    pub fence_us: i64,
    pub partition: i32,
    pub process: u64,
    pub at: Duration,
}

/// A cell as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub timestamp_us: i64,
    pub bytes: Bytes,
}

/// The store as one process sees it.
pub struct SimStore {
    control: Arc<Control>,
}

impl SimStore {
    pub fn new(control: &Arc<Control>) -> SimStore {
        SimStore { control: Arc::clone(control) }
    }

    fn world(&self) -> &Arc<World> {
        &self.control.world
    }

    fn is_away(&self) -> bool {
        let at = self.world().elapsed();
        self.world().plan.store_outages.iter().any(|window| window.contains(at))
    }

    fn user_is_away(&self, user: &str) -> bool {
        user_is_away(self.world(), user)
    }

    fn unavailable() -> StoreError {
        StoreError::Unavailable("told to".into())
    }

    /// An operation while the store is away: some are refused at once, some time out.
    async fn away(&self) -> StoreError {
        self.world().count("store calls in an outage");
        let wait = if self.world().happens(0.5) { Duration::from_millis(5) } else { CLIENT_TIMEOUT };
        tokio::time::sleep(wait).await;
        self.control.gate(Side::Processor).await;
        Self::unavailable()
    }
}

/// Whether nobody can read or write the user's cell now.
fn user_is_away(world: &World, user: &str) -> bool {
    let at = world.elapsed();
    let mut outages = world.plan.user_outages.iter();
    outages.any(|(number, window)| window.contains(at) && crate::workload::user_name(*number) == user)
}

/// A write arrives: of two the higher timestamp wins, of equal ones the larger bytes.
fn arrive(world: &World, process: u64, cell: &Cell) {
    let mut tables = world.tables();
    tables.under_way -= 1;
    if let Some(standing) = tables.cells.get(&cell.user_id) {
        if standing.timestamp_us == cell.timestamp_us && standing.bytes != cell.bytes {
            world.violation(format_args!(
                "F2: two states of {} at one timestamp {}, the second by process {process}",
                cell.user_id, cell.timestamp_us
            ));
        }
        if (cell.timestamp_us, &cell.bytes) <= (standing.timestamp_us, &standing.bytes) {
            let is_older = cell.timestamp_us < standing.timestamp_us;
            drop(tables);
            if is_older {
                world.count("writes that lost against a newer one");
            }
            return;
        }
    }
    let standing = Standing { timestamp_us: cell.timestamp_us, bytes: cell.bytes.clone() };
    tables.cells.insert(cell.user_id.clone(), standing);
    drop(tables);
    crate::oracle::check_cell(world, process, cell);
}

#[async_trait]
impl StateStore for SimStore {
    async fn load(&self, user_ids: &[&str]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let world = Arc::clone(self.world());
        self.control.gate(Side::Processor).await;
        if self.is_away() {
            let error = self.away().await;
            if !self.is_away() {
                // Over while this read failed: those after it show that others can be read.
                lock(&world.unloadable).extend(user_ids.iter().map(|user| (*user).to_owned()));
            }
            return user_ids.iter().map(|_| Err(error.clone())).collect();
        }
        let users: Vec<String> = user_ids.iter().map(|user| (*user).to_owned()).collect();
        let read = move |world: &Arc<World>| {
            let tables = world.tables();
            users.iter().map(|user| tables.cells.get(user).map(|cell| cell.bytes.clone())).collect::<Vec<_>>()
        };
        let answer = self.control.call(Side::Processor, Hop::Load, Trip::usual(&world), read).await;
        world.say(format_args!("{} loads {user_ids:?}", self.control));
        let Some(cells) = answer else { return user_ids.iter().map(|_| Err(Self::unavailable())).collect() };
        let result = |(user, cell): (&&str, Option<Bytes>)| {
            if lock(&self.control.witness).loads(user, cell.as_ref()) {
                world.count("evicted states read again");
            }
            if self.user_is_away(user) || world.strikes(world.plan.rates.load_fails) {
                world.count("loads that failed");
                world.say(format_args!("{} cannot load {user}", self.control));
                lock(&world.unloadable).insert((*user).to_string());
                return Err(Self::unavailable());
            }
            Ok(cell)
        };
        user_ids.iter().zip(cells).map(result).collect()
    }

    async fn write(&self, cells: &[Cell]) -> Result<(), StoreError> {
        let world = Arc::clone(self.world());
        let rates = &world.plan.rates;
        self.control.gate(Side::Processor).await;
        self.control.lottery(Hop::Write, Phase::Before);
        self.control.gate(Side::Processor).await;
        if self.is_away() {
            return Err(self.away().await);
        }
        crate::oracle::check_writes(&world, self.control.process, cells);
        // Each cell is a request of its own; they arrive whatever becomes of the sender.
        let (answer, answered) = oneshot::channel();
        let (mut landings, mut heard) = (Vec::new(), true);
        for cell in cells {
            if world.strikes(rates.write_lost) || self.user_is_away(&cell.user_id) {
                world.count("writes that were lost");
                heard = false;
                continue;
            }
            if world.strikes(rates.write_unknown_applied) {
                world.count("writes applied and not heard of");
                heard = false;
            }
            let slowest = u64::try_from(WRITE_TIMEOUT.as_millis()).expect("short");
            let delay =
                if world.strikes(rates.write_slow) { world.draw(0..slowest) } else { world.draw(0..4) };
            landings.push((delay, cell.clone()));
        }
        landings.sort_by_key(|(delay, _)| *delay);
        world.tables().under_way += landings.len();
        let (sender, process) = (Arc::clone(&world), self.control.process);
        let started = tokio::time::Instant::now();
        tokio::spawn(async move {
            for (delay, cell) in landings {
                tokio::time::sleep_until(started + Duration::from_millis(delay)).await;
                sender.mark(delay);
                arrive(&sender, process, &cell);
            }
            if heard {
                tokio::time::sleep(sender.draw_ms(0..4)).await;
                let _ = answer.send(());
            } else {
                // Kept until the caller gives up.
                tokio::time::sleep(CLIENT_TIMEOUT * 2).await;
                drop(answer);
            }
        });
        self.control.lottery(Hop::Write, Phase::InFlight);
        let answer = tokio::time::timeout(CLIENT_TIMEOUT, answered).await;
        self.control.lottery(Hop::Write, Phase::After);
        self.control.gate(Side::Processor).await;
        match answer {
            Ok(Ok(())) => Ok(()),
            _ => {
                world.count("writes that timed out");
                Err(Self::unavailable())
            }
        }
    }

    async fn read_fence(&self, _topic: &str, partition: i32) -> Result<Option<FenceRow>, StoreError> {
        if self.is_away() {
            return Err(self.away().await);
        }
        let read = move |world: &Arc<World>| world.tables().fences.get(&partition).cloned();
        let trip = Trip::usual(self.world());
        self.control.call(Side::Processor, Hop::ReadFence, trip, read).await.ok_or_else(Self::unavailable)
    }

    async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
    ) -> Result<(), StoreError> {
        if self.is_away() {
            return Err(self.away().await);
        }
        let world = Arc::clone(self.world());
        let fate = if world.strikes(world.plan.rates.fence_unknown) {
            world.count("fences whose taking stayed unknown");
            if world.happens(0.5) { Fate::Lost } else { Fate::Unheard }
        } else {
            Fate::Answered
        };
        let (expected, next, process) = (expected.cloned(), next.clone(), self.control.process);
        let replace = move |world: &Arc<World>| replace(world, process, partition, expected.as_ref(), &next);
        let trip = Trip::usual(&world).with(fate);
        match self.control.call(Side::Processor, Hop::TakeFence, trip, replace).await {
            Some(true) => Ok(()),
            Some(false) => Err(StoreError::Fenced { topic: topic.to_owned(), partition }),
            None => Err(Self::unavailable()),
        }
    }

    async fn clock_ms(&self) -> Result<Option<i64>, StoreError> {
        if self.is_away() {
            return Err(self.away().await);
        }
        let read = |world: &Arc<World>| world.now_ms();
        let trip = Trip::usual(self.world());
        let answer = self.control.call(Side::Processor, Hop::StoreClock, trip, read).await;
        answer.map(Some).ok_or_else(Self::unavailable)
    }
}

/// The lightweight transaction. True when `next` stands there.
fn replace(
    world: &Arc<World>,
    process: u64,
    partition: i32,
    expected: Option<&FenceRow>,
    next: &FenceRow,
) -> bool {
    let mut tables = world.tables();
    let standing = tables.fences.get(&partition);
    if standing.is_some_and(|row| row.token == next.token) {
        return true;
    }
    if standing.map(|row| (row.fence_us, row.token)) != expected.map(|row| (row.fence_us, row.token)) {
        let is_same_number = standing.is_some_and(|row| row.fence_us == next.fence_us);
        drop(tables);
        world.count("fences that somebody else had taken");
        if is_same_number {
            world.count("fences that somebody else had taken at the same number");
        }
        return false;
    }
    let ahead_ms = next.fence_us / 1_000 - world.now_ms();
    let takings = tables.taken.iter().filter(|taken| taken.partition == partition).count();
    let at_first =
        world.plan.fences_ahead.map_or(0, |ahead| i64::try_from(ahead.as_millis()).expect("short"));
    let is_far = ahead_ms > 5_000 + at_first + 1_000 * i64::try_from(takings).expect("few");
    let is_low = standing.is_some_and(|row| next.fence_us < row.fence_us + FENCE_STEP_US);
    tables.fences.insert(partition, next.clone());
    tables.taken.push(Taking { fence_us: next.fence_us, partition, process, at: world.elapsed() });
    drop(tables);
    if is_far {
        world.violation(format_args!("F3: the fence of partition {partition} is {ahead_ms} ms ahead"));
    }
    if is_low {
        world.violation(format_args!("F1: the fence of partition {partition} rises by less than a second"));
    }
    world.count("fences taken");
    world.say(format_args!("process {process} takes the fence of {partition}: {}", next.fence_us));
    true
}
