//! What the pipeline is told at start.

use std::time::Duration;

use super::breaker::Limits;
use super::parking::Tiers;
use crate::partitioner::Partitioner;

/// Settings of the processor; the configuration makes them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the events topic, for fences, headers and error texts.
    pub events_topic: String,
    /// Sequential workers; a user always maps to the same one.
    pub lanes: usize,
    /// Bound of the cached states of all lanes together, bytes.
    pub cache_max_bytes: usize,
    /// How far an event may be ahead of the clock.
    pub max_future_skew: Duration,
    /// Largest record value.
    pub max_record_bytes: usize,
    /// Largest encoded decision; a larger one becomes `suppress: too_large` (rule S9).
    pub max_decision_bytes: usize,
    /// Most decisions of one event; more make it a dead letter (rule S9).
    pub max_decisions_per_event: usize,
    /// Bytes of one user's outbox at which a batch is given up and read again in smaller pieces (rule S9).
    pub max_outbox_bytes: usize,
    /// The partitioner of all producers.
    pub events_partitioner: Partitioner,
    /// How long a revocation or a shutdown waits for what is in flight.
    pub drain_timeout: Duration,
    /// Session time-out of the group: a member that is silent for longer is expelled.
    pub session_timeout: Duration,
    /// Longest time that a write to the store can be under way.
    pub store_write_timeout: Duration,
    /// When work waits for an ill store or registry.
    pub breaker: Limits,
    /// Records that cannot be handled now.
    pub retry: RetrySettings,
}

/// How records wait that cannot be handled now.
#[derive(Clone, Debug)]
pub struct RetrySettings {
    /// What the names of the retry topics begin with; a dot and the tier follow.
    pub topic: String,
    /// The retry topics' delays.
    pub tiers: Tiers,
    /// Attempts of a record that fails by its own fault before it is a dead letter (rule P5).
    pub max_attempts: u32,
    /// Records of one partition that may wait; then `events` of that partition pauses (rule P8).
    pub max_pending: usize,
    /// Records of one user that may wait; then the partition pauses, loudly (rule P8).
    pub max_pending_per_user: usize,
}
