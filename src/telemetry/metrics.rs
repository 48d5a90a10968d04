//! Every metric of campaignd: names, labels and buckets are in this module and nowhere else.
//!
//! Names begin with `campaignd_`, units are base units, counters end in `_total`; no user id is ever a label. Call
//! sites use typed methods. What runs per record is collected in a lane or a batch first and added once a batch.

mod snapshot;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::local::LocalHistogram;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use snapshot::{Latency, Snapshot};

use crate::decision::{Outcome, ReasonCode};

/// Start of every metric's name.
const NAMESPACE: &str = "campaignd";

/// Buckets from half a millisecond to a minute.
const SECONDS: [f64; 20] = [
    0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

macro_rules! labels {
    ($(#[doc = $doc:literal])+ pub enum $name:ident { $( $(#[doc = $variant_doc:literal])+ $variant:ident = $label:literal, )+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[doc = $variant_doc])+ $variant, )+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The label value.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $label, )+ }
            }
        }
    };
}

labels! {
    /// What became of a record of `events`; each record counts once per commit that carries it.
    pub enum EventResult {
        /// It was decided and at least one campaign came to a decision.
        Decided = "decided",
        /// It was applied, but no campaign came to a decision.
        Ignored = "ignored",
        /// Its event id was seen before.
        Duplicate = "duplicate",
        /// It went to the dead letter topic.
        DeadLetter = "dead_letter",
        /// Its user has been erased since, and it is not newer than that.
        Erased = "erased",
    }
}

labels! {
    /// Why the processor went back to the committed offsets.
    pub enum RewindCause {
        /// A transaction failed or was fenced.
        Transaction = "transaction",
        /// A batch was abandoned, because a rebalance would not wait for it.
        Abandoned = "abandoned",
        /// The assignment was lost.
        Assignment = "assignment",
        /// A state could not be loaded or written and the batch was given up.
        Store = "store",
        /// A user's outbox was full; the batch is read again in smaller pieces.
        OutboxFull = "outbox_full",
        /// Something else failed in a lane.
        Internal = "internal",
    }
}

labels! {
    /// A call to the store.
    pub enum StoreOperation {
        /// Loading states.
        Load = "load",
        /// Writing states.
        Write = "write",
        /// Taking or reading a fence.
        Fence = "fence",
        /// Writing audit rows.
        Audit = "audit",
    }
}

labels! {
    /// What a breaker watches.
    pub enum Dependency {
        /// The store of states and fences.
        Store = "store",
        /// The schema registry.
        Registry = "registry",
    }
}

impl std::fmt::Display for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry per label value, in the order of its `ALL`.
struct ByLabel<L: 'static, M = IntCounter>(Vec<(L, M)>);

impl<L: Copy + PartialEq, M> ByLabel<L, M> {
    fn get(&self, label: L) -> Option<&M> {
        self.0.iter().find(|(known, _)| *known == label).map(|(_, metric)| metric)
    }
}

impl<L: Copy + PartialEq> ByLabel<L> {
    fn add(&self, label: L, count: u64) {
        if let Some(counter) = self.get(label) {
            counter.inc_by(count);
        }
    }

    fn value(&self, label: L) -> u64 {
        self.get(label).map_or(0, IntCounter::get)
    }
}

