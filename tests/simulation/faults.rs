//! What one seed is: its size and its faults, drawn from the seed and from nothing else.
//!
//! Each seed has a few kinds of faults and leaves the others out, so that every combination comes up and a rare one is not
//! drowned by a frequent one. All faults end when the quiet begins.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How far a wrong clock is ahead.
pub const WRONG_CLOCK_MS: i64 = 90_000;

/// Where an instance can be struck: the operation that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    Load,
    Write,
    ReadFence,
    TakeFence,
    StoreClock,
    InitProducer,
    BeginTransaction,
    Produce,
    SendOffsets,
    EndTransaction,
    Abort,
    Stands,
    Waiting,
    DeleteConsumed,
    Identity,
    CatchUp,
    Schema,
    Join,
    Heartbeat,
    /// Anywhere: between two polls of the processor.
    Poll,
}

impl Hop {
    /// All that a strike can aim at.
    pub const ALL: [Hop; 20] = [
        Hop::Load,
        Hop::Write,
        Hop::ReadFence,
        Hop::TakeFence,
        Hop::StoreClock,
        Hop::InitProducer,
        Hop::BeginTransaction,
        Hop::Produce,
        Hop::SendOffsets,
        Hop::EndTransaction,
        Hop::Abort,
        Hop::Stands,
        Hop::Waiting,
        Hop::DeleteConsumed,
        Hop::Identity,
        Hop::CatchUp,
        Hop::Schema,
        Hop::Join,
        Hop::Heartbeat,
        Hop::Poll,
    ];

    /// Those between two effects.
    const TELLING: [Hop; 6] =
        [Hop::Write, Hop::TakeFence, Hop::ReadFence, Hop::Produce, Hop::SendOffsets, Hop::EndTransaction];

    pub fn name(self) -> &'static str {
        match self {
            Hop::Load => "load",
            Hop::Write => "write",
            Hop::ReadFence => "read fence",
            Hop::TakeFence => "take fence",
            Hop::StoreClock => "store clock",
            Hop::InitProducer => "init producer",
            Hop::BeginTransaction => "begin transaction",
            Hop::Produce => "produce",
            Hop::SendOffsets => "send offsets",
            Hop::EndTransaction => "end transaction",
            Hop::Abort => "abort",
            Hop::Stands => "stands",
            Hop::Waiting => "waiting",
            Hop::DeleteConsumed => "delete consumed",
            Hop::Identity => "identity",
            Hop::CatchUp => "catch up",
            Hop::Schema => "schema",
            Hop::Join => "join",
            Hop::Heartbeat => "heartbeat",
            Hop::Poll => "poll",
        }
    }
}

/// When in an operation the strike comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has been sent.
    Before,
    /// The request is under way; it arrives whatever becomes of its sender.
    InFlight,
    /// It has been done and answered; the answer was not seen yet.
    After,
}

impl Phase {
    pub const ALL: [Phase; 3] = [Phase::Before, Phase::InFlight, Phase::After];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Before => "before",
            Phase::InFlight => "in flight",
            Phase::After => "after",
        }
    }
}

/// What a strike does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// The process is gone.
    Crash,
    /// Nothing of the process runs for a while, then it goes on.
    Freeze,
    /// The processor stands still for a while; the client threads go on.
    Stall,
}

impl Strike {
    pub const ALL: [Strike; 3] = [Strike::Crash, Strike::Freeze, Strike::Stall];
}

/// A place that is struck more often than others.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub strike: Strike,
    pub hop: Hop,
    pub phase: Phase,
    pub chance: f64,
}

