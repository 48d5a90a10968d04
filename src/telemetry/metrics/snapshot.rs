//! The values of the metrics at one moment, for summaries and tests.

use std::collections::BTreeMap;

use prometheus::Histogram;
use prometheus::core::Collector;

use super::EventResult;
use crate::decision::{Outcome, ReasonCode};

/// The values at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Records by what became of them; every result is there.
    pub events: BTreeMap<EventResult, u64>,
    /// Decisions published by outcome and reason.
    pub decisions: BTreeMap<(Outcome, ReasonCode), u64>,
    /// Dead letters by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// Batches committed.
    pub batches: u64,
    /// Rewinds, all causes.
    pub rewinds: u64,
    /// Repeated store calls, all operations.
    pub store_retries: u64,
    /// See [`super::Metrics::unexplained_replay`].
    pub unexplained_replays: u64,
    /// See [`super::Metrics::replayed_records`].
    pub replayed_records: u64,
    /// Records of `campaigns` that do not parse.
    pub campaign_records_rejected: u64,
    /// Audit rows written.
    pub projected_rows: u64,
    /// Records the projection passed over.
    pub projection_skipped: u64,
    /// States written.
    pub state_writes: u64,
    /// States read from the store.
    pub state_loads: u64,
    /// Partitions assigned.
    pub assigned_partitions: i64,
    /// Campaigns that can decide.
    pub campaigns_active: i64,
    /// User states in memory.
    pub cached_users: i64,
    /// Their bytes.
    pub cached_bytes: i64,
    /// Batches between poll and commit.
    pub batches_in_flight: i64,
    /// Whether work waits because something around it must mend first.
    pub paused: bool,
    /// How often breakers have opened, of all dependencies.
    pub breaker_opens: u64,
    /// From record timestamp to commit.
    pub event_latency: Latency,
}

impl Snapshot {
    /// Records with one result.
    pub fn events(&self, result: EventResult) -> u64 {
        self.events.get(&result).copied().unwrap_or(0)
    }

    /// Records with any result.
    pub fn events_total(&self) -> u64 {
        self.events.values().sum()
    }

    /// Decisions with one outcome.
    pub fn decisions(&self, outcome: Outcome) -> u64 {
        self.decisions.iter().filter(|((of, _), _)| *of == outcome).map(|(_, count)| count).sum()
    }
}

/// A histogram read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// Upper bound of each bucket in seconds and how many lie at or below it.
    pub cumulative: Vec<(f64, u64)>,
    /// All observations, those above the last bound too.
    pub count: u64,
    /// Sum of all observations, seconds.
    pub sum_seconds: f64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let families = histogram.collect();
        let metrics = families.first().map(|family| family.get_metric()).unwrap_or_default();
        let Some(metric) = metrics.first() else { return Self::default() };
        let read = metric.get_histogram();
        Self {
            cumulative: read
                .get_bucket()
                .iter()
                .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                .collect(),
            count: read.get_sample_count(),
            sum_seconds: read.get_sample_sum(),
        }
    }

    /// The quantile in seconds, interpolated within its bucket as Prometheus does; `None` without observations, the
    /// last bound when it lies above.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * self.count as f64;
        let (mut low, mut below) = (0.0, 0_u64);
        for (bound, cumulative) in &self.cumulative {
            if *cumulative as f64 >= rank && *cumulative > below {
                let share = (rank - below as f64) / (*cumulative - below) as f64;
                return Some(low + (bound - low) * share.max(0.0));
            }
            (low, below) = (*bound, *cumulative);
        }
        Some(low)
    }
}
