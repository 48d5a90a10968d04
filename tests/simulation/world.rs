//! What all instances share: time, chance, the broker, the store, the books.
//!
//! One thread, virtual time, one source of random numbers: the same seed gives the same run to the last step. Nothing here
//! reads another clock or another source of chance.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::campaigns::Timeline;
use crate::faults::Plan;
use crate::log::Broker;
use crate::registry::Registry;
use crate::report::Books;
use crate::store::Tables;
use crate::workload::Placed;

/// Wall clock at the start of every run: 2026-01-15T12:00:00Z.
pub const NOON_MS: i64 = 1_768_478_400_000;

/// The world of one seed.
pub struct World {
    pub plan: Plan,
    started: Instant,
    random: Mutex<ChaCha8Rng>,
    broker: Mutex<Broker>,
    tables: Mutex<Tables>,
    books: Mutex<Books>,
    pub timeline: Timeline,
    pub registry: Registry,
    /// What producers have written, in order.
    pub placed: Mutex<Vec<Placed>>,
    /// Foreign records on retry topics: tier, partition, offset.
    pub forged: Mutex<Vec<(u8, i32, i64)>>,
    /// Users of whom a transaction has carried a retry record.
    pub ever_parked: Mutex<BTreeSet<String>>,
    /// Users whose cell could not be read at some time.
    pub unloadable: Mutex<BTreeSet<String>>,
    /// Users of whom a zombie has written a cell so late that rule K2 does not cover it.
    pub late_zombie_cells: Mutex<BTreeSet<String>>,
    /// Something has happened to a partition.
    pub moved: Notify,
    verbose: bool,
    trace: AtomicU64,
}

/// The lock, whether or not somebody has panicked under it: the panic is reported by itself.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world in which nothing has happened. Must be called inside the runtime.
    pub fn new(plan: Plan, timeline: Timeline, registry: Registry, verbose: bool) -> Arc<World> {
        Arc::new(World {
            started: Instant::now(),
            // Another stream than that of the plan.
            random: Mutex::new(ChaCha8Rng::seed_from_u64(plan.seed ^ 0x5eed_5eed_5eed_5eed)),
            broker: Mutex::new(Broker::new(&plan)),
            tables: Mutex::new(Tables::new(&plan)),
            books: Mutex::default(),
            timeline,
            registry,
            placed: Mutex::default(),
            forged: Mutex::default(),
            ever_parked: Mutex::default(),
            unloadable: Mutex::default(),
            late_zombie_cells: Mutex::default(),
            moved: Notify::new(),
            verbose,
            trace: AtomicU64::new(0xcbf2_9ce4_8422_2325),
            plan,
        })
    }

    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        lock(&self.broker)
    }

    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The true wall clock, ms since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        NOON_MS + i64::try_from(self.elapsed().as_millis()).expect("a run is short")
    }

    /// Whether all faults have ended.
    pub fn is_quiet(&self) -> bool {
        self.elapsed() >= self.plan.quiet
    }

    /// A fault's chance; never in the quiet.
    pub fn strikes(&self, chance: f64) -> bool {
        chance > 0.0 && !self.is_quiet() && self.happens(chance)
    }

    /// Chance of what is no fault.
    pub fn happens(&self, chance: f64) -> bool {
        lock(&self.random).random_bool(chance)
    }

    /// A random number of the range.
    pub fn draw(&self, range: Range<u64>) -> u64 {
        lock(&self.random).random_range(range)
    }

    /// A random time of the range, in milliseconds.
    pub fn draw_ms(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    /// Counts a happening.
    pub fn count(&self, what: &str) {
        self.books().count(what, 1);
    }

    /// Something must not be: the seed has failed.
    pub fn violation(&self, what: impl fmt::Display) {
        let text = format!("{:>8} ms: {what}", self.elapsed().as_millis());
        self.say(format_args!("VIOLATION {text}"));
        self.books().violations.push(text);
    }

    /// Tells what happens, when a seed is replayed.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        if self.verbose {
            println!("{:>8} {what}", self.elapsed().as_millis());
        }
    }

    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Folds a step into the fingerprint of the run.
    pub fn mark(&self, step: u64) {
        let time = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut trace = self.trace.load(Ordering::Relaxed);
        for part in [time, step] {
            trace = (trace ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
        self.trace.store(trace, Ordering::Relaxed);
    }

    /// Fingerprint of everything that has happened: equal for equal runs.
    pub fn fingerprint(&self) -> u64 {
        self.trace.load(Ordering::Relaxed)
    }

    /// When the outage that holds now is over; now when there is none.
    pub fn broker_back(&self) -> Instant {
        let at = self.elapsed();
        let until =
            self.plan.broker_outages.iter().filter(|w| w.contains(at)).map(|w| w.until).max().unwrap_or(at);
        self.started + until
    }
}