struct Inner {
    registry: Registry,
    events: ByLabel<EventResult>,
    decisions: IntCounterVec,
    decision_handles: Mutex<BTreeMap<(Outcome, ReasonCode), IntCounter>>,
    dead_letters: IntCounterVec,
    dead_letter_codes: Mutex<BTreeMap<String, IntCounter>>,
    batches: IntCounter,
    rewinds: ByLabel<RewindCause>,
    store_retries: ByLabel<StoreOperation>,
    registry_retries: IntCounter,
    breaker_open: ByLabel<Dependency, IntGauge>,
    breaker_opens: ByLabel<Dependency>,
    breaker_probes: ByLabel<Dependency>,
    unexplained_replays: IntCounter,
    replayed_records: IntCounter,
    parked: IntCounterVec,
    unparked: IntCounter,
    pending_records: IntGauge,
    held_partitions: IntGauge,
    skipped_events: IntCounter,
    outdated_entries: IntCounter,
    campaign_records_rejected: IntCounter,
    projected_rows: IntCounter,
    projection_skipped: IntCounter,
    state_writes: IntCounter,
    state_loads: IntCounter,
    batch_seconds: Histogram,
    commit_seconds: Histogram,
    event_latency_seconds: Histogram,
    assigned_partitions: IntGauge,
    campaigns_active: IntGauge,
    campaigns_position: IntGauge,
    cached_users: IntGauge,
    cached_bytes: IntGauge,
    batches_in_flight: IntGauge,
    paused: IntGauge,
    /// How many wait at present; the gauge says whether any does.
    waiting: Mutex<usize>,
}

/// The metrics of one processor; clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// A metric could not be made; a programming error that the tests of this module find.
#[derive(Debug, thiserror::Error)]
#[error("a metric is declared wrongly: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

