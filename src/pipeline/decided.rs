//! Third hop: what a batch is going to write and publish, decided but not yet stored.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{GroupToken, Input, OutputRecord};
use crate::decision::{Outcome, ReasonCode};
use crate::store::Cell;
use crate::telemetry::metrics::{EventResult, Metrics};

/// Code of the records that only wait behind another one, in the metrics.
const BLOCKED: &str = "blocked";

/// What happened to the records of a batch, counted only once it has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events with at least one decision.
    pub decided: u64,
    /// Events without a decision.
    pub ignored: u64,
    /// Events whose id had been seen.
    pub duplicates: u64,
    /// Records at or below the applied position.
    pub replayed: u64,
    /// Of those, records that neither outbox nor dedup window knows (rule S8).
    pub unexplained: u64,
    /// Records that went to a retry topic because they failed, by code.
    pub parked: BTreeMap<&'static str, u64>,
    /// Records that went to a retry topic only because an earlier one of their user waits there.
    pub blocked: u64,
    /// Retry records that wait no more.
    pub unparked: u64,
    /// Of the ignored events, those passed over without reading a state (rule K1).
    pub skipped: u64,
    /// Events of an erased user, not newer than the erasure.
    pub erased: u64,
    /// Outbox entries of an older incarnation of the topic, dropped.
    pub outdated: u64,
    /// Dead letters by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// Decisions by outcome and reason.
    pub decisions: BTreeMap<(Outcome, ReasonCode), u64>,
    /// Record timestamps, ms since the Unix epoch, for the latency of each event.
    pub timestamps_ms: Vec<i64>,
}

impl Tally {
    /// Adds what another lane counted.
    pub fn add(&mut self, other: Tally) {
        self.decided += other.decided;
        self.ignored += other.ignored;
        self.duplicates += other.duplicates;
        self.replayed += other.replayed;
        self.unexplained += other.unexplained;
        for (code, count) in other.parked {
            *self.parked.entry(code).or_default() += count;
        }
        self.blocked += other.blocked;
        self.unparked += other.unparked;
        self.skipped += other.skipped;
        self.erased += other.erased;
        self.outdated += other.outdated;
        for (code, count) in other.dead_letters {
            *self.dead_letters.entry(code).or_default() += count;
        }
        for (key, count) in other.decisions {
            *self.decisions.entry(key).or_default() += count;
        }
        self.timestamps_ms.extend(other.timestamps_ms);
    }

    /// Publishes the counts; `now_ms` is when the batch had committed.
    pub fn publish(&self, metrics: &Metrics, now_ms: i64) {
        metrics.events(EventResult::Decided, self.decided);
        metrics.events(EventResult::Ignored, self.ignored);
        metrics.events(EventResult::Duplicate, self.duplicates);
        metrics.skipped_events(self.skipped);
        metrics.events(EventResult::Erased, self.erased);
        for (code, count) in &self.parked {
            metrics.parked(code, *count);
        }
        if self.blocked > 0 {
            metrics.parked(BLOCKED, self.blocked);
        }
        metrics.unparked(self.unparked);
        metrics.outdated_entries(self.outdated);
        metrics.replayed_records(self.replayed);
        (0..self.unexplained).for_each(|_| metrics.unexplained_replay());
        for (code, count) in &self.dead_letters {
            metrics.events(EventResult::DeadLetter, *count);
            (0..*count).for_each(|_| metrics.dead_letter(code));
        }
        for ((outcome, reason), count) in &self.decisions {
            metrics.decisions(*outcome, *reason, *count);
        }
        let latencies = metrics.event_latencies();
        for timestamp_ms in &self.timestamps_ms {
            let latency_ms = u32::try_from(now_ms.saturating_sub(*timestamp_ms)).unwrap_or(0);
            latencies.observe(f64::from(latency_ms) / 1_000.0);
        }
        latencies.flush();
    }
}

/// What one lane made of its slice.
#[derive(Debug, Default)]
pub struct Slice {
    /// Changed cells, at their fenced timestamps.
    pub cells: Vec<Cell>,
    /// Output records, in order per user.
    pub outputs: Vec<OutputRecord>,
    /// Counts.
    pub tally: Tally,
    /// What waits of the lane's users.
    pub waiting: LaneWaiting,
}

/// What waits in the retry topics of one lane's users, as far as the bounds go (rule P8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneWaiting {
    /// Records by partition.
    pub counts: BTreeMap<i32, usize>,
    /// Partitions with a user of whom too many wait.
    pub overfull: BTreeSet<i32>,
}

/// A batch whose lanes have all answered.
#[derive(Debug)]
pub struct Decided {
    /// Number of the batch.
    pub batch: u64,
    /// Changed cells.
    pub cells: Vec<Cell>,
    /// Output records.
    pub outputs: Vec<OutputRecord>,
    /// What the batch commits.
    pub next_offsets: BTreeMap<Input, i64>,
    /// What it commits with.
    pub group: GroupToken,
    /// Counts.
    pub tally: Tally,
    /// What waits, by lane; lanes without a record of the batch are missing.
    pub waiting: BTreeMap<usize, LaneWaiting>,
    /// When the batch was handed to the lanes.
    pub started: tokio::time::Instant,
}

impl Decided {
    /// Takes in what a lane answered.
    pub fn add(&mut self, lane: usize, slice: Slice) {
        self.waiting.insert(lane, slice.waiting);
        self.cells.extend(slice.cells);
        self.outputs.extend(slice.outputs);
        self.tally.add(slice.tally);
    }
}