/// Chances per opportunity; 0 where the seed leaves the fault out.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub crash: f64,
    pub freeze: f64,
    pub stall: f64,
    /// A frozen process is replaced by another one under the same ids.
    pub replace: f64,
    pub produce_fails: f64,
    pub offsets_fail: f64,
    /// The answer to the end of a transaction is lost for good, and the end was lost too.
    pub end_lost: f64,
    /// The answer is lost for good, but the end was applied.
    pub end_unknown_applied: f64,
    /// An answer is lost and the same call again finds out.
    pub end_repeated: f64,
    pub abort_fails: f64,
    pub stands_fail: f64,
    pub stumble: f64,
    /// A call to the broker takes its time.
    pub slow_calls: f64,
    /// A heartbeat takes long, and so does the news that the member is none any more.
    pub late_heartbeats: f64,
    pub write_lost: f64,
    pub write_unknown_applied: f64,
    pub write_slow: f64,
    pub load_fails: f64,
    pub fence_unknown: f64,
    pub registry_fails: f64,
    pub catch_up_fails: f64,
}

/// A window of virtual time since the start in which something does not work.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub from: Duration,
    pub until: Duration,
}

impl Window {
    pub fn contains(&self, at: Duration) -> bool {
        self.from <= at && at < self.until
    }
}

/// Everything that is fixed about a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub partitions: i32,
    /// Delays of the retry topics, milliseconds.
    pub tiers_ms: Vec<u64>,
    /// Topics of them that exist from the beginning; the others are created in between.
    pub tiers_at_first: usize,
    pub max_attempts: u32,
    pub max_pending: usize,
    pub max_pending_per_user: usize,
    pub instances: usize,
    pub static_members: bool,
    pub users: usize,
    /// Most events are of one user.
    pub is_hot: bool,
    /// See [`Plan::busy`].
    pub is_busy: bool,
    pub events: usize,
    /// Events are produced within this time.
    pub span: Duration,
    /// All faults end here.
    pub quiet: Duration,
    pub lanes: usize,
    pub cache_max_bytes: usize,
    pub max_outbox_bytes: usize,
    pub batch_records: usize,
    pub batch_records_per_user: usize,
    pub campaign_changes: usize,
    pub poison: f64,
    pub duplicates: f64,
    pub late: f64,
    pub future: f64,
    pub erasures: f64,
    /// Events after a week of silence: the dedup window forgets what was before.
    pub leaps: f64,
    pub new_schemas: f64,
    /// The fences that stand at first are so far ahead: an owner of before had a wrong clock.
    pub fences_ahead: Option<Duration>,
    /// An instance whose clock is far off until then (rule F3).
    pub wrong_clock: Option<(usize, Duration)>,
    /// Offsets of the instances' clocks, milliseconds.
    pub clock_offsets_ms: Vec<i64>,
    pub rates: Rates,
    pub targets: Vec<Target>,
    /// Seconds between rebalances for no reason; `None` for none.
    pub storm: Option<f64>,
    /// Seconds between orderly restarts of an instance.
    pub restarts: Option<f64>,
    /// Longest time for a marker to reach its partition.
    pub slow_markers_ms: u64,
    pub broker_outages: Vec<Window>,
    pub store_outages: Vec<Window>,
    /// By user number.
    pub user_outages: Vec<(usize, Window)>,
    pub registry_outages: Vec<Window>,
}

/// Chooses between a few values.
fn one_of<T: Copy>(random: &mut ChaCha8Rng, values: &[T]) -> T {
    values[random.random_range(0..values.len())]
}

/// A rate that is there in some seeds only.
fn rate(random: &mut ChaCha8Rng, present: f64, low: f64, high: f64) -> f64 {
    if random.random_bool(present) { random.random_range(low..high) } else { 0.0 }
}

fn window(random: &mut ChaCha8Rng, quiet: Duration, shortest: f64, longest: f64) -> Window {
    let from = random.random_range(0.0..quiet.as_secs_f64());
    let length = random.random_range(shortest..longest);
    Window {
        from: Duration::from_secs_f64(from),
        until: Duration::from_secs_f64((from + length).min(quiet.as_secs_f64())),
    }
}