impl Metrics {
    /// Fresh metrics with a registry of their own, so that two processors of one process do not mix.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| register(&registry, IntCounter::with_opts(opts(name, help))?);
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::with_opts(opts(name, help))?);
        let vector = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(opts(name, help), labels)?)
        };
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(SECONDS.to_vec());
            register(&registry, Histogram::with_opts(opts)?)
        };
        let events = vector("events_total", "Records of `events` by what became of them.", &["result"])?;
        let rewinds = vector("rewinds_total", "Returns to the committed offsets by cause.", &["cause"])?;
        let retries = vector("store_retries_total", "Store calls that were repeated.", &["operation"])?;
        let opens = vector("breaker_opens_total", "How often a breaker has opened.", &["dependency"])?;
        let probes =
            vector("breaker_probes_total", "Probes that an open breaker let through.", &["dependency"])?;
        let open = register(
            &registry,
            IntGaugeVec::new(
                opts("breaker_open", "1 while work waits because the dependency is ill."),
                &["dependency"],
            )?,
        )?;
        let open = Dependency::ALL
            .iter()
            .map(|dependency| Ok((*dependency, open.get_metric_with_label_values(&[dependency.as_str()])?)))
            .collect::<Result<_, MetricsError>>()?;
        let inner = Inner {
            breaker_open: ByLabel(open),
            breaker_opens: each(&opens, Dependency::ALL, Dependency::as_str)?,
            breaker_probes: each(&probes, Dependency::ALL, Dependency::as_str)?,
            events: each(&events, EventResult::ALL, EventResult::as_str)?,
            decisions: vector("decisions_total", "Decisions published.", &["outcome", "reason"])?,
            decision_handles: Mutex::default(),
            dead_letters: vector("dead_letters_total", "Records sent to the dead letter topic.", &["code"])?,
            dead_letter_codes: Mutex::default(),
            batches: counter("batches_total", "Batches committed.")?,
            rewinds: each(&rewinds, RewindCause::ALL, RewindCause::as_str)?,
            store_retries: each(&retries, StoreOperation::ALL, StoreOperation::as_str)?,
            registry_retries: counter("registry_retries_total", "Schema look-ups that were repeated.")?,
            unexplained_replays: counter(
                "unexplained_replays_total",
                "Records at or below the applied position that neither the outbox nor the dedup window knows.",
            )?,
            replayed_records: counter(
                "replayed_records_total",
                "Records whose outputs came from the outbox of an earlier, uncommitted attempt.",
            )?,
            parked: vector(
                "parked_records_total",
                "Records sent to a retry topic, by what failed; `blocked`: only behind another one of the user.",
                &["code"],
            )?,
            unparked: counter("unparked_records_total", "Records of retry topics that wait no more.")?,
            pending_records: gauge(
                "pending_records",
                "Records that wait in the retry topics of our partitions.",
            )?,
            held_partitions: gauge(
                "held_partitions",
                "Partitions of `events` that pause because too much of them waits in retry topics.",
            )?,
            skipped_events: counter(
                "skipped_events_total",
                "Of the ignored events, those passed over without reading a state.",
            )?,
            outdated_entries: counter(
                "outdated_entries_total",
                "Outbox entries dropped because the topic has been made anew since.",
            )?,
            campaign_records_rejected: counter(
                "campaign_records_rejected_total",
                "Records of `campaigns` that do not parse; the last good version stays.",
            )?,
            projected_rows: counter("projected_rows_total", "Audit rows written.")?,
            projection_skipped: counter(
                "projection_skipped_total",
                "Records of `decisions` that the projection could not read and passed over.",
            )?,
            state_writes: counter("state_writes_total", "User states written.")?,
            state_loads: counter("state_loads_total", "User states read from the store.")?,
            batch_seconds: histogram("batch_seconds", "From the closing of a batch to its commit.")?,
            commit_seconds: histogram("commit_seconds", "Of that, the Kafka transaction.")?,
            event_latency_seconds: histogram(
                "event_latency_seconds",
                "From a record's timestamp to the commit of its results.",
            )?,
            assigned_partitions: gauge("assigned_partitions", "Partitions of `events` assigned here.")?,
            campaigns_active: gauge("campaigns_active", "Campaigns that can decide.")?,
            campaigns_position: gauge(
                "campaigns_position",
                "Offset of the last record of `campaigns` in use.",
            )?,
            cached_users: gauge("cached_users", "User states in memory.")?,
            cached_bytes: gauge("cached_bytes", "Bytes of user states in memory.")?,
            batches_in_flight: gauge("batches_in_flight", "Batches between poll and commit.")?,
            paused: gauge("paused", "1 while work waits because something around it must mend first.")?,
            waiting: Mutex::default(),
            registry,
        };
        inner.campaigns_position.set(-1);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// `count` records ended as `result`.
    pub fn events(&self, result: EventResult, count: u64) {
        self.inner.events.add(result, count);
    }

    /// `count` decisions were published. Takes a lock: call it once a batch and pair, not per decision.
    pub fn decisions(&self, outcome: Outcome, reason: ReasonCode, count: u64) {
        let mut handles = self.inner.decision_handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles
            .entry((outcome, reason))
            .or_insert_with(|| {
                self.inner.decisions.with_label_values(&[&wire_name(&outcome), &wire_name(&reason)])
            })
            .inc_by(count);
    }

    /// A record went to the dead letter topic under one of the stable error codes.
    pub fn dead_letter(&self, code: &str) {
        let mut codes = self.inner.dead_letter_codes.lock().unwrap_or_else(PoisonError::into_inner);
        match codes.get(code) {
            Some(counter) => counter.inc(),
            None => {
                let counter = self.inner.dead_letters.with_label_values(&[code]);
                counter.inc();
                codes.insert(code.to_string(), counter);
            }
        }
    }

    /// A batch was committed.
    pub fn batch(&self) {
        self.inner.batches.inc();
    }

    /// The processor went back to the committed offsets.
    pub fn rewind(&self, cause: RewindCause) {
        self.inner.rewinds.add(cause, 1);
    }

    /// A store call is repeated.
    pub fn store_retry(&self, operation: StoreOperation) {
        self.inner.store_retries.add(operation, 1);
    }

    /// A schema look-up was repeated because the registry did not answer.
    pub fn registry_retry(&self) {
        self.inner.registry_retries.inc();
    }

    /// The breaker has opened.
    pub fn breaker_opened(&self, dependency: Dependency) {
        self.inner.breaker_opens.add(dependency, 1);
        self.set_breaker_open(dependency, true);
    }

    /// The breaker has closed.
    pub fn breaker_closed(&self, dependency: Dependency) {
        self.set_breaker_open(dependency, false);
    }

    fn set_breaker_open(&self, dependency: Dependency, open: bool) {
        if let Some(gauge) = self.inner.breaker_open.get(dependency) {
            gauge.set(i64::from(open));
        }
    }

    /// An open breaker has let a probe through.
    pub fn breaker_probe(&self, dependency: Dependency) {
        self.inner.breaker_probes.add(dependency, 1);
    }

    /// A record at or below the applied position is known to nobody (rule S8).
    pub fn unexplained_replay(&self) {
        self.inner.unexplained_replays.inc();
    }

    /// `count` records were answered from the outbox.
    pub fn replayed_records(&self, count: u64) {
        self.inner.replayed_records.inc_by(count);
    }

    /// `count` records went to a retry topic for this reason.
    pub fn parked(&self, code: &str, count: u64) {
        self.inner.parked.with_label_values(&[code]).inc_by(count);
    }

    /// `count` records of retry topics wait no more.
    pub fn unparked(&self, count: u64) {
        self.inner.unparked.inc_by(count);
    }

    /// So many records wait in the retry topics of our partitions, and so many partitions pause because of it.
    pub fn set_pending(&self, records: usize, held_partitions: usize) {
        set(&self.inner.pending_records, records);
        set(&self.inner.held_partitions, held_partitions);
    }

    /// `count` events were passed over without reading a state.
    pub fn skipped_events(&self, count: u64) {
        self.inner.skipped_events.inc_by(count);
    }

    /// `count` outbox entries of an older incarnation were dropped.
    pub fn outdated_entries(&self, count: u64) {
        self.inner.outdated_entries.inc_by(count);
    }

    /// A record of `campaigns` does not parse.
    pub fn campaign_record_rejected(&self) {
        self.inner.campaign_records_rejected.inc();
    }

    /// `count` audit rows were written.
    pub fn projected_rows(&self, count: u64) {
        self.inner.projected_rows.inc_by(count);
    }

    /// The projection passed over a record it cannot read.
    pub fn projection_skipped(&self) {
        self.inner.projection_skipped.inc();
    }

    /// `count` user states were written.
    pub fn state_writes(&self, count: u64) {
        self.inner.state_writes.inc_by(count);
    }

    /// `count` user states were read from the store.
    pub fn state_loads(&self, count: u64) {
        self.inner.state_loads.inc_by(count);
    }

    /// A batch took so long from its closing to its commit.
    pub fn batch_seconds(&self, seconds: f64) {
        self.inner.batch_seconds.observe(seconds);
    }

    /// A Kafka transaction took so long.
    pub fn commit_seconds(&self, seconds: f64) {
        self.inner.commit_seconds.observe(seconds);
    }

    /// A recorder of event latencies for one thread.
    pub fn event_latencies(&self) -> EventLatencies {
        EventLatencies(self.inner.event_latency_seconds.local())
    }

    /// Partitions of `events` assigned here.
    pub fn set_assigned_partitions(&self, count: usize) {
        set(&self.inner.assigned_partitions, count);
    }

    /// Campaigns that can decide, and the offset of the last record of `campaigns` in use (-1: none).
    pub fn set_campaigns(&self, active: usize, position: i64) {
        set(&self.inner.campaigns_active, active);
        self.inner.campaigns_position.set(position);
    }

    /// User states in memory and their bytes.
    pub fn set_cache(&self, users: usize, bytes: usize) {
        set(&self.inner.cached_users, users);
        set(&self.inner.cached_bytes, bytes);
    }

    /// Adds to the user states in memory and their bytes; for lanes that each keep a part.
    pub fn add_cache(&self, users: i64, bytes: i64) {
        self.inner.cached_users.add(users);
        self.inner.cached_bytes.add(bytes);
    }

    /// Batches between poll and commit.
    pub fn set_batches_in_flight(&self, count: usize) {
        set(&self.inner.batches_in_flight, count);
    }

    /// Work waits because something around it must mend first, until what is returned is dropped.
    pub fn waiting(&self) -> Waiting {
        self.inner.change_waiting(|waiting| waiting + 1);
        Waiting(Arc::clone(&self.inner))
    }

    /// Everything in Prometheus' text format, and its content type.
    pub fn render(&self) -> Result<(String, Vec<u8>), MetricsError> {
        let encoder = TextEncoder::new();
        let mut body = Vec::with_capacity(16 * 1024);
        encoder.encode(&self.inner.registry.gather(), &mut body)?;
        Ok((encoder.format_type().to_string(), body))
    }

    /// The values as they are now, for summaries.
    pub fn snapshot(&self) -> Snapshot {
        let inner = &self.inner;
        let decisions = inner.decision_handles.lock().unwrap_or_else(PoisonError::into_inner);
        let dead = inner.dead_letter_codes.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            events: EventResult::ALL.iter().map(|result| (*result, inner.events.value(*result))).collect(),
            decisions: decisions.iter().map(|(pair, counter)| (*pair, counter.get())).collect(),
            dead_letters: dead.iter().map(|(code, counter)| (code.clone(), counter.get())).collect(),
            batches: inner.batches.get(),
            rewinds: RewindCause::ALL.iter().map(|cause| inner.rewinds.value(*cause)).sum(),
            store_retries: StoreOperation::ALL.iter().map(|op| inner.store_retries.value(*op)).sum(),
            unexplained_replays: inner.unexplained_replays.get(),
            replayed_records: inner.replayed_records.get(),
            campaign_records_rejected: inner.campaign_records_rejected.get(),
            projected_rows: inner.projected_rows.get(),
            projection_skipped: inner.projection_skipped.get(),
            state_writes: inner.state_writes.get(),
            state_loads: inner.state_loads.get(),
            assigned_partitions: inner.assigned_partitions.get(),
            campaigns_active: inner.campaigns_active.get(),
            cached_users: inner.cached_users.get(),
            cached_bytes: inner.cached_bytes.get(),
            batches_in_flight: inner.batches_in_flight.get(),
            paused: inner.paused.get() != 0,
            breaker_opens: Dependency::ALL.iter().map(|of| inner.breaker_opens.value(*of)).sum(),
            event_latency: Latency::of(&inner.event_latency_seconds),
        }
    }
}