impl Plan {
    /// Whether the clock of a slot is far off now.
    pub fn is_clock_wrong(&self, slot: usize, at: Duration) -> bool {
        self.wrong_clock.is_some_and(|(wrong, until)| wrong == slot && at < until)
    }

    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let plan = Plan::drawn(seed);
        match seed % 25 {
            7 => plan.racing(),
            13 => plan.busy(),
            _ => plan,
        }
    }

    /// The same with a user who has something to say all the time, now and then under a schema that is not known yet: his
    /// records must catch up (rule P4).
    fn busy(mut self) -> Plan {
        self.users = 2;
        self.events = 400;
        (self.is_hot, self.is_busy) = (true, true);
        self.span = Duration::from_secs(25);
        self.quiet = Duration::from_secs(30);
        self.tiers_ms = vec![1_000, 10_000];
        self.tiers_at_first = 2;
        (self.max_pending, self.max_pending_per_user) = (1_000, 1_000);
        (self.batch_records, self.batch_records_per_user) = (200, 200);
        self.leaps = 0.0;
        (self.poison, self.new_schemas) = (0.0, 0.01);
        self.max_outbox_bytes = 1 << 20;
        // Nothing else slows him down, so that the figures say something about the order of retries alone.
        self.rates = Rates::default();
        (self.storm, self.restarts, self.wrong_clock) = (None, None, None);
        self.targets.clear();
        self.broker_outages.clear();
        self.store_outages.clear();
        self.user_outages.clear();
        self.registry_outages.clear();
        self
    }

    /// The same as a race for fences: they are ahead of all clocks, takers sleep, heartbeats are late. Two owners compute the
    /// same number hardly anywhere else (rule F1).
    fn racing(mut self) -> Plan {
        let sleeps =
            Target { strike: Strike::Freeze, hop: Hop::TakeFence, phase: Phase::Before, chance: 0.25 };
        self.targets = vec![sleeps];
        self.instances = 3;
        self.clock_offsets_ms = vec![1_500, 0, -1_500];
        self.fences_ahead = Some(Duration::from_secs(120));
        self.wrong_clock = None;
        self.static_members = false;
        self.rates = Rates { late_heartbeats: 0.6, crash: self.rates.crash, ..Rates::default() };
        self.restarts = Some(6.0);
        self.storm = Some(2.5);
        self.broker_outages.clear();
        self.store_outages.clear();
        self
    }

    fn drawn(seed: u64) -> Plan {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let partitions = one_of(random, &[1, 1, 2, 2, 3, 4]);
        let instances = one_of(random, &[1, 1, 2, 2, 3]);
        let tiers_ms: Vec<u64> = match random.random_range(0..10) {
            0 => vec![1_000],
            1 => vec![2_000, 3_000],
            2..6 => vec![1_000, 4_000, 15_000],
            _ => vec![1_000, 10_000],
        };
        let tiers_at_first =
            if random.random_bool(0.1) { random.random_range(1..=tiers_ms.len()) } else { tiers_ms.len() };
        let span = Duration::from_secs_f64(random.random_range(5.0..45.0));
        let quiet = span + Duration::from_secs_f64(random.random_range(1.0..20.0));
        let users = one_of(random, &[2, 4, 8, 16, 30]);
        let rates = Rates {
            crash: rate(random, 0.6, 0.000_5, 0.004),
            freeze: rate(random, 0.35, 0.000_3, 0.002),
            stall: rate(random, 0.2, 0.000_3, 0.002),
            replace: rate(random, 0.3, 0.2, 0.6),
            produce_fails: rate(random, 0.25, 0.005, 0.05),
            offsets_fail: rate(random, 0.25, 0.005, 0.05),
            end_lost: rate(random, 0.35, 0.01, 0.08),
            end_unknown_applied: rate(random, 0.35, 0.01, 0.08),
            end_repeated: rate(random, 0.25, 0.01, 0.1),
            abort_fails: rate(random, 0.3, 0.05, 0.5),
            stands_fail: rate(random, 0.25, 0.01, 0.2),
            stumble: rate(random, 0.15, 0.002, 0.02),
            slow_calls: rate(random, 0.25, 0.01, 0.1),
            late_heartbeats: rate(random, 0.15, 0.05, 0.5),
            write_lost: rate(random, 0.3, 0.005, 0.05),
            write_unknown_applied: rate(random, 0.3, 0.005, 0.05),
            write_slow: rate(random, 0.3, 0.01, 0.1),
            load_fails: rate(random, 0.35, 0.005, 0.08),
            fence_unknown: rate(random, 0.3, 0.02, 0.3),
            registry_fails: rate(random, 0.2, 0.02, 0.3),
            catch_up_fails: rate(random, 0.2, 0.02, 0.3),
        };
        let mut targets = Vec::new();
        while random.random_bool(0.45) && targets.len() < 3 {
            targets.push(Target {
                strike: one_of(random, &[Strike::Crash, Strike::Crash, Strike::Freeze, Strike::Stall]),
                hop: if random.random_bool(0.4) {
                    one_of(random, &Hop::TELLING)
                } else {
                    one_of(random, &Hop::ALL)
                },
                phase: one_of(random, &Phase::ALL),
                chance: random.random_range(0.01..0.15),
            });
        }
        let skewed = random.random_bool(0.3);
        let outages = |random: &mut ChaCha8Rng, present: f64, most: usize, shortest: f64, longest: f64| {
            let count = if random.random_bool(present) { random.random_range(1..=most) } else { 0 };
            (0..count).map(|_| window(random, quiet, shortest, longest)).collect::<Vec<_>>()
        };
        Plan {
            seed,
            partitions,
            tiers_at_first,
            max_attempts: one_of(random, &[2, 3, 5]),
            max_pending: one_of(random, &[5, 40, 1_000]),
            max_pending_per_user: one_of(random, &[4, 20, 1_000]),
            instances,
            static_members: random.random_bool(0.4),
            users,
            is_hot: random.random_bool(0.4),
            is_busy: false,
            events: one_of(random, &[20, 60, 120, 240]),
            span,
            quiet,
            lanes: random.random_range(1..=3),
            cache_max_bytes: one_of(random, &[0, 2_000, 10_000, 1 << 20, 1 << 20]),
            max_outbox_bytes: one_of(random, &[1_500, 4_000, 1 << 20, 1 << 20]),
            batch_records: one_of(random, &[1, 3, 8, 30, 100]),
            batch_records_per_user: one_of(random, &[1, 4, 100, 100]),
            campaign_changes: one_of(random, &[0, 1, 3, 8]),
            poison: rate(random, 0.5, 0.02, 0.3),
            duplicates: rate(random, 0.5, 0.02, 0.2),
            late: rate(random, 0.5, 0.02, 0.2),
            future: rate(random, 0.3, 0.02, 0.15),
            erasures: rate(random, 0.3, 0.01, 0.06),
            leaps: rate(random, 0.3, 0.05, 0.3),
            new_schemas: rate(random, 0.4, 0.05, 0.3),
            clock_offsets_ms: (0..instances)
                .map(|_| if skewed { random.random_range(-1_800..1_800) } else { 0 })
                .collect(),
            fences_ahead: random.random_bool(0.08).then(|| Duration::from_secs(random.random_range(10..120))),
            wrong_clock: random
                .random_bool(0.06)
                .then(|| (random.random_range(0..instances), quiet.mul_f64(random.random_range(0.1..0.7)))),
            targets,
            storm: random.random_bool(0.3).then(|| random.random_range(0.3..6.0)),
            restarts: random.random_bool(0.25).then(|| random.random_range(3.0..15.0)),
            slow_markers_ms: one_of(random, &[5, 50, 1_000, 4_000]),
            broker_outages: outages(random, 0.15, 2, 0.5, 6.0),
            store_outages: outages(random, 0.25, 2, 0.5, 8.0),
            user_outages: {
                let count = if random.random_bool(0.4) { random.random_range(1..=6) } else { 0 };
                (0..count)
                    .map(|_| (random.random_range(0..users), window(random, quiet, 0.5, 20.0)))
                    .collect()
            },
            registry_outages: outages(random, 0.2, 2, 0.5, 6.0),
            tiers_ms,
            rates,
        }
    }
}