impl Inner {
    /// The lock is held until the gauge says the same.
    fn change_waiting(&self, change: impl FnOnce(usize) -> usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = change(*waiting);
        self.paused.set(i64::from(*waiting > 0));
    }
}

/// Somebody waits; see [`Metrics::waiting`].
#[must_use]
pub struct Waiting(Arc<Inner>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.change_waiting(|waiting| waiting.saturating_sub(1));
    }
}

/// Latencies collected without touching shared memory; [`EventLatencies::flush`] adds them once a batch.
pub struct EventLatencies(LocalHistogram);

impl EventLatencies {
    /// An event took so long from its record's timestamp to the commit.
    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }

    /// Adds what was observed since the last flush.
    pub fn flush(&self) {
        self.0.flush();
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A handle per label value, made at the start, so that every series is there from the first scrape on.
fn each<L: Copy>(
    vector: &IntCounterVec,
    all: &[L],
    name: impl Fn(L) -> &'static str,
) -> Result<ByLabel<L>, MetricsError> {
    let handles = all.iter().map(|label| Ok((*label, vector.get_metric_with_label_values(&[name(*label)])?)));
    Ok(ByLabel(handles.collect::<Result<_, MetricsError>>()?))
}

fn set(gauge: &IntGauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// The word that a label shares with the wire formats.
fn wire_name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests;
